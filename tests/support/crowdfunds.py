"""A full crowdfund on the ledger and in the log, without the request and the vote behind it."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime

from apps.accounts.models import Party
from apps.accounts.services import party_create
from apps.core.transactions import require_transaction
from apps.wallets import ledger, log
from apps.wallets.models import Account
from apps.wallets.services import account


def full(
    rfm_id: uuid.UUID, pledges: Mapping[Party, int], *, submitter: Party, now: datetime
) -> Account:
    """The escrow that holds these pledges, with the leaves that a verifier wants to see."""
    require_transaction("crowdfunds.full")
    holder = party_create(kind=Party.Kind.SYSTEM, name="Crowdfund", now=now)
    escrow, rfm = account(holder, "USDC", "escrow"), str(rfm_id)
    facts = {"spec_hash": "00" * 32, "proposal": rfm, "submitter": submitter.pid}
    log.append("rfms.submitted", {"id": rfm, **facts}, now=now)
    facts = {"proposal": rfm, "escrow": holder.pid, "target_micro": str(sum(pledges.values()))}
    log.append("rfms.approved", {"id": rfm, **facts}, now=now)
    for party, micro in pledges.items():
        leg = ledger.Leg(
            debit_account=account(party, "USDC"),
            credit_account=escrow,
            amount_micro=micro,
            kind="rfms.pledge",
            ref=("rfms.rfm", rfm_id),
        )
        ledger.post([leg], now=now)
        said = {"id": str(leg.id), "rfm": rfm, "party": party.pid, "amount_micro": str(micro)}
        log.append("rfms.pledged", said, now=now)
    return escrow


def awarded(rfm_id: uuid.UUID, dao: Party, raised_micro: int, *, now: datetime) -> None:
    body = {"id": str(rfm_id), "dao": dao.pid, "raised_micro": str(raised_micro)}
    log.append("rfms.awarded", body, now=now)
