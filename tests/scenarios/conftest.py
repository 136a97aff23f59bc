"""The story that `demo --once` plays, the one stack on what it left, and windows on that stack.

All files here run in one process of the suite (tests/conftest.py), so that they share it. The
browser and the world of the explorer's tests are for what needs no whole stack.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from flai_site.stack.services import remove
from tests.explorer.conftest import browser, sign_in, site, visit, world  # noqa: F401 - fixtures
from tests.support import story
from tests.support.browser import Visitor, chromium
from tests.support.needles import Needles


@pytest.fixture(scope="package")
def played(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(numbers, output, home) of one `demo --once`; what a window saw of it lies beside."""
    home = tmp_path_factory.mktemp("demo") / "flai"
    facts, said, seen = story.play(home)
    (home.parent / "seen.json").write_text(json.dumps(seen))
    yield facts, said, home
    remove(home)  # as root its database lies elsewhere


@pytest.fixture(scope="package")
def needles(played: Any) -> Needles:
    """What only its owner may know of all that the story left."""
    return story.needles_of(played[2])


@pytest.fixture(scope="package")
def stack(played: Any) -> Any:
    """(address, environment) of the one stack on what the story left; no test after the first that
    asks for it may open that database by itself."""
    with story.running(played[2]) as found:
        yield found


@pytest.fixture(scope="module")
def window(stack: Any) -> Any:
    """`window()` opens a browser window of somebody else; all are closed in the end."""
    with chromium() as found:
        opened: list[Visitor] = []

        def new() -> Visitor:
            opened.append(Visitor(found, stack[0]))
            return opened[-1]

        yield new
        for visitor in opened:
            visitor.close()


@pytest.fixture
def visitor(played: Any, window: Any) -> Any:
    """The demo's visitor, signed in, in a window of their own."""
    login = json.loads((played[2] / "demo" / "logins.json").read_text())["visitor"]
    found = window()
    found.page.goto("/sign-in/")
    found.page.get_by_label("E-mail").fill(login["email"])
    found.page.get_by_label("Password").fill(login["password"])
    found.page.get_by_role("main").get_by_role("button", name="Sign in").click()
    found.page.get_by_role("heading", name="Needs you").wait_for()
    return found
