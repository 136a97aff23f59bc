"""Claiming what an epoch owes: one look-up, one transfer an entitlement, and the proof of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet, Sum

from apps.accounts.models import Party
from apps.core.errors import Conflict, NotFound
from apps.core.transactions import durable
from apps.listings import closing
from apps.listings.models import Closing, Entitlement, EntitlementBlock, PayoutChoice
from apps.protocol import entitlements as rules
from apps.protocol import merkle
from apps.protocol.revenue import ROLES
from apps.subdaos.models import Epoch
from apps.wallets.models import Transfer

Json = dict[str, Any]


def epoch_get(epoch_id: UUID) -> Epoch:
    """Raises NotFound."""
    found = Epoch.objects.select_related("dao__party", "dao__asset").filter(pk=epoch_id).first()
    if found is None:
        raise NotFound("epoch_not_found", "There is no such epoch.")
    return found


def payee_by_pid(pid: str) -> Party:
    """Raises NotFound."""
    found = Party.objects.filter(pid=pid).first()
    if found is None:
        raise NotFound("party_not_found", "There is nobody with this pid.")
    return found


def claim(*, epoch_id: UUID, party: Party, now: datetime) -> list[Transfer]:
    """Pay `party` all that this epoch owes it; again: the transfers that did.

    Raises: NotFound, Conflict (epoch_not_divided, nothing_owed).
    """
    epoch = epoch_get(epoch_id)
    if epoch.settlement is None:
        raise Conflict("epoch_not_divided", "What this epoch owes to whom is not known yet.")
    with durable():
        rows = list(owed(epoch, party).select_related("party").select_for_update(of=("self",)))
        if not rows:
            raise Conflict("nothing_owed", "This epoch owes you nothing.")
        due = [row for row in rows if row.claimed_at is None]
        if due:
            return closing.pay(epoch, due, now=now)
        return list(
            Transfer.objects.select_related(
                "debit__owner", "debit__asset", "credit__owner", "credit__asset"
            ).filter(id__in=[transfer_id(row) for row in rows])
        )


def payouts_choose(*, party: Party, auto: bool | None) -> None:
    """Whether the party is paid without asking; None leaves it to each epoch's size."""
    with durable():
        if auto is None:
            PayoutChoice.objects.filter(party=party).delete()
        else:
            PayoutChoice.objects.update_or_create(party=party, defaults={"auto": auto})


def payouts_choice(party: Party) -> bool | None:
    return PayoutChoice.objects.filter(party=party).values_list("auto", flat=True).first()


def owed(epoch: Epoch, party: Party) -> QuerySet[Entitlement]:
    """What a divided epoch owes or owed to one party, in the order of the tree."""
    rows = Entitlement.objects.filter(
        epoch=epoch, asset__in=closing.assets_of(epoch), role__in=ROLES, pid=party.pid
    ).filter(amount_micro__gt=0)
    return rows.order_by("asset", "role", "pid")


def entitled(epoch: Epoch) -> QuerySet[Entitlement]:
    """Everybody whom a divided epoch owes or owed something; for one page of them, each party is
    read, not for the order of them all."""
    rows = Entitlement.objects.filter(epoch=epoch, amount_micro__gt=0)
    return rows.prefetch_related("party")


def claimable(party: Party) -> QuerySet[Entitlement]:
    """What waits for `party` in all divided epochs, newest first."""
    return (
        Entitlement.objects.filter(
            party=party,
            claimed_at=None,
            amount_micro__gt=0,
            epoch__settlement__isnull=False,
        )
        .select_related("epoch__dao")
        .only(
            "asset",
            "role",
            "amount_micro",
            "pid",
            "claimed_at",
            "epoch__number",
            "epoch__dao__slug",
            "epoch__dao__name",
        )
        .order_by("-epoch__ends_at", "asset", "role")
    )


def claimed_micro(epoch: Epoch, asset: str = closing.CURRENCY) -> int:
    """How much of what it owes was paid."""
    rows = Entitlement.objects.filter(epoch=epoch, asset=asset).exclude(claimed_at=None)
    return int(rows.aggregate(sum=Sum("amount_micro"))["sum"] or 0)


