"""A client of the ledger's services, to be killed.

    prepare              a payer with money, a shop
    key                  an API key of the payer's, and the shop's name in the API
    state                what is there and broken
    burst SEED NOTES     payment 0, 1, 2 … for ever; each answer is noted and synced, and then
                         its number printed
    again SEED:COUNT …   payments 0 … COUNT − 1 of each once more; prints {payment: transfer} as
                         answers, and what was there and broken before and after

Every third payment is a hold that is then posted. The ids follow from SEED and the number.
"""

from __future__ import annotations

import json
import os
import sys
import uuid
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import django

django.setup()

from apps.accounts.models import Party, User  # noqa: E402
from apps.accounts.services import api_key_create, party_create  # noqa: E402
from apps.core.clock import now  # noqa: E402
from apps.core.transactions import durable  # noqa: E402
from apps.wallets import ledger, services  # noqa: E402
from apps.wallets.invariants import violations  # noqa: E402
from apps.wallets.models import Hold, Transfer  # noqa: E402

LIFE = timedelta(minutes=10)


def prepare() -> None:
    with durable():
        payer, _ = (party_create(kind="person", name=name, now=now()) for name in ("payer", "shop"))
    services.faucet(party=payer, asset="USDC", amount_micro=services.FAUCET_MAX_MICRO)
    print("ready")


def pay(seed: uuid.UUID, number: int) -> tuple[str, str]:
    """Payment `number` of one micro-unit; (its id, its transfer's id)."""
    id_ = uuid.uuid5(seed, str(number))
    payer, shop = (Party.objects.get(name=name) for name in ("payer", "shop"))
    if number % 3:
        made = services.send(
            party=payer, to=shop, asset="USDC", amount_micro=1, idempotency=id_, now=now()
        )
        return str(id_), str(made.id)
    debit, credit = services.account(payer, "USDC"), services.account(shop, "USDC")
    with durable():
        leg = ledger.Leg(debit, credit, 1, "test.pay", id=id_)
        ledger.pend(leg, expires_at=now() + LIFE, now=now())
    with durable():
        return str(id_), str(ledger.post_pending(id_, now=now()).id)


def burst(seed: uuid.UUID, notes: Path) -> None:
    with open(notes, "w") as file:
        for number in count():
            answer = pay(seed, number)
            file.write(json.dumps(answer) + "\n")
            file.flush()
            os.fsync(file.fileno())
            print(number, flush=True)


def found() -> dict[str, Any]:
    paid = Transfer.objects.filter(phase__in=["single", "post"], credit__owner__name="shop")
    return {
        "violations": {k: v for k, v in violations().items() if v},
        "transfers": [str(i) for i in Transfer.objects.values_list("id", flat=True)],
        "holds": Hold.objects.count(),
        "paid_micro": sum(paid.values_list("amount_micro", flat=True)),
    }


def key() -> None:
    payer, shop = (Party.objects.get(name=name) for name in ("payer", "shop"))
    user = User.objects.create_user("payer@example.org", "x")
    _, made = api_key_create(user=user, party=payer, label="burst")
    print(json.dumps({"key": made, "shop": shop.slug}))


def again(*sent: str) -> None:
    before = found()
    pairs = [one.split(":") for one in sent]
    answers = dict(pay(uuid.UUID(seed), i) for seed, count in pairs for i in range(int(count)))
    print(json.dumps({"before": before, "answers": answers, "after": found()}))


match sys.argv[1:]:
    case ["prepare"]:
        prepare()
    case ["key"]:
        key()
    case ["state"]:
        print(json.dumps(found()))
    case ["burst", seed, notes]:
        burst(uuid.UUID(seed), Path(notes))
    case ["again", *sent]:
        again(*sent)
