// Signs what a form asks for where a wallet key is bound. The form says its kind (data-sign); what is
// signed is made here, from its fields, and shown before: a dialog with the facts and the very bytes.

import { consent, message } from "./mpc/consent.js";
import { canonical, demand, digest } from "./mpc/wire.js";
import { pairOf } from "./keystore.js";

const LIFETIME_MS = 5 * 60_000;
const AMOUNT = /^(\d{1,12})(?:\.(\d{0,6}))?$/;
const GROUPED = /^\d{1,3}(,\d{3})+(\.\d*)?$/; // a comma elsewhere may mean a decimal point
const utf8 = new TextDecoder();

export const micro = (text) => {
  const bare = text.replace(/[$\s]/g, "");
  const parts = AMOUNT.exec(GROUPED.test(bare) ? bare.replaceAll(",", "") : bare);
  demand(parts, "malformed", "Write an amount like 12.50, with at most six decimals.");
  return String(BigInt(parts[1]) * 1_000_000n + BigInt((parts[2] ?? "").padEnd(6, "0")));
};

const tokens = (amount) => {
  const [value, part] = [BigInt(amount) / 1_000_000n, String(BigInt(amount) % 1_000_000n).padStart(6, "0")];
  return `${value.toLocaleString("en-US")}.${part}`.replace(/(\.\d\d)(\d*?)0+$/, "$1$2");
};

const short = (text) => `${text.slice(0, 6)}…${text.slice(-4)}`;
const staking = (form) => {
  const lock = form.elements.lock?.value ?? "0";
  const asked = { asset: form.elements.asset.value, amount_micro: micro(form.elements.amount.value) };
  return lock === "0" ? asked : { ...asked, lock_s: lock };
};
// Limits are what the form showed: the least that comes out, the most that goes in.
const swapping = (form) => ({
  base: form.dataset.base,
  side: form.elements.side.value,
  amount_micro: micro(form.elements.amount.value),
  out_min_micro: form.elements.out_min.value,
});
const adding = (form) => ({
  base: form.dataset.base,
  base_max_micro: micro(form.elements.base.value),
  quote_max_micro: micro(form.elements.quote.value),
  shares_min_micro: "0",
});
const removing = (form) => {
  const bps = BigInt(micro(form.elements.part.value)) / 10_000n;
  const part = (name) => (BigInt(form.elements[name].value) * bps) / 10_000n;
  const least = (name) => String((part(name) * 9_950n) / 10_000n);
  return {
    base: form.dataset.base,
    shares_micro: String(part("shares_micro")),
    base_min_micro: least("base_micro"),
    quote_min_micro: least("quote_micro"),
  };
};

// kind → what is signed, from the form and the button that sent it.
const PAYLOADS = {
  "wallets.send": (form) => ({ to: form.dataset.to, asset: form.dataset.asset, amount_micro: form.dataset.amount }),
  "wallets.stake": staking,
  "wallets.unstake": staking,
  "exchange.swap": swapping,
  "exchange.add": adding,
  "exchange.remove": removing,
  "rfms.pledge": (form) => ({ rfm: form.dataset.rfm, amount_micro: micro(form.elements.amount.value) }),
  "listings.mandate": (form) => ({
    listing: form.elements.listing.value.trim() || "*",
    limit_micro: micro(form.elements.limit.value),
    until_ms: form.elements.until_ms.value,
    api_key: form.elements.api_key.value,
  }),
  "listings.plan": (form) => {
    const field = (name) => form.elements[name].value;
    const names = ["plan", "at_ms", "rows", "due_micro", "refund_micro"];
    return { listing: form.dataset.listing, ...Object.fromEntries(names.map((name) => [name, field(name)])) };
  },
  "credentials.issue": (form) => {
    const field = (name) => form.elements[name].value;
    return Object.fromEntries(["credential", "subject", "key", "until_ms"].map((name) => [name, field(name)]));
  },
  "credentials.revoke": (form) => ({ id: form.elements.id.value }),
  "subdaos.convert": (form) => ({
    dao: form.dataset.dao,
    points_micro: form.elements.points_micro.value,
    tokens_min_micro: form.elements.tokens_min_micro.value,
  }),
  // The hash is made here, of the payload that is shown.
  "governance.propose": async (form) => {
    const asked = { dao: form.dataset.dao, kind: form.elements.kind.value, payload: JSON.parse(form.dataset.payload) };
    const hash = await digest("flai/proposal/v1", asked);
    return { dao: asked.dao, kind: asked.kind, payload_hash: hash };
  },
  "governance.vote": (form, button) => ({ proposal: form.dataset.proposal, support: button.value }),
};

