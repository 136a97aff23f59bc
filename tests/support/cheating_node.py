"""A node like any other, but for what it tells the others in verified jobs, or in openings of
Shamir shares: for tests alone.

Run as `python -m tests.support.cheating_node --home DIR`. While DIR/cheat holds "message", "notes"
or "opening", whatever it sends of this kind in a verified job has a wrong bit: notes come first in
a message. While it holds "staged", "proved" or "helping", the node ends when it has staged what a
refresh or resharing gave, when it has all receipts of one, or when it has told a first helper its
mask. DIR/bits gets a line for each block of random bits that a job is given.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from workers.mpc import shamir_refresh
from workers.mpc.engines import field89, ring_verified, shamir
from workers.mpc.engines.ring_verified_net import VerifiedNet
from workers.mpc.engines.shamir_net import Net
from workers.mpc.engines.shamir_reserve import Reserve
from workers.node import idle, rebuilding, refreshing
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

    def speak(self) -> None:
        with self._does("message"):
            super().speak()

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


class WritingReserve(Reserve):
    """Writes down what leaves it."""

    def hand_out(self, of: Any, count: int) -> Any:
        return self._written(super().hand_out(of, count))

    def take(self, of: Any, names: Any) -> Any:
        return self._written(super().take(of, names))

    @staticmethod
    def _written(blocks: dict[bytes, Any]) -> dict[bytes, Any]:
        with CHEAT.with_name("bits").open("a") as file:
            file.writelines(f"{name.hex()}\n" for name in blocks)
        return blocks


def fall(when: str) -> None:
    if CHEAT.exists() and CHEAT.read_text() == when:
        os._exit(9)


class FallingRefreshing(refreshing.Refreshing):
    def _stage(self, *args: Any) -> Any:
        receipt = super()._stage(*args)
        fall("staged")
        return receipt

    def _reshare(self, *args: Any) -> Any:
        receipt = super()._reshare(*args)
        fall("staged")
        return receipt

    def _renew(self, *args: Any) -> None:
        fall("proved")
        super()._renew(*args)


class FallingTransport:
    """Of a helper that ends between two others' masks."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.me, self.n, self.told = inner, inner.me, inner.n, 0

    def send(self, to: int, seq: int, data: Any) -> None:
        self.told += seq == shamir_refresh.MASKS_SEQ
        if self.told > 1:
            fall("helping")
        self.inner.send(to, seq, data)

    def recv(self, frm: int, seq: int) -> Any:
        return self.inner.recv(frm, seq)


def masked(transport: Any, *args: Any, **named: Any) -> bytes:
    return shamir_refresh.masked(FallingTransport(transport), *args, **named)


if __name__ == "__main__":
    refreshing.Refreshing = FallingRefreshing  # type: ignore[misc]
    rebuilding.masked = masked
    ring_verified.VerifiedNet = CheatingNet  # type: ignore[misc]
    shamir.Net = LyingNet  # type: ignore[misc]
    idle.Reserve = WritingReserve  # type: ignore[misc]
    sys.exit(main())
