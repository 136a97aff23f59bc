// The try-it form of a listing: checks a row, seals it, pays for it, opens the answer. Nothing of the
// row leaves the page but what makeQuery has sealed; the fields have no names, so no form sends them.

import { NOTHING_PAID, api, askLower, compare, dollars, inWords, shortfall, wallet } from "./asking.js";
import { over, pending, tableOf } from "./mpc/desk.js";
import { valueOf } from "./mpc/encoding.js";
import { replyKey } from "./mpc/sealing.js";
import { complaint } from "./mpc/tables.js";
import { Refused, signingKey } from "./mpc/wire.js";
import { manyRows } from "./try-many.js";

const DONE = { sealed: 1, held: 2, running: 2, released: 2, settled: 4 }; // steps of the course

const form = document.getElementById("try-form");
const part = (name) => document.getElementById(`try-${name}`);
const pay = part("pay");
const inputs = Array.from(form.querySelectorAll("[data-feature]"));
const offer = pay.innerHTML;
const [reading, features] = ["reading", "features"].map((name) => JSON.parse(part(name).textContent));
const { next } = api(form, features);

// The row that is asked. While its query's end is not known (`asked.open`) it is sent again, never made anew,
// so it can't be paid twice.
let asked = tableOf([]);

// ---- the row --------------------------------------------------------------------------------------

const check = (input) => {
  const wrong = complaint(input.value.trim(), features[inputs.indexOf(input)]);
  input.closest(".field").classList.toggle("invalid", wrong !== "");
  if (wrong) input.setAttribute("aria-invalid", "true");
  else input.removeAttribute("aria-invalid");
  document.getElementById(`${input.id}-error`).textContent = wrong;
  return wrong === "";
};

// The values in the model's order, or null after the first wrong one has got the focus.
const rowOf = () => {
  const wrong = inputs.filter((input) => !check(input));
  if (!wrong.length) return inputs.map((input, i) => valueOf(input.value.trim(), features[i]));
  wrong[0].focus();
  const count = wrong.length === 1 ? "One value is" : `${wrong.length} values are`;
  say(`${count} missing or out of range. Nothing was sent.`);
  return null;
};

// ---- what the page says ---------------------------------------------------------------------------

const announce = (text) => {
  document.getElementById("announce").textContent = text;
};

const say = (text, link = null) => {
  const [words, more] = part("said").children;
  words.textContent = text;
  more.hidden = !link;
  if (link) Object.assign(more.firstElementChild, { textContent: link.text, href: link.href, target: link.target ?? "" });
  part("said").hidden = !text;
};

// The course of the payment: what is done, what is under way, what is still to come.
const show = (state) => {
  part("outcome").hidden = false;
  Array.from(part("course").children).forEach((item, i) => {
    const done = i < DONE[state];
    const now = i === DONE[state] && !over(state);
    const last = item.dataset.step === "released";
    item.className = last ? "bad" : done ? "done" : now ? "now" : "next";
    item.hidden = last ? state !== "released" : over(state) && !done;
    if (now || item.dataset.step === state) announce(item.querySelector(".what").textContent);
  });
};

const linkTo = (id) => form.dataset.payment.replace(/[0-]{36}/, id);

const bar = ({ low, high }, text) => {
  const drawn = part("bar").content.firstElementChild.cloneNode(true);
  drawn.setAttribute("aria-label", text);
  const fill = drawn.querySelector(".fill");
  fill.setAttribute("x", `${100 * low}%`);
  fill.setAttribute("width", `${100 * (high - low)}%`);
  return drawn;
};

const tell = (said, query) => {
  const answer = part("answer");
  const words = inWords(said, reading);
  const value = answer.querySelector("data");
  value.value = words.value;
  value.textContent = words.text;
  part("scale").replaceChildren(...(words.bar ? [bar(words.bar, words.text)] : []));
  part("scale").firstElementChild?.classList.add("tall");
  part("classes").replaceChildren(
    ...words.each.map((one) => {
      const row = document.createElement("tr");
      const name = document.createElement("th");
      Object.assign(name, { scope: "row", textContent: one.name });
      row.append(name);
      const drawn = bar(one.bar, "");
      drawn.setAttribute("aria-hidden", "true"); // its neighbours say it
      row.insertCell().append(drawn);
      Object.assign(row.insertCell(), { className: "num", textContent: one.text });
      return row;
    }),
  );
  part("classes").closest(".table-wrap").hidden = words.each.length === 0;
  const paid = `paid ${dollars(query.price_micro)}`;
  const logit = reading.kind === "binary" && said.scores;
  answer.querySelector(".logit").textContent = logit
    ? `Logit ${logit[0].toFixed(4).replace("-", "−")} · ${paid}`
    : `P${paid.slice(1)}`;
  answer.hidden = false;
  answer.focus();
};

