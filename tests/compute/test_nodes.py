"""The node set, its operators, and receipts that do not fit."""

from __future__ import annotations

import copy
import json
import sqlite3
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from apps.compute import control, services
from apps.compute.models import Node
from apps.compute.selectors import members, node_set
from apps.core.clock import now
from apps.core.errors import DomainError
from apps.core.models import OutboxEvent
from apps.protocol import jobs, tickets, uploads, wire
from apps.wallets.models import LogLeaf
from tests.support.nodes import Buyer, fixed, succeeded
from tests.support.nodes import Round as NodesRound
from workers.mpc import commitments, keys


def test_a_node_is_claimed_by_its_own_key_once(market) -> None:
    node = Node.objects.get(index=0)
    claim = {"pid": market.buyer.party.pid, "node": node.fingerprint}
    stranger = wire.sign(Ed25519PrivateKey.generate(), jobs.NODE_CLAIM_DOMAIN, claim)
    with pytest.raises(DomainError, match="bad_signature"):
        services.node_claim(
            fingerprint=node.fingerprint, party=market.buyer.party, signature=stranger, now=now()
        )
    own = Ed25519PrivateKey.generate()
    Node.objects.filter(pk=node.pk).update(
        descriptor=node.descriptor | {"sign_key": wire.public_hex(own)}
    )
    signature = wire.sign(own, jobs.NODE_CLAIM_DOMAIN, claim)

    def mine():
        return services.node_claim(
            fingerprint=node.fingerprint, party=market.buyer.party, signature=signature, now=now()
        )

    assert mine().operator == market.buyer.party
    mine()
    theirs = wire.sign(own, jobs.NODE_CLAIM_DOMAIN, claim | {"pid": market.backer.party.pid})
    with pytest.raises(DomainError, match="already_claimed"):
        services.node_claim(
            fingerprint=node.fingerprint, party=market.backer.party, signature=theirs, now=now()
        )


def test_a_descriptor_with_a_certificate_of_another_key_is_not_taken_over(market, settings) -> None:
    published = json.loads(settings.NODES_FILE.read_text())
    key = keys.signing_key(keys.load(market.nodes.homes[1] / "sign.key"))
    for certificate in (published["nodes"][0]["tls_cert"], "-"):
        body = published["nodes"][1] | {"tls_cert": certificate}
        del body["signature"]
        published["nodes"][1] = body | {"signature": wire.sign(key, jobs.NODE_DOMAIN, body)}
        settings.NODES_FILE.write_text(json.dumps(published))
        with pytest.raises(DomainError, match="bad_node_descriptor"):
            services.nodes_sync()


def test_a_successor_is_taken_over_and_its_predecessors_rounds_with_it(market, settings) -> None:
    old, published = market.nodes.fingerprints, succeeded(market.nodes, 1, by=(0, 2))
    (signed,) = published[1]["succeeds"]
    settings.NODES_FILE.write_text(json.dumps({"nodes": published}))
    services.nodes_sync()
    services.nodes_sync()
    event = OutboxEvent.objects.get(name="compute.NodesSucceeded")
    now_ = [node.fingerprint for node in node_set()]
    assert event.payload == {"old": list(old), "new": now_}
    assert now_[1] == signed["statement"]["new"]
    leaf = LogLeaf.objects.get(type="compute.node_succeeded")
    assert json.loads(bytes(leaf.data))["body"] == signed


def test_a_descriptor_that_is_not_signed_by_its_node_is_not_taken_over(market, settings) -> None:
    published = json.loads(settings.NODES_FILE.read_text())
    published["nodes"][1]["name"] = "somebody else"
    settings.NODES_FILE.write_text(json.dumps(published))
    with pytest.raises(DomainError, match="bad_node_descriptor"):
        services.nodes_sync()
    assert [n.name for n in node_set()] == ["node-0", "node-1", "node-2"]


def test_answers_are_believed_only_when_signed_and_equal(market) -> None:
    made = NodesRound(market.nodes).put()
    job = made.job()
    ids = [
        wire.digest("flai/ticket/v1", upload["ticket"])
        for listed in made.uploads.values()
        for upload in listed
    ]
    reach = members(node_set())
    answers = control.run_job(reach, job, ticket_ids=ids)
    assert len(answers) == 3
    assert control.run_job(reach, job, ticket_ids=ids)[0].receipt == answers[0].receipt
    for spoil in (_other_opening, _other_word, _forged, _other_inputs, _other_seal):
        spoilt = copy.deepcopy(answers)
        wanted = spoil(spoilt, list(ids))
        with pytest.raises(control.Final):
            checked = [
                control._answer(a.member, {**a.signed, "openings": a.openings, "sealed": a.sealed})
                for a in spoilt
            ]
            control._check_answers(checked, job, sorted(wanted))


