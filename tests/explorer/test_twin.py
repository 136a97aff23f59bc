"""Sharing, sealing and tickets in the page, in a real Chromium, against Python's: both ways."""

from __future__ import annotations

import copy
import hashlib
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from apps.protocol import credentials, merkle, successions, tickets, wire
from apps.protocol.circuits import CLASSES
from apps.protocol.targets import reading_of
from tests.protocol.test_successions import made, names, succession
from tests.support import proofs, vectors
from workers.client.buyer import meaning
from workers.client.tables import columns_of
from workers.mpc import replicated, sealing, shamir_shares
from workers.mpc.engines import shamir_codec

VENDOR = Path(__file__).resolve().parents[2] / "static/js/vendor"
In = Callable[..., Any]
# Values cross as JSON text: the debugger's own encoding would change -0, __proto__ and surrogates.
RUN = """async ([body, given]) => {
  const at = (name) => import(`/static/js/mpc/${name}.js`);
  const [wire, tickets, sealing, shamir] = await Promise.all(
    ["wire", "tickets", "sealing", "shamir"].map(at));
  const [nodes, pins, buyer, consent, merkle, tables, encoding, credentials] = await Promise.all(
    ["nodes", "pins", "buyer", "consent", "merkle", "tables", "encoding", "credentials"].map(at));
  const code = async (work) => { try { await work(); return null } catch (e) { return e.code } };
  const bytes = (hex) => wire.unhex(hex);
  const words = (texts) => BigInt64Array.from(texts, BigInt);
  const key = async (usage, name, [seed, pub]) => {
    const jwk = (hex) => btoa(String.fromCharCode(...bytes(hex)))
      .replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
    const parts = { kty: "OKP", crv: name, x: jwk(pub) };
    const load = (more, use) =>
      crypto.subtle.importKey("jwk", { ...parts, ...more }, name, true, use);
    return { publicKey: await load({}, name === "Ed25519" ? ["verify"] : []),
      privateKey: await load({ d: jwk(seed) }, [usage]) };
  };
  const kit = {
    wire, tickets, sealing, shamir, nodes, pins, buyer, consent, merkle, tables, encoding,
    credentials, code, bytes, words, key };
  const names = Object.keys(kit);
  const result = await eval(`(async (v, {${names}}) => {${body}})`)(JSON.parse(given), kit);
  return JSON.stringify(result);
}"""


@pytest.fixture
def inside(site: str, visit: Any) -> In:
    """`inside(javascript, value)`: what the page's modules make of a value."""
    visitor = visit(bypass_csp=True)  # for the test's own evaluation; modules come from the site
    visitor.page.goto("/healthz")

    def run(body: str, value: Any = None) -> Any:
        given = value if isinstance(value, str) else json.dumps(value)
        return json.loads(visitor.page.evaluate(RUN, [body, given]))

    return run


def test_the_vectors_are_what_python_makes() -> None:
    kept = vectors.read()
    assert {name: kept[name] for name in vectors.settled()} == vectors.settled()
    upload = {name: kept[name] for name in ("ticket", "signature", "envelopes", "correction")}
    assert opened_by_nodes(upload) == vectors.VALUES
    five = kept["five"]
    settled = vectors.of_five(*vectors.upload(5))
    assert {name: five[name] for name in settled} == settled
    assert opened_by_nodes(five) == vectors.VALUES


def test_canonical_bytes_digests_and_signatures_agree(inside: In) -> None:
    kept = vectors.read()
    assert inside("return v.map(([x]) => wire.hex(wire.canonical(x)))", kept["canonical"]) == [
        expected for _, expected in kept["canonical"]
    ]
    for text in kept["not_canonical"]:
        assert inside("return code(() => wire.canonical(v))", text) == "not_canonical", text
        with pytest.raises(ValueError):
            wire.canonical(json.loads(text))
    assert inside(
        "return Promise.all(v.map(([domain, x]) => wire.digest(domain, x)))", kept["digests"]
    ) == [expected for *_, expected in kept["digests"]]
    made = inside(
        """const pair = await key("sign", "Ed25519", v.sender);
        const checked = (who, domain) =>
          code(() => wire.verify(who, domain, v.ticket, v.signature));
        return [await wire.sign(pair.privateKey, "flai/ticket/v1", v.ticket),
          await tickets.ticketId(v.ticket),
          await checked(v.sender[1], "flai/ticket/v1"),
          await checked(v.sender[1], "flai/other/v1"),
          await checked(v.nodes[0].sign_key, "flai/ticket/v1")]""",
        kept,
    )
    assert made == [kept["signature"], kept["ticket_id"], None, "bad_signature", "bad_signature"]


