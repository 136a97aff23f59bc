// Sharing, sealing and opening: the twin of workers/mpc/sealing.py.
//
//   x = w_0 + … + w_(n−1) mod 2^64, n = 3, 4 or 5 nodes; node i lacks word i.
//
// Of Shamir shares (shamir.js) node i gets share i alone; the correction is then all of them, each under
// a key of its own, one after the other.
//
// All words but the last are AES-256-CTR keystreams of seeds; the last is the correction, encrypted
// once under a key of its own. Seeds, key and salts reach the nodes that may hold them by HPKE (X25519,
// HKDF-SHA256, AES-256-GCM), bound to ticket and node, from the query's reply key: what a node and the
// asker export of it seals the answer (RFC 9180 §9.8). All randomness is crypto.getRandomValues.
// A BigUint64Array wraps at 2^64 by itself, and is little-endian wherever browsers run.

import { Aes256Gcm, CipherSuite, DhkemX25519HkdfSha256, HkdfSha256 } from "../vendor/hpke.js";
import { checkNode, fingerprint } from "./nodes.js";
import * as shamir from "./shamir.js";
import { COMPUTING, SHAMIR, TICKET_DOMAIN, TRIO, checkTicket, isNodeSet, size, ticketId } from "./tickets.js";
import { Refused, b64, canonical, concat, hex, isTable, publicHex, demand, same, sha256, sign, unb64, unhex } from "./wire.js";

const utf8 = new TextEncoder();
const SEAL_CONTEXT = utf8.encode("flai/seal/v1\0");
const REPLY_CONTEXT = utf8.encode("flai/reply/v2");
const WORD_CONTEXT = utf8.encode("flai/word/v1\0");
const SALT_BYTES = 16;
const NONCE_BYTES = 32;
const ZERO_NONCE = new Uint8Array(12); // each GCM key encrypts exactly one message
const DEFAULTS = { v: 1, type: "share", engine: "ring", uses: 1, roster: null };

const suite = new CipherSuite({
  kem: new DhkemX25519HkdfSha256(),
  kdf: new HkdfSha256(),
  aead: new Aes256Gcm(),
});

const random = (count) => crypto.getRandomValues(new Uint8Array(count));
const bytesOf = (words) => new Uint8Array(words.buffer, words.byteOffset, words.byteLength);
const wordsOf = (bytes) => new BigUint64Array(bytes.slice().buffer);

// The words that a node of n holds: all but its own.
export const wordsHeld = (index, n) => Array.from({ length: n }, (_, j) => j).filter((j) => j !== index);

// A key pair for one answer; the private half stays inside the browser's cryptography.
export const replyKey = async () => {
  const pair = await crypto.subtle.generateKey({ name: "X25519" }, false, ["deriveBits"]);
  return { pair, publicHex: await publicHex(pair.publicKey) };
};

// `count` uniform 64-bit words: the AES-256-CTR keystream of `seed` from a zero counter.
export const expand = async (seed, count) => {
  const key = await crypto.subtle.importKey("raw", seed, "AES-CTR", false, ["encrypt"]);
  const how = { name: "AES-CTR", counter: new Uint8Array(16), length: 128 };
  return new BigUint64Array(await crypto.subtle.encrypt(how, key, new Uint8Array(8 * count)));
};

// c_j = SHA-256(salt ‖ "flai/word/v1" ‖ 0x00 ‖ share_id ‖ j ‖ word_j), hex.
export const commit = async (salt, shareId, j, word) =>
  hex(await sha256(concat(salt, WORD_CONTEXT, shareId, Uint8Array.of(j), bytesOf(word))));

const draw = (n, seeds) => ({
  shareId: random(16),
  seeds: Array.from({ length: seeds }, () => random(32)),
  salts: Array.from({ length: n }, () => random(SALT_BYTES)),
  keys: Array.from({ length: n - seeds }, () => random(32)),
});

// Share, commit, seal and sign: {ticket, signature, envelopes, correction}.
//
// `values` is a BigInt64Array of fixed point numbers, `shape` its dimensions; `fields` gives the
// ticket's scope, slot, circuits, circuits_hash, params, f, model, reply_key, price_micro,
// resolution, issued_at, expires_at; the rest is filled in here. `descriptors` are the nodes' in
// index order, `replyPair` is the key pair of the ticket's reply_key. Throws Refused.
export const makeUpload = (values, shape, fields, pair, descriptors, replyPair) =>
  uploadFrom(
    draw(descriptors.length, fields.engine in SHAMIR ? 0 : descriptors.length - 1),
    ...[values, shape, fields, pair, descriptors, replyPair],
  );

// makeUpload with its randomness given: for test vectors alone.
export const uploadFrom = async (drawn, values, shape, fields, pair, descriptors, replyPair) => {
  demand(values.length === size(shape), "malformed", "The values do not fit their shape.");
  const fingerprints = await Promise.all(descriptors.map(checkNode));
  const ordered = isNodeSet(fingerprints) && descriptors.every((d, i) => d.index === i);
  demand(ordered, "bad_nodes", "The nodes' descriptors must come in the order of the nodes.");
  const n = descriptors.length;
  const t = SHAMIR[fields.engine];
  const words = t ? shamir.split(values, n, t) : await wordsFrom(drawn.seeds, values);
  const ticket = {
    ...DEFAULTS,
    ...fields,
    share_id: hex(drawn.shareId),
    sender: await publicHex(pair.publicKey),
    nodes: fingerprints,
    shape,
    commitment: await Promise.all(words.map((word, j) => commit(drawn.salts[j], drawn.shareId, j, word))),
  };
  checkTicket(ticket);
  const id = unhex(await ticketId(ticket));
  const parts = [...drawn.seeds.map((seed) => ({ seed: hex(seed) })), ...drawn.keys.map((key) => ({ key: hex(key) }))];
  const envelopes = descriptors.map(async (descriptor, i) => {
    const mine = (t ? [i] : wordsHeld(i, n)).map((j) => [String(j), { ...parts[j], salt: hex(drawn.salts[j]) }]);
    const shared = await sharedWith(descriptor, id, replyPair);
    const sealed = await shared.seal(canonical({ words: Object.fromEntries(mine) }));
    return concat(new Uint8Array(shared.enc), new Uint8Array(sealed));
  });
  const encrypted = drawn.keys.map((key, k) => encryptOnce(key, bytesOf(words[drawn.seeds.length + k]), id));
  return {
    ticket,
    signature: await sign(pair.privateKey, TICKET_DOMAIN, ticket),
    envelopes: (await Promise.all(envelopes)).map(b64),
    correction: b64(concat(...(await Promise.all(encrypted)))),
  };
};

