"""A round's jobs, from the claim to the version that is voted on.

An edge: it talks to the nodes between transactions, so it reads the clock itself. Each step is
harmless when repeated; whoever dies in between is followed by the sweep.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Any

from apps.accounts.models import Party
from apps.compute import control
from apps.compute import services as compute
from apps.compute.models import Job, JobState
from apps.core.clock import now as clock_now
from apps.core.events import emit
from apps.core.live import changed
from apps.core.sweeping import each
from apps.core.transactions import durable
from apps.core.wake import wake
from apps.governance.services import propose_by_system
from apps.protocol import decay
from apps.protocol.circuits import CLASSES, query_hash
from apps.protocol.contribution import without_copies
from apps.protocol.evidence import evidence_of
from apps.protocol.jobs import STAGED_FOR_S
from apps.protocol.normalise import public_constants
from apps.protocol.tally import State
from apps.subdaos.selectors import points_at
from apps.subdaos.services import dao_lock, sbgt_set
from apps.training.events import VersionRejected
from apps.training.models import (
    Member,
    ModelVersion,
    Phase,
    Round,
    Score,
    ScoringWork,
    Submission,
)
from apps.training.services import (
    awaits_members,
    lock_round,
    note,
    note_once,
    privacy_named,
    round_close,
    round_fail,
    updates_if_ready,
)
from apps.training.submissions import shares_bring
from apps.wallets import log

logger = logging.getLogger(__name__)
GONE = (
    "A node is gone and has not kept its part of the result: {text} No version came of this round; "
    "what the sites sent is not used, and nobody is paid or charged for it."
)
AWAY = "Waits for {names}: no answer from there."
LEFT = "The worker that asked the nodes is gone; another one asks them for the same answer."
LOST = "unknown_job"  # a node's answer to a commit of what it does not have


def round_run(*, round_id: Any) -> bool:
    """Run the round's due job on the nodes and record what it opened; False when none was due."""
    if not _nodes_answer(round_id):
        return False
    claimed = _claim(round_id)
    if claimed is None:
        return False
    job, ticket_ids, missed = claimed
    try:
        with compute.job_kept(job):
            if job.state == JobState.RUNNING:
                shares_bring(missed)
                outcome = compute.job_dispatch(job, ticket_ids=ticket_ids)
                with durable():
                    if not compute.job_answered(job, outcome, commits=True, now=clock_now()):
                        return False
            compute.job_commit(job)
    except control.ControlError as error:
        _not_now(round_id, job, error)
        return False
    _record(round_id, job)
    return True


def _active_job(held: Round) -> Any:
    """Id of the job that this phase waits for."""
    return {
        Phase.NORMALISING: held.moments_job_id,
        Phase.COMPUTING: held.round_job_id,
    }.get(held.phase)


def _nodes_answer(round_id: Any) -> bool:
    """False when a repeated job would find a node away: the round says which, and it is looked at
    again soon.

    Not for ever: a round that is out of time makes its last attempt, and fails by it.
    """
    job = Job.objects.filter(pk=_active_job(Round.objects.get(pk=round_id))).first()
    if job is None or job.expires_at <= clock_now():
        return True
    away = compute.job_awaits(job)
    if not away:
        return True
    with durable():
        held = lock_round(round_id)
        if job.state != JobState.COMMITTING:  # that has said so, and until when
            note_once(held, AWAY.format(names=", ".join(away)), clock_now())
            held.save(update_fields=["progress"])
        later = compute.job_deferred(job.pk, now=clock_now())
        if later is not None:
            wake("flai.run_round", round_id, eta=later.due_at)
    return False


def _claim(round_id: Any) -> tuple[Job, list[str], list[Submission]] | None:
    """(job, ticket ids, shares that a node may lack) of the due job."""
    now = clock_now()
    with durable():
        held = lock_round(round_id)
        job_id = _active_job(held)
        left = Job.objects.filter(pk=job_id, state=JobState.RUNNING).exists()
        job = compute.job_claim(job_id, now=now) if job_id else None
        if job is None:
            return None
        submitted = list(held.submissions.filter(stage=held.stage).select_related("round"))
        ids = {s.share_id: s.ticket_id for s in submitted}
        listed = [ids[share] for slot in job.descriptor["inputs"].values() for share in slot]
        if left:
            note(held, LEFT, now)
        elif job.attempt > 1 and job.state == JobState.RUNNING:
            note(held, f"The nodes try again (attempt {job.attempt}).", now)
        held.save(update_fields=["progress"])
        wanted = [s for s in submitted if s.ticket_id in listed and s.sealed is not None]
        # a node may have lost what it had signed for: from the second attempt on it is asked
        missed = [s for s in wanted if job.attempt > 1 or len(s.acks) < len(held.nodes)]
    return job, listed, missed


