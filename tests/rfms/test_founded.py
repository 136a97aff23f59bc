"""A SubDAO against the request whose hash was voted on, as an auditor compares them."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from django.test import Client

from apps.core import clock
from apps.rfms.models import Rfm
from apps.subdaos.selectors import engine_of
from apps.wallets import log
from apps.wallets.models import LogLeaf
from tests.governance.helpers import SPEC, founded
from workers.client.api import Api
from workers.client.founded import not_as_requested
from workers.client.replay import replay
from workers.client.verify import Auditor

pytestmark = pytest.mark.django_db(transaction=True)
ELSE = object()
Leaves = list[dict[str, Any]]


def bent(kind: str, field: str, value: Any) -> Callable[[Leaves, Any], None]:
    def bend(said: Leaves, spec: Any) -> None:
        row = next(row for row in said if row["type"] == kind)
        row["body"][field] = value(row["body"].get(field))

    return bend


def other(field: str, value: Any) -> Callable[[Leaves, Any], None]:
    def bend(said: Leaves, spec: Any) -> None:
        spec["governance"][field] = value

    return bend


FORGED = [
    (bent("subdaos.founded", "rules", lambda old: old | {"quorum_bps": 1}), "its rules are other"),
    (bent("subdaos.founded", "policy", lambda old: old | {"sdt_bps": 1}), "its policy are other"),
    (bent("subdaos.founded", "decay_ppm", lambda old: old + 1), "its decay_ppm are other"),
    (bent("subdaos.founded", "supply_micro", lambda old: old + "0"), "its supply_micro are other"),
    (bent("subdaos.founded", "price_micro", lambda old: old + "0"), "its price_micro are other"),
    (bent("subdaos.founded", "epoch_s", lambda old: old + 1), "its epoch_s are other"),
    (bent("subdaos.founded", "rebate_bps", lambda old: old + 1), "its rebate_bps are other"),
    (bent("subdaos.founded", "shares", lambda old: old | {"backers_bps": 1}), "its shares are"),
    (bent("rfms.approved", "target_micro", lambda old: old + "0"), "another target"),
    (bent("governance.proposal", "ends_at", lambda old: old - 1), "less time than the request"),
    (bent("subdaos.founded", "engine", lambda old: "shamir_t1"), "compute by another engine"),
    (other("quorum_bps", 1), "another request than was voted on"),
]


def test_a_founding_that_bends_what_was_voted_on_is_found() -> None:
    dao, _, _ = founded()
    spec = Rfm.objects.get(subdao=dao).spec
    said = [json.loads(bytes(row.data)) for row in LogLeaf.objects.order_by("id")]
    state = replay(said)
    assert state.findings.errors == []
    assert not_as_requested(spec, state, dao.party.pid) is None
    for bend, why in FORGED:
        forged, shown = copy.deepcopy(said), copy.deepcopy(spec)
        bend(forged, shown)
        assert why in str(not_as_requested(shown, replay(forged), dao.party.pid)), why
    assert not_as_requested(None, state, dao.party.pid) == "its request is malformed"

    log.sequence(now=clock.now())
    report = Auditor(Api("http://testserver", transport=Site())).run()
    assert [c.text for c in report.checks if not c.ok] == []
    assert "1 SubDAOs were founded as the requests say" in "\n".join(c.text for c in report.checks)
    for shown in ({"spec": spec | {"objective": "Another one"}}, None):
        report = Auditor(Api("http://testserver", transport=Site(shown))).run()
        [wrong] = [c.text for c in report.checks if not c.ok]
        assert f"SubDAO {dao.party.pid}: the server " in wrong


class Site(httpx.BaseTransport):
    """The site's own answers, but for what it shows of a request."""

    def __init__(self, shown: Any = ELSE) -> None:
        self.shown = shown

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if "/rfms/" in request.url.path and self.shown is not ELSE:
            return httpx.Response(200 if self.shown else 404, json=self.shown or {"code": "no"})
        answer = Client().get(request.url.raw_path.decode())
        return httpx.Response(answer.status_code, content=answer.content)


def test_a_request_founds_a_subdao_whose_nodes_compute_as_it_says() -> None:
    """The log says it, so that the engine of its rounds is that of the founding until a vote."""
    asked = {**SPEC["governance"], "engine": "shamir"}
    dao, _, _ = founded(governance=asked)
    assert engine_of(dao) == "shamir_t1"
    spec = Rfm.objects.get(subdao=dao).spec
    said = [json.loads(bytes(row.data)) for row in LogLeaf.objects.order_by("id")]
    state = replay(said)
    assert not_as_requested(spec, state, dao.party.pid) is None
    assert state.parameters.engine == {dao.party.pid: "shamir_t1"}
    [founding] = [row["body"] for row in said if row["type"] == "subdaos.founded"]
    del founding["engine"]
    why = not_as_requested(spec, replay(said), dao.party.pid)
    assert why == "its nodes compute by another engine than the request asks for"
