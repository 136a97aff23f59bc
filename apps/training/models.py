"""Rounds of training: who takes part, what was sent in sealed, what came of it."""

from __future__ import annotations

from math import prod
from typing import Any

from django.db import models
from django.db.models import Case, Q, When
from django.db.models.fields.json import KT
from django.db.models.functions import Cast

from apps.core.models import BaseModel
from apps.protocol.evidence import LEADING
from apps.protocol.tickets import KEPT, RING, correction_bytes_of


class Phase(models.TextChoices):
    MOMENTS = "moments"
    NORMALISING = "normalising"
    UPDATES = "updates"
    COMPUTING = "computing"
    DONE = "done"
    VOID = "void"
    FAILED = "failed"


class Training(models.TextChoices):
    """How a round trains: one-shot mean of local models, or steps on shared rows."""

    FEDAVG = "fedavg"
    SECURE_SGD = "secure_sgd"


OPEN_PHASES = (Phase.MOMENTS, Phase.NORMALISING, Phase.UPDATES, Phase.COMPUTING)

# What events decide: from → to.
TRANSITIONS: dict[str, frozenset[str]] = {
    Phase.MOMENTS: frozenset({Phase.NORMALISING, Phase.FAILED}),
    Phase.NORMALISING: frozenset({Phase.UPDATES, Phase.FAILED}),
    Phase.UPDATES: frozenset({Phase.COMPUTING, Phase.FAILED}),
    Phase.COMPUTING: frozenset({Phase.DONE, Phase.VOID, Phase.FAILED}),
    Phase.DONE: frozenset(),
    Phase.VOID: frozenset(),
    Phase.FAILED: frozenset(),
}


