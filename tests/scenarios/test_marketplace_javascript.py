"""The JavaScript of a listing runs as it is written, where it says, and answers as the SDK does."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.scenarios.test_marketplace_buying import account
from tests.support.foreign import foreign_page
from workers.client.api import Api
from workers.client.buyer import Buyer
from workers.client.home import Home

SLUG = "predict-malignant"
PRICE = 500_000
IMPORT = re.compile(r'from "http[^"]+"')
TOLD = "({ answers: [...answers], queries: answers.queries, paid: answers.priceMicro })"
NODE = shutil.which("node")
Run = Callable[[str, str, str, Path], dict[str, Any]]


def in_a_page(script: str, key: str, url: str, path: Path, *, window: Any) -> dict[str, Any]:
    """A page of another origin, whose visitor types the key in when asked."""
    page = window().page
    page.on("dialog", lambda dialog: dialog.accept(key))
    script = script.replace("console.log(answers", f"globalThis.told = {TOLD}; console.log(answers")
    with foreign_page(script) as address:
        page.goto(address)
        told: dict[str, Any] = page.wait_for_function("globalThis.told").json_value()
    page.close()
    return told


def in_node(script: str, key: str, url: str, path: Path, *, window: Any) -> dict[str, Any]:
    """Node.js, with the package that the site serves where npm puts it."""
    page = httpx.get(f"{url}/models/{SLUG}/").text
    package = re.findall(r"npm install (\S+?\.tgz)", page)[0]
    installed = path / "node_modules" / "flai-client-js"
    with tarfile.open(fileobj=io.BytesIO(httpx.get(package).content)) as archive:
        archive.extractall(path / "npm")
    installed.parent.mkdir()
    (path / "npm" / "package").rename(installed)
    script = IMPORT.sub('from "flai-client-js"', script)
    script = script.replace("console.log(answers", f"console.log(JSON.stringify({TOLD}")
    (path / "buy.mjs").write_text(script.replace(', "paid", Number(answers.priceMicro) / 1e6', ")"))
    done = subprocess.run(
        [str(NODE), "buy.mjs"],
        cwd=path,
        env={"FLAI_API_KEY": key},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "trusted from now on, on the site's word" in done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


# Node.js is not everywhere where these tests run; Chromium is.
PLACES: list[Any] = [in_a_page, *([in_node] if NODE else [])]


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_the_listings_javascript_buys_as_it_is_written(
    stack: Any, window: Any, tmp_path: Path, place: Any
) -> None:
    url, _ = stack
    reader = window().page
    reader.goto(f"{url}/models/{SLUG}/")
    script = reader.locator("#call-javascript").inner_text()
    key = account(url, place.__name__.replace("_", "-"))
    api = Api(url, key)
    money = {"asset": "USDC", "amount_micro": str(2 * PRICE)}
    api.post("wallet/faucet/", money, idempotency_key=place.__name__)

    told = place(script, key, url, tmp_path, window=window)

    home = Home(tmp_path / "sdk")
    home.connect(url=url, api_key=key)
    buyer = Buyer(home, SLUG)
    given = dict(re.findall(r'"([^"]+)": (-?[\d.e-]+),', script))
    sdk = buyer.predict([[float(given[name]) for name in buyer.columns]])
    assert told["answers"] == [
        {
            "probability": pytest.approx(sdk.probabilities[0], abs=1e-3),
            "logit": pytest.approx(sdk.logits[0], abs=2e-3),
        }
    ]
    assert told["paid"] == str(PRICE)
    (mine,) = told["queries"]
    assert mine in {row["id"] for row in api.get("inferences/")["results"]}
    wallet = api.get("wallet/")["accounts"]
    assert [a["posted_micro"] for a in wallet if a["purpose"] == "main"] == ["0"]
