"""Nodes, jobs and receipts as signed objects: their forms, ids and checks.

A node descriptor is a node's public identity, signed by its own key; its fingerprint is what
operators publish and agents pin. A job descriptor is signed by the coordinator and names only what
owners' tickets already allow. A receipt is one node's signed word about a job.

    fingerprint = digest("flai/node-fp/v1", {"sign_key", "hpke_key"})
    model       = digest("flai/model/v1", job descriptor without what an attempt decides)

On three nodes all compute. A job on four or five names who takes part in this attempt: "computing",
the three that compute, or four on the verified ring, and "holding", others that are there: they
keep what comes of it, bind the scope and sign as those do. Whoever is in neither list is away. An
attempt decides this, its number and its deadline; model and scope are the same whoever computes.

A job on Shamir shares is computed by all its members, 2t + 1 at least, and each holds its own share
of what comes of it: none is only "holding", and a receipt tells one hash, that of the node's share.

A receipt names the "engine" unless it is the passive ring: one that names none was computed by
three nodes that do not check each other. Where the tickets of a job that is no query say who may
ask what it makes, its receipts name that too, as "access" (`credentials.Demand`): the tickets are
shown to no auditor.

A node signs for a bundle of queries once, over the root of the Merkle tree (RFC 9162 §2.1) of its
receipts; what goes with each as its signature is that one, and the way from receipt to root:

    leaf      = SHA-256(0x00 ‖ "flai/receipt/v1" ‖ 0x00 ‖ canonical(receipt))
    signed    = {"v": 1, "size", "root"} under "flai/receipts/v1"
    signature = hex(Ed25519 64 ‖ index 4 ‖ size 4 ‖ path 32 each), numbers big-endian

A receipt that is alone has the plain signature of 64 bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from apps.protocol import merkle
from apps.protocol.credentials import demand_of
from apps.protocol.tickets import (
    COMPUTING,
    ENGINES,
    NODE_COUNTS,
    RING,
    SHAMIR,
    TRIO,
    VERIFIED,
    TicketError,
    check_engine,
    check_roster,
    is_node_set,
)
from apps.protocol.wire import (
    BadSignature,
    canonical,
    digest,
    encoded,
    is_hex,
    sign,
    unhex,
    verify,
)

NODE_DOMAIN = "flai/node/v1"
NODE_CLAIM_DOMAIN = "flai/node-claim/v1"
ACK_DOMAIN = "flai/ack/v1"
DROP_DOMAIN = "flai/drop/v1"
JOB_DOMAIN = "flai/job/v1"
BUNDLE_DOMAIN = "flai/bundle/v1"
MODEL_DOMAIN = "flai/model/v1"
SCOPE_DOMAIN = "flai/scope/v1"
RECEIPT_DOMAIN = "flai/receipt/v1"
RECEIPTS_DOMAIN = "flai/receipts/v1"
OPENINGS_DOMAIN = "flai/openings/v1"

RECEIPTS_MAX = 256  # that a node signs for together
SIGNATURE_BYTES, PLACE_BYTES, HASH_BYTES = 64, 4, 32

SUCCESSIONS_MAX = 16  # that a descriptor carries, and that lie between two node sets
MAX_INPUTS = 4096
MAX_DEADLINE_S = 3600
STAGED_FOR_S = 86_400  # after its scope's expiry, a result may still be committed so long

_NODE_FIELDS = {
    "v",
    "index",
    "name",
    "sign_key",
    "hpke_key",
    "tls_cert",
    "control",
    "mesh",
    "engines",
    "circuits_hash",
    "release",
    "signature",
}
_SUCCESSOR_FIELD = {"succeeds"}  # of a node that took another one's place: `successions`
_JOB_FIELDS = {
    "v",
    "job_id",
    "attempt",
    "circuit",
    "circuits_hash",
    "engine",
    "nodes",
    "scope",
    "roster",
    "inputs",
    "model",
    "deadline_s",
}
_GROUP_FIELDS = {"computing", "holding"}  # where not all nodes take part
_OF_AN_ATTEMPT = ("attempt", "deadline_s", *sorted(_GROUP_FIELDS))
_OF_A_JOB = ("job_id", *_OF_AN_ATTEMPT)  # not of what it computes
# What every member must say alike; word hashes agree pairwise; node, time and the hash of what this
# node sealed for the buyer are its own.
AGREED_FIELDS = (
    "v",
    "job_id",
    "attempt",
    "descriptor",
    "circuit",
    "circuits_hash",
    "scope",
    "inputs",
    "openings",
    "model",
)
_RECEIPT_FIELDS = {*AGREED_FIELDS, "result", "sealed", "node", "at"}
_NAMED_FIELDS = {"engine", "access"}  # agreed on too, where they are named


class JobError(Exception):
    """A descriptor or receipt is not acceptable. `code` for programs, `text` safe to show."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


