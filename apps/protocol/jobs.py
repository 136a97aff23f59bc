"""Nodes, jobs and receipts as signed objects: their forms, ids and checks.

A node descriptor is a node's public identity, signed by its own key; its fingerprint is what
operators publish and agents pin. A job descriptor is signed by the coordinator and names only what
owners' tickets already allow. A receipt is one node's signed word about a job.

    fingerprint = digest("flai/node-fp/v1", {"sign_key", "hpke_key"})
    model       = digest("flai/model/v1", job descriptor without "attempt" and "deadline_s")
"""

from __future__ import annotations

import hashlib
from typing import Any

from apps.protocol.tickets import ENGINES, NODES, TicketError, check_roster
from apps.protocol.wire import BadSignature, digest, is_hex, verify

NODE_DOMAIN = "flai/node/v1"
NODE_CLAIM_DOMAIN = "flai/node-claim/v1"
ACK_DOMAIN = "flai/ack/v1"
DROP_DOMAIN = "flai/drop/v1"
JOB_DOMAIN = "flai/job/v1"
MODEL_DOMAIN = "flai/model/v1"
SCOPE_DOMAIN = "flai/scope/v1"
RECEIPT_DOMAIN = "flai/receipt/v1"
OPENINGS_DOMAIN = "flai/openings/v1"

MAX_INPUTS = 4096
MAX_DEADLINE_S = 3600

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
    code = "bad_node_descriptor"
    ok = isinstance(node, dict) and set(node) == _NODE_FIELDS
    _require(ok, code, "The node's descriptor lacks or adds fields.")
    _require(node["v"] == 1, code, "Unknown version of node descriptor.")
    _require(_int(node["index"], 0, NODES - 1), code, "The node's index is out of range.")
    keys_ok = is_hex(node["sign_key"], 32) and is_hex(node["hpke_key"], 32)
    _require(keys_ok, code, "The node's keys are not 32 bytes in hex.")
    texts = all(isinstance(node[k], str) for k in ("name", "tls_cert", "control", "mesh"))
    _require(texts, code, "The node's name, certificate or addresses are missing.")
    try:
        verify(node["sign_key"], NODE_DOMAIN, _without(node, "signature"), node["signature"])
    except BadSignature:
        raise JobError(code, f"The descriptor of {node['name']} is not signed by it.") from None
    return fingerprint(node)


def check_job(job: Any) -> None:
    """Raises JobError unless every field of a job descriptor has the right form."""
    code = "malformed_job"
    ok = isinstance(job, dict) and set(job) == _JOB_FIELDS
    _require(ok, code, "The job descriptor lacks or adds fields.")
    _require(job["v"] == 1, code, "Unknown version of job descriptor.")
    _require(is_hex(job["job_id"], 16), code, "The job's id is not 16 bytes in hex.")
    _require(_int(job["attempt"], 1, 1_000_000), code, "The attempt is not a positive number.")
    _require(isinstance(job["circuit"], str), code, "The circuit has no name.")
    _require(is_hex(job["circuits_hash"], 32), code, "The circuits hash is malformed.")
    _require(job["engine"] in ENGINES, code, "Unknown engine.")
    nodes = job["nodes"]
    nodes_ok = isinstance(nodes, list) and len(nodes) == NODES and all(is_hex(x, 32) for x in nodes)
    _require(nodes_ok, code, "The job does not name its nodes.")
    _require(isinstance(job["scope"], str), code, "The job has no scope.")
    _require(job["model"] is None or is_hex(job["model"], 32), code, "The model is malformed.")
    _require(_int(job["deadline_s"], 1, MAX_DEADLINE_S), code, "The deadline is out of range.")
    _check_inputs(job["inputs"])
    if job["roster"] is not None:
        try:
            check_roster(job["roster"])
        except TicketError as error:
            raise JobError(error.code, error.text) from None


def job_digest(job: dict[str, Any]) -> str:
    """What the members compare before they compute: the whole descriptor with its attempt."""
    return digest(JOB_DOMAIN, job)


def scope_digest(job: dict[str, Any]) -> str:
    """What a scope is bound to: everything but the numbering and the patience."""
    return digest(SCOPE_DOMAIN, _without(job, "attempt", "job_id", "deadline_s"))


def model_id(job: dict[str, Any]) -> str:
    """The id of the model that a job makes, the same at every attempt."""
    return digest(MODEL_DOMAIN, _without(job, "attempt", "deadline_s"))


def sealed_hash(blob: bytes) -> str:
    """SHA-256 of what a node sealed to a reply key, hex: so its receipt speaks for it."""
    return hashlib.sha256(blob).hexdigest()


def check_receipt(signed: Any, *, sign_key: str) -> dict[str, Any]:
    """The receipt, if that node signed it. Raises: JobError("bad_receipt")."""
    ok = isinstance(signed, dict) and {"receipt", "signature"} <= set(signed)
    _require(ok, "bad_receipt", "A receipt comes with its signature.")
    receipt: dict[str, Any] = signed["receipt"]
    ok = isinstance(receipt, dict) and set(receipt) == _RECEIPT_FIELDS
    _require(ok, "bad_receipt", "The receipt lacks or adds fields.")
    try:
        verify(sign_key, RECEIPT_DOMAIN, receipt, signed["signature"])
    except BadSignature:
        raise JobError("bad_receipt", "A receipt is not signed by its node.") from None
    return receipt


def check_receipts(signed: Any, *, sign_keys: dict[str, str]) -> list[dict[str, Any]]:
    """The receipts of all members, agreeing with one another.

    `sign_keys` maps each member's fingerprint to its key. Every word of a result is held by two
    members: both must report the same hash. Raises: JobError("bad_receipt").
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
    first = {k: receipts[0][k] for k in AGREED_FIELDS}
    for receipt in receipts:
        same = {k: receipt[k] for k in AGREED_FIELDS} == first
        _require(same, "receipts_disagree", "The members' receipts do not agree.")
    _check_words(receipts)
    return receipts


def _check_words(receipts: list[dict[str, Any]]) -> None:
    if all(r["result"] is None for r in receipts):
        return
    reports: dict[str, list[str]] = {}
    for receipt in receipts:
        words = receipt["result"]
        ok = isinstance(words, dict) and len(words) == NODES - 1
        _require(ok, "receipts_disagree", "A receipt does not report its words.")
        for word, value in words.items():
            reports.setdefault(word, []).append(value)
    agree = all(len(v) == NODES - 1 and len(set(v)) == 1 for v in reports.values())
    ok = agree and set(reports) == {str(j) for j in range(NODES)}
    _require(ok, "receipts_disagree", "The members do not hold the same result.")


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
