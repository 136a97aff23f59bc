"""Reading a model out without paying: bounded by each node's operator, counted, never hidden."""

import json
import subprocess
import time

import pytest

from tests.support.nodes import REPOSITORY, Buyer, NodeSet, node_command, trained_model

LIMITS = {"rows_per_epoch": 8, "rows_per_query": 3, "price_micro_min": 2}


@pytest.fixture
def nodes(tmp_path):
    nodes = NodeSet(tmp_path, LIMITS)
    nodes.start()
    yield nodes
    nodes.stop()


def unit_rows(count):
    """What reads a linear model out: 16·e_i."""
    return [[16.0 * (i == column) for column in range(2)] for i in range(count)]


def unpaid(nodes, model, rows, **changes):
    """A query as the server would make it: a fresh key that nobody knows, and no payment."""
    buyer = Buyer(nodes, model)
    query = buyer.query(unit_rows(rows), **({"price_micro": "2"} | changes))
    return query, buyer.job(query)


def codes(answers):
    return [a.status_code if a.status_code == 200 else a.json()["code"] for a in answers]


def answered(nodes, i):
    command = node_command(nodes.homes[i], "answered")
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_fresh_keys_get_no_more_rows_of_a_model_than_its_nodes_allow_a_day(nodes):
    model = trained_model(nodes)
    for rows, changes, code in (
        (1, {"price_micro": "1"}, "price_too_low"),
        (4, {}, "too_many_rows"),
    ):
        query, job = unpaid(nodes, model, rows, **changes)
        assert codes(nodes.ask(job, uploads=[query])) == [code] * 3

    day = time.strftime("%Y-%m-%d", time.gmtime())
    asked = [unpaid(nodes, model, 2) for _ in range(6)]  # 12 rows, all at once
    pending = [[nodes.begin(job, i, uploads=[q]) for i in range(3)] for q, job in asked]
    got = [codes([p.result() for p in each]) for each in pending]
    for i in range(3):
        assert sum(each[i] in (200, "peer_refused") for each in got) == 4, got
        assert sum(each[i] == "row_budget_spent" for each in got) == 2, got

    nodes.kill(0)
    nodes.start(0)
    query, job = unpaid(nodes, model, 1)
    answers = nodes.ask(job, uploads=[query])
    assert codes(answers) == ["row_budget_spent"] * 3
    refusal = answers[0].json()
    assert refusal["retryable"] is False and "0 more rows of this model until" in refusal["detail"]
    if day == time.strftime("%Y-%m-%d", time.gmtime()):
        assert answered(nodes, 0) == [{"model": model, "day": day, "rows": 8}]


def test_a_query_is_counted_once_whatever_its_attempts_and_its_company(nodes):
    model = trained_model(nodes)
    for _ in range(2):
        query, job = unpaid(nodes, model, 3)
        for attempt in (1, 2, 3):
            answers = nodes.ask(job | {"attempt": attempt}, uploads=[query])
            assert codes(answers) == [200] * 3, [a.text for a in answers]
    assert sum(line["rows"] for line in answered(nodes, 2)) == 6
    # within a bundle each query counts for itself: two rows are left
    asked = [unpaid(nodes, model, rows) for rows in (1, 4, 1, 1)]
    body = nodes.signed_bundle([(job, query) for query, job in asked])
    for answer in nodes.post_all("/bundles", body):
        said = [each.get("error", {}).get("code") for each in answer.json()["answers"]]
        assert said == [None, "too_many_rows", None, "row_budget_spent"]
    assert sum(line["rows"] for line in answered(nodes, 2)) == 8
