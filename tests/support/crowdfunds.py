"""A full crowdfund on the ledger and in the log, without the request and the vote behind it: in the
log alone one voter has approved it, with as much staked FLAI as everybody else."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta

from apps.accounts.models import Party
from apps.accounts.services import party_create
from apps.core.clock import unix_ms
from apps.core.transactions import require_transaction
from apps.governance.services import payload_hash
from apps.governance.weights import house_weights
from apps.protocol.tally import SUPERDAO_RULES
from apps.subdaos.selectors import superdao
from apps.wallets import ledger, log
from apps.wallets.models import Account
from apps.wallets.services import account, mint

TOLD = ("timelock_s", "grace_s", "quorum_bps", "threshold_bps")


def full(
    rfm_id: uuid.UUID, pledges: Mapping[Party, int], *, submitter: Party, now: datetime
) -> Account:
    """The escrow that holds these pledges, with the leaves that a verifier wants to see."""
    require_transaction("crowdfunds.full")
    holder = party_create(kind=Party.Kind.SYSTEM, name="Crowdfund", now=now)
    escrow, rfm = account(holder, "USDC", "escrow"), str(rfm_id)
    executed = _carried(rfm, submitter, now)
    facts = {"proposal": rfm, "escrow": holder.pid, "target_micro": str(sum(pledges.values()))}
    log.append("rfms.approved", {"id": rfm, **facts}, now=now)
    log.append("governance.executed", executed, now=now)
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


def _carried(rfm: str, submitter: Party, now: datetime) -> dict[str, str]:
    """The body of the leaf that tells of the vote's execution."""
    dao, before = superdao(), now - timedelta(milliseconds=2)
    voter = party_create(kind=Party.Kind.ORGANISATION, name="Approver", now=before)
    mine = sum(house_weights(dao, "super", before).values()) + 1
    mint("FLAI", account(voter, "FLAI", "staked"), mine, None, before)
    weights = house_weights(dao, "super", before)
    payload = {"rfm": rfm, "spec_hash": "00" * 32}
    hash_ = payload_hash(dao, "rfms.approve", payload)
    facts = {"dao": dao.party.pid, "house": "super", "kind": "rfms.approve", "payload_hash": hash_}
    facts |= {"proposer": submitter.pid, "auth": "system"}
    begins = unix_ms(before)
    numbers = {"starts_at": begins, "ends_at": begins + 1}
    numbers |= {name: SUPERDAO_RULES[name] for name in TOLD}
    total = {"at": begins, "total": str(sum(weights.values())), "holders": len(weights)}
    ballot = {
        "voter": voter.pid,
        "support": "for",
        "weight": str(mine),
        "ends_at": begins + 1,
    }
    submitted = {"id": rfm, "spec_hash": "00" * 32, "proposal": rfm, "submitter": submitter.pid}
    log.append("governance.proposal", {"proposal": rfm, **facts, **numbers}, now=before)
    log.append("rfms.submitted", submitted, now=before)
    log.append("governance.snapshot", {"proposal": rfm, **total}, now=before)
    log.append("governance.vote", {"proposal": rfm, **ballot}, now=before)
    return {"proposal": rfm, "payload_hash": hash_}


def awarded(rfm_id: uuid.UUID, dao: Party, raised_micro: int, *, now: datetime) -> None:
    body = {"id": str(rfm_id), "dao": dao.pid, "raised_micro": str(raised_micro)}
    log.append("rfms.awarded", body, now=now)
