"""From the roles' words of a result to the n words that nodes keep.

A job's members are its computing nodes, three or in verified mode four, and the others that are
there to hold the result. For each word j one computing node is the *maker*: the first after j,
round, that computes. It sends to every other member that holds word j

- a salt, so that nobody else can test guesses of the word against its hash in the receipts;
- for the word of a node d that does not compute, a seed: role word 0 is lessened by its stream.
  d alone never gets it, so what d gets of role word 0 is uniform to it;
- to the members that only hold: the words of the computing nodes.

What a holding node gets of the other role words is what role 0 has of them too. It compares the
hashes of all computing nodes with its own. A node that is away gets its words later, from
two that have them.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from apps.protocol import wire
from apps.protocol.tickets import QUARTET
from workers.mpc.engines.base import Word
from workers.mpc.engines.counted import Disagreement
from workers.mpc.fixed import from_bytes, to_bytes
from workers.mpc.keystream import KEY_BYTES
from workers.mpc.replicated import expand, held_by, spread, surplus
from workers.mpc.transport import Transport

SALT_BYTES = 32
SALT_SEQ = 0xFFFF0000  # far above what an engine counts to
HEAD_SEQ = SALT_SEQ + 1
WORD_SEQ = SALT_SEQ + 16  # + j


@dataclass(frozen=True)
class Held:
    """A node's words of a result and their salts, by index."""

    words: dict[int, Word]
    salts: dict[int, bytes]

    def hashes(self) -> dict[str, str]:
        """{"<word j>": SHA-256(salt_j ‖ word)}: equal at all holders, telling the other nothing."""
        return {
            str(j): hashlib.sha256(self.salts[j] + to_bytes(word)).hexdigest()
            for j, word in self.words.items()
        }


@dataclass(frozen=True)
class Group:
    """The nodes of a job: n in all, those that compute, others that hold what comes of it."""

    n: int
    computing: tuple[int, ...]
    holding: tuple[int, ...] = ()
    shamir: bool = False

    @property
    def checks(self) -> bool:
        """Is this the verified ring, whose nodes check each other?"""
        return len(self.computing) == QUARTET and not self.shamir

    @property
    def members(self) -> tuple[int, ...]:
        return tuple(sorted((*self.computing, *self.holding)))

    def maker(self, j: int) -> int:
        return next(i for i in held_by(j, self.n) if i in self.computing)

    def made_for(self, maker: int, node: int) -> list[int]:
        """The words of which this maker tells that node something, in order."""
        return [j for j in range(self.n) if self.maker(j) == maker and j != node]


def keep(
    transport: Transport, group: Group, folded: Sequence[Word] | None, facts: Mapping[str, Any]
) -> Held | None:
    """A computing node's part, given its role words; None where there is no result.

    `facts` are what the holding nodes are told: equal at all. Raises: TransportError.
    """
    if folded is None:
        _tell(transport, group, facts, None)
        return None
    me, outside = transport.me, surplus(group.computing, group.n)
    salts, seeds = _secrets(transport, group, outside)
    words = spread(me, folded, group.computing, seeds)
    held = Held({j: words[j] for j in held_by(me, group.n)}, salts)
    _tell(transport, group, facts, held)
    return held


def receive(transport: Transport, group: Group) -> tuple[dict[str, Any], Held | None]:
    """A holding node's part: (facts, what it keeps). Raises: Disagreement, TransportError."""
    heads = [json.loads(bytes(transport.recv(c, HEAD_SEQ))) for c in group.computing]
    facts = heads[0]["facts"]
    reports = [head["hashes"] for head in heads]
    same = all(head["facts"] == facts for head in heads)
    if not same or len({hashes is None for hashes in reports}) != 1:
        raise Disagreement("the computing nodes report different outcomes")
    if reports[0] is None:
        return facts, None
    outside = surplus(group.computing, group.n)
    salts, seeds = _received(transport, group, outside)
    shape = tuple(facts["shape"])
    count = int(np.prod(shape))
    words = {}
    for j in held_by(transport.me, group.n):
        if j in seeds:
            words[j] = expand(seeds[j], count).reshape(shape)
            continue
        word = from_bytes(bytes(transport.recv(group.maker(j), WORD_SEQ + j)))
        if word.size != count:
            raise Disagreement("a word of the result has the wrong size")
        words[j] = word.reshape(shape)
    held = Held(words, salts)
    mine = held.hashes()
    if any(mine.get(j, value) != value for hashes in reports for j, value in hashes.items()):
        raise Disagreement("the computing nodes hold different words of the result")
    return facts, held


def _secrets(
    transport: Transport, group: Group, outside: Sequence[int]
) -> tuple[dict[int, bytes], dict[int, bytes]]:
    """Make my own salts and seeds, send them on, and take in the others'."""
    me = transport.me
    salts, seeds = {}, {}
    for j in group.made_for(me, me):
        salts[j] = secrets.token_bytes(SALT_BYTES)
        if j in outside:
            seeds[j] = secrets.token_bytes(KEY_BYTES)
    for node in group.members:
        mine = group.made_for(me, node)
        if node != me and mine:
            parts = [salts[j] + seeds.get(j, b"") for j in mine]
            transport.send(node, SALT_SEQ, b"".join(parts))
    other_salts, other_seeds = _received(transport, group, outside)
    return salts | other_salts, seeds | other_seeds


def _received(
    transport: Transport, group: Group, outside: Sequence[int]
) -> tuple[dict[int, bytes], dict[int, bytes]]:
    me = transport.me
    salts, seeds = {}, {}
    for maker in group.computing:
        theirs = group.made_for(maker, me)
        if maker == me or not theirs:
            continue
        data = bytes(transport.recv(maker, SALT_SEQ))
        sizes = [SALT_BYTES + (KEY_BYTES if j in outside else 0) for j in theirs]
        if len(data) != sum(sizes):
            raise Disagreement(f"member {maker} sent a message of the wrong size")
        for j, size in zip(theirs, sizes, strict=True):
            part, data = data[:size], data[size:]
            salts[j] = part[:SALT_BYTES]
            if j in outside:
                seeds[j] = part[SALT_BYTES:]
    return salts, seeds


def _tell(transport: Transport, group: Group, facts: Mapping[str, Any], held: Held | None) -> None:
    """The holding nodes: what came of the job, and the words that I am the maker of."""
    if not group.holding:
        return
    hashes = None if held is None else held.hashes()
    head = wire.canonical({"facts": dict(facts), "hashes": hashes})
    for node in group.holding:
        transport.send(node, HEAD_SEQ, head)
        if held is not None:
            for j in group.made_for(transport.me, node):
                if j in group.computing:
                    transport.send(node, WORD_SEQ + j, to_bytes(held.words[j]))
