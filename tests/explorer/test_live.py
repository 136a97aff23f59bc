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
from apps.governance.executing import advance
from apps.governance.models import SnapshotWeight
from apps.governance.services import vote
from apps.rfms.services import rfm_submit
from apps.subdaos.services import param_set
from apps.wallets.services import faucet
from tests.explorer import world as worlds
from tests.support.browser import served

ANSWER_S_MAX = 60


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
    """A stranger and another member ask for it, and hear of the public vote alone; so of what
    awaits a party."""
    world = worlds.build()
    wallet, public = f"wallet:{world.party.id}", f"proposal:{world.open_vote.id}"
    waits = f"party:{world.party.id}"
    other, _ = worlds.sign_up(
        email="other@example.org", password=worlds.PASSWORD, name="Other", kind="person"
    )
    with (
        socket(address) as stranger,
        socket(address, other) as member,
        socket(address, world.buyer) as owner,
    ):
        assert ask(stranger, wallet, waits, public) == [public]
        assert ask(member, wallet, waits, public) == [public]
        assert ask(owner, wallet, waits) == [waits, wallet]
        faucet(party=world.party, asset="USDC", amount_micro=1_000_000, now=clock.now())
        assert json.loads(owner.recv(ANSWER_S_MAX)) == {"changed": wallet}
        cast(world)
        for opened in (stranger, member):
            assert json.loads(opened.recv(ANSWER_S_MAX)) == {"changed": public}
        vote(actor=world.party, proposal_id=world.open_vote.id, support="for", now=clock.now())
        assert json.loads(owner.recv(ANSWER_S_MAX)) == {"changed": waits}


def test_a_parameter_wakes_its_subdaos_page_and_a_vote_those_who_have_one(address: str) -> None:
    world = worlds.build()
    topics = [f"subdao:{world.dao.id}", f"treasury:{world.dao.party_id}"]
    with socket(address) as reader, socket(address, world.buyer) as owner:
        assert ask(reader, *topics) == topics
        waits = f"party:{world.party.id}"
        assert ask(owner, waits) == [waits]
        with durable():
            param_set(
                dao=world.dao, key="epoch_s", value=86_400, proposal_id=uuid.uuid4(),
                now=clock.now(),
            )  # fmt: skip
        assert json.loads(reader.recv(ANSWER_S_MAX)) == {"changed": topics[0]}
        made = rfm_submit(actor=world.draft.submitter, slug=world.draft.slug, now=clock.now())
        advance(proposal_id=made.proposal_id, now=clock.now())  # its snapshot, as a worker does
        assert json.loads(owner.recv(ANSWER_S_MAX)) == {"changed": waits}


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
        f"party:{uuid.UUID(int=7)}",
        "subdao:breast-mass",
        "treasury",
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
    "topic",
    [
        "log",
        f"round:{uuid.UUID(int=7)}",
        f"subdao:{uuid.UUID(int=7)}",
        f"treasury:{uuid.UUID(int=7)}",
        "pool:SDT-breast-mass",
        "vault:FLAI",
    ],
)
def test_what_is_public_is_watched_by_anybody(topic: str) -> None:
    assert may_watch(topic, None)
