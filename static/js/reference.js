// Asks the API from its reference, as who is signed in here. Reading only: nothing here can pay.

for (const form of document.querySelectorAll("form.ask")) {
  const status = form.querySelector("[role=status]");
  const reply = form.parentElement.querySelector(".reply");

  const address = () => {
    let path = form.dataset.path;
    const query = new URLSearchParams();
    for (const { name, value, dataset } of form.querySelectorAll("[data-in]")) {
      if (dataset.in === "path") path = path.replace(`{${name}}`, encodeURIComponent(value));
      else if (value !== "") query.append(name, value);
    }
    return query.size ? `${path}?${query}` : path;
  };

  const words = (text) => {
    try {
      return JSON.stringify(JSON.parse(text), null, 2);
    } catch {
      return text; // CSV
    }
  };

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const began = performance.now();
    status.textContent = "Asking…";
    try {
      const answer = await fetch(address(), { credentials: "same-origin", cache: "no-store" });
      reply.firstElementChild.textContent = words(await answer.text());
      reply.hidden = false;
      status.textContent = `${answer.status} in ${Math.round(performance.now() - began)} ms`;
    } catch {
      reply.hidden = true;
      status.textContent = "The site did not answer. Try again in a moment.";
    }
  });
}
