"""Who takes all of the site's machine finds nobody's row, update, answer or key to one: in
PostgreSQL's own files and write-ahead log, in the broker and what was sent to it, in any log."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
import redis

from apps.protocol import wire
from flai_site.stack.embedded import embedded
from tests.scenarios.test_marketplace_buying import account
from tests.support.needles import Needles, assert_clean
from tests.support.raw import log_of, tables_of, unpacked
from workers.client import training
from workers.client.buyer import Buyer, kept_name
from workers.client.home import Home

SLUG = "predict-malignant"
ROWS = 3
PLANTED = ("planted in a row", "planted in a long row", "planted in chunks", "planted, deleted")


@pytest.fixture(scope="module")
def all_needles(stack: Any, needles: Needles, tmp_path_factory: pytest.TempPathFactory) -> Needles:
    """Those of the story, and of a buyer whose key to the answer we have kept."""
    url, _ = stack
    home = Home(tmp_path_factory.mktemp("buyer"))
    home.connect(url=url, api_key=account(url, f"buyer-{secrets.token_hex(8)}"))
    money = {"asset": "USDC", "amount_micro": "1500000"}
    home.api().post("wallet/faucet/", money, idempotency_key="taken-nothing")
    buyer = Buyer(home, SLUG)
    mean, std = training.constants(buyer.listing["normalisation"])
    drawn = np.random.default_rng(secrets.randbits(64)).uniform(-1, 1, (ROWS, len(mean)))
    low, high = (
        np.array([float(f.get(end) or given) for f in buyer.listing["features"]])
        for end, given in (("min", -np.inf), ("max", np.inf))
    )
    rows = np.clip(mean + drawn * std, low, high)
    answers = buyer.predict(rows.tolist(), idempotency_key="kept")
    for number, row in enumerate(rows):
        needles.vector(f"bought row {number}", row)
        needles.vector(f"bought standardised row {number}", (row - mean) / std)
        needles.number(f"bought answer {number}", answers.probabilities[number])
        needles.number(f"bought logit {number}", answers.logits[number])
    kept = home.kept_query(kept_name("kept"))
    assert kept is not None
    needles.secret("reply key", bytes.fromhex(kept["reply_key"]))
    needles.secret("buyer's signing key", home.identity().private_bytes_raw())
    return needles


def test_the_search_finds_a_key_however_it_is_written() -> None:
    key, needles = secrets.token_bytes(32), Needles()
    needles.secret("key", key)
    for written in (
        key,
        key.hex().encode(),
        wire.b64(b"ab" + key).encode(),
        repr(key.hex()).encode(),
    ):
        assert needles.found_in(b"before " + written + b" after") == {"key"}
    assert not needles.found_in(secrets.token_bytes(100_000))


def planted(needles: Needles) -> dict[str, str]:
    """{name: text}: a short one, a compressed one, one so long that it is kept in chunks."""
    drawn = np.random.default_rng(secrets.randbits(64)).uniform(1, 99, (len(PLANTED), 4))
    texts = {}
    for name, values in zip(PLANTED, drawn, strict=True):
        needles.vector(name, values)
        texts[name] = json.dumps(values.tolist())
    texts[PLANTED[1]] += "compresses " * 800
    texts[PLANTED[2]] += "".join(secrets.token_hex(8) + " " * 16 for _ in range(2_000))
    return texts


@pytest.mark.slow
def test_the_databases_own_files_hold_nothing_in_the_clear(
    stack: Any, played: Any, all_needles: Needles
) -> None:
    postgres, _ = embedded(played[2])
    texts = planted(all_needles)
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = on")  # the log is written when it returns
        connection.execute("CREATE TABLE planted (name text, content text)")
        try:
            for item in texts.items():
                connection.execute("INSERT INTO planted VALUES (%s, %s)", item)
            connection.execute("DELETE FROM planted WHERE name = %s", [PLANTED[3]])
            parts = {"log": log_of(postgres.cluster)}
            connection.execute("CHECKPOINT")
            (own,) = connection.execute(
                "SELECT oid::int FROM pg_database WHERE datname = current_database()"
            ).fetchone() or (0,)
            parts["tables"] = tables_of(postgres.cluster, own)
        finally:
            connection.execute("DROP TABLE planted")
    for part, content in parts.items():
        found = all_needles.found_in(content) | all_needles.found_in(unpacked(content))
        assert found == set(PLANTED), part


@pytest.mark.slow
def test_the_broker_holds_nothing_in_the_clear(
    stack: Any, played: Any, all_needles: Needles
) -> None:
    """Its memory, written out whole, and every command that any process sent to it since the story
    began: Celery's messages, the cache, the wake-ups of pages."""
    _, valkey = embedded(played[2])
    client = redis.Redis.from_url(valkey.url)
    name, values = all_needles.example
    client.config_set("rdbcompression", "no")
    client.set("planted", json.dumps(values), ex=60)
    client.save()
    dump = valkey.sockets / "dump.rdb"
    try:
        assert all_needles.found_in(dump.read_bytes()) == {name}
        client.delete("planted")
        client.save()
        assert_clean(all_needles, "memory", dump.read_bytes())
    finally:
        dump.unlink()
        client.config_set("rdbcompression", "yes")
    sent = b"".join(p.read_bytes() for p in _recorded(played).glob("*.broker"))
    for message in (b"flai.sequence_log", b"LPUSH", b"rate:key:", b"PUBLISH"):
        assert message in sent, message
    assert_clean(all_needles, "what was sent to the broker", sent)


@pytest.mark.slow
def test_logs_and_traffic_hold_no_key_and_nothing_of_the_buyer(
    stack: Any, played: Any, all_needles: Needles
) -> None:
    """Of every process until now; traffic is theirs with each other, the story and the nodes."""
    home: Path = played[2]
    files = [p for folder in ("logs", "demo/logs") for p in (home / folder).iterdir()]
    files += _recorded(played).glob("*.http")
    assert {"postgres.log", "valkey.log", "worker.log", "node-2.log"} <= {p.name for p in files}
    for path in filter(lambda p: p.stat().st_size, files):
        assert_clean(all_needles, path.name, path.read_bytes())


def _recorded(played: Any) -> Path:
    return played[2].parent / "recorded"
