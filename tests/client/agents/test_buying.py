"""A buyer against three real nodes: each answer is the model's own, and paid once.

The server is imitated (it stores, delivers, dispatches); sharing, sealing, tickets, nodes and
circuits are the real ones.
"""

import asyncio
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pandas
import pytest

from apps.protocol import tickets
from apps.protocol.aggregation import aggregate
from apps.protocol.contribution import (
    clip_to_median_norm,
)
from tests.support.bridge import SUBDAO
from tests.support.trained import own_update
from workers.client import data, training
from workers.client.api import Api, ClientError
from workers.client.buyer import Buyer, sigmoid
from workers.client.cli import main
from workers.client.home import Home
from workers.client.tables import AsyncBuyer, predict_table


def test_a_bought_answer_is_the_models_own(world: Any, tmp_path: Path) -> None:
    bridge, agents, made, _ = world
    home = Home(tmp_path / "buyer")
    home.pin_nodes(bridge.nodes.fingerprints)
    buyer = Buyer(home, SUBDAO, api=bridge.api())
    answer = buyer.predict(made.patients[0].tolist())
    order = tickets.members_with_role(bridge.roster, "custodian")
    by_key = {agent.home.identity_hex(): agent for agent in agents.values()}
    updates = np.array([own_update(by_key[key]) for key in order])
    model = aggregate(clip_to_median_norm(updates), bridge.openings["phi_milli"])
    mean, std = training.constants(bridge.normalisation)
    z = training.standardise(made.patients[0], mean, std) @ model[:-1] + model[-1]
    expected = [sigmoid(value) for value in z]
    assert np.abs(np.array(answer.probabilities) - expected).max() < 0.001
    assert answer.price_micro == 500_000 * len(expected)


def test_a_query_whose_buyer_died_is_paid_once_and_still_opened(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge, _, made, _ = world
    Home(tmp_path).pin_nodes(bridge.nodes.fingerprints)
    rows, before = made.patients[0][:2].tolist(), len(bridge.queries)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Buyer, "_ended", killed)
        Buyer(Home(tmp_path), SUBDAO, api=bridge.api()).predict(rows, idempotency_key="visit-7")
    again = Buyer(Home(tmp_path), SUBDAO, api=bridge.api())
    answer = again.predict(rows, idempotency_key="visit-7")
    assert len(answer.probabilities) == 2
    assert len(bridge.queries) == before + 1
    [kept] = (tmp_path / "queries").iterdir()
    assert kept.stat().st_mode & 0o077 == 0
    with pytest.raises(ClientError, match="other rows"):
        again.predict(rows[:1], idempotency_key="visit-7")


