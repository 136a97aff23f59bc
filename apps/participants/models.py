"""Who offers data or validation to a model in the making, and who was let in."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from apps.core.models import BaseModel


class Role(models.TextChoices):
    CUSTODIAN = "custodian"
    VALIDATOR = "validator"


class Call(BaseModel):
    """An open call for participants. `dao` is null until the SubDAO is founded."""

    slug = models.SlugField(max_length=60, unique=True)
    dao = models.OneToOneField(
        "subdaos.Dao", models.PROTECT, related_name="call", null=True, blank=True
    )
    schema = models.JSONField()
    schema_hash = models.CharField(max_length=64)
    rows_min = models.PositiveIntegerField()
    opened_at = models.DateTimeField()
    closed_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return self.slug


class Application(BaseModel):
    """A signed attestation and what became of it. The key is the one that signs its tickets."""

    class Status(models.TextChoices):
        VERIFIED = "verified"
        WHITELISTED = "whitelisted"
        REJECTED = "rejected"
        REMOVED = "removed"

    call = models.ForeignKey(Call, models.PROTECT, related_name="applications")
    party = models.ForeignKey("accounts.Party", models.PROTECT, related_name="applications")
    role = models.CharField(max_length=9, choices=Role)
    public_key = models.CharField(max_length=64)
    attestation = models.JSONField()
    signature = models.CharField(max_length=128)
    filed_at = models.DateTimeField()
    verified_at = models.DateTimeField()
    whitelisted_at = models.DateTimeField(null=True, blank=True)
    rejected_at = models.DateTimeField(null=True, blank=True)
    removed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["filed_at", "id"]
        constraints = [
            # One role each: who trains does not also judge.
            models.UniqueConstraint(fields=["call", "party"], name="participants_one_per_party"),
            models.UniqueConstraint(fields=["call", "public_key"], name="participants_one_per_key"),
            models.CheckConstraint(
                condition=Q(whitelisted_at__isnull=True) | Q(rejected_at__isnull=True),
                name="participants_not_in_and_out",
            ),
            models.CheckConstraint(
                condition=Q(removed_at__isnull=True) | Q(whitelisted_at__isnull=False),
                name="participants_removed_was_in",
            ),
        ]
        indexes = [models.Index(fields=["call", "filed_at", "id"], name="participants_in_order")]

    def __str__(self) -> str:
        return f"{self.role} {self.party_id}"

    @property
    def status(self) -> Status:
        if self.removed_at is not None:
            return self.Status.REMOVED
        if self.whitelisted_at is not None:
            return self.Status.WHITELISTED
        if self.rejected_at is not None:
            return self.Status.REJECTED
        return self.Status.VERIFIED
