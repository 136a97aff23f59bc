"""A small world for the pages: people, a request in each state, a SubDAO that sells its model.

What has a service goes through it; what only nodes can make (scores, receipts, an accepted
version) is written as rows, since no page may depend on how it came about.
"""

from __future__ import annotations

import hashlib
import secrets
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from apps.accounts.models import Party, User
from apps.accounts.services import api_key_create, party_create, sign_up
from apps.compute.models import Job, Node, Receipt
from apps.core import clock
from apps.core.transactions import durable
from apps.exchange.pools import pool_open, swap
from apps.exchange.vaults import stake, unstake
from apps.governance.models import Proposal, SnapshotWeight, Vote
from apps.listings.models import Closing, Entitlement, Listing, Query
from apps.participants.models import Application, Call
from apps.protocol import identity, wire
from apps.protocol.evidence import evidence_of
from apps.protocol.rfm_spec import check_spec, schema_of, subdao_params
from apps.rfms.models import Crowdfund, Pledge, Rfm
from apps.subdaos.models import Dao, Epoch, SbgtCheckpoint
from apps.subdaos.selectors import superdao
from apps.training.models import Member, ModelVersion, Round, Score, ScoringWork, Submission
from apps.wallets import ledger, log
from apps.wallets.models import Transfer
from apps.wallets.services import account, asset_create, faucet, mint, send
from tests.support.snapshots import kept

PASSWORD = "a long pass phrase 7"
MICRO = 1_000_000
SITES = (
    ("Kantonsspital Aare", 1000), ("Clinique du Lac", 934), ("Ospedale San Gottardo", 871),
    ("Universitätsklinik Birs", 640), ("Spital Cher", 12), ("Praxisgruppe Dünnern", 0),
)  # fmt: skip
VALIDATORS = ("Institut Validus", "Registry North", "Tumour Board Basel")
FEATURES = [
    "radius",
    "texture",
    "perimeter",
    "area",
    "smoothness",
    "compactness",
    "concavity",
    "symmetry",
]
STRATA = ["north", "centre", "south"]


@dataclass(frozen=True)
class World:
    """What tests want to name again."""

    buyer: User
    party: Party
    draft: Rfm
    voting: Rfm
    funding: Rfm
    awarded: Rfm
    dao: Dao
    round: Round
    listing: Listing
    query: Query
    open_vote: Proposal
    accepted: Proposal


def spec(**changes: Any) -> dict[str, Any]:
    """A checked specification of an ordinary request."""
    return check_spec(
        {
            "objective": "Tell malignant from benign breast masses from a fine-needle aspirate, "
            "as a second opinion for the pathologist on duty.",
            "features": [
                {"name": f"mean {name}", "unit": "mm" if name == "radius" else "", "min": 0}
                for name in FEATURES
            ],
            "label": {"name": "malignant", "positive": "1"},
            "strata": {"column": "region", "values": STRATA},
            "gates": [{"metric": "auc", "min_milli": 850, "per_stratum": True}],
            "price_micro": "500000",
            "funding": {"target_micro": str(1_000 * MICRO), "deadline_s": 20 * 86_400},
            **changes,
        }
    )


def build() -> World:
    """All of it."""
    return kept(_build, _build)


