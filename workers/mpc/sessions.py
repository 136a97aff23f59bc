"""One attempt of one job on the mesh: its messages, its deadline and how it ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection
from typing import Protocol

from workers.mpc.inbound import SLICE_S, Inbound
from workers.mpc.transport import DeadlineExceeded, PeerLost, TransportError

ABORT_SEQ = 0xFFFFFFFF
OVER = "already_completed"  # given up by who has an answer: whoever begins anew would wait for it
INBOX_BYTES_MAX = 1 << 30
FRAME_COST_BYTES = 256  # of keeping a message, however little it says


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

    def send_frame(self, to: int, sid: bytes, seq: int, data: bytes | memoryview) -> None: ...

    def forget(self, sid: bytes) -> None: ...

    def inbound(self, frm: int) -> Inbound | None: ...


class Session:
    """One attempt of one job: the Transport that its engine sees."""

    def __init__(self, mesh: Carrier, sid: bytes, members: Collection[int]) -> None:
        self.me = mesh.me
        self.n = mesh.n
        self.sid = sid
        self.members = frozenset(members)  # until the job begins here, whoever may be in it
        self.lost: set[int] = set()  # who went away before the job began here
        self.early = True
        self.early_bytes: dict[int, int] = {}  # per sender; the mesh counts them
        self.heard: set[int] = set()  # who has said anything but that it gives up
        self.born = time.monotonic()
        self.bytes_sent = 0
        self.messages_sent = 0
        self._mesh = mesh
        self._deadline: float | None = None
        self._inbox: dict[tuple[int, int], bytes | bytearray] = {}
        self._waiting_bytes = 0
        self._error: TransportError | None = None
        self._early_errors: dict[int, TransportError] = {}  # of whoever may be in it, the first
        self.parting_s = 0.0  # how long those who stay may still hear each other when one is gone
        self._gone: set[int] = set()
        self._parts_at = 0.0
        self._nominated = False
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._waiting = 0  # threads that wait for `_changed`

    def activate(self, deadline: float, members: Collection[int]) -> None:
        """The job has begun here; `deadline` is a time.monotonic() value. What others than its
        members have sent or done before counts for nothing."""
        with self._changed:
            self.early = False
            self.members = frozenset(members)
            self._deadline = deadline
            for stranger in {frm for frm, _seq in self._inbox} - self.members:
                self.drop(stranger)
            self.heard &= self.members
            for peer, error in self._early_errors.items():
                self.fail_by(peer, error)
        for peer in sorted(self.lost & self.members):
            self.lose(peer)

    def lose(self, peer: int) -> None:
        """That node is gone: the end of this session if it is in it."""
        if self.early:
            self.lost.add(peer)
        elif peer in self.members:
            with self._changed:
                self._gone.add(peer)
                if self._error is None:
                    self._parts_at = time.monotonic() + self.parting_s
                self.fail(PeerLost(f"member {peer} is gone"))

    def send(self, to: int, seq: int, data: bytes | memoryview) -> None:
        """Raises: PeerLost, PeerAborted."""
        if self._error is not None and self._over(to):
            raise self._ended()
        self._mesh.send_frame(to, self.sid, seq, data)
        self.bytes_sent += len(data)
        self.messages_sent += 1

    def recv(self, frm: int, seq: int) -> bytes | bytearray:
        """Raises: PeerLost, PeerAborted, DeadlineExceeded."""
        while True:
            with self._lock:
                data = self._take(frm, seq)
            if data is not None:
                return data
            inbound = self._mesh.inbound(frm)
            if inbound is not None and inbound.take_over(self):
                self._read(inbound, frm, seq)
            else:
                self._stand_in_line(inbound, frm, seq)

    def _take(self, frm: int, seq: int) -> bytes | bytearray | None:
        """The message, if it is there. Raises what ends the wait."""
        data = self._inbox.pop((frm, seq), None)
        if data is not None:
            self._waiting_bytes -= len(data) + FRAME_COST_BYTES
            return data
        if self._error is not None and self._over(frm):
            raise self._ended()
        if self._deadline is not None and time.monotonic() >= self._deadline:
            raise DeadlineExceeded(f"no answer from member {frm} in time")
        return None

    def _read(self, inbound: Inbound, frm: int, seq: int) -> None:
        """Read that peer's connection, for every session, until our message is there."""
        key, inbox = (frm, seq), self._inbox
        try:
            while key not in inbox and not self._over(frm):
                left = SLICE_S
                if self._deadline is not None:
                    left = min(left, self._deadline - time.monotonic())
                    if left <= 0:
                        return
                inbound.read(left)
        except (OSError, EOFError):
            inbound.end()
        finally:
            inbound.stop_reading()

    def _stand_in_line(self, inbound: Inbound | None, frm: int, seq: int) -> None:
        """Another thread reads: wait for the message, or to be the next who reads."""
        with self._changed:
            if (frm, seq) not in self._inbox and not self._over(frm) and not self._nominated:
                self._waiting += 1
                self._changed.wait(SLICE_S)
                self._waiting -= 1
            self._nominated = False
        if inbound is not None:
            inbound.leave(self)

    def nominate(self) -> None:
        with self._changed:
            self._nominated = True
            self._changed.notify_all()

    def put(self, frm: int, seq: int, data: bytes | bytearray) -> None:
        """A message; of who is not in the job it is none."""
        with self._lock:
            if frm not in self.members:
                return
            self.heard.add(frm)
            size = len(data) + FRAME_COST_BYTES
            if (frm, seq) in self._inbox or self._waiting_bytes + size > INBOX_BYTES_MAX:
                self.fail_by(frm, PeerLost(f"member {frm} broke the protocol"))
            else:
                self._inbox[frm, seq] = data
                self._waiting_bytes += size
            if self._waiting:
                self._changed.notify_all()

    def drop(self, frm: int) -> None:
        """What that peer has sent and nobody has read."""
        with self._changed:
            for key in [key for key in self._inbox if key[0] == frm]:
                self._waiting_bytes -= len(self._inbox.pop(key)) + FRAME_COST_BYTES

    def fail_by(self, peer: int, error: TransportError) -> None:
        """What that peer did ends the session if it is in it: nobody else can end a job."""
        with self._changed:
            if self.early:
                self._early_errors.setdefault(peer, error)
            elif peer in self.members:
                self.fail(error)

    def fail(self, error: TransportError) -> None:
        """End the session: the first reason counts. What has come before can still be read."""
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()

    def _over(self, peer: int) -> bool:
        """No more messages to or from that member; where another one is gone, after a while."""
        if self._error is None:
            return False
        return peer in self._gone or time.monotonic() >= self._parts_at

    def _ended(self) -> TransportError:
        assert self._error is not None
        return self._error

    def check(self) -> None:
        """Raises the error that ended the session, if any."""
        if self._error is not None:
            raise self._error

    def abort(self, reason: str) -> None:
        """Give up here and tell the others why (a code, no content)."""
        self.fail(TransportError(reason))
        for peer in self.members:
            if peer != self.me:
                try:
                    self._mesh.send_frame(peer, self.sid, ABORT_SEQ, reason[:100].encode())
                except TransportError:
                    continue  # it is gone and has failed its side already

    def close(self) -> None:
        """Forget the session; whatever still comes for it is dropped."""
        self._mesh.forget(self.sid)
