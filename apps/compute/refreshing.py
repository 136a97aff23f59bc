"""Having the nodes refresh what they keep, once an epoch or by an operator's command, and having a
model go over to another node set.

The nodes do it among themselves; what comes back is signed for by all members, and nothing of it
tells of a share. An edge: it talks to the nodes, outside transactions.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import Min

from apps.compute import control, selectors
from apps.compute.events import ModelReshared
from apps.compute.models import Job, JobState, Node, Refresh
from apps.core.events import emit
from apps.core.live import changed
from apps.core.transactions import durable
from apps.protocol import refreshes
from apps.protocol.jobs import JobError
from apps.protocol.tickets import TRIO
from apps.wallets import log

DEADLINE_S = 120


def refresh_due(*, now: datetime) -> bool:
    """Whether the last refresh, or the first result that was kept, is an epoch ago."""
    last = Refresh.objects.order_by("-created_at").first()
    since = last.created_at if last is not None else _first_kept()
    return since is not None and since + timedelta(seconds=settings.REFRESH_EVERY_S) <= now


def refresh(*, now: datetime) -> Refresh:
    """One refresh by all three nodes, or by all of more that are there: three at least.

    One that the nodes have done, whose answer was lost, is recorded first.
    Raises: DomainError("no_nodes"), control.Retryable, control.Final.
    """
    nodes, after, members = _members(now=now)
    asked = refreshes.refresh_of(
        id_=secrets.token_hex(16),
        after=after,
        nodes=[node.fingerprint for node in nodes],
        members=members,
        deadline_s=DEADLINE_S,
    )
    return _asked(asked, nodes, now=now)


def reshare(*, model: str, consents: Sequence[dict[str, str]], now: datetime) -> Refresh:
    """A model goes over to the node set of now, from the one that kept it.

    consents: [{"key", "signature"}] of all who made it; the nodes check them, and all must be
    there. Raises: DomainError("no_nodes"), control.Retryable, control.Final.
    """
    nodes, after, members = _members(now=now)
    if len(members) < len(nodes):
        raise control.Retryable("nodes_short", "All nodes of the set take part in that.")
    asked = refreshes.reshare_of(
        id_=secrets.token_hex(16),
        after=after,
        nodes=[node.fingerprint for node in nodes],
        deadline_s=DEADLINE_S,
        model=model,
        consents=consents,
    )
    return _asked(asked, nodes, now=now)


def _members(*, now: datetime) -> tuple[list[Node], int, list[int]]:
    """The node set, its last refresh, and who is there and has seen it: three at least."""
    nodes = selectors.node_set()
    everyone = selectors.members(nodes)
    up = control.there(everyone, ask=True)
    states = {i: control.last_refresh(m) for i, m in enumerate(everyone) if up[i]}
    after = max((_number(state) for state in states.values()), default=0)
    members = [i for i, state in states.items() if _number(state) == after]
    if len(members) < TRIO:
        raise control.Retryable(
            "nodes_short", f"{len(members)} of {len(everyone)} nodes can refresh now; 3 must."
        )
    for state in states.values():
        if _number(state) == after > 0 and _is_of(state.get("proof"), nodes):
            _recorded(state.get("proof"), nodes, now=now)
            break
    return nodes, after, members


def _asked(asked: dict[str, Any], nodes: list[Node], *, now: datetime) -> Refresh:
    everyone = selectors.members(nodes)
    receipts = control.refresh([everyone[i] for i in asked["members"]], asked)
    return _recorded({"refresh": asked, "receipts": receipts}, nodes, now=now)


def _is_of(proof: Any, nodes: list[Node]) -> bool:
    """A set that follows another one in a node's succession counts on from its last refresh."""
    refresh = proof.get("refresh") if isinstance(proof, dict) else None
    named = refresh.get("nodes") if isinstance(refresh, dict) else None
    return named == [node.fingerprint for node in nodes]


def _number(state: dict[str, Any]) -> int:
    number = state.get("number")
    return number if isinstance(number, int) else 0


def _recorded(proof: Any, nodes: list[Node], *, now: datetime) -> Refresh:
    """The row of a refresh that its members signed for, and its leaf; once."""
    signed_by = {node.fingerprint: node.descriptor["sign_key"] for node in nodes}
    try:
        number = refreshes.check_proof(proof, nodes=list(signed_by), sign_keys=signed_by)
    except JobError as error:
        raise control.Final(error.code, error.text) from None
    asked, digest = proof["refresh"], proof["receipts"][0]["receipt"]["refresh"]
    with durable():
        row, new = Refresh.objects.get_or_create(
            digest=digest, defaults={"number": number, "proof": proof, "created_at": now}
        )
        if new:
            members = [asked["nodes"][i] for i in asked["members"]]
            leaf = {"refresh": digest, "number": number, "nodes": members}
            if asked["type"] == "reshare":
                leaf |= {"model": asked["model"]}
                Job.objects.filter(model=asked["model"]).update(behind=[])
                moved = ModelReshared(model=asked["model"], nodes=asked["nodes"])
                emit(moved, now=now)
            log.append("compute.refreshed", leaf, now=now)
            changed("nodes")
    return row


def _first_kept() -> datetime | None:
    made = Job.objects.filter(state=JobState.DONE).exclude(model="").exclude(kind="query")
    first: datetime | None = made.aggregate(first=Min("done_at"))["first"]
    return first
