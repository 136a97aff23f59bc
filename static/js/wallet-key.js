// The wallet key's page: make and bind a key, add a recovery code, replace, recover, revoke.

import { proof, recovered, recoveryKey } from "./mpc/consent.js";
import { publicHex, signingKey } from "./mpc/wire.js";
import { keep, pairOf } from "./keystore.js";
import { ask, mine, signed, tell, walletSigner } from "./signing.js";

const root = document.getElementById("wallet-key");

const send = async (path, body) => {
  const token = root.querySelector("[name=csrfmiddlewaretoken]").value;
  const answer = await fetch(`/api/v1/wallet/keys/${path}/`, {
    method: "POST",
    headers: { "Content-Type": "application/json", Accept: "application/json", "X-CSRFToken": token },
    body: JSON.stringify(body),
  });
  if (!answer.ok) throw new Error((await answer.json()).detail);
  window.location.reload();
};

// Bind a fresh key of this browser; `by` signs the change where one is bound already.
const bindHere = async (state, by) => {
  const pair = await signingKey();
  const key = await publicHex(pair.publicKey);
  await keep(key, pair); // before the site knows it: it must never be bound and gone
  const word = by ? await signed(by, state, "keys.bind", { purpose: "wallet", public_key: key }) : undefined;
  if (word === null) return;
  const signature = await proof(pair.privateKey, state.pid, "wallet", key);
  await send("bind", { purpose: "wallet", public_key: key, signature, signed: word });
};

const note = (text) => {
  const made = document.createElement("p");
  made.textContent = text;
  return made;
};

const codeField = () => {
  const [label, input] = [document.createElement("label"), document.createElement("input")];
  label.textContent = "Recovery code ";
  Object.assign(input, { autocomplete: "off", spellcheck: false });
  label.append(input);
  return [label, input];
};

const recoverySigner = async () => {
  const [label, input] = codeField();
  const text = "The 64 digits that you wrote down. They stay in this page.";
  return (await ask("Your recovery code", [note(text), label], "Use it")) ? recovered(input.value) : null;
};

const ACTIONS = {
  make: async (state) => {
    const text = "From now on, what you pay, stake, vote and propose needs this browser's key besides your sign-in. "
      + "Nobody can make it again if it is lost: add a recovery code next.";
    if (await ask("Make a key in this browser?", [note(text)], "Make and bind the key")) await bindHere(state);
  },
  replace: async (state) => {
    const by = await walletSigner(state);
    if (by) await bindHere(state, by);
  },
  recover: async (state) => {
    const by = await recoverySigner();
    if (by) await bindHere(state, by);
  },
  "add-recovery": async (state) => {
    const by = await walletSigner(state);
    if (!by) return;
    const made = await recoveryKey();
    const code = document.createElement("pre");
    code.textContent = made.code.match(/.{1,8}/g).join(" ");
    code.id = "recovery-code";
    const text = "Write it down and keep it away from this computer. It is shown once. It can replace or revoke your "
      + "wallet key, and nothing else.";
    if (!(await ask("Your recovery code", [note(text), code], "I have written it down"))) return;
    const word = await signed(by, state, "keys.bind", { purpose: "recovery", public_key: made.key });
    if (!word) return;
    const signature = await proof(made.privateKey, state.pid, "recovery", made.key);
    await send("bind", { purpose: "recovery", public_key: made.key, signature, signed: word });
  },
  revoke: async (state) => {
    const own = await pairOf(state.keys.wallet);
    const by = own ? { key: state.keys.wallet, privateKey: own.privateKey } : await recoverySigner();
    const payload = { purpose: "wallet", public_key: state.keys.wallet };
    const word = by && (await signed(by, state, "keys.revoke", payload));
    if (word) await send("revoke", { purpose: "wallet", signed: word });
  },
};

root.addEventListener("click", async (event) => {
  const action = event.target.closest("button[data-do]")?.dataset.do;
  if (!action) return;
  try {
    await ACTIONS[action](await mine());
  } catch (error) {
    await tell("Not done", `${error.message} Nothing has changed.`);
  }
});

const here = root.querySelector("[data-here]");
if (here) {
  const has = await pairOf(here.dataset.here);
  here.textContent = has ? "This browser has it." : "This browser does not have it: act where you made it, or recover.";
}
