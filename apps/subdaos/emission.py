"""What a SubDAO's reserve releases at the end of each epoch, and how it is taken.

    reserve ──E_n──▶ conversion   contributors give up points for it (`services.convert_points`)
                 ├──▶ sponsors     the request's backers take their parts (`sponsor_take`)
                 └──▶ treasury

The rules are `apps.protocol.emission`. The accounts are the SubDAO's; the supply was minted when it
was founded, within the asset's cap, so an emission can't exceed either: the constraints on accounts
hold it. A transfer's id follows from its epoch, or from what a sponsor had taken before, so the
ledger itself moves each part once.
"""

from __future__ import annotations

import uuid
from dataclasses import asdict
from datetime import datetime

from apps.accounts.models import Party
from apps.core.errors import Conflict
from apps.core.transactions import durable, require_transaction
from apps.protocol import emission as rules
from apps.protocol.revenue import policy_of
from apps.subdaos import selectors
from apps.subdaos.models import Dao, Emission, Epoch, Sponsor
from apps.wallets import ledger, log
from apps.wallets.ledger import Leg
from apps.wallets.models import Transfer
from apps.wallets.services import account

EMISSION_REF = "subdaos.emission"
SPONSOR_REF = "subdaos.sponsor"
RESERVE, CONVERSION, SPONSORS = "reserve", "conversion", "sponsors"


class NothingDue(Conflict):
    code = "nothing_due"
    text = "There is nothing for you to take now."


def release(*, epoch: Epoch, dao: Dao, now: datetime) -> Emission:
    """Inner writer: E = ⌊ρ · R⌋ out of the reserve of a locked DAO, with the end of its epoch.

    Leaf "subdaos.emitted", also where nothing comes out: it says which parameters the epoch is
    divided by.
    """
    require_transaction("subdaos.release")
    assert dao.asset is not None  # a SubDAO has its token
    # Nothing but this takes from the reserve, and the DAO is locked.
    reserve_micro = account(dao.party, dao.asset, RESERVE).posted_micro
    schedule = rules.schedule_of(dao.params["emission"])
    part = rules.emission(reserve_micro, schedule)
    ref = (EMISSION_REF, epoch.id)
    parts = (
        (CONVERSION, part.contributors),
        (SPONSORS, part.sponsors),
        ("treasury", part.treasury),
    )
    legs = [
        Leg(
            id=uuid.uuid5(epoch.id, f"emission.{purpose}"),
            debit_account=account(dao.party, dao.asset, RESERVE),
            credit_account=account(dao.party, dao.asset, purpose),
            amount_micro=amount,
            kind="subdaos.emit",
            ref=ref,
        )
        for purpose, amount in parts
        if amount
    ]
    # After this point it must succeed.
    if legs:
        ledger.post(legs, now=now)
    log.append(
        "subdaos.emitted",
        {
            "id": str(epoch.id),
            "dao": dao.party.pid,
            "epoch": epoch.number,
            "reserve_micro": str(reserve_micro),
            "contributors_micro": str(part.contributors),
            "sponsors_micro": str(part.sponsors),
            "treasury_micro": str(part.treasury),
            "schedule": asdict(schedule),
            "policy": vars(policy_of(dao.params)),
        },
        now=now,
    )
    return Emission.objects.create(
        epoch=epoch,
        dao=dao,
        at=now,
        reserve_micro=reserve_micro,
        rate_bps=schedule.rate_bps,
        contributors_micro=part.contributors,
        sponsors_micro=part.sponsors,
        treasury_micro=part.treasury,
    )


def sponsor_take(*, party: Party, dao: Dao, now: datetime) -> Transfer:
    """Pay a sponsor its part of all that was released so far, less what it has taken.

    Money comes in: no consent is needed. Leaf "subdaos.sponsor_paid". Raises NothingDue.
    """
    assert dao.asset is not None
    with durable():
        sponsor = Sponsor.objects.select_for_update().filter(dao=dao, party=party).first()
        due = selectors.sponsor_due_micro(sponsor) if sponsor else 0
        if sponsor is None or not due:
            raise NothingDue()
        id_ = uuid.uuid5(dao.id, f"sponsor.{party.pid}.{sponsor.taken_micro}")
        leg = Leg(
            id=id_,
            debit_account=account(dao.party, dao.asset, SPONSORS),
            credit_account=account(party, dao.asset),
            amount_micro=due,
            kind="subdaos.sponsor",
            ref=(SPONSOR_REF, id_),
        )
        # After this point it must succeed.
        [transfer] = ledger.post([leg], now=now)
        sponsor.taken_micro += due
        sponsor.save(update_fields=["taken_micro"])
        log.append(
            "subdaos.sponsor_paid",
            {
                "id": str(transfer.id),
                "dao": dao.party.pid,
                "party": party.pid,
                "amount_micro": str(due),
            },
            now=now,
        )
    return transfer