def _build() -> World:
    now = clock.now()
    buyer, party = sign_up(
        email="buyer@example.org", password=PASSWORD, name="Helvetia Pharma AG", kind="organisation"
    )
    faucet(party=party, asset="USDC", amount_micro=500 * MICRO, now=now - timedelta(hours=5))
    faucet(party=party, asset="FLAI", amount_micro=5_000 * MICRO, now=now - timedelta(hours=5))
    stake(party=party, asset="FLAI", amount_micro=3_000 * MICRO, now=now - timedelta(hours=4))
    with durable():
        people = [
            party_create(kind="organisation", name=name, now=now)
            for name in [name for name, _ in SITES] + list(VALIDATORS)
        ]
        for index, staker in enumerate(people[:4]):
            whole = account(staker, "FLAI", "staked")
            mint("FLAI", whole, (index + 1) * 4_000 * MICRO, None, now - timedelta(hours=4))
    draft = _rfm("Draft of a sepsis warning", party, now)
    voting, open_vote = _voting(party, people, now)
    funding = _funding(party, people, now)
    awarded, dao = _awarded(party, people, now)
    held = _round(dao, people, now)
    accepted = _accepted(dao, held, people, now)
    listing = Listing.objects.create(
        dao=dao,
        slug=dao.slug,
        version=held.version,
        opened_at=now - timedelta(hours=1),
        created_at=now - timedelta(hours=1),
    )
    query = query_of(listing, party, now)
    _trade(dao.asset.code, party, now)
    log.sequence(now=now)
    return World(
        buyer,
        party,
        draft,
        voting,
        funding,
        awarded,
        dao,
        held,
        listing,
        query,
        open_vote,
        accepted,
    )


def _trade(code: str, party: Party, now: datetime) -> None:
    """A pool with a history, and a stake with a lock that is over and tokens on their way out."""
    ago = [now - timedelta(hours=h) for h in (30, 22, 13, 5, 3, 1)]
    with durable():
        maker = party_create(kind="organisation", name="Aare Market Makers", now=now)
        mint("USDC", account(maker, "USDC"), 400 * MICRO, None, ago[0])
    send(party=party, to=maker, asset=code, amount_micro=100_000 * MICRO, now=ago[0])
    pool_open(
        party=maker, base=code, base_micro=80_000 * MICRO, quote_micro=200 * MICRO, now=ago[0]
    )
    for at, side, whole in zip(
        ago[1:], ("quote", "base", "quote", "quote", "base"), (9, 2_000, 21, 4, 3_500)
    ):
        swap(party=maker, base=code, side=side, amount_micro=whole * MICRO, now=at)
    stake(party=party, asset=code, amount_micro=25_000 * MICRO, lock_s=60, now=ago[2])
    unstake(party=party, asset=code, amount_micro=4_000 * MICRO, now=ago[4])


def grow(world: World, rows: int, now: datetime | None = None) -> None:
    """`rows` more of everything that a page or a list shows several of."""
    now = now or clock.now()
    for _ in range(rows):
        tag = secrets.token_hex(4)
        with durable():
            other = party_create(kind="organisation", name=f"Site {tag}", now=now)
            owner = party_create(kind="dao", name=f"Model {tag}", now=now)
            asset = asset_create(code=f"SDT-{tag}", name=tag, cap_micro=10**12, now=now)
            mint(asset, account(world.party, asset), MICRO, None, now)
        _rfm(f"Draft {tag}", world.party, now)
        proposal = _proposal(superdao(), "super", "rfms.approve", tag, now, proposer=other)
        _rfm(f"Voting {tag}", other, now, submitted_at=now, proposal=proposal)
        _vote(world.open_vote, {other: MICRO}, {other: "for"}, now)
        _apply(world.funding.call, [other], now)
        call = _call(tag, None, now)
        facts = {"submitted_at": now, "approved_at": now, "call": call}
        _fund(_rfm(f"Funding {tag}", other, now, **facts), {other: 400 * MICRO}, now)
        fund = world.funding.crowdfund
        Pledge.objects.create(
            crowdfund=fund, party=other, asked_micro=1, amount_micro=1, pledged_at=now
        )
        dao = Dao.objects.create(
            party=owner,
            slug=tag,
            name=tag,
            kind="sub",
            asset=asset,
            params=world.dao.params,
            rfm_ref=uuid.uuid4(),
            founded_at=now,
        )
        Epoch.objects.create(
            dao=dao, number=1, starts_at=now - timedelta(hours=2), ends_at=now + timedelta(days=6)
        )
        SbgtCheckpoint.objects.create(
            dao=world.dao, party=other, at=now, points_micro=MICRO, reason="round"
        )
        Listing.objects.create(
            dao=dao, slug=tag, version=world.listing.version, opened_at=now, created_at=now
        )
        faucet(party=world.party, asset="USDC", amount_micro=MICRO, now=now)
        api_key_create(user=world.buyer, party=world.party, label=tag, now=now)
    log.sequence(now=now)


