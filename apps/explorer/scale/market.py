"""Pools with swaps, vaults with stakes: by the rules, paid by the ledger, written in the log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from uuid import UUID, uuid5

from apps.accounts.models import Party
from apps.core.clock import unix_ms
from apps.exchange.models import Pool, PoolEvent, Vault, VaultPosition
from apps.exchange.pools import REF as POOL_REF
from apps.exchange.pools import leaf_body
from apps.exchange.vaults import REF as VAULT_REF
from apps.explorer.scale.money import BATCH, SUPPLY_MICRO, Money, as_row, batches
from apps.explorer.scale.plan import MICRO, Plan
from apps.explorer.scale.rows import digest, fill
from apps.protocol import consent, pool, vault
from apps.protocol.ledger import AMOUNT_MAX
from apps.wallets import ledger
from apps.wallets.ledger import Leg
from apps.wallets.log import append_all
from apps.wallets.models import Account, Asset

BASE_MICRO = SUPPLY_MICRO * 3 // 10  # half of what a founder has
QUOTE_MICRO = 20 * MICRO
OWN_STAKE_MICRO = 1_000 * MICRO
SWAP_MICRO = STAKE_MICRO = MICRO
LEGS_OF_ONE = 10
Leaf = tuple[str, dict[str, Any], Any]
Step = tuple[list[Leg], Leaf]


class Market:
    """Person i opens pool and vault i. Everybody else buys once and stakes some of what they got:
    half of them in pool and vault 0."""

    def __init__(self, plan: Plan, money: Money) -> None:
        self.plan, self.money = plan, money
        self.pools = [self._pool(i) for i in range(plan.objects)]
        self.vaults = [self._vault(i) for i in range(plan.objects)]
        self.events: list[PoolEvent] = []
        self.positions: list[VaultPosition] = []

    def _pool(self, i: int) -> Pool:
        base, at = self.money.assets[i], self.plan.at(i)
        return Pool(
            id=self.plan.id("pool", i),
            base=base,
            quote=self.money.usdc,
            shares=self._shares("LP", f"Liquidity of {base.code}/USDC", i),
            party=self._party("pool", f"Pool {base.code}/USDC", i),
            created_at=at,
        )

    def _vault(self, i: int) -> Vault:
        asset = self.money.assets[i]
        return Vault(
            id=self.plan.id("vault", i),
            asset=asset,
            shares=self._shares("ST", f"Stake of {asset.code}", i),
            party=self._party("vault", f"Vault {asset.code}", i),
            created_at=self.plan.at(i),
        )

    def _shares(self, prefix: str, name: str, i: int) -> Asset:
        return Asset(
            id=self.plan.id("asset", prefix, i),
            code=f"{prefix}-m{i}",
            name=name,
            cap_micro=AMOUNT_MAX,
            created_at=self.plan.at(i),
        )

    def _party(self, kind: str, name: str, i: int) -> Party:
        return Party(
            id=self.plan.id("party", kind, i),
            kind="system",
            name=name,
            slug=f"{kind}-{i}",
            pid=digest(self.plan.seed, "pid", kind, i)[:32],
            created_at=self.plan.at(i),
        )

    def write(self) -> None:
        """Parties, assets, accounts; then all that happens; then what it came to."""
        both = [*self.pools, *self.vaults]
        fill(Party, (as_row(one.party) for one in both))
        fill(Asset, (as_row(one.shares) for one in both))
        append_all(
            (
                (
                    "wallets.asset",
                    {"id": one.shares.code, "cap_micro": str(one.shares.cap_micro)},
                    None,
                )
                for one in both
            ),
            now=self.plan.at(0),
        )
        fill(Account, map(as_row, self._accounts()))
        for some in batches(range(self.plan.objects), BATCH // LEGS_OF_ONE):
            steps = [step for i in some for step in self._course(i)]
            now = self.plan.at(some[-1])
            ledger.post([leg for legs, _ in steps for leg in legs], now=now)
            append_all((leaf for _, leaf in steps), now=now)
        fill(Pool, map(as_row, self.pools))
        fill(PoolEvent, map(as_row, self.events))
        fill(Vault, map(as_row, self.vaults))
        fill(VaultPosition, map(as_row, self.positions))

    def _accounts(self) -> Iterator[Account]:
        account, protocol = self.money.account, self.money.protocol
        for i, (market, staking) in enumerate(zip(self.pools, self.vaults, strict=True)):
            owner, (buyer, place) = self.money.people[i], self.bought(i)
            for asset in (market.base, market.quote, market.shares):
                yield account(market.party, asset, "pool")
            for shares in (market.shares, staking.shares):
                yield account(protocol, shares, "issuance")
            yield account(owner, market.shares, "main")
            yield account(buyer, self.money.assets[place], "main")
            for party, held in ((owner, staking), (buyer, self.vaults[place])):
                yield account(party, held.asset, "staked")
                yield account(party, held.shares, "vault")

    def bought(self, i: int) -> tuple[Party, int]:
        """(buyer, number of the pool) of the `i`th swap; of every second, the heavy pool."""
        return self.money.people[i + 1], 0 if i % 2 == 0 else i

    def _course(self, i: int) -> Iterator[Step]:
        """What there is at the `i`th moment: a pool and a vault open, somebody buys and stakes."""
        owner, market, staking = self.money.people[i], self.pools[i], self.vaults[i]
        at_ms = unix_ms(self.plan.at(i))
        facts = {"id": str(market.id), "pool": market.party.pid, "base": market.base.code}
        yield (
            [],
            (
                "exchange.pool_opened",
                facts | {"quote": market.quote.code, "shares": market.shares.code},
                None,
            ),
        )
        # Deep enough that half of all swaps move its price by less than threefold.
        quote_micro = self.plan.objects * MICRO if i == 0 else QUOTE_MICRO
        asked = consent.add_payload(
            base=market.base.code,
            base_max_micro=BASE_MICRO,
            quote_max_micro=quote_micro,
            shares_min_micro=0,
        )
        added = pool.add(market.state, BASE_MICRO, quote_micro, at_ms=at_ms)
        yield self._changed(market, owner, self.plan.id("liquidity", i), "add", added, asked)
        facts = {"id": str(staking.id), "vault": staking.party.pid, "asset": staking.asset.code}
        yield [], ("exchange.vault_opened", facts | {"shares": staking.shares.code}, None)
        yield self._staked(staking, owner, self.plan.id("own stake", i), OWN_STAKE_MICRO)

        buyer, place = self.bought(i)
        market, staking = self.pools[place], self.vaults[place]
        asked = consent.swap_payload(
            base=market.base.code, side=pool.QUOTE, amount_micro=SWAP_MICRO, out_min_micro=0
        )
        given = pool.swap(market.state, pool.QUOTE, SWAP_MICRO, at_ms=at_ms)
        yield self._changed(market, buyer, self.plan.id("swap", i), "swap", given, asked)
        yield self._staked(staking, buyer, self.plan.id("staked", i), STAKE_MICRO)

    def _changed(
        self,
        market: Pool,
        party: Party,
        id_: UUID,
        kind: str,
        change: pool.Change,
        asked: Mapping[str, str],
    ) -> Step:
        """A change of a pool, with the transfers that `apps.exchange.pools` makes of it."""
        after, account = change.pool, self.money.account
        moves = [
            (account(party, asset, "main"), account(market.party, asset, "pool"), micro)
            for asset, micro in ((market.base, change.base), (market.quote, change.quote))
        ]
        moves = [(a, b, micro) if micro > 0 else (b, a, -micro) for a, b, micro in moves]
        moves.sort(key=lambda move: move[0].owner_id != party.id)
        if change.shares:
            issuance = account(self.money.protocol, market.shares, "issuance")
            kept = account(market.party, market.shares, "pool")
            moves.append((issuance, account(party, market.shares, "main"), change.shares))
            moves.append((issuance, kept, pool.MINIMUM_LIQUIDITY))
        legs = [
            Leg(
                id=uuid5(id_, f"leg:{place}") if place else id_,
                debit_account=debit,
                credit_account=credit,
                amount_micro=micro,
                kind=f"exchange.{kind}",
                ref=(POOL_REF, id_),
            )
            for place, (debit, credit, micro) in enumerate(moves)
        ]
        market.base_micro, market.quote_micro = after.base, after.quote
        market.shares_micro, market.area, market.at_ms = after.shares, after.area, after.at_ms
        market.volume_micro += abs(change.quote) if kind == "swap" else 0
        market.events_count += 1
        event = PoolEvent(
            id=id_,
            pool=market,
            number=market.events_count,
            kind=kind,
            party=party,
            base_micro=change.base,
            quote_micro=change.quote,
            shares_micro=change.shares,
            base_after_micro=after.base,
            quote_after_micro=after.quote,
            area=after.area,
            volume_micro=market.volume_micro,
            at_ms=after.at_ms,
        )
        self.events.append(event)
        return legs, ("exchange.pool_changed", leaf_body(event) | {"asked": dict(asked)}, None)

    def _staked(self, staking: Vault, party: Party, id_: UUID, amount_micro: int) -> Step:
        """A party's first stake in a vault that has earned nothing."""
        change = vault.stake(staking.state, vault.Position(), amount_micro)
        staking.assets_micro, staking.shares_micro = change.vault.assets, change.vault.shares
        staking.principal_micro = change.vault.principal
        self.positions.append(
            VaultPosition(
                id=self.plan.id("position", staking.id, party.id),
                vault=staking,
                party=party,
                principal_micro=change.position.principal,
                shares_micro=change.position.shares,
                created_at=self.plan.now,
            )
        )
        account = self.money.account
        main = Leg(
            id=id_,
            debit_account=account(party, staking.asset, "main"),
            credit_account=account(party, staking.asset, "staked"),
            amount_micro=amount_micro,
            kind=consent.STAKE,
            ref=(VAULT_REF, id_),
        )
        made = Leg(
            id=uuid5(id_, "shares"),
            debit_account=account(self.money.protocol, staking.shares, "issuance"),
            credit_account=account(party, staking.shares, "vault"),
            amount_micro=change.shares,
            kind="exchange.shares",
            ref=main.ref,
        )
        body = {
            "id": str(id_),
            "vault": staking.party.pid,
            "kind": "stake",
            "party": party.pid,
            "amount_micro": str(amount_micro),
            "outside_micro": "0",
            "earned_micro": "0",
            "shares_micro": str(change.shares),
            "locked_until_ms": "0",
        }
        return [main, made], ("exchange.vault_changed", body, None)
