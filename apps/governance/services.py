"""Propose, take back, vote: what members and other parts ask of a proposal.

The state is never stored: protocol.tally derives it. `executing` notes how a vote ended and does
what was voted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from heapq import nlargest
from typing import Any
from uuid import UUID, uuid4

from apps.accounts.models import Party
from apps.core import actions
from apps.core.clock import unix_ms
from apps.core.errors import BadInput, Conflict
from apps.core.events import emit
from apps.core.ids import effect_of
from apps.core.live import TOLD_MAX, changed, concerns
from apps.core.permissions import Denied, ensure
from apps.core.transactions import durable, require_no_transaction, require_transaction
from apps.core.wake import wake
from apps.governance import events, selectors, weights
from apps.governance.errors import SnapshotWaits
from apps.governance.models import House, Proposal, SnapshotWeight, Vote
from apps.protocol import consent as rules
from apps.protocol import tally
from apps.protocol.money import BPS
from apps.protocol.tally import State, Support
from apps.subdaos.models import Dao
from apps.subdaos.services import dao_lock
from apps.wallets import keys, ledger, log

EXECUTE = "flai.execute_proposal"
WRITERS_S = 5.0
TITLE_MAX, DESCRIPTION_MAX = 200, 10_000


def can_propose(actor: Party | None, dao: Dao, kind: str, now: datetime) -> Denied | None:
    """Members above the DAO's proposal threshold may propose in the house that they sit in."""
    if actor is None:
        return Denied("sign_in", "Sign in to make a proposal.")
    action = actions.get(kind)
    if action.by_system:
        return Denied(
            "system_only", "This kind of proposal follows from an event; nobody makes it."
        )
    house = action.house
    if (house == House.SUPER) != (dao.kind == Dao.Kind.SUPER):
        return Denied("wrong_house", "This DAO does not decide that kind of proposal.")
    held = weights.house_weight(dao, house, actor, now)
    if held == 0:
        return Denied(
            "no_weight", f"Only holders of {weights.NAMES[House(house)]} may propose this."
        )
    total = sum(weights.house_weights(dao, house, now).values())
    threshold_bps = int(dao.params.get("proposal_threshold_bps", 0))
    if held * BPS < threshold_bps * total:
        return Denied(
            "below_threshold",
            f"A proposal needs {threshold_bps / 100:g} % of the {weights.NAMES[House(house)]}.",
        )
    return None


def can_vote(actor: Party | None, proposal: Proposal, now: datetime) -> Denied | None:
    """While voting is open, once, with weight at the snapshot."""
    if actor is None:
        return Denied("sign_in", "Sign in to vote.")
    state = proposal.state(now)
    if state is State.PENDING:
        return Denied("voting_not_open", "Voting has not begun yet.")
    if state is not State.ACTIVE or proposal.concluded_at is not None:
        return Denied("voting_closed", "Voting is over.")
    if selectors.my_vote(proposal, actor) is not None:
        return Denied("already_voted", "You have voted on this proposal; a vote is final.")
    weight = selectors.weight(proposal, actor, now)
    if weight.weight == 0:
        return Denied("no_weight", weight.why)
    return None


def can_cancel(actor: Party | None, proposal: Proposal, now: datetime) -> Denied | None:
    """The proposer may take it back until voting begins."""
    if actor is None or proposal.proposer_id != actor.id:
        return Denied("not_proposer", "Only its proposer may take a proposal back.")
    if proposal.state(now) is not State.PENDING or proposal.total_weight is not None:
        return Denied("voting_begun", "A proposal can be taken back until voting begins.")
    return None


