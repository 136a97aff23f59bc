"""The life of a round: opened, moved from phase to phase, closed.

`submissions` fills it with sealed shares, `running` has it computed.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from apps.compute.selectors import node_count, node_set
from apps.compute.services import job_abandoned
from apps.core.clock import unix_ms
from apps.core.errors import Conflict, DomainError, NotFound
from apps.core.events import emit
from apps.core.live import TOLD_MAX, changed, concerns
from apps.core.transactions import durable, require_transaction
from apps.participants.selectors import roster as participants_roster
from apps.protocol import jobs, tickets
from apps.protocol.circuits import CLASSES, circuits_hash
from apps.protocol.circuits.descent import SITE_ROWS_MAX
from apps.protocol.circuits.family import ALL_UPDATES_MAX, ROWS_MAX
from apps.protocol.circuits.games import SHAPLEY_MAX
from apps.protocol.circuits.moments import limits_of
from apps.protocol.circuits.network import ALIVE_MAX
from apps.protocol.encoding import numbers_of, width
from apps.protocol.sharing import consent_to
from apps.protocol.targets import class_of, extras_of, weights_of
from apps.subdaos.models import Dao
from apps.subdaos.selectors import budget_of, current_epoch, engine_of
from apps.training.access import access_named, asked_by_nodes, demand_of
from apps.training.events import RoundClosed, RoundOpened
from apps.training.models import (
    GIVEN_UP,
    OPEN_PHASES,
    TRANSITIONS,
    Member,
    ModelVersion,
    Phase,
    Round,
    SharePart,
    Submission,
    Training,
)
from apps.training.privacy import made_a_model, why_no_round
from apps.training.starting import makers_missing, start_of
from apps.training.tickets import stage_ticket
from apps.wallets import log
from apps.wallets.selectors import balance_at

ROUND_S = 3600
OVER = "The round is over."
ENDED = (Submission.State.DELIVERED, *GIVEN_UP)


# Opening


def round_open_if_ready(*, dao_id: str | UUID, now: datetime) -> Round | None:
    """Open a round when the whitelisted roster meets the SubDAO's minima and none is open.

    Returns None where it does not (yet). Handler of the whitelist's execution.
    """
    with durable():
        dao = Dao.objects.select_for_update().select_related("party").get(pk=dao_id)
        if why_not(dao) is not None:
            return None
        return round_open(dao=dao, now=now)


def round_open(*, dao: Dao, now: datetime) -> Round:
    """A new round with the present roster and node set. Inner writer, under the DAO's lock.

    Raises DomainError where the roster is too small, the node set is not known or a round is open.
    """
    require_transaction("training.round_open")
    reason = why_not(dao)
    if reason is not None:
        raise Conflict("round_not_ready", reason)
    nodes = node_set()
    if reason := _no_engine(engine_of(dao), len(nodes)):
        raise Conflict("round_not_ready", reason)
    hashes = {node.descriptor["circuits_hash"] for node in nodes}
    if hashes != {circuits_hash()}:
        raise DomainError(
            "circuits_differ", "The nodes do not run this release's circuits.", status=503
        )
    number = 1 + (
        Round.objects.filter(dao=dao).order_by("-number").values_list("number", flat=True).first()
        or 0
    )
    training = dao.params.get("training", {"kind": Training.FEDAVG})
    budget = budget_of(dao)
    opened = Round(
        dao=dao,
        number=number,
        nodes=[node.fingerprint for node in nodes],
        circuits_hash=circuits_hash(),
        features=width(dao.params["schema"]["features"]),
        strata=list((dao.params.get("strata") or {}).get("values", [])),
        resolution=dao.params["resolution"],
        access=asked_by_nodes(dao, now=now),
        scoring=dao.params["scoring"],
        engine=engine_of(dao),
        model_class=class_of(dao.params).name,
        extras=extras_of(class_of(dao.params), dao.params),
        training=training["kind"],
        schedule=training.get("schedule", {}),
        privacy=budget.params if budget else {},
        opened_at=now,
        expires_at=now + timedelta(seconds=int(dao.params.get("round_s", ROUND_S))),
    )
    people = participants_roster(dao)
    opened.roster = tickets.roster_of(
        round_id=str(opened.id),
        members=[{"key": p.public_key, "role": p.role, "name": p.party.name} for p in people],
    )
    opened.roster_hash = tickets.check_roster(opened.roster)
    if opened.shares_rows:
        begin = start_of(opened, people, zero=training.get("start") == "zero")
        opened.start, opened.summed = begin.version, begin.summed
        if begin.version is not None:
            opened.phase = Phase.NORMALISING
            opened.normalisation = begin.version.round.normalisation
    awaits_members(opened, now)
    opened.stakes = {
        p.public_key: balance_at(p.party, "FLAI", ("staked",), now)
        for p in people
        if p.role == "validator"
    }
    counts = {role: sum(p.role == role for p in people) for role in tickets.ROLES}
    note(
        opened,
        f"Round {number} is open for {counts['custodian']} custodians and "
        f"{counts['validator']} validators.",
        now,
    )
    if opened.shares_rows:
        note(opened, "Custodians share rows to train on, by consent that each signs.", now)
        note(opened, begin.why, now)
    opened.save(force_insert=True)
    Member.objects.bulk_create(
        [Member(round=opened, party=p.party, role=p.role, key=p.public_key) for p in people]
    )
    changed(f"subdao:{dao.id}")
    concerns(p.party.id for p in people)
    log.append(
        "training.round_opened",
        {
            "round": str(opened.id),
            "dao": dao.party.pid,
            "number": number,
            "roster": opened.roster_hash,
            "members": {p.party.pid: p.role for p in people},
            "nodes": opened.nodes,
            "circuits_hash": opened.circuits_hash,
            "training": opened.training,
            "start": opened.start.model if opened.start else None,
            **jobs.engine_named({"engine": opened.engine}),
            **privacy_named(opened),
            **access_named(opened),
        },
        now=now,
    )
    emit(RoundOpened(round_id=str(opened.id), dao_id=str(dao.id)), now=now)
    return opened


def why_not(dao: Dao) -> str | None:
    """Why no round can be opened now, or None."""
    if Round.objects.filter(dao=dao, phase__in=OPEN_PHASES).exists():
        return "A round is open already."
    if ModelVersion.objects.filter(dao=dao, status=ModelVersion.Status.PROPOSED).exists():
        return "A model version is still being voted on."
    people = participants_roster(dao)
    for role, least in minima(dao):
        have = sum(person.role == role for person in people)
        if have < least:
            return f"The roster has {have} {role}s, at least {least} are needed."
    have = sum(person.role == "custodian" for person in people)
    if dao.params["scoring"] == "shapley" and have > SHAPLEY_MAX:
        return (
            f"Shapley values are computed for {SHAPLEY_MAX} custodians at most, the roster "
            f"has {have}; vote for another scoring (subdaos.set_scoring)."
        )
    size = weights_of(class_of(dao.params), dao.params["schema"]["features"], dao.params)
    if have > (most := ALL_UPDATES_MAX // size):
        return f"Of {size} weights {most} custodians' are computed at most, the roster has {have}."
    engine, least = engine_of(dao), int(dao.params.get("n", tickets.TRIO))
    if engine != tickets.RING or least > tickets.TRIO:
        there = node_count()
        if there < least:
            return f"Its shares are for {least} nodes at least, and there are {there}."
        if reason := _no_engine(engine, there):
            return reason
    return why_no_round(dao)


def _no_engine(engine: str, nodes: int) -> str | None:
    """Why these nodes can't compute so, or None."""
    try:
        tickets.check_engine(engine, nodes)
    except tickets.TicketError as error:
        return f"{error.text} Vote for another engine (subdaos.set_engine)."
    return None


