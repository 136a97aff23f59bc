"""What a node's computation asks of an engine: what fits, what comes out, what it keeps of that.

The ring's nodes hold all words but one, fold them, and share out what they keep among all that are
there. Of Shamir shares each node holds its own, of inputs and of results alike, under its own point
for ever: nothing is folded, and nobody only holds.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from apps.protocol.circuits import Circuit
from apps.protocol.tickets import RING, SHAMIR, VERIFIED
from workers.mpc.engines.shamir_reserve import Reserve
from workers.mpc.keeping import SALT_BYTES, Group, Held, keep
from workers.mpc.replicated import fold, held_by
from workers.mpc.sealing import Words, seal_output, seal_share
from workers.mpc.sessions import Session
from workers.mpc.transport import Roles, Transport
from workers.node import metrics

Shares = Mapping[str, Sequence[tuple[Words, ...]]]


class NodeEngine(Protocol):
    """One attempt on one engine. `context` is what all members must hold alike."""

    def meet(self, context: bytes) -> None:
        """Before anything else. Raises: Disagreement, TransportError."""

    def misfits(self, inputs: Sequence[tuple[Words, ...]]) -> dict[int, tuple[int, ...]]:
        """Which of these inputs are no sharings of anything, and whose fault that is if one can
        tell. Raises: Disagreement, TransportError."""

    def run(self, circuit: Circuit, shares: Shares, params: Mapping[str, Any]) -> Any:
        """The outcome. Raises: BadParams, ValueError, Disagreement, TransportError."""

    def keep(self, outcome: Any, facts: Mapping[str, Any]) -> Held | None:
        """What this node keeps of a result; None where there is none. Raises: TransportError."""

    def stored(self, held: Held) -> tuple[Words, ...]:
        """As the store takes it, and `run` gets it back."""

    def seal(self, words: tuple[Words, ...], **to: Any) -> bytes:
        """Its part of the sealed output, or some of its rows, flat, to whom `sealing.seal_output`
        says."""


def engine_for(engine: str, session: Session, group: Group, reserve: Reserve) -> NodeEngine:
    if engine in SHAMIR:
        return Shamir(engine, session, group, reserve)
    return Ring(engine, session, group)


def transport_of(session: Session, group: Group) -> Transport:
    return session if group.n == len(group.computing) else Roles(session, group.computing)


class Ring:
    def __init__(self, engine: str, session: Session, group: Group) -> None:
        self._engine, self._session, self._group = engine, session, group
        self._context = b""

    def meet(self, context: bytes) -> None:
        self._context = context  # its first message carries it

    def misfits(self, inputs: Sequence[tuple[Words, ...]]) -> dict[int, tuple[int, ...]]:
        return {}  # any words add up to something

    def run(self, circuit: Circuit, shares: Shares, params: Mapping[str, Any]) -> Any:
        from workers.mpc.engines.ring import run_ring
        from workers.mpc.engines.ring_verified import run_verified

        run_engine = {RING: run_ring, VERIFIED: run_verified}[self._engine]
        group, index = self._group, self._session.me
        held = held_by(index, group.n)
        folded = {
            slot: [
                tuple(fold(index, dict(zip(held, words)), group.computing, group.n))
                for words in listed
            ]
            for slot, listed in shares.items()
        }
        return run_engine(
            circuit, folded, params, transport_of(self._session, group), context=self._context
        )

    def keep(self, outcome: Any, facts: Mapping[str, Any]) -> Held | None:
        return keep(self._session, self._group, outcome.result, facts)

    def stored(self, held: Held) -> tuple[Words, ...]:
        return tuple(held.words[j] for j in held_by(self._session.me, self._group.n))

    def seal(self, words: tuple[Words, ...], **to: Any) -> bytes:
        computing = self._group.computing
        roles = held_by(computing.index(self._session.me), len(computing))
        return seal_output(dict(zip(roles, words)), **to)


class Shamir:
    def __init__(self, engine: str, session: Session, group: Group, reserve: Reserve) -> None:
        self._t, self._session, self._group = SHAMIR[engine], session, group
        self._reserve = reserve
        self._net: Any = None

    def meet(self, context: bytes) -> None:
        from workers.mpc.engines.shamir import meet

        self._net = meet(
            transport_of(self._session, self._group),
            t=self._t,
            members=self._group.computing,
            context=context,
            reserve=self._reserve,
        )

    def misfits(self, inputs: Sequence[tuple[Words, ...]]) -> dict[int, tuple[int, ...]]:
        found: dict[int, tuple[int, ...]] = self._net.misfits(inputs)
        return found

    def run(self, circuit: Circuit, shares: Shares, params: Mapping[str, Any]) -> Any:
        from workers.mpc.engines.shamir import run_on

        outcome = run_on(self._net, circuit, shares, params, self._reserve)  # type: ignore[arg-type]
        metrics.BITS_USED.labels("before").inc(outcome.bits_from_reserve)
        metrics.BITS_USED.labels("on the way").inc(outcome.bits_made)
        if outcome.sealed is None:
            return outcome
        l0, l1, l2 = (limb.reshape(-1) for limb in outcome.sealed)
        return replace(outcome, sealed=(l0, l1, l2))

    def keep(self, outcome: Any, facts: Mapping[str, Any]) -> Held | None:
        if outcome.result is None:
            return None
        me = self._session.me
        shape = (len(outcome.result), *outcome.result_shape)
        limbs = np.stack(outcome.result).reshape(shape)
        return Held({me: limbs}, {me: secrets.token_bytes(SALT_BYTES)})

    def stored(self, held: Held) -> tuple[Words, ...]:
        return tuple(held.words[self._session.me])

    def seal(self, words: tuple[Words, ...], **to: Any) -> bytes:
        return seal_share(self._session.me, words, shape=[words[0].size], **to)
