"""The server as a forger of answers.

It hands on what the nodes sealed, or parts of its own making. The buyer's client, with the nodes
pinned, opens only what each of them signed for: for this ticket, its model and nothing else. Or it
shows one buyer other constants than the model's, and the nodes refuse the row.
"""

from __future__ import annotations

import copy
import json
import uuid
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from apps.protocol import jobs, wire
from apps.protocol.circuits import query_hash
from apps.protocol.circuits.family import NORMALISATION
from apps.protocol.jobs import check_node
from apps.protocol.normalise import constants_digest
from apps.protocol.tickets import VERIFIED, ticket_id
from tests.support import vectors
from tests.support.nodes import NodeSet, trained_model
from workers.client.api import Api, ClientError
from workers.client.buyer import Buyer
from workers.client.home import Home
from workers.mpc import hpke, keys, sealing
from workers.mpc.replicated import held_by

ROW = [[0.5, -1.0]]
FORGED_LOGIT = 9.0
CONSTANTS = {"f": 20, "mean": [0, 0], "std": [1 << 20, 1 << 20]}


class Site:
    """A server with real nodes behind it; `bend(upload, answer)` is what it does to an answer."""

    def __init__(self, nodes: NodeSet, model: str) -> None:
        self.nodes, self.model, self.normalisation = nodes, model, CONSTANTS
        self.engine = "ring"
        self.bend: Any = lambda upload, answer: answer
        self.asked: dict[str, Any] = {}

    def answer(self, request: httpx.Request) -> httpx.Response:
        match request.method, request.url.path.removeprefix("/api/v1/").split("/")[:-1]:
            case "GET", ["listings", _]:
                return httpx.Response(200, json=self.listing())
            case "POST", ["listings", _, "inferences"]:
                upload = json.loads(request.content)["input"]
                query = self.compute(upload)
                self.asked[query["id"]] = self.bend(upload, query)
                return httpx.Response(202, json={"id": query["id"], "state": "held"})
            case "GET", ["inferences", query_id]:
                return httpx.Response(200, json=self.asked[query_id])
        raise AssertionError(request.url)

    def listing(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "price_micro": "1",
            "resolution": "logit",
            "features": [{"name": "a"}, {"name": "b"}],
            "normalisation": self.normalisation,
            "nodes": self.nodes.descriptors,
            "circuit": "logistic_infer@1",
            "circuits_hash": query_hash("logistic_infer@1", {"features": 2}),
            "engine": self.engine,
        }

    def compute(self, upload: dict[str, Any]) -> dict[str, Any]:
        ticket = upload["ticket"]
        inputs = {"row": [ticket["share_id"]]}
        named = {"model": ticket["model"], "engine": self.engine}
        job = self.nodes.job("logistic_infer@1", ticket["scope"], inputs, **named)
        answers = [a.json() for a in self.nodes.ask(job, uploads=[upload])]
        return {
            "id": str(uuid.uuid4()),
            "state": "settled",
            "price_micro": ticket["price_micro"],
            "sealed": [
                {"fingerprint": fingerprint, "blob": answer["sealed"]}
                for fingerprint, answer in zip(self.nodes.fingerprints, answers)
            ],
            "job": {
                "descriptor": job,
                "receipts": [{k: a[k] for k in ("receipt", "signature")} for a in answers],
            },
        }


@pytest.fixture(scope="module")
def model(three_nodes: NodeSet) -> str:
    """As every round's models, it names its normalisation."""
    return trained_model(three_nodes, params={NORMALISATION: constants_digest(CONSTANTS)})


@pytest.fixture
def site(three_nodes: NodeSet, model: str) -> Site:
    return Site(three_nodes, model)


@pytest.fixture
def buyer(site: Site, tmp_path: Path) -> Buyer:
    return buyer_of(site, tmp_path)


def buyer_of(site: Site, tmp_path: Path) -> Buyer:
    home = Home(tmp_path / "buyer")
    home.pin_nodes(site.nodes.fingerprints)
    return Buyer(home, "x", api=Api("http://flai", transport=httpx.MockTransport(site.answer)))


def forge(
    nodes: NodeSet, upload: dict[str, Any], query: dict[str, Any], *, only: Any = (0, 1, 2)
) -> dict[str, Any]:
    """Parts that say the server's own number, under a secret that it knows of these nodes."""
    forged, ticket = copy.deepcopy(query), upload["ticket"]
    words = [np.array([w], dtype=np.uint64) for w in (7, 11, round(FORGED_LOGIT * 2**16) - 18)]
    for i in only:
        blob = sealing.seal_output(
            {j: words[j] for j in held_by(i)},
            f=16,
            job_id=query["job"]["descriptor"]["job_id"],
            secret=secret_of(nodes, ticket, i),
            reply_key=ticket["reply_key"],
        )
        forged["sealed"][i]["blob"] = wire.b64(blob)
    return forged


