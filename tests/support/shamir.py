"""Run the Shamir engine in tests: members as threads, or as processes over real sockets."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from apps.protocol.circuits import Circuit
from workers.mpc import shamir_shares
from workers.mpc.engines import shamir
from workers.mpc.engines.base import Shared
from workers.mpc.engines.shamir_net import Net
from workers.mpc.transport import LocalMesh, SocketTransport, Transport, socket_pairs

# (n, t, ids of the nodes that live)
SETTINGS = [(3, 1, (0, 1, 2)), (5, 2, (0, 1, 2, 3, 4)), (5, 1, (0, 1, 2, 3, 4)), (5, 1, (1, 3, 4))]
THREE = SETTINGS[0]
SURVIVORS = SETTINGS[3]
Setting = tuple[int, int, tuple[int, ...]]


def threads(work: Callable[[Transport], Any], members: int) -> list[Any]:
    """work(transport) at each member; answers or exceptions, by place."""
    mesh = LocalMesh(members)
    answers: list[Any] = [None] * members

    def run(me: int) -> None:
        try:
            answers[me] = work(mesh.transports[me])
        except Exception as error:
            answers[me] = error
            mesh.kill(me)

    running = [threading.Thread(target=run, args=(me,)) for me in range(members)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return answers


def shamir_function(
    function: Callable[..., Any],
    *inputs: tuple[Any, int],
    setting: Setting = THREE,
    pools: Sequence[shamir.BitPool] | None = None,
) -> Any:
    """function(ops, *secrets), opened; inputs are (integers, f). All members must agree."""
    n, t, members = setting
    shared = [(shamir_shares.split(values, n=n, t=t), np.shape(values), f) for values, f in inputs]

    def work(transport: Transport) -> Any:
        pool = pools[transport.me] if pools else None
        engine = shamir.Shamir(Net(transport, members, t, shamir.weights, b"test"), pool)
        secrets = [
            Shared(tuple(limb.reshape(shape) for limb in shares[members[transport.me]]), f)
            for shares, shape, f in shared
        ]
        answer = function(engine, *secrets)
        return engine.open(answer) if isinstance(answer, Shared) else answer

    answers = threads(work, len(members))
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
        np.testing.assert_array_equal(answer, answers[0])
    return answers[0]


def shared_values(values: Mapping[str, Sequence[Any]], n: int, t: int) -> dict[str, Any]:
    """Per slot and owner the shares by node."""
    return {
        slot: [shamir_shares.split(value, n=n, t=t) for value in items]
        for slot, items in values.items()
    }


def run_threads(
    circuit: Circuit,
    values: Mapping[str, Sequence[Any]],
    params: Mapping[str, Any],
    setting: Setting = THREE,
) -> list[shamir.ShamirOutcome]:
    n, t, members = setting
    shared = shared_values(values, n, t)

    def work(transport: Transport) -> Any:
        node = members[transport.me]
        shares = {slot: [item[node] for item in items] for slot, items in shared.items()}
        return shamir.run_shamir(circuit, shares, params, transport, t=t, members=members)

    answers = threads(work, len(members))
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers


def _member(
    me: int, circuit_id: str, shared: Any, params: Any, setting: Setting, peers: Any, answers: Any
) -> None:
    from apps.protocol.circuits import CIRCUITS

    for other, sockets in enumerate(peers):
        if other != me:
            for sock in sockets.values():
                sock.close()
    _, t, members = setting
    transport = SocketTransport(me, peers[me])
    shares = {slot: [item[members[me]] for item in items] for slot, items in shared.items()}
    answers.send(
        shamir.run_shamir(
            CIRCUITS[circuit_id], shares, params, transport, t=t, members=members, context=b"test"
        )
    )
    # the others may still read what was sent last
    answers.recv()
    transport.close()


def run_processes(
    circuit: Circuit,
    values: Mapping[str, Sequence[Any]],
    params: Mapping[str, Any],
    setting: Setting = THREE,
) -> list[shamir.ShamirOutcome]:
    """The circuit on one process per live node, joined by sockets."""
    n, t, members = setting
    context = multiprocessing.get_context("fork")
    shared = shared_values(values, n, t)
    peers = socket_pairs(len(members))
    pipes, running = [], []
    for me in range(len(members)):
        here, there = context.Pipe()
        member = context.Process(
            target=_member,
            args=(me, circuit.id, shared, params, setting, peers, there),
            daemon=True,
        )
        member.start()
        there.close()
        pipes.append(here)
        running.append(member)
    for sockets in peers:
        for sock in sockets.values():
            sock.close()
    outcomes = [pipe.recv() for pipe in pipes]
    for pipe, member in zip(pipes, running, strict=True):
        pipe.send(None)
        member.join()
    return outcomes


def joined(outcomes: Sequence[shamir.ShamirOutcome], name: str, setting: Setting = THREE) -> Any:
    """The secret `result` or `sealed`, put together from every t + 1 of the shares alike."""
    _, t, members = setting
    shares = [getattr(outcome, name) for outcome in outcomes]
    words = shamir_shares.join(dict(zip(members, shares, strict=True)))
    few = dict(list(zip(members, shares, strict=True))[-t - 1 :])
    np.testing.assert_array_equal(shamir_shares.join(few), words)
    return words.astype(np.int64)
