"""Nodes and jobs: the inner writers that higher apps put together around the nodes' answers.

A job goes claim → control.run_job → answered → (control.commit →) done. Claiming and recording are
transactions; between them, none is open while nodes compute. A worker that dies leaves a lease
that runs out. The next claim of a query is a new attempt; that of a round's job asks for the same
one, whose nodes give the answer that they have or are at; when the receipts were stored already, it
is the same commit again.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import DatabaseError, connection

from apps.accounts.models import Party
from apps.compute import control, groups
from apps.compute.events import NodesSucceeded
from apps.compute.models import TRANSITIONS, Job, JobState, Node, Receipt
from apps.compute.selectors import members_by_fingerprint
from apps.core import clock
from apps.core.errors import DomainError
from apps.core.events import emit
from apps.core.live import changed
from apps.core.transactions import durable, require_transaction
from apps.protocol import identity, jobs, successions, wire
from apps.wallets import log

logger = logging.getLogger(__name__)
BACKOFF_S = 0.25
BACKOFF_S_MAX = 5.0
LEASE_MARGIN_S = 20.0
KEPT_S = 10.0
PROBE_S = 0.5
SUCCEEDED = "compute.node_succeeded"


def nodes_sync() -> list[Node]:
    """Take over the node set that the operators publish (settings.NODES_FILE).

    Each descriptor must be signed by the node itself. An operator's claim stays with its node.
    Raises DomainError where the file or a descriptor is not acceptable.
    """
    path = Path(settings.NODES_FILE)
    try:
        published = json.loads(path.read_text())["nodes"]
    except (OSError, ValueError, KeyError, TypeError):
        raise DomainError("no_nodes", f"No node list at {path}.", status=503) from None
    try:
        prints = [jobs.check_node(descriptor) for descriptor in published]
        for descriptor in published:
            identity.certificate_der(descriptor["tls_cert"], sign_key=descriptor["sign_key"])
    except jobs.JobError as error:
        raise DomainError(error.code, error.text) from None
    except identity.BadCertificate as error:
        raise DomainError("bad_node_descriptor", f"A node's certificate: {error}.") from None
    with durable():
        active = list(Node.objects.filter(active=True).values_list("fingerprint", flat=True))
        known = {n.fingerprint: n for n in Node.objects.select_for_update().order_by("id")}
        for node in known.values():
            if node.active and node.fingerprint not in prints:
                node.active = False
                node.save(update_fields=["active"])
        for fingerprint, descriptor in zip(prints, published, strict=True):
            facts = {
                "name": descriptor["name"],
                "index": descriptor["index"],
                "control_url": "https://" + descriptor["control"],
                "descriptor": descriptor,
                "active": True,
            }
            node = known.get(fingerprint)
            if node is None or any(getattr(node, k) != v for k, v in facts.items()):
                Node.objects.update_or_create(fingerprint=fingerprint, defaults=facts)
        followed = successions.successions_before(prints, published)
        for signed in reversed(followed):
            _succession_told(signed)
        if set(prints) != set(active):
            for signed in followed:
                old = signed["statement"]["nodes"]
                emit(NodesSucceeded(old=old, new=prints), now=clock.now())
    return list(Node.objects.filter(active=True).order_by("index"))


def _succession_told(signed: dict[str, Any]) -> None:
    """Its leaf, once: whoever audits the log follows the set by what was signed."""
    name = wire.digest(successions.SUCCESSION_DOMAIN, signed["statement"])
    if log.leaf_for(SUCCEEDED, name) is None:
        log.append(SUCCEEDED, signed, now=clock.now(), ref=name)


def nodes_published_at() -> float | None:
    """When the operators' list was last written; None while there is none."""
    try:
        return Path(settings.NODES_FILE).stat().st_mtime
    except OSError:
        return None


def node_claim(*, fingerprint: str, party: Party, signature: str, now: datetime) -> Node:
    """Its operator claims a node: the node's own key signs {"pid", "node"}.

    Who runs a node is paid for the jobs it serves from then on. Raises DomainError.
    """
    with durable():
        node = Node.objects.select_for_update().filter(fingerprint=fingerprint).first()
        if node is None:
            raise DomainError("unknown_node", "No node has this fingerprint.", status=404)
        claim = {"pid": party.pid, "node": fingerprint}
        try:
            wire.verify(node.descriptor["sign_key"], jobs.NODE_CLAIM_DOMAIN, claim, signature)
        except wire.BadSignature:
            raise DomainError(
                "bad_signature", "The claim is not signed by the node's own key.", status=403
            ) from None
        if node.operator_id not in (None, party.id):
            raise DomainError("already_claimed", "Somebody else runs this node.", status=409)
        if node.operator_id is None:
            node.operator = party
            node.save(update_fields=["operator"])
            keys = {name: node.descriptor[name] for name in ("sign_key", "hpke_key")}
            said = {"node": fingerprint, "operator": party.pid, **keys, "signature": signature}
            log.append("compute.node_claimed", said, now=now)
    return node


