"""Who comes by buys: by click with nobody's approval, and by the program that the README shows."""

from __future__ import annotations

import html
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import expect

from tests.support.browser import WIDE_PX
from workers.client.api import Api

ROOT = Path(__file__).resolve().parents[2]
SHOTS = os.environ.get("FLAI_TEST_SHOTS", "")
VALUE = "17.380291"  # within the feature's range, and nowhere by chance


def account(url: str, name: str) -> str:
    """A new buyer's API key."""
    made = {"email": f"{name}@example.org", "name": name.title(), "kind": "person"}
    made["password"] = secrets.token_urlsafe(20)
    return Api(url).post("accounts/", made)["api_key"]


class Hand:
    """What a person does on a page: clicks, fields and keys are counted, steps looked at."""

    def __init__(self, visitor: Any, name: str) -> None:
        self.page, self.name, self.actions, self.shots = visitor.page, name, 0, 0
        self.began = time.monotonic()

    def click(self, what: Any) -> None:
        self.actions += 1
        what.click()

    def fill(self, what: Any, text: str, then: str = "") -> None:
        self.actions += 1 + bool(then)
        what.fill(text)
        if then:
            what.press(then)

    def look(self, step: str) -> None:
        """Nothing is cut off at the side; with FLAI_TEST_SHOTS, pictures of screen and page."""
        assert self.page.evaluate(WIDE_PX) <= 0, step
        self.shots += 1
        if SHOTS:
            for whole in (False, True):
                name = f"{self.name}-{self.shots:02}-{step}{'-whole' * whole}.png"
                self.page.screenshot(path=Path(SHOTS) / name, full_page=whole)


# Clicks, fields and keys from the first page to the answer and where the money went.
ACTIONS_MAX = 14


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 360])
def test_a_stranger_finds_a_model_and_buys_an_answer_with_nobodys_approval(
    window: Any, width: int, capsys: Any
) -> None:
    """M-MKT6: from the first page, by what a stranger sees; no step waits for anybody."""
    visitor = window()
    page, sent = visitor.page, []
    page.set_viewport_size({"width": width, "height": 800})
    page.on("request", lambda request: sent.append(request.post_data or ""))
    hand, main = Hand(visitor, f"buyer-{width}"), page.get_by_role("main")
    page.goto("/")
    hand.look("home")
    hand.fill(page.get_by_label("Search, or paste an id or hash"), "malignant", then="Enter")
    page.wait_for_url("**/search/**")
    hand.look("found")
    hand.click(main.get_by_role("link").filter(has_text="malignant").first)
    expect(page.locator("#try")).to_be_visible()
    hand.look("model")
    hand.click(main.get_by_role("link", name="Create an account to use it"))
    hand.look("sign-up")
    hand.fill(page.get_by_label("Public name"), "Passing By")
    hand.fill(page.get_by_label("E-mail"), f"{secrets.token_hex(8)}@example.org")
    hand.fill(page.get_by_label("Password"), secrets.token_urlsafe(20))
    hand.click(page.get_by_role("button", name="Create account"))
    expect(page.locator("#try-short")).to_contain_text("$0.50 is missing")
    expect(page.locator("#try-short")).to_be_in_viewport()  # no search for the next step
    hand.look("no-money-yet")
    hand.click(page.get_by_role("link", name="Add money in your wallet"))
    hand.look("wallet")
    hand.click(page.get_by_role("button", name="Get test money and go back"))
    expect(page.locator("#try-balance")).to_contain_text("$1,000.00")
    hand.fill(page.locator("#try-form input[data-feature]").first, VALUE)
    hand.look("form")
    hand.click(page.get_by_role("button", name="Pay $0.50 and predict"))
    answer = page.locator("#try-answer")
    expect(answer).to_contain_text("paid $0.50")
    expect(answer.locator(".probability")).to_have_text(re.compile(r"\d+\.\d %"))
    hand.look("answer")
    hand.click(page.get_by_role("link", name="The payment and its receipts"))
    expect(page.get_by_role("heading", name="Prediction for $0.50")).to_be_visible()
    hand.look("payment")
    assert any('"input"' in body for body in sent) and not any(VALUE in body for body in sent)
    assert hand.actions <= ACTIONS_MAX
    assert visitor.complaints == []
    with capsys.disabled():
        seconds = time.monotonic() - hand.began
        print(f"\n{width} px: {hand.actions} actions, {seconds:.1f} s without reading and typing")


