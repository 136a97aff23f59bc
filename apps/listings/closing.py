"""Closing an epoch: from its frozen revenue to one entitlement a payee, in steps that resume.

    quiet    no transfer of the SDT can be stamped before the epoch's end any more: T_i stand still
    weigh    ΣT over all holders, at once: nothing is written, nobody waits
    prove    the tree over those whose parts were fixed at the freeze and that come before holders
    divide   ⌊T_i / ΣT · R_SDT⌋ (paper eq. 11) of each holder, written in the tree's order, and the
             tree goes on with them
    prove    those after the holders; then root and totals go into the log, and what is left over to
             the treasury
    pay      who is paid without asking, in groups of PAY_BATCH

What writes is done in chunks, one transaction each, that move the closing's cursor: whoever is
killed leaves the last whole chunk, and the next one goes on from there. A chunk is one statement
over some CHUNK rows. T_i is computed twice, which costs less than keeping it: a row is written
once. Weights pass 2^63 (micro-units · ms · basis points): they are numeric, and the division is
`div`, exact and downward.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from django.db import connection
from django.db.models import Exists, OuterRef

from apps.accounts.models import Party
from apps.core.clock import going_on, unix_ms
from apps.core.events import emit
from apps.core.joined import prepared
from apps.core.transactions import durable, require_transaction
from apps.core.wake import wake
from apps.listings.events import EpochSettled
from apps.listings.models import Closing, Entitlement, EntitlementNode, PayoutChoice
from apps.protocol import merkle
from apps.protocol.entitlements import payment_id, treasury_id
from apps.protocol.revenue import HOLDER, WORKERS, holding_weight
from apps.subdaos.models import Epoch
from apps.subdaos.services import epoch_divided
from apps.wallets import ledger, log
from apps.wallets.models import Account, Transfer
from apps.wallets.services import PAYEES, account, accounts

CHUNK = 200_000
PAY_BATCH = 1_000
QUIET_S = 1.0  # for writers that had begun; whoever takes longer is waited for by the next sweep
# An epoch of at most one batch pays everybody by itself: that costs one group of transfers. Beyond
# it, dust for many would fill the ledger and the log each epoch; then those are paid who worked for
# it or asked for it, and the others claim when it is worth it to them.
AUTO_MAX = PAY_BATCH
CURRENCY = "USDC"
HELD, STAKED = "main", "staked"
OTHERS = ", ".join(f"'{kind}'" for kind in Party.Kind if kind not in PAYEES)
PIDS, PAST = 1 << 128, "g"  # a pid is one of so many, in hex, at random; beyond them all
Step = Closing.Step

# ∫ balance dt = posted · length + Σ change · (max(end − at, 0) − length) over the changes since the
# start: each counts for what is left of the epoch, none for what the balance of today has of it.
_AREA = """({0}.posted_micro::numeric * %(length)s
    + CASE WHEN {0}.last_at > %(starts_at)s THEN (
        SELECT coalesce(sum(t.change * (greatest(%(end)s
            - floor(extract(epoch FROM t.created_at) * 1000)::bigint, 0) - %(length)s)), 0)
        FROM (
            SELECT created_at, amount_micro::numeric AS change FROM wallets_transfer
            WHERE credit_id = {0}.id AND created_at > %(starts_at)s AND phase IN ('single', 'post')
            UNION ALL
            SELECT created_at, -amount_micro::numeric FROM wallets_transfer
            WHERE debit_id = {0}.id AND created_at > %(starts_at)s AND phase IN ('single', 'post')
        ) t
    ) ELSE 0 END)"""
# T_i of each payee, by the main accounts, which all holders have, with what is staked
# beside them.
_WEIGHT = f"""({_AREA.format("c")} * %(held)s
    + CASE WHEN s.id IS NULL THEN 0 ELSE {_AREA.format("s")} * %(staked)s END)"""
_STAKED_BESIDE = f"""LEFT JOIN wallets_account s
        ON s.owner_id = c.owner_id AND s.asset_id = %(asset)s AND s.purpose = '{STAKED}'"""
_WEIGH = f"""
SELECT coalesce(sum({_WEIGHT}), 0)
FROM wallets_account c {_STAKED_BESIDE}
WHERE c.asset_id = %(asset)s AND c.purpose = '{HELD}' AND NOT EXISTS (
    SELECT 1 FROM accounts_party p WHERE p.id = c.owner_id AND p.kind IN ({OTHERS})
)
"""

# `entitlements.leaf_hash` in SQL: keys in their order, and nothing that JSON would escape. What is
# in brackets is the same for all rows of a chunk and put together once.
LEAF_HASH = """sha256('\\x00'::bytea || convert_to('{"amount_micro":"' || amount_micro
    || ('","asset":"' || asset || '","epoch":"' || epoch_id || '","pid":"') || pid
    || ('","role":"' || role || '","v":1}'), 'UTF8'))"""
KEY = "asset || ' ' || role || ' ' || pid"
# The tree goes on with rows named `leaf`: their number, last key, hashes in order, and the keys of
# those that fill a block.
_LEAVES = """count(*), max(key COLLATE "C"), string_agg(hash, '' ORDER BY place),
    array_agg(key ORDER BY place) FILTER (WHERE (place + %(size)s) %% %(block)s = 0)"""

# A row is made where the tree has it, so that index and tree grow at their ends.
_DIVIDE = f"""
WITH due AS MATERIALIZED (
    SELECT c.owner_id, c.pid, div({_WEIGHT} * %(pot)s, %(total)s)::bigint AS amount_micro
    FROM (
        SELECT a.id, a.owner_id, a.posted_micro, a.last_at, p.pid
        FROM wallets_account a JOIN accounts_party p ON p.id = a.owner_id
        WHERE a.asset_id = %(asset)s AND a.purpose = '{HELD}' AND p.kind = ANY(%(kinds)s)
            AND p.pid >= %(first)s AND p.pid < %(end_pid)s OFFSET 0
    ) c {_STAKED_BESIDE} ORDER BY c.pid
), made AS (
    SELECT %(epoch)s::text AS epoch_id, owner_id, pid, %(role)s::text AS role,
        %(currency)s::text AS asset, amount_micro FROM due WHERE amount_micro > 0
), written AS (
    INSERT INTO listings_entitlement (epoch_id, party_id, pid, role, asset, amount_micro)
    SELECT epoch_id::uuid, owner_id, pid, role, asset, amount_micro FROM made
)
SELECT coalesce(sum(amount_micro), 0), {_LEAVES}
FROM (
    SELECT amount_micro, {KEY} AS key, {LEAF_HASH} AS hash,
        row_number() OVER (ORDER BY pid) AS place
    FROM made
) leaf
"""
_PROVE = f"""
SELECT {_LEAVES}
FROM (
    SELECT {KEY} AS key, {LEAF_HASH} AS hash,
        row_number() OVER (ORDER BY asset, role, pid) AS place
    FROM listings_entitlement
    WHERE epoch_id = %(epoch)s AND (asset, role, pid) > (%(after_asset)s, %(after_role)s, %(pid)s)
        AND (%(all)s OR (asset, role) < (%(currency)s, %(role)s)) AND amount_micro > 0
    ORDER BY asset, role, pid LIMIT %(limit)s
) leaf
"""


def carry_on(epoch_id: Any, *, now: datetime, chunk: int = CHUNK) -> bool:
    """Do what is left of a closing, chunk by chunk. False when nothing was.

    `chunk` is how many rows a transaction touches; the result does not depend on it. What a chunk
    says is stamped when it begins: the log takes no leaf that is minutes behind the others.
    """
    worked, clock = False, going_on(now)
    while True:
        with durable():
            # Nobody queues: a worker that waits for another's chunk answers no query meanwhile.
            found = Closing.objects.select_for_update(skip_locked=True).filter(pk=epoch_id)
            closing = found.first()
            if closing is None or closing.step == Step.DONE:
                return worked
            epoch = Epoch.objects.select_related("dao__party", "dao__asset").get(pk=epoch_id)
            if not _STEPS[closing.step](closing, epoch, clock(), chunk):
                return worked
            closing.save()
        worked = True


def _quiet(closing: Closing, epoch: Epoch, now: datetime, chunk: int) -> bool:
    """Transfers of the token are stamped at the epoch's end or later; then those end that had
    begun before that was said. Nobody's payment waits."""
    if not closing.cursor:
        ledger.quiet(_asset(epoch), until=epoch.ends_at)
        closing.cursor = "said"
        return True
    if not ledger.writers_ended(within_s=QUIET_S):
        return False
    mains = Account.objects.filter(asset=_asset(epoch), purpose=HELD)
    staked = Party.objects.filter(accounts__asset=_asset(epoch), accounts__purpose=STAKED)
    if lacking := list(staked.exclude(id__in=mains.values("owner"))):
        accounts(lacking, epoch.dao.asset)  # type: ignore[arg-type]
    closing.step = Step.WEIGH
    return True


