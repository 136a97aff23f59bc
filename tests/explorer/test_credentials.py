"""Pages of credentials: what a model asks for, whether one has it, what one holds and issues."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from apps.accounts.models import Party
from apps.core.clock import now
from apps.explorer.proposal_forms import AccessForm
from apps.listings import plans
from apps.listings.models import Subscription
from apps.listings.services import listing_get
from apps.protocol.credentials import Access
from apps.subdaos.models import Dao
from apps.training.models import Round
from apps.wallets.keys import SESSION
from tests.explorer import world as worlds
from tests.governance.helpers import party
from tests.support.consents import bind
from tests.support.credentials import KIND, Keyed


@pytest.fixture
def built(transactional_db: None) -> worlds.World:
    return worlds.build()


def text(client: Client, address: str) -> str:
    with CaptureQueriesContext(
        connection,
    ) as asked:
        answer = client.get(address)
    assert answer.status_code == 200 and len(asked) <= 12, len(asked)
    return answer.content.decode()


def test_a_model_says_what_it_asks_for_and_whether_one_has_it(built: worlds.World) -> None:
    issuer = Keyed(party("Board of Health"))
    terms = Access(KIND, (issuer.party.pid,))
    Dao.objects.filter(pk=built.dao.pk).update(params=built.dao.params | {"access": terms.params})
    stranger, member = Client(), Client()
    for page in ("/models/", f"{reverse('explorer:compare')}?m={built.listing.slug}"):
        assert KIND in text(stranger, page)
    member.force_login(built.buyer)
    pages = [f"/models/{built.listing.slug}/", f"/models/{built.listing.slug}/plan/"]
    seen = text(stranger, pages[0])
    assert "Only holders of a credential" in seen and "issued by Board of Health" in seen
    for page in pages:
        assert "Bind a wallet key, then ask" in text(member, page)
    bind(built.party, key := Ed25519PrivateKey.generate(), now=now())
    holder = Keyed.__new__(Keyed)
    holder.party, holder.key = Party.objects.get(pk=built.party.pk), key
    for page in pages:
        assert "Ask one of its issuers for one: Board of Health" in text(member, page)
    assert "It takes a" in text(member, pages[0]) and "try-form" not in text(member, pages[0])
    row = issuer.issue(holder)
    for page in pages:
        assert "You have one, until" in text(member, page)
    asked = text(member, pages[0])
    assert "try-form" in asked and "Probability of <strong>" in asked and "</strong> = 1" in asked
    assert "This site sees to that; its nodes will from the next version on" in asked
    named = {"credential": KIND, "issuers": [issuer.party.pid], "keys": [issuer.public]}
    Round.objects.filter(pk=built.listing.version.round_id).update(access=named)
    for page in pages:
        assert "Its nodes ask for it themselves" in text(member, page)
    own = text(member, "/wallet/credentials/")
    assert "Board of Health" in own and "in force" in own
    issuer.revoke(row.digest)
    assert "revoked" in text(member, "/wallet/credentials/")
    assert "Yours was revoked by its issuer." in text(member, pages[0])


def test_who_has_a_plan_of_before_reads_that_it_goes_on(built: worlds.World) -> None:
    issuer, member = Keyed(party("Board of Health")), Client()
    offered = [{"name": "basic", "rows": 10, "days": 30, "off_bps": 1_000}]
    params = built.dao.params | {"plans": offered}
    Dao.objects.filter(pk=built.dao.pk).update(params=params)
    about = {"listing": listing_get(built.listing.slug), "buyer": built.party, "plan": "basic"}
    seen = plans.preview(**about, now=now())
    due = seen.change.due_micro
    plans.plan_set(
        **about, at_ms=seen.at_ms, rows=10, due_micro=due, refund_micro=0, consent=SESSION,
        now=now(),
    )  # fmt: skip
    terms = Access(KIND, (issuer.party.pid,))
    Dao.objects.filter(pk=built.dao.pk).update(params=params | {"access": terms.params})
    member.force_login(built.buyer)
    for page in (f"/models/{built.listing.slug}/", f"/models/{built.listing.slug}/plan/"):
        shown = text(member, page)
        assert "Your plan began before that: its rows stay yours to ask" in shown
    assert "try-form" in text(member, f"/models/{built.listing.slug}/")
    assert "began before that" not in text(Client(), f"/models/{built.listing.slug}/")
    # of a wallet with a key, whose plan began by the credential of another issuer
    bind(built.party, key := Ed25519PrivateKey.generate(), now=now())
    holder, before = Keyed.__new__(Keyed), Keyed(party("Board of before"))
    holder.party, holder.key = Party.objects.get(pk=built.party.pk), key
    Subscription.objects.update(access=Access("clinic", (before.party.pid,)).params)
    page = f"/models/{built.listing.slug}/"
    assert "began before that" not in text(member, page)
    before.asked("clinic")
    row = before.issue(holder, "clinic")
    assert "its rows stay yours to ask" in text(member, page)
    before.revoke(row.digest)
    assert "began before that" not in text(member, page)


def test_nobody_issues_without_a_key_or_to_who_has_none(built: worlds.World) -> None:
    client, other = Client(), party("Clinic")
    terms = Access(KIND, (built.party.pid,))
    Dao.objects.filter(pk=built.dao.pk).update(params=built.dao.params | {"access": terms.params})
    client.force_login(built.buyer)
    here = "/wallet/credentials/issued/"
    wrong: Any = client.get(here, {"subject": other.slug, "credential": KIND, "days": 9})
    assert wrong.status_code == 422 and "has no wallet key yet" in wrong.content.decode()
    for bad in (
        {"subject": "nobody"}, {"credential": "ä"}, {"credential": "a-liar"}, {"days": 10_000}
    ):  # fmt: skip
        asked = {"subject": other.slug, "credential": KIND, "days": 9} | bad
        assert client.get(here, asked).status_code == 422
    Keyed(other)
    untold = client.get(here, {"subject": other.slug, "credential": "a-liar", "days": 9})
    assert "No model asks for such a credential" in untold.content.decode()
    assert f"voted to ask for from {built.party.name}: {KIND}" in text(client, here)
    seen = client.get(here, {"subject": other.slug, "credential": KIND, "days": 9}).content.decode()
    assert "Clinic is “accredited-hospital”" in seen and "Bind one" in seen
    for nonsense in ({}, {"subject": "x", "credential": KIND, "key": "k", "until_ms": 5}):
        answer = client.post(here, nonsense, follow=True)
        assert "There is no such party" in answer.content.decode()
    gone = client.post("/wallet/credentials/revoke/", {"id": "x"}, follow=True)
    assert "signed by your wallet key" in gone.content.decode()


def test_members_propose_by_names(built: worlds.World) -> None:
    issuer = party("Board of Health")
    asked = {"credential": "Accredited hospital", "issuers": f"{issuer.slug}, {issuer.pid}"}
    form = AccessForm(asked, dao=built.dao)
    assert form.is_valid()
    assert form.payload == {"access": {"credential": KIND, "issuers": [issuer.pid]}}
    assert AccessForm({}, dao=built.dao).is_valid()
    assert not AccessForm(asked | {"issuers": "nobody"}, dao=built.dao).is_valid()
