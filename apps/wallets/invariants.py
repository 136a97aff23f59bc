"""What must always be true of ledger and log: one function each, in one list, INVARIANTS.

Each recomputes from the rows and yields a text per breach, naming the place; nothing means it
holds. They read only; `violations` runs them all on one snapshot.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from django.db import connection, transaction
from django.db.models import F, Max, Q, Sum

from apps.protocol import ledger as rules
from apps.protocol import merkle, wire
from apps.protocol.ledger import Balance, Move, RuleBroken
from apps.wallets import ledger, log
from apps.wallets.models import Account, Asset, Hold, LogLeaf, LogNode, Transfer, TreeHead

Breaches = Iterator[str]
SHOWN_MAX = 20
Phase = Transfer.Phase


def validate_assets_sum_to_zero() -> Breaches:
    """Σ posted = 0 over the accounts of each asset: debits equal credits."""
    sums = Account.objects.values("asset__code").annotate(sum=Sum("posted_micro"))
    for row in sums.exclude(sum=0):
        yield f"{row['asset__code']}: the accounts sum to {row['sum']} micro-units, not 0"


def validate_transfers_stay_in_one_asset() -> Breaches:
    """Debit and credit account of a transfer hold the same asset."""
    for id_ in Transfer.objects.exclude(debit__asset=F("credit__asset")).values_list("id"):
        yield f"transfer {id_[0]} goes between two assets"


def validate_replay_gives_the_balances() -> Breaches:
    """Every transfer, replayed by the rules from nothing in the log's order, is allowed; what
    comes out is each account's cached posted and held."""
    accounts = {a.id: a for a in Account.objects.select_related("owner", "asset")}
    start = {a.id: Balance(a.asset_id, floor_micro=a.floor_micro) for a in accounts.values()}
    order: list[uuid.UUID] = []
    try:
        after = rules.apply(start, _moves_in_order(order))
    except RuleBroken as broken:
        yield f"transfer {order[broken.index]} was not allowed: {broken.code}"
        return
    for id_, account in accounts.items():
        told = (account.posted_micro, account.held_micro)
        found = (after[id_].posted_micro, after[id_].held_micro)
        if told != found:
            yield f"account {account.code}: posted, held are {told}, its transfers say {found}"


def _moves_in_order(order: list[uuid.UUID]) -> Iterator[Move]:
    leaves = LogLeaf.objects.filter(type=ledger.LEAF_TYPE).order_by("id")
    stream = leaves.values_list("ref_id", flat=True).iterator(chunk_size=2000)
    while chunk := list(islice(stream, 2000)):
        rows = Transfer.objects.select_related("pending").in_bulk([uuid.UUID(i) for i in chunk])
        for id_ in map(uuid.UUID, chunk):
            if id_ in rows:  # a leaf without its transfer is another invariant's business
                order.append(id_)
                yield _move(rows[id_])


def _move(t: Transfer) -> Move:
    hold_micro = t.pending.amount_micro if t.pending_id else 0
    return Move(t.debit_id, t.credit_id, t.amount_micro, str(t.phase), hold_micro)


def validate_holds_are_the_open_pendings() -> Breaches:
    """One hold for each pending transfer without a resolution, with its account and amount."""
    open_ = Transfer.objects.filter(phase=Phase.PEND, resolution=None)
    for id_ in open_.filter(hold=None).values_list("id", flat=True):
        yield f"the open pending transfer {id_} has no hold"
    wrong = Hold.objects.exclude(
        transfer__phase=Phase.PEND,
        transfer__resolution=None,
        account=F("transfer__debit"),
        amount_micro=F("transfer__amount_micro"),
        expires_at=F("transfer__expires_at"),
    )
    for id_ in wrong.values_list("transfer_id", flat=True):
        yield f"the hold {id_} is not that of an open pending transfer"


def validate_resolutions_match_their_pendings() -> Breaches:
    """post and void name a pend between the same accounts; post ≤ held, void = held."""
    resolutions = Transfer.objects.filter(phase__in=[Phase.POST, Phase.VOID])
    right = Q(
        pending__phase=Phase.PEND,
        debit=F("pending__debit"),
        credit=F("pending__credit"),
        amount_micro__lte=F("pending__amount_micro"),
    ) & (Q(phase=Phase.POST) | Q(amount_micro=F("pending__amount_micro")))
    for id_ in resolutions.exclude(right).values_list("id", flat=True):
        yield f"transfer {id_} does not fit the pending transfer that it resolves"


