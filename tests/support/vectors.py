"""What Python and the page must agree on, byte for byte, as one JSON file of test vectors.

`python -m tests.support.vectors` writes tests/explorer/twin_vectors.json. Everything in it follows
from fixed seeds, except the sealed answers: these draw nonces of their own, so they are kept as
they came out once, and each side must open them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from apps.protocol import consent, jobs, tickets, wire
from apps.protocol.encoding import encode, levels_of, place_of
from apps.protocol.normalise import constants_digest
from workers.client import training
from workers.client.buyer import sigmoid
from workers.mpc import commitments, hpke, keys, sealing, shamir_shares
from workers.mpc.engines import field89

FILE = Path(__file__).resolve().parents[1] / "explorer" / "twin_vectors.json"
AT = 1_800_000_000
CANONICAL: list[Any] = [
    None, True, False, 0, -1, 2**53, -(2**53), "", "ä ✓ 😀", 'quote " back \\ slash /',
    "".join(map(chr, range(32))) + "\x7f\u2028\ufffd", [], {}, [1, [2, [3, {}]]],
    {"b": 1, "a": [], "B": None, "": "x", "aa": True, "10": 1, "9": 2},
    {"\uff5e": "after the surrogates in UTF-16 only", "\U0001f600": 1, "z": {"é": 1, "e": 2}},
    {"__proto__": 1, "constructor": {"prototype": []}},
]  # fmt: skip
NOT_CANONICAL = ["0.5", "1e400", "9007199254740994", '"\\ud800"', '{"\\udc00": 1}']
VALUES = [[0, 1, -1], [2**63 - 1, -(2**63), 123456789]]
ROW = [17.99, -3.25, 0.0000152587890625, 1e6, 0.5]
MEAN = [14_000_000, 0, 0, 1_048_576, 5]
STD = [3_500_000, 1_048_576, 2_097_152, 1_048_576, 1_048_575]
LOGITS = [-5.5, 0.0, 2.25, 11.0]


def seed(name: str) -> bytes:
    return hashlib.sha256(f"twin vectors: {name}".encode()).digest()


SENDER = Ed25519PrivateKey.from_private_bytes(seed("sender"))
REPLY = keys.hpke_key(seed("reply"))
NODE_SIGN = [Ed25519PrivateKey.from_private_bytes(seed(f"node {i} sign")) for i in range(5)]
NODE_HPKE = [keys.hpke_key(seed(f"node {i} hpke")) for i in range(5)]


@contextmanager
def drawn_from(name: str) -> Iterator[list[bytes]]:
    """secrets.token_bytes in sealing.py follows from `name`; yields what was drawn, in order."""
    drawn: list[bytes] = []

    def draw(count: int) -> bytes:
        drawn.append(seed(f"{name} {len(drawn)}")[:count])
        return drawn[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sealing.secrets, "token_bytes", draw)
        yield drawn


def descriptors(n: int = 3) -> list[dict[str, Any]]:
    made = []
    for i in range(n):
        body = {
            "v": 1,
            "index": i,
            "name": f"node-{i}",
            "sign_key": wire.public_hex(NODE_SIGN[i]),
            "hpke_key": keys.hpke_public_hex(NODE_HPKE[i]),
            "tls_cert": "-",
            "control": "127.0.0.1:1",
            "mesh": "127.0.0.1:2",
            "engines": ["ring"],
            "circuits_hash": "c1" * 32,
            "release": "0",
        }
        made.append(body | {"signature": wire.sign(NODE_SIGN[i], jobs.NODE_DOMAIN, body)})
    return made


def fields(**changes: Any) -> dict[str, Any]:
    """A query's ticket, as far as the buyer gives it."""
    return {
        "scope": "query:" + "ab" * 16,
        "slot": "row",
        "circuits": ["logistic_infer@1"],
        "circuits_hash": "c1" * 32,
        "params": {"features": 3, "rows": 2},
        "f": 16,
        "issued_at": AT,
        "expires_at": AT + 600,
        "model": "33" * 32,
        "price_micro": "1000000",
        "resolution": "logit",
    } | changes


def upload(n: int = 3) -> tuple[dict[str, Any], list[bytes]]:
    with drawn_from("upload") as drawn:
        made = sealing.make_upload(np.array(VALUES), fields(), SENDER, descriptors(n), reply=REPLY)
    return made, drawn


