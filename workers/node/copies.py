"""What a node that was away, or lost its store, gets from the others: its words of what they have
committed, and the marks of what has been done.

Of n words a node may have all but its own, so any other one may hand it the rest, whoever asks for
it and when. A node is given words over the mesh only, by the certificate that it shows there; never
its own word; never of what is not committed. It checks each word against the hash that the job's
members signed, whose salt comes with it, and takes the result's ticket only as two tell it alike.
Of Shamir shares it may have its own alone, which any t + 1 others find for it (rebuilding.py); so
many must tell the ticket alike.

A store that was lost had marks: scopes that are bound or completed, rows that were answered. Any
three that computed with this node have them too, but perhaps only two others that are up now. So
it asks n − 2 others at least, of three both: among so many is one of every three that it was in.
What two hold alike of each word counts; of three nodes one holds it alone.
"""

from __future__ import annotations

import hashlib
import json
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from apps.protocol import wire
from apps.protocol.tickets import RING, SHAMIR, threshold_of
from workers.mpc.fixed import from_bytes, to_bytes
from workers.mpc.replicated import held_by
from workers.mpc.sealing import Words
from workers.mpc.transport import PeerLost, TransportError
from workers.node import heads
from workers.node.errors import Conflict, Unavailable
from workers.node.home import Node
from workers.node.rebuilding import help_rebuild, rebuild
from workers.node.records import StoredModel
from workers.node.sealed import CorruptStore
from workers.node.store import Store

if TYPE_CHECKING:
    from workers.mpc.mesh import Mesh

ANSWER_S = 20.0
ARRIVE_S = 3.0  # others who are up but have not found us yet
REFRESHED = "refreshed"  # the note of the last refresh: {"number", "proof"}
TOLD_BY = 2  # nodes that must tell a result's ticket alike, of Shamir shares more (`tellers`)

# no answer, or one that makes no sense
GARBLED = (TransportError, ValueError, KeyError, TypeError, RecursionError, struct.error)

_SIZE = struct.Struct("<I")

T = TypeVar("T")


