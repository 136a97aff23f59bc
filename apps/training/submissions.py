"""Filling a round: holdout rows announced, sealed shares taken, checked and handed to the nodes.

A share comes as its head, which is checked at once, and its correction in parts, each in a
transaction of its own: whatever breaks, the sender goes on where the last part ended.
"""

from __future__ import annotations

from collections.abc import Sequence
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
from apps.protocol import tickets, uploads
from apps.protocol.circuits import CIRCUITS, CLASSES, BadParams
from apps.protocol.jobs import MAX_DEADLINE_S
from apps.protocol.sharing import check_consent, check_withdrawal
from apps.training import parts
from apps.training.models import GIVEN_UP, OPEN_PHASES, TAKEN_BACK, Member, Phase, Round, Submission
from apps.training.selectors import share_not_found
from apps.training.services import (
    keep_until,
    lock_round,
    note,
    phase_to,
    round_ticket,
    rows_consent,
    rows_most,
    updates_if_ready,
)
from apps.training.tickets import COMMON, Mismatch, compare
from apps.wallets import log

JOB_DEADLINE_S = 120
RETRY_S, RETRY_S_MAX = 0.5, 5.0
ROWS_MIN = 10
STEP_S = 1
# Sites times features cubed: cores with a load of 25 solved twice as many in a second.
SOLVED_A_S = 2**18
ENDED_PHASES = (Phase.DONE, Phase.VOID, Phase.FAILED)
UNFINISHED_FOR = timedelta(hours=1)
UNFINISHED = "The upload was not finished: for an hour nothing came."
NOT_KEPT = "not_kept"  # a node's answer to a ticket for what it does not keep (any more)
REPLACED = "Another upload of the same site took its place."


def rows_announce(
    *,
    round_id: Any,
    party: Party,
    rows: int,
    now: datetime,
    consent: Any = None,
    signature: Any = None,
) -> Round:
    """A validator says how many holdout rows it will share, a custodian how many rows to train on.

    A custodian does so only where rows are shared, with its signed consent to this round
    (`services.rows_consent`). Fixed once shares are asked for. Raises DomainError.
    """
    if not isinstance(rows, int) or isinstance(rows, bool) or rows < ROWS_MIN:
        raise BadInput("bad_rows", f"A site brings at least {ROWS_MIN} rows.")
    with durable():
        held = lock_round(round_id)
        member = _member(held, party)
        validates = member.role == "validator"
        if not validates and not held.shares_rows:
            raise Forbidden("not_a_validator", "Only validators bring rows to this round.")
        if held.rows.get(member.key) == rows:
            return held
        if held.phase not in (Phase.MOMENTS, Phase.NORMALISING):
            raise Conflict("rows_fixed", "The number of rows is fixed by now.")
        most = rows_most(held, member.role)
        if rows > most:
            raise BadInput(
                "bad_rows",
                f"Each {member.role} of this round brings {most} rows at most: the same for all. "
                "Draw so many at random, as agents do.",
                rows_max=most,
            )
        if not validates:
            _consented(held, member, rows, consent, signature, now)
        held.rows = {**held.rows, member.key: rows}
        try:
            _check_rows(held)
        except BadParams as error:
            raise BadInput("bad_rows", str(error)) from None
        what = "holdout rows" if validates else "rows to train on, by signed consent"
        note(held, f"{party.name} will share {rows} {what}.", now)
        updates_if_ready(held, now)
        held.save()
    return held


def _consented(
    held: Round, member: Member, rows: int, consent: Any, signature: Any, now: datetime
) -> None:
    """Keep and log a custodian's consent, word for word what this round asks for."""
    wanted = rows_consent(held, rows, _may_stay(held, consent))
    try:
        digest = check_consent(consent, signature, key=member.key, wanted=wanted)
    except tickets.TicketError as error:
        raise Unprocessable(error.code, error.text) from None
    member.consent = {"consent": wanted, "signature": signature}
    member.save(update_fields=["consent"])
    log.append(
        "training.rows_consented",
        {
            "round": str(held.id),
            "party": member.party.pid,
            "key": member.key,
            "consent": digest,
            "signature": signature,
        },
        now=now,
    )


def _may_stay(held: Round, consent: Any) -> int | None:
    """Until when a consent lets the rows stay, if that is no longer than they may."""
    stays, most = _stays_until(consent), keep_until(held)
    bounded = most is not None and stays is not None and held.expires_at.timestamp() < stays <= most
    return stays if bounded else None


def _stays_until(consent: Any) -> int | None:
    stays = consent.get("stays_until") if isinstance(consent, dict) else None
    return stays if type(stays) is int else None


