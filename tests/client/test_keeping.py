"""What an agent knows of the holdout that nodes keep for it (M-FL1): by its journal alone."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from apps.protocol import uploads
from apps.protocol.jobs import fingerprint
from tests.support.nodes import NodeSet
from workers.client import keeping
from workers.client.agent import Agent
from workers.client.nodes import NotTrusted
from workers.client.outbox import Outbox

WORDS = np.arange(12).reshape(3, 4)
HOUR, DAY = 3600, 86_400


def journal(*more: dict[str, Any], kept: bool = True) -> list[dict[str, Any]]:
    keeps = keeping.named(WORDS, {"salt": "ab" * 16})
    left = {"event": "leaving", "at": 1, "subdao": "s", "round": "r1", "share_id": "a"}
    return [
        left | {"keeps": keeps},
        {"event": "delivered", "share_id": "a", "kept": kept},
        *more,
    ]


def again(share_id: str, round_id: str) -> dict[str, Any]:
    left = {"event": "leaving", "at": 2, "subdao": "s", "round": round_id}
    return left | {"share_id": share_id, "kept_from": "a"}


@pytest.mark.parametrize(
    ("entries", "there"),
    [
        (journal(), True),
        (journal(kept=False), False),
        (journal()[:1], False),
        (journal(again("b", "r2"), {"event": "delivered", "share_id": "b"}), True),
        (journal(again("b", "r2"), {"event": "refused", "share_id": "b"}), False),
        (journal(again("b", "r2"), {"event": "withdrawing", "share_id": "b"}), False),
        (journal({"event": "withdrawing", "share_id": "a"}), False),
        (journal({"event": "refused", "share_id": "of another"}), True),
    ],
)
def test_the_journal_says_whether_the_nodes_keep_it(entries: Any, there: bool) -> None:
    found = keeping.standing_of(entries, "s")
    assert found is not None and found.there is there
    assert keeping.standing_of(entries, "another") is None


def test_until_all_nodes_have_signed_that_it_is_gone_it_may_lie_there() -> None:
    asked = journal(again("b", "r2"), {"event": "withdrawing", "share_id": "b"})
    found = keeping.standing_of(asked, "s")
    assert found is not None and found.lies and not found.there
    found = keeping.standing_of([*asked, {"event": "withdrawn", "share_id": "b"}], "s")
    assert found is not None and not found.lies


ANEW = {"event": "leaving", "subdao": "s", "round": "r3", "share_id": "c", "stage": "round"}
ASKED = {"event": "withdrawing", "share_id": "b"}


@pytest.mark.parametrize(
    ("entries", "open_round", "days", "where"),
    [
        (journal(), None, 1, ["r1"]),
        (journal(), "r2", 1, ["r1"]),  # nothing was sent there
        (journal(again("b", "r2")), "r2", 1, ["r2"]),  # which is to use it
        (journal(again("b", "r2")), "r3", 1, ["r1"]),  # whose ticket lasts longest
        (journal(again("b", "r2"), ASKED), None, 1, ["r1"]),  # no node has signed
        (journal(again("b", "r2"), ANEW), "r3", 1, ["r3", "r1"]),  # what is not to stay, and it
        (journal(again("b", "r2"), ANEW), "r3", 31, ["r3"]),  # it is gone by then
    ],
)
def test_what_is_taken_back_without_a_rounds_name(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    entries: Any,
    open_round: str | None,
    days: int,
    where: list[str],
) -> None:
    (tmp_path / "uploads").mkdir()
    head = {"ticket": {"expires_at": 30 * DAY}, "signature": "", "envelopes": []}
    (tmp_path / "uploads" / "a.share").write_bytes(uploads.head_line(head))
    home = SimpleNamespace(path=tmp_path, journal=[{"upload": "a.share"} | e for e in entries])
    outbox = Outbox(home, "validator", api=None, say=print, dry_run=False)  # type: ignore[arg-type]
    monkeypatch.setattr(keeping.time, "time", lambda: days * DAY)
    went: list[str] = []
    monkeypatch.setattr(Outbox, "withdraw", lambda _, held: went.append(held["id"]))
    agent = Agent.__new__(Agent)
    vars(agent).update(home=home)
    monkeypatch.setattr(agent, "_outbox", lambda: outbox)
    monkeypatch.setattr(agent, "_open_round", lambda subdao: open_round)
    monkeypatch.setattr(agent, "round_of", lambda *, subdao, round_id: {"id": round_id})
    agent.withdraw(subdao="s")
    assert went == where


def test_a_share_of_later_takes_the_place_of_an_earlier_one() -> None:
    new = {**journal()[0], "share_id": "n", "round": "r2"}
    found = keeping.standing_of(journal(again("b", "r2"), new), "s")
    assert found is not None and (found.share_id, found.rounds, found.there) == ("n", ["r2"], False)


@pytest.fixture
def asked(three_nodes: NodeSet) -> Any:
    """(the ticket that they came with, what the round asks): alike."""
    params = {"features": 2, "strata": 1, "normalisation": "ab" * 32, "rows": [3]}
    nodes = three_nodes.descriptors
    ticket = {"nodes": [fingerprint(node) for node in nodes], "engine": "ring", "uses": 2}
    ticket |= {"circuits_hash": "c", "params": params, "expires_at": time.time() + HOUR}
    facts = {"nodes": nodes, "engine": "ring", "release": "c", "name": "holdout"}
    return ticket, SimpleNamespace(**facts, params={**params, "rows": [3, 9]})


def why_not(asked: Any, *, words: Any = WORDS, round_id: str = "r2", **joined: Any) -> str | None:
    ticket, wanted = asked
    vars(wanted).update(joined)
    found = keeping.standing_of(journal(), "s")
    assert found is not None
    return found.why_not(ticket, wanted, words, round_id)


def test_the_same_rows_are_not_shared_again(asked: Any) -> None:
    assert why_not(asked) is None and why_not(asked, round_id="r1") is None


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"words": WORDS + 1}, "they changed"),
        ({"words": WORDS.reshape(4, 3)[:, [1, 0, 2]]}, "they changed"),
        ({"nodes": []}, "nodes are others"),
        ({"engine": "ring_verified"}, "engine or the release"),
        ({"release": "d"}, "engine or the release"),
        ({"params": {"features": 2, "strata": 1, "normalisation": "cd" * 32}}, "mean and variance"),
    ],
)
def test_what_is_other_is_shared_anew_and_the_reason_said(
    asked: Any, changes: Any, why: str
) -> None:
    assert why in str(why_not(asked, **changes))


def test_neither_beyond_its_time_nor_in_more_rounds_than_signed_for(asked: Any) -> None:
    ticket, _ = asked
    ticket["expires_at"] = time.time() + keeping.SOON_S - 1
    assert "time" in str(why_not(asked))
    ticket |= {"expires_at": time.time() + HOUR, "uses": 1}
    assert "1 rounds" in str(why_not(asked))


def test_how_long_is_the_epoch_within_the_sites_own_bound() -> None:
    now = int(time.time())
    ends = datetime.fromtimestamp(now + HOUR, UTC).isoformat()
    for until, wanted in (
        (now + 2 * HOUR, now + 2 * HOUR),
        (now + HOUR, None),
        (None, None),
        (True, None),
    ):
        current = {"expires_at": ends, "keep_until": until}
        assert keeping.stays_until(current) == wanted
    far = keeping.stays_until({"expires_at": ends, "keep_until": now + 10**8})
    assert far is not None and far <= time.time() + keeping.STAYS_S_MAX


def test_rows_stay_by_an_own_word_alone_and_an_update_never() -> None:
    home: Any = SimpleNamespace(config={})
    assert keeping.lets_stay("holdout", home, keep_rows=False)
    assert not keeping.lets_stay("rows", home, keep_rows=False)
    assert keeping.lets_stay("rows", home, keep_rows=True)
    assert not keeping.lets_stay("update", home, keep_rows=True)
    home.config["keep"] = False
    assert not keeping.lets_stay("holdout", home, keep_rows=True)
    home.config["keep"] = "no"
    with pytest.raises(NotTrusted, match="keep must be"):
        keeping.lets_stay("holdout", home, keep_rows=False)