class Copies:
    """One node's giving and taking of committed results."""

    def __init__(
        self, *, node: Node, sets: Sequence[Sequence[str]], store: Store, mesh: Mesh
    ) -> None:
        """`sets`: the fingerprints of the nodes that there are, then of the sets that these follow,
        each in another's place. Nothing is told of what was shared out among others: by another
        numbering a node could get its own word too, and by another roster somebody whom its makers
        never chose."""
        self._node = node
        self._n = len(sets[0])
        self._sets = [list(each) for each in sets]
        self._store = store
        self._mesh = mesh

    def answer(self, asker: int, request: bytes) -> bytes:
        """What that node may have of the model it names; nothing where we do not have it."""
        asked = json.loads(request)
        if asked.get("marks"):
            marks = self._store.marks() | {"head": self._store.note(heads.META)}
            kept = self._store.kept(self._sets)
            marks["models"] = [pair for pair in marks["models"] if pair[0] in kept]
            return wire.canonical(marks)
        if asked.get("refreshed"):
            last = self._store.note(REFRESHED) or {"number": 0}
            return wire.canonical(last | {"sharings": self._store.kept(self._sets)})
        if "rebuild" in asked:
            held = self._held(str(asked["rebuild"]), str(asked["sharing"]))
            return help_rebuild(self._mesh, asker, asked, held)
        model = self._held(str(asked["model"]), asked["sharing"])
        if model is None:
            return b""
        given = {}
        if engine_of(model.ticket) not in SHAMIR:  # a share of those is its node's alone
            mine = zip(held_by(self._node.index, self._n), model.words, strict=True)
            given = {j: word for j, word in mine if j != asker}
        salts = {str(j): model.ticket["salts"][str(j)] for j in given}
        head = wire.canonical({"ticket": {**model.ticket, "salts": salts}, "words": list(given)})
        return _SIZE.pack(len(head)) + head + b"".join(map(to_bytes, given.values()))

    def _held(self, model: str, sharing: str | None) -> StoredModel | None:
        """What may be told of, in that sharing where one is named."""
        try:
            held = self._store.model(model)
        except CorruptStore:  # let nobody wait for it
            return None
        if held is None or sharing not in (None, held.ticket.get("sharing")):
            return None
        return held if self._is_ours(held.ticket) else None

    def fetch(
        self, model: str, sharing: str, hashes: Mapping[str, str]
    ) -> tuple[dict[str, Any], tuple[Words, ...]]:
        """(ticket, words) of a model, from the others; `hashes` are those that its makers signed.

        Raises: Unavailable("no_copy") when those who are there do not have all of it.
        """
        wanted = held_by(self._node.index, self._n)
        words: dict[int, Words] = {}
        salts: dict[str, str] = {}
        tickets: list[dict[str, Any]] = []
        asked = {"model": model, "sharing": sharing}
        for _peer, (ticket, theirs) in self.told(asked, self._read, within_s=ARRIVE_S):
            for j, word in theirs.items():
                salt = str(ticket["salts"].get(str(j), ""))
                if j in wanted and _hash(salt, word) == hashes.get(str(j)):
                    words[j], salts[str(j)] = word, salt
            tickets.append({**ticket, "salts": {}})
            told = [t for t in tickets if tickets.count(t) >= TOLD_BY]
            if told and len(words) == len(wanted):
                shape = told[0]["shape"]
                return told[0] | {"salts": salts}, tuple(words[j].reshape(shape) for j in wanted)
        raise Unavailable("no_copy", "The nodes that are there do not have all of that result.")

    def recover(self) -> tuple[list[str], list[str]]:
        """Fill this node's empty store from the others; returns the models that it has again, and
        those left out: fewer than two name them, or hold them alike.

        Raises: Unavailable("too_few_peers"), Conflict("not_empty").
        """
        if not self._store.is_empty:
            raise Conflict("not_empty", "This node has a store: move it away to recover another.")
        told = dict(self.told({"marks": True}, _read_marks))
        if len(told) < sources_needed(self._n):
            raise Unavailable(
                "too_few_peers", f"{len(told)} other nodes answer, {sources_needed(self._n)} must."
            )
        named: dict[str, list[str]] = {}
        for marks in told.values():
            for model, job_id in dict(marks["models"]).items():
                named.setdefault(model, []).append(job_id)
        models = {}
        for model, job_ids in named.items():
            if len(job_ids) >= TOLD_BY:
                with suppress(Unavailable):
                    models[model] = (max(job_ids, key=job_ids.count), self.copy(model))
        known = [marks.get("head") for marks in told.values()]
        head = heads.floors(self._store.note(heads.META), known)
        with self._store.together():
            self._store.restore(merged(list(told.values())), models)
            if head is not None:  # or the log that goes on from another one would do as well
                self._store.put_note(heads.META, head)
        return sorted(models), sorted(named.keys() - models.keys())

    def copy(self, model: str, sharing: str | None = None) -> StoredModel:
        """A model, in these shares or the latest, each of whose words all others who hold it tell
        alike, two at least where there are two; of Shamir shares the one that they find for this
        node. Raises: Unavailable("no_copy")."""
        wanted = held_by(self._node.index, self._n)
        told: dict[tuple[str, int], list[tuple[str, Words]]] = {}
        tickets: dict[str, dict[int, dict[str, Any]]] = {}
        for peer, (ticket, theirs) in self.told({"model": model, "sharing": sharing}, self._read):
            name = str(ticket.get("sharing"))
            if sharing not in (None, name):
                continue
            tickets.setdefault(name, {})[peer] = ticket
            for j, word in theirs.items():
                told.setdefault((name, j), []).append((ticket["salts"].get(str(j)), word))
        least = min(TOLD_BY, self._n - 2)
        latest_first = sorted(tickets.items(), key=lambda it: -min(map(renewed, it[1].values())))
        for name, given in latest_first:
            reports = {j: told.get((name, j), []) for j in wanted}
            bare = [{**ticket, "salts": {}} for ticket in given.values()]
            if len(given) < tellers(bare[0]) or any(ticket != bare[0] for ticket in bare):
                continue
            if engine_of(bare[0]) in SHAMIR:
                return rebuild(self._mesh, bare[0], sorted(given))
            if all(len(r) >= least and _alike(r) for r in reports.values()):
                salts = {str(j): r[0][0] for j, r in reports.items()}
                words = tuple(r[0][1].reshape(bare[0]["shape"]) for r in reports.values())
                return StoredModel(ticket=bare[0] | {"salts": salts}, words=words)
        raise Unavailable("no_copy", f"The others do not hold model {model} alike.")

    def _is_ours(self, ticket: Mapping[str, Any]) -> bool:
        return ticket.get("nodes") in self._sets

    def _read(self, data: bytes) -> tuple[dict[str, Any], dict[int, Words]]:
        """Raises: ValueError and others of GARBLED, also for words of another node set."""
        ticket, words = _read(data)
        if not self._is_ours(ticket):
            raise ValueError("a copy is of another node set")
        return ticket, words

    def told(
        self, asked: dict[str, Any], read: Callable[[bytes], T], *, within_s: float = 0
    ) -> Iterator[tuple[int, T]]:
        """What each other node answers that is connected, or will be within that time.

        Who has just started asks before all have found it; a connection that ends under a question
        may stand again at once."""
        until = time.monotonic() + within_s
        silent = set(range(self._n)) - {self._node.index}
        while silent and (up := self._mesh.wait_for_any(silent, until)):
            for peer in sorted(up):
                ends = time.monotonic() + ANSWER_S
                try:
                    told = read(self._mesh.ask(peer, wire.canonical(asked), deadline=ends))
                except GARBLED as error:
                    if not isinstance(error, PeerLost) or time.monotonic() >= until:
                        silent.discard(peer)
                    continue
                silent.discard(peer)
                yield peer, told


