"""Closing an epoch: from its frozen revenue to one entitlement a payee, in steps that resume.

    quiet    no transfer of the SDT can be stamped before the epoch's end any more: T_i stand still
    weigh    T_i of every holder, written beside those whose parts were fixed at the freeze
    divide   ⌊T_i / ΣT · R_SDT⌋ (paper eq. 11) and the tree's hashes; then root and totals go into
             the log, and what is left over to the treasury
    pay      who is paid without asking, in groups of PAY_BATCH

Each step is done in chunks, one transaction each, that move the closing's cursor: whoever is killed
leaves the last whole chunk, and the next one goes on from there. A chunk is one statement over up
to CHUNK rows. Weights pass 2^63 (micro-units · ms · basis points): they are numeric, and the
division is `div`, exact and downward.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from django.db import connection
from django.db.models import Exists, OuterRef

from apps.core.clock import unix_ms
from apps.core.events import emit
from apps.core.transactions import durable, require_transaction
from apps.core.wake import wake
from apps.listings.events import EpochSettled
from apps.listings.models import Closing, Entitlement, EntitlementBlock, PayoutChoice
from apps.protocol import merkle
from apps.protocol.entitlements import payment_id, treasury_id
from apps.protocol.revenue import HOLDER, WORKERS, holding_weight
from apps.subdaos.models import Epoch
from apps.subdaos.services import epoch_divided
from apps.wallets import ledger, log
from apps.wallets.models import PURPOSES, Account, Transfer
from apps.wallets.services import PAYEES, account, accounts

CHUNK = 20_000
PAY_BATCH = 1_000
# An epoch of at most one batch pays everybody by itself: that costs one group of transfers. Beyond
# it, dust for many would fill the ledger and the log each epoch; then those are paid who worked for
# it or asked for it, and the others claim when it is worth it to them.
AUTO_MAX = PAY_BATCH
CURRENCY = "USDC"
FIRST = str(uuid.UUID(int=0))
HELD, STAKED = "main", "staked"
Step = Closing.Step

# Whoever locks accounts does so in the order of their ids. `wallets_write` stamps no transfer
# before the `last_at` of the accounts that it locks.
_QUIET = """
WITH chunk AS MATERIALIZED (
    SELECT id FROM wallets_account
    WHERE asset_id = %(asset)s AND purpose = %(purpose)s AND id > %(after)s::uuid
        AND (last_at IS NULL OR last_at < %(ends_at)s)
    ORDER BY id LIMIT %(limit)s FOR NO KEY UPDATE
), moved AS (
    UPDATE wallets_account a SET last_at = %(ends_at)s FROM chunk WHERE a.id = chunk.id
)
SELECT count(*), (array_agg(id))[count(*)] FROM chunk
"""

# ∫ balance dt = posted · length + Σ change · (max(end − at, 0) − length) over the changes since the
# start: each counts for what is left of the epoch, none for what the balance of today has of it.
_WEIGH = """
WITH chunk AS MATERIALIZED (
    SELECT id, owner_id, posted_micro FROM wallets_account
    WHERE asset_id = %(asset)s AND purpose = %(purpose)s AND id > %(after)s::uuid
    ORDER BY id LIMIT %(limit)s
), weights AS MATERIALIZED (
    SELECT p.id, p.pid,
        (c.posted_micro::numeric * %(length)s + coalesce(moved.area, 0)) * %(times)s AS weight
    FROM chunk c JOIN accounts_party p ON p.id = c.owner_id, LATERAL (
        SELECT sum(t.change * (greatest(%(end)s
            - floor(extract(epoch FROM t.created_at) * 1000)::bigint, 0) - %(length)s)) AS area
        FROM (
            SELECT created_at, amount_micro::numeric AS change FROM wallets_transfer
            WHERE credit_id = c.id AND created_at > %(starts_at)s AND phase IN ('single', 'post')
            UNION ALL
            SELECT created_at, -amount_micro::numeric FROM wallets_transfer
            WHERE debit_id = c.id AND created_at > %(starts_at)s AND phase IN ('single', 'post')
        ) t
    ) moved
    WHERE p.kind = ANY(%(kinds)s)
), written AS (
    INSERT INTO listings_entitlement (epoch_id, party_id, pid, role, asset, weight)
    SELECT %(epoch)s, id, pid, %(role)s, %(currency)s, weight FROM weights WHERE weight > 0
    -- [met before]
    ON CONFLICT (epoch_id, asset, role, pid)
    DO UPDATE SET weight = listings_entitlement.weight + excluded.weight
    -- [/met before]
)
SELECT count(*), (array_agg(id))[count(*)], (SELECT coalesce(sum(weight), 0) FROM weights)
FROM chunk
"""
# The first purpose meets nobody twice, and most have no other: spared what an upsert costs.
_WEIGH_FIRST = re.sub(r"-- \[met before\].*?-- \[/met before\]", "", _WEIGH, flags=re.DOTALL)

# `entitlements.leaf_hash` in SQL: keys in their order, and nothing that JSON would escape.
LEAF_HASH = """sha256('\\x00'::bytea || convert_to('{{"amount_micro":"' || {amount}
    || '","asset":"' || asset || '","epoch":"' || %(epoch)s || '","pid":"' || pid
    || '","role":"' || role || '","v":1}}', 'UTF8'))"""

_DIVIDE = f"""
WITH chunk AS MATERIALIZED (
    SELECT ctid AS place, asset, role, pid, amount_micro IS NULL AS fresh,
        coalesce(amount_micro, div(weight * %(pot)s, %(total)s)) AS due
    FROM listings_entitlement
    WHERE epoch_id = %(epoch)s AND (asset, role, pid) > (%(asset)s, %(role)s, %(pid)s)
    ORDER BY asset, role, pid LIMIT %(limit)s
), written AS (
    UPDATE listings_entitlement e SET amount_micro = c.due
    FROM chunk c WHERE e.ctid = c.place AND c.fresh
), leaves AS (
    SELECT asset || ' ' || role || ' ' || pid AS key,
        row_number() OVER (ORDER BY asset, role, pid) + %(size)s - 1 AS place,
        {LEAF_HASH.format(amount="due")} AS hash
    FROM chunk WHERE due > 0
)
SELECT (SELECT count(*) FROM chunk),
    (SELECT asset || ' ' || role || ' ' || pid FROM chunk
        ORDER BY asset DESC, role DESC, pid DESC LIMIT 1),
    (SELECT coalesce(sum(due) FILTER (WHERE fresh), 0) FROM chunk),
    string_agg(hash, '' ORDER BY place),
    array_agg(key ORDER BY place) FILTER (WHERE place %% %(block)s = 0)