def privacy_named(held: Round) -> dict[str, Any]:
    """What a round's leaves say of its noise."""
    return {"privacy": held.privacy} if held.privacy else {}


def minima(dao: Dao) -> tuple[tuple[str, int], ...]:
    """(role, least number of members) that a round of this SubDAO needs."""
    return (
        ("custodian", max(int(dao.params["min_custodians"]), tickets.MIN_CUSTODIANS)),
        ("validator", max(int(dao.params["min_validators"]), 1)),
    )


# Going on


def round_ticket(held: Round, *, stage: str | None = None) -> dict[str, Any]:
    """What tickets of the present stage, or of this one, must carry."""
    numbers = numbers_of(held.dao.params["schema"]["features"])
    ticket = stage_ticket(
        stage=stage or held.stage,
        round_id=str(held.id),
        roster=held.roster,
        roster_hash=held.roster_hash,
        nodes=held.nodes,
        circuits_hash=held.circuits_hash,
        features=held.features,
        strata=len(held.strata),
        rows=held.rows,
        resolution=held.resolution,
        scoring=held.scoring,
        engine=held.engine,
        model_class=held.model_class,
        extras=held.extras,
        privacy=held.privacy,
        schedule=held.schedule,
        stakes=held.stakes,
        model=held.start.model if held.start else None,
        normalisation=held.normalisation,
        numbers=len(numbers),
        limits=limits_of(numbers),
        access=demand_of(held),
    )
    return {**ticket, "expires_at": unix_ms(held.expires_at) // 1000}


def updates_if_ready(held: Round, now: datetime) -> None:
    """Ask for shares once the normalisation is known and all have said how many rows they bring."""
    if held.phase != Phase.NORMALISING or held.normalisation is None:
        return
    waiting = [
        member["name"]
        for member in held.roster["members"]
        if (member["role"] == "validator" or held.shares_rows) and member["key"] not in held.rows
    ]
    if waiting:
        note(held, f"Waiting for the number of rows of {', '.join(waiting)}.", now)
        return
    phase_to(held, Phase.UPDATES)
    awaits_members(held, now)
    do = "share rows" if held.shares_rows else "train"
    note(held, f"Mean and variance are known; custodians {do}, validators share holdouts.", now)


def start_if_makers_stay(held: Round, now: datetime) -> None:
    """A maker that has left takes its model out of reach: the steps begin at zero instead, still
    under the normalisation that was kept. Inner writer, under the round's lock."""
    if held.start is None:
        return
    missing = makers_missing(held.start.round, {m["key"] for m in held.roster["members"]})
    if missing:
        version, held.start = held.start.number, None
        names = ", ".join(missing)
        note(held, f"Training starts from zero: {names} helped to make version {version}.", now)


def rows_consent(held: Round, rows: int, stays_until: int | None = None) -> dict[str, Any]:
    """What a custodian of this round signs before it shares so many rows, and lets them stay."""
    model = CLASSES[held.model_class]
    return consent_to(
        round_id=str(held.id),
        circuits=model.steps_ids,
        nodes=held.nodes,
        rows=rows,
        columns=held.features + model.targets(held.extras),
        expires_at=unix_ms(held.expires_at) // 1000,
        stays_until=stays_until,
    )


def keep_until(held: Round) -> int | None:
    """Until when what is shared now may stay with the nodes for further rounds, in Unix seconds:
    the end of the epoch, where the round can't outlast it. While no epoch runs, which payments
    begin, it is as long as one that began with the round."""
    epoch = current_epoch(held.dao)
    ends_at = held.opened_at + timedelta(seconds=int(held.dao.params["epoch_s"]))
    if epoch is not None and epoch.ends_at > held.opened_at:
        ends_at = epoch.ends_at
    return unix_ms(ends_at) // 1000 if ends_at > held.expires_at else None


def rows_most(held: Round, role: str) -> int:
    """How many rows each member of this role may bring: an equal part of what the circuit takes,
    or whoever is first could leave no room for the others."""
    most = ROWS_MAX
    if role == "custodian":
        params = round_ticket(held, stage="round")["params"]
        layers = CLASSES[held.model_class].layers(params)[1:]
        widest = max((into for into, _ in layers), default=1)
        most = min(SITE_ROWS_MAX, ALIVE_MAX // widest)
    return most // max(1, len(tickets.members_with_role(held.roster, role)))


def round_fail(held: Round, *, reason: str, now: datetime) -> None:
    """End a round without a result. Inner writer, under the round's lock."""
    round_close(held, Phase.FAILED, reason=reason, now=now)
    spent = privacy_named(held) if made_a_model(held) else {}
    leaf = {"round": str(held.id), "dao": held.dao.party.pid, **spent}
    log.append("training.round_failed", leaf, now=now)


def round_close(held: Round, phase: Phase, *, reason: str, now: datetime) -> None:
    """The end of a round: sealed uploads are dropped, the nodes keep what they need.

    What was on its way to the nodes is not sent any more, and open jobs are given up.
    """
    phase_to(held, phase)
    held.closed_at, held.reason = now, reason
    if reason:
        note(held, reason, now)
    held.submissions.exclude(state__in=ENDED).update(state=Submission.State.REFUSED, reason=OVER)
    held.submissions.update(sealed=None)
    SharePart.objects.filter(submission__round=held).delete()
    for job_id in (held.moments_job_id, held.round_job_id):
        if job_id is not None:
            job_abandoned(job_id, code="round_over", reason=reason or OVER, now=now)
    emit(RoundClosed(round_id=str(held.id), dao_id=str(held.dao_id)), now=now)


def awaits_members(held: Round, now: datetime) -> None:
    """From now on this phase waits for its members, for half of the time that the round has."""
    held.due_at = now + (held.expires_at - now) / 2


def phase_to(held: Round, phase: Phase) -> None:
    """Move by the TRANSITIONS table; waits for no member there (yet). Raises DomainError for any
    other step."""
    if phase not in TRANSITIONS[held.phase]:
        raise Conflict("wrong_phase", f"A round cannot go from {held.phase} to {phase}.")
    held.phase, held.due_at = phase, None
    changed(f"round:{held.id}", f"subdao:{held.dao_id}")
    concerns(held.members.values_list("party_id", flat=True)[:TOLD_MAX])


# Small parts


def lock_round(round_id: Any) -> Round:
    held = (
        Round.objects.select_for_update(of=("self",))
        .select_related("dao__party", "start__round")
        .filter(pk=round_id)
        .first()
    )
    if held is None:
        raise NotFound("round_not_found", "There is no such round.")
    return held


def note(held: Round, text: str, now: datetime) -> None:
    held.progress = [*held.progress, {"phase": held.phase, "at": now.isoformat(), "text": text}]
    changed(f"round:{held.id}")


def note_once(held: Round, text: str, now: datetime) -> None:
    """A note that repeats nothing: a phase says the same thing once, however often it happens."""
    if not any((e["phase"], e["text"]) == (held.phase, text) for e in held.progress):
        note(held, text, now)