def secret_of(nodes: NodeSet, ticket: dict[str, Any], i: int) -> bytes:
    """A node's secret, by its stolen key: nobody else has it but the buyer."""
    stolen = keys.hpke_key(keys.load(nodes.homes[i] / "hpke.key"))
    info = sealing.SEAL_CONTEXT + bytes.fromhex(ticket_id(ticket) + nodes.fingerprints[i])
    return hpke.recipient(bytes.fromhex(ticket["reply_key"]), stolen, info).export(
        sealing.REPLY_CONTEXT
    )


def refused(buyer: Buyer, code: str = "not_receipted") -> None:
    with pytest.raises(ClientError, match="can't be trusted") as caught:
        buyer.predict(ROW)
    assert caught.value.code == code
    assert buyer.home.journal.last("answered") is None


def test_what_the_nodes_sealed_is_opened(buyer: Buyer) -> None:
    assert len(buyer.predict(ROW).logits) == 1


def test_a_buyer_that_demands_verified_mode_signs_for_nothing_else(
    buyer: Buyer, tmp_path: Path
) -> None:
    five = vectors.descriptors(5)
    home = Home(tmp_path / "demanding")
    home.pin_nodes([check_node(node) for node in five])
    demanding = Buyer(home, "x", api=buyer.api, verified=True)
    demanding.listing |= {"nodes": five}
    with pytest.raises(ClientError, match="Nothing was sent") as caught:
        demanding.predict(ROW)
    assert caught.value.code == "verified_only"
    demanding.listing |= {"engine": VERIFIED}
    assert demanding.make_query(ROW)[0]["ticket"]["engine"] == VERIFIED
    assert buyer.make_query(ROW)[0]["ticket"]["engine"] == "ring"


def test_a_model_in_shamir_shares_is_asked_by_such_and_the_nodes_hold_the_server_to_it(
    three_nodes: NodeSet, tmp_path: Path
) -> None:
    shared = trained_model(
        three_nodes,
        engine="shamir_t1",
        custodians=4,
        rows=12,
        params={NORMALISATION: constants_digest(CONSTANTS)},
    )
    site = Site(three_nodes, shared)
    site.engine = "shamir_t1"
    buyer = buyer_of(site, tmp_path)

    def bent(upload: dict[str, Any], query: dict[str, Any]) -> dict[str, Any]:
        query["sealed"][1]["blob"] = query["sealed"][0]["blob"]
        return query

    honest, site.bend = site.bend, bent
    refused(buyer)
    site.bend = honest
    assert abs(buyer.predict(ROW).logits[0] - 2.0) < 0.3
    # who wants two curious nodes to learn nothing signs for no less; nor for a check that is none
    for demand, code in (({"threshold": 2}, "threshold_too_low"), ({"verified": True}, "verified")):
        with pytest.raises(ClientError, match="Nothing was sent") as caught:
            Buyer(buyer.home, "x", api=buyer.api, **demand).predict(ROW)
        assert caught.value.code.startswith(code)
    # a server that calls the model another engine's gets a row that no node computes with
    site.engine = "ring"
    upload, _ = Buyer(buyer.home, "x", api=buyer.api).make_query(ROW)
    assert upload["ticket"]["engine"] == "ring"
    inputs = {"row": [upload["ticket"]["share_id"]]}
    job = three_nodes.job("logistic_infer@1", upload["ticket"]["scope"], inputs, model=shared)
    codes = {a.json()["code"] for a in three_nodes.ask(job, uploads=[upload])}
    assert codes <= {"wrong_engine", "peer_refused"} and "wrong_engine" in codes


def test_the_forgery_opens_well_and_says_what_the_server_wants(buyer: Buyer, site: Site) -> None:
    """With the nodes' decryption keys stolen, it would be believed but for the receipts."""
    upload, reply = buyer.make_query(ROW)
    forged = forge(site.nodes, upload, site.compute(upload))
    values, f = sealing.open_outputs(
        [part["blob"] for part in forged["sealed"]], upload["ticket"], reply, site.nodes.descriptors
    )
    assert values[0] / 2**f == FORGED_LOGIT


def test_parts_made_without_the_nodes_are_refused(buyer: Buyer, site: Site) -> None:
    site.bend = lambda upload, query: forge(site.nodes, upload, query)
    refused(buyer)


@pytest.mark.parametrize("spoil", ["no job", "no receipts", "no hashes", "others' hashes"])
def test_receipts_that_do_not_cover_the_parts_are_refused(
    buyer: Buyer, site: Site, spoil: str
) -> None:
    def bend(upload: dict[str, Any], query: dict[str, Any]) -> dict[str, Any]:
        forged = forge(site.nodes, upload, query)
        if spoil == "no job":
            return forged | {"job": None}
        if spoil == "no receipts":
            forged["job"]["receipts"] = []
        for i, signed in enumerate(forged["job"]["receipts"]):
            blob = wire.unb64(forged["sealed"][i]["blob"])
            hashed = None if spoil == "no hashes" else jobs.sealed_hash(blob)
            signed["receipt"]["sealed"] = hashed
        return forged

    site.bend = bend
    refused(buyer)


