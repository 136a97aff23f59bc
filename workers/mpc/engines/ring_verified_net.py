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

What is *revealed* to all is sent like the rest, in parts that only sum to it, and is used in the
next round, before the notes of it are compared: so it must be masked by what no one node knows.
What a circuit declares is opened otherwise, after all notes have been compared (`missing`).

Where one of the three is gone without a note, the two others' that differ still show a cheat: one
of the two, unless it is the sender who is gone; then it is one of all three.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
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
    """Who tells whom what `frm` and `check` know; `absent` is told nothing here, and lacks its
    own key."""

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
# What nodes 2 and 3 know told to 0 and 1, what these know to 2 and 3.
ACROSS = (WITHIN[0], Way(1, 2, 3), WITHIN[1], Way(3, 0, 1))
# For every node the three pairs of others: each of them sends it one message and checks one.
REVEAL = tuple(Way(k, (k + s) % 4, (k + 1 + s % 3) % 4) for k in range(4) for s in (1, 2, 3))


class Told:
    """One array on a way: what its two knowers say, and, once the round is over, what `to` hears;
    None for the absent one."""

    __slots__ = ("array", "count", "kind")

    def __init__(self, array: Array | None, kind: Kind, count: int) -> None:
        self.array, self.kind, self.count = array, kind, count


class Across(NamedTuple):
    """A, known to nodes 2 and 3, and B, known to 0 and 1, after a round: E_A = A + S_0 + S_1 and
    E_B = B + S_2 + S_3 are known to all, and their product is shared. (Or ^ for +.)"""

    e_a: Array
    e_b: Array
    streams: Mapping[int, Array]  # S_j of the words that this node holds, in their order
    product: tuple[Array, ...]  # words

    def summands(self) -> tuple[Array, ...]:
        """Of an XOR sharing: words 0 and 1 are A's, 2 and 3 B's."""
        first = {0: self.e_a, 2: self.e_b}
        return tuple(
            stream ^ first[j] if j in first else stream for j, stream in self.streams.items()
        )

    def exclusive_or(self) -> tuple[Array, ...]:
        """A xor B = A + B − 2AB of integers 0 and 1, as words."""
        two = self.e_a.dtype.type(2)
        words = []
        for (j, stream), both in zip(self.streams.items(), self.product, strict=True):
            word = -stream - two * both
            words.append(word if j % 2 else word + (self.e_b if j else self.e_a))
        return tuple(words)


