"""What breaks off on the way to three real nodes goes on, and is sent once.

The server is imitated (it stores, delivers, dispatches); sharing, sealing, tickets, nodes and
circuits are the real ones.
"""

from typing import Any

import httpx
import pytest

from apps.protocol import uploads
from tests.support.bridge import SUBDAO, UNSENT
from workers.client.agent import Agent
from workers.client.api import Api, ClientError


def test_after_a_refusal_another_share_is_made(sharing: Any) -> None:
    bridge, agents, *_ = sharing
    agent = agents["hospital-birch"]
    done = agent.home.journal.last("delivered", round=bridge.round_id, stage="round")
    journal = agent.home.journal.path.read_text()
    kept = [line for line in journal.splitlines(True) if done["share_id"] not in line]
    agent.home.journal.path.write_text("".join(kept))
    phase, bridge.phase = bridge.phase, "updates"
    shares = dict(bridge.shares)

    def refused(request: httpx.Request) -> httpx.Response:
        answer = bridge.answer(request)
        is_share = request.method == "GET" and "/shares/" in request.url.path
        no = answer.json() | {"state": "refused", "reason": "No."}
        return httpx.Response(200, json=no) if is_share else answer

    unlucky = Api("http://flai", transport=httpx.MockTransport(refused))
    with pytest.raises(ClientError, match="A node refused"):
        Agent(agent.home, agent.role, say=str, api=unlucky).train(
            subdao=SUBDAO, round_id=bridge.round_id
        )
    again = agent.train(subdao=SUBDAO, round_id=bridge.round_id)
    assert len(set(bridge.shares) - set(shares)) == 2
    assert again["share_id"] in set(bridge.shares) - set(shares)
    agent.home.journal.path.write_text(journal)
    bridge.phase, bridge.shares = phase, shares


@pytest.fixture
def unsent(sharing: Any) -> Any:
    """The bridge as before the updates, and a validator that has sent nothing of its holdout."""
    bridge, agents, *_ = sharing
    agent = next(a for a in agents.values() if a.role == "validator")
    journal, shares = agent.home.journal.path.read_text(), dict(bridge.shares)
    kept = [line for line in journal.splitlines(True) if UNSENT.search(line)]
    agent.home.journal.path.write_text("".join(kept))
    phase, bridge.phase, bridge.part_bytes_max = bridge.phase, "updates", 3000
    yield bridge, agent
    agent.home.journal.path.write_text(journal)
    bridge.phase, bridge.shares = phase, shares
    bridge.part_bytes_max = uploads.PART_BYTES_MAX


def test_an_agent_that_is_killed_in_the_middle_goes_on_where_it_was(unsent: Any) -> None:
    bridge, agent = unsent
    before, lines = set(bridge.shares), []
    sent: list[int] = []

    def dying(request: httpx.Request) -> httpx.Response:
        if request.method == "PATCH":
            if len(sent) == 3:
                raise KeyboardInterrupt
            sent.append(int(request.headers["Upload-Offset"]))
        return bridge.answer(request)

    first = Api("http://flai", transport=httpx.MockTransport(dying))
    with pytest.raises(KeyboardInterrupt):
        Agent(agent.home, agent.role, say=lines.append, api=first).train(
            subdao=SUBDAO, round_id=bridge.round_id
        )
    assert sent == [0, 3000, 6000]
    [share_id] = set(bridge.shares) - before
    size = bridge.share(share_id)["size_bytes"]
    assert len(bridge.parts[share_id]) == 9000 < size

    def counting(request: httpx.Request) -> httpx.Response:
        if request.method == "PATCH":
            sent.append(int(request.headers["Upload-Offset"]))
        return bridge.answer(request)

    second = Api("http://flai", transport=httpx.MockTransport(counting))
    done = Agent(agent.home, agent.role, say=lines.append, api=second).train(
        subdao=SUBDAO, round_id=bridge.round_id
    )
    assert done["share_id"] == share_id and len(bridge.acks[share_id]) == 3
    assert sent == list(range(0, size, 3000))
    assert "Going on with the share that an earlier run has made." in lines
    there = [line for line in lines if line.endswith("are there already.")]
    assert len(there) == 1 and lines[-2].endswith(f"of {size / 1e6:.1f} MB sent.")


@pytest.mark.parametrize("cut", ["answer lost", "never arrived", "server restarts", "damaged"])
def test_a_connection_that_breaks_costs_one_part(unsent: Any, cut: str) -> None:
    bridge, agent = unsent
    lines: list[str] = []
    seen = 0

    def broken(request: httpx.Request) -> httpx.Response:
        nonlocal seen
        is_share = "/shares/" in request.url.path and request.method in ("GET", "PATCH")
        seen += is_share
        if not is_share or not 2 <= seen <= 4:
            return bridge.answer(request)
        if cut == "server restarts":
            raise httpx.ConnectError("refused")
        if seen > 2:
            return bridge.answer(request)
        if cut == "answer lost":
            bridge.answer(request)
        if cut == "damaged":
            return httpx.Response(422, json={"code": "bad_digest", "detail": "Damaged."})
        raise httpx.ReadError("cut")

    api = Api("http://flai", transport=httpx.MockTransport(broken))
    done = Agent(agent.home, agent.role, say=lines.append, api=api).train(
        subdao=SUBDAO, round_id=bridge.round_id
    )
    kept = (agent.home.path / "uploads" / f"{done['share_id']}.share").read_bytes()
    assert kept.endswith(b"\n" + bridge.parts[done["share_id"]])
    assert len([line for line in lines if line.startswith("  Cut off: ")]) == 1


def test_a_server_that_takes_nothing_is_given_up(unsent: Any) -> None:
    bridge, agent = unsent

    def deaf(request: httpx.Request) -> httpx.Response:
        if request.method == "PATCH":
            share_id = request.url.path.split("/")[-2]
            return httpx.Response(200, json=bridge.share(share_id))
        return bridge.answer(request)

    api = Api("http://flai", transport=httpx.MockTransport(deaf))
    with pytest.raises(ClientError, match="takes no more"):
        Agent(agent.home, agent.role, say=str, api=api).train(
            subdao=SUBDAO, round_id=bridge.round_id
        )


def test_an_upload_that_was_given_up_is_made_anew(unsent: Any) -> None:
    """The round was over, or nothing came for an hour: the next run makes another share."""
    bridge, agent = unsent
    before = set(bridge.shares)

    def over(request: httpx.Request) -> httpx.Response:
        if request.method != "PATCH":
            return bridge.answer(request)
        no = {"code": "share_over", "detail": "The upload is over: nothing came."}
        return httpx.Response(409, json=no)

    api = Api("http://flai", transport=httpx.MockTransport(over))
    with pytest.raises(ClientError, match="The upload is over"):
        Agent(agent.home, agent.role, say=str, api=api).train(
            subdao=SUBDAO, round_id=bridge.round_id
        )
    done = agent.train(subdao=SUBDAO, round_id=bridge.round_id)
    assert len(set(bridge.shares) - before) == 2 and len(bridge.acks[done["share_id"]]) == 3
