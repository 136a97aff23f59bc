"""What others may know of nodes and jobs. Reads only."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import BooleanField, Count, ExpressionWrapper, Max, Q

from apps.compute.control import Member
from apps.compute.models import Job, JobState, Node, Receipt
from apps.core.errors import DomainError, NotFound
from apps.core.joined import prepared
from apps.protocol.successions import sets_before
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


def node_count() -> int:
    """How many nodes are in the set now."""
    return Node.objects.filter(active=True).count()


def sets_followed(fingerprints: list[str]) -> list[list[str]]:
    """This node set and those that it follows, as its descriptors say."""
    nodes = Node.objects.filter(fingerprint__in=fingerprints)
    before = sets_before(fingerprints, [node.descriptor for node in nodes])
    return [list(fingerprints), *before]


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
    known = {row[1]: Member(*row) for row in prepared(_MEMBERS, [list(fingerprints)])}
    if not all(fp in known for fp in fingerprints):
        raise DomainError("no_nodes", "A node of this job is not known any more.", status=503)
    return [known[fp] for fp in fingerprints]


_MEMBERS = """
SELECT name, fingerprint, descriptor ->> 'sign_key', descriptor ->> 'tls_cert', control_url
FROM compute_node WHERE fingerprint = ANY(%s)
"""


def jobs_due(*, now: datetime, limit: int = 100) -> list[Job]:
    """Jobs that a worker should take now: queued and due, or held by a lease that ran out."""
    waiting = Q(state=JobState.QUEUED, due_at__lte=now)
    abandoned = Q(state__in=[JobState.RUNNING, JobState.COMMITTING], lease_until__lte=now)
    return list(Job.objects.filter(waiting | abandoned).order_by("due_at")[:limit])


_RECEIPTS = """
SELECT n.name, r.body, r.signature FROM compute_receipt r JOIN compute_node n ON n.id = r.node_id
WHERE r.job_id = %s ORDER BY n.index
"""


def receipts_json(job: Job) -> list[dict[str, Any]]:
    """The nodes' signed receipts, by node index."""
    return [
        {"node": name, "receipt": json.loads(body), "signature": signature}
        for name, body, signature in prepared(_RECEIPTS, [job.pk])
    ]


Signed = dict[tuple[UUID, str], tuple[int, datetime]]
# A receipt stands in the database long before it is this old, or never.
WRITTEN_WITHIN = timedelta(minutes=10)
# What a database that was filled behind this process's back is counted anew after.
COUNTED_ANEW = timedelta(hours=1)
NEVER = datetime.min.replace(tzinfo=UTC)
# (since when it is known, until when it reaches, what was signed before then), by this process.
_counted: tuple[datetime, datetime, Signed] = (NEVER, NEVER, {})


def receipts_signed(*, now: datetime) -> Signed:
    """{(node id, circuit): (receipts, the latest)}, exactly; receipts are only ever added.

    One query that reads what is new: the first one in a process, and one an hour, reads all.
    """
    global _counted
    since, until, signed = _counted
    if now - since > COUNTED_ANEW:
        since, until, signed = now, NEVER, {}
    edge = max(now - WRITTEN_WITHIN, until)
    new = Receipt.objects.filter(node__in=Node.objects.values("pk"), created_at__gte=until)
    settled = ExpressionWrapper(Q(created_at__lt=edge), BooleanField())
    rows = new.annotate(settled=settled).values_list("settled", "node", "job__circuit")
    before, all_ = dict(signed), dict(signed)
    for is_settled, node, circuit, count, at in rows.annotate(Count("id"), Max("created_at")):
        for counted in (before, all_) if is_settled else (all_,):
            known, latest = counted.get((node, circuit), (0, at))
            counted[node, circuit] = (known + count, max(latest, at))
    _counted = (since, edge, before)
    return all_


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
