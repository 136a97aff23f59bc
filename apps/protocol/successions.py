"""A node that lost its identity, and the key that takes its place.

statement = {"v", "type": "succession", "old", "new", "nodes"}, under "flai/succession/v1": in the
node set `nodes` (fingerprints in index order) `new` stands where `old` stood. It counts when `old`
signed it, or t + 1 others of that set, each at its operator's command: t + 1 could read what is
kept anyway. t is the highest that so many nodes can have, whatever a model was made with: two of
three or four nodes sign, three of five or six, four of seven.

A successor's descriptor carries what was signed ("succeeds"), so whoever sees the new set sees why
it follows the old one: nodes keep the models that the old one held, clients go on from the
fingerprints that they pinned.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from apps.protocol.jobs import SUCCESSIONS_MAX, fingerprint
from apps.protocol.tickets import is_node_set
from apps.protocol.wire import BadSignature, is_hex, verify

SUCCESSION_DOMAIN = "flai/succession/v1"

Json = dict[str, Any]


def statement_of(*, old: str, new: str, nodes: Sequence[str]) -> Json:
    return {"v": 1, "type": "succession", "old": old, "new": new, "nodes": list(nodes)}


def is_succession(signed: Any) -> bool:
    """{"statement", "signatures": [{"sign_key", "hpke_key", "signature"}]}, signed by who may."""
    return _is_formed(signed) and not lacking(signed)


def lacking(signed: Json) -> int:
    """How many more of the others must sign it; none if the old key has, or enough of them."""
    said = signed["statement"]
    signers = {_signer(one, said) for one in signed["signatures"]}
    if said["old"] in signers:
        return 0
    return max(0, others_least(len(said["nodes"])) - len(signers & set(said["nodes"])))


def carried(descriptors: Sequence[Mapping[str, Any]]) -> list[Json]:
    """What these descriptors carry of the right form, whoever has signed it."""
    return [one for node in descriptors for one in node.get("succeeds", []) if _is_formed(one)]


def _is_formed(signed: Any) -> bool:
    if not isinstance(signed, dict) or set(signed) != {"statement", "signatures"}:
        return False
    said, signatures = signed["statement"], signed["signatures"]
    return (
        isinstance(said, dict)
        and set(said) == {"v", "type", "old", "new", "nodes"}
        and (said["v"], said["type"]) == (1, "succession")
        and is_node_set(said["nodes"])
        and said["old"] in said["nodes"]
        and is_hex(said["new"], 32)
        and said["new"] not in said["nodes"]
        and isinstance(signatures, list)
        and len(signatures) <= len(said["nodes"])
    )


def others_least(nodes: int) -> int:
    """t + 1, of the highest t < n/2."""
    return (nodes - 1) // 2 + 1


def _signer(one: Any, said: Json) -> str:
    """Who signed it, by fingerprint; nobody if it does not verify."""
    if not isinstance(one, dict) or set(one) != {"sign_key", "hpke_key", "signature"}:
        return ""
    try:
        verify(one["sign_key"], SUCCESSION_DOMAIN, said, one["signature"])
        return fingerprint(one)
    except (BadSignature, ValueError, TypeError):
        return ""


def successions_before(
    nodes: Sequence[str], descriptors: Sequence[Mapping[str, Any]]
) -> list[Json]:
    """What was signed for this node set, as its descriptors carry it: the latest first."""
    known = [one for one in carried(descriptors) if not lacking(one)]
    found: list[Json] = []
    seen = [list(nodes)]
    while len(found) < SUCCESSIONS_MAX:
        last = next((one for one in known if set_after(one["statement"]) == seen[-1]), None)
        if last is None or last["statement"]["nodes"] in seen:
            break
        found.append(last)
        seen.append(last["statement"]["nodes"])
    return found


def sets_before(nodes: Sequence[str], descriptors: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The node sets that this one follows, by what its descriptors carry: the latest first."""
    return [one["statement"]["nodes"] for one in successions_before(nodes, descriptors)]


def successions_after(nodes: Collection[str], signed: Sequence[Mapping[str, Any]]) -> list[Json]:
    """What of this (each counts by its signatures) was signed for just this node set and for those
    that follow it, in that order; of two for one set the first.

    Just this set: a made-up one would let a node sign as two, or fewer sign than a set asks for.
    """
    found: list[Json] = []
    now = set(nodes)
    left = list(signed)
    while after := next((one for one in left if set(one["statement"]["nodes"]) == now), None):
        left.remove(after)
        found.append(dict(after))
        now = set(set_after(after["statement"]))
    return found


def set_after(said: Json) -> list[str]:
    """The node set that follows, by a statement."""
    return [said["new"] if node == said["old"] else node for node in said["nodes"]]