def fingerprint(node: dict[str, Any]) -> str:
    """digest("flai/node-fp/v1", {"sign_key", "hpke_key"}), hex."""
    keys = {"sign_key": node["sign_key"], "hpke_key": node["hpke_key"]}
    return digest("flai/node-fp/v1", keys)


def check_node(node: Any) -> str:
    """The fingerprint of a well-formed, self-signed node descriptor. Raises: JobError."""
    try:
        told = json.dumps(node)
    except (TypeError, ValueError, RecursionError):
        raise JobError("bad_node_descriptor", "The node's descriptor is no JSON.") from None
    return _checked_node(told)


@lru_cache(maxsize=64)
def _checked_node(told: str) -> str:
    """Who asks the same nodes again and again is shown the same descriptors."""
    node, code = json.loads(told), "bad_node_descriptor"
    ok = isinstance(node, dict) and set(node) - _SUCCESSOR_FIELD == _NODE_FIELDS
    _require(ok, code, "The node's descriptor lacks or adds fields.")
    succeeds = node.get("succeeds", [])
    ok = isinstance(succeeds, list) and len(succeeds) <= SUCCESSIONS_MAX
    _require(ok, code, "The node's descriptor lists no successions.")
    _require(node["v"] == 1, code, "Unknown version of node descriptor.")
    _require(
        _int(node["index"], 0, max(NODE_COUNTS) - 1), code, "The node's index is out of range."
    )
    keys_ok = is_hex(node["sign_key"], 32) and is_hex(node["hpke_key"], 32)
    _require(keys_ok, code, "The node's keys are not 32 bytes in hex.")
    texts = all(isinstance(node[k], str) for k in ("name", "tls_cert", "control", "mesh"))
    _require(texts, code, "The node's name, certificate or addresses are missing.")
    try:
        verify(node["sign_key"], NODE_DOMAIN, _without(node, "signature"), str(node["signature"]))
    except (BadSignature, ValueError):
        raise JobError(code, f"The descriptor of {node['name']} is not signed by it.") from None
    return fingerprint(node)


def check_job(job: Any) -> None:
    """Raises JobError unless every field of a job descriptor has the right form."""
    code = "malformed_job"
    ok = isinstance(job, dict) and set(job) - _GROUP_FIELDS == _JOB_FIELDS
    _require(ok, code, "The job descriptor lacks or adds fields.")
    _require(job["v"] == 1, code, "Unknown version of job descriptor.")
    _require(is_hex(job["job_id"], 16), code, "The job's id is not 16 bytes in hex.")
    _require(_int(job["attempt"], 1, 1_000_000), code, "The attempt is not a positive number.")
    _require(isinstance(job["circuit"], str), code, "The circuit has no name.")
    _require(is_hex(job["circuits_hash"], 32), code, "The circuits hash is malformed.")
    _require(job["engine"] in ENGINES, code, "Unknown engine.")
    _require(is_node_set(job["nodes"]), code, "The job does not name its nodes.")
    try:
        check_engine(job["engine"], len(job["nodes"]))
    except TicketError as error:
        raise JobError(error.code, error.text) from None
    _check_group(job)
    _require(isinstance(job["scope"], str), code, "The job has no scope.")
    _require(job["model"] is None or is_hex(job["model"], 32), code, "The model is malformed.")
    _require(_int(job["deadline_s"], 1, MAX_DEADLINE_S), code, "The deadline is out of range.")
    _check_inputs(job["inputs"])
    if job["roster"] is not None:
        try:
            check_roster(job["roster"])
        except TicketError as error:
            raise JobError(error.code, error.text) from None


def computing_of(job: dict[str, Any]) -> tuple[int, ...]:
    """The indices of the nodes that compute, ascending: roles 0, 1, 2, of the verified ring 3; of
    Shamir shares node i has the point i + 1, whoever the others are."""
    return tuple(job.get("computing", range(TRIO)))


def holding_of(job: dict[str, Any]) -> tuple[int, ...]:
    """The indices of the members that keep the result without computing, ascending."""
    return tuple(job.get("holding", ()))


def members_of(job: dict[str, Any]) -> tuple[int, ...]:
    """The indices of all who take part in this attempt, ascending: who must sign for it."""
    return tuple(sorted((*computing_of(job), *holding_of(job))))


def engine_of(receipt: dict[str, Any]) -> str:
    """What a receipt says it was computed by."""
    return str(receipt.get("engine", RING))


def engine_named(job: dict[str, Any]) -> dict[str, str]:
    """What the receipts of this job say of its engine."""
    return {} if job["engine"] == RING else {"engine": job["engine"]}


