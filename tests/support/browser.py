"""A real browser against the real site: uvicorn in a thread, the system's Chromium in front.

Needs `transactional_db`, since the server's threads have their own connections. A machine without
Chromium fails here, with what to install: these tests are never skipped.
"""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
START_S_MAX = 60.0
# A busy machine takes its time to answer; what never comes fails as surely.
expect.set_options(timeout=30_000)


class NoBrowser(RuntimeError):
    """No Chromium on this machine."""


def chromium_path() -> str:
    """$CHROMIUM, else the first known name on PATH. Raises NoBrowser with the remedy."""
    given = os.environ.get("CHROMIUM")
    found = shutil.which(given) if given else next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        raise NoBrowser(
            f"CHROMIUM={given} is not a program."
            if given
            else "The browser tests need Chromium, and none is on PATH. Install it "
            "(Debian: apt-get install chromium; Fedora: dnf install chromium) or set CHROMIUM."
        )
    return found


@contextmanager
def chromium() -> Iterator[Browser]:
    """One headless browser."""
    path = chromium_path()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def served(application: Any, *, port: int = 0) -> Iterator[str]:
    """The ASGI application at a loopback port, else a free one, in a thread; yields its URL."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    config = uvicorn.Config(
        application,
        lifespan="off",
        ws="websockets-sansio",
        log_level="warning",
        timeout_graceful_shutdown=2,
    )
    server = uvicorn.Server(config)
    started = threading.Event()
    startup = server.startup

    async def announce(sockets: list[socket.socket] | None = None) -> None:
        await startup(sockets=sockets)
        started.set()

    server.startup = announce  # type: ignore[method-assign]
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    if not started.wait(START_S_MAX):
        raise RuntimeError("the site did not start in time")
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(START_S_MAX)
        listener.close()


class Visitor:
    """A browser context that remembers every complaint of the console."""

    def __init__(self, browser: Browser, base_url: str, **options: Any) -> None:
        self.context: BrowserContext = browser.new_context(
            base_url=base_url, viewport={"width": 1280, "height": 900}, **options
        )
        self.page: Page = self.context.new_page()
        self.complaints: list[str] = []
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self._hear)

    def _hear(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{self.page.url}: {message.text}")

    def close(self) -> None:
        self.context.close()


AXE = Path(__file__).resolve().parents[1] / "vendor" / "axe.min.js"
STANDARDS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


Look = tuple[int, str, list[str]]  # width in px, theme, axe-core's rules (none named: all)
WIDTH = 1280
# What a narrow screen may break beside the page's width, and a theme: the rest is the same
# document. No width has colours of its own, so that each theme is seen at one.
NARROW = ["color-contrast", "target-size", "scrollable-region-focusable"]
LOOKS: list[Look] = [(WIDTH, "light", []), (360, "dark", NARROW)]
# For what stands on every page, and at one width only: navigation and menu.
FRAME: list[Look] = [(WIDTH, "dark", NARROW[:1]), (360, "light", NARROW[:1])]
# Once it is laid out in the new width.
WIDE_PX = """() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => {
  const { scrollWidth, clientWidth } = document.documentElement;
  done(scrollWidth - clientWidth);
})))"""
# Nothing that plays is on any page: to look for what plays by itself axe-core would fetch all that
# the page has, again.
VIOLATIONS = """async (runOnly) => {
  const options = { runOnly, resultTypes: ["violations"], preload: false };
  const found = (await axe.run(document, options)).violations
    .map(v => [v.id, v.help, v.nodes.slice(0, 3).map(n => n.html.slice(0, 160)).join(" | ")]);
  if (document.querySelector("audio, video")) found.push(["something plays"]);
  return found.map(said => said.join(": "));
}"""


def with_axe(visitor: Visitor) -> Visitor:
    """The visitor, whose pages come with axe-core: quicker than to send it to each of many."""
    visitor.context.add_init_script(path=AXE)
    return visitor


def misfits(page: Page, looks: Sequence[Look] = LOOKS) -> list[str]:
    """What is wrong with a page as it stands, on desk and phone: axe-core's findings, overflow.
    Leaves it as wide as `WIDTH`, in the light theme."""
    found = []
    for width, scheme, only in looks:
        _show(page, width, scheme)
        wide = page.evaluate(WIDE_PX)
        here = axe_violations(page, only=only)
        if wide > 0:
            here.append(f"{wide} px too wide")
        found += [f"{width} px, {scheme}: {problem}" for problem in here]
    _show(page, WIDTH, "light")
    return found


def _show(page: Page, width: int, scheme: str) -> None:
    if page.viewport_size != (size := {"width": width, "height": 900}):
        page.set_viewport_size(size)  # type: ignore[arg-type]
    # without motion, so that no colour is seen on its way to another
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]


def axe_violations(page: Page, *, only: Sequence[str] = ()) -> list[str]:
    """axe-core's findings on the page as it stands: rule, and the elements that break it.

    All rules of the standards, or `only` those named. The script runs in the page through the
    debugger's evaluation, which the site's policy does not bind.
    """
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE.read_text())
    run_only = {"type": "rule", "values": only} if only else {"type": "tag", "values": STANDARDS}
    return list(page.evaluate(VIOLATIONS, run_only))
