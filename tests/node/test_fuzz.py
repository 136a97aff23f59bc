"""Garbage in valid places: every answer is a refusal with a code, and the node lives on.

FLAI_EXAMPLES=90 plays each with 90 seeds, which takes some ten minutes.
"""

import copy
import random
import time

import pytest

from apps.protocol import heads, jobs, refreshes, sharing, tickets, wire
from tests.support.examples import examples
from tests.support.nodes import Buyer, Round, RowsRound

JUNK = [
    None, True, False, 0, -1, 1, 2**53, -(2**53), 10**30, "", "x", "00" * 16, "ff" * 32, "é\0",
    "A" * 5000, [], [[]], {}, {"": None}, ["00" * 32] * 3, [0] * 50, {"words": {}}, 1e308, 0.5,
]  # fmt: skip


def places(content, path=()):
    """Every path into a JSON value."""
    yield path
    if isinstance(content, dict):
        for key in content:
            yield from places(content[key], (*path, key))
    elif isinstance(content, list):
        for index in range(len(content)):
            yield from places(content[index], (*path, index))


def spoil(content, rng):
    """A copy with one thing replaced, removed, doubled or added."""
    content = copy.deepcopy(content)
    path = rng.choice([p for p in places(content) if p])
    holder = content
    for step in path[:-1]:
        holder = holder[step]
    how = rng.randrange(4)
    if how == 0 and isinstance(holder, dict):
        del holder[path[-1]]
    elif how == 1 and isinstance(holder, list):
        holder.append(copy.deepcopy(holder[path[-1]]))
    elif how == 2 and isinstance(holder, dict):
        holder[rng.choice(["", "x", "v", "__class__"])] = rng.choice(JUNK)
    else:
        holder[path[-1]] = copy.deepcopy(rng.choice(JUNK))
    return content


def sign_again(upload, key):
    """Signed by its owner, so that the content behind the signature is reached too."""
    try:
        signature = wire.sign(key, tickets.TICKET_DOMAIN, upload["ticket"])
    except (ValueError, KeyError):
        return upload
    return upload | {"signature": signature}


def refused(answer):
    return answer.status_code in (400, 403, 409) and {"code", "detail", "retryable"} <= set(
        answer.json()
    )


@pytest.mark.parametrize("seed", range(examples(3)))
def test_spoilt_uploads(three_nodes, model, seed):
    rng = random.Random(seed)
    r = Round(three_nodes)
    buyer = Buyer(three_nodes, model)
    sources = [(r.uploads["update"][0], r.custodians[0]), (buyer.query([[1.0, 2.0]]), buyer.key)]
    for _ in range(120):
        upload, key = rng.choice(sources)
        bad = spoil(upload, rng)
        if rng.random() < 0.7 and isinstance(bad.get("ticket"), dict):
            bad = sign_again(bad, key)
        answer = three_nodes.post(0, "/shares", bad)
        assert refused(answer) or answer.status_code == 201, (answer.status_code, answer.text)


@pytest.mark.parametrize("seed", range(examples(3)))
def test_spoilt_jobs(three_nodes, model, seed):
    rng = random.Random(seed)
    r = Round(three_nodes).put()
    buyer = Buyer(three_nodes, model)
    query = buyer.query([[1.0, 2.0]])
    for _ in range(80):
        asked = [(r.job(deadline_s=1), []), (buyer.job(query, deadline_s=1), [query])]
        job, uploads = rng.choice(asked)
        bad = spoil(job, rng)
        if bad.get("deadline_s") != 1:
            continue
        try:
            answers = three_nodes.ask(bad, uploads=uploads)
        except (ValueError, TypeError):
            continue  # has no canonical form: cannot even be signed
        for answer in answers:
            late = {"peer_refused", "peer_lost", "deadline"}  # one second isn't much for three
            fine = answer.status_code == 200 or answer.json()["code"] in late
            assert refused(answer) or fine, (bad, answer.text)


@pytest.mark.parametrize("seed", range(examples(3)))
def test_spoilt_drops(three_nodes, seed):
    """Only the whole, signed word about this very share drops it."""
    rng = random.Random(seed)
    upload = Round(three_nodes).uploads["update"][0]
    three_nodes.put(upload)
    share_id = upload["ticket"]["share_id"]
    body = {"v": 1, "share_id": share_id, "ticket_id": tickets.ticket_id(upload["ticket"])}

    def drop(body):
        signature = wire.sign(three_nodes.coordinator, jobs.DROP_DOMAIN, body)
        content = {"drop": body, "signature": signature}
        return three_nodes.post(0, f"/shares/{share_id}/drop", content)

    for _ in range(60):
        bad = spoil(body, rng)
        try:
            answer = drop(bad)
        except (ValueError, TypeError):
            continue  # has no canonical form: cannot even be signed
        assert refused(answer) or answer.json() == {"dropped": bad == body}, (bad, answer.text)
        three_nodes.put(upload)
    assert drop(body).json() == {"dropped": True}


