"""The control port: bad requests get a clear answer, the loop always answers, answers repeat."""

import json
import ssl
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from apps.protocol import identity
from tests.support.nodes import Buyer, Round, frame_of
from workers.mpc.keys import load, signing_key
from workers.mpc.tls import mutual_context
from workers.node.control import JOB_THREADS

OCTETS = {"content-type": "application/octet-stream"}


def test_health_and_descriptor(three_nodes):
    health = three_nodes.http.get(three_nodes.control[1] + "/health").json()
    assert health == {"status": "ok", "running": 0, "release": "0.1.0"}
    descriptor = three_nodes.http.get(three_nodes.control[1] + "/descriptor").json()
    assert descriptor == three_nodes.descriptors[1]


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "code"),
    [
        ("/shares", b"{}", OCTETS, 400, "malformed"),
        ("/shares", b"{}\n", OCTETS, 400, "malformed"),
        ("/shares", b"[]\n", OCTETS, 400, "malformed"),
        ("/shares", b"[\n", OCTETS, 400, "malformed"),
        (
            "/shares",
            b'{"ticket": NaN, "signature": 1}\n',
            OCTETS,
            400,
            "malformed",
        ),
        ("/shares", b'{"correction": ""}\n', OCTETS, 400, "malformed"),
        ("/shares", b"[" * 100_000 + b"\n", OCTETS, 400, "malformed"),
        ("/shares", b" " * 200_000 + b"{}\n", OCTETS, 400, "malformed"),
        ("/shares", b"\xff\xfe\n", OCTETS, 400, "malformed"),
        ("/shares", b"{}", {}, 415, "http"),
        ("/jobs", b"[", {}, 400, "malformed"),
        ("/jobs", b'{"a": NaN}', {}, 400, "malformed"),
        ("/jobs", b"[" * 100_000, {}, 400, "malformed"),
        ("/jobs", b"\xff\xfe", {}, 400, "malformed"),
        ("/jobs", b"{}", {"content-type": "text/plain"}, 415, "http"),
        ("/jobs", b'{"descriptor": {}, "signature": "", "x": 1}', {}, 400, "malformed"),
        ("/jobs", b'{"descriptor": 1.5, "signature": ""}', {}, 403, "bad_signature"),
        ("/jobs/zz/commit", b"{}", {}, 400, "malformed"),
        ("/jobs/" + "00" * 16 + "/commit", b'{"receipts": []}', {}, 409, "unknown_job"),
        ("/jobs/" + "00" * 16 + "/commit", b" " * 1_100_000, {}, 413, "http"),
        ("/nowhere", b"{}", {}, 404, "http"),
        ("/health", b"{}", {}, 405, "http"),
    ],
)
def test_bad_requests_get_a_clear_answer(three_nodes, path, body, headers, status, code):
    answer = three_nodes.http.post(
        three_nodes.control[0] + path,
        content=body,
        headers={"content-type": "application/json"} | headers,
    )
    assert answer.status_code == status, answer.text
    if code:
        assert answer.json()["code"] == code and answer.json()["detail"]
        assert answer.json()["retryable"] is False


def test_a_signed_job_of_a_wrong_form_is_malformed(three_nodes):
    for spoil in (
        {"attempt": 0},
        {"job_id": "x"},
        {"nodes": []},
        {"inputs": {}},
        {"inputs": {"update": "all"}},
        {"deadline_s": 10**9},
        {"roster": []},
        {"engine": "plain"},
        {"v": 2},
    ):
        job = Round(three_nodes).job() | spoil
        answers = three_nodes.ask(job)
        assert [a.status_code for a in answers] == [400] * 3, (spoil, answers[0].text)


@pytest.mark.parametrize("who", ["nobody", "a_stranger", "a_peer", "plain_http"])
def test_only_the_coordinator_reaches_the_control_port(three_nodes, who):
    """Not even another node, and not whoever has a certificate with the coordinator's name."""
    pinned = "".join(d["tls_cert"] for d in three_nodes.descriptors)
    url = three_nodes.control[0]
    if who == "plain_http":
        context = False
        url = url.replace("https", "http")
    elif who == "nobody":
        context = ssl.create_default_context(cadata=pinned)
        context.check_hostname = False
    else:
        key = (
            Ed25519PrivateKey.generate()
            if who == "a_stranger"
            else signing_key(load(three_nodes.homes[1] / "sign.key"))
        )
        certificate = identity.certificate_pem(key, identity.COORDINATOR)
        private = identity.private_pem(key)
        context = mutual_context(ssl.PROTOCOL_TLS_CLIENT, certificate, private, pinned)
    with pytest.raises(httpx.TransportError):
        httpx.get(url + "/health", verify=context)
    assert three_nodes.http.get(three_nodes.control[0] + "/health").status_code == 200