def _rfm(title: str, party: Party, now: datetime, **facts: Any) -> Rfm:
    content = spec()
    return Rfm.objects.create(
        slug=title.lower().replace(" ", "-")[:50],
        title=title,
        submitter=party,
        spec=content,
        spec_hash=wire.digest("flai/rfm/v1", content),
        created_at=now - timedelta(days=2),
        **facts,
    )


def _proposal(dao: Dao, house: str, kind: str, title: str, now: datetime, **facts: Any) -> Proposal:
    defaults = {
        "payload": {},
        "payload_hash": secrets.token_hex(32),
        "changes": [],
        "snapshot_at": now,
        "voting_starts_at": now - timedelta(hours=2),
        "voting_ends_at": now + timedelta(hours=46),
        "quorum_bps": 2_000,
        "threshold_bps": 5_000,
        "grace_s": 7 * 86_400,
        "created_at": now - timedelta(hours=2),
    }
    return Proposal.objects.create(
        dao=dao, house=house, kind=kind, title=title, **{**defaults, **facts}
    )


def _vote(
    proposal: Proposal, weights: dict[Party, int], cast: dict[Party, str], now: datetime
) -> None:
    for voter, weight in weights.items():
        SnapshotWeight.objects.create(proposal=proposal, party=voter, weight=weight)
    for voter, support in cast.items():
        Vote.objects.create(
            proposal=proposal, voter=voter, support=support, weight=weights[voter], at=now
        )
        field = f"{support}_weight"
        setattr(proposal, field, getattr(proposal, field) + weights[voter])
    proposal.total_weight = (proposal.total_weight or 0) + sum(weights.values())
    proposal.save()


def _voting(party: Party, people: list[Party], now: datetime) -> tuple[Rfm, Proposal]:
    proposal = _proposal(
        superdao(),
        "super",
        "rfms.approve",
        "Open “Thirty-day readmission” for funding",
        now,
        description="Hospitals ask which patients are likely to come back within thirty days, so "
        "that follow-up calls reach them first.",
        changes=[
            {"label": "Request", "before": "in vote", "after": "open for funding"},
            {"label": "Target", "before": "", "after": "1,000 USDC in 20 days"},
        ],
        proposer=party,
    )
    weights = {party: 3_000 * MICRO} | {
        p: (i + 1) * 4_000 * MICRO for i, p in enumerate(people[:4])
    }
    cast = {people[0]: "for", people[2]: "for", people[1]: "against"}
    _vote(proposal, weights, cast, now - timedelta(minutes=9))
    rfm = _rfm("Thirty-day readmission", party, now, submitted_at=now, proposal=proposal)
    return rfm, proposal


def _call(slug: str, dao: Dao | None, now: datetime) -> Call:
    schema = schema_of(spec())
    return Call.objects.create(
        slug=slug,
        dao=dao,
        schema=schema,
        schema_hash=wire.digest("flai/schema/v1", schema),
        rows_min=20,
        opened_at=now - timedelta(days=1),
    )


def _apply(call: Call, people: list[Party], now: datetime, **facts: Any) -> None:
    for index, applicant in enumerate(people):
        Application.objects.create(
            call=call,
            party=applicant,
            role="custodian" if index < len(SITES) else "validator",
            public_key=hashlib.sha256(f"{call.slug}{applicant.pid}".encode()).hexdigest(),
            attestation={"rows": 64 + 7 * index, "columns": FEATURES},
            signature="0" * 128,
            filed_at=now - timedelta(hours=20),
            verified_at=now - timedelta(hours=20),
            **facts,
        )


