"""manage.py contact_sheet --url U --out DIR: every page, light and dark, at two widths."""

from __future__ import annotations

import os
import re
import shutil
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.urls import reverse

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Pages with a fixed address, and where the first example of each further page is linked from.
FIXED = (
    "home dashboard sign-up sign-in models compare rfms rfm-new subdaos proposals wallet "
    "wallet-key usage plans account webhooks log nodes downloads design tokens reference"
)
EXAMPLES = {
    "model": ("models", r"/models/(?!compare/)[^/]+/$"),
    "rfm": ("rfms", r"/rfms/(?!new/)[^/]+/$"),
    "subdao": ("subdaos", r"/subdaos/(?!superdao/)[^/]+/$"),
    "superdao": ("subdaos", r"/subdaos/superdao/$"),
    "proposal": ("proposals", r"/proposals/[0-9a-f-]{36}/$"),
    "log-entry": ("log", r"/log/\d+/$"),
    "job": ("nodes", r"/jobs/[0-9a-f]{32}/$"),
    "token": ("tokens", r"/tokens/[^/]+/$"),
    "query": ("wallet", r"/queries/[0-9a-f-]{36}/$"),
}
# The same of pages that only another example links to.
FURTHER = {
    "round": ("subdao", r"/rounds/[0-9a-f-]{36}/$"),
    "epoch": ("subdao", r"/epochs/[0-9a-f-]{36}/$"),
    "propose": ("subdao", r"/propose/$"),
    "plan": ("model", r"/models/[^/]+/plan/$"),
    "propose-one": ("propose", r"\?kind=subdaos.set_split$"),
    "invoice": ("usage", r"/wallet/invoices/[\d-]+/$"),
    "pool": ("token", r"/pools/[^/]+/$"),
    "vault": ("token", r"/vaults/[^/]+/$"),
    "convert": ("token", r"/convert/$"),
}
TOO_WIDE = "(e => e.scrollWidth - e.clientWidth)(document.documentElement)"


class Command(BaseCommand):
    help = "Pictures of every page of a running site, in light and dark, at 1280 and 360 px."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--url", required=True, help="where the site runs")
        parser.add_argument("--out", required=True, type=Path, help="directory for the pictures")
        parser.add_argument("--email", help="sign in as this person first")
        parser.add_argument(
            "--password-env", default="FLAI_PASSWORD", help="variable that holds it"
        )
        parser.add_argument("--only", nargs="*", help="names of pages")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            from playwright.sync_api import sync_playwright
        except ImportError:
            raise CommandError(
                "The contact sheet needs playwright: pip install -r requirements-test.txt"
            ) from None
        browser_path = os.environ.get("CHROMIUM") or next(
            filter(None, map(shutil.which, NAMES)), None
        )
        if browser_path is None:
            raise CommandError("No Chromium on PATH. Install it, or set CHROMIUM to its path.")
        base, out = options["url"].rstrip("/"), options["out"]
        out.mkdir(parents=True, exist_ok=True)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=browser_path, args=["--no-sandbox", "--disable-dev-shm-usage"]
            )
            for scheme in ("light", "dark"):
                for width in (1280, 360):
                    context = browser.new_context(
                        base_url=base,
                        viewport={"width": width, "height": 900},
                        color_scheme=scheme,
                    )
                    page = context.new_page()
                    if options["email"]:
                        self._sign_in(page, options)
                    for name, path in self._pages(page, options["only"]):
                        page.goto(path)
                        page.screenshot(path=out / f"{name}-{scheme}-{width}.png", full_page=True)
                        overflow = page.evaluate(TOO_WIDE)
                        if overflow > 0:
                            self.stderr.write(f"{name} at {width} px is {overflow} px too wide")
                    context.close()
            browser.close()
        self.stdout.write(f"{len(list(out.glob('*.png')))} pictures in {out}")

    def _sign_in(self, page: Any, options: dict[str, Any]) -> None:
        page.goto(reverse("explorer:sign-in"))
        page.fill("input[name=username]", options["email"])
        page.fill("input[name=password]", os.environ.get(options["password_env"], ""))
        page.click("main button")
        if page.url.rstrip("/").endswith("sign-in"):
            raise CommandError(f"Signing in as {options['email']} did not work.")

    def _pages(self, page: Any, only: list[str] | None) -> list[tuple[str, str]]:
        """(name, path) of each page, examples found by following the site's own links."""
        found = [(name, reverse(f"explorer:{name}")) for name in FIXED.split()]
        for name, (listing, pattern) in EXAMPLES.items():
            if path := self._link(page, reverse(f"explorer:{listing}"), pattern):
                found.append((name, path))
        examples = dict(found)
        for name, (example, pattern) in FURTHER.items():
            start = examples.get(example)
            if start and (path := self._link(page, start, pattern)):
                found.append((name, path))
        found.append(("search", f"{reverse('explorer:search')}?q=re"))
        found.append(("not-found", "/there-is-nothing-here/"))
        return [pair for pair in found if not only or pair[0] in only]

    def _link(self, page: Any, start: str, pattern: str) -> str | None:
        page.goto(start)
        links = page.eval_on_selector_all(
            "main a[href]", "all => all.map(a => a.pathname + a.search)"
        )
        return next((link for link in links if re.search(pattern, link)), None)
