"""What the closed epochs of the heavy SubDAO owe: rows and trees; nothing is claimed yet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from apps.explorer.scale.money import Money
from apps.explorer.scale.plan import MICRO, Plan
from apps.explorer.scale.rows import fill
from apps.listings.models import Closing, Entitlement, EntitlementNode
from apps.protocol import entitlements as rules
from apps.protocol import merkle
from apps.protocol.revenue import HOLDER

Row = dict[str, Any]
OWED_MICRO = MICRO // 100


class Payouts:
    """Each closed epoch owes person 0 something; the last one, everybody.

    `trees`: (epoch id, entitlements in their order, size, frontier, nodes), the first epoch first.
    """

    def __init__(self, plan: Plan, money: Money) -> None:
        self.parties = {person.pid: person.id for person in money.people}
        self.trees = [self._tree(plan, money, number) for number in range(1, plan.half + 1)]

    def _tree(self, plan: Plan, money: Money, number: int) -> Any:
        epoch_id, last = plan.id("epoch", 0, number), number == plan.half
        people = money.people[: plan.objects if last else 1]
        owed = sorted(rules.Entitlement("USDC", HOLDER, p.pid, OWED_MICRO) for p in people)
        leaves = (rules.leaf_hash(str(epoch_id), one) for one in owed)
        return epoch_id, owed, *merkle.extend(0, [], leaves)

    def settlement(self, number: int) -> Row:
        _, _, size, frontier, _ = self.trees[number - 1]
        return {
            "revenue_micro": str(size * OWED_MICRO),
            "treasury_micro": "0",
            "owed_micro": {HOLDER: str(size * OWED_MICRO)},
            "entitled": size,
            "root": merkle.frontier_root(frontier).hex(),
        }

    def write(self) -> None:
        fill(Entitlement, self._entitlements())
        fill(EntitlementNode, self._nodes())
        fill(Closing, self._closings())

    def _entitlements(self) -> Iterator[Row]:
        for epoch_id, owed, *_ in self.trees:
            for one in owed:
                yield {
                    "epoch_id": epoch_id,
                    "party_id": self.parties[one.pid],
                    "pid": one.pid,
                    "role": one.role,
                    "asset": one.asset,
                    "amount_micro": one.amount_micro,
                }

    def _nodes(self) -> Iterator[Row]:
        least = EntitlementNode.LEVEL
        for epoch_id, owed, _, _, nodes in self.trees:
            for level, index, hash_ in nodes:
                if level >= least:
                    last = owed[((index + 1) << least) - 1].key if level == least else ()
                    yield {
                        "epoch_id": epoch_id,
                        "level": level,
                        "index": index,
                        "hash": hash_,
                        "last": " ".join(last),
                    }

    def _closings(self) -> Iterator[Row]:
        for epoch_id, _, size, frontier, _ in self.trees:
            yield {
                "epoch_id": epoch_id,
                "step": Closing.Step.DONE.value,
                "plan": "{}",
                "sdt_micro": size * OWED_MICRO,
                "entitled_micro": size * OWED_MICRO,
                "size": size,
                "frontier": b"".join(frontier),
                "root": merkle.frontier_root(frontier).hex(),
            }
