"""Messages of the verified ring: four nodes, each message known to two of them.

Node here means role: which of a job's four computing nodes this one is. Word j, and key j, are
known to all but node j. What goes to a node is computed by two of the three others: one sends it,
one checks; the third is *absent*.

    digest(message) = SHA-256(SHA-256("flai/ring/v1/digest" ‖ 0 ‖ key of the absent one) ‖ message)

Sender, checker and receiver note it, each from what it holds itself. Before an opening, and when
all is done, every node tells every other one its notes since the last time. All compare all of
them: the absent one too, to whom digests under a key that it lacks tell nothing. With one cheater
at most, two of the three are honest, so a false message is a false note for every honest node to
see. What depends on a false message is false as well, so the first one counts:

    sender = receiver ≠ checker    one of sender and checker cheats
    sender = checker ≠ receiver    one of sender and receiver
    checker = receiver ≠ sender    the sender: named together with the checker, who knows better
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from apps.protocol.tickets import QUARTET
from workers.mpc.engines.ring_bits import Array
from workers.mpc.engines.ring_net import Disagreement
from workers.mpc.keystream import KEY_BYTES, Keystream
from workers.mpc.transport import Transport

Kind = np.dtype[Any]

DIGEST_BYTES = 32
# Who has seen a cheat waits so long before it gives up, so that the others see it for themselves.
GRACE_S = 0.5


class Cheated(Disagreement):
    """One of two members does not keep to the protocol. `suspects` are their roles, ascending."""

    def __init__(self, one: int, other: int, what: str) -> None:
        super().__init__(what)
        self.suspects = (min(one, other), max(one, other))
        self.what = what


class Way(NamedTuple):
    """Who tells whom what `frm` and `check` know; `absent` does not, and lacks its key."""

    to: int
    frm: int
    check: int

    @property
    def absent(self) -> int:
        return 6 - self.to - self.frm - self.check  # 0 + 1 + 2 + 3 = 6


# What `frm` and `check` know comes of the words that the two others lack, and goes into just these:
# word `to` takes the stream of key `to`, word `absent` the rest. Every node sends, checks and
# receives one of the first four, and three of all six.
CROSS = (Way(to=0, frm=1, check=3), Way(3, 2, 1), Way(2, 3, 0), Way(1, 0, 2))
WITHIN = (Way(to=0, frm=3, check=2), Way(2, 1, 0))  # words 0 and 1; words 2 and 3
# What three nodes know, told to the fourth.
TELL = (Way(to=0, frm=1, check=2), Way(1, 2, 3), Way(2, 3, 0))


class VerifiedNet:
    """The job's messages, counted alike at every member, its key streams and its notes."""

    def __init__(self, transport: Transport, context: bytes) -> None:
        """Exchange context and fresh keys. Raises: Disagreement, TransportError."""
        if transport.n != QUARTET:
            raise ValueError("the verified ring runs on exactly four nodes")
        self.transport = transport
        self.me = transport.me
        self.others = tuple((self.me + step) % QUARTET for step in range(1, QUARTET))
        self.rounds = 0
        self.bytes_sent = 0
        self._seq = 0
        # by the absent one: what was told in which round, and this node's notes of it
        self._told: list[list[tuple[int, Way]]] = [[] for _ in range(QUARTET)]
        self._notes = [bytearray() for _ in range(QUARTET)]
        self._salts: dict[int, bytes] = {}
        self._streams: dict[int, Keystream] = {}
        self._exchange_keys(hashlib.sha256(b"flai/ring_verified/v1\0" + context).digest())

    def _exchange_keys(self, digest: bytes) -> None:
        """Key j is made by node j + 1 for the two after it."""
        mine = os.urandom(KEY_BYTES)
        not_me, *holders = self.others[::-1]
        for to in holders:
            self._send(to, digest + mine)
        self._send(not_me, digest)
        keys = {not_me: mine}
        theirs = []
        for frm in self.others:
            absent = (frm - 1) % QUARTET
            made = absent != self.me
            data = self._recv(frm, len(digest) + KEY_BYTES * made)
            theirs.append(data[: len(digest)])
            if made:
                keys[absent] = bytes(data[len(digest) :])
        if any(other != digest for other in theirs):
            raise Disagreement("the members hold different descriptors of this job")
        for j, key in sorted(keys.items()):
            self._salts[j] = hashlib.sha256(b"flai/ring/v1/digest\0" + key).digest()
            self._streams[j] = Keystream(key)
        for j in range(QUARTET):  # whoever made a key may have told two nodes two keys
            frm, to, check = ((j + step) % QUARTET for step in (1, 2, 3))
            self._note(Way(to, frm, check), keys.get(j, b""))
        self.step()

    # -- messages -----------------------------------------------------------------------------

    def step(self) -> None:
        """A round is over."""
        self._seq += 1
        self.rounds += 1

    def _send(self, to: int, data: bytes) -> None:
        self.bytes_sent += len(data)
        self.transport.send(to, self._seq, data)

    def _recv(self, frm: int, size: int) -> bytes | bytearray:
        data = self.transport.recv(frm, self._seq)
        if len(data) != size:
            raise Cheated(frm, self.me, f"member {frm} sent a message of the wrong size")
        return data

    def _note(self, way: Way, *message: Any) -> None:
        """All note every message in the same order, the absent one only that there is one."""
        absent = way.absent
        self._told[absent].append((self.rounds, way))
        if absent != self.me:
            digest = hashlib.sha256(self._salts[absent])
            for part in message:
                digest.update(part)
            self._notes[absent] += digest.digest()

    def tell(
        self,
        messages: Sequence[tuple[Way, Sequence[Array] | None]],
        kinds: Sequence[Kind],
        size: int,
    ) -> list[list[Array] | None]:
        """One round. What is told on each way: by who knows it, arrays of `size` numbers of these
        kinds; None from the others. Returns what this node is told, None where it is not."""
        for way, parts in messages:
            if way.frm == self.me and parts is not None:
                self._send(way.to, b"".join([_bytes(part) for part in parts]))
        heard: list[list[Array] | None] = []
        for way, parts in messages:
            if way.to != self.me:
                self._note(way, *map(_bytes, parts or ()))
                heard.append(None)
                continue
            data = self._recv(way.frm, size * sum(kind.itemsize for kind in kinds))
            self._note(way, data)
            got, view = [], memoryview(data)
            for kind in kinds:
                got.append(np.frombuffer(view, kind, size))
                view = view[got[-1].nbytes :]
            heard.append(got)
        self.step()
        return heard

    # -- common randomness --------------------------------------------------------------------

    def draw(self, j: int, count: int, kind: Kind) -> Array:
        """The next of key j's stream, which node j lacks."""
        return self._streams[j].draw(count, kind)

    def put_in(
        self,
        values: Sequence[tuple[Way, Sequence[Array] | None]],
        kinds: Sequence[Kind],
        size: int,
        *,
        xor: bool = False,
    ) -> list[tuple[Array, ...]]:
        """Σ of what the two of each way know, as this node's words, one tuple for each kind.

        v known to `frm` and `check` becomes word `to`, the stream of key `to`, and word `absent`,
        the rest v − stream: `to` lacks the stream, so what it is told is uniform to it. One round.
        """
        join, part = (np.bitwise_xor,) * 2 if xor else (np.add, np.subtract)
        words: list[dict[int, Array]] = [{} for _ in kinds]

        def take(at: int, j: int, array: Array) -> None:
            known = words[at].get(j)
            words[at][j] = array if known is None else join(known, array)

        messages: list[tuple[Way, Sequence[Array] | None]] = []
        for way, value in values:
            rest = []
            for at, kind in enumerate(kinds):
                if way.to == self.me:
                    continue
                stream = self.draw(way.to, size, kind)
                take(at, way.to, stream)
                if value is not None:
                    rest.append(part(value[at], stream))
                    take(at, way.absent, rest[-1])
            messages.append((way, rest or None))
        for (way, _), heard in zip(messages, self.tell(messages, kinds, size), strict=True):
            for at, array in enumerate(heard or ()):
                take(at, way.absent, array)
        return [tuple(found[j] for j in self.others) for found in words]

    # -- what is compared, and what is opened ---------------------------------------------------

    def check(self) -> None:
        """All that was told since the last check was right, at all members. One round.

        Raises: Cheated, at every honest member.
        """
        mine = b"".join(self._notes[j] for j in range(QUARTET) if j != self.me)
        for to in self.others:
            self._send(to, mine)
        said = {self.me: mine}
        for frm in self.others:
            sizes = [len(told) for j, told in enumerate(self._told) if j != frm]
            said[frm] = bytes(self._recv(frm, DIGEST_BYTES * sum(sizes)))
        self.step()
        found = [
            false
            for absent in range(QUARTET)
            if (false := self._first_false(absent, said)) is not None
        ]
        if found:
            _, suspects = min(found)
            time.sleep(GRACE_S)
            raise Cheated(*suspects, "what one of two members told was false")
        for told, notes in zip(self._told, self._notes, strict=True):
            told.clear()
            notes.clear()

    def _first_false(
        self, absent: int, said: dict[int, bytes]
    ) -> tuple[int, tuple[int, int]] | None:
        """(round, suspects) of the first message on whose digest the other three disagree."""
        told = self._told[absent]
        notes: dict[int, bytes] = {}
        for node, data in said.items():
            if node != absent:
                start = sum(len(self._told[j]) for j in range(absent) if j != node) * DIGEST_BYTES
                notes[node] = data[start : start + len(told) * DIGEST_BYTES]
        if len(set(notes.values())) == 1:
            return None
        for at, (of_round, way) in enumerate(told):
            place = slice(at * DIGEST_BYTES, (at + 1) * DIGEST_BYTES)
            to, frm, check = (notes[node][place] for node in way)
            if not to == frm == check:
                other = way.to if frm == check else way.check
                return of_round, (way.frm, other)
        return None

    def missing(self, words: Sequence[Array]) -> Array:
        """The word that this node lacks of what is opened: one of its holders sends it, the others
        its SHA-256. What was told is compared before. Two rounds.

        Raises: Cheated.
        """
        if any(self._told):
            self.check()
        size, kind = words[0].size, words[0].dtype
        for j, word in zip(self.others, words, strict=True):
            data = _bytes(word)
            send = self.me == (j + 1) % QUARTET
            self._send(j, bytes(data) if send else hashlib.sha256(data).digest())
        sender, *witnesses = self.others
        opened = self._recv(sender, size * kind.itemsize)
        digests = {frm: bytes(self._recv(frm, DIGEST_BYTES)) for frm in witnesses}
        digests[sender] = hashlib.sha256(opened).digest()
        self.step()
        for frm, digest in digests.items():
            # two of the three are honest
            if sum(digest == other for other in digests.values()) == 1:
                raise Cheated(frm, self.me, f"member {frm} opened another word than the others")
        return np.frombuffer(opened, kind).reshape(words[0].shape)


def _bytes(array: Array) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