def test_consents_and_recovery_codes_agree(inside: In) -> None:
    kept = vectors.read()["consents"]
    made = inside(
        """const had = await consent.recovered(v.code.match(/.{1,8}/g).join(" ").toUpperCase());
        const { signature } = await consent.consent(had.privateKey, v.said);
        const prove = (p) => consent.proof(had.privateKey, v.said.pid, p, had.key);
        const fresh = await consent.recoveryKey();
        return [had.key, signature, await Promise.all(v.proofs.map(([p]) => prove(p))),
          (await consent.recovered(fresh.code)).key === fresh.key,
          await code(() => consent.recovered("no code"))]""",
        kept,
    )
    proofs = [signature for _, signature in kept["proofs"]]
    assert made == [kept["said"]["key"], kept["signature"], proofs, True, "malformed"]


def test_proofs_of_every_size_check_and_no_other_does(inside: In) -> None:
    """RFC 9162 at all sizes 1 to 33: each leaf, each earlier size; then every proof spoilt."""
    leaves = [merkle.leaf_hash(bytes([i])) for i in range(33)]
    get = merkle.getter(leaves)
    roots = ["", *(merkle.root(leaves[:n]).hex() for n in range(1, 34))]

    def path(ranges: list[tuple[int, int]]) -> list[str]:
        return [hash_.hex() for hash_ in merkle.proof(ranges, get)]

    sizes = [(index, size) for size in range(1, 34) for index in range(size)]
    given = {
        "data": [bytes([i]).hex() for i in range(33)],
        "roots": roots,
        "inclusion": [[i, n, path(merkle.inclusion_ranges(i, n))] for i, n in sizes],
        "consistency": [[i + 1, n, path(merkle.consistency_ranges(i + 1, n))] for i, n in sizes],
    }
    failed, passed = inside(
        """const leaves = await Promise.all(v.data.map((x) => merkle.leafHash(bytes(x))));
        const root = (n) => bytes(v.roots[n]);
        const included = ([i, n, path], at = i) =>
          code(() => merkle.verifyInclusion(leaves[at], i, n, path.map(bytes), root(n)));
        const goesOn = ([m, n, path], from = m) =>
          code(() => merkle.verifyConsistency(m, n, root(from), root(n), path.map(bytes)));
        const spoilt = ([a, n, path]) => [a, n, path.length ? path.slice(1) : ["00".repeat(32)]];
        const good = [...v.inclusion.map((x) => included(x)),
          ...v.consistency.map((x) => goesOn(x))];
        const bad = [...v.inclusion.map((x) => included(spoilt(x))),
          ...v.inclusion.filter(([, n]) => n > 1).map((x) => included(x, (x[0] + 1) % x[1])),
          ...v.consistency.map((x) => goesOn(spoilt(x))),
          ...v.consistency.filter(([m]) => m > 1).map((x) => goesOn(x, x[0] - 1))];
        return [(await Promise.all(good)).filter((x) => x !== null),
          (await Promise.all(bad)).filter((x) => x !== "proof_invalid")]""",
        given,
    )
    assert failed == [] and passed == []


def test_words_commitments_and_fixed_point_agree(inside: In) -> None:
    kept = vectors.read()
    made = inside(
        """const [salt, id, j, word] = v.commitment_of;
        const held = new BigUint64Array(bytes(word).buffer);
        const logit = { kind: "binary", resolution: "logit" };
        return {
          words: Array.from(await sealing.expand(bytes(v.expand.seed), 5), String),
          commitment: await sealing.commit(bytes(salt), bytes(id), j, held),
          halves: Array.from(buyer.fixed(v.halves.map(([x]) => x), 0), Number),
          row: Array.from(buyer.fixed(buyer.standardise(v.row, v.normalisation), 16), String),
          named: await buyer.constantsDigest(v.normalisation),
          encodings: v.encodings.map(([features, row]) => {
            if (row.some((cell, i) => tables.complaint(cell.trim(), features[i]))) return null;
            const said = row.map((cell, i) => encoding.valueOf(cell, features[i]));
            const made = encoding.encode(said, features);
            return made.length === encoding.width(features) ? made : "another width";
          }),
          sigmoid: v.sigmoid.map(([z]) => buyer.meaning(logit, [z], 0).values[0]),
        }""",
        kept,
    )
    assert made["encodings"] == [expected for *_, expected in kept["encodings"]]
    assert made["words"] == kept["expand"]["words"]
    assert made["commitment"] == kept["commitment"]
    assert made["halves"] == [expected for _, expected in kept["halves"]]
    assert made["row"] == kept["fixed_row"]
    assert made["named"] == kept["normalisation_name"]
    assert made["sigmoid"] == pytest.approx([p for _, p in kept["sigmoid"]], rel=1e-14, abs=1e-300)


