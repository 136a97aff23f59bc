// The credential that a query's ticket shows, where a model's nodes ask for one: it is of a wallet key, which
// lends it to the key that signs the ticket. The twin of workers/client/proofs.py.

import { message } from "./consent.js";
import { demand, digest, publicHex, sign, signingKey } from "./wire.js";

const CREDENTIAL_DOMAIN = "flai/credential/v1";
const ASKER_DOMAIN = "flai/asker/v1";
const LENT_MS = 15 * 60_000;

// The proof by which tickets signed by `key` show the credential of this row of the API until then.
export const lent = async ({ issuer: { pid: issuer }, payload, signed }, walletKey, key, until_ms) => {
  const credential = await digest(CREDENTIAL_DOMAIN, message({ pid: issuer, kind: "credentials.issue", payload, ...signed }));
  const signature = await sign(walletKey, ASKER_DOMAIN, { v: 1, credential, key, until_ms });
  return { issuer, payload, signed, lent: { until_ms, signature } };
};

// A key of its own for a query, lent what `asked` asks for, of the `rows` that the wallet holds; `pairOf(key)` is the
// pair of the bound wallet key `key`, where this browser has it. Throws Refused("credential_needed").
export const asking = async (asked, { rows, key, pairOf }) => {
  const fits = ({ state, credential, signed, payload }) =>
    state === "in_force" && credential === asked.credential && asked.keys.includes(signed.key) && payload.key === key;
  const row = rows.find(fits);
  const lacking = `The model's nodes ask for a credential “${asked.credential}” that you do not hold. Nothing was sent.`;
  demand(row, "credential_needed", lacking);
  const wallet = await pairOf(key);
  const away = "Your wallet key shows the nodes your credential, and it is not in this browser: ask from the one where you made it, or from your program. Nothing was sent.";
  demand(wallet, "credential_needed", away);
  const pair = await signingKey();
  const proof = await lent(row, wallet.privateKey, await publicHex(pair.publicKey), Date.now() + LENT_MS);
  return { pair, proof };
};
