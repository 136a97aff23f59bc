"""The whole story by one command: real processes, real nodes, and the numbers it promises."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

from flai_site.stack.services import embedded_services
from tests.support.corpora import everything_in, rows_of_every_table
from tests.support.needles import Needles, assert_clean

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_private_model_is_as_good_as_pooled_and_passes_its_gate(played: Any) -> None:
    facts, *_ = played
    assert abs(facts["auc_model"] - facts["auc_pooled"]) <= 0.01
    assert facts["auc_model"] >= 0.85
    assert set(facts["auc_by_region"]) == {"north", "centre", "south"}
    assert min(facts["auc_by_region"].values()) >= 0.85


@pytest.mark.slow
def test_the_bad_sites_are_found_by_phi_alone_and_get_nothing(played: Any) -> None:
    facts, _, home = played
    record = json.loads((home / "demo" / "sites-record.json").read_text())
    bad = {record["free_rider"], record["flipped"]}
    assert set(facts["flagged"]) == bad
    assert bad.isdisjoint(facts["paid_out_micro"])


@pytest.mark.slow
def test_the_revenue_is_divided_to_the_micro_unit(played: Any) -> None:
    facts, *_ = played
    assert facts["revenue_micro"] == facts["queries"] * facts["price_micro"] == 10_000_000
    paid = sum(facts["paid_out_micro"].values())
    assert paid + facts["treasury_micro"] == facts["revenue_micro"]
    assert facts["treasury_micro"] >= 1_200_000


@pytest.mark.slow
def test_answers_are_the_oracles_and_the_log_checks(played: Any) -> None:
    facts, out, _ = played
    assert facts["max_abs_prediction_error"] <= 0.01
    assert facts["log_verified"] is True
    assert facts["log_size"] > 100
    assert "✗" not in out


@pytest.mark.slow
def test_what_was_left_for_the_visitor_is_on_the_screen(played: Any) -> None:
    _, out, home = played
    assert "visitor@demo.example" in out
    assert "/proposals/" in out
    logins = home / "demo" / "logins.json"
    assert logins.stat().st_mode & 0o077 == 0
    assert "meridian-pharma" in json.loads(logins.read_text())


@pytest.mark.slow
def test_each_nodes_store_alone_holds_nothing_in_the_clear(played: Any, needles: Needles) -> None:
    _, _, home = played
    listing = json.loads((home / "demo" / "state.json").read_text())["steps"]["round"]
    for index in range(3):
        node = home / "nodes" / str(index)
        held = everything_in(node)
        assert listing.encode() in held  # it is the round's store, and decrypted
        assert_clean(needles, f"node {index}", held)
        for file in node.iterdir():
            if file.stat().st_size:
                assert_clean(needles, str(file), file.read_bytes())


@pytest.mark.slow
def test_the_database_holds_nothing_in_the_clear(played: Any, needles: Needles) -> None:
    facts, _, home = played
    with embedded_services(home) as (database_url, _):
        tables = rows_of_every_table(database_url)
    assert {"wallets_transfer", "training_round", "listings_query"} <= set(tables)
    assert b"logistic_infer@1" in tables["listings_query"] + tables["compute_job"]
    for name, content in tables.items():
        assert not needles.found_in(content), name
    assert_clean(needles, "all tables", b"\n".join(tables.values()))
    assert facts["queries"] == 20


@pytest.mark.slow
def test_the_logs_hold_nothing_in_the_clear(played: Any, needles: Needles) -> None:
    """Services' logs, and what the agents printed; Valkey keeps nothing on disk."""
    _, out, home = played
    logs = [*(home / "logs").iterdir(), *(home / "demo" / "logs").iterdir()]
    assert {"web.log", "worker.log", "node-0.log"} <= {log.name for log in logs}
    for log in logs:
        if log.stat().st_size:
            assert_clean(needles, log.name, log.read_bytes())
    assert_clean(needles, "the screen", out.encode())
    assert not [p for p in home.rglob("*") if p.suffix in (".rdb", ".aof")]


@pytest.mark.slow
def test_no_request_carries_anything_in_the_clear(played: Any, needles: Needles) -> None:
    """Of agents, buyers and the story to the site, and of the site to its nodes."""
    _, _, home = played
    bodies = [file.read_bytes() for file in (home.parent / "recorded").iterdir()]
    traffic = b"\n".join(bodies)
    for path in (
        rb"/rounds/[^/]+/shares/[^/]+/ 2",
        rb"/listings/[^/]+/inferences/ 2",
        rb"/jobs 200",
    ):
        assert re.search(path, traffic), path
    sent = {path.stem for path in (home / "demo" / "sites").glob("*/uploads/*.share")}
    assert len(sent) == 15
    assert all(share_id.encode() in traffic for share_id in sent)
    assert_clean(needles, "HTTP", traffic)


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module}
    return found


def test_the_story_imports_nothing_of_the_server() -> None:
    for path in (ROOT / "workers" / "demo").glob("*.py"):
        for name in imports(path):
            assert name.split(".")[0] not in ("django", "flai_site", "apps"), (path, name)


def test_the_client_imports_the_protocol_only() -> None:
    for path in (ROOT / "workers" / "client").glob("*.py"):
        for name in imports(path):
            assert name.split(".")[0] not in ("django", "flai_site"), (path, name)
            if name.split(".")[0] == "apps":
                assert name.split(".")[1] == "protocol", (path, name)


def test_the_story_never_opens_the_record_of_who_is_bad() -> None:
    for path in (ROOT / "workers" / "demo").glob("*.py"):
        if path.name == "sites.py":
            continue
        text = path.read_text()
        assert "free_rider" not in text, path
        assert "flipped" not in text, path
        assert text.count("sites-record") <= 1, path