@pytest.mark.parametrize("n", [3, 5])
def test_an_upload_from_the_same_draw_is_the_same_to_the_byte(inside: In, n: int) -> None:
    kept = vectors.read()
    if n == 5:
        kept |= kept["five"]
    made = inside(
        """const [shareId, ...more] = v.drawn.map(bytes);
        const n = v.nodes.length;
        const [seeds, salts] = [more.slice(0, n - 1), more.slice(n - 1, 2 * n - 1)];
        const drawn = { shareId, seeds, salts, keys: [more[2 * n - 1]] };
        const pair = await key("sign", "Ed25519", v.sender);
        const reply = await key("deriveBits", "X25519", v.reply);
        const of = [drawn, words(v.values), v.shape, v.fields, pair, v.nodes, reply];
        return sealing.uploadFrom(...of)""",
        kept,
    )
    for name in ("ticket", "signature", "correction", "envelopes"):
        assert made[name] == kept[name]
    assert opened_by_nodes(made) == vectors.VALUES


def test_the_nodes_open_what_the_page_has_made(inside: In) -> None:
    made = inside(
        """const pair = await wire.signingKey();
        const reply = await key("deriveBits", "X25519", v.reply);
        const of = [words(v.values), v.shape, v.fields, pair, v.nodes, reply];
        const make = () => sealing.makeUpload(...of);
        return [await make(), await make()]""",
        vectors.read(),
    )
    for upload in made:
        ticket = tickets.check_upload(upload, now=vectors.AT)
        assert ticket.shape == (2, 3) and ticket.price_micro == "1000000"
        assert opened_by_nodes(upload) == vectors.VALUES
    one, two = made
    assert not set(one["ticket"]["commitment"]) & set(two["ticket"]["commitment"])
    assert one["ticket"]["share_id"] != two["ticket"]["share_id"]


@pytest.mark.parametrize(("n", "t"), [(3, 1), (5, 2), (7, 3)])
def test_shamir_shares_are_the_same_numbers_in_both(inside: In, n: int, t: int) -> None:
    values = [0, 1, -1, 2**63 - 1, -(2**63), 123456789]
    shares = [shamir_codec.encoded(s) for s in shamir_shares.split(np.array(values), n=n, t=t)]
    lying = [*shares[:-1], bytes([shares[-1][0] ^ 1]) + shares[-1][1:]]
    given = {"n": n, "t": t, "values": list(map(str, values))}
    given |= {"shares": [s.hex() for s in shares], "lying": [s.hex() for s in lying]}
    found, cut, said, made = inside(
        """const all = Array.from({ length: v.n }, (_, i) => i), some = all.slice(1);
        const read = (hex) => shamir.decoded(bytes(hex), v.values.length);
        const open = (told, of) => shamir.opened(of, of.map((i) => read(told[i])), v.t);
        let said = "";
        try { open(v.lying, all) } catch (e) { said = `${e.code} ${e.message}` }
        const cut = await code(() => shamir.decoded(bytes("ff".repeat(12)), 1));
        const texts = (list) => Array.from(list, String);
        return [[texts(open(v.shares, all)), texts(open(v.shares, some))], cut, said,
          shamir.split(words(v.values), v.n, v.t).map(wire.hex)]""",
        given,
    )
    assert found == [given["values"]] * 2 and cut == "bad_output"
    assert said.startswith("bad_output") and (f"node {n - 1}" in said) == (t > 1)
    opened = {i: shamir_codec.decoded(bytes.fromhex(s), 6) for i, s in enumerate(made)}
    assert shamir_shares.opened(opened, t).view(np.int64).tolist() == values
    few = {i: opened[i] for i in range(t)}
    assert shamir_shares.join(few).view(np.int64).tolist() != values


