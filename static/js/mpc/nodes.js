// Which nodes a query is sealed to, and whether they signed for the answer: the twin of
// workers/client/nodes.py and apps/protocol/jobs.py. The nodes whose descriptors a query was sealed
// to are the ones whose signatures its answer needs; the server can't put others in their place later.

import { leafHash, rootOf } from "./merkle.js";
import { COMPUTING, NODE_COUNTS, SHAMIR, TRIO, computesOn, isNodeSet, permits, ticketId } from "./tickets.js";
import { Refused, canonical, concat, digest, hex, isHex, isTable, demand, same, sha256, unb64, unhex, verify } from "./wire.js";

const utf8 = new TextEncoder();
const NODE_DOMAIN = "flai/node/v1";
const FINGERPRINT_DOMAIN = "flai/node-fp/v1";
const JOB_DOMAIN = "flai/job/v1";
const RECEIPT_DOMAIN = "flai/receipt/v1";
const RECEIPTS_DOMAIN = "flai/receipts/v1";
const [SIGNATURE_BYTES, PLACE_BYTES, HASH_BYTES] = [64, 4, 32];
const RECEIPTS_MAX = 256;
const NODE_FIELDS = "v index name sign_key hpke_key tls_cert control mesh engines circuits_hash release signature".split(" ");
const AGREED = "v job_id attempt descriptor circuit circuits_hash scope inputs openings model".split(" ");
const RECEIPT_FIELDS = [...AGREED, "result", "sealed", "node", "at"];

const hasFields = (value, fields) =>
  isTable(value) && Object.keys(value).length === fields.length && fields.every((name) => Object.hasOwn(value, name));

export const fingerprint = ({ sign_key, hpke_key }) => digest(FINGERPRINT_DOMAIN, { sign_key, hpke_key });

// The fingerprint of a well-formed descriptor that its own key signed. Throws Refused.
export const checkNode = async (node) => {
  const good = (condition, text) => demand(condition, "bad_node_descriptor", text);
  const { succeeds, ...known } = node ?? {}; // why it took another node's place: for those who pinned that one
  good(hasFields(known, NODE_FIELDS), "A node's descriptor lacks or adds fields.");
  good(succeeds === undefined || Array.isArray(succeeds), "A node's descriptor lists no successions.");
  good(node.v === 1, "Unknown version of node descriptor.");
  good(Number.isInteger(node.index) && 0 <= node.index && node.index < Math.max(...NODE_COUNTS), "A node's index is out of range.");
  good(isHex(node.sign_key, 32) && isHex(node.hpke_key, 32), "A node's keys are not 32 bytes in hex.");
  const { signature, ...body } = node;
  try {
    await verify(node.sign_key, NODE_DOMAIN, body, signature);
  } catch {
    good(false, `The descriptor of ${node.name} is not signed by it.`);
  }
  return fingerprint(node);
};

// The descriptors in index order, each checked. Throws Refused.
export const nodeSet = async (descriptors) => {
  demand(Array.isArray(descriptors), "bad_nodes", "The server names no nodes.");
  const nodes = [...descriptors].sort((a, b) => a.index - b.index);
  const prints = await Promise.all(nodes.map(checkNode));
  const complete = isNodeSet(prints) && nodes.every((node, i) => node.index === i);
  demand(complete, "bad_nodes", `The server names ${nodes.length} nodes where ${NODE_COUNTS.join(" or ")} belong.`);
  return nodes;
};

// Who takes part in a job: {computing, members}, indices of its nodes. On three nodes all do; a job on
// more names who computes and who only holds; of Shamir shares nobody only holds. Throws Refused.
const groupOf = ({ nodes, engine, computing, holding }) => {
  const good = (condition) => demand(condition, "malformed_job", "The job does not say who takes part.");
  good(isNodeSet(nodes) && computesOn(engine, nodes.length));
  if (nodes.length === TRIO) {
    good(computing === undefined && holding === undefined);
    return { computing: [0, 1, 2], members: [0, 1, 2] };
  }
  const listed = (x) =>
    Array.isArray(x) && x.every((i, at) => Number.isInteger(i) && (at ? x[at - 1] : -1) < i && i < nodes.length);
  good(listed(computing) && listed(holding));
  const least = COMPUTING[engine];
  good(engine in SHAMIR ? computing.length >= least && !holding.length : computing.length === least);
  const members = [...computing, ...holding].sort();
  good(new Set(members).size === members.length);
  return { computing, members };
};

