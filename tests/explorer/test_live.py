"""The pages' socket: who may watch what, and that a commit is heard by those and nobody else."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.conf import settings
from django.test import Client
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from apps.core import clock
from apps.core.transactions import durable
from apps.explorer.live import TOPICS_MAX, may_watch
from apps.governance.models import SnapshotWeight
from apps.governance.services import vote
from apps.wallets.services import faucet
from tests.explorer import world as worlds
from tests.support.browser import served

ANSWER_S_MAX = 10


@pytest.fixture
def address(transactional_db: None) -> Iterator[str]:
    from flai_site.asgi import application

    with served(application) as url:
        yield url


@contextmanager
def socket(url: str, user: Any = None, origin: str | None = None) -> Iterator[ClientConnection]:
    headers = {}
    if user is not None:
        client = Client()
        client.force_login(user)
        session = client.cookies[settings.SESSION_COOKIE_NAME].value
        headers["Cookie"] = f"{settings.SESSION_COOKIE_NAME}={session}"
    target = f"{url.replace('http', 'ws', 1)}/live/"
    with connect(target, additional_headers=headers, origin=origin or url) as opened:
        yield opened


def ask(opened: ClientConnection, *topics: str) -> list[str]:
    opened.send(json.dumps({"watch": topics}))
    return json.loads(opened.recv(ANSWER_S_MAX))["watching"]


def cast(world: worlds.World) -> None:
    weight = SnapshotWeight.objects.filter(proposal=world.open_vote).exclude(
        party__in=world.open_vote.votes.values("voter")
    )
    party = weight.select_related("party").first().party
    vote(actor=party, proposal_id=world.open_vote.id, support="for", now=clock.now())


def test_a_wallet_is_watched_by_its_owner_only(address: str) -> None:
    """A stranger and another member ask for it, and hear of the public vote alone."""
    world = worlds.build()
    wallet, public = f"wallet:{world.party.id}", f"proposal:{world.open_vote.id}"
    other, _ = worlds.sign_up(
        email="other@example.org", password=worlds.PASSWORD, name="Other", kind="person"
    )
    with (
        socket(address) as stranger,
        socket(address, other) as member,
        socket(address, world.buyer) as owner,
    ):
        assert ask(stranger, wallet, public) == [public]
        assert ask(member, wallet, public) == [public]
        assert ask(owner, wallet) == [wallet]
        faucet(party=world.party, asset="USDC", amount_micro=1_000_000, now=clock.now())
        assert json.loads(owner.recv(ANSWER_S_MAX)) == {"changed": wallet}
        cast(world)
        for opened in (stranger, member):
            assert json.loads(opened.recv(ANSWER_S_MAX)) == {"changed": public}


def test_what_is_rolled_back_wakes_nobody(address: str) -> None:
    world = worlds.build()
    topic = f"proposal:{world.open_vote.id}"
    from apps.core.live import changed

    with socket(address) as opened:
        ask(opened, topic, "nodes")
        with pytest.raises(ZeroDivisionError), durable():
            changed("nodes")
            raise ZeroDivisionError
        cast(world)
        assert json.loads(opened.recv(ANSWER_S_MAX)) == {"changed": topic}


def test_nonsense_closes_the_socket_and_another_site_gets_none(address: str) -> None:
    for words in ("no json", "[]", '{"watch": "log"}', "{}"):
        with socket(address) as opened:
            opened.send(words)
            with pytest.raises(ConnectionClosed) as closed:
                opened.recv(ANSWER_S_MAX)
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 4400, words
    with socket(address) as opened:
        many = [f"round:{uuid.uuid4()}" for _ in range(3 * TOPICS_MAX)]
        assert len(ask(opened, *many)) == TOPICS_MAX
    with (
        pytest.raises(InvalidStatus) as refused,
        socket(address, origin="https://elsewhere.example"),
    ):
        pass
    assert refused.value.response.status_code == 403


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "wallet",
        "wallet:",
        "log:1",
        "users",
        "round:*",
        "round:1",
        "round",
        7,
        None,
        ["log"],
        "pool",
        "pool:",
        "vault:*",
        "vault:a b",
        "pool:a.b",
    ],
)
def test_only_known_topics_are_watched(topic: object) -> None:
    assert not may_watch(topic, None)


@pytest.mark.parametrize(
    "topic", ["log", f"round:{uuid.UUID(int=7)}", "pool:SDT-breast-mass", "vault:FLAI"]
)
def test_what_is_public_is_watched_by_anybody(topic: str) -> None:
    assert may_watch(topic, None)