def renewed(ticket: Mapping[str, Any]) -> int:
    """How often these shares were renewed. Raises: ValueError."""
    times = ticket.get("renewed", 0)
    if type(times) is not int:
        raise ValueError("a ticket has a wrong form")
    return times


def tellers(ticket: Mapping[str, Any]) -> int:
    """How many others must tell of a model alike: t + 1, of whom one at least tells the truth."""
    return threshold_of(engine_of(ticket)) + 1


def engine_of(ticket: Mapping[str, Any]) -> str:
    """Of a result; what is not said is the ring."""
    return str(ticket.get("engine", RING))


def sources_needed(n: int) -> int:
    """How many others must tell what has been done."""
    return max(2, n - 2)


def merged(told: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What any of them has marked; of a scope first what was completed, of counts and times the
    highest. Nodes of an earlier release tell nothing of what was withdrawn."""
    scopes: dict[str, list[Any]] = {}
    withdrawn: dict[str, list[Any]] = {}
    withdrawals: dict[str, int] = {}
    answered: dict[tuple[str, int], int] = {}
    for marks in told:
        for scope, digest, job_id, expires_at, attempts in marks["scopes"]:
            known = scopes.get(scope)
            if known is None or (known[2] is None and job_id is not None):
                known = scopes[scope] = [scope, digest, job_id, expires_at, attempts]
            known[4] = max(known[4], attempts)
        for model, day, rows in marks["answered"]:
            answered[model, day] = max(rows, answered.get((model, day), 0))
        for share_id, ticket_id, expires_at in marks.get("withdrawn", []):
            withdrawn[str(share_id)] = [str(share_id), str(ticket_id), int(expires_at)]
        for owner, at in marks.get("withdrawals", []):
            withdrawals[str(owner)] = max(int(at), withdrawals.get(str(owner), 0))
    return {
        "scopes": list(scopes.values()),
        "answered": [[*key, rows] for key, rows in answered.items()],
        "withdrawn": list(withdrawn.values()),
        "withdrawals": [list(item) for item in withdrawals.items()],
    }


def _alike(reports: Sequence[tuple[str, Words]]) -> bool:
    salt, word = reports[0]
    return all(s == salt and np.array_equal(w, word) for s, w in reports)


def _hash(salt: str, word: Words) -> str:
    return hashlib.sha256(wire.unhex(salt) + to_bytes(word)).hexdigest()


def _read_marks(data: bytes) -> dict[str, Any]:
    """Raises: ValueError, KeyError, TypeError for what is no answer."""
    marks: dict[str, Any] = json.loads(data)
    merged([marks])
    if not all(isinstance(word, str) for pair in dict(marks["models"]).items() for word in pair):
        raise ValueError("a mark has a wrong form")
    return marks


def _read(data: bytes) -> tuple[dict[str, Any], dict[int, Words]]:
    """Raises: ValueError, KeyError, TypeError, struct.error for what is no answer."""
    (size,) = _SIZE.unpack_from(data)
    head = json.loads(data[_SIZE.size : _SIZE.size + size])
    body, ticket = from_bytes(data[_SIZE.size + size :]), head["ticket"]
    count = int(np.prod(ticket["shape"]))
    indices = [int(j) for j in head["words"]]
    renewed(ticket)
    if not isinstance(ticket["salts"], dict) or body.size != count * len(indices):
        raise ValueError("a copy has the wrong size")
    return ticket, dict(zip(indices, body.reshape(len(indices), count), strict=True))
