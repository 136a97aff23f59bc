"""Parties with tokens, and what they have."""

from __future__ import annotations

import json

from apps.accounts.models import Party
from apps.core.transactions import durable
from apps.wallets.models import Account, LogLeaf
from apps.wallets.services import account, mint
from tests.wallets.ledger_helpers import T0, at, party
from workers.client.replay import Replay

MICRO = 1_000_000


def holder(slug: str, **tokens: int) -> Party:
    """A person with so many whole tokens: holder("ann", USDC=100, FLAI=400)."""
    made = party(slug)
    with durable():
        for code, whole in tokens.items():
            mint(code, account(made, code), whole * MICRO, None, T0)
    return made


def has(who: Party, asset: str, purpose: str = "main") -> int:
    found = Account.objects.filter(owner=who, asset__code=asset, purpose=purpose).first()
    return found.posted_micro if found else 0


def replayed() -> Replay:
    """The log as it stands, replayed by the auditor's own code."""
    state = Replay()
    for index, leaf in enumerate(LogLeaf.objects.order_by("id")):
        state.leaf(index, json.loads(bytes(leaf.data)))
    state.end()
    return state


__all__ = ["MICRO", "T0", "at", "has", "holder", "replayed"]