class Round(BaseModel):
    """One round of a SubDAO: normalisation, updates, then scoring and aggregation as one job.

    `roster` is what every ticket's roster hash stands for now: members who are late leave it
    (`Member.left_phase`), and nobody joins. `due_at` is until when this phase waits for members;
    None while it waits for nodes only. With `secure_sgd` custodians share rows instead of updates,
    and the job makes steps on them by `schedule`. `features` counts encoded columns
    (apps/protocol/encoding.py). `rows` maps each validator's key to the
    holdout rows it announced, and each custodian's to the rows that it will share,
    `stakes` each validator's to the FLAI it had staked when the round opened; `extras` are the
    parameters that only circuits of its model class have; `privacy` those of the noise that its
    model gets, none where there is no budget; `access` what its nodes ask of who asks the model,
    none where everybody may (training/access.py); `normalisation` holds the public mean
    and standard deviation of each feature as integers with 20 fractional bits. `start` is the
    version whose model the steps go on from (training/starting.py), `summed` the earlier round
    whose sums gave the normalisation that is kept for it; None where steps begin at zero, and
    where this round takes sums itself.
    """

    dao = models.ForeignKey("subdaos.Dao", models.PROTECT, related_name="rounds")
    number = models.PositiveIntegerField()
    phase = models.CharField(max_length=12, choices=Phase, default=Phase.MOMENTS)
    roster = models.JSONField()
    roster_hash = models.CharField(max_length=64)
    nodes = models.JSONField()
    circuits_hash = models.CharField(max_length=64)
    features = models.PositiveIntegerField()
    strata = models.JSONField(default=list)
    resolution = models.CharField(max_length=12)
    access = models.JSONField(default=dict)
    scoring = models.CharField(max_length=16, default="taylor")
    engine = models.CharField(max_length=16, default=RING)
    model_class = models.CharField(max_length=16, default="logistic")
    training = models.CharField(max_length=12, choices=Training, default=Training.FEDAVG)
    schedule = models.JSONField(default=dict)
    extras = models.JSONField(default=dict)
    privacy = models.JSONField(default=dict)
    rows = models.JSONField(default=dict)
    stakes = models.JSONField(default=dict)
    normalisation = models.JSONField(null=True)
    start = models.ForeignKey("ModelVersion", models.PROTECT, null=True, related_name="continued")
    summed = models.ForeignKey("self", models.PROTECT, null=True, related_name="+")
    moments_job = models.OneToOneField(
        "compute.Job", models.PROTECT, null=True, related_name="moments_round"
    )
    round_job = models.OneToOneField("compute.Job", models.PROTECT, null=True, related_name="round")
    progress = models.JSONField(default=list)
    reason = models.TextField(blank=True)
    opened_at = models.DateTimeField()
    due_at = models.DateTimeField(null=True)
    expires_at = models.DateTimeField()
    closed_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-number"]
        constraints = [
            models.UniqueConstraint(fields=["dao", "number"], name="training_round_number"),
            models.UniqueConstraint(
                fields=["dao"],
                condition=Q(phase__in=OPEN_PHASES),
                name="training_one_open_round",
            ),
            models.CheckConstraint(
                condition=Q(phase__in=Phase.values), name="training_round_known_phase"
            ),
            models.CheckConstraint(
                condition=Q(phase__in=OPEN_PHASES, closed_at__isnull=True)
                | (~Q(phase__in=OPEN_PHASES) & Q(closed_at__isnull=False)),
                name="training_round_closed_when_over",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.dao.slug} round {self.number}"

    @property
    def shares_rows(self) -> bool:
        return self.training == Training.SECURE_SGD

    @property
    def stage(self) -> str:
        """Which kind of share the tickets of now are for: "moments", then "round"."""
        return "moments" if self.phase in (Phase.MOMENTS, Phase.NORMALISING) else "round"


class Member(BaseModel):
    """One line of the roster that a round was opened with, tied to the party behind it.

    A round has its own, for ever; `left_phase` names the phase that went on without this one.
    `consent` is what a custodian signed before it shared rows: {"consent", "signature"}.
    """

    round = models.ForeignKey(Round, models.PROTECT, related_name="members")
    party = models.ForeignKey("accounts.Party", models.PROTECT, related_name="+")
    role = models.CharField(max_length=9)
    key = models.CharField(max_length=64)
    left_phase = models.CharField(max_length=12, choices=Phase, blank=True)
    consent = models.JSONField(null=True)

    class Meta:
        ordering = ["role", "key"]
        constraints = [
            models.UniqueConstraint(fields=["round", "key"], name="training_member_key"),
            models.UniqueConstraint(fields=["round", "party"], name="training_member_party"),
        ]

    def __str__(self) -> str:
        return f"{self.role} {self.party_id}"


class Submission(BaseModel):
    """A sealed share on its way to the nodes.

    `sealed` (signature and envelopes) and the parts of the correction are dropped once it is
    refused or the round is over. `refusal`: the code of a node's "no". `due_at`: when a complete
    one goes to the nodes, when an incomplete one is given up. `withdrawal` is its owner's signed
    word that the nodes shall forget it, {"withdrawal", "signature"}; `acks` are then what they
    signed for having done so.
    """

    class State(models.TextChoices):
        RECEIVING = "receiving"
        RECEIVED = "received"
        DELIVERED = "delivered"
        REFUSED = "refused"
        REPLACED = "replaced"  # signed for a roster that has lost a member since
        WITHDRAWING = "withdrawing"  # its owner has taken it back; not all nodes have heard
        WITHDRAWN = "withdrawn"

    round = models.ForeignKey(Round, models.PROTECT, related_name="submissions")
    stage = models.CharField(max_length=8)
    slot = models.CharField(max_length=32)
    party = models.ForeignKey("accounts.Party", models.PROTECT, related_name="+")
    share_id = models.CharField(max_length=32, unique=True)
    ticket = models.JSONField()
    ticket_id = models.CharField(max_length=64)
    sealed = models.JSONField(null=True)
    offset_bytes = models.PositiveIntegerField(default=0)
    acks = models.JSONField(default=list)
    withdrawal = models.JSONField(null=True)
    state = models.CharField(max_length=11, choices=State, default=State.RECEIVING)
    reason = models.TextField(blank=True)
    refusal = models.CharField(max_length=32, blank=True)
    attempts = models.PositiveIntegerField(default=0)
    due_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["round", "stage", "slot", "party"],
                condition=~Q(state__in=["refused", "replaced", "withdrawing", "withdrawn"]),
                name="training_one_share_per_slot",
            )
        ]
        indexes = [
            models.Index(fields=["ticket_id"], name="training_ticket"),
            models.Index(
                fields=["due_at"],
                condition=Q(state__in=["receiving", "received", "withdrawing"]),
                name="training_share_due",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.slot} {self.share_id}"

    @property
    def size_bytes(self) -> int:
        """How long the encrypted correction is; nothing comes of what the nodes keep."""
        ticket = self.ticket
        if ticket["type"] == KEPT:
            return 0
        return correction_bytes_of(ticket["engine"], len(ticket["nodes"]), prod(ticket["shape"]))

    @property
    def head(self) -> dict[str, Any]:
        """The upload without its correction."""
        return {"ticket": self.ticket, **(self.sealed or {})}


class SharePart(models.Model):
    """Bytes of a submission's correction, from `offset_bytes` on."""

    submission = models.ForeignKey(Submission, models.CASCADE, related_name="parts")
    offset_bytes = models.PositiveIntegerField()
    data = models.BinaryField()

    class Meta:
        ordering = ["offset_bytes"]
        constraints = [
            models.UniqueConstraint(
                fields=["submission", "offset_bytes"], name="training_part_once"
            )
        ]

    def __str__(self) -> str:
        return f"{self.submission_id} from {self.offset_bytes}"


# Shares in these states fill no slot.
TAKEN_BACK = (Submission.State.WITHDRAWING, Submission.State.WITHDRAWN)
GIVEN_UP = (Submission.State.REFUSED, Submission.State.REPLACED, *TAKEN_BACK)
# In these, the site still has to send one, or the rest of it.
UNSENT = (Submission.State.RECEIVING, *GIVEN_UP)


class Score(BaseModel):
    """φ of one custodian in one round, 0 … 1000 (paper eq. 7)."""

    round = models.ForeignKey(Round, models.PROTECT, related_name="scores")
    party = models.ForeignKey("accounts.Party", models.PROTECT, related_name="scores")
    phi_milli = models.PositiveIntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["round", "party"], name="training_one_score"),
            models.CheckConstraint(condition=Q(phi_milli__lte=1000), name="training_phi_in_range"),
        ]

    def __str__(self) -> str:
        return f"{self.party_id}: {self.phi_milli}"


