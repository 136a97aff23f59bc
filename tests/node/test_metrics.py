"""What a node shows of itself: right counts, on this machine only, and nothing of anybody."""

import json
import re
import socket

import httpx
import pytest

from apps.protocol import wire
from tests.support.nodes import Buyer, Round, counted, fixed
from workers.mpc import keys

COMPUTED = 'flai_node_jobs_total{circuit="logistic_infer@1",end="computed"}'
REFUSED = 'flai_node_jobs_total{circuit="logistic_infer@1",end="refused"}'
EXPIRED = 'flai_node_refused_total{code="expired"}'


def phase(name, circuit="logistic_infer@1"):
    return f'flai_node_phase_seconds_count{{circuit="{circuit}",phase="{name}"}}'


def test_jobs_phases_rounds_and_refusals_are_counted(three_nodes, model):
    before = three_nodes.metrics(1)
    buyer = Buyer(three_nodes, model)
    query = buyer.query([[0.1, 0.2]])
    assert all(a.status_code == 200 for a in three_nodes.ask(buyer.job(query), uploads=[query]))
    late = buyer.query([[0.1, 0.2]], issued_at=1_000_000_000, expires_at=1_000_000_100)
    three_nodes.ask(buyer.job(late), uploads=[late])
    after = three_nodes.metrics(1)

    def more(name):
        return counted(after, name) - counted(before, name)

    assert (more(COMPUTED), more(REFUSED), more(EXPIRED)) == (1, 1, 1)
    assert (more(phase("admit")), more(phase("compute")), more(phase("keep"))) == (2, 1, 1)
    assert more('flai_node_rounds_total{circuit="logistic_infer@1"}') == 11
    assert more('flai_node_sent_bytes_total{circuit="logistic_infer@1"}') > 100
    assert more("flai_node_shares_total") == 0  # a query's share comes with it
    three_nodes.put(Round(three_nodes).uploads["update"][0])
    assert counted(three_nodes.metrics(1), "flai_node_shares_total") == 1 + counted(
        before, "flai_node_shares_total"
    )
    assert counted(after, "flai_node_peers_up") == 2 and counted(after, "flai_node_running") == 0
    assert counted(after, "flai_node_store_bytes") > 10_000
    assert counted(after, "process_resident_memory_bytes") > 1e6


def test_the_head_that_was_signed_last_is_shown(three_nodes):
    text = three_nodes.metrics(0)
    head = three_nodes.http.get(three_nodes.control[0] + "/log/head").json()
    assert counted(text, "flai_node_head_size") == head["size"]
    assert (counted(text, "flai_node_head_seconds") > 0) == (head["size"] > 0)


def test_a_name_from_outside_never_becomes_a_label(three_nodes):
    job = Round(three_nodes).put().job() | {"circuit": "leaked_name@1"}
    assert three_nodes.ask(job, nodes=[0])[0].status_code == 403
    text = three_nodes.metrics(0)
    assert "leaked_name" not in text
    assert counted(text, 'flai_node_jobs_total{circuit="unknown",end="refused"}') >= 1


def test_metrics_are_for_this_machine_alone(three_nodes):
    """Another of this machine's own addresses is already outside."""
    port = three_nodes.metrics_ports[0]
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as other:
        other.settimeout(5)
        assert other.connect_ex(("127.0.0.2", port)) != 0
    with pytest.raises(httpx.TransportError):
        httpx.get(f"https://127.0.0.1:{port}/metrics")


def test_logs_and_metrics_of_a_full_run_hold_no_share_input_key_or_name(three_nodes):
    r = Round(three_nodes).put()
    answers = three_nodes.ask(r.job())
    model = three_nodes.commit(answers)[0].json()["model"]
    buyer = Buyer(three_nodes, model)
    row = [[0.7512, -1.2534]]
    query = buyer.query(row)
    prediction = buyer.open(query, three_nodes.ask(buyer.job(query), uploads=[query]))
    three_nodes.ask(buyer.job(query, attempt=2), uploads=[{}])  # and of a refusal
    logs = three_nodes.logs()
    metrics = "".join(three_nodes.metrics(i) for i in range(3))
    jobs = [json.loads(line) for line in logs.splitlines() if '"job"' in line]
    phases = {line["phase"] for line in jobs}
    assert phases == {"admission", "computation", "commit"}

    numbers = [f"{value:.4f}" for value in [*row[0], *r.weights[0], *prediction]]
    secret = []
    for values in (fixed(row), fixed(r.weights[0]), fixed(r.holdout)):
        for word in values.reshape(-1):
            if abs(int(word)) > 2**16:
                numbers.append(str(abs(word)))
                secret.append(int(word).to_bytes(8, "little", signed=True).hex())
    for home in three_nodes.homes:
        for name in ("sign.key", "hpke.key", "store.key"):
            key = keys.load(home / name)
            secret += [key.hex(), wire.b64(key)]
    uploads = [*r.uploads["update"], *r.uploads["holdout"], query]
    owners = [upload["ticket"]["sender"] for upload in uploads]
    owners += [upload["ticket"]["share_id"] for upload in uploads]
    sealed = [part[:40] for upload in uploads for part in upload["envelopes"]]
    sealed += [upload["correction"][:20] for upload in uploads]
    for text in (*secret, *sealed, query["ticket"]["reply_key"]):
        assert text not in logs and text not in metrics
    # clocks, ids and what a metric counts hold numbers of six digits too, by chance one of these
    told = [{**json.loads(line), "at": 0, "ms": 0} for line in logs.splitlines()]
    told = re.sub(r"[0-9a-f]{16,}", "", json.dumps(told))
    labels = "".join(line.rpartition(" ")[0] for line in metrics.splitlines())
    for text in numbers:
        assert text not in told and text not in labels
    ids = [r.id, model, *three_nodes.fingerprints, *(line["job"] for line in jobs)]
    for text in (*owners, *ids):
        assert text not in metrics
    for text in owners:
        assert text not in logs
