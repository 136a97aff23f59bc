// A query's ticket: the form that apps/protocol/tickets.py checks, checked before it is signed.

import { ELEMENT_BYTES } from "./shamir.js";
import { canonical, digest, isHex, isTable, demand } from "./wire.js";

export const NODE_COUNTS = [3, 4, 5, 6, 7];
export const TRIO = 3; // of so many nodes all compute
// Shamir shares, by how many nodes together learn nothing.
export const SHAMIR = { __proto__: null, shamir_t1: 1, shamir_t2: 2, shamir_t3: 3 };
// Nodes that compute one job, by its engine; of Shamir shares at least. Who signs for the ring signs for
// both: the verified one shows nobody more.
export const COMPUTING = { ring: 3, ring_verified: 4, shamir_t1: 3, shamir_t2: 5, shamir_t3: 7 };
const RING_NODES_MAX = 5;
// Any two groups that compute must share a node: it is that one which keeps a scope from running twice.
export const computesOn = (engine, nodes) =>
  Object.hasOwn(COMPUTING, engine) &&
  nodes >= COMPUTING[engine] &&
  nodes < 2 * COMPUTING[engine] &&
  nodes <= (engine in SHAMIR ? NODE_COUNTS.at(-1) : RING_NODES_MAX);
export const permits = (signed, engine) => engine === signed || (signed === "ring" && engine === "ring_verified");
export const TICKET_DOMAIN = "flai/ticket/v1";
const MAX_VALUES = 1 << 21;
const GCM_TAG_BYTES = 16;
const MAX_PARAMS_BYTES = 64 * 1024;
const MAX_ACCESS_BYTES = 4096;
const MAX_LIFETIME_S = 366 * 24 * 3600;

const whole = (x, low, high) => Number.isInteger(x) && low <= x && x <= high;
const hexes = (x, size) => Array.isArray(x) && x.every((y) => isHex(y, size));
// Three to seven fingerprints, in index order, each once.
export const isNodeSet = (x) => hexes(x, 32) && NODE_COUNTS.includes(x.length) && new Set(x).size === x.length;
const matches = (x, form) => typeof x === "string" && form.test(x);

const FORMS = {
  v: (x) => x === 1,
  type: (x) => x === "share",
  share_id: (x) => isHex(x, 16),
  sender: (x) => isHex(x, 32),
  scope: (x) => matches(x, /^query:[A-Za-z0-9._-]{1,64}$/),
  slot: (x) => matches(x, /^[a-z][a-z0-9_]{0,63}$/),
  circuits: (x) => Array.isArray(x) && x.length === 1 && matches(x[0], /^[a-z][a-z0-9_]{0,63}@[1-9][0-9]{0,5}$/),
  circuits_hash: (x) => isHex(x, 32),
  engine: (x) => typeof x === "string" && Object.hasOwn(COMPUTING, x),
  nodes: isNodeSet,
  roster: (x) => x === null,
  model: (x) => isHex(x, 32),
  params: (x) => isTable(x) && canonical(x).length <= MAX_PARAMS_BYTES,
  shape: (x) =>
    Array.isArray(x) && 0 < x.length && x.length <= 4 && x.every((n) => whole(n, 1, MAX_VALUES)) && size(x) <= MAX_VALUES,
  f: (x) => whole(x, 0, 40),
  commitment: (x) => hexes(x, 32),
  uses: (x) => x === 1,
  issued_at: (x) => whole(x, 0, 2 ** 40),
  expires_at: (x) => whole(x, 0, 2 ** 40),
  reply_key: (x) => isHex(x, 32),
  price_micro: (x) => matches(x, /^(?:0|[1-9][0-9]{0,17})$/),
  resolution: (x) => ["label", "band", "rounded", "logit"].includes(x),
};

export const size = (shape) => shape.reduce((product, n) => product * n, 1);

// Throws Refused("malformed") for a ticket that nodes would not take.
export const checkTicket = (ticket) => {
  const names = Object.keys(FORMS);
  const { access, ...rest } = ticket; // where a model is not for everybody: what shows that one may ask it
  const complete = Object.keys(rest).length === names.length && names.every((name) => Object.hasOwn(rest, name));
  demand(complete, "malformed", "The ticket lacks or adds fields.");
  const shown = !Object.hasOwn(ticket, "access") || (isTable(access) && canonical(access).length <= MAX_ACCESS_BYTES);
  demand(shown, "malformed", "The ticket's field access has a wrong form.");
  for (const name of names) {
    demand(FORMS[name](ticket[name]), "malformed", `The ticket's field ${name} has a wrong form.`);
  }
  const all = ticket.commitment.length === ticket.nodes.length;
  demand(all, "malformed", "The ticket does not commit to one word per node.");
  const fit = computesOn(ticket.engine, ticket.nodes.length);
  demand(fit, "malformed", "The ticket's engine does not compute on so many nodes.");
  const bytes = ticket.nodes.length * (ELEMENT_BYTES * size(ticket.shape) + GCM_TAG_BYTES);
  const small = !(ticket.engine in SHAMIR) || bytes <= 8 * MAX_VALUES + GCM_TAG_BYTES;
  demand(small, "too_large", "A share of so many values does not fit an upload.");
  const lives = ticket.expires_at - ticket.issued_at;
  demand(0 < lives && lives <= MAX_LIFETIME_S, "malformed", "The ticket expires before it is issued, or too late.");
};

export const ticketId = (ticket) => digest(TICKET_DOMAIN, ticket);