def validate_reversals_are_opposite() -> Breaches:
    """A reversal names a posted transfer and takes exactly that back, once."""
    reversals = Transfer.objects.filter(kind=ledger.REVERSAL)
    seen: set[str] = set()
    for back in reversals.iterator(chunk_size=2000):
        original = Transfer.objects.filter(id=back.ref_id, phase__in=["single", "post"]).first()
        sides = (back.credit_id, back.debit_id, back.amount_micro)
        if original is None or sides != (
            original.debit_id,
            original.credit_id,
            original.amount_micro,
        ):
            yield f"transfer {back.id} does not reverse the transfer that it names"
        if back.ref_id in seen:
            yield f"transfer {back.ref_id} was reversed twice"
        seen.add(back.ref_id)


def validate_supplies_within_caps() -> Breaches:
    """−posted of an asset's one issuance account ≤ cap, and its floor is −cap."""
    for asset in Asset.objects.all():
        issuing = list(Account.objects.filter(asset=asset, purpose="issuance"))
        if len(issuing) != 1:
            yield f"{asset.code} has {len(issuing)} issuance accounts"
        for account in issuing:
            if account.floor_micro != -asset.cap_micro:
                yield f"{asset.code}: the issuance floor {account.floor_micro} is not −cap"
            if -account.posted_micro > asset.cap_micro:
                yield f"{asset.code}: {-account.posted_micro} issued, over the cap"


def validate_no_balance_below_its_floor() -> Breaches:
    """posted − held ≥ floor, and only issuance accounts have a floor below 0."""
    wrong = Account.objects.filter(
        Q(posted_micro__lt=F("floor_micro") + F("held_micro"))
        | Q(held_micro__lt=0)
        | (Q(floor_micro__lt=0) & ~Q(purpose="issuance"))
    )
    for account in wrong.select_related("owner", "asset"):
        yield f"account {account.code} is below its floor"


def validate_every_transfer_has_its_leaf() -> Breaches:
    """Each transfer has exactly one leaf "wallets.transfer" that says the same, and back."""
    leaves = LogLeaf.objects.filter(type=ledger.LEAF_TYPE).order_by("ref_id", "id")
    named = Transfer.objects.select_related(
        "debit__owner", "debit__asset", "credit__owner", "credit__asset"
    )
    stream = leaves.iterator(chunk_size=2000)
    seen, last = 0, None
    while chunk := list(islice(stream, 2000)):
        rows = {str(i): t for i, t in named.in_bulk([leaf.ref_id for leaf in chunk]).items()}
        for leaf in chunk:
            transfer = rows.get(leaf.ref_id)
            if leaf.ref_id == last:
                yield f"transfer {last} has a second leaf, {_place(leaf)}"
            elif transfer is None:
                yield f"the {_place(leaf)} tells of transfer {leaf.ref_id}, which is not there"
            else:
                seen += 1
                body = ledger.leaf_body(transfer) | _consent(bytes(leaf.data))
                said = log.leaf_bytes(ledger.LEAF_TYPE, body, now=transfer.created_at)
                if said != bytes(leaf.data):
                    yield f"transfer {transfer.id} and its leaf ({_place(leaf)}) differ"
            last = leaf.ref_id
    total = Transfer.objects.count()
    if seen < total:
        yield f"{total - seen} of {total} transfers have no leaf"


# What a leaf says of its owner's consent, and of what was offered or mandated.
_SAID = ("auth", "signed", "lock_s", "asked_micro", "mandate")


def _consent(data: bytes) -> dict[str, Any]:
    """What only the log has of a transfer, so that only a replay checks it."""
    try:
        body = json.loads(data)["body"]
        return {name: body[name] for name in _SAID if name in body}
    except (ValueError, TypeError, KeyError):
        return {}


