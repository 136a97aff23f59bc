"""Custodians' own agents in a round on shared rows, through the API: consent, share, withdraw."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.test import Client

from apps.accounts.models import User
from apps.accounts.services import api_key_create
from apps.protocol.normalise import constants_digest
from apps.training import services
from apps.training.models import Round, Submission
from tests.support.bridge import attested
from tests.support.market import Market, Person, _seed, drain
from tests.training.test_shared_rows import CHOSEN, choose, rows_of
from workers.client.agent import Agent
from workers.client.api import Api, ClientError
from workers.client.home import Home, Journal
from workers.client.nodes import NotTrusted
from workers.client.service import Service


def api_of(person: Person) -> Api:
    """The API as this party's key sees it; what is due for the nodes is done after each request."""
    user = User.objects.create_user(f"{uuid.uuid4().hex}@example.org", "x")
    _, key = api_key_create(user=user, party=person.party, label="agent")
    site = Client()

    def answer(request: httpx.Request) -> httpx.Response:
        headers = {
            f"HTTP_{name.upper().replace('-', '_')}": value
            for name, value in request.headers.items()
            if name.lower() not in ("content-type", "content-length", "host")
        }
        reply = site.generic(
            request.method,
            request.url.raw_path.decode(),
            request.content,
            content_type=request.headers.get("content-type", "application/json"),
            **headers,
        )
        drain()
        return httpx.Response(reply.status_code, headers=dict(reply.items()), content=reply.content)

    return Api("http://testserver", key, transport=httpx.MockTransport(answer))


def agent_of(market: Market, place: int, folder: Path, lines: list[str], **options: Any) -> Agent:
    person = market.custodians[place]
    home = folder / f"site-{place}"
    if not home.exists():
        home.mkdir(mode=0o700)
        (home / "identity.key").touch(mode=0o600)
        (home / "identity.key").write_text(_seed(person.key).hex())
        lines_of = ('data = "rows.csv"', 'label = "response"', 'peers = "any"', 'subdaos = "any"')
        (home / "agent.toml").write_text("\n".join(lines_of))
        rows = [f"{a:.6f},{b:.6f},{int(y)}" for a, b, y in rows_of(place)]
        (home / "rows.csv").write_text("\n".join(["a,b,response", *rows]) + "\n")
        Home(home).pin_nodes(market.nodes.fingerprints)
        attested(Home(home), market.dao.params | market.dao.params["schema"])
    return Agent(Home(home), "custodian", say=lines.append, api=api_of(person), **options)


