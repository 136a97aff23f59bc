"""Double-entry ledger and Merkle log.

A balance is the sum of immutable transfers; `Account.posted_micro` and `held_micro` are a cache of
it that the constraints below watch and that `verify_ledger` recomputes. `Hold` lists the pending
transfers that are still open. Triggers (migration 0002) refuse to change or delete what is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import models
from django.db.models import F, Q

from apps.accounts.models import Party
from apps.core.models import BaseModel


class Asset(BaseModel):
    """What is counted, in micro-units: FLAI, USDC, one SDT-<slug> per SubDAO.

    quiet_at: no new transfer of it is stamped before this time (`ledger.quiet`).
    """

    code = models.CharField(max_length=40, unique=True)
    name = models.CharField(max_length=120)
    scale = models.PositiveSmallIntegerField(default=6)
    cap_micro = models.BigIntegerField()
    quiet_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.CheckConstraint(name="asset_cap_not_negative", condition=Q(cap_micro__gte=0)),
            models.CheckConstraint(
                name="asset_code_shape", condition=Q(code__regex=r"^[A-Z][A-Za-z0-9-]{1,39}$")
            ),
        ]

    def __str__(self) -> str:
        return self.code


PURPOSES = (
    "main",
    "staked",
    "unstaking",
    "escrow",
    "treasury",
    "revenue",
    "fees",
    "issuance",
    "reserve",
    "conversion",
    "sponsors",
    "pool",
    "vault",
    "prepaid",
)


class Account(BaseModel):
    """What one party has of one asset for one purpose.

    available = posted − held ≥ floor. The floor is 0, save for issuance accounts, which go down to
    −cap: what they owe is the supply, so the cap is a constraint too.
    """

    owner = models.ForeignKey(Party, on_delete=models.PROTECT, related_name="accounts")
    asset = models.ForeignKey(Asset, on_delete=models.PROTECT, related_name="accounts")
    purpose = models.CharField(max_length=10, default="main")
    posted_micro = models.BigIntegerField(default=0)
    held_micro = models.BigIntegerField(default=0)
    floor_micro = models.BigIntegerField(default=0)
    last_at = models.DateTimeField(null=True)
    closed_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["owner", "asset", "purpose"], name="account_once"),
            models.CheckConstraint(name="account_purpose_known", condition=Q(purpose__in=PURPOSES)),
            models.CheckConstraint(
                name="account_held_not_negative", condition=Q(held_micro__gte=0)
            ),
            models.CheckConstraint(
                name="account_available_above_floor",
                condition=Q(posted_micro__gte=F("floor_micro") + F("held_micro")),
            ),
            models.CheckConstraint(
                name="account_floor_only_for_issuance",
                condition=Q(floor_micro=0) | Q(floor_micro__lt=0, purpose="issuance"),
            ),
            models.CheckConstraint(
                name="account_closed_is_empty", condition=Q(closed_at=None) | Q(posted_micro=0)
            ),
        ]
        indexes = [
            # In order, for an epoch's closing goes through the accounts of an asset in chunks.
            models.Index(fields=["asset", "purpose", "id"], name="account_in_order"),
        ]

    def __str__(self) -> str:
        return self.code

    @property
    def code(self) -> str:
        """ "pid/purpose/asset", as log leaves name an account."""
        return f"{self.owner.pid}/{self.purpose}/{self.asset.code}"

    @property
    def available_micro(self) -> int:
        """posted − held; expired holds are added back by `selectors.wallet`."""
        return self.posted_micro - self.held_micro


class PaymentSettings(models.Model):
    """Below which balance of USDC a party wants to be warned, and what its invoices say of it."""

    party = models.OneToOneField(Party, models.PROTECT, primary_key=True, related_name="+")
    low_micro = models.BigIntegerField(null=True)
    low_since = models.DateTimeField(null=True)
    billing = models.TextField(blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                name="low_balance_positive", condition=Q(low_micro=None) | Q(low_micro__gt=0)
            ),
            models.CheckConstraint(
                name="low_since_with_threshold",
                condition=Q(low_since=None) | Q(low_micro__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.party_id}: below {self.low_micro}"


class Transfer(models.Model):
    """`amount_micro` from debit to credit; never changed, never deleted.

    Phases: single (at once), pend (held on the debit account), post and void (resolve a pend).
    """

    class Phase(models.TextChoices):
        SINGLE = "single"
        PEND = "pend"
        POST = "post"
        VOID = "void"

    id = models.UUIDField(primary_key=True)
    # Indexed with their time, below.
    debit = models.ForeignKey(
        Account, on_delete=models.PROTECT, related_name="debits", db_index=False
    )
    credit = models.ForeignKey(
        Account, on_delete=models.PROTECT, related_name="credits", db_index=False
    )
    amount_micro = models.BigIntegerField()
    kind = models.CharField(max_length=40)
    phase = models.CharField(max_length=6, choices=Phase.choices, default="single")
    pending = models.OneToOneField(
        "self", on_delete=models.PROTECT, null=True, related_name="resolution"
    )
    expires_at = models.DateTimeField(null=True)
    ref_type = models.CharField(max_length=40, blank=True)
    ref_id = models.CharField(max_length=64, blank=True)
    memo = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField()
    # Its owner's consent, on the way to the leaf; not a column.
    said: Mapping[str, Any] | None = None

    class Meta:
        constraints = [
            models.CheckConstraint(
                name="transfer_amount_positive", condition=Q(amount_micro__gt=0)
            ),
            models.CheckConstraint(name="transfer_two_accounts", condition=~Q(debit=F("credit"))),
            models.CheckConstraint(
                name="transfer_phase_known",
                condition=Q(phase__in=["single", "pend", "post", "void"]),
            ),
            models.CheckConstraint(
                name="transfer_resolution_names_pending",
                condition=Q(phase__in=["single", "pend"], pending=None)
                | Q(phase__in=["post", "void"], pending__isnull=False),
            ),
            models.CheckConstraint(
                name="transfer_only_pend_expires",
                condition=Q(phase="pend", expires_at__isnull=False)
                | (~Q(phase="pend") & Q(expires_at=None)),
            ),
            models.CheckConstraint(
                name="transfer_kind_is_code", condition=Q(kind__regex=r"^[a-z][a-z0-9_.]*$")
            ),
        ]
        indexes = [
            models.Index(fields=["debit", "created_at"], name="transfer_debit_at"),
            models.Index(fields=["credit", "created_at"], name="transfer_credit_at"),
        ]

    def __str__(self) -> str:
        return f"{self.phase} {self.amount_micro} {self.id}"


class Hold(models.Model):
    """An open pending transfer; the row goes when it is posted or voided."""

    transfer = models.OneToOneField(Transfer, on_delete=models.PROTECT, primary_key=True)
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="holds")
    amount_micro = models.BigIntegerField()
    expires_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.CheckConstraint(name="hold_amount_positive", condition=Q(amount_micro__gt=0)),
        ]
        indexes = [models.Index(fields=["expires_at"], name="hold_expiry")]

    def __str__(self) -> str:
        return f"hold {self.transfer_id}"


class LogLeaf(models.Model):
    """A protocol event in canonical bytes. `seq` is null until the sequencer numbers it, once."""

    id = models.BigAutoField(primary_key=True)
    seq = models.BigIntegerField(null=True)
    type = models.CharField(max_length=60)
    ref_id = models.CharField(max_length=64, blank=True)
    data = models.BinaryField()
    hash = models.BinaryField()

    class Meta:
        constraints = [
            models.CheckConstraint(
                name="leaf_seq_not_negative", condition=Q(seq=None) | Q(seq__gte=0)
            ),
            models.UniqueConstraint(
                fields=["seq"], condition=Q(seq__isnull=False), name="leaf_seq_once"
            ),
        ]
        # Whoever pays writes the leaf; what is asked of numbered ones alone the sequencer writes.
        indexes = [
            models.Index(fields=["id"], name="leaf_waiting", condition=Q(seq=None)),
            models.Index(fields=["hash"], name="leaf_hash", condition=Q(seq__isnull=False)),
            models.Index(fields=["type", "ref_id"], name="leaf_ref"),
        ]

    def __str__(self) -> str:
        return f"{self.type} #{self.seq}"


class Credential(BaseModel):
    """What an issuer's wallet key says of a subject's (`apps.protocol.credentials`), as signed;
    `digest` is its name. Kept when it is revoked: the log tells it, too."""

    digest = models.CharField(max_length=64, unique=True)
    kind = models.CharField(max_length=40)
    issuer = models.ForeignKey("accounts.Party", models.PROTECT, related_name="credentials_issued")
    subject = models.ForeignKey("accounts.Party", models.PROTECT, related_name="credentials")
    public_key = models.CharField(max_length=64)
    signed = models.JSONField()
    until = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [
            models.Index(fields=["subject", "-created_at", "-id"], name="credential_held"),
            models.Index(fields=["issuer", "-created_at", "-id"], name="credential_issued"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} of {self.subject_id}"


class LogNode(models.Model):
    """Hash of a full subtree: leaves [index·2^level, (index + 1)·2^level), level ≥ 1."""

    level = models.PositiveSmallIntegerField()
    index = models.BigIntegerField()
    hash = models.BinaryField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["level", "index"], name="log_node_once"),
        ]

    def __str__(self) -> str:
        return f"{self.level}/{self.index}"


class TreeHead(models.Model):
    """Signed statement: the first `size` leaves have this root."""

    size = models.BigIntegerField(primary_key=True)
    root = models.CharField(max_length=64)
    at_ms = models.BigIntegerField()
    signature = models.CharField(max_length=128)

    class Meta:
        constraints = [
            models.CheckConstraint(name="head_size_positive", condition=Q(size__gt=0)),
        ]
        indexes = [models.Index(fields=["root"], name="head_root")]

    def __str__(self) -> str:
        return f"head {self.size}"
