"""No round waits for ever: a phase goes on without those who are late.

Each wait takes half of the time that the round has left. At its end the late members leave the
roster, if enough remain, and those present sign the smaller one: once a phase. Their shares under
the larger roster are replaced, and nodes compute one of the two at most, since a scope is bound to
one descriptor for ever. So nobody's share follows from the difference of two results. Nor do sums
that a late member shared in an earlier round: where it has, that round's normalisation is kept, and
no new total is opened.
"""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any

from django.db.models import Q

from apps.core.sweeping import each
from apps.core.transactions import durable
from apps.protocol import tickets
from apps.training.models import GIVEN_UP, Member, Phase, Round, SharePart, Submission
from apps.training.selectors import awaited
from apps.training.services import (
    awaits_members,
    lock_round,
    minima,
    note,
    phase_to,
    round_fail,
    start_if_makers_stay,
    updates_if_ready,
)
from apps.training.starting import sums_to_keep
from apps.wallets import log

logger = logging.getLogger(__name__)
# Phases that wait for members; a computing round ends by its job.
WAITING_PHASES = (Phase.MOMENTS, Phase.NORMALISING, Phase.UPDATES)
KEPT = (
    "Mean and variance of round {number} are kept: who is late is among its sums, and new ones "
    "without it would show what it shared then."
)
SMALLER = "The roster has lost a member; a share under the smaller one takes its place."


def rounds_go_on(*, now: datetime, limit: int = 20) -> int:
    """Rounds whose wait is over go on without the late members, or fail; says who they are."""
    late = Q(due_at__lte=now) | Q(expires_at__lte=now)
    due = Round.objects.filter(late, phase__in=WAITING_PHASES).order_by("expires_at")
    return each(
        due,
        lambda round_id: _go_on(round_id, now),
        now=now,
        limit=limit,
        log=logger,
        what="deadline of round",
    )


def _go_on(round_id: Any, now: datetime) -> bool:
    with durable():
        held = lock_round(round_id)
        over = now >= held.expires_at
        waited = held.due_at is not None and now >= held.due_at
        if held.phase not in WAITING_PHASES or not (over or waited):
            return False
        late = awaited(held)
        if held.phase == Phase.MOMENTS and all(m.role == "validator" for m in late):
            late = []  # nobody signs anew for a number of rows that is asked for later too
        reason = _why_it_ends(held, late, over=over)
        if reason is not None:
            round_fail(held, reason=reason, now=now)
        elif not late:  # their shares are on the way to nodes that do not answer
            held.due_at = held.expires_at
        else:
            _leave_out(held, late, now)
        held.save()
    return True


def _why_it_ends(held: Round, late: list[Member], *, over: bool) -> str | None:
    """Why this round cannot go on without the late members, or None."""
    names = ", ".join(member.party.name for member in late)
    if over:
        return f"The round expired without {names}." if late else "The round expired."
    if held.members.filter(left_phase=held.phase).exists() and late:
        return (
            f"{names} did not sign the smaller roster; a phase makes it smaller only once, so the "
            "round ends here."
        )
    for role, least in minima(held.dao):
        left = sum(m["role"] == role for m in held.roster["members"])
        left -= sum(member.role == role for member in late)
        if left < least:
            return f"Without {names} there are {left} {role}s; at least {least} are needed."
    return None


def _leave_out(held: Round, late: list[Member], now: datetime) -> None:
    """After this point it must succeed."""
    keys, phase = {member.key for member in late}, held.phase
    kept = sums_to_keep(held, keys) if phase == Phase.MOMENTS else None
    Member.objects.filter(pk__in=[m.pk for m in late]).update(left_phase=held.phase)
    stay = [m for m in held.roster["members"] if m["key"] not in keys]
    held.roster = tickets.roster_of(round_id=str(held.id), members=stay)
    held.roster_hash = tickets.check_roster(held.roster)
    held.rows = {key: rows for key, rows in held.rows.items() if key not in keys}
    if held.phase != Phase.NORMALISING:  # there nothing is signed for the next stage yet
        held.submissions.filter(stage=held.stage).exclude(state__in=GIVEN_UP).update(
            state=Submission.State.REPLACED, reason=SMALLER, sealed=None
        )
        SharePart.objects.filter(submission__in=held.submissions.filter(sealed=None)).delete()
    log.append(
        "training.roster_reduced",
        {
            "round": str(held.id),
            "dao": held.dao.party.pid,
            "phase": phase,
            "left": sorted(member.party.pid for member in late),
            "roster": held.roster_hash,
            **({"kept": str(kept.id)} if kept else {}),
        },
        now=now,
    )
    names = ", ".join(member.party.name for member in late)
    note(held, f"Going on without {names}: late. Those present sign the smaller roster.", now)
    if kept is not None:
        held.summed, held.normalisation = kept, kept.normalisation
        phase_to(held, Phase.NORMALISING)
        note(held, KEPT.format(number=kept.number), now)
    awaits_members(held, now)
    start_if_makers_stay(held, now)
    updates_if_ready(held, now)
