"""A listing's try-it form in a real Chromium: refusals before anything is sent, on a world of rows;
and a paid prediction through three real nodes."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from apps.accounts.services import sign_up
from apps.core import clock
from apps.core.clock import unix_ms
from apps.listings import plans
from apps.listings.mandates import mandate_give
from apps.listings.models import Listing, Query
from apps.protocol import credentials as rules
from apps.protocol.consent import MANDATE, mandate_payload
from apps.subdaos.models import Dao
from apps.training.models import ModelVersion, Round
from apps.wallets.invariants import violations
from apps.wallets.keys import SESSION
from apps.wallets.models import Account, Transfer
from apps.wallets.services import faucet
from tests.explorer import pages
from tests.explorer.world import PASSWORD
from tests.support import vectors
from tests.support.browser import misfits
from tests.support.credentials import KIND, Keyed
from tests.support.market import PRICE, built, drain_until, on_sale
from tests.support.needles import Needles
from workers.client import training
from workers.client.buyer import sigmoid

EMAIL = "asker@example.org"
ROW = [1.29481753, -0.48162935]
PRIVACY = (
    "Your inputs are split and sealed in this page. The server and any single node can't read them."
)


class Sent:
    """Everything that a page sends: addresses, headers, bodies."""

    def __init__(self, page: Any) -> None:
        self.requests: list[Any] = []
        page.on("request", lambda request: self.requests.append(request))

    def bytes(self) -> bytes:
        parts = [
            f"{r.method} {r.url} {r.headers} ".encode() + (r.post_data_buffer or b"")
            for r in self.requests
        ]
        return b"\n".join(parts)

    def calls(self) -> list[str]:
        return [f"{r.method} {r.url}" for r in self.requests if "/api/" in r.url]


# ---- the form, without nodes ------------------------------------------------------------------


@pytest.fixture
def model_page(site: str, world: Any, visit: Any, sign_in: Any) -> Any:
    """The world's listing, before its signed-in buyer."""
    dao = Dao.objects.get(pk=world.dao.pk)
    features = dao.params["schema"]["features"]
    features[0]["max"] = "30"
    features[7] |= {"type": "category", "levels": ["even", "odd,  or “none”"], "min": None}
    dao.save()
    visitor = visit()
    sign_in(visitor)
    visitor.page.goto(pages.public(world)["model"])
    return visitor


def test_a_wrong_or_missing_value_is_refused_before_anything_is_sent(model_page: Any) -> None:
    page = model_page.page
    sent = Sent(page)
    pay = page.get_by_role("button", name="Pay $0.50 and predict")
    radius, texture = page.get_by_label("mean radius"), page.get_by_label("mean texture")
    for field, text, said in (
        (radius, "30.1", "Must be at most 30."),
        (radius, "-1", "Must be at least 0."),
        (radius, "", "Missing."),
        (radius, "1,5", "Write a point before the decimals, no comma."),
        (texture, "Infinity", "Not a number."),
        (texture, "0x10", "Not a number."),
        (texture, "1e999", "Not a number."),
    ):
        example = field.input_value()
        field.fill(text)
        pay.click()
        assert page.locator(".inputs .error:not(:empty)").all_inner_texts() == [said]
        assert field.get_attribute("aria-invalid") == "true"
        assert page.evaluate("document.activeElement.id") == field.get_attribute("id")
        assert "Nothing was sent." in page.get_by_role("alert").inner_text()
        field.fill(example)
    assert sent.calls() == []
    assert model_page.complaints == []


