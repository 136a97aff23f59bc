"""What a stake unlocks around requests: funding them first, and forking a model."""

from __future__ import annotations

import copy
import json
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.test import Client

from apps.accounts.models import Membership, Party, User
from apps.core.errors import DomainError
from apps.exchange.vaults import stake
from apps.governance import executing
from apps.governance import services as governance
from apps.protocol import tally
from apps.rfms import services as rfms
from apps.rfms.models import Rfm, Status
from apps.rfms.permissions import can_fork, can_pledge
from apps.rfms.selectors import rfm_by_slug
from apps.subdaos.selectors import describe, superdao
from apps.wallets.models import LogLeaf, Transfer
from apps.wallets.services import send
from tests.governance.helpers import (
    MICRO,
    SPEC,
    approved,
    at,
    balance,
    founded,
    party,
    with_participants,
)
from workers.client.replay import replay

pytestmark = pytest.mark.django_db


def leaves() -> list[dict[str, Any]]:
    rows = LogLeaf.objects.order_by("id").values_list("data", flat=True)
    return [json.loads(bytes(data)) for data in rows]


def errors(said: list[dict[str, Any]]) -> list[str]:
    return replay(said).findings.errors


def forged(said: list[dict[str, Any]], kind: str, /, **changes: Any) -> list[str]:
    """What the auditor says when the last leaf of this kind says something else."""
    changed = copy.deepcopy(said)
    [leaf] = [row for row in changed if row["type"] == kind][-1:]
    leaf["body"].update(changes)
    return errors(changed)


def page(who: Party, path: str) -> str:
    user, _ = User.objects.get_or_create(email=f"{who.slug}@example.org")
    Membership.objects.get_or_create(user=user, party=who)
    client = Client()
    client.force_login(user)
    return client.get(path).content.decode()


def carried(voters: list[Party], **asked: Any) -> Any:
    made = governance.propose(actor=voters[0], title="Do it", **asked)
    for who in voters:
        governance.vote(actor=who, proposal_id=made.id, support="for", now=made.voting_starts_at)
    made.refresh_from_db()
    executing.advance(proposal_id=made.id, now=made.voting_ends_at)
    return made


def test_stakers_fund_a_request_before_everybody_may() -> None:
    voter, small = party("Voter", flai=90_000, usdc=50), party("Small", flai=9, usdc=50)
    late = party("Late", usdc=50)
    opens = {"sponsoring": {"first_s": 60, "stake_bps": 1_000}}
    dao = superdao()
    with pytest.raises(DomainError, match="bad_sponsoring"):
        governance.preview(dao=dao, kind="subdaos.set_sponsoring", payload={"sponsoring": {}})
    made = carried([voter], dao=dao, kind="subdaos.set_sponsoring", payload=opens, now=at(0))
    assert superdao().params["sponsoring"] == opens["sponsoring"]
    start = made.voting_ends_at
    rfm = approved(voter, voter, now=start)
    opened = rfm.crowdfund.opened_at

    def pledge(who: Party, now: datetime) -> Any:
        return rfms.pledge(party=who, slug=rfm.slug, amount_micro=MICRO, now=now)

    before = Transfer.objects.count()
    for who in (late, small):
        with pytest.raises(DomainError, match="stakers_first"):
            pledge(who, opened)
    assert Transfer.objects.count() == before and balance(late) == 50 * MICRO
    # A tenth of the 90 009 that there are.
    assert "you lack 8,991.9 FLAI" in can_pledge(small, rfm, opened).text
    assert "8,991.9" in page(small, "/vaults/FLAI/")
    pledge(voter, opened)
    end = opened + timedelta(seconds=60)
    assert can_pledge(late, rfm, end - timedelta(milliseconds=1)) is not None
    pledge(late, end)
    said = leaves()
    assert errors(said) == []
    early_pledge = [row for row in said if row["type"] == "rfms.pledged"][-1]
    early_pledge["at"] -= 1
    assert any("before its backer might" in line for line in errors(said))


