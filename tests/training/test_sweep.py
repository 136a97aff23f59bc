"""Every wake-up lost: the sweep and the tasks alone bring a round and a query to their end."""

from __future__ import annotations

import threading
import time
import uuid
from datetime import timedelta

from celery import current_app

from apps.compute.models import Job
from apps.core.clock import now
from apps.core.transactions import durable
from apps.listings.models import Query
from apps.subdaos.models import Dao, Epoch
from apps.subdaos.services import epoch_open
from apps.training.models import Round
from apps.wallets import ledger
from apps.wallets.models import Hold
from apps.wallets.services import account
from tests.support.market import Market
from workers.tasks import sweep as sweeping


def test_the_sweep_finds_what_every_lost_message_would_have_announced(market, monkeypatch) -> None:
    current_app.loader.import_default_modules()
    sent: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(
        current_app, "send_task", lambda name, args=(), **_: sent.append((name, list(args)))
    )

    def sweep_until(done) -> None:
        end = time.monotonic() + 60
        while not done():
            assert time.monotonic() < end, sent[-5:]
            sent.clear()
            sweeping.sweep()
            for name, args in list(sent):
                if name in ("flai.deliver_share", "flai.run_round", "flai.run_queries"):
                    current_app.tasks[name](*args)
            threading.Event().wait(0.01)

    held = market.whitelist()
    _announce_and_share(market, held)
    sweep_until(lambda: Round.objects.get(pk=held.pk).phase == "updates")
    market.share_updates(held)
    sweep_until(lambda: Round.objects.get(pk=held.pk).phase == "done")
    listing = market.accept(Round.objects.get(pk=held.pk))
    market.fund()
    query = market.ask(listing, market.row(listing, [[0.5, 1.0]]))
    sweep_until(lambda: Query.objects.get(pk=query.pk).state == "settled")
    Epoch.objects.filter(queries=query).update(ends_at=now())
    sweep_until(lambda: Query.objects.get(pk=query.pk).epoch.closed_at is not None)


def _announce_and_share(market: Market, held: Round) -> None:
    from apps.training import submissions

    for validator in market.validators:
        submissions.rows_announce(round_id=held.id, party=validator.party, rows=40, now=now())
    for i, site in enumerate(market.custodians):
        market.submit(held, site, market.upload(held, site, "sums", market.sums(i)))


def test_bad_rows_keep_no_other_money_and_no_other_round_waiting(market, monkeypatch) -> None:
    """Of each kind one that cannot be ended, older than one that can."""
    listing = market.accept(market.train())
    market.fund()
    soon = int(now().timestamp()) + 60
    bad, good = (
        market.ask(listing, market.row(listing, [[0.5, 1.0]], expires_at=soon + later))
        for later in (0, 1)
    )
    Job.objects.filter(pk=bad.job_id).update(state="done")  # as no expired query's job can be
    with durable():
        lost = ledger.pend(
            ledger.Leg(
                debit_account=account(market.buyer.party, "USDC"),
                credit_account=account(market.backer.party, "USDC"),
                amount_micro=1,
                kind="test.hold",
            ),
            expires_at=bad.expires_at,
            now=now(),
        )
    odd, late = market._found(), market._found()
    with durable():
        Round.objects.filter(pk=_copied_round(odd).pk).update(
            due_at=now(), expires_at=now() + timedelta(days=1)
        )
        waiting = _copied_round(late)
        epoch_open(dao=odd, now=now() - timedelta(seconds=60))
        ripe = epoch_open(dao=late, now=now())
    Dao.objects.filter(pk=odd.pk).update(params={})
    monkeypatch.setattr(sweeping, "clock_now", lambda: now() + timedelta(hours=2))
    sweeping.sweep()
    assert Query.objects.get(pk=good.pk).state == "released"
    assert Round.objects.get(pk=waiting.pk).phase == "failed"
    assert not Hold.objects.filter(pk__in=[lost.pk, good.hold_id]).exists()
    assert Epoch.objects.get(pk=ripe.pk).closed_at is not None
    assert Query.objects.get(pk=bad.pk).state == "held"
    assert Round.objects.get(dao=odd).phase == "moments"
    assert Epoch.objects.get(dao=odd).closed_at is None


def _copied_round(dao: Dao) -> Round:
    """An empty round of another SubDAO, opened as the last one was."""
    held = Round.objects.latest("opened_at")
    members = list(held.members.all())
    held.pk, held._state.adding = uuid.uuid4(), True
    held.dao, held.number, held.phase, held.closed_at = dao, 1, "moments", None
    held.moments_job = held.round_job = None
    held.save()
    for member in members:
        member.pk, member._state.adding, member.round = uuid.uuid4(), True, held
        member.save()
    return held