def test_the_form_starts_with_an_example_within_the_ranges(model_page: Any) -> None:
    page = model_page.page
    page.get_by_label("mean texture").fill("77")
    page.get_by_role("button", name="Back to the example").click()
    symmetry = page.get_by_label("mean symmetry")
    assert symmetry.locator("option").all_inner_texts() == ["even", "odd,  or “none”"]
    symmetry.select_option("odd,  or “none”")
    assert page.locator("[data-feature]").last.input_value() == "odd,  or “none”"
    page.get_by_role("button", name="Back to the example").click()
    values = page.locator("[data-feature]").evaluate_all("all => all.map(x => x.value)")
    assert values == ["15"] + ["1.0"] * 6 + ["even"]
    told = page.get_by_role("region", name="Features").get_by_role("row").last
    assert told.locator(".tag").all_inner_texts() == ["even", "odd, or “none”"]
    assert "even (others are compared with it)" in " ".join(told.inner_text().split())
    shell = page.locator("code").filter(has_text="row.csv").first.text_content()
    assert "1.0,even" in shell
    assert page.get_by_text("0 to 30").is_visible()
    assert page.get_by_text("You have $499.50 to spend.").is_visible()


def test_the_privacy_line_says_what_it_does_not_protect_against(model_page: Any) -> None:
    page = model_page.page
    assert page.get_by_text(PRIVACY).is_visible()
    page.get_by_role("button", name="how?").click()
    how = page.locator("#how-sealed")
    assert "not against a server that serves false code" in how.inner_text()
    how.get_by_role("link", name="ask from your program").click()
    assert page.url.endswith("#program")


def test_a_model_of_another_release_shows_why_it_cannot_be_asked(
    model_page: Any, world: Any
) -> None:
    version = ModelVersion.objects.get(dao__pk=world.dao.pk, number=1)
    ModelVersion.objects.filter(pk=version.pk).update(asked_hash="00" * 32)
    try:
        model_page.page.reload()
        assert model_page.page.get_by_text("no longer computes logistic_infer@1").is_visible()
        assert model_page.page.locator("#try-form").count() == 0
    finally:
        version.save()


def test_without_javascript_the_page_says_what_needs_it_and_can_send_nothing(
    site: str, world: Any, visit: Any, sign_in: Any
) -> None:
    visitor = visit(java_script_enabled=False)
    sign_in(visitor)
    page = visitor.page
    page.goto(pages.public(world)["model"])
    assert page.get_by_text("The form needs JavaScript").is_visible()
    assert page.get_by_role("heading", name="From your program").is_visible()
    assert not page.locator("#try-form").is_visible()
    assert page.locator("#try-form input[name]").count() == 1  # the CSRF token, no feature


def test_a_browser_without_the_cryptography_is_told_so(
    site: str, world: Any, visit: Any, sign_in: Any
) -> None:
    visitor = visit()
    sign_in(visitor)
    visitor.page.add_init_script("crypto.subtle.generateKey = () => Promise.reject(new Error())")
    visitor.page.goto(pages.public(world)["model"])
    visitor.page.get_by_text("This browser can't seal your row").wait_for()
    assert not visitor.page.locator("#try-form").is_visible()


def test_fewer_nodes_that_can_read_a_row_are_accepted_by_the_person_alone(
    model_page: Any, world: Any
) -> None:
    """What it was, what it is and which vote decided it are shown; nothing is sent for a choice."""
    page, sent = model_page.page, Sent(model_page.page)
    slug, names = world.listing.slug, "flai-nodes thresholds"
    page.evaluate(
        "([name, rows]) => localStorage.setItem(name, JSON.stringify(rows))", [names, [[slug, 2]]]
    )
    vote = {
        "proposal": str(world.accepted.id),
        "engine": "ring",
        "executed_at": "2026-11-03T10:00:00Z",
    }
    votes = [None, vote]

    def voted(route: Any) -> None:
        answer = route.fetch()
        # the world's nodes have no keys
        told = {"engine_vote": votes[0], "nodes": vectors.descriptors(3)}
        route.fulfill(response=answer, json=answer.json() | told)

    page.route(f"**/api/v1/listings/{slug}/", voted)
    pay = page.get_by_role("button", name="Pay $0.50 and predict")
    box = page.get_by_role("group", name="Fewer nodes could read a row than until now")
    pay.click()
    box.get_by_text("2 nodes that tell each other all they see learn nothing of a row").wait_for()
    assert box.get_by_text("One node alone learns nothing of a row; two").is_visible()
    assert box.get_by_text("The site names no vote for it").is_visible()
    assert page.evaluate("document.activeElement.id") == "try-lower"
    assert misfits(page) == []
    box.get_by_role("button", name="Keep to what it was").click()
    assert box.is_hidden() and "Nothing was sent." in page.get_by_role("alert").inner_text()
    votes[0] = votes.pop()
    pay.click()
    link = box.get_by_role("link", name="the members’ vote carried out on 3 November 2026")
    assert link.get_attribute("href") == f"/proposals/{world.accepted.id}/"
    assert not box.get_by_text("The site names no vote").is_visible()
    kept = "name => JSON.parse(localStorage.getItem(name))"
    assert page.evaluate(kept, names) == [[slug, 2]]
    box.get_by_role("button", name="Accept it for this model").click()
    assert box.is_hidden() and page.evaluate(kept, names) == [[slug, 1]]
    assert [call for call in sent.calls() if not call.startswith("GET")] == []
    assert model_page.complaints == []