def test_both_take_the_same_numbers_of_nodes_for_an_engine(inside: In) -> None:
    """Any two groups that can compute share a node."""
    counts = range(2, 9)
    found = inside(
        "return v.engines.map((e) => v.counts.map((n) => tickets.computesOn(e, n)))",
        {"engines": list(tickets.ENGINES), "counts": list(counts)},
    )

    def takes(engine: str, n: int) -> bool:
        try:
            tickets.check_engine(engine, n)
        except tickets.TicketError:
            return False
        return True

    assert found == [[takes(engine, n) for n in counts] for engine in tickets.ENGINES]


def test_a_page_signs_no_lower_threshold_than_before_unless_told(inside: In) -> None:
    found = inside(
        """const asks = (engine, kept, least) =>
          code(() => pins.guarded({ slug: "a", engine }, kept, least));
        const low = { least: null, accepted: 1 };
        const kept = pins.thresholds("of a test");
        const said = [await asks("ring", kept), await asks("shamir_t2", kept),
          await asks("shamir_t1", kept), await asks("ring", pins.thresholds("of a test")),
          await asks("shamir_t1", kept, { least: 1 }), await asks("shamir_t2", kept, { least: 3 })];
        pins.guarded({ slug: "b", engine: "ring" }, kept);
        const before = [kept.known("a"), kept.known("b")];
        const later = [await asks("ring", kept, { accepted: 2 }), await asks("ring", kept, low),
          await asks("ring", kept), kept.known("a")];
        return [...said, ...before, ...later]""",
        {},
    )
    low = "threshold_too_low"
    assert found == [None, None, low, low, None, low, 2, 1, low, None, None, 1]


def test_the_page_asks_a_model_in_shamir_shares(inside: In) -> None:
    """Python is the nodes: each opens its own share alone, and seals one of the answer."""
    given = vectors.read() | {"nodes": vectors.descriptors(5)}
    upload = inside(
        """const pair = await wire.signingKey();
        const reply = await key("deriveBits", "X25519", v.reply);
        const fields = { ...v.fields, engine: "shamir_t2" };
        return sealing.makeUpload(words(v.values), v.shape, fields, pair, v.nodes, reply)""",
        given,
    )
    ticket = tickets.check_upload(upload, now=vectors.AT)
    assert ticket.engine == "shamir_t2" and ticket.shape == (2, 3)
    held = {i: sealing.open_upload(upload, i, key) for i, key in enumerate(vectors.NODE_HPKE)}
    assert shamir_shares.opened(held, 2).view(np.int64).tolist() == vectors.VALUES
    body = """const reply = await key("deriveBits", "X25519", v.reply);
        try {
          const { blobs, computing } = await nodes.answered(v.answer, v.ticket, v.nodes);
          const got = await sealing.openOutputs(blobs, v.ticket, reply, v.nodes, computing);
          return Array.from(got.values, (x) => Number(x) / 2 ** got.f);
        } catch (e) { return [e.code, e.message] }"""
    given |= {"ticket": upload["ticket"]}
    everyone = tuple(range(5))
    answer = vectors.answer(upload["ticket"], computing=everyone)
    assert inside(body, given | {"answer": answer}) == vectors.LOGITS
    lying = vectors.answer(upload["ticket"], computing=everyone, liar=3)
    code, text = inside(body, given | {"answer": lying})
    assert code == "bad_output" and "node 3" in text
    few = copy.deepcopy(answer)
    few["job"]["descriptor"]["computing"] = [0, 1, 2, 3]
    assert inside(body, given | {"answer": few})[0] == "not_receipted"


