"""One attempt of one job on the mesh: its messages, its deadline and how it ends."""

from __future__ import annotations

import threading
import time
from typing import Protocol

from workers.mpc.transport import DeadlineExceeded, PeerLost, TransportError

ABORT_SEQ = 0xFFFFFFFF
INBOX_BYTES_MAX = 1 << 30


class PeerAborted(TransportError):
    """Another member gave the job up; its reason is a code."""

    def __init__(self, peer: int, reason: str) -> None:
        super().__init__(f"member {peer} gave up: {reason}")
        self.peer = peer
        self.reason = reason


class Carrier(Protocol):
    """What a session needs of the mesh."""

    me: int
    n: int

    def send_frame(self, to: int, sid: bytes, seq: int, data: bytes) -> None: ...

    def forget(self, sid: bytes) -> None: ...


class Session:
    """One attempt of one job: the Transport that its engine sees."""

    def __init__(self, mesh: Carrier, sid: bytes) -> None:
        self.me = mesh.me
        self.n = mesh.n
        self.sid = sid
        self.early = True
        self.early_bytes: dict[int, int] = {}  # per sender; the mesh counts them
        self.born = time.monotonic()
        self.bytes_sent = 0
        self.messages_sent = 0
        self._mesh = mesh
        self._deadline: float | None = None
        self._inbox: dict[tuple[int, int], bytes] = {}
        self._waiting_bytes = 0
        self._error: TransportError | None = None
        self._changed = threading.Condition()

    def activate(self, deadline: float) -> None:
        """The job has begun here; `deadline` is a time.monotonic() value."""
        with self._changed:
            self.early = False
            self._deadline = deadline

    def send(self, to: int, seq: int, data: bytes) -> None:
        """Raises: PeerLost, PeerAborted."""
        if self._error is not None:
            raise self._error
        self._mesh.send_frame(to, self.sid, seq, data)
        self.bytes_sent += len(data)
        self.messages_sent += 1

    def recv(self, frm: int, seq: int) -> bytes:
        """Raises: PeerLost, PeerAborted, DeadlineExceeded."""
        with self._changed:
            while (frm, seq) not in self._inbox:
                if self._error is not None:
                    raise self._error
                left = None if self._deadline is None else self._deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise DeadlineExceeded(f"no answer from member {frm} in time")
                self._changed.wait(left)
            data = self._inbox.pop((frm, seq))
            self._waiting_bytes -= len(data)
            return data

    def put(self, frm: int, seq: int, data: bytes) -> None:
        with self._changed:
            if (frm, seq) in self._inbox or self._waiting_bytes + len(data) > INBOX_BYTES_MAX:
                self._error = self._error or PeerLost(f"member {frm} broke the protocol")
            else:
                self._inbox[frm, seq] = data
                self._waiting_bytes += len(data)
            self._changed.notify_all()

    def fail(self, error: TransportError) -> None:
        """End the session: the first reason counts, waiting messages are dropped."""
        with self._changed:
            self._error = self._error or error
            self._inbox.clear()
            self._waiting_bytes = 0
            self._changed.notify_all()

    def check(self) -> None:
        """Raises the error that ended the session, if any."""
        if self._error is not None:
            raise self._error

    def abort(self, reason: str) -> None:
        """Give up here and tell the others why (a code, no content)."""
        self.fail(TransportError(reason))
        for peer in range(self.n):
            if peer != self.me:
                try:
                    self._mesh.send_frame(peer, self.sid, ABORT_SEQ, reason[:100].encode())
                except TransportError:
                    continue  # it is gone and has failed its side already

    def close(self) -> None:
        """Forget the session; whatever still comes for it is dropped."""
        self._mesh.forget(self.sid)