def test_who_is_not_signed_in_is_asked_to_and_no_script_is_loaded(
    site: str, world: Any, visit: Any
) -> None:
    page = visit().page
    page.goto(pages.public(world)["model"])
    link = page.locator("#try").get_by_role("link", name="Create an account")
    assert link.get_attribute("href").endswith(f"?next=/models/{world.listing.slug}/%23try")
    assert page.locator("script[type=module]").count() == 0


# ---- a paid prediction, through real nodes ----------------------------------------------------


@pytest.fixture
def sale(
    transactional_db: None,
    settings: Any,
    tmp_path: Any,
    three_nodes: Any,
    site: str,
) -> Iterator[SimpleNamespace]:
    """A model on sale, and somebody with an account and no money."""
    market = built(on_sale, three_nodes, settings, tmp_path)
    held, listing = market.held, market.listing
    _, party = sign_up(email=EMAIL, password=PASSWORD, name="Asker", kind="person")
    yield SimpleNamespace(market=market, held=held, listing=listing, party=party)
    assert {k: v for k, v in violations().items() if v} == {}


@pytest.fixture
def asker(sale: Any, visit: Any, sign_in: Any) -> Any:
    """`asker(money)` opens the listing's page with so much in the wallet."""

    def enter(micro: int) -> Any:
        if micro:
            faucet(party=sale.party, asset="USDC", amount_micro=micro, now=clock.now())
        visitor = visit()
        sign_in(visitor, EMAIL)
        visitor.page.goto(f"/models/{sale.listing.slug}/")
        visitor.page.locator("#try-form").wait_for()
        return visitor

    return enter


def fill(page: Any, row: list[float]) -> None:
    for name, value in zip("ab", row, strict=False):
        page.get_by_label(name, exact=True).fill(repr(value))


def expected(sale: Any, row: list[float]) -> float:
    """The oracle's probability, in the clear."""
    z = training.standardise(np.array([row]), *training.constants(sale.held.normalisation))
    return sigmoid(float(sale.market.oracle(sale.held, z)[0]))


def balance(sale: Any) -> tuple[int, int]:
    row = Account.objects.get(owner=sale.party, asset__code="USDC", purpose="main")
    return row.posted_micro, row.held_micro


def needles(sale: Any, row: list[float]) -> Needles:
    made = Needles()
    z = training.standardise(np.array([row]), *training.constants(sale.held.normalisation))
    for name, values in (("row", row), ("standardised", z[0])):
        made.words(name, values)
        for value in values:
            made.number(name, float(value))
    return made


def answered() -> bool:
    return Query.objects.filter(state="settled").exists()


