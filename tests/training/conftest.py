"""Real nodes, and after every test every invariant of the ledger."""

from __future__ import annotations

import pytest

from apps.wallets.invariants import violations
from tests.support.market import built, founded


@pytest.fixture
def market(transactional_db, settings, tmp_path, three_nodes):
    yield built(founded, three_nodes, settings, tmp_path)
    assert {k: v for k, v in violations().items() if v} == {}
