"""Base of all rows, the outbox, the stored answers of idempotent requests."""

from __future__ import annotations

import uuid

from django.db import models

from apps.core.clock import now


class BaseModel(models.Model):
    """UUID key and time of making; services pass their own `now`."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    created_at = models.DateTimeField(default=now, editable=False)

    class Meta:
        abstract = True


class OutboxEvent(BaseModel):
    """What has happened, written in the transaction that made it happen; ids only in the payload.

    `due_at` is both lease and retry time: whoever claims the event moves it on, so that a second
    dispatcher passes by and a dead one is followed up.
    """

    name = models.CharField(max_length=100)
    payload = models.JSONField()
    due_at = models.DateTimeField()
    attempts = models.PositiveIntegerField(default=0)
    dispatched_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [
            models.Index(
                fields=["due_at"],
                name="outbox_waiting",
                condition=models.Q(dispatched_at=None),
            )
        ]

    def __str__(self) -> str:
        return f"{self.name} {self.id}"


class HandledEvent(models.Model):
    """A handler is done with an event; it is not called for it again."""

    event = models.ForeignKey(OutboxEvent, on_delete=models.CASCADE, related_name="handled")
    handler = models.CharField(max_length=200)
    at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["event", "handler"], name="handled_once"),
        ]

    def __str__(self) -> str:
        return f"{self.handler} {self.event_id}"


class IdempotentCall(models.Model):
    """The answer that `actor_id` got under `key`, as JSON text, stored with its effect."""

    actor_id = models.UUIDField()
    key = models.CharField(max_length=200)
    digest = models.CharField(max_length=64)
    status = models.PositiveSmallIntegerField(null=True)
    response = models.TextField(default="")
    created_at = models.DateTimeField(default=now)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["actor_id", "key"], name="idempotent_key_once"),
        ]

    def __str__(self) -> str:
        return f"{self.actor_id} {self.key}"
