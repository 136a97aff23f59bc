"""Answers to questions that broke off: of what was kept before it was sent, what is there now.

Nothing is asked or paid here. A question that never arrived is let go once its ticket has expired,
since nobody can take it any more.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from apps.protocol.tickets import ticket_id
from workers.client.api import Api, ClientError
from workers.client.buyer import RELEASED, Buyer, Prediction
from workers.client.home import Home
from workers.mpc import keys

CLOCKS_APART_S = 300


@dataclass(frozen=True)
class Reopened:
    """A question that was kept: its answer, or what became of it.

    key: the idempotency key under which it was asked; the same call with it goes on.
    """

    listing: str
    key: str
    answer: Prediction | None
    text: str = ""


def reopened(home: Home, *, api: Api | None = None) -> Iterator[Reopened]:
    """What was asked of any listing without a key of the caller's and not opened. A question is
    forgotten when its answer was taken from here, or when there will be none."""
    api = api or home.api()
    for name, kept in home.kept_queries().items():
        if "key" not in kept:
            continue  # the caller has it, and asks again himself
        slug, key = kept["listing"], kept["key"]
        if "upload" not in kept:
            yield Reopened(slug, key, None, "a table: the same call with this key goes on")
            continue
        ticket = kept["upload"]["ticket"]
        try:
            query = _found(api, slug, ticket)
            if query is None:
                over = ticket["expires_at"] + CLOCKS_APART_S < time.time()
                if over:
                    home.forget_query(name)
                never = "it never arrived, and cost nothing"
                yield Reopened(slug, key, None, never if over else "it has not arrived yet")
                continue
            reply = keys.hpke_key(bytes.fromhex(kept["reply_key"]))
            answer = Buyer(home, slug, api=api).collect(query["id"], ticket, reply)
        except ClientError as error:
            if error.code == RELEASED:
                home.forget_query(name)
            yield Reopened(slug, key, None, error.text)
            continue
        yield Reopened(slug, key, answer)
        home.forget_query(name)


def _found(api: Api, slug: str, ticket: dict[str, Any]) -> dict[str, Any] | None:
    """The query that the server made of a ticket, if it did: newest first, none is older."""
    wanted, since = ticket_id(dict(ticket)), ticket["issued_at"] - CLOCKS_APART_S
    for query in api.every("inferences/", listing=slug):
        if query["ticket_id"] == wanted:
            return dict(query)
        if datetime.fromisoformat(query["created_at"]).timestamp() < since:
            return None
    return None
