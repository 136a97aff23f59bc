"""What agents share in a round on three real nodes gives what the formulas give in the clear.

The server is imitated (it stores, delivers, dispatches); sharing, sealing, tickets, nodes and
circuits are the real ones.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from apps.protocol import tickets, wire
from apps.protocol.contribution import (
    clip_to_median_norm,
    phi_from_utilities,
    phi_milli,
    taylor_scores,
    upper_median,
)
from tests.support.bridge import SUBDAO, attested
from tests.support.trained import own_update, own_words
from workers.client import data, training
from workers.client.agent import Agent
from workers.client.api import ClientError
from workers.client.cli import main as cli
from workers.client.home import Journal
from workers.client.nodes import NotTrusted, delivered


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
    attested(home, bridge.spec)
    for subdao, round_id, rho in (
        (SUBDAO, bridge.round_id, 900_000),
        ("other", "r0", 900_000),
        (SUBDAO, "r1", 1),
    ):
        journal.write("leaving", subdao=subdao, round=round_id, stage="round", rho_micro=rho)
    with pytest.raises(NotTrusted, match="would show ε = 8") as refused:
        trial.train(subdao=SUBDAO, round_id=bridge.round_id)
    assert refused.value.code == "privacy_spent"


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
