"""A server that only hands things on between agents, buyers and real nodes.

It stores, delivers and dispatches; sharing, sealing, tickets, nodes and circuits are the real ones.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import httpx

from apps.protocol import tickets, uploads, wire
from apps.protocol.circuits import circuits_hash, query_hash
from apps.protocol.circuits.moments import limits_of
from apps.protocol.encoding import numbers_of, width
from apps.protocol.jobs import fingerprint
from apps.protocol.normalise import public_constants
from apps.protocol.rfm_spec import schema_of
from apps.protocol.targets import class_of
from apps.training.tickets import stage_ticket
from tests.support.nodes import NodeSet
from workers.client.api import Api
from workers.client.home import Home
from workers.client.joining import schema_digest
from workers.demo.request import main_request

SUBDAO = "tumours"
UNSENT = re.compile('"event":"(attesting|roster)"')  # of a journal what says that nothing has left


def attested(home: Home, spec: Mapping[str, Any]) -> None:
    """As the journal keeps that this site attested to a request."""
    schema = schema_of(spec)
    attestation = {"schema_hash": schema_digest(schema)}
    home.journal.write("attesting", attestation=attestation, schema=schema)


class Bridge:
    """The server's side of one round and its queries."""

    def __init__(
        self,
        nodes: NodeSet,
        homes: dict[str, Home],
        about: dict[str, Any] | None = None,
        *,
        spec: dict[str, Any] | None = None,
        engine: str = tickets.RING,
    ) -> None:
        self.nodes = nodes
        self.engine = engine
        self.spec = spec or main_request(about or {}, custodians=6, validators=3)["spec"]
        self.model_class = class_of(self.spec)
        self.round_id = str(uuid.uuid4())
        members = [
            {"key": home.identity_hex(), "role": home.config["role"], "name": home.config["name"]}
            for home in homes.values()
        ]
        self.roster = tickets.roster_of(round_id=self.round_id, members=members)
        self.rows: dict[str, int] = {}
        self.shares: dict[str, dict[str, Any]] = {}
        self.parts: dict[str, bytes] = {}
        self.part_bytes_max = uploads.PART_BYTES_MAX
        self.acks: dict[str, list[Any]] = {}
        self.stage, self.phase = "moments", "moments"
        self.normalisation: dict[str, Any] | None = None
        self.jobs: dict[str, dict[str, Any]] = {}
        self.model = ""
        self.openings: dict[str, Any] = {}
        self.queries: dict[str, dict[str, Any]] = {}
        self.answered: dict[str, Any] = {}
        self.changes: dict[str, Any] = {}
        self.bodies: list[bytes] = []
        self.schema = {name: self.spec[name] for name in ("standard", "features")}
        for home in homes.values():
            attested(home, self.spec)

    def api(self, home: Home | None = None) -> Api:
        """As that home's owner sees it: here its public key is its API key."""
        key = home.identity_hex() if home else None
        return Api("http://flai", key, transport=httpx.MockTransport(self.answer))

    def round(self) -> dict[str, Any]:
        ticket = stage_ticket(
            stage=self.stage,
            round_id=self.round_id,
            roster=self.roster,
            roster_hash=tickets.check_roster(self.roster),
            nodes=self.nodes.fingerprints,
            circuits_hash=circuits_hash(),
            features=width(self.spec["features"]),
            numbers=len(numbers_of(self.spec["features"])),
            strata=len((self.spec["strata"] or {"values": ()})["values"]),
            rows=self.rows,
            resolution="logit",
            scoring="taylor",
            model_class=self.model_class.name,
            normalisation=self.normalisation,
            limits=limits_of(numbers_of(self.spec["features"])),
            engine=self.engine,
        )
        shown = {
            "id": self.round_id,
            "number": 1,
            "phase": self.phase,
            "training": "fedavg",
            "roster": self.roster,
            "roster_hash": tickets.check_roster(self.roster),
            "nodes": self.nodes.descriptors,
            "circuits_hash": circuits_hash(),
            "ticket": ticket,
            "start": None,
            "summed": None,
            "normalisation": self.normalisation,
            "job": self.jobs.get("moments@1"),
        }
        return json.loads(json.dumps(shown)) | self.changes

    def answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/api/v1/").split("/")
        is_json = request.headers.get("Content-Type") == "application/json"
        body = json.loads(request.content) if is_json and request.content else None
        self.bodies.append(request.content)
        match request.method, path[:-1]:
            case "GET", ["subdaos", _]:
                params = {**self.spec, "schema": self.schema}
                return httpx.Response(200, json={"params": params})
            case "GET", ["me", "rounds"]:
                found = {"id": self.round_id, "dao": SUBDAO, "number": 1, "phase": self.phase}
                return httpx.Response(200, json={"results": [found], "next": None})
            case "GET", ["rounds", _]:
                return httpx.Response(200, json=self.round())
            case "POST", ["rounds", _, "rows"]:
                key = request.headers["Authorization"].removeprefix("Bearer ")
                self.rows[key] = body["rows"]
                return httpx.Response(200, json={})
            case "POST", ["rounds", _, "shares"]:
                share_id = body["ticket"]["share_id"]
                self.shares.setdefault(share_id, body)
                self.parts.setdefault(share_id, b"")
                return httpx.Response(202, json=self.share(share_id))
            case "PATCH", ["rounds", _, "shares", share_id]:
                return self.part(share_id, request)
            case "GET", ["rounds", _, "shares", share_id]:
                return httpx.Response(200, json=self.share(share_id))
            case "GET", ["listings", _]:
                return httpx.Response(200, json=self.listing())
            case "POST", ["listings", _, "inferences"]:
                body = body["input"]
                key = request.headers["Idempotency-Key"]
                if key not in self.answered:
                    try:
                        tickets.check_upload(body, now=int(time.time()))
                    except tickets.TicketError as error:
                        no = {"code": error.code, "detail": error.text}
                        return httpx.Response(422, json=no)
                    self.answered[key] = (body, self.query(body))
                same = self.answered[key][0] == body
                return httpx.Response(200 if same else 409, json=self.answered[key][1])
            case "GET", ["inferences"]:
                found = {"results": [*reversed(self.queries.values())], "next": None}
                return httpx.Response(200, json=found)
            case "GET", ["inferences", query_id]:
                return httpx.Response(200, json=self.queries[query_id])
        return httpx.Response(404, json={"code": "not_found", "detail": "Nothing here."})

    def share(self, share_id: str) -> dict[str, Any]:
        ticket = tickets.check_ticket(self.shares[share_id]["ticket"], now=int(time.time()))
        size = ticket.correction_bytes
        here = len(self.parts[share_id])
        return {
            "state": "delivered" if here == size else "receiving",
            "offset": here,
            "size_bytes": size,
            "part_bytes_max": self.part_bytes_max,
            "acks": self.acks.get(share_id, []),
            "reason": "",
        }

    def part(self, share_id: str, request: httpx.Request) -> httpx.Response:
        offset, here = int(request.headers["Upload-Offset"]), len(self.parts[share_id])
        if offset != here:
            return httpx.Response(409, json={"code": "wrong_offset", "detail": "Elsewhere."})
        assert request.headers["Content-Digest"] == uploads.content_digest(request.content)
        self.parts[share_id] += request.content
        if self.share(share_id)["state"] == "delivered":
            correction = wire.b64(self.parts[share_id])
            upload = {**self.shares[share_id], "correction": correction}
            self.nodes.put(upload)
            answers = self.nodes.post_all("/shares", upload)
            self.acks[share_id] = [answer.json() for answer in answers]
        return httpx.Response(200, json=self.share(share_id))

    def inputs(self, slot: str, role: str) -> list[str]:
        signed = tickets.check_roster(self.roster)
        by_key = {
            share["ticket"]["sender"]: share_id
            for share_id, share in self.shares.items()
            if (share["ticket"]["slot"], share["ticket"]["roster"]) == (slot, signed)
        }
        return [by_key[key] for key in tickets.members_with_role(self.roster, role)]

    def leave_out(self, key: str) -> None:
        """The deadline has passed: this member is late."""
        stay = [m for m in self.roster["members"] if m["key"] != key]
        self.roster = tickets.roster_of(round_id=self.round_id, members=stay)
        self.rows.pop(key, None)

    def compute_moments(self) -> None:
        inputs = {"sums": self.inputs("sums", "custodian")}
        self._job("moments@1", f"moments:{self.round_id}", inputs)
        self.normalisation = public_constants(self.openings["sums"], width(self.spec["features"]))
        self.stage, self.phase = "round", "updates"

    def compute_round(self) -> None:
        inputs = {
            "update": self.inputs("update", "custodian"),
            "holdout": self.inputs("holdout", "validator"),
        }
        self.model = self._job(self.model_class.round_id, f"round:{self.round_id}", inputs)
        self.phase = "done"

    def _job(self, circuit: str, scope: str, inputs: dict[str, list[str]]) -> str:
        job = self.nodes.job(
            circuit, scope, inputs, roster=self.roster, engine=self.engine, deadline_s=120
        )
        answers = self.nodes.ask(job)
        assert all(a.status_code == 200 for a in answers), [a.text for a in answers]
        self.openings = answers[0].json()["openings"]
        receipts = [{k: a.json()[k] for k in ("receipt", "signature")} for a in answers]
        self.jobs[circuit] = {"openings": self.openings, "receipts": receipts, "descriptor": job}
        return str(self.nodes.commit(answers)[0].json()["model"])

    def listing(self) -> dict[str, Any]:
        return {
            "slug": SUBDAO,
            "model": self.model,
            "price_micro": "500000",
            "rows_per_query": 1000,
            "resolution": "logit",
            "engine": self.engine,
            "features": self.spec["features"],
            "normalisation": self.normalisation,
            "nodes": self.nodes.descriptors,
            "label": self.spec["label"],
            "circuit": self.asked,
            "circuits_hash": query_hash(self.asked, {"features": width(self.spec["features"])}),
        } | self.changes

    @property
    def asked(self) -> str:
        return self.model_class.infer_id("logit")

    def query(self, upload: dict[str, Any]) -> dict[str, Any]:
        ticket = upload["ticket"]
        inputs = {"row": [ticket["share_id"]]}
        named = {name: ticket[name] for name in ("model", "circuits_hash")}
        named["engine"] = self.engine
        job = self.nodes.job(self.asked, ticket["scope"], inputs, **named)
        answers = self.nodes.ask(job, uploads=[upload])
        sealed = [
            {"node": d["name"], "fingerprint": fingerprint(d), "blob": a.json()["sealed"]}
            for d, a in zip(self.nodes.descriptors, answers)
        ]
        query = {"id": str(uuid.uuid4()), "state": "settled", "sealed": sealed}
        receipts = [{k: a.json()[k] for k in ("receipt", "signature")} for a in answers]
        query |= {"price_micro": ticket["price_micro"], "ticket_id": tickets.ticket_id(ticket)}
        query |= {"created_at": datetime.now(UTC).isoformat()}
        query |= {"job": {"descriptor": job, "receipts": receipts}}
        self.queries[query["id"]] = query
        return query