def _not_now(round_id: Any, job: Job, error: control.ControlError) -> None:
    """Try again later, unless a node refused or the round is out of time.

    A result that all nodes have signed for is given up when a node has lost its part of it and the
    round is over: the node's operator may still bring its store back until then. Or when a node is
    away for as long as the others keep what is staged: nobody could complete the result after that.
    """
    now = clock_now()
    with durable():
        held = lock_round(round_id)
        late, retryable = now >= job.expires_at, isinstance(error, control.Retryable)
        if job.state == JobState.COMMITTING:
            kept_until = job.expires_at + timedelta(seconds=STAGED_FOR_S)
            again = now < kept_until and not (late and error.code == LOST)
            if not again and retryable:
                error = control.Final("node_gone", GONE.format(text=error.text))
        else:
            again = retryable and not late
        if again:
            if compute.job_postponed(job, error, now=now) is not None:
                note_once(held, _why_again(job, error), now)
                if retryable and not late:
                    wake("flai.run_round", held.id, eta=job.due_at)
        elif compute.job_failed(job, code=error.code, reason=error.text, now=now):
            round_fail(held, reason=error.text, now=now)
        held.save()


def _why_again(job: Job, error: control.ControlError) -> str:
    """What the round page says while the nodes are asked once more, and until when they are."""
    if not isinstance(error, control.Retryable):
        return f"A node does not keep the result: {error.text}"
    if job.state != JobState.COMMITTING:
        return f"{error.text} It will be tried again."
    until = job.expires_at + timedelta(seconds=STAGED_FOR_S)
    return (
        f"All nodes have signed the result, but one is away before it kept its part: {error.text} "
        f"It is asked again until {until:%Y-%m-%d %H:%M} UTC; then the round fails."
    )


def _record(round_id: Any, job: Job) -> None:
    now = clock_now()
    with durable():
        held = lock_round(round_id)
        if not compute.job_done(job, now=now):
            return
        if held.phase == Phase.NORMALISING:
            _record_moments(held, job, now)
        elif held.phase == Phase.COMPUTING:
            _record_round(held, job, now)
        held.save()


def _record_moments(held: Round, job: Job, now: datetime) -> None:
    sums = [int(value) for value in job.openings["sums"]]
    try:
        held.normalisation = public_constants(sums, held.features)
    except ValueError as error:
        reason = f"The sums give no normalisation: {error}. Which site's are wrong, nobody can see."
        round_fail(held, reason=reason, now=now)
        return
    log.append(
        "training.normalised",
        {
            "round": str(held.id),
            "job": job.job_id,
            "receipts": _receipts(job),
            "sums": job.openings["sums"],
        },
        now=now,
    )
    note(held, "The nodes have opened the sums over all sites; no site's own are known.", now)
    awaits_members(held, now)
    updates_if_ready(held, now)


def _record_round(held: Round, job: Job, now: datetime) -> None:
    members = list(Member.objects.filter(round=held, left_phase="").select_related("party"))
    custodians = [m for m in members if m.role == "custodian"]
    validators = [m for m in members if m.role == "validator"]
    phi = dict(zip([m.party_id for m in custodians], _phi(held, job, custodians, now), strict=True))
    Score.objects.bulk_create(
        [Score(round=held, party_id=party, phi_milli=value) for party, value in phi.items()]
    )
    pids = {m.party_id: m.party.pid for m in members}
    leaf = {
        "round": str(held.id),
        "dao": held.dao.party.pid,
        "job": job.job_id,
        "receipts": _receipts(job),
        "phi_milli": {pids[party]: value for party, value in phi.items()},
        "model": job.model or None,
        **privacy_named(held),
    }
    if job.openings["void"]:
        log.append("training.round_void", leaf, now=now)
        useful = sum(value > 0 for value in phi.values())
        round_close(
            held,
            Phase.VOID,
            reason=(
                f"Only {useful} site{'s'[: useful != 1]} helped on the validators' data; a model "
                "needs three, so that it is no single site's own. No update was made."
            ),
            now=now,
        )
        return
    ScoringWork.objects.bulk_create(
        [
            ScoringWork(round=held, party=validator.party, units=decay.WORK_UNITS_A_ROUND)
            for validator in validators
        ]
    )
    _points(held, members, phi, now)
    version = _version(held, job, now)
    log.append(
        "training.round_done",
        {
            **leaf,
            "version": version.number,
            # What a vote on it is of: its number, model and evidence (`AcceptVersion`).
            "acceptance": version.proposal.payload_hash,
            "work": {v.party.pid: decay.WORK_UNITS_A_ROUND for v in validators},
            "evidence": {k: job.openings[k] for k in sorted(job.openings)},
        },
        now=now,
    )
    round_close(held, Phase.DONE, reason="", now=now)
    note(held, f"Version {version.number} is made; those who made it vote on it.", now)


