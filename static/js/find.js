// The search box's keyboard: "/" goes there, arrows choose, Enter opens, Escape closes. What is
// found comes as HTML by htmx; without either, the form is an ordinary one.
(() => {
  "use strict";
  const form = document.querySelector("[data-find]");
  if (!form) return;
  const input = form.querySelector("input");
  const list = document.getElementById("find-list");
  input.setAttribute("role", "combobox");
  input.setAttribute("aria-autocomplete", "list");
  input.setAttribute("aria-expanded", "false");

  const options = () => [...list.querySelectorAll("[role=option]")];
  const active = () => list.querySelector("[aria-selected=true]");

  const mark = (option) => {
    active()?.setAttribute("aria-selected", "false");
    if (!option) return input.removeAttribute("aria-activedescendant");
    option.setAttribute("aria-selected", "true");
    option.scrollIntoView({ block: "nearest" });
    input.setAttribute("aria-activedescendant", option.id);
  };
  const open = (shown) => {
    list.hidden = !shown;
    input.setAttribute("aria-expanded", String(shown && options().length > 0));
    if (shown && options().length) input.setAttribute("aria-controls", "find-options");
    else input.removeAttribute("aria-controls");
    if (!shown) mark(null);
  };

  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input, textarea, select, [contenteditable]")) return;
    event.preventDefault();
    input.focus();
    input.select();
  });
  input.addEventListener("keydown", (event) => {
    const all = options(), at = all.indexOf(active());
    if ((event.key === "ArrowDown" || event.key === "ArrowUp") && all.length) {
      event.preventDefault();
      open(true);
      const step = event.key === "ArrowDown" ? 1 : -1;
      // One place more than options: the box itself, where Enter searches for what is typed.
      const next = ((at + 1 + step) % (all.length + 1) + all.length + 1) % (all.length + 1);
      mark(next ? all[next - 1] : null);
    } else if (event.key === "Enter" && active()) {
      event.preventDefault();
      active().click();
    } else if (event.key === "Escape") {
      event.preventDefault();
      if (list.hidden) return input.blur();
      dismissed = true;
      open(false);
    }
  });
  let dismissed = false; // by Escape: what is still on its way opens no list again
  input.addEventListener("input", () => { dismissed = false; mark(null); });
  input.addEventListener("focus", () => { if (options().length) open(true); });
  form.addEventListener("focusout", ({ relatedTarget }) => {
    if (!form.contains(relatedTarget)) open(false);
  });
  let chosen;
  list.addEventListener("htmx:beforeSwap", () => { chosen = active()?.href; });
  list.addEventListener("htmx:afterSwap", () => {
    open(!dismissed && document.activeElement === input && list.childElementCount > 0);
    mark(options().find((option) => option.href === chosen));
    const count = options().length;
    document.getElementById("announce").textContent =
      list.hidden ? "" : count ? `${count} found, arrows choose` : "Nothing found";
  });
})();