def job_digest(job: dict[str, Any]) -> str:
    """What the members compare before they compute: the whole descriptor with its attempt."""
    return digest(JOB_DOMAIN, job)


def bundle_of(digests: Sequence[str]) -> dict[str, Any]:
    """What the coordinator signs to have jobs of these digests computed together, in this order."""
    return {"v": 1, "jobs": list(digests)}


def scope_digest(job: dict[str, Any]) -> str:
    """What a scope is bound to: everything but numbering, patience and who computes. Of a job that
    was signed, or whose digest was taken: so it has a canonical form."""
    return digest(SCOPE_DOMAIN, encoded(_without(job, *_OF_A_JOB)))


def model_id(job: dict[str, Any]) -> str:
    """The id of the model that a job makes, the same at every attempt."""
    return digest(MODEL_DOMAIN, _without(job, *_OF_AN_ATTEMPT))


def openings_digest(openings: dict[str, Any]) -> str:
    """What a receipt says of what was opened, hex; of a query that is nothing."""
    return digest(OPENINGS_DOMAIN, openings) if openings else _NOTHING_OPENED


_NOTHING_OPENED = digest(OPENINGS_DOMAIN, {})


def sealed_hash(blob: bytes) -> str:
    """SHA-256 of what a node sealed to a reply key, hex: so its receipt speaks for it."""
    return hashlib.sha256(blob).hexdigest()


def sign_receipts(key: Ed25519PrivateKey, receipts: Sequence[dict[str, Any] | bytes]) -> list[str]:
    """What goes with each of these receipts, of one node, as its signature; a receipt may come as
    its canonical bytes."""
    if len(receipts) == 1:
        return [sign(key, RECEIPT_DOMAIN, receipts[0])]
    size = len(receipts)
    root, paths = merkle.with_paths([_leaf(receipt) for receipt in receipts])
    signature = sign(key, RECEIPTS_DOMAIN, _tree(size, root))
    return [
        signature + b"".join([_place(index), _place(size), *path]).hex()
        for index, path in enumerate(paths)
    ]


def _place(number: int) -> bytes:
    return number.to_bytes(PLACE_BYTES, "big")


def verify_receipt(sign_key: str, receipt: dict[str, Any], signature: Any) -> None:
    """Raises BadSignature unless that node signed this receipt, alone or among others."""
    try:
        data = unhex(signature)
        if len(data) == SIGNATURE_BYTES:
            return verify(sign_key, RECEIPT_DOMAIN, receipt, signature)
        way = data[SIGNATURE_BYTES:]
        index, size = (int.from_bytes(way[at : at + PLACE_BYTES], "big") for at in (0, PLACE_BYTES))
        hashes = way[2 * PLACE_BYTES :]
        if not 2 <= size <= RECEIPTS_MAX or len(hashes) % HASH_BYTES:
            raise ValueError("no such place among receipts")
        path = [hashes[at : at + HASH_BYTES] for at in range(0, len(hashes), HASH_BYTES)]
        root = merkle.root_from_inclusion(_leaf(receipt), index, size, path)
    except (ValueError, merkle.ProofInvalid):
        raise BadSignature("a receipt's signature has a wrong form") from None
    told = canonical(_tree(size, root))
    _verify_again(sign_key, RECEIPTS_DOMAIN, told, data[:SIGNATURE_BYTES].hex())


@lru_cache(maxsize=1024)
def _verify_again(sign_key: str, domain: str, content: bytes, signature: str) -> None:
    """`verify` of the root that is each receipt's of a bundle. Raises BadSignature."""
    verify(sign_key, domain, content, signature)


def _leaf(receipt: dict[str, Any] | bytes) -> bytes:
    data = receipt if isinstance(receipt, bytes) else canonical(receipt)
    return merkle.leaf_hash(RECEIPT_DOMAIN.encode() + b"\0" + data)


def _tree(size: int, root: bytes) -> dict[str, Any]:
    return {"v": 1, "size": size, "root": root.hex()}


def check_receipt(signed: Any, *, sign_key: str) -> dict[str, Any]:
    """The receipt, if that node signed it. Raises: JobError("bad_receipt")."""
    ok = isinstance(signed, dict) and {"receipt", "signature"} <= set(signed)
    _require(ok, "bad_receipt", "A receipt comes with its signature.")
    receipt: dict[str, Any] = signed["receipt"]
    ok = isinstance(receipt, dict) and set(receipt) - _NAMED_FIELDS == _RECEIPT_FIELDS
    _require(ok, "bad_receipt", "The receipt lacks or adds fields.")
    named = receipt.get("engine", VERIFIED)  # that of the ring is not
    ok = isinstance(named, str) and named in ENGINES and named != RING
    _require(ok, "bad_receipt", "The receipt names an engine that is not named so.")
    try:
        ok = "access" not in receipt or demand_of(receipt["access"]) is not None
    except ValueError:
        ok = False
    _require(ok, "bad_receipt", "What the receipt says of who may ask is malformed.")
    try:
        verify_receipt(sign_key, receipt, signed["signature"])
    except BadSignature:
        raise JobError("bad_receipt", "A receipt is not signed by its node.") from None
    return receipt


