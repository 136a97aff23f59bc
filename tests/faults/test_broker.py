"""Valkey is killed while a page is open, and comes back: pages go on, then they move again."""

from __future__ import annotations

import logging
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from channels.layers import channel_layers
from playwright.sync_api import expect

from apps.core import broker
from flai_site.stack.embedded import Valkey, embedded, end_process
from flai_site.stack.services import remove
from tests.explorer import pages
from tests.explorer.conftest import browser, sign_in, site, visit, world  # noqa: F401 - fixtures
from tests.scenarios.test_explorer_live import open_round, step, watch


class Broker:
    """A Valkey of this test's own, to be killed and started again at the same place."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.service: Valkey = embedded(home)[1]
        self.child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.service.prepare()
        command, environment = self.service.command(), self.service.environment()
        self.child = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        until(self.service.is_ready)

    def kill(self) -> None:
        assert self.child is not None
        end_process(self.child.pid, self.service.die_signal)
        self.child.wait()
        self.child = None


def until(done: Callable[[], Any]) -> None:
    end = time.monotonic() + 60
    while not done():
        assert time.monotonic() < end
        threading.Event().wait(0.02)


@pytest.fixture
def own_broker(tmp_path: Path, settings: Any) -> Iterator[Broker]:
    made = Broker(tmp_path)
    made.start()
    config = {"hosts": [{"address": made.service.url, "socket_connect_timeout": 2}]}
    settings.CHANNEL_LAYERS = {
        "default": {"BACKEND": settings.CHANNEL_LAYERS["default"]["BACKEND"], "CONFIG": config}
    }
    channel_layers.backends.clear()
    yield made
    channel_layers.backends.clear()
    if made.child is not None:
        made.kill()
    remove(tmp_path)


def test_a_page_outlives_the_broker(
    own_broker: Broker,
    world: Any,  # noqa: F811
    visit: Any,  # noqa: F811
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One line when it goes, one when it is back; no page fails, and the open one catches up."""
    caplog.set_level(logging.WARNING)
    held, address = open_round(world), pages.public(world)["round"]
    page = watch(visit(), address)
    page.evaluate("window.scrollTo(0, 90)")
    before = page.evaluate("window.scrollY")
    own_broker.kill()
    until(lambda: broker.outage.since is not None)
    step(held, "normalising", "All sums are with the nodes.")

    stranger = visit().page
    assert stranger.goto(address).status == 200
    expect(stranger.locator("[aria-current=step] .phase")).to_have_text("Normalise")

    own_broker.start()
    expect(page.locator("[aria-current=step] .phase")).to_have_text("Normalise", timeout=25_000)
    assert page.evaluate("window.scrollY") == before
    step(held, "updates", "Mean and variance are known.")
    expect(page.locator("[aria-current=step] .phase")).to_have_text("Train")
    expect(stranger.locator("[aria-current=step] .phase")).to_have_text("Train", timeout=25_000)

    ours = [r.getMessage() for r in caplog.records if r.name == broker.logger.name]
    assert len(ours) == 2 and "is away" in ours[0] and "is back" in ours[1], ours
    assert [r for r in caplog.records if r.exc_info] == []


def test_an_outage_is_told_less_and_less_often(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Failing ten times a second for ten minutes makes five lines."""
    clock = [1000.0]
    monkeypatch.setattr(broker.time, "monotonic", lambda: clock[0])
    outage = broker.Outage()
    outage.back()
    for _ in range(6000):
        outage.failed(ConnectionError("secret address"))
        clock[0] += 0.1
    outage.back()
    outage.back()
    said = [r.getMessage() for r in caplog.records]
    assert said == [
        "the broker is away (ConnectionError): pages and workers look alone",
        "the broker has been away for 60 s",
        "the broker has been away for 180 s",
        "the broker has been away for 420 s",
        "the broker is back after 600 s",
    ]