def _weigh(closing: Closing, epoch: Epoch, now: datetime, chunk: int) -> bool:
    [(closing.holdings,)] = run(_WEIGH, **_holders(closing, epoch))
    closing.step, closing.cursor = Step.PROVE, ""
    return True


def _divide(closing: Closing, epoch: Epoch, now: datetime, chunk: int) -> bool:
    """One of equal parts of all pids, so many that each has about `chunk` of the holders."""
    if not closing.cursor:
        holders = Account.objects.filter(asset=_asset(epoch), purpose=HELD).count()
        closing.cursor = f"0 {-(-holders // chunk) or 1}"
    part, parts = map(int, closing.cursor.split(" "))
    first = f"{PIDS * part // parts:032x}"
    end = f"{PIDS * (part + 1) // parts:032x}" if part + 1 < parts else PAST
    [(micro, *leaves)] = run(
        _DIVIDE,
        **_holders(closing, epoch),
        kinds=[str(kind) for kind in PAYEES],
        first=first,
        end_pid=end,
        epoch=str(epoch.id),
        role=HOLDER,
        currency=CURRENCY,
        pot=closing.sdt_micro,
        total=closing.holdings or 1,  # no holder, no row that it divides
        size=closing.size,
        block=EntitlementNode.LEAVES,
    )
    closing.entitled_micro += int(micro)
    closing.cursor = f"{part + 1} {parts}"
    _grow(closing, epoch, leaves)
    if part + 1 == parts:
        closing.step, closing.cursor = Step.PROVE, f"{CURRENCY} {HOLDER} {PAST}"
    return True


