"""Real nodes, and after every test every invariant of the ledger."""

from __future__ import annotations

import pytest

from apps.listings.waiting import waiters
from apps.wallets.invariants import violations
from tests.support.market import Market
from tests.support.nodes import NodeSet, three_nodes  # noqa: F401


@pytest.fixture
def market(transactional_db, settings, tmp_path, three_nodes):  # noqa: F811
    made = Market(three_nodes, settings, tmp_path)
    yield made
    waiters.close()
    assert {k: v for k, v in violations().items() if v} == {}


@pytest.fixture
def sale(market):
    held = market.train()
    market.listing = market.accept(held)
    market.held = held
    return market


@pytest.fixture
def mortal(transactional_db, settings, tmp_path):
    nodes = NodeSet(tmp_path / "nodes")
    nodes.start()
    made = Market(nodes, settings, tmp_path)
    made.held = made.train()
    made.listing = made.accept(made.held)
    yield made
    waiters.close()
    nodes.stop()
