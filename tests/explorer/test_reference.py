"""The API's reference: all operations, from the description alone, and what it asks by itself."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from apps.explorer.reference import operations
from tests.support.browser import misfits


@pytest.mark.django_db
def test_every_operation_of_the_description_is_there_with_its_calls() -> None:
    schema = Client().get("/api/v1/schema/").json()
    described = {
        (method.upper(), path.removeprefix("/api/v1"))
        for path, methods in schema["paths"].items()
        for method in methods
    }
    groups = operations()
    found = [operation for group in groups.values() for operation in group]
    assert {(o.method, o.path) for o in found} == described and len(found) == len(described)
    overview = Client().get(reverse("explorer:reference")).content.decode()
    for name, group in groups.items():
        page = Client().get(reverse("explorer:reference-group", args=[name])).content.decode()
        for operation in group:
            assert f'id="{operation.id}"' in page and f"#{operation.id}" in overview
            languages = dict(operation.snippets)
            assert set(languages) == {"curl", "Python", "JavaScript"}
            compile(languages["Python"], operation.id, "exec")
            assert "flai_" not in str(languages)  # a key stands in the environment, not in a page
            if operation.body:
                json.loads(operation.body)
    assert Client().get(reverse("explorer:reference-group", args=["nothing"])).status_code == 404


@pytest.mark.django_db
def test_what_pays_carries_a_key_for_retries_and_cannot_be_asked_in_the_page() -> None:
    pledge = next(o for o in operations()["rfms"] if o.path.endswith("/pledges/"))
    assert all("Idempotency-Key" in code for _, code in pledge.snippets)
    assert json.loads(pledge.body)["amount_micro"] == "500000"
    page = Client().get(reverse("explorer:reference-group", args=["rfms"])).content.decode()
    section = page.split(f'id="{pledge.id}"')[1].split("</section>")[0]
    assert "<form" not in section


def test_a_read_is_asked_in_the_page(world: Any, visit: Any, sign_in: Any) -> None:
    visitor = visit()
    sign_in(visitor)
    page = visitor.page
    page.goto(reverse("explorer:reference-group", args=["listings"]))
    one = page.locator("#listings_retrieve")
    one.get_by_text("Ask it here").click()
    one.locator("input[name=slug]").fill(world.listing.slug)
    one.get_by_role("button", name="Ask", exact=True).click()
    one.get_by_text("200 in").wait_for()
    assert json.loads(one.locator(".reply").inner_text())["slug"] == world.listing.slug
    assert visitor.complaints == []
    one.locator("input[name=slug]").fill("../nothing here?")
    with page.expect_response("**/api/v1/listings/**") as answer:
        one.get_by_role("button", name="Ask", exact=True).click()
    assert answer.value.status == 404 and "%2Fnothing%20here%3F" in answer.value.url
    assert misfits(page) == []