def test_who_has_staked_forks_a_model_by_vote_of_its_members() -> None:
    dao, members, backer = founded()
    code, author = dao.asset.code, party("Author of the fork")
    spec = {**SPEC, "objective": "For children only", "parent": dao.slug}
    with pytest.raises(DomainError, match="bad_spec"):
        rfms.rfm_create(
            submitter=author, title="Other class", now=at(30),
            spec={**spec, "model_class": "linear", "label": {"name": "days", "min": 0, "max": 9},
                  "gates": []},
        )  # fmt: skip
    with pytest.raises(DomainError, match="bad_spec"):
        rfms.rfm_create(
            submitter=author, title="Of nothing", spec=spec | {"parent": "nothing"}, now=at(30)
        )
    made = rfms.rfm_create(submitter=author, title="Response of children", spec=spec, now=at(30))

    def submit() -> Rfm:
        return rfms.rfm_submit(actor=author, slug=made.slug, now=at(40))

    with pytest.raises(DomainError, match="stake_needed"):
        submit()
    supply = -sum(
        dao.asset.accounts.filter(purpose="issuance").values_list("posted_micro", flat=True)
    )
    needed = -(-supply * dao.params["unlocks"]["stake_bps"] // 10_000)
    send(party=backer, to=author, asset=code, amount_micro=needed, now=at(31))
    stake(party=author, asset=code, amount_micro=needed - 1, now=at(32))
    denied = can_fork(author, dao, at(40))
    assert denied is not None and f"you lack 0.000001 {code}" in denied.text
    seen = page(author, f"/rfms/{made.slug}/")
    assert "you lack 0.000001" in seen and f"Send to the vote of {dao.name}" in seen
    assert "you lack" in page(author, f"/vaults/{code}/")
    form = page(author, f"/rfms/new/?fork={dao.slug}")
    assert f'name="parent" value="{dao.slug}"' in form and SPEC["objective"] in form
    stake(party=author, asset=code, amount_micro=1, now=at(33))
    assert "Your stake unlocks early access and forks" in page(author, f"/vaults/{code}/")

    proposal = submit().proposal
    assert (proposal.dao, proposal.kind, proposal.house) == (dao, "rfms.fork", "sbgt")
    with pytest.raises(DomainError, match="no_weight"):  # stakers of FLAI don't decide on it
        governance.vote(
            actor=party("Other", flai=100), proposal_id=proposal.id, support="for",
            now=proposal.voting_starts_at,
        )  # fmt: skip
    for who in members:
        governance.vote(
            actor=who, proposal_id=proposal.id, support="for", now=proposal.voting_starts_at
        )
    executing.advance(proposal_id=proposal.id, now=proposal.voting_ends_at)
    rfm = rfm_by_slug(made.slug)
    assert rfm.status is Status.FUNDING
    with_participants(rfm)
    rfms.pledge(
        party=backer, slug=rfm.slug, amount_micro=1_000 * MICRO, now=rfm.crowdfund.opened_at
    )
    fork = rfms.award(rfm_id=rfm.id, now=rfm.crowdfund.opened_at + timedelta(seconds=9))
    assert fork.parent == dao and describe(fork, at(90))["parent"] == dao.slug
    assert f'A fork of <a href="/subdaos/{dao.slug}/"' in page(author, f"/subdaos/{fork.slug}/")
    said = leaves()
    assert errors(said) == []
    assert forged(said, "subdaos.founded", parent=None)
    pid = members[0].pid
    assert any("not staked enough" in e for e in forged(said, "governance.proposal", proposer=pid))
    # The vote that a request stands on is its own, about it, of the right house, and carried out.
    other = Rfm.objects.get(subdao=dao).proposal
    elsewhere = tally.payload_hash(
        dao=dao.party.pid, kind="rfms.fork", payload={"rfm": "ee", "spec_hash": rfm.spec_hash}
    )
    for kind, changes, text in (
        ("rfms.approved", {"proposal": str(other.id)}, "that is not its own"),
        ("rfms.submitted", {"spec_hash": "00" * 32}, "about something else"),
        ("rfms.submitted", {"submitter": pid}, "about something else"),
        ("governance.proposal", {"house": "sdt"}, "about something else"),
        ("governance.proposal", {"kind": "rfms.approve"}, "about something else"),
        ("governance.proposal", {"payload_hash": elsewhere}, "about something else"),
        ("governance.executed", {"proposal": str(other.id)}, "that was not carried out"),
    ):
        found = forged(said, kind, **changes)
        assert any(text in line for line in found), (kind, changes, found)


def test_a_request_of_nobody_else_is_forked_by_the_superdao_alone() -> None:
    """A plain request goes to the SuperDAO, and no member makes either kind by hand."""
    dao, members, _ = founded()
    rfm = Rfm.objects.get(subdao=dao)
    for kind, where in (("rfms.fork", dao), ("rfms.approve", superdao())):
        with pytest.raises(DomainError, match="system_only"):
            governance.propose(
                actor=members[0], dao=where, kind=kind, title="By hand", now=at(30),
                payload={"rfm": str(rfm.id), "spec_hash": rfm.spec_hash},
            )  # fmt: skip