def _fund(rfm: Rfm, pledged: dict[Party, int], now: datetime, **facts: Any) -> Crowdfund:
    fund = Crowdfund.objects.create(
        rfm=rfm,
        escrow=account(_escrow_owner(rfm, now), "USDC", "escrow"),
        target_micro=1_000 * MICRO,
        raised_micro=sum(pledged.values()),
        sdt_supply_micro=10**12,
        opened_at=now - timedelta(days=1),
        deadline_at=now + timedelta(days=19),
        **facts,
    )
    for backer, amount in pledged.items():
        Pledge.objects.create(
            crowdfund=fund, party=backer, asked_micro=amount, amount_micro=amount, pledged_at=now
        )
    return fund


def _escrow_owner(rfm: Rfm, now: datetime) -> Party:
    with durable():
        return party_create(kind="system", name=f"Escrow of {rfm.title}", now=now)


def _funding(party: Party, people: list[Party], now: datetime) -> Rfm:
    call = _call("diabetic-retinopathy", None, now)
    _apply(call, people[:3], now)
    rfm = _rfm(
        "Diabetic retinopathy from routine labs",
        party,
        now,
        submitted_at=now - timedelta(days=2),
        approved_at=now - timedelta(days=1),
        call=call,
    )
    _fund(rfm, {people[0]: 400 * MICRO, people[4]: 237_500_000}, now)
    return rfm


def _awarded(party: Party, people: list[Party], now: datetime) -> tuple[Rfm, Dao]:
    title = "Malignancy of a breast mass"
    with durable():
        owner = party_create(kind="dao", name=title, slug="breast-mass", now=now)
        asset = asset_create(code="SDT-breast-mass", name=title, cap_micro=10**12, now=now)
        mint(asset, account(owner, asset, "treasury"), 400_000 * MICRO, None, now)
        mint(asset, account(party, asset), 600_000 * MICRO, None, now)
        mint("USDC", account(owner, "USDC", "treasury"), 1_000 * MICRO, None, now)
    rfm = _rfm(
        title,
        party,
        now,
        submitted_at=now - timedelta(days=2),
        approved_at=now - timedelta(days=1),
    )
    dao = Dao.objects.create(
        party=owner,
        slug="breast-mass",
        name=title,
        kind="sub",
        asset=asset,
        params=subdao_params(rfm.spec),
        rfm_ref=rfm.id,
        founded_at=now - timedelta(hours=19),
    )
    rfm.call = _call("breast-mass", dao, now)
    rfm.subdao, rfm.awarded_at = dao, now - timedelta(hours=19)
    rfm.save()
    _fund(
        rfm, {people[0]: 600 * MICRO, party: 400 * MICRO}, now, filled_at=now - timedelta(hours=19)
    )
    _apply(rfm.call, people, now, whitelisted_at=now - timedelta(hours=18))
    scores = [phi for _, phi in SITES] + [1000] * len(VALIDATORS)
    for member, phi in zip(people, scores, strict=True):
        SbgtCheckpoint.objects.create(
            dao=dao, party=member, at=now, points_micro=MICRO + phi * 1000, reason="round"
        )
    epoch = Epoch.objects.create(
        dao=dao,
        number=1,
        starts_at=now - timedelta(hours=17),
        ends_at=now - timedelta(hours=2),
        closed_at=now - timedelta(hours=2),
        revenue_micro=14 * MICRO,
    )
    sites = [(p, phi * 2_400) for p, (_, phi) in zip(people, SITES, strict=False) if phi]
    work, held = sum(micro for _, micro in sites), 250_000
    whole, size = work + held, len(sites) + 1
    epoch.settlement = {
        "revenue_micro": str(14 * MICRO),
        "treasury_micro": str(14 * MICRO - whole),
        "owed_micro": {"custodian": str(work), "holder": str(held)},
        "entitled": size,
        "root": "ab" * 32,
    }
    epoch.save()
    Closing.objects.create(
        epoch=epoch, step="done", plan={}, sdt_micro=0, entitled_micro=whole, size=size
    )
    for payee, micro in [*sites, (party, held)]:
        worked = payee != party
        Entitlement.objects.create(
            epoch=epoch, party=payee, pid=payee.pid, role="custodian" if worked else "holder",
            asset="USDC", amount_micro=micro, claimed_at=now if worked else None,
        )  # fmt: skip
    Epoch.objects.create(
        dao=dao, number=2, starts_at=now - timedelta(hours=2), ends_at=now + timedelta(days=6)
    )
    return rfm, dao


