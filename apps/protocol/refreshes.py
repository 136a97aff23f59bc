"""Refreshing what nodes keep: the same secrets in new shares, under a new storage key.

refresh = {"v", "type": "refresh", "id", "after", "nodes", "members", "deadline_s"}, signed by the
coordinator under "flai/refresh/v1". `after` is the number of the refresh before it, so that each
follows one; `members` are the indices of those who take part, three at least.
receipt = {"v", "refresh", "number", "models", "result", "node", "at"}, each member's, under
"flai/refreshed/v1". `models` is the digest of the list of what was refreshed, `result` the salted
hash of each word that the node holds now, over all models.

All members' receipts are the proof that it is done: who has seen them keeps the new shares only.

    sharing' = digest("flai/sharing/v1", {"sharing", "refresh"})      names a model's new shares
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from apps.protocol.jobs import MAX_DEADLINE_S, JobError, check_words
from apps.protocol.tickets import TRIO, is_node_set
from apps.protocol.wire import SAFE_INT, BadSignature, digest, is_hex, verify

REFRESH_DOMAIN = "flai/refresh/v1"
REFRESHED_DOMAIN = "flai/refreshed/v1"
SHARING_DOMAIN = "flai/sharing/v1"
MODELS_DOMAIN = "flai/refreshed-models/v1"

Json = dict[str, Any]

_FIELDS = {"v", "type", "id", "after", "nodes", "members", "deadline_s"}
_AGREED = ("v", "refresh", "number", "models")
_RECEIPT_FIELDS = {*_AGREED, "result", "node", "at"}


def refresh_of(
    *, id_: str, after: int, nodes: Sequence[str], members: Sequence[int], deadline_s: int
) -> Json:
    return {
        "v": 1,
        "type": "refresh",
        "id": id_,
        "after": after,
        "nodes": list(nodes),
        "members": list(members),
        "deadline_s": deadline_s,
    }


def check_refresh(refresh: Any) -> str:
    """The digest of a refresh whose fields all have the right form. Raises: JobError."""
    ok = (
        isinstance(refresh, dict)
        and set(refresh) == _FIELDS
        and (refresh["v"], refresh["type"]) == (1, "refresh")
        and is_hex(refresh["id"], 16)
        and _whole(refresh["after"], 0, SAFE_INT - 1)
        and is_node_set(refresh["nodes"])
        and _whole(refresh["deadline_s"], 1, MAX_DEADLINE_S)
        and _are_members(refresh["members"], len(refresh["nodes"]))
    )
    if not ok:
        raise JobError("malformed", "The refresh has a wrong form.")
    return digest(REFRESH_DOMAIN, refresh)


def sharing_after(sharing: str, refresh: str) -> str:
    """What the shares of a model are called after that refresh (its digest)."""
    return digest(SHARING_DOMAIN, {"sharing": sharing, "refresh": refresh})


def models_digest(models: Sequence[Sequence[str]]) -> str:
    """Of [[model, sharing before], …] in order."""
    return digest(MODELS_DOMAIN, [list(pair) for pair in models])


def check_proof(proof: Any, *, nodes: Sequence[str], sign_keys: Mapping[str, str]) -> int:
    """The number of a refresh that all its members signed for, alike.

    proof = {"refresh", "receipts": [{"receipt", "signature"}, …]}; `nodes` are the set's
    fingerprints in index order, `sign_keys` their keys. Raises: JobError("bad_receipt", …).
    """
    ok = isinstance(proof, dict) and set(proof) == {"refresh", "receipts"}
    _require(ok, "It is not a refresh and its receipts.")
    refresh, signed = proof["refresh"], proof["receipts"]
    name = check_refresh(refresh)
    _require(refresh["nodes"] == list(nodes), "It is of another set of nodes.")
    members = {nodes[i] for i in refresh["members"]}
    ok = isinstance(signed, list) and len(signed) == len(members)
    _require(ok, "Every member's receipt is needed, once.")
    receipts = [_checked(item, sign_keys) for item in signed]
    _require({r["node"] for r in receipts} == members, "A member's receipt is missing.")
    for receipt in receipts:
        about = (receipt["refresh"], receipt["number"]) == (name, refresh["after"] + 1)
        _require(about, "A receipt is of another refresh.")
        same = all(receipt[k] == receipts[0][k] for k in _AGREED)
        _require(same, "The members' receipts do not agree.")
    check_words(receipts, nodes)
    return int(receipts[0]["number"])


def _checked(item: Any, sign_keys: Mapping[str, str]) -> Json:
    ok = isinstance(item, dict) and set(item) == {"receipt", "signature"}
    _require(ok and isinstance(item["receipt"], dict), "A receipt comes with its signature.")
    receipt: Json = item["receipt"]
    _require(set(receipt) == _RECEIPT_FIELDS and receipt["v"] == 1, "A receipt has a wrong form.")
    key = sign_keys.get(str(receipt["node"]), "")
    try:
        verify(key, REFRESHED_DOMAIN, receipt, item["signature"])
    except BadSignature:
        raise JobError("bad_receipt", "A receipt is not signed by its node.") from None
    return receipt


def _are_members(members: Any, count: int) -> bool:
    ok = isinstance(members, list) and all(_whole(i, 0, count - 1) for i in members)
    return ok and members == sorted(set(members)) and len(members) >= TRIO


def _whole(value: Any, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high


def _require(condition: bool, text: str) -> None:
    if not condition:
        raise JobError("bad_receipt", text)
