"""After every test of wallets, every invariant must hold, unless the test broke one on purpose."""

from __future__ import annotations

import pytest

from apps.wallets.invariants import violations


@pytest.fixture
def tampering():
    """Ask for it in a test that leaves broken rows behind on purpose."""


@pytest.fixture(autouse=True)
def _invariants_hold(request):
    wants_db = request.node.get_closest_marker("django_db") is not None
    if wants_db:
        transactional = request.node.get_closest_marker("django_db").kwargs.get("transaction")
        request.getfixturevalue("transactional_db" if transactional else "db")
    yield
    if wants_db and "tampering" not in request.fixturenames:
        assert {k: v for k, v in violations().items() if v} == {}
