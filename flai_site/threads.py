"""Django behind ASGI with one change of thread a request.

Views and middleware of this site are synchronous. Django's own ASGI handler runs them as coroutines
and crosses into a thread, one made for the request, at every middleware and back: a dozen times.
Here a request's body is read in the loop, everything else happens in one thread of a pool, and the
answer is sent from the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any

from django.core import signals
from django.core.exceptions import RequestAborted
from django.core.handlers.asgi import ASGIHandler, get_script_prefix
from django.core.handlers.base import BaseHandler
from django.urls import set_script_prefix

# A request that waits for an inference keeps its thread meanwhile.
THREADS_MAX = 256

Message = dict[str, Any]
Headers = list[tuple[bytes, bytes]]


class ThreadedHandler(ASGIHandler):
    """The ASGI application of the pages and the API."""

    def __init__(self) -> None:
        BaseHandler.__init__(self)
        self.load_middleware(is_async=False)
        self._threads = ThreadPoolExecutor(THREADS_MAX, thread_name_prefix="request")

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        try:
            body = await self.read_body(receive)
        except RequestAborted:
            return
        loop = asyncio.get_running_loop()
        status, headers, content = await loop.run_in_executor(
            self._threads, self._answer, scope, body
        )
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    def _answer(self, scope: Message, body: IO[bytes]) -> tuple[int, Headers, bytes]:
        """Status, headers and content; connections are back in their pool when it returns."""
        with body:
            set_script_prefix(get_script_prefix(scope))
            signals.request_started.send(sender=type(self), scope=scope)
            request, response = self.create_request(scope, body)
            if request is not None:
                response = self.get_response(request)
            response._handler_class = type(self)
            try:
                streams = response.streaming
                content = b"".join(response.streaming_content) if streams else response.content
            finally:
                response.close()
        headers = [(name.encode("ascii"), text.encode("latin1")) for name, text in response.items()]
        headers += [
            (b"Set-Cookie", cookie.output(header="").strip().encode("ascii"))
            for cookie in response.cookies.values()
        ]
        return response.status_code, headers, content
