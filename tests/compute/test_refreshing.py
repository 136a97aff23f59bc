"""The platform has real nodes refresh what they keep, once an epoch, and keeps their receipts."""

from __future__ import annotations

import json
from datetime import timedelta
from io import StringIO
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.core.management import CommandError, call_command

from apps.compute import control, refreshing, services
from apps.compute.models import Job, Refresh
from apps.compute.selectors import node_set
from apps.core.clock import now
from apps.core.models import OutboxEvent
from apps.protocol import refreshes, wire
from apps.wallets.models import LogLeaf
from tests.support.nodes import Buyer
from workers.node import home as homes
from workers.tasks.compute import refresh_shares

ROW = [[0.5, -1.0]]


def test_once_an_epoch_the_same_model_has_new_shares(
    market: Any, model: str, settings: Any
) -> None:
    nodes = market.nodes
    services.nodes_sync()

    def asked() -> float:
        buyer = Buyer(nodes, model)
        query = buyer.query(ROW)
        return float(buyer.open(query, nodes.ask(buyer.job(query), uploads=[query]))[0])

    before = asked()
    assert not refreshing.refresh_due(now=now())  # nothing was ever kept
    Job.objects.create(
        job_id="ab" * 16, kind="round", circuit="c@1", scope="round:x", descriptor={}, state="done",
        model="ab" * 32, due_at=now(), expires_at=now(), done_at=now(),
    )  # fmt: skip
    assert not refreshing.refresh_due(now=now())
    assert refreshing.refresh_due(now=now() + timedelta(days=1))
    settings.REFRESH_EVERY_S = 0
    refresh_shares()
    first = Refresh.objects.get()
    assert abs(asked() - before) < 0.01
    leaf = LogLeaf.objects.get(type="compute.refreshed")
    assert first.count >= 1
    assert json.loads(bytes(leaf.data))["body"] == {
        "refresh": first.digest, "number": first.number, "nodes": nodes.fingerprints,
        "count": first.count, "left": first.left,
    }  # fmt: skip
    assert refreshing.refresh_due(now=now())

    # an answer that was lost: the nodes show what they have done
    first.delete()
    said = StringIO()
    call_command("refresh_shares", stdout=said)
    again, second = Refresh.objects.order_by("number")
    assert (again.digest, second.number) == (first.digest, first.number + 1)
    assert said.getvalue() == (
        f"refresh {second.number}: {first.count} models in new shares at 3 nodes, "
        f"{first.left} as before\n"
    )
    assert abs(asked() - before) < 0.01


def test_without_a_node_nothing_is_refreshed(market: Any, mortal: Any) -> None:
    services.nodes_sync()
    mortal.kill(1)
    with pytest.raises(control.Retryable):
        refreshing.refresh(now=now())
    with pytest.raises(CommandError, match="nodes_short"):
        call_command("refresh_shares")
    assert not Refresh.objects.exists()


@pytest.mark.parametrize("engine", [None, "shamir_t1"])
def test_a_model_that_went_over_is_asked_where_it_lives(
    market: Any, tmp_path: Any, engine: str | None
) -> None:
    services.nodes_sync()
    asked = refreshes.reshare_of(
        id_="ab" * 16, after=0, nodes=market.nodes.fingerprints, deadline_s=9, model="ab" * 32,
        consents=[], engine=engine,
    )  # fmt: skip
    receipts = []
    for i, home in enumerate(market.nodes.homes):
        receipt = {
            "v": 1,
            "refresh": refreshes.check_refresh(asked),
            "number": 1,
            "models": refreshes.models_digest([("ab" * 32, "cd" * 32)]),
            "result": {str(j): "ef" * 32 for j in range(3) if (j == i) == bool(engine)},
            "node": market.nodes.fingerprints[i],
            "at": 1,
        } | ({"engine": engine} if engine else {})
        signature = wire.sign(homes.load(home).sign_key, refreshes.REFRESHED_DOMAIN, receipt)
        receipts.append({"receipt": receipt, "signature": signature})
    proof = {"refresh": asked, "receipts": receipts}
    for _ in range(2):
        refreshing._recorded(proof, node_set(), now=now())
    event = OutboxEvent.objects.get(name="compute.ModelReshared")
    assert event.payload == {
        "model": "ab" * 32, "nodes": market.nodes.fingerprints, "engine": engine or "",
    }  # fmt: skip
    leaf = json.loads(bytes(LogLeaf.objects.get(type="compute.refreshed").data))["body"]
    assert leaf["model"] == "ab" * 32 and leaf.get("engine") == engine
    assert leaf["consents"] == asked["consents"] and leaf["nodes"] == asked["nodes"]
    # and the nodes take none over that its makers have not let go
    (tmp_path / "consent").write_text(json.dumps({"key": "ab" * 32, "signature": "ab" * 64}))
    with pytest.raises(CommandError, match="not_held"):
        call_command("reshare_model", "ab" * 32, tmp_path / "consent")


def test_one_of_more_nodes_does_not_keep_the_others_from_it(monkeypatch: Any, db: Any) -> None:
    """One does not answer, one invents a number, one refuses each time."""
    fake = [SimpleNamespace(fingerprint=f"{i:064x}", descriptor={"sign_key": ""}) for i in range(5)]
    said = {i: {"number": 0} for i in range(4)} | {4: {"number": 9, "proof": {"refresh": 9}}}
    members: Any = [SimpleNamespace(fingerprint=n.fingerprint, index=i) for i, n in enumerate(fake)]

    def post(member: Any, _path: str, body: bytes, **_: Any) -> Any:
        if 3 not in json.loads(body)["refresh"]["members"]:
            return {"receipt": member.index}
        if member.index == 3:
            raise control.Final("store_failed", "It does not.")
        raise control.Retryable("peer_refused", "Another one does not.")

    monkeypatch.setattr(refreshing.selectors, "node_set", lambda: fake)
    monkeypatch.setattr(refreshing.selectors, "members", lambda nodes: members)
    monkeypatch.setattr(control, "there", lambda *_, **__: [True] * 5)
    monkeypatch.setattr(control, "last_refresh", lambda member: said[member.index])
    monkeypatch.setattr(control, "coordinator_key", Ed25519PrivateKey.generate)
    monkeypatch.setattr(control, "_post", post)
    monkeypatch.setattr(refreshing, "_recorded", lambda proof, *_, **__: proof)
    done: Any = refreshing.refresh(now=now())
    assert done["refresh"]["members"] == [0, 1, 2] and len(done["receipts"]) == 3

    def last(member: Any) -> Any:
        if member.index:
            return said[member.index]
        raise control.Retryable("node_down", "It does not answer.")

    monkeypatch.setattr(control, "last_refresh", last)
    with pytest.raises(control.Final, match="does not"):
        refreshing.refresh(now=now())