def _phi(held: Round, job: Job, custodians: list[Member], now: datetime) -> list[int]:
    """What the nodes opened, with 0 for each copy of an update, or of rows, committed earlier."""
    opened: list[int] = job.openings["phi_milli"]
    pairs = job.openings.get("copies", [])
    if not pairs:
        return opened
    what = "rows" if held.shares_rows else "update"
    shares = job.descriptor["inputs"][what]
    tickets = dict(
        held.submissions.filter(share_id__in=shares).values_list("share_id", "ticket_id")
    )
    when = log.places("training.share_received", tickets.values())
    phi = without_copies(opened, pairs, [when[tickets[share]] for share in shares])
    for i, j in pairs:
        one, other = custodians[i].party.name, custodians[j].party.name
        note(held, f"{one} and {other} sent the same {what}; the later one scores 0.", now)
    return phi


def _receipts(job: Job) -> list[str]:
    return sorted(receipt.signature for receipt in job.receipts.all())


def _points(held: Round, members: list[Member], phi: dict[Any, int], now: datetime) -> None:
    """π′ = π + φ for custodians, π + 1 a round for validators, λ·π for holders who sat it out.

    Paper §6.1 and eq. 12; φ and scoring work in points (1 point = 1 000 000 micro-points).
    """
    earned = {
        m.party_id: decay.points_of_phi(phi[m.party_id])
        if m.role == "custodian"
        else decay.WORK_UNITS_A_ROUND * decay.POINT_MICRO
        for m in members
    }
    dao_lock(held.dao)
    # What was changed while we waited for the lock is later than `now`, and counts.
    points = points_at(held.dao, clock_now())
    parties = Party.objects.in_bulk(sorted({*points, *earned}))
    for party_id, party in parties.items():
        active = party_id in earned
        before = points.get(party_id, 0)
        after = decay.next_points(
            before,
            earned_micro=earned.get(party_id, 0),
            active=active,
            decay_ppm=int(held.dao.params["decay_ppm"]),
        )
        if after != before:
            sbgt_set(
                dao=held.dao,
                party=party,
                points_micro=after,
                reason="round" if active else "decay",
                ref=str(held.id),
                now=now,
            )


def version_reject(*, version_id: Any, now: datetime) -> bool:
    """The vote did not carry: the version is not served. False when that was decided before."""
    with durable():
        version = (
            ModelVersion.objects.select_for_update(of=("self",))
            .select_related("dao__party")
            .filter(pk=version_id)
            .first()
        )
        if version is None or version.status != ModelVersion.Status.PROPOSED:
            return False
        version.status, version.decided_at = ModelVersion.Status.REJECTED, now
        version.save(update_fields=["status", "decided_at"])
        changed(f"subdao:{version.dao_id}")
        log.append(
            "training.version_rejected",
            {"dao": version.dao.party.pid, "version": version.number, "model": version.model},
            now=now,
        )
        emit(VersionRejected(version_id=str(version.id), dao_id=str(version.dao_id)), now=now)
    return True


def versions_reject_defeated(*, now: datetime, limit: int = 100) -> int:
    """Versions whose vote is over without success, in case an event went missing."""
    ended = (State.DEFEATED, State.EXPIRED, State.CANCELED)
    open_votes = ModelVersion.objects.filter(
        status=ModelVersion.Status.PROPOSED, proposal__isnull=False
    ).select_related("proposal")
    lost = [v.id for v in open_votes if v.proposal.state(now) in ended]
    return each(
        ModelVersion.objects.filter(id__in=lost).order_by("created_at"),
        lambda version_id: version_reject(version_id=version_id, now=now),
        now=now,
        limit=limit,
        log=logger,
        what="rejection of version",
    )


def _version(held: Round, job: Job, now: datetime) -> ModelVersion:
    last = ModelVersion.objects.filter(dao=held.dao).order_by("-number").first()
    circuit = CLASSES[held.model_class].infer_id(held.resolution)
    version = ModelVersion.objects.create(
        dao=held.dao,
        number=1 + (last.number if last else 0),
        round=held,
        model=job.model,
        asked_by=circuit,
        asked_hash=query_hash(circuit, {"features": held.features, **held.extras}),
        evidence=evidence_of(
            job.openings,
            strata=held.strata,
            gates=held.dao.params["gates"],
            season=(held.dao.params["label"].get("series") or {}).get("season") or 0,
        ),
        created_at=now,
    )
    version.proposal = propose_by_system(
        dao=held.dao,
        kind="training.accept_version",
        payload={"version": str(version.id)},
        title=f"Accept version {version.number}",
        description=f"Round {held.number} made a model. The evidence says how good it is.",
        ref=str(version.id),
        now=now,
    )
    version.save(update_fields=["proposal"])
    return version
