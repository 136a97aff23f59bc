"""What sealing a row and opening its answer take in a browser, with the page's own modules.

Chromium on this machine, driven by playwright; without them there are no such lines.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from statistics import median
from typing import Any

from apps.protocol.circuits import INFERS
from apps.protocol.targets import reading_of

QUERIES = 20
WARM_UP = 3
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

_ASK = """
async ([listing, reading, key, count]) => {
  const { makeQuery, openAnswer } = await import("/static/js/mpc/buyer.js");
  const row = listing.features.map(() => 0);
  const took = [];
  for (let n = 0; n < count; n++) {
    const began = performance.now();
    const asked = await makeQuery(listing, reading, row);
    const sealed = performance.now();
    const answer = await fetch(`/api/v1/listings/${listing.slug}/inferences/`, {
      method: "POST",
      credentials: "omit",
      headers: {
        "Content-Type": "application/json",
        Authorization: `Bearer ${key}`,
        "Idempotency-Key": crypto.randomUUID(),
        Prefer: "wait=20",
      },
      body: JSON.stringify({ input: asked.upload }),
    });
    const query = await answer.json();
    const ended = performance.now();
    await openAnswer(query, asked);
    took.push([sealed - began, performance.now() - ended]);
  }
  return took;
}
"""


def run(url: str, listing: dict[str, Any], api_key: str) -> Iterator[dict[str, Any]]:
    """Medians of paid queries of this listing from a page of the site at `url`."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        program = None
    if program is None:
        print("No Chromium and playwright: no lines of a browser.", file=sys.stderr)
        return
    reading = reading_of(*INFERS[listing["circuit"]], listing)
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=program, args=flags)
        try:
            page = browser.new_page()
            page.goto(url)
            took = page.evaluate(_ASK, [listing, reading, api_key, WARM_UP + QUERIES])[WARM_UP:]
        finally:
            browser.close()
    for name, parts in {
        "seal": [seal for seal, _ in took],
        "open": [opened for _, opened in took],
        "both": [seal + opened for seal, opened in took],
    }.items():
        yield {
            "workload": f"browser/{name}",
            "engine": "ring",
            "metric": "p50",
            "value": round(median(parts), 1),
            "unit": "ms",
        }
