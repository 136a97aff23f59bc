"""A second SubDAO beside the world's, whose model is sold too and misses a gate in one region.

Of its later rounds one has failed and one is open.
"""

from __future__ import annotations

import secrets
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from apps.accounts.models import Party
from apps.accounts.services import party_create
from apps.core import clock
from apps.core.transactions import durable
from apps.listings.models import Listing
from apps.protocol.evidence import evidence_of
from apps.subdaos.models import Dao, Epoch
from apps.training.models import Member, ModelVersion, Round, Submission
from apps.wallets.services import asset_create
from tests.explorer.world import MICRO, World

NAME = "Fracture of a wrist"
REGIONS = ["north", "east"]
OPENINGS = {
    "auc_milli": 874,
    "auc_strata_milli": [902, 817],
    "accuracy_milli": 851,
    "accuracy_strata_milli": [870, None],
    "support": [[120, 48], [76, 28], [44, 20]],
}


@dataclass(frozen=True)
class Second:
    listing: Listing
    failed: Round
    open: Round


def add(world: World, now: datetime | None = None) -> Second:
    now = now or clock.now()
    with durable():
        owner = party_create(kind="dao", name=NAME, slug="wrist-fracture", now=now)
        asset = asset_create(code="SDT-wrist", name=NAME, cap_micro=10**12, now=now)
    dao = Dao.objects.create(
        party=owner,
        slug=owner.slug,
        name=NAME,
        kind="sub",
        asset=asset,
        params=world.dao.params | {"price_micro": str(2 * MICRO), "interpretable": True},
        rfm_ref=uuid.uuid4(),
        founded_at=now - timedelta(hours=9),
    )
    Epoch.objects.create(
        dao=dao, number=1, starts_at=now - timedelta(hours=9), ends_at=now + timedelta(days=6)
    )
    people = [member.party for member in world.round.members.select_related("party")]
    done = _round(dao, people, 1, "done", now - timedelta(hours=8))
    version = ModelVersion.objects.create(
        dao=dao,
        number=1,
        round=done,
        model=secrets.token_hex(32),
        evidence=evidence_of(OPENINGS, strata=REGIONS, gates=dao.params["gates"]),
        status="accepted",
        decided_at=now - timedelta(hours=7),
        created_at=now - timedelta(hours=8),
    )
    listing = Listing.objects.create(
        dao=dao, slug=dao.slug, version=version, opened_at=now - timedelta(hours=7)
    )
    failed = _round(
        dao,
        people,
        2,
        "failed",
        now - timedelta(hours=6),
        reason="Fewer sites took part than this SubDAO asks for.",
    )
    held = _round(
        dao,
        people,
        3,
        "updates",
        now - timedelta(minutes=9),
        due_at=now + timedelta(minutes=21),
    )
    Member.objects.filter(round=held, party=people[0]).update(left_phase="moments")
    for party, state in zip(people[1:], ("delivered", "receiving", "refused"), strict=False):
        Submission.objects.create(
            round=held,
            stage="round",
            slot="update",
            party=party,
            share_id=secrets.token_hex(16),
            ticket={},
            ticket_id=secrets.token_hex(32),
            state=state,
            reason="Its ticket had expired." if state == "refused" else "",
            due_at=now,
        )
    return Second(listing, failed, held)


def _round(
    dao: Dao, people: list[Party], number: int, phase: str, at: datetime, **facts: Any
) -> Round:
    keys = {party: secrets.token_hex(32) for party in people}
    roles = {party: "custodian" if i < 6 else "validator" for i, party in enumerate(people)}
    words = facts.get("reason") or f"Round {number} is open."
    held = Round.objects.create(
        dao=dao,
        number=number,
        phase=phase,
        roster={"members": [{"role": roles[p], "key": keys[p], "name": p.name} for p in people]},
        roster_hash=secrets.token_hex(32),
        nodes=["f0" * 32] * 3,
        circuits_hash="c1" * 32,
        features=5,
        strata=REGIONS,
        resolution="band",
        progress=[{"phase": phase, "at": at.isoformat(), "text": words}],
        opened_at=at,
        expires_at=at + timedelta(hours=1),
        closed_at=at + timedelta(minutes=4) if phase in ("done", "failed") else None,
        **facts,
    )
    for party in people:
        Member.objects.create(round=held, party=party, role=roles[party], key=keys[party])
    return held
