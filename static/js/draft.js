// What somebody has entered in <form data-draft="who"> outlives a reload of its tab: kept in the tab's store
// until the form is sent. Where the server objected, what it sent back counts. Stands before steps.js.
(() => {
  "use strict";
  const form = document.querySelector("form[data-draft]");
  if (!form) return;
  const KEY = `flai-draft ${form.dataset.draft} ${window.location.pathname}${window.location.search}`;
  const back = form.querySelector("[data-draft-back]");
  const controls = [...form.elements].filter(({ name, type }) =>
    name && !["hidden", "submit", "password", "file"].includes(type));
  const tick = (control) => control.type === "checkbox" || control.type === "radio";
  const valueOf = (control) => (tick(control) ? control.checked : control.value);
  const own = (work) => {
    try {
      return work(window.sessionStorage);
    } catch {
      return null; // without a store nothing outlives a reload
    }
  };
  const keep = () => own((store) => store.setItem(KEY, JSON.stringify(controls.map(valueOf))));
  const forget = () => own((store) => store.removeItem(KEY));
  const put = (values) => controls.forEach((control, i) => {
    if (tick(control)) control.checked = values[i];
    else control.value = values[i];
  });

  const refused = form.querySelector("#errors") !== null;
  if (refused) keep();
  const kept = refused ? null : own((store) => JSON.parse(store.getItem(KEY)));
  if (kept?.length === controls.length) {
    put(kept);
    back.hidden = false;
  }
  form.addEventListener("input", keep);
  form.addEventListener("change", keep);
  window.addEventListener("submit", ({ target, defaultPrevented }) => {
    if (target === form && !defaultPrevented) forget();
  });
  back.querySelector("button").addEventListener("click", () => {
    forget();
    window.location.assign(window.location.pathname + window.location.search);
  });
})();
