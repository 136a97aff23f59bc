"""Agents and buyer against three real nodes, over a server that only hands things on.

The server is imitated (it stores, delivers, dispatches); sharing, sealing, tickets, nodes and
circuits are the real ones. What comes back is compared with the same formulas in the clear.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import time
import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pandas
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from apps.protocol import tickets, uploads, wire
from apps.protocol.aggregation import aggregate
from apps.protocol.contribution import (
    clip_to_median_norm,
    phi_from_utilities,
    phi_milli,
    taylor_scores,
    upper_median,
)
from apps.protocol.normalise import public_constants
from tests.support.bridge import SUBDAO, Bridge
from tests.support.nodes import NodeSet, succeeded
from workers.client import data, joining, training
from workers.client.agent import Agent
from workers.client.api import Api, ClientError
from workers.client.buyer import Buyer, sigmoid
from workers.client.cli import main
from workers.client.cli import main as cli
from workers.client.home import Home, Journal
from workers.client.nodes import NotTrusted, delivered, receipted
from workers.client.tables import AsyncBuyer, predict_table
from workers.demo import sites


@pytest.fixture(scope="module")
def world(three_nodes: NodeSet, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Six sites and three validators that have played one round; and what was said on the way."""
    bridge, agents, made, lines = trained(three_nodes, tmp_path_factory.mktemp("sites"))
    bridge.compute_round()
    return bridge, agents, made, lines


