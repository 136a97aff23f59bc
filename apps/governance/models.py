"""Facts about proposals. Their state is derived: apps/protocol/tally.py."""

from __future__ import annotations

from datetime import datetime

from django.db import models
from django.db.models import F, Q

from apps.core.models import BaseModel
from apps.protocol.tally import Facts, State, Support, proposal_state


class House(models.TextChoices):
    """Whose weight counts: staked FLAI, soul-bound points, or SubDAO tokens."""

    SUPER = "super"
    SBGT = "sbgt"
    SDT = "sdt"


class Proposal(BaseModel):
    """One typed decision; `payload` is executed exactly as hashed, or not at all.

    The three weights are the sum of the votes, kept under the row's lock; `total_weight` is null
    until the snapshot has been taken.
    """

    dao = models.ForeignKey("subdaos.Dao", models.PROTECT, related_name="proposals")
    house = models.CharField(max_length=5, choices=House)
    kind = models.CharField(max_length=60)
    payload = models.JSONField()
    payload_hash = models.CharField(max_length=64)
    changes = models.JSONField(default=list)
    title = models.CharField(max_length=200)
    description = models.TextField(blank=True)
    proposer = models.ForeignKey(
        "accounts.Party", models.PROTECT, related_name="proposals", null=True, blank=True
    )
    ref = models.CharField(max_length=64, blank=True)

    snapshot_at = models.DateTimeField()
    voting_starts_at = models.DateTimeField()
    voting_ends_at = models.DateTimeField()
    quorum_bps = models.PositiveIntegerField()
    threshold_bps = models.PositiveIntegerField()
    timelock_s = models.PositiveIntegerField(default=0)
    grace_s = models.PositiveIntegerField()
    late_quorum_s = models.PositiveIntegerField(default=0)
    extended_at = models.DateTimeField(null=True, blank=True)

    total_weight = models.BigIntegerField(null=True, blank=True)
    for_weight = models.BigIntegerField(default=0)
    against_weight = models.BigIntegerField(default=0)
    abstain_weight = models.BigIntegerField(default=0)

    canceled_at = models.DateTimeField(null=True, blank=True)
    concluded_at = models.DateTimeField(null=True, blank=True)
    executed_at = models.DateTimeField(null=True, blank=True)
    execution_error = models.TextField(blank=True)
    execution_attempts = models.PositiveIntegerField(default=0)
    execute_after = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [
            models.CheckConstraint(
                condition=Q(voting_ends_at__gt=F("voting_starts_at")),
                name="governance_voting_has_length",
            ),
            models.CheckConstraint(
                condition=Q(
                    quorum_bps__lte=10_000, threshold_bps__gte=1, threshold_bps__lte=10_000
                ),
                name="governance_bps_in_range",
            ),
            models.CheckConstraint(
                condition=Q(for_weight__gte=0, against_weight__gte=0, abstain_weight__gte=0),
                name="governance_weights_not_neg",
            ),
            models.CheckConstraint(
                condition=Q(canceled_at__isnull=True) | Q(executed_at__isnull=True),
                name="governance_not_canceled_and_executed",
            ),
            models.UniqueConstraint(
                fields=["kind", "ref"], condition=~Q(ref=""), name="governance_one_per_ref"
            ),
        ]
        indexes = [
            models.Index(fields=["payload_hash"], name="governance_payload_hash"),
            models.Index(
                fields=["voting_ends_at"],
                condition=Q(concluded_at__isnull=True, canceled_at__isnull=True),
                name="governance_to_conclude",
            ),
            models.Index(
                fields=["execute_after"],
                condition=Q(executed_at__isnull=True, execute_after__isnull=False),
                name="governance_to_execute",
            ),
            models.Index(fields=["-created_at", "-id"], name="governance_newest"),
            models.Index(fields=["dao", "-created_at", "-id"], name="governance_newest_of_dao"),
            models.Index(
                fields=["-created_at", "-id"],
                condition=Q(executed_at__isnull=True, canceled_at__isnull=True),
                name="governance_newest_going",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"

    @property
    def facts(self) -> Facts:
        return Facts(
            voting_starts_at=self.voting_starts_at,
            voting_ends_at=self.voting_ends_at,
            timelock_s=self.timelock_s,
            grace_s=self.grace_s,
            quorum_bps=self.quorum_bps,
            threshold_bps=self.threshold_bps,
            total_weight=self.total_weight or 0,
            for_weight=self.for_weight,
            against_weight=self.against_weight,
            abstain_weight=self.abstain_weight,
            canceled_at=self.canceled_at,
            executed_at=self.executed_at,
        )

    def state(self, now: datetime) -> State:
        return proposal_state(self.facts, now)


class SnapshotWeight(models.Model):
    """What one holder's vote counts on one proposal: taken once, when voting opens."""

    id = models.BigAutoField(primary_key=True)
    proposal = models.ForeignKey(Proposal, models.CASCADE, related_name="weights")
    party = models.ForeignKey("accounts.Party", models.PROTECT, related_name="+")
    weight = models.BigIntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["proposal", "party"], name="governance_one_weight_per_party"
            ),
            models.CheckConstraint(condition=Q(weight__gt=0), name="governance_weight_positive"),
        ]

    def __str__(self) -> str:
        return f"{self.proposal_id}/{self.party_id}: {self.weight}"


class Vote(BaseModel):
    """One per account, final."""

    class Choice(models.TextChoices):
        AGAINST = Support.AGAINST.value
        FOR = Support.FOR.value
        ABSTAIN = Support.ABSTAIN.value

    proposal = models.ForeignKey(Proposal, models.PROTECT, related_name="votes")
    voter = models.ForeignKey("accounts.Party", models.PROTECT, related_name="votes")
    support = models.CharField(max_length=7, choices=Choice)
    weight = models.BigIntegerField()
    at = models.DateTimeField()

    class Meta:
        ordering = ["at", "id"]
        constraints = [
            models.UniqueConstraint(fields=["proposal", "voter"], name="governance_one_vote"),
            models.CheckConstraint(condition=Q(weight__gt=0), name="governance_vote_has_weight"),
        ]
        indexes = [models.Index(fields=["proposal", "at", "id"], name="governance_votes_in_order")]

    def __str__(self) -> str:
        return f"{self.support} {self.weight}"
