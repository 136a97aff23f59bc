"""Reads of balances, now and at a time."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from django.db import connection
from django.db.models import Count, F, Prefetch, Q, QuerySet, Sum
from django.db.models.functions import Coalesce

from apps.accounts.models import Party
from apps.core.errors import NotFound
from apps.wallets.models import Account, Asset, Hold, Transfer

# Posted balance at a time: today's balance less what was posted since, in one statement (one
# snapshot). Snapshots are recent, so this reads few transfers however old the account is.
_AT = """
SELECT a.owner_id, SUM(a.posted_micro
    - COALESCE((SELECT SUM(t.amount_micro) FROM wallets_transfer t WHERE t.credit_id = a.id
                AND t.created_at > %(at)s AND t.phase IN ('single', 'post')), 0)
    + COALESCE((SELECT SUM(t.amount_micro) FROM wallets_transfer t WHERE t.debit_id = a.id
                AND t.created_at > %(at)s AND t.phase IN ('single', 'post')), 0))::bigint
FROM wallets_account a
WHERE a.asset_id = %(asset)s AND a.purpose = ANY(%(purposes)s)
    AND (%(owner)s::uuid IS NULL OR a.owner_id = %(owner)s)
GROUP BY a.owner_id
"""


@dataclass(frozen=True)
class WalletLine:
    """One account as its owner sees it; `held_micro` without holds that have expired."""

    asset: str
    purpose: str
    posted_micro: int
    held_micro: int

    @property
    def available_micro(self) -> int:
        return self.posted_micro - self.held_micro


def asset_by_code(code: str) -> Asset:
    """Raises NotFound."""
    asset = Asset.objects.filter(code=code).first()
    if asset is None:
        raise NotFound("asset_not_found", "There is no such asset.")
    return asset


def balance_at(party: Party, asset: Asset | str, purposes: Sequence[str], at: datetime) -> int:
    """Posted micro-units that `party` had on its accounts of these purposes at a time (≤ `at`)."""
    return _posted_at(asset, purposes, at, party.id).get(party.id, 0)


def supply_weights(
    asset: Asset | str, purposes: Sequence[str], at: datetime
) -> dict[uuid.UUID, int]:
    """{party id: posted micro-units at a time}, all parties with more than nothing."""
    return _posted_at(asset, purposes, at, None)


def _posted_at(
    asset: Asset | str, purposes: Sequence[str], at: datetime, owner: uuid.UUID | None
) -> dict[uuid.UUID, int]:
    asset = asset_by_code(asset) if isinstance(asset, str) else asset
    with connection.cursor() as cursor:
        cursor.execute(
            _AT, {"at": at, "asset": asset.id, "purposes": list(purposes), "owner": owner}
        )
        return {party_id: micro for party_id, micro in cursor.fetchall() if micro > 0}


def wallet(party: Party, *, now: datetime) -> list[WalletLine]:
    """All accounts of a party, by asset and purpose; expired holds count as free."""
    expired = Coalesce(Sum("holds__amount_micro", filter=Q(holds__expires_at__lte=now)), 0)
    accounts = Account.objects.filter(owner=party).annotate(expired_micro=expired)
    lines = accounts.order_by("asset__code", "purpose").values_list(
        "asset__code", "purpose", "posted_micro", F("held_micro") - F("expired_micro")
    )
    return [WalletLine(*line) for line in lines]


def holds_of(party: Party, *, now: datetime) -> QuerySet[Hold]:
    """What is held on a party's accounts, with what for and for whom; the next to expire first."""
    rows = Hold.objects.filter(account__owner=party, expires_at__gt=now)
    return rows.select_related("account__asset", "transfer__credit__owner").order_by("expires_at")


def spendable_micro(party: Party, asset: str, *, now: datetime) -> int:
    """What a party's main account of an asset can be debited now, by one query."""
    expired = Sum("holds__amount_micro", filter=Q(holds__expires_at__lte=now))
    mains = Account.objects.filter(owner=party, asset__code=asset, purpose="main")
    found = mains.annotate(expired=expired).first()
    return found.posted_micro - found.held_micro + (found.expired or 0) if found else 0


def available_micro(account: Account, *, now: datetime) -> int:
    """What can be debited now: posted − open holds that have not expired."""
    fresh = Account.objects.get(id=account.id)
    expired = Hold.objects.filter(account=account, expires_at__lte=now)
    freed = expired.aggregate(sum=Sum("amount_micro"))["sum"] or 0
    return fresh.posted_micro - fresh.held_micro + freed


def supply_micro(asset: Asset | str) -> int:
    """What has been issued: −(posted of the issuance account)."""
    asset = asset_by_code(asset) if isinstance(asset, str) else asset
    issued = Account.objects.filter(asset=asset, purpose="issuance")
    return -(issued.aggregate(sum=Sum("posted_micro"))["sum"] or 0)


def transfers_of(
    party: Party,
    *,
    asset: str | None = None,
    kind: str | None = None,
    since: date | None = None,
    until: date | None = None,
) -> QuerySet[Transfer]:
    """The transfers that touch the party's accounts, newest first, with both sides; days are UTC,
    both included.

    The accounts' ids are read first: two index scans find the rows then, however many there are in
    all. Both sides come by a query each, for the rows that are taken only.
    """
    mine = Account.objects.filter(owner=party, **({"asset__code": asset} if asset else {}))
    ids = list(mine.values_list("id", flat=True))
    sides = Account.objects.select_related("owner", "asset").only(
        "purpose", "owner__name", "owner__slug", "owner__pid", "asset__code"
    )
    wanted = {
        "kind": kind,
        "created_at__gte": since and datetime.combine(since, time.min, UTC),
        "created_at__lt": until and datetime.combine(until, time.min, UTC) + timedelta(days=1),
    }
    return (
        Transfer.objects.filter(Q(debit__in=ids) | Q(credit__in=ids))
        .filter(**{name: value for name, value in wanted.items() if value})
        .prefetch_related(Prefetch("debit", sides), Prefetch("credit", sides))
        .order_by("-created_at", "-id")
    )


def holders(asset: Asset | str, purpose: str, *, most: int) -> tuple[int, int, list[Account]]:
    """(parties that have some, what they have in all, the `most` largest accounts), as of now."""
    asset = asset_by_code(asset) if isinstance(asset, str) else asset
    rows = Account.objects.filter(asset=asset, purpose=purpose, posted_micro__gt=0)
    whole = rows.aggregate(count=Count("id"), sum=Sum("posted_micro"))
    largest = rows.select_related("owner").order_by("-posted_micro", "id")[:most]
    return whole["count"], whole["sum"] or 0, list(largest)
