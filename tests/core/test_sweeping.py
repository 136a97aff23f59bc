"""A sweep's batch is for rows that can be done: those that can't rest, longer each time."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from apps.accounts.models import Party
from apps.core import sweeping

pytestmark = pytest.mark.django_db

START = datetime(2030, 1, 1, tzinfo=UTC)
BATCH = 20
LOG = logging.getLogger("tests.sweeping")


@pytest.fixture(autouse=True)
def nothing_rests() -> Iterator[None]:
    sweeping._resting.clear()
    yield
    sweeping._resting.clear()


class Sweep:
    """Parties as what is due; those named bad raise, the others are done and due no more."""

    def __init__(self, bad: int, good: int) -> None:
        for place in range(bad + good):
            name = "bad" if place < bad else "good"
            Party.objects.create(kind="person", name=name, slug=f"p-{place:03}")
        self.tried: list[str] = []
        self.cured = False

    def run(self, after_s: float) -> int:
        self.tried = []
        due = Party.objects.filter(slug__startswith="p-").order_by("slug")
        now = START + timedelta(seconds=after_s)
        return sweeping.each(due, self.step, now=now, limit=BATCH, log=LOG, what="test")

    def step(self, id_: object) -> bool:
        row = Party.objects.get(pk=id_)
        self.tried.append(row.slug)
        if row.name == "bad" and not self.cured:
            raise RuntimeError("for good")
        row.delete()
        return True


def test_a_batch_full_of_bad_rows_lets_the_others_have_their_turn() -> None:
    sweep = Sweep(bad=BATCH + 5, good=3)
    assert sweep.run(0) == 0
    assert sweep.run(1) == 3
    assert not Party.objects.filter(name="good").exists()


def test_a_bad_row_rests_longer_each_time_and_is_never_given_up() -> None:
    sweep = Sweep(bad=1, good=0)
    tries = []
    for second in range(1200):
        sweep.run(second)
        tries += [second] * len(sweep.tried)
    waits = [later - earlier for earlier, later in pairwise(tries)]
    assert waits[:5] == [2, 4, 8, 16, 32]
    assert max(waits) == sweeping.REST_S_MAX


def test_a_row_that_is_cured_is_done_and_forgotten() -> None:
    sweep = Sweep(bad=1, good=0)
    sweep.run(0)
    sweep.cured = True
    assert sweep.run(1) == 0 and sweep.run(2) == 1
    assert sweeping._resting["test"] == {}


def test_what_rests_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "RESTING_MAX", 4)
    Sweep(bad=10, good=0).run(0)
    assert len(sweeping._resting["test"]) == 4
