"""A request's whole life through the REST API, as a program lives it."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.conf import settings
from rest_framework.test import APIClient

from apps.accounts.services import api_key_create, sign_up
from apps.compute.models import Node
from apps.core import clock
from apps.governance import executing
from apps.participants.handlers import subdao_founded
from apps.participants.models import Application
from apps.protocol import wire
from apps.rfms import services
from apps.subdaos.selectors import dao_by_slug
from tests.governance.helpers import MICRO, SPEC

pytestmark = pytest.mark.django_db
PERIOD_S = 600  # of votes: longer than a busy machine takes to cast them


class Member:
    """A party with its own API key and signing key."""

    def __init__(self, name: str) -> None:
        user, self.party = sign_up(
            email=f"{name}@example.org", password="correct horse battery", name=name, kind="person"
        )
        self.client = APIClient()
        self.client.credentials(
            HTTP_AUTHORIZATION=f"Bearer {api_key_create(user=user, party=self.party)[1]}"
        )
        self.key = Ed25519PrivateKey.generate()

    def get(self, path: str):
        return self.client.get(f"/api/v1/{path}")

    def post(self, path: str, body=None, key: str | None = None):
        return self.client.post(
            f"/api/v1/{path}", body or {}, HTTP_IDEMPOTENCY_KEY=key or str(uuid.uuid4())
        )

    def fund(self, asset: str, amount: int) -> None:
        body = {"asset": asset, "amount_micro": str(amount * MICRO)}
        assert self.post("wallet/faucet/", body).status_code == 201

    def apply(self, rfm: dict, role: str):
        content = {"pid": self.party.pid, "public_key": wire.public_hex(self.key)}
        signed = wire.sign(self.key, "flai/party-key/v1", content)
        body = {"public_key": content["public_key"], "signature": signed}
        assert self.client.put("/api/v1/me/signing-key/", body).status_code == 200
        attestation = {
            "v": 1,
            "rfm": rfm["slug"],
            "pid": self.party.pid,
            "role": role,
            "schema_hash": rfm["schema_hash"],
            "rows": 50,
            "columns": [feature["name"] for feature in rfm["spec"]["features"]],
            "missing_ppm": 0,
            "strata": {"north": 25, "south": 25},
            "dataset_commitment": "cd" * 32,
        }
        signature = wire.sign(self.key, "flai/attestation/v1", attestation)
        body = {"role": role, "attestation": attestation, "signature": signature}
        return self.post(f"rfms/{rfm['slug']}/applications/", body)


def draft(author: Member, **changes) -> dict:
    answer = author.post("rfms/", {"title": "Immunotherapy response", "spec": {**SPEC, **changes}})
    assert answer.status_code == 201, answer.data
    return answer.data


def test_from_draft_to_whitelist() -> None:
    author, staker, backer = Member("author"), Member("staker"), Member("backer")
    staker.fund("FLAI", 50)
    stake = {"asset": "FLAI", "amount_micro": str(50 * MICRO)}
    assert staker.post("wallet/stakes/", stake).status_code == 201
    rfm = draft(author, governance={"voting_period_s": PERIOD_S, "epoch_s": 10})
    assert (rfm["status"], rfm["slug"]) == ("draft", "immunotherapy-response")
    path = f"rfms/{rfm['slug']}/"
    assert backer.get(path).status_code == 404
    assert backer.get("rfms/").data["results"] == []
    assert backer.post(f"{path}submit/").status_code == 404
    rfm = author.post(f"{path}submit/").data
    assert rfm["status"] == "voting"
    assert backer.post(f"{path}submit/").status_code == 403

    vote_path = f"proposals/{rfm['proposal_id']}/"
    seen = staker.get(vote_path).data
    assert (seen["state"], seen["house"]) == ("active", "super")
    assert seen["my"]["weight"] == str(50 * MICRO)
    assert author.get(vote_path).data["my"]["weight"] == "0"
    assert "hold none" in author.get(vote_path).data["my"]["why"]
    refused = author.post(f"{vote_path}votes/", {"support": "for"})
    assert (refused.status_code, refused.data["code"]) == (403, "no_weight")
    assert staker.post(f"{vote_path}votes/", {"support": "perhaps"}).status_code == 400
    voted = staker.post(f"{vote_path}votes/", {"support": "for"})
    assert voted.status_code == 201
    assert voted.data["tally"]["for"] == str(50 * MICRO)
    assert voted.data["my"]["vote"] == "for"
    assert staker.post(f"{vote_path}votes/", {"support": "for"}).status_code == 201
    other = staker.post(f"{vote_path}votes/", {"support": "against"})
    assert (other.status_code, other.data["code"]) == (409, "already_voted")
    assert staker.post(f"{vote_path}execute/").data["code"] == "not_executable"
    executing.advance(proposal_id=rfm["proposal_id"], now=clock.now() + timedelta(seconds=PERIOD_S))

    rfm = author.get(path).data
    assert rfm["status"] == "funding"
    assert rfm["waits_for"] == ["3 more custodians", "1 more validator"]
    people = [Member(name) for name in ("one", "two", "three", "judge")]
    for who, role in zip(people, ["custodian"] * 3 + ["validator"], strict=True):
        filed = who.apply(rfm, role)
        assert (filed.status_code, filed.data["status"]) == (201, "verified"), filed.data
    assert len(backer.get(f"{path}applications/").data["results"]) == 4

    pledge = {"amount_micro": str(2_000 * MICRO)}
    short = backer.post(f"{path}pledges/", pledge)
    assert (short.status_code, short.data["code"]) == (402, "insufficient_balance")
    backer.fund("USDC", 2_000)
    key = str(uuid.uuid4())
    first, again = (backer.post(f"{path}pledges/", pledge, key) for _ in range(2))
    assert first.status_code == 201
    assert first.data == again.data
    assert first.data["amount_micro"] == str(1_000 * MICRO)
    other = backer.post(f"{path}pledges/", {"amount_micro": "1"}, key)
    assert (other.status_code, other.data["code"]) == (409, "idempotency_conflict")
    services.award_if_ready(rfm_id=services.Rfm.objects.get().id, now=clock.now())

    rfm = author.get(path).data
    assert (rfm["status"], rfm["subdao"]) == ("awarded", rfm["slug"])
    dao = backer.get(f"subdaos/{rfm['subdao']}/").data
    assert dao["treasury_micro"] == str(1_000 * MICRO)
    assert dao["sdt"] == {"code": f"SDT-{rfm['slug']}", "supply_micro": str(10**12)}
    assert [row["weight_bps"] for row in dao["sbgt"]] == [2_500] * 4
    assert backer.get(f"subdaos/{rfm['subdao']}/epochs/").data["results"] == []

    payload = {"dao_id": str(dao_by_slug(rfm["subdao"]).id)}
    subdao_founded(payload, event_id=uuid.uuid4(), now=clock.now())
    (row,) = backer.get(f"proposals/?dao={rfm['subdao']}&state=active").data["results"]
    for who in people:
        cast = who.post(f"proposals/{row['id']}/votes/", {"support": "for"})
        assert cast.status_code == 201
    executing.advance(proposal_id=row["id"], now=clock.now() + timedelta(seconds=PERIOD_S))
    assert backer.get(f"proposals/{row['id']}/").data["state"] == "executed"
    assert {one.status for one in Application.objects.all()} == {"whitelisted"}

    price = {
        "dao": rfm["subdao"],
        "kind": "subdaos.set_price",
        "payload": {"price_micro": "400000"},
        "title": "A lower price",
    }
    made = backer.post("proposals/", price)
    assert made.status_code == 201, made.data
    assert made.data["changes"][0]["after"] == "400000"
    assert people[0].post("proposals/", price).data["code"] == "no_weight"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("post", "rfms/", {"title": "x", "spec": {}}, 422, "bad_spec"),
        ("post", "rfms/", {"title": "x"}, 400, "invalid"),
        ("get", "rfms/?status=odd", None, 400, "bad_status"),
        ("get", "rfms/none/", None, 404, "rfm_not_found"),
        ("post", "rfms/none/pledges/", {"amount_micro": "1"}, 404, "rfm_not_found"),
        ("get", "subdaos/none/", None, 404, "subdao_not_found"),
        ("get", "proposals/?state=odd", None, 400, "bad_state"),
        ("get", f"proposals/{uuid.UUID(int=0)}/", None, 404, "proposal_not_found"),
        ("post", f"proposals/{uuid.UUID(int=0)}/votes/", {"support": "for"}, 404,
         "proposal_not_found"),
        ("post", "proposals/", {"dao": "superdao", "kind": "x.y", "payload": {}, "title": "x"},
         400, "unknown_action"),
    ],
)  # fmt: skip
def test_errors_are_problem_details(method, path, body, status, code) -> None:
    who = Member("visitor")
    answer = who.get(path) if method == "get" else who.post(path, body)
    assert (answer.status_code, answer.data["code"]) == (status, code), answer.data


def test_reading_needs_no_account_and_writing_does() -> None:
    visitor = APIClient()
    for path in ("rfms/", "subdaos/", "subdaos/superdao/", "proposals/"):
        assert visitor.get(f"/api/v1/{path}").status_code == 200
    assert visitor.post("/api/v1/rfms/", {"title": "x", "spec": {}}).status_code in (401, 403)
    assert visitor.post(f"/api/v1/proposals/{uuid.uuid4()}/votes/", {}).status_code in (401, 403)


def test_a_pledge_needs_an_idempotency_key_and_a_bad_spec_names_its_field() -> None:
    who = Member("author")
    rfm = draft(who)
    answer = who.client.post(f"/api/v1/rfms/{rfm['slug']}/pledges/", {"amount_micro": "1"})
    assert (answer.status_code, answer.data["code"]) == (400, "idempotency_key_required")
    body = {"title": "x", "spec": {**SPEC, "price_micro": "0"}}
    answer = who.post("rfms/", body)
    assert answer.data["field"] == "price_micro"
    assert answer.data["detail"].startswith("price_micro: ")
    most = settings.ROWS_PER_EPOCH // 2 * 30
    plan = {"name": "pro", "rows": most + 1, "days": 30, "off_bps": 500}
    answer = who.post("rfms/", {"title": "x", "spec": {**SPEC, "terms": {"plans": [plan]}}})
    assert (answer.status_code, answer.data["field"]) == (422, "terms.plans")
    assert f"one buyer gets {most} of a model in 30 days at most" in answer.data["detail"]


def test_more_nodes_than_are_registered_can_not_be_asked_for() -> None:
    who = Member("author")
    five = {**SPEC["governance"], "engine": "shamir", "n": 5, "t": 2}
    body = {"title": "Wide", "spec": {**SPEC, "governance": five}}
    answer = who.post("rfms/", body)
    assert (answer.status_code, answer.data["field"]) == (422, "governance.n")
    assert "5 nodes are asked for, and 0 are registered here." in answer.data["detail"]
    for index in range(5):
        Node.objects.create(
            index=index, name=f"n{index}", fingerprint=f"{index:064x}", descriptor={}, active=True
        )
    answer = who.post("rfms/", body)
    assert answer.status_code == 201, answer.data
    assert {**five, **answer.data["spec"]["governance"]} == answer.data["spec"]["governance"]
    narrow = {**SPEC, "governance": {**five, "n": 4}}
    answer = who.post("rfms/", {"title": "Narrow", "spec": narrow})
    assert answer.data["detail"] == "governance.n: shamir_t2 takes 5 nodes, not 4."


def test_no_request_is_for_more_nodes_than_its_engine_takes() -> None:
    """All that are registered hold a share; of Shamir shares one curious node allows five."""
    who = Member("author")
    rules = {**SPEC["governance"], "engine": "shamir"}
    answer = who.post("rfms/", {"title": "x", "spec": {**SPEC, "governance": {**rules, "n": 6}}})
    assert answer.data["detail"] == "governance.n: shamir_t1 takes 5 nodes at most, not 6."
    for index in range(6):
        Node.objects.create(
            index=index, name=f"n{index}", fingerprint=f"{index:064x}", descriptor={}, active=True
        )
    answer = who.post("rfms/", {"title": "x", "spec": {**SPEC, "governance": rules}})
    assert (answer.status_code, answer.data["field"]) == (422, "governance.engine")
    assert "shamir_t1 takes 5 nodes at most, and 6 are registered" in answer.data["detail"]
    two = {**rules, "n": 6, "t": 2}
    answer = who.post("rfms/", {"title": "x", "spec": {**SPEC, "governance": two}})
    assert answer.status_code == 201, answer.data


def test_a_draft_can_be_written_anew_and_a_title_used_twice() -> None:
    who = Member("author")
    first, second = draft(who), draft(who)
    assert first["slug"] != second["slug"]
    assert len(second["slug"]) <= 36
    body = {"title": "Another title", "spec": {**SPEC, "price_micro": "7"}}
    answer = who.client.put(f"/api/v1/rfms/{first['slug']}/", body)
    assert answer.status_code == 200
    assert (answer.data["title"], answer.data["spec"]["price_micro"]) == ("Another title", "7")
    assert answer.data["spec_hash"] != first["spec_hash"]
    who.post(f"rfms/{first['slug']}/submit/")
    refused = who.client.put(f"/api/v1/rfms/{first['slug']}/", body)
    assert (refused.status_code, refused.data["code"]) == (403, "already_submitted")


def test_writing_and_submitting_again_change_nothing() -> None:
    who, body = Member("author"), {"title": "Twice", "spec": SPEC}
    first, again = who.post("rfms/", body, "k1"), who.post("rfms/", body, "k1")
    assert (first.status_code, again.json()) == (201, first.json())
    other = who.post("rfms/", body | {"title": "Other"}, "k1")
    assert (other.status_code, other.data["code"]) == (409, "idempotency_conflict")
    assert who.client.post("/api/v1/rfms/", body).status_code == 201  # the header is optional
    path = f"rfms/{first.data['slug']}/submit/"
    sent, resent = who.post(path), who.post(path)
    assert (sent.status_code, resent.status_code) == (200, 200)
    assert sent.data["proposal_id"] == resent.data["proposal_id"]