// The ring's words: the seeds' key streams, and what is left.
const wordsFrom = async (seeds, values) => {
  const words = await Promise.all(seeds.map((seed) => expand(seed, values.length)));
  const correction = new BigUint64Array(values);
  for (const word of words) for (let i = 0; i < values.length; i += 1) correction[i] -= word[i];
  return [...words, correction];
};

// {values: BigInt64Array, shape, f}: the nodes' sealed outputs opened, compared and added up.
//
// `blobs[r]` are the bytes from the r-th node that computed, `nodes` the descriptors of the ticket's.
// Every word comes from all but one of them, and they must say the same; of Shamir shares one comes from
// each, and all must fit. Divide by 2^f. Throws
// Refused("bad_output" or "sealed_elsewhere").
export const openOutputs = async (blobs, ticket, replyPair, nodes, computing = [0, 1, 2]) => {
  const count = computing.length;
  const t = SHAMIR[ticket.engine];
  const enough = count >= (t ? COMPUTING[ticket.engine] : TRIO);
  demand(blobs.length === count && enough, "bad_output", "An output from every computing node is needed.");
  const id = unhex(await ticketId(ticket));
  const opened = await Promise.all(
    blobs.map((blob, r) => unseal(blob, ticket, sharedWith(nodes[computing[r]], id, replyPair))),
  );
  const head = ({ job_id = null, shape = null, f = null }) => ({ job_id, shape, f });
  const one = opened.every((content) => same(head(content), head(opened[0])));
  demand(one, "bad_output", "The nodes answered about different jobs.");
  const { shape, f } = opened[0];
  const formed = Array.isArray(shape) && shape.every((n) => Number.isInteger(n) && n > 0) && Number.isInteger(f);
  demand(formed, "bad_output", "The output has no shape.");
  if (t) {
    const shares = opened.map(({ words }, r) => shamir.decoded(unb64(words[String(computing[r])]), size(shape)));
    return { values: shamir.opened(computing, shares, t), shape, f };
  }
  const total = new BigUint64Array(size(shape));
  for (let j = 0; j < count; j += 1) {
    const [first, ...others] = opened.filter((_, i) => i !== j).map((content) => reported(content, j));
    const told = hex(bytesOf(first));
    const agree = first.length === total.length && others.every((other) => hex(bytesOf(other)) === told);
    demand(agree, "bad_output", `Two nodes report different words ${j}: trust neither.`);
    first.forEach((word, i) => {
      total[i] += word;
    });
  }
  return { values: new BigInt64Array(total.buffer), shape, f };
};

// What the asker shares with a node for one ticket: it seals the envelope, and what it exports the answer.
const sharedWith = async (node, id, replyPair) =>
  suite.createSenderContext({
    recipientPublicKey: await suite.kem.deserializePublicKey(unhex(node.hpke_key, 32)),
    info: concat(SEAL_CONTEXT, id, unhex(await fingerprint(node))),
    ekm: replyPair,
  });

// An answer: nonce ‖ ciphertext under keys of RFC 9458 §4.4, of the secret that is exported.
const unseal = async (blob, ticket, sharing) => {
  let content;
  try {
    const secret = await (await sharing).export(REPLY_CONTEXT, NONCE_BYTES);
    const salt = concat(unhex(ticket.reply_key), blob.slice(0, NONCE_BYTES));
    const material = await crypto.subtle.importKey("raw", secret, "HKDF", false, ["deriveBits"]);
    const expand = (info, bytes) =>
      crypto.subtle.deriveBits({ name: "HKDF", hash: "SHA-256", salt, info: utf8.encode(info) }, material, 8 * bytes);
    const key = await crypto.subtle.importKey("raw", await expand("key", 32), "AES-GCM", false, ["decrypt"]);
    const how = { name: "AES-GCM", iv: await expand("nonce", 12) };
    const plain = await crypto.subtle.decrypt(how, key, blob.slice(NONCE_BYTES));
    content = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(plain));
  } catch {
    throw new Refused("sealed_elsewhere", "A sealed part was made for another key, ticket or node.");
  }
  demand(isTable(content) && isTable(content.words), "malformed_seal", "A sealed part has a wrong form.");
  return content;
};

const encryptOnce = async (key, content, additionalData) => {
  const secret = await crypto.subtle.importKey("raw", key, "AES-GCM", false, ["encrypt"]);
  const how = { name: "AES-GCM", iv: ZERO_NONCE, additionalData };
  return new Uint8Array(await crypto.subtle.encrypt(how, secret, content));
};

const reported = (content, j) => {
  const data = unb64(content.words[String(j)]);
  demand(data.length % 8 === 0, "bad_output", `A node did not report its word ${j}.`);
  return wordsOf(data);
};