def test_receipts_by_the_servers_own_keys_are_refused(buyer: Buyer, site: Site) -> None:
    def bend(upload: dict[str, Any], query: dict[str, Any]) -> dict[str, Any]:
        forged = forge(site.nodes, upload, query)
        for i, signed in enumerate(forged["job"]["receipts"]):
            blob = wire.unb64(forged["sealed"][i]["blob"])
            signed["receipt"]["sealed"] = jobs.sealed_hash(blob)
            signed["signature"] = wire.sign(
                Ed25519PrivateKey.generate(), jobs.RECEIPT_DOMAIN, signed["receipt"]
            )
        return forged

    site.bend = bend
    refused(buyer)


def test_one_colluding_node_forges_no_answer(buyer: Buyer, site: Site) -> None:
    """Node 0 signs for what the server sealed in its name: the others hold the same words."""
    key = keys.signing_key(keys.load(site.nodes.homes[0] / "sign.key"))

    def bend(upload: dict[str, Any], query: dict[str, Any]) -> dict[str, Any]:
        forged = forge(site.nodes, upload, query, only=(0,))
        signed = forged["job"]["receipts"][0]
        signed["receipt"]["sealed"] = jobs.sealed_hash(wire.unb64(forged["sealed"][0]["blob"]))
        signed["signature"] = wire.sign(key, jobs.RECEIPT_DOMAIN, signed["receipt"])
        return forged

    site.bend = bend
    refused(buyer, "bad_output")


def test_another_querys_answer_is_refused(buyer: Buyer, site: Site) -> None:
    """Honest parts and receipts, for another row of the same buyer."""

    def bend(upload: dict[str, Any], query: dict[str, Any]) -> dict[str, Any]:
        fields = {
            k: upload["ticket"][k]
            for k in (
                "slot", "circuits", "circuits_hash", "params", "f", "model", "price_micro",
                "resolution", "issued_at", "expires_at",
            )
        }  # fmt: skip
        fields["scope"] = f"query:{uuid.uuid4().hex}"
        other = sealing.make_upload(
            np.array([[1 << 16, 1 << 16]]),
            fields,
            buyer.home.identity(),
            site.nodes.descriptors,
            reply=X25519PrivateKey.generate(),
        )
        return site.compute(other) | {"id": query["id"]}

    site.bend = bend
    refused(buyer)


def test_another_models_answer_is_refused(buyer: Buyer, site: Site, three_nodes: NodeSet) -> None:
    """The nodes answered for the ticket's model; a descriptor with another one is not theirs."""
    other = trained_model(three_nodes)

    def bend(_: dict[str, Any], query: dict[str, Any]) -> dict[str, Any]:
        query["job"]["descriptor"]["model"] = other
        return query

    site.bend = bend
    refused(buyer)


def test_nodes_that_are_not_pinned_can_sign_what_they_like(buyer: Buyer, site: Site) -> None:
    buyer.home.pin_nodes(["00" * 32, "11" * 32, "22" * 32])
    upload, reply = Buyer(Home(buyer.home.path.parent / "b"), "x", api=buyer.api).make_query(ROW)
    query = site.compute(upload)
    site.asked[query["id"]] = query
    with pytest.raises(ClientError) as caught:
        buyer.collect(query["id"], upload["ticket"], reply)
    assert caught.value.code == "nodes_not_pinned"


@pytest.mark.parametrize("change", [{"mean": [1 << 22, 0]}, {"std": [1, 1 << 20]}, {"f": 16}])
def test_a_row_standardised_by_other_constants_is_not_answered(
    buyer: Buyer, site: Site, change: dict[str, Any]
) -> None:
    """A shifted mean would turn the answer round, under receipts and seals that all verify. The
    ticket names the constants, so what the server showed this buyer alone is seen."""
    site.normalisation = CONSTANTS | change
    upload, _ = Buyer(buyer.home, "x", api=buyer.api).make_query(ROW)
    ticket = upload["ticket"]
    job = site.nodes.job(
        "logistic_infer@1", ticket["scope"], {"row": [ticket["share_id"]]}, model=site.model
    )
    for answer in site.nodes.ask(job, uploads=[upload]):
        assert answer.status_code >= 400 and answer.json()["code"] == "wrong_shape"
        assert "normalisation" in answer.text


def test_constants_that_have_no_name_are_refused_by_the_client(buyer: Buyer, site: Site) -> None:
    site.normalisation = CONSTANTS | {"mean": [0.5, 0]}
    with pytest.raises(ClientError, match="normalisation can't be read"):
        Buyer(buyer.home, "x", api=buyer.api).make_query(ROW)
