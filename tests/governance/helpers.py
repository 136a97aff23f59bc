"""People, a request and its participants, made by the services alone.

The clock is handed in, so a test says when things happen: `at(5)` is five seconds after T0.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.db import connection

from apps.accounts.models import Party
from apps.accounts.services import party_create
from apps.core.transactions import durable
from apps.exchange.vaults import stake
from apps.governance import executing
from apps.governance import services as governance
from apps.participants import attestations
from apps.participants.models import Application
from apps.participants.services import application_file, whitelist_propose
from apps.protocol import wire
from apps.rfms import services as rfms
from apps.rfms.models import Rfm
from apps.rfms.selectors import rfm_by_slug
from apps.subdaos.models import Dao
from apps.wallets.keys import key_bind
from apps.wallets.models import Account
from apps.wallets.services import account, faucet

MICRO = 1_000_000
T0 = datetime(2026, 3, 1, 12, tzinfo=UTC)
KEYS: dict[str, Ed25519PrivateKey] = {}

SPEC: dict[str, Any] = {
    "objective": "Predict response",
    "features": [{"name": "age", "unit": "a", "min": 0, "max": 120}, {"name": "dose"}],
    "label": {"name": "response"},
    "strata": {"column": "region", "values": ["north", "south"]},
    "gates": [{"metric": "auc", "min_milli": 850, "per_stratum": True}],
    "governance": {"voting_period_s": 3, "epoch_s": 10},
    "price_micro": "500000",
    "funding": {"target_micro": str(1_000 * MICRO), "deadline_s": 600},
}


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def party(
    name: str, *, usdc: int = 0, flai: int = 0, kind: str = "organisation", now: datetime = T0
) -> Party:
    """With `usdc` tokens in its main account and `flai` staked."""
    with durable():
        made = party_create(kind=kind, name=name, now=now)
    if usdc:
        faucet(party=made, asset="USDC", amount_micro=usdc * MICRO, now=now)
    if flai:
        faucet(party=made, asset="FLAI", amount_micro=flai * MICRO, now=now)
        stake(party=made, asset="FLAI", amount_micro=flai * MICRO, now=now)
    return made


def bind_key(who: Party) -> Ed25519PrivateKey:
    key = Ed25519PrivateKey.generate()
    public = wire.public_hex(key)
    signature = wire.sign(key, "flai/party-key/v1", {"pid": who.pid, "public_key": public})
    key_bind(party=who, purpose="agent", public_key=public, signature=signature, now=T0)
    KEYS[who.pid] = key
    return key


def balance(who: Party, asset: str = "USDC", purpose: str = "main") -> int:
    found = Account.objects.filter(owner=who, asset__code=asset, purpose=purpose).first()
    return found.posted_micro if found else 0


def submitted(author: Party, *, title: str = "", now: datetime = T0, **changes: Any) -> Rfm:
    title = title or f"Model {secrets.token_hex(3)}"
    rfm = rfms.rfm_create(submitter=author, title=title, spec={**SPEC, **changes}, now=now)
    return rfms.rfm_submit(actor=author, slug=rfm.slug, now=now)


def approved(author: Party, voter: Party, **changes: Any) -> Rfm:
    """Voted as soon as voting opens, approved when it ends (3 s, if nothing else is said)."""
    rfm = submitted(author, **changes)
    vote = rfm.proposal
    governance.vote(actor=voter, proposal_id=vote.id, support="for", now=vote.voting_starts_at)
    executing.advance(proposal_id=vote.id, now=vote.voting_ends_at)
    return rfm_by_slug(rfm.slug)


def attestation(rfm: Rfm, who: Party, role: str, **changes: Any) -> dict[str, Any]:
    return {
        "v": 1,
        "rfm": rfm.slug,
        "pid": who.pid,
        "role": role,
        "schema_hash": rfm.call.schema_hash,
        "rows": 100,
        "columns": ["age", "dose"],
        "missing_ppm": 0,
        "strata": {"north": 60, "south": None},
        "dataset_commitment": "ab" * 32,
        **changes,
    }


def apply(
    rfm: Rfm, who: Party, role: str = "custodian", now: datetime | None = None, **changes: Any
) -> Application:
    key = KEYS.get(who.pid) or bind_key(who)
    content = attestation(rfm, who, role, **changes)
    signature = wire.sign(key, attestations.DOMAIN, content)
    return application_file(
        actor=who,
        call=rfm.call,
        role=role,
        attestation=content,
        signature=signature,
        now=now or at(10),
    )


def with_participants(rfm: Rfm, custodians: int = 3, validators: int = 1) -> list[Party]:
    names = [("custodian", i) for i in range(custodians)] + [
        ("validator", i) for i in range(validators)
    ]
    people = []
    for role, index in names:
        who = party(f"{role} {index}")
        apply(rfm, who, role)
        people.append(who)
    return people


def founded(**changes: Any) -> tuple[Dao, list[Party], Party]:
    """(SubDAO, its four members, its one backer), awarded at 20 s."""
    author, backer = party("Author", flai=100), party("Backer", usdc=5_000)
    rfm = approved(author, author, **changes)
    members = with_participants(rfm)
    rfms.pledge(party=backer, slug=rfm.slug, amount_micro=1_000 * MICRO, now=at(15))
    dao = rfms.award(rfm_id=rfm.id, now=at(20))
    return dao, members, backer


def whitelisted(dao: Dao, members: list[Party]) -> None:
    (proposal,) = whitelist_propose(dao_id=dao.id, now=at(21))
    for member in members:
        governance.vote(actor=member, proposal_id=proposal.id, support="for", now=at(22))
    executing.advance(proposal_id=proposal.id, now=at(24))


def treasury(dao: Dao) -> int:
    return account(dao.party, "USDC", "treasury").posted_micro


def together(*calls: Callable[[], Any]) -> list[Any]:
    """Run the calls at once, each in a thread with its own connection.

    Returns results, or the exceptions in their place.
    """
    results: list[Any] = [None] * len(calls)
    start = threading.Barrier(len(calls))

    def run(index: int, call: Callable[[], Any]) -> None:
        try:
            start.wait(timeout=60)
            results[index] = call()
        except Exception as error:  # handed back to the test
            results[index] = error
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=item) for item in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    return results
