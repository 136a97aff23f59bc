"""One job's messages between its members, counted alike at all of them: what each engine's network
begins with."""

from __future__ import annotations

from workers.mpc.transport import Transport


class Disagreement(Exception):
    """Members do not compute the same thing, or a message is malformed. Not worth a retry."""

    retryable = False


class Counted:
    """Messages are named by sender and round; `rounds` and `bytes_sent` are this member's."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.me = transport.me
        self.rounds = 0
        self.bytes_sent = 0
        self._seq = 0

    def step(self) -> None:
        """A round is over."""
        self._seq += 1
        self.rounds += 1

    def _send(self, to: int, data: bytes | memoryview) -> None:
        self.bytes_sent += len(data)
        self.transport.send(to, self._seq, data)

    def _recv(self, frm: int, size: int) -> bytes | bytearray:
        """Raises: what `_malformed` makes; TransportError."""
        data = self.transport.recv(frm, self._seq)
        if len(data) != size:
            raise self._malformed(frm)
        return data

    def _malformed(self, frm: int) -> Exception:
        return Disagreement(f"member {frm} sent a message of the wrong size")
