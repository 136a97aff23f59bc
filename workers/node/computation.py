"""An admitted job, computed with the peers, and what this node keeps and signs of it.

Whatever fails is told to the peers, so that nobody waits for this node until the deadline. The
receipt and the result are written in one transaction before the answer leaves.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from apps.protocol import jobs, wire
from apps.protocol.circuits import BadParams, Circuit
from apps.protocol.tickets import NODES, Ticket
from workers.mpc.replicated import held_by
from workers.mpc.sealing import Words, seal_output
from workers.mpc.sessions import PeerAborted, Session
from workers.mpc.transport import DeadlineExceeded, TransportError
from workers.node.errors import NodeError, Refused, Unavailable
from workers.node.home import Node, Peers
from workers.node.store import Store, StoredJob

if TYPE_CHECKING:
    from workers.mpc.mesh import Mesh

SALT_SEQ = 0xFFFF0000  # far above what an engine counts to
SALT_BYTES = 32


@dataclass(frozen=True, kw_only=True)
class Admitted:
    """A job that may run: its circuit, its inputs' tickets and words."""

    job: dict[str, Any]
    circuit: Circuit
    tickets: list[Ticket]
    params: dict[str, Any]
    shares: dict[str, list[tuple[Words, Words]]]

    @property
    def share_ids(self) -> list[str]:
        return [t.share_id for t in self.tickets]


