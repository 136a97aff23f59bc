"""A seeded data set to measure pages on: ten thousand of everything that a page can show.

The ledger writes every payment and its leaf itself, and the log is numbered and signed, so that
`verify_ledger` holds. Votes, rounds and receipts are rows only, without leaves: an auditor who
replays the log finds its queries paid and nowhere settled. So it goes into an empty database only.
"""

from __future__ import annotations

from collections.abc import Callable

from django.db import connection

from apps.accounts.bootstrap import SYSTEM_PARTIES
from apps.accounts.models import Party, User
from apps.compute.models import Job
from apps.core.errors import Conflict
from apps.core.transactions import durable
from apps.explorer.scale.market import Market
from apps.explorer.scale.money import Money
from apps.explorer.scale.plan import EMAIL, Plan
from apps.explorer.scale.world import World
from apps.rfms.models import Rfm
from apps.wallets import log
from apps.wallets.models import LogLeaf, Transfer

__all__ = ["EMAIL", "Plan", "seed"]


def seed(plan: Plan, *, say: Callable[[str], None] = lambda text: None) -> None:
    """Write the data set, whole or not at all, then number its leaves and sign the head.

    Raises Conflict("not_empty") on a database that has content.
    """
    with durable():
        _refuse_content()
        money = Money(plan)
        world, market = World(plan, money), Market(plan, money)
        for text, step in (
            ("parties, assets, accounts", money.open),
            ("requests, votes, SubDAOs, rounds", world.write),
            ("payments", money.pay),
            ("pools and vaults", market.write),
            ("holds of queries", money.hold),
            ("queries", world.sell),
        ):
            say(text)
            step()
    say("log")
    while log.sequence(now=plan.now):
        pass
    world.cosign()
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")  # as a site has it that was not filled a minute ago


def _refuse_content() -> None:
    there = {
        "people": User.objects,
        "parties": Party.objects.exclude(slug__in=SYSTEM_PARTIES),
        "requests": Rfm.objects,
        "transfers": Transfer.objects,
        "log entries": LogLeaf.objects,
        "jobs": Job.objects,
    }
    found = [name for name, rows in there.items() if rows.exists()]
    if found:
        raise Conflict("not_empty", f"This database has {', '.join(found)}. Use an empty one.")
