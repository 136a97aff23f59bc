"""Kept connections to the nodes' control ports: HTTP/1.1 under mutual TLS.

The standard library's client, since a query asks three nodes: a general one costs each of these
requests several times the processor time.
"""

from __future__ import annotations

import http.client
import os
import select
import ssl
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.conf import settings

from apps.protocol import identity

CONNECT_S = 2.0  # with a TLS handshake, on a machine that computes
IDLE_S_MAX = 50.0  # less than a node keeps a silent connection
IDLE_MAX = 48
ANSWER_BYTES_MAX = 64 << 20  # twice what a node takes in a request: answers are smaller than those
PIECE_BYTES = 1 << 20


class Unreachable(Exception):
    """No whole answer came."""


@dataclass(frozen=True)
class Reply:
    status: int
    body: bytes


class Links:
    """To one node, which shows this certificate and no other. Any thread may ask."""

    def __init__(self, url: str, certificate: str) -> None:
        address = urlsplit(url)
        self._host, self._port = address.hostname or "", address.port
        self._context = _tls(certificate)
        self._idle: deque[tuple[http.client.HTTPSConnection, float]] = deque(maxlen=IDLE_MAX)
        self._lock = threading.Lock()
        self._reaper: threading.Timer | None = None

    def ask(
        self,
        method: str,
        path: str,
        parts: Sequence[bytes] = (),
        headers: Mapping[str, str] | None = None,
        *,
        timeout_s: float,
    ) -> Reply:
        """One request; `timeout_s` is the longest silence, and the longest an answer's body takes.
        A body in parts is sent as they are, without being put together. Raises: Unreachable."""
        link = None
        try:
            link = self._kept() or self._connected()
            link.sock.settimeout(timeout_s)
            size = {"content-length": str(sum(map(len, parts)))} if method == "POST" else {}
            link.request(method, path, body=parts or None, headers=size | dict(headers or {}))
            answer = link.getresponse()
            reply = Reply(answer.status, _body(link, answer, timeout_s))
        except (OSError, http.client.HTTPException) as error:
            if link is not None:
                link.close()
            raise Unreachable(type(error).__name__) from None
        except BaseException:
            if link is not None:
                link.close()
            raise
        if not answer.will_close:
            self._keep(link)
        return reply

    def _keep(self, link: http.client.HTTPSConnection) -> None:
        """Those unused for longest stand first. While there are any, one timer waits for them."""
        self._idle.append((link, time.monotonic()))
        with self._lock:
            if self._reaper is None:
                self._reap_after(IDLE_S_MAX)

    def _reap_after(self, wait_s: float) -> None:
        self._reaper = threading.Timer(wait_s, self._reap)
        self._reaper.daemon = True
        self._reaper.start()

    def _reap(self) -> None:
        """Close what nobody took any more: the process may have no further question to a node."""
        with self._lock:
            self._reaper = None
            while self._idle:
                try:
                    link, since = self._idle.popleft()
                except IndexError:  # another thread took it
                    return
                left_s = since + IDLE_S_MAX - time.monotonic()
                if left_s > 0:
                    self._idle.appendleft((link, since))
                    return self._reap_after(left_s)
                link.close()

    def _kept(self) -> http.client.HTTPSConnection | None:
        """The connection used last, if the node has not closed it since."""
        while self._idle:
            try:
                link, since = self._idle.pop()
            except IndexError:  # another thread took it
                return None
            if time.monotonic() - since < IDLE_S_MAX and not _readable(link):
                return link
            link.close()
        return None

    def _connected(self) -> http.client.HTTPSConnection:
        link = http.client.HTTPSConnection(
            self._host, self._port, timeout=CONNECT_S, context=self._context
        )
        link.connect()
        return link


def _body(
    link: http.client.HTTPSConnection, answer: http.client.HTTPResponse, timeout_s: float
) -> bytes:
    """Of the length that the node declared, as all of them do: none fills this machine's memory or
    keeps a thread by sending a little at a time. Raises: Unreachable, OSError, HTTPException."""
    left, until, pieces = answer.length, time.monotonic() + timeout_s, []
    if left is None or left > ANSWER_BYTES_MAX:
        raise Unreachable("its answer is of no length that is taken")
    while left:
        link.sock.settimeout(max(until - time.monotonic(), 0.001))
        piece = answer.read1(min(left, PIECE_BYTES))
        if not piece or time.monotonic() > until:
            raise Unreachable("its answer did not end")
        pieces.append(piece)
        left -= len(piece)
    answer.close()  # the answer alone: the connection is kept
    return b"".join(pieces)


def _readable(link: http.client.HTTPSConnection) -> bool:
    """A connection that nobody asked anything says something: its end."""
    poll = select.poll()
    poll.register(link.sock, select.POLLIN)
    return bool(poll.poll(0))


@lru_cache(maxsize=64)
def links_to(url: str, certificate: str) -> Links:
    """This process's own."""
    return Links(url, certificate)


def _tls(pinned: str) -> ssl.SSLContext:
    """We show the coordinator's certificate, the node its pinned one; no names, no authorities."""
    key = coordinator_key()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.load_verify_locations(cadata=pinned)
    # the ssl module reads keys from files only; this one never touches a disk
    handle = os.memfd_create("tls", os.MFD_CLOEXEC)
    try:
        certificate = identity.certificate_pem(key, identity.COORDINATOR)
        os.write(handle, identity.private_pem(key) + certificate.encode())
        context.load_cert_chain(f"/proc/self/fd/{handle}")
    finally:
        os.close(handle)
    return context


def coordinator_key() -> Ed25519PrivateKey:
    """The key that signs job descriptors. It proves who asks; it permits nothing by itself."""
    return _read_key(Path(settings.COORDINATOR_KEY_FILE))


@cache
def _read_key(path: Path) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(path.read_text().strip()))