class Computation:
    """How one node computes: its key, its peers, its store and its connections."""

    def __init__(self, *, node: Node, peers: Peers, store: Store, mesh: Mesh) -> None:
        self._node = node
        self._peers = peers
        self._store = store
        self._mesh = mesh
        self._fingerprint = node.fingerprint

    def run(self, admitted: Admitted) -> dict[str, Any]:
        """The node's answer, already on disk. Raises: Refused, Unavailable."""
        from workers.mpc.engines.ring import Disagreement, run_ring

        job = admitted.job
        deadline = time.monotonic() + job["deadline_s"]
        try:
            session = self._mesh.open(session_id(job), deadline=deadline)
        except TransportError as error:
            raise _unavailable(error) from None
        try:
            outcome = run_ring(
                admitted.circuit,
                admitted.shares,
                admitted.params,
                session,
                context=bytes.fromhex(jobs.job_digest(job)),
            )
            salts = self._exchange_salts(session) if outcome.result is not None else None
            return self._keep(admitted, outcome, salts)
        except Disagreement as error:
            session.abort("members_disagree")
            raise Refused("members_disagree", f"The members do not agree: {error}.") from None
        except TransportError as error:
            # whoever hears of it from us first shall still learn the first reason
            session.abort(error.reason if isinstance(error, PeerAborted) else "peer_lost")
            raise _unavailable(error) from None
        except (BadParams, ValueError) as error:
            session.abort("bad_inputs")
            raise Refused("bad_inputs", f"The circuit cannot run on this: {error}.") from None
        except BaseException:
            session.abort("failed")
            raise
        finally:
            session.close()

    def _exchange_salts(self, session: Session) -> tuple[bytes, bytes]:
        """A salt per held word, known to its two holders only.

        Without it a node, which holds two words, could test guesses of the model against the
        third word's hash in the receipts.
        """
        mine = secrets.token_bytes(SALT_BYTES)
        session.send((self._node.index + 1) % NODES, SALT_SEQ, mine)
        other = session.recv((self._node.index + 2) % NODES, SALT_SEQ)
        return other, mine  # my second word is the next node's first

    def _keep(
        self, admitted: Admitted, outcome: Any, salts: tuple[bytes, bytes] | None
    ) -> dict[str, Any]:
        """Write receipt and result in one transaction; only then does the answer leave."""
        job, circuit = admitted.job, admitted.circuit
        sealed = None
        if outcome.sealed is not None:
            sealed = self._seal(admitted, outcome)
        model = jobs.model_id(job) if outcome.result is not None else None
        hashes = _word_hashes(self._node.index, outcome.result, salts)
        receipt = {
            "v": 1,
            "job_id": job["job_id"],
            "attempt": job["attempt"],
            "descriptor": jobs.job_digest(job),
            "circuit": circuit.id,
            "circuits_hash": self._node.circuits_hash,
            "scope": job["scope"],
            "inputs": sorted(t.id for t in admitted.tickets),
            "openings": wire.digest(jobs.OPENINGS_DOMAIN, outcome.openings),
            "model": model,
            "result": hashes,
            "sealed": None if sealed is None else jobs.sealed_hash(sealed),
            "node": self._fingerprint,
            "at": int(time.time()),
        }
        answer = {
            "receipt": receipt,
            "signature": wire.sign(self._node.sign_key, jobs.RECEIPT_DOMAIN, receipt),
            "openings": outcome.openings,
            "sealed": None if sealed is None else wire.b64(sealed),
        }
        stored = StoredJob(
            job_id=job["job_id"],
            scope=job["scope"],
            attempt=job["attempt"],
            digest=jobs.scope_digest(job),
            state="done" if is_query(job) else "staged",
            record={"answer": answer, "share_ids": admitted.share_ids, "model": model},
        )
        if is_query(job):
            self._store.finish(stored, share_ids=admitted.share_ids)
        elif model is None:
            self._store.stage(stored)
        else:
            ticket = self._result_ticket(admitted, outcome, model)
            self._store.stage(stored, model=model, result=ticket, words=outcome.result)
        return answer

    def _result_ticket(self, admitted: Admitted, outcome: Any, model: str) -> dict[str, Any]:
        """What the result inherits from its makers' tickets and its circuit's declaration."""
        return {
            "v": 1,
            "type": "result",
            "model": model,
            "circuit": admitted.circuit.id,
            "allows": list(admitted.circuit.result_allows),
            "resolution": admitted.tickets[0].resolution,
            "roster": admitted.tickets[0].roster,
            "nodes": list(self._peers.fingerprints),
            "params": admitted.params,
            "shape": list(outcome.result_shape),
            "f": outcome.result_f,
        }

    def _seal(self, admitted: Admitted, outcome: Any) -> bytes:
        """The output words, for the reply key that the buyer signed, and no other."""
        ticket = admitted.tickets[0]
        assert ticket.reply_key is not None  # a rule of the policy
        held = zip(held_by(self._node.index), outcome.sealed)
        return seal_output(
            {j: w.reshape(outcome.sealed_shape) for j, w in held},
            f=outcome.sealed_f,
            job_id=admitted.job["job_id"],
            ticket_id=ticket.id,
            fingerprint=self._fingerprint,
            reply_key=ticket.reply_key,
        )


def is_query(job: dict[str, Any]) -> bool:
    return str(job["scope"]).startswith("query:")


def session_id(job: dict[str, Any]) -> bytes:
    """16 bytes naming one attempt: members with other descriptors still meet, and disagree."""
    name = f"flai/session/v1\0{job['job_id']}\0{job['attempt']}"
    return hashlib.sha256(name.encode()).digest()[:16]


def _word_hashes(
    index: int, result: tuple[Words, Words] | None, salts: tuple[bytes, bytes] | None
) -> dict[str, str] | None:
    """{"<word j>": SHA-256(salt_j ‖ word)}: equal at both holders, telling nothing to the third."""
    if result is None or salts is None:
        return None
    return {
        str(j): hashlib.sha256(salt + word.astype("<u8").tobytes()).hexdigest()
        for j, word, salt in zip(held_by(index), result, salts)
    }


def _unavailable(error: TransportError) -> NodeError:
    if isinstance(error, DeadlineExceeded):
        return Unavailable("deadline", f"{error}.")
    if isinstance(error, PeerAborted) and error.reason == "busy":
        return Unavailable("peer_busy", f"{error}.")
    if isinstance(error, PeerAborted) and error.reason not in ("peer_lost", "failed"):
        return Unavailable("peer_refused", f"{error}.")
    return Unavailable("peer_lost", f"{error}.")
