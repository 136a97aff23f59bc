"""An admitted job, computed with the peers, and what this node keeps and signs of it.

Whatever fails is told to the peers, so that nobody waits for this node until the deadline. The
receipt and the result are written in one transaction before the answer leaves.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from apps.protocol import jobs, wire
from apps.protocol.circuits import INFERS, BadParams, Circuit, query_hash
from apps.protocol.tickets import SHAMIR, Ticket, members_with_role
from workers.mpc.engines.shamir_reserve import Reserve
from workers.mpc.keeping import Group, Held, receive
from workers.mpc.replicated import held_by
from workers.mpc.sealing import Words
from workers.mpc.sessions import PeerAborted, Session
from workers.mpc.transport import DeadlineExceeded, TransportError
from workers.node import metrics
from workers.node.engines import NodeEngine, engine_for
from workers.node.errors import NodeError, Refused, Unavailable
from workers.node.home import Node, Peers
from workers.node.records import Answer, Rows, StoredJob
from workers.node.store import Store

if TYPE_CHECKING:
    from workers.mpc.mesh import Mesh
    from workers.node.refreshing import Refreshing

AGREE_SEQ = 0xFFFE0000  # far above what an engine counts to
CHEAT = "cheating_suspected"
MOVED = "shares_moved"
PARTING_S = 0.5  # a cheat that hangs up is named by the notes of those who stay

log = logging.getLogger("flai.jobs")


@dataclass(frozen=True, kw_only=True)
class Admitted:
    """A job that may run: its digests, its circuit, its inputs' tickets and words, and of which
    sharing of its model these are. `verified_only` says that an owner or the model's makers demand
    it, `counted` are the rows that this attempt is counted by, `secret` seals a query's output."""

    job: dict[str, Any]
    digest: str
    scope_digest: str
    circuit: Circuit
    tickets: list[Ticket]
    params: dict[str, Any]
    shares: dict[str, list[tuple[Words, ...]]]
    sharing: str | None = None
    verified_only: bool = False
    counted: Rows | None = None
    secret: bytes | None = None

    @property
    def share_ids(self) -> list[str]:
        return [t.share_id for t in self.tickets]

    @property
    def context(self) -> bytes:
        """What the members hold alike before they compute: the descriptor, and its inputs' tickets.
        An owner may have signed two for one share, whose words do not belong together."""
        ids = [t.id for t in sorted(self.tickets, key=lambda t: t.slot)]
        return hashlib.sha256("".join([self.digest, *ids]).encode()).digest()

    def sender_of(self, slot: str, at: int) -> str:
        return [t for t in self.tickets if t.slot == slot][at].sender


@dataclass(frozen=True)
class Done:
    """What came of a job: what all members know of it, its words and as they are stored, or its
    sealed output."""

    admitted: Admitted
    facts: dict[str, Any]
    held: Held | None = None
    stored: tuple[Words, ...] | None = None
    sealed: bytes | None = None


