"""A round's page while it goes on and after: times, bytes, plots over rounds, points, record."""

from __future__ import annotations

import re
import secrets
from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from apps.explorer import charts
from apps.explorer.formatting import size
from apps.protocol.tickets import GCM_TAG_BYTES
from apps.subdaos.models import SbgtCheckpoint
from apps.training.models import ModelVersion, Round, Score
from tests.explorer import second, world

pytestmark = pytest.mark.django_db
QUERIES_MAX = 12


def page_of(held: Round) -> str:
    with CaptureQueriesContext(connection) as asked:
        page = Client().get(f"/rounds/{held.id}/").content.decode()
    assert len(asked) <= QUERIES_MAX, len(asked)
    return page


def test_phases_say_how_long_they_took_and_the_present_one_since_when() -> None:
    held = world.build().round
    held.progress = [
        {"phase": phase, "at": (held.opened_at + timedelta(seconds=at)).isoformat(), "text": "So."}
        for phase, at in (("moments", 0), ("normalising", 35), ("updates", 60), ("computing", 170))
    ]
    held.save()
    strip = page_of(held).partition('<ol class="strip">')[2].partition("</ol>")[0]
    for title, took in (
        ("Sum up", "35 s"), ("Normalise", "25 s"), ("Train", "1 min 50 s"),
        ("Compute", "1 min 10 s"),
    ):  # fmt: skip
        assert f'{title}</span><span class="at">{took}</span>' in strip
    assert 'Result</span><span class="at"><time' in strip


ENDS = [
    ("failed", ["moments"], "bad - - - bad"),
    ("failed", ["moments", "normalising", "updates"], "done done bad - bad"),
    ("void", ["moments", "normalising", "updates", "computing"], "done done done done bad"),
    ("done", ["moments", "normalising", "updates", "computing"], "done done done done done"),
]


@pytest.mark.parametrize(("phase", "begun", "states"), ENDS)
def test_a_round_that_ended_badly_has_done_only_what_it_came_to(
    phase: str, begun: list[str], states: str
) -> None:
    held = world.build().round
    held.phase, at = phase, held.opened_at.isoformat()
    held.progress = [{"phase": name, "at": at, "text": "So."} for name in [*begun, phase]]
    held.save()
    strip = page_of(held).partition('<ol class="strip">')[2].partition("</ol>")[0]
    assert [name or "-" for name in re.findall(r'<li class="(.*?)"', strip)] == states.split()


def test_an_upload_shows_its_bytes_until_it_is_here() -> None:
    held = second.add(world.build()).open
    share = held.submissions.get(state="receiving")
    share.ticket, share.offset_bytes = {"shape": [1_000_000]}, 3_000_000
    share.save()
    page = page_of(held)
    whole = 8_000_000 + GCM_TAG_BYTES
    assert "3.0 MB of 8.0 MB" in page
    assert f'<progress max="{whole}" value="3000000"' in page
    assert page.count("<progress") == 1
    assert [size(n) for n in (264, 8_016, 2_500_000)] == ["264 bytes", "8.0 kB", "2.5 MB"]


def test_the_rounds_before_stand_beside_it_with_points_and_the_curve() -> None:
    of = world.build()
    held, sites = of.round, list(of.round.members.filter(role="custodian"))
    held.number = 3
    held.save()
    early = second._round(of.dao, [m.party for m in held.members.all()], 1, "done", held.opened_at)
    second._round(of.dao, [m.party for m in held.members.all()], 4, "failed", held.opened_at)
    evidence = held.version.evidence
    ModelVersion.objects.create(
        dao=of.dao, number=9, round=early, model=secrets.token_hex(32), status="rejected",
        evidence=evidence | {"auc_milli": 871, "intervals": {}},
        decided_at=held.closed_at, created_at=held.opened_at,
    )  # fmt: skip
    Score.objects.create(round=early, party=sites[0].party, phi_milli=123)
    evidence["training"] = {"improved": [1, 1, 0], "curve_milli": [210, 320, 300]}
    held.version.save()
    for member, reason in ((sites[0], "round"), (sites[1], "decay")):
        SbgtCheckpoint.objects.create(
            dao=of.dao, party=member.party, at=held.closed_at, points_micro=2_500_000,
            reason=reason, ref=str(held.id),
        )  # fmt: skip
    page = page_of(held)
    history = page[page.index('id="history"') : page.index('id="showed"')]
    assert "AUC of what each round made" in history and "gate 0.850" in history
    low, high = evidence["intervals"]["auc"]["all"]
    assert (
        f'<th>Round 3</th><td class="num">0.971</td><td class="num">0.{low} to 0.{high}' in history
    )
    assert '<th>Round 1</th><td class="num">0.871</td><td class="num">—</td>' in history
    assert "Round 4" not in history
    assert "0.123" in history and "took part" in history and "sat it out" in history
    assert '<th>Epoch 2</th><td class="num">0.320</td>' in page
    assert f'href="/api/v1/rounds/{held.id}/record/"' in page
    assert f'href="/api/v1/rounds/{held.id}/scores.csv"' in page


def test_a_first_round_that_has_nothing_yet_shows_no_empty_plots() -> None:
    beside = second.add(world.build())
    ModelVersion.objects.filter(dao=beside.open.dao).update(evidence={"gates": []})
    page = page_of(beside.open)
    assert 'id="history"' not in page and "Record" not in page
    assert "Record" in page_of(beside.failed)


def test_a_trace_has_whole_steps_about_what_it_shows_and_breaks_where_nothing_is() -> None:
    drawn = charts.trace([871, None, 930], [(801, 915), None, None], goal=850)
    assert (drawn.low, drawn.high, drawn.goal_y) == (800, 1000, 120)
    assert drawn.line == "M0 103M1000 56"
    assert [(s.x, s.y, s.ends) for s in drawn.spots] == [(0, 103, (159, 68)), (1000, 56, None)]
    assert charts.trace([500]).spots[0].x == 500
    assert (charts.trace([None]).low, charts.trace([None]).high) == (0, 100)
    assert charts.trace([-40, 20]).low == -100