def _holders(closing: Closing, epoch: Epoch) -> dict[str, Any]:
    """What a statement takes that weighs the token's holders."""
    start, end = unix_ms(epoch.starts_at), unix_ms(epoch.ends_at)
    boost = int(closing.plan["policy"]["stake_boost_bps"])
    return {
        "asset": _asset(epoch),
        "length": end - start,
        "end": end,
        "starts_at": epoch.starts_at,
        "held": holding_weight(1, 0, stake_boost_bps=boost),
        "staked": holding_weight(0, 1, stake_boost_bps=boost),
    }


def _prove(closing: Closing, epoch: Epoch, now: datetime, chunk: int) -> bool:
    """Those whose parts were fixed at the freeze: before the holders, then after them."""
    asset, role, pid = closing.cursor.split(" ") if closing.cursor else ("", "", "")
    divided = not closing.sdt_micro or (asset, role) >= (CURRENCY, HOLDER)
    [(count, last, *leaves)] = run(
        _PROVE,
        epoch=str(epoch.id),
        after_asset=asset,
        after_role=role,
        pid=pid,
        all=divided,
        currency=CURRENCY,
        role=HOLDER,
        limit=chunk,
        size=closing.size,
        block=EntitlementNode.LEAVES,
    )
    _grow(closing, epoch, (count, last, *leaves))
    closing.cursor = last or closing.cursor
    if count < chunk:
        if divided:
            _finish(closing, epoch, now)
        else:
            closing.step, closing.cursor = Step.DIVIDE, ""
    return True


