"""No request's body is larger than this site has a use for: the rest is not kept, and said so.

Django spools whatever comes to the disk before a view sees it. Here, before Django, a body that
announces too much is refused unread, and one that does not say its length as soon as it has
brought too much.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from apps.core.problems import CONTENT_TYPE, problem

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
STATUS = 413


class _TooLarge(Exception):
    pass


class BodyLimit:
    """An ASGI application that answers 413 to a body of more than `bytes_max`, and else `inner`."""

    def __init__(self, inner: Callable[..., Awaitable[None]], *, bytes_max: int) -> None:
        self._inner = inner
        self._bytes_max = bytes_max

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if _announced(scope) > self._bytes_max:
            return await self._refuse(send)
        left = self._bytes_max

        async def counted() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise _TooLarge
            return message

        try:
            await self._inner(scope, counted, send)
        except _TooLarge:  # nothing is answered before the body is read
            await self._refuse(send)

    async def _refuse(self, send: Send) -> None:
        # The connection stays: a client that is still sending would else see it break, and not the
        # answer. The server drops what comes.
        text = f"A request's body has {self._bytes_max} bytes at most. Nothing was done."
        body = problem(STATUS, "body_too_large", text, {"bytes_max": self._bytes_max})
        headers = [(b"content-type", CONTENT_TYPE.encode())]
        await send({"type": "http.response.start", "status": STATUS, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(body).encode()})


def _announced(scope: Message) -> int:
    length = next((text for name, text in scope["headers"] if name == b"content-length"), b"0")
    return int(length) if length.isdigit() else 0
