"""manage.py contact_sheet --url U --out DIR: every page, light and dark, at two widths.

`DIR/index.html` shows them, the four looks of a page side by side.
"""

from __future__ import annotations

import os
import re
import shutil
from argparse import ArgumentParser
from itertools import product
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.urls import reverse
from django.utils.html import format_html, format_html_join

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SCHEMES, WIDTHS = ("light", "dark"), (1280, 360)
# Pages that only strangers see, taken before signing in.
STRANGERS = {"landing": "home", "sign-up": "sign-up", "sign-in": "sign-in"}
# Pages with a fixed address, and where the first example of each further page is linked from.
FIXED = (
    "dashboard models compare rfms rfm-new subdaos proposals wallet "
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
    "audit": ("model", r"/models/[^/]+/audit/$"),
    "plan": ("model", r"/models/[^/]+/plan/$"),
    "propose-one": ("propose", r"\?kind=subdaos.set_split$"),
    "invoice": ("usage", r"/wallet/invoices/[\d-]+/$"),
    "pool": ("token", r"/pools/[^/]+/$"),
    "vault": ("token", r"/vaults/[^/]+/$"),
    "convert": ("token", r"/convert/$"),
}
TOO_WIDE = "(e => e.scrollWidth - e.clientWidth)(document.documentElement)"
INDEX = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Contact sheet</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem; background: #888; }}
section div {{ display: flex; gap: 1rem; align-items: flex-start; }}
a {{ flex: {wide} 1 0; max-height: 80vh; overflow: auto; }}
a[href$="-{small}.png"] {{ flex-grow: {small}; }}
img {{ width: 100%; display: block; }}
</style>
<h1>Contact sheet</h1>
{pages}
</html>
"""


def write_index(out: Path) -> Path:
    """index.html: each page that has pictures in `out`, all looks of it side by side."""
    looks = [f"{scheme}-{width}.png" for scheme, width in product(SCHEMES, WIDTHS)]
    names = {file.name.removesuffix(f"-{look}") for look in looks for file in out.glob(f"*-{look}")}
    sections = [
        (
            name,
            format_html_join(
                "",
                '<a href="{0}"><img loading="lazy" src="{0}" alt="{0}"></a>',
                [(f"{name}-{look}",) for look in looks if (out / f"{name}-{look}").exists()],
            ),
        )
        for name in sorted(names)
    ]
    pages = format_html_join("\n", "<section><h2>{}</h2><div>{}</div></section>", sections)
    index = out / "index.html"
    index.write_text(format_html(INDEX, pages=pages, wide=max(WIDTHS), small=min(WIDTHS)))
    return index


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
            for scheme, width in product(SCHEMES, WIDTHS):
                context = browser.new_context(
                    base_url=base,
                    viewport={"width": width, "height": 900},
                    color_scheme=scheme,
                )
                page, only = context.new_page(), options["only"]
                seen = {name: reverse(f"explorer:{of}") for name, of in STRANGERS.items()}
                self._take(page, seen, only, out, f"{scheme}-{width}")
                if options["email"]:
                    self._sign_in(page, options)
                self._take(page, self._pages(page), only, out, f"{scheme}-{width}")
                context.close()
            browser.close()
        self.stdout.write(f"{len(list(out.glob('*.png')))} pictures in {write_index(out)}")

    def _take(
        self, page: Any, pages: dict[str, str], only: list[str] | None, out: Path, look: str
    ) -> None:
        for name, path in pages.items():
            if only and name not in only:
                continue
            page.goto(path)
            page.screenshot(path=out / f"{name}-{look}.png", full_page=True)
            overflow = page.evaluate(TOO_WIDE)
            if overflow > 0:
                self.stderr.write(f"{name}, {look} px, is {overflow} px too wide")

    def _sign_in(self, page: Any, options: dict[str, Any]) -> None:
        page.goto(reverse("explorer:sign-in"))
        page.fill("input[name=username]", options["email"])
        page.fill("input[name=password]", os.environ.get(options["password_env"], ""))
        page.click("main button")
        if page.url.rstrip("/").endswith("sign-in"):
            raise CommandError(f"Signing in as {options['email']} did not work.")

    def _pages(self, page: Any) -> dict[str, str]:
        """{name: path} of each page, examples found by following the site's own links."""
        found = {name: reverse(f"explorer:{name}") for name in FIXED.split()}
        for name, (listing, pattern) in EXAMPLES.items():
            if path := self._link(page, reverse(f"explorer:{listing}"), pattern):
                found[name] = path
        for name, (example, pattern) in FURTHER.items():
            start = found.get(example)
            if start and (path := self._link(page, start, pattern)):
                found[name] = path
        found["search"] = f"{reverse('explorer:search')}?q=re"
        found["not-found"] = "/there-is-nothing-here/"
        return found

    def _link(self, page: Any, start: str, pattern: str) -> str | None:
        page.goto(start)
        links = page.eval_on_selector_all(
            "main a[href]", "all => all.map(a => a.pathname + a.search)"
        )
        return next((link for link in links if re.search(pattern, link)), None)
