"""Every page answers, to strangers and to members, within its budget of queries."""

from __future__ import annotations

import re
from datetime import timedelta
from uuid import uuid4

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import resolve, reverse

from apps.accounts.models import User
from apps.accounts.services import sign_up
from apps.compute.models import Job
from apps.core import clock
from apps.core.transactions import durable
from apps.explorer import urls
from apps.explorer.templatetags.flai import with_places
from apps.rfms.models import Rfm
from apps.wallets import ledger
from apps.wallets.models import LogLeaf
from apps.wallets.services import account
from tests.explorer import pages, second
from tests.explorer import world as worlds
from tests.support.browser import NoBrowser, chromium_path

QUERIES_MAX = 12


@pytest.fixture
def built(transactional_db: None) -> worlds.World:
    return worlds.build()


@pytest.fixture
def member(built: worlds.World) -> Client:
    client = Client()
    client.force_login(built.buyer)
    return client


def test_every_page_answers_within_its_queries(built: worlds.World, member: Client) -> None:
    slow, nobody = {}, Client()
    nobody.force_login(User.objects.create_user(email="nobody@example.org"))
    public = pages.public(built) | pages.beside(built, second.add(built))
    for who, client, addresses in (
        ("stranger", Client(), public | pages.strangers(built)),
        ("nobody", nobody, pages.of_nobody()),
        ("member", member, public | pages.own(built)),
    ):
        for name, address in addresses.items():
            with CaptureQueriesContext(connection) as queries:
                answer = client.get(address)
            assert answer.status_code == 200, (who, name)
            if len(queries) > QUERIES_MAX:
                slow[who, name] = len(queries)
    assert not slow


def test_every_page_is_among_those_that_are_looked_at(built: worlds.World) -> None:
    """Whoever adds a page adds its address to the list that queries, axe and weight go through."""
    addresses = pages.public(built) | pages.own(built) | pages.strangers(built)
    seen = {resolve(address.partition("?")[0]).url_name for address in addresses.values()}
    for row in urls.urlpatterns:
        if row.name not in seen | pages.LEFT_OUT:
            assert pages.takes_posts_only(row), f"add {row.name} to tests/explorer/pages.py"


LISTS = {name: f"/api/v1/{name}/" for name in ("rfms", "subdaos", "proposals", "listings")}


def test_three_times_the_rows_cost_no_more_queries(built: worlds.World, member: Client) -> None:
    addresses = pages.public(built) | pages.own(built)
    addresses |= {f"api {name}": address for name, address in LISTS.items()}
    addresses["api wallet"] = "/api/v1/wallet/transfers/"

    def counted() -> dict[str, int]:
        counts = {}
        for name, address in addresses.items():
            with CaptureQueriesContext(connection) as queries:
                assert member.get(address).status_code == 200, name
            counts[name] = len(queries)
        return counts

    member.get(addresses["home"])  # notes the visit, once
    worlds.grow(built, 2)
    small = counted()
    worlds.grow(built, 4)
    large = counted()
    assert {name: (small[name], large[name]) for name in small if small[name] != large[name]} == {}
    listed = member.get(LISTS["rfms"]).json()["results"]
    assert len(listed) == 4 + 3 * 6 and all("crowdfund" in row for row in listed)


def test_what_is_private_stays_private(built: worlds.World) -> None:
    stranger = Client()
    draft = reverse("explorer:rfm", args=[built.draft.slug])
    assert stranger.get(draft).status_code == 404
    assert built.draft.title not in stranger.get(reverse("explorer:rfms")).content.decode()
    query = reverse("explorer:query", args=[built.query.id])
    assert stranger.get(query).status_code == 302
    assert stranger.get(reverse("explorer:account")).status_code == 302


def test_who_acts_for_nobody_is_offered_no_form_and_told_what_to_do(built: worlds.World) -> None:
    """A form that was sent all the same changes nothing."""
    nobody = Client()
    nobody.force_login(User.objects.create_user(email="nobody@example.org"))
    code, main = built.dao.asset.code, re.compile(r'<main.*?<form[^>]*method="post"', re.DOTALL)
    for address in (
        reverse("explorer:rfm", args=[built.funding.slug]),
        reverse("explorer:pool", args=[code]),
        reverse("explorer:vault", args=[code]),
        reverse("explorer:convert", args=[code]),
        reverse("explorer:model", args=[built.listing.slug]),
    ):
        page = nobody.get(address).content.decode()
        assert "You act for no person or organisation here" in page, address
        assert not main.search(page), address
    wallet = nobody.get(reverse("explorer:wallet")).content.decode()
    assert "Create account</a>" not in wallet and "You act for nobody yet" in wallet
    before = LogLeaf.objects.count()
    for name in ("faucet", "stake", "send", "claim-each"):
        sent = nobody.post(reverse(f"explorer:{name}"), {"amount": "1", "asset": "FLAI"})
        assert sent.status_code == 403 and b"You act for nobody yet" in sent.content
    assert LogLeaf.objects.count() == before


