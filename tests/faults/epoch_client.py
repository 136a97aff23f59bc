"""A worker that closes an epoch, to be killed.

prepare     a SubDAO of HOLDERS holders and its frozen epoch; prints the epoch's id
close ID    carry its closing on, a few rows at a time; a line after every chunk
verify ID   carry it to its end, then print what is there and what is broken
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import django

django.setup()

from django.db.models import Sum  # noqa: E402

from apps.accounts.services import party_create  # noqa: E402
from apps.core.transactions import durable  # noqa: E402
from apps.listings import closing  # noqa: E402
from apps.listings.models import Closing, Entitlement  # noqa: E402
from apps.protocol import entitlements as rules  # noqa: E402
from apps.wallets.invariants import violations  # noqa: E402
from apps.wallets.models import Account, LogLeaf, Transfer  # noqa: E402
from apps.wallets.services import account, mint  # noqa: E402
from tests.support.epochs import divided, frozen, subdao  # noqa: E402
from tests.wallets.ledger_helpers import at  # noqa: E402

HOLDERS = 40
CHUNK = 4
REVENUE_MICRO = 1_234_567


def prepare() -> None:
    dao = subdao(at(0))
    assert dao.asset is not None
    with durable():
        for i in range(HOLDERS):
            who = party_create(kind="person", name=f"holder {i}", now=at(0))
            mint(dao.asset, account(who, dao.asset), 10**6 + i, None, at(10))
    epoch = frozen(dao, starts_at=at(1000), ends_at=at(1060), revenue_micro=REVENUE_MICRO)
    print(epoch.id)


def close(epoch_id: str) -> None:
    save = Closing.save

    def told(self: Closing, *args: object, **kwargs: object) -> None:
        save(self, *args, **kwargs)  # type: ignore[arg-type]
        print(self.step, flush=True)

    Closing.save = told  # type: ignore[method-assign, assignment]
    closing.carry_on(epoch_id, now=at(1070), chunk=CHUNK)


def verify(epoch_id: str) -> None:
    closing.carry_on(epoch_id, now=at(1070), chunk=CHUNK)
    done = Closing.objects.select_related("epoch__dao").get(pk=epoch_id)
    owed = divided(done.epoch)
    paid = Transfer.objects.filter(kind="listings.payout").aggregate(sum=Sum("amount_micro"))
    left = Account.objects.get(owner=done.epoch.dao.party, asset__code="USDC", purpose="revenue")
    found = {
        "violations": {k: v for k, v in violations().items() if v},
        "step": done.step,
        "root_is_right": done.root == rules.root(epoch_id, owed),
        "owed": len(owed),
        "owed_micro": sum(one.amount_micro for one in owed),
        "paid_micro": paid["sum"],
        "unclaimed": Entitlement.objects.filter(claimed_at=None, amount_micro__gt=0).count(),
        "left_micro": left.posted_micro,
        "leaves": LogLeaf.objects.filter(type="listings.epoch_settled").count(),
    }
    print(json.dumps(found))


match sys.argv[1:]:
    case ["prepare"]:
        prepare()
    case ["close", epoch]:
        close(epoch)
    case ["verify", epoch]:
        verify(epoch)
