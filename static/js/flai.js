// Small comforts on top of pages that work without them: copying, and clocks that keep going.
(() => {
  "use strict";
  document.documentElement.classList.add("js");

  // Said to screen readers by one element and shown for a moment by another.
  let shown = 0;
  const say = (text) => {
    for (const id of ["announce", "toast"]) document.getElementById(id).textContent = text;
    window.clearTimeout(shown);
    shown = window.setTimeout(() => { document.getElementById("toast").textContent = ""; }, 4000);
  };

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button.copy");
    if (!button) return;
    const source = button.dataset.from && document.getElementById(button.dataset.from);
    try {
      const text = source ? (source.copied?.() ?? source.textContent.trim()) : button.dataset.text;
      await navigator.clipboard.writeText(text);
    } catch {
      say("Copying was refused by the browser. Select the text and copy it by hand.");
      return;
    }
    button.classList.add("done");
    say("Copied");
    window.setTimeout(() => button.classList.remove("done"), 1500);
  });

  // What own-key.js keeps of somebody goes with them, in each of their tabs.
  const forgetKey = () => window.sessionStorage.removeItem("flai-own-key");
  document.addEventListener("submit", ({ target }) => {
    if (!target.matches("[data-sign-out]")) return;
    try {
      forgetKey();
      window.localStorage.setItem("flai-signed-out", String(Date.now())); // the other tabs hear of it
    } catch { /* nothing was kept */ }
  });
  window.addEventListener("storage", ({ key }) => {
    if (key !== "flai-signed-out") return;
    forgetKey();
    document.dispatchEvent(new Event("flai-signed-out"));
  });

  // The same words as apps/explorer/formatting.py: relative(); keep the two alike.
  const STEPS = [[60, 1, "s"], [3600, 60, "min"], [172800, 3600, "h"], [Infinity, 86400, "d"]];
  const relative = (at, now) => {
    const seconds = Math.round(Math.abs(at - now) / 1000);
    if (seconds < 5) return "now";
    const [, unit, name] = STEPS.find(([limit]) => seconds < limit);
    const text = `${Math.floor(seconds / unit)} ${name}`;
    return at > now ? `in ${text}` : `${text} ago`;
  };
  const tick = () => {
    const now = Date.now();
    for (const node of document.querySelectorAll("time[data-relative]")) {
      const at = Date.parse(node.getAttribute("datetime"));
      if (Math.abs(at - now) > 30 * 86400e3) continue;
      const text = relative(at, now);
      if (node.textContent !== text) node.textContent = text;
    }
  };
  window.setInterval(tick, 1000);
  document.addEventListener("live:read", tick);
})();