@pytest.mark.slow
def test_the_readmes_example_buys_as_it_is_written(stack: Any, tmp_path: Path) -> None:
    url, own = stack
    text = (ROOT / "README.md").read_text().split("## Buy from a program")[1].split("\n## ")[0]
    blocks = re.findall(r"(?:^    .*\n|^\n(?=    ))+", text, re.MULTILINE)
    shell, program = ("\n".join(line[4:] for line in block.splitlines()) for block in blocks)
    key = account(url, "reader")
    money = {"asset": "USDC", "amount_micro": "1000000"}
    Api(url, key).post("wallet/faucet/", money, idempotency_key="reader")
    (tmp_path / "api-key").write_text(key)
    (tmp_path / "buy.py").write_text(program)
    script = shell.replace("http://127.0.0.1:8000", url)
    for written in (".venv/bin/python ", "python3 "):
        script = script.replace(written, f"{sys.executable} ")
    done = subprocess.run(
        ["bash", "-e"],
        input=script,
        cwd=tmp_path,
        env=own | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^\('[01]\.\d+',\) paid 0\.50$", done.stdout, re.MULTILINE), done.stdout
    wallet = Api(url, key).get("wallet/")["accounts"]
    assert [a["posted_micro"] for a in wallet if a["purpose"] == "main"] == ["500000"]


RUN = {"Python": [sys.executable, "-c"]}
RUN |= {"curl": ["bash", "-ec"]} if shutil.which("curl") else {}
RUN |= {"JavaScript": ["node", "--input-type=module", "-e"]} if shutil.which("node") else {}


@pytest.mark.slow
def test_the_references_calls_do_what_they_say_as_they_are_written(
    stack: Any, tmp_path: Path
) -> None:
    """One that moves nothing, and one that asks for an Idempotency-Key, in each language."""
    url, own = stack
    key, slug = (
        account(url, f"referee-{secrets.token_hex(4)}"),
        Api(url).get("listings/")["results"][0]["slug"],
    )
    for group, operation, answered in (
        ("listings", "listings_quote_create", "expires_at"),
        ("wallet", "wallet_faucet_create", "amount_micro"),
    ):
        page = httpx.get(f"{url}/api/docs/{group}/").text
        section = page.split(f'id="{operation}"')[1].split("</section>")[0]
        (tmp_path / "body.json").write_text(written(section, "What is sent"))
        for language, command in RUN.items():
            code = written(section, language).replace("{slug}", slug)
            done = subprocess.run(
                [*command, code],
                cwd=tmp_path,
                env=own | {"FLAI_API_KEY": key},
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert done.returncode == 0 and answered in done.stdout, (operation, language, done)
    wallet = Api(url, key).get("wallet/")["accounts"]
    assert [a["posted_micro"] for a in wallet if a["purpose"] == "main"] == [f"{len(RUN)}000000"]


def written(section: str, summary: str) -> str:
    """What a part of the reference shows under this heading."""
    found = re.search(rf"{summary}</summary>.*?<code[^>]*>(.*?)</code>", section, re.DOTALL)
    return html.unescape(found[1]) if found else ""


# One of each thing that is measured: no figure, but nothing that it calls may be gone.
BENCH = """
import json
from flai_site.bench import api, browser, bundles
api.WARM_UP, api.QUERIES, api.CLIENTS, api.EACH = 1, 1, 2, 1
api.ROWS, api.WIDE_CLIENTS, api.WIDE_EACH = 2, 1, 1
api.JOB_ROWS, api.JOB_TURNS, api.PART_ROWS, api.PART_CLIENTS = 1, 1, 1, 1
browser.WARM_UP, browser.QUERIES = 0, 1
bundles.SIZE, bundles.TURNS, bundles.ALONE, bundles.WARM_UP = 2, 1, 1, 1
for line in api.run():
    print(json.dumps(line))
"""


@pytest.mark.slow
def test_the_bench_of_paid_queries_finds_what_it_calls(stack: Any) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BENCH], cwd=ROOT, env=stack[1], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = {json.loads(line)["workload"] for line in done.stdout.splitlines()}
    assert {"paid_query_one_row", "nodes/together_1", "browser/both", "bundle_of_2"} <= found