class ScoringWork(BaseModel):
    """Accepted scoring work of one validator in one round: one unit for a holdout that was used."""

    round = models.ForeignKey(Round, models.PROTECT, related_name="scoring_work")
    party = models.ForeignKey("accounts.Party", models.PROTECT, related_name="+")
    units = models.PositiveIntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["round", "party"], name="training_one_scoring_work")
        ]

    def __str__(self) -> str:
        return f"{self.party_id}: {self.units}"


class ModelVersion(BaseModel):
    """A model that lives as shares in the nodes' stores; `model` is its id there."""

    class Status(models.TextChoices):
        PROPOSED = "proposed"
        ACCEPTED = "accepted"
        REJECTED = "rejected"

    dao = models.ForeignKey("subdaos.Dao", models.PROTECT, related_name="versions")
    number = models.PositiveIntegerField()
    round = models.OneToOneField(Round, models.PROTECT, related_name="version")
    model = models.CharField(max_length=64, unique=True)
    # By which circuit it is asked, and the hash of what that computed when the model was made.
    asked_by = models.CharField(max_length=80, blank=True)
    asked_hash = models.CharField(max_length=64, blank=True)
    evidence = models.JSONField()
    # The leading metric (apps.protocol.evidence) over all rows, kept up by the database itself.
    lead_milli = models.GeneratedField(
        expression=Case(
            *(
                When(
                    evidence__has_key=f"{name}_milli",
                    then=Cast(KT(f"evidence__{name}_milli"), models.IntegerField()),
                )
                for name in LEADING
            )
        ),
        output_field=models.IntegerField(null=True),
        db_persist=True,
    )
    status = models.CharField(max_length=8, choices=Status, default=Status.PROPOSED)
    proposal = models.OneToOneField(
        "governance.Proposal", models.PROTECT, null=True, related_name="+"
    )
    decided_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-number"]
        constraints = [
            models.UniqueConstraint(fields=["dao", "number"], name="training_version_number"),
            models.CheckConstraint(
                condition=Q(status="proposed", decided_at__isnull=True)
                | (~Q(status="proposed") & Q(decided_at__isnull=False)),
                name="training_version_decided_once",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.dao.slug} v{self.number}"