def share_begin(
    *, round_id: Any, party: Party, head: dict[str, Any], now: datetime
) -> tuple[Submission, bool]:
    """Take the head of a sealed share for the present stage; returns it and whether it is new.

    Its correction follows in parts (`share_part`); none where the nodes keep the words. The same
    head again is the same submission; a new one takes the place of the party's unfinished one.
    Raises DomainError naming the field that is wrong.
    """
    ticket = _checked(head, now)
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
            if not same:
                raise share_id_taken()
            if earlier.state in GIVEN_UP:
                raise Conflict(
                    "share_refused", f"This share was given up: {earlier.reason} Make another one."
                )
            return earlier, False
        if held.phase not in (Phase.MOMENTS, Phase.UPDATES):
            raise Conflict("not_accepting", f"The round takes no shares while it is {held.phase}.")
        _compare(held, member, ticket)
        mine = Submission.objects.filter(
            round=held, stage=held.stage, slot=ticket.slot, party=party
        )
        for unfinished in mine.filter(state=Submission.State.RECEIVING).select_for_update():
            _refuse(unfinished, REPLACED)
        if mine.exclude(state__in=GIVEN_UP).exists():
            raise Conflict("already_submitted", f"You have submitted your {ticket.slot} already.")
        try:
            with transaction.atomic():
                submission = Submission.objects.create(
                    round=held,
                    stage=held.stage,
                    slot=ticket.slot,
                    party=party,
                    share_id=ticket.share_id,
                    ticket=head["ticket"],
                    ticket_id=ticket.id,
                    sealed={name: head[name] for name in ("signature", "envelopes")},
                    due_at=now + UNFINISHED_FOR,
                )
                if ticket.is_kept:  # its words are with the nodes: nothing more comes
                    _received(submission, now)
                    submission.save(update_fields=["state", "due_at"])
        except IntegrityError:  # another round, whose lock is not ours, took it in this instant
            raise share_id_taken() from None
        changed(f"round:{held.id}")
    return submission, True


def share_part(
    *,
    round_id: Any,
    party: Party,
    share_id: str,
    offset_bytes: int,
    data: bytes,
    digest: str,
    now: datetime,
) -> Submission:
    """Take the next bytes of a share's correction; with the last ones it goes to the nodes.

    `digest` is their `Content-Digest`. Parts follow each other without a gap: at any other offset
    Conflict("wrong_offset") tells the right one (`offset`), and nothing is stored. What is stored
    is on disk when this returns.

    Raises NotFound, BadInput("bad_part"), Unprocessable("bad_digest"), Conflict("share_over").
    """
    if not 0 < len(data) <= uploads.PART_BYTES_MAX:
        raise BadInput("bad_part", f"A part has 1 to {uploads.PART_BYTES_MAX} bytes.")
    if uploads.content_digest(data) != digest:
        raise Unprocessable("bad_digest", "The part's bytes are not those of its Content-Digest.")
    with durable():
        row = (
            Submission.objects.select_for_update()
            .filter(round_id=round_id, share_id=share_id, party=party)
            .first()
        )
        if row is None:
            raise share_not_found()
        if row.state in GIVEN_UP:
            raise Conflict("share_over", f"The upload is over: {row.reason}")
        if row.state != Submission.State.RECEIVING or offset_bytes != row.offset_bytes:
            raise Conflict(
                "wrong_offset",
                f"The next part begins at byte {row.offset_bytes}.",
                offset=row.offset_bytes,
            )
        if offset_bytes + len(data) > row.size_bytes:
            raise BadInput("bad_part", f"The correction ends at byte {row.size_bytes}.")
        parts.append(row, data)
        row.offset_bytes += len(data)
        row.due_at = now + UNFINISHED_FOR
        if row.offset_bytes == row.size_bytes:
            _received(row, now)
        row.save(update_fields=["offset_bytes", "due_at", "state"])
        changed(f"round:{row.round_id}")
    return row


def _received(row: Submission, now: datetime) -> None:
    """All of it is here: into the log with it, then to the nodes. Inner writer."""
    row.state, row.due_at = Submission.State.RECEIVED, now
    log.append(
        "training.share_received",
        {
            "round": str(row.round_id),
            "party": row.party.pid,
            "slot": row.slot,
            "ticket": row.ticket_id,
            "commitment": row.ticket["commitment"],
        },
        now=now,
        ref=row.ticket_id,
    )
    changed(f"round:{row.round_id}", f"party:{row.party_id}")
    wake("flai.deliver_share", row.id)


def shares_expire(*, now: datetime, limit: int = 100) -> int:
    """Give up uploads of which nothing has come for an hour; returns how many."""
    due = Submission.objects.filter(state=Submission.State.RECEIVING, due_at__lte=now)
    with durable():
        rows = list(due.select_for_update(skip_locked=True).order_by("due_at")[:limit])
        for row in rows:
            _refuse(row, UNFINISHED)
            changed(f"round:{row.round_id}")
    return len(rows)