class Computation:
    """How one node computes: its key, its peers, its store and its connections."""

    def __init__(
        self,
        *,
        node: Node,
        peers: Peers,
        store: Store,
        mesh: Mesh,
        refreshing: Refreshing,
        reserve: Reserve,
    ) -> None:
        self._refreshing = refreshing
        self._reserve = reserve
        self._node = node
        self._peers = peers
        self._store = store
        self._mesh = mesh
        self._fingerprint = node.fingerprint
        self._fingerprints = peers.fingerprints

    def run(self, admitted: Admitted) -> dict[str, Any]:
        """The node's answer, already on disk. Raises: Refused, Unavailable."""
        job = admitted.job
        group = group_of(job)
        with self._session(session_id(job), job["deadline_s"], group, admitted) as session:
            if self._node.index in group.holding:
                return self._hold(admitted, session, group)
            return self._compute(admitted, session, group)

    def run_bundle(
        self, wanted: Sequence[Admitted | None], *, sid: bytes, group: Group, deadline_s: int
    ) -> list[dict[str, Any] | NodeError | None]:
        """Queries of one model as one computation; None for those that some member refused, and an
        error for those whose shares are none.

        The members first tell each other which of them they admitted; what all did is computed,
        its rows one below the other, and each answer is kept, sealed and signed for by itself.
        Raises: Refused, Unavailable, for all of them.
        """
        of_model = next((case for case in wanted if case is not None), None)
        with self._session(sid, deadline_s, group, of_model) as session:
            agreed = self._agree(session, group, [case is not None for case in wanted])
            cases = [case for case, yes in zip(wanted, agreed) if case is not None and yes]
            self._give_back(
                [case for case, yes in zip(wanted, agreed) if case is not None and not yes]
            )
            if not cases:
                return [None] * len(wanted)
            engine = self._met(cases, session, group)
            misfits = self._misfits(engine, cases)
            fit = [case for at, case in enumerate(cases) if at not in misfits]
            self._give_back([cases[at] for at in misfits])
            done = self._together(fit, engine) if fit else []
            kept = iter(self._keep(done) if done else ())
            told = iter([misfits.get(at) or next(kept) for at in range(len(cases))])
        return [
            next(told) if case is not None and yes else None for case, yes in zip(wanted, agreed)
        ]

    def _together(self, cases: Sequence[Admitted], engine: NodeEngine) -> list[Done]:
        shares, params = _one_below_the_other(cases)
        outcome = self._run(replace(cases[0], shares=shares, params=params), engine)
        return [
            Done(case, _facts(case, outcome), sealed=self._seal(case, part, outcome, engine))
            for case, part in zip(cases, _by_query(outcome, cases))
        ]

    def _met(self, cases: Sequence[Admitted], session: Session, group: Group) -> NodeEngine:
        """The members mean the same jobs, on the same sharing of their model."""
        engine = engine_for(cases[0].job["engine"], session, group, self._reserve)
        context = b"".join(case.context for case in cases)
        engine.meet(context + bytes.fromhex(cases[0].sharing or ""))
        return engine

    def _misfits(self, engine: NodeEngine, cases: Sequence[Admitted]) -> dict[int, Refused]:
        """Which of these jobs have an input that is no sharing of anything: its owner's doing, or a
        node's. Raises: WrongShare for the model, which the nodes themselves have made."""
        from workers.mpc.shamir_shares import WrongShare

        places = [
            (number, slot, at)
            for number, case in enumerate(cases)
            for slot, listed in case.shares.items()
            for at in range(len(listed))
            if slot != "model" or number == 0
        ]
        found = engine.misfits([cases[n].shares[slot][at] for n, slot, at in places])
        refused: dict[int, Refused] = {}
        for which, culprits in found.items():
            number, slot, at = places[which]
            if slot == "model":
                raise WrongShare(culprits)
            owner = cases[number].sender_of(slot, at)
            text = f"The nodes' shares of the {slot} of {owner[:8]}… do not belong together."
            refused.setdefault(number, Refused("bad_sharing", text))
        return refused

    def _agree(self, session: Session, group: Group, mine: Sequence[bool]) -> list[bool]:
        """What all members say yes to. Raises: ValueError for members that mean other lists."""
        others = [index for index in group.members if index != self._node.index]
        for index in others:
            session.send(index, AGREE_SEQ, bytes(mine))
        theirs = [bytes(session.recv(index, AGREE_SEQ)) for index in others]
        if any(len(bits) != len(mine) for bits in theirs):
            raise ValueError("the members were asked for different bundles")
        return [bool(yes) and all(bits[at] == 1 for bits in theirs) for at, yes in enumerate(mine)]

    def _give_back(self, refused: Sequence[Admitted]) -> None:
        """What another member refuses has cost nobody a row: nothing of it has left this node. If
        it comes again, it is bound and counted again."""
        first = [(case.job["scope"], case.counted) for case in refused if case.counted is not None]
        if first:
            with self._store.together():
                for scope, rows in first:
                    self._store.unbind(scope, rows)

    @contextmanager
    def _session(
        self, sid: bytes, deadline_s: int, group: Group, admitted: Admitted | None
    ) -> Iterator[Session]:
        """A session with the peers; whatever ends it early is told to them. Members that disagree
        may have begun before and after a refresh of the model's shares."""
        from workers.mpc.engines.counted import Disagreement
        from workers.mpc.engines.ring_verified_net import Cheated
        from workers.mpc.shamir_shares import WrongShare

        deadline = time.monotonic() + deadline_s
        try:
            session = self._mesh.open(sid, deadline=deadline, members=group.members)
            if group.checks:
                session.parting_s = PARTING_S
        except TransportError as error:
            self._heard(error)
            raise _unavailable(error) from None
        try:
            yield session
        except Cheated as error:
            suspects = [group.computing[role] for role in error.suspects]
            session.abort(_accusation(suspects))
            raise self._cheated(suspects, f"{error}") from None
        except Disagreement as error:
            if isinstance(error, WrongShare) and error.culprits:
                session.abort("peer_refused")  # who is told the truth has seen it too
                raise self._cheated(error.culprits, f"{error}") from None
            why = "members_disagree"
            try:
                moved = self._refreshing.moved
                wrong = isinstance(error, WrongShare)  # of a sharing that all had agreed on
                if admitted and not wrong and moved(admitted.job["model"], admitted.sharing):
                    why = MOVED
            finally:  # a store that cannot be read is no reason to let the others wait
                session.abort(why)
            if why == MOVED:
                raise Unavailable(MOVED, "The model was being refreshed.") from None
            raise Refused("members_disagree", f"The members do not agree: {error}.") from None
        except TransportError as error:
            if suspects := _accused(error, group):
                session.abort(_accusation(suspects))
                raise self._cheated(suspects, f"{error}") from None
            # whoever hears of it from us first shall still learn the first reason
            session.abort(error.reason if isinstance(error, PeerAborted) else "peer_lost")
            self._heard(error)
            raise _unavailable(error, begun=_begun(session, group)) from None
        except Refused as error:
            session.abort(error.code)
            raise
        except (BadParams, ValueError) as error:
            session.abort("bad_inputs")
            raise Refused("bad_inputs", f"The circuit cannot run on this: {error}.") from None
        except BaseException:
            session.abort("failed")
            raise
        finally:
            session.close()

    def _heard(self, error: TransportError) -> None:
        """Shares that have moved may be ours: they are the old ones then."""
        if isinstance(error, PeerAborted) and error.reason == MOVED:
            self._refreshing.wake()

    def _cheated(self, suspects: Sequence[int], how: str) -> Refused:
        """Not worth another attempt: their operators must find out which of them it is."""
        prints = [self._fingerprints[i] for i in suspects]
        log.warning("cheating suspected", extra={"suspects": prints, "how": how})
        names = [f"{self._peers.nodes[i]['name']} ({p[:8]})" for i, p in zip(suspects, prints)]
        return Refused(CHEAT, f"{' or '.join(names)} does not keep to the protocol: {how}.")

    def _compute(self, admitted: Admitted, session: Session, group: Group) -> dict[str, Any]:
        engine = self._met([admitted], session, group)
        for refused in self._misfits(engine, [admitted]).values():
            self._give_back([admitted])
            raise refused
        outcome = self._run(admitted, engine)
        facts = _facts(admitted, outcome)
        held = engine.keep(outcome, facts)
        stored = None if held is None else engine.stored(held)
        sealed = None
        if outcome.sealed is not None:
            sealed = self._seal(admitted, outcome.sealed, outcome, engine)
        return self._keep([Done(admitted, facts, held, stored, sealed)])[0]

    def _run(self, admitted: Admitted, engine: NodeEngine) -> Any:
        with metrics.phase(admitted.circuit.id, "compute"):
            outcome = engine.run(admitted.circuit, admitted.shares, admitted.params)
        metrics.ROUNDS.labels(admitted.circuit.id).inc(outcome.rounds)
        metrics.SENT_BYTES.labels(admitted.circuit.id).inc(outcome.bytes_sent)
        return outcome

    def _hold(self, admitted: Admitted, session: Session, group: Group) -> dict[str, Any]:
        """Take what those that compute tell alike."""
        from workers.mpc.engines.counted import Disagreement

        facts, held = receive(session, group)
        if facts.get("job") != admitted.digest:
            raise Disagreement("the members hold different descriptors of this job")
        stored = None
        if held is not None:
            stored = tuple(held.words[j] for j in held_by(session.me, group.n))
        return self._keep([Done(admitted, facts, held, stored)])[0]

    def _keep(self, done: Sequence[Done]) -> list[Answer]:
        """Sign for all of it at once, and write receipts and results in one transaction; only then
        do the answers leave."""
        with metrics.phase(done[0].admitted.circuit.id, "keep"):
            receipts = [self._receipt(one) for one in done]
            told = list(map(wire.encoded, receipts))
            signatures = jobs.sign_receipts(self._node.sign_key, told)
            answers = list(map(_answer, done, receipts, told, signatures))
            put = list(map(_stored, done, answers))
            with self._store.together():
                if is_query(done[0].admitted.job):
                    self._store.finish(put)
                else:
                    for one, job in zip(done, put):
                        self._stage(one, job)
            return answers

    def _receipt(self, done: Done) -> dict[str, Any]:
        admitted, held, sealed = done.admitted, done.held, done.sealed
        job = admitted.job
        access = None if is_query(job) else admitted.tickets[0].access
        return {
            "v": 1,
            "job_id": job["job_id"],
            "attempt": job["attempt"],
            "descriptor": admitted.digest,
            "circuit": admitted.circuit.id,
            "circuits_hash": job["circuits_hash"],
            "scope": job["scope"],
            "inputs": sorted(t.id for t in admitted.tickets),
            "openings": jobs.openings_digest(done.facts["openings"]),
            "model": jobs.model_id(job) if held is not None else None,
            "result": None if held is None else held.hashes(),
            "sealed": None if sealed is None else jobs.sealed_hash(sealed),
            "node": self._fingerprint,
            "at": int(time.time()),
            **jobs.engine_named(job),
            **({"access": access} if access else {}),
        }

    def _stage(self, done: Done, job: StoredJob) -> None:
        admitted, held = done.admitted, done.held
        if held is None:
            return self._store.stage(job)
        ticket = self._result_ticket(admitted, done.facts, held)
        self._store.stage(job, model=job.record["model"], result=ticket, words=done.stored)

    def _result_ticket(
        self, admitted: Admitted, facts: dict[str, Any], held: Held
    ) -> dict[str, Any]:
        """What the result inherits from its makers' tickets and its circuit's declaration.

        `sharing` names the attempt whose words these are: words of two attempts of one job do not
        belong together, and members that hold different ones must not compute. The salts make its
        hashes in the receipts checkable again. `allows` gives with a query's circuit the hash of
        what it computes now, by the release that all makers signed for; other circuits they sign
        for each time anew. The engine is named where they demand it, or those of the model that it
        was trained on from; and of Shamir shares, which are of no use to another one.
        """
        engine = admitted.job["engine"]  # the verified one, if that is demanded
        access = admitted.tickets[0].access
        allows = {
            name: query_hash(name, admitted.params) if name in INFERS else ""
            for name in admitted.circuit.result_allows
        }
        return {
            "v": 2,
            "type": "result",
            "model": jobs.model_id(admitted.job),
            "circuit": admitted.circuit.id,
            "allows": allows,
            "resolution": admitted.tickets[0].resolution,
            "roster": admitted.tickets[0].roster,
            "makers": members_with_role(admitted.job["roster"], "custodian"),
            "nodes": list(self._peers.fingerprints),
            "params": admitted.params,
            "shape": facts["shape"],
            "f": facts["f"],
            "sharing": facts["job"],
            "salts": {str(j): salt.hex() for j, salt in held.salts.items()},
            **({"engine": engine} if engine in SHAMIR or admitted.verified_only else {}),
            **({"access": access} if access else {}),
        }

    def _seal(
        self, admitted: Admitted, words: tuple[Words, ...], outcome: Any, engine: NodeEngine
    ) -> bytes:
        """This node's part of the output, `words` of it, for the reply key that the buyer signed,
        and no other."""
        ticket = admitted.tickets[0]
        assert ticket.reply_key is not None and admitted.secret is not None  # rules of the policy
        return engine.seal(
            words,
            f=outcome.sealed_f,
            job_id=admitted.job["job_id"],
            secret=admitted.secret,
            reply_key=ticket.reply_key,
        )