def test_what_is_held_is_listed_with_its_expiry(built: worlds.World, member: Client) -> None:
    wallet = reverse("explorer:wallet")
    assert 'id="holds"' not in member.get(wallet).content.decode()
    now, id_ = clock.now(), uuid4()
    with durable():
        ledger.pend(
            ledger.Leg(
                id=id_,
                debit_account=account(built.party, "USDC"),
                credit_account=account(built.dao.party, "USDC", "revenue"),
                amount_micro=1_250_000,
                kind="listings.query",
            ),
            expires_at=now + timedelta(hours=3),
            now=now,
        )
    page = member.get(wallet).content.decode()
    held = page[page.index('id="holds"') :].partition("</section>")[0]
    assert "Prediction" in held and "1.25" in held and "data-relative>in " in held


def test_a_node_that_is_away_says_so(built: worlds.World) -> None:
    """The page itself asks no node; what it loads afterwards does."""
    page = Client().get(reverse("explorer:nodes")).content.decode()
    assert "no answer" not in page and reverse("explorer:nodes-health") in page
    health = Client().get(reverse("explorer:nodes-health")).content.decode()
    assert health.count("no answer") == 3


@pytest.mark.parametrize(
    ("kind", "group", "signers"),
    [
        ("round", {"computing": [0, 2, 4], "holding": [1]}, 4),
        ("round", {}, 5),
        ("query", {"computing": [1, 2, 3], "holding": []}, 3),
        ("query", {}, 3),
    ],
)
def test_a_job_on_five_nodes_says_how_many_sign(
    built: worlds.World, kind: str, group: dict[str, list[int]], signers: int
) -> None:
    job = Job.objects.latest("created_at")
    job.kind, job.descriptor = kind, {"nodes": [f"{i}" * 64 for i in range(5)], **group}
    job.save()
    page = Client().get(reverse("explorer:nodes")).content.decode()
    assert f"3 of {signers}<" in page.partition(f'id="job-{job.pk}"')[2].partition("</tr>")[0]


def test_errors_have_ways_out(built: worlds.World) -> None:
    answer = Client().get("/there/is/nothing/")
    assert answer.status_code == 404
    assert reverse("explorer:models") in answer.content.decode()
    refused = Client(enforce_csrf_checks=True).post(reverse("explorer:sign-in"), {})
    assert refused.status_code == 403
    assert "expired" in refused.content.decode()


def test_a_key_is_shown_once_and_revoked(member: Client) -> None:
    account = reverse("explorer:account")
    made = member.post(account, {"label": "staging", "may": "buy", "days": "30"})
    page = made.content.decode()
    key = page.split('id="fresh-key">')[1].split("<")[0]
    assert key.startswith("flai_") and "no-store" in made.headers["Cache-Control"]
    assert key not in member.get(account).content.decode()
    bearer = {"Authorization": f"Bearer {key}"}
    assert Client().get("/api/v1/me/", headers=bearer).status_code == 200
    address = page.split('action="/account/keys/')[1].split('"')[0]
    assert member.post(f"/account/keys/{address}").status_code == 302
    assert Client().get("/api/v1/me/", headers=bearer).status_code == 401


def test_a_form_sent_twice_moves_money_once(member: Client, built: worlds.World) -> None:
    wallet = member.get(reverse("explorer:wallet"))
    once = str(wallet.context["faucet_form"]["once"].value())
    form = {"asset": "USDC", "amount": "25", "once": once}
    for _ in range(2):
        member.post(reverse("explorer:faucet"), form)
    after = member.get(reverse("explorer:wallet")).context["usdc"]
    assert after.available_micro - wallet.context["usdc"].available_micro == 25_000_000


def test_nonsense_in_forms_moves_nothing(member: Client, built: worlds.World) -> None:
    before = member.get(reverse("explorer:wallet")).context["flai"].posted_micro
    for amount in ("", "-5", "1e99", "0.0000001", "NaN", "10²", "999999999"):
        form = {"asset": "FLAI", "amount": amount, "once": "00000000-0000-4000-8000-000000000001"}
        assert member.post(reverse("explorer:stake"), form).status_code == 302
    page = member.get(reverse("explorer:wallet"))
    assert page.context["flai"].posted_micro == before
    assert "Nothing was moved" in page.content.decode()


