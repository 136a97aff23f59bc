"""Refreshing what nodes keep: the same secrets in new shares, under a new storage key.

refresh = {"v", "type": "refresh", "id", "after", "nodes", "members", "deadline_s"}, signed by the
coordinator under "flai/refresh/v1". `after` is the number of the refresh before it, so that each
follows one; `members` are the indices of those who take part, three at least.
receipt = {"v", "refresh", "number", "models", "count", "left", "result", "node", "at"}, each
member's, under "flai/refreshed/v1". `models` is the digest of the list of what was refreshed and
`count` its length, `left` how many models members keep besides, in the shares that they had;
`result` is the salted hash of each word that the node holds now, over all models.

reshare = the same with "type": "reshare", "model" and "consents": that model goes over to these
nodes, all of whom take part, from the set that kept it. All its makers consent, each signing
{"v", "type": "resharing", "model", "nodes", "expires_at"} under "flai/resharing/v1", which counts
until that second. Where Shamir shares are to
have another threshold, both name the "engine" that has it, and so do the receipts of Shamir shares,
as "result" is then of each node's own.

All members' receipts are the proof that it is done: who has seen them keeps the new shares only.

    sharing' = digest("flai/sharing/v1", {"sharing", "refresh"})      names a model's new shares

With it goes how often they were renewed: of two sharings of a model the one that was renewed more
often follows from the other, whatever the node sets counted in the meantime.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from apps.protocol.jobs import JobError, check_words, fingerprint
from apps.protocol.tickets import ENGINES, RING, SHAMIR, TRIO, is_node_set
from apps.protocol.wire import SAFE_INT, BadSignature, digest, is_hex, verify

REFRESH_DOMAIN = "flai/refresh/v1"
REFRESHED_DOMAIN = "flai/refreshed/v1"
SHARING_DOMAIN = "flai/sharing/v1"
CONSENT_DOMAIN = "flai/resharing/v1"
MODELS_DOMAIN = "flai/refreshed-models/v1"

Json = dict[str, Any]

_FIELDS = {"v", "type", "id", "after", "nodes", "members", "deadline_s"}
_MORE_FIELDS = {"refresh": set(), "reshare": {"model", "consents"}}
CONSENTS_MAX = 1000
DEADLINE_MAX_S = 120  # so long a node that refreshes can't catch up
_KEYS = ("sign_key", "hpke_key")
_COUNTED = ("count", "left", "engine")  # not in all receipts
_AGREED = ("v", "refresh", "number", "models")
_RECEIPT_FIELDS = {*_AGREED, "result", "node", "at"}


def refresh_of(
    *, id_: str, after: int, nodes: Sequence[str], members: Sequence[int], deadline_s: int
) -> Json:
    """What the coordinator signs to have these members refresh all they keep."""
    return {
        "v": 1,
        "type": "refresh",
        "id": id_,
        "after": after,
        "nodes": list(nodes),
        "members": list(members),
        "deadline_s": deadline_s,
    }


def reshare_of(
    *, model: str, consents: Sequence[Json], engine: str | None = None, **asked: Any
) -> Json:
    """What it signs to have a model go over to `nodes`; the rest as `refresh_of`."""
    more = {"type": "reshare", "model": model, "consents": list(consents), **_named(engine)}
    return refresh_of(members=range(len(asked["nodes"])), **asked) | more


def consent_of(
    *, model: str, nodes: Sequence[str], expires_at: int | None, engine: str | None = None
) -> Json:
    """What a model's maker signs so that it may go over to that node set, and that threshold, until
    then (seconds). Earlier releases signed without an end, None: no node takes that any more."""
    said = {"v": 1, "type": "resharing", "model": model, "nodes": list(nodes)}
    return {**said, **({} if expires_at is None else {"expires_at": expires_at}), **_named(engine)}


def _named(engine: str | None) -> Json:
    return {} if engine is None else {"engine": engine}


def check_consents(
    consents: Sequence[Json],
    *,
    model: str,
    nodes: Sequence[str],
    makers: Sequence[str],
    now: int,
    engine: str | None = None,
) -> None:
    """Every maker of the model has signed, until later than now, for that engine if another is
    named. Raises: JobError("no_consent")."""
    dated = [one for one in consents if "expires_at" in one]
    signed = consenting(dated, model=model, nodes=nodes, now=now, engine=engine)
    if not makers or not set(makers) <= signed:
        lapsed = set(makers) <= consenting(consents, model=model, nodes=nodes, engine=engine)
        raise JobError(
            "no_consent",
            "A consent of those who made the model has lapsed: they sign again."
            if makers and lapsed
            else "Not all who made the model let it go to these nodes.",
        )


def consenting(
    consents: Sequence[Json],
    *,
    model: str,
    nodes: Sequence[str],
    now: int = 0,
    engine: str | None = None,
) -> set[str]:
    """The keys that signed for just that, until later than now or without an end."""
    signed = set()
    for one in consents:
        end = one.get("expires_at")
        wanted = consent_of(model=model, nodes=nodes, expires_at=end, engine=engine)
        try:
            verify(one["key"], CONSENT_DOMAIN, wanted, one["signature"])
        except BadSignature:
            continue
        if end is None or end > now:
            signed.add(one["key"])
    return signed


def check_refresh(refresh: Any) -> str:
    """The digest of a refresh or reshare whose fields all have the right form. Raises: JobError."""
    more = _MORE_FIELDS.get(str(refresh.get("type"))) if isinstance(refresh, dict) else None
    ok = (
        more is not None
        and set(refresh) - ({"engine"} if more else set()) == _FIELDS | more
        and refresh["v"] == 1
        and is_hex(refresh["id"], 16)
        and _whole(refresh["after"], 0, SAFE_INT - 1)
        and is_node_set(refresh["nodes"])
        and _whole(refresh["deadline_s"], 1, DEADLINE_MAX_S)
        and _are_members(refresh["members"], len(refresh["nodes"]))
        and (not more or _is_resharing(refresh))
    )
    if not ok:
        raise JobError("malformed", "The refresh has a wrong form.")
    return digest(REFRESH_DOMAIN, refresh)


def named_after(ticket: Mapping[str, Any], refresh: str) -> Json:
    """{"sharing", "renewed"}: what a model's shares are called after that refresh (its digest), and
    how often they were renewed."""
    before = str(ticket.get("sharing"))
    return {
        "sharing": digest(SHARING_DOMAIN, {"sharing": before, "refresh": refresh}),
        "renewed": ticket.get("renewed", 0) + 1,
    }


def models_digest(models: Sequence[Sequence[str]]) -> str:
    """Of [[model, sharing before], …] in order."""
    return digest(MODELS_DOMAIN, [list(pair) for pair in models])


def keys_of(nodes: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """The keys of these descriptors by fingerprint: they show by themselves whose they are."""
    return {fingerprint(node): {k: node[k] for k in _KEYS} for node in map(dict, nodes)}


def check_proof(
    proof: Any,
    *,
    nodes: Sequence[str],
    sign_keys: Mapping[str, str],
    former: Sequence[Sequence[str]] = (),
) -> int:
    """The number of a refresh that all its members signed for, alike.

    proof = {"refresh", "receipts": [{"receipt", "signature"}, …]} and, so that it outlives a change
    of its nodes, "keys" as `keys_of` gives them; `nodes` are the set's fingerprints in index order,
    `former` those of sets that it follows. Raises: JobError("bad_receipt", …).
    """
    ok = isinstance(proof, dict) and set(proof) - {"keys"} == {"refresh", "receipts"}
    _require(ok, "It is not a refresh and its receipts.")
    refresh, signed = proof["refresh"], proof["receipts"]
    name = check_refresh(refresh)
    of_ours = refresh["nodes"] in [list(nodes), *map(list, former)]
    _require(of_ours, "It is of another set of nodes.")
    nodes, sign_keys = refresh["nodes"], {**sign_keys, **_certified(proof.get("keys", {}))}
    members = {nodes[i] for i in refresh["members"]}
    ok = isinstance(signed, list) and len(signed) == len(members)
    _require(ok, "Every member's receipt is needed, once.")
    receipts = [_checked(item, sign_keys) for item in signed]
    _require({r["node"] for r in receipts} == members, "A member's receipt is missing.")
    for receipt in receipts:
        about = (receipt["refresh"], receipt["number"]) == (name, refresh["after"] + 1)
        _require(about, "A receipt is of another refresh.")
        same = all(receipt.get(k) == receipts[0].get(k) for k in (*_AGREED, *_COUNTED))
        _require(same, "The members' receipts do not agree.")
    check_words(receipts, nodes)
    return int(receipts[0]["number"])


def _certified(keys: Any) -> dict[str, str]:
    """The signing key of each fingerprint that keys really have."""
    _require(isinstance(keys, dict), "Its keys are no keys.")
    found = {}
    for name, both in keys.items():
        ok = isinstance(both, dict) and all(is_hex(both.get(key), 32) for key in _KEYS)
        _require(ok and fingerprint(both) == name, "Its keys are another node's.")
        found[name] = both["sign_key"]
    return found


def _checked(item: Any, sign_keys: Mapping[str, str]) -> Json:
    ok = isinstance(item, dict) and set(item) == {"receipt", "signature"}
    _require(ok and isinstance(item["receipt"], dict), "A receipt comes with its signature.")
    receipt: Json = item["receipt"]
    ok = set(receipt) - {*_COUNTED} == _RECEIPT_FIELDS and receipt["v"] == 1
    ok = ok and all(_whole(receipt.get(k, 0), 0, SAFE_INT) for k in ("count", "left"))
    ok = ok and receipt.get("engine", RING) in ENGINES
    _require(ok, "A receipt has a wrong form.")
    key = sign_keys.get(str(receipt["node"]), "")
    try:
        verify(key, REFRESHED_DOMAIN, receipt, item["signature"])
    except BadSignature:
        raise JobError("bad_receipt", "A receipt is not signed by its node.") from None
    return receipt


def _is_resharing(refresh: Json) -> bool:
    consents = refresh["consents"]
    return (
        is_hex(refresh["model"], 32)
        and refresh.get("engine", next(iter(SHAMIR))) in SHAMIR
        and refresh["members"] == list(range(len(refresh["nodes"])))
        and isinstance(consents, list)
        and len(consents) <= CONSENTS_MAX
        and all(map(_is_consent, consents))
    )


def _is_consent(one: Any) -> bool:
    ok = isinstance(one, dict) and set(one) - {"expires_at"} == {"key", "signature"}
    ok = ok and isinstance(one["key"], str) and isinstance(one["signature"], str)
    return ok and _whole(one.get("expires_at", 0), 0, SAFE_INT)


def _are_members(members: Any, count: int) -> bool:
    ok = isinstance(members, list) and all(_whole(i, 0, count - 1) for i in members)
    return ok and members == sorted(set(members)) and len(members) >= members_least(count)


def members_least(count: int) -> int:
    """So many of the nodes refresh, three or more, that any two such groups share one."""
    return max(TRIO, count // 2 + 1)


def _whole(value: Any, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high


def _require(condition: bool, text: str) -> None:
    if not condition:
        raise JobError("bad_receipt", text)
