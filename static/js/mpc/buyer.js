// The buyer in the page: rows go out shared and sealed, the answers are opened here and nowhere
// else. The twin of workers/client/buyer.py.
//
//   p = 1 / (1 + exp(−z)),   z the model's logit for (x − mean) / std
//
// or as coarse a step of p as the model's makers allow: apps/protocol/circuits/resolution.py.

import { answered, nodeSet } from "./nodes.js";
import { makeUpload, openOutputs, replyKey } from "./sealing.js";
import { digest, hex, demand, signingKey } from "./wire.js";

const INFERS = {
  label: "logistic_infer_label@1",
  band: "logistic_infer_band@1",
  rounded: "logistic_infer_rounded@1",
  logit: "logistic_infer@1",
};
const STEPS = { label: 2, band: 5, rounded: 101 };
const SLOT = "row";
const ROW_F = 16;
const CONSTANTS_F = 20;
const CONSTANTS_DOMAIN = "flai/normalisation/v1";
const FEATURE_BOUND = 16;
const TICKET_LIFETIME_S = 600;

// (x − mean) / std, each within ±16; the constants are the round's, integers at f = 20.
export const standardise = (row, { mean, std }) => {
  const real = (constant) => Number(constant) / 2 ** CONSTANTS_F;
  return row.map((x, i) => Math.min(Math.max((x - real(mean[i])) / real(std[i]), -FEATURE_BOUND), FEATURE_BOUND));
};

// The name of such constants: nodes refuse any but the model's own, since other ones, whoever shows
// them, would shift every row. The twin of apps/protocol/normalise.py. Throws Refused.
export const constantsDigest = ({ f, mean, std }) => digest(CONSTANTS_DOMAIN, { f, mean, std });

// round(x · 2^f), halves to even as numpy rounds.
export const fixed = (values, f) =>
  BigInt64Array.from(values, (value) => {
    const scaled = value * 2 ** f;
    const below = Math.floor(scaled);
    const odd = below % 2 !== 0;
    const up = scaled - below > 0.5 || (scaled - below === 0.5 && odd);
    return BigInt(up ? below + 1 : below);
  });

export const sigmoid = (z) => (z >= 0 ? 1 / (1 + Math.exp(-z)) : Math.exp(z) / (1 + Math.exp(z)));

// Everything of one query for one or many rows: the upload to send, and what opens and checks its
// answer. `price`: what they cost together, in micro-units. Throws Refused.
export const makeBatch = async (listing, rows, price) => {
  const { features, normalisation } = listing;
  const wide = (row) => row.length === features.length;
  const fits = rows.length > 0 && [normalisation.mean, normalisation.std, ...rows].every(wide);
  demand(fits, "bad_row", `The model takes ${features.length} values.`);
  demand(rows.every((row) => row.every(Number.isFinite)), "bad_row", "A value is missing or is not a finite number.");
  demand(!listing.obstacle, "circuit_changed", listing.obstacle);
  const known = Object.hasOwn(INFERS, listing.resolution) && INFERS[listing.resolution] === listing.circuit;
  demand(known, "unknown_circuit", `This page can't query ${listing.circuit}.`);
  const nodes = await nodeSet(listing.nodes);
  // Keys of its own for each query: neither question nor answer can be tied to another one's.
  const [reply, sender, named] = await Promise.all([replyKey(), signingKey(), constantsDigest(normalisation)]);
  const now = Math.floor(Date.now() / 1000);
  const fields = {
    scope: `query:${hex(crypto.getRandomValues(new Uint8Array(16)))}`,
    slot: SLOT,
    circuits: [listing.circuit],
    circuits_hash: listing.circuits_hash,
    params: { features: features.length, rows: rows.length, normalisation: named },
    f: ROW_F,
    model: listing.model,
    reply_key: reply.publicHex,
    price_micro: price,
    resolution: listing.resolution,
    issued_at: now,
    expires_at: now + TICKET_LIFETIME_S,
  };
  const values = fixed(rows.flatMap((row) => standardise(row, normalisation)), ROW_F);
  const upload = await makeUpload(values, [rows.length, features.length], fields, sender, nodes, reply.pair);
  return { upload, nodes, replyPair: reply.pair };
};

export const makeQuery = (listing, row, price = listing.price_micro) => makeBatch(listing, [row], price);

// What a word of the answer says: {logit, probability}, {probability}, {low, high} or {label}, 1 for
// the positive one. Throws Refused for a step that does not exist.
export const meaning = (resolution, word, f) => {
  if (resolution === "logit") {
    const logit = Number(word) / 2 ** f;
    return { logit, probability: sigmoid(logit) };
  }
  const step = Number(word);
  demand(0 <= step && step < STEPS[resolution], "bad_output", "The answer can't be trusted: there is no such step.");
  if (resolution === "rounded") return { probability: step / 100 };
  return resolution === "band" ? { low: step / 5, high: (step + 1) / 5 } : { label: step };
};

// The meaning of each row of a settled query, checked against the nodes it was sealed to. Throws
// Refused.
export const openAnswers = async (query, { upload, nodes, replyPair }) => {
  const { blobs, computing } = await answered(query, upload.ticket, nodes);
  const { values, f } = await openOutputs(blobs, upload.ticket, replyPair, nodes, computing);
  demand(values.length === upload.ticket.shape[0], "bad_output", "The nodes answered another number of rows.");
  return Array.from(values, (word) => meaning(upload.ticket.resolution, word, f));
};

export const openAnswer = async (query, asked) => (await openAnswers(query, asked))[0];