const busy = (yes) => {
  form.setAttribute("aria-busy", String(yes));
  form.querySelector("fieldset").disabled = yes || asked.open !== null;
  // A row that was paid may be left as it is: nothing more is paid for it either way.
  const free = (button) => button === pay || (asked.open?.paid && button.type === "reset");
  for (const button of form.querySelectorAll("button")) button.disabled = yes || (asked.open !== null && !free(button));
};

// ---- one query ------------------------------------------------------------------------------------

const heard = (state, id) => {
  show(state);
  if (id === undefined || !part("payment").hidden) return;
  Object.assign(part("payment"), { href: linkTo(id), hidden: false });
  part("balance")?.replaceChildren(); // it was true before this payment
};

// What is left after one, if the site says so.
const left = async () => {
  try {
    const { accounts } = await (await fetch(`${form.dataset.api}wallet/`, { credentials: "same-origin" })).json();
    const main = accounts.find(({ asset, purpose }) => asset === "USDC" && purpose === "main");
    part("balance").textContent = `You have ${dollars(main.available_micro)} left to spend.`;
  } catch {
    part("balance")?.replaceChildren();
  }
};

const predict = async () => {
  if (asked.open === null) {
    const row = rowOf();
    if (row === null) return;
    asked = tableOf([row]);
    part("answer").hidden = part("payment").hidden = true;
  }
  say("");
  busy(true);
  const query = await next(asked, { reading, show: heard });
  tell(asked.answers[0], query);
  left();
};

const AGAIN = "Keep this page open, and ask again: it is the same query, which can't be paid twice.";

const failed = (error) => {
  const { code, message, facts, detail } = error;
  const refused = error instanceof Refused;
  if (asked.open?.paid) {
    say(`${refused ? message : detail || "The site did not answer."} You have paid, and only this page can open the answer: keep it open and fetch it again, which costs nothing. The receipts are on the payment's page.`);
    pay.textContent = "Open what you paid";
    return;
  }
  if (pending(asked.open, error) || (!refused && asked.open !== null)) {
    // Its answer can be opened by the key that is in this page alone.
    asked.open.lost = true;
    const why = refused ? `${message} ${AGAIN} If you were signed out, sign in in another tab first.` : `${detail || "The site did not answer."} ${AGAIN}`;
    say(why);
    pay.textContent = "Ask again";
    return;
  }
  const taken = asked.open !== null;
  asked.open = null;
  if (code === "insufficient_balance") say(`Your balance is short by ${shortfall(facts.short_micro)}. ${NOTHING_PAID}`, wallet);
  else if (code === "other_nodes") say(message, compare);
  else if (code === "threshold_too_low") {
    askLower(error.lower, (accepted) => {
      if (!accepted) say("Nothing was sent. This browser sends no row of this model that fewer nodes can read.");
      else announce("Accepted for this model. Nothing has been sent yet.");
      pay.focus();
    });
  }
  else if (refused) say(taken || code === "released" ? `${message} ${NOTHING_PAID}` : message);
  else say("The site did not answer. Nothing was sent. Try again in a moment.");
  if (part("payment").hidden) part("outcome").hidden = true;
};

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (form.getAttribute("aria-busy") === "true") return;
  try {
    await predict();
    pay.innerHTML = offer;
  } catch (error) {
    pay.innerHTML = offer;
    failed(error);
  } finally {
    busy(false);
  }
});
form.addEventListener("reset", () => {
  if (asked.open?.paid) {
    asked.open = null;
    pay.innerHTML = offer;
    say("");
    busy(false);
  }
  window.setTimeout(() => inputs.forEach(check));
});
// While it is typed, not when it is left: a message that goes as the button is pressed moves the button.
form.addEventListener("input", (event) => {
  if (event.target.matches("[aria-invalid]")) check(event.target);
});
// The key that opens the answer is in this page alone.
window.addEventListener("beforeunload", (event) => {
  if (asked.open !== null) event.preventDefault();
});

// A browser that can't make these keys can't keep the promise above the form.
try {
  await Promise.all([replyKey(), signingKey()]);
  form.hidden = false;
  part("needs").remove();
  manyRows(form, features, reading);
} catch {
  part("needs").firstChild.textContent =
    "This browser can't seal your row: it takes a current one (with X25519 and Ed25519), over HTTPS or on this machine. Otherwise, ";
}
