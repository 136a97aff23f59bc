// Shamir shares: the twin of workers/mpc/shamir_shares.py, and of its numbers on the wire.
//
//   node i holds f(i + 1) mod p = 2^89 − 1, f of degree t, f(0) the value, all else random
//
// An array of numbers is their limbs of 30, 30 and 29 bits as little-endian words of 32 bits, all
// lowest limbs first. Only reduced numbers are read.

import { demand } from "./wire.js";

export const ELEMENT_BYTES = 12;
const P = (1n << 89n) - 1n;
const MASKS = [(1n << 30n) - 1n, (1n << 30n) - 1n, (1n << 29n) - 1n];
const SHIFTS = [0n, 30n, 60n];
const RANDOM_BYTES = 1 << 16; // that a browser gives at once

const mod = (x) => ((x % P) + P) % P;

const numberOf = (limbs) => limbs.reduce((sum, limb, k) => sum | ((BigInt(limb) & MASKS[k]) << SHIFTS[k]), 0n);

// Uniform numbers; zero comes twice, once in 2^89.
const randoms = (count) => {
  const words = new Uint32Array(3 * count);
  for (let at = 0; at < words.length; at += RANDOM_BYTES / 4) crypto.getRandomValues(words.subarray(at, at + RANDOM_BYTES / 4));
  return Array.from({ length: count }, (_, i) => mod(numberOf(words.subarray(3 * i, 3 * i + 3))));
};

export const encoded = (numbers) => {
  const view = new DataView(new ArrayBuffer(ELEMENT_BYTES * numbers.length));
  numbers.forEach((x, i) =>
    SHIFTS.forEach((shift, k) => view.setUint32(4 * (k * numbers.length + i), Number((x >> shift) & MASKS[k]), true)),
  );
  return new Uint8Array(view.buffer);
};

// Throws Refused("bad_output") for what is not that many reduced numbers.
export const decoded = (data, count) => {
  const good = (condition) => demand(condition, "bad_output", "A node's share is no numbers of the field.");
  good(data.length === ELEMENT_BYTES * count);
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  return Array.from({ length: count }, (_, i) => {
    const limbs = SHIFTS.map((_, k) => BigInt(view.getUint32(4 * (k * count + i), true)));
    good(limbs.every((limb, k) => limb <= MASKS[k]));
    const number = numberOf(limbs);
    good(number < P);
    return number;
  });
};

// The shares of signed 64-bit integers by node, encoded.
export const split = (values, n, t) => {
  const secrets = Array.from(values, mod);
  const slopes = Array.from({ length: t }, () => randoms(secrets.length));
  return Array.from({ length: n }, (_, node) => {
    const point = BigInt(node + 1);
    return encoded(secrets.map((secret, i) => mod(slopes.reduceRight((sum, slope) => (sum + slope[i]) * point, 0n) + secret)));
  });
};

const power = (base, exponent) => {
  let [result, square] = [1n, mod(base)];
  for (let left = exponent; left > 0n; left >>= 1n) {
    if (left & 1n) result = (result * square) % P;
    square = (square * square) % P;
  }
  return result;
};

// λ with f(at) = Σ λ_i f(points[i]), for every f of degree under their number.
const factors = (points, at) =>
  points.map((point) => {
    const others = points.filter((other) => other !== point);
    const above = others.reduce((product, other) => mod(product * (at - other)), 1n);
    const below = others.reduce((product, other) => mod(product * (point - other)), 1n);
    return (above * power(below, P - 2n)) % P;
  });

const combined = (weights, shares) =>
  shares[0].map((_, i) => mod(weights.reduce((sum, weight, k) => sum + weight * shares[k][i], 0n)));

// The places whose shares are not what those at the chosen ones say.
const misfits = (chosen, points, shares) => {
  const known = chosen.map((place) => points[place]);
  const base = chosen.map((place) => shares[place]);
  return points.flatMap((point, place) => {
    const told = combined(factors(known, point), base);
    return told.every((x, i) => x === shares[place][i]) ? [] : [place];
  });
};

const choices = (count, size, from = 0) =>
  size === 0
    ? [[]]
    : Array.from({ length: count - from }, (_, k) => from + k).flatMap((first) =>
        choices(count, size - 1, first + 1).map((rest) => [first, ...rest]),
      );

// The signed integers from more than t + 1 nodes' shares, all of which must fit: BigInt64Array. `nodes`
// are the nodes' indices. Throws Refused("bad_output"), with who is wrong where enough shares tell.
export const opened = (nodes, shares, t) => {
  const points = nodes.map((node) => BigInt(node + 1));
  const first = points.slice(0, t + 1).map((_, place) => place);
  if (misfits(first, points, shares).length) {
    const most = Math.floor((nodes.length - t - 1) / 2);
    const wrong = choices(nodes.length, t + 1)
      .map((chosen) => misfits(chosen, points, shares))
      .find((places) => places.length <= most);
    const who = wrong ? `node ${wrong.map((place) => nodes[place]).join(", ")}` : "one can't tell which node";
    demand(false, "bad_output", `The nodes' shares of the answer do not fit together: ${who}.`);
  }
  const numbers = combined(factors(points.slice(0, t + 1), 0n), shares.slice(0, t + 1));
  return BigInt64Array.from(numbers, (x) => BigInt.asIntN(64, x > P / 2n ? x - P : x));
};