def propose(
    *,
    actor: Party,
    dao: Dao,
    kind: str,
    payload: object,
    title: str,
    description: str = "",
    idempotency: UUID | None = None,
    consent: keys.Consent = keys.SESSION,
    now: datetime,
) -> Proposal:
    """A member's proposal; a bound wallet key signs the payload's hash, as the action writes it.

    idempotency: the same one again, from the same party, returns the proposal that exists.
    Raises Forbidden, Conflict (it was another proposal's), or what the action says about its
    payload.
    """
    id_ = effect_of(actor.id, rules.PROPOSE, idempotency)
    with durable():
        made = Proposal.objects.select_related("dao", "proposer").filter(id=id_).first()
        if made is not None:
            if (made.dao_id, made.kind, made.payload) != (dao.id, kind, payload):
                raise Conflict("proposal_conflict", "This proposal was made with other content.")
            return made
        ensure(can_propose(actor, dao, kind, now))
        return _make(
            dao=dao,
            kind=kind,
            payload=payload,
            title=title,
            description=description,
            proposer=actor,
            consent=consent,
            id_=id_,
            now=now,
        )


@dataclass(frozen=True)
class Preview:
    """What a proposal would put to the vote: nothing of it is written."""

    house: str
    payload: dict[str, Any]
    payload_hash: str
    changes: list[dict[str, Any]]


def preview(*, dao: Dao, kind: str, payload: dict[str, Any]) -> Preview:
    """Raises what the action says about its payload."""
    action = actions.get(kind)
    checked = action.validate(payload, dao)
    hash_ = payload_hash(dao, kind, checked)
    return Preview(action.house, checked, hash_, action.describe(checked, dao))


def propose_by_system(
    *,
    dao: Dao,
    kind: str,
    payload: object,
    title: str,
    description: str = "",
    ref: str = "",
    proposer: Party | None = None,
    times: Mapping[str, int] | None = None,
    now: datetime,
) -> Proposal:
    """Inner writer: a proposal that follows from an event (an award, a finished round).

    ref: what it is about; the same kind and ref again return the proposal that exists.
    times: voting_delay_s, voting_period_s, timelock_s where they differ from the DAO's.
    """
    require_transaction("governance.propose_by_system")
    if ref:
        # The DAO's row serialises makers of the same proposal.
        Dao.objects.select_for_update(of=("self",)).get(id=dao.id)
        existing = selectors.proposals_of_ref(kind, ref)
        if existing is not None:
            return existing
    return _make(
        dao=dao,
        kind=kind,
        payload=payload,
        title=title,
        description=description,
        proposer=proposer,
        ref=ref,
        times=times,
        now=now,
    )


def _make(
    *,
    dao: Dao,
    kind: str,
    payload: object,
    title: str,
    description: str,
    proposer: Party | None,
    now: datetime,
    ref: str = "",
    times: Mapping[str, int] | None = None,
    consent: keys.Consent | None = None,
    id_: UUID | None = None,
) -> Proposal:
    action = actions.get(kind)
    title, description = title.strip(), description.strip()
    if not 1 <= len(title) <= TITLE_MAX or len(description) > DESCRIPTION_MAX:
        raise BadInput(
            "bad_text",
            f"A title has 1 to {TITLE_MAX} characters, a description at most {DESCRIPTION_MAX}.",
        )
    if not isinstance(payload, dict):
        raise BadInput("bad_payload", "The payload must be an object.")
    checked = action.validate(payload, dao)
    hash_ = payload_hash(dao, kind, checked)
    said = {"auth": "system"}
    if consent is not None and proposer is not None:
        asked = rules.propose_payload(dao=dao.party.pid, kind=kind, payload_hash=hash_)
        said = keys.grant(proposer, rules.PROPOSE, asked, consent, now=now)
    given = {**dao.params, **(times or {})}
    starts_at = now + timedelta(seconds=int(given["voting_delay_s"]))
    proposal = Proposal.objects.create(
        id=id_ or uuid4(),
        dao=dao,
        house=action.house,
        kind=kind,
        payload=checked,
        payload_hash=hash_,
        changes=action.describe(checked, dao),
        title=title,
        description=description,
        proposer=proposer,
        ref=ref,
        created_at=now,
        snapshot_at=_end_of_ms(starts_at),
        voting_starts_at=starts_at,
        voting_ends_at=_whole_ms(starts_at + timedelta(seconds=int(given["voting_period_s"]))),
        quorum_bps=int(dao.params["quorum_bps"]),
        threshold_bps=int(dao.params["threshold_bps"]),
        timelock_s=int(given["timelock_s"]),
        grace_s=int(given["grace_s"]),
        late_quorum_s=int(given["late_quorum_s"]),
    )
    log.append(
        "governance.proposal",
        {
            "proposal": str(proposal.id),
            "dao": dao.party.pid,
            "house": proposal.house,
            "kind": kind,
            "payload_hash": proposal.payload_hash,
            "proposer": proposer.pid if proposer else None,
            "starts_at": unix_ms(proposal.voting_starts_at),
            "ends_at": unix_ms(proposal.voting_ends_at),
            "quorum_bps": proposal.quorum_bps,
            "threshold_bps": proposal.threshold_bps,
            "timelock_s": proposal.timelock_s,
            "grace_s": proposal.grace_s,
            **said,
        },
        now=now,
    )
    stirred(proposal)
    wake(EXECUTE, proposal.id, eta=proposal.voting_starts_at)  # the snapshot
    wake(EXECUTE, proposal.id, eta=proposal.voting_ends_at)
    return proposal


