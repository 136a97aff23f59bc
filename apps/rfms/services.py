"""Requests-for-Model: written, voted on, approved or not. The money is in `funding`."""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.utils.text import slugify

from apps.accounts.models import Party
from apps.accounts.services import party_create
from apps.compute.selectors import node_count
from apps.core.errors import BadInput, Conflict, Unprocessable
from apps.core.events import emit
from apps.core.live import changed
from apps.core.permissions import ensure
from apps.core.transactions import durable, require_transaction
from apps.core.wake import wake
from apps.exchange.vaults import stake_lock
from apps.governance.models import Proposal
from apps.governance.services import propose_by_system
from apps.participants.services import call_open
from apps.protocol.plans import check_answerable, plans_of
from apps.protocol.portion import DEFAULT_BPS, portion_rows
from apps.protocol.rfm_spec import SpecError, check_spec, engine_named_by, schema_of, spec_hash
from apps.protocol.tickets import RING, TRIO, nodes_max_of
from apps.rfms import events, selectors
from apps.rfms.funding import award, award_if_ready, close_due, pledge, pledge_withdraw, sweep_due
from apps.rfms.models import Crowdfund, Rfm, Status
from apps.rfms.permissions import can_fork, can_pledge, can_submit, can_withdraw
from apps.rfms.selectors import parent_of
from apps.subdaos.models import Dao
from apps.subdaos.selectors import superdao
from apps.subdaos.services import dao_lock
from apps.wallets import log
from apps.wallets.services import account

__all__ = [
    "award",
    "award_if_ready",
    "can_pledge",
    "can_submit",
    "can_withdraw",
    "close_due",
    "pledge",
    "pledge_withdraw",
    "rfm_approve",
    "rfm_create",
    "rfm_of_ref",
    "rfm_reject",
    "rfm_submit",
    "rfm_take_back",
    "rfm_update",
    "sweep_due",
]

APPROVE, FORK = "rfms.approve", "rfms.fork"
APPROVALS = (APPROVE, FORK)
# How long voting takes at least: where a DAO has no minimum, its usual time is.
LEAST = {
    "voting_delay_s": "voting_delay_min_s",
    "voting_period_s": "voting_period_min_s",
    "timelock_s": "timelock_s",
}
SLUG_MAX = 36  # "SDT-" + slug is the asset's code: at most 40 of A-Z, a-z, 0-9 and "-"
RESERVED = ("new", "compare")  # /rfms/new/ is the form, /models/compare/ a table
CLOSE = "flai.close_crowdfund"
TITLE_MAX = 160


class BadSpec(Unprocessable):
    code = "bad_spec"


def rfm_create(*, submitter: Party, title: str, spec: object, now: datetime) -> Rfm:
    """A draft, seen by its author only. Raises BadSpec naming the field, BadInput."""
    title, checked = _title(title), _checked(spec)
    with durable():
        return Rfm.objects.create(
            slug=_free_slug(title),
            title=title,
            submitter=submitter,
            spec=checked,
            spec_hash=spec_hash(checked),
            created_at=now,
        )


def rfm_update(*, actor: Party, slug: str, title: str, spec: object, now: datetime) -> Rfm:
    """Write a draft anew; its address stays. Raises Forbidden once it was submitted."""
    title, checked = _title(title), _checked(spec)
    with durable():
        rfm = _locked(slug)
        ensure(can_submit(actor, rfm))
        rfm.title, rfm.spec, rfm.spec_hash = title, checked, spec_hash(checked)
        rfm.save(update_fields=["title", "spec", "spec_hash"])
    return rfm


