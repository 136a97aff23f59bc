// Proofs of RFC 9162 §2.1.3.2 and §2.1.4.2: the twin of apps/protocol/merkle.py. Hashes are bytes.

import { concat, demand, hex, sha256 } from "./wire.js";

const bad = (condition, text) => demand(condition, "proof_invalid", text);

export const leafHash = (data) => sha256(concat(new Uint8Array([0]), data));
const nodeHash = (left, right) => sha256(concat(new Uint8Array([1]), left, right));
const half = (n) => Math.floor(n / 2); // sizes go beyond 32 bits, so no shifts
const odd = (n) => n % 2 === 1;

// The root that leaf hash `leaf` at `index` and `path` lead to. Throws Refused("proof_invalid").
export const rootOf = async (leaf, index, size, path) => {
  bad(0 <= index && index < size, `There is no leaf ${index} in a tree of ${size}.`);
  let [fn, sn, hash] = [index, size - 1, leaf];
  for (const sibling of path) {
    bad(sn > 0, "The path is too long.");
    if (odd(fn) || fn === sn) {
      hash = await nodeHash(sibling, hash);
      while (!odd(fn) && fn) [fn, sn] = [half(fn), half(sn)];
    } else {
      hash = await nodeHash(hash, sibling);
    }
    [fn, sn] = [half(fn), half(sn)];
  }
  bad(sn === 0, "The path is too short.");
  return hash;
};

// Throws Refused("proof_invalid") unless `leaf` is the hash of leaf `index` in the tree (size, root).
export const verifyInclusion = async (leaf, index, size, path, root) => {
  const found = await rootOf(leaf, index, size, path);
  bad(hex(found) === hex(root), `Leaf ${index} is not in the tree of size ${size} with this root.`);
};

// Throws Refused("proof_invalid") unless the tree (second, secondRoot) begins with (first, firstRoot).
export const verifyConsistency = async (first, second, firstRoot, secondRoot, path) => {
  bad(0 < first && first <= second, `The log of ${second} entries is shorter than that of ${first}.`);
  if (first === second) {
    bad(!path.length && hex(firstRoot) === hex(secondRoot), `There are two different logs of ${first} entries.`);
    return;
  }
  let [fn, sn] = [first - 1, second - 1];
  while (odd(fn)) [fn, sn] = [half(fn), half(sn)];
  const hashes = fn === 0 ? [firstRoot, ...path] : [...path];
  bad(hashes.length > 0, "The path is too short.");
  let [old, now] = [hashes[0], hashes[0]];
  for (const hash of hashes.slice(1)) {
    bad(sn > 0, "The path is too long.");
    if (odd(fn) || fn === sn) {
      [old, now] = [await nodeHash(hash, old), await nodeHash(hash, now)];
      while (!odd(fn) && fn) [fn, sn] = [half(fn), half(sn)];
    } else {
      now = await nodeHash(now, hash);
    }
    [fn, sn] = [half(fn), half(sn)];
  }
  const same = sn === 0 && hex(old) === hex(firstRoot) && hex(now) === hex(secondRoot);
  bad(same, `The log of ${second} entries does not go on from that of ${first}.`);
};