class VerifiedNet(Counted):
    """The job's messages, counted alike at every member, its key streams and its notes."""

    def __init__(self, transport: Transport, context: bytes) -> None:
        """Exchange context and fresh keys. Raises: Disagreement, TransportError."""
        if transport.n != QUARTET:
            raise ValueError("the verified ring runs on exactly four nodes")
        super().__init__(transport)
        self.others = tuple((self.me + step) % QUARTET for step in range(1, QUARTET))
        # what is to be told in this round; what was told in the last one, and the notes of it:
        # of what node j is absent from, by j
        self._saying: dict[Way, list[Told]] = {}
        self._told: list[Way] = []
        self._notes: dict[int, list[bytes]] = {j: [] for j in self.others}
        self._salts: dict[int, Any] = {}
        self._streams: dict[int, Keystream] = {}
        self._exchange_keys(hashlib.sha256(b"flai/ring_verified/v2\0" + context).digest())

    def _exchange_keys(self, digest: bytes) -> None:
        """Key j is made by node j + 1 for the two after it; a seed for all four comes of key 0."""
        mine = os.urandom(KEY_BYTES)
        not_me, *holders = self.others[::-1]
        for to in holders:
            self._send(to, digest + mine)
        self._send(not_me, digest + (_seed_of(mine) if not_me == 0 else b""))
        keys = {not_me: mine}
        theirs, seed = [], b""
        for frm in self.others:
            absent = (frm - 1) % QUARTET
            made = absent != self.me
            data = self._recv(frm, len(digest) + KEY_BYTES * (made or absent == 0))
            theirs.append(data[: len(digest)])
            if made:
                keys[absent] = bytes(data[len(digest) :])
            elif absent == 0:
                seed = bytes(data[len(digest) :])
        if any(other != digest for other in theirs):
            raise Disagreement("the members hold different descriptors of this job")
        for j, key in sorted(keys.items()):
            self._salts[j] = hashlib.sha256(hashlib.sha256(b"flai/ring/v1/digest\0" + key).digest())
            self._streams[j] = Keystream(key)
        seed = _seed_of(keys[0]) if self.me else seed
        for j in range(QUARTET):  # whoever made a key may have told two nodes two keys
            frm, to, check = ((j + step) % QUARTET for step in (1, 2, 3))
            self._note(Way(to, frm, check), keys.get(j, b""))
        self._note(Way(0, 1, 2), seed)
        self.common = Keystream(seed)
        self.step()

    # -- messages -----------------------------------------------------------------------------

    def _malformed(self, frm: int) -> Exception:
        return Cheated((frm, self.me), f"member {frm} sent a message of the wrong size")

    def _note(self, way: Way, *message: Any) -> None:
        """All note every message in the same order, the absent one only that there is one."""
        self._told.append(way)
        if way.absent != self.me:
            digest = self._salts[way.absent].copy()
            for part in message:
                digest.update(part)
            self._notes[way.absent].append(digest.digest())

    def _round(
        self, messages: Mapping[int, Sequence[Any]], sizes: Mapping[int, int]
    ) -> dict[int, memoryview]:
        """One round. To each other node goes this one's message, in parts, after its notes of the
        round before; from each comes its own, of that size, if the notes are as they must be.

        Raises: Cheated, also when a member is lost, if the notes that came do not agree.
        """
        told, self._told = self._told, []
        counts = [0] * QUARTET
        for way in told:
            counts[way.absent] += 1
        notes = b"".join([note for j in sorted(self._notes) for note in self._notes[j]])
        self._notes = {j: [] for j in self.others}
        said = {self.me: memoryview(notes)}
        heard: dict[int, memoryview] = {}
        lost: TransportError | None = None
        for to in self.others:  # all who are there: one that is gone may have cheated first
            try:
                self._send(to, b"".join([notes, *messages.get(to, ())]))
            except TransportError as error:
                lost = lost or error
        for frm in self.others:
            start = DIGEST_BYTES * (len(told) - counts[frm])
            try:
                data = memoryview(self._recv(frm, start + sizes.get(frm, 0)))
            except TransportError as error:
                lost = lost or error
            else:
                said[frm], heard[frm] = data[:start], data[start:]
        suspects = _suspects(told, counts, said)
        if suspects:
            time.sleep(GRACE_S)
            raise Cheated(suspects, "what one of them told was false")
        if lost:
            raise lost
        self.step()
        return heard

    def say(self, way: Way, array: Array | None, kind: Kind, count: int) -> Told:
        """So many numbers of this kind will be told on this way: by who knows them, None from the
        others. All say the same ways in the same order, and no two with the same `frm` and `to`
        in one round."""
        told = Told(array, kind, count)
        self._saying.setdefault(way, []).append(told)
        return told

    def speak(self) -> None:
        """One round: what has been said is told. Raises: Cheated; TransportError."""
        saying, self._saying = self._saying, {}
        known: dict[Way, list[memoryview]] = {}
        messages: dict[int, list[memoryview]] = {}
        sizes: dict[int, int] = {}
        for way, parts in saying.items():
            if way.to == self.me:
                sizes[way.frm] = sum(told.count * told.kind.itemsize for told in parts)
            elif way.absent != self.me:
                known[way] = [_bytes(told.array) for told in parts]
                if way.frm == self.me:
                    messages[way.to] = known[way]
        heard = self._round(messages, sizes)
        for way, parts in saying.items():
            if way.to != self.me:
                self._note(way, *known.get(way, ()))
                continue
            view = heard[way.frm]
            self._note(way, view)
            for told in parts:
                told.array = np.frombuffer(view, told.kind, told.count)
                view = view[told.array.nbytes :]

    # -- common randomness --------------------------------------------------------------------

    def draw(self, j: int, count: int, kind: Kind) -> Array:
        """The next of key j's stream, which node j lacks."""
        return self._streams[j].draw(count, kind)

    def draw_each(self, count: int, kind: Kind) -> dict[int, Array]:
        """The next of each stream that this node has, in the order of its words."""
        return {j: self.draw(j, count, kind) for j in self.others}

    def put_in(
        self,
        values: Sequence[tuple[Way, Array | None]],
        kind: Kind,
        size: int,
        *,
        xor: bool = False,
    ) -> Callable[[], tuple[Array, ...]]:
        """Σ of what the two of each way know, as this node's words: after the next `speak`.

        v known to `frm` and `check` becomes word `to`, the stream of key `to`, and word `absent`,
        the rest v − stream: `to` lacks the stream, so what it is told is uniform to it.
        """
        part = np.bitwise_xor if xor else np.subtract
        into = np.bitwise_xor if xor else np.add
        words: dict[int, Array] = {}

        def take(j: int, array: Array) -> None:
            words[j] = into(words[j], array) if j in words else array

        waiting: list[tuple[Way, Told]] = []
        for way, value in values:
            rest = None
            if way.to != self.me:
                stream = self.draw(way.to, size, kind)
                take(way.to, stream)
                if value is not None:
                    rest = part(value, stream)
                    take(way.absent, rest)
            told = self.say(way, rest, kind, size)
            if way.to == self.me:
                waiting.append((way, told))

        def words_of() -> tuple[Array, ...]:
            for way, told in waiting:
                assert told.array is not None
                take(way.absent, told.array)
            return tuple(words[j] for j in self.others)

        return words_of

    def across(
        self,
        half: Array,
        multiply: Callable[[Array, Array], Array],
        *,
        xor: bool = False,
    ) -> Callable[[], Across]:
        """A at nodes 2 and 3, B at 0 and 1, flat; and `multiply`(A, B), which is bilinear: after
        the next `speak`.

        Each is told to the two others masked by the streams of the words that it is made of, one
        of which they lack; the masks' product is put in. What remains is of what all know:
        A·B = E_A·E_B − E_A·(S_2 + S_3) − (S_0 + S_1)·E_B + (S_0 + S_1)·(S_2 + S_3).
        """
        into = np.bitwise_xor if xor else np.add
        less = np.bitwise_xor if xor else np.subtract
        kind, size, a = half.dtype, half.size, self.me >= 2
        streams = self.draw_each(size, kind)
        one, other = (0, 1) if a else (2, 3)
        masked = into(into(half, streams[one]), streams[other])
        told = [
            self.say(way, masked if (way.frm >= 2) == a else None, kind, size) for way in ACROSS
        ]
        terms: list[tuple[Way, Array | None]] = []
        for way in CROSS:
            known = self.me in (way.frm, way.check)
            low, high = sorted((way.to, way.absent))
            terms.append((way, multiply(streams[low], streams[high]) if known else None))
        first = next(term for _, term in terms if term is not None)
        words_of = self.put_in(terms, first.dtype, first.size, xor=xor)

        def product_of() -> Across:
            heard = next(
                told_me.array
                for way, told_me in zip(ACROSS, told, strict=True)
                if way.to == self.me and told_me.array is not None
            )
            e_a, e_b = (masked, heard) if a else (heard, masked)
            words = []
            for j, word in zip(self.others, words_of(), strict=True):
                if j < 2:
                    word = less(word, multiply(streams[j], e_b))
                else:
                    word = less(word, multiply(e_a, streams[j]))
                words.append(word if j else into(word, multiply(e_a, e_b)))
            return Across(e_a, e_b, streams, tuple(words))

        return product_of

    def reveal(self, terms: Mapping[tuple[int, int], Array], rest: Sequence[Array]) -> Array:
        """XOR of all that each two nodes know of a product's terms, by the pair of words that they
        come of, and of the words `rest`, made public. One round.

        Only for what a mask in `rest` makes uniform to every node. Node k is told the terms of word
        k by those who know them, with masks that cancel out.
        """
        size, kind = rest[0].size, rest[0].dtype
        of_word = dict(zip(self.others, rest, strict=True))
        parts: dict[Way, Array] = {}
        for k in sorted(self.others):
            masks = self.draw(k, 2 * size, kind)
            first, second = masks[:size], masks[size:]
            for way, mask in zip(
                REVEAL[3 * k : 3 * k + 3],
                (first ^ of_word[k], second, first ^ second),
                strict=True,
            ):
                if way.absent != self.me:
                    parts[way] = terms[_pair(k, way.absent)] ^ mask
        told = [self.say(way, parts.get(way), kind, size) for way in REVEAL]
        self.speak()
        found = rest[0] ^ rest[1] ^ rest[2]
        for term in terms.values():
            found = found ^ term
        for way, one in zip(REVEAL, told, strict=True):
            if way.to == self.me and one.array is not None:
                found = found ^ one.array
        return found

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