def validate_leaves_are_canonical() -> Breaches:
    """A leaf's hash is that of its bytes, which are canonical and of the type in its row."""
    for leaf in LogLeaf.objects.order_by("id").iterator(chunk_size=2000):
        data = bytes(leaf.data)
        if merkle.leaf_hash(data) != bytes(leaf.hash):
            yield f"the {_place(leaf)} does not have its hash"
        elif not _canonical(data, leaf.type):
            yield f"the {_place(leaf)} is not in canonical form"


def _canonical(data: bytes, type_: str) -> bool:
    try:
        content: Any = json.loads(data)
        return wire.canonical(content) == data and content["type"] == type_ and content["v"] == 1
    except (ValueError, TypeError, KeyError):
        return False


def validate_numbering_has_no_gap() -> Breaches:
    """The numbered leaves are 0 … n − 1, and n is the newest head's size."""
    numbered = LogLeaf.objects.exclude(seq=None)
    count, last = numbered.count(), numbered.aggregate(last=Max("seq"))["last"]
    if count and last != count - 1:
        yield f"{count} leaves are numbered up to {last}"
    head = log.head_latest()
    if count != (head.size if head else 0):
        yield f"{count} leaves are numbered, the newest head says {head.size if head else 0}"


def validate_heads_sign_the_log() -> Breaches:
    """Each head's root is that of the leaves' bytes, its signature the log key's, time in order."""
    public = log.public_key()
    leaves = LogLeaf.objects.exclude(seq=None).order_by("seq")
    stream = leaves.values_list("data", flat=True).iterator(chunk_size=2000)
    size, frontier, at_ms = 0, [], 0
    for head in TreeHead.objects.order_by("size").iterator():
        new = [merkle.leaf_hash(bytes(d)) for d in islice(stream, head.size - size)]
        size, frontier, _ = merkle.extend(size, frontier, new)
        if size != head.size or merkle.frontier_root(frontier).hex() != head.root:
            yield f"the head of size {head.size} does not have the root of its leaves"
            return
        try:
            content = log.head_content(head.size, head.root, head.at_ms)
            wire.verify(public, log.HEAD_DOMAIN, content, head.signature)
        except wire.BadSignature:
            yield f"the head of size {head.size} is not signed by the log's key"
        if head.at_ms < at_ms:
            yield f"the head of size {head.size} is older than the one before"
        at_ms = head.at_ms


def validate_stored_subtrees() -> Breaches:
    """The stored hashes of full subtrees, from which proofs are made, are those of the leaves."""
    leaves = LogLeaf.objects.exclude(seq=None).order_by("seq")
    hashes = (bytes(h) for h in leaves.values_list("hash", flat=True).iterator(chunk_size=5000))
    _, _, nodes = merkle.extend(0, [], hashes)
    expected = {(level, index): hash_ for level, index, hash_ in nodes}
    for node in LogNode.objects.iterator(chunk_size=5000):
        if expected.pop((node.level, node.index), None) != bytes(node.hash):
            yield f"the stored subtree ({node.level}, {node.index}) is wrong"
    if expected:
        yield f"{len(expected)} stored subtrees are missing"


def _place(leaf: LogLeaf) -> str:
    return f"leaf {leaf.seq}" if leaf.seq is not None else f"unnumbered leaf with id {leaf.id}"


INVARIANTS: list[Callable[[], Breaches]] = [
    validate_assets_sum_to_zero,
    validate_transfers_stay_in_one_asset,
    validate_no_balance_below_its_floor,
    validate_supplies_within_caps,
    validate_resolutions_match_their_pendings,
    validate_holds_are_the_open_pendings,
    validate_reversals_are_opposite,
    validate_replay_gives_the_balances,
    validate_every_transfer_has_its_leaf,
    validate_leaves_are_canonical,
    validate_numbering_has_no_gap,
    validate_heads_sign_the_log,
    validate_stored_subtrees,
]


def title(invariant: Callable[[], Breaches]) -> str:
    """ "assets sum to zero", for people."""
    return invariant.__name__.removeprefix("validate_").replace("_", " ")


def violations() -> dict[str, list[str]]:
    """{title: breaches, at most 20} of every invariant, all read from one snapshot."""
    outermost = not connection.in_atomic_block
    with transaction.atomic():
        if outermost:  # a moving ledger must not look broken
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        return {title(i): list(islice(i(), SHOWN_MAX)) for i in INVARIANTS}