def answer(
    ticket: dict[str, Any],
    logits: list[float] = LOGITS,
    *,
    f: int = 16,
    attempt: int = 1,
    computing: tuple[int, ...] = (0, 1, 2),
    among: int = 1,
    liar: int | None = None,
) -> dict[str, Any]:
    """A settled query as the API shows it: three nodes' sealed parts and their receipts, or four
    verified ones', of a bundle of so many; or those of nodes with Shamir shares, as the ticket
    says, of whom one may lie."""
    count, engine = len(computing), ticket["engine"]
    words = [sealing.expand(seed(f"word {j}"), len(logits)) for j in range(count - 1)]
    fixed = np.round(np.array(logits) * 2.0**f).astype(np.int64).view(np.uint64)
    words.append(fixed - sum(words))
    shares = []
    if engine in tickets.SHAMIR:
        n, t = len(ticket["nodes"]), tickets.SHAMIR[engine]
        shares = shamir_shares.split(fixed.view(np.int64), n=n, t=t)
    ticket_id = tickets.ticket_id(ticket)
    descriptor = {
        "v": 1,
        "job_id": "aa" * 16,
        "attempt": attempt,
        "circuit": "logistic_infer@1",
        "circuits_hash": ticket["circuits_hash"],
        "engine": engine if engine in tickets.SHAMIR else "ring" if count == 3 else "ring_verified",
        "nodes": ticket["nodes"],
        "scope": ticket["scope"],
        "roster": None,
        "inputs": {ticket["slot"]: [ticket["share_id"]]},
        "model": ticket["model"],
        "deadline_s": 15,
    }
    if len(ticket["nodes"]) > 3:
        descriptor |= {"computing": list(computing), "holding": []}
    jobs.check_job(descriptor)
    sealed, receipts = [], []
    for role, i in enumerate(computing):
        fingerprint = ticket["nodes"][i]
        to = {
            "f": f,
            "job_id": descriptor["job_id"],
            "secret": node_secret(ticket, i),
            "reply_key": ticket["reply_key"],
        }
        if shares:
            share = field89.add(shares[i], field89.of_int(int(i == liar)))
            blob = sealing.seal_share(i, share, shape=(len(logits),), **to)
        else:
            held = {j: words[j] for j in sealing.held_by(role, count)}
            blob = sealing.seal_output(held, **to)
        receipt = {
            "v": 1,
            "job_id": descriptor["job_id"],
            "attempt": attempt,
            "descriptor": jobs.job_digest(descriptor),
            "circuit": descriptor["circuit"],
            "circuits_hash": descriptor["circuits_hash"],
            "scope": ticket["scope"],
            "inputs": [ticket_id],
            "openings": wire.digest(jobs.OPENINGS_DOMAIN, {}),
            "model": None,
            "result": None,
            "sealed": jobs.sealed_hash(blob),
            "node": fingerprint,
            "at": AT + i,
            **jobs.engine_named(descriptor),
        }
        bundle = [receipt | {"job_id": f"{k:032x}"} for k in range(among - 1)]
        bundle.insert(i % among, receipt)
        signature = jobs.sign_receipts(NODE_SIGN[i], bundle)[i % among]
        sealed.append({"fingerprint": fingerprint, "blob": wire.b64(blob)})
        receipts.append({"node": f"node-{i}", "receipt": receipt, "signature": signature})
    # The server counts the attempts on; the nodes repeat what they signed.
    job = {"descriptor": descriptor | {"attempt": attempt + 1}, "receipts": receipts}
    return {"state": "settled", "price_micro": ticket["price_micro"], "sealed": sealed, "job": job}


def node_secret(ticket: dict[str, Any], i: int) -> bytes:
    """What a node's secret of this ticket is, whoever asks."""
    info = bytes.fromhex(tickets.ticket_id(ticket) + ticket["nodes"][i])
    enc = bytes.fromhex(ticket["reply_key"])
    shared = hpke.recipient(enc, NODE_HPKE[i], sealing.SEAL_CONTEXT + info)
    return shared.export(sealing.REPLY_CONTEXT)


def fixed_row() -> list[str]:
    """The row as the SDK standardises and encodes it."""
    constants = training.constants({"f": 20, "mean": MEAN, "std": STD})
    z = training.standardise(np.array([ROW]), *constants)
    return [str(v) for v in np.round(z * 2.0**16).astype(np.int64).reshape(-1)]


def encodings() -> list[Any]:
    """[features, a row as typed, its encoding or null where a level is none of them]"""
    levels = ["I", "2", "caf\u00e9", "01"]
    stage = {"name": "stage", "type": "category", "levels": levels}
    features = [stage, {"name": "age", "type": "number"}, {"name": "smoker", "type": "boolean"}]
    yes_no = {"name": "x", "type": "category", "levels": ["no", "yes", "unknown"]}
    typed = "I|40.5|yes, 2.00 |-3|TRUE,cafe\u0301|1e3|0,1|4|no,01|0|1.0,I|1|maybe,i|1|No,2.5|1|no"
    rows = [row.split("|") for row in typed.split(",")]
    asked = [*((features, row) for row in rows), ([yes_no], ["yes"]), ([yes_no], ["1"])]
    return [[about, row, _encoded(about, row)] for about, row in asked]


