"""What happens to a SubDAO while something else of it is being changed."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

from django.db import connection, transaction

from apps.core import actions
from apps.core.clock import now
from apps.core.errors import Conflict
from apps.participants import services as participants
from apps.participants.models import Application
from apps.subdaos.selectors import points_at
from apps.subdaos.services import dao_lock, sbgt_mint
from apps.training import running, services
from apps.training.models import Member, Phase, Round
from apps.wallets.models import LogLeaf

MICRO = 1_000_000


def while_locked(dao: Any, change: Callable[[], Any], other: Callable[[], Any]) -> Any:
    """Lock the DAO, start `other` beside us until it waits for a lock, then `change` and commit.

    Returns what became of `other`.
    """
    outcome: list[Any] = []

    def run() -> None:
        try:
            with transaction.atomic():
                outcome.append(other())
        except Exception as error:  # handed back to the test
            outcome.append(error)
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    with transaction.atomic():
        dao_lock(dao)
        thread.start()
        deadline = time.monotonic() + 60
        while not outcome and not _somebody_waits():
            assert time.monotonic() < deadline
        change()
    thread.join(timeout=60)
    return outcome[0]


def _somebody_waits() -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND pid IN"
            " (SELECT pid FROM pg_stat_activity WHERE datname = current_database())"
        )
        return bool(cursor.fetchone()[0])


def test_two_decisions_to_train_open_one_round(market) -> None:
    held = market.whitelist()
    Round.objects.filter(pk=held.pk).update(phase=Phase.FAILED, closed_at=now())
    opened = while_locked(
        market.dao,
        lambda: services.round_open(dao=market.dao, now=now()),
        lambda: actions.get("training.open_round").execute(
            {}, dao=market.dao, proposal_id=uuid.uuid4(), now=now()
        ),
    )
    assert isinstance(opened, Conflict) and opened.code == "round_not_ready"
    assert Round.objects.filter(dao=market.dao).count() == 2


def test_who_is_put_out_while_a_round_opens_is_on_its_roster_and_the_log_says_so_in_order(
    market,
) -> None:
    """The verifier holds a round's members against the votes before it."""
    held = market.whitelist()
    Round.objects.filter(pk=held.pk).update(phase=Phase.FAILED, closed_at=now())
    validator = market.validators[0].party
    (out,) = Application.objects.filter(party=validator).values_list("id", flat=True)
    while_locked(
        market.dao,
        lambda: services.round_open(dao=market.dao, now=now()),
        lambda: participants.remove(
            dao=market.dao, application_ids=[str(out)], proposal_id=uuid.uuid4(), now=now()
        ),
    )
    opened = Round.objects.get(dao=market.dao, number=2)
    assert Member.objects.filter(round=opened, party=validator).exists()
    types = ("training.round_opened", "participants.removed")
    leaves = LogLeaf.objects.filter(type__in=types).order_by("id").values_list("type", flat=True)
    assert list(leaves)[-2:] == list(types)


def test_points_that_are_given_while_a_round_is_recorded_are_kept(market) -> None:
    held = market.whitelist()
    members = list(Member.objects.filter(round=held).select_related("party"))
    judge = market.validators[0].party
    before, at = points_at(market.dao, now())[judge.id], now()

    def give() -> None:
        sbgt_mint(
            dao=market.dao, party=judge, points_micro=5 * MICRO, reason="commitment", now=now()
        )

    phi = {member.party_id: 0 for member in members}
    assert while_locked(market.dao, give, lambda: running._points(held, members, phi, at)) is None
    # One point for judging, beside those given meanwhile.
    assert points_at(market.dao, now())[judge.id] == before + 6 * MICRO
