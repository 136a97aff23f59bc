"""A model goes over to another set of nodes: 3 → 5 and back, say.

Three members of the new set who have the model from the old one compute: each folds its words as in
any job, adds a fresh sharing of zero, and they make the new set's words of it (mpc/keeping.py); the
others are holders. No word of the old sharing leaves a node but to those that may have it, and role
word 0 reaches a new node only less a stream that it lacks.

Of Shamir shares all members of the new set that have theirs deal them to it, t + 1 at least
(mpc/shamir_refresh.py), by the threshold that the makers signed for, or that the model has.

What the model's makers signed for stays with it. That it may go there they sign too, all of them:
the coordinator can only ask.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from apps.protocol import refreshes, wire
from apps.protocol.jobs import JobError
from apps.protocol.tickets import SHAMIR, TRIO, TicketError, check_engine
from workers.mpc.engines.base import Word
from workers.mpc.keeping import SALT_BYTES, Group, Held, keep, receive
from workers.mpc.refresh import ENTROPY_BYTES, Zeros
from workers.mpc.replicated import fold, held_by
from workers.mpc.sessions import Session
from workers.mpc.shamir_refresh import dealt_anew
from workers.node.copies import engine_of, renewed, tellers
from workers.node.errors import Refused
from workers.node.records import StoredModel

TICKET_SEQ, ENTROPY_SEQ = 11, 12

Json = dict[str, Any]


@dataclass(frozen=True)
class Reshared:
    """A model as this node keeps it in the new set, its words' hashes, and what it was before;
    `engine` where the hashes are of Shamir shares."""

    model: StoredModel
    hashes: dict[str, str]
    before: str
    engine: str | None = None


def reshare(
    session: Session,
    asked: Json,
    name: str,
    *,
    fingerprints: Sequence[str],
    mine: StoredModel | None,
) -> Reshared:
    """This node's part; `mine` is the model as the old set's member has it.

    Raises: Refused("no_consent", "not_held", "wrong_engine", "same_nodes", "too_few_nodes",
    "too_many_nodes"), Disagreement,
    TransportError, ValueError, KeyError, TypeError for what makes no sense.
    """
    ticket, computing = _told(session, fingerprints, mine)
    engine = _check(asked, ticket, fingerprints)
    if engine in SHAMIR:
        return _dealt_anew(session, name, ticket, computing, engine, fingerprints, mine)
    entropy = exchanged(session, ENTROPY_SEQ, secrets.token_bytes(ENTROPY_BYTES))
    n, before = len(fingerprints), str(ticket.get("sharing"))
    group = Group(n, computing, tuple(i for i in range(n) if i not in computing))
    facts = {"job": name, "shape": ticket["shape"]}
    if mine is not None and session.me in computing:
        folded = _folded(mine, session.me, computing, fingerprints)
        zeros = Zeros(bytes.fromhex(name), list(entropy.values()), TRIO)
        roles = held_by(computing.index(session.me))
        fresh = zeros.add_to(dict(zip(roles, folded, strict=True)))
        held = keep(session, group, [fresh[role] for role in roles], facts)
    else:
        told, held = receive(session, group)
        if told != facts:
            raise ValueError("the computing nodes reshare something else")
    if held is None:
        raise ValueError("nothing came of it")
    names = {
        "nodes": list(fingerprints),
        **refreshes.named_after(ticket, name),
        "salts": {str(j): salt.hex() for j, salt in held.salts.items()},
    }
    words = tuple(held.words[j].reshape(ticket["shape"]) for j in held_by(session.me, n))
    return Reshared(StoredModel(ticket=ticket | names, words=words), held.hashes(), before)


def exchanged(session: Session, seq: int, mine: bytes) -> dict[int, bytes]:
    """What each member says, in order."""
    others = sorted(session.members - {session.me})
    for peer in others:
        session.send(peer, seq, mine)
    told = {peer: bytes(session.recv(peer, seq)) for peer in others} | {session.me: mine}
    return dict(sorted(told.items()))


def _told(
    session: Session, fingerprints: Sequence[str], mine: StoredModel | None
) -> tuple[Json, tuple[int, ...]]:
    """The model's ticket as three members of its set tell it alike, and who they are; of Shamir
    shares t + 1 or more. Who has it in shares that were renewed less often has none of it."""
    bare = None if mine is None else mine.ticket | {"salts": {}}
    said = {
        i: json.loads(data)
        for i, data in exchanged(session, TICKET_SEQ, wire.canonical(bare)).items()
    }
    for ticket in sorted(filter(None, said.values()), key=renewed, reverse=True):
        alike = [i for i, t in said.items() if t == ticket and fingerprints[i] in ticket["nodes"]]
        least = tellers(ticket) if engine_of(ticket) in SHAMIR else TRIO
        ours = bare in (None, ticket) or renewed(bare) < renewed(ticket)
        if len(alike) >= least and ours:
            return ticket, tuple(alike if engine_of(ticket) in SHAMIR else alike[:TRIO])
    raise Refused("not_held", "Not enough nodes of both sets keep that model alike.")


def _check(asked: Json, ticket: Json, fingerprints: Sequence[str]) -> str:
    """The engine of the model there."""
    was = engine_of(ticket)
    engine = str(asked.get("engine", was))
    if ticket["model"] != asked["model"] or (ticket["nodes"], was) == ([*fingerprints], engine):
        raise Refused("same_nodes", "That model is kept by these nodes already.")
    if engine != was and not {engine, was} <= SHAMIR.keys():
        raise Refused("wrong_engine", "Only Shamir shares can have another threshold.")
    try:
        refreshes.check_consents(
            asked["consents"],
            model=asked["model"],
            nodes=fingerprints,
            makers=ticket.get("makers") or (),
            now=int(time.time()),
            engine=asked.get("engine"),
        )
        check_engine(engine, len(fingerprints))
    except (JobError, TicketError) as error:
        raise Refused(error.code, error.text) from None
    return engine


def _dealt_anew(
    session: Session,
    name: str,
    ticket: Json,
    dealing: Sequence[int],
    engine: str,
    fingerprints: Sequence[str],
    mine: StoredModel | None,
) -> Reshared:
    old: list[str] = ticket["nodes"]
    share = dealt_anew(
        session,
        {i: old.index(fingerprints[i]) + 1 for i in dealing},
        mine.words if mine is not None and session.me in dealing else None,
        t=SHAMIR[engine_of(ticket)],
        t_new=SHAMIR[engine],
        count=int(np.prod(ticket["shape"])),
        context=bytes.fromhex(name) + wire.canonical([ticket, list(dealing)]),
    )
    salt = secrets.token_bytes(SALT_BYTES)
    words = tuple(limb.reshape(ticket["shape"]) for limb in share)
    names = {
        "nodes": list(fingerprints),
        "engine": engine,
        **refreshes.named_after(ticket, name),
        "salts": {str(session.me): salt.hex()},
    }
    hashes = Held({session.me: np.stack(words)}, {session.me: salt}).hashes()
    model = StoredModel(ticket=ticket | names, words=words)
    return Reshared(model, hashes, str(ticket.get("sharing")), engine)


def _folded(
    mine: StoredModel, me: int, computing: Sequence[int], fingerprints: Sequence[str]
) -> list[Word]:
    """My role words; the roles are in the new set's order, the words are the old set's."""
    old: list[str] = mine.ticket["nodes"]
    places = [old.index(fingerprints[i]) for i in computing]
    place = old.index(fingerprints[me])
    held = dict(zip(held_by(place, len(old)), mine.words, strict=True))
    return fold(place, held, places, len(old))
