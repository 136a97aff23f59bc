"""A model on sale without nodes behind it: what holds and settles queries is the database.

Tickets are signed by their buyer; what would be sealed to nodes is noise of the right size, and the
nodes' answers are made up. For what nodes and clients check themselves there is `market`.
"""

from __future__ import annotations

import secrets
import time
import uuid
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from apps.accounts.models import Party
from apps.accounts.services import party_create
from apps.compute.control import Answer, Member
from apps.compute.models import Node
from apps.compute.services import Outcome
from apps.core.clock import now
from apps.core.transactions import durable
from apps.listings.models import Listing
from apps.listings.services import listing_open, query_ticket
from apps.protocol import tickets, wire
from apps.protocol.emission import Schedule
from apps.protocol.unlocks import Unlocks
from apps.subdaos.models import Dao
from apps.training.models import ModelVersion, Phase, Round
from apps.wallets.services import asset_create, faucet

if TYPE_CHECKING:
    from apps.listings.running import Claimed

FEATURES = 3
PRICE = 1000
PARAMS = {
    "price_micro": str(PRICE),
    "epoch_s": 3600,
    "split": {"sbgt_bps": 6000, "sdt_bps": 2800, "treasury_bps": 1200},
    "sbgt_split": {"custodians_bps": 8000, "validators_bps": 1000, "operators_bps": 1000},
    "stake_boost_bps": 10_000,
    "emission": asdict(Schedule()),
    "unlocks": asdict(Unlocks()),
    "tiers": [],
    "schema": {"standard": "tabular-csv", "features": [{"name": n} for n in "abc"]},
    "label": {"name": "response", "positive": "1"},
    "plans": [],
}


@dataclass
class Shelf:
    """One listing, with buyers as they are asked for."""

    fingerprints: list[str] = field(default_factory=lambda: [secrets.token_hex(32) for _ in "012"])
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    opened_at: datetime = field(default_factory=now)

    def __post_init__(self) -> None:
        at, slug = self.opened_at, f"model-{secrets.token_hex(4)}"
        for index, fingerprint in enumerate(self.fingerprints):
            Node.objects.create(
                fingerprint=fingerprint,
                name=f"node-{index}",
                index=index,
                control_url="https://127.0.0.1:1",
                descriptor={"sign_key": "00" * 32, "tls_cert": ""},
                active=False,
            )
        with durable():
            party = party_create(kind=Party.Kind.DAO, name=slug, now=at)
            asset = asset_create(code=f"SDT-{slug}", name=slug, cap_micro=10**12, now=at)
            self.dao = Dao.objects.create(
                party=party, slug=slug, name=slug, kind=Dao.Kind.SUB, asset=asset,
                params=dict(PARAMS), rfm_ref=uuid.uuid4(), founded_at=at,
            )  # fmt: skip
            made_in = Round.objects.create(
                dao=self.dao, number=1, phase=Phase.DONE, roster={"members": []},
                roster_hash="00" * 32, nodes=self.fingerprints, circuits_hash="11" * 32,
                features=FEATURES, resolution="logit", opened_at=at, expires_at=at, closed_at=at,
            )  # fmt: skip
            version = ModelVersion.objects.create(
                dao=self.dao, number=1, round=made_in, model=secrets.token_hex(32), evidence={},
                status=ModelVersion.Status.ACCEPTED, decided_at=at,
            )  # fmt: skip
        listing_open(version_id=version.id, now=at)

    @property
    def listing(self) -> Listing:
        return Listing.objects.select_related("dao__party", "version__round").get(dao=self.dao)

    def buyer(self, micro: int = 0) -> Party:
        with durable():
            party = party_create(kind=Party.Kind.PERSON, name="buyer", now=now())
        if micro:
            faucet(party=party, asset="USDC", amount_micro=micro)
        return party

    def reprice(self, row_micro: int) -> None:
        self.dao.params["price_micro"] = str(row_micro)
        Dao.objects.filter(pk=self.dao.pk).update(params=self.dao.params)

    def upload(
        self, rows: int = 1, *, now: datetime | None = None, **changes: Any
    ) -> dict[str, Any]:
        at = int(time.time() if now is None else now.timestamp())
        ticket = {
            "v": 1,
            "type": "share",
            "share_id": secrets.token_hex(16),
            "sender": wire.public_hex(self.key),
            "scope": f"query:{uuid.uuid4().hex}",
            "roster": None,
            "uses": 1,
            "reply_key": secrets.token_hex(32),
            "commitment": [secrets.token_hex(32) for _ in self.fingerprints],
            "issued_at": at,
            "expires_at": at + 600,
            **query_ticket(self.listing, rows=rows),
            **changes,
        }
        noise = 8 * rows * FEATURES + tickets.GCM_TAG_BYTES
        return {
            "ticket": ticket,
            "signature": wire.sign(self.key, tickets.TICKET_DOMAIN, ticket),
            "envelopes": [wire.b64(secrets.token_bytes(200)) for _ in self.fingerprints],
            "correction": wire.b64(secrets.token_bytes(noise)),
        }

    def outcome(self, query: Claimed) -> Outcome:
        """What three nodes would say of a query."""
        return Outcome(
            [
                Answer(
                    member=Member(f"node-{i}", fingerprint, "00" * 32, "", ""),
                    receipt={"job_id": query.job.job_id, "node": fingerprint, "model": None},
                    signature=secrets.token_hex(64),
                    openings={},
                    sealed=wire.b64(secrets.token_bytes(100)),
                )
                for i, fingerprint in enumerate(self.fingerprints)
            ]
        )
