"""One `demo --once` as a browser sees it, and the stack that is left afterwards."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from playwright.sync_api import expect

from flai_site.stack.up import free_ports
from tests.support.browser import Visitor, chromium
from tests.support.needles import Needles
from workers.client import training
from workers.client.buyer import rows_from_csv, sigmoid

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 600
LOOK_S = 0.25
# Notes each phase that the strip shows, as it changes under a reader who does nothing.
RECORD = """() => {
  const now = () => (document.querySelector("[aria-current=step] .phase") || {}).textContent;
  window.phases = [now()];
  new MutationObserver(() => {
    const phase = now();
    if (phase && phase !== window.phases.at(-1)) window.phases.push(phase);
  }).observe(document.body, {subtree: true, childList: true, attributes: true});
}"""


def environment(home: Path) -> dict[str, str]:
    """A free place for the stack, and everything that goes over HTTP kept beside it."""
    recorded = home.parent / "recorded"
    recorded.mkdir(exist_ok=True)
    web, node, mesh = free_ports(3)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("FLAI_", "DJANGO_"))}
    kept |= {
        k: v for k, v in os.environ.items() if k == "FLAI_VOTING_PERIOD_MIN_S"
    }  # a busy machine
    kept = {k: v for k, v in kept.items() if k not in ("DATABASE_URL", "VALKEY_URL")}
    return kept | {
        "FLAI_HOME": str(home),
        "PYTHONPATH": str(ROOT / "tests" / "support" / "recorder"),
        "RECORD_TO": str(recorded),
        "FLAI_WEBHOOKS_PRIVATE": "1",  # whoever is called listens on this machine
        "FLAI_PORT": str(web),
        "FLAI_NODE_PORT": str(node),
        "FLAI_MESH_PORT": str(mesh),
    }


def play(home: Path) -> tuple[dict[str, Any], str, dict[str, Any]]:
    """(the story's numbers, its output, what a window on its round saw)."""
    report, own = home.parent / "report.json", environment(home)
    with (home.parent / "output").open("w+") as output:
        story = subprocess.Popen(
            [sys.executable, "manage.py", "demo", "--once", "--json", str(report)],
            cwd=ROOT,
            env=own,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            seen = _follow(f"http://127.0.0.1:{own['FLAI_PORT']}", story)
            code = story.wait(TIMEOUT_S)
        finally:
            if story.poll() is None:
                story.send_signal(signal.SIGINT)
                story.wait(60)
        output.seek(0)
        said = output.read()
    assert code == 0, said
    return json.loads(report.read_text()), said, seen


def _follow(url: str, story: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Opens the page of the first round and leaves it alone until the round is over."""
    round_id = _first_round(url, story)
    if round_id is None:
        return {}
    with chromium() as browser:
        window = Visitor(browser, url)
        window.page.goto(f"/rounds/{round_id}/")
        window.page.evaluate(RECORD)
        try:
            expect(window.page.locator("#phase")).to_contain_text("done", timeout=TIMEOUT_S * 500)
        except AssertionError as error:  # the story's own tests stand without the window
            return {"error": str(error)}
        return {
            "phases": window.page.evaluate("window.phases"),
            "phi": window.page.locator("#round .figure").first.locator(".value").all_inner_texts(),
            "complaints": window.complaints,
        }


def _first_round(url: str, story: subprocess.Popen[bytes]) -> str | None:
    """Its id, once the story has opened it; None if the story ends before."""
    while story.poll() is None:
        try:
            for dao in httpx.get(f"{url}/api/v1/subdaos/").json()["results"]:
                rounds = httpx.get(f"{url}/api/v1/subdaos/{dao['slug']}/rounds/").json()["results"]
                if rounds:
                    return rounds[0]["id"]
        except (httpx.HTTPError, ValueError, KeyError):
            pass  # the site is not there yet
        try:
            story.wait(LOOK_S)
        except subprocess.TimeoutExpired:
            continue
    return None


@contextmanager
def running(home: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """The stack on what the story left: (its address, its environment)."""
    own = environment(home)
    up = subprocess.Popen(
        [sys.executable, "manage.py", "up"], cwd=ROOT, env=own, stdout=subprocess.PIPE, text=True
    )
    try:
        assert up.stdout is not None
        said = next(line for line in up.stdout if "running at" in line)
        yield re.findall(r"http://\S+", said)[0], own
    finally:
        up.send_signal(signal.SIGINT)
        up.communicate(timeout=60)


def needles_of(home: Path) -> Needles:
    """All that only its owner may know: rows, sums, updates, inputs, answers, in every unit."""
    sites, found = home / "demo" / "sites", Needles()
    about = json.loads((sites / "sites.json").read_text())
    steps = json.loads((home / "demo" / "state.json").read_text())["steps"]
    mean, std = training.constants(steps["normalisation"])

    def rows(slug: str, file: str) -> np.ndarray:
        features = np.array(rows_from_csv(sites / slug / file, about["columns"]))
        for number, row in enumerate(features):
            found.vector(f"{slug} row {number}", row)
        for number, row in enumerate(training.standardise(features, mean, std)):
            found.vector(f"{slug} standardised row {number}", row)
        return features

    for site in about["sites"]:
        features = rows(site["slug"], "rows.csv")
        found.vector(f"{site['slug']} sums", features.sum(axis=0))
        found.vector(f"{site['slug']} squares", (features**2).sum(axis=0))
        for line in (sites / site["slug"] / "journal.jsonl").read_text().splitlines():
            left = json.loads(line)
            if "own" in left:
                own = np.fromfile(sites / site["slug"] / "uploads" / left["own"], dtype="<i8")
                found.vector(f"{site['slug']} update", own / 2.0 ** left["f"])
    for buyer in about["buyers"]:
        slug = buyer["slug"]
        rows(slug, "patients.csv")
        answers = [value for step, value in steps.items() if step.startswith(f"query {slug} ")]
        assert len(answers) == 10
        for number, probability in enumerate(answers):
            found.number(f"{slug} answer {number}", probability)
            logit = round(np.log(probability / (1 - probability)) * 2**16) / 2**16
            assert abs(sigmoid(logit) - probability) < 1e-12
            found.number(f"{slug} logit {number}", logit)
    return found