def test_agents_share_rows_by_consent_take_them_back_and_go_on_later(
    market, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(services, "SITE_ROWS_MAX", 4 * 38)  # two less than each site has
    choose(market, CHOSEN)
    held = market.whitelist()
    about: dict[str, str] = {"subdao": market.dao.slug, "round_id": str(held.id)}
    lines: list[str] = []

    silent = agent_of(market, 0, tmp_path, lines)
    with pytest.raises(ClientError, match="two that put their words together") as refused:
        silent.normalise(**about)
    assert refused.value.code == "no_consent"
    assert not Submission.objects.exists() and Round.objects.get().rows == {}

    wary = agent_of(market, 0, tmp_path, lines, share_rows=True)
    wary.home.config = {**wary.home.config, "curve": False}
    with pytest.raises(NotTrusted, match="after each epoch") as refused:
        wary.normalise(**about)
    assert refused.value.code == "curve_opened" and Round.objects.get().rows == {}
    assert not any("LOSS CURVE" in line for line in lines)

    agents = [agent_of(market, i, tmp_path, lines, share_rows=True) for i in range(4)]
    for agent in agents:
        agent.normalise(**about)
    assert any(line.startswith("Consent to share 38 rows of 3 values") for line in lines)
    assert "40 rows are more than each custodian of this round may bring: 38" in "".join(lines)
    assert any("at most 3 × 5 steps, rate 0.1, momentum 0.5" in line for line in lines)
    assert any("stops after 3 epochs" in line for line in lines)
    assert any("LOSS CURVE IS OPENED" in line for line in lines)
    held.refresh_from_db()
    assert held.phase == "normalising"
    market.normalise_validators(held)
    held.refresh_from_db()
    assert held.phase == "updates", held.progress

    # consent was given for the number of rows; what leaves now needs the word again
    with pytest.raises(ClientError, match="--share-rows"):
        agent_of(market, 0, tmp_path, lines).train(**about)
    # nor does a ticket, whatever the consent was shown
    with pytest.raises(NotTrusted, match="after each epoch"):
        wary.train(**about)
    trial = agent_of(market, 0, tmp_path, lines, share_rows=True, dry_run=True)
    assert trial.train(**about) == {"dry_run": True}
    assert not Submission.objects.filter(stage="round").exists()

    first = agents[0].train(**about)
    assert any("THESE ARE ROWS" in line for line in lines)
    # another took its place, as where a member is called late; both are with the nodes
    Submission.objects.filter(share_id=first["share_id"]).update(state="replaced")
    agents[0].home.journal.write("refused", share_id=first["share_id"], reason="replaced")
    second = agents[0].train(**about)
    gone = agents[0].withdraw(**about)
    assert gone["event"] == "withdrawn" and gone["share_id"] == second["share_id"]
    assert agents[0].withdraw(**about)["share_id"] == second["share_id"]
    assert lines[-1] == "Withdrawn: 3 nodes signed that they hold nothing of it."
    for sent in (first, second):
        taken = Submission.objects.get(share_id=sent["share_id"])
        assert taken.state == "withdrawn" and len(taken.acks) == 3
    # a service that may share rows leaves it to a person to share what a person took back
    service = Service(agents[0].home, "custodian", say=lines.append, api=agents[0].api)
    assert service._due(agents[0].api.get(f"rounds/{held.id}/")) is None
    again = agents[0].train(**about)
    assert again["share_id"] not in (first["share_id"], second["share_id"])
    assert agents[0].train(**about)["share_id"] == again["share_id"]
    for agent in agents[1:]:
        agent.train(**about)
    for validator in market.validators:
        market.submit(held, validator, market.upload(held, validator, "holdout", validator.holdout))
    drain()
    held.refresh_from_db()
    assert held.phase == "done", held.progress[-3:]
    phi = {score.party_id: score.phi_milli for score in held.scores.all()}
    assert phi[market.custodians[3].party.id] == 0 and max(phi.values()) == 1000
    events = [entry["event"] for entry in agents[0].home.journal]
    assert [e for e in events if e in ("consenting", "rows_declared", "withdrawn")] == [
        "consenting", "rows_declared", "withdrawn", "withdrawn",
    ]  # fmt: skip
    with pytest.raises(ClientError, match="The round is over"):
        agents[1].withdraw(**about)
    # what nodes had computed with by then is not said to be gone
    mine = {"share_id": agents[1].home.journal.last("delivered", stage="round")["share_id"]}
    agents[1].home.journal.write("withdrawn", computed=True, **mine)
    agents[1].withdraw(**about)
    assert "what the round makes of that stays" in lines[-1]
    # no row stands in the journal
    journal = (agents[0].home.path / "journal.jsonl").read_text()
    assert not any(f"{value:.6f}" in journal for value in rows_of(0)[:, :2].ravel())
    goes_on_from_the_version(market, tmp_path, held)


def goes_on_from_the_version(market: Market, folder: Path, first: Round) -> None:
    """The next round: one node has crashed in between, and a fifth site has joined."""
    market.accept(first)
    market.nodes.kill(1)
    market.nodes.start(1)
    held = market.join("Site 4")
    assert held.phase == "normalising" and held.start == first.version and held.summed == first
    assert held.progress[-1]["text"].startswith("Training goes on from version 1")
    about: dict[str, str] = {"subdao": market.dao.slug, "round_id": str(held.id)}
    lines: list[str] = []
    agents = [agent_of(market, i, folder, lines, share_rows=True) for i in range(5)]
    newcomer = agents[4]
    service = Service(newcomer.home, "custodian", say=lines.append, api=newcomer.api)
    assert service._due(newcomer.api.get(f"rounds/{held.id}/")) == "normalise"
    for agent in agents:
        assert agent.normalise(**about) is None
    assert any("no sums are asked for" in line for line in lines)
    assert service._due(newcomer.api.get(f"rounds/{held.id}/")) is None
    market.normalise_validators(held)
    held.refresh_from_db()
    assert held.phase == "updates" and held.moments_job is None, held.progress
    believes_no_other_constants(newcomer, held, about)
    keeps_what_it_took_part_under(market, folder, held, about)
    for place in range(5):
        agent_of(market, place, folder, lines, share_rows=True).train(**about)
    assert any(line.startswith("Training goes on from version 1") for line in lines)
    for validator in market.validators:
        market.submit(held, validator, market.upload(held, validator, "holdout", validator.holdout))
    drain()
    held.refresh_from_db()
    assert held.phase == "done", held.progress[-3:]
    assert held.round_job.circuit == "logistic_sgd_on@1"
    assert held.round_job.descriptor["model"] == first.version.model
    before, after = first.version.evidence, held.version.evidence
    assert after["log_loss_milli"] < before["log_loss_milli"]
    # by how much the loss is under that of score 0: the second round began where the first ended
    assert after["training"]["curve_milli"][0] > before["training"]["curve_milli"][-1]
    page = Client().get(f"/rounds/{held.id}/").content.decode()
    assert "Training goes on from version 1" in page and f"/rounds/{first.id}/" in page


def believes_no_other_constants(agent: Agent, held: Round, about: dict[str, str]) -> None:
    """Those of the server's own in one place or in all, or another model than the ticket's."""
    real = agent.api.get
    shown = real(f"rounds/{held.id}/")
    own = {**shown["normalisation"], "mean": [0, 0]}
    named = shown["ticket"]["params"] | {"normalisation": constants_digest(own)}
    other = {"ticket": shown["ticket"] | {"params": named}}
    for code, changes in (
        ("wrong_normalisation", {"normalisation": own}),
        ("wrong_normalisation", {"normalisation": own} | other),
        ("wrong_normalisation", other),
        ("not_receipted", {"summed": None}),
        ("wrong_model", {"start": {"version": 1, "model": "00" * 32}}),
        # from zero nothing ties kept constants to this SubDAO, and this site knows none
        ("wrong_normalisation", from_zero(shown)),
    ):
        lie = shown | changes
        agent.api.get = lambda path, lie=lie: lie if path.startswith("rounds/") else real(path)  # type: ignore[method-assign]
        with pytest.raises(NotTrusted) as refused:
            agent.train(**about)
        assert refused.value.code == code
    agent.api.get = real  # type: ignore[method-assign]


def from_zero(shown: dict[str, Any]) -> dict[str, Any]:
    """What changes where a maker of the model is late."""
    asked = shown["ticket"] | {"circuits": ["logistic_sgd@1"], "model": None}
    return {"start": None, "ticket": asked}


def keeps_what_it_took_part_under(
    market: Market, folder: Path, held: Round, about: dict[str, str]
) -> None:
    """A site that was there before takes kept constants on from the model and from zero, if they
    are ones that its journal names; others, with good receipts too, only by a person's word."""
    options = {"share_rows": True, "dry_run": True}
    for journal, accept_roster, taken in (
        (None, False, True),
        ("another", False, False),
        ("another", True, True),
    ):
        agent = agent_of(market, 0, folder, [], accept_roster=accept_roster, **options)
        if journal:
            agent.home.journal = Journal(folder / journal)
            attested(agent.home, market.dao.params | market.dao.params["schema"])
            agent.home.journal.write("normalised", subdao=about["subdao"], digest="00" * 32)
        shown = agent.api.get(f"rounds/{held.id}/")
        for lie in (shown, shown | from_zero(shown)):
            agent.round_of = lambda lie=lie, **_: lie  # type: ignore[method-assign]
            if taken:
                assert agent.train(**about) == {"dry_run": True}
            else:
                with pytest.raises(NotTrusted, match="never took part"):
                    agent.train(**about)