def held(nodes, upload):
    """Per node: (used by a job, has words) of the stored share, or None."""
    share_id, content = upload["ticket"]["share_id"], []
    for home in nodes.homes:
        db = sqlite3.connect(home / "store.sqlite")
        content.append(
            db.execute(
                "SELECT used_by IS NOT NULL, words IS NOT NULL FROM shares WHERE share_id = ?",
                (share_id,),
            ).fetchone()
        )
        db.close()
    return content


def test_a_share_that_some_nodes_refuse_stays_at_none(market, monkeypatch) -> None:
    """A client's wrong commitment to one word: its two holders refuse, the third cannot know."""
    made = NodesRound(market.nodes)
    good, key, reach = made.uploads["update"][0], made.custodians[0], members(node_set())
    commit = commitments.commit
    with monkeypatch.context() as patch:
        patch.setattr(commitments, "commit", lambda **k: commit(**k) if k["j"] else "00" * 32)
        bad = market.nodes.upload(key, fixed([1.0, 2.0, 3.0]), **made.fields("update"))
    assert _accepting(market.nodes, bad) == 1
    with pytest.raises(control.Final, match="Word 0 is not the one"):
        hand(reach, bad)
    assert held(market.nodes, bad) == [None] * 3

    hand(reach, good)
    ticket = good["ticket"] | {"expires_at": good["ticket"]["expires_at"] - 1}
    signature = wire.sign(key, tickets.TICKET_DOMAIN, ticket)
    other = good | {"ticket": ticket, "signature": signature}
    with pytest.raises(control.Final, match="Another share"):
        hand(reach, other)
    assert held(market.nodes, good) == [(0, 1)] * 3


def hand(reach, upload):
    ticket_id = tickets.ticket_id(upload["ticket"])
    parts = [wire.unb64(upload["correction"])]
    return control.put_share(reach, uploads.head_of(upload), parts, ticket_id=ticket_id)


def _accepting(nodes, upload):
    return [a.status_code for a in nodes.post_all("/shares", upload)].count(201)


def test_the_words_of_a_query_that_one_node_refuses_stay_at_none(market, model) -> None:
    buyer = Buyer(market.nodes, model)
    query = buyer.query([[0.5, -1.0]])
    others = query["envelopes"][1:]
    bad = query | {"envelopes": [others[0], *others]}
    assert _accepting(market.nodes, query) == 0
    ticket_id = tickets.ticket_id(query["ticket"])
    with pytest.raises(control.Final, match="node-0: A sealed part"):
        control.run_job(members(node_set()), buyer.job(bad), ticket_ids=[ticket_id], uploads=[bad])
    assert held(market.nodes, bad) == [None, (1, 0), (1, 0)]


def test_a_bundle_in_another_releases_form_is_for_later(market, monkeypatch) -> None:
    """Nodes that are upgraded one by one cost no buyer an answer."""
    encode = control._encode
    monkeypatch.setattr(control, "_encode", lambda body: encode(body | {"signatures": []}))
    asked = control.Asked(NodesRound(market.nodes).job(), "", {})
    with pytest.raises(control.Retryable) as later:
        control.run_bundle(members(node_set()), [asked])
    assert later.value.code == "malformed"


def test_a_node_that_is_away_is_retryable(market) -> None:
    reach = members(node_set())
    lost = [replace(m, url="https://127.0.0.1:9") for m in reach]
    job = NodesRound(market.nodes).job()
    with pytest.raises(control.Retryable, match="does not answer"):
        control.run_job(lost, job, ticket_ids=[])
    assert control.health([reach[0], lost[0]]) == [True, False]


def test_health_and_claims_are_on_the_api(market, client) -> None:
    rows = client.get("/api/v1/nodes/").json()["results"]
    assert [row["healthy"] for row in rows] == [True, True, True]
    assert client.get("/api/v1/jobs/unknown/").status_code == 404


def _other_opening(answers, ids):
    answers[1].openings["phi_milli"][0] += 1
    return ids


def _other_word(answers, ids):
    word = next(iter(answers[0].receipt["result"]))
    answers[0].receipt["result"][word] = "00" * 32
    return ids


def _forged(answers, ids):
    answers[2].receipt["at"] += 1
    return ids


def _other_seal(answers, ids):
    answers[0] = replace(answers[0], sealed="AAAA")
    return ids


def _other_inputs(answers, ids):
    return ["00" * 32, *ids[1:]]
