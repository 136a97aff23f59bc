"""Pools and vaults on PostgreSQL against the pure rules, any history: what the rules give stands in
the rows, what they refuse is refused by the same name, and the log replays to the same state."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

import pytest
from django.db import transaction
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

from apps.accounts.models import Party
from apps.core.errors import DomainError
from apps.core.transactions import _joinable
from apps.exchange import pools, vaults
from apps.exchange.models import Pool, PoolEvent, Vault, VaultPosition
from apps.protocol import pool as pool_rules
from apps.protocol import vault as vault_rules
from apps.wallets.invariants import violations
from apps.wallets.selectors import asset_by_code
from tests.exchange.helpers import MICRO, at, has, holder, replayed
from tests.support.examples import examples

EXAMPLES = examples(100)
NAMES = ("ann", "ben", "cid")
names = st.sampled_from(NAMES)
amounts = st.one_of(st.integers(1, 3000), st.integers(1, 50 * MICRO), st.just(2**63 - 1))
CODES: Counter[str] = Counter()


class Exchange(RuleBasedStateMachine):
    """What is there before every history is made once, and each is rolled back to it."""

    people: ClassVar[dict[str, Party]]

    @initialize(base=amounts, quote=amounts)
    def begin(self, base: int, quote: int) -> None:
        self.outer = transaction.atomic()
        self.outer.__enter__()
        self.joined = _joinable.set(True)  # the services' transactions are parts of this one
        self.seconds = 1
        self.pool, self.vault = pool_rules.Pool(), vault_rules.Vault()
        self.stakes = dict.fromkeys(NAMES, vault_rules.Position())
        self.put("ann", base, quote)

    def teardown(self) -> None:
        if not hasattr(self, "outer"):
            return
        try:
            errors = replayed().findings.errors
            broken = {k: v for k, v in violations().items() if v}
            assert (errors, broken) == ([], {})
            assert [p.state for p in Pool.objects.all()] == [self.pool]
            assert [v.state for v in Vault.objects.all()] in ([], [self.vault])
            for position in VaultPosition.objects.select_related("party"):
                assert position.state == self.stakes[position.party.slug]
        finally:
            _joinable.reset(self.joined)
            transaction.set_rollback(True)
            self.outer.__exit__(None, None, None)

    def both(self, name, rules_say, service, asset="base", **args):
        """The service does what the rules say, or refuses by that name, or for want of money."""
        self.seconds += 1
        try:
            change = rules_say(T_MS + self.seconds * 1000)
        except (pool_rules.PoolRule, vault_rules.VaultRule) as broken:
            change, code = None, broken.code
        try:
            service(party=self.people[name], now=at(self.seconds), **{asset: "FLAI"}, **args)
        except DomainError as error:
            CODES[error.code] += 1
            assert error.code == (code if change is None else "insufficient_balance")
            return None
        CODES["done"] += 1
        assert change is not None
        return change

    def put(self, name: str, base: int, quote: int) -> None:
        change = self.both(
            name, lambda ms: pool_rules.add(self.pool, base, quote, at_ms=ms),
            pools.liquidity_add, base_max_micro=base, quote_max_micro=quote,
        )  # fmt: skip
        self.pool = change.pool if change else self.pool

    @rule(name=names, base=amounts, quote=amounts)
    def add(self, name, base, quote):
        self.put(name, base, quote)

    @rule(name=names, part=st.fractions(0, 2))
    def remove(self, name, part):
        held = has(self.people[name], "LP-FLAI")
        shares = int(held * part)
        change = self.both(
            name, lambda ms: pool_rules.remove(self.pool, shares, held=held, at_ms=ms),
            pools.liquidity_remove, shares_micro=shares,
        )  # fmt: skip
        self.pool = change.pool if change else self.pool

    @rule(
        name=names, side=st.sampled_from(["base", "quote"]), amount=amounts,
        least=st.sampled_from([0, 0, 1000]), late=st.booleans(),
    )  # fmt: skip
    def swap(self, name, side, amount, least, late):
        before = self.pool
        deadline = self.seconds + (0 if late else 1)
        change = self.both(
            name,
            lambda ms: pool_rules.swap(
                self.pool, side, amount, out_min=least, at_ms=ms,
                deadline_ms=T_MS + deadline * 1000,
            ),
            pools.swap, side=side, amount_micro=amount, out_min_micro=least,
            deadline=at(deadline),
        )  # fmt: skip
        self.pool = change.pool if change else self.pool
        assert self.pool.k >= before.k

    @rule(name=names, amount=amounts)
    def stake(self, name, amount):
        change = self.both(
            name, lambda ms: vault_rules.stake(self.vault, self.stakes[name], amount),
            vaults.stake, asset="asset", amount_micro=amount,
        )  # fmt: skip
        if change:
            self.vault, self.stakes[name] = change.vault, change.position

    @rule(name=names, part=st.fractions(0, 2))
    def unstake(self, name, part):
        amount = int(vault_rules.worth(self.vault, self.stakes[name]) * part)
        change = self.both(
            name, lambda ms: vault_rules.leave(self.vault, self.stakes[name], amount, at_ms=ms),
            vaults.unstake, asset="asset", amount_micro=amount,
        )  # fmt: skip
        if change:
            self.vault, self.stakes[name] = change.vault, change.position

    @rule(name=names, amount=amounts)
    def reward(self, name, amount):
        after = self.both(
            name, lambda ms: vault_rules.reward(self.vault, amount),
            vaults.reward, asset="asset", amount_micro=amount,
        )  # fmt: skip
        self.vault = after or self.vault

    @rule(days=st.integers(1, 9))
    def time_passes(self, days):
        self.seconds += days * 86_400
        vaults.release_due(now=at(self.seconds))


T_MS = int(at(0).timestamp()) * 1000


@pytest.mark.django_db
def test_pools_and_vaults_on_the_ledger_do_what_the_rules_say():
    CODES.clear()
    joined = _joinable.set(True)
    try:
        with transaction.atomic():
            Exchange.people = {name: holder(name, FLAI=100, USDC=100) for name in NAMES}
            pools._create(asset_by_code("FLAI"), at(0))
    finally:
        _joinable.reset(joined)
    run_state_machine_as_test(
        Exchange,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=10,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=EXAMPLES <= 200,
        ),
    )
    assert CODES["done"] > EXAMPLES
    assert not PoolEvent.objects.exists()  # all of it was rolled back
