// Checks the log in this page (SHA-256 and Ed25519 of the browser): the head's signature, that it goes
// on from the head this browser saw last, which nodes cosigned, and on an entry's page its proof. What
// was seen is kept in this browser; a server can't change it, but could serve another script.

import { leafHash, verifyConsistency, verifyInclusion } from "./mpc/merkle.js";
import { digest, unb64, unhex, verify } from "./mpc/wire.js";

const HEAD_DOMAIN = "flai/head/v1";
const COSIGN_DOMAIN = "flai/cosign/v1";
const SEEN = "flai-log-seen"; // {key, size, root, nodes}
const NEEDED = 2;

const root = document.getElementById("log-check");
const list = root.querySelector("ol");

const get = async (path) => {
  const answer = await fetch(`/api/v1/log/${path}`, { headers: { Accept: "application/json" } });
  if (!answer.ok) throw new Error(`The site did not give /api/v1/log/${path}.`);
  return answer.json();
};

const say = (state, text) => {
  const line = document.createElement("li");
  line.className = state;
  line.textContent = `${{ good: "✓", warn: "!", bad: "✗" }[state]} ${text}`;
  list.append(line);
};

// Does the step and says how it ended; false where it failed.
const step = async (work, failed) => {
  try {
    for (const [state, text] of await work()) say(state, text);
    return true;
  } catch (error) {
    say("bad", `${failed} ${error.message}`);
    return false;
  }
};

const content = (head) => ({ v: 1, size: head.size, root: head.root, at: head.at });

const read = () => {
  try {
    return JSON.parse(window.localStorage.getItem(SEEN)) ?? null;
  } catch {
    return null;
  }
};

const goesOn = async (from, to) => {
  const proof = await get(`consistency/?first=${from.size}&second=${to.size}`);
  await verifyConsistency(from.size, to.size, unhex(from.root, 32), unhex(to.root, 32), proof.path.map((x) => unhex(x, 32)));
};

const signedBy = async (head, key) => {
  await verify(key, HEAD_DOMAIN, content(head), head.signature);
};

const cosigners = async (cosigned, key) => {
  const keys = {};
  for (const node of cosigned.nodes) {
    const { signature, ...body } = node;
    await verify(node.sign_key, "flai/node/v1", body, signature);
    keys[await digest("flai/node-fp/v1", { sign_key: node.sign_key, hpke_key: node.hpke_key })] = node;
  }
  const found = {};
  for (const { node, signature } of cosigned.cosignatures) {
    if (!keys[node]) continue;
    await verify(keys[node].sign_key, COSIGN_DOMAIN, { ...content(cosigned), log: key, node }, signature);
    found[node] = keys[node].name;
  }
  return found;
};

const run = async () => {
  list.replaceChildren();
  const seen = read();
  const { public_key: key } = await get("key/");
  // Before the head, so that this is no shorter.
  const cosigned = root.dataset.cosigned === undefined ? null : await get("cosigned/");
  const head = await get("head/");
  let good = await step(async () => {
    if (seen && seen.key !== key) throw new Error("It shows another key than when you were here last.");
    await signedBy(head, key);
    return [["good", `The head of ${head.size} entries is signed by the log's key.`]];
  }, "The head does not check.");
  good &&= await step(async () => {
    if (!seen) return [["warn", "This browser sees this log for the first time; from now on it remembers."]];
    await goesOn(seen, head);
    return [["good", `It goes on from the ${seen.size} entries that this browser saw last.`]];
  }, "The log was rewritten since you were here last.");
  let nodes = seen?.nodes ?? null;
  good &&= await step(async () => {
    const alone = "only this site vouches that everybody is shown the same log";
    if (!cosigned) return [["warn", `No node has signed a head yet: ${alone}.`]];
    await signedBy(cosigned, key);
    if (cosigned.size <= head.size) await goesOn(cosigned, head);
    const found = await cosigners(cosigned, key);
    const known = Object.keys(found).filter((node) => !nodes || nodes.includes(node));
    const names = known.map((node) => `${found[node]} (${node.slice(0, 6)}…)`).join(", ");
    if (known.length < NEEDED) {
      return [["warn", `Only ${known.length} of the ${NEEDED} nodes that it takes, as this browser knows them, signed: ${alone}.`]];
    }
    const first = nodes ? "" : " Seen for the first time: compare them with what their operators publish.";
    nodes ??= known;
    return [["good", `${names} signed its first ${cosigned.size} entries.${first}`]];
  }, "The nodes' signatures do not fit this log.");
  if (good && root.dataset.index !== undefined) {
    good = await step(async () => {
      const proof = await get(`inclusion/?index=${Number(root.dataset.index)}&size=${head.size}`);
      const leaf = await leafHash(unb64(proof.leaf_b64));
      await verifyInclusion(leaf, Number(root.dataset.index), head.size, proof.path.map((x) => unhex(x, 32)), unhex(head.root, 32));
      const shown = JSON.parse(new TextDecoder().decode(unb64(proof.leaf_b64)));
      const same = JSON.stringify(shown.body) === JSON.stringify(JSON.parse(document.getElementById("entry-body").textContent));
      if (!same) throw new Error("The entry in the log says something else than this page.");
      return [["good", `Entry ${root.dataset.index}, exactly as shown here, is under that head: ${proof.path.length} hashes lead to its root.`]];
    }, "This entry's proof does not check.");
  }
  if (good) window.localStorage.setItem(SEEN, JSON.stringify({ key, size: head.size, root: head.root, nodes }));
  root.dataset.result = good ? "good" : "bad";
};

const start = () => run().catch((error) => {
  say("bad", `Not checked: ${error.message}`);
  root.dataset.result = "bad";
});
root.querySelector("button").addEventListener("click", start);
start();
