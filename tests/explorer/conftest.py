"""A browser for the module, a served site and a populated world for the test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.explorer import world as worlds
from tests.support.browser import Visitor, chromium, served


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        # Playwright keeps a loop in this thread; Django would take the test's own reads for async.
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
        with chromium() as found:
            yield found


@pytest.fixture
def site(transactional_db: None, browser: Any) -> Iterator[str]:
    from flai_site.asgi import application

    with served(application) as url:
        yield url


@pytest.fixture
def world(site: str) -> worlds.World:
    return worlds.build()


@pytest.fixture
def visit(site: str, browser: Any) -> Iterator[Any]:
    """`visit(**context options)` opens a Visitor; all are closed after the test."""
    opened: list[Visitor] = []

    def new(**options: Any) -> Visitor:
        opened.append(Visitor(browser, site, **options))
        return opened[-1]

    yield new
    for visitor in opened:
        visitor.close()


@pytest.fixture
def sign_in() -> Any:
    """`sign_in(visitor)`: through the form, as the world's buyer."""

    def enter(visitor: Visitor, email: str = "buyer@example.org") -> None:
        visitor.page.goto("/sign-in/")
        visitor.page.get_by_label("E-mail").fill(email)
        visitor.page.get_by_label("Password").fill(worlds.PASSWORD)
        visitor.page.get_by_role("main").get_by_role("button", name="Sign in").click()
        visitor.page.wait_for_url("**/")

    return enter
