// Canonical bytes, digests and signatures: the twin of apps/protocol/wire.py, byte for byte.
//
//   canonical(x) = JSON, keys sorted by code point, no spaces, UTF-8
//   digest(domain, x) = SHA-256(domain ‖ 0x00 ‖ bytes(x))          hex
//   message signed    =         domain ‖ 0x00 ‖ canonical(x)       Ed25519, RFC 8032

export const SAFE_INT = 2 ** 53;
const MAX_DEPTH = 32;
const HEX = /^(?:[0-9a-f]{2})*$/;
const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;
const ED25519 = { name: "Ed25519" };
const utf8 = new TextEncoder();

// What is wrong, for programs (`code`) and in words that are safe to show (`message`).
export class Refused extends Error {
  constructor(code, text, facts = {}) {
    super(text);
    this.name = "Refused";
    this.code = code;
    Object.assign(this, facts);
  }
}

export const demand = (condition, code, text, facts = {}) => {
  if (!condition) throw new Refused(code, text, facts);
};

// The one byte string of a value. Throws Refused("not_canonical") for fractions, integers beyond
// ±2^53, unpaired surrogates and everything that JSON does not know.
export const canonical = (value) => utf8.encode(written(value, 0));

const written = (value, depth) => {
  const good = (condition, text) => demand(condition, "not_canonical", text);
  good(depth <= MAX_DEPTH, `nested deeper than ${MAX_DEPTH}`);
  if (value === null || typeof value === "boolean") return String(value);
  if (typeof value === "string") {
    good(value.isWellFormed(), "a string holds an unpaired surrogate");
    return JSON.stringify(value);
  }
  if (typeof value === "number") {
    const whole = Number.isInteger(value) && Math.abs(value) <= SAFE_INT;
    good(whole, "a number is no integer within ±2^53");
    return JSON.stringify(value);
  }
  if (Array.isArray(value)) return `[${value.map((x) => written(x, depth + 1)).join(",")}]`;
  good(isTable(value), `${typeof value} has no canonical form`);
  const members = Object.keys(value)
    .sort(byCodePoint)
    .map((key) => `${written(key, depth + 1)}:${written(value[key], depth + 1)}`);
  return `{${members.join(",")}}`;
};

export const isTable = (value) =>
  typeof value === "object" && value !== null && [Object.prototype, null].includes(Object.getPrototypeOf(value));

// JavaScript's own order is that of UTF-16 units, which puts U+1F600 before U+FF5E.
const byCodePoint = (one, other) => {
  const [a, b] = [Array.from(one), Array.from(other)];
  for (let i = 0; i < Math.min(a.length, b.length); i += 1) {
    const difference = a[i].codePointAt(0) - b[i].codePointAt(0);
    if (difference) return difference;
  }
  return a.length - b.length;
};

export const same = (one, other) => hex(canonical(one)) === hex(canonical(other));

const message = (domain, content) => concat(utf8.encode(domain), new Uint8Array(1), content);

export const sha256 = async (bytes) => new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));

export const digest = async (domain, content) =>
  hex(await sha256(message(domain, content instanceof Uint8Array ? content : canonical(content))));

// A pair whose private half no script can read out.
export const signingKey = () => crypto.subtle.generateKey(ED25519, false, ["sign", "verify"]);

export const publicHex = async (key) => hex(new Uint8Array(await crypto.subtle.exportKey("raw", key)));

export const sign = async (privateKey, domain, value) =>
  hex(new Uint8Array(await crypto.subtle.sign(ED25519, privateKey, message(domain, canonical(value)))));

// Throws Refused("bad_signature") unless it is that key's signature over that content.
export const verify = async (publicKey, domain, value, signature) => {
  let good = false;
  try {
    const key = await crypto.subtle.importKey("raw", unhex(publicKey, 32), ED25519, false, ["verify"]);
    good = await crypto.subtle.verify(ED25519, key, unhex(signature, 64), message(domain, canonical(value)));
  } catch {
    good = false;
  }
  demand(good, "bad_signature", `The signature over ${domain} does not verify.`);
};

export const hex = (bytes) => Array.from(bytes, (x) => x.toString(16).padStart(2, "0")).join("");

export const isHex = (text, size) => typeof text === "string" && text.length === 2 * size && HEX.test(text);

export const unhex = (text, size) => {
  const good = typeof text === "string" && HEX.test(text) && (size === undefined || text.length === 2 * size);
  demand(good, "malformed", "Not lower-case hex of the right length.");
  return Uint8Array.from({ length: text.length / 2 }, (_, i) => parseInt(text.slice(2 * i, 2 * i + 2), 16));
};

const CHUNK = 0x8000; // as many arguments as every engine takes

export const b64 = (bytes) => {
  let text = "";
  for (let at = 0; at < bytes.length; at += CHUNK) {
    text += String.fromCharCode(...bytes.subarray(at, at + CHUNK));
  }
  return btoa(text);
};

export const unb64 = (text) => {
  demand(typeof text === "string" && BASE64.test(text), "malformed", "Not standard base64.");
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
};

export const concat = (...parts) => {
  const whole = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
};