def _grow(closing: Closing, epoch: Epoch, leaves: Sequence[Any]) -> None:
    """The tree, by what `_LEAVES` gives."""
    _, _, hashes, lasts = leaves
    closing.size, frontier, kept = merkle.extend(
        closing.size,
        cut(bytes(closing.frontier)),
        cut(bytes(hashes or b"")),
        lowest=EntitlementNode.LEVEL,
    )
    closing.frontier = b"".join(frontier)
    keys = iter(lasts or [])
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO listings_entitlementnode (epoch_id, level, index, hash, last)"
            " SELECT %s, u.* FROM unnest(%s::int[], %s::bigint[], %s::bytea[], %s::text[]) u",
            [
                epoch.id,
                *map(list, zip(*kept, strict=True) if kept else ([], [], [])),
                [next(keys) if level == EntitlementNode.LEVEL else "" for level, *_ in kept],
            ],
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
            cursor.execute("ANALYZE listings_entitlement, listings_entitlementnode")
    else:  # in the same transaction: who sees the one sees the other
        _pay(closing, epoch, now, AUTO_MAX, legs)
    wake("flai.sequence_log")
    emit(EpochSettled(epoch_id=str(epoch.id), dao_id=str(dao.id)), now=now)


def _pay(
    closing: Closing, epoch: Epoch, now: datetime, chunk: int, first: Sequence[ledger.Leg] = ()
) -> bool:
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
            pay(epoch.dao.party, rows, first=first, now=now)
            return True
    ledger.post(first, now=now)
    closing.step = Step.DONE
    return True


def pay(
    payer: Party,
    rows: Sequence[Entitlement],
    *,
    first: Sequence[ledger.Leg] = (),
    now: datetime,
) -> list[Transfer]:
    """Inner writer: pay these locked, unclaimed rows of one epoch from its SubDAO's revenue, one
    group.

    A transfer's id follows from epoch and row, so the ledger itself pays each once. `first` is
    posted in the same group: all accounts of a transaction are locked at once, in their order.
    """
    require_transaction("listings.pay")
    legs, epoch_id = list(first), rows[0].epoch_id
    for code in sorted({row.asset for row in rows}):
        source = account(payer, code, "revenue")
        mine = [row for row in rows if row.asset == code]
        targets = accounts({row.party for row in mine}, code)
        legs += [
            ledger.Leg(
                id=payment_id(epoch_id, asset=code, role=row.role, pid=row.pid),
                debit_account=source,
                credit_account=targets[row.party_id],
                amount_micro=row.amount_micro,
                kind="listings.payout",
                ref=("listings.epoch", epoch_id),
            )
            for row in mine
        ]
    made = ledger.post(legs, now=now)
    keys = [[row.asset for row in rows], [row.role for row in rows], [row.pid for row in rows]]
    prepared(_CLAIMED, [now, *keys, epoch_id])
    return made


_CLAIMED = """
UPDATE listings_entitlement e SET claimed_at = %s::timestamptz
FROM unnest(%s::text[], %s::text[], %s::text[]) AS u(asset, role, pid)
WHERE e.epoch_id = %s AND e.asset = u.asset AND e.role = u.role AND e.pid = u.pid
    AND e.claimed_at IS NULL
RETURNING 1
"""


def assets_of(epoch: Epoch) -> tuple[str, ...]:
    """What an epoch can owe; with it a key of the table is found by its index."""
    assert epoch.dao.asset is not None
    return (CURRENCY, epoch.dao.asset.code)


def _asset(epoch: Epoch) -> uuid.UUID:
    assert epoch.dao.asset_id is not None  # a SubDAO has its token
    return epoch.dao.asset_id


def run(statement: str, **values: Any) -> list[Any]:
    """The rows of a statement over a chunk, which sorts and joins it in memory."""
    require_transaction("listings.run")
    with connection.cursor() as cursor:
        # A stale guess of few rows must not have them gone through again for each other row.
        cursor.execute(
            "SET LOCAL work_mem = '64MB'; SET LOCAL jit = off; SET LOCAL enable_material = off"
        )
        cursor.execute(statement, values)
        return cursor.fetchall()


# Each does what one transaction may; False when it has to wait for others.
_STEPS: dict[str, Callable[[Closing, Epoch, datetime, int], bool]] = {
    Step.QUIET: _quiet,
    Step.WEIGH: _weigh,
    Step.DIVIDE: _divide,
    Step.PROVE: _prove,
    Step.PAY: _pay,
}