// {blobs, computing}: the sealed parts of an answer by the nodes that computed, in the ticket's order,
// and their indices, if each node signed for its own: about this ticket, alone, with its circuit and
// model. Throws Refused("not_receipted").
export const answered = async (query, ticket, nodes) => {
  try {
    const { receipts, descriptor, computing } = await signedFor(query.job, nodes);
    const [receipt] = receipts;
    const blobs = new Map(query.sealed.map((entry) => [entry.fingerprint, unb64(entry.blob)]));
    const about =
      same([receipt.circuit], ticket.circuits) &&
      receipt.circuits_hash === ticket.circuits_hash &&
      receipt.scope === ticket.scope &&
      same(receipt.inputs, [await ticketId(ticket)]) &&
      descriptor.model === ticket.model &&
      same(descriptor.inputs, { [ticket.slot]: [ticket.share_id] }) &&
      same(descriptor.nodes, ticket.nodes) &&
      permits(ticket.engine, descriptor.engine) &&
      blobs.size === computing.length &&
      query.sealed.length === computing.length &&
      receipts.length === computing.length;
    demand(about, "not_receipted", "The receipts are about something else.");
    for (const { node, sealed } of receipts) {
      const whole = ticket.nodes.includes(node) && blobs.has(node) && hex(await sha256(blobs.get(node))) === sealed;
      demand(whole, "not_receipted", "A part is not the one that its node signed for.");
    }
    return { blobs: computing.map((i) => blobs.get(ticket.nodes[i])), computing };
  } catch {
    throw new Refused("not_receipted", "The answer can't be trusted: the nodes did not sign for it.");
  }
};

// Throws Refused unless that node signed this receipt, alone or among others: over the root of a tree
// that the signature leads to. The twin of verify_receipt in apps/protocol/jobs.py.
const verifyReceipt = async (key, receipt, signature) => {
  if (signature.length === 2 * SIGNATURE_BYTES) return verify(key, RECEIPT_DOMAIN, receipt, signature);
  const data = unhex(signature);
  const view = new DataView(data.buffer, data.byteOffset);
  const [index, size] = [0, PLACE_BYTES].map((at) => view.getUint32(SIGNATURE_BYTES + at));
  const whole = (data.length - SIGNATURE_BYTES - 2 * PLACE_BYTES) % HASH_BYTES === 0;
  demand(size >= 2 && size <= RECEIPTS_MAX && whole, "bad_receipt", "A receipt's signature has a wrong form.");
  const path = [];
  for (let at = SIGNATURE_BYTES + 2 * PLACE_BYTES; at < data.length; at += HASH_BYTES) path.push(data.slice(at, at + HASH_BYTES));
  const leaf = await leafHash(concat(utf8.encode(`${RECEIPT_DOMAIN}\0`), canonical(receipt)));
  const root = hex(await rootOf(leaf, index, size, path));
  return verify(key, RECEIPTS_DOMAIN, { v: 1, size, root }, hex(data.slice(0, SIGNATURE_BYTES)));
};

// {receipts, descriptor, computing}: what all members of a job signed, alike, and the very job that
// they mean. `nodes` is the whole set in index order.
const signedFor = async (job, nodes) => {
  const good = (condition, text) => demand(condition, "bad_receipt", text);
  const prints = await Promise.all(nodes.map(checkNode));
  good(same(job.descriptor.nodes, prints), "The job is for other nodes.");
  const { computing, members } = groupOf(job.descriptor);
  const keys = new Map(members.map((i) => [prints[i], nodes[i].sign_key]));
  good(job.receipts.length === keys.size, "Every member's receipt is needed, once.");
  const seen = new Set();
  const agreed = (receipt) => AGREED.map((name) => receipt[name]);
  // A receipt names the engine unless it is the passive ring.
  const { engine } = job.descriptor;
  const fields = engine === "ring" ? RECEIPT_FIELDS : [...RECEIPT_FIELDS, "engine"];
  for (const { receipt, signature } of job.receipts) {
    good(hasFields(receipt, fields) && keys.has(receipt.node), "A receipt is from no member of this job.");
    good((receipt.engine ?? "ring") === engine, "A receipt is of another engine.");
    await verifyReceipt(keys.get(receipt.node), receipt, signature);
    good(!seen.has(receipt.node), "A member's receipt appears twice.");
    seen.add(receipt.node);
    good(same(agreed(receipt), agreed(job.receipts[0].receipt)), "The members' receipts do not agree.");
    good(receipt.result === null, "A query keeps no result.");
  }
  const receipts = job.receipts.map((signed) => signed.receipt);
  // Nodes that completed an earlier attempt, whose answer got lost, repeat what they signed then.
  const descriptor = { ...job.descriptor, attempt: receipts[0].attempt };
  good(receipts[0].descriptor === (await digest(JOB_DOMAIN, descriptor)), "The receipts are about another job.");
  return { receipts, descriptor, computing };
};
