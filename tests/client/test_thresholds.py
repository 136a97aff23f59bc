"""A server can name an engine of which fewer nodes learn all: clients remember what they signed."""

import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from apps.protocol.circuits import CIRCUITS
from tests.privacy.test_answers_are_the_nodes_own import ROW, Site
from tests.support import vectors
from workers.client.agent import Agent
from workers.client.api import Api, ClientError
from workers.client.buyer import Buyer
from workers.client.cli import main
from workers.client.home import Home
from workers.client.joining import Joined, _check_engine
from workers.client.nodes import NotTrusted
from workers.client.outbox import Outbox

LOW = "threshold_too_low"


class Five:
    """No node behind them: nothing is computed here."""

    descriptors = vectors.descriptors(5)


def buyer_of(site: Site, home: Path, **told: Any) -> Buyer:
    transport = httpx.MockTransport(site.answer)
    return Buyer(Home(home), "x", api=Api("http://flai", transport=transport), **told)


def test_a_buyer_signs_no_lower_threshold_than_before_unless_told(tmp_path: Path) -> None:
    site = Site(Five, "aa" * 32)  # type: ignore[arg-type]
    site.engine = "shamir_t1"
    assert buyer_of(site, tmp_path).make_query(ROW)
    site.engine = "shamir_t2"
    assert buyer_of(site, tmp_path).make_query(ROW)[0]["ticket"]["engine"] == "shamir_t2"
    assert buyer_of(site, tmp_path).make_query(ROW)
    for lower in ("shamir_t1", "ring"):
        site.engine = lower
        with pytest.raises(ClientError, match="until now 2 could not") as refused:
            buyer_of(site, tmp_path).make_query(ROW)
        assert refused.value.code == LOW
    assert buyer_of(site, tmp_path, threshold=1).make_query(ROW)
    with pytest.raises(ClientError, match="until now 2"):
        buyer_of(site, tmp_path).make_query(ROW)  # who was told once isn't told for ever
    assert json.loads((tmp_path / "thresholds.json").read_text()) == {"listing:x": 2}


def test_a_buyer_accepts_a_lower_threshold_for_good_and_is_told_who_voted_for_it(
    tmp_path: Path,
) -> None:
    site = Site(Five, "aa" * 32)  # type: ignore[arg-type]
    site.engine = "shamir_t2"
    assert buyer_of(site, tmp_path).make_query(ROW)
    site.engine = "ring"
    buyer = buyer_of(site, tmp_path)
    for vote, said in (
        (None, "names no vote"),
        ({"engine": "shamir_t2", "proposal": "p1"}, "names no vote"),
        ({"engine": "ring", "proposal": "p1"}, "voted for that: http://flai/proposals/p1/"),
    ):
        buyer.listing["engine_vote"] = vote
        with pytest.raises(ClientError, match=said) as refused:
            buyer.make_query(ROW)
        assert "accept_threshold=1" in refused.value.text
    with pytest.raises(ClientError, match="until now 2"):
        buyer_of(site, tmp_path, accept_threshold=2).make_query(ROW)
    assert buyer_of(site, tmp_path, accept_threshold=1).make_query(ROW)
    assert buyer_of(site, tmp_path).make_query(ROW)  # accepted once is accepted
    assert json.loads((tmp_path / "thresholds.json").read_text()) == {"listing:x": 1}
    for told in ({"accept_threshold": 0}, {"threshold": 1, "accept_threshold": 1}):
        with pytest.raises(ClientError) as refused:
            buyer_of(site, tmp_path, **told)
        assert refused.value.code == "bad_threshold"


def test_a_kept_query_is_checked_again_before_it_is_sent_again(tmp_path: Path) -> None:
    site = Site(Five, "aa" * 32)  # type: ignore[arg-type]
    site.engine = "shamir_t1"
    buyer_of(site, tmp_path)._kept_query(ROW, "mine", passing=False)
    assert buyer_of(site, tmp_path)._kept_query(ROW, "mine", passing=False)
    with pytest.raises(ClientError) as refused:
        buyer_of(site, tmp_path, threshold=2)._kept_query(ROW, "mine", passing=False)
    assert refused.value.code == LOW


def test_a_site_signs_no_lower_threshold_than_before_unless_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path)

    said: list[str] = []

    def check(engine: str, subdao: str = "wards", **told: Any) -> str:
        return _check_engine(engine, Five.descriptors, subdao, home=home, say=said.append, **told)

    assert check("ring") == "ring"
    home.keep_threshold("subdao:wards", 2)
    home.keep_threshold("subdao:wards", 1)
    assert check("shamir_t2") == "shamir_t2" and check("ring", "other") == "ring"
    for lower in ("ring", "shamir_t1"):
        with pytest.raises(NotTrusted, match="signed for wards where 2 can't") as refused:
            check(lower)
        assert refused.value.code == LOW and "--accept-threshold 1," in refused.value.text
        with pytest.raises(NotTrusted, match="signed for wards where 2 can't"):
            check(lower, accept=2)
    monkeypatch.setitem(home.config, "threshold", 1)
    assert check("shamir_t1") == "shamir_t1"
    monkeypatch.setitem(home.config, "threshold", 2)
    for accept in (None, 1):
        with pytest.raises(NotTrusted, match=r"agent\.toml asks that 2"):
            check("shamir_t1", accept=accept)
    monkeypatch.delitem(home.config, "threshold")
    assert check("shamir_t1", accept=1, note=False) == "shamir_t1"  # a dry run accepts nothing
    assert home.threshold_signed("subdao:wards") == 2
    said.clear()
    assert check("shamir_t1", accept=1) == "shamir_t1"
    assert any("Accepted for wards: 2 nodes" in line for line in said)
    assert check("shamir_t1") == "shamir_t1" and home.threshold_signed("subdao:wards") == 1


@pytest.mark.parametrize("step", ["normalise", "train", "run"])
def test_an_agents_command_takes_the_persons_word_for_a_lower_threshold(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    for name in ("normalise", "train", "run"):
        monkeypatch.setattr(Agent, name, lambda agent, **_: seen.append(agent.accept_threshold))
    about = ["--rfm", "x"] if step == "run" else ["--subdao", "x"]
    command = ["custodian", "--home", str(tmp_path), step, *about]
    assert main(command) == main([*command, "--accept-threshold", "1"]) == 0
    assert seen == [None, 1]


def test_a_share_that_leaves_is_what_a_site_remembers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    circuit, home = CIRCUITS["moments@1"], Home(tmp_path)
    joined = Joined(
        nodes=Five.descriptors,
        release="11" * 32,
        custodians=3,
        circuit=circuit,
        name="sums",
        subdao="wards",
        params={"features": 2},
        scope="moments:r1",
        resolution=None,
        engine="shamir_t2",
    )
    monkeypatch.setattr(Outbox, "_send", lambda *sent: {})
    values = np.zeros(circuit.slots["sums"].shape({"features": 2}, 0))
    current = {"id": "r1", "roster_hash": "22" * 32}
    for dry_run, kept in ((True, 1), (False, 2)):
        outbox = Outbox(home, "custodian", api=None, say=lambda line: None, dry_run=dry_run)  # type: ignore[arg-type]
        outbox.submit(current, "moments", joined, values, "sums")
        assert home.threshold_signed("subdao:wards") == kept