def bundle_session_id(descriptors: Sequence[dict[str, Any]]) -> bytes:
    """16 bytes naming one bundle: members that were asked for the same one meet."""
    names = b"".join(session_id(job) for job in descriptors)
    return hashlib.sha256(b"flai/bundle/v1\0" + names).digest()[:16]


def _answer(done: Done, receipt: dict[str, Any], told: bytes, signature: str) -> Answer:
    """`told`: the receipt's canonical bytes."""
    openings = done.facts["openings"]
    sealed = None if done.sealed is None else wire.b64(done.sealed)
    content = {"receipt": receipt, "signature": signature, "openings": openings, "sealed": sealed}
    return Answer(
        content,
        f'{{"receipt":{told.decode()},"signature":"{signature}",'
        f'"openings":{json.dumps(openings)},"sealed":{json.dumps(sealed)}}}',
    )


def _stored(done: Done, answer: Answer) -> StoredJob:
    admitted = done.admitted
    job = admitted.job
    return StoredJob(
        job_id=job["job_id"],
        scope=job["scope"],
        attempt=job["attempt"],
        digest=admitted.scope_digest,
        state="done" if is_query(job) else "staged",
        record={
            "answer": answer,
            "share_ids": admitted.share_ids,
            "model": answer["receipt"]["model"],
            "members": list(jobs.members_of(job)),
        },
    )