def _encoded(features: list[dict[str, Any]], row: list[str]) -> list[float] | None:
    places = [
        place_of(levels_of(f), cell) if levels_of(f) else float(cell)
        for f, cell in zip(features, row, strict=True)
    ]
    if None in places:
        return None
    made: list[float] = encode(np.array([places], float), features)[0].tolist()
    return made


def settled() -> dict[str, Any]:
    """All that follows from the seeds."""
    made, drawn = upload()
    salt, share_id, word = seed("salt")[:16], seed("id")[:16], bytes(range(16))
    halves = [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 0.4999999, -0.75]
    return {
        "canonical": [[value, wire.canonical(value).hex()] for value in CANONICAL],
        "not_canonical": NOT_CANONICAL,
        "digests": [["flai/x/v1", v, wire.digest("flai/x/v1", v)] for v in CANONICAL[-2:]],
        "expand": {
            "seed": seed("expand").hex(),
            "words": [str(word) for word in sealing.expand(seed("expand"), 5)],
        },
        "commitment": commitments.commit(salt=salt, share_id=share_id, j=2, word=word),
        "commitment_of": [salt.hex(), share_id.hex(), 2, word.hex()],
        "halves": [[v, int(np.round(v))] for v in halves],
        "row": ROW,
        "normalisation": {"f": 20, "mean": MEAN, "std": STD},
        "normalisation_name": constants_digest({"f": 20, "mean": MEAN, "std": STD}),
        "fixed_row": fixed_row(),
        "encodings": encodings(),
        "sigmoid": [[z, sigmoid(z)] for z in (-800.0, *LOGITS, 800.0)],
        "sender": [seed("sender").hex(), wire.public_hex(SENDER)],
        "nodes": descriptors(),
        "fields": fields(reply_key=keys.hpke_public_hex(REPLY)),
        "shape": [2, 3],
        "values": [str(v) for row in VALUES for v in row],
        "drawn": [d.hex() for d in drawn],
        "ticket": made["ticket"],
        "ticket_id": tickets.ticket_id(made["ticket"]),
        "signature": made["signature"],
        "correction": made["correction"],
        "consents": consents(),
    }


def consents() -> dict[str, Any]:
    """What a wallet key signs: an action, and that it is had; and a recovery code's key."""
    public = wire.public_hex(SENDER)
    said = consent.message(
        pid="ab" * 16,
        kind=consent.SEND,
        payload=consent.send_payload(to="cd" * 16, asset="USDC", amount_micro=2**63 - 1),
        key=public,
        nonce=2**53,
        expires_at=1_800_000_000_000,
    )
    return {
        "said": said,
        "signature": wire.sign(SENDER, consent.ACTION_DOMAIN, said),
        "proofs": [
            [
                purpose,
                wire.sign(
                    SENDER, consent.KEY_DOMAIN, consent.possession("ab" * 16, purpose, public)
                ),
            ]
            for purpose in consent.PURPOSES
        ],
        "code": seed("sender").hex(),
    }


def of_five(made: dict[str, Any], drawn: list[bytes]) -> dict[str, Any]:
    """What differs with five nodes, as far as it follows from the seeds."""
    return {
        "nodes": descriptors(5),
        "drawn": [d.hex() for d in drawn],
        "ticket": made["ticket"],
        "ticket_id": tickets.ticket_id(made["ticket"]),
        "signature": made["signature"],
        "correction": made["correction"],
    }


FIVE_COMPUTING = (1, 3, 4)


def everything() -> dict[str, Any]:
    made, _ = upload()
    five, drawn = upload(5)
    sealed = {
        "five": of_five(five, drawn)
        | {
            "envelopes": five["envelopes"],
            "answer": answer(five["ticket"], computing=FIVE_COMPUTING),
        },
        "reply": [seed("reply").hex(), keys.hpke_public_hex(REPLY)],
        "envelopes": made["envelopes"],
        "logits": LOGITS,
        "answer": answer(made["ticket"]),
        "bundled": [answer(made["ticket"], among=size) for size in (2, 7, 32)],
    }
    return settled() | sealed


def read() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(FILE.read_text())
    return content


if __name__ == "__main__":
    FILE.write_text(json.dumps(everything(), indent=1, ensure_ascii=False) + "\n")
