"""What the bench needs is there: nobody runs it between two measurements."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from apps.explorer.scale import addresses
from apps.protocol.circuits import CLASSES
from apps.protocol.rfm_spec import check_spec, subdao_params
from flai_site.bench import FIELDS, GROUPS, PARTS, epochs, growth, ledger, log, pages, rounds, soak
from workers.demo import request
from workers.mpc.bench import network_round

DOCS = Path(__file__).resolve().parents[2] / "docs"
SITES = {
    "label": "malignant",
    "positive": "1",
    "features": [{"name": "a"}, {"name": "b"}],
    "strata": {"column": "region", "values": ["north", "south"]},
}


def test_the_network_that_the_bench_sells_is_asked_for_as_one() -> None:
    asked = request.main_request(SITES, custodians=6, validators=3, network=True)
    params = subdao_params(check_spec(asked["spec"]))
    assert CLASSES[params["model_class"]].hidden and params["hidden"] == [64]
    assert params["training"]["kind"] == "secure_sgd"
    plain = request.main_request(SITES, custodians=6, validators=3)
    assert check_spec(plain["spec"])["interpretable"]


def test_the_soak_asks_for_many_rows_as_often_as_it_says() -> None:
    asked = [soak.rows_of(number) for number in range(1_000)]
    sizes = Counter("many" if 100 <= len(rows) <= 1_000 else len(rows) for rows in asked)
    assert sizes == {1: 980, "many": 16, 10_000: 4}
    wide = [rows for rows in asked if len(rows) >= 100]
    assert len(set(wide)) == len(wide) and all(set(rows) == set(range(soak.ROWS)) for rows in wide)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes at which a run measures nothing, and shows that everything it calls is there."""
    for module, sizes in {
        ledger: {"CLIENTS": 2, "SECONDS": 0.01, "SLICE_S": 0.01, "SLICES": 1, "BATCH": 4}
        | {"SAMPLES": 2, "GROWTH": (2, 4)},
        log: {"PROOFS": 2, "SIGNED": 3},
        epochs: {"HOLDERS": (40,), "CLAIMS": 2},
        pages: {"OBJECTS": 3, "SAMPLES": 1, "WARM_UP": 0},
    }.items():
        for name, size in sizes.items():
            assert hasattr(module, name)
            monkeypatch.setattr(module, name, size)


def workloads(lines: Iterable[dict[str, Any]]) -> set[str]:
    found = list(lines)
    assert all(set(FIELDS) <= set(line) for line in found)
    return {line["workload"] for line in found}


def test_the_ledgers_bench_finds_what_it_calls(transactional_db: None, small: None) -> None:
    bench = ledger.Bench()
    assert workloads(log.signatures()) == {"log_signed"}
    assert {"transfer_at_2", "log_at_4"} <= workloads(bench.growth(*ledger.GROWTH))
    assert workloads(bench.throughput()) == {
        *("transfer_spread", "transfer_hot", "transfer_settlement", "swap")
    }
    assert "transfer_settlement_without_log" in workloads(bench.log_share())
    assert "closing_40" in workloads(epochs.run())


def test_the_pages_bench_finds_what_it_calls(
    transactional_db: None, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        pages, "settle", lambda: None
    )  # the other tests want their garbage looked for
    monkeypatch.setattr(addresses, "pages", lambda plan: {"home": "/"})
    monkeypatch.setattr(addresses, "api", lambda plan: {"listings": "/api/v1/listings/"})
    monkeypatch.setattr(addresses, "api_own", lambda plan: {"inferences": "/api/v1/inferences/"})
    found = workloads(pages._measure())
    assert {"stranger: home", "member: inferences", "all"} <= found


def test_a_round_of_the_bench_ends_with_a_stored_model() -> None:
    small = network_round(4, features=30, units=(15, 6), classes=3, rows=40)
    lines = {line["metric"]: line for line in rounds.over_nodes("small", small, 1)}
    assert workloads(lines.values()) == {"small"}
    assert {"latency", *rounds.STAGES} <= set(lines)
    stages = sum(lines[stage]["value"] for stage in rounds.STAGES)
    assert stages == pytest.approx(lines["latency"]["value"], abs=0.1)
    rows = 40 * (30 + 3)  # of the validator, who sends more than a site's 582 numbers
    assert 8 * rows < lines["sent_per_site"]["value"] < 8 * rows + 4_000


@pytest.mark.parametrize("group", GROUPS | PARTS)
def test_every_group_is_a_module_that_runs(group: str) -> None:
    assert callable(import_module((GROUPS | PARTS)[group]).run)


def test_the_picture_of_growing_rounds_is_the_one_of_its_measurements() -> None:
    lines = [json.loads(line) for line in (DOCS / "growth.jsonl").read_text().splitlines()]
    assert growth.picture(lines) == (DOCS / "growth.svg").read_text()
    with pytest.raises(KeyError):
        growth.picture(lines[1:])
