"""Filling a round: holdout rows announced, sealed shares taken, checked and handed to the nodes."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

from django.db import IntegrityError, transaction

from apps.accounts.models import Party
from apps.compute import control
from apps.compute.selectors import members_by_fingerprint
from apps.compute.services import job_create
from apps.core.clock import now as clock_now
from apps.core.clock import unix_ms
from apps.core.errors import BadInput, Conflict, Forbidden, Unprocessable
from apps.core.live import changed
from apps.core.transactions import durable
from apps.core.wake import wake
from apps.protocol import tickets
from apps.protocol.circuits import CIRCUITS, CLASSES, BadParams
from apps.training.models import GIVEN_UP, Member, Phase, Round, Submission
from apps.training.services import lock_round, note, phase_to, round_ticket, updates_if_ready
from apps.training.tickets import COMMON, MIN_CELL, Mismatch, compare
from apps.wallets import log

JOB_DEADLINE_S = 120
RETRY_S, RETRY_S_MAX = 0.5, 5.0
HOLDOUT_ROWS_MIN = 10


def holdout_rows_announce(*, round_id: Any, party: Party, rows: int, now: datetime) -> Round:
    """A validator says how many holdout rows it will share; fixed once updates are asked for."""
    if not isinstance(rows, int) or isinstance(rows, bool) or rows < HOLDOUT_ROWS_MIN:
        raise BadInput("bad_rows", f"A holdout has at least {HOLDOUT_ROWS_MIN} rows.")
    with durable():
        held = lock_round(round_id)
        member = _member(held, party)
        if member.role != "validator":
            raise Forbidden("not_a_validator", "Only validators bring holdout rows.")
        if held.rows.get(member.key) == rows:
            return held
        if held.phase not in (Phase.MOMENTS, Phase.NORMALISING):
            raise Conflict("rows_fixed", "The number of holdout rows is fixed by now.")
        held.rows = {**held.rows, member.key: rows}
        try:
            _check_rows(held)
        except BadParams as error:
            raise BadInput("bad_rows", str(error)) from None
        note(held, f"{party.name} will share {rows} holdout rows.", now)
        updates_if_ready(held, now)
        held.save()
    return held


def share_submit(
    *, round_id: Any, party: Party, upload: dict[str, Any], now: datetime
) -> tuple[Submission, bool]:
    """Take a sealed share for the present stage; returns it and whether it is new.

    The same upload again is the same submission. Raises DomainError naming the field that is wrong.
    """
    ticket = _checked(upload, now)
    with durable():
        held = lock_round(round_id)
        member = _member(held, party)
        earlier = _with_share(ticket.share_id)
        if earlier is not None:
            same = (earlier.round_id, earlier.party_id, earlier.ticket_id) == (
                held.id,
                party.id,
                ticket.id,
            )
            if same and earlier.state not in GIVEN_UP:
                return earlier, False
            raise share_id_taken()
        if held.phase not in (Phase.MOMENTS, Phase.UPDATES):
            raise Conflict("not_accepting", f"The round takes no shares while it is {held.phase}.")
        _compare(held, member, ticket)
        if (
            Submission.objects.filter(round=held, stage=held.stage, slot=ticket.slot, party=party)
            .exclude(state__in=GIVEN_UP)
            .exists()
        ):
            raise Conflict("already_submitted", f"You have submitted your {ticket.slot} already.")
        try:
            with transaction.atomic():
                submission = Submission.objects.create(
                    round=held,
                    stage=held.stage,
                    slot=ticket.slot,
                    party=party,
                    share_id=ticket.share_id,
                    ticket=upload["ticket"],
                    ticket_id=ticket.id,
                    upload=json.dumps(upload, separators=(",", ":")).encode(),
                    due_at=now,
                )
        except IntegrityError:  # another round, whose lock is not ours, took it in this instant
            raise share_id_taken() from None
        log.append(
            "training.share_received",
            {
                "round": str(held.id),
                "party": party.pid,
                "slot": ticket.slot,
                "ticket": ticket.id,
                "commitment": list(ticket.commitment),
            },
            now=now,
        )
        changed(f"round:{held.id}")
        wake("flai.deliver_share", submission.id)
    return submission, True


def share_id_taken() -> Conflict:
    return Conflict("share_id_taken", "This share_id is in use; choose a new one.")


def _with_share(share_id: str) -> Submission | None:
    return Submission.objects.filter(share_id=share_id).first()


def share_deliver(*, submission_id: Any) -> bool:
    """Hand a sealed share to the nodes and keep what they signed; returns whether it got there.

    An edge: it talks to the nodes, so it reads the clock itself. Harmless when repeated.
    """
    submission = Submission.objects.select_related("round").get(pk=submission_id)
    if submission.state != Submission.State.RECEIVED or submission.upload is None:
        return submission.state == Submission.State.DELIVERED
    members = members_by_fingerprint(submission.round.nodes)
    upload = json.loads(bytes(submission.upload))
    try:
        acks: list[Any] | None = control.put_share(members, upload, ticket_id=submission.ticket_id)
        error = None
    except control.ControlError as failure:
        acks, error = None, failure
    now = clock_now()
    with durable():
        held = lock_round(submission.round_id)
        row = Submission.objects.select_for_update().get(pk=submission_id)
        if row.state != Submission.State.RECEIVED:
            return row.state == Submission.State.DELIVERED
        row.attempts += 1
        if acks is not None:
            row.state, row.acks, row.reason = Submission.State.DELIVERED, acks, ""
        elif isinstance(error, control.Final):
            row.state, row.reason, row.upload = Submission.State.REFUSED, error.text, None
            note(held, f"The nodes refused a share of {row.party.name}: {error.text}", now)
        else:
            wait_s = min(RETRY_S * 2 ** min(row.attempts - 1, 10), RETRY_S_MAX)
            row.due_at, row.reason = now + timedelta(seconds=wait_s), error.text
            wake("flai.deliver_share", row.id, eta=row.due_at)
        row.save()
        changed(f"round:{held.id}")
        if row.state == Submission.State.DELIVERED:
            _advance(held, now)
        held.save()
    return acks is not None


def _advance(held: Round, now: datetime) -> None:
    """Ask for the job when the last share of the stage is with the nodes."""
    delivered = {
        (s.slot, s.ticket["sender"]): s
        for s in held.submissions.filter(stage=held.stage, state=Submission.State.DELIVERED)
    }
    wanted = round_ticket(held)
    places = [(slot, key) for slot, spec in wanted["slots"].items() for key in spec["shapes"]]
    if held.phase not in (Phase.MOMENTS, Phase.UPDATES) or any(p not in delivered for p in places):
        return
    job = job_create(
        kind=held.stage,
        circuit=wanted["circuits"][0],
        circuits_hash=held.circuits_hash,
        nodes=held.nodes,
        scope=wanted["scope"],
        roster=held.roster,
        inputs={
            slot: [delivered[slot, key].share_id for key in spec["shapes"]]
            for slot, spec in wanted["slots"].items()
        },
        model=None,
        deadline_s=JOB_DEADLINE_S,
        expires_at=held.expires_at,
        now=now,
    )
    if held.phase == Phase.MOMENTS:
        held.moments_job = job
        phase_to(held, Phase.NORMALISING)
        note(held, "All sums are with the nodes; they compute mean and variance.", now)
    else:
        held.round_job = job
        phase_to(held, Phase.COMPUTING)
        note(held, "All updates and holdouts are with the nodes; they score and aggregate.", now)
    wake("flai.run_round", held.id)


def _member(held: Round, party: Party) -> Member:
    member = Member.objects.filter(round=held, party=party).first()
    if member is None:
        raise Forbidden("not_on_roster", "You are not on the roster of this round.")
    if member.left_phase:
        raise Forbidden("left_out", "You were late, and the round went on without you.")
    return member


def _checked(upload: Any, now: datetime) -> tickets.Ticket:
    try:
        return tickets.check_upload(upload, now=unix_ms(now) // 1000)
    except tickets.TicketError as error:
        raise Unprocessable(error.code, error.text) from None


def _compare(held: Round, member: Member, ticket: tickets.Ticket) -> None:
    wanted = round_ticket(held)
    if ticket.sender != member.key:
        raise Unprocessable(
            "wrong_sender", "The ticket's sender is not your key on this round's roster."
        )
    slot = wanted["slots"].get(ticket.slot)
    if slot is None or slot["role"] != member.role:
        open_to = [name for name, spec in wanted["slots"].items() if spec["role"] == member.role]
        raise Unprocessable(
            "wrong_slot",
            f"A {member.role} may not fill the slot {ticket.slot} now; "
            f"open to you: {', '.join(open_to) or 'none'}.",
        )
    try:
        compare(ticket, {name: wanted[name] for name in COMMON})
        compare(ticket, {"shape": slot["shapes"][member.key], "f": slot["f"]})
    except Mismatch as error:
        raise Unprocessable("ticket_mismatch", error.text, field=error.field) from None
    if ticket.expires_at < wanted["expires_at"]:
        raise Unprocessable(
            "ticket_mismatch",
            f"The ticket expires before the round does ({wanted['expires_at']}).",
            field="expires_at",
        )


def _check_rows(held: Round) -> None:
    """Raises BadParams when the rows announced so far do not fit the circuit."""
    CIRCUITS[CLASSES[held.model_class].round_id].validate(
        {
            "features": held.features,
            "strata": len(held.strata),
            "rows": list(held.rows.values()),
            "min_cell": MIN_CELL,
            "scoring": held.scoring,
            **held.extras,
        }
    )
