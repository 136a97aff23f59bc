"""A model goes over to another set of nodes: 3 → 5 and back, say.

Three members of the new set who have the model from the old one compute: each folds its words as in
any job, adds a fresh sharing of zero, and they make the new set's words of it (mpc/keeping.py); the
others are holders. No word of the old sharing leaves a node but to those that may have it, and role
word 0 reaches a new node only less a stream that it lacks.

What the model's makers signed for stays with it. That it may go there they sign too, all of them:
the coordinator can only ask.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from apps.protocol import refreshes, wire
from apps.protocol.jobs import JobError
from apps.protocol.tickets import RING, SHAMIR, TRIO, TicketError, check_engine
from workers.mpc.engines.base import Word
from workers.mpc.keeping import Group, keep, receive
from workers.mpc.refresh import ENTROPY_BYTES, Zeros
from workers.mpc.replicated import fold, held_by
from workers.mpc.sessions import Session
from workers.node.errors import Refused
from workers.node.records import StoredModel

TICKET_SEQ, ENTROPY_SEQ = 11, 12

Json = dict[str, Any]


@dataclass(frozen=True)
class Reshared:
    """A model as this node keeps it in the new set, its words' hashes, and what it was before."""

    model: StoredModel
    hashes: dict[str, str]
    before: str


def reshare(
    session: Session,
    asked: Json,
    name: str,
    *,
    fingerprints: Sequence[str],
    mine: StoredModel | None,
) -> Reshared:
    """This node's part; `mine` is the model as the old set's member has it.

    Raises: Refused("no_consent", "not_held", "not_offered", "same_nodes", "too_few_nodes",
    "too_many_nodes"), Disagreement,
    TransportError, ValueError, KeyError, TypeError for what makes no sense.
    """
    ticket, computing = _told(session, fingerprints, mine)
    _check(asked, ticket, fingerprints)
    entropy = exchanged(session, ENTROPY_SEQ, secrets.token_bytes(ENTROPY_BYTES))
    n, before = len(fingerprints), str(ticket.get("sharing"))
    group = Group(n, computing, tuple(i for i in range(n) if i not in computing))
    facts = {"job": name, "shape": ticket["shape"]}
    if mine is not None and session.me in computing:
        folded = _folded(mine, session.me, computing, fingerprints)
        zeros = Zeros(bytes.fromhex(name), list(entropy.values()), TRIO)
        roles = held_by(computing.index(session.me))
        renewed = zeros.add_to(dict(zip(roles, folded, strict=True)))
        held = keep(session, group, [renewed[role] for role in roles], facts)
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
    """The model's ticket as three members of its set tell it alike, and who they are."""
    bare = None if mine is None else mine.ticket | {"salts": {}}
    said = {
        i: json.loads(data)
        for i, data in exchanged(session, TICKET_SEQ, wire.canonical(bare)).items()
    }
    for ticket in said.values():
        if ticket is None:
            continue
        alike = [i for i, t in said.items() if t == ticket and fingerprints[i] in ticket["nodes"]]
        if len(alike) >= TRIO and bare in (None, ticket):
            return ticket, tuple(alike[:TRIO])
    raise Refused("not_held", "No three nodes of both sets keep that model alike.")


def _check(asked: Json, ticket: Json, fingerprints: Sequence[str]) -> None:
    if ticket["model"] != asked["model"] or ticket["nodes"] == list(fingerprints):
        raise Refused("same_nodes", "That model is kept by these nodes already.")
    if ticket.get("engine") in SHAMIR:
        raise Refused("not_offered", "A model in Shamir shares stays with the nodes that made it.")
    try:
        refreshes.check_consents(
            asked["consents"],
            model=asked["model"],
            nodes=fingerprints,
            makers=ticket.get("makers") or (),
        )
        check_engine(ticket.get("engine", RING), len(fingerprints))
    except (JobError, TicketError) as error:
        raise Refused(error.code, error.text) from None


def _folded(
    mine: StoredModel, me: int, computing: Sequence[int], fingerprints: Sequence[str]
) -> list[Word]:
    """My role words; the roles are in the new set's order, the words are the old set's."""
    old: list[str] = mine.ticket["nodes"]
    places = [old.index(fingerprints[i]) for i in computing]
    place = old.index(fingerprints[me])
    held = dict(zip(held_by(place, len(old)), mine.words, strict=True))
    return fold(place, held, places, len(old))
