"""Claiming what an epoch owes: one look-up, one transfer an entitlement, and the proof of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import QuerySet, Sum

from apps.accounts.models import Party
from apps.core.errors import Conflict, DomainError, NotFound
from apps.core.joined import Joined, prepared
from apps.core.transactions import durable
from apps.listings import closing
from apps.listings.models import Entitlement, EntitlementNode, PayoutChoice
from apps.protocol import entitlements as rules
from apps.protocol import merkle
from apps.protocol.revenue import ROLES
from apps.subdaos.models import Epoch
from apps.wallets.models import Transfer

Json = dict[str, Any]
# More than one epoch can owe one party: there are fewer roles and assets.
CLAIMED_AT_ONCE = 10


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


# What a divided epoch owes to one party, locked, and who pays it.
_DUE = Joined(
    """
    FROM subdaos_epoch o JOIN subdaos_dao d ON d.id = o.dao_id
    JOIN wallets_asset s ON s.id = d.asset_id JOIN accounts_party p ON p.id = d.party_id
    JOIN listings_entitlement e ON e.epoch_id = o.id AND e.asset IN (%s, s.code)
    WHERE o.id = %s AND o.settlement IS NOT NULL AND e.role = ANY(%s) AND e.pid = %s
        AND e.amount_micro > 0
    ORDER BY e.asset, e.role FOR UPDATE OF e
    """,
    e=Entitlement,
    p=Party,
)


def claim(*, epoch_id: UUID, party: Party, now: datetime) -> list[Transfer]:
    """Pay `party` all that this epoch owes it; again: the transfers that did.

    Raises: NotFound, Conflict (epoch_not_divided, nothing_owed).
    """
    with durable():
        found = _DUE.all(closing.CURRENCY, epoch_id, list(ROLES), party.pid)
        if not found:
            if epoch_get(epoch_id).settlement is None:
                raise Conflict(
                    "epoch_not_divided", "What this epoch owes to whom is not known yet."
                )
            raise Conflict("nothing_owed", "This epoch owes you nothing.")
        due = [row for row, _ in found if row.claimed_at is None]
        if due:
            for row in due:
                row.party = party
            return closing.pay(found[0][1], due, now=now)
        return list(
            Transfer.objects.select_related(
                "debit__owner", "debit__asset", "credit__owner", "credit__asset"
            ).filter(id__in=[transfer_id(row) for row, _ in found])
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


def claim_each(
    *, epoch_ids: Sequence[UUID], party: Party, now: datetime
) -> tuple[list[Transfer], list[DomainError]]:
    """Claim what these epochs owe, each by itself: (what was paid, why the others were not).

    Raises: the first reason, when nothing was paid.
    """
    paid: list[Transfer] = []
    refused: list[DomainError] = []
    for epoch_id in dict.fromkeys(epoch_ids):
        try:
            paid += claim(epoch_id=epoch_id, party=party, now=now)
        except DomainError as error:
            refused.append(error)
    if refused and not paid:
        raise refused[0]
    return paid, refused


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
        .order_by("-epoch__ends_at", "epoch_id", "asset", "role")
    )


def claimable_now(party: Party) -> tuple[list[Entitlement], bool]:
    """(what the newest epochs owe `party`, whole epochs only; whether more waits behind them)."""
    rows = list(claimable(party)[: CLAIMED_AT_ONCE + 1])
    if len(rows) <= CLAIMED_AT_ONCE:
        return rows, False
    return [row for row in rows if row.epoch_id != rows[-1].epoch_id], True


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


# The block of the key, its leaves, and each full subtree that is the sibling of one above it.
_PROOF = f"""
WITH before AS (
    SELECT index + 1 AS block, string_to_array(last, ' ') AS key FROM listings_entitlementnode
    WHERE epoch_id = %(epoch)s AND last <> '' AND last < %(key)s ORDER BY last DESC LIMIT 1
), leaves AS (
    SELECT {closing.KEY} AS key, {closing.LEAF_HASH} AS hash FROM listings_entitlement
    WHERE epoch_id = %(epoch)s AND amount_micro > 0 AND (asset, role, pid)
        > (coalesce((SELECT key[1] FROM before), ''), coalesce((SELECT key[2] FROM before), ''),
            coalesce((SELECT key[3] FROM before), ''))
    ORDER BY asset, role, pid LIMIT %(leaves)s::int
), beside AS (
    SELECT n.level, n.index, n.hash
    FROM generate_series(0, 40) AS up JOIN listings_entitlementnode n
        ON n.epoch_id = %(epoch)s AND n.level = up + %(level)s::int
            AND n.index = (coalesce((SELECT block FROM before), 0) >> up) # 1
)
SELECT c.size, c.root, c.frontier, coalesce((SELECT block FROM before), 0), l.*, b.*
FROM listings_closing c,
    (SELECT array_agg(key ORDER BY key), string_agg(hash, '' ORDER BY key) FROM leaves) l,
    (SELECT array_agg(level), array_agg(index), string_agg(hash, '') FROM beside) b
WHERE c.epoch_id = %(epoch)s
"""


def proof(row: Entitlement) -> Json:
    """{index, size, path, root}: this entitlement is a leaf of the tree that the log names.

    Costs the leaves of one block and O(log n) stored hashes, in one round trip.
    """
    key = " ".join((row.asset, row.role, row.pid))
    values = {"epoch": row.epoch_id, "key": key, "level": EntitlementNode.LEVEL}
    [found] = prepared(_PROOF, values | {"leaves": EntitlementNode.LEAVES})
    size, root, frontier, block, keys, hashes, *beside = found
    before = block << EntitlementNode.LEVEL
    leaves = closing.cut(bytes(hashes))
    table = dict(zip(merkle.peaks(size), closing.cut(bytes(frontier)), strict=True))
    table |= {(0, before + i): hash_ for i, hash_ in enumerate(leaves)}
    _, _, nodes = merkle.extend(0, [], leaves)
    table |= {(up, (before >> up) + i): hash_ for up, i, hash_ in nodes}
    if beside[0]:
        levels, places, known = beside
        table |= dict(zip(zip(levels, places), closing.cut(bytes(known)), strict=True))
    index = before + keys.index(key)
    path = merkle.proof(merkle.inclusion_ranges(index, size), lambda *place: table[place])
    return {"index": index, "size": size, "path": [hash_.hex() for hash_ in path], "root": root}
