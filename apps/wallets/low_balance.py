"""The balance that a party wants to be warned below, told once whenever it falls below it.

Looked at by the sweep, so that no payment waits for it: a dip that is over within seconds may go
unnoticed. What is held counts as spent, as on every page.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db import connection

from apps.accounts.models import Party
from apps.core.transactions import durable
from apps.notify.models import BALANCE_LOW
from apps.notify.services import tell
from apps.wallets.models import PaymentSettings

ASSET = "USDC"
BILLING_MAX = 400

# Each side of a threshold is written once, by whoever comes first. `b` is as of when the statement
# began: a threshold that was set meanwhile is looked at by the next sweep.
_CROSSED = """
UPDATE wallets_paymentsettings s SET low_since = CASE WHEN b.low THEN %(now)s::timestamptz END
FROM (
    SELECT p.party_id, p.low_micro, COALESCE(a.available, 0) AS available,
        COALESCE(a.available, 0) < p.low_micro AS low
    FROM wallets_paymentsettings p
    LEFT JOIN (
        SELECT owner_id, posted_micro - held_micro AS available FROM wallets_account
        WHERE purpose = 'main' AND asset_id = (SELECT id FROM wallets_asset WHERE code = %(asset)s)
    ) a ON a.owner_id = p.party_id
    WHERE p.low_micro IS NOT NULL
) b
WHERE s.party_id = b.party_id AND (s.low_since IS NULL) = b.low
    AND s.low_micro IS NOT DISTINCT FROM b.low_micro
RETURNING s.party_id, s.low_micro, b.available, b.low
"""


def settings_of(party: Party) -> PaymentSettings:
    """The party's, or those of one that has set nothing."""
    return PaymentSettings.objects.filter(party=party).first() or PaymentSettings(party=party)


def settings_set(
    *, party: Party, low_micro: int | None, billing: str, now: datetime
) -> PaymentSettings:
    """low_micro: warn below so many micro-units of USDC; None: never. billing: name, address and
    tax number as invoices shall give them; the log has none of it."""
    with durable():
        found, _ = PaymentSettings.objects.select_for_update().get_or_create(party=party)
        if found.low_micro != low_micro:
            found.low_since = None  # another threshold is another crossing
        found.low_micro, found.billing = low_micro, billing.strip()[:BILLING_MAX]
        found.save()
    return found


def balances_watch(*, now: datetime) -> int:
    """Tell those whose balance has fallen below their threshold. Returns how many."""
    with durable():
        with connection.cursor() as cursor:
            cursor.execute(_CROSSED, {"now": now, "asset": ASSET})
            crossed = cursor.fetchall()
        fallen = [row for row in crossed if row[-1]]
        tell([(party, BALANCE_LOW, _told(*amounts)) for party, *amounts, _ in fallen], now=now)
    return len(fallen)


def _told(low_micro: int, available_micro: int) -> dict[str, Any]:
    return {
        "currency": ASSET,
        "threshold_micro": str(low_micro),
        "available_micro": str(available_micro),
    }