def payload_hash(dao: Dao, kind: str, payload: Mapping[str, Any]) -> str:
    """What exactly is voted on: SHA-256 over the DAO, the kind and the payload."""
    return tally.payload_hash(dao=dao.party.pid, kind=kind, payload=payload)


def weights_settle(
    proposal_id: UUID | str, now: datetime, *, within_s: float | None = None
) -> None:
    """Before a snapshot of tokens, in no transaction: from here on none is stamped at its time or
    before, and all that were are written, in the log too. Nobody's payment waits for it.

    So what the snapshot counts follows from the leaves before its own, to the micro-unit. (Points
    are changed under their SubDAO's lock, which the snapshot takes.)
    Raises SnapshotWaits; RuntimeError in a transaction, whose own transfers it could not wait for.
    """
    require_no_transaction()
    due = Proposal.objects.select_related("dao").filter(
        id=proposal_id, total_weight=None, voting_starts_at__lte=now, canceled_at=None
    )
    proposal = due.exclude(house=House.SBGT).first()
    if proposal is None:
        return
    with durable():
        asset = weights.asset_of(proposal.dao)
        ledger.quiet(asset.id, until=proposal.snapshot_at + timedelta(microseconds=1))
    if not ledger.writers_ended(within_s=WRITERS_S if within_s is None else within_s):
        raise SnapshotWaits()


def snapshot_take(proposal: Proposal, now: datetime) -> None:
    """Write down once what everybody's vote counts, as of `snapshot_at`. The caller holds the row's
    lock, and has had the weights settled before."""
    if proposal.house == House.SBGT:
        dao_lock(proposal.dao)  # whoever changes points is wholly before the snapshot, or after it
    held = weights.house_weights(proposal.dao, proposal.house, proposal.snapshot_at)
    SnapshotWeight.objects.bulk_create(
        [SnapshotWeight(proposal=proposal, party_id=key, weight=held[key]) for key in held],
        batch_size=5_000,
    )
    proposal.total_weight = sum(held.values())
    proposal.save(update_fields=["total_weight"])
    stirred(proposal)
    concerns(nlargest(TOLD_MAX, held, key=held.__getitem__))
    log.append(
        "governance.snapshot",
        {
            "proposal": str(proposal.id),
            "at": unix_ms(proposal.snapshot_at),
            "total": str(proposal.total_weight),
            "holders": len(held),
        },
        now=now,
    )


def stirred(proposal: Proposal) -> None:
    """Wake its page and its DAO's: it has come to a new state."""
    changed(f"proposal:{proposal.id}", f"subdao:{proposal.dao_id}")


def lock_proposal(proposal_id: UUID | str) -> Proposal:
    """The proposal, its row locked until the transaction ends. Raises NotFound."""
    selectors.proposal_get(proposal_id)
    return (
        Proposal.objects.select_for_update(of=("self",))
        .select_related("dao", "dao__party", "dao__asset", "proposer")
        .get(id=proposal_id)
    )


