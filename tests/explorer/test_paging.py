"""Lists page by the row that one is next to: nothing twice, nothing lost; nonsense: page one."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs

import pytest
from django.test import RequestFactory

from apps.accounts.models import Party
from apps.core import clock
from apps.explorer.page import Page, paged
from apps.wallets.models import Account, Asset

pytestmark = pytest.mark.django_db

SIZE, ROWS = 4, 11
NEWEST = ("-created_at", "-id")


def add(count: int, minutes: int) -> None:
    """Parties in pairs of the same instant, so that the id has to decide."""
    at = clock.now() + timedelta(minutes=minutes)
    for place in range(count):
        made = at + timedelta(seconds=place // 2)
        Party.objects.create(kind="person", name="P", slug=f"p-{minutes}-{place}", created_at=made)


def page(order: tuple[str, ...] = NEWEST, **query: str) -> Page:
    rows = Party.objects.filter(slug__startswith="p-").order_by(*order)
    return paged(RequestFactory().get("/", query), rows, SIZE)


def follow(query: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(query).items()}


@pytest.mark.parametrize("order", [NEWEST, ("created_at", "id"), ("slug",)])
def test_there_and_back_shows_every_row_once(order: tuple[str, ...]) -> None:
    add(ROWS, 0)
    there = [page(order)]
    while there[-1].older:
        there.append(page(order, **follow(there[-1].older)))
    seen = [row for one in there for row in one]
    assert seen == list(Party.objects.filter(slug__startswith="p-").order_by(*order))
    back = [there[-1]]
    while back[-1].newer:
        back.append(page(order, **follow(back[-1].newer)))
    assert [list(one) for one in reversed(back)] == [list(one) for one in there]


def test_a_list_may_be_in_the_order_of_a_related_row() -> None:
    """As the tokens are, by when their SubDAO was founded."""
    add(ROWS, 0)
    asset = Asset.objects.get(code="USDC")
    parties = Party.objects.filter(slug__startswith="p-")
    Account.objects.bulk_create(Account(owner=party, asset=asset) for party in parties)
    rows = Account.objects.filter(owner__in=parties).select_related("owner")
    rows = rows.order_by("-owner__created_at", "-id")
    seen, query = [], {"after": ""}
    while query:
        shown = paged(RequestFactory().get("/", query), rows, SIZE)
        seen += list(shown)
        query = follow(shown.older)
    assert seen == list(rows)


def test_new_rows_do_not_shift_what_is_read() -> None:
    add(ROWS, 0)
    before = page(**follow(page().older))
    add(3, 5)
    assert list(page(**follow(before.newer))) != list(page())
    first = page()
    second = page(**follow(first.older))
    assert not {row.id for row in first} & {row.id for row in second}
    assert list(page(**follow(page(**follow(before.older)).newer))) == list(before)


@pytest.mark.parametrize(
    "text",
    ["", "x", "~", "2026-01-01~x", "9999-99-99~1", "2026-01-01T00:00:00~" + "0" * 32, "\x00~1"],
)
@pytest.mark.parametrize("name", ["after", "before"])
def test_nonsense_is_the_first_page(name: str, text: str) -> None:
    add(ROWS, 0)
    assert page(**{name: text}) == page()


def test_an_order_by_rank_is_counted_and_ends() -> None:
    add(ROWS, 0)

    def ranked(number: Any) -> Page:
        rows = Party.objects.filter(slug__startswith="p-").order_by("slug", "-name")
        return paged(RequestFactory().get("/", {"page": number}), rows, SIZE)

    assert len(ranked(3)) == ROWS - 2 * SIZE and not ranked(3).older
    assert follow(ranked(2).newer) == {"page": "1"}
    assert ranked(99_999).rows == ranked(400).rows == []