FROM leaves
"""


def carry_on(epoch_id: Any, *, now: datetime, chunk: int = CHUNK) -> bool:
    """Do what is left of a closing, chunk by chunk. False when nothing was.

    `chunk` is how many rows a transaction touches; the result does not depend on it.
    """
    worked = False
    while True:
        with durable():
            closing = Closing.objects.select_for_update().filter(pk=epoch_id).first()
            if closing is None or closing.step == Step.DONE:
                return worked
            epoch = Epoch.objects.select_related("dao__party", "dao__asset").get(pk=epoch_id)
            _STEPS[closing.step](closing, epoch, now, chunk)
            closing.save()
        worked = True


def _quiet(closing: Closing, epoch: Epoch, now: datetime, chunk: int) -> None:
    """Until a whole pass finds no account that a transfer of before the end could still touch.

    A new account gets its first token from one that is quiet already, so none is ever missed.
    """
    found, *place = closing.cursor.split(" ") if closing.cursor else ("none", PURPOSES[0], FIRST)
    purpose, after = place
    while True:
        [(count, last)] = run(
            _QUIET,
            asset=_asset(epoch),
            purpose=purpose,
            after=after,
            ends_at=epoch.ends_at,
            limit=chunk,
        )
        found = "some" if count else found
        if count == chunk:
            after = str(last)
        elif purpose != PURPOSES[-1]:
            purpose, after = PURPOSES[PURPOSES.index(purpose) + 1], FIRST
        elif found == "none":
            closing.step, closing.cursor = Step.WEIGH, ""
            return
        else:
            found, purpose, after = "none", PURPOSES[0], FIRST
        closing.cursor = f"{found} {purpose} {after}"
        if count:  # locked: the next ones in another transaction, or their order is not the ids'
            return


def _weigh(closing: Closing, epoch: Epoch, now: datetime, chunk: int) -> None:
    purpose, after = closing.cursor.split(" ") if closing.cursor else (HELD, FIRST)
    start, end = unix_ms(epoch.starts_at), unix_ms(epoch.ends_at)
    boost = int(closing.plan["policy"]["stake_boost_bps"])
    [(count, last, weight)] = run(
        _WEIGH_FIRST if purpose == HELD else _WEIGH,
        asset=_asset(epoch),
        purpose=purpose,
        after=after,
        limit=chunk,
        length=end - start,
        end=end,
        starts_at=epoch.starts_at,
        times=holding_weight(1, 0, stake_boost_bps=boost)
        if purpose == HELD
        else holding_weight(0, 1, stake_boost_bps=boost),
        kinds=[str(kind) for kind in PAYEES],
        epoch=epoch.id,
        role=HOLDER,
        currency=CURRENCY,
    )
    closing.holdings += weight
    if count == chunk:
        closing.cursor = f"{purpose} {last}"
    elif purpose == HELD:
        closing.cursor = f"{STAKED} {FIRST}"
    else:
        closing.step, closing.cursor = Step.DIVIDE, ""


def _divide(closing: Closing, epoch: Epoch, now: datetime, chunk: int) -> None:
    asset, role, pid = closing.cursor.split(" ") if closing.cursor else ("", "", "")
    size = closing.size
    [(count, last, holders_micro, hashes, firsts)] = run(
        _DIVIDE,
        epoch=str(epoch.id),
        pot=closing.sdt_micro,
        total=closing.holdings or 1,  # no holder, no row that it divides
        asset=asset,
        role=role,
        pid=pid,
        limit=chunk,
        size=size,
        block=EntitlementBlock.LEAVES,
    )
    _grow(closing, epoch, bytes(hashes or b""), firsts or [])
    closing.entitled_micro += int(holders_micro)
    closing.cursor = last or closing.cursor
    if count < chunk:
        _finish(closing, epoch, now)


def _grow(closing: Closing, epoch: Epoch, hashes: bytes, firsts: Sequence[str]) -> None:
    """The tree, by these leaf hashes; `firsts` are the keys of those that begin a block."""
    frontier = cut(bytes(closing.frontier))
    first = -(-closing.size // EntitlementBlock.LEAVES)
    closing.size, frontier, nodes = merkle.extend(closing.size, frontier, cut(hashes))
    closing.frontier = b"".join(frontier)
    EntitlementBlock.objects.bulk_create(
        EntitlementBlock(epoch=epoch, number=first + i, first=key) for i, key in enumerate(firsts)
    )
    full = [(i, hash_) for level, i, hash_ in nodes if level == EntitlementBlock.LEVEL]
    if full:
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE listings_entitlementblock b SET hash = u.hash"
                " FROM unnest(%s::int[], %s::bytea[]) AS u(number, hash)"
                " WHERE b.epoch_id = %s AND b.number = u.number",
                [[i for i, _ in full], [hash_ for _, hash_ in full], epoch.id],
            )


def cut(hashes: bytes) -> list[bytes]:
    """Hashes that were stored as one text, each for itself."""
    width = merkle.HASH_BYTES
    return [hashes[i : i + width] for i in range(0, len(hashes), width)]


def _finish(closing: Closing, epoch: Epoch, now: datetime) -> None:
    """Root and totals into the log, the remainder to the treasury; few payees are paid at once."""
    dao = epoch.dao
    closing.root = merkle.frontier_root(cut(bytes(closing.frontier))).hex()
    treasury_micro = epoch.revenue_micro - closing.entitled_micro
    owed_micro = closing.plan.pop("owed_micro")
    holders_micro = closing.entitled_micro - sum(map(int, owed_micro.values()))
    owed_micro |= {HOLDER: str(holders_micro)} if holders_micro else {}
    body = {
        # The payments refer to it, so that a verifier ties them to this leaf.
        "id": str(epoch.id),
        "dao": dao.party.pid,
        "epoch": epoch.number,
        "starts_at": unix_ms(epoch.starts_at),
        "ends_at": unix_ms(epoch.ends_at),
        "revenue_micro": str(epoch.revenue_micro),
        **closing.plan,
        "holdings": str(closing.holdings),
        "entitled": closing.size,
        "owed_micro": owed_micro,
        "root": closing.root,
        "treasury_micro": str(treasury_micro),
    }
    # After this point it must succeed.
    log.append("listings.epoch_settled", body, now=now)
    epoch_divided(epoch=epoch, settlement=body)
    legs = []
    if treasury_micro:
        leg = ledger.Leg(
            id=treasury_id(epoch.id),
            debit_account=account(dao.party, CURRENCY, "revenue"),
            credit_account=account(dao.party, CURRENCY, "treasury"),
            amount_micro=treasury_micro,
            kind="listings.treasury",
            ref=("listings.epoch", epoch.id),
        )
        legs.append(leg)
    closing.step, closing.cursor = Step.PAY, ""
    if closing.size > AUTO_MAX:
        ledger.post(legs, now=now)
        with connection.cursor() as cursor:  # many new rows, that the next look-ups plan by
            cursor.execute("ANALYZE listings_entitlement")
    else:  # in the same transaction: who sees the one sees the other
        _pay(closing, epoch, now, AUTO_MAX, legs)
    wake("flai.sequence_log")
    emit(EpochSettled(epoch_id=str(epoch.id), dao_id=str(dao.id)), now=now)


def _pay(
    closing: Closing, epoch: Epoch, now: datetime, chunk: int, first: Sequence[ledger.Leg] = ()
) -> None:
    """One group of those who are paid without asking; `first` comes before them, in the group.

    Who said no is passed by, and in a large epoch so are holders who did not say yes. So is an
    account that was closed meanwhile, which can take nothing.
    """
    shut = Account.objects.filter(
        owner=OuterRef("party"), asset__code=OuterRef("asset"), purpose="main"
    ).exclude(closed_at=None)
    due = (
        Entitlement.objects.filter(epoch=epoch, claimed_at=None, amount_micro__gt=0)
        .exclude(party__in=PayoutChoice.objects.filter(auto=False).values("party"))
        .exclude(Exists(shut))
        .select_related("party")
    )
    waiting = [due]
    if closing.size > AUTO_MAX:
        asked = PayoutChoice.objects.filter(auto=True).values("party")
        worked = due.filter(asset__in=assets_of(epoch), role__in=WORKERS)
        waiting = [worked, due.filter(party__in=asked)]
    batch = min(chunk, PAY_BATCH)
    for some in waiting:
        if rows := list(some.select_for_update(of=("self",))[:batch]):
            pay(epoch, rows, first=first, now=now)
            return
    ledger.post(first, now=now)
    closing.step = Step.DONE


def pay(
    epoch: Epoch,
    rows: Sequence[Entitlement],
    *,
    first: Sequence[ledger.Leg] = (),
    now: datetime,
) -> list[Transfer]:
    """Inner writer: pay these locked, unclaimed rows from the epoch's revenue, one group.

    A transfer's id follows from epoch and row, so the ledger itself pays each once. `first` is
    posted in the same group: all accounts of a transaction are locked at once, in their order.
    """
    require_transaction("listings.pay")
    legs = list(first)
    for code in sorted({row.asset for row in rows}):
        source = account(epoch.dao.party, code, "revenue")
        mine = [row for row in rows if row.asset == code]
        targets = accounts({row.party for row in mine}, code)
        legs += [
            ledger.Leg(
                id=payment_id(epoch.id, asset=code, role=row.role, pid=row.pid),
                debit_account=source,
                credit_account=targets[row.party_id],
                amount_micro=int(row.amount_micro or 0),
                kind="listings.payout",
                ref=("listings.epoch", epoch.id),
            )
            for row in mine
        ]
    made = ledger.post(legs, now=now)
    Entitlement.objects.filter(pk__in=[row.pk for row in rows]).update(claimed_at=now)
    return made


def assets_of(epoch: Epoch) -> tuple[str, ...]:
    """What an epoch can owe; with it a key of the table is found by its index."""
    assert epoch.dao.asset is not None
    return (CURRENCY, epoch.dao.asset.code)


def _asset(epoch: Epoch) -> uuid.UUID:
    assert epoch.dao.asset_id is not None  # a SubDAO has its token
    return epoch.dao.asset_id


def run(statement: str, **values: Any) -> list[Any]:
    """The rows; by index look-ups, whatever size the tables had when statistics were taken."""
    require_transaction("listings.run")
    with connection.cursor() as cursor:
        cursor.execute("; ".join(f"SET LOCAL {name} = off" for name in _PLANNED))
        cursor.execute(statement, values)
        return cursor.fetchall()


_PLANNED = [
    *(f"enable_{way}" for way in ("seqscan", "bitmapscan", "hashjoin", "mergejoin")),
    "jit",
]
_STEPS: dict[str, Callable[[Closing, Epoch, datetime, int], None]] = {
    Step.QUIET: _quiet,
    Step.WEIGH: _weigh,
    Step.DIVIDE: _divide,
    Step.PAY: _pay,
}
