"""A member proposes in the browser: form, diff, then the proposal, once and exactly as shown."""

from __future__ import annotations

import html
import json
import re
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.test import Client

from apps.accounts.models import Party
from apps.accounts.services import sign_up
from apps.core import actions, clock
from apps.explorer.proposing import FORMS
from apps.governance.models import Proposal
from apps.protocol import consent
from apps.subdaos.models import Dao
from apps.subdaos.selectors import superdao
from apps.wallets.services import send
from tests.governance.helpers import MICRO, at, founded
from tests.support.consents import bind, signed

pytestmark = pytest.mark.django_db
EMISSION = {
    "kind": "subdaos.set_emission",
    "rate_bps": "1",
    "contributors_bps": "60",
    "sponsors_bps": "20",
    "treasury_bps": "20",
    "convertible_bps": "25",
    "title": "Slower",
    "description": "It lasts longer.",
    "once": "7c9c1f1e-6f0a-4a59-9a36-1b1d7d3c5f10",
}


@pytest.fixture
def ada() -> tuple[Party, Client, Dao]:
    """Holds tokens of the SubDAO, signed in."""
    dao, _, backer = founded()
    user, party = sign_up(
        email="ada@example.org", password="a long pass phrase 7", name="Ada", kind="person"
    )
    send(party=backer, to=party, asset=dao.asset.code, amount_micro=300_000 * MICRO, now=at(22))
    page = Client()
    page.force_login(user)
    return party, page, dao


def here(dao: Dao) -> str:
    return f"/subdaos/{dao.slug}/propose/"


def hidden(shown: str) -> dict[str, str]:
    found = re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', shown)
    return {name: html.unescape(value) for name, value in found}


def test_every_kind_has_its_form_filled_with_what_is_in_force(ada: Any) -> None:
    _, page, dao = ada
    supers = {kind for kind in FORMS if actions.get(kind).house == "super"}
    for where, kinds in ((dao, FORMS.keys() - supers), (superdao(), supers)):
        choices = page.get(here(where)).content.decode()
        assert set(re.findall(r"\?kind=([\w.]+)", choices)) == kinds
        for kind in kinds:
            form = FORMS[kind]
            assert form.about and html.escape(form.about) in choices
            shown = page.get(here(where), {"kind": kind}).content.decode()
            assert "Preview the proposal" in shown, kind
    assert page.get(here(dao), {"kind": "rfms.approve"}).status_code == 200
    assert page.get("/subdaos/nowhere/propose/").status_code == 404
    assert Client().get(here(dao)).status_code == 302


def test_a_preview_shows_the_diff_and_writes_nothing_then_it_is_proposed_once(ada: Any) -> None:
    party, page, dao = ada
    seen = page.post(here(dao), EMISSION).content.decode()
    assert "Check the proposal" in seen and "<del>2.00 %</del><ins>1.00 %</ins>" in seen
    assert not Proposal.objects.filter(dao=dao, kind=EMISSION["kind"]).exists()
    again = page.post(here(dao), hidden(seen) | {"change": "yes"}).content.decode()
    assert "Propose a change" in again and 'value="Slower"' in again  # nothing written is lost
    for _ in range(2):
        made = page.post(here(dao), hidden(seen))
        assert made.status_code == 302
    [proposal] = Proposal.objects.filter(dao=dao, kind=EMISSION["kind"])
    assert made.url == f"/proposals/{proposal.id}/"
    assert proposal.payload == {"emission": dao.params["emission"] | {"rate_bps": 100}}
    assert (proposal.proposer, proposal.title) == (party, "Slower")
    assert page.post(here(dao), hidden(seen) | {"rate_bps": "3"}).status_code == 422
    assert Proposal.objects.filter(dao=dao, kind=EMISSION["kind"]).count() == 1


@pytest.mark.parametrize(("changes", "said"), [
    ({"rate_bps": "11"}, "rate_bps lies between"),
    ({"rate_bps": "x"}, "Write a number"),
    ({"rate_bps": "2"}, "This is the schedule already"),
    ({"sponsors_bps": "21"}, "sum to 10000"),
    ({"title": ""}, "required"),
    ({"kind": "subdaos.set_split", "sbgt_bps": "60", "sdt_bps": "35", "treasury_bps": "5"},
     "between 10 and 15 %"),
    ({"kind": "subdaos.set_price", "price": "0"}, "At least"),
    ({"kind": "subdaos.pay", "to": "nobody", "asset": "USDC", "amount": "1"}, "Nobody here"),
    ({"kind": "subdaos.pay", "to": "ada", "asset": "USDC", "amount": "1000000"}, "treasury has"),
    ({"kind": "subdaos.pay", "to": "ada", "asset": "FLAI", "amount": "1"}, "valid choice"),
])  # fmt: skip
def test_what_may_not_be_is_said_and_not_proposed(
    ada: Any, changes: dict[str, str], said: str
) -> None:
    _, page, dao = ada
    for confirm in ({}, {"confirm": "yes"}):
        answer = page.post(here(dao), EMISSION | changes | confirm)
        assert answer.status_code == 422 and said in answer.content.decode()
    assert not Proposal.objects.filter(proposer__name="Ada").exists()


def test_who_may_not_propose_is_told_so_before(ada: Any) -> None:
    _, page, dao = ada
    shown = page.get(here(dao), {"kind": "subdaos.set_scoring"}).content.decode()
    assert "soul-bound points" in shown
    fields = {"kind": "subdaos.set_scoring", "scoring": "leave_one_out"}
    seen = page.post(here(dao), EMISSION | fields).content.decode()
    assert "Propose it" not in seen
    assert page.post(here(dao), hidden(seen)).status_code == 422


def test_a_bound_key_signs_the_hash_of_the_payload_that_is_shown(ada: Any) -> None:
    party, page, dao = ada
    key = Ed25519PrivateKey.generate()
    bind(party, key, now=clock.now())
    seen = page.post(here(dao), EMISSION).content.decode()
    assert 'data-sign="governance.propose"' in seen
    fields = hidden(seen)
    assert page.post(here(dao), fields).status_code == 422
    hash_ = re.search(r"[0-9a-f]{64}", seen.split("What is hashed")[1])[0]
    asked = consent.propose_payload(dao=dao.party.pid, kind=EMISSION["kind"], payload_hash=hash_)
    word = signed(party, key, consent.PROPOSE, asked, nonce=1, now=clock.now())
    made = page.post(here(dao), fields | {"signed": json.dumps(word)})
    assert made.status_code == 302, made.content.decode()
