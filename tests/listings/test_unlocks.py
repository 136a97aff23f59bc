"""Early access: in the first hours a new model answers those who have staked, and its author."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from apps.core.clock import now
from apps.core.errors import DomainError
from apps.exchange.vaults import stake
from apps.listings.unlocks import can_ask, early_until
from apps.subdaos.models import Dao
from apps.wallets.models import Hold, LogLeaf
from apps.wallets.services import send
from tests.support.market import Market
from workers.client.replay import Replay


def test_a_new_model_is_asked_by_those_who_staked_until_everybody_may(market: Market) -> None:
    dao = market.dao
    dao.params["unlocks"] = {"early_access_s": 3_600, "stake_bps": 1_000}
    Dao.objects.filter(pk=dao.pk).update(params=dao.params)
    listing = market.accept(market.train())
    market.fund()
    with pytest.raises(DomainError, match="early_access"):
        market.ask(listing, market.row(listing, [[0.5, -1.0]]))
    assert not Hold.objects.exists()

    # A tenth of the thousand that there are: the backer has six hundred.
    sdt = dao.asset.code
    backer = market.backer.party
    listing.refresh_from_db()
    assert can_ask(backer, listing, now()).code == "early_access"
    stake(party=backer, asset=sdt, amount_micro=99, now=now())
    assert can_ask(backer, listing, now()) is not None
    stake(party=backer, asset=sdt, amount_micro=1, now=now())
    assert can_ask(backer, listing, now()) is None
    until = listing.opened_at + timedelta(hours=1)
    assert early_until(listing, now()) == until
    assert can_ask(market.buyer.party, listing, until - timedelta(milliseconds=1)) is not None
    assert can_ask(market.buyer.party, listing, until) is None

    send(party=backer, to=market.buyer.party, asset=sdt, amount_micro=200, now=now())
    stake(party=market.buyer.party, asset=sdt, amount_micro=150, now=now())
    market.ask(listing, market.row(listing, [[0.5, -1.0]]))
    said = [json.loads(bytes(row.data)) for row in LogLeaf.objects.order_by("pk")]
    assert early_errors(said, dao) == []
    held = next(row for row in said if row["type"] == "listings.query_held")
    held["body"]["buyer"] = market.custodians[0].party.pid
    assert early_errors(said, dao) == [held["body"]["query"]]


def early_errors(said: list[dict[str, Any]], dao: Dao) -> list[str]:
    """Queries that the replay finds to have come too early, by the unlocks that were in force; the
    test has set them by hand, as no vote did."""
    state, found = Replay(), []
    for index, row in enumerate(said):
        state.leaf(index, row)
        if row["type"] == "subdaos.founded":
            state.parameters.unlocks[row["body"]["dao"]] = dao.params["unlocks"]
    for text in state.findings.errors:
        if "before its buyer might ask" in text:
            found.append(text.split("query ")[1].split(" ")[0])
    return found