@pytest.mark.parametrize("seed", range(examples(1)))
def test_spoilt_requests_elsewhere(three_nodes, model, seed):
    """Bundles, commits, withdrawals, refreshes and heads: spoilt as they come, or before they are
    signed. Nothing that was there is lost by any of them."""
    rng = random.Random(seed)
    r, rows, buyer = (
        Round(three_nodes).put(),
        RowsRound(three_nodes).put(),
        Buyer(three_nodes, model),
    )
    job, query, share = r.job(), buyer.query([[1.0, 2.0]]), rows.uploads["rows"][0]
    answers = three_nodes.ask(job)
    refresh = refreshes.refresh_of(
        id_="ab" * 16, after=0, nodes=three_nodes.fingerprints, members=[0, 1, 2], deadline_s=1
    )
    share_id, log = share["ticket"]["share_id"], rows.custodians[0]
    named = {"share_id": share_id, "ticket_id": tickets.ticket_id(share["ticket"])}
    withdrawal = sharing.withdrawal_of(**named, at=int(time.time()))

    def bundle(descriptor):
        assert descriptor["deadline_s"] == 1
        assert descriptor.get("job_id") != "00" * 16  # a job like any, that uses the query up
        return three_nodes.signed_bundle([(descriptor, query)])

    def withdrawn(body):
        assert body.get("at") == withdrawal["at"]  # another time is as good a word
        signature = wire.sign(rows.custodians[0], sharing.WITHDRAWAL_DOMAIN, body)
        return {"ticket": share["ticket"], "withdrawal": body, "signature": signature}

    def refreshed(body):
        signature = wire.sign(three_nodes.coordinator, refreshes.REFRESH_DOMAIN, body)
        return {"refresh": body, "signature": signature}

    def head(body):
        signed = body | {"signature": wire.sign(log, heads.HEAD_DOMAIN, body)}
        return {"log": wire.public_hex(log), "head": signed, "path": []}

    def commit(receipts):
        return {"receipts": receipts}

    receipts = [{k: a.json()[k] for k in ("receipt", "signature")} for a in answers]
    ways = [
        ("/bundles", bundle, buyer.job(query, deadline_s=1)),
        (f"/jobs/{job['job_id']}/commit", commit, receipts),
        (f"/shares/{share_id}/withdraw", withdrawn, withdrawal),
        ("/refresh", refreshed, refresh),
        ("/log/head", head, heads.head_content(1, "cd" * 32, 1)),
    ]
    committed = False
    for turn in range(300):
        path, make, content = ways[turn % len(ways)]
        try:
            good = rng.choice((content, make(content)))
            bad = spoil(good, rng)
            body = make(bad) if good is content else bad
        except (ValueError, TypeError, KeyError, AssertionError):
            continue  # has no canonical form: cannot even be signed
        if bad == good:
            continue  # true for 1, say
        answer = three_nodes.post(0, path, body)
        told = answer.json()
        if path == "/bundles" and answer.status_code == 200:  # each by itself
            assert all(list(one) == ["error"] for one in told["answers"]), (body, told)
        elif path == "/log/head" and answer.status_code == 200:
            assert body["head"]["signature"] and told["size"] == body["head"]["size"]
        elif path.endswith("commit") and answer.status_code == 200:
            # what stands beside them is not read
            committed = (
                committed
                or [{k: one[k] for k in receipts[0]} for one in body["receipts"]] == receipts
            )
            assert committed, body
        else:  # one that could begin waits for the others in vain
            assert refused(answer) or answer.status_code == 503, (body, told)
    assert three_nodes.http.get(f"{three_nodes.control[0]}/shares/{share_id}").status_code == 200
    assert [c.json().get("committed") for c in three_nodes.commit(answers)] == [True] * 3
    again = buyer.job(query, attempt=2)
    answers = three_nodes.ask(again, uploads=[query])
    assert [a.status_code for a in answers] == [200] * 3, [a.text for a in answers]


def test_the_nodes_still_work(three_nodes, model):
    buyer = Buyer(three_nodes, model)
    query = buyer.query([[0.5, -1.0]])
    answers = three_nodes.ask(buyer.job(query), uploads=[query])
    assert abs(buyer.open(query, answers)[0] - 2.0) < 0.3
    assert "unexpected error" not in three_nodes.logs()
