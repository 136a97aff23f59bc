"""Run engines in tests: three members as threads, or as processes over real sockets."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from apps.protocol.circuits import Circuit
from workers.mpc import keeping, replicated
from workers.mpc.engines.base import Shared, as_words
from workers.mpc.engines.plain import Plain
from workers.mpc.engines.ring import Ring, RingOutcome, run_ring
from workers.mpc.engines.ring_net import Net
from workers.mpc.engines.ring_verified import RingVerified, run_verified
from workers.mpc.engines.ring_verified_net import VerifiedNet
from workers.mpc.transport import LocalMesh, Roles, SocketTransport, Transport, socket_pairs

Values = Mapping[str, Sequence[Any]]
Function = Callable[..., Any]


def shares_for(words: list[Any], node: int) -> tuple[Any, ...]:
    return tuple(words[j] for j in replicated.held_by(node, len(words)))


def share(values: Any, n: int = 3) -> list[Any]:
    return replicated.split(as_words(values), *(os.urandom(32) for _ in range(n - 1)))


def held(words: list[Any], node: int) -> dict[int, Any]:
    """What a node of len(words) holds."""
    return {j: word for j, word in enumerate(words) if j != node}


def threads_of(
    work: Callable[[Transport], Any],
    transports: Sequence[Transport] | None = None,
    *,
    n: int = 3,
    mesh: LocalMesh | None = None,
) -> list[Any]:
    """work(transport) at each member; answers or exceptions, in order of the members.

    Who raises is gone for the others, where the mesh is known or made here.
    """
    if transports is None:
        mesh = LocalMesh(n)
    members: Sequence[Any] = transports or mesh.transports  # type: ignore[union-attr]
    answers: list[Any] = [None] * len(members)

    def run(me: int) -> None:
        try:
            answers[me] = work(members[me])
        except Exception as error:
            answers[me] = error
            if mesh:
                mesh.kill(me)

    threads = [threading.Thread(target=run, args=(me,)) for me in range(len(members))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def group_threads(
    circuit: Circuit,
    values: Values,
    params: Mapping[str, Any],
    group: keeping.Group,
    transports: Sequence[Transport],
) -> dict[int, tuple[RingOutcome | None, keeping.Held | None]]:
    """The circuit on a job's members among n nodes, by node; `transports` are all n nodes'."""
    shared = {slot: [share(value, group.n) for value in items] for slot, items in values.items()}

    def work(transport: Transport) -> Any:
        if transport.me in group.holding:
            return None, keeping.receive(transport, group)[1]
        shares = {
            slot: [
                tuple(replicated.fold(me, held(words, me), group.computing, group.n))
                for words in items
            ]
            for slot, items in shared.items()
            for me in [transport.me]
        }
        roles = Roles(transport, group.computing)
        outcome = run_ring(circuit, shares, params, roles, context=b"test")
        shape = None if outcome.result_shape is None else list(outcome.result_shape)
        return outcome, keeping.keep(transport, group, outcome.result, {"shape": shape})

    answers = threads_of(work, [transports[i] for i in group.members])
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return dict(zip(group.members, answers, strict=True))


def three(transport: Transport) -> Ring:
    return Ring(Net(transport, b"test"))


def four(transport: Transport) -> RingVerified:
    return RingVerified(VerifiedNet(transport, b"test"))


def ring_function(function: Function, *inputs: tuple[Any, int], n: int = 3) -> Any:
    """function(ops, *secrets) on the ring of n, opened; inputs are (integers, f). All agree."""
    shared = [(share(values, n), f) for values, f in inputs]

    def work(transport: Transport) -> Any:
        ring = {3: three, 4: four}[n](transport)
        secrets = [Shared(shares_for(words, transport.me), f) for words, f in shared]
        with np.errstate(over="ignore"):
            answer = function(ring, *secrets)
            return ring.open(answer) if isinstance(answer, Shared) else answer

    answers = threads_of(work, n=n)
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
        np.testing.assert_array_equal(answer, answers[0])
    return answers[0]


def ring_threads(circuit: Circuit, values: Values, params: Mapping[str, Any]) -> list[RingOutcome]:
    """The circuit on three members; values as for `run_plain`."""
    return _threads(run_ring, 3, circuit, values, params)


def verified_threads(
    circuit: Circuit, values: Values, params: Mapping[str, Any]
) -> list[RingOutcome]:
    """The same on the verified ring's four."""
    return _threads(run_verified, 4, circuit, values, params)


def _threads(
    run: Any, n: int, circuit: Circuit, values: Values, params: Mapping[str, Any]
) -> list[RingOutcome]:
    shared = {slot: [share(value, n) for value in items] for slot, items in values.items()}

    def work(transport: Transport) -> Any:
        me = transport.me
        mine = {slot: [shares_for(words, me) for words in items] for slot, items in shared.items()}
        return run(circuit, mine, params, transport, context=b"test")

    answers = threads_of(work, n=n)
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers


def plain_function(function: Function, *inputs: tuple[Any, int]) -> Any:
    """The same in the clear."""
    plain = Plain()
    with np.errstate(over="ignore"):
        answer = function(plain, *(Shared((as_words(v),), f) for v, f in inputs))
        return plain.open(answer) if isinstance(answer, Shared) else answer


def _member(me: int, circuit_id: str, shared: Any, params: Any, peers: Any, answers: Any) -> None:
    from apps.protocol.circuits import CIRCUITS

    for other, sockets in enumerate(peers):
        if other != me:
            for sock in sockets.values():
                sock.close()
    transport = SocketTransport(me, peers[me])
    shares = {slot: [shares_for(words, me) for words in items] for slot, items in shared.items()}
    answers.send(run_ring(CIRCUITS[circuit_id], shares, params, transport, context=b"test"))
    # the others may still read what was sent last
    answers.recv()
    transport.close()


def three_processes(
    circuit: Circuit, values: Values, params: Mapping[str, Any]
) -> list[RingOutcome]:
    """The circuit on three processes joined by sockets; values as for `run_plain`."""
    context = multiprocessing.get_context("fork")
    shared = {slot: [share(value) for value in items] for slot, items in values.items()}
    peers = socket_pairs()
    pipes, members = [], []
    for me in range(3):
        here, there = context.Pipe()
        member = context.Process(
            target=_member, args=(me, circuit.id, shared, params, peers, there), daemon=True
        )
        member.start()
        there.close()
        pipes.append(here)
        members.append(member)
    for sockets in peers:
        for sock in sockets.values():
            sock.close()
    outcomes = [pipe.recv() for pipe in pipes]
    for pipe, member in zip(pipes, members, strict=True):
        pipe.send(None)
        member.join()
    return outcomes


def joined(outcomes: Sequence[RingOutcome], name: str) -> Any:
    """The secret `result` or `sealed` put together as its addressee would; words must agree."""
    words: dict[int, Any] = {}
    for node, outcome in enumerate(outcomes):
        held_here = replicated.held_by(node, len(outcomes))
        for index, word in zip(held_here, getattr(outcome, name), strict=True):
            np.testing.assert_array_equal(words.setdefault(index, word), word)
    return replicated.join(words).astype(np.int64)
