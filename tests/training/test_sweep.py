"""Every wake-up lost: the sweep and the tasks alone bring a round and a query to their end."""

from __future__ import annotations

import threading
import time

from celery import current_app

from apps.core.clock import now
from apps.listings.models import Query
from apps.training.models import Round
from tests.support.market import Market
from workers.tasks import sweep as sweeping


def test_the_sweep_finds_what_every_lost_message_would_have_announced(market, monkeypatch) -> None:
    current_app.loader.import_default_modules()
    sent: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(
        current_app, "send_task", lambda name, args=(), **_: sent.append((name, list(args)))
    )

    def sweep_until(done) -> None:
        end = time.monotonic() + 30
        while not done():
            assert time.monotonic() < end, sent[-5:]
            sent.clear()
            sweeping.sweep()
            for name, args in list(sent):
                if name in ("flai.deliver_share", "flai.run_round", "flai.run_query"):
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
    query.refresh_from_db()
    sweep_until(lambda: now() >= query.epoch.ends_at)
    sweep_until(lambda: Query.objects.get(pk=query.pk).epoch.closed_at is not None)


def _announce_and_share(market: Market, held: Round) -> None:
    from apps.training import submissions

    for validator in market.validators:
        submissions.holdout_rows_announce(
            round_id=held.id, party=validator.party, rows=40, now=now()
        )
    for i, site in enumerate(market.custodians):
        market.submit(held, site, market.upload(held, site, "sums", market.sums(i)))