def rfm_submit(*, actor: Party, slug: str, now: datetime) -> Rfm:
    """Freeze the spec by its hash and put it to the SuperDAO's vote; a fork to its parent's.

    The vote runs by the times of the spec, never shorter than the voting DAO's minimum; quorum and
    threshold are that DAO's own. Submitting what is in the vote already changes nothing.
    Raises Forbidden: can_submit, of a fork can_fork as well.
    """
    with durable():
        rfm = _locked(slug)
        if rfm.status is Status.VOTING and rfm.submitter_id == actor.id:
            return rfm
        ensure(can_submit(actor, rfm))
        parent = parent_of(rfm)
        if parent is not None:
            dao_lock(parent)
            stake_lock(actor, parent.asset)
            ensure(can_fork(actor, parent, now))
        dao = parent or superdao()
        rules = rfm.spec["governance"]
        title = f"Fork it as “{rfm.title}”" if parent else f"Open “{rfm.title}” for funding"
        proposal = propose_by_system(
            dao=dao,
            kind=FORK if parent else APPROVE,
            payload={"rfm": str(rfm.id), "spec_hash": rfm.spec_hash},
            title=title,
            description=rfm.objective,
            ref=_ref(rfm),
            proposer=actor,
            times={
                name: max(rules[name], int(dao.params.get(least, dao.params[name])))
                for name, least in LEAST.items()
            },
            now=now,
        )
        rfm.submitted_at, rfm.proposal = now, proposal
        rfm.save(update_fields=["submitted_at", "proposal"])
        log.append(
            "rfms.submitted",
            {
                "id": str(rfm.id),
                "submitter": actor.pid,
                "spec_hash": rfm.spec_hash,
                "proposal": str(proposal.id),
            },
            now=now,
        )
        emit(events.RfmSubmitted(rfm_id=str(rfm.id), proposal_id=str(proposal.id)), now=now)
    return rfm


def rfm_approve(
    *, rfm_id: UUID | str, spec_hash_voted: str, proposal_id: UUID, now: datetime
) -> Rfm:
    """Inner writer: the vote carried. Opens the crowdfund and the call for participants."""
    require_transaction("rfms.rfm_approve")
    rfm = Rfm.objects.select_for_update(of=("self",)).select_related("submitter").get(id=rfm_id)
    if rfm.spec_hash != spec_hash_voted or spec_hash(rfm.spec) != spec_hash_voted:
        raise Conflict("spec_changed", "The request is not the one that was voted on.")
    if rfm.submitted_at is None or rfm.approved_at or rfm.rejected_at:
        raise Conflict("not_in_vote", "This request is not being voted on.")
    funding, rules = rfm.spec["funding"], rfm.spec["governance"]
    # One escrow of its own per crowdfund: what lies in it is exactly what its pledges add up to.
    holder = party_create(kind=Party.Kind.SYSTEM, name=f"Crowdfund of {rfm.slug}", now=now)
    fund = Crowdfund.objects.create(
        rfm=rfm,
        escrow=account(holder, "USDC", "escrow"),
        target_micro=int(funding["target_micro"]),
        sdt_supply_micro=int(funding["sdt_supply_micro"]),
        opened_at=now,
        deadline_at=now + timedelta(seconds=funding["deadline_s"]),
        created_at=now,
    )
    rfm.call = call_open(
        slug=rfm.slug, schema=schema_of(rfm.spec), rows_min=rules["min_rows"], now=now
    )
    rfm.approved_at = now
    rfm.save(update_fields=["call", "approved_at"])
    changed(f"rfm:{rfm.id}", f"party:{rfm.submitter_id}")
    log.append(
        "rfms.approved",
        {
            "id": str(rfm.id),
            "proposal": str(proposal_id),
            "escrow": holder.pid,
            "target_micro": str(fund.target_micro),
        },
        now=now,
    )
    emit(events.RfmApproved(rfm_id=str(rfm.id), proposal_id=str(proposal_id)), now=now)
    wake(CLOSE, rfm.id, eta=fund.deadline_at)
    return rfm


def rfm_reject(*, rfm_id: UUID | str, proposal_id: UUID | str, now: datetime) -> None:
    """The vote was lost or its execution expired. Rejecting twice is rejecting once."""
    with durable():
        rfm = _in_vote(rfm_id, proposal_id)
        if rfm is None:
            return
        rfm.rejected_at = now
        rfm.save(update_fields=["rejected_at"])
        changed(f"rfm:{rfm.id}", f"party:{rfm.submitter_id}")
        log.append("rfms.rejected", {"id": str(rfm.id), "proposal": str(proposal_id)}, now=now)
        emit(events.RfmRejected(rfm_id=str(rfm.id), proposal_id=str(proposal_id)), now=now)


