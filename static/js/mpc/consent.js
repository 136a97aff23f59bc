// What a party signs with its wallet key: the twin of apps/protocol/consent.py, byte for byte.

import { concat, demand, hex, isHex, publicHex, sign, unhex } from "./wire.js";

export const ACTION_DOMAIN = "flai/action/v1";
export const KEY_DOMAIN = "flai/party-key/v1";
const ED25519 = { name: "Ed25519" };
const PKCS8 = unhex("302e020100300506032b657004220420"); // RFC 8410: what stands before the seed

export const possession = (pid, purpose, key) => {
  const content = { pid, public_key: key };
  return purpose === "agent" ? content : { ...content, purpose };
};

export const message = ({ pid, kind, payload, key, nonce, expires_at }) => ({
  v: 1, pid, kind, payload, key, nonce, expires_at,
});

// {"key","nonce","expires_at","signature"}: the consent that goes along with an action.
export const consent = async (privateKey, said) => ({
  key: said.key,
  nonce: said.nonce,
  expires_at: said.expires_at,
  signature: await sign(privateKey, ACTION_DOMAIN, message(said)),
});

export const proof = (privateKey, pid, purpose, key) => sign(privateKey, KEY_DOMAIN, possession(pid, purpose, key));

// A recovery key is written down by its owner, so this one can be read out, once.
export const recoveryKey = async () => {
  const pair = await crypto.subtle.generateKey(ED25519, true, ["sign", "verify"]);
  const jwk = await crypto.subtle.exportKey("jwk", pair.privateKey);
  const padded = jwk.d.replaceAll("-", "+").replaceAll("_", "/");
  const code = hex(Uint8Array.from(atob(padded), (letter) => letter.charCodeAt(0)));
  return { code, privateKey: pair.privateKey, key: await publicHex(pair.publicKey) };
};

// The key of a recovery code. Throws Refused("malformed") for a text that is none.
export const recovered = async (code) => {
  const text = code.replace(/\s/g, "").toLowerCase();
  demand(isHex(text, 32), "malformed", "A recovery code has 64 digits, 0 to 9 and a to f.");
  const privateKey = await crypto.subtle.importKey("pkcs8", concat(PKCS8, unhex(text)), ED25519, true, ["sign"]);
  const jwk = await crypto.subtle.exportKey("jwk", privateKey);
  const padded = jwk.x.replaceAll("-", "+").replaceAll("_", "/");
  return { privateKey, key: hex(Uint8Array.from(atob(padded), (letter) => letter.charCodeAt(0))) };
};
