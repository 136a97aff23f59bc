"""What people do in the Explorer, in real Chromium against the whole stack: each in a window of
their own, submit a request, vote and watch the tally move, follow a round, buy a prediction, find
its proof in the log.
"""

from __future__ import annotations

import html
import json
import re
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import expect

from tests.support.steps import fill
from workers.client.api import Api

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_a_request_is_submitted_and_found_by_others(visitor: Any, window: Any) -> None:
    page, other = visitor.page, window()
    page.goto("/rfms/new/")
    fill(
        page,
        {
            "Title": "Weaning from a ventilator",
            "Objective": "Tell when a patient can breathe without the machine.",
            "Features, one a line": "tidal volume, ml, 0, 2000\nrate, 1/min, 0, 80",
            "Label column": "weaned",
        },
    )
    page.get_by_role("button", name="Save and preview").click()
    other.page.goto("/search/?q=ventilator")
    expect(other.page.get_by_text("Nothing found")).to_be_visible()  # a draft is its author's
    page.get_by_role("button", name="Send to the SuperDAO's vote").click()
    expect(page.get_by_role("heading", name="The SuperDAO is voting")).to_be_visible()
    other.page.reload()
    other.page.get_by_role("link", name="Weaning from a ventilator", exact=True).click()
    expect(other.page.get_by_role("heading", name="Weaning from a ventilator")).to_be_visible()
    assert visitor.complaints == other.complaints == []


@pytest.mark.slow
def test_a_vote_that_needs_the_visitor_moves_the_tally_in_another_window(
    visitor: Any, window: Any
) -> None:
    other = window()
    visitor.page.get_by_role("link", name="Read and vote").first.click()
    visitor.page.wait_for_url("**/proposals/*/")
    other.page.goto(visitor.page.url)
    other.page.locator("html[data-watching]").wait_for(state="attached")
    expect(other.page.locator("#tally")).to_contain_text("0 % ·")
    visitor.page.get_by_role("button", name="Vote for, with weight 25 %").click()
    expect(other.page.locator("#tally")).to_contain_text("25 % ·")
    expect(other.page.get_by_role("region", name="Voters")).to_contain_text("Visitor")
    assert visitor.complaints == other.complaints == []


@pytest.mark.slow
def test_a_round_is_followed_live_to_its_end(played: Any) -> None:
    """Opened while the round ran and never touched: phases in their order, then every φ."""
    facts, _, home = played
    seen = json.loads((home.parent / "seen.json").read_text())
    order = ["Sum up", "Normalise", "Train", "Compute", "Result"]
    places = [order.index(phase) for phase in seen["phases"]]
    assert places == sorted(places) and len(places) >= 2
    assert seen["phi"] == [f"{phi:.3f}" for phi in sorted(facts["phi"].values(), reverse=True)]
    assert seen["complaints"] == []


@pytest.mark.slow
def test_a_prediction_is_bought_and_its_proof_found_in_the_log(visitor: Any, window: Any) -> None:
    page, auditor = visitor.page, window()
    page.goto("/models/")
    page.get_by_role("main").get_by_role("link").filter(has_text="malignant").click()
    page.get_by_role("button", name="Pay $0.50 and predict").click()
    expect(page.locator("#try-answer")).to_contain_text("paid $0.50")
    page.get_by_role("link", name="The payment and its receipts").click()
    proof = page.get_by_role("link", name=re.compile(r"log entry \d+"))
    for _ in range(50):  # its number comes with the next batch of the log
        if proof.count():
            break
        page.reload()
    digest, receipt = (
        page.get_by_role("button", name=f"Copy {what}").first.get_attribute("data-text")
        for what in ("digest", "signature")
    )
    auditor.page.goto(proof.get_attribute("href"))
    expect(auditor.page.get_by_text("Proof checks")).to_be_visible()
    expect(auditor.page.locator("pre")).to_contain_text(digest)
    auditor.page.keyboard.press("/")
    auditor.page.keyboard.type(receipt)
    auditor.page.keyboard.press("Enter")
    expect(auditor.page.get_by_role("heading", name="Answer a prediction")).to_be_visible()
    assert visitor.complaints == auditor.complaints == []


@pytest.mark.slow
def test_the_listings_commands_buy_a_prediction_when_they_are_pasted(
    stack: Any, tmp_path: Path
) -> None:
    url, own = stack
    listing = Api(url).get("listings/")["results"][0]["slug"]
    page = httpx.get(f"{url}/models/{listing}/").text
    shell, python = (
        next(
            html.unescape(text)
            for text in re.findall(r"<code[^>]*>(.*?)</code>", page, re.DOTALL)
            if words in text
        )
        for words in ("predict --home", "from workers.client.buyer")
    )
    account = {"email": "paste@example.org", "name": "Paste", "kind": "person"}
    account["password"] = secrets.token_urlsafe(20)
    key = Api(url).post("accounts/", account)["api_key"]
    money = {"asset": "USDC", "amount_micro": "1000000"}
    Api(url, key).post("wallet/faucet/", money, idempotency_key="paste")
    done = subprocess.run(
        ["bash", "-e"],
        input=f"{shell}\n\"$FLAI_VENV\"/bin/python - <<'END'\n{python}END\n",
        cwd=tmp_path,
        env=own | {"FLAI_API_KEY": key, "PYTHONPATH": str(ROOT), "FLAI_VENV": sys.prefix},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"0\.\d+", done.stdout) and re.search(r"\('0\.\d+',\)", done.stdout)
    wallet = Api(url, key).get("wallet/")["accounts"]
    assert [a["posted_micro"] for a in wallet if a["purpose"] == "main"] == ["0"]


@pytest.mark.slow
def test_the_audit_log_of_the_model_has_each_step_and_each_site(visitor: Any) -> None:
    page = visitor.page
    page.goto("/models/predict-malignant/")
    page.get_by_role("link", name="Audit log", exact=True).click()
    page.wait_for_url("**/audit/")
    steps = [row.split("\t") for row in page.locator("tbody tr").all_inner_texts()]
    words = list(dict.fromkeys(what for _, what, *_ in steps))
    assert "Request submitted" in words[:3]  # with its proposal, in one transaction
    assert "Model on sale" in words[-2:]  # the vote that put it there is executed by then
    assert {"SubDAO founded", "Round done", "Version accepted"} < set(words)
    shared = [who for _, what, who, *_ in steps if what == "Share received"]
    assert len(set(shared)) == 9 and "Hospital Elm" in shared and "Validator Iris" in shared
    assert visitor.complaints == []
