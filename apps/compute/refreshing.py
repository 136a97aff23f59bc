"""Having the nodes refresh what they keep, once an epoch or by an operator's command, and having a
model go over to another node set.

The nodes do it among themselves; what comes back is signed for by all members, and nothing of it
tells of a share. An edge: it talks to the nodes, outside transactions.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import suppress
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
from apps.protocol import refreshes, successions
from apps.protocol.jobs import JobError
from apps.protocol.refreshes import members_least
from apps.wallets import log

DEADLINE_S = 120


def refresh_due(*, now: datetime) -> bool:
    """Whether the last refresh, or the first result that was kept, is an epoch ago."""
    last = Refresh.objects.order_by("-created_at").first()
    since = last.created_at if last is not None else _first_kept()
    return since is not None and since + timedelta(seconds=settings.REFRESH_EVERY_S) <= now


def refresh(*, now: datetime) -> Refresh:
    """One refresh by all three nodes, or by all of more that are there: three at least.

    One that the nodes have done, whose answer was lost, is recorded first. Of more than three the
    one that fails is left out of a second try. After a refresh by all that are there which left
    models as they were one is left out, in turns, as it may lack them: it copies what the others
    have then. The next one is by all again, as some Shamir shares may need them all.
    Raises: DomainError("no_nodes"), control.Retryable, control.Final.
    """
    nodes, after, members = _members(now=now)
    last = Refresh.objects.first()
    by_all = last is not None and len(last.proof["refresh"]["members"]) >= len(members)
    if last is not None and last.left and by_all and len(members) > members_least(len(nodes)):
        del members[after // 2 % len(members)]

    def attempt(members: list[int]) -> Refresh:
        asked = refreshes.refresh_of(
            id_=secrets.token_hex(16),
            after=after,
            nodes=[node.fingerprint for node in nodes],
            members=members,
            deadline_s=DEADLINE_S,
        )
        return _asked(asked, nodes, now=now)

    try:
        return attempt(members)
    except control.ControlError as error:
        others = [i for i in members if nodes[i].fingerprint != error.node]
        if not members_least(len(nodes)) <= len(others) < len(members):
            raise
        return attempt(others)


def reshare(
    *, model: str, consents: Sequence[dict[str, Any]], engine: str | None = None, now: datetime
) -> Refresh:
    """A model goes over to the node set of now, from the one that kept it.

    consents: [{"key", "signature", "expires_at"}] of all who made it; the nodes check them, and all
    must be there. engine: which one Shamir shares are for then, if their threshold changes.
    Raises: DomainError("no_nodes"), control.Retryable, control.Final.
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
        engine=engine,
    )
    return _asked(asked, nodes, now=now)


def _members(*, now: datetime) -> tuple[list[Node], int, list[int]]:
    """The node set, its last refresh, and who is there and has seen it: three at least,
    and more than half."""
    nodes = selectors.node_set()
    everyone = selectors.members(nodes)
    up = control.there(everyone, ask=True)
    proofs, numbers = {}, {}
    for i, member in enumerate(everyone):
        if up[i]:
            with suppress(control.ControlError, JobError):
                proofs[i] = _proof_of(control.last_refresh(member))
                numbers[i] = _number(proofs[i], nodes) if proofs[i] is not None else 0
    after = max(numbers.values(), default=0)
    members = [i for i, number in numbers.items() if number == after]
    if len(members) < (least := members_least(len(everyone))):
        raise control.Retryable(
            "nodes_short",
            f"{len(members)} of {len(everyone)} nodes can refresh now; {least} must.",
        )
    proof = proofs[members[0]]
    if proof is not None:
        _recorded(proof, nodes, now=now)
    return nodes, after, members


def _asked(asked: dict[str, Any], nodes: list[Node], *, now: datetime) -> Refresh:
    everyone = selectors.members(nodes)
    receipts = control.refresh([everyone[i] for i in asked["members"]], asked)
    return _recorded({"refresh": asked, "receipts": receipts}, nodes, now=now)


def _proof_of(state: dict[str, Any]) -> Any:
    """What a node shows of its last refresh; nothing before the first."""
    return None if state.get("number") == 0 else state.get("proof", {})


def _number(proof: Any, nodes: list[Node]) -> int:
    """Of a refresh by this set, or by one that it follows. Raises: JobError."""
    fingerprints = [node.fingerprint for node in nodes]
    return refreshes.check_proof(
        proof,
        nodes=fingerprints,
        sign_keys={node.fingerprint: node.descriptor["sign_key"] for node in nodes},
        former=successions.sets_before(fingerprints, [node.descriptor for node in nodes]),
    )


def _recorded(proof: Any, nodes: list[Node], *, now: datetime) -> Refresh:
    """The row of a refresh that its members signed for, and its leaf; once."""
    try:
        number = _number(proof, nodes)
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
            leaf |= {"count": row.count, "left": row.left}
            if asked["type"] == "reshare":
                leaf |= {"model": asked["model"], "consents": asked["consents"]}
                leaf |= {"engine": asked["engine"]} if "engine" in asked else {}
                Job.objects.filter(model=asked["model"]).update(behind=[])
                moved = ModelReshared(
                    model=asked["model"], nodes=asked["nodes"], engine=asked.get("engine", "")
                )
                emit(moved, now=now)
            log.append("compute.refreshed", leaf, now=now)
            changed("nodes")
    return row


def _first_kept() -> datetime | None:
    made = Job.objects.filter(state=JobState.DONE).exclude(model="").exclude(kind="query")
    first: datetime | None = made.aggregate(first=Min("done_at"))["first"]
    return first
