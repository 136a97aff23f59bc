"""A body that is too large is refused before anything keeps it, whether or not it says so."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from django.conf import settings

from apps.protocol.tickets import MAX_VALUES
from apps.protocol.uploads import PART_BYTES_MAX
from flai_site.bodies import BodyLimit

MOST = 100


def ask(chunks: list[bytes], length: int | None = None) -> tuple[int, Any, int]:
    """Status, answer, and how many chunks were read."""
    messages = [
        {"type": "http.request", "body": chunk, "more_body": place < len(chunks)}
        for place, chunk in enumerate(chunks, 1)
    ]
    sent: list[dict[str, Any]] = []
    read = 0

    async def receive() -> dict[str, Any]:
        nonlocal read
        read += 1
        return messages[read - 1]

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        got = b""
        while True:
            message = await receive()
            got += message["body"]
            if not message["more_body"]:
                break
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(len(got)).encode()})

    headers = [] if length is None else [(b"content-length", str(length).encode())]
    app = BodyLimit(inner, bytes_max=MOST)
    asyncio.run(app({"type": "http", "headers": headers}, receive, send))
    return sent[0]["status"], json.loads(sent[1]["body"]), read


@pytest.mark.parametrize("length", [MOST, None])
def test_what_is_just_small_enough_passes(length) -> None:
    assert ask([b"x" * 60, b"x" * 40], length) == (200, MOST, 2)


def test_a_body_that_announces_too_much_is_not_read() -> None:
    status, said, read = ask([b"x" * (MOST + 1)], MOST + 1)
    assert (status, said["code"], said["bytes_max"], read) == (413, "body_too_large", MOST, 0)
    assert said["title"] and str(MOST) in said["detail"]


@pytest.mark.parametrize("length", [None, 5])
def test_a_body_that_does_not_say_so_is_refused_when_it_has_brought_too_much(length) -> None:
    status, said, read = ask([b"x" * 60, b"x" * 60, b"x" * 60], length)
    assert (status, said["code"], read) == (413, "body_too_large", 2)


def test_the_largest_query_and_part_fit() -> None:
    assert max(11 * MAX_VALUES, PART_BYTES_MAX) < settings.BODY_BYTES_MAX
