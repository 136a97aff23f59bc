"""Addresses that parties want to be called at, and the calls."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from apps.core.models import BaseModel

BALANCE_LOW = "balance.low"
PLAN_RENEWED, PLAN_NOT_RENEWED = "plan.renewed", "plan.not_renewed"
PLAN_WITHDRAWN = "plan.withdrawn"
EVENTS = (
    "inference.settled",
    "inference.released",
    BALANCE_LOW,
    PLAN_RENEWED,
    PLAN_NOT_RENEWED,
    PLAN_WITHDRAWN,
    "webhook.ping",
)


class Endpoint(BaseModel):
    """An address of a party. Its secret follows from the site's key, id and generation: none is
    stored."""

    party = models.ForeignKey("accounts.Party", models.PROTECT, related_name="webhooks")
    url = models.CharField(max_length=500)
    events = models.JSONField()
    generation = models.PositiveIntegerField(default=1)
    calling_until = models.DateTimeField(null=True)  # a call is under way, and its lease
    called_at = models.DateTimeField(null=True)
    removed_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [
            models.Index(
                fields=["party"], condition=Q(removed_at=None), name="notify_endpoint_of_party"
            )
        ]

    def __str__(self) -> str:
        return self.url


class Delivery(BaseModel):
    """One call: pending until it was answered with 2xx, or given up after the last attempt.

    `due_at` is lease and retry time alike: whoever takes the call moves it on.
    """

    class State(models.TextChoices):
        PENDING = "pending"
        DELIVERED = "delivered"
        FAILED = "failed"

    endpoint = models.ForeignKey(Endpoint, models.PROTECT, related_name="deliveries")
    event = models.CharField(max_length=40)
    body = models.TextField()
    state = models.CharField(max_length=10, choices=State, default=State.PENDING)
    attempts = models.PositiveSmallIntegerField(default=0)
    due_at = models.DateTimeField()
    answer = models.CharField(max_length=200, blank=True)
    ended_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(state="pending", ended_at__isnull=True)
                | Q(state__in=["delivered", "failed"], ended_at__isnull=False),
                name="notify_delivery_ended_when_over",
            )
        ]
        indexes = [
            models.Index(fields=["due_at"], condition=Q(state="pending"), name="notify_due"),
            models.Index(fields=["endpoint", "-created_at", "-id"], name="notify_newest"),
        ]

    def __str__(self) -> str:
        return f"{self.event} {self.id}"
