// A long form in steps: <form data-steps> shows one of its <fieldset class="step" id> at a time; the
// list of links to them (.strip) says where one is, what is behind and what is wrong. The last step
// shows all that was entered, before anything is sent. Each step has its own address, so that the
// browser's Back leads to the step before. What is said here about a field is a hint: the server
// checks everything. Without this file the form stands whole on its page.
(() => {
  "use strict";
  const form = document.querySelector("form[data-steps]");
  if (!form) return;
  const steps = [...form.querySelectorAll("fieldset.step")];
  const last = steps.length - 1;
  const links = [...form.querySelectorAll(".strip a")], names = links.map((link) => link.textContent);
  const button = (move) => form.querySelector(`[data-move=${move}]`);
  const classes = form.querySelector("select:has([data-label])");
  const DURATION = /^(0|none|(\d{1,6}\s*(s|sec|second|m|min|minute|h|hour|d|day|w|week)s?(?![a-z])[ ,]*)+)$/i;
  let at = 0, reached = 0;

  const make = (tag, properties = {}, ...children) => {
    const node = Object.assign(document.createElement(tag), properties);
    node.append(...children);
    return node;
  };
  const box = (control) => control.closest(".field");
  const titleOf = (step) => step.querySelector("h2").textContent;
  const nameOf = (control) => box(control).querySelector("label").firstChild.textContent.trim();
  const shown = (step) => [...step.querySelectorAll(".field")]
    .filter((field) => !field.hidden)
    .map((field) => field.querySelector("input, select, textarea"));

  // ---------- hints ----------

  const number = (text) => {
    const bare = text.replace(/[$%\s]/g, "");
    return Number(/^[+-]?\d{1,3}(,\d{3})+(\.\d*)?$/.test(bare) ? bare.replaceAll(",", "") : bare);
  };
  // What the server objected to stands until it is changed.
  const served = new Map([...form.querySelectorAll(".field.invalid")].map((field) =>
    [field.querySelector("input, select, textarea"), field.querySelector(".error")?.textContent])
    .map(([control, text]) => [control, { value: control.value, text }]));
  const problem = (control) => {
    const text = control.value.trim(), objection = served.get(control);
    if (objection?.text && objection.value === control.value) return objection.text;
    if (control.validity.badInput) return "Write a whole number.";
    if (!text) return control.required || "needed" in control.dataset ? "This is needed." : "";
    if (control.dataset.kind === "duration")
      return DURATION.test(text) ? "" : "Write it like 3 d, 12 h, 30 min or 10 s.";
    if (control.validity.rangeUnderflow) return `At least ${control.min}.`;
    if (control.inputMode !== "decimal") return "";
    const value = number(text), { most } = control.dataset;
    if (!Number.isFinite(value)) return "Write a number, like 12.50.";
    if (most && value > Number(most)) return `At most ${most}.`;
    const row = control.closest("[data-sum]");
    const parts = row ? [...row.querySelectorAll("input")] : [];
    if (parts[0] !== control) return "";
    const off = parts.reduce((sum, part) => sum + number(part.value), 0) - Number(row.dataset.sum);
    return Math.abs(off) < 0.005 ? "" : `Together they must make ${row.dataset.sum} %.`;
  };

  const tell = (control, text) => {
    const field = box(control), id = `${control.id}-error`;
    let error = document.getElementById(id);
    const hints = (control.getAttribute("aria-describedby") || "").split(" ")
      .filter((name) => name && name !== id);
    field.classList.toggle("invalid", Boolean(text));
    if (text) {
      if (!error) error = field.appendChild(make("span", { className: "error", id }));
      error.textContent = text;
      control.setAttribute("aria-invalid", "true");
      hints.unshift(id);
    } else {
      error?.remove();
      control.removeAttribute("aria-invalid");
    }
    control.setAttribute("aria-describedby", hints.join(" "));
    if (!hints.length) control.removeAttribute("aria-describedby");
  };

  // The first field of a step that is not right yet; each says what is wrong with it.
  const wrongIn = (step) => {
    const wrong = shown(step).filter((control) => {
      const text = problem(control);
      tell(control, text);
      return text;
    });
    return wrong[0];
  };

  // ---------- what belongs to the model class ----------

  const fit = () => {
    const { label, lead } = classes.selectedOptions[0].dataset;
    for (const control of form.querySelectorAll("[data-label]:not(option)")) {
      const field = box(control);
      field.hidden = !control.dataset.label.split(" ").includes(label)
        && !field.classList.contains("invalid");
      if ("needed" in control.dataset) field.querySelector("label .muted")?.remove();
    }
    for (const row of form.querySelectorAll(".form-row"))
      row.hidden = [...row.children].every((field) => field.hidden);
    const gate = form.querySelector("input[data-lead]");
    const name = lead === lead.toUpperCase() ? lead : lead.toLowerCase();
    box(gate).querySelector("label").firstChild.textContent = `Least ${name}`;
  };

  // ---------- the review ----------

  const said = (control) => {
    if (control.type === "checkbox") return control.checked ? "yes" : "no";
    if (control.matches("select")) return control.selectedOptions[0].textContent;
    const unit = control.parentNode.matches(".affix") ? control.nextElementSibling.textContent : "";
    return control.value.trim() && `${control.value.trim()} ${unit}`.trim();
  };
  const table = (text) => {
    const rows = text.split("\n").filter((line) => line.trim());
    const cells = rows.map((line) =>
      [...line.matchAll(/(?:^|,)\s*(?:"((?:[^"]|"")*)"|([^,]*))/g)]
        .map(([, quoted, bare]) => (quoted?.replaceAll('""', '"') ?? bare).trim()));
    const heads = ["Feature", "Unit", "From", "To"];
    if (cells.some((row) => row[4])) heads.push("Code");
    const line = (row) => make("tr", {}, ...heads.map((_, i) =>
      make(i ? "td" : "th", { textContent: row[i] || "—", ...(i ? {} : { scope: "row" }) })));
    const head = make("tr", {}, ...heads.map((name) => make("th", { textContent: name, scope: "col" })));
    const inner = make("table", {}, make("thead", {}, head), make("tbody", {}, ...cells.map(line)));
    const wrap = make("div", { className: "table-wrap", tabIndex: 0 }, inner);
    wrap.setAttribute("role", "region");
    wrap.setAttribute("aria-label", "Features");
    return wrap;
  };
  const summary = (step) => {
    const facts = make("dl", { className: "facts" }), further = [];
    for (const control of shown(step)) {
      const value = said(control), wrong = problem(control);
      if (control.matches(".code") && value) further.push(table(value));
      else if (value || wrong)
        facts.append(make("dt", { textContent: nameOf(control) }), make("dd", {}, value,
          ...(wrong ? [make("span", { className: "error", textContent: ` ${wrong}` })] : [])));
    }
    const change = make("a", { href: `#${step.id}`, textContent: "Change" });
    change.setAttribute("aria-label", `Change: ${titleOf(step)}`);
    const head = make("div", { className: "section-head" },
      make("h3", { textContent: titleOf(step) }), change);
    return make("section", { className: "stack" }, head, facts, ...further);
  };

  // ---------- from step to step ----------

  const mark = () => links.forEach((link, i) => {
    const bad = i !== at && i < last && i <= reached && shown(steps[i]).some(problem);
    const state = i === at ? "now" : bad ? "bad" : i <= reached ? "done" : "";
    link.parentNode.className = state;
    const words = { bad: ", to be mended", done: ", filled in" }[state] || "";
    link.replaceChildren(names[i], ...(words ? [make("span", { className: "hidden", textContent: words })] : []));
    if (i === at) link.setAttribute("aria-current", "step");
    else link.removeAttribute("aria-current");
  });

  // Shows a step and, when somebody asked for it, takes the focus there.
  const show = (index, focus) => {
    at = index;
    reached = Math.max(reached, at);
    steps.forEach((step, i) => { step.hidden = i !== at; });
    if (at === last)
      form.querySelector("#review").replaceChildren(...steps.slice(0, last).map(summary));
    button("back").hidden = at === 0;
    button("next").hidden = at === last;
    button("next").textContent = at < last ? `Next: ${names[at + 1].toLowerCase()}` : "";
    form.querySelector("button:not([type=button])").hidden = at !== last;
    mark();
    if (!focus) return;
    const heading = steps[at].querySelector("h2");
    if (focus === steps[at]) links[0].closest("nav").scrollIntoView();
    (focus === steps[at] ? heading : focus).focus({ preventScroll: focus === steps[at] });
  };

  const go = (index) => { window.location.hash = steps[index].id; };
  const refuse = (wrong) => {
    mark();
    wrong.focus();
  };
  const next = () => {
    const wrong = wrongIn(steps[at]);
    if (wrong) refuse(wrong);
    else go(at + 1);
  };

  window.addEventListener("hashchange", () => {
    const target = document.getElementById(window.location.hash.slice(1));
    const index = target ? steps.indexOf(target.closest("fieldset.step")) : 0;
    if (index >= 0) show(index, target || steps[0]);
  });
  button("back").addEventListener("click", () => go(at - 1));
  button("next").addEventListener("click", next);
  links.forEach((link, i) => link.addEventListener("click", (event) => {
    const wrong = i > at && wrongIn(steps[at]);
    if (!wrong) return;
    event.preventDefault();
    refuse(wrong);
  }));
  form.addEventListener("submit", (event) => {
    if (at < last) { // Enter in a field
      event.preventDefault();
      next();
      return;
    }
    const index = steps.findIndex(wrongIn);
    if (index < 0) return;
    event.preventDefault();
    show(index, wrongIn(steps[index]));
    window.history.pushState(null, "", `#${steps[index].id}`);
  });
  // A press takes the focus from a field before it is let go. What is said of the field then would move
  // the button from under the pointer, and nothing were clicked; so it is said after that.
  let pressed = Promise.resolve();
  window.addEventListener("pointerdown", () => {
    pressed = new Promise((resolve) => ["pointerup", "pointercancel"].forEach((end) =>
      window.addEventListener(end, () => window.setTimeout(resolve), { once: true })));
  });
  form.addEventListener("change", ({ target }) => {
    if (target === classes) fit();
    const row = target.closest("[data-sum]");
    const told = [...(row ? row.querySelectorAll("input") : [target])]
      .filter((control) => control.getAttribute("aria-invalid"));
    pressed.then(() => told.forEach((control) => tell(control, problem(control))));
  });

  // ---------- the beginning ----------

  // Where the server objected; else the step of the address, or the first before it that is not
  // filled in: the address may outlive what was entered.
  const start = () => {
    const refused = form.querySelector(".field.invalid");
    if (refused) return steps.indexOf(refused.closest("fieldset.step"));
    if (form.querySelector("#errors")) return last;
    const asked = steps.findIndex((step) => `#${step.id}` === window.location.hash);
    const open = steps.findIndex((step) => shown(step).some(problem));
    return Math.max(open < 0 ? asked : Math.min(asked, open), 0);
  };

  form.classList.add("stepped");
  links[last].parentNode.hidden = false;
  if (form.querySelector("#errors")) reached = last;
  let moved = false;
  window.addEventListener("hashchange", () => { moved = true; });
  fit();
  show(start());
  // By then the browser has put back what had been entered here before.
  window.addEventListener("pageshow", () => {
    fit();
    show(moved ? at : start());
  });
})();
