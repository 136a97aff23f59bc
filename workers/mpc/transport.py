"""How an engine reaches the other members of its job.

A message is named by (sender, seq); seq is counted by the engine, equally at every member, so
that messages may arrive in any order. Errors: PeerLost when a peer is gone, DeadlineExceeded
when the job's time is over; both are worth another attempt.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Protocol

HEADER = struct.Struct("<QI")
MESSAGE_BYTES_MAX = 1 << 30


class TransportError(Exception):
    """The job cannot go on here; text safe to show."""

    retryable = True


class PeerLost(TransportError):
    """A member of the job is gone."""


class DeadlineExceeded(TransportError):
    """The job's time is over."""


class Transport(Protocol):
    """Ordered by (peer, seq), blocking; `me` in 0..n-1."""

    @property
    def me(self) -> int: ...

    @property
    def n(self) -> int: ...

    def send(self, to: int, seq: int, data: bytes | memoryview) -> None:
        """What is sent may be changed afterwards."""
        ...

    def recv(self, frm: int, seq: int) -> bytes | bytearray:
        """Block for the message. Raises: PeerLost, DeadlineExceeded."""
        ...


class Mailbox:
    """Messages that have arrived and who is gone; safe between threads.

    `deadline` is a time.monotonic() value, None for no limit. At most `bytes_max` bytes wait
    unread: a peer that sends more is treated as lost.
    """

    def __init__(self, *, deadline: float | None = None, bytes_max: int = 1 << 30) -> None:
        self._messages: dict[tuple[int, int], bytes] = {}
        self._lost: dict[int, str] = {}
        self._bytes = 0
        self._bytes_max = bytes_max
        self._deadline = deadline
        self._changed = threading.Condition()

    def put(self, frm: int, seq: int, data: bytes) -> None:
        with self._changed:
            if self._bytes + len(data) > self._bytes_max or (frm, seq) in self._messages:
                self._lost.setdefault(frm, "sent more than was asked for")
            else:
                self._messages[frm, seq] = data
                self._bytes += len(data)
            self._changed.notify_all()

    def lose(self, frm: int, why: str = "connection closed") -> None:
        with self._changed:
            self._lost.setdefault(frm, why)
            self._changed.notify_all()

    def take(self, frm: int, seq: int) -> bytes:
        """The message (frm, seq), once. A message that came before its sender died still counts.

        Raises: PeerLost as soon as the sender is gone; DeadlineExceeded.
        """
        with self._changed:
            while (frm, seq) not in self._messages:
                if frm in self._lost:
                    raise PeerLost(f"member {frm} is gone: {self._lost[frm]}")
                left = None if self._deadline is None else self._deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise DeadlineExceeded(f"no answer from member {frm} in time")
                self._changed.wait(left)
            data = self._messages.pop((frm, seq))
            self._bytes -= len(data)
            return data


class Roles:
    """Those of a job's nodes that compute, as members 0, 1, 2 …: what an engine sees of them."""

    def __init__(self, transport: Transport, computing: Sequence[int]) -> None:
        self.n = len(computing)
        self.me = computing.index(transport.me)
        self._transport = transport
        self._nodes = tuple(computing)

    def send(self, to: int, seq: int, data: bytes | memoryview) -> None:
        self._transport.send(self._nodes[to], seq, data)

    def recv(self, frm: int, seq: int) -> bytes | bytearray:
        return self._transport.recv(self._nodes[frm], seq)


class LocalTransport:
    """One member of a LocalMesh."""

    def __init__(self, me: int, boxes: list[Mailbox]) -> None:
        self.me = me
        self.n = len(boxes)
        self._boxes = boxes

    def send(self, to: int, seq: int, data: bytes | memoryview) -> None:
        self._boxes[to].put(self.me, seq, bytes(data))

    def recv(self, frm: int, seq: int) -> bytes:
        return self._boxes[self.me].take(frm, seq)


class LocalMesh:
    """n members in one process, one thread each: for tests of engines and circuits."""

    def __init__(self, n: int = 3, *, timeout_s: float | None = 60.0) -> None:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._boxes = [Mailbox(deadline=deadline) for _ in range(n)]
        self.transports = [LocalTransport(me, self._boxes) for me in range(n)]

    def kill(self, member: int) -> None:
        """Let the others see `member` as gone."""
        for box in self._boxes:
            box.lose(member)


class SocketTransport:
    """One member, over one connected stream socket per peer.

    A thread per peer reads into the mailbox, so that two members sending much to each other at
    once cannot block for ever.
    """

    def __init__(
        self, me: int, peers: Mapping[int, socket.socket], *, timeout_s: float | None = 60.0
    ) -> None:
        self.me = me
        self.n = len(peers) + 1
        self._peers = dict(peers)
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._box = Mailbox(deadline=deadline)
        for frm, sock in self._peers.items():
            threading.Thread(target=self._read, args=(frm, sock), daemon=True).start()

    def send(self, to: int, seq: int, data: bytes | memoryview) -> None:
        try:
            self._peers[to].sendall(HEADER.pack(len(data), seq) + data)
        except OSError as error:
            raise PeerLost(f"member {to} is gone: {type(error).__name__}") from None

    def recv(self, frm: int, seq: int) -> bytes:
        return self._box.take(frm, seq)

    def close(self) -> None:
        for sock in self._peers.values():
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            sock.close()

    def _read(self, frm: int, sock: socket.socket) -> None:
        try:
            while True:
                size, seq = HEADER.unpack(_exactly(sock, HEADER.size))
                if size > MESSAGE_BYTES_MAX:
                    self._box.lose(frm, "oversized message")
                    return
                self._box.put(frm, seq, _exactly(sock, size))
        except (OSError, EOFError):
            self._box.lose(frm)


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = bytearray(size)
    view = memoryview(data)
    got = 0
    while got < size:
        count = sock.recv_into(view[got:])
        if count == 0:
            raise EOFError
        got += count
    return bytes(data)


def socket_pairs(n: int = 3) -> list[dict[int, socket.socket]]:
    """Connected Unix socket pairs between n members: peers[i][j] is i's end towards j."""
    peers: list[dict[int, socket.socket]] = [{} for _ in range(n)]
    for i in range(n):
        for j in range(i + 1, n):
            peers[i][j], peers[j][i] = socket.socketpair()
    return peers
