"""A thin client of the REST API: JSON (or bytes) in, JSON out, problem details as one exception.

Only what may safely be repeated is repeated: reads, and writes that carry an idempotency key or
are idempotent by themselves (PUT, DELETE). Everything else fails on the first broken connection.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, TypeVar

import httpx

T = TypeVar("T")

RETRY_STATUS = frozenset({429, 502, 503, 504})
ATTEMPTS = 4
BACKOFF_S = 0.25
RETRY_AFTER_S_MAX = 10.0
LATER_S = 120.0  # beyond a minute's rate limit: whoever asks decides, not we
LATER = float("inf")
TIMEOUT_S = 30.0
PROBLEM = ("type", "title", "status", "code", "detail")  # what every problem has
AGENT = "flai-client"


class ClientError(Exception):
    """Something that the person at this end must know. `text` is safe to show.

    facts: what the server said besides, for a program: of a balance that is short `short_micro`.
    """

    def __init__(
        self,
        text: str,
        *,
        code: str = "client_error",
        status: int | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(text)
        self.text = text
        self.code = code
        self.status = status
        self.facts = dict(facts or {})

    def saying(self, text: str) -> ClientError:
        """The same, in these words."""
        return ClientError(text, code=self.code, status=self.status, facts=self.facts)


class Api:
    """The API under `url` as seen by the owner of `api_key` (None: what the public sees)."""

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        if not self.url.startswith(("http://", "https://")):
            raise ClientError(f"{url} is no address of a server: it begins with https://.")
        if api_key and not (api_key.isascii() and api_key.isprintable()):
            raise ClientError("This is no whole API key: copy it where it was made, without “…”.")
        self._headers = {"Accept": "application/json", "User-Agent": AGENT}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        # One server, no cookies, no redirects: what httpx has for those costs as much as sending.
        self._transport = transport or httpx.HTTPTransport(trust_env=False)
        self._options = {"timeout": httpx.Timeout(timeout_s).as_dict()}

    def close(self) -> None:
        self._transport.close()

    def get(self, path: str, *, wait_s: int = 0, **params: Any) -> Any:
        """`wait_s`: the server may hold its answer back so long, until there is an end to tell."""
        query = {name: value for name, value in params.items() if value is not None}
        headers = {"Accept-Encoding": "gzip", **_prefer(wait_s)}
        return self._send("GET", path, params=query or None, headers=headers, repeat=True)

    def post(
        self,
        path: str,
        body: Any = None,
        *,
        idempotency_key: str | None = None,
        wait_s: int = 0,
    ) -> Any:
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        headers |= _prefer(wait_s)
        body = {} if body is None else body
        return self._send("POST", path, json=body, headers=headers, repeat=bool(idempotency_key))

    def put(self, path: str, body: Any) -> Any:
        return self._send("PUT", path, json=body, repeat=True)

    def patch(self, path: str, data: bytes, headers: dict[str, str]) -> Any:
        """Bytes as they are; not repeated: whoever sends parts asks first how far it came."""
        headers = {"Content-Type": "application/octet-stream", **headers}
        return self._send("PATCH", path, content=data, headers=headers, repeat=False)

    def delete(self, path: str) -> Any:
        return self._send("DELETE", path, repeat=True)

    def every(self, path: str, **params: Any) -> Iterator[Any]:
        """All results of a list, page after page."""
        page = self.get(path, **params)
        while True:
            yield from page["results"]
            if not page.get("next"):
                return
            page = self._send("GET", page["next"], repeat=True)

    def _send(self, method: str, path: str, *, repeat: bool, **kwargs: Any) -> Any:
        # An absolute "next" from a server behind a proxy still goes to the address we know.
        if path.startswith(("http://", "https://")):
            path = path.split("/api/v1/", 1)[-1]
        url = _url(f"{self.url}/api/v1/{path.lstrip('/')}")
        pause = threading.Event()
        for attempt in range(1, (ATTEMPTS if repeat else 1) + 1):
            last = attempt == ATTEMPTS or not repeat
            try:
                response = self._asked(method, url, **kwargs)
            except httpx.TransportError as error:
                if last:
                    raise ClientError(
                        _unreachable(self.url, error, paying=method == "POST"), code="unreachable"
                    ) from None
            else:
                wait_s = _retry_after_s(response)
                if response.status_code not in RETRY_STATUS or last or wait_s == LATER:
                    return _answer(response)
                if wait_s is not None:
                    pause.wait(wait_s)
                    continue
            pause.wait(BACKOFF_S * 2 ** (attempt - 1))
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _asked(
        self,
        method: str,
        url: httpx.URL,
        *,
        headers: Mapping[str, str] | None = None,
        **content: Any,
    ) -> httpx.Response:
        """The answer, read. Raises: httpx.TransportError."""
        told = {**self._headers, **(headers or {})}
        request = httpx.Request(method, url, headers=told, extensions=self._options, **content)
        response = self._transport.handle_request(request)
        response.request = request
        try:
            response.read()
        finally:
            response.close()
        return response


@lru_cache(maxsize=64)
def _url(address: str) -> httpx.URL:
    return httpx.URL(address)


def _prefer(wait_s: int) -> dict[str, str]:
    return {"Prefer": f"wait={wait_s}"} if wait_s else {}


def _retry_after_s(response: httpx.Response) -> float | None:
    """What the server asks for, as far as we go along with it, LATER where we don't; None where it
    says nothing."""
    text = response.headers.get("Retry-After", "")
    if not text.isdecimal():
        return None
    return LATER if float(text) > LATER_S else min(float(text), RETRY_AFTER_S_MAX)


def _unreachable(url: str, error: Exception, *, paying: bool) -> str:
    text = f"{url} does not answer ({type(error).__name__})."
    # What was sent may have arrived: only the same key, sent again, can tell.
    return (
        f"{text} Ask again with the same idempotency key: it never pays twice." if paying else text
    )


def _answer(response: httpx.Response) -> Any:
    if response.status_code == 204 or (response.is_success and not response.content):
        return None
    try:
        body = response.json()
    except ValueError:
        body = None
    if response.is_success:
        if body is None:
            raise ClientError(
                f"{response.request.url} did not answer with JSON; is it a FLAI server?",
                code="not_json",
                status=response.status_code,
            )
        return body
    raise _problem(response, body)


def _problem(response: httpx.Response, body: Any) -> ClientError:
    """RFC 9457 problem details, or what comes closest, as a ClientError."""
    code, text, facts = "http_error", "", {}
    if isinstance(body, dict):
        facts = {name: value for name, value in body.items() if name not in PROBLEM}
        code = str(body.get("code") or code)
        text = str(body.get("detail") or body.get("title") or "")
        fields = body.get("errors") or body.get("fields")
        if isinstance(fields, dict):
            text += " " + "; ".join(f"{name}: {why}" for name, why in fields.items())
    if not text.strip():
        where = f"{response.request.method} {response.request.url.path}"
        text = f"The server answered {response.status_code} to {where}."
    return ClientError(text.strip(), code=code, status=response.status_code, facts=facts)


def wait_for(
    check: Callable[[], T | None],
    *,
    deadline_s: float,
    what: str,
    every_s: float = 0.1,
    every_s_max: float = 1.0,
) -> T:
    """The first true answer of `check`, asked at growing intervals.

    Raises: ClientError("timeout") after `deadline_s`.
    """
    end = time.monotonic() + deadline_s
    pause = threading.Event()
    while True:
        answer = check()
        if answer:
            return answer
        left = end - time.monotonic()
        if left <= 0:
            raise ClientError(f"Waited {deadline_s:.0f} s for {what}; gave up.", code="timeout")
        pause.wait(min(every_s, left))
        every_s = min(every_s * 1.3, every_s_max)