def _refuse(row: Submission, reason: str, code: str = "") -> None:
    """Inner writer, under the row's lock; `code` of the node that refused, any words of its."""
    row.state, row.reason, row.sealed = Submission.State.REFUSED, reason, None
    row.refusal = code[: Submission._meta.get_field("refusal").max_length]
    row.save(update_fields=["state", "reason", "refusal", "sealed"])
    row.parts.all().delete()


def share_withdraw(
    *,
    round_id: Any,
    party: Party,
    share_id: str,
    withdrawal: Any,
    signature: Any,
    now: datetime,
) -> Submission:
    """Its owner takes a share back: each node deletes it, and none may use it from then on.

    `withdrawal` as `protocol.sharing.withdrawal_of`, signed with the key of the share's ticket.
    What the nodes have computed, or are just computing, is not undone; where they have not begun,
    the round can't be computed with that share. What may stay for further rounds is taken back
    after its round too. Again is harmless. Raises DomainError.
    """
    with durable():
        held = lock_round(round_id)
        mine = held.submissions.select_for_update(of=("self",)).select_related("party")
        row = mine.filter(share_id=share_id, party=party).first()
        if row is None:
            raise share_not_found()
        if row.state in TAKEN_BACK:
            return row
        try:
            ticket = tickets.check_ticket(row.ticket, now=row.ticket["issued_at"])
            check_withdrawal(withdrawal, signature, ticket=ticket)
        except tickets.TicketError as error:
            raise Unprocessable(error.code, error.text) from None
        if held.phase in ENDED_PHASES and not ticket.stays:
            raise Conflict(
                "nothing_to_withdraw", "The round is over: the nodes delete what it was made of."
            )
        same = Submission.objects.filter(party=party, ticket__commitment=row.ticket["commitment"])
        open_ = same.filter(round__phase__in=OPEN_PHASES).exclude(round=held)
        other = open_.exclude(state__in=GIVEN_UP).first()
        if other is not None:
            raise Conflict(
                "in_another_round",
                f"Round {other.round_id} is to use the same words: take them back there.",
            )
        row.state, row.sealed, row.attempts = Submission.State.WITHDRAWING, None, 0
        row.acks = []  # what nodes sign from here on is about the withdrawal
        row.due_at, row.reason = now, "Its owner has taken it back."
        row.withdrawal = {"withdrawal": withdrawal, "signature": signature}
        row.save()
        row.parts.all().delete()
        log.append(
            "training.share_withdrawn",
            {
                "round": str(held.id),
                "party": party.pid,
                "slot": row.slot,
                "ticket": row.ticket_id,
                "at": withdrawal["at"],
                "key": ticket.sender,
                "signature": signature,
            },
            now=now,
        )
        note(held, f"{party.name} has taken its {row.slot} back; the nodes delete them.", now)
        held.save()
        wake("flai.withdraw_share", row.id)
    return row


def share_forget(*, submission_id: Any) -> bool:
    """Tell every node its owner's word; True once all have signed that they obeyed.

    Where a node has completed the round, none will: `reason` says so.

    An edge: it talks to the nodes, so it reads the clock itself. Harmless when repeated.
    """
    row = Submission.objects.select_related("round").get(pk=submission_id)
    if row.state != Submission.State.WITHDRAWING:
        return row.state == Submission.State.WITHDRAWN
    members = members_by_fingerprint(row.round.nodes)
    asked = {"ticket": row.ticket, **row.withdrawal}
    acks: list[Any] | None = None
    reason, over = row.reason, False
    try:
        acks = control.withdraw_share(members, asked, ticket_id=row.ticket_id)
        if any(signed["ack"].get("computed") for signed in acks):
            reason = f"{reason} A node had computed with it: what the round makes of that stays."
    except control.ControlError as error:
        reason, over = error.text, error.code == "already_completed"
    now = clock_now()
    with durable():
        row = Submission.objects.select_for_update().get(pk=submission_id)
        if row.state != Submission.State.WITHDRAWING:
            return row.state == Submission.State.WITHDRAWN
        row.attempts, row.reason = row.attempts + 1, reason
        if acks is not None:
            row.state, row.acks = Submission.State.WITHDRAWN, acks
        elif over or row.ticket["expires_at"] <= unix_ms(now) // 1000:
            # the round was faster, and its words went with it; or nodes have purged it
            row.state = Submission.State.WITHDRAWN
        else:
            row.due_at = _again_at(row.attempts, now)
            wake("flai.withdraw_share", row.id, eta=row.due_at)
        row.save()
        changed(f"round:{row.round_id}")
    return acks is not None


def share_id_taken() -> Conflict:
    return Conflict("share_id_taken", "This share_id is in use; choose a new one.")


