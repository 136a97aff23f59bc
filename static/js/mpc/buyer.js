// The buyer in the page: rows go out shared and sealed, the answers are opened here and nowhere
// else. The twin of workers/client/buyer.py.
//
// What the words of an answer mean is the listing's `reading`: apps/protocol/targets.py.

import { encode, width } from "./encoding.js";
import { answered, nodeSet } from "./nodes.js";
import { makeUpload, openOutputs, replyKey } from "./sealing.js";
import { COMPUTING, SHAMIR } from "./tickets.js";
import { digest, hex, demand, signingKey } from "./wire.js";

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

// Is this the circuit of this resolution?
const answersAt = ({ circuit, resolution }) =>
  /^[a-z0-9]+_infer(_[a-z]+)?@1$/.test(circuit) &&
  circuit.endsWith(resolution === "logit" ? "_infer@1" : `_infer_${resolution}@1`);

// Everything of one query for one or many rows: the upload to send, and what opens and checks its
// answer. A row has numbers and level names in the order of the features. `price`: what they cost together, in
// micro-units. `asker(asked)`: {pair, proof} of who may ask a model whose nodes ask for a credential
// (credentials.js). Throws Refused.
export const makeBatch = async (listing, reading, rows, price, asker = null) => {
  const { features, normalisation } = listing;
  const wide = width(features);
  const fits = rows.length > 0 && rows.every((row) => row.length === features.length);
  const scaled = [normalisation.mean, normalisation.std].every((each) => each.length === wide);
  demand(fits && scaled, "bad_row", `The model takes ${features.length} values.`);
  const encoded = rows.map((row) => encode(row, features));
  const said = encoded.every((row) => row.every(Number.isFinite));
  demand(said, "bad_row", "A value is missing, or is neither a finite number nor a level of its feature.");
  demand(!listing.obstacle, "circuit_changed", listing.obstacle);
  const shared = Object.hasOwn(COMPUTING, listing.engine ?? "ring");
  demand(shared, "wrong_engine", "This client can't make the shares that this model's nodes compute on.");
  const known = Object.hasOwn(LINKS, reading.kind) && reading.circuit === listing.circuit && answersAt(reading);
  demand(known, "unknown_circuit", `This client can't query ${listing.circuit}.`);
  const asked = listing.node_access ?? null;
  const needed = `The model's nodes answer holders of a credential “${asked?.credential}” alone. Nothing was sent.`;
  demand(asked === null || asker, "credential_needed", needed);
  const nodes = await nodeSet(listing.nodes);
  // Keys of its own for each query: neither question nor answer can be tied to another one's.
  const [reply, { pair: sender, proof }, named] = await Promise.all([
    replyKey(),
    asked ? asker(asked) : signingKey().then((pair) => ({ pair })),
    constantsDigest(normalisation),
  ]);
  const now = Math.floor(Date.now() / 1000);
  const fields = {
    scope: `query:${hex(crypto.getRandomValues(new Uint8Array(16)))}`,
    slot: SLOT,
    circuits: [listing.circuit],
    circuits_hash: listing.circuits_hash,
    params: { ...reading.extras, features: wide, rows: rows.length, normalisation: named },
    f: ROW_F,
    ...(listing.engine in SHAMIR ? { engine: listing.engine } : {}), // the ring's is signed for both rings
    model: listing.model,
    reply_key: reply.publicHex,
    price_micro: price,
    resolution: reading.resolution,
    issued_at: now,
    expires_at: now + TICKET_LIFETIME_S,
    ...(proof ? { access: proof } : {}),
  };
  const values = fixed(encoded.flatMap((row) => standardise(row, normalisation)), ROW_F);
  const upload = await makeUpload(values, [rows.length, wide], fields, sender, nodes, reply.pair);
  return { upload, nodes, reading, replyPair: reply.pair };
};

export const makeQuery = (listing, reading, row, price = listing.price_micro) =>
  makeBatch(listing, reading, [row], price);

const sigmoid = (z) => (z >= 0 ? 1 / (1 + Math.exp(-z)) : Math.exp(z) / (1 + Math.exp(z)));

const softmax = (scores) => {
  const top = Math.max(...scores);
  const each = scores.map((z) => Math.exp(z - top));
  const total = each.reduce((sum, x) => sum + x, 0);
  return each.map((x) => x / total);
};

// Far beyond what any count or hazard says, and still a number.
const grown = (z) => Math.exp(Math.min(z, 50));

// Scores -> answers, by the kind of label.
const LINKS = {
  binary: (scores) => scores.map(sigmoid),
  classes: softmax,
  number: (scores, { middle, unit }) => scores.map((z) => middle + unit * z),
  count: (scores) => scores.map(grown),
  survival: (scores) => scores.map(grown),
};

// What the words of one row's answer say: {label}, the place among the reading's names; {bands},
// from and to of each; {values}, each class's probability, the positive label's, or the number; of a
// logit {scores} too. Throws Refused for a step that does not exist.
export const meaning = (reading, words, f) => {
  const { kind, resolution, names, bands, grid } = reading;
  if (resolution === "logit") {
    const scores = words.map((word) => Number(word) / 2 ** f);
    return { scores, values: LINKS[kind](scores, reading) };
  }
  const count = { label: names.length, band: bands.length - 1, rounded: grid.length }[resolution];
  const steps = words.map(Number);
  const real = steps.every((step) => 0 <= step && step < count);
  demand(real, "bad_output", "The answer can't be trusted: there is no such step.");
  if (resolution === "label") return { label: steps[0] };
  return resolution === "rounded"
    ? { values: steps.map((step) => grid[step]) }
    : { bands: steps.map((step) => [bands[step], bands[step + 1]]) };
};

// The meaning of each row of a settled query, checked against the nodes it was sealed to. Throws
// Refused.
export const openAnswers = async (query, { upload, nodes, reading, replyPair }) => {
  const { blobs, computing } = await answered(query, upload.ticket, nodes);
  const { values, f } = await openOutputs(blobs, upload.ticket, replyPair, nodes, computing);
  const rows = upload.ticket.shape[0];
  demand(values.length === rows * reading.words, "bad_output", "The nodes answered another number of rows.");
  return Array.from({ length: rows }, (_, row) =>
    meaning(reading, Array.from(values.slice(row * reading.words, (row + 1) * reading.words)), f),
  );
};

export const openAnswer = async (query, asked) => (await openAnswers(query, asked))[0];
