"""What a site does not sign for, whatever the server says of a round on three real nodes.

The server is imitated (it stores, delivers, dispatches); sharing, sealing, tickets, nodes and
circuits are the real ones.
"""

import json
import shutil
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from apps.protocol import tickets, wire
from apps.protocol.normalise import public_constants
from tests.support.bridge import SUBDAO, UNSENT, Bridge, attested
from tests.support.nodes import NodeSet, succeeded
from workers.client import joining, training
from workers.client.agent import Agent
from workers.client.home import Home
from workers.client.nodes import NotTrusted, receipted


@pytest.fixture
def asked(world: Any) -> Any:
    """The bridge as before the updates, for a test to bend; and an agent that has sent nothing."""
    bridge, agents, *_ = world
    phase, bridge.phase = bridge.phase, "updates"
    home = agents["hospital-alder"].home
    journal = home.journal.path.read_text()
    lines = journal.splitlines(True)
    home.journal.path.write_text("".join(line for line in lines if UNSENT.search(line)))
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

    agent.home.config = {k: v for k, v in agent.home.config.items() if k not in own}
    said.clear()
    bridge.changes = {"ticket": bridge.round()["ticket"] | {"access": None}}
    with pytest.raises(KeyError, match="access"):  # it stands in no ticket then
        agent.train(subdao=SUBDAO, round_id=bridge.round_id)
    assert any("The nodes will answer everybody" in line for line in said)


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
    agent.home.journal.path.unlink()
    attested(agent.home, bridge.spec)  # it never took part: five others vouch for them
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
