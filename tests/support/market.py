"""A SubDAO in the database and three real nodes: its members' shares, votes and paid queries.

Whoever acts here holds its own keys, as in the product. Wake-ups are not waited for: `drain` does
what is due, the way the sweep finds it.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from apps.accounts.models import Party
from apps.accounts.services import party_create
from apps.compute import selectors as compute
from apps.compute.services import nodes_sync
from apps.core import handlers
from apps.core.clock import now
from apps.core.transactions import durable
from apps.governance.executing import execute
from apps.governance.models import Proposal
from apps.governance.services import propose, vote
from apps.listings import running as queries
from apps.listings import selectors as listings
from apps.listings.asking import hash_of, infer_of
from apps.listings.models import Listing, Query
from apps.listings.services import query_create, query_ticket
from apps.participants.models import Application
from apps.participants.services import call_bind, call_open, whitelist
from apps.protocol import uploads, wire
from apps.protocol.encoding import numbers_of
from apps.protocol.founding import SdtShares, sdt_allocation
from apps.protocol.rfm_spec import check_spec, schema_of, subdao_params
from apps.subdaos.models import Dao
from apps.subdaos.services import found
from apps.training import running as rounds
from apps.training import selectors as training
from apps.training import submissions
from apps.training.models import Round
from apps.training.services import round_ticket
from apps.wallets import log
from apps.wallets.services import faucet
from tests.support import crowdfunds
from tests.support.nodes import NodeSet, fixed
from tests.support.snapshots import kept
from workers.mpc import sealing

TRUE = np.array([1.5, -1.0, 0.25])
STRATA = ["north", "south"]
ROWS = 40
PRICE = 500_000
EPOCH_S = 3_600  # no test waits for its end; none may see it by chance
SPEC: dict[str, Any] = {
    "objective": "Predict the response",
    "standard": "tabular-csv",
    "features": [{"name": "a"}, {"name": "b"}],
    "label": {"name": "response", "positive": "1"},
    "strata": {"column": "region", "values": STRATA},
    "gates": [{"metric": "auc", "min_milli": 800, "per_stratum": True}],
    "governance": {
        "voting_delay_s": 0,
        "voting_period_s": 3,
        "timelock_s": 0,
        "epoch_s": EPOCH_S,
        "min_validators": 3,
    },
    "price_micro": str(PRICE),
    "funding": {"target_micro": "1000000", "deadline_s": 60},
}


@dataclass
class Person:
    """A party with its signing key, and what it knows."""

    party: Party
    key: Ed25519PrivateKey
    weights: np.ndarray | None = None
    holdout: np.ndarray | None = None
    reply: X25519PrivateKey = field(default_factory=X25519PrivateKey.generate)

    @property
    def public(self) -> str:
        return wire.public_hex(self.key)


class Market:
    """One SubDAO with 4 custodians (the last one's labels are flipped) and 3 validators."""

    spec: dict[str, Any] = SPEC
    extras: dict[str, int] = {}
    held: Round  # of who is `on_sale`
    listing: Listing

    def __init__(self, nodes: NodeSet, settings: Any, directory: Path) -> None:
        import flai_site.wiring  # noqa: F401 - ties handlers to events

        self.nodes = nodes
        self.use(settings, directory)
        nodes_sync()
        rng = np.random.default_rng(7)
        self.custodians = [self.person(f"Site {i}") for i in range(4)]
        true = self.truth()
        for site, sign in zip(self.custodians, (1, 1, 1, -1)):
            site.weights = sign * (true + rng.normal(0, 0.1, true.shape))
        self.validators = [self.person(f"Validator {i}") for i in range(3)]
        for validator in self.validators:
            x = rng.normal(0, 1, (ROWS, 2))
            half = np.arange(ROWS) // 2 % 2
            validator.holdout = np.column_stack([x, self.targets(x, rng), half == 0, half == 1])
        self.backer = self.person("Backer")
        self.buyer = self.person("Buyer")
        self.dao = self._found()

    def use(self, settings: Any, directory: Path) -> None:
        """Have the site know these nodes."""
        settings.NODES_FILE = directory / "nodes.json"
        settings.NODES_FILE.write_text(json.dumps({"nodes": self.nodes.descriptors}))
        settings.COORDINATOR_KEY_FILE = directory / "coordinator.key"
        settings.COORDINATOR_KEY_FILE.write_text(_seed(self.nodes.coordinator).hex())

    # ---- the model, which other classes have otherwise

    def truth(self) -> np.ndarray:
        """Weights [o·3] that the holdouts are drawn from."""
        return TRUE

    def targets(self, x: np.ndarray, rng: Any) -> np.ndarray:
        """Target columns of rows x [m, 2]."""
        return (x @ TRUE[:2] + TRUE[2] + rng.normal(0, 0.5, len(x)) > 0).astype(float)

    # ---- people -------------------------------------------------------------------------------

    def person(self, name: str) -> Person:
        with durable():
            party = party_create(kind=Party.Kind.ORGANISATION, name=name, now=now())
        return Person(party, Ed25519PrivateKey.generate())

    @property
    def members(self) -> list[Person]:
        return [*self.custodians, *self.validators]

    def _found(self) -> Dao:
        spec = check_spec(self.spec)
        submitter = self.person("Submitter")
        at, rfm_id, target_micro = now(), uuid.uuid4(), 1_000_000
        faucet(party=self.backer.party, asset="USDC", amount_micro=target_micro, now=at)
        with durable():
            self._applied(self.members, at)
            pledges = {self.backer.party: target_micro}
            escrow = crowdfunds.full(rfm_id, pledges, submitter=submitter.party, now=at)
            pledged = {self.backer.party.id: target_micro}
            dao = found(
                slug=f"model-{uuid.uuid4().hex[:8]}",
                name="Model",
                params=subdao_params(spec),
                rfm_id=rfm_id,
                allocation=sdt_allocation(1_000, pledged, SdtShares()),
                shares=SdtShares(),
                pledged=pledged,
                submitter=submitter.party,
                escrow=escrow,
                escrow_micro=target_micro,
                members=[m.party for m in self.members],
                now=at,
            )
            crowdfunds.awarded(rfm_id, dao.party, target_micro, now=at)
        return dao

    def carried(self, kind: str, payload: dict[str, Any]) -> None:
        """Proposed by a member, voted for by all, and carried out."""
        actor, title = self.members[0].party, "Change"
        made = propose(
            actor=actor, dao=self.dao, kind=kind, payload=payload, title=title, now=now()
        )
        self._vote(made)
        self.dao.refresh_from_db()

    def whitelist(self) -> Round:
        """Admit everybody; the round that opens by itself."""
        self.admit()
        return Round.objects.get(dao=self.dao)

    def admit(self) -> None:
        """Everybody, on a whitelist that is carried out."""
        spec = check_spec(self.spec)
        with durable():
            at = now()
            call = call_open(slug=self.dao.slug, schema=schema_of(spec), rows_min=5, now=at)
            call_bind(call=call, dao=self.dao)
            self._admit(call, self.members)
        drain()

    def join(self, name: str) -> Round:
        """One more custodian is admitted; the round that opens by itself."""
        site = self.person(name)
        self.custodians.append(site)
        with durable():
            self._applied([site], now())
            self._admit(self.dao.call, [site])
        drain()
        return Round.objects.filter(dao=self.dao).latest("number")

    def _admit(self, call: Any, people: list[Person]) -> None:
        at = now()
        rows = [
            Application.objects.create(
                id=self._application(m),
                call=call,
                party=m.party,
                role=self._role(m),
                public_key=m.public,
                attestation={"rows": 100},
                signature="00" * 64,
                filed_at=at,
                verified_at=at,
            )
            for m in people
        ]
        ids = [str(row.id) for row in rows]
        whitelist(dao=self.dao, application_ids=ids, proposal_id=uuid.uuid4(), now=at)

    def _role(self, member: Person) -> str:
        return "custodian" if member in self.custodians else "validator"

    def _applied(self, people: list[Person], at: datetime) -> None:
        """As the log tells of applications, which come before a founding."""
        for m in people:
            facts = {"party": m.party.pid, "role": self._role(m), "key": m.public}
            facts |= {"id": str(self._application(m)), "call": self.backer.party.pid}
            log.append("participants.application", facts, now=at)

    def _application(self, member: Person) -> uuid.UUID:
        return uuid.uuid5(uuid.NAMESPACE_OID, member.party.pid)

    # ---- a round ------------------------------------------------------------------------------

    def upload(self, held: Round, who: Person, slot: str, values: Any, **changes: Any) -> Any:
        wanted = round_ticket(Round.objects.get(pk=held.pk))
        f = wanted["slots"][slot]["f"]
        at = int(time.time())
        names = "scope circuits circuits_hash params roster model resolution engine"
        fields = {name: wanted[name] for name in names.split()}
        fields |= {"slot": slot, "f": f, "issued_at": at, "expires_at": at + 7200}
        fields |= {"access": wanted["access"]} if wanted["access"] else {}
        return sealing.make_upload(
            fixed(values, f), fields | changes, who.key, self.nodes.descriptors
        )

    def begin(self, held: Round, who: Person, upload: Any) -> Any:
        head = uploads.head_of(upload)
        return submissions.share_begin(round_id=held.id, party=who.party, head=head, now=now())

    def part(self, held: Round, who: Person, upload: Any, offset: int, end: int | None) -> Any:
        """These bytes of the correction."""
        data = wire.unb64(upload["correction"])[offset:end]
        return submissions.share_part(
            round_id=held.id,
            party=who.party,
            share_id=upload["ticket"]["share_id"],
            offset_bytes=offset,
            data=data,
            digest=uploads.content_digest(data),
            now=now(),
        )

    def submit(self, held: Round, who: Person, upload: Any) -> Any:
        submission, new = self.begin(held, who, upload)
        if new:
            submission = self.part(held, who, upload, 0, None)
        return submission, new

    def sums(self, seed: int) -> np.ndarray:
        numbers = len(numbers_of(self.dao.params["schema"]["features"]))
        x = np.random.default_rng(seed).normal(0, 1, (50, numbers))
        return np.concatenate([[50.0], x.sum(0), (x**2).sum(0)])

    def normalise_validators(self, held: Round) -> None:
        for validator in self.validators:
            submissions.rows_announce(round_id=held.id, party=validator.party, rows=ROWS, now=now())

    def normalise(self, held: Round) -> None:
        self.normalise_validators(held)
        for i, site in enumerate(self.custodians):
            self.submit(held, site, self.upload(held, site, "sums", self.sums(i)))
        drain()

    def share_updates(self, held: Round) -> None:
        for site in self.custodians:
            self.submit(held, site, self.upload(held, site, "update", site.weights))
        for validator in self.validators:
            self.submit(held, validator, self.upload(held, validator, "holdout", validator.holdout))

    def train(self) -> Round:
        """From the whitelist to a finished round."""
        held = self.whitelist()
        self.normalise(held)
        self.share_updates(held)
        drain()
        return Round.objects.get(pk=held.pk)

    def accept(self, held: Round) -> Listing:
        """All members vote for the version; the listing that opens by itself."""
        self._vote(held.version.proposal)
        drain()
        return Listing.objects.get(dao=self.dao)

    def _vote(self, proposal: Proposal) -> None:
        # However long it took to get here.
        later = now() + timedelta(minutes=5)
        Proposal.objects.filter(pk=proposal.pk).update(voting_ends_at=later)
        for member in self.members:
            vote(actor=member.party, proposal_id=proposal.id, support="for", now=now())
        # Everybody has voted; the test does not wait for the three seconds to pass.
        Proposal.objects.filter(pk=proposal.pk).update(voting_ends_at=now())
        execute(proposal_id=proposal.id, now=now())
        assert Proposal.objects.get(pk=proposal.pk).executed_at is not None

    # ---- queries ------------------------------------------------------------------------------

    def fund(self, micro: int = 10_000_000) -> None:
        faucet(party=self.buyer.party, asset="USDC", amount_micro=micro, now=now())

    def row(self, listing: Listing, rows: Any, **changes: Any) -> dict[str, Any]:
        values = fixed(rows)
        at = int(time.time())
        fields = {
            "scope": f"query:{uuid.uuid4().hex}",
            "slot": "row",
            "circuits": [infer_of(listing)],
            "circuits_hash": hash_of(listing),
            "params": query_ticket(listing, rows=1)["params"] | {"rows": len(values)},
            "f": 16,
            "model": listing.version.model,
            "price_micro": str(PRICE * len(values)),
            "resolution": listing.version.round.resolution,
            "engine": query_ticket(listing, rows=1)["engine"],
            "issued_at": at,
            "expires_at": at + 600,
        }
        return sealing.make_upload(
            values,
            fields | changes,
            self.buyer.key,
            self.nodes.descriptors,
            reply=self.buyer.reply,
        )

    def ask(self, listing: Listing, upload: dict[str, Any]) -> Query:
        return query_create(slug=listing.slug, buyer=self.buyer.party, upload=upload, now=now())

    def open(self, query: Query, upload: dict[str, Any]) -> np.ndarray:
        blobs = [entry["blob"] for entry in query.outputs]
        values, f = sealing.open_outputs(
            blobs, upload["ticket"], self.buyer.reply, self.nodes.descriptors
        )
        return values / 2**f

    def oracle(self, held: Round, rows: Any) -> np.ndarray:
        """Scores of the aggregate of the clipped updates with the opened φ, row by row."""
        phi = {s.party_id: s.phi_milli for s in held.scores.all()}
        weights = np.array([site.weights for site in self.custodians])
        norms = np.linalg.norm(weights, axis=1)
        clipped = weights * np.minimum(1, np.median(norms) / norms)[:, None]
        share = np.array([phi[site.party.id] for site in self.custodians], float)
        model = (share / share.sum()) @ clipped
        weights = model.reshape(-1, 3).T
        return (np.column_stack([rows, np.ones(len(rows))]) @ weights).reshape(-1)


def founded(market: Market) -> None:
    """A SubDAO without a round."""


def on_sale(market: Market) -> None:
    """A SubDAO whose first model can be asked."""
    market.held = market.train()
    market.listing = market.accept(market.held)


def built(how: Callable[[Market], None], nodes: NodeSet, settings: Any, directory: Path) -> Market:
    """A market that is `founded` or `on_sale`, made once on these nodes."""

    def make() -> Market:
        made = Market(nodes, settings, directory)
        how(made)
        return made

    market = kept((how, nodes), make)
    market.use(settings, directory)
    return market


def drain() -> None:
    """Do what is due until nothing is: events, deliveries, jobs."""
    while _step():
        pass


def drain_until(done: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it did not come to an end"
        if not _step():
            threading.Event().wait(0.05)


def _step() -> int:
    at = now()
    count = handlers.dispatch_due(clock=lambda: at)
    for submission_id in training.shares_due(now=at):
        submissions.share_deliver(submission_id=submission_id)
        count += 1
    for submission_id in training.withdrawals_due(now=at):
        submissions.share_forget(submission_id=submission_id)
        count += 1
    due = [job.pk for job in compute.jobs_due(now=at)]
    for round_id in training.rounds_of_jobs(due):
        count += rounds.round_run(round_id=round_id)
    for query_id in listings.queries_of_jobs(due):
        count += queries.query_run(query_id=query_id)
    return count


def _seed(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.Raw,
        serialization.PrivateFormat.Raw,
        serialization.NoEncryption(),
    )
