"""/metrics: the platform's numbers, for whoever may read them, in few queries."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from apps.compute import cosigning
from apps.core.clock import now
from apps.wallets import log
from tests.support.market import built, drain, founded
from tests.support.nodes import cosigned_anew
from workers.mpc.jsonlines import JsonLines


@pytest.fixture
def market(transactional_db, settings, tmp_path, three_nodes):
    return built(founded, three_nodes, settings, tmp_path)


def value(text: str, name: str) -> float:
    [line] = [line for line in text.splitlines() if line.startswith(name + " ")]
    return float(line.rpartition(" ")[2])


def read(client, **headers: str) -> str:
    answer = client.get("/metrics", headers=headers)
    assert answer.status_code == 200 and answer["Content-Type"].startswith("text/plain")
    return answer.content.decode()


def test_numbers_follow_a_round(market, client) -> None:
    held = market.whitelist()
    upload = market.upload(held, market.custodians[0], "sums", market.sums(0))
    market.begin(held, market.custodians[0], upload)
    text = read(client)
    assert value(text, 'flai_rounds_open{phase="moments"}') == 1
    assert value(text, 'flai_shares_open{state="receiving"}') == 1
    market.part(held, market.custodians[0], upload, 0, None)
    text = read(client)
    assert value(text, 'flai_shares_open{state="receiving"}') == 0
    assert value(text, 'flai_shares_open{state="received"}') == 1
    drain()
    text = read(client)
    assert value(text, 'flai_shares_open{state="received"}') == 0
    assert value(text, 'flai_jobs{state="done"}') == 0
    assert value(text, "flai_events_waiting") == 0
    for who in market.members:
        assert who.party.name not in text and who.party.pid not in text and who.public not in text


def test_how_far_each_node_lags_behind_the_log(market, client) -> None:
    cosigned_anew(market.nodes)
    size = value(read(client), "flai_log_size")
    assert size > 0 and value(read(client), 'flai_log_head_lag{node="0"}') == 0
    market.whitelist()
    assert value(read(client), "flai_log_unnumbered") > 0
    log.sequence(now=now())
    text = read(client)
    assert value(text, 'flai_log_head_lag{node="2"}') == value(text, "flai_log_size") - size > 0
    cosigning.collect()
    assert value(read(client), 'flai_log_head_lag{node="2"}') == 0


def test_it_costs_few_queries(market, client) -> None:
    with CaptureQueriesContext(connection) as queries:
        read(client)
    assert len(queries) <= 8


def test_only_this_machine_or_the_tokens_holder_reads_it(db, client, settings) -> None:
    assert client.get("/metrics").status_code == 200
    assert client.get("/metrics", REMOTE_ADDR="192.0.2.7").status_code == 404
    assert client.get("/metrics", headers={"X-Forwarded-For": "127.0.0.1"}).status_code == 404
    settings.BEHIND_PROXY = True
    assert client.get("/metrics").status_code == 404
    settings.METRICS_TOKEN = "s3cret"
    assert client.get("/metrics").status_code == 404
    assert client.get("/metrics", headers={"Authorization": "Bearer s3cre"}).status_code == 404
    read(client, Authorization="Bearer s3cret")
    assert client.post("/metrics").status_code == 405


def test_a_line_of_the_log_is_json_and_keeps_what_an_error_says_to_itself() -> None:
    secret = "0.7512"
    try:
        raise ValueError(secret)
    except ValueError:
        record = logging.getLogger("flai").makeRecord(
            "flai",
            logging.ERROR,
            "here",
            1,
            "failed %s",
            ("once",),
            sys.exc_info(),
            extra={"job": "ab", "phase": "commit"},
        )
    line = JsonLines().format(record)
    said = json.loads(line)
    assert said["message"] == "failed once" and said["error"] == "ValueError"
    assert (said["job"], said["phase"], said["level"]) == ("ab", "commit", "error")
    assert __file__ in said["where"] and secret not in line


def test_where_it_is_asked_for_the_servers_own_lines_are_json_too(settings) -> None:
    said = subprocess.run(
        [
            sys.executable,
            "-c",
            "import logging, uvicorn, django;"
            "uvicorn.Config('flai_site.asgi:application').configure_logging(); django.setup();"
            "[logging.getLogger(n).info('once') for n in ('uvicorn.access', 'uvicorn.error', 'x')]",
        ],
        env=os.environ | {"FLAI_LOG_JSON": "1", "DJANGO_SETTINGS_MODULE": "flai_site.settings"},
        cwd=settings.BASE_DIR,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stderr.splitlines()
    lines = [json.loads(line) for line in said]
    assert [line["logger"] for line in lines] == ["uvicorn.access", "uvicorn.error", "x"]
