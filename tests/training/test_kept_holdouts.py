"""Validators' own agents over rounds of one epoch, through the API and real nodes: rows are shared
once, then a ticket alone brings them in; what the nodes lack, or is not the same, is shared anew.
"""

from __future__ import annotations

import sqlite3
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.test import Client
from django.urls import reverse

from apps.core.clock import now
from apps.core.errors import Conflict, Unprocessable
from apps.core.transactions import durable
from apps.protocol import sharing, tickets, wire
from apps.subdaos.models import Epoch
from apps.subdaos.services import dao_lock
from apps.training import submissions
from apps.training.models import Round, Submission
from apps.training.services import keep_until, round_open
from apps.wallets import log
from tests.support.bridge import attested
from tests.support.market import STRATA, Market, _seed, drain
from tests.training.test_agents_share_rows import agent_of, api_of
from tests.training.test_record import record_of
from tests.training.test_shared_rows import CHOSEN, announce, choose, rows_of
from workers.client.agent import Agent
from workers.client.home import Home
from workers.client.keeping import standing_of
from workers.client.record import check_record

METRICS = ("auc_milli", "accuracy_milli", "log_loss_milli")


class Region:
    """The market's validators with homes of their own; its custodians as ever."""

    def __init__(self, market: Market, folder: Path) -> None:
        self.market, self.folder = market, folder
        self.lines: list[str] = []
        self.apis = [api_of(person) for person in market.validators]
        for place, person in enumerate(market.validators):
            path = folder / f"validator-{place}"
            path.mkdir(mode=0o700)
            (path / "identity.key").touch(mode=0o600)
            (path / "identity.key").write_text(_seed(person.key).hex())
            self.configure(place)
            self.write(place, person.holdout)
            Home(path).pin_nodes(market.nodes.fingerprints)
            attested(Home(path), market.dao.params | market.dao.params["schema"])

    def path(self, place: int) -> Path:
        return self.folder / f"validator-{place}"

    def configure(self, place: int, *more: str) -> None:
        said = ('data = "rows.csv"', 'label = "response"', 'strata = "region"', 'peers = "any"')
        (self.path(place) / "agent.toml").write_text("\n".join([*said, *more]))

    def write(self, place: int, holdout: np.ndarray) -> None:
        rows = [f"{a:.6f},{b:.6f},{int(y)},{STRATA[int(not n)]}" for a, b, y, n, _ in holdout]
        text = "\n".join(["a,b,response,region", *rows]) + "\n"
        (self.path(place) / "rows.csv").write_text(text)

    def agent(self, place: int, **options: Any) -> Agent:
        home = Home(self.path(place))
        return Agent(home, "validator", say=self.lines.append, api=self.apis[place], **options)

    def about(self, held: Round) -> dict[str, str]:
        return {"subdao": self.market.dao.slug, "round_id": str(held.id)}

    def begun(self, held: Round) -> Round:
        """As far as holdouts are asked for; the custodians have sent what they send."""
        for place in range(3):
            self.agent(place).normalise(**self.about(held))
        for i, site in enumerate(self.market.custodians):
            sums = self.market.upload(held, site, "sums", self.market.sums(i))
            self.market.submit(held, site, sums)
        drain()
        for site in self.market.custodians:
            upload = self.market.upload(held, site, "update", site.weights)
            self.market.submit(held, site, upload)
        drain()
        return held

    def next(self) -> Round:
        with durable():
            opened = round_open(dao=dao_lock(self.market.dao), now=now())
        return self.begun(opened)

    def ended(self, held: Round) -> tuple[dict[Any, int], dict[str, int]]:
        """φ by site, and the evidence, of a round that has all it needs."""
        drain()
        held.refresh_from_db()
        assert held.phase == "done", held.progress[-3:]
        self.market.accept(held)
        phi = {score.party_id: score.phi_milli for score in held.scores.all()}
        return phi, {name: held.version.evidence[name] for name in METRICS}

    def kept(self, node: int) -> int:
        return self.at(node, "SELECT count(*) FROM kept")[0][0]

    def at(self, node: int, query: str, *arguments: Any) -> list[Any]:
        with sqlite3.connect(self.market.nodes.homes[node] / "store.sqlite") as store:
            found = store.execute(query, arguments).fetchall()
        store.close()
        return found