def _suspects(
    told: Sequence[Way], counts: Sequence[int], said: Mapping[int, memoryview]
) -> tuple[int, ...]:
    """Of whom one has cheated, by the first message on which the notes that came do not agree.

    A node's notes are, for each j but itself, those of the `counts`[j] messages that node j is
    absent from.
    """
    groups: list[dict[int, bytes]] = [{} for _ in range(QUARTET)]
    for node, notes in said.items():
        start = 0
        for j in range(QUARTET):
            if j != node:
                end = start + DIGEST_BYTES * counts[j]
                groups[j][node] = bytes(notes[start:end])
                start = end
    if all(len(set(group.values())) <= 1 for group in groups):
        return ()
    read = [0] * QUARTET
    for way in told:
        start = read[way.absent]
        read[way.absent] = end = start + DIGEST_BYTES
        found = {node: group[start:end] for node, group in groups[way.absent].items()}
        if len(set(found.values())) <= 1:
            continue
        frm, check = found.get(way.frm), found.get(way.check)
        if frm is None:
            return way.to, way.frm, way.check
        return way.frm, way.to if check is None or frm == check else way.check
    raise AssertionError("notes differ and no message does")


def _pair(i: int, j: int) -> tuple[int, int]:
    return (i, j) if i < j else (j, i)


def _seed_of(key: bytes) -> bytes:
    """What all four may know of key 0."""
    return hashlib.sha256(b"flai/ring_verified/common\0" + key).digest()


def _bytes(array: Array | None) -> memoryview:
    assert array is not None
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