def _with_share(share_id: str) -> Submission | None:
    return Submission.objects.filter(share_id=share_id).first()


def share_deliver(*, submission_id: Any) -> bool:
    """Hand a sealed share to the nodes and keep what they signed; returns whether it got there.

    An edge: it talks to the nodes, so it reads the clock itself. Harmless when repeated.
    """
    submission = Submission.objects.select_related("round").get(pk=submission_id)
    if submission.state != Submission.State.RECEIVED or submission.sealed is None:
        return submission.state == Submission.State.DELIVERED
    try:
        acks: list[Any] | None = _hand(submission)
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
            _refuse(row, error.text, error.code)
            said = "The nodes refused a share of {name}: {text}"
            if error.code == NOT_KEPT:
                said = "{text} They are those of {name}."
            note(held, said.format(name=row.party.name, text=error.text), now)
        else:
            row.due_at, row.reason = _again_at(row.attempts, now), error.text
            wake("flai.deliver_share", row.id, eta=row.due_at)
        row.save()
        changed(f"round:{held.id}")
        if row.state == Submission.State.DELIVERED:
            _advance(held, now)
        held.save()
    return acks is not None


def shares_bring(submissions: Sequence[Submission]) -> None:
    """Hand delivered shares to those nodes that are there and lack them: they were away, or have
    lost them. No transaction is open. Raises: control.Retryable, control.Final.
    """
    for submission in submissions:
        _hand(submission, again=True)


def _hand(submission: Submission, *, again: bool = False) -> list[Any]:
    """The nodes' acknowledgements. Raises: control.Retryable, control.Final."""
    members = members_by_fingerprint(submission.round.nodes)
    if again:
        members = [m for m, up in zip(members, control.there(members, ask=False)) if up]
    return control.put_share(
        members,
        submission.head,
        parts.read(submission),
        ticket_id=submission.ticket_id,
        again=again,
    )


def _again_at(attempts: int, now: datetime) -> datetime:
    return now + timedelta(seconds=min(RETRY_S * 2 ** min(attempts - 1, 10), RETRY_S_MAX))


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
        engine=held.engine,
        nodes=held.nodes,
        scope=wanted["scope"],
        roster=held.roster,
        inputs={
            slot: [delivered[slot, key].share_id for key in spec["shapes"]]
            for slot, spec in wanted["slots"].items()
        },
        model=wanted["model"],
        deadline_s=_deadline_s(held),
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
        what, do = ("rows", "train") if held.shares_rows else ("updates", "score and aggregate")
        note(held, f"All {what} and holdouts are with the nodes; they {do}.", now)
    wake("flai.run_round", held.id)


def _deadline_s(held: Round) -> int:
    """So long may one attempt take. A worker that dies is followed that much later."""
    more = 0
    if held.phase == Phase.UPDATES and held.shares_rows:
        more = held.schedule["epochs"] * held.schedule["steps"] * STEP_S
    elif held.phase == Phase.UPDATES and CLASSES[held.model_class].sums:
        sites = len(tickets.members_with_role(held.roster, "custodian"))
        more = sites * held.features**3 // SOLVED_A_S
    return min(MAX_DEADLINE_S, tickets.deadline_of(held.engine, JOB_DEADLINE_S + more))


def _member(held: Round, party: Party) -> Member:
    member = Member.objects.filter(round=held, party=party).first()
    if member is None:
        raise Forbidden("not_on_roster", "You are not on the roster of this round.")
    if member.left_phase:
        raise Forbidden("left_out", "You were late, and the round went on without you.")
    return member


def _checked(head: Any, now: datetime) -> tickets.Ticket:
    try:
        return tickets.check_head(head, now=unix_ms(now) // 1000)
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
    if ticket.slot == "rows" and ticket.uses > 1:
        agreed = _stays_until((member.consent or {}).get("consent"))
        if agreed != ticket.expires_at:
            raise Unprocessable(
                "ticket_mismatch",
                "You have not consented that the rows stay with the nodes until then.",
                field="uses",
            )
    if ticket.expires_at < wanted["expires_at"]:
        raise Unprocessable(
            "ticket_mismatch",
            f"The ticket expires before the round does ({wanted['expires_at']}).",
            field="expires_at",
        )


def _check_rows(held: Round) -> None:
    """Raises BadParams when the rows announced so far do not fit the circuit."""
    wanted = round_ticket(held, stage="round")
    params = wanted["params"]
    # whoever has not spoken yet may still bring few rows
    few = [max(ROWS_MIN, held.schedule.get("steps", 0))]
    silent = {name: few for name in ("rows", "site_rows") if params.get(name) == []}
    CIRCUITS[wanted["circuits"][0]].validate({**params, **silent})
