"""The JavaScript client in a page of another origin: what it refuses, asks again and opens."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.test import Client

from apps.accounts.models import User
from apps.accounts.services import api_key_create, sign_up
from apps.core import clock
from apps.core.clock import unix_ms
from apps.core.cors import PREFLIGHT, READABLE
from apps.listings.models import Query
from apps.protocol import wire
from apps.subdaos.models import Dao
from apps.training.models import Round
from apps.wallets.services import faucet
from tests.explorer.test_try_it import (  # noqa: F401
    EMAIL,
    ROW,
    Sent,
    balance,
    expected,
    needles,
    sale,
)
from tests.support import proofs
from tests.support.foreign import foreign_page
from tests.support.market import PRICE, drain_until

ROWS = [ROW, [-0.75318642, 0.25917364], [0.31415926, 1.41421356]]
ANY = {"Access-Control-Allow-Origin": "*"}
RUN = """([site, key, slug, rows, options, body]) => {
  globalThis.outcome = null;
  const work = async () => {
    const { Client } = await import(`${site}/static/js/flai-client.js`);
    globalThis.client ??= new Client({ url: site, key, ...options });
    return eval(`(async (client, slug, rows, Client) => {${body}})`)(client, slug, rows, Client);
  };
  const said = (error) =>
    error.name === "Refused" ? { ...error, text: error.message } : { stack: error.stack };
  work().then((value) => ({ value }), said).then((outcome) => { globalThis.outcome = outcome });
}"""
BUY = """const answers = await client.predict(slug, rows, v);
  return { answers: [...answers], paid: answers.priceMicro, queries: answers.queries }"""

# The page's own network at fault: no answer at all, or 503 that asks to wait so many seconds.
HINDER = """(faults) => {
  const real = globalThis.fetch;
  globalThis.faults = faults;
  globalThis.fetch = async (address, options) => {
    const fault = address.endsWith("/inferences/") ? faults.shift() : undefined;
    if (!fault) return real(address, options);
    if (fault === "lost") {
      await real(address, options);
      throw new TypeError("Failed to fetch");
    }
    const body = { code: "nodes_short", detail: "A node is away." };
    return Response.json(body, { status: 503, headers: { "Retry-After": fault } });
  };
}"""
FORGE = """() => {
  const real = globalThis.fetch;
  globalThis.fetch = async (...given) => {
    const answer = await real(...given);
    const body = await answer.json();
    const receipts = globalThis.honest ? [] : (body.job?.receipts ?? []);
    for (const { receipt } of receipts) receipt.sealed = "00".repeat(32);
    return Response.json(body, { status: answer.status });
  };
}"""

# What the site quotes is said to be a plan's, at another price.
PLANNED = """() => {
  const real = globalThis.fetch;
  globalThis.fetch = async (address, options) => {
    const answer = await real(address, options);
    if (!address.endsWith("/quote/")) return answer;
    return Response.json({ ...(await answer.json()), price_micro: "500001", paid_from: "plan" });
  };
}"""

# The first query is taken back as soon as it is held.
TAKEN_BACK = """() => {
  const real = globalThis.fetch;
  let first = true;
  globalThis.fetch = async (address, options) => {
    const answer = await real(address, options);
    if (!first || !address.endsWith("/inferences/")) return answer;
    first = false;
    const { id } = await answer.clone().json();
    const { Authorization } = options.headers;
    const path = `/api/v1/inferences/${id}/cancel/`;
    const how = { method: "POST", headers: { Authorization }, credentials: "omit" };
    await real(new URL(path, address), how);
    return answer;
  };
}"""


@pytest.fixture
def elsewhere(sale: Any, site: str, visit: Any) -> Iterator[Any]:  # noqa: F811
    """A page of another origin: `begin(body)` runs with a client of the sale's party, whose outcome
    `heard()` waits for; `told(body)` does both."""
    user = User.objects.get(email=EMAIL)
    _, key = api_key_create(user=user, party=sale.party, scopes=["read", "inferences"])
    visitor = visit()

    def begin(body: str, rows: Any = ROWS, **options: Any) -> None:
        given = [site, key, sale.listing.slug, rows, options, body]
        visitor.page.evaluate(RUN, given)

    def heard() -> Any:
        return visitor.page.wait_for_function("globalThis.outcome").json_value()

    def told(body: str, rows: Any = ROWS, **options: Any) -> Any:
        begin(body, rows, **options)
        return heard()

    with foreign_page() as address:
        visitor.page.goto(address)
        yield SimpleNamespace(page=visitor.page, begin=begin, heard=heard, told=told, site=site)


def money(sale: Any, micro: int = 5_000_000) -> None:  # noqa: F811
    faucet(party=sale.party, asset="USDC", amount_micro=micro, now=clock.now())


def settled(count: int) -> Callable[[], bool]:
    return lambda: Query.objects.filter(state="settled").count() == count


def test_rows_are_refused_where_they_are_and_nothing_is_sent(sale: Any, elsewhere: Any) -> None:  # noqa: F811
    dao = Dao.objects.get(pk=sale.listing.dao_id)
    dao.params["schema"]["features"][0]["max"] = "30"
    dao.save()
    sent = Sent(elsewhere.page)
    for rows, said in (
        ([], "There is no row to predict."),
        ([[1]], "Row 1 has 1 values; the model takes 2."),
        ([[1, 2], [31, 2]], "Row 2, “a”: Must be at most 30."),
        ([{"a": 1}], "Row 1, “b”: Missing."),
        ([{"a": 1, "b": "2"}], "Row 1, “b”: Not a number."),
        ([None], "Row 1 is neither an array nor an object."),
    ):
        refused = elsewhere.told("return client.predict(slug, rows)", rows)
        assert (refused["code"], refused["text"]) == ("bad_row", f"{said} Nothing was sent.")
    for price in ("1,00", "-1", "1e-7", "0.0000001"):
        refused = elsewhere.told(f'return client.predict(slug, rows, {{ maxPrice: "{price}" }})')
        assert refused["code"] == "bad_price"
    # 3 · 0.50 is more than 1.40, and who has no money learns how much is missing
    refused = elsewhere.told('return client.predict(slug, rows, { maxPrice: "1.40" })')
    assert refused["code"] == "price_changed" and "more than the 1400000" in refused["text"]
    assert [c for c in sent.calls() if c.startswith("POST") and "/quote/" not in c] == []
    refused = elsewhere.told("return client.predict(slug, rows, { maxPrice: 1.5 })")
    assert (refused["code"], refused["status"]) == ("insufficient_balance", 402)
    assert refused["facts"]["short_micro"] == "1500000"
    assert "short by 1.500000 USDC" in refused["text"] and "/wallet/" in refused["text"]
    for options in ('{ url: "ftp://x", key: "flai_x" }', '{ url: "https://x", key: "flai_x…" }'):
        assert elsewhere.told(f"new Client({options})")["code"] in ("bad_url", "bad_key")
    assert Query.objects.count() == 0


def test_nothing_is_sealed_to_other_nodes_than_those_that_were_named(
    sale: Any,  # noqa: F811
    elsewhere: Any,
) -> None:
    money(sale)
    sent = Sent(elsewhere.page)
    others = ["00" * 32, "11" * 32, "22" * 32]
    refused = elsewhere.told("return client.predict(slug, rows)", nodes=others)
    assert refused["code"] == "other_nodes" and "those that you named" in refused["text"]
    assert [call for call in sent.calls() if call.startswith("POST")] == []
    named = sale.listing.version.round.nodes
    # with the very descriptors it buys, and with those of the first time; b is yes or no here
    dao = Dao.objects.get(pk=sale.listing.dao_id)
    dao.params["schema"]["features"][1]["type"] = "boolean"
    dao.save()
    for level, said in (
        ("maybe", "Must be one of: no, yes."),
        (2, "Must be one of"),
        (None, "Mis"),
    ):
        refused = elsewhere.told("return client.predict(slug, rows)", [[1, level]], nodes=named)
        assert refused["code"] == "bad_row" and f"Row 1, “b”: {said}" in refused["text"]
    buy = "return (await client.predict(slug, rows))[0].probability"
    elsewhere.page.reload()
    elsewhere.begin(buy, [{"b": True, "a": ROW[0]}], nodes=named)
    drain_until(settled(1))
    assert abs(elsewhere.heard()["value"] - expected(sale, [ROW[0], 1])) < 0.01
    assert elsewhere.told("return client.nodes")["value"] == named
    assert elsewhere.page.evaluate("localStorage.length") == 0
    keep = "([site, kept]) => localStorage.setItem(`flai-nodes ${site}`, JSON.stringify(kept))"
    elsewhere.page.evaluate(keep, [elsewhere.site, others])
    elsewhere.page.reload()
    refused = elsewhere.told("return client.predict(slug, rows)", [[1, "no"]])
    assert refused["code"] == "other_nodes" and "has sealed to before" in refused["text"]


def test_a_program_that_was_lent_a_credential_asks_by_it(sale: Any, elsewhere: Any) -> None:  # noqa: F811
    money(sale)
    board, wallet = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    asked = {"credential": proofs.KIND, "issuers": ["a1" * 16], "keys": [wire.public_hex(board)]}
    Round.objects.filter(pk=sale.held.pk).update(access=asked)
    assert elsewhere.told("return client.predict(slug, rows)")["code"] == "credential_needed"
    own = elsewhere.told("""globalThis.pair =
        await crypto.subtle.generateKey("Ed25519", false, ["sign", "verify"]);
      return Array.from(new Uint8Array(await crypto.subtle.exportKey("raw", pair.publicKey)))""")
    until_ms = unix_ms(clock.now()) + 60_000
    proof = proofs.proof(board, wallet, asker=bytes(own["value"]).hex(), until_ms=until_ms)
    elsewhere.begin(
        f"""const asker = {{ pair: globalThis.pair, proof: {json.dumps(proof)} }};
        const mine = new Client({{ url: site, key, asker }});
        return (await mine.predict(slug, rows))[0].probability""",
        [ROW],
    )
    drain_until(settled(1))
    assert abs(elsewhere.heard()["value"] - expected(sale, ROW)) < 0.01


def test_what_breaks_off_goes_on_and_no_row_is_paid_twice(
    sale: Any,  # noqa: F811
    elsewhere: Any,
    settings: Any,
) -> None:
    """Three rows in two queries: nodes are short, an answer is lost, the time is up in the second
    one; the same key goes on with it."""
    settings.ROWS_PER_QUERY = 2
    money(sale)
    page = elsewhere.page
    sent, faults = Sent(page), ["0", "lost", "", "lost", "60"]
    page.evaluate(HINDER, faults)
    buy = BUY.replace("v)", '{ idempotencyKey: "ward 3", maxPrice: "1.50" })')
    elsewhere.begin(buy)
    drain_until(settled(1))
    stopped = elsewhere.heard()
    assert (stopped["code"], stopped["status"], stopped["retryAfterS"]) == ("nodes_short", 503, 60)
    assert stopped["idempotencyKey"] == "ward 3"
    assert "A node is away. Try again in 60 s." in stopped["text"]
    other = elsewhere.told(buy.replace("rows,", "rows.slice(1),"))
    assert other["code"] == "idempotency_conflict"

    elsewhere.begin(buy)
    drain_until(settled(2))
    done = elsewhere.heard()["value"]
    assert page.evaluate("faults") == []
    assert len(done["queries"]) == 2 and done["paid"] == str(3 * PRICE)
    assert balance(sale) == (5_000_000 - 3 * PRICE, 0)
    for answer, row in zip(done["answers"], ROWS, strict=True):
        assert set(answer) == {"probability", "logit"}
        assert abs(answer["probability"] - expected(sale, row)) < 0.01
    for row in ROWS:
        assert needles(sale, row).found_in(sent.bytes()) == set()


def test_an_answer_that_the_nodes_did_not_sign_for_is_not_opened(
    sale: Any,  # noqa: F811
    elsewhere: Any,
) -> None:
    money(sale)

    elsewhere.page.evaluate(FORGE)
    elsewhere.begin(BUY.replace("v)", "{ maxPrice: 0.5 })"), ROWS[:1])
    drain_until(settled(1))
    refused = elsewhere.heard()
    assert refused["code"] == "not_receipted"
    assert "You have paid for these rows." in refused["text"]
    [query] = Query.objects.all()
    key, paid = refused["idempotencyKey"], (str(query.id), str(PRICE))
    assert (refused["query"], refused["priceMicro"]) == paid
    # the same call fetches it again, and pays nothing more
    again = BUY.replace("v)", f'{{ maxPrice: 0.5, idempotencyKey: "{key}" }})')
    assert elsewhere.told(again, ROWS[:1])["code"] == "not_receipted"
    elsewhere.page.evaluate("globalThis.honest = true")
    done = elsewhere.told(again, ROWS[:1])["value"]
    assert abs(done["answers"][0]["probability"] - expected(sale, ROW)) < 0.01
    assert (done["queries"], done["paid"]) == ([paid[0]], paid[1])
    assert Query.objects.count() == 1


def test_after_a_release_the_same_key_asks_a_new_query(sale: Any, elsewhere: Any) -> None:  # noqa: F811
    money(sale)
    elsewhere.page.evaluate(TAKEN_BACK)
    buy = BUY.replace("v)", '{ idempotencyKey: "ward 3" })')
    released = elsewhere.told(buy, ROWS[:1])
    assert (released["code"], released["idempotencyKey"]) == ("released", "ward 3")
    elsewhere.begin(buy, ROWS[:1])
    drain_until(settled(1))
    assert elsewhere.heard()["value"]["paid"] == str(PRICE)
    assert sorted(Query.objects.values_list("state", flat=True)) == ["released", "settled"]


def test_no_price_above_the_known_one_is_signed_whatever_is_said_to_pay_it(
    sale: Any,  # noqa: F811
    elsewhere: Any,
) -> None:
    money(sale)
    elsewhere.page.evaluate(PLANNED)
    refused = elsewhere.told("return client.predict(slug, rows)", ROWS[:1])
    assert refused["code"] == "price_changed" and "more than the 500000" in refused["text"]
    assert Query.objects.count() == 0


def test_only_a_session_that_ended_keeps_a_query_that_was_lost(elsewhere: Any) -> None:
    pending = """async ([site, errors]) => {
      const { pending } = await import(`${site}/static/js/mpc/desk.js`);
      return errors.map((error) => pending({ id: null, lost: true }, error));
    }"""
    errors = [
        {"status": 401, "code": "not_authenticated"},
        {"status": 403, "code": "permission_denied"},
        {"status": 403, "code": "early_access"},
        {"status": 402, "code": "insufficient_balance"},
    ]
    said = elsewhere.page.evaluate(pending, [elsewhere.site, errors])
    assert said == [True, True, False, False]


@pytest.mark.django_db
def test_what_is_said_where_a_session_has_ended_or_begun_anew() -> None:
    """What `pending` takes for that."""
    client, path = Client(enforce_csrf_checks=True), "/api/v1/listings/m/inferences/"
    said = client.post(path, {}, content_type="application/json")
    assert (said.status_code, said.json()["code"]) == (401, "not_authenticated")
    user, _ = sign_up(email="csrf@example.org", password="correct horse 9", name="C", kind="person")
    client.force_login(user)
    said = client.post(path, {}, content_type="application/json")
    assert (said.status_code, said.json()["code"]) == (403, "permission_denied")


# ---- any origin, no cookies -------------------------------------------------------------------


def test_a_foreign_page_never_reads_what_a_session_would_show(
    world: Any, site: str, visit: Any, sign_in: Any
) -> None:
    visitor = visit()
    sign_in(visitor)
    page = visitor.page
    look = """async ([site, path, credentials]) => {
      try { return (await fetch(`${site}${path}`, { credentials })).status } catch { return null }
    }"""
    listing = f"/api/v1/listings/{world.listing.slug}/"
    with foreign_page() as address:
        page.goto(address)
        # the port is another, the host the same: here the browser would add the session's cookie
        assert page.evaluate(look, [site, listing, "omit"]) == 200
        assert page.evaluate(look, [site, listing, "include"]) is None
        for path in ("/api/v1/me/", "/api/v1/wallet/", "/api/v1/inferences/", "/"):
            for credentials in ("omit", "include"):
                assert page.evaluate(look, [site, path, credentials]) is None, path
        buying = [site, f"{listing}quote/", "include"]
        post = look.replace("{ credentials }", '{ method: "POST", body: "{}", credentials }')
        assert page.evaluate(post, buying) is None


@pytest.mark.django_db
def test_any_origin_may_ask_what_the_client_asks_and_nothing_else() -> None:
    client = Client()
    asked = {"Origin": "https://x.example", "Access-Control-Request-Method": "POST"}
    query = "6f1c1c1e-8d0a-4a57-9f0e-0d4d7c0a4c11"
    opened = ["nodes/", "listings/m/", "listings/m/quote/", "listings/m/inferences/"]
    opened += [f"inferences/{query}/", f"inferences/{query}/cancel/", "listings/m"]
    for path in opened:
        before = client.options(f"/api/v1/{path}", headers=asked)
        assert before.status_code == 204, path
        assert READABLE.items() | PREFLIGHT.items() <= dict(before.items()).items()
        answer = client.get(f"/api/v1/{path}", headers={"Origin": "https://x.example"})
        assert READABLE.items() <= dict(answer.items()).items(), path
        for found in (before, answer):
            assert "Access-Control-Allow-Credentials" not in found and not found.cookies
    for path in (
        "me/", "wallet/", "keys/", "accounts/", "inferences/", "listings/m/plan/", "usage/",
        "listings/m/inferences/x/", "webhooks/", "nodes/x/", "../sign-in/",
    ):  # fmt: skip
        for answer in (
            client.options(f"/api/v1/{path}", headers=asked),
            client.get(f"/api/v1/{path}", headers={"Origin": "https://x.example"}),
        ):
            assert not [name for name in answer.headers if name.startswith("Access-Control")], path