def _facts(admitted: Admitted, outcome: Any) -> dict[str, Any]:
    """What all members know of an outcome."""
    return {
        "job": admitted.digest,
        "openings": outcome.openings,
        "shape": None if outcome.result_shape is None else list(outcome.result_shape),
        "f": outcome.result_f,
    }


def _one_below_the_other(
    cases: Sequence[Admitted],
) -> tuple[dict[str, list[tuple[Words, ...]]], dict[str, Any]]:
    """All rows as one input, and the parameters of that many rows."""
    slot = cases[0].circuit.rowwise
    assert slot is not None  # else it is no bundle
    joined = zip(*(case.shares[slot][0] for case in cases))
    words = tuple(np.concatenate(parts) for parts in joined)
    rows = sum(case.params["rows"] for case in cases)
    return cases[0].shares | {slot: [words]}, cases[0].params | {"rows": rows}


def _by_query(outcome: Any, cases: Sequence[Admitted]) -> Iterator[tuple[Words, ...]]:
    """The outcome's rows again, asker by asker."""
    start = 0
    scores = outcome.sealed[0].size // sum(case.params["rows"] for case in cases)
    for case in cases:
        end = start + scores * case.params["rows"]
        yield tuple([word[start:end] for word in outcome.sealed])
        start = end


