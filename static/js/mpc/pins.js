// The nodes that this browser seals to: those that it saw first, and who follows them by their own word.
// The twin of `trusted_nodes` in workers/client/nodes.py and of apps/protocol/successions.py. The
// server hands descriptors out, but after the first time it can't put its own keys in their place.

import { fingerprint, nodeSet } from "./nodes.js";
import { SHAMIR, isNodeSet } from "./tickets.js";
import { Refused, demand, isHex, isTable, same, verify } from "./wire.js";

export const KEPT = "flai-nodes";
const SUCCESSION_DOMAIN = "flai/succession/v1";
const SUCCESSIONS_MAX = 16;

// Where fingerprints are kept: {known() gives them or null, keep(prints)}. In a browser its store, under
// `name`; without one, as in private windows and in Node.js, only as long as the program runs.
export const shelf = (name) => {
  let held = null;
  return {
    known: () => {
      try {
        const kept = JSON.parse(globalThis.localStorage.getItem(name));
        return Array.isArray(kept) && kept.length ? kept : held;
      } catch {
        return held;
      }
    },
    keep: (prints) => {
      held = prints;
      try {
        globalThis.localStorage.setItem(name, JSON.stringify(prints));
      } catch {
        // for as long as it runs
      }
    },
  };
};

// The highest threshold that was signed for each listing, kept likewise: {known(slug), keep(slug, t)}; a lower
// one only where the person accepts it: accept(slug, t).
export const thresholds = (name) => {
  const { known: rows, keep } = shelf(`${name} thresholds`);
  const of = (slug) => rows()?.find((row) => Array.isArray(row) && row[0] === slug)?.[1] ?? 1;
  const accept = (slug, t) => keep([...(rows() ?? []).filter(([other]) => other !== slug), [slug, t]]);
  return {
    known: of,
    accept,
    keep: (slug, t) => {
      if (t > of(slug)) accept(slug, t);
    },
  };
};

// A server could name an engine that fewer nodes can read: no lower threshold is signed than before, or than
// is told. `least`: how many nodes at least shall learn nothing together; `accepted`: down to how many, from now on.
// Throws Refused("threshold_too_low"); `lower` of it says {slug, before, now, vote}, the vote that the site names.
export const guarded = ({ slug, engine, engine_vote: vote = null }, kept, { least = null, accepted = null } = {}) => {
  const t = SHAMIR[engine] ?? 1;
  if (least === null && accepted !== null && accepted <= t && t < kept.known(slug)) kept.accept(slug, t);
  const wanted = least ?? kept.known(slug);
  const told = `you asked that ${wanted} can’t.`;
  const before = `until now ${wanted} could not.`;
  const text = `${t + 1} nodes together could read a row, and ${least === null ? before : told} Nothing was sent.`;
  const named = vote && (SHAMIR[vote.engine] ?? 1) === t ? vote : null;
  const facts = least === null ? { lower: { slug, before: wanted, now: t, vote: named } } : {};
  demand(t >= wanted, "threshold_too_low", text, facts);
  kept.keep(slug, t);
};

const here = shelf(KEPT);
export const { known, keep: keepNodes } = here;

export const equal = (one, other) => same([...one].sort(), [...other].sort());

// Did the old key sign that another has its place, or t + 1 others of that set, of the highest t < n/2?
export const isSuccession = async (signed) => {
  const fields = (value, names) => isTable(value) && same(Object.keys(value).sort(), names);
  if (!fields(signed, ["signatures", "statement"])) return false;
  const { statement: said, signatures } = signed;
  const good =
    fields(said, ["new", "nodes", "old", "type", "v"]) &&
    said.v === 1 &&
    said.type === "succession" &&
    isNodeSet(said.nodes) &&
    said.nodes.includes(said.old) &&
    isHex(said.new, 32) &&
    !said.nodes.includes(said.new) &&
    Array.isArray(signatures) &&
    signatures.length <= said.nodes.length;
  if (!good) return false;
  const signers = new Set();
  for (const one of signatures) {
    if (!fields(one, ["hpke_key", "sign_key", "signature"])) continue;
    try {
      await verify(one.sign_key, SUCCESSION_DOMAIN, said, one.signature);
      signers.add(await fingerprint(one));
    } catch {
      // nobody's
    }
  }
  return signers.has(said.old) || said.nodes.filter((node) => signers.has(node)).length > Math.floor((said.nodes.length - 1) / 2);
};

// The node sets that this one follows, by what its descriptors carry: the latest first.
export const setsBefore = async (prints, descriptors) => {
  const carried = [];
  for (const one of descriptors.flatMap(({ succeeds }) => succeeds ?? [])) {
    if (await isSuccession(one)) carried.push(one.statement);
  }
  const after = (said) => said.nodes.map((node) => (node === said.old ? said.new : node));
  const found = [];
  let now = prints;
  while (found.length < SUCCESSIONS_MAX) {
    const before = carried.find((said) => same(after(said), now))?.nodes;
    if (!before || same(before, prints) || found.some((one) => same(one, before))) break;
    found.push(before);
    now = before;
  }
  return found;
};

// How these nodes are known here: "first", "known", "followed" or "other".
export const standing = async (descriptors, pins = here) => {
  const nodes = await nodeSet(descriptors);
  const prints = await Promise.all(nodes.map(fingerprint));
  const kept = pins.known();
  if (kept === null) return { how: "first", prints };
  if (equal(kept, prints)) return { how: "known", prints };
  const before = await setsBefore(prints, nodes);
  return { how: before.some((one) => equal(one, kept)) ? "followed" : "other", prints };
};

// Nothing is sealed to any but the nodes that are known here: how they are. Throws Refused("other_nodes").
export const trusted = async (descriptors, pins = here) => {
  const { how, prints } = await standing(descriptors, pins);
  if (how === "other") {
    const before = pins.given ? "those that you named" : "this browser has sealed to before";
    throw new Refused("other_nodes", `The site names other nodes than ${before}. Nothing was sent.`);
  }
  if (how !== "known") pins.keep(prints);
  return { how, prints };
};
