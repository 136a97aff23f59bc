"""One accepted connection of the mesh, read by whoever waits for it.

To hand a frame from a reading thread to a waiting one costs two wake-ups a round, which is more
than the network. So a session that waits for this peer reads the connection itself, for all
sessions alike; the connection's own thread reads only while nobody waits. One reader at a time:
a TLS object is never used by two threads at once. Who stops reading nominates the next in line.

A frame is length (u32) ‖ session (16 bytes) ‖ seq (u32) ‖ payload, little-endian.
"""

from __future__ import annotations

import select
import ssl
import struct
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

FRAME = struct.Struct("<I16sI")
FRAME_BYTES_MAX = 1 << 28
CHUNK = 1 << 16

# How often the connection's own thread looks in while sessions are at work but none waits: less and
# less often while it finds nothing, as a session at work mostly reads for itself.
LOOK_IN_S, LOOK_IN_MAX_S = 0.005, 0.04
# How long a reader may miss that its session has ended for another reason.
SLICE_S = 0.05
IDLE_S = 1.0

Deliver = Callable[[bytes, int, bytes | bytearray], None]


class Waiter(Protocol):
    """A session in the line of those who wait for this peer."""

    def nominate(self) -> None: ...


class Inbound:
    """Frames of one peer: `deliver(session, seq, payload)` is called for each, by the reader."""

    def __init__(self, sock: ssl.SSLSocket, deliver: Deliver, busy: Callable[[], bool]) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._deliver = deliver
        self._busy = busy
        self._poll = select.poll()
        self._poll.register(sock.fileno(), select.POLLIN | select.POLLRDHUP)
        self._guard = threading.Lock()
        self._reading = False
        self._line: deque[Waiter] = deque()
        self._ended = False
        self._called = threading.Event()
        self._chunk = memoryview(bytearray(CHUNK))
        self._rest = bytearray()  # the beginning of a frame's header
        self._frame: tuple[bytes, int, bytearray] | None = None  # of which some is still to come
        self._filled = 0

    # ---- who reads ----------------------------------------------------------------------------

    def take_over(self, waiter: Waiter | None) -> bool:
        """Become the reader; otherwise a waiter stands in line until it is nominated."""
        with self._guard:
            if self._ended:
                return False
            if not self._reading:
                self._reading = True
                return True
            if waiter is not None:
                self._line.append(waiter)
            return False

    def leave(self, waiter: Waiter) -> None:
        """Out of the line; whoever was nominated and has no need to read passes it on."""
        with self._guard:
            if waiter in self._line:
                self._line.remove(waiter)
                return
        self._nominate()

    def stop_reading(self) -> None:
        with self._guard:
            self._reading = False
            if not self._line:
                return
        self._nominate()

    def call(self) -> None:
        """Have the connection's own thread read now: a long send must not block both sides."""
        self._called.set()

    def end(self) -> None:
        """The connection is broken: its own thread will find that out."""
        with self._guard:
            self._ended = True
        self._called.set()

    def _nominate(self) -> None:
        with self._guard:
            waiter = self._line.popleft() if self._line and not self._reading else None
        if waiter is not None:
            waiter.nominate()

    # ---- the connection's own thread ----------------------------------------------------------

    def run(self) -> None:
        """Read while no session does. Raises: OSError, EOFError when the connection ends."""
        look_in_s = LOOK_IN_S
        while True:
            busy = self._busy()
            if busy:
                self._called.wait(look_in_s)
                self._called.clear()
            look_in_s = min(2 * look_in_s, LOOK_IN_MAX_S) if busy else LOOK_IN_S
            if self._ended:
                raise EOFError
            if not self.take_over(None):
                if not busy:  # a reader that has not noticed yet that its session is over
                    self._called.wait(LOOK_IN_S)
                    self._called.clear()
                continue
            try:
                patience = 0.0 if busy else IDLE_S
                while self.read(patience):
                    patience, look_in_s = 0.0, LOOK_IN_S
            finally:
                self.stop_reading()

    # ---- reading ------------------------------------------------------------------------------

    def read(self, timeout_s: float) -> bool:
        """Deliver what has come, waiting at most so long for a first byte; False if none came.

        Only for the reader. Raises: OSError, EOFError.
        """
        sock = self.sock
        if not sock.pending() and not self._poll.poll(timeout_s * 1e3):
            return False
        while True:
            frame = self._frame
            into = self._chunk if frame is None else memoryview(frame[2])[self._filled :]
            try:
                count: Any = sock.read(len(into), into)
            except ssl.SSLWantReadError:
                return True
            if count == 0:
                raise EOFError
            if frame is not None:
                self._filled += count
                self._finish()
            else:
                self._parse(self._chunk[:count])
            if self._frame is None and not sock.pending():
                return True

    def _parse(self, data: memoryview) -> None:
        if not self._rest and len(data) >= FRAME.size:
            size, sid, seq = FRAME.unpack_from(data)
            if FRAME.size + size == len(data):  # as short messages mostly come
                self._deliver(sid, seq, bytes(data[FRAME.size :]))
                return
        if self._rest:
            data = memoryview(bytes(self._rest) + data)
            self._rest.clear()
        while len(data) >= FRAME.size:
            size, sid, seq = FRAME.unpack_from(data)
            if size > FRAME_BYTES_MAX:
                raise EOFError("oversized frame")
            body = data[FRAME.size : FRAME.size + size]
            data = data[FRAME.size + len(body) :]
            if len(body) == size:
                self._deliver(sid, seq, bytes(body))
                continue
            whole = bytearray(size)
            whole[: len(body)] = body
            self._frame, self._filled = (sid, seq, whole), len(body)
            return
        self._rest += data

    def _finish(self) -> None:
        assert self._frame is not None
        sid, seq, body = self._frame
        if self._filled == len(body):
            self._frame = None
            self._deliver(sid, seq, body)
