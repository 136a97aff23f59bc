"""wallets_write against the pure rules: the same moves, the same outcome, the same balances.

A machine draws groups of moves of every phase on a few accounts of two assets (two issuers each, so
that balances reach 2^63 − 1; one account that gets closed), with amounts at and beyond the edges,
retries with the same and with other fields, holds that expire. What the model refuses, the function
must refuse with that name and write nothing; what it allows must be in the rows.
"""

from __future__ import annotations

import uuid
from collections import Counter

import pytest
from django.db import connection, transaction
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from apps.core.errors import DomainError
from apps.protocol import ledger as rules
from apps.protocol.ledger import AMOUNT_MAX, Balance, Move, RuleBroken
from apps.wallets import ledger, log, services
from apps.wallets.invariants import INVARIANTS, validate_supplies_within_caps
from apps.wallets.models import Account, Transfer
from tests.support.examples import examples
from tests.wallets.ledger_helpers import at, party

EXAMPLES = examples(100)
REFUSALS = {
    "transfer_conflict", "hold_resolved", "hold_expired", "amount_not_positive", "amount_too_large",
    "same_account", "asset_mismatch", "account_closed", "post_over_hold", "insufficient_balance",
    "balance_overflow",
}  # fmt: skip
NAMES = {"cap_exceeded": "insufficient_balance"}
AMOUNTS = st.one_of(
    st.integers(1, 12),
    st.sampled_from([0, -1, AMOUNT_MAX // 2, AMOUNT_MAX - 1, AMOUNT_MAX, AMOUNT_MAX + 1, 2**200]),
)
MOVES = st.tuples(
    st.sampled_from(["single", "single", "single", "pend", "post", "void"]),
    st.integers(0, 10),
    st.integers(0, 10),
    AMOUNTS,
)
PLACES = [("i", 0), ("j", 0), ("a", 0), ("b", 0), ("c", 0), ("i", 1), ("j", 1), ("a", 1), ("b", 1)]


State = tuple[dict, dict[uuid.UUID, Transfer], dict[uuid.UUID, Transfer]]
CODES: Counter[str] = Counter()


class HotWrite(RuleBasedStateMachine):
    """Rows on one side, `model` and `written` on the other."""

    @initialize()
    def begin(self) -> None:
        self.outer = transaction.atomic()
        self.outer.__enter__()
        with transaction.atomic():
            assets = [
                services.asset_create(code=code, name=code, cap_micro=AMOUNT_MAX, now=at(0))
                for code in ("FUZZ-0", "FUZZ-1")
            ]
            owners = {slug: party(f"fuzz-{slug}") for slug in "ijabc"}
            self.accounts = [
                Account.objects.create(
                    owner=owners[slug],
                    asset=assets[k],
                    purpose="issuance" if slug in "ij" else "main",
                    floor_micro=-AMOUNT_MAX if slug in "ij" else 0,
                )
                for slug, k in PLACES
            ]
        self.model = {a.id: Balance(a.asset_id, floor_micro=a.floor_micro) for a in self.accounts}
        self.written: dict[uuid.UUID, Transfer] = {}
        self.groups: list[list[Transfer]] = []
        self.open: dict[uuid.UUID, Transfer] = {}
        self.clock = 1

    def teardown(self) -> None:
        if hasattr(self, "outer"):
            # Two issuers of one asset are this test's own, to reach 2^63 − 1.
            checks = (c for c in INVARIANTS if c is not validate_supplies_within_caps)
            breaches = [breach for check in checks for breach in check()]
            transaction.set_rollback(True)
            self.outer.__exit__(None, None, None)
            assert breaches == []

    # ---- what happens ------------------------------------------------------------------------

    @rule(seconds=st.integers(0, 40))
    def time_passes(self, seconds: int) -> None:
        self.clock += seconds

    @rule(moves=st.lists(MOVES, min_size=1, max_size=5), life=st.integers(1, 60))
    def write(self, moves: list[tuple[str, int, int, int]], life: int) -> None:
        """A linked group; a fault anywhere, in the middle too, refuses all of it."""
        group = [self._transfer(*move, life) for move in moves]
        if all(group):
            self._try(group)

    @rule(source=st.integers(0, 8), sink=st.integers(0, 8), amount_micro=st.integers(1, 12))
    def pay(self, source: int, sink: int, amount_micro: int) -> None:
        self._try([self._transfer("single", source, sink, amount_micro, 1)])

    @rule(amount_micro=st.integers(1, 12), asset=st.integers(0, 1), life=st.integers(1, 60))
    def issue_and_hold(self, amount_micro: int, asset: int, life: int) -> None:
        first = 5 * asset
        self._try([self._transfer("single", first, first + 2, amount_micro, 1)])
        self._try([self._transfer("pend", first + 2, first + 3, amount_micro, life)])

    @rule(asset=st.integers(0, 1), amount_micro=st.sampled_from([1, 2, AMOUNT_MAX]))
    def fill_to_the_brim(self, asset: int, amount_micro: int) -> None:
        first = 5 * asset
        self._try([self._transfer("single", first, first + 2, AMOUNT_MAX, 1)])
        self._try([self._transfer("single", first + 1, first + 2, amount_micro, 1)])

    @rule(phase=st.sampled_from(["single", "pend"]), back=st.booleans())
    def use_what_may_be_closed(self, phase: str, back: bool) -> None:
        source, sink = (4, 0) if back else (0, 4)
        self._try([self._transfer(phase, source, sink, 1, 1)])

    @rule(
        which=st.integers(0, 99), share=st.integers(0, 3), phase=st.sampled_from(["post", "void"])
    )
    def resolve(self, which: int, share: int, phase: str) -> None:
        """Any hold that ever was: open, expired, resolved already; in part, in full, over."""
        pends = [t for t in self.written.values() if t.phase == "pend"]
        if not pends:
            return
        pending = pends[which % len(pends)]
        amount_micro = pending.amount_micro
        if phase == "post":
            amount_micro = [amount_micro, max(1, amount_micro // 2), amount_micro + 1, 1][share]
        self._try([self._resolution(pending, phase, amount_micro)])

    @rule(which=st.integers(0, 99))
    def retry(self, which: int) -> None:
        """The same ids and fields: the same rows, and nothing new."""
        if not self.groups:
            return
        group = self.groups[which % len(self.groups)]
        count = _count()
        again = ledger._write([_copy(t) for t in group], now=at(self.clock))
        assert [(t.id, t.created_at) for t in again] == [(t.id, t.created_at) for t in group]
        assert _count() == count

    @rule(which=st.integers(0, 99), change=st.sampled_from(["amount", "memo", "sides", "half"]))
    def retry_with_other_fields(self, which: int, change: str) -> None:
        singles = [g for g in self.groups if g[0].phase == "single"]
        if not singles:
            return
        group = [_copy(t) for t in singles[which % len(singles)]]
        if change == "amount":
            group[0].amount_micro = 1 if group[0].amount_micro != 1 else 2
        elif change == "memo":
            group[0].memo = "another"
        elif change == "sides":
            group[0].debit, group[0].credit = group[0].credit, group[0].debit
        else:
            group.append(self._transfer("single", 0, 2, 1, 1))
        self._refused(group, "transfer_conflict")

    @rule()
    def repeat_an_id_in_a_group(self) -> None:
        one = self._transfer("single", 0, 2, 1, 1)
        self._refused([one, _copy(one)], "transfer_conflict")

    @rule()
    def close(self) -> None:
        """The account `c` of the first asset, when it is empty."""
        account = self.accounts[4]
        balance = self.model[account.id]
        if balance.closed:
            return
        if balance.posted_micro or balance.held_micro:
            with pytest.raises(DomainError, match="account_not_empty"), transaction.atomic():
                services.account_close(account, now=at(self.clock))
            return
        services.account_close(account, now=at(self.clock))
        self.model[account.id] = Balance(account.asset_id, closed=True)

    # ---- what must be true -------------------------------------------------------------------

    @invariant()
    def rows_are_the_model(self) -> None:
        if not hasattr(self, "model"):
            return
        ids = list(self.model)
        rows = Account.objects.filter(id__in=ids).values_list("id", "posted_micro", "held_micro")
        assert {i: (posted, held) for i, posted, held in rows} == {
            i: (b.posted_micro, b.held_micro) for i, b in self.model.items()
        }
        made = dict(Transfer.objects.filter(debit__in=ids).values_list("id", "hold"))
        assert set(made) == set(self.written)
        assert {id_ for id_, hold in made.items() if hold} == set(self.open)

    # ---- both sides --------------------------------------------------------------------------

    def _transfer(
        self, phase: str, source: int, target: int, amount_micro: int, life: int
    ) -> Transfer | None:
        if phase in ("post", "void"):
            if not self.open:
                return None
            pending = list(self.open.values())[source % len(self.open)]
            return self._resolution(
                pending, phase, pending.amount_micro if phase == "void" else amount_micro
            )
        count = len(self.accounts)
        return Transfer(
            id=uuid.uuid4(),
            debit=self.accounts[source % count],
            credit=self.accounts[target % count],
            amount_micro=amount_micro,
            kind="test.pay",
            phase=phase,
            expires_at=at(self.clock + life) if phase == "pend" else None,
        )

    def _resolution(self, pending: Transfer, phase: str, amount_micro: int) -> Transfer:
        return ledger._resolution(pending, Transfer.Phase(phase), amount_micro)

    def _try(self, group: list[Transfer]) -> None:
        wanted = self._expected(group)
        if wanted == "exists":
            again = ledger._write(group, now=at(self.clock))
            assert [t.id for t in again] == [t.id for t in group]
        elif isinstance(wanted, str):
            self._refused(group, wanted)
        else:
            self.model, self.written, self.open = wanted
            ledger._write(group, now=at(self.clock))
            self.groups.append(group)
            for t in group:
                leaf = log.leaf_for(ledger.LEAF_TYPE, t.id)
                assert leaf is not None
                assert bytes(leaf.data) == log.leaf_bytes(
                    ledger.LEAF_TYPE, ledger.leaf_body(t), now=t.created_at
                )

    def _refused(self, group: list[Transfer], code: str) -> None:
        count = _count()
        # A savepoint, so that the holds that were freed on the way are as before.
        with pytest.raises(DomainError) as error, transaction.atomic():
            ledger._write(group, now=at(self.clock))
        CODES[code] += 1
        assert NAMES.get(error.value.code, error.value.code) == code
        assert _count() == count

    def _expected(self, group: list[Transfer]) -> State | str:
        """What is there afterwards, or the code of the refusal."""
        state = (self.model, self.written, self.open)
        outcome = self._outcome(state, group)
        if outcome == "insufficient_balance":
            # Expired holds on the debited accounts are free once a payment needs their money.
            debits = {t.debit_id for t in group}
            free = [
                t
                for t in self.open.values()
                if t.debit_id in debits and t.expires_at <= at(self.clock)
            ]
            if free:
                freed = self._outcome(
                    state, [self._resolution(t, "void", t.amount_micro) for t in free]
                )
                assert not isinstance(freed, str)
                outcome = self._outcome(freed, group)
        return outcome

    def _outcome(self, state: State, group: list[Transfer]) -> State | str:
        model, written, open_ = state
        ids = [t.id for t in group]
        if len(set(ids)) < len(ids):
            return "transfer_conflict"
        taken = [t for t in group if t.id in written]
        for t in taken:
            if (t.phase, t.amount_micro) != (written[t.id].phase, written[t.id].amount_micro):
                return "hold_resolved"
        if taken:
            return "exists" if len(taken) == len(group) else "transfer_conflict"
        if any(t.phase == "post" and t.pending.expires_at <= at(self.clock) for t in group):
            return "hold_expired"
        try:
            model = rules.apply(model, [_move(t) for t in group])
        except RuleBroken as broken:
            return broken.code
        written = written | {t.id: t for t in group}
        open_ = open_ | {t.id: t for t in group if t.phase == "pend"}
        for t in group:
            open_.pop(t.pending_id, None)
        return model, written, open_


def _count() -> tuple[int, int]:
    """How many transfers and leaves there are."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT (SELECT count(*) FROM wallets_transfer), (SELECT count(*) FROM wallets_logleaf)"
        )
        transfers, leaves = cursor.fetchone()
    return transfers, leaves


def _copy(t: Transfer) -> Transfer:
    fields = {f.attname: getattr(t, f.attname) for f in Transfer._meta.concrete_fields}
    made = Transfer(**fields)
    made.debit, made.credit = t.debit, t.credit
    return made


@pytest.mark.django_db
def test_the_function_does_what_the_rules_say():
    run_state_machine_as_test(
        HotWrite,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=13,
            deadline=None,
            derandomize=EXAMPLES <= 100,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.django_db
def test_the_machine_meets_every_refusal():
    CODES.clear()
    machine = HotWrite()
    machine.begin()
    machine.issue_and_hold(5, 0, 10)
    for moves in (
        [("single", 0, 2, 0)],
        [("single", 0, 2, 9), ("single", 0, 2, -1)],
        [("single", 0, 2, AMOUNT_MAX + 1)],
        [("single", 2, 2, 1)],
        [("single", 0, 2, 9), ("single", 0, 7, 1)],
        [("single", 0, 2, 5), ("single", 2, 3, 6), ("single", 0, 2, 5)],
    ):
        machine.write(moves, 1)
    machine.resolve(0, 2, "post")
    machine.time_passes(10)
    machine.resolve(0, 0, "post")
    machine.resolve(0, 0, "void")
    machine.resolve(0, 0, "post")
    machine.retry(0)
    machine.retry_with_other_fields(0, "sides")
    machine.fill_to_the_brim(1, 1)
    machine.close()
    machine.use_what_may_be_closed("single", back=False)
    machine.rows_are_the_model()
    machine.teardown()
    assert set(CODES) == REFUSALS


def _move(t: Transfer) -> Move:
    hold_micro = t.pending.amount_micro if t.pending_id else 0
    return Move(t.debit_id, t.credit_id, t.amount_micro, str(t.phase), hold_micro)
