"""Calls to addresses that strangers chose: never into this machine's own networks.

A name is resolved here, every address that it has must be public, and the connection goes to the
very address that was checked: a name that is public when it is registered and private when it is
called (DNS rebinding) reaches nothing. Redirects are not followed, answers are not read, and a
call as a whole has a deadline.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

import httpcore
from django.conf import settings

from apps.core.errors import BadInput

DEADLINE_S = 10.0
URL_MAX = 500
PORTS = (443, 8443)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class Refused(Exception):
    """This address is not called. The text is safe to show."""


def check_url(url: str) -> None:
    """Raises BadInput for an address that is not called: wrong form, or not public now."""
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        raise _bad("This is no address.") from None
    if len(url) > URL_MAX or not url.isascii() or not url.isprintable() or " " in url:
        raise _bad(f"The address must be printable ASCII of at most {URL_MAX} characters.")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise _bad("The address may not carry a user, a password or a fragment.")
    if not parts.hostname:
        raise _bad("The address names no host.")
    if not settings.WEBHOOKS_PRIVATE and (parts.scheme != "https" or port not in PORTS):
        raise _bad("The address must begin with https://, on port 443 or 8443.")
    if parts.scheme not in ("http", "https"):
        raise _bad("The address must begin with https://.")
    try:
        resolve(parts.hostname, port)
    except Refused as error:
        raise _bad(str(error)) from None


def resolve(host: str, port: int) -> str:
    """One address of the host, after all of them were found to be public. Raises Refused."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise Refused("The host has no address.") from None
    addresses = [str(entry[4][0]).partition("%")[0] for entry in found]
    if not settings.WEBHOOKS_PRIVATE and not all(is_public(address) for address in addresses):
        raise Refused("The host's address is private; only public ones are called.")
    return addresses[0]


def is_public(text: str) -> bool:
    """Whether an address is one of the open internet, whatever it is wrapped in."""
    address: Any = ipaddress.ip_address(text)
    if address.version == 6:
        inner = address.ipv4_mapped or address.sixtofour
        if address.teredo is not None:
            inner = address.teredo[1]
        if address in _NAT64:
            inner = ipaddress.ip_address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        if address.is_site_local:
            return False
    special = address.is_multicast or address.is_reserved or address.is_unspecified
    return bool(address.is_global and not special)


def post(url: str, body: bytes, headers: dict[str, str]) -> int:
    """The status that the address answers with. Raises Refused, httpcore's errors, OSError."""
    deadline = time.monotonic() + DEADLINE_S
    context = ssl.create_default_context()
    limits = dict.fromkeys(("connect", "read", "write", "pool"), DEADLINE_S)
    backend = _Checked(deadline)
    with (
        httpcore.ConnectionPool(
            ssl_context=context, network_backend=backend, max_connections=1, retries=0
        ) as pool,
        pool.stream(
            "POST",
            url,
            headers=list(headers.items()),
            content=body,
            extensions={"timeout": limits},
        ) as answer,
    ):
        return int(answer.status)


class _Checked(httpcore.SyncBackend):
    """Connects to addresses that were checked just before, and to no socket of this machine."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        stream = super().connect_tcp(
            resolve(host, port), port, _left(self._deadline), local_address, socket_options
        )
        return _Bounded(stream, self._deadline)

    def connect_unix_socket(self, *args: Any, **kwargs: Any) -> httpcore.NetworkStream:
        raise Refused("Only public addresses are called.")


class _Bounded(httpcore.NetworkStream):
    """A stream that is over at the deadline, however slowly the other side drips."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: float) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(self._deadline))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left(self._deadline))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        inner = self._stream.start_tls(ssl_context, server_hostname, _left(self._deadline))
        return _Bounded(inner, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout("the call took too long")
    return left


def _bad(text: str) -> BadInput:
    return BadInput("bad_webhook_url", text, field="url")


Post = Callable[[str, bytes, dict[str, str]], int]
