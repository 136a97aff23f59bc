"""Parties, their accounts, and every payment between them, written by the ledger itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from itertools import islice
from typing import Any

from apps.accounts.models import Membership, Party, User
from apps.accounts.selectors import system_party
from apps.explorer.scale.plan import EMAIL, MICRO, Plan
from apps.explorer.scale.rows import digest, fill
from apps.wallets import ledger
from apps.wallets.ledger import Leg
from apps.wallets.log import append_all
from apps.wallets.models import Account, Asset
from apps.wallets.selectors import asset_by_code

BATCH = 1000
SUPPLY_MICRO = 1_000_000 * MICRO
STAKE_MICRO = 100 * MICRO
PRICE_MICRO = MICRO // 2
PLEDGE_MICRO = MICRO


class Money:
    """`people[i]`, `daos[i]` and `holders[number]` (of an escrow) with their accounts."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.protocol = system_party("protocol")
        self.usdc, self.flai = asset_by_code("USDC"), asset_by_code("FLAI")
        self.funded = [*range(plan.objects)] + [
            number for number, course in plan.courses() if course in ("funding", "failed")
        ]
        self.people = [self._party("person", i) for i in range(plan.people)]
        self.daos = [self._party("dao", i) for i in range(plan.objects)]
        self.holders = {number: self._party("holder", number) for number in self.funded}
        self.assets = [
            Asset(
                id=plan.id("asset", i),
                code=f"SDT-m{i}",
                name=f"Model {i}",
                cap_micro=SUPPLY_MICRO,
                created_at=plan.at(i),
            )
            for i in range(plan.objects)
        ]

    def _party(self, kind: str, number: int) -> Party:
        organisation = kind == "person" and number % 2 == 0
        return Party(
            id=self.plan.id("party", kind, number),
            kind={"holder": "system"}.get(kind, "organisation" if organisation else kind),
            name={"person": "Site", "dao": "Model", "holder": "Crowdfund of"}[kind] + f" {number}",
            slug=f"{kind}-{number}",
            pid=digest(self.plan.seed, "pid", kind, number)[:32],
            created_at=self.plan.at(number),
        )

    def open(self) -> None:
        """Write parties, assets and accounts."""
        plan = self.plan
        fill(Party, map(as_row, [*self.people, *self.daos, *self.holders.values()]))
        user = User(id=plan.id("user"), email=EMAIL)
        user.set_unusable_password()
        user.save(force_insert=True)
        Membership.objects.create(user=user, party=self.people[0])
        fill(Asset, map(as_row, self.assets))
        append_all(
            (
                ("wallets.asset", {"id": a.code, "cap_micro": str(a.cap_micro)}, None)
                for a in self.assets
            ),
            now=plan.at(0),
        )
        fill(Account, map(as_row, self._accounts()))

    def account(self, owner: Party, asset: Asset, purpose: str) -> Account:
        return Account(
            id=self.plan.id("account", owner.id, asset.code, purpose),
            owner=owner,
            asset=asset,
            purpose=purpose,
            floor_micro=-asset.cap_micro if purpose == "issuance" else 0,
            created_at=owner.created_at,
        )

    def _accounts(self) -> Iterator[Account]:
        for person in self.people:
            yield self.account(person, self.usdc, "main")
            yield self.account(person, self.flai, "staked")
        for i, dao in enumerate(self.daos):
            yield self.account(self.people[i], self.assets[i], "main")
            yield self.account(self.protocol, self.assets[i], "issuance")
            for purpose in ("treasury", "revenue"):
                yield self.account(dao, self.usdc, purpose)
            yield self.account(dao, self.assets[i], "treasury")
        for holder in self.holders.values():
            yield self.account(holder, self.usdc, "escrow")

    def pay(self) -> None:
        """Issue, stake, fund and award; every query's hold is another matter (`holds`)."""
        steps = (self._issued(), self._pledged(), self._awarded())
        for place, legs in enumerate(steps):
            for batch in batches(legs):
                ledger.post(batch, now=self.plan.at(place))

    def _issued(self) -> Iterator[Leg]:
        usdc, flai = (self._issuance(asset) for asset in (self.usdc, self.flai))
        for i, person in enumerate(self.people):
            amount = (100 + (2 * self.plan.objects if i == 0 else 0)) * MICRO
            main = self.account(person, self.usdc, "main")
            yield self._leg("faucet", i, usdc, main, amount, "wallets.faucet")
            staked = self.account(person, self.flai, "staked")
            yield self._leg("stake", i, flai, staked, STAKE_MICRO, "wallets.mint")

    def _issuance(self, asset: Asset) -> Account:
        return Account.objects.select_related("owner", "asset").get(asset=asset, purpose="issuance")

    def pledges(self) -> Iterator[tuple[int, int]]:
        """(request, person) of every pledge of PLEDGE_MICRO; the heavy request has half of them.

        Those that failed got none.
        """
        heavy = self.plan.first("funding")
        funding = (number for number, course in self.plan.courses() if course == "funding")
        for number in (*range(self.plan.objects), *funding):
            people = range(self.plan.half) if number == heavy else [number % self.plan.people]
            yield from ((number, person) for person in people)

    def _pledged(self) -> Iterator[Leg]:
        for number, person in self.pledges():
            source = self.account(self.people[person], self.usdc, "main")
            target = self.account(self.holders[number], self.usdc, "escrow")
            yield self._leg("pledge", (number, person), source, target, PLEDGE_MICRO, "rfms.pledge")

    def _awarded(self) -> Iterator[Leg]:
        for i, dao in enumerate(self.daos):
            escrow = self.account(self.holders[i], self.usdc, "escrow")
            treasury = self.account(dao, self.usdc, "treasury")
            yield self._leg("award", i, escrow, treasury, PLEDGE_MICRO, "rfms.award")
            asset = self.assets[i]
            issuance = self.account(self.protocol, asset, "issuance")
            for owner, purpose, part in ((self.people[i], "main", 6), (dao, "treasury", 4)):
                target = self.account(owner, asset, purpose)
                amount = SUPPLY_MICRO * part // 10
                yield self._leg("mint", (i, part), issuance, target, amount, "wallets.mint")

    def queries(self) -> Iterator[tuple[int, int, int]]:
        """(query, buyer, SubDAO): person 0 buys every second, SubDAO 0 sells two of four."""
        for q in range(self.plan.objects):
            yield q, 0 if q % 2 == 0 else q, 0 if q % 4 < 2 else q

    def hold(self) -> None:
        """Hold the price of each query, then pay it or, for each tenth, release it."""
        for batch in batches(self.queries()):
            at = self.plan.at(batch[-1][0])
            legs = [self._query_leg(*query) for query in batch]
            held = ledger.pend_all(legs, expires_at=at + timedelta(hours=1), now=at)
            for released in (False, True):
                ended = [
                    transfer
                    for (q, _, _), transfer in zip(batch, held, strict=True)
                    if self.is_released(q) == released
                ]
                ledger.resolve_all(ended, paid=not released, now=at + timedelta(seconds=1))

    @staticmethod
    def is_released(query: int) -> bool:
        """Each tenth was not answered, and not paid."""
        return query % 10 == 9

    def _query_leg(self, q: int, buyer: int, dao: int) -> Leg:
        return self._leg(
            "hold",
            q,
            self.account(self.people[buyer], self.usdc, "main"),
            self.account(self.daos[dao], self.usdc, "revenue"),
            PRICE_MICRO,
            "listings.query",
            ref=("listings.query", self.plan.id("query", q)),
        )

    def _leg(
        self,
        what: str,
        number: Any,
        debit: Account,
        credit: Account,
        amount_micro: int,
        kind: str,
        ref: Any = None,
    ) -> Leg:
        return Leg(debit, credit, amount_micro, kind, id=self.plan.id(what, number), ref=ref)


def as_row(instance: Any) -> dict[str, Any]:
    return {f.attname: getattr(instance, f.attname) for f in instance._meta.concrete_fields}


def batches(items: Iterable[Any], size: int = BATCH) -> Iterator[Sequence[Any]]:
    stream = iter(items)
    while batch := list(islice(stream, size)):
        yield batch
