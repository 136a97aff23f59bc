"""After every test of pools and vaults, every invariant must hold."""

from __future__ import annotations

import pytest

from apps.wallets.invariants import violations


@pytest.fixture(autouse=True)
def _invariants_hold(request):
    marker = request.node.get_closest_marker("django_db")
    if marker is not None:
        name = "transactional_db" if marker.kwargs.get("transaction") else "db"
        request.getfixturevalue(name)
    yield
    if marker is not None:
        assert {k: v for k, v in violations().items() if v} == {}
