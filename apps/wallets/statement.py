"""A party's statement: every transfer on its accounts in a period, with the balance after it.

One line for each of the party's accounts that a transfer touches, so a stake is two lines. Times
are UTC, amounts micro-units; `change_micro` is 0 for a hold and its release.
"""

from __future__ import annotations

import csv
import io
import uuid
from collections.abc import Iterator
from datetime import datetime

from django.db.models import Q, QuerySet, Sum

from apps.accounts.models import Party
from apps.core.cells import cell_text
from apps.core.errors import BadInput
from apps.wallets.models import Account, Transfer
from apps.wallets.selectors import transfers_of

LINES_MAX = 50_000
COLUMNS = (
    "at", "transfer", "account", "kind", "phase", "change_micro", "held_micro", "balance_micro",
    "counterparty", "ref", "memo",
)  # fmt: skip
POSTED = ("single", "post")


def statement_csv(party: Party, *, since: datetime | None, until: datetime | None) -> str:
    """CSV of since ≤ at < until, oldest first; without an end, all that there is.

    Raises BadInput for more than LINES_MAX transfers: ask for a shorter period then.
    """
    later = transfers_of(party).filter(*([Q(created_at__gte=since)] if since else []))
    rows = later.filter(*([Q(created_at__lt=until)] if until else []))
    if rows.count() > LINES_MAX:
        raise BadInput("statement_too_long", f"A statement has at most {LINES_MAX} transfers.")
    balances = _balances_before(party, later)
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    for transfer in rows.order_by("created_at", "id"):
        writer.writerows(_lines(party, transfer, balances))
    return out.getvalue()


def _balances_before(party: Party, later: QuerySet[Transfer]) -> dict[uuid.UUID, int]:
    """Posted balances now, less what `later` changed."""
    balances = dict(Account.objects.filter(owner=party).values_list("id", "posted_micro"))
    moved = later.filter(phase__in=POSTED).order_by()
    for side, sign in (("debit", 1), ("credit", -1)):
        sums = moved.filter(**{f"{side}__owner": party}).values_list(side)
        for id_, micro in sums.annotate(sum=Sum("amount_micro")):
            balances[id_] += sign * micro
    return balances


def _lines(
    party: Party, transfer: Transfer, balances: dict[uuid.UUID, int]
) -> Iterator[list[object]]:
    for account, other, sign in (
        (transfer.debit, transfer.credit, -1),
        (transfer.credit, transfer.debit, 1),
    ):
        if account.owner_id != party.id:
            continue
        change_micro = sign * transfer.amount_micro if transfer.phase in POSTED else 0
        balances[account.id] += change_micro
        yield [
            transfer.created_at.isoformat(timespec="milliseconds"),
            transfer.id,
            f"{account.purpose}/{account.asset.code}",
            transfer.kind,
            transfer.phase,
            change_micro,
            transfer.amount_micro if transfer.phase == "pend" and sign < 0 else 0,
            balances[account.id],
            cell_text(f"{other.owner.name} ({other.owner.pid})"),
            f"{transfer.ref_type}:{transfer.ref_id}" if transfer.ref_type else "",
            cell_text(transfer.memo),
        ]
