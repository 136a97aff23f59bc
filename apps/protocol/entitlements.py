"""What an epoch owes to whom, as the leaves of one Merkle tree.

    leaf = canonical({"v":1, "epoch", "pid", "role", "asset", "amount_micro"})
    root = MTH(leaves)                                                  (RFC 9162 §2.1.1)

One leaf a payee, role and asset, sorted by (asset, role, pid) as bytes; no amount is zero. The
epoch's entry in the log carries the root, so that a payee proves its part by O(log n) hashes, and
whoever replays the log rebuilds the whole tree. What a SubDAO owes to itself is no entitlement: it
stays with its treasury.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass

from apps.protocol import merkle, wire
from apps.protocol.revenue import Settlement


@dataclass(frozen=True, order=True)
class Entitlement:
    """`amount_micro` of `asset` for `pid` as a member of `role`; sorts as the tree does."""

    asset: str
    role: str
    pid: str
    amount_micro: int

    @property
    def key(self) -> tuple[str, str, str]:
        return (self.asset, self.role, self.pid)


def leaf_bytes(epoch: str, owed: Entitlement) -> bytes:
    """The canonical bytes of one entitlement of the epoch with this id."""
    return wire.canonical(
        {
            "v": 1,
            "epoch": epoch,
            "pid": owed.pid,
            "role": owed.role,
            "asset": owed.asset,
            "amount_micro": str(owed.amount_micro),
        }
    )


def leaf_hash(epoch: str, owed: Entitlement) -> bytes:
    return merkle.leaf_hash(leaf_bytes(epoch, owed))


def entitlements(settlement: Settlement, *, asset: str, own: str) -> list[Entitlement]:
    """What the payees of a settlement other than `own` are owed, in the order of the tree."""
    totals: dict[tuple[str, str], int] = {}
    for payment in settlement.payments:
        if payment.payee != own:
            key = (payment.role, payment.payee)
            totals[key] = totals.get(key, 0) + payment.amount_micro
    return [Entitlement(asset, role, pid, micro) for (role, pid), micro in sorted(totals.items())]


def payment_id(epoch: uuid.UUID, *, asset: str, role: str, pid: str) -> uuid.UUID:
    """The id of the one transfer that may pay this entitlement: a ledger takes an id once."""
    return uuid.uuid5(epoch, f"payee:{asset}:{role}:{pid}")


def treasury_id(epoch: uuid.UUID) -> uuid.UUID:
    """The id of the transfer that gives the treasury what is left over."""
    return uuid.uuid5(epoch, "treasury")


def root(epoch: str, owed: Iterable[Entitlement]) -> str:
    """The root over entitlements in the order of the tree, as hex."""
    _, frontier, _ = merkle.extend(0, [], (leaf_hash(epoch, one) for one in owed))
    return merkle.frontier_root(frontier).hex()
