"""Real nodes, and after every test every invariant of the ledger."""

from __future__ import annotations

import pytest

from apps.wallets.invariants import violations
from tests.support.market import Market
from tests.support.nodes import model, three_nodes  # noqa: F401


@pytest.fixture
def market(transactional_db, settings, tmp_path, three_nodes):  # noqa: F811
    made = Market(three_nodes, settings, tmp_path)
    yield made
    assert {k: v for k, v in violations().items() if v} == {}
