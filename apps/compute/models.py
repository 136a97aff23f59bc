"""Nodes, the jobs they are asked to run, and what each of them signed about a job."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from apps.core.models import BaseModel
from apps.protocol.jobs import members_of


class Node(BaseModel):
    """One member of the node set, as its own signed descriptor describes it."""

    fingerprint = models.CharField(max_length=64, unique=True)
    name = models.CharField(max_length=64)
    index = models.PositiveSmallIntegerField()
    control_url = models.CharField(max_length=200)
    descriptor = models.JSONField()
    operator = models.ForeignKey(
        "accounts.Party", models.PROTECT, related_name="nodes", null=True, blank=True
    )
    # A fingerprint that left the node set stays, because receipts point to it.
    active = models.BooleanField(default=True)

    class Meta:
        ordering = ["index"]
        constraints = [
            models.UniqueConstraint(
                fields=["index"], condition=Q(active=True), name="compute_node_one_per_index"
            )
        ]

    def __str__(self) -> str:
        return self.name


class Cosignature(BaseModel):
    """A node's signature over a head of the log."""

    # Heads are append-only by trigger, so the database need not watch that one stays.
    head = models.ForeignKey(
        "wallets.TreeHead",
        models.PROTECT,
        related_name="cosignatures",
        db_column="size",
        db_constraint=False,
    )
    node = models.ForeignKey(Node, models.PROTECT, related_name="cosignatures")
    signature = models.CharField(max_length=128)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["head", "node"], name="compute_cosignature_once")
        ]


class Refresh(BaseModel):
    """The nodes put what they keep into new shares; what all that took part signed about it."""

    digest = models.CharField(max_length=64, unique=True)
    number = models.PositiveIntegerField()  # the node set's own count
    proof = models.JSONField()

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"refresh {self.number}"

    @property
    def count(self) -> int:
        """How many models have new shares."""
        return int(self.proof["receipts"][0]["receipt"].get("count", 0))

    @property
    def left(self) -> int:
        """How many kept the shares that they had, as not all who took part kept them alike."""
        return int(self.proof["receipts"][0]["receipt"].get("left", 0))


class JobState(models.TextChoices):
    QUEUED = "queued"
    RUNNING = "running"
    COMMITTING = "committing"
    DONE = "done"
    FAILED = "failed"


# What events decide: from → to. A running job whose lease ran out is queued again.
TRANSITIONS: dict[str, frozenset[str]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.FAILED}),
    JobState.RUNNING: frozenset(
        {JobState.QUEUED, JobState.RUNNING, JobState.COMMITTING, JobState.DONE, JobState.FAILED}
    ),
    # Failed only once a node has lost its part of a result that all nodes had signed for.
    JobState.COMMITTING: frozenset({JobState.COMMITTING, JobState.DONE, JobState.FAILED}),
    JobState.DONE: frozenset(),
    JobState.FAILED: frozenset(),
}


class Job(BaseModel):
    """A computation asked of all nodes at once; its descriptor names only what owners allow.

    `descriptor` has no attempt: it is numbered when it is sent; who takes part is as of the attempt
    that was answered. `due_at` is when a queued job may
    run, `lease_until` until when a worker holds it, `expires_at` when it is given up.
    """

    job_id = models.CharField(max_length=32, unique=True)
    kind = models.CharField(max_length=16)
    circuit = models.CharField(max_length=80)
    scope = models.CharField(max_length=80)
    descriptor = models.JSONField()
    attempt = models.PositiveIntegerField(default=0)
    state = models.CharField(max_length=12, choices=JobState.choices, default=JobState.QUEUED)
    error_code = models.CharField(max_length=64, blank=True)
    reason = models.TextField(blank=True)
    openings = models.JSONField(null=True)
    model = models.CharField(max_length=64, blank=True)
    # Nodes of the set that were away when the others committed the result, by fingerprint.
    behind = models.JSONField(default=list, blank=True)
    due_at = models.DateTimeField()
    lease_until = models.DateTimeField(null=True)
    expires_at = models.DateTimeField()
    done_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=JobState.values), name="compute_job_known_state"
            ),
            models.CheckConstraint(
                condition=Q(lease_until__isnull=False)
                | ~Q(state__in=[JobState.RUNNING, JobState.COMMITTING]),
                name="compute_job_held_by_a_lease",
            ),
        ]
        indexes = [
            models.Index(
                fields=["due_at"],
                condition=~Q(state__in=[JobState.DONE, JobState.FAILED]),
                name="compute_job_open",
            ),
            models.Index(fields=["-created_at", "-id"], name="compute_job_newest"),
        ]

    def __str__(self) -> str:
        return f"{self.circuit} {self.job_id}"

    @property
    def signers(self) -> int:
        """How many receipts it takes: of all who take part in its attempt. Before it is decided who
        does, three for a query, all for what makes a model."""
        decided = self.kind == "query" or "computing" in self.descriptor
        return len(members_of(self.descriptor) if decided else self.descriptor["nodes"])


class Receipt(BaseModel):
    """One node's signed word about a job: inputs, circuit, openings, hashes of the result."""

    # Both are found by the first column of an index below.
    job = models.ForeignKey(Job, models.PROTECT, related_name="receipts", db_index=False)
    node = models.ForeignKey(Node, models.PROTECT, related_name="receipts", db_index=False)
    # Who ran the node when it signed: that is who is paid for the job, whoever claims it later.
    operator = models.ForeignKey(
        "accounts.Party", models.PROTECT, related_name="receipts", null=True, blank=True
    )
    body = models.JSONField()
    # With the way to the root where it was signed among others: `protocol.jobs.sign_receipts`.
    signature = models.CharField(max_length=1024)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["job", "node"], name="compute_receipt_one_per_node")
        ]
        indexes = [
            models.Index(fields=["signature"], name="compute_receipt_signature"),
            models.Index(fields=["node", "created_at"], name="compute_receipt_of_node"),
        ]

    def __str__(self) -> str:
        return f"{self.node} on {self.job}"
