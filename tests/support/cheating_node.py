"""A node like any other, but for what it tells the others in verified jobs, or in openings of
Shamir shares: for tests alone.

Run as `python -m tests.support.cheating_node --home DIR`. While DIR/cheat holds "message", "notes"
or "opening", whatever it sends of this kind in a verified job has a wrong bit: notes come first in
a message.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from workers.mpc.engines import field89, ring_verified, shamir
from workers.mpc.engines.ring_verified_net import VerifiedNet
from workers.mpc.engines.shamir_net import Net
from workers.node.__main__ import main

CHEAT = Path(sys.argv[sys.argv.index("--home") + 1]) / "cheat"


class CheatingNet(VerifiedNet):
    """Computes as it should, and notes what it should have told."""

    doing = "keys"

    @contextmanager
    def _does(self, what: str) -> Iterator[None]:
        before, self.doing = self.doing, what
        yield
        self.doing = before

    def tell(self, *args: Any, **more: Any) -> Any:
        with self._does("message"):
            return super().tell(*args, **more)

    def missing(self, words: Any) -> Any:
        with self._does("opening"):
            return super().missing(words)

    def _send(self, to: int, data: bytes) -> None:
        cheat = CHEAT.read_text() if CHEAT.exists() else None
        if data and cheat == self.doing:
            data = data[:-1] + bytes([data[-1] ^ 1])
        if data and cheat == "notes" and self.doing == "message":
            data = bytes([data[0] ^ 1]) + data[1:]
        super()._send(to, data)


class LyingNet(Net):
    """Tells wrong shares once it has met the others and what they hold fits."""

    def open(self, share: field89.Limbs) -> field89.Limbs:
        if CHEAT.exists() and CHEAT.read_text() == "shamir":
            share = field89.add(share, field89.of_int(1))
        return super().open(share)


if __name__ == "__main__":
    ring_verified.VerifiedNet = CheatingNet  # type: ignore[misc]
    shamir.Net = LyingNet  # type: ignore[misc]
    sys.exit(main())
