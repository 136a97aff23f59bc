"""What a round showed of each member, and the way from there to a vote on a stake and back."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from apps.accounts.models import Party
from apps.core import actions, clock
from apps.core.errors import BadInput
from apps.core.transactions import durable
from apps.exchange.vaults import stake
from apps.governance import services
from apps.training.models import Member, Round, Score, Submission
from apps.training.services import OVER
from apps.training.shown import shown_of
from apps.training.submissions import REPLACED, UNFINISHED
from apps.wallets import log
from apps.wallets.services import send
from tests.explorer import second, world
from tests.explorer.world import MICRO, World

pytestmark = pytest.mark.django_db


def custodians(of: World) -> list[Member]:
    """In roster order."""
    return list(of.round.members.filter(role="custodian").select_related("party"))


def logged(of: World) -> None:
    """The leaves of the round's beginning and end."""
    held, members = of.round, list(of.round.members.select_related("party"))
    body = {"round": str(held.id), "dao": of.dao.party.pid}
    roles = {m.party.pid: m.role for m in members}
    scored = {s.party.pid: s.phi_milli for s in held.scores.select_related("party")}
    with durable():
        log.append("training.round_opened", {**body, "members": roles}, now=clock.now())
        log.append("training.round_done", {**body, "phi_milli": scored}, now=clock.now())


def copied(of: World) -> tuple[Party, Party]:
    """(who was copied, who copied): the first of the roster committed last."""
    held, sites = of.round, custodians(of)
    sent = [held.submissions.get(stage="round", party=m.party) for m in sites]
    with durable():
        for share in reversed(sent):
            body = {"ticket": share.ticket_id}
            log.append("training.share_received", body, now=clock.now(), ref=share.ticket_id)
    job = held.round_job
    job.descriptor = {**job.descriptor, "inputs": {"update": [s.share_id for s in sent]}}
    job.openings = {"copies": [[0, 2]]}
    job.save()
    Score.objects.filter(round=held, party=sites[0].party).update(phi_milli=0)
    return sites[2].party, sites[0].party


def no(of: World, who: Party, reason: str, code: str = "") -> None:
    """A share of theirs that was refused."""
    Submission.objects.create(
        round=of.round, stage="round", slot="update", party=who, share_id=reason[:32],
        ticket={}, ticket_id="ab", state="refused", reason=reason, refusal=code,
        due_at=clock.now(),
    )  # fmt: skip


def staked(of: World, who: Party, tokens: int) -> None:
    token = of.dao.asset.code
    send(party=of.party, to=who, asset=token, amount_micro=tokens * MICRO, now=clock.now())
    stake(party=who, asset=token, amount_micro=tokens * MICRO, now=clock.now())


def said(page: str, name: str) -> str:
    """What stands beside a member's name."""
    section = page[page.index('id="showed"') :]
    [words] = re.findall(rf"<dt>{re.escape(html.escape(name))}</dt><dd>(.*?)</dd>", section)
    return html.unescape(words)


def shown_page(of: World) -> str:
    with CaptureQueriesContext(
        connection,
    ) as asked:
        page = Client().get(f"/rounds/{of.round.id}/").content.decode()
    assert len(asked) <= 12, len(asked)
    return page


def test_the_page_says_plainly_what_a_round_showed_of_each() -> None:
    of = world.build()
    Score.objects.filter(round=of.round).update(phi_milli=600)
    first, copier = copied(of)
    late = custodians(of)[1]
    Member.objects.filter(pk=late.pk).update(left_phase="updates")
    refused = custodians(of)[3].party
    no(of, refused, "A node found another commitment.", "bad_commitment")
    no(of, refused, OVER)
    page = shown_page(of)
    assert f"It sent the same update as {first.name}, later, so it scores 0." in said(
        page, copier.name
    )
    assert f"It sent the same update as {copier.name}, earlier." in said(page, first.name)
    assert "Left out: late as updates and holdouts were asked for." in said(page, late.party.name)
    assert "A share of its was refused, as a node says: A node found another commitment." in said(
        page, refused.name
    )
    assert OVER not in said(page, refused.name)
    for member in custodians(of):
        grave = member.party in (copier, refused)
        assert ("Propose to slash" in said(page, member.party.name)) == grave, member
    validator = of.round.members.filter(role="validator").first()
    assert f"<dt>{validator.party.name}</dt>" not in page


# (why a share was refused, the node's code, what is said of it)
BLAMELESS = [
    (REPLACED, "", None),
    (OVER, "", None),
    (UNFINISHED, "", "An upload of its broke off"),
    ("North: the store is full.", "store_failed", "perhaps by no fault of its: North: the store"),
    ("North sent a malformed answer.", "bad_answer", "did not take a share of its"),
    ("East: not sealed to this node.", "sealed_elsewhere", "did not take a share of its"),
]


@pytest.mark.parametrize(("reason", "code", "words"), BLAMELESS)
def test_no_button_for_an_upload_that_began_anew_or_a_node_s_fault(
    reason: str, code: str, words: str | None
) -> None:
    of = world.build()
    Score.objects.filter(round=of.round).update(phi_milli=600)
    who = custodians(of)[0].party
    no(of, who, reason, code)
    told = said(shown_page(of), who.name)
    assert "Propose to slash" not in told
    assert words in told if words else told == "φ 0.600; the median of the others 0.600."


def test_no_button_for_a_score_of_0_among_others_or_in_a_void_round() -> None:
    of = world.build()
    Score.objects.filter(round=of.round).update(phi_milli=0)
    assert "Propose to slash" not in shown_page(of)
    low = custodians(of)[0].party
    Score.objects.filter(round=of.round).exclude(party=low).update(phi_milli=500)
    assert "Propose to slash" in said(shown_page(of), low.name)
    Round.objects.filter(pk=of.round.pk).update(phase="void")
    assert "Propose to slash" not in shown_page(of)