def test_a_query_without_a_key_of_ones_own_is_kept_until_its_answer_is_opened(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Its answer is late, its buyer is killed, and one never arrives."""
    bridge, _, made, _ = world
    home = Home(tmp_path)
    home.pin_nodes(bridge.nodes.fingerprints)
    row, before = made.patients[0][:1].tolist(), len(bridge.queries)
    fails = iter([ClientError("Waited 90 s.", code="timeout"), KeyboardInterrupt()])

    def broken_off(*_: object) -> None:
        raise next(fails)

    with monkeypatch.context() as patched:
        patched.setattr(Buyer, "_ended", broken_off)
        with pytest.raises(ClientError, match="idempotency key") as late:
            Buyer(home, SUBDAO, api=bridge.api()).predict(row)
        with pytest.raises(KeyboardInterrupt):
            Buyer(home, SUBDAO, api=bridge.api()).predict(row)
        patched.setattr(Buyer, "_post", broken_off)
        past = SimpleNamespace(time=lambda: time.time() - 1_000)
        patched.setattr("workers.client.buyer.time", past)
        fails = iter([ClientError("It does not answer.", code="unreachable")])
        with pytest.raises(ClientError, match="does not answer"):
            Buyer(home, SUBDAO, api=bridge.api()).predict(row)
    [one, _, _] = keys = {kept["key"] for kept in home.kept_queries().values()}
    assert any(key in late.value.text for key in keys) and one
    monkeypatch.setattr(Home, "api", lambda _: bridge.api())
    assert main(["answers", "--home", str(tmp_path)]) == 0
    said = capsys.readouterr()
    first, second = said.out.splitlines()
    assert first == second and float(first) and said.err.count("never arrived") == 1
    assert len(bridge.queries) == before + 2 and home.kept_queries() == {}
    assert main(["predict", "--home", str(tmp_path), SUBDAO]) == 2
    file = tmp_path / "rows.csv"
    names = [feature["name"] for feature in bridge.spec["features"]]
    file.write_text("\n".join([",".join(names), ",".join(map(str, row[0]))]))
    capsys.readouterr()
    assert main(["predict", "--home", str(tmp_path), SUBDAO, str(file)]) == 0
    assert capsys.readouterr().out.split() == [first] and home.kept_queries() == {}


def test_a_kept_query_that_never_arrived_is_made_anew_once_it_has_expired(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server has stored nothing and charged nothing: only then it says that it is too late."""
    bridge, _, made, _ = world
    Home(tmp_path).pin_nodes(bridge.nodes.fingerprints)
    rows, before = made.patients[0][:1].tolist(), len(bridge.queries)

    def lost(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            raise httpx.ConnectError("gone")
        return bridge.answer(request)

    with monkeypatch.context() as patched, pytest.raises(ClientError, match="does not answer"):
        past = SimpleNamespace(time=lambda: time.time() - 601)
        patched.setattr("workers.client.buyer.time", past)
        patched.setattr("workers.client.api.BACKOFF_S", 0)
        api = Api("http://flai", transport=httpx.MockTransport(lost))
        Buyer(Home(tmp_path), SUBDAO, api=api).predict(rows, idempotency_key="visit-8")
    again = Buyer(Home(tmp_path), SUBDAO, api=bridge.api())
    first = again.predict(rows, idempotency_key="visit-8")
    second = again.predict(rows, idempotency_key="visit-8")
    assert first == second
    assert len(bridge.queries) == before + 1
    with pytest.raises(ClientError, match="other rows"):
        again.predict(made.patients[0][:2].tolist(), idempotency_key="visit-8")


@pytest.fixture
def ward(world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """(bridge, a fresh home, seven patients, their answers); two rows a query."""
    bridge, _, made, _ = world
    label = {"name": "diagnosis", "positive": "M"}
    monkeypatch.setattr("workers.client.api.BACKOFF_S", 0)
    columns = [feature["name"] for feature in bridge.spec["features"]]
    patients = pandas.DataFrame(made.patients[0][:7], columns=columns, index=list("abcdefg"))
    patients.insert(0, "name", "nobody's business")
    (tmp_path / "other").mkdir()
    one = Buyer(Home(tmp_path / "other"), SUBDAO, api=bridge.api())
    expected = one.predict(made.patients[0][:7].tolist()).probabilities
    monkeypatch.setattr(bridge, "changes", {"rows_per_query": 2, "label": label})
    return bridge, Home(tmp_path), patients, expected


def test_as_many_rows_as_a_request_takes_are_one_and_more_are_refused_before_they_are_sent(
    ward: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge, home, patients, expected = ward
    rows, before = patients.iloc[:, 1:].to_numpy().tolist(), len(bridge.queries)
    refused = r"2 rows of this model at most; these are 7. Nothing was sent. `predict_table`"

    async def ask() -> None:
        async with AsyncBuyer(home, SUBDAO, api=bridge.api()) as buyer:
            await buyer.predict(rows)

    with pytest.raises(data.DataError, match=refused):
        Buyer(home, SUBDAO, api=bridge.api()).predict(rows)
    with pytest.raises(data.DataError, match=refused):
        asyncio.run(ask())
    assert len(bridge.queries) == before
    monkeypatch.setitem(bridge.changes, "rows_per_query", 7)
    rows = patients.iloc[:, 1:].to_numpy(dtype=float)
    answers = predict_table(Buyer(home, SUBDAO, api=bridge.api()), rows)
    assert len(bridge.queries) == before + 1 and answers["logit"].shape == (7,)
    assert answers["probability"].tolist() == pytest.approx(expected, abs=1e-3)


def test_a_table_is_asked_in_parts_at_once_from_a_home_that_has_nothing_yet(ward: Any) -> None:
    """Pandas in and out, from an event loop."""
    bridge, home, patients, expected = ward

    async def ask() -> Any:
        async with AsyncBuyer(home, SUBDAO, api=bridge.api(), at_once=4) as buyer:
            return await asyncio.gather(
                buyer.predict_table(patients), buyer.predict(patients.iloc[:1, 1:].to_numpy())
            )

    answers, first = asyncio.run(ask())
    assert list(answers.columns) == ["probability", "logit"] and list(answers.index) == [*"abcdefg"]
    assert answers["probability"].tolist() == pytest.approx(expected, abs=1e-3)
    assert first.probabilities == pytest.approx(expected[:1], abs=1e-3)
    assert b"nobody's business" not in b"".join(bridge.bodies)
    assert not list((home.path / "queries").iterdir())  # nobody has the key to ask again by


def test_a_table_that_broke_off_goes_on_and_pays_no_part_twice(
    ward: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of four queries is lost, then released; and the site's limit changes."""
    bridge, home, patients, expected = ward
    key, before, keys = "ward-3" * 30, len(bridge.queries), []

    def lossy(request: httpx.Request) -> httpx.Response:
        own = request.headers.get("Idempotency-Key", "")
        if own.split("/")[1:] == ["1", "0"]:
            if not keys:
                keys.append(own)
                raise httpx.ConnectError("gone")
            return httpx.Response(200, json={"id": "q", "state": "released", "reason": "no nodes"})
        assert len(own) <= 200
        return bridge.answer(request)

    def ask(at_once: int = 1) -> Any:
        buyer = Buyer(home, SUBDAO, api=Api("http://flai", transport=httpx.MockTransport(lossy)))
        return predict_table(buyer, patients, idempotency_key=key, at_once=at_once)

    monkeypatch.setattr("workers.client.api.ATTEMPTS", 1)
    with pytest.raises(ClientError, match=r"does not answer.* [123] of 4 parts are answered"):
        ask()
    monkeypatch.setitem(bridge.changes, "rows_per_query", 1000)
    answers = ask(at_once=4)
    assert len(bridge.queries) - before == 4 and keys
    assert answers["probability"].tolist() == pytest.approx(expected, abs=1e-3)
    with pytest.raises(ClientError, match="other rows"):
        patients.iloc[0, 1] += 1
        ask()


def test_a_wrong_number_of_values_is_said_before_anything_is_paid(
    world: Any, tmp_path: Path
) -> None:
    bridge, *_ = world
    buyer = Buyer(Home(tmp_path / "buyer"), SUBDAO, api=bridge.api())
    with pytest.raises(data.DataError, match="takes 30"):
        buyer.predict([[1.0, 2.0]])
    with pytest.raises(data.DataError, match="missing or not finite"):
        buyer.predict([[float("nan")] * 30])
