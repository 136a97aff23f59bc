// One's own API key in the snippets of a page. It is kept in this tab's store, where somebody chooses that, and filled in
// here. It is sent nowhere: the server keeps a hash of a key and never sees one come back but from a program.
//
// <code data-key-place="$FLAI_API_KEY"> says what of it stands for the key: a shell's variable, or an expression. The key
// is masked until it is asked for; what is copied has it whole.
(() => {
  "use strict";
  const STORE = "flai-own-key"; // as flai.js forgets it at a sign-out
  const KEY = /^flai_[A-Za-z0-9_-]{20,120}$/;
  const PREFIX = 12; // as the list of keys shows them
  const part = (name) => document.getElementById(`own-key-${name}`);
  const party = document.querySelector("[data-own-key]").dataset.ownKey;
  const places = [...document.querySelectorAll("code[data-key-place]")].map((code) => ({ code, text: code.textContent }));
  let shown = false;

  const own = (work) => {
    try {
      return work(window.sessionStorage);
    } catch {
      return null; // without a store there is nothing to keep it in
    }
  };
  const forget = () => own((store) => store.removeItem(STORE));
  // The key, of who is signed in here; another's is forgotten.
  const kept = () => {
    const found = own((store) => JSON.parse(store.getItem(STORE)));
    if (found === null) return null;
    if (party && found.party === party && KEY.test(found.key)) return found.key;
    forget();
    return null;
  };
  const keep = (key) => own((store) => (store.setItem(STORE, JSON.stringify({ party, key })), true)) === true;

  const filled = ({ code, text }, key) => {
    const place = code.dataset.keyPlace;
    return text.replaceAll(place, () => (place.startsWith("$") ? key : JSON.stringify(key)));
  };
  const show = () => {
    const key = kept();
    const masked = key && `${key.slice(0, PREFIX)}${"•".repeat(8)}`;
    for (const place of places) {
      place.code.textContent = key ? filled(place, shown ? key : masked) : place.text;
      place.code.copied = key ? () => filled(place, key).trim() : null;
    }
    for (const node of document.querySelectorAll("[data-key-none]")) node.hidden = key !== null;
    if (!part("kept")) return;
    part("give").hidden = key !== null;
    part("kept").hidden = key === null;
    part("name").textContent = key ? `${key.slice(0, PREFIX)}…` : "";
    part("show").textContent = shown ? "Mask it" : "Show it";
    part("show").setAttribute("aria-pressed", String(shown));
  };
  const say = (text) => {
    part("error").textContent = text;
    document.getElementById("announce").textContent = text;
  };
  const NO_STORE = "This browser keeps nothing for a tab: put the key into the snippet by hand.";

  if (part("panel") && party) {
    part("panel").hidden = false;
    part("give").addEventListener("submit", (event) => {
      event.preventDefault();
      const key = part("text").value.trim();
      if (!KEY.test(key)) return say("This is no whole API key: it begins with flai_ and was shown once, where it was made.");
      if (!keep(key)) return say(NO_STORE);
      part("text").value = "";
      shown = false;
      show();
      return say("");
    });
    part("show").addEventListener("click", () => {
      shown = !shown;
      show();
    });
    part("forget").addEventListener("click", () => {
      forget();
      shown = false;
      show();
      part("text").focus();
    });
  }
  // Where a key has just been made.
  if (part("fresh") && party) {
    part("fresh").hidden = false;
    part("fresh").addEventListener("click", () => {
      const done = keep(document.getElementById("fresh-key").textContent.trim());
      part("fresh-said").textContent = done ? "Kept: the snippets on models' pages have it in this tab." : NO_STORE;
      part("fresh").disabled = done;
      show();
    });
  }
  const anew = () => {
    shown = false;
    show();
  };
  document.addEventListener("flai-signed-out", anew);
  // Back to a page as it was left, whoever signed out since.
  window.addEventListener("pageshow", ({ persisted }) => persisted && anew());
  show();
})();
