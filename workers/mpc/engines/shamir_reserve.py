"""Random bits made while a node has nothing else to do, and how a job's members take them.

A block is BLOCK shared bits of one set: a threshold and the nodes that made it, each at its own
point. They made it together and each has its own shares of it, in memory alone. The set's first
node hands it out, to one job, whose members take it under its name: so no two jobs are given the
same, however many run at once, and a member parts with a block when it is named, whatever becomes
of the job. An attempt that fails has used its blocks up.

Members may hold different blocks: one has been started anew, or a block's making ended just as some
of them had it. Each job's members tell each other, when they meet, whether they hold any; and what
is handed out is used only if every one of them says that it has all of it. Otherwise the job makes
its own bits, and that was the end of those blocks.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from workers.mpc.engines import field89
from workers.mpc.engines.counted import Disagreement
from workers.mpc.engines.field89 import Limbs
from workers.mpc.engines.shamir_net import Net

BLOCK = 1 << 13
BLOCKS_MAX = 128  # of one set: 12 MB
SETS_MAX = 3
NAME_BYTES = 16

BitSet = tuple[int, tuple[int, ...]]  # t, and the nodes' ids
Kept = npt.NDArray[np.uint32]  # [3, BLOCK], the limbs of reduced numbers


def set_of(net: Net) -> BitSet:
    return net.t, net.members


class Reserve:
    """One node's shares of blocks, by set; safe between threads. Bounded: the oldest go first."""

    def __init__(self) -> None:
        self._sets: OrderedDict[BitSet, OrderedDict[bytes, Kept]] = OrderedDict()  # latest last
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """How many bits there are."""
        with self._lock:
            return BLOCK * sum(map(len, self._sets.values()))

    def want(self, of: BitSet) -> bool:
        """A job computes in this set: are there any for it? From now on some are made."""
        with self._lock:
            return bool(self._blocks(of))

    def lacking(self, first: int) -> tuple[BitSet, int] | None:
        """Of the sets that this node hands out to: the latest that has not all it may have, and how
        many blocks it lacks."""
        with self._lock:
            for of in reversed(self._sets):
                if of[1][0] == first and (room := BLOCKS_MAX - len(self._sets[of])):
                    return of, room
        return None

    def add(self, of: BitSet, name: bytes, bits: Limbs) -> None:
        kept = np.stack(field89.reduced(bits)).astype(np.uint32)
        with self._lock:
            blocks = self._blocks(of)
            blocks[name] = kept
            while len(blocks) > BLOCKS_MAX:
                blocks.popitem(last=False)

    def hand_out(self, of: BitSet, count: int) -> dict[bytes, Kept]:
        """The oldest blocks, so many or all; they are here no more."""
        with self._lock:
            blocks = self._blocks(of)
            return dict(blocks.popitem(last=False) for _ in range(min(count, len(blocks))))

    def take(self, of: BitSet, names: Sequence[bytes]) -> dict[bytes, Kept]:
        """Those of the named blocks that are here; they are no more."""
        with self._lock:
            blocks = self._blocks(of)
            return {name: blocks.pop(name) for name in names if name in blocks}

    def forget(self, of: BitSet) -> None:
        """What there is of this set; more is made."""
        with self._lock:
            if of in self._sets:
                self._sets[of].clear()

    def lose(self, node: int) -> None:
        """That node is gone, and its shares with it."""
        with self._lock:
            for (_, members), blocks in self._sets.items():
                if node in members:
                    blocks.clear()

    def _blocks(self, of: BitSet) -> OrderedDict[bytes, Kept]:
        blocks = self._sets.setdefault(of, OrderedDict())
        self._sets.move_to_end(of)
        while len(self._sets) > SETS_MAX:
            self._sets.popitem(last=False)
        return blocks


def taken(net: Net, reserve: Reserve, count: int) -> list[Limbs]:
    """The bits of `count` blocks, or of as many as there are, once. Two rounds.

    Every member must ask for the same. Raises: Disagreement, TransportError.
    """
    of, mine = set_of(net), {}
    offer = b""
    if net.me == 0:
        mine = reserve.hand_out(of, count)
        offer = b"".join(mine).ljust(NAME_BYTES * count, b"\0")
    offer = net.told_by_first(offer, NAME_BYTES * count)
    named = [offer[at : at + NAME_BYTES] for at in range(0, len(offer), NAME_BYTES)]
    names = [name for name in named if any(name)]
    if net.me:
        mine = reserve.take(of, names)
    has_all = len(mine) == len(names)
    heard = hashlib.sha256(offer).digest()
    said = net.told_by_each(bytes([has_all]) + heard)
    if any(told[1:] != heard for told in said):
        raise Disagreement("the members were told of different bits")
    if not all(told[0] for told in said):
        return []
    return [_limbs(mine[name]) for name in names]


def new_name() -> bytes:
    """Of blocks made in one go, which are numbered."""
    return os.urandom(NAME_BYTES)


def name_of(made: bytes, number: int) -> bytes:
    return hashlib.sha256(b"flai/bits/v1\0" + made + number.to_bytes(4)).digest()[:NAME_BYTES]


def _limbs(kept: Kept) -> Limbs:
    l0, l1, l2 = kept.astype(np.uint64)
    return l0, l1, l2
