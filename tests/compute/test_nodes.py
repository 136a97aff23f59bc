"""The node set, its operators, and receipts that do not fit."""

from __future__ import annotations

import copy
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from apps.compute import control, services
from apps.compute.models import Node
from apps.compute.selectors import members, node_set
from apps.core.clock import now
from apps.core.errors import DomainError
from apps.protocol import jobs, wire
from tests.support.nodes import Round as NodesRound


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
    for spoil in (_other_opening, _other_word, _forged, _other_inputs):
        spoilt = copy.deepcopy(answers)
        wanted = spoil(spoilt, list(ids))
        with pytest.raises(control.Final):
            checked = [
                control._answer(a.member, {**a.signed, "openings": a.openings, "sealed": a.sealed})
                for a in spoilt
            ]
            control._check_answers(checked, job, sorted(wanted))


def test_a_node_that_is_away_is_retryable(market) -> None:
    reach = members(node_set())
    lost = [control.Member(m.name, m.fingerprint, m.sign_key, "http://127.0.0.1:9") for m in reach]
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


def _other_inputs(answers, ids):
    return ["00" * 32, *ids[1:]]