def rfm_take_back(*, rfm_id: UUID | str, proposal_id: UUID | str, now: datetime) -> None:
    """Its author took the proposal back: a draft again, to be rewritten and submitted anew."""
    with durable():
        rfm = _in_vote(rfm_id, proposal_id)
        if rfm is None:
            return
        rfm.submitted_at = rfm.proposal = None
        rfm.save(update_fields=["submitted_at", "proposal"])
        log.append("rfms.taken_back", {"id": str(rfm.id), "proposal": str(proposal_id)}, now=now)


def rfm_of_ref(ref: str) -> str:
    """The id of the request that an approval's `ref` is about."""
    return ref.partition(":")[0]


def _ref(rfm: Rfm) -> str:
    """The id for the first submission, "id:n" for the n-th: a ref has one proposal for ever."""
    before = Proposal.objects.filter(kind__in=APPROVALS, ref__startswith=str(rfm.id)).count()
    return f"{rfm.id}:{before + 1}" if before else str(rfm.id)


def _in_vote(rfm_id: UUID | str, proposal_id: UUID | str) -> Rfm | None:
    """Locked, if it is this proposal that decides on it now."""
    return (
        Rfm.objects.select_for_update(of=("self",))
        .filter(id=rfm_id, proposal=proposal_id, approved_at=None, rejected_at=None)
        .first()
    )


def _checked(spec: object) -> dict[str, Any]:
    try:
        checked = check_spec(spec)
    except SpecError as error:
        field = error.field
        text = f"{field}: {error.text}" if field else error.text
        raise BadSpec(text=text, field=field) from None
    try:
        check_answerable(
            plans_of(checked["terms"]["plans"]),
            rows_per_epoch=portion_rows(settings.ROWS_PER_EPOCH, DEFAULT_BPS),
            epoch_days=settings.ROWS_EPOCH_DAYS,
        )
    except ValueError as error:
        raise BadSpec(text=f"terms.plans: {error}.", field="terms.plans") from None
    _check_parent(checked)
    _check_nodes(checked["governance"])
    return checked


def _check_nodes(rules: dict[str, Any]) -> None:
    """A request for more nodes than the least is for such as are registered; and of those that are
    all hold shares, which may be more than its engine takes."""
    wanted, there = rules["n"], node_count()
    if wanted > TRIO and there < wanted:
        text = f"governance.n: {wanted} nodes are asked for, and {there} are registered here."
        raise BadSpec(text=text, field="governance.n")
    engine = engine_named_by(rules.get("engine", RING), rules["t"])
    if there > (most := nodes_max_of(engine)):
        text = f"{engine} takes {most} nodes at most, and {there} are registered here."
        raise BadSpec(text=f"governance.engine: {text}", field="governance.engine")


def _check_parent(spec: dict[str, Any]) -> None:
    """A fork goes on with its parent's kind of model: that is what it has of it."""
    slug = spec.get("parent")
    if slug is None:
        return
    parent = Dao.objects.filter(slug=slug, kind=Dao.Kind.SUB).first()
    if parent is None:
        raise BadSpec(text="parent: There is no SubDAO with this address.", field="parent")
    if parent.params["model_class"] != spec["model_class"]:
        text = f"parent: A fork keeps its model class, {parent.params['model_class']}."
        raise BadSpec(text=text, field="parent")


def _title(title: str) -> str:
    title = " ".join(title.split())
    if not 1 <= len(title) <= TITLE_MAX or not title.isprintable():
        raise BadInput(
            "bad_title", f"Give a title of at most {TITLE_MAX} characters.", field="title"
        )
    return title


def _free_slug(title: str) -> str:
    # An underscore passes for a slug, but not for an asset's code.
    base = slugify(title.replace("_", "-"))[:SLUG_MAX].strip("-") or "request"
    taken = Rfm.objects.filter(slug=base).exists() or Dao.objects.filter(slug=base).exists()
    if taken or base in RESERVED:
        return f"{base[: SLUG_MAX - 7].rstrip('-')}-{secrets.token_hex(3)}"
    return base


def _locked(slug: str) -> Rfm:
    found = selectors.rfm_by_slug(slug)
    return Rfm.objects.select_for_update(of=("self",)).select_related("submitter").get(id=found.id)