@pytest.fixture
def region(market: Market, tmp_path: Path) -> Region:
    market.dao.params["epoch_s"] = 9 * 3600
    market.dao.save(update_fields=["params"])
    return Region(market, tmp_path)


def test_a_holdout_is_shared_once_an_epoch_and_judges_as_one_shared_anew(region: Region) -> None:
    """M-FL1, M-FL3."""
    market, before = region.market, region.kept(0)
    first = region.begun(market.whitelist())
    sent = [region.agent(place).train(**region.about(first)) for place in range(3)]
    assert all(done["kept"] for done in sent) and region.kept(0) == before + 3
    assert any("The nodes keep it until" in line for line in region.lines)
    region.ended(first)

    # the second round: a ticket each
    second = region.next()
    region.lines.clear()
    dry = region.agent(0, dry_run=True).train(**region.about(second))
    assert dry == {"dry_run": True} and "a ticket of" in region.lines[-2]
    for place in range(3):
        agent = region.agent(place)
        agent.train(**region.about(second))
        left = agent.home.journal.last("leaving")
        rows = agent.home.journal.last("leaving", round=str(first.id))
        assert left["kept_from"] == rows["share_id"] and "holdout rows" in left["what"]
        saved = rows["size_bytes"] - left["size_bytes"]
        assert left["size_bytes"] < 2500 and saved > 8 * 40 * 5
    (said, *_) = [line for line in region.lines if line.startswith("0 rows are sent")]
    assert "the nodes hold 40 holdout rows of 5 values of this site since" in said
    # a run that was killed before it heard goes on with the same ticket
    assert region.agent(0).train(**region.about(second))["event"] == "delivered"
    came = Submission.objects.filter(round=second, slot="holdout")
    assert [s.size_bytes for s in came] == [0] * 3 and not any(s.parts.exists() for s in came)
    phi, evidence = region.ended(second)
    page = Client().get(reverse("explorer:round", args=[second.id])).content.decode()
    assert page.count("0 rows sent: used again by ticket") == 3
    log.sequence(now=now())
    assert check_record(record_of(second)) == []

    # the third: rows that one node lost, rows that changed, and a site that lets none stay
    third = region.next()
    lost = standing_of(region.agent(0).home.journal, market.dao.slug)
    region.at(2, "DELETE FROM kept WHERE share_id = ?", lost.share_id)
    region.lines.clear()
    region.agent(0).train(**region.about(third))
    assert any("This node keeps no such share" in line for line in region.lines)
    changed = market.validators[1].holdout.copy()
    changed[0, 0] += 0.001
    region.write(1, changed)
    old = standing_of(region.agent(1).home.journal, market.dao.slug)
    region.agent(1).train(**region.about(third))
    assert any("shared anew, as they changed" in line for line in region.lines)
    drain()
    assert Submission.objects.get(share_id=old.share_id).state == "withdrawn"
    assert not region.at(0, "SELECT 1 FROM kept WHERE share_id = ?", old.share_id)
    region.configure(2, "keep = false")
    assert "kept" not in region.agent(2).train(**region.about(third))
    anew = Submission.objects.filter(round=third, slot="holdout", state="delivered")
    assert all(s.ticket["type"] == "share" for s in anew) and len(anew) == 3
    fresh_phi, fresh = region.ended(third)
    assert phi == pytest.approx(fresh_phi, abs=3) and max(phi.values()) == 1000
    assert evidence == pytest.approx(fresh, abs=3)

    # and what they keep goes when its owner says so, though no round is open
    kept = standing_of(region.agent(0).home.journal, market.dao.slug)
    assert kept.there and region.at(1, "SELECT 1 FROM kept WHERE share_id = ?", kept.share_id)
    gone = region.agent(0).withdraw(subdao=market.dao.slug)
    assert gone["computed"] and "hold none of its words" in region.lines[-1]
    for node in range(3):
        assert not region.at(node, "SELECT 1 FROM kept WHERE share_id = ?", kept.share_id)
    assert not standing_of(region.agent(0).home.journal, market.dao.slug).there