def job_create(**facts: Any) -> Job:
    """A queued job, as `job_new` makes it. Inner writer: call it inside a transaction."""
    require_transaction("compute.job_create")
    job = job_new(**facts)
    job.save(force_insert=True)
    changed("nodes")
    return job


def job_new(
    *,
    kind: str,
    circuit: str,
    circuits_hash: str,
    engine: str,
    nodes: Sequence[str],
    scope: str,
    roster: dict[str, Any] | None,
    inputs: dict[str, list[str]],
    model: str | None,
    deadline_s: int,
    expires_at: datetime,
    now: datetime,
) -> Job:
    """A queued job for these nodes, not written yet."""
    job_id = secrets.token_hex(16)
    descriptor = {
        "v": 1,
        "job_id": job_id,
        "circuit": circuit,
        "circuits_hash": circuits_hash,
        "engine": engine,
        "nodes": list(nodes),
        "scope": scope,
        "roster": roster,
        "inputs": inputs,
        "model": model,
        "deadline_s": deadline_s,
    }
    jobs.check_job({**descriptor, **groups.group_any(descriptor), "attempt": 1})
    return Job(
        created_at=now,
        job_id=job_id,
        kind=kind,
        circuit=circuit,
        scope=scope,
        descriptor=descriptor,
        due_at=now,
        expires_at=expires_at,
    )


def job_claim(job_id: Any, *, now: datetime) -> Job | None:
    """Take a job for one worker, who keeps it by `job_kept`; None when it is not due or another
    worker has it.

    A fresh run is a new attempt; one that its worker left keeps its own, as a commit does. Inner
    writer.
    """
    return next(iter(jobs_claim([job_id], kept=True, now=now)), None)


def jobs_claim(job_ids: Sequence[Any], *, kept: bool = False, now: datetime) -> list[Job]:
    """Take those of these jobs that are due and that no other worker has: for as long as nodes may
    take, or (`kept`) as long as `job_kept` says so. Inner writer."""
    found = Job.objects.select_for_update(skip_locked=True).filter(pk__in=job_ids).order_by("id")
    claimed = [job for job in found if _due(job, now)]
    for job in claimed:
        left = kept and job.state == JobState.RUNNING
        if job.state != JobState.COMMITTING:
            _to(job, JobState.RUNNING)
            job.attempt += not left
        lease_s = KEPT_S if kept else job.descriptor["deadline_s"] + LEASE_MARGIN_S
        job.lease_until = now + timedelta(seconds=lease_s)
    if claimed:
        Job.objects.bulk_update(claimed, ["state", "attempt", "lease_until"])
    return claimed


