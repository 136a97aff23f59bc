"""A model of several classes in the page: a row by form and rows by file, through real nodes."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

from apps.accounts.services import sign_up
from apps.core import clock
from apps.listings.models import Query
from apps.protocol.circuits import CLASSES
from apps.wallets.services import faucet
from tests.explorer.test_many_rows import choose
from tests.explorer.test_try_it import EMAIL, fill
from tests.explorer.world import PASSWORD
from tests.support.browser import misfits
from tests.support.market import SPEC, drain_until, on_sale
from tests.training.test_model_classes import LABELS, Classes
from workers.client import training

ROWS = [[0.5, -1.0], [-1.5, 0.75]]


class OfGrades(Classes):
    spec = SPEC | {
        "model_class": "multinomial",
        "label": LABELS["multinomial"],
        "gates": [{"metric": "accuracy", "min_milli": 500, "per_stratum": True}],
    }
    extras = {"classes": 3}


def test_each_class_gets_its_probability(
    transactional_db: None,
    settings: Any,
    tmp_path: Path,
    three_nodes: Any,
    site: str,
    visit: Any,
    sign_in: Any,
) -> None:
    market = OfGrades(three_nodes, settings, tmp_path)
    on_sale(market)
    z = training.standardise(np.array(ROWS), *training.constants(market.held.normalisation))
    scores = market.oracle(market.held, z).reshape(2, 3)
    expected = CLASSES["multinomial"].answer(scores)
    _, party = sign_up(email=EMAIL, password=PASSWORD, name="Asker", kind="person")
    faucet(party=party, asset="USDC", amount_micro=2_000_000, now=clock.now())
    visitor = visit()
    sign_in(visitor, EMAIL)
    page = visitor.page
    page.goto(f"/models/{market.listing.slug}/")
    fill(page, ROWS[0])
    page.get_by_role("button", name="Pay $0.50 and predict").click()
    drain_until(lambda: Query.objects.filter(state="settled").exists())
    answer = page.locator("#try-answer")
    answer.wait_for()
    names = LABELS["multinomial"]["classes"]
    assert answer.locator(".probability").inner_text() == names[int(expected[0].argmax())]
    shown = answer.locator("tbody tr").all_inner_texts()
    assert [line.split()[0] for line in shown] == names
    said = [float(line.split()[1]) for line in shown]
    assert np.max(np.abs(np.array(said) - 100 * expected[0])) < 1
    assert misfits(page) == []

    choose(page, "\n".join(["a,b", *(f"{a},{b}" for a, b in ROWS)]))
    page.get_by_role("button", name="Pay $1.00 and predict 2 rows").click()
    drain_until(lambda: Query.objects.filter(state="settled").count() == 2)
    with page.expect_download() as download:
        page.get_by_role("link", name="Save the answers (CSV)").click()
    download.value.save_as(tmp_path / "answers.csv")
    with (tmp_path / "answers.csv").open() as file:
        found = [[float(r[f"probability_{n}"]) for n in names] for r in csv.DictReader(file)]
    assert np.max(np.abs(np.array(found) - expected)) < 0.01
    assert visitor.complaints == []
