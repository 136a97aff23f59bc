"""The record of a round: a stranger checks it against the log's key alone, and finds each lie."""

from __future__ import annotations

import copy
import csv
import io
import json
import re
from collections.abc import Iterator
from typing import Any

from django.test import Client

from apps.core.clock import now
from apps.protocol.wire import unb64
from apps.training.deadlines import rounds_go_on
from apps.training.models import Round
from apps.wallets import log
from tests.support.market import drain
from workers.client.cli import main
from workers.client.record import check_record, unchecked

KEY_OF_ANOTHER = "ab" * 32


def record_of(held: Round) -> dict[str, Any]:
    answer = Client().get(f"/api/v1/rounds/{held.id}/record/")
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def test_a_record_is_checked_by_the_logs_key_alone_and_each_lie_in_it_is_found(
    market: Any, tmp_path: Any, capsys: Any
) -> None:
    held = market.train()
    log.sequence(now=now())
    record, key = record_of(held), log.public_key()
    assert check_record(record, key) == [] == check_record(record)
    assert len(record["members"]) == len(held.roster["members"])
    kinds = [json.loads(_data(entry))["type"] for entry in record["log"]["entries"]]
    assert kinds.count("training.share_received") == len(record["shares"])
    assert {"training.round_opened", "training.normalised", "training.round_done"} <= set(kinds)

    def bent(change: Any) -> str:
        forged = copy.deepcopy(record)
        change(forged)
        return " ".join(check_record(forged, key))

    scored = next(at for at, m in enumerate(record["members"]) if m["phi_milli"] is not None)
    entry = next(e for e in record["log"]["entries"] if "round_done" in str(_data(e)))
    at = record["log"]["entries"].index(entry)
    lies = [
        (lambda r: r["members"][scored].update(phi_milli=1001), "φ is not"),
        (lambda r: r["members"][scored].update(left_phase="updates"), "left out"),
        (lambda r: r["members"].pop(), "members are not"),
        (lambda r: r["evidence"].update(auc_milli=999), "evidence is not"),
        (lambda r: r["evidence"]["gates"][0].update(met=False), "A gate is not met"),
        (lambda r: r["receipts"][0]["receipt"].update(at=1), "not signed by its node"),
        (lambda r: r.update(shares=[]), "is left out"),
        (lambda r: [s.update(state="refused", reason="no") for s in r["shares"]], "computed with"),
        (_keys_swapped, "another ticket"),
        (lambda r: r["round"].update(scoring="shapley"), "scoring are not"),
        (lambda r: r["log"]["entries"].reverse() or r.update(version=77), "version is not"),
        (lambda r: r["openings"].update(auc_milli=1000), "What was opened"),
        (lambda r: r["receipts"][0].update(signature="00"), "receipts"),
        (lambda r: r["round"]["roster"]["members"].reverse(), "sorted"),
        (lambda r: r["round"].update(roster_hash="00" * 32), "roster"),
        (lambda r: r["shares"][0].update(ticket_id="00" * 32), "is not in the log"),
        (lambda r: r["log"]["entries"].pop(at), "does not say once"),
        (lambda r: r["log"]["entries"][at]["path"].reverse(), "not in the log with this head"),
        (lambda r: r["log"]["head"].update(size=r["log"]["head"]["size"] + 1), "signed"),
        (lambda r: r["log"].update(key=KEY_OF_ANOTHER), "another key"),
        (lambda r: r.pop("round"), "wrong form"),
        (lambda r: r["log"].update(entries=None), "wrong form"),
    ]
    for change, said in lies:
        found = bent(change)
        assert found and said in found, (said, found)
    assert_each_change_is_found(record, key)

    kept = tmp_path / "round.json"
    kept.write_text(json.dumps(record))
    assert main(["record", str(kept), "--key", key]) == 0
    assert main(["record", str(kept), "--key", KEY_OF_ANOTHER]) == 1
    assert main(["record", str(tmp_path / "nothing")]) == 1
    told = capsys.readouterr().out
    assert "✓" in told and all(each.text in told for each in unchecked(record))

    rows = list(csv.DictReader(io.StringIO(_csv(held))))
    assert [row["pid"] for row in rows] == [m["pid"] for m in record["members"]]
    assert {row["phi_milli"] for row in rows} >= {"1000", ""}
    assert {row["log_hash"] for row in rows} == {entry["hash"]}


def test_a_round_that_goes_on_or_failed_has_its_record_too(market: Any) -> None:
    market.whitelist()
    held = Round.objects.get()
    log.sequence(now=now())
    assert check_record(record_of(held)) == []
    assert rounds_go_on(now=held.expires_at) == 1
    drain()
    log.sequence(now=now())
    record = record_of(held)
    assert record["round"]["phase"] == "failed" and check_record(record) == []
    assert check_record(record | {"round": record["round"] | {"phase": "done"}})


def assert_each_change_is_found(record: dict[str, Any], key: str) -> None:
    """Each value changed, each list and object one shorter: found, or stated as not checked."""
    open_, missed, seen = unchecked(record), [], 0
    for path, forged in _changed(record):
        seen += 1
        stated = any(re.fullmatch(each.path, path) for each in open_)
        if not stated and not check_record(forged, key):
            missed.append(path)
    assert missed == [] and seen > 400
    assert check_record(record, key) == []


def _changed(record: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(path, the record with another value there), the value being put back afterwards."""

    def walk(parent: Any, name: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
        value = parent[name]
        if isinstance(value, dict | list) and value:
            inside = value.items() if isinstance(value, dict) else enumerate(value)
            # what stands in a ticket, an entry or a node is alike: the first two of each
            few = name in ("entries", "shares", "nodes", "path")
            for each, _ in list(inside)[: 2 if few else None]:
                yield from walk(value, each, f"{path}.{each}")
            last = len(value) - 1 if isinstance(value, list) else list(value)[-1]
            parent[name] = {k: value[k] for k in value if k != last} if isinstance(
                value, dict
            ) else value[:-1]  # fmt: skip
        elif isinstance(value, str):
            parent[name] = value[:-1] + ("0" if value[-1:] != "0" else "1")
        elif isinstance(value, bool):
            parent[name] = not value
        else:
            parent[name] = 7 if value is None else value + 1 if isinstance(value, int) else [7]
        yield path, record
        parent[name] = value

    for name in list(record):
        yield from walk(record, name, name)


def _keys_swapped(record: dict[str, Any]) -> None:
    """Two members with each other's key and name."""
    one, other = [m for m in record["members"] if m["role"] == "custodian"][:2]
    for name in ("key", "name"):
        one[name], other[name] = other[name], one[name]


def test_the_record_of_a_void_round_is_what_its_nodes_signed(market: Any) -> None:
    for site in market.custodians[1:]:
        site.weights = -3 * site.weights
    held = market.train()
    log.sequence(now=now())
    record, key = record_of(held), log.public_key()
    assert record["round"]["phase"] == "void" and check_record(record, key) == []
    forged = copy.deepcopy(record)
    forged["openings"]["copies"] = [[0, 1]]
    assert "opened other evidence" in " ".join(check_record(forged, key))
    assert_each_change_is_found(record, key)


def _data(entry: dict[str, Any]) -> bytes:
    return unb64(entry["leaf_b64"])


def _csv(held: Round) -> str:
    answer = Client().get(f"/api/v1/rounds/{held.id}/scores.csv")
    assert answer["Content-Type"].startswith("text/csv")
    return answer.content.decode()