def vote(
    *,
    actor: Party,
    proposal_id: UUID | str,
    support: str,
    consent: keys.Consent = keys.SESSION,
    now: datetime,
) -> Vote:
    """One final vote per account, with the weight of the snapshot; the same again returns it.

    Raises BadInput for an unknown support, Conflict for another than was cast, Forbidden when
    can_vote says no or the voter's key has not signed; as `weights_settle`.
    """
    if support not in set(Support):
        raise BadInput("bad_support", "Support is “for”, “against” or “abstain”.")
    weights_settle(proposal_id, now)
    with durable():
        proposal = lock_proposal(proposal_id)
        made = selectors.my_vote(proposal, actor)
        if made is not None:
            if made.support != support:
                raise Conflict(
                    "already_voted", f"You have voted “{made.support}”; a vote is final."
                )
            return made
        if proposal.total_weight is None and proposal.state(now) is State.ACTIVE:
            snapshot_take(proposal, now)
        ensure(can_vote(actor, proposal, now))
        asked = rules.vote_payload(proposal=str(proposal.id), support=support)
        said = keys.grant(actor, rules.VOTE, asked, consent, now=now)
        weight = selectors.weight(proposal, actor, now).weight
        had_quorum = tally.quorum_reached(proposal.facts)
        cast = Vote.objects.create(
            proposal=proposal,
            voter=actor,
            support=support,
            weight=weight,
            at=now,
            created_at=now,
        )
        field = f"{support}_weight"
        setattr(proposal, field, getattr(proposal, field) + weight)
        deadline = tally.extended_deadline(
            voting_ends_at=proposal.voting_ends_at,
            voted_at=now,
            extension_s=proposal.late_quorum_s,
            had_quorum=had_quorum,
            has_quorum=tally.quorum_reached(proposal.facts),
            already_extended=proposal.extended_at is not None,
        )
        deadline = _whole_ms(deadline)
        if deadline > proposal.voting_ends_at:
            proposal.voting_ends_at, proposal.extended_at = deadline, now
            wake(EXECUTE, proposal.id, eta=deadline)
        proposal.save(update_fields=[field, "voting_ends_at", "extended_at"])
        changed(f"proposal:{proposal.id}", f"party:{actor.id}")
        log.append(
            "governance.vote",
            {
                "proposal": str(proposal.id),
                "voter": actor.pid,
                "support": support,
                "weight": str(weight),
                "ends_at": unix_ms(proposal.voting_ends_at),
                **said,
            },
            now=now,
        )
    return cast


def cancel(
    *,
    actor: Party,
    proposal_id: UUID | str,
    consent: keys.Consent = keys.SESSION,
    now: datetime,
) -> Proposal:
    """The proposer takes it back before voting begins; once more changes nothing. A bound wallet
    key signs it, as it signed the proposal."""
    with durable():
        proposal = lock_proposal(proposal_id)
        if proposal.canceled_at is not None and proposal.proposer_id == actor.id:
            return proposal
        ensure(can_cancel(actor, proposal, now))
        asked = rules.cancel_payload(proposal=str(proposal.id))
        said = keys.grant(actor, rules.CANCEL, asked, consent, now=now)
        proposal.canceled_at = now
        proposal.save(update_fields=["canceled_at"])
        stirred(proposal)
        log.append("governance.canceled", {"proposal": str(proposal.id), **said}, now=now)
        emit(events.ProposalCanceled(**event_fields(proposal)), now=now)
    return proposal


def _whole_ms(at: datetime) -> datetime:
    """Rounded up. The log tells time in milliseconds: with a deadline between two of them a vote
    just before it would look late to whoever replays."""
    return at + timedelta(microseconds=-at.microsecond % 1_000)


def _end_of_ms(at: datetime) -> datetime:
    """The last instant that the log tells as the same: what is stamped until then counts."""
    return at + timedelta(microseconds=999 - at.microsecond % 1_000)


def event_fields(proposal: Proposal) -> dict[str, str]:
    """What every event about a proposal carries."""
    return {"proposal_id": str(proposal.id), "kind": proposal.kind, "ref": proposal.ref}