def is_query(job: dict[str, Any]) -> bool:
    return str(job["scope"]).startswith("query:")


def group_of(job: dict[str, Any]) -> Group:
    """Who takes part in this attempt, and how."""
    shamir = job["engine"] in SHAMIR
    return Group(len(job["nodes"]), jobs.computing_of(job), jobs.holding_of(job), shamir)


def session_id(job: dict[str, Any]) -> bytes:
    """16 bytes naming one attempt: members with other descriptors still meet, and disagree."""
    name = f"flai/session/v1\0{job['job_id']}\0{job['attempt']}"
    return hashlib.sha256(name.encode()).digest()[:16]


def _accusation(suspects: Sequence[int]) -> str:
    """What the other members are told of a cheat."""
    return " ".join([CHEAT, *map(str, suspects)])


def _accused(error: TransportError, group: Group) -> list[int]:
    """Whom a peer suspects, before this node has seen it for itself, or without; and that peer,
    whose word alone it is. Nobody where nodes do not check each other: there it would end a round
    for good by one node's word. Nobody on the word of a node outside the job."""
    if not group.checks:
        return []
    if not isinstance(error, PeerAborted) or error.peer not in group.members:
        return []
    said = error.reason.split()
    if said[:1] != [CHEAT]:
        return []
    return [i for i in group.members if i == error.peer or str(i) in said[1:]]


def _begun(session: Session, group: Group) -> bool:
    """All that compute have said something: none of them had no room for it."""
    return session.heard | {session.me} >= set(group.computing)


def _unavailable(error: TransportError, *, begun: bool = False) -> NodeError:
    if isinstance(error, DeadlineExceeded):
        return Unavailable("deadline", f"{error}.")
    if isinstance(error, PeerAborted) and error.reason == "busy" and not begun:
        return Unavailable("peer_busy", f"{error}.")
    if isinstance(error, PeerAborted) and error.reason not in ("peer_lost", "failed"):
        return Unavailable("peer_refused", f"{error}.")
    return Unavailable("peer_lost", f"{error}.")