def transfer_id(row: Entitlement) -> UUID:
    return rules.payment_id(row.epoch_id, asset=row.asset, role=row.role, pid=row.pid)


def epoch_json(epoch: Epoch) -> Json:
    """An epoch's totals; `settlement` is the body of its leaf, null until it is divided."""
    return {
        "id": str(epoch.id),
        "subdao": epoch.dao.slug,
        "number": epoch.number,
        "starts_at": epoch.starts_at,
        "ends_at": epoch.ends_at,
        "closed_at": epoch.closed_at,
        "revenue_micro": str(epoch.revenue_micro),
        "settlement": epoch.settlement,
    }


def entitlement_json(row: Entitlement) -> Json:
    return {
        "pid": row.pid,
        "role": row.role,
        "asset": row.asset,
        "amount_micro": str(row.amount_micro),
        "claimed_at": row.claimed_at,
        "transfer_id": str(transfer_id(row)) if row.claimed_at else None,
    }


def proof(row: Entitlement) -> Json:
    """{index, size, path, root}: this entitlement is a leaf of the tree that the log names.

    Costs the leaves of one block and the hashes of the others, not the whole tree.
    """
    tree = Closing.objects.get(pk=row.epoch_id)
    key = " ".join((row.asset, row.role, row.pid))
    blocks = EntitlementBlock.objects.filter(epoch=row.epoch_id).order_by("number")
    known = list(blocks.values_list("first", "hash"))
    mine = max(number for number, (first, _) in enumerate(known) if first <= key)
    leaves = _leaves(row.epoch_id, known[mine][0])
    before = mine * EntitlementBlock.LEAVES
    index = before + [key for key, _ in leaves].index(key)
    full = [bytes(hash_) for _, hash_ in known if hash_]
    table = _hashes(tree, mine, [hash_ for _, hash_ in leaves], full)
    ranges = merkle.inclusion_ranges(index, tree.size)
    path = merkle.proof(ranges, lambda level, place: table[level, place])
    return {
        "index": index,
        "size": tree.size,
        "path": [hash_.hex() for hash_ in path],
        "root": tree.root,
    }


def _leaves(epoch_id: UUID, first: str) -> list[tuple[str, bytes]]:
    """(key, hash) of the leaves of the block that begins with the key `first`."""
    asset, role, pid = first.split(" ")
    hash_ = closing.LEAF_HASH.format(amount="amount_micro")
    statement = (
        f"SELECT asset || ' ' || role || ' ' || pid, {hash_}"
        " FROM listings_entitlement WHERE epoch_id = %(epoch)s AND amount_micro > 0"
        " AND (asset, role, pid) >= (%(asset)s, %(role)s, %(pid)s)"
        " ORDER BY asset, role, pid LIMIT %(leaves)s"
    )
    with transaction.atomic():
        rows = closing.run(
            statement,
            epoch=str(epoch_id),
            asset=asset,
            role=role,
            pid=pid,
            leaves=EntitlementBlock.LEAVES,
        )
    return [(key, bytes(leaf)) for key, leaf in rows]


def _hashes(
    tree: Closing, mine: int, leaves: Sequence[bytes], blocks: Sequence[bytes]
) -> dict[merkle.Place, bytes]:
    """{(level, index): hash} of all that a proof from block `mine` can need.

    leaves: the hashes of that block; blocks: those of all that are full.
    """
    level = EntitlementBlock.LEVEL
    table = dict(zip(merkle.peaks(tree.size), closing.cut(bytes(tree.frontier)), strict=True))
    before = mine << level
    table |= {(0, before + i): hash_ for i, hash_ in enumerate(leaves)}
    _, _, nodes = merkle.extend(0, [], leaves)
    table |= {(up, (before >> up) + i): hash_ for up, i, hash_ in nodes}
    table |= {(level, i): hash_ for i, hash_ in enumerate(blocks)}
    _, _, nodes = merkle.extend(0, [], blocks)
    return table | {(level + up, i): hash_ for up, i, hash_ in nodes}
