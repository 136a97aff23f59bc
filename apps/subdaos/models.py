"""DAOs, their parameters, soul-bound points and revenue epochs."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q

from apps.core.models import BaseModel


class Dao(BaseModel):
    """The SuperDAO (one) or the SubDAO of one model. Its money belongs to its Party."""

    class Kind(models.TextChoices):
        SUPER = "super"
        SUB = "sub"

    party = models.OneToOneField("accounts.Party", models.PROTECT, related_name="dao")
    slug = models.SlugField(max_length=60, unique=True)
    name = models.CharField(max_length=160)
    kind = models.CharField(max_length=5, choices=Kind)
    asset = models.OneToOneField(
        "wallets.Asset", models.PROTECT, related_name="dao", null=True, blank=True
    )
    params = models.JSONField(default=dict)
    rfm_ref = models.UUIDField(null=True, blank=True, unique=True)
    founded_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["kind"], condition=Q(kind="super"), name="subdaos_one_superdao"
            ),
            models.CheckConstraint(
                condition=Q(kind="super", asset__isnull=True)
                | Q(kind="sub", asset__isnull=False, rfm_ref__isnull=False),
                name="subdaos_sub_has_asset_and_rfm",
            ),
        ]
        indexes = [models.Index(fields=["-founded_at", "-id"], name="subdaos_newest")]

    def __str__(self) -> str:
        return self.slug


class SbgtCheckpoint(models.Model):
    """π of one member from `at` on. Appended, never changed: the past stays answerable.

    Points are soul-bound by construction: there is no owner to change and no row to move.
    """

    id = models.BigAutoField(primary_key=True)
    dao = models.ForeignKey(Dao, models.PROTECT, related_name="sbgt")
    party = models.ForeignKey("accounts.Party", models.PROTECT, related_name="+")
    at = models.DateTimeField()
    points_micro = models.BigIntegerField()
    reason = models.CharField(max_length=40)
    ref = models.CharField(max_length=64, blank=True)

    class Meta:
        indexes = [models.Index(fields=["dao", "party", "-at", "-id"], name="subdaos_sbgt_latest")]
        constraints = [
            models.CheckConstraint(condition=Q(points_micro__gte=0), name="subdaos_points_not_neg")
        ]

    def __str__(self) -> str:
        return f"{self.dao_id}/{self.party_id}: {self.points_micro}"


class Epoch(BaseModel):
    """A revenue period of a SubDAO; `settlement` is written once, when its revenue was divided."""

    dao = models.ForeignKey(Dao, models.PROTECT, related_name="epochs")
    number = models.PositiveIntegerField()
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField()
    closed_at = models.DateTimeField(null=True, blank=True)
    revenue_micro = models.BigIntegerField(default=0)
    settlement = models.JSONField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["dao", "number"], name="subdaos_epoch_number"),
            models.UniqueConstraint(
                fields=["dao"], condition=Q(closed_at__isnull=True), name="subdaos_one_open_epoch"
            ),
            models.CheckConstraint(
                condition=Q(ends_at__gt=F("starts_at")), name="subdaos_epoch_has_length"
            ),
            models.CheckConstraint(
                condition=Q(revenue_micro__gte=0), name="subdaos_epoch_revenue_not_neg"
            ),
        ]
        indexes = [models.Index(fields=["ends_at"], name="subdaos_epoch_due")]

    def __str__(self) -> str:
        return f"{self.dao_id} #{self.number}"