@contextmanager
def job_kept(job: Job) -> Iterator[None]:
    """This worker has the claimed job until the end of the block, or KEPT_S after its last word.

    So one that dies is followed soon, however long nodes may compute. Who follows too soon does no
    harm: nodes compute an attempt once, and the first to record it wins.
    """
    over = threading.Event()

    def keep() -> None:
        try:
            while not over.wait(KEPT_S / 4):
                mine = Job.objects.filter(pk=job.pk, attempt=job.attempt, lease_until__isnull=False)
                mine.update(lease_until=clock.now() + timedelta(seconds=KEPT_S))
        except DatabaseError:  # whoever follows sees to it
            logger.warning("job %s is not kept any more", job.job_id)
        finally:
            connection.close()

    thread = threading.Thread(target=keep, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@dataclass(frozen=True)
class Outcome:
    """What the nodes said: openings, receipts, and for a query the sealed output of each node."""

    answers: list[control.Answer]

    @property
    def openings(self) -> dict[str, Any]:
        return self.answers[0].openings

    @property
    def model(self) -> str | None:
        return self.answers[0].receipt["model"]


def job_answers(job: Job) -> bool:
    """Whether a job that failed before can be tried again, as `job_awaits`."""
    return not job_awaits(job)


def job_awaits(job: Job) -> list[str]:
    """The names of the nodes without which a job that failed before can't be tried again: do all
    three answer, or as many of more as its engine takes, and have its model? If so none.

    Nodes accept few attempts of one job; a node that is away shall not use them up. No transaction
    may be open.
    """
    if job.attempt == 0:
        return []
    members = members_by_fingerprint(job.descriptor["nodes"])
    able = groups.able_of(members, control.health(members), job.descriptor["model"])
    if groups.enough(able, job.descriptor["engine"]):
        return []
    return [member.name for i, member in enumerate(members) if i not in able]


def job_deferred(job_id: Any, *, now: datetime) -> Job | None:
    """Look again later at a queued job whose nodes do not all answer. Inner writer."""
    require_transaction("compute.job_deferred")
    job = Job.objects.select_for_update().get(pk=job_id)
    if job.state != JobState.QUEUED or job.due_at > now:
        return None
    job.due_at = now + timedelta(seconds=PROBE_S)
    job.save(update_fields=["due_at"])
    return job


def job_dispatch(
    job: Job, *, ticket_ids: Sequence[str], uploads: Sequence[dict[str, Any]] = ()
) -> Outcome:
    """Have the nodes compute a claimed job. No transaction is open.

    Raises: control.Retryable, control.Final.
    """
    everyone = members_by_fingerprint(job.descriptor["nodes"])
    job.descriptor = {**job.descriptor, **groups.group_choose(job, everyone)}
    descriptor = {**job.descriptor, "attempt": job.attempt}
    members = [everyone[i] for i in jobs.members_of(descriptor)]
    return Outcome(control.run_job(members, descriptor, ticket_ids=ticket_ids, uploads=uploads))


def jobs_dispatch(
    asked: Sequence[tuple[Job, str, dict[str, Any]]],
) -> list[Outcome | control.ControlError]:
    """Have the nodes compute claimed queries of one model together: (job, ticket id, upload) each.

    No transaction is open. Raises: control.Retryable, control.Final, for all of them.
    """
    first = max((job for job, _, _ in asked), key=lambda job: job.attempt)
    everyone = members_by_fingerprint(first.descriptor["nodes"])
    group = groups.group_choose(first, everyone)
    for job, _, _ in asked:
        job.descriptor = {**job.descriptor, **group}
    members = [everyone[i] for i in jobs.members_of(first.descriptor)]
    said = control.run_bundle(
        members,
        [
            control.Asked({**job.descriptor, "attempt": job.attempt}, ticket_id, upload)
            for job, ticket_id, upload in asked
        ],
    )
    return [one if isinstance(one, control.ControlError) else Outcome(one) for one in said]


def job_answered(job: Job, outcome: Outcome, *, commits: bool, now: datetime) -> bool:
    """Store the receipts; the job is done, or (`commits`) its result is next made permanent.

    Returns False when another worker recorded this job meanwhile: the caller changes nothing then.
    Inner writer.
    """
    if not jobs_answered([(job, outcome)], commits=commits, now=now):
        return False
    job.state = JobState.COMMITTING if commits else JobState.DONE
    job.openings, job.model = outcome.openings, outcome.model or ""
    if not commits:
        job.done_at, job.lease_until = now, None
    return True


def jobs_answered(
    answered: Sequence[tuple[Job, Outcome]], *, commits: bool, now: datetime
) -> set[Any]:
    """`job_answered` for many, by one statement; the keys of those that were recorded.

    The jobs in hand stay as they are: what is written here may still be rolled back.
    """
    require_transaction("compute: recording jobs")
    state = JobState.COMMITTING if commits else JobState.DONE
    for job, _ in answered:
        _check_step(job, state)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT compute_answered(%s::jsonb, %s, %s::timestamptz)",
            [json.dumps(answers_json(answered)), str(state), now],
        )
        recorded = set(cursor.fetchone()[0])
    if recorded:
        changed("nodes")
    return recorded


def answers_json(answered: Sequence[tuple[Job, Outcome]]) -> list[dict[str, Any]]:
    """What the SQL function `compute_answered` takes (migration 0008), job by job."""
    return [
        {
            "job": str(job.pk),
            "state": str(job.state),
            "attempt": job.attempt,
            "descriptor": job.descriptor,
            "openings": outcome.openings,
            "model": outcome.model or "",
            "receipts": [
                {
                    "node": answer.member.fingerprint,
                    "body": answer.receipt,
                    "signature": answer.signature,
                }
                for answer in outcome.answers
            ],
        }
        for job, outcome in answered
    ]


def job_commit(job: Job) -> None:
    """Have the nodes keep the result of a job whose receipts are stored. No transaction is open.

    Raises: control.Retryable, control.Final.
    """
    everyone = members_by_fingerprint(job.descriptor["nodes"])
    members = [everyone[i] for i in jobs.members_of(job.descriptor)]
    model, committed = control.commit(members, job.job_id, _signed(job))
    if (model or "") != job.model:
        raise control.Final("receipts_disagree", "The nodes committed another model.")
    job.behind = [m.fingerprint for m in everyone if m.fingerprint not in committed]


