"""Requests-for-Model and the money pledged to them."""

from __future__ import annotations

from datetime import datetime

from django.db import models
from django.db.models import F, Q

from apps.core.models import BaseModel


class Status(models.TextChoices):
    DRAFT = "draft"
    VOTING = "voting"
    REJECTED = "rejected"
    FUNDING = "funding"
    AWARDED = "awarded"
    FAILED = "failed"


class Rfm(BaseModel):
    """What somebody asks for. `spec` is frozen by its hash once it was submitted."""

    slug = models.SlugField(max_length=60, unique=True)
    title = models.CharField(max_length=160)
    submitter = models.ForeignKey("accounts.Party", models.PROTECT, related_name="rfms")
    spec = models.JSONField()
    spec_hash = models.CharField(max_length=64)
    proposal = models.OneToOneField(
        "governance.Proposal", models.PROTECT, related_name="+", null=True, blank=True
    )
    call = models.OneToOneField(
        "participants.Call", models.PROTECT, related_name="+", null=True, blank=True
    )
    subdao = models.OneToOneField(
        "subdaos.Dao", models.PROTECT, related_name="+", null=True, blank=True
    )
    submitted_at = models.DateTimeField(null=True, blank=True)
    approved_at = models.DateTimeField(null=True, blank=True)
    rejected_at = models.DateTimeField(null=True, blank=True)
    awarded_at = models.DateTimeField(null=True, blank=True)
    failed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at", "-id"]
        verbose_name = "RFM"
        indexes = [models.Index(fields=["spec_hash"], name="rfms_spec_hash")]
        constraints = [
            models.CheckConstraint(
                condition=(Q(approved_at__isnull=True) | Q(submitted_at__isnull=False))
                & (Q(rejected_at__isnull=True) | Q(approved_at__isnull=True))
                & (Q(awarded_at__isnull=True) | Q(approved_at__isnull=False))
                & (Q(failed_at__isnull=True) | Q(awarded_at__isnull=True)),
                name="rfms_one_course",
            ),
            models.CheckConstraint(
                condition=Q(awarded_at__isnull=True) | Q(subdao__isnull=False),
                name="rfms_award_has_subdao",
            ),
        ]
        indexes = [models.Index(fields=["-created_at", "-id"], name="rfms_newest")]

    def __str__(self) -> str:
        return self.slug

    @property
    def objective(self) -> str:
        return self.spec["objective"]

    @property
    def status(self) -> Status:
        """By the facts. A crowdfund past its deadline is "failed" once the sweep has noted it."""
        if self.awarded_at is not None:
            return Status.AWARDED
        if self.failed_at is not None:
            return Status.FAILED
        if self.approved_at is not None:
            return Status.FUNDING
        if self.rejected_at is not None:
            return Status.REJECTED
        if self.submitted_at is not None:
            return Status.VOTING
        return Status.DRAFT


class Crowdfund(BaseModel):
    """All or nothing, in USDC. `raised_micro` is the sum of the pledges that stand."""

    rfm = models.OneToOneField(Rfm, models.PROTECT, related_name="crowdfund")
    escrow = models.OneToOneField("wallets.Account", models.PROTECT, related_name="+")
    target_micro = models.BigIntegerField()
    raised_micro = models.BigIntegerField(default=0)
    sdt_supply_micro = models.BigIntegerField()
    opened_at = models.DateTimeField()
    deadline_at = models.DateTimeField()
    filled_at = models.DateTimeField(null=True, blank=True)
    awarded_at = models.DateTimeField(null=True, blank=True)
    failed_at = models.DateTimeField(null=True, blank=True)
    refunded_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(awarded_at__isnull=True)
                | Q(filled_at__isnull=False, failed_at__isnull=True),
                name="rfms_awarded_was_full",
            ),
            models.CheckConstraint(
                condition=Q(target_micro__gt=0, raised_micro__gte=0)
                & Q(raised_micro__lte=F("target_micro")),
                name="rfms_raised_within_target",
            ),
            models.CheckConstraint(
                condition=Q(filled_at__isnull=True) | Q(raised_micro=F("target_micro")),
                name="rfms_filled_means_full",
            ),
        ]
        indexes = [
            models.Index(
                fields=["deadline_at"],
                condition=Q(awarded_at__isnull=True, refunded_at__isnull=True),
                name="rfms_crowdfund_due",
            )
        ]

    def __str__(self) -> str:
        return f"{self.raised_micro}/{self.target_micro}"

    def is_open(self, now: datetime) -> bool:
        """Pledges are taken and given back: not full, not failed, before the deadline."""
        return self.filled_at is None and self.failed_at is None and now < self.deadline_at


class Pledge(BaseModel):
    """What was accepted of one payment; `asked_micro` is what was offered."""

    crowdfund = models.ForeignKey(Crowdfund, models.PROTECT, related_name="pledges")
    party = models.ForeignKey("accounts.Party", models.PROTECT, related_name="pledges")
    asked_micro = models.BigIntegerField()
    amount_micro = models.BigIntegerField()
    pledged_at = models.DateTimeField()
    withdrawn_at = models.DateTimeField(null=True, blank=True)
    refunded_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["pledged_at", "id"]
        constraints = [
            models.CheckConstraint(
                condition=Q(amount_micro__gt=0) & Q(amount_micro__lte=F("asked_micro")),
                name="rfms_pledge_accepted_within_asked",
            ),
            models.CheckConstraint(
                condition=Q(withdrawn_at__isnull=True) | Q(refunded_at__isnull=True),
                name="rfms_pledge_returned_once",
            ),
        ]
        indexes = [
            models.Index(
                fields=["crowdfund"],
                condition=Q(withdrawn_at__isnull=True, refunded_at__isnull=True),
                name="rfms_pledges_standing",
            )
        ]

    def __str__(self) -> str:
        return f"{self.amount_micro}"