def test_a_buyer_predicts_in_the_page_and_pays_once(sale: Any, asker: Any) -> None:
    visitor = asker(2_000_000)
    page, sent = visitor.page, Sent(visitor.page)
    fill(page, ROW)
    page.get_by_role("button", name="Pay $0.50 and predict").dblclick()
    drain_until(answered)
    answer = page.locator("#try-answer")
    answer.wait_for()
    probability = float(answer.locator("data").get_attribute("value"))
    assert abs(probability - expected(sale, ROW)) < 0.01
    assert answer.locator("data").inner_text() == f"{100 * probability:.1f} %"
    assert "paid $0.50" in answer.inner_text()
    page.get_by_text("You have $1.50 left to spend.").wait_for()
    done = page.locator("#try-course li.done .what").all_inner_texts()
    assert done == ["Split and sealed", "Price held", "Nodes compute", "Paid and answered"]

    query = Query.objects.get()
    assert balance(sale) == (2_000_000 - PRICE, 0)
    phases = Transfer.objects.filter(ref_id=str(query.id)).values_list("phase", flat=True)
    assert sorted(phases) == ["pend", "post"]

    found = needles(sale, ROW)
    assert found.found_in(str(ROW).encode()) == {"row"}  # the search finds what it should
    api = f"{page.url.split('/models/')[0]}/api/v1/listings/{sale.listing.slug}"
    assert [c for c in sent.calls() if c.startswith("POST")] == [
        f"POST {api}/quote/",
        f"POST {api}/inferences/",
    ]
    assert found.found_in(sent.bytes()) == set()

    page.get_by_role("link", name="The payment and its receipts").click()
    page.wait_for_url(f"**/queries/{query.id}/")
    assert page.get_by_role("heading", name="Prediction for $0.50").is_visible()
    assert visitor.complaints == []


def test_a_second_row_from_the_same_page_is_a_second_query(sale: Any, asker: Any) -> None:
    """Of a model with a level to choose: the nodes get 0 and 1 for no and yes."""
    dao = Dao.objects.get(pk=sale.listing.dao_id)
    dao.params["schema"]["features"][1]["type"] = "boolean"
    dao.save()
    visitor = asker(2_000_000)
    page = visitor.page
    for count, row in enumerate(([ROW[0], 0], [-0.75, 1]), start=1):
        fill(page, row[:1])
        page.get_by_label("b", exact=True).select_option(["no", "yes"][row[1]])
        page.get_by_role("button", name="Pay $0.50 and predict").click()
        drain_until(lambda count=count: Query.objects.filter(state="settled").count() == count)
        page.locator("#try-answer").wait_for()
        shown = float(page.locator("#try-answer data").get_attribute("value"))
        assert abs(shown - expected(sale, row)) < 0.01
    assert balance(sale) == (2_000_000 - 2 * PRICE, 0)
    assert Query.objects.values("share_id", "scope").distinct().count() == 2