def test_whoever_answers_in_a_nodes_place_is_not_believed(three_nodes):
    """The coordinator's client takes only the certificate that it pins."""
    other = three_nodes.descriptors[1]["tls_cert"]
    key = identity.private_pem(three_nodes.coordinator)
    context = mutual_context(
        ssl.PROTOCOL_TLS_CLIENT, three_nodes.coordinator_cert, key, pinned=other
    )
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(three_nodes.control[0] + "/health", verify=context)


def test_a_body_without_end_is_cut_off(three_nodes):
    def endless():
        for _ in range(2000):
            yield b" " * 65536

    try:
        answer = httpx.post(
            three_nodes.control[0] + "/shares",
            content=endless(),
            headers=OCTETS,
            timeout=20,
            verify=three_nodes.tls(),
        )
    except httpx.TransportError:  # cut off while we were still sending
        pass
    else:
        assert answer.status_code == 413
    assert three_nodes.http.get(three_nodes.control[0] + "/health").status_code == 200


def test_the_same_upload_gets_the_same_acknowledgement(three_nodes):
    upload = Round(three_nodes).uploads["update"][0]
    first = three_nodes.post(0, "/shares", upload)
    assert first.status_code == 201
    assert three_nodes.post(0, "/shares", upload).json() == first.json()
    share = three_nodes.control[0] + "/shares/" + upload["ticket"]["share_id"]
    assert three_nodes.http.get(share).json() == first.json()
    unknown = three_nodes.http.get(share[:-32] + "00" * 16)
    assert unknown.status_code == 409 and unknown.json()["code"] == "unknown_share"
    assert three_nodes.http.get(share[:-1]).json()["code"] == "malformed"


def test_a_share_with_a_cut_or_foreign_correction_is_refused_and_nothing_is_stored(three_nodes):
    one, other = Round(three_nodes).uploads["update"][:2]
    share = three_nodes.control[0] + "/shares/" + one["ticket"]["share_id"]
    whole, mixed = frame_of(one), frame_of({**one, "correction": other["correction"]})
    cut, longer, foreign = (
        three_nodes.http.post(share[:-33], content=frame, headers=OCTETS)
        for frame in (whole[:-1], whole + b"x", mixed)
    )
    assert codes([cut, longer, foreign]) == ["malformed", "malformed", "bad_correction"]
    assert three_nodes.http.get(share).json()["code"] == "unknown_share"


def test_the_same_job_asked_twice_at_once_has_one_answer(three_nodes, model):
    buyer = Buyer(three_nodes, model)
    query = buyer.query([[0.1, 0.2]])
    job = buyer.job(query)
    pending = [three_nodes.begin(job, i, uploads=[query]) for i in (0, 0, 1, 1, 2, 2)]
    answers = [p.result() for p in pending]
    assert [a.status_code for a in answers] == [200] * 6
    assert [a.json() for a in answers[::2]] == [a.json() for a in answers[1::2]]
    assert three_nodes.state(0, job["job_id"])["answer"] == answers[0].json()


def test_the_loop_answers_while_a_job_waits(three_nodes, model):
    buyer = Buyer(three_nodes, model)
    query = buyer.query([[0.1, 0.2]])
    job = buyer.job(query, deadline_s=60)
    alone = three_nodes.begin(job, 0, uploads=[query])
    three_nodes.wait_for_state(0, job["job_id"], "running")
    assert three_nodes.http.get(three_nodes.control[0] + "/health").json()["running"] == 1
    three_nodes.ask(job, nodes=(1,), uploads=[{}])  # which refuses it
    assert alone.result().json()["code"] == "peer_refused"


def test_a_job_without_the_others_ends_at_its_deadline(three_nodes, model):
    buyer = Buyer(three_nodes, model)
    query = buyer.query([[0.1, 0.2]])
    [alone] = three_nodes.ask(buyer.job(query, deadline_s=1), nodes=(0,), uploads=[query])
    assert alone.json() == {
        "code": "deadline",
        "detail": alone.json()["detail"],
        "retryable": True,
    }


@pytest.mark.parametrize(
    ("slot", "shape", "changes", "code"),
    [
        ("update", [4], {}, "wrong_shape"),
        ("update", [1, 3], {}, "wrong_shape"),
        ("update", [3], {"f": 20}, "wrong_shape"),
        ("holdout", [23, 4], {}, "wrong_shape"),
        ("holdout", [24, 5], {}, "wrong_shape"),
        ("update", [3], {"params": {"features": 2}}, "bad_params"),
        (
            "update",
            [3],
            {
                "params": {
                    "features": 2,
                    "strata": 1,
                    "rows": [24],
                    "min_cell": 1,
                    "scoring": "taylor",
                }
            },
            "bad_params",
        ),
    ],
)
def test_a_share_that_no_job_could_take_is_refused_when_it_comes(
    three_nodes, slot, shape, changes, code
):
    r = Round(three_nodes)
    fields = r.fields(slot, **changes)
    upload = three_nodes.upload(r.custodians[0], np.zeros(shape), **fields)
    answers = three_nodes.post_all("/shares", upload)
    assert codes(answers) == [code] * 3
    assert not any(a.json()["retryable"] for a in answers)