def test_rows_in_common_are_told_as_what_they_are_and_are_no_ground_by_themselves() -> None:
    of = world.build()
    first, copier = copied(of)
    Score.objects.filter(round=of.round).update(phi_milli=600)
    held, job = of.round, of.round.round_job
    job.descriptor["inputs"] = {"rows": job.descriptor["inputs"]["update"]}
    job.save()
    held.training = "secure_sgd"
    held.save()
    for who, other, when in ((copier, first, "later, so it"), (first, copier, "earlier.")):
        found = shown_of(held, who.pid)
        assert found is not None and not found.grave
        words = " ".join(found.words)
        assert f"At least half of what was compared of the rows of one of it and {other}" in words
        assert when in words and "Who had them first can't be seen." in words


def test_a_low_score_warrants_a_vote_unless_chance_makes_such_ones() -> None:
    of = world.build()
    low = custodians(of)[0].party
    Score.objects.filter(round=of.round).update(phi_milli=500)
    Score.objects.filter(round=of.round, party=low).update(phi_milli=20)
    page = shown_page(of)
    assert "φ 0.020; the median of the others 0.500." in said(page, low.name)
    assert "Propose to slash" in said(page, low.name)
    of.round.scoring = "leave_one_out"
    of.round.save()
    assert "Propose to slash" not in shown_page(of)


def test_rounds_that_are_open_or_showed_nothing_say_nothing() -> None:
    beside = second.add(world.build())
    for held in (beside.open, beside.failed):
        assert 'id="showed"' not in Client().get(f"/rounds/{held.id}/").content.decode()


def test_from_the_round_to_a_proposal_that_cites_it_and_back() -> None:
    of = world.build()
    first, copier = copied(of)
    logged(of)
    staked(of, copier, 50)
    voter = Client()
    voter.force_login(of.buyer)
    [link] = re.findall(r'href="([^"]*propose[^"]*)"', said(shown_page(of), copier.name))
    asked = voter.get(link).content.decode()
    assert f"{copier.name} has 50 SDT-breast-mass staked." in html.unescape(asked)
    assert 'value="5"' in asked and f'value="{of.round.id}"' in asked
    assert f"same update as {first.name}" in html.unescape(asked)
    fields = {
        "kind": "exchange.slash", "to": copier.slug, "amount": "5", "round": str(of.round.id),
        "title": "Slash", "description": "It copied.",
        "once": "7c9c1f1e-6f0a-4a59-9a36-1b1d7d3c5f10",
    }  # fmt: skip
    here = f"/subdaos/{of.dao.slug}/propose/"
    seen = voter.post(here, fields).content.decode()
    assert "<del>50 SDT-breast-mass</del><ins>45 SDT-breast-mass</ins>" in seen
    assert f"<ins>{of.round.id}, φ 0.000</ins>" in seen
    payload = {
        "party": copier.pid, "amount_micro": str(5 * MICRO), "round": str(of.round.id),
        "phi_milli": "0",
    }  # fmt: skip
    with durable():
        proposal = services.propose_by_system(
            dao=of.dao, kind="exchange.slash", payload=payload, title="Slash", now=clock.now()
        )
    with CaptureQueriesContext(connection) as queries:
        page = voter.get(f"/proposals/{proposal.id}/").content.decode()
    assert len(queries) <= 12, len(queries)
    assert f'href="/rounds/{of.round.id}/#showed"' in page
    assert f"same update as {first.name}, later" in html.unescape(page)


def test_who_has_nothing_staked_is_said_to_have_nothing() -> None:
    of = world.build()
    _, copier = copied(of)
    voter = Client()
    voter.force_login(of.buyer)
    about = {"party": copier.pid, "round": str(of.round.id)}
    here = f"/subdaos/{of.dao.slug}/propose/"
    page = voter.get(here, {"kind": "exchange.slash", **about}).content.decode()
    assert "nothing staked here" in page
    points = voter.get(here, {"kind": "subdaos.revoke", **about}).content.decode()
    assert f'value="{copier.slug}"' in points and "later, so it scores 0" in points
    for nonsense in ({"party": "x"}, {"party": copier.pid, "round": "x"}):
        assert voter.get(here, {"kind": "exchange.slash", **nonsense}).status_code == 200


CITES: list[tuple[dict[str, Any], str | None]] = [
    ({}, None),
    ({"round": True, "phi_milli": "0"}, None),
    ({"round": True}, "other_phi"),
    ({"round": True, "phi_milli": "1"}, "other_phi"),
    ({"phi_milli": "0"}, "other_phi"),
    ({"round": "00000000-0000-0000-0000-000000000000", "phi_milli": "0"}, "no_such_round"),
    ({"round": True, "phi_milli": "0", "why": "so"}, "bad_payload"),
    ({"round": 7}, "bad_payload"),
]


def test_a_slashing_cites_what_the_log_has_or_is_refused() -> None:
    of = world.build()
    _, copier = copied(of)
    staked(of, copier, 50)
    slash = actions.get("exchange.slash")
    base = {"party": copier.pid, "amount_micro": "1"}
    with pytest.raises(BadInput, match="no_such_round"):
        slash.validate(base | {"round": str(of.round.id), "phi_milli": "0"}, of.dao)
    logged(of)
    for more, code in CITES:
        if more.get("round") is True:
            more = more | {"round": str(of.round.id)}
        if code is None:
            assert slash.validate(base | more, of.dao) == base | more
            continue
        with pytest.raises(BadInput) as refused:
            slash.validate(base | more, of.dao)
        assert refused.value.code == code, more
