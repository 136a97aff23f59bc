"""What others may know of nodes and jobs. Reads only."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db.models import Q

from apps.compute.control import Member
from apps.compute.models import Job, JobState, Node, Receipt
from apps.core.errors import DomainError, NotFound
from apps.protocol.tickets import NODE_COUNTS


def node_set() -> list[Node]:
    """The active nodes by index: the set that tickets and jobs name.

    Raises DomainError("no_nodes") while the set is not complete.
    """
    nodes = list(Node.objects.filter(active=True).order_by("index"))
    in_order = [node.index for node in nodes] == list(range(len(nodes)))
    if not in_order or len(nodes) not in NODE_COUNTS:
        raise DomainError("no_nodes", "The node set is not known yet.", status=503)
    return nodes


def members(nodes: list[Node]) -> list[Member]:
    """How control reaches those nodes."""
    return [
        Member(
            name=node.name,
            fingerprint=node.fingerprint,
            sign_key=node.descriptor["sign_key"],
            certificate=node.descriptor["tls_cert"],
            url=node.control_url,
        )
        for node in nodes
    ]


def members_by_fingerprint(fingerprints: list[str]) -> list[Member]:
    """The members that a descriptor names, in its order.

    Raises DomainError("no_nodes") when one of them has left the set.
    """
    known = {node.fingerprint: node for node in Node.objects.filter(fingerprint__in=fingerprints)}
    if not all(fp in known for fp in fingerprints):
        raise DomainError("no_nodes", "A node of this job is not known any more.", status=503)
    return members([known[fp] for fp in fingerprints])


def jobs_due(*, now: datetime, limit: int = 100) -> list[Job]:
    """Jobs that a worker should take now: queued and due, or held by a lease that ran out."""
    waiting = Q(state=JobState.QUEUED, due_at__lte=now)
    abandoned = Q(state__in=[JobState.RUNNING, JobState.COMMITTING], lease_until__lte=now)
    return list(Job.objects.filter(waiting | abandoned).order_by("due_at")[:limit])


def receipts_json(job: Job) -> list[dict[str, Any]]:
    """The nodes' signed receipts, by node index."""
    rows = Receipt.objects.filter(job=job).select_related("node").order_by("node__index")
    return [{"node": r.node.name, "receipt": r.body, "signature": r.signature} for r in rows]


def descriptors_of(job: Job) -> list[dict[str, Any]]:
    """The signed descriptors of a job's nodes by index, also of nodes that have left the set."""
    nodes = Node.objects.filter(fingerprint__in=job.descriptor["nodes"]).order_by("index")
    return [node.descriptor for node in nodes]


def job_json(job: Job | None, *, receipts: bool = True) -> dict[str, Any] | None:
    """A job as the API shows it."""
    if job is None:
        return None
    content: dict[str, Any] = {
        "id": job.job_id,
        "circuit": job.circuit,
        "scope": job.scope,
        "state": job.state,
        "attempt": job.attempt,
        "reason": job.reason or None,
        "error_code": job.error_code or None,
        "model": job.model or None,
        "openings": job.openings,
        "descriptor": {**job.descriptor, "attempt": job.attempt},
        "created_at": job.created_at.isoformat(),
        "done_at": job.done_at.isoformat() if job.done_at else None,
    }
    if receipts:
        content["receipts"] = receipts_json(job)
    return content


def job_get(job_id: str) -> Job:
    """Raises NotFound."""
    job = Job.objects.filter(job_id=job_id).first()
    if job is None:
        raise NotFound("job_not_found", "There is no such job.")
    return job