def _nodes() -> list[Node]:
    found = []
    for index in range(3):
        fingerprint = hashlib.sha256(f"node {index}".encode()).hexdigest()
        key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(fingerprint))
        node, _ = Node.objects.get_or_create(
            index=index,
            defaults={
                "fingerprint": fingerprint,
                "name": f"node-{index}",
                "control_url": "http://127.0.0.1:1",
                "descriptor": {
                    "engines": ["ring"],
                    "circuits_hash": "c1" * 32,
                    "sign_key": wire.public_hex(key),
                    "tls_cert": identity.certificate_pem(key, f"node-{index}"),
                },
            },
        )
        found.append(node)
    return found


def _job(circuit: str, nodes: list[Node], now: datetime, *, model: str = "") -> Job:
    job = Job.objects.create(
        job_id=secrets.token_hex(16),
        kind=circuit.split("_")[0][:16],
        circuit=circuit,
        scope=f"round:{uuid.uuid4().hex}",
        descriptor={
            "circuit": circuit,
            "engine": "ring",
            "nodes": [node.fingerprint for node in nodes],
            "inputs": {"update": [secrets.token_hex(16)]},
        },
        attempt=1,
        state="done",
        model=model,
        due_at=now,
        expires_at=now + timedelta(hours=1),
        done_at=now,
        created_at=now,
    )
    for node in nodes:
        Receipt.objects.create(
            job=job,
            node=node,
            body={
                "circuit": circuit,
                "job_id": job.job_id,
                "openings": secrets.token_hex(32),
                "result": {str(j): secrets.token_hex(32) for j in (0, 1)} if model else None,
                "sealed": None if model else secrets.token_hex(32),
            },
            signature=secrets.token_hex(64),
        )
    return job


def _round(dao: Dao, people: list[Party], now: datetime) -> Round:
    at, nodes, model = now - timedelta(hours=17), _nodes(), secrets.token_hex(32)
    keys = {
        p.id: hashlib.sha256(f"breast-mass{i}".encode()).hexdigest() for i, p in enumerate(people)
    }
    said = (
        ("moments", "Round 1 is open for 6 custodians and 3 validators."),
        ("normalising", "The nodes have opened the sums over all sites; no site's own are known."),
        ("updates", "Every site has sent its update."),
        ("done", "Version 1 is made; those who made it vote on it."),
    )
    held = Round.objects.create(
        dao=dao,
        number=1,
        phase="done",
        roster={
            "members": [
                {
                    "role": "custodian" if i < len(SITES) else "validator",
                    "key": keys[p.id],
                    "name": p.name,
                }
                for i, p in enumerate(people)
            ]
        },
        roster_hash=secrets.token_hex(32),
        nodes=[node.fingerprint for node in nodes],
        circuits_hash="c1" * 32,
        features=len(FEATURES),
        strata=STRATA,
        resolution="logit",
        rows={keys[p.id]: 40 for p in people[len(SITES) :]},
        moments_job=_job("moments@1", nodes, at),
        round_job=_job("logistic_round@1", nodes, at, model=model),
        progress=[{"phase": phase, "at": at.isoformat(), "text": text} for phase, text in said],
        opened_at=at,
        expires_at=at + timedelta(hours=1),
        closed_at=at + timedelta(minutes=4),
    )
    for index, member in enumerate(people):
        custodian = index < len(SITES)
        role = "custodian" if custodian else "validator"
        Member.objects.create(round=held, party=member, role=role, key=keys[member.id])
        for stage in ("moments", "round") if custodian else ("round",):
            Submission.objects.create(
                round=held,
                stage=stage,
                slot="sums" if stage == "moments" else "update" if custodian else "holdout",
                party=member,
                share_id=secrets.token_hex(16),
                ticket={"type": "share"},
                ticket_id=secrets.token_hex(32),
                state="delivered",
                due_at=at,
            )
        if custodian:
            Score.objects.create(round=held, party=member, phi_milli=SITES[index][1])
        else:
            ScoringWork.objects.create(round=held, party=member, units=1)
    openings = {
        "auc_milli": 971,
        "auc_strata_milli": [982, 968, 912],
        "accuracy_milli": 924,
        "accuracy_strata_milli": [938, 920, 905],
        "precision_milli": 903,
        "precision_strata_milli": [921, 900, None],
        "recall_milli": 887,
        "recall_strata_milli": [909, 870, 882],
        "log_loss_milli": 201,
        "log_loss_strata_milli": [180, 214, 230],
        "log_loss_spread_milli": 262,
        "log_loss_spread_strata_milli": [240, 270, 281],
        "calibration": [[96, 4, 61], [11, 4, 298], None, None, [49, 46, 941]],
        "support": [[170, 62], [61, 22], [58, 23], [51, 17]],
    }
    ModelVersion.objects.create(
        dao=dao,
        number=1,
        round=held,
        model=model,
        evidence=evidence_of(openings, strata=STRATA, gates=dao.params["gates"]),
        status="accepted",
        decided_at=now - timedelta(hours=1),
        created_at=at,
    )
    return held