def check_receipts(
    signed: Any, *, sign_keys: dict[str, str], nodes: Sequence[str]
) -> list[dict[str, Any]]:
    """The receipts of all members, agreeing with one another.

    `sign_keys` maps each member's fingerprint to its key, `nodes` are all fingerprints of the set
    in index order. A word of a result is held by all but one node: every member that holds it must
    report the same hash. Raises: JobError("bad_receipt", "receipts_disagree").
    """
    ok = isinstance(signed, list) and len(signed) == len(sign_keys)
    _require(ok, "bad_receipt", "Every member's receipt is needed, once.")
    receipts = []
    for item in signed:
        node = str(item["receipt"].get("node")) if _has_receipt(item) else ""
        _require(node in sign_keys, "bad_receipt", "A receipt is from no member of this job.")
        receipts.append(check_receipt(item, sign_key=sign_keys[node]))
    _require(
        len({r["node"] for r in receipts}) == len(receipts),
        "bad_receipt",
        "A member's receipt appears twice.",
    )
    first = {k: receipts[0].get(k) for k in (*AGREED_FIELDS, *_NAMED_FIELDS)}
    for receipt in receipts:
        same = {k: receipt.get(k) for k in first} == first
        _require(same, "receipts_disagree", "The members' receipts do not agree.")
    check_words(receipts, nodes)
    return receipts


def check_words(receipts: list[dict[str, Any]], nodes: Sequence[str]) -> None:
    """All who hold a word report the same hash of it: each node of all but one, or of Shamir shares
    of its own alone. Raises: JobError("receipts_disagree")."""
    if all(r["result"] is None for r in receipts):
        return
    own = engine_of(receipts[0]) in SHAMIR
    count = 1 if own else len(nodes) - 1
    reports: dict[str, set[str]] = {}
    for receipt in receipts:
        words = receipt["result"]
        wanted = {str(j) for j, node in enumerate(nodes) if (node == receipt["node"]) == own}
        ok = isinstance(words, dict) and set(words) == wanted and len(wanted) == count
        _require(ok, "receipts_disagree", "A receipt does not report its words.")
        for word, value in words.items():
            reports.setdefault(word, set()).add(str(value))
    agree = all(len(values) == 1 for values in reports.values())
    _require(agree, "receipts_disagree", "The members do not hold the same result.")


def _check_group(job: dict[str, Any]) -> None:
    """On three nodes no group is named, so that a job has one form; on more it always is."""
    code, count = "malformed_job", len(job["nodes"])
    named = _GROUP_FIELDS & set(job)
    if count == TRIO:
        _require(not named, code, "All three nodes take part; the job may not choose.")
        return
    _require(named == _GROUP_FIELDS, code, "The job does not say who computes and who holds.")
    lists = (job["computing"], job["holding"])
    for listed in lists:
        ok = isinstance(listed, list) and all(_int(i, 0, count - 1) for i in listed)
        _require(ok and listed == sorted(set(listed)), code, "Members are listed by index, once.")
    wanted, computing = COMPUTING[job["engine"]], len(job["computing"])
    if job["engine"] in SHAMIR:
        _require(computing >= wanted, code, f"{wanted} nodes compute, or more.")
        _require(not job["holding"], code, "Only who computes has a share of what comes of it.")
    else:
        _require(computing == wanted, code, f"{wanted} nodes compute.")
    _require(not set(lists[0]) & set(lists[1]), code, "A node computes or holds, not both.")


def _check_inputs(inputs: Any) -> None:
    code = "malformed_job"
    ok = isinstance(inputs, dict) and all(isinstance(v, list) for v in inputs.values())
    _require(ok, code, "The inputs are not listed by slot.")
    ids = [share_id for listed in inputs.values() for share_id in listed]
    _require(0 < len(ids) <= MAX_INPUTS, code, "The job has no inputs or too many.")
    _require(all(is_hex(x, 16) for x in ids), code, "An input's id is malformed.")
    _require(len(set(ids)) == len(ids), "duplicate_input", "An input is listed twice.")


def _without(job: dict[str, Any], *names: str) -> dict[str, Any]:
    return {k: v for k, v in job.items() if k not in names}


def _has_receipt(item: Any) -> bool:
    return isinstance(item, dict) and isinstance(item.get("receipt"), dict)


def _int(value: Any, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high


def _require(condition: bool, code: str, text: str) -> None:
    if not condition:
        raise JobError(code, text)
