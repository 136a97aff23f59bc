"""Listings, and the queries that are paid for one by one."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from apps.core.models import BaseModel


class Listing(BaseModel):
    """What a SubDAO offers: its accepted version, at its price."""

    class Status(models.TextChoices):
        OPEN = "open"
        CLOSED = "closed"

    dao = models.OneToOneField("subdaos.Dao", models.PROTECT, related_name="listing")
    slug = models.SlugField(max_length=60, unique=True)
    version = models.ForeignKey("training.ModelVersion", models.PROTECT, related_name="listings")
    status = models.CharField(max_length=6, choices=Status, default=Status.OPEN)
    opened_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(status__in=["open", "closed"]), name="listings_known_status"
            )
        ]
        indexes = [
            models.Index(fields=["-opened_at", "-id"], name="listings_newest"),
            models.Index(fields=["status", "-opened_at", "-id"], name="listings_newest_open"),
            models.Index(fields=["-created_at", "-id"], name="listings_made"),
        ]

    def __str__(self) -> str:
        return self.slug


class Query(BaseModel):
    """One paid query: hold → run → settle, or release. It is charged once or not at all.

    `upload` is sealed and dropped when the query has ended; `outputs` are sealed to the buyer.
    """

    class State(models.TextChoices):
        HELD = "held"
        RUNNING = "running"
        SETTLED = "settled"
        RELEASED = "released"

    buyer = models.ForeignKey("accounts.Party", models.PROTECT, related_name="queries")
    listing = models.ForeignKey(Listing, models.PROTECT, related_name="queries")
    version = models.ForeignKey("training.ModelVersion", models.PROTECT, related_name="queries")
    epoch = models.ForeignKey("subdaos.Epoch", models.PROTECT, null=True, related_name="queries")
    job = models.OneToOneField("compute.Job", models.PROTECT, related_name="query")
    hold = models.OneToOneField("wallets.Transfer", models.PROTECT, related_name="query")
    rows = models.PositiveIntegerField()
    price_micro = models.BigIntegerField()
    share_id = models.CharField(max_length=32, unique=True)
    scope = models.CharField(max_length=80, unique=True)
    ticket_id = models.CharField(max_length=64)
    upload = models.BinaryField(null=True)
    outputs = models.JSONField(null=True)
    state = models.CharField(max_length=8, choices=State, default=State.HELD)
    reason = models.TextField(blank=True)
    timeline = models.JSONField(default=list)
    expires_at = models.DateTimeField()
    nodes_ms: float | None = None  # how long the nodes took, while its worker has it in hand
    ended_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [
            models.CheckConstraint(
                condition=Q(price_micro__gt=0, rows__gt=0), name="listings_query_costs"
            ),
            models.CheckConstraint(
                condition=Q(state="settled", epoch__isnull=False, outputs__isnull=False)
                | ~Q(state="settled"),
                name="listings_settled_has_epoch_and_outputs",
            ),
            models.CheckConstraint(
                condition=Q(state__in=["settled", "released"], ended_at__isnull=False)
                | Q(state__in=["held", "running"], ended_at__isnull=True),
                name="listings_query_ended_when_over",
            ),
        ]
        indexes = [
            models.Index(
                fields=["expires_at"],
                condition=Q(state__in=["held", "running"]),
                name="listings_query_open",
            ),
            models.Index(fields=["epoch", "version"], name="listings_query_epoch"),
            models.Index(fields=["buyer", "-created_at", "-id"], name="listings_query_newest"),
            models.Index(fields=["listing", "state"], name="listings_query_count"),
        ]

    def __str__(self) -> str:
        return f"{self.listing_id}: {self.state}"