def _accepted(dao: Dao, held: Round, people: list[Party], now: datetime) -> Proposal:
    at = now - timedelta(hours=16)
    version = held.version
    proposal = _proposal(
        dao,
        "sbgt",
        "training.accept_version",
        "Accept version 1",
        at,
        payload={"version": str(version.id), "model": version.model},
        changes=[
            {"label": "Serving version", "before": "none", "after": "1"},
            {"label": "AUC", "before": "not measurable", "after": "0.971"},
            {"label": "Gate: AUC in south ≥ 0.850", "before": "", "after": "0.912, met"},
        ],
        voting_starts_at=at,
        voting_ends_at=now - timedelta(hours=2),
        concluded_at=now - timedelta(hours=2),
        executed_at=now - timedelta(hours=1),
        created_at=at,
        ref=str(version.id),
    )
    weights = {p: MICRO + phi * 1000 for p, (_, phi) in zip(people, SITES, strict=False)}
    cast = dict.fromkeys(people[:4], "for") | {people[5]: "against"}
    _vote(proposal, weights, cast, at)
    version.proposal = proposal
    version.save()
    return proposal


def query_of(listing: Listing, buyer: Party, now: datetime) -> Query:
    """One prediction that was answered and paid."""
    at, nodes, amount = now - timedelta(minutes=3), _nodes(), 500_000
    job = _job("logistic_infer@1", nodes, at)
    ident = uuid.uuid4()
    with durable():
        hold: Transfer = ledger.pend(
            ledger.Leg(
                id=uuid.uuid4(),
                debit_account=account(buyer, "USDC"),
                credit_account=account(listing.dao.party, "USDC", "revenue"),
                amount_micro=amount,
                kind="listings.query",
                ref=("listings.query", ident),
            ),
            expires_at=at + timedelta(hours=1),
            now=at,
        )
        ledger.post_pending(hold.id, now=at)
    states = ("held", "running", "settled")
    return Query.objects.create(
        id=ident,
        buyer=buyer,
        listing=listing,
        version=listing.version,
        epoch=Epoch.objects.get(dao=listing.dao, closed_at=None),
        job=job,
        hold=hold,
        rows=1,
        price_micro=amount,
        share_id=secrets.token_hex(16),
        scope=f"query:{ident.hex}",
        ticket_id=secrets.token_hex(32),
        outputs=[],
        state="settled",
        timeline=[{"state": state, "at": at.isoformat()} for state in states],
        expires_at=at + timedelta(hours=1),
        ended_at=at,
        created_at=at,
    )
