"""One box finds what the reader may read: words by rank, everything with an id by that."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from playwright.sync_api import expect

from apps.compute.models import Receipt
from apps.core.search import matching, words
from apps.governance.models import Proposal
from apps.rfms.models import Rfm
from apps.subdaos.models import Dao
from apps.training.models import Submission
from apps.wallets.models import LogLeaf, TreeHead
from tests.explorer import world as worlds


@pytest.fixture
def built(transactional_db: None) -> worlds.World:
    return worlds.build()


@pytest.fixture
def member(built: worlds.World) -> Client:
    client = Client()
    client.force_login(built.buyer)
    return client


def found(client: Client, text: str, **more: str) -> dict[str, list[str]]:
    answer = client.get(reverse("explorer:search"), {"q": text, **more})
    assert answer.status_code == 200
    return {group.kind: [hit.title for hit in group.hits] for group in answer.context["groups"]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Breast-mass!", ["Breast", "mass"]),
        ("a & b | !c:* <-> 'd'", ["a", "b", "c", "d"]),
        ("Universitätsklinik φ_k", ["Universitätsklinik", "φ", "k"]),
        ("x" * 99, ["x" * 64]),
        (" ".join("abcdefghij"), list("abcdefgh")),
        ("…!?", []),
    ],
)
def test_a_question_is_its_first_words_without_operators(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_a_name_ranks_before_a_description(built: worlds.World) -> None:
    """All requests tell "malignant" masses apart, one says "malignancy" in its name."""
    titles = found(Client(), "malignancy")["requests"]
    assert titles[0] == "Malignancy of a breast mass" and len(titles) == 3


@pytest.mark.parametrize("text", ["retinopathy", "retino", "RETINOPATHIES labs", "routine diab"])
def test_words_are_found_whole_begun_and_inflected(built: worlds.World, text: str) -> None:
    title = "Diabetic retinopathy from routine labs"
    assert found(Client(), text) == {"requests": [title]}


def test_every_word_must_occur(built: worlds.World) -> None:
    assert found(Client(), "retinopathy zebra") == {}
    assert list(matching(Rfm.objects.all(), "…")) == []


def test_each_kind_has_its_group_and_its_pages(built: worlds.World) -> None:
    groups = found(Client(), "mass")
    assert set(groups) == {"models", "requests", "subdaos"}
    assert found(Client(), "readmission")["proposals"] == [built.open_vote.title]
    worlds.grow(built, 8)
    answer = Client().get(reverse("explorer:search"), {"q": "voting"})
    requests = next(g for g in answer.context["groups"] if g.kind == "requests")
    assert len(requests.hits) == 6 and "kind=requests" in requests.url
    assert len(found(Client(), "voting", kind="requests")["requests"]) == 8


def test_a_draft_is_found_by_its_author_only(built: worlds.World, member: Client) -> None:
    assert found(Client(), "sepsis") == {}
    assert found(member, "sepsis") == {"requests": [built.draft.title]}
    assert found(Client(), str(built.draft.id)) == {}
    assert member.get("/search/", {"q": str(built.draft.id)}).status_code == 302


def ids(built: worlds.World) -> dict[str, tuple[str, str]]:
    """{what is pasted: (text, the page that it leads to)}."""
    job, share = built.round.round_job, Submission.objects.filter(round=built.round).first()
    leaf = LogLeaf.objects.get(seq=3)
    receipt = Receipt.objects.filter(job=job).first()

    def page(name: str, *args: Any) -> str:
        return reverse(f"explorer:{name}", args=args)

    return {
        "proposal id": (str(built.open_vote.id), page("proposal", built.open_vote.id)),
        "payload hash": (built.accepted.payload_hash, page("proposal", built.accepted.id)),
        "bare uuid": (built.round.id.hex, page("round", built.round.id)),
        "capitals": (str(built.round.id).upper(), page("round", built.round.id)),
        "roster hash": (built.round.roster_hash, page("round", built.round.id)),
        "share id": (share.share_id, page("round", built.round.id)),
        "ticket id": (share.ticket_id, page("round", built.round.id)),
        "model id": (built.listing.version.model, page("subdao", built.dao.slug)),
        "job id": (job.job_id, page("job", job.job_id)),
        "receipt": (receipt.signature, page("job", job.job_id)),
        "log number": ("3", page("log-entry", 3)),
        "entry hash": (bytes(leaf.hash).hex(), page("log-entry", 3)),
        "head": (TreeHead.objects.first().root, page("log")),
        "pseudonym": (built.party.pid, f"{page('log')}?about={built.party.pid}"),
        "node": (
            receipt.node.fingerprint,
            f"{page('nodes')}#node-{receipt.node.fingerprint[:12]}",
        ),
    }


def test_what_is_pasted_goes_to_its_page(built: worlds.World) -> None:
    stranger = Client()
    for name, (text, page) in ids(built).items():
        answer = stranger.get(reverse("explorer:search"), {"q": f" {text} "})
        assert (answer.status_code, answer.headers.get("Location")) == (302, page), name
        assert stranger.get(page).status_code == 200, name


def test_a_prediction_is_found_by_its_buyer_only(built: worlds.World, member: Client) -> None:
    page = reverse("explorer:query", args=[built.query.id])
    for text in (str(built.query.id), built.query.share_id, built.query.ticket_id):
        assert member.get("/search/", {"q": text}).headers.get("Location") == page
        assert found(Client(), text) == {}


@pytest.mark.parametrize("text", ["", "'", "\\", "a" * 5000, "9" * 15, "٣", "deadbeef" * 4, "%00"])
def test_nonsense_finds_nothing(built: worlds.World, text: str) -> None:
    assert found(Client(), text) == {}


def test_results_cost_the_same_queries_however_many(built: worlds.World, member: Client) -> None:
    def counted(**headers: str) -> int:
        with CaptureQueriesContext(connection) as queries:
            assert member.get("/search/?q=model", headers=headers).status_code == 200
        return len(queries)

    worlds.grow(built, 1)
    few = counted(), counted(**{"HX-Request": "true"})
    worlds.grow(built, 5)
    assert few == (counted(), counted(**{"HX-Request": "true"}))
    assert max(few) <= 12


@pytest.mark.parametrize("model", [Rfm, Dao, Proposal])
def test_words_are_looked_up_in_an_index(built: worlds.World, model: Any) -> None:
    rows = matching(model.objects.all(), "mass")
    with connection.cursor() as cursor:
        ways = ("enable_seqscan", "enable_indexscan")  # the newest first, of so few
        cursor.execute("; ".join(f"SET {way} = off" for way in ways))
        try:
            plan = rows.explain()
        finally:
            cursor.execute("; ".join(f"RESET {way}" for way in ways))
    assert f"{model._meta.db_table}_search" in plan


def test_of_too_many_matches_the_newest_are_ranked(
    built: worlds.World, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = list(matching(Rfm.objects.all(), "mass").order_by("-created_at", "-pk"))
    assert len(newest) > 2
    monkeypatch.setattr("apps.core.search.RANKED_MAX", 2)
    assert set(matching(Rfm.objects.all(), "mass")) == set(newest[:2])
    # What the reader may not see takes no other's place.
    seen = Rfm.objects.exclude(pk=newest[0].pk)
    assert set(matching(seen, "mass")) == set(newest[1:3])


def test_the_keyboard_searches(site: str, world: worlds.World, visit: Any) -> None:
    """ "/" goes to the box, arrows choose, Enter opens, Escape closes; Enter alone lists all."""
    visitor = visit()
    page, box = visitor.page, visitor.page.get_by_role("combobox")
    page.goto("/log/")
    page.keyboard.press("/")
    expect(box).to_be_focused()
    page.keyboard.type("retinop")
    option = page.get_by_role("option", name=world.funding.title)
    expect(page.get_by_role("option")).to_have_count(1)  # not yet so for the word's beginning
    expect(option).to_be_visible()
    expect(box).to_have_attribute("aria-expanded", "true")
    page.keyboard.press("Escape")
    expect(option).to_be_hidden()
    expect(box).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(option).to_have_attribute("aria-selected", "true")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/rfms/{world.funding.slug}/")
    page.keyboard.press("/")
    page.keyboard.type("mass")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search/?q=mass")
    assert page.get_by_role("heading", name="SubDAOs").is_visible()
    assert visitor.complaints == []


def test_search_works_without_javascript(site: str, world: worlds.World, visit: Any) -> None:
    page = visit(java_script_enabled=False).page
    page.goto("/")
    page.get_by_role("searchbox").fill(str(world.open_vote.id))
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/proposals/{quote(str(world.open_vote.id))}/")
