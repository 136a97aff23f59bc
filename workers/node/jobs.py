"""Jobs: one at a time, admitted by the policy, staged, then committed by all or by none.

A round's result is staged until the receipts of all members, agreeing, are shown to each: then it
is permanent and its inputs are deleted. A query leaves nothing behind, so it is done when it is
computed; its answer is kept until its ticket expires, so that asking again gives the same.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

from apps.protocol import jobs
from apps.protocol.circuits import CIRCUITS
from apps.protocol.tickets import SHAMIR, TRIO, VERIFIED, Ticket, check_ticket
from workers.mpc.sealing import Words
from workers.mpc.sessions import OVER
from workers.node import metrics, policy
from workers.node.computation import (
    Admitted,
    Computation,
    bundle_session_id,
    group_of,
    is_query,
    session_id,
)
from workers.node.copies import Copies
from workers.node.errors import Conflict, Malformed, NodeError, Refused, Unavailable
from workers.node.home import Limits, Node, Peers
from workers.node.idle import Idle
from workers.node.records import Rows, StoredJob, StoredModel
from workers.node.sealed import CorruptStore
from workers.node.shares import Opened, Shares
from workers.node.store import Store

if TYPE_CHECKING:
    from workers.mpc.mesh import Mesh
    from workers.node.refreshing import Refreshing

FAILED_MAX = 10_000
BUNDLE_MAX = jobs.RECEIPTS_MAX

log = logging.getLogger("flai.jobs")


@dataclass(frozen=True)
class Running:
    """A job on its way; whoever asks for it meanwhile gets the same answer."""

    digest: str
    session: bytes
    future: Future[dict[str, Any]] = field(default_factory=Future)


@dataclass
class Entry:
    """One query of a bundle on its way through this node: an answer, or why there is none."""

    job: dict[str, Any]
    digest: str
    upload: Any
    ticket: Ticket | None = None
    signed: bytes = b""
    opened: Opened | None = None
    running: Running | None = None
    admitted: Admitted | None = None
    answer: dict[str, Any] | None = None
    error: NodeError | None = None

    def fail(self, error: NodeError) -> None:
        """The first reason counts."""
        if self.answer is None and self.error is None:
            self.error = error

    def end(self, answer: dict[str, Any] | NodeError | None) -> None:
        if isinstance(answer, NodeError):
            self.fail(answer)
        elif answer is not None:
            self.answer = answer
        elif self.answer is None:
            self.fail(Unavailable("peer_refused", "Another member refused this query."))

    def reply(self) -> dict[str, Any]:
        if self.error is None:
            return {"answer": self.answer}
        error = self.error
        facts = {"code": error.code, "detail": error.text, "retryable": error.retryable}
        return {"error": facts}


class Jobs:
    """One node's jobs. All methods block and may be called from any thread."""

    def __init__(
        self,
        *,
        node: Node,
        peers: Peers,
        limits: Limits,
        store: Store,
        shares: Shares,
        mesh: Mesh,
        copies: Copies,
        refreshing: Refreshing,
        idle: Idle,
    ) -> None:
        self._node = node
        self._peers = peers
        self._limits = limits
        self._store = store
        self._shares = shares
        self._mesh = mesh
        self._copies = copies
        self._refreshing = refreshing
        self._idle = idle
        self._computation = Computation(
            node=node,
            peers=peers,
            store=store,
            mesh=mesh,
            refreshing=refreshing,
            reserve=idle.reserve,
        )
        self._fingerprint = node.fingerprint
        self._lock = threading.Lock()
        self._binding = threading.RLock()
        self._running: dict[str, Running] = {}
        self._scopes: set[str] = set()  # of those that run
        self._failed: OrderedDict[str, tuple[int, str]] = OrderedDict()

    @property
    def running(self) -> int:
        return len(self._running)

    def runs(self, scope: str) -> bool:
        """Is a job of this scope on its way through this node?"""
        with self._lock:
            return scope in self._scopes

    def run(self, descriptor: Any, signature: Any, uploads: Any = ()) -> dict[str, Any]:
        """{"receipt", "signature", "openings", "sealed"} when this node is done.

        The same answer for a completed job, and for whoever asks while it runs. Members that died
        and begin such an attempt anew are told that it is over: the next one is for all.
        Raises: Malformed, Refused, Conflict, Unavailable.
        """
        digest = self._check(descriptor, signature)
        try:
            known = self._known_answer(descriptor)
            if known is not None:
                self._mesh.refuse(session_id(descriptor), OVER, members=jobs.members_of(descriptor))
                return known
            running, mine = self._enter(descriptor, digest)
        except NodeError as error:
            self._tell(descriptor, error.code)
            raise
        if not mine:
            try:
                return running.future.result(timeout=descriptor["deadline_s"])
            except TimeoutError:
                raise Unavailable("deadline", "The job is still running.") from None
        try:
            answer = self._run(descriptor, digest, uploads)
        except BaseException as error:
            self._leave(descriptor, getattr(error, "code", "failed"))
            running.future.set_exception(error)
            running.future.exception()
            raise
        self._leave(descriptor, None)
        running.future.set_result(answer)
        return answer

    def run_bundle(self, asked: Sequence[dict[str, Any]], signature: Any) -> list[dict[str, Any]]:
        """Queries of one model, computed together: for each {"answer"} or {"error"}.

        asked: [{"descriptor", "upload"}, …], signed for as a whole. Each stands by itself: its own
        ticket, descriptor, receipt and output. One that a member refuses is left out; the others
        go on. Raises: Malformed, Refused, Unavailable, for all of them.
        """
        entries = self._entries(asked, signature)
        session = bundle_session_id([entry.job for entry in entries])
        group = group_of(entries[0].job)
        try:
            known = self._store.known([entry.job["job_id"] for entry in entries])
            for entry in entries:
                self._begin(entry, known)
            with metrics.phase(entries[0].job["circuit"], "admit"):
                for step in (self._look_at, self._verify, self._open):
                    self._take(step, entries)
                # Nothing of a query leaves this node but what its computation masks, until its
                # receipt is on disk; and then this is.
                opened = [entry for entry in entries if entry.opened is not None]
                admitting = self._store.admitting(
                    shares=[entry.opened.ticket.share_id for entry in opened],
                    scopes=[entry.job["scope"] for entry in opened],
                )
                with self._shares.lock, self._binding, admitting:
                    for entry in opened:
                        self._admit_entry(entry)
            deadline_s = min(entry.job["deadline_s"] for entry in entries)
            wanted = [entry.admitted for entry in entries]
            answers = self._computation.run_bundle(
                wanted, sid=session, group=group, deadline_s=deadline_s
            )
            for entry, answer in zip(entries, answers):
                entry.end(answer)
        except NodeError as error:
            self._mesh.refuse(session, error.code, members=group.members)
            for entry in entries:
                if entry.admitted is not None and error.code == "peer_busy":
                    self._store.forgive(entry.job["scope"])
                entry.fail(error)
        except BaseException as error:
            self._mesh.refuse(session, "failed", members=group.members)
            for entry in entries:
                entry.fail(Unavailable("failed", "The node failed on this request."))
            raise error
        finally:
            ends = Counter(filter(None, map(self._end, entries)))
            for end, count in ends.items():
                metrics.ended(entries[0].job["circuit"], end, count)
        return [entry.reply() for entry in entries]

    def turn_away_bundle(self, asked: Sequence[dict[str, Any]], signature: Any) -> None:
        """There is no room for this bundle: tell its members. Raises: Malformed, Refused."""
        jobs_ = [entry.job for entry in self._entries(asked, signature)]
        members = jobs.members_of(jobs_[0])
        self._mesh.refuse(bundle_session_id(jobs_), "busy", members=members)

    def _entries(self, asked: Sequence[dict[str, Any]], signature: Any) -> list[Entry]:
        """A bundle that the coordinator signed: queries of one circuit and one model, each once."""
        if not 0 < len(asked) <= BUNDLE_MAX:
            raise Malformed("malformed", f"A bundle has 1 to {BUNDLE_MAX} queries.")
        try:
            digests = [jobs.job_digest(item["descriptor"]) for item in asked]
        except ValueError:
            raise Malformed("malformed_job", "A job has no canonical form.") from None
        self._signed(jobs.bundle_of(digests), signature, jobs.BUNDLE_DOMAIN)
        for item in asked:
            self._check_form(item["descriptor"])
        entries = [
            Entry(item["descriptor"], digest, item["upload"])
            for item, digest in zip(asked, digests)
        ]
        first = entries[0].job
        kinds = {
            (
                *(job["circuit"], job["model"], job["engine"], len(job["nodes"])),
                *(jobs.computing_of(job), jobs.holding_of(job)),
            )
            for job in (entry.job for entry in entries)
        }
        names = {entry.job["job_id"] for entry in entries}
        circuit = CIRCUITS.get(first["circuit"])
        rowwise = circuit is not None and circuit.rowwise is not None
        together = len(kinds) == 1 and len(names) == len(entries) and rowwise
        if not together or not all(is_query(entry.job) for entry in entries):
            raise Malformed("malformed", "A bundle has queries of one circuit and one model.")
        return entries

    def _begin(self, entry: Entry, known: Collection[str]) -> None:
        """`known`: jobs that this node has an answer of."""
        try:
            if entry.job["job_id"] in known:
                entry.answer = self._known_answer(entry.job)
            if entry.answer is None:
                running, mine = self._enter(entry.job, entry.digest)
                if not mine:
                    raise Conflict("busy", "This attempt is running.", retryable=True)
                entry.running = running
        except NodeError as error:
            entry.fail(error)

    def _take(self, step: Callable[[Entry], None], entries: Sequence[Entry]) -> None:
        """A step of the slow part of admission, before anything is locked. Each is taken for all
        queries before the next: so its code stays in the processor's cache, which makes all three
        a quarter faster."""
        for entry in entries:
            if entry.running is None or entry.error is not None:
                continue
            try:
                step(entry)
            except NodeError as error:
                _say("refused", entry.job, "admission", code=error.code)
                entry.fail(error)
            except Exception as error:  # what one buyer sent takes no other's query along
                kind = type(error).__name__
                _say("refused", entry.job, "admission", code="bad_inputs", kind=kind)
                text = "What was sent for this query can't be read."
                entry.fail(Refused("bad_inputs", text))

    def _look_at(self, entry: Entry) -> None:
        _ensure_input(_share_ids(entry.job), entry.upload)
        now = int(time.time())
        entry.ticket, entry.signed = self._shares.check_form(entry.upload, now=now)

    def _verify(self, entry: Entry) -> None:
        assert entry.ticket is not None
        self._shares.check_signature(entry.ticket, entry.signed, entry.upload)

    def _open(self, entry: Entry) -> None:
        assert entry.ticket is not None
        self._shares.check_fit(entry.ticket)
        opened = self._shares.open(entry.upload, entry.ticket)
        policy.stays_in_the_word(entry.job, entry.ticket.params)
        entry.opened = opened

    def _admit_entry(self, entry: Entry) -> None:
        if entry.opened is None:
            return
        before = self._store.changes
        try:
            entry.admitted = self._admit(entry.job, entry.digest, [entry.opened])
        except NodeError as error:
            if self._store.changes != before:  # none of this transaction may be kept
                raise RuntimeError("a query was refused when it was half admitted") from error
            _say("refused", entry.job, "admission", code=error.code)
            entry.fail(error)

    def _end(self, entry: Entry) -> str | None:
        """How it ended; None of one that did not begin here."""
        running = entry.running
        if running is None:
            return None
        self._leave(entry.job, entry.error.code if entry.error is not None else None)
        if entry.error is None:
            running.future.set_result(entry.answer or {})
            return "computed"
        metrics.REFUSED.labels(entry.error.code).inc()
        running.future.set_exception(entry.error)
        running.future.exception()
        return "failed" if entry.admitted else "refused"

    def turn_away(self, descriptor: Any, signature: Any) -> None:
        """There is no room for this job: tell its members, who would wait for this node.

        Raises: Malformed, Refused.
        """
        self._check(descriptor, signature)
        self._tell(descriptor, "busy")

    def commit(self, job_id: str, signed: Any, descriptor: Any = None) -> dict[str, Any]:
        """Make a staged result permanent, given agreeing receipts of all members. Idempotent.

        A node that was not there, or whose result is that of another attempt, is shown the job's
        descriptor as well: it gets its part from the others. Of Shamir shares it completes the
        round even while they can't give it one ("held": false), so that no input stays with it:
        two stores that keep them would tell each site's. Shown it again, it asks them again.
        Raises: Conflict("unknown_job"), Malformed, Refused, Unavailable.
        """
        stored = self._store.job(job_id)
        if stored is not None and stored.state == "done":
            lacks = stored.record.get("held") is False and descriptor is not None
            return self._adopt(job_id, signed, descriptor) if lacks else _committed(stored.record)
        if descriptor is not None and (stored is None or not self._is_among(stored, signed)):
            return self._adopt(job_id, signed, descriptor)
        with self._lock:
            stored = self._store.job(job_id)
            if stored is None:
                raise Conflict("unknown_job", "This node has no result of that job.")
            record = stored.record
            if stored.state != "done":
                self._check_receipts(stored, signed)
                self._check_open(stored.scope, stored.digest, job_id)
                self._store.commit(job_id, share_ids=record["share_ids"])
                log.info("committed", extra={"job": job_id, "phase": "commit"})
        self._refreshing.wake()  # the others may have refreshed it in the meantime
        return _committed(record)

    def _adopt(self, job_id: str, signed: Any, descriptor: Any) -> dict[str, Any]:
        """Keep what all members of a job signed for, with this node's words from their stores."""
        try:
            jobs.check_job(descriptor)
            if descriptor["nodes"] != list(self._peers.fingerprints):
                raise Refused("wrong_nodes", "The job is for another set of nodes.")
            keys = self._peers.sign_keys(jobs.members_of(descriptor))
            receipts = jobs.check_receipts(signed, sign_keys=keys, nodes=self._peers.fingerprints)
        except jobs.JobError as error:
            raise Refused(error.code, error.text) from None
        if self._limits.verified_only and descriptor["engine"] != VERIFIED:
            raise Refused("verified_only", "This node takes part in verified jobs only.")
        first, sharing = receipts[0], jobs.job_digest(descriptor)
        if (first["job_id"], first["descriptor"]) != (job_id, sharing) or is_query(descriptor):
            raise Refused("bad_receipt", "The receipts are about another job.")
        scope, digest, model = descriptor["scope"], jobs.scope_digest(descriptor), first["model"]
        self._check_open(scope, digest, job_id)
        record = {"answer": None, "model": model}
        kept, result, words = model, None, None
        if model is not None and descriptor["engine"] in SHAMIR:
            try:
                held = self._copies.copy(model)
                result, words = held.ticket, held.words
            except Unavailable:
                kept, record["held"] = None, False
        elif model is not None:
            hashes = {j: value for r in receipts for j, value in r["result"].items()}
            result, words = self._copied(model, sharing, hashes)
        share_ids = [share_id for listed in descriptor["inputs"].values() for share_id in listed]
        with self._lock:
            if scope in self._scopes:
                raise Conflict("busy", "An attempt is still running.", retryable=True)
            self._check_open(scope, digest, job_id)
            self._store.adopt(
                StoredJob(
                    job_id=job_id,
                    scope=scope,
                    attempt=descriptor["attempt"],
                    digest=digest,
                    state="done",
                    record=record | {"share_ids": share_ids},
                ),
                share_ids=share_ids,
                expires_at=int(time.time()),
                model=kept,
                result=result,
                words=words,
            )
        log.info("adopted", extra={"job": job_id, "phase": "commit"})
        self._refreshing.wake()
        return _committed(record)

    def _copied(
        self, model: str, sharing: str, hashes: dict[str, str]
    ) -> tuple[dict[str, Any], tuple[Words, ...]]:
        """This node's words of a model that others made: as its makers signed for them or, if they
        were refreshed since, as all who hold them tell them alike."""
        try:
            return self._copies.fetch(model, sharing, hashes)
        except Unavailable:
            held = self._copies.copy(model)
            if held.ticket.get("sharing") == sharing:
                raise  # these shares were signed for, and the words are others
            return held.ticket, held.words

    def _check_open(self, scope: str, digest: str, job_id: str) -> None:
        """The scope is that job's, as far as this node knows of it. Raises: Refused."""
        binding = self._store.binding(scope)
        if binding is not None and binding.digest != digest:
            raise Refused("scope_bound", "This round is bound to another descriptor.")
        if binding is not None and binding.job_id not in (None, job_id):
            raise Refused("already_completed", "Another job has completed this round.")

    def _is_among(self, stored: StoredJob, signed: Any) -> bool:
        """Are these the receipts of the result that is staged here?"""
        mine = stored.record["answer"]["receipt"]
        return isinstance(signed, list) and any(
            isinstance(item, dict) and item.get("receipt") == mine for item in signed
        )

    def state(self, job_id: str) -> dict[str, Any]:
        """{"state", "answer"} of a job, and the code of its failure."""
        stored = self._store.job(job_id)
        if job_id in self._running:
            return {"state": "running", "answer": None}
        if stored is not None:
            return {"state": stored.state, "answer": stored.record["answer"]}
        if job_id in self._failed:
            return {"state": "failed", "answer": None, "code": self._failed[job_id][1]}
        return {"state": "unknown", "answer": None}

    def _check_receipts(self, stored: StoredJob, signed: Any) -> None:
        try:
            # a result staged by an earlier release is one of three nodes
            members = stored.record.get("members", range(TRIO))
            receipts = jobs.check_receipts(
                signed,
                sign_keys=self._peers.sign_keys(members),
                nodes=self._peers.fingerprints,
            )
        except jobs.JobError as error:
            raise Refused(error.code, error.text) from None
        mine = next(r for r in receipts if r["node"] == self._fingerprint)
        if mine != stored.record["answer"]["receipt"]:
            raise Refused("receipts_disagree", "The receipts are not of the result staged here.")

    def _check(self, descriptor: Any, signature: Any) -> str:
        """The digest of a job that the coordinator signed, of the right form and for this node."""
        self._signed(descriptor, signature, jobs.JOB_DOMAIN)
        self._check_form(descriptor)
        return jobs.job_digest(descriptor)

    def _signed(self, body: Any, signature: Any, domain: str) -> None:
        policy.coordinator_signed_it(
            body, signature, coordinator=self._peers.coordinator, domain=domain
        )

    def _check_form(self, descriptor: Any) -> None:
        try:
            jobs.check_job(descriptor)
        except jobs.JobError as error:
            raise Malformed(error.code, error.text) from None
        if self._node.index not in jobs.members_of(descriptor):
            raise Refused("not_a_member", "This node takes no part in this attempt.")

    def _tell(self, job: dict[str, Any], code: str) -> None:
        """This attempt does not begin here; the one that runs under the same name goes on."""
        session = session_id(job)
        with self._lock:
            runs = any(running.session == session for running in self._running.values())
        if not runs:
            self._mesh.refuse(session, code, members=jobs.members_of(job))
            _say("refused", job, "admission", code=code)

    # ---- one at a time ------------------------------------------------------------------------

    def _known_answer(self, job: dict[str, Any]) -> dict[str, Any] | None:
        """The stored answer, if asking again must give the same."""
        stored = self._store.job(job["job_id"])
        if stored is None:
            return None
        if stored.digest != jobs.scope_digest(job):
            raise Refused("job_id_taken", "Another job has this id.")
        same_attempt = stored.attempt == job["attempt"]
        if same_attempt or (stored.state == "done" and not is_query(job)):
            answer: dict[str, Any] | None = stored.record["answer"]
            if answer is None:
                raise Refused("already_completed", "The others have completed this round.")
            return answer
        return None

    def _enter(self, job: dict[str, Any], digest: str) -> tuple[Running, bool]:
        with self._lock:
            other = self._running.get(job["job_id"])
            if other is not None and other.digest == digest:
                return other, False
            if other is not None or job["scope"] in self._scopes:
                raise Conflict("busy", "Another attempt is still running.", retryable=True)
            last, _code = self._failed.get(job["job_id"], (0, ""))
            if job["attempt"] <= last:
                raise Conflict(
                    "stale_attempt", f"Attempt {last} has failed: number the next.", retryable=True
                )
            running = self._running[job["job_id"]] = Running(digest, session_id(job))
            self._scopes.add(job["scope"])
        self._idle.begin()
        return running, True

    def _leave(self, job: dict[str, Any], code: str | None) -> None:
        with self._lock:
            self._running.pop(job["job_id"], None)
            self._scopes.discard(job["scope"])
            self._failed.pop(job["job_id"], None)
            if code is not None:
                self._failed[job["job_id"]] = (job["attempt"], code)
                while len(self._failed) > FAILED_MAX:
                    self._failed.popitem(last=False)
        self._idle.end()

    # ---- admission ----------------------------------------------------------------------------

    def _run(self, job: dict[str, Any], digest: str, uploads: Any) -> dict[str, Any]:
        began = time.monotonic()
        try:
            with metrics.phase(job["circuit"], "admit"):
                opened = self._take_in(job, uploads)
                policy.stays_in_the_word(job, self._params(job, opened))
                with self._shares.lock, self._binding, self._store.together():
                    admitted = self._admit(job, digest, opened)
        except BaseException as error:  # whatever it is, nobody shall wait for this node
            code = error.code if isinstance(error, NodeError) else "failed"
            self._mesh.refuse(session_id(job), code, members=jobs.members_of(job))
            _say("refused", job, "admission", code=code)
            metrics.ended(job["circuit"], "refused")
            raise
        try:
            answer = self._computation.run(admitted)
        except NodeError as error:
            _say("failed", job, "computation", code=error.code)
            metrics.ended(job["circuit"], "failed")
            if error.code == "peer_busy":
                self._store.forgive(job["scope"])
            raise
        ms = round(1000 * (time.monotonic() - began), 1)
        _say("computed", job, "computation", circuit=job["circuit"], ms=ms)
        metrics.ended(job["circuit"], "computed")
        return answer

    def _admit(self, job: dict[str, Any], digest: str, opened: Sequence[Opened]) -> Admitted:
        """Fetch the inputs, apply every rule, and bind the scope before anything is computed.

        Between the rules and the binding no other job may bind, use or count: both locks are held,
        and what is written is on disk when the transaction around this ends. A refusal comes before
        anything is written, so that the others in this transaction go on.
        """
        circuit = CIRCUITS.get(job["circuit"])
        if circuit is None:
            raise Refused("unknown_circuit", "This node has no such circuit.")
        brought = {one.ticket.share_id: one for one in opened}
        used_by: dict[str, str | None] = {}
        inputs: dict[str, list[Ticket]] = {}
        shares: dict[str, list[tuple[Words, ...]]] = {}
        missing = False
        for slot, share_ids in job["inputs"].items():
            inputs[slot], shares[slot] = [], []
            for share_id in share_ids:
                if share_id in brought:
                    ticket, words = brought[share_id].ticket, brought[share_id].words
                    used_by[share_id] = self._shares.used_by(ticket)
                else:
                    ticket, used_by[share_id], words = self._stored(share_id)
                inputs[slot].append(ticket)
                if words is None:
                    missing = True
                else:
                    shares[slot].append(words)
        model = self._model(job["model"])
        if model is not None:
            shares["model"] = [model.words]
        now = int(time.time())
        day = policy.day_of(now)
        case = policy.Case(
            job=job,
            circuit=circuit,
            inputs=inputs,
            used_by=used_by,
            model=model.ticket if model else None,
            binding=self._store.binding(job["scope"]),
            rows_answered=self._store.rows_answered(
                job["model"] or "", since=policy.epoch_day(day, self._limits.epoch_days)
            ),
            limits=self._limits,
            circuits_hash=self._node.circuits_hash,
            nodes=self._peers.fingerprints,
            former=self._peers.former,
            now=now,
        )
        policy.admit(case)
        if missing:
            raise Conflict("unknown_share", "An input has been deleted.", retryable=True)
        tickets, scope_digest = case.tickets, jobs.scope_digest(job)
        expires_at = max(t.expires_at for t in tickets)
        rows = Rows(job["model"], day, policy.rows_asked(case)) if case.is_query else None
        # after this point it must succeed
        for one in opened:
            self._store.use_share(ticket=one.ticket, job_id=job["job_id"])
        self._store.bind(
            scope=job["scope"],
            digest=scope_digest,
            share_ids=[t.share_id for t in tickets if t.share_id not in brought],
            job_id=job["job_id"] if case.is_query else None,
            expires_at=expires_at,
            rows=rows,
        )
        return Admitted(
            job=job,
            digest=digest,
            scope_digest=scope_digest,
            circuit=circuit,
            tickets=tickets,
            params=tickets[0].params,
            shares=shares,
            sharing=model.ticket.get("sharing") if model else None,
            verified_only=VERIFIED in case.engines_signed,
            counted=rows if case.binding is None else None,
            secret=opened[0].secret if case.is_query and opened else None,
        )

    def _params(self, job: dict[str, Any], opened: Sequence[Opened]) -> dict[str, Any]:
        """What one of the owners signed; that it is what all did is a rule of the policy."""
        tickets = [one.ticket for one in opened]
        stored = (self._stored(i)[0] for listed in job["inputs"].values() for i in listed)
        first = next(chain(tickets, stored), None)
        return {} if first is None else first.params

    def _model(self, model: str | None) -> StoredModel | None:
        """Raises: Unavailable for one that does not open here, until it is copied again."""
        try:
            return None if model is None else self._store.model(model)
        except CorruptStore:
            self._refreshing.wake()
            raise Unavailable("model_damaged", "The model is damaged here.") from None

    def _stored(self, share_id: str) -> tuple[Ticket, str | None, tuple[Words, ...] | None]:
        """A share's ticket, the job that uses it, and its words if they are still here."""
        share = self._store.share(share_id)
        if share is None:
            raise Conflict("unknown_share", f"Share {share_id} is not here.", retryable=True)
        # expiry is a rule of the policy; what is stored was in time when it came
        ticket = check_ticket(share.ticket, now=share.ticket["issued_at"])
        return ticket, share.used_by, share.words

    def _take_in(self, job: dict[str, Any], uploads: Any) -> list[Opened]:
        """The uploads that came with the job: a query's opened, a round's stored."""
        if not isinstance(uploads, (list, tuple)):
            raise Malformed("malformed", "uploads is not a list.")
        opened, wanted = [], _share_ids(job)
        for upload in uploads:
            _ensure_input(wanted, upload)
            if is_query(job):
                ticket = self._shares.check(upload, now=int(time.time()))
                opened.append(self._shares.open(upload, ticket))
            else:
                self._shares.accept(upload)
        return opened


def _share_ids(job: dict[str, Any]) -> set[str]:
    return {share_id for listed in job["inputs"].values() for share_id in listed}


def _ensure_input(wanted: Collection[str], upload: Any) -> None:
    """Raises: Malformed for what is no upload of one of these shares."""
    ticket = upload.get("ticket") if isinstance(upload, dict) else None
    share_id = ticket.get("share_id") if isinstance(ticket, dict) else None
    if not isinstance(share_id, str) or share_id not in wanted:
        raise Malformed("malformed", "An upload is not an input of this job.")


def _say(event: str, job: dict[str, Any], phase: str, **facts: Any) -> None:
    """One line: which job and attempt, how far it was. Never what it computes on."""
    about = {"job": job["job_id"], "attempt": job["attempt"], "phase": phase, **facts}
    log.log(logging.WARNING if "code" in facts else logging.INFO, event, extra=about)


def _committed(record: dict[str, Any]) -> dict[str, Any]:
    """What is answered for a permanent result; "held" where this node has no share of it yet."""
    held = {"held": False} if record.get("held") is False else {}
    return {"committed": True, "model": record["model"], **held}