def test_a_plan_that_is_offered_no_more_still_pays(sale: Any, asker: Any) -> None:
    dao = Dao.objects.get(pk=sale.listing.dao_id)
    offer = [{"name": "basic", "rows": 2, "days": 30, "off_bps": 1_000}]
    page = asker(2_000_000).page
    Dao.objects.filter(pk=dao.pk).update(params={**dao.params, "plans": offer})
    listing = Listing.objects.select_related("dao__party", "version__round").get(dao=dao)
    seen = plans.preview(listing=listing, buyer=sale.party, plan="basic", now=clock.now())
    plans.plan_set(
        listing=listing, buyer=sale.party, plan="basic", at_ms=seen.at_ms, rows=2,
        due_micro=seen.change.due_micro, refund_micro=0, consent=SESSION, now=clock.now(),
    )  # fmt: skip
    Dao.objects.filter(pk=dao.pk).update(params={**dao.params, "plans": []})
    fill(page, ROW)
    page.get_by_role("button", name="Pay $0.50 and predict").click()
    drain_until(answered)
    page.locator("#try-answer").wait_for()
    assert Query.objects.get().subscription_id is not None
    assert balance(sale) == (2_000_000 - 2 * PRICE * 9 // 10, 0)


KEEP = """async ([seed, key]) => {
  const { keep } = await import("/static/js/keystore.js");
  const url = (hex) => btoa(String.fromCharCode(...hex.match(/../g).map((x) => parseInt(x, 16))))
    .replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
  const jwk = { kty: "OKP", crv: "Ed25519", d: url(seed), x: url(key) };
  const privateKey = await crypto.subtle.importKey("jwk", jwk, "Ed25519", false, ["sign"]);
  await keep(key, { privateKey });
}"""


def test_the_page_shows_the_nodes_a_credential_where_they_ask_for_one(
    sale: Any, asker: Any
) -> None:
    """By a key of the query's own, which the wallet key of this browser lends it."""
    page = asker(2_000_000).page
    sent = Sent(page)
    board, holder = Keyed(sale.market.person("Board").party), Keyed(sale.party)
    board.asked()
    mandate = {"listing": "*", "limit_micro": 2_000_000, "until_ms": unix_ms(clock.now()) + 10**8}
    word = holder.word(MANDATE, mandate_payload(**mandate, api_key=""))
    mandate_give(party=holder.party, consent=word, now=clock.now(), **mandate)
    asked = {"credential": KIND, "issuers": [board.party.pid], "keys": [board.public]}
    Round.objects.filter(pk=sale.held.pk).update(access=asked)
    page.reload()
    assert page.get_by_text("The nodes of this version answer holders of a credential").is_visible()
    fill(page, ROW)
    said, pay = page.get_by_role("alert"), page.get_by_role("button", name="Pay $0.50 and predict")
    pay.click()
    said.get_by_text("that you do not hold. Nothing was sent.").wait_for()
    board.issue(holder)
    pay.click()
    said.get_by_text("it is not in this browser").wait_for()
    assert not Query.objects.exists()
    page.evaluate(KEEP, [holder.key.private_bytes_raw().hex(), holder.public])
    pay.click()
    drain_until(answered)
    page.locator("#try-answer").wait_for()
    [post] = [r for r in sent.requests if r.url.endswith("/inferences/")]
    ticket = post.post_data_json["input"]["ticket"]
    demand = rules.Demand(KIND, (board.public,))
    at_ms = unix_ms(clock.now())
    shown = rules.shown(demand, ticket["access"], sender=ticket["sender"], at_ms=at_ms)
    assert shown.key == holder.public != ticket["sender"]


def test_an_answer_lost_on_the_way_is_asked_again_and_paid_once(sale: Any, asker: Any) -> None:
    """First the nodes are short, then the answer is lost, then the session ends: one query, and the
    page keeps the key that opens it."""
    visitor = asker(2_000_000)
    page = visitor.page
    faults = ["short", "lost", "closed"]

    def hinder(route: Any) -> None:
        sending = route.request.url.endswith("/inferences/")
        asking = "/inferences/" in route.request.url and not sending
        if sending and faults[:1] == ["short"]:
            faults.pop(0)
            route.fulfill(status=503, json={"code": "nodes_short", "detail": "A node is away."})
        elif sending and faults[:1] == ["lost"]:
            faults.pop(0)
            route.fetch()  # the site has it; the page never hears
            route.abort()
        elif asking and faults[:1] == ["closed"]:
            faults.pop(0)
            route.fulfill(status=403, json={"code": "not_authenticated", "detail": "Sign in."})
        else:
            route.continue_()

    page.route("**/api/v1/**", hinder)
    fill(page, ROW)
    page.get_by_role("button", name="Pay $0.50 and predict").click()
    again = page.get_by_role("button", name="Ask again")
    for said in ("A node is away. Keep", "The site did not answer. Keep", "sign in in another tab"):
        page.get_by_role("alert").get_by_text(said).wait_for()
        assert "can't be paid twice" in page.get_by_role("alert").inner_text()
        assert page.get_by_label("a", exact=True).is_disabled()
        again.click()
    page.locator("#try-course li.now", has_text="Nodes compute").wait_for()
    drain_until(answered)
    page.locator("#try-answer").wait_for()
    assert faults == [] and Query.objects.count() == 1
    assert balance(sale) == (2_000_000 - PRICE, 0)
    page.get_by_role("button", name="Pay $0.50 and predict").wait_for()


def test_nothing_is_sealed_to_nodes_that_this_browser_does_not_know(sale: Any, asker: Any) -> None:
    visitor = asker(2_000_000)
    page, sent = visitor.page, Sent(visitor.page)
    others = ["00" * 32, "11" * 32, "22" * 32]
    page.evaluate("kept => localStorage.setItem('flai-nodes', JSON.stringify(kept))", others)
    fill(page, ROW)
    page.get_by_role("button", name="Pay $0.50 and predict").click()
    alert = page.get_by_role("alert")
    alert.get_by_text("The site names other nodes than this browser").wait_for()
    assert [call for call in sent.calls() if not call.startswith("GET")] == []
    with page.expect_popup() as opened:
        alert.get_by_role("link", name="Compare them").click()
    nodes = opened.value
    region = nodes.get_by_role("region", name="In this browser")
    region.get_by_text("These are not the nodes").wait_for()
    assert region.locator("code").all_inner_texts() == others
    assert misfits(nodes) == []
    region.get_by_role("button", name="Seal to these nodes from now on").click()
    region.get_by_text("it seals to no others").wait_for()
    nodes.close()
    page.get_by_role("button", name="Pay $0.50 and predict").click()
    drain_until(answered)
    page.locator("#try-answer").wait_for()
    kept = page.evaluate("JSON.parse(localStorage.getItem('flai-nodes'))")
    assert kept == [node["fingerprint"] for node in Query.objects.get().outputs]


def test_an_answer_that_the_nodes_did_not_sign_for_is_not_shown(sale: Any, asker: Any) -> None:
    visitor = asker(2_000_000)
    page = visitor.page

    def forge(route: Any) -> None:
        prefers = {k: v for k, v in route.request.headers.items() if k != "prefer"}
        answer = route.fetch(headers=prefers)
        body = answer.json()
        for receipt in (body.get("job") or {}).get("receipts", []):
            receipt["receipt"]["sealed"] = "00" * 32
        route.fulfill(response=answer, json=body)

    page.route("**/api/v1/**/inferences/**", forge)
    fill(page, ROW)
    with page.expect_response("**/inferences/"):
        page.get_by_role("button", name="Pay $0.50 and predict").click()
    drain_until(answered)
    page.get_by_text("the nodes did not sign for it").wait_for()
    assert not page.locator("#try-answer").is_visible()


def test_who_cannot_afford_it_learns_how_much_is_missing(sale: Any, asker: Any) -> None:
    page = asker(200_000).page
    short = page.locator("#try-short")
    assert "You have $0.20 to spend; $0.30 is missing." in short.inner_text()
    back = f"/wallet/?next=/models/{sale.listing.slug}/%23try"
    assert short.get_by_role("link").get_attribute("href") == back
    fill(page, ROW)
    page.get_by_role("button", name="Pay $0.50 and predict").click()
    alert = page.get_by_role("alert")
    page.get_by_text("Your balance is short by $0.30. Nothing was charged.").wait_for()
    assert alert.get_by_role("link").get_attribute("href") == "/wallet/"
    assert alert.get_by_role("link").get_attribute("target") == "_blank"  # the row stays here
    assert Query.objects.count() == 0 and balance(sale) == (200_000, 0)


def test_a_price_that_has_changed_is_not_paid(sale: Any, asker: Any) -> None:
    page = asker(2_000_000).page
    dao = Dao.objects.get(pk=sale.listing.dao_id)
    dao.params["price_micro"] = "900000"
    dao.save()
    fill(page, ROW)
    page.get_by_role("button", name="Pay $0.50 and predict").click()
    page.get_by_text("The model has changed since this page was made.").wait_for()
    assert Query.objects.count() == 0


def test_the_answer_is_accessible_and_fits(sale: Any, asker: Any) -> None:
    page = asker(2_000_000).page
    fill(page, ROW)
    page.get_by_role("button", name="Pay $0.50 and predict").click()
    drain_until(answered)
    page.locator("#try-answer").wait_for()
    assert page.evaluate("document.activeElement.id") == "try-answer"
    assert misfits(page) == []
