"""DAOs, their parameters, soul-bound points, revenue epochs and what their reserve releases."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q, Value
from django.db.models.fields.json import KT
from django.db.models.functions import Cast, Coalesce

from apps.core.models import BaseModel
from apps.protocol.rfm_spec import DOMAIN, LICENCE


def _param(path: str, default: str = "") -> models.GeneratedField:
    """A parameter as a column that the database itself keeps up: to filter, count and sort by."""
    return models.GeneratedField(
        expression=Coalesce(KT(f"params__{path}"), Value(default, models.TextField())),
        output_field=models.TextField(),
        db_persist=True,
    )


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
    domain = _param("domain", DOMAIN)
    licence = _param("licence", LICENCE)
    model_class = _param("model_class")
    standard = _param("schema__standard")
    row_price_micro = models.GeneratedField(
        expression=Coalesce(Cast(KT("params__price_micro"), models.BigIntegerField()), Value(0)),
        output_field=models.BigIntegerField(),
        db_persist=True,
    )
    rfm_ref = models.UUIDField(null=True, blank=True, unique=True)
    # Lineage: the SubDAO whose model this one forks.
    parent = models.ForeignKey(
        "self", models.PROTECT, related_name="forks", null=True, blank=True, editable=False
    )
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
        indexes = [
            models.Index(fields=["ends_at"], name="subdaos_epoch_due"),
            models.Index(
                fields=["-ends_at"],
                condition=Q(settlement__isnull=False),
                name="subdaos_epoch_divided",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.dao_id} #{self.number}"


class Sponsor(models.Model):
    """A backer of the request that founded a SubDAO: has a part in each emission, by its pledge.

    taken_micro: what it has taken of all sponsors' parts so far.
    """

    dao = models.ForeignKey(Dao, models.PROTECT, related_name="sponsors")
    party = models.ForeignKey("accounts.Party", models.PROTECT, related_name="+")
    pledged_micro = models.BigIntegerField()
    taken_micro = models.BigIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["dao", "party"], name="subdaos_sponsor_once"),
            models.CheckConstraint(
                condition=Q(pledged_micro__gt=0, taken_micro__gte=0), name="subdaos_sponsor_amounts"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.dao_id}/{self.party_id}"


class Emission(models.Model):
    """What the end of one epoch released from the SubDAO's reserve; written with that end, once."""

    epoch = models.OneToOneField(Epoch, models.PROTECT, primary_key=True, related_name="emission")
    dao = models.ForeignKey(Dao, models.PROTECT, related_name="emissions")
    at = models.DateTimeField()
    reserve_micro = models.BigIntegerField()
    rate_bps = models.PositiveIntegerField()
    contributors_micro = models.BigIntegerField()
    sponsors_micro = models.BigIntegerField()
    treasury_micro = models.BigIntegerField()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(contributors_micro__gte=0, sponsors_micro__gte=0, treasury_micro__gte=0)
                & Q(
                    reserve_micro__gte=F("contributors_micro")
                    + F("sponsors_micro")
                    + F("treasury_micro")
                ),
                name="subdaos_emission_within_reserve",
            ),
        ]
        indexes = [models.Index(fields=["dao", "-at"], name="subdaos_emissions")]

    def __str__(self) -> str:
        return f"emission {self.epoch_id}"

    @property
    def total_micro(self) -> int:
        return self.contributors_micro + self.sponsors_micro + self.treasury_micro


class Conversion(BaseModel):
    """Points that a member gave up for tokens, after `emission` and before the next one."""

    emission = models.ForeignKey(Emission, models.PROTECT, related_name="conversions")
    party = models.ForeignKey("accounts.Party", models.PROTECT, related_name="+")
    asked_min_micro = models.BigIntegerField()
    points_micro = models.BigIntegerField()
    tokens_micro = models.BigIntegerField()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(points_micro__gt=0, tokens_micro__gt=0),
                name="subdaos_conversion_amounts",
            ),
        ]
        indexes = [models.Index(fields=["emission", "party"], name="subdaos_conversions")]

    def __str__(self) -> str:
        return f"{self.points_micro} points → {self.tokens_micro}"