// kind → the same in words, made from what is signed and from nothing else.
const WORDS = {
  "wallets.send": (x) => `Pay ${tokens(x.amount_micro)} ${x.asset} to the party ${short(x.to)}`,
  "wallets.stake": (x) =>
    `Stake ${tokens(x.amount_micro)} ${x.asset}${x.lock_s ? `, locked for ${Math.round(x.lock_s / 86_400)} days` : ""}`,
  "wallets.unstake": (x) => `Unstake ${tokens(x.amount_micro)} ${x.asset}`,
  "exchange.swap": (x) =>
    `Swap ${tokens(x.amount_micro)} ${x.side === "base" ? x.base : "USDC"} for at least ${tokens(x.out_min_micro)} ${x.side === "base" ? "USDC" : x.base}`,
  "exchange.add": (x) => `Put at most ${tokens(x.base_max_micro)} ${x.base} and ${tokens(x.quote_max_micro)} USDC into the pool`,
  "exchange.remove": (x) =>
    `Take at least ${tokens(x.base_min_micro)} ${x.base} and ${tokens(x.quote_min_micro)} USDC out of the pool`,
  "rfms.pledge": (x) => `Pledge ${tokens(x.amount_micro)} USDC to the request ${short(x.rfm)}`,
  "listings.mandate": (x) =>
    `Let predictions of ${x.listing === "*" ? "every model" : x.listing} take up to ${tokens(x.limit_micro)} USDC in all until ${new Date(Number(x.until_ms)).toISOString().slice(0, 10)}, asked for by ${x.api_key ? `the API key ${x.api_key}` : "this site's pages"}`,
  "listings.plan": (x) => {
    const moves = x.due_micro !== "0" ? `pay ${tokens(x.due_micro)} USDC` : `get ${tokens(x.refund_micro)} USDC back`;
    return x.plan
      ? `Have the plan “${x.plan}” of ${x.listing} with ${Number(x.rows).toLocaleString("en-US")} rows, and ${moves}`
      : `Cancel your plan of ${x.listing}, and ${moves}`;
  },
  "credentials.issue": (x) =>
    `Say of the party ${short(x.subject)}, whose key is ${short(x.key)}, that it is “${x.credential}” until ${new Date(Number(x.until_ms)).toISOString().slice(0, 10)}`,
  "credentials.revoke": (x) => `Revoke the credential ${short(x.id)}`,
  "subdaos.convert": (x) =>
    `Give up ${tokens(x.points_micro)} points of the SubDAO ${short(x.dao)} for at least ${tokens(x.tokens_min_micro)} of its tokens`,
  "governance.propose": (x) => `Propose ${x.kind} to the SubDAO ${short(x.dao)}, with the payload ${short(x.payload_hash)}`,
  "governance.vote": (x) => `Vote “${x.support}” on the proposal ${short(x.proposal)}`,
  "keys.bind": (x) => `Make ${short(x.public_key)} your ${x.purpose} key`,
  "keys.revoke": (x) => `Revoke your ${x.purpose} key ${short(x.public_key)}`,
};

const element = (name, text = "", attributes = {}) => {
  const made = document.createElement(name);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
};

// A modal dialog; resolves to whether its first button was pressed.
export const ask = (title, parts, yes, no = "Cancel") =>
  new Promise((resolve) => {
    const dialog = element("dialog", "", { class: "sign", "aria-labelledby": "sign-title" });
    const buttons = element("div", "", { class: "actions" });
    const answer = (text, style, value) => {
      const button = element("button", text, { type: "button", class: style });
      button.addEventListener("click", () => dialog.close(value));
      buttons.append(button);
    };
    if (yes) answer(yes, "button", "yes");
    answer(no, "button quiet", "no");
    dialog.append(element("h2", title, { id: "sign-title" }), ...parts, buttons);
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
    document.body.append(dialog);
    dialog.showModal();
  });

export const tell = (title, text) => ask(title, [element("p", text)], "", "Close");

// The party's keys and its next nonce, as the server has them now.
export const mine = async () => {
  const answer = await fetch("/api/v1/wallet/keys/", { headers: { Accept: "application/json" } });
  demand(answer.ok, "unreachable", "Your keys could not be read from the site. Nothing was sent; try again.");
  return answer.json();
};

// Shows exactly what will be signed, then signs. `signer`: { key, privateKey }. Null when declined.
export const signed = async (signer, state, kind, payload) => {
  const said = {
    pid: state.pid, kind, payload, key: signer.key, nonce: state.next_nonce, expires_at: Date.now() + LIFETIME_MS,
  };
  const bytes = element("details", "", { class: "more" });
  bytes.append(
    element("summary", "Exactly these bytes"),
    element("pre", utf8.decode(canonical(message(said))), { tabindex: "0" }),
  );
  const facts = [
    element("p", WORDS[kind](payload), { class: "lead" }),
    element("p", `Signed with the key ${short(signer.key)}, as its number ${said.nonce}; good for five minutes.`, { class: "soft" }),
    bytes,
  ];
  return (await ask("You sign this", facts, "Sign")) ? consent(signer.privateKey, said) : null;
};

// The bound wallet key, if this browser has it; otherwise says what to do and gives null.
export const walletSigner = async (state) => {
  const key = state.keys.wallet;
  const pair = key && (await pairOf(key));
  if (pair) return { key, privateKey: pair.privateKey };
  const text = key
    ? `This wallet is bound to the key ${short(key)}, which is not in this browser. Open the browser where you made it, or do the same with python3 -m workers.client. Lost it? Use your recovery code on the wallet key's page.`
    : "No key is bound to this wallet any more. Read the page again.";
  await tell("This browser does not have your key", `${text} Nothing was sent.`);
  return null;
};

const submit = async (form, button) => {
  const payload = await PAYLOADS[form.dataset.sign](form, button);
  const state = await mine();
  const signer = await walletSigner(state);
  const word = signer && (await signed(signer, state, form.dataset.sign, payload));
  if (!word) return;
  const field = (name, value) => {
    const made = element("input", "", { type: "hidden", name });
    made.value = value;
    form.append(made);
  };
  field("signed", JSON.stringify(word));
  if (button?.name) field(button.name, button.value);
  form.submit(); // past this listener
};

document.addEventListener("submit", (event) => {
  const form = event.target;
  const aside = event.submitter?.formMethod === "get" || event.submitter?.name === "change";
  if (!form.dataset.sign || aside) return;
  event.preventDefault();
  submit(form, event.submitter).catch((error) => tell("Not signed", `${error.message} Nothing was sent.`));
});
