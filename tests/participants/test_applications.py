"""What an attestation must be, and who is let in."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.db import transaction

from apps.accounts.models import Party
from apps.core.errors import DomainError, Forbidden
from apps.governance import executing
from apps.governance import services as governance
from apps.governance.models import Proposal
from apps.participants import attestations, services
from apps.participants.models import Application
from apps.participants.selectors import counts, describe, roster
from apps.protocol import wire
from apps.rfms.selectors import rfm_by_slug
from apps.wallets.models import LogLeaf
from tests.governance.helpers import (
    apply,
    approved,
    at,
    attestation,
    bind_key,
    founded,
    party,
    whitelisted,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def rfm():
    author = party("Author", flai=10)
    return approved(author, author)


def test_a_signed_attestation_is_verified_at_once(rfm) -> None:
    site = party("Site")
    made = apply(rfm, site)
    assert made.status == "verified"
    assert made.public_key == site.signing_key
    assert apply(rfm, site) == made  # filing it again changes nothing
    assert counts(rfm.call) == {"custodian": 1, "validator": 0}
    leaf = LogLeaf.objects.get(type="participants.application")
    assert b"age" not in bytes(leaf.data)
    assert describe(made)["status"] == "verified"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"v": 2}, "v"),
        ({"v": True}, "v"),
        ({"rfm": "another"}, "rfm"),
        ({"pid": "00" * 16}, "pid"),
        ({"role": "validator"}, "role"),
        ({"schema_hash": "00" * 32}, "schema_hash"),
        ({"columns": ["dose", "age"]}, "columns"),
        ({"columns": ["age"]}, "columns"),
        ({"rows": 19}, "rows"),
        ({"rows": True}, "rows"),
        ({"rows": 1.5}, "rows"),
        ({"missing_ppm": -1}, "missing_ppm"),
        ({"strata": {"north": 4}}, "strata.north"),
        ({"strata": {"west": 20}}, "strata"),
        ({"strata": {"north": 99, "south": 99}}, "strata"),
        ({"dataset_commitment": "ab"}, "dataset_commitment"),
        ({"extra": 1}, "attestation"),
    ],
)
def test_what_does_not_hold_is_named(rfm, changes, field) -> None:
    site = party("Site")
    key = bind_key(site)
    content = {**attestation(rfm, site, "custodian"), **changes}
    try:
        signature = wire.sign(key, attestations.DOMAIN, content)
    except ValueError:  # not canonical at all
        signature = "00" * 64
    with pytest.raises(attestations.BadAttestation) as refused:
        services.application_file(
            actor=site,
            call=rfm.call,
            role="custodian",
            attestation=content,
            signature=signature,
            now=at(10),
        )
    assert refused.value.args_["field"] == field
    assert not Application.objects.exists()


def test_another_key_signs_nothing_here(rfm) -> None:
    site = party("Site")
    bind_key(site)
    content = attestation(rfm, site, "custodian")
    forged = wire.sign(Ed25519PrivateKey.generate(), attestations.DOMAIN, content)
    elsewhere = wire.sign(Ed25519PrivateKey.generate(), "flai/vote/v1", content)
    for signature in (forged, elsewhere, "", None, "zz" * 64):
        with pytest.raises(attestations.BadAttestation, match="signature"):
            services.application_file(
                actor=site,
                call=rfm.call,
                role="custodian",
                attestation=content,
                signature=signature,
                now=at(10),
            )


def test_one_role_and_one_application_each(rfm) -> None:
    site = party("Site")
    apply(rfm, site)
    with pytest.raises(Forbidden, match="already_applied"):
        apply(rfm, site, role="validator")
    with pytest.raises(Forbidden, match="already_applied"):
        apply(rfm, site, rows=101)


def test_a_key_is_needed_and_the_call_must_be_open(rfm) -> None:
    site = party("Keyless")
    with pytest.raises(Forbidden, match="no_signing_key"):
        services.application_file(
            actor=site, call=rfm.call, role="custodian", attestation={}, signature="", now=at(9)
        )
    with pytest.raises(Forbidden, match="call_closed"):
        services.application_file(
            actor=site, call=None, role="custodian", attestation={}, signature="", now=at(9)
        )


def test_more_participants_than_one_list_holds_are_admitted_by_several_votes() -> None:
    dao, members, _ = founded()
    crowd = Party.objects.bulk_create(
        Party(kind="organisation", name=f"Site {i}", slug=f"crowd-{i}") for i in range(997)
    )
    Application.objects.bulk_create(
        Application(
            call=dao.call,
            party=who,
            role="custodian",
            public_key=f"{i:064x}",
            attestation={"rows": 100},
            signature="00" * 64,
            filed_at=at(10),
            verified_at=at(10),
        )
        for i, who in enumerate(crowd)
    )
    made = services.whitelist_propose(dao_id=dao.id, now=at(21))
    assert [len(row.payload["applications"]) for row in made] == [500, 500, 1]
    assert [row.ref for row in made] == [f"founding:{dao.id}:{n}" for n in (1, 2, 3)]
    assert made[1].title == "Admit the first 1001 participants, part 2 of 3"
    for proposal in made:
        for member in members:
            governance.vote(actor=member, proposal_id=proposal.id, support="for", now=at(22))
        executing.advance(proposal_id=proposal.id, now=at(24))
    assert Application.objects.exclude(whitelisted_at=None).count() == 1001
    assert services.whitelist_propose(dao_id=dao.id, now=at(25)) == made


def test_who_comes_later_is_proposed_by_a_member() -> None:
    dao, members, backer = founded()
    whitelisted(dao, members)
    late = party("Late site")
    made = apply(dao_rfm(dao), late, now=at(40))
    propose = {
        "dao": dao,
        "kind": "participants.whitelist",
        "payload": {"applications": [str(made.id)]},
        "title": "Let the late site in",
        "now": at(41),
    }
    with pytest.raises(Forbidden, match="no_weight"):
        governance.propose(actor=backer, **propose)
    proposal = governance.propose(actor=members[0], **propose)
    assert proposal.changes == [
        {"label": "Late site (custodian, 100 rows)", "before": "verified", "after": "whitelisted"}
    ]
    for member in members[:3]:
        governance.vote(actor=member, proposal_id=proposal.id, support="for", now=at(42))
    executing.advance(proposal_id=proposal.id, now=at(44))
    made.refresh_from_db()
    assert made.status == "whitelisted"
    with pytest.raises(DomainError, match="not_verified"):
        governance.propose(actor=members[0], **{**propose, "now": at(50)})


def test_a_member_that_is_removed_holds_no_later_round_up() -> None:
    """Voted out by those who built the model; let in again by another vote."""
    dao, members, _ = founded()
    whitelisted(dao, members)
    absent = Application.objects.get(party=members[0])

    def decide(kind: str, when: int) -> Proposal:
        proposal = governance.propose(
            actor=members[1],
            dao=dao,
            kind=kind,
            payload={"applications": [str(absent.id)]},
            title="About one that is away",
            now=at(when),
        )
        for member in members[1:]:
            governance.vote(actor=member, proposal_id=proposal.id, support="for", now=at(when + 1))
        executing.advance(proposal_id=proposal.id, now=at(when + 3))
        absent.refresh_from_db()
        proposal.refresh_from_db()
        return proposal

    removal = decide("participants.remove", 41)
    assert removal.executed_at is not None and absent.status == "removed"
    assert removal.changes == [
        {"label": "custodian 0 (custodian, 100 rows)", "before": "whitelisted", "after": "removed"}
    ]
    assert {member.party for member in roster(dao)} == set(members[1:])
    assert counts(dao.call) == {"custodian": 2, "validator": 1}
    leaf = json.loads(bytes(LogLeaf.objects.get(type="participants.removed").data))["body"]
    assert leaf["applications"] == [str(absent.id)] and leaf["proposal"] == str(removal.id)
    with pytest.raises(DomainError, match="not_whitelisted"):
        decide("participants.remove", 50)
    with transaction.atomic(), pytest.raises(DomainError, match="not_a_member"):
        services.remove(
            dao=dao, application_ids=[str(absent.id)], proposal_id=removal.id, now=at(60)
        )
    decide("participants.whitelist", 70)
    assert absent.status == "whitelisted" and len(roster(dao)) == 4


@pytest.mark.parametrize(
    "payload",
    [{}, {"applications": []}, {"applications": ["x"]}, {"applications": [1]},
     {"applications": ["00000000-0000-4000-8000-000000000000"]}],
)  # fmt: skip
def test_a_whitelist_names_applications_of_this_subdao(payload) -> None:
    dao, members, _ = founded()
    with pytest.raises(DomainError):
        governance.propose(
            actor=members[0],
            dao=dao,
            kind="participants.whitelist",
            payload=payload,
            title="x",
            now=at(41),
        )


def dao_rfm(dao):
    return rfm_by_slug(dao.slug)


def test_inner_writers_refuse_to_run_alone(transactional_db) -> None:
    with pytest.raises(RuntimeError):
        services.call_open(slug="x", schema={}, rows_min=1, now=at(0))