def test_the_form_shows_errors_at_their_fields(member: Client) -> None:
    answer = member.post(
        reverse("explorer:rfm-new"),
        {
            "title": "T", "objective": "O", "model_class": "logistic", "standard": "tabular-csv",
            "features": "a, mm, 0, 1\nb, , 5, 2", "label_name": "y", "label_positive": "1",
            "auc_min": "0.85", "price": "0.5", "target": "100", "deadline": "30 d",
            "voting_delay_s": "0", "voting_period_s": "3 s", "timelock_s": "0",
            "quorum_bps": "20", "threshold_bps": "50", "epoch_s": "1 h", "min_custodians": "3",
            "min_validators": "1", "min_rows": "20", "share_sbgt": "60", "share_sdt": "28",
            "share_treasury": "12",
        },
    )  # fmt: skip
    assert answer.status_code == 422
    assert answer.context["form"].errors == {
        "features": ["Line 2: The range ends before it starts."]
    }


def test_a_draft_is_changed_by_its_author_until_it_is_sent(
    member: Client, built: worlds.World
) -> None:
    """The form holds what was written; saving keeps the address."""
    address = reverse("explorer:rfm-edit", args=[built.draft.slug])
    form = member.get(address).context["form"]
    filled = {name: value for name, value in form.initial.items() if value not in (False, "")}
    answer = member.post(address, filled | {"title": "Another title", "price": "0.75"})
    assert answer.status_code == 302, answer.context["form"].errors
    draft = Rfm.objects.get(pk=built.draft.pk)
    assert (draft.slug, draft.title) == (built.draft.slug, "Another title")
    assert draft.spec == built.draft.spec | {"price_micro": "750000"}
    stranger = Client()
    stranger.force_login(
        sign_up(email="s@example.org", password="quite-long-1", name="S", kind="person")[0]
    )
    assert stranger.post(address, filled).status_code == 404
    sent = reverse("explorer:rfm-edit", args=[built.voting.slug])
    assert member.post(sent, filled).url == reverse("explorer:rfm", args=[built.voting.slug])


def test_a_pledge_is_shown_before_it_is_paid_and_paid_once(
    member: Client, built: worlds.World
) -> None:
    address = reverse("explorer:rfm-pledge", args=[built.funding.slug])
    form = {"amount": "400", "once": "00000000-0000-4000-8000-000000000002"}
    preview = member.post(address, form)
    # 1000 − 637.50 is missing, so no more than that is taken of the 400.
    assert preview.context["preview"]["accepted_micro"] == 362_500_000
    confirmed = {"amount": preview.context["preview"]["accepted"], "confirm": "1"}
    wallet = reverse("explorer:wallet")
    before = member.get(wallet).context["usdc"].available_micro
    for _ in range(2):
        assert member.post(address, form | confirmed).status_code == 302
    assert before - member.get(wallet).context["usdc"].available_micro == 362_500_000


def test_without_chromium_the_failure_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHROMIUM", raising=False)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(NoBrowser, match="apt-get install chromium"):
        chromium_path()


def test_ids_in_an_entry_lead_to_their_pages(built: worlds.World) -> None:
    """Only ids become links, and whatever else a text holds is escaped."""
    pid = "ab" * 16
    text = with_places(f'{{"x": "<b>{pid}</b>", "n": "{"1" * 31}", "id": "{built.open_vote.id}"}}')
    assert f'<a href="/search/?q={pid}">{pid}</a>' in text
    assert "<b>" not in text and text.count("<a ") == 2
    leaf = LogLeaf.objects.filter(type="wallets.transfer", seq__isnull=False).first()
    page = Client().get(reverse("explorer:log-entry", args=[leaf.seq])).content.decode()
    assert f"/search/?q={leaf.ref_id}" in page


SECTIONS = ["Models", "Requests", "SubDAOs", "Governance", "Wallet", "Log"]


def test_every_inner_page_says_where_it_stands(built: worlds.World, member: Client) -> None:
    """Breadcrumbs from Home on, the same six sections, one search box."""
    for name, address in (pages.public(built) | pages.own(built)).items():
        page = member.get(address).content.decode()
        nav = page.split('<nav aria-label="Main">')[1].split("</nav>")[0]
        assert re.findall(r">([^<>]+)</a>", nav) == SECTIONS
        assert page.count('role="search"') == 1, name
        trail = re.findall(r'aria-label="Breadcrumb"><ol><li><a href="([^"]*)">Home<', page)
        assert trail == ([] if name in ("home", "dashboard") else ["/"]), name
