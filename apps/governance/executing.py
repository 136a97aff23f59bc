"""Conclude and execute: what becomes of a proposal once its voting is over.

A proposal is *concluded* once, under its lock, when voting is over; from then on no vote is taken,
so the tally that decided is the tally that stays.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import Q

from apps.accounts.models import Party
from apps.core import actions
from apps.core.errors import Conflict, DomainError
from apps.core.events import emit
from apps.core.live import TOLD_MAX, changed, concerns
from apps.core.permissions import Denied, ensure
from apps.core.sweeping import each
from apps.core.transactions import durable
from apps.core.wake import wake
from apps.governance import events
from apps.governance.errors import SnapshotWaits
from apps.governance.models import Proposal, SnapshotWeight
from apps.governance.services import (
    EXECUTE,
    event_fields,
    lock_proposal,
    payload_hash,
    snapshot_take,
    stirred,
    weights_settle,
)
from apps.protocol import tally
from apps.protocol.tally import State
from apps.wallets import log

logger = logging.getLogger(__name__)

RETRY_MAX_S = 3_600
SWEEP_WAIT_S = 0.2  # for payments under way, of each proposal


class ExecutionFailed(DomainError):
    code = "execution_failed"
    status = 409
    text = "The proposal carried, but its action could not be done: {reason}"


def can_execute(actor: Party | None, proposal: Proposal, now: datetime) -> Denied | None:
    """Anyone may have a carried proposal executed once its timelock is over."""
    state = proposal.state(now)
    if state is State.SUCCEEDED:
        return None
    return Denied("not_executable", f"This proposal is {state.value}; it cannot be executed now.")


def execute(*, proposal_id: UUID | str, actor: Party | None = None, now: datetime) -> Proposal:
    """Do what was voted: one transaction, marked as executed before the action runs, so that
    the action cannot run twice even if it comes back here. What was executed is returned as it is.

    Raises Forbidden when it is not executable; ExecutionFailed when its action fails: then nothing
    of it is left but the recorded reason, and it is tried again later until it expires.
    """
    weights_settle(proposal_id, now)
    try:
        with durable():
            proposal = lock_proposal(proposal_id)
            if proposal.executed_at is not None:
                return proposal
            _conclude(proposal, now)
            ensure(can_execute(actor, proposal, now))
            proposal.executed_at = now
            proposal.execution_error = ""
            proposal.execute_after = None
            proposal.save(update_fields=["executed_at", "execution_error", "execute_after"])
            stirred(proposal)
            _run(proposal, now)
            log.append(
                "governance.executed",
                {"proposal": str(proposal.id), "payload_hash": proposal.payload_hash},
                now=now,
            )
            emit(events.ProposalExecuted(**event_fields(proposal)), now=now)
    except _ActionFailed as failure:
        _record_failure(proposal_id, failure.reason, now)
        raise ExecutionFailed(reason=failure.reason) from failure.__cause__
    return proposal


class _ActionFailed(Exception):
    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def _run(proposal: Proposal, now: datetime) -> None:
    try:
        hashed = payload_hash(proposal.dao, proposal.kind, proposal.payload)
        if hashed != proposal.payload_hash:
            raise Conflict("payload_changed", "The payload is not the one that was voted on.")
        actions.get(proposal.kind).execute(
            proposal.payload, dao=proposal.dao, proposal_id=proposal.id, now=now
        )
    except DomainError as error:
        raise _ActionFailed(error.text) from error
    except Exception as error:  # an unforeseen fault: its text may not be safe to show
        logger.exception("proposal %s: %s failed", proposal.id, proposal.kind)
        raise _ActionFailed(f"an internal fault ({type(error).__name__}).") from error


def _record_failure(proposal_id: UUID | str, reason: str, now: datetime) -> None:
    with durable():
        proposal = lock_proposal(proposal_id)
        if proposal.executed_at is not None:
            return
        # The roll-back took the conclusion with it when both fell into one transaction.
        _conclude(proposal, now)
        wait_s = min(2**proposal.execution_attempts, RETRY_MAX_S)
        proposal.execution_error = reason
        proposal.execution_attempts += 1
        proposal.execute_after = now + timedelta(seconds=wait_s)
        proposal.save(update_fields=["execution_error", "execution_attempts", "execute_after"])
        changed(f"proposal:{proposal.id}")


def _conclude(proposal: Proposal, now: datetime) -> None:
    """Note once that voting is over, and how it ended. The caller holds the row's lock."""
    state = proposal.state(now)
    if proposal.concluded_at is not None or state in (
        State.PENDING,
        State.ACTIVE,
        State.CANCELED,
        State.EXECUTED,
    ):
        return
    if proposal.total_weight is None:
        snapshot_take(proposal, now)
    carried = state is not State.DEFEATED
    proposal.concluded_at = now
    if carried:
        proposal.execute_after = tally.execution_opens_at(proposal.facts)
    proposal.save(update_fields=["concluded_at", "execute_after"])
    stirred(proposal)
    voices = SnapshotWeight.objects.filter(proposal=proposal).order_by("-weight")
    concerns(voices.values_list("party_id", flat=True)[:TOLD_MAX])
    log.append(
        "governance.concluded",
        {
            "proposal": str(proposal.id),
            "carried": carried,
            "for": str(proposal.for_weight),
            "against": str(proposal.against_weight),
            "abstain": str(proposal.abstain_weight),
            "total": str(proposal.total_weight),
        },
        now=now,
    )
    if carried:
        emit(events.ProposalSucceeded(**event_fields(proposal)), now=now)
        if proposal.execute_after > now:
            wake(EXECUTE, proposal.id, eta=proposal.execute_after)
    else:
        emit(events.ProposalDefeated(**event_fields(proposal)), now=now)