@pytest.fixture(scope="module")
def sharing(three_nodes: NodeSet, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The same before the nodes have computed: they take no shares of a round that is done."""
    return trained(three_nodes, tmp_path_factory.mktemp("sharing"))


def trained(three_nodes: NodeSet, root: Path, *, engine: str = "ring") -> Any:
    made = sites.make(11)
    sites.write(made, root, None)
    bridge, agents, lines = trained_at(three_nodes, root, engine=engine)
    return bridge, agents, made, lines


def trained_at(three_nodes: NodeSet, root: Path, *, engine: str = "ring") -> Any:
    """What sites with homes under root share in a round, as far as the nodes' computation."""
    about = json.loads((root / "sites.json").read_text())
    homes = {site["slug"]: Home(root / site["slug"]) for site in about["sites"]}
    for home in homes.values():
        home.pin_nodes(three_nodes.fingerprints)
        home.pin_peers([each.identity_hex() for each in homes.values()])
    bridge = Bridge(three_nodes, homes, about, engine=engine)
    lines: list[str] = []
    agents = {
        slug: Agent(home, home.config["role"], say=lines.append, api=bridge.api())
        for slug, home in homes.items()
    }
    for slug, agent in agents.items():
        if agent.role == "validator":
            table = agent.table(bridge.spec)
            bridge.rows[homes[slug].identity_hex()] = table.rows
        else:
            agent.normalise(subdao=SUBDAO, round_id=bridge.round_id)
    bridge.compute_moments()
    # Rows are announced in the order of validators; the roster's order is what tickets carry.
    for agent in agents.values():
        agent.train(subdao=SUBDAO, round_id=bridge.round_id)
    return bridge, agents, lines


def test_phi_from_the_nodes_is_phi_in_the_clear(world: Any) -> None:
    bridge, agents, made, _ = world
    order = tickets.members_with_role(bridge.roster, "custodian")
    by_key = {agent.home.identity_hex(): agent for agent in agents.values()}
    updates = np.array([own_update(by_key[key]) for key in order])
    mean, std = training.constants(bridge.normalisation)
    rows, labels = [], []
    for site in made.validators:
        even = data.row_order(site.labels, site.regions)[::2]
        rows.append(training.standardise(site.features[even], mean, std))
        labels.append(site.labels[even])
    clipped = clip_to_median_norm(updates)
    utilities = upper_median([taylor_scores(clipped, x, y) for x, y in zip(rows, labels)], [1] * 3)
    expected = phi_milli(phi_from_utilities(utilities))
    assert np.abs(np.array(bridge.openings["phi_milli"]) - expected).max() <= 2
    bad = {made.free_rider, made.flipped}
    slugs = {agent.home.identity_hex(): slug for slug, agent in agents.items()}
    opened = {slugs[key]: phi for key, phi in zip(order, bridge.openings["phi_milli"])}
    line = 0.1 * float(np.median(list(opened.values())))
    assert {slug for slug, phi in opened.items() if phi <= line} == bad


def own_words(agent: Agent) -> np.ndarray:
    left = agent.home.journal.last("leaving", stage="round")
    return np.fromfile(agent.home.path / "uploads" / left["own"], dtype="<i8")


def own_update(agent: Agent) -> np.ndarray:
    return own_words(agent) / 2.0 ** agent.home.journal.last("leaving", stage="round")["f"]


def test_a_dry_run_shows_what_would_leave_and_sends_nothing(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge, agents, *_ = world
    monkeypatch.setattr(bridge, "changes", {"phase": "updates"})
    for role, what in (("custodian", "an update of 31 numbers"), ("validator", "holdout rows")):
        agent = next(agent for agent in agents.values() if agent.role == role)
        lines: list[str] = []
        trial = Agent(agent.home, role, say=lines.append, api=bridge.api(), dry_run=True)
        before = (len(bridge.shares), (agent.home.path / "journal.jsonl").read_bytes())
        sent = len([body for body in bridge.bodies if body])
        assert trial.train(subdao=SUBDAO, round_id=bridge.round_id) == {"dry_run": True}
        assert any(
            line.startswith("What would leave this site: ") and what in line for line in lines
        )
        assert len([line for line in lines if "bytes sealed to" in line]) == 3
        assert before == (len(bridge.shares), (agent.home.path / "journal.jsonl").read_bytes())
        assert len([body for body in bridge.bodies if body]) == sent


def test_an_agent_shows_what_noise_it_signs_for_and_what_is_left_of_its_update(
    world: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bridge, agents, *_ = world
    monkeypatch.setattr(bridge, "changes", {"phase": "updates"})
    ticket = bridge.round()["ticket"]
    noise = {"clip_milli": 500, "rho_micro": 1_052_358}
    changes = {"phase": "updates", "ticket": ticket | {"params": ticket["params"] | noise}}
    monkeypatch.setattr(bridge, "changes", changes)
    agent = next(agent for agent in agents.values() if agent.role == "custodian")
    lines: list[str] = []
    home = agent.home
    monkeypatch.setattr(home, "config", {**home.config, "epsilon": 8, "epsilon_total": 8})
    trial = Agent(home, agent.role, say=lines.append, api=bridge.api(), dry_run=True)
    assert trial.train(subdao=SUBDAO, round_id=bridge.round_id) == {"dry_run": True}
    text = "\n".join(lines)
    assert "no more than ε = 8.000 (δ = 10^-6) of this site's update" in text
    assert "the nodes shorten it to 0.5." in text
    assert f"All models of {SUBDAO} that this site has signed for: ε = 8.000 at most." in text
    # an earlier round's ticket counts, whatever the server says was made of it; another's does not
    journal = Journal(tmp_path / "journal")
    monkeypatch.setattr(home, "journal", journal)
    for subdao, round_id, rho in (
        (SUBDAO, bridge.round_id, 900_000),
        ("other", "r0", 900_000),
        (SUBDAO, "r1", 1),
    ):
        journal.write("leaving", subdao=subdao, round=round_id, stage="round", rho_micro=rho)
    with pytest.raises(NotTrusted, match="would show ε = 8") as refused:
        trial.train(subdao=SUBDAO, round_id=bridge.round_id)
    assert refused.value.code == "privacy_spent"


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


def test_nothing_in_the_clear_left_any_site(world: Any) -> None:
    bridge, agents, made, _ = world
    sent = b"\n".join(bridge.bodies)
    for site in (*made.custodians, *made.validators):
        for value in site.features[0]:
            text = repr(float(value))
            assert len(text) < 5 or text.encode() not in sent
    for agent in agents.values():
        if agent.role == "custodian":
            for word in own_words(agent)[:5]:
                raw = int(word).to_bytes(8, "little", signed=True)
                assert raw not in sent and wire.b64(raw)[:10].encode() not in sent


def test_a_site_sees_what_leaves_before_it_does(world: Any) -> None:
    _, _, _, lines = world
    text = "\n".join(lines)
    assert text.index("What leaves this site") < text.index("Delivered: 3 nodes")
    assert "sealed to node-0" in text


def test_a_step_that_was_done_is_not_done_again(world: Any) -> None:
    bridge, agents, *_ = world
    agent = next(iter(agents.values()))
    before = len(bridge.shares)
    again = agent.train(subdao=SUBDAO, round_id=bridge.round_id)
    assert again["event"] == "delivered"
    assert len(bridge.shares) == before


def test_after_a_refusal_another_share_is_made(sharing: Any) -> None:
    bridge, agents, *_ = sharing
    agent = agents["hospital-birch"]
    done = agent.home.journal.last("delivered", round=bridge.round_id, stage="round")
    journal = agent.home.journal.path.read_text()
    kept = [line for line in journal.splitlines(True) if done["share_id"] not in line]
    agent.home.journal.path.write_text("".join(kept))
    phase, bridge.phase = bridge.phase, "updates"
    shares = dict(bridge.shares)

    def refused(request: httpx.Request) -> httpx.Response:
        answer = bridge.answer(request)
        is_share = request.method == "GET" and "/shares/" in request.url.path
        no = answer.json() | {"state": "refused", "reason": "No."}
        return httpx.Response(200, json=no) if is_share else answer

    unlucky = Api("http://flai", transport=httpx.MockTransport(refused))
    with pytest.raises(ClientError, match="A node refused"):
        Agent(agent.home, agent.role, say=str, api=unlucky).train(
            subdao=SUBDAO, round_id=bridge.round_id
        )
    again = agent.train(subdao=SUBDAO, round_id=bridge.round_id)
    assert len(set(bridge.shares) - set(shares)) == 2
    assert again["share_id"] in set(bridge.shares) - set(shares)
    agent.home.journal.path.write_text(journal)
    bridge.phase, bridge.shares = phase, shares


@pytest.fixture
def unsent(sharing: Any) -> Any:
    """The bridge as before the updates, and a validator that has sent nothing of its holdout."""
    bridge, agents, *_ = sharing
    agent = next(a for a in agents.values() if a.role == "validator")
    journal, shares = agent.home.journal.path.read_text(), dict(bridge.shares)
    kept = [line for line in journal.splitlines(True) if '"event":"roster"' in line]
    agent.home.journal.path.write_text("".join(kept))
    phase, bridge.phase, bridge.part_bytes_max = bridge.phase, "updates", 3000
    yield bridge, agent
    agent.home.journal.path.write_text(journal)
    bridge.phase, bridge.shares = phase, shares
    bridge.part_bytes_max = uploads.PART_BYTES_MAX


def test_an_agent_that_is_killed_in_the_middle_goes_on_where_it_was(unsent: Any) -> None:
    bridge, agent = unsent
    before, lines = set(bridge.shares), []
    sent: list[int] = []

    def dying(request: httpx.Request) -> httpx.Response:
        if request.method == "PATCH":
            if len(sent) == 3:
                raise KeyboardInterrupt
            sent.append(int(request.headers["Upload-Offset"]))
        return bridge.answer(request)

    first = Api("http://flai", transport=httpx.MockTransport(dying))
    with pytest.raises(KeyboardInterrupt):
        Agent(agent.home, agent.role, say=lines.append, api=first).train(
            subdao=SUBDAO, round_id=bridge.round_id
        )
    assert sent == [0, 3000, 6000]
    [share_id] = set(bridge.shares) - before
    size = bridge.share(share_id)["size_bytes"]
    assert len(bridge.parts[share_id]) == 9000 < size

    def counting(request: httpx.Request) -> httpx.Response:
        if request.method == "PATCH":
            sent.append(int(request.headers["Upload-Offset"]))
        return bridge.answer(request)

    second = Api("http://flai", transport=httpx.MockTransport(counting))
    done = Agent(agent.home, agent.role, say=lines.append, api=second).train(
        subdao=SUBDAO, round_id=bridge.round_id
    )
    assert done["share_id"] == share_id and len(bridge.acks[share_id]) == 3
    assert sent == list(range(0, size, 3000))
    assert "Going on with the share that an earlier run has made." in lines
    there = [line for line in lines if line.endswith("are there already.")]
    assert len(there) == 1 and lines[-2].endswith(f"of {size / 1e6:.1f} MB sent.")


@pytest.mark.parametrize("cut", ["answer lost", "never arrived", "server restarts", "damaged"])
def test_a_connection_that_breaks_costs_one_part(unsent: Any, cut: str) -> None:
    bridge, agent = unsent
    lines: list[str] = []
    seen = 0

    def broken(request: httpx.Request) -> httpx.Response:
        nonlocal seen
        is_share = "/shares/" in request.url.path and request.method in ("GET", "PATCH")
        seen += is_share
        if not is_share or not 2 <= seen <= 4:
            return bridge.answer(request)
        if cut == "server restarts":
            raise httpx.ConnectError("refused")
        if seen > 2:
            return bridge.answer(request)
        if cut == "answer lost":
            bridge.answer(request)
        if cut == "damaged":
            return httpx.Response(422, json={"code": "bad_digest", "detail": "Damaged."})
        raise httpx.ReadError("cut")

    api = Api("http://flai", transport=httpx.MockTransport(broken))
    done = Agent(agent.home, agent.role, say=lines.append, api=api).train(
        subdao=SUBDAO, round_id=bridge.round_id
    )
    kept = (agent.home.path / "uploads" / f"{done['share_id']}.share").read_bytes()
    assert kept.endswith(b"\n" + bridge.parts[done["share_id"]])
    assert len([line for line in lines if line.startswith("  Cut off: ")]) == 1


def test_a_server_that_takes_nothing_is_given_up(unsent: Any) -> None:
    bridge, agent = unsent

    def deaf(request: httpx.Request) -> httpx.Response:
        if request.method == "PATCH":
            share_id = request.url.path.split("/")[-2]
            return httpx.Response(200, json=bridge.share(share_id))
        return bridge.answer(request)

    api = Api("http://flai", transport=httpx.MockTransport(deaf))
    with pytest.raises(ClientError, match="takes no more"):
        Agent(agent.home, agent.role, say=str, api=api).train(
            subdao=SUBDAO, round_id=bridge.round_id
        )


def test_an_upload_that_was_given_up_is_made_anew(unsent: Any) -> None:
    """The round was over, or nothing came for an hour: the next run makes another share."""
    bridge, agent = unsent
    before = set(bridge.shares)

    def over(request: httpx.Request) -> httpx.Response:
        if request.method != "PATCH":
            return bridge.answer(request)
        no = {"code": "share_over", "detail": "The upload is over: nothing came."}
        return httpx.Response(409, json=no)

    api = Api("http://flai", transport=httpx.MockTransport(over))
    with pytest.raises(ClientError, match="The upload is over"):
        Agent(agent.home, agent.role, say=str, api=api).train(
            subdao=SUBDAO, round_id=bridge.round_id
        )
    done = agent.train(subdao=SUBDAO, round_id=bridge.round_id)
    assert len(set(bridge.shares) - before) == 2 and len(bridge.acks[done["share_id"]]) == 3


@pytest.fixture
def asked(world: Any) -> Any:
    """The bridge as before the updates, for a test to bend; and an agent that has sent nothing."""
    bridge, agents, *_ = world
    phase, bridge.phase = bridge.phase, "updates"
    home = agents["hospital-alder"].home
    journal = home.journal.path.read_text()
    lines = journal.splitlines(True)
    home.journal.path.write_text("".join(line for line in lines if '"event":"roster"' in line))
    peers, sent = home.pinned_peers(), len(bridge.shares)
    yield bridge, Agent(home, "custodian", say=lambda line: None, api=bridge.api())
    bridge.changes, bridge.phase = {}, phase
    home.journal.path.write_text(journal)
    home.pin_peers(peers)
    home.pin_nodes(bridge.nodes.fingerprints)
    assert len(bridge.shares) == sent, "something was sent"


def refused(asked: Any, code: str) -> None:
    bridge, agent = asked
    with pytest.raises(NotTrusted, match="Nothing was sent") as caught:
        agent.train(subdao=SUBDAO, round_id=bridge.round_id)
    assert caught.value.code == code


def test_nodes_that_are_not_pinned_get_nothing(asked: Any) -> None:
    asked[1].home.pin_nodes(["00" * 32, "11" * 32, "22" * 32])
    refused(asked, "nodes_not_pinned")


def test_a_node_key_that_the_server_replaced_gets_nothing(asked: Any) -> None:
    nodes = asked[0].round()["nodes"]
    nodes[1]["hpke_key"] = nodes[0]["hpke_key"]
    asked[0].changes = {"nodes": nodes}
    refused(asked, "bad_node_descriptor")


def test_a_roster_without_this_site_is_refused(asked: Any) -> None:
    bridge, agent = asked
    members = [m for m in bridge.roster["members"] if m["key"] != agent.home.identity_hex()]
    roster = bridge.roster | {"members": members}
    bridge.changes = {"roster": roster, "roster_hash": tickets.check_roster(roster)}
    refused(asked, "not_listed")


def test_a_roster_of_too_few_sites_is_refused(asked: Any) -> None:
    bridge, agent = asked
    mine = agent.home.identity_hex()
    others = [m for m in bridge.roster["members"] if m["role"] == "custodian" and m["key"] != mine]
    dropped = {m["key"] for m in others[1:]}
    members = [m for m in bridge.roster["members"] if m["key"] not in dropped]
    roster = bridge.roster | {"members": members}
    bridge.changes = {"roster": roster, "roster_hash": tickets.check_roster(roster)}
    refused(asked, "too_few_sites")


def test_organisations_that_are_not_pinned_are_refused(asked: Any) -> None:
    home = asked[1].home
    home.pin_peers(home.pinned_peers()[:-1])
    refused(asked, "peers_not_pinned")


def test_without_pinned_peers_nothing_is_sent(asked: Any) -> None:
    (asked[1].home.path / "peers.pin.json").unlink()
    refused(asked, "peers_not_pinned")


def smaller(bridge: Bridge, agent: Agent, swapped: bool = False) -> dict[str, Any]:
    """The roster without another site; or with a key in its place that the site has pinned too."""
    mine = agent.home.identity_hex()
    other = next(m for m in bridge.roster["members"] if m["key"] != mine)
    members = [m for m in bridge.roster["members"] if m is not other]
    if swapped:
        known = "ab" * 32
        agent.home.pin_peers([*agent.home.pinned_peers(), known])
        members.append({**other, "key": known})
    return tickets.roster_of(round_id=bridge.round_id, members=members)


@pytest.mark.parametrize("swapped", [False, True])
def test_sums_of_a_later_round_that_lost_a_member_need_a_word_from_the_site(
    asked: Any, swapped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The total without that one, taken from the total with it, would be that one's own sums."""
    bridge, agent = asked
    for name, value in (
        ("round_id", str(uuid.uuid4())),
        ("stage", "moments"),
        ("phase", "moments"),
    ):
        monkeypatch.setattr(bridge, name, value)
    monkeypatch.setattr(bridge, "roster", smaller(bridge, agent, swapped))
    where = {"subdao": SUBDAO, "round_id": bridge.round_id}
    with pytest.raises(NotTrusted, match="has lost") as caught:
        agent.normalise(**where)
    assert caught.value.code == "roster_changed"
    told = Agent(agent.home, "custodian", say=str, api=bridge.api(), accept_roster=True)
    told.dry_run = True
    assert told.normalise(**where) == {"dry_run": True}


def test_within_a_round_members_only_leave_and_once_a_stage(
    asked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those present go on without who was late: the nodes compute one of the two rosters."""
    bridge, agent = asked
    whole, trial = bridge.roster, Agent(agent.home, "custodian", say=str, api=bridge.api())
    trial.dry_run = True
    where = {"subdao": SUBDAO, "round_id": bridge.round_id}
    monkeypatch.setattr(bridge, "roster", smaller(bridge, agent))
    assert trial.train(**where) == {"dry_run": True}
    joining._note_roster(bridge.round(), "round", SUBDAO, agent.home)
    assert trial.train(**where) == {"dry_run": True}
    for roster in (whole, smaller(bridge, agent, swapped=True), smaller(bridge, agent)):
        bridge.roster = roster
        refused(asked, "roster_changed")


def test_among_inventions_a_total_is_one_hospitals_own(
    world: Any, three_nodes: NodeSet, tmp_path: Path
) -> None:
    """The server encloses one hospital in members of its own, whose sums it knows: all zero.

    Nodes count keys, not organisations, and open the total. So the agent computes with pinned
    peers only; what it would give away otherwise is shown by telling it to take any.
    """
    bridge, agents, *_ = world
    alder = agents["hospital-alder"].home
    shutil.copytree(alder.path, tmp_path / "victim")
    victim = Home(tmp_path / "victim")
    victim.journal.path.unlink()
    inventions = [Ed25519PrivateKey.generate() for _ in range(3)]
    about = json.loads((alder.path.parent / "sites.json").read_text())
    trap = Bridge(three_nodes, {"victim": victim}, about)
    trap.roster = tickets.roster_of(
        round_id=trap.round_id,
        members=[
            *trap.roster["members"],
            *(
                {"key": wire.public_hex(key), "role": "custodian", "name": f"Hospital {i}"}
                for i, key in enumerate(inventions)
            ),
        ],
    )

    def take_part() -> None:
        agent = Agent(Home(victim.path), "custodian", say=str, api=trap.api())
        agent.normalise(subdao="trap", round_id=trap.round_id)

    with pytest.raises(NotTrusted) as pinned:
        take_part()
    (victim.path / "peers.pin.json").unlink()
    with pytest.raises(NotTrusted) as unpinned:
        take_part()
    assert pinned.value.code == unpinned.value.code == "peers_not_pinned"
    assert not trap.shares

    config = victim.path / "agent.toml"
    config.write_text('peers = "any"\n' + config.read_text())
    take_part()
    [mine] = trap.shares.values()
    fields = {
        name: mine["ticket"][name]
        for name in ("scope", "slot", "circuits", "params", "f", "roster", "resolution")
    }
    for key in inventions:
        upload = three_nodes.upload(key, np.zeros(mine["ticket"]["shape"]), **fields)
        three_nodes.put(upload)
        trap.shares[upload["ticket"]["share_id"]] = upload
    trap.compute_moments()
    table = agents["hospital-alder"].table(bridge.spec)
    f = mine["ticket"]["f"]
    own = np.round(training.moments(table, f=f, sites=4) * 2.0**f)
    opened = np.array([int(value) for value in trap.openings["sums"]])
    assert np.abs(opened - own).max() <= 1


def test_a_server_with_other_circuits_is_refused(asked: Any) -> None:
    asked[0].changes = {"circuits_hash": "ab" * 32}
    refused(asked, "circuits_differ")


def test_a_scope_of_another_round_is_refused(asked: Any) -> None:
    ticket = asked[0].round()["ticket"] | {"scope": f"round:{uuid.uuid4()}"}
    asked[0].changes = {"ticket": ticket}
    refused(asked, "wrong_stage")


@pytest.mark.parametrize(
    ("finest", "asked_for", "code"),
    [
        ("rounded", "logit", "resolution_too_fine"),
        ("label", "band", "resolution_too_fine"),
        ("fine", "logit", "bad_resolution"),
        ("logit", "weights", "bad_resolution"),
        ("logit", None, "bad_resolution"),
    ],
)
def test_answers_finer_than_the_site_allows_are_not_signed_for(
    asked: Any, finest: str, asked_for: str | None, code: str
) -> None:
    bridge, agent = asked
    agent.home.config = {**agent.home.config, "resolution": finest}
    bridge.changes = {"ticket": bridge.round()["ticket"] | {"resolution": asked_for}}
    refused(asked, code)


BOARD = {"credential": "accredited-hospital", "keys": ["ab" * 32]}


@pytest.mark.parametrize(
    ("config", "asked_for", "code"),
    [
        ({"credential": "accredited-hospital"}, None, "access_differs"),
        ({"credential": "lab"}, BOARD, "access_differs"),
        ({"issuers": ["cd" * 32]}, BOARD, "access_differs"),
        ({"issuers": "ab"}, BOARD, "bad_access"),
        ({"credential": "A Lab"}, BOARD, "bad_access"),
        ({}, {"credential": "lab"}, "bad_access"),
    ],
)
def test_a_model_for_others_than_the_site_allows_is_not_signed_for(
    asked: Any,
    config: dict[str, Any],
    asked_for: Any,
    code: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bridge, agent = asked
    monkeypatch.setattr(agent.home, "config", {**agent.home.config, **config})
    bridge.changes = {"ticket": bridge.round()["ticket"] | {"access": asked_for}}
    refused(asked, code)


def test_whom_a_model_will_answer_is_said_and_signed_for(
    asked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge, agent = asked
    own = {"credential": BOARD["credential"], "issuers": BOARD["keys"]}
    monkeypatch.setattr(agent.home, "config", {**agent.home.config, **own})
    said: list[str] = []
    monkeypatch.setattr(agent, "say", said.append)

    def sealed(values: Any, fields: Any, *more: Any, **how: Any) -> Any:
        raise NotTrusted(f"would sign {fields['access']}", "stopped")

    monkeypatch.setattr("workers.client.outbox.sealing.make_upload", sealed)
    bridge.changes = {"ticket": bridge.round()["ticket"] | {"access": BOARD}}
    with pytest.raises(NotTrusted, match=r"would sign .*accredited-hospital"):
        agent.train(subdao=SUBDAO, round_id=bridge.round_id)
    assert any("holders of a credential “accredited-hospital” alone" in line for line in said)


@pytest.mark.parametrize(
    ("demands", "asked_for", "code"),
    [
        (True, "ring", "verified_only"),
        (False, "shamir", "wrong_engine"),
        (False, "ring_verified", "wrong_engine"),  # of three nodes
    ],
)
def test_an_engine_that_checks_less_than_the_site_demands_is_not_signed_for(
    asked: Any, demands: bool, asked_for: str, code: str
) -> None:
    bridge, agent = asked
    agent.home.config = {**agent.home.config, "verified": demands}
    bridge.changes = {"ticket": bridge.round()["ticket"] | {"engine": asked_for}}
    refused(asked, code)


@pytest.mark.parametrize(
    ("most", "noise", "code"),
    [
        (1.0, {}, "too_little_noise"),
        (1.0, {"clip_milli": 2000, "rho_micro": 30_000}, "too_little_noise"),  # ε = 1.12
        ("1", {"clip_milli": 2000, "rho_micro": 1}, "bad_privacy"),
        (None, {"clip_milli": 2000}, "bad_params"),
    ],
)
def test_less_noise_than_the_site_asks_for_is_not_signed_for(
    asked: Any, most: Any, noise: dict[str, int], code: str
) -> None:
    bridge, agent = asked
    agent.home.config = {**agent.home.config, "epsilon": most}
    ticket = bridge.round()["ticket"]
    bridge.changes = {"ticket": ticket | {"params": ticket["params"] | noise}}
    refused(asked, code)


def test_constants_of_the_servers_own_are_refused(asked: Any) -> None:
    bridge, _ = asked
    own = json.loads(json.dumps(bridge.normalisation))
    own["std"][0] *= 1000
    bridge.changes = {"normalisation": own}
    refused(asked, "wrong_normalisation")


@pytest.mark.parametrize("role", ["custodian", "validator"])
def test_who_has_left_since_the_sums_must_be_pinned_if_it_added_to_them(
    asked: Any, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge, agent = asked
    monkeypatch.setattr(bridge, "roster", bridge.roster)
    monkeypatch.setattr(bridge, "rows", dict(bridge.rows))
    others = set(tickets.members_with_role(bridge.roster, role)) - {agent.home.identity_hex()}
    left = min(others)
    bridge.leave_out(left)
    agent.home.pin_peers([key for key in agent.home.pinned_peers() if key != left])
    agent.dry_run = True
    if role == "custodian":
        refused(asked, "peers_not_pinned")
    else:
        where = {"subdao": SUBDAO, "round_id": bridge.round_id}
        assert agent.train(**where) == {"dry_run": True}


def test_kept_constants_are_of_sums_that_this_site_shared_or_enough_others_here(
    asked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a member is late whose sums are among an earlier round's."""
    bridge, agent = asked
    where = {"subdao": SUBDAO, "round_id": bridge.round_id}
    trial = Agent(agent.home, "custodian", say=str, api=bridge.api())
    trial.dry_run = True
    job = bridge.jobs["moments@1"]
    kept = {"summed": {"round": bridge.round_id, "job": job}}
    bridge.changes = kept
    assert trial.train(**where) == {"dry_run": True}
    # a node of them has a successor since: the job says who they were, the others that it follows
    about = {"circuit": "moments@1", "scope": f"moments:{bridge.round_id}"}
    former = {**job, "nodes": bridge.nodes.descriptors}
    follow = succeeded(bridge.nodes, 1, by=(0, 2))
    assert receipted(former, nodes=follow, **about) == receipted(
        job, nodes=bridge.nodes.descriptors, **about
    )
    for said, nodes in (
        (former, succeeded(bridge.nodes, 1, by=(0,))),  # of whom one alone says so
        (job, follow),
        ({**former, "nodes": follow}, follow),
    ):
        with pytest.raises(NotTrusted):
            receipted(said, nodes=nodes, **about)
    agent.home.journal.path.write_text("")  # it never took part: five others vouch for them
    assert trial.train(**where) == {"dry_run": True}
    monkeypatch.setattr(bridge, "roster", bridge.roster)
    monkeypatch.setattr(bridge, "rows", dict(bridge.rows))
    keys = set(tickets.members_with_role(bridge.roster, "custodian"))
    for key in sorted(keys - {agent.home.identity_hex()})[:3]:
        bridge.leave_out(key)
    refused(asked, "wrong_normalisation")
    told = Agent(agent.home, "custodian", say=str, api=bridge.api(), accept_roster=True)
    told.dry_run = True
    assert told.train(**where) == {"dry_run": True}


@pytest.mark.parametrize("what", ["openings", "receipts", "descriptor", "missing"])
def test_sums_that_the_nodes_did_not_sign_for_are_refused(asked: Any, what: str) -> None:
    bridge, _ = asked
    job = json.loads(json.dumps(bridge.jobs["moments@1"]))
    if what == "openings":
        job["openings"]["sums"][-1] = str(int(job["openings"]["sums"][-1]) + (1 << 30))
    elif what == "receipts":
        job["receipts"][2] = job["receipts"][1]
    elif what == "descriptor":  # another roster than the one that the nodes signed for
        job["descriptor"]["roster"]["members"].pop()
    constants = public_constants(job["openings"]["sums"], len(bridge.spec["features"]))
    bridge.changes = {"job": None if what == "missing" else job, "normalisation": constants}
    refused(asked, "not_receipted")


def test_a_receipt_that_no_node_signed_is_not_believed(world: Any) -> None:
    bridge, *_ = world
    share_id, acks = next(iter(bridge.acks.items()))
    ticket_id = tickets.ticket_id(bridge.shares[share_id]["ticket"])
    nodes = bridge.nodes.descriptors
    assert delivered(acks, ticket_id=ticket_id, nodes=nodes)
    assert not delivered(acks[:2], ticket_id=ticket_id, nodes=nodes)
    forged = [dict(acks[0], signature="00" * 64), *acks[1:]]
    with pytest.raises(ClientError, match="did not sign it"):
        delivered(forged, ticket_id=ticket_id, nodes=nodes)
    with pytest.raises(ClientError, match="another share"):
        delivered(acks, ticket_id="00" * 32, nodes=nodes)


def test_a_wrong_number_of_values_is_said_before_anything_is_paid(
    world: Any, tmp_path: Path
) -> None:
    bridge, *_ = world
    buyer = Buyer(Home(tmp_path / "buyer"), SUBDAO, api=bridge.api())
    with pytest.raises(data.DataError, match="takes 30"):
        buyer.predict([[1.0, 2.0]])
    with pytest.raises(data.DataError, match="missing or not finite"):
        buyer.predict([[float("nan")] * 30])


def test_the_command_line_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli([]) == 2
    out = capsys.readouterr().out
    assert "custodian" in out
    assert "verify" in out


def test_a_file_that_cannot_be_used_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "journal.jsonl").mkdir()
    assert cli(["journal", "--home", str(tmp_path)]) == 1
    assert f"Not done: {tmp_path / 'journal.jsonl'}: Is a directory" in capsys.readouterr().err


def test_verify_tries_its_state_file_before_it_asks_the_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    for state, why in (("missing/s.json", "No such file"), ("file/s.json", "Not a directory")):
        nowhere = ["verify", "--url", "http://127.0.0.1:9", "--state", str(tmp_path / state)]
        assert cli(nowhere) == 1
        said = capsys.readouterr().err
        assert said.startswith("Not done: ") and why in said and "does not answer" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_home_without_a_server_says_what_to_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "api.key").write_text("flai_x")
    assert cli(["custodian", "--home", str(tmp_path), "attest", "--rfm", "x"]) == 1
    assert "connect --home" in capsys.readouterr().err
