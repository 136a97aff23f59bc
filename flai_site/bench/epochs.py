"""Closing an epoch with many holders, and what one claim of it costs.

closing_10^n   from the frozen epoch to root and totals in the log, all chunks and commits; every
               tenth holder's tokens moved within the epoch
claim          one holder's claim through the service, with the proof that its page shows
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

HOLDERS = (10**5, 10**6)
CLAIMS = 200
REVENUE_MICRO = 10**12

_HOLDERS = """
WITH made AS (
    SELECT gen_random_uuid() AS id, n FROM generate_series(1, %(count)s) AS n
), parties AS (
    INSERT INTO accounts_party (id, created_at, kind, name, slug, pid, keyed, nonce)
    SELECT id, %(at)s, 'person', 'holder', 'holder-' || id, md5(id::text), false, 0 FROM made
)
INSERT INTO wallets_account (id, created_at, owner_id, asset_id, purpose, posted_micro, held_micro,
    floor_micro, last_at)
SELECT gen_random_uuid(), %(at)s, id, %(asset)s, 'main', 1000000 + n, 0, 0, %(at)s FROM made
"""
_MOVES = """
WITH moved AS (
    UPDATE wallets_account a SET last_at = %(at)s FROM (
        SELECT id, row_number() OVER (ORDER BY id) AS n FROM wallets_account
        WHERE asset_id = %(asset)s
    ) numbered WHERE a.id = numbered.id AND n %% 20 < 2
)
INSERT INTO wallets_transfer (id, debit_id, credit_id, amount_micro, kind, phase, ref_type, ref_id,
    memo, created_at)
SELECT gen_random_uuid(), id, next, 1, 'wallets.send', 'single', '', '', '', %(at)s
FROM (
    SELECT id, lead(id) OVER (ORDER BY id) AS next, row_number() OVER (ORDER BY id) AS n
    FROM wallets_account WHERE asset_id = %(asset)s
) pairs WHERE n %% 20 = 0 AND next IS NOT NULL
"""


def run() -> Iterator[dict[str, Any]]:
    """On a database that is set up."""
    for count in HOLDERS:
        epoch, spent_s = _closed(count)
        yield _line(f"closing_{count}", spent_s, "s", "total")
        yield from _claims(epoch)


def _closed(count: int) -> tuple[Any, float]:
    """(the epoch, how long its closing took)."""
    from django.db import connection

    from apps.accounts.models import Party
    from apps.accounts.services import party_create
    from apps.core.clock import now
    from apps.core.transactions import durable
    from apps.listings import closing
    from apps.listings.models import Closing
    from apps.protocol.revenue import Policy
    from apps.subdaos.models import Dao, Epoch
    from apps.wallets.services import account, asset_create, mint

    ends_at = now()
    starts_at = ends_at - timedelta(days=7)
    slug = f"bench-{count}"
    with durable():
        party = party_create(kind=Party.Kind.DAO, name=slug, now=starts_at)
        asset = asset_create(code=f"SDT-{slug}", name=slug, cap_micro=10**18, now=starts_at)
        dao = Dao.objects.create(
            party=party, slug=slug, name=slug, kind=Dao.Kind.SUB, asset=asset, params={},
            rfm_ref=uuid4(), founded_at=starts_at,
        )  # fmt: skip
        mint("USDC", account(party, "USDC", "revenue"), REVENUE_MICRO, None, starts_at)
    facts = {"count": count, "asset": asset.id, "at": starts_at - timedelta(days=1)}
    with connection.cursor() as cursor:
        # The triggers that watch foreign keys are not what is measured, so they rest.
        cursor.execute("SET session_replication_role = replica")
        cursor.execute(_HOLDERS, facts)
        cursor.execute(_MOVES, facts | {"at": starts_at + timedelta(days=3)})
        cursor.execute("SET session_replication_role = origin")
        cursor.execute("VACUUM ANALYZE accounts_party, wallets_account, wallets_transfer")
        cursor.execute("CHECKPOINT")
    epoch = Epoch.objects.create(
        dao=dao, number=1, starts_at=starts_at, ends_at=ends_at, closed_at=ends_at,
        revenue_micro=REVENUE_MICRO,
    )  # fmt: skip
    policy = Policy(6000, 2800, 1200, 8000, 1000, 1000)
    Closing.objects.create(
        epoch=epoch,
        plan={"served": [], "jobs": {}, "policy": vars(policy), "owed_micro": {}},
        sdt_micro=REVENUE_MICRO * policy.sdt_bps // 10_000,
        entitled_micro=0,
    )
    began = time.perf_counter()
    closing.carry_on(epoch.id, now=now())
    return epoch, time.perf_counter() - began


def _claims(epoch: Any) -> Iterator[dict[str, Any]]:
    from apps.core.clock import now
    from apps.listings import claims
    from apps.listings.models import Closing

    size = Closing.objects.get(pk=epoch.pk).size
    step = size // CLAIMS
    rows = list(claims.entitled(epoch).order_by("pid")[: step * CLAIMS : step])
    claim_ms, proof_ms = [], []
    for row in rows:
        began = time.perf_counter()
        claims.claim(epoch_id=epoch.id, party=row.party, now=now())
        claim_ms.append(1000 * (time.perf_counter() - began))
        began = time.perf_counter()
        claims.proof(row)
        proof_ms.append(1000 * (time.perf_counter() - began))
    for metric, spent in (("claim_p50", claim_ms), ("proof_p50", proof_ms)):
        yield _line(f"claim_of_{size}", statistics.median(spent), "ms", metric)


def _line(workload: str, value: float, unit: str, metric: str) -> dict[str, Any]:
    return {
        "workload": workload,
        "engine": "postgresql",
        "metric": metric,
        "value": round(value, 2),
        "unit": unit,
    }