def advance(*, proposal_id: UUID | str, now: datetime, within_s: float | None = None) -> State:
    """Whatever is due on one proposal: its snapshot, its conclusion, its execution, its expiry.

    Safe to call at any time and any number of times. Returns the state it leaves.
    Raises SnapshotWaits when payments that are under way don't end `within_s`.
    """
    weights_settle(proposal_id, now, within_s=within_s)
    with durable():
        proposal = lock_proposal(proposal_id)
        if proposal.state(now) is State.ACTIVE and proposal.total_weight is None:
            snapshot_take(proposal, now)
        _conclude(proposal, now)
        state = proposal.state(now)
        if state is State.EXPIRED and proposal.execute_after is not None:
            proposal.execute_after = None
            proposal.save(update_fields=["execute_after"])
            stirred(proposal)
            log.append("governance.expired", {"proposal": str(proposal.id)}, now=now)
            emit(events.ProposalExpired(**event_fields(proposal)), now=now)
    due = proposal.execute_after is not None and proposal.execute_after <= now
    if state is State.SUCCEEDED and due:
        try:
            return execute(proposal_id=proposal_id, now=now).state(now)
        except ExecutionFailed as failure:
            logger.warning("proposal %s: %s", proposal_id, failure.text)
        except DomainError:  # somebody else was quicker
            logger.info("proposal %s is not executable any more", proposal_id)
    return state


def sweep_due(now: datetime, *, limit: int = 50) -> int:
    """The net below the wake-ups: advance what is due. Returns how many that was."""
    due = (
        Proposal.objects.filter(canceled_at=None, executed_at=None)
        .filter(
            Q(concluded_at=None, voting_ends_at__lte=now)
            | Q(total_weight=None, concluded_at=None, voting_starts_at__lte=now)
            | Q(execute_after__lte=now)
        )
        .order_by("voting_ends_at")
    )
    return each(
        due,
        lambda proposal_id: _swept(proposal_id, now),
        now=now,
        limit=limit,
        log=logger,
        what="sweep of proposal",
    )


def _swept(proposal_id: UUID, now: datetime) -> bool:
    """What waits for payments is looked at again by the next sweep: others don't wait with it."""
    try:
        advance(proposal_id=proposal_id, now=now, within_s=SWEEP_WAIT_S)
    except SnapshotWaits:
        return False
    return True