def _signed(job: Job) -> list[dict[str, Any]]:
    """The receipts of a job as its nodes want to see them."""
    rows = Receipt.objects.filter(job=job).order_by("node__index")
    return [{"receipt": row.body, "signature": row.signature} for row in rows]


def jobs_catch_up(*, now: datetime, limit: int = 20) -> int:
    """Show nodes that are back what the others committed meanwhile; returns how many took it over.

    Each deletes its inputs then. Who gets no share of a model in Shamir shares now, as too few
    others are there to tell it, stays behind and is shown it again. An edge: it talks to the nodes.
    """
    caught_up = 0
    behind = Job.objects.filter(state=JobState.DONE).exclude(behind=[])
    for job in behind.order_by("done_at")[:limit]:
        waiting = members_by_fingerprint(job.behind)
        for member, up in zip(waiting, control.there(waiting, ask=True), strict=True):
            if not up:
                continue
            signed = _signed(job)
            descriptor = {**job.descriptor, "attempt": signed[0]["receipt"]["attempt"]}
            try:
                if not control.adopt(member, descriptor, signed, job.model or None):
                    continue
            except control.ControlError as error:
                logger.warning("%s is behind with a result: %s", member.name, error.code)
                continue
            with durable():
                held = Job.objects.select_for_update().get(pk=job.pk)
                held.behind = [one for one in held.behind if one != member.fingerprint]
                held.save(update_fields=["behind"])
            caught_up += 1
    return caught_up


def job_done(job: Job, *, now: datetime) -> bool:
    """The nodes keep the result. Returns False when another worker recorded it. Inner writer."""
    held = _relock(job)
    if held is None:
        return False
    _to(held, JobState.DONE)
    held.done_at, held.lease_until, held.behind = now, None, job.behind
    held.save(update_fields=["state", "done_at", "lease_until", "behind"])
    _copy(held, job)
    return True


def job_postponed(job: Job, error: control.ControlError, *, now: datetime) -> float | None:
    """Run it again later: 0.25 s, doubling to 5 s; returns the wait, None when recorded elsewhere.

    A job whose receipts are stored stays with its commit. Inner writer.
    """
    held = _relock(job)
    if held is None:
        return None
    wait_s = min(BACKOFF_S * 2 ** min(held.attempt - 1, 10), BACKOFF_S_MAX)
    held.error_code, held.reason = error.code, error.text
    held.due_at = now + timedelta(seconds=wait_s)
    if held.state == JobState.COMMITTING:
        held.lease_until = held.due_at
    else:
        _to(held, JobState.QUEUED)
        held.lease_until = None
    held.save(update_fields=["state", "error_code", "reason", "due_at", "lease_until"])
    _copy(held, job)
    return wait_s


def job_failed(job: Job, *, code: str, reason: str, now: datetime) -> bool:
    """Give up. Returns False when another worker recorded it. Inner writer."""
    held = _relock(job)
    if held is None:
        return False
    _to(held, JobState.FAILED)
    held.error_code, held.reason = code, reason
    held.done_at, held.lease_until = now, None
    held.save(update_fields=["state", "error_code", "reason", "done_at", "lease_until"])
    _copy(held, job)
    return True


def job_abandoned(job_id: Any, *, code: str, reason: str, now: datetime) -> None:
    """Give up a job that nobody waits for any more, whoever has it at hand. Inner writer."""
    require_transaction("compute.job_abandoned")
    job = Job.objects.select_for_update().get(pk=job_id)
    if job.state not in (JobState.DONE, JobState.FAILED):
        job_failed(job, code=code, reason=reason, now=now)


def _due(job: Job, now: datetime) -> bool:
    if job.state == JobState.QUEUED:
        return job.due_at <= now
    return job.state in (JobState.RUNNING, JobState.COMMITTING) and job.lease_until <= now


def _relock(job: Job) -> Job | None:
    """The row again, if it still is the attempt and state that this worker claimed."""
    require_transaction("compute: recording a job")
    held = Job.objects.select_for_update().get(pk=job.pk)
    return held if (held.state, held.attempt) == (job.state, job.attempt) else None


def _to(job: Job, state: JobState) -> None:
    _check_step(job, state)
    job.state = state
    changed("nodes")


def _check_step(job: Job, state: JobState) -> None:
    if state not in TRANSITIONS[job.state]:
        raise DomainError("wrong_state", f"A {job.state} job cannot become {state}.", status=409)


def _copy(held: Job, job: Job) -> None:
    for name in ("state", "openings", "model", "due_at", "lease_until", "done_at"):
        setattr(job, name, getattr(held, name))