def test_a_holdout_may_have_the_shape_of_any_validator(three_nodes):
    r = Round(three_nodes)
    fields = r.fields("holdout", params=r.params | {"rows": [24, 30, 36]})
    for rows, status in ((24, 201), (36, 201), (48, "wrong_shape")):
        upload = three_nodes.upload(r.validators[0], np.zeros([rows, 4]), **fields)
        answers = three_nodes.post_all("/shares", upload)
        assert codes(answers) == [status] * 3


def codes(answers):
    return [a.status_code if a.status_code < 300 else a.json()["code"] for a in answers]


def test_a_busy_node_tells_the_others_and_burns_no_attempt(three_nodes, model):
    buyer = Buyer(three_nodes, model)
    query = buyer.query([[0.1, 0.2]])
    job = buyer.job(query, deadline_s=60)
    alone = three_nodes.begin(job, 0, uploads=[query])
    three_nodes.wait_for_state(0, job["job_id"], "running")
    for attempt in range(2, 14):
        answers = three_nodes.ask(job | {"attempt": attempt}, uploads=[query])
        assert codes(answers) == ["busy", "peer_busy", "peer_busy"]
    assert three_nodes.state(0, job["job_id"])["state"] == "running"
    # the others have seen later attempts fail; what they say of the first ends it here too
    assert codes(three_nodes.ask(job, nodes=(1, 2))) == ["stale_attempt"] * 2
    assert alone.result().json()["code"] == "peer_refused"
    assert codes(three_nodes.ask(job | {"attempt": 14}, uploads=[query])) == [200] * 3


def test_a_node_without_room_tells_the_others_and_goes_on_with_what_it_has(three_nodes, model):
    buyer = Buyer(three_nodes, model)
    queries = [buyer.query([[0.1, 0.2]]) for _ in range(JOB_THREADS + 1)]
    *inside, late = [buyer.job(query, deadline_s=60) for query in queries]
    with ThreadPoolExecutor(JOB_THREADS) as threads:
        pending = [
            threads.submit(three_nodes.post, 0, "/jobs", three_nodes.signed(job, uploads=[query]))
            for job, query in zip(inside, queries)
        ]
        for job in inside:
            three_nodes.wait_for_state(0, job["job_id"], "running")
        answers = three_nodes.ask(late, uploads=[queries[-1]])
        assert codes(answers) == ["busy", "peer_busy", "peer_busy"]
        again = three_nodes.ask(inside[0], nodes=(0,), uploads=[queries[0]])
        forged = three_nodes.post(0, "/jobs", three_nodes.signed(late) | {"signature": "00"})
        assert codes([*again, forged]) == ["busy", "bad_signature"]
        assert three_nodes.state(0, inside[0]["job_id"])["state"] == "running"
        for job in inside:
            assert codes(three_nodes.ask(job, nodes=(1,), uploads=[{}])) == ["malformed"]
        assert codes([p.result() for p in pending]) == ["peer_refused"] * JOB_THREADS
    assert codes(three_nodes.ask(late | {"attempt": 2}, uploads=[queries[-1]])) == [200] * 3


def test_many_queries_at_once_are_all_right(three_nodes, model):
    buyer = Buyer(three_nodes, model)
    rows = [[[n / 10, -n / 20]] for n in range(12)]
    queries = [buyer.query(row) for row in rows]
    pending = [
        [three_nodes.begin(job, i, uploads=[q]) for i in range(3)]
        for q in queries
        for job in [buyer.job(q)]
    ]
    values = [
        buyer.open(query, [a.result() for a in answers])[0]
        for query, answers in zip(queries, pending)
    ]
    steps = np.diff(values)  # a linear model on evenly spaced rows
    assert abs(steps - steps[0]).max() < 0.001 and steps[0] > 0.1


def test_a_thousand_rows_come_back_in_order(three_nodes, model):
    buyer = Buyer(three_nodes, model)
    rows = [[n / 1000, 0.0] for n in range(1000)]
    query = buyer.query(rows)
    out = buyer.open(query, three_nodes.ask(buyer.job(query), uploads=[query]))
    assert out.shape == (1000,) and (out[100:] > out[:-100]).all()


def test_logs_are_json_lines_without_secrets(three_nodes, model):
    lines = three_nodes.logs().splitlines()
    assert lines and all({"at", "level", "message"} <= set(json.loads(line)) for line in lines)