def test_rows_to_train_on_stay_by_consent_and_each_round_needs_another(region: Region) -> None:
    """M-FL6: opted into with `keep_rows`; withdrawn, no node has them."""
    market, lines = region.market, region.lines
    choose(market, CHOSEN)
    first = market.whitelist()

    def sites(**more: Any) -> list[Agent]:
        how = {"share_rows": True, "keep_rows": True, **more}
        return [agent_of(market, place, region.folder, lines, **how) for place in range(4)]

    def round_on_rows(held: Round) -> None:
        for agent in [*sites(), *(region.agent(place) for place in range(3))]:
            agent.normalise(**region.about(held))
        drain()
        for agent in [*sites(), *(region.agent(place) for place in range(3))]:
            agent.train(**region.about(held))
        region.ended(held)

    round_on_rows(first)
    assert any("The nodes may keep them until" in line for line in lines)
    consents = [site.consent["consent"] for site in first.members.filter(role="custodian")]
    came = Submission.objects.filter(round=first, slot="rows")
    stays = {share.ticket["expires_at"] for share in came}
    assert {consent["stays_until"] for consent in consents} == stays

    with durable():
        second = round_open(dao=dao_lock(market.dao), now=now())
    assert second.start is not None
    lines.clear()
    round_on_rows(second)
    sent = Submission.objects.filter(round=second, stage="round")
    assert len(sent) == 7 and {share.ticket["type"] for share in sent} == {"kept"}
    assert any("0 rows are sent: the nodes hold 40 rows of 3 values" in line for line in lines)
    assert all(site.consent for site in second.members.filter(role="custodian"))

    gone = sites()[0].withdraw(subdao=market.dao.slug)
    assert gone["computed"]
    share_id = came.get(party=market.custodians[0].party).share_id
    for node in range(3):
        assert not region.at(node, "SELECT 1 FROM kept WHERE share_id = ?", share_id)


def test_rows_stay_no_longer_than_was_consented_to(region: Region) -> None:
    market = region.market
    choose(market, CHOSEN)
    held = market.whitelist()
    market.normalise(held)
    until = keep_until(held)
    assert until is not None
    site, rows = market.custodians[0], rows_of(0)
    for longer in (until + 1, int(held.expires_at.timestamp())):
        with pytest.raises(Unprocessable, match="not to this round's use"):
            announce(held, site, stays_until=longer)
    announce(held, site, stays_until=until - 60)
    for other in market.custodians[1:]:
        announce(held, other)
    upload = market.upload(held, site, "rows", rows, uses=2, expires_at=until)
    with pytest.raises(Unprocessable, match="not consented that the rows stay"):
        market.submit(held, site, upload)


def test_what_a_round_is_to_use_is_taken_back_there(region: Region) -> None:
    market = region.market
    first = region.begun(market.whitelist())
    for place in range(3):
        region.agent(place).train(**region.about(first))
    region.ended(first)
    second = region.next()
    region.agent(0).train(**region.about(second))
    came = Submission.objects.get(round=first, slot="holdout", party=market.validators[0].party)
    word = sharing.withdrawal_of(share_id=came.share_id, ticket_id=came.ticket_id, at=2**31)
    signature = wire.sign(market.validators[0].key, sharing.WITHDRAWAL_DOMAIN, word)
    about = {"round_id": first.id, "party": market.validators[0].party}
    said = {"withdrawal": word, "signature": signature, "now": now()}
    with pytest.raises(Conflict, match="take them back there"):
        submissions.share_withdraw(**about, share_id=came.share_id, **said)
    # the agent knows which round that is, and may share rows there again
    region.agent(0).withdraw(subdao=market.dao.slug)
    again = region.agent(0).train(**region.about(second))
    assert again["kept"] is True
    ticket = Submission.objects.get(share_id=again["share_id"]).ticket
    assert tickets.check_ticket(ticket, now=ticket["issued_at"]).uses > 1


def test_in_an_epoch_that_ends_before_the_round_may_nothing_stays(region: Region) -> None:
    market = region.market
    ends_at = now() + timedelta(minutes=50)
    Epoch.objects.create(dao=market.dao, number=1, starts_at=now(), ends_at=ends_at)
    first = region.begun(market.whitelist())
    assert "kept" not in region.agent(0).train(**region.about(first))
    assert Submission.objects.get(round=first, slot="holdout").ticket["uses"] == 1