def test_a_whole_query_from_row_to_answer(inside: In) -> None:
    """The page makes it; Python is the nodes; the page opens the answer."""
    listing = {
        "features": [{"name": name} for name in "abcde"],
        "normalisation": vectors.read()["normalisation"],
        "circuit": "logistic_infer@1",
        "circuits_hash": "c1" * 32,
        "nodes": vectors.descriptors()[::-1],
        "model": "33" * 32,
        "price_micro": "500000",
        "resolution": "logit",
    }
    reading = reading_of(
        CLASSES["logistic"], "logit", {"label": {"name": "malignant", "positive": "M"}}
    )
    given = json.dumps([listing, reading, vectors.ROW])
    body = """const query = await buyer.makeQuery(...v);
        globalThis.kept = query;
        return query.upload"""
    upload = inside(body, given)
    ticket = tickets.check_upload(upload, now=int(time.time()))
    named = vectors.read()["normalisation_name"]
    assert ticket.shape == (1, 5)
    assert ticket.params == {"features": 5, "rows": 1, "normalisation": named}
    assert [[str(v) for v in row] for row in opened_by_nodes(upload)] == [vectors.fixed_row()]
    opened = inside(
        "return buyer.openAnswer(v, globalThis.kept)", vectors.answer(upload["ticket"], [-1.75])
    )
    assert opened == {"scores": [-1.75], "values": [pytest.approx(0.14804719803)]}

    def refusal(row: Any = vectors.ROW, reads: Any = reading, **changes: Any) -> Any:
        body = "return code(() => buyer.makeQuery(...v))"
        return inside(body, [listing | changes, reads, row])

    # of a model for holders of a credential, which the wallet key lends a key of the query's own
    at_ms = int(time.time() * 1000)
    board, wallet, other = (
        Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2, 3)
    )
    rows = [proofs.issued(by, wallet, until_ms=at_ms + 10**9) for by in (other, board)]
    asked = listing | {"node_access": proofs.demand(board).params}
    own, pair = wire.public_hex(wallet), [wallet.private_bytes_raw().hex(), wire.public_hex(wallet)]
    body = """const [args, rows, own, pair] = v;
        const wallet = await key("sign", "Ed25519", pair);
        const asker = (asked) =>
          credentials.asking(asked, { rows, key: own, pairOf: async () => wallet });
        return (await buyer.makeBatch(args[0], args[1], [args[2]], "500000", asker)).upload"""
    shown = inside(body, [[asked, reading, vectors.ROW], rows, own, pair])
    ticket = tickets.check_upload(shown, now=at_ms // 1000)
    by = {"sender": ticket.sender, "at_ms": at_ms}
    assert credentials.shown(proofs.demand(board), ticket.access, **by).key == own
    assert ticket.sender != own
    body = f"return code(async () => {{{body}}})"
    for given_of, keeps in ((rows[:1], "=> wallet"), (rows, "=> undefined")):
        without = [[asked, reading, vectors.ROW], given_of, own, pair]
        assert inside(body.replace("=> wallet", keeps), without) == "credential_needed"

    assert refusal(**asked) == "credential_needed"
    assert refusal(vectors.ROW[:4]) == "bad_row"
    assert refusal([*vectors.ROW[:4], "0.5"]) == "bad_row"  # a text is no number
    other = [*listing["features"][:4], {"name": "e", "type": "boolean"}]
    assert refusal([*vectors.ROW[:4], "maybe"], features=other) == "bad_row"
    assert refusal([*vectors.ROW[:4], "yes"], features=other) is None
    assert refusal(obstacle="gone") == "circuit_changed"
    assert refusal(nodes=listing["nodes"][:2]) == "bad_nodes"
    assert refusal(circuit="x@1") == "unknown_circuit"
    other = {"circuit": "logistic_infer_label@1"}
    assert refusal(reads=reading | other, **other) == "unknown_circuit"
    assert refusal(reads=reading | {"kind": "toString"}) == "unknown_circuit"


LABELS: dict[str, Any] = {
    "binary": {"name": "malignant", "positive": "M"},
    "classes": {"name": "grade", "classes": ["low", "middle", "high"]},
    "number": {"name": "dose", "min": "-3", "max": "21.5"},
    "count": {"name": "visits", "min": "0", "max": "900"},
    "survival": {"name": "relapse", "event": "relapsed", "max": "60"},
}
LOGITS = (-98304, -7, 0, 12345, 98304)


def steps_of(reading: dict[str, Any]) -> list[list[int]]:
    """Words of answers: every step there is, and several scores."""
    counts = {"label": len(reading["names"]), "band": len(reading["bands"]) - 1}
    counts["rounded"] = len(reading["grid"])
    steps = LOGITS if reading["resolution"] == "logit" else range(counts[reading["resolution"]])
    shifted = [[*steps[k:], *steps[:k]] for k in range(reading["words"])]
    return [list(row) for row in zip(*shifted, strict=True)]


@pytest.mark.parametrize("name", CLASSES)
def test_answers_mean_the_same_in_the_page_at_every_resolution(inside: In, name: str) -> None:
    model = CLASSES[name]
    label = LABELS[model.label]
    for resolution in model.resolutions:
        reading = reading_of(model, resolution, {"label": label})
        rows = steps_of(reading)
        made = inside(
            """const asking = await import("/static/js/asking.js");
            const [reading, rows] = v;
            const said = rows.map((row) => buyer.meaning(reading, row.map(BigInt), 16));
            return [tables.columns(reading), said.map((one) => [
              [one.label ?? one.bands ?? one.values].flat(2), tables.cells(one, reading),
              asking.inWords(one, reading).text, tables.record(one, reading)])]""",
            [reading, rows],
        )
        said = meaning(reading["circuit"], np.array(rows), 16, label)
        table = columns_of(said, label)
        assert made[0] == list(table)
        for row, (values, cells, text, record) in enumerate(made[1]):
            answer = {name: column[row] for name, column in table.items()}
            assert record == (answer if resolution == "label" else pytest.approx(answer))
            assert values == pytest.approx(said.answers[row], rel=1e-12, abs=1e-12)
            if resolution == "label":
                assert cells == [said.labels[row]] and text == said.labels[row]
            else:
                kept = [column[row] for column in table.values()]
                assert [float(c) for c in cells] == pytest.approx(kept, rel=1e-12, abs=1e-6)
        if resolution != "logit":
            refused = "return code(() => buyer.meaning(v[0], v[1].map(BigInt), 0))"
            beyond = max(max(row) for row in rows) + 1
            for wrong in (beyond, -1):
                assert inside(refused, [reading, [wrong] * reading["words"]]) == "bad_output"


@pytest.mark.parametrize(
    ("kind", "said", "text"),
    [
        ("binary", {"values": [0.148], "scores": [-1.75]}, "14.8 %"),
        ("binary", {"bands": [[0.2, 0.4]]}, "20 to 40 %"),
        ("classes", {"values": [0.2, 0.5, 0.3]}, "middle"),
        ("classes", {"bands": [[0, 0.2], [0.4, 0.6], [0.4, 0.6]]}, "middle or high"),
        ("classes", {"bands": [[0, 0.2], [0, 0.2], [0, 0.2]]}, "none stands out"),
        ("number", {"values": [-1.23456]}, "−1.23"),
        ("number", {"bands": [[-3, 1.9]]}, "−3 to 1.9"),
        ("count", {"values": [310]}, "310"),
        ("count", {"values": [1000]}, "1000 or more"),
        ("survival", {"values": [0.5]}, "0.5"),
    ],
)
def test_an_answer_is_said_in_words(inside: In, kind: str, said: Any, text: str) -> None:
    name = next(name for name, model in CLASSES.items() if model.label == kind)
    reading = reading_of(CLASSES[name], "rounded", {"label": LABELS[kind]})
    made = inside(
        """const asking = await import("/static/js/asking.js");
        return asking.inWords(...v)""",
        [said, reading],
    )
    assert made["text"] == text
    assert [each["name"] for each in made["each"]] == (reading["names"] if made["each"] else [])
    assert bool(made["each"]) == (kind == "classes")
    bars = [made["bar"], *(each["bar"] for each in made["each"])]
    assert all(0 <= bar["low"] <= bar["high"] <= 1 for bar in bars if bar)
    assert any(bars) == (kind not in ("count", "survival"))


def test_the_page_signs_no_quote_above_the_price_that_it_shows(inside: In) -> None:
    quotes = [("1400000", "balance"), ("1500000", "balance"), ("1500001", "balance"), ("9", "plan")]
    quotes.append(("1800000", "plan"))  # paid ahead, before the price fell
    made = inside(
        """const { api } = await import("/static/js/asking.js");
        const dataset = { api: "/api/v1/", listing: "x", priceMicro: "500000" };
        const { priced } = api({ dataset, elements: { csrfmiddlewaretoken: { value: "" } } }, []);
        const said = [];
        for (const [price_micro, paid_from] of v) {
          window.fetch = async () => Response.json({ price_micro, paid_from, quote: "token" });
          said.push(await priced(3).then(({ price }) => price, ({ code }) => code));
        }
        return said""",
        quotes,
    )
    assert made == ["1400000", "1500000", "changed", "9", "1800000"]


OPEN = """const pair = await key("deriveBits", "X25519", v.reply);
    const { blobs, computing } = await nodes.answered(v.answer, v.ticket, v.nodes);
    const { values, f } = await sealing.openOutputs(blobs, v.ticket, pair, v.nodes, computing);
    return Array.from(values, (x) => Number(x) / 2 ** f);"""
REFUSED = f"return code(async () => {{ {OPEN} }})"


def test_the_page_opens_what_the_nodes_sealed(inside: In) -> None:
    kept = vectors.read()
    assert inside(OPEN, kept) == kept["logits"]
    for bundled in kept["bundled"]:
        assert inside(OPEN, kept | {"answer": bundled}) == kept["logits"]
        signed = bundled["job"]["receipts"][1]
        alone = signed["signature"][:128]
        longer, shorter = signed["signature"] + "00" * 32, signed["signature"][:-64]
        for other in (alone, shorter, longer, alone + "00" * 8):
            lied = copy.deepcopy(bundled)
            lied["job"]["receipts"][1]["signature"] = other
            assert inside(REFUSED, kept | {"answer": lied}) == "not_receipted"
    fresh = kept | {"answer": vectors.answer(kept["ticket"], [3.5], f=20, attempt=7)}
    assert inside(OPEN, fresh) == [3.5]


def test_of_five_nodes_the_three_that_computed_sign_for_the_answer(inside: In) -> None:
    kept = vectors.read()
    five = kept | kept["five"]
    assert inside(OPEN, five) == kept["logits"]
    for group in ([0, 1, 2], [1, 3], [1, 3, 3], [4, 3, 1], [1, 3, 5]):
        lied = copy.deepcopy(five)
        lied["answer"]["job"]["descriptor"]["computing"] = group
        assert inside(REFUSED, lied) == "not_receipted", group
    lied = copy.deepcopy(five)
    lied["answer"]["job"]["descriptor"] |= {"nodes": five["nodes"][:3]}
    assert inside(REFUSED, lied) == "not_receipted"


def test_four_nodes_that_check_each_other_sign_for_the_answer(inside: In) -> None:
    kept = vectors.read()
    five = kept | kept["five"]
    answer = vectors.answer(five["ticket"], computing=(0, 1, 3, 4))
    assert inside(OPEN, five | {"answer": answer}) == kept["logits"]
    passive = copy.deepcopy(answer)
    passive["job"]["descriptor"]["engine"] = "ring"
    unsaid = copy.deepcopy(answer)
    del unsaid["job"]["receipts"][0]["receipt"]["engine"]
    for lied in (passive, unsaid):
        assert inside(REFUSED, five | {"answer": lied}) == "not_receipted"
    # who signed for the verified ring is not answered by the other
    demanded = five["ticket"] | {"engine": "ring_verified"}
    ring = vectors.answer(demanded, computing=(1, 3, 4))
    assert inside(REFUSED, five | {"ticket": demanded, "answer": ring}) == "not_receipted"
    of_three = kept["ticket"] | {"engine": "ring_verified"}
    unknown = [five["ticket"] | {"engine": engine} for engine in (["ring"], "other", None)]
    checked = "return Promise.all(v.map((x) => code(() => tickets.checkTicket(x))))"
    assert inside(checked, [demanded, of_three, *unknown]) == [None] + ["malformed"] * 4


def forged(kept: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What a server could try: each differs from an honest answer in one thing."""

    def changed(change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        answer = copy.deepcopy(kept["answer"])
        change(answer)
        return answer

    other = vectors.answer(kept["ticket"], [9.0])
    elsewhere = vectors.answer(kept["ticket"] | {"share_id": "ee" * 16})
    receipt = kept["answer"]["job"]["receipts"][0]["receipt"]
    return {
        "another answer sealed to the reply key": changed(
            lambda a: a.update(sealed=other["sealed"])
        ),
        "one part of another answer": changed(
            lambda a: a["sealed"].__setitem__(1, other["sealed"][1])
        ),
        "a part missing": changed(lambda a: a["sealed"].pop()),
        "an answer to another ticket": elsewhere,
        "a receipt missing": changed(lambda a: a["job"]["receipts"].pop()),
        "a receipt twice": changed(
            lambda a: a["job"]["receipts"].__setitem__(1, a["job"]["receipts"][0])
        ),
        "a receipt that was altered": changed(
            lambda a: a["job"]["receipts"][0].update(receipt=receipt | {"at": 1})
        ),
        "receipts that disagree": changed(
            lambda a: a["job"]["receipts"].__setitem__(2, other["job"]["receipts"][2])
        ),
        "another job": changed(lambda a: a["job"]["descriptor"].update(model="44" * 32)),
        "no job": changed(lambda a: a.update(job=None)),
    }


def test_the_page_opens_nothing_that_its_nodes_did_not_sign_for(inside: In) -> None:
    kept = vectors.read()
    assert inside(REFUSED, kept) is None
    codes = {name: inside(REFUSED, kept | {"answer": a}) for name, a in forged(kept).items()}
    assert codes == dict.fromkeys(codes, "not_receipted")
    strangers = copy.deepcopy(kept["nodes"])
    strangers[1]["hpke_key"] = strangers[0]["hpke_key"]
    assert inside(REFUSED, kept | {"nodes": strangers}) == "not_receipted"


def test_two_nodes_that_report_different_words_are_seen(inside: In) -> None:
    """Both signed for what they sealed, so only the words themselves tell."""
    kept, honest = vectors.read(), sealing.seal_output

    def lie(words: Any, **bound: Any) -> bytes:
        if bound["secret"] == vectors.node_secret(kept["ticket"], 1):
            words = words | {2: words[2] + np.uint64(1)}
        return honest(words, **bound)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sealing, "seal_output", lie)
        answer = vectors.answer(kept["ticket"])
    assert inside(REFUSED, kept | {"answer": answer}) == "bad_output"


def test_the_page_follows_the_node_sets_that_the_nodes_signed_for(inside: In) -> None:
    nodes, one, two = [made() for _ in range(3)], made(), made()
    middle, last = [nodes[0], one, nodes[2]], [two, one, nodes[2]]
    first = succession(nodes, 1, one, [nodes[0], nodes[2]])
    second = succession(middle, 0, two, [nodes[0]])
    weak = succession(nodes, 1, one, [nodes[0], nodes[0], made()])
    back = succession(middle, 1, nodes[1], [one])
    many = [made() for _ in range(5)]
    enough = [succession(many, 4, one, many[:count]) for count in (2, 3)]
    forged = first | {"statement": first["statement"] | {"new": names([two])[0]}}
    cases = [
        (names(last), [{"succeeds": [second]}, {"succeeds": [first]}, {}]),
        (names(last), [{"succeeds": [first]}, {}]),
        (names(middle), [{"succeeds": [second, first]}]),
        (names(middle), [{"succeeds": [weak]}]),
        (names(middle), [{"succeeds": [back, first]}]),
        (names([nodes[0], two, nodes[2]]), [{"succeeds": [forged, None, {}]}]),
        *((names([*many[:4], one]), [{"succeeds": [signed]}]) for signed in enough),
    ]
    found = inside(
        "return Promise.all(v.map(([prints, all]) => pins.setsBefore(prints, all)))", cases
    )
    assert found == [successions.sets_before(*case) for case in cases]
    assert [len(sets) for sets in found] == [2, 0, 1, 0, 1, 0, 0, 1]


def test_sealing_and_opening_thirty_features_is_quick(inside: In) -> None:
    """Issue 7's bound is 30 ms; the median here, with room for a busy machine."""
    kept = vectors.read()
    spent = inside(
        """const spent = [], pair = await wire.signingKey();
        const reply = await key("deriveBits", "X25519", v.reply);
        for (let i = 0; i < 9; i += 1) {
          const start = performance.now();
          await sealing.makeUpload(new BigInt64Array(30), [1, 30], v.fields, pair, v.nodes, reply);
          const { blobs } = await nodes.answered(v.answer, v.ticket, v.nodes);
          await sealing.openOutputs(blobs, v.ticket, reply, v.nodes);
          spent.push(performance.now() - start);
        }
        return spent.sort((a, b) => a - b)[4]""",
        kept,
    )
    assert spent < 100


def test_the_vendored_module_is_the_one_that_its_readme_names() -> None:
    named = re.search(r"hpke\.js \| `sha256-([0-9a-f]{64})`", (VENDOR / "README.md").read_text())
    assert named is not None
    assert hashlib.sha256((VENDOR / "hpke.js").read_bytes()).hexdigest() == named[1]
    assert "MIT License" in (VENDOR / "LICENSE").read_text()


def opened_by_nodes(upload: dict[str, Any]) -> list[list[int]]:
    """Every node opens its envelope and checks its commitments; the words add up to the values."""
    n = len(upload["envelopes"])
    words: dict[int, Any] = {}
    for i, private in enumerate(vectors.NODE_HPKE[:n]):
        opened = sealing.open_upload(upload, i, private)
        for j, word in zip(sealing.held_by(i, n), opened, strict=True):
            assert np.array_equal(words.setdefault(j, word), word)
    found: list[list[int]] = replicated.join(words).view(np.int64).tolist()
    return found
