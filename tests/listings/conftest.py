"""Real nodes, and after every test every invariant of the ledger."""

from __future__ import annotations

import pytest

from apps.listings.waiting import waiters
from apps.wallets.invariants import violations
from tests.support.market import built, founded, on_sale


@pytest.fixture
def market(transactional_db, settings, tmp_path, three_nodes):
    yield built(founded, three_nodes, settings, tmp_path)
    _end()


@pytest.fixture
def sale(transactional_db, settings, tmp_path, three_nodes):
    yield built(on_sale, three_nodes, settings, tmp_path)
    _end()


@pytest.fixture
def mortal_sale(mortal, sale):
    """A sale by nodes that may be killed."""
    return sale


def _end() -> None:
    waiters.close()
    assert {k: v for k, v in violations().items() if v} == {}
