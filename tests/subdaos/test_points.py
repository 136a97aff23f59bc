"""Soul-bound points: append only, answerable for any past moment, never transferred."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from apps.core.errors import DomainError
from apps.core.transactions import durable
from apps.subdaos import selectors, services
from apps.subdaos.bootstrap import make_superdao
from apps.subdaos.models import Dao, SbgtCheckpoint
from tests.governance.helpers import MICRO, at, founded, party, submitted

pytestmark = pytest.mark.django_db


def test_the_past_stays_answerable() -> None:
    dao, members, _ = founded()
    who = members[0]
    with durable():
        services.sbgt_mint(dao=dao, party=who, points_micro=500_000, reason="phi", now=at(30))
        services.sbgt_set(dao=dao, party=who, points_micro=0, reason="exit", now=at(40))
    assert selectors.points_of(dao, who, at(19)) == 0
    assert selectors.points_of(dao, who, at(29)) == MICRO
    assert selectors.points_of(dao, who, at(30)) == 1_500_000
    assert who.id not in selectors.points_at(dao, at(40))
    assert selectors.points_at(dao, at(39))[who.id] == 1_500_000
    assert SbgtCheckpoint.objects.filter(dao=dao, party=who).count() == 3


def test_a_members_time_never_runs_backwards() -> None:
    dao, members, _ = founded()
    with durable():
        late = services.sbgt_set(
            dao=dao, party=members[0], points_micro=5, reason="phi", now=at(50)
        )
        early = services.sbgt_set(
            dao=dao, party=members[0], points_micro=6, reason="phi", now=at(45)
        )
    assert early.at == late.at
    assert selectors.points_of(dao, members[0], at(50)) == 6


def test_there_is_one_superdao_and_no_asset_of_its_own() -> None:
    dao = selectors.superdao()
    assert (dao.slug, dao.asset, dao.params["voting_period_min_s"]) == ("superdao", None, 3)
    assert Dao.objects.filter(kind="super").count() == 1


def test_the_shortest_vote_on_a_request_is_the_sites_setting(settings) -> None:
    settings.VOTING_PERIOD_MIN_S = 7200
    Dao.objects.filter(kind="super").delete()
    for _ in range(2):
        make_superdao(using="default")
    vote = submitted(party("Author"), governance={"voting_period_s": 3}).proposal
    assert (vote.voting_ends_at - vote.voting_starts_at).total_seconds() == 7200


@pytest.mark.parametrize(
    ("given", "said"),
    [("", "3600"), ("60", "60"), ("0", "is no number"), ("-1", "is no number"), ("²", "is no")],
)
def test_a_site_that_says_nothing_gives_votes_an_hour(given, said) -> None:
    code = "from flai_site import settings; print(settings.VOTING_PERIOD_MIN_S)"
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "FLAI_VOTING_PERIOD_MIN_S": given},
        capture_output=True,
        text=True,
    )
    assert said in ran.stdout + ran.stderr


def test_epochs_follow_one_another_and_close_once() -> None:
    dao, _, _ = founded()
    with durable():
        first = services.epoch_open(dao=dao, now=at(30))
        assert services.epoch_open(dao=dao, now=at(31)) == first
        services.epoch_close(epoch=first, dao=dao, revenue_micro=7, now=at(40))
        services.epoch_divided(epoch=first, settlement={"a": 1})
        with pytest.raises(DomainError, match="epoch_closed"):
            services.epoch_close(epoch=first, dao=dao, revenue_micro=8, now=at(41))
        with pytest.raises(DomainError, match="epoch_divided"):
            services.epoch_divided(epoch=first, settlement={})
        second = services.epoch_open(dao=dao, now=at(41))
    assert (first.number, second.number) == (1, 2)
    assert second.ends_at == at(51)
    assert selectors.current_epoch(dao) == second


def test_an_unknown_parameter_is_not_made_up() -> None:
    dao, _, _ = founded()
    with durable(), pytest.raises(DomainError, match="unknown_parameter"):
        services.param_set(dao=dao, key="colour", value="red", proposal_id=dao.id, now=at(30))


def test_inner_writers_refuse_to_run_alone(transactional_db) -> None:
    dao = selectors.superdao()
    with pytest.raises(RuntimeError):
        services.sbgt_set(dao=dao, party=dao.party, points_micro=1, reason="x", now=at(0))
    with pytest.raises(RuntimeError):
        services.epoch_open(dao=dao, now=at(0))
