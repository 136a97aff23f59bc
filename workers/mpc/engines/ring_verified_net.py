"""Messages of the verified ring: four nodes, each message known to two of them.

Node here means role: which of a job's four computing nodes this one is. Word j, and key j, are
known to all but node j. What goes to a node is computed by two of the three others: one sends it,
one checks; the third is *absent*.

    digest(message) = SHA-256(SHA-256("flai/ring/v1/digest" ‖ 0 ‖ key of the absent one) ‖ message)

Sender, checker and receiver note it, each from what it holds itself. With its messages of the next
round, or in a round of their own before an opening and when all is done, every node tells every
other one its notes. All compare all of them before they send anything more: the absent one too, to
whom digests under a key that it lacks tell nothing. With one cheater at most, two of the three are
honest, so a false message is a false note for every honest node to see.

Notes of messages that depend on a false one are told by nobody honest. They would give secrets
away: the cheat, as receiver of such a message, has what the sender made of its right words, and
could search for what the checker made of its false ones, a difference that the cheat has chosen to
be a secret word times 2^48, say. So notes may not be saved up over two rounds.

    sender = receiver ≠ checker    one of sender and checker cheats
    sender = checker ≠ receiver    one of sender and receiver
    checker = receiver ≠ sender    the sender: named together with the checker, who knows better

Where one of the three is gone without a note, the two others' that differ still show a cheat: one
of the two, unless it is the sender who is gone; then it is one of all three.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from apps.protocol.tickets import QUARTET
from workers.mpc.engines.counted import Counted, Disagreement
from workers.mpc.engines.ring_bits import Array
from workers.mpc.keystream import KEY_BYTES, Keystream
from workers.mpc.transport import Transport, TransportError

Kind = np.dtype[Any]

DIGEST_BYTES = 32
# Who has seen a cheat waits so long before it gives up, so that the others see it for themselves.
GRACE_S = 0.5


class Cheated(Disagreement):
    """One of these members, two or three, does not keep to the protocol. `suspects` are their
    roles, ascending."""

    def __init__(self, suspects: Sequence[int], what: str) -> None:
        super().__init__(what)
        self.suspects = tuple(sorted(suspects))
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


class VerifiedNet(Counted):
    """The job's messages, counted alike at every member, its key streams and its notes."""

    def __init__(self, transport: Transport, context: bytes) -> None:
        """Exchange context and fresh keys. Raises: Disagreement, TransportError."""
        if transport.n != QUARTET:
            raise ValueError("the verified ring runs on exactly four nodes")
        super().__init__(transport)
        self.others = tuple((self.me + step) % QUARTET for step in range(1, QUARTET))
        # what was told in the last round, and this node's notes of it
        self._told: list[Way] = []
        self._notes = bytearray()
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

    def _malformed(self, frm: int) -> Exception:
        return Cheated((frm, self.me), f"member {frm} sent a message of the wrong size")

    def _note(self, way: Way, *message: Any) -> None:
        """All note every message in the same order, the absent one only that there is one."""
        self._told.append(way)
        if way.absent != self.me:
            digest = hashlib.sha256(self._salts[way.absent])
            for part in message:
                digest.update(part)
            self._notes += digest.digest()

    def _round(
        self, messages: Mapping[int, Sequence[Any]], sizes: Mapping[int, int]
    ) -> dict[int, memoryview]:
        """One round. To each other node goes this one's message, in parts, after its notes of the
        round before; from each comes its own, of that size, if the notes are as they must be.

        Raises: Cheated, also when a member is lost, if the notes that came do not agree.
        """
        told, notes = self._told, bytes(self._notes)
        self._told, self._notes = [], bytearray()
        said = {self.me: memoryview(notes)}
        heard: dict[int, memoryview] = {}
        lost: TransportError | None = None
        for to in self.others:  # all who are there: one that is gone may have cheated first
            try:
                self._send(to, b"".join([notes, *messages.get(to, ())]))
            except TransportError as error:
                lost = lost or error
        for frm in self.others:
            start = DIGEST_BYTES * sum(way.absent != frm for way in told)
            try:
                data = memoryview(self._recv(frm, start + sizes.get(frm, 0)))
            except TransportError as error:
                lost = lost or error
            else:
                said[frm], heard[frm] = data[:start], data[start:]
        suspects = _suspects(told, said)
        if suspects:
            time.sleep(GRACE_S)
            raise Cheated(suspects, "what one of them told was false")
        if lost:
            raise lost
        self.step()
        return heard

    def tell(
        self,
        messages: Sequence[tuple[Way, Sequence[Array] | None]],
        kinds: Sequence[Kind],
        size: int,
    ) -> list[list[Array] | None]:
        """One round. What is told on each way: by who knows it, arrays of `size` numbers of these
        kinds; None from the others. Returns what this node is told, None where it is not."""
        known = [(way, [_bytes(part) for part in parts or ()]) for way, parts in messages]
        heard = self._round(
            {way.to: parts for way, parts in known if way.frm == self.me},
            {
                way.frm: size * sum(kind.itemsize for kind in kinds)
                for way, _ in messages
                if way.to == self.me
            },
        )
        answers: list[list[Array] | None] = []
        for way, parts in known:
            if way.to != self.me:
                self._note(way, *parts)
                answers.append(None)
                continue
            view = heard[way.frm]
            self._note(way, view)
            got: list[Array] = []
            for kind in kinds:
                got.append(np.frombuffer(view, kind, size))
                view = view[got[-1].nbytes :]
            answers.append(got)
        return answers

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
        """What was told in the last round was right, at all members. One round.

        Raises: Cheated.
        """
        self._round({}, {})

    def missing(self, words: Sequence[Array]) -> Array:
        """The word that this node lacks of what is opened: one of its holders sends it, the others
        its SHA-256. What was told is compared before. Two rounds.

        Raises: Cheated.
        """
        if self._told:
            self.check()
        size, kind = words[0].size, words[0].dtype
        messages = {}
        for j, word in zip(self.others, words, strict=True):
            data = _bytes(word)
            send = self.me == (j + 1) % QUARTET
            messages[j] = [data if send else hashlib.sha256(data).digest()]
        sender, *witnesses = self.others
        sizes = dict.fromkeys(witnesses, DIGEST_BYTES) | {sender: size * kind.itemsize}
        heard = self._round(messages, sizes)
        opened = heard[sender]
        digests = {frm: bytes(heard[frm]) for frm in witnesses}
        digests[sender] = hashlib.sha256(opened).digest()
        for frm, digest in digests.items():
            # two of the three are honest
            if sum(digest == other for other in digests.values()) == 1:
                raise Cheated((frm, self.me), f"member {frm} opened another word than the others")
        return np.frombuffer(opened, kind).reshape(words[0].shape)


def _suspects(told: Sequence[Way], said: Mapping[int, memoryview]) -> tuple[int, ...]:
    """Of whom one has cheated, by the first message on which the notes that came do not agree."""
    read = dict.fromkeys(said, 0)
    for way in told:
        notes, absent = {}, way.absent
        for node, all_its in said.items():
            if node != absent:
                start = read[node]
                read[node] = start + DIGEST_BYTES
                notes[node] = all_its[start : start + DIGEST_BYTES]
        one, *others = notes.values()
        if others == [one] * len(others):
            continue
        frm, check = notes.get(way.frm), notes.get(way.check)
        if frm is None:
            return way.to, way.frm, way.check
        return way.frm, way.to if check is None or frm == check else way.check
    return ()


def _bytes(array: Array) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
