"""Pools and vaults: what is theirs lies on the ledger, in accounts of a party of their own.

Reserves, shares and principals stand here once more as the state that `apps.protocol.pool` and
`apps.protocol.vault` compute with; `invariants` compares them with the ledger.
"""

from __future__ import annotations

from datetime import datetime

from django.db import models
from django.db.models import F, Q

from apps.accounts.models import Party
from apps.core.clock import from_unix_ms
from apps.core.models import BaseModel
from apps.protocol import pool as pool_rules
from apps.protocol import vault as vault_rules
from apps.wallets.models import Asset


class Pool(BaseModel):
    """`base` against USDC. `area` is ∫ price dt up to `at_ms`, Q32 · ms."""

    base = models.OneToOneField(Asset, models.PROTECT, related_name="pool")
    quote = models.ForeignKey(Asset, models.PROTECT, related_name="+")
    shares = models.OneToOneField(Asset, models.PROTECT, related_name="pool_of_shares")
    party = models.OneToOneField(Party, models.PROTECT, related_name="pool")
    base_micro = models.BigIntegerField(default=0)
    quote_micro = models.BigIntegerField(default=0)
    shares_micro = models.BigIntegerField(default=0)
    area = models.DecimalField(max_digits=60, decimal_places=0, default=0)
    at_ms = models.BigIntegerField(default=0)
    volume_micro = models.DecimalField(max_digits=40, decimal_places=0, default=0)
    events_count = models.BigIntegerField(default=0)
    # Of the last day, where `selectors.add_last_day` has set them.
    mean_24h_micro: int | None
    volume_24h_micro: int

    class Meta:
        indexes = [models.Index(fields=["-created_at", "-id"], name="exchange_pool_newest")]
        constraints = [
            models.CheckConstraint(
                name="exchange_pool_full_or_empty",
                condition=Q(base_micro=0, quote_micro=0, shares_micro=0)
                | Q(base_micro__gt=0, quote_micro__gt=0, shares_micro__gt=0),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.base.code}/{self.quote.code}"

    @property
    def state(self) -> pool_rules.Pool:
        return pool_rules.Pool(
            self.base_micro, self.quote_micro, self.shares_micro, int(self.area), self.at_ms
        )

    @property
    def price_micro(self) -> int:
        """USDC micro-units for one whole token, right now."""
        return pool_rules.price_micro(self.state)


class PoolEvent(models.Model):
    """One change of a pool and what it was afterwards. Written once: a trigger refuses the rest.

    base, quote, shares: positive into the pool (shares: made). area and volume (USDC traded) are
    sums from the beginning, so that those of any period are differences.
    """

    class Kind(models.TextChoices):
        SWAP = "swap"
        ADD = "add"
        REMOVE = "remove"

    id = models.UUIDField(primary_key=True)
    pool = models.ForeignKey(Pool, models.PROTECT, related_name="events", db_index=False)
    number = models.BigIntegerField()
    kind = models.CharField(max_length=6, choices=Kind)
    party = models.ForeignKey(Party, models.PROTECT, related_name="+")
    base_micro = models.BigIntegerField()
    quote_micro = models.BigIntegerField()
    shares_micro = models.BigIntegerField(default=0)
    base_after_micro = models.BigIntegerField()
    quote_after_micro = models.BigIntegerField()
    area = models.DecimalField(max_digits=60, decimal_places=0)
    volume_micro = models.DecimalField(max_digits=40, decimal_places=0, default=0)
    at_ms = models.BigIntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["pool", "number"], name="exchange_event_number"),
            models.CheckConstraint(
                name="exchange_event_leaves_a_pool",
                condition=Q(base_after_micro__gt=0, quote_after_micro__gt=0),
            ),
        ]
        indexes = [models.Index(fields=["pool", "at_ms", "number"], name="exchange_event_at")]

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"

    @property
    def at(self) -> datetime:
        return from_unix_ms(self.at_ms)

    @property
    def after(self) -> pool_rules.Pool:
        """The pool as this left it, without its shares."""
        return pool_rules.Pool(
            self.base_after_micro, self.quote_after_micro, 0, int(self.area), self.at_ms
        )

    @property
    def price_micro(self) -> int:
        return pool_rules.price_micro(self.after)


class Vault(BaseModel):
    """What is staked of one asset, and its earnings.

    delay_s: how long what leaves it waits, for as long as it lasts; of a vault that was opened
    before this was kept, as the setting says.
    """

    asset = models.OneToOneField(Asset, models.PROTECT, related_name="vault")
    shares = models.OneToOneField(Asset, models.PROTECT, related_name="vault_of_shares")
    party = models.OneToOneField(Party, models.PROTECT, related_name="vault")
    assets_micro = models.BigIntegerField(default=0)
    shares_micro = models.BigIntegerField(default=0)
    principal_micro = models.BigIntegerField(default=0)
    delay_s = models.PositiveIntegerField(null=True)

    class Meta:
        indexes = [models.Index(fields=["-created_at", "-id"], name="exchange_vault_newest")]
        constraints = [
            models.CheckConstraint(
                name="exchange_vault_covers_principal",
                condition=Q(principal_micro__gte=0, assets_micro__gte=F("principal_micro")),
            ),
            models.CheckConstraint(
                name="exchange_vault_shares_not_neg", condition=Q(shares_micro__gte=0)
            ),
        ]

    def __str__(self) -> str:
        return self.asset.code

    @property
    def state(self) -> vault_rules.Vault:
        return vault_rules.Vault(self.assets_micro, self.shares_micro, self.principal_micro)


class VaultPosition(BaseModel):
    """What one party has staked: its principal, on its own "staked" account, and its shares."""

    vault = models.ForeignKey(Vault, models.PROTECT, related_name="positions")
    party = models.ForeignKey(Party, models.PROTECT, related_name="positions")
    principal_micro = models.BigIntegerField(default=0)
    shares_micro = models.BigIntegerField(default=0)
    locked_until_ms = models.BigIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["vault", "party"], name="exchange_position_once"),
            models.CheckConstraint(
                name="exchange_position_not_neg",
                condition=Q(principal_micro__gte=0, shares_micro__gte=0),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.party_id} in {self.vault_id}"

    @property
    def state(self) -> vault_rules.Position:
        return vault_rules.Position(self.principal_micro, self.shares_micro, self.locked_until_ms)


class Unstaking(BaseModel):
    """Tokens on their way out of a vault: no weight any more, slashable until `ready_at`."""

    vault = models.ForeignKey(Vault, models.PROTECT, related_name="unstakings")
    party = models.ForeignKey(Party, models.PROTECT, related_name="unstakings")
    amount_micro = models.BigIntegerField()
    ready_at = models.DateTimeField()
    released_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                name="exchange_unstaking_not_neg", condition=Q(amount_micro__gte=0)
            ),
        ]
        indexes = [
            models.Index(
                fields=["ready_at"], name="exchange_unstaking_due", condition=Q(released_at=None)
            )
        ]

    def __str__(self) -> str:
        return f"{self.amount_micro} until {self.ready_at}"
