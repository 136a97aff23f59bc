"""What a round showed of each member, in plain words: φ, copies, lateness, refused shares.

Nothing is said here but what anybody can read already. What a validator said of each site is opened
to nobody; of several the weighted median counts. Grave is only what an honest site does not come
to: not an upload that broke off or began anew, a node's own fault, a φ of 0 among others of 0, or
rows that two sites have in common.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from django.db.models import OuterRef, Subquery

from apps.protocol.contribution import flagged
from apps.training.models import Member, Phase, Round, Score, Submission
from apps.training.services import OVER
from apps.training.submissions import NOT_KEPT, REPLACED, UNFINISHED
from apps.wallets import log

LATE = {
    Phase.MOMENTS: "as sums were asked for",
    Phase.NORMALISING: "as numbers of rows were asked for",
    Phase.UPDATES: "as updates and holdouts were asked for",
}
# Where an honest site is often superfluous, a φ of 0 alone shows nothing (docs/learning.md).
CHANCY = ("leave_one_out",)
# A node's refusals that are about what the site made; others may be the node's fault, or the way's.
OWN_FAULT = ("bad_commitment", "bad_signature", "malformed_seal")


@dataclass(frozen=True)
class Shown:
    """`grave`: something that members may want to vote on; `words` are whole sentences."""

    member: Member
    phi_milli: int | None
    words: tuple[str, ...]
    grave: bool


def shown(
    held: Round,
    members: Sequence[Member],
    phi: Mapping[Any, int],
    shares: Sequence[Submission],
) -> list[Shown]:
    """Of each member of a round that is over, in the order given; phi by party."""
    later = _copies(held, members, shares)
    low = set(flagged({str(party): value for party, value in phi.items()}))
    found = []
    for member in members:
        words, grave = [], False
        mine = phi.get(member.party_id)
        if mine is not None:
            among = median(value for party, value in phi.items() if party != member.party_id)
            words.append(f"φ {_milli(mine)}; the median of the others {_milli(among)}.")
            # where most are of no use, or no model was made, it says something of the round
            telling = among > 0 and held.phase != Phase.VOID and held.scoring not in CHANCY
            grave = str(member.party_id) in low and telling
        for other, first in later.get(member.party_id, ()):
            words.append(_alike(other, first, held.shares_rows))
            grave = grave or not (first or held.shares_rows)
        if member.left_phase:
            words.append(f"Left out: late {LATE.get(Phase(member.left_phase), 'in a phase')}.")
        for share in shares:
            if share.party_id != member.party_id or share.state != Submission.State.REFUSED:
                continue
            said, own_fault = _refused(share)
            words += said
            grave = grave or own_fault
        found.append(Shown(member, mine, tuple(words), grave))
    return found


def _alike(other: str, first: bool, rows: bool) -> str:
    when = "earlier" if first else "later, so it scores 0"
    if not rows:
        return f"It sent the same update as {other}, {when}."
    return (
        f"At least half of what was compared of the rows of one of it and {other} is among the "
        f"other's too; it sent its own {when}. Who had them first can't be seen."
    )


def _refused(share: Submission) -> tuple[list[str], bool]:
    """(what to say of a refused share, whether that is grave)."""
    if share.reason in (OVER, REPLACED) or share.refusal == NOT_KEPT:
        return [], False
    if share.reason == UNFINISHED:
        return ["An upload of its broke off, and nothing more came."], False
    if share.refusal in OWN_FAULT:
        return [f"A share of its was refused, as a node says: {share.reason}"], True
    return [
        f"A node did not take a share of its, perhaps by no fault of its: {share.reason}"
    ], False


def shown_of(held: Round, pid: str) -> Shown | None:
    """The same of one member, read from the database; None for who was none."""
    score = Score.objects.filter(round=held, party=OuterRef("party")).values("phi_milli")
    joined = Member.objects.filter(round=held).select_related("party")
    members = list(joined.annotate(scored=Subquery(score)))
    phi = {m.party_id: m.scored for m in members if m.scored is not None}
    shares = list(Submission.objects.filter(round=held).defer("sealed", "acks"))
    every = shown(held, members, phi, shares)
    return next((each for each in every if each.member.party.pid == pid), None)


def _copies(
    held: Round, members: Sequence[Member], shares: Sequence[Submission]
) -> dict[Any, list[tuple[str, bool]]]:
    """{party: [(the other's name, whether this one was first)]} by the order of the log."""
    job = held.round_job
    pairs = (job.openings or {}).get("copies", []) if job else []
    if not job or not pairs:
        return {}
    by_share = {share.share_id: share for share in shares}
    listed = job.descriptor["inputs"]["rows" if held.shares_rows else "update"]
    sent = [by_share[share_id] for share_id in listed]
    when = log.places("training.share_received", [share.ticket_id for share in sent])
    names = {member.party_id: member.party.name for member in members}
    found: dict[Any, list[tuple[str, bool]]] = {}
    for pair in pairs:
        for at, other in (pair, pair[::-1]):
            one, two = sent[at], sent[other]
            first = when[one.ticket_id] < when[two.ticket_id]
            found.setdefault(one.party_id, []).append((names[two.party_id], first))
    return found


def _milli(value: float) -> str:
    return f"{value / 1000:.3f}"
