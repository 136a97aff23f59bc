"""Whom a model's nodes will answer: what the makers' tickets say of it, from the vote in force.

A vote on access holds at once, by the site. The nodes hold to it from the next round's model on:
what they ask is in its makers' tickets, and no later vote reaches it. Reads only.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from apps.accounts.models import PartyKey
from apps.protocol.consent import WALLET
from apps.protocol.credentials import Demand, access_of, demand_named
from apps.subdaos.models import Dao
from apps.training.models import Round

# Whether something of a SubDAO is sold by other terms than those that a vote has set since: its
# buyers have paid, so nodes that refused them would take it back. Apps that sell say so.
sold_before: list[Callable[[Dao, datetime], bool]] = []


def asked_by_nodes(dao: Dao, *, now: datetime) -> dict[str, Any]:
    """Of the model of a round that opens now: {"credential", "issuers": pids, "keys": their wallet
    keys of now, in the same order}; {} for nothing. An issuer that has no key any more is left out.
    """
    access = access_of(dao.params.get("access"))
    if access is None or any(sold(dao, now) for sold in sold_before):
        return {}
    bound = PartyKey.objects.filter(party__pid__in=access.issuers, purpose=WALLET, active=True)
    keys = dict(bound.order_by("party__pid").values_list("party__pid", "public_key"))
    named = {"issuers": list(keys), "keys": list(keys.values())}
    return {"credential": access.credential, **named} if keys else {}


def demand_of(held: Round) -> Demand | None:
    """What the tickets of a round say of who may ask its model."""
    return demand_named(held.access)


def access_named(held: Round) -> dict[str, Any]:
    """What a round's leaf says of it: null where its nodes ask for nothing."""
    return {"access": held.access or None}
