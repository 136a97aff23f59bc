"""The share store: what owners sent, what was computed of it, and what must not be done again.

An encrypted file (workers/node/sealed.py); one transaction per step of a job. What is deleted is in
no file of it after each commit of a round, and after every purge.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from apps.protocol.jobs import STAGED_FOR_S
from apps.protocol.tickets import Ticket
from workers.mpc.sealing import Words
from workers.node.errors import Unavailable
from workers.node.packing import pack, pack_short, unpack, unpack_short
from workers.node.records import (
    Binding,
    KeptShare,
    Rows,
    Sharing,
    StoredJob,
    StoredModel,
    StoredShare,
    with_answer,
)
from workers.node.sealed import CorruptStore, SealedFile, as_json

MODELS_MAX = 16
WITHDRAWN = "withdrawn"  # in place of a job's id: no job may use this share

_AT_MAX = 1 << 62  # SQLite holds no more
_FOREVER = 1 << 40  # no ticket is issued as late

log = logging.getLogger("flai.store")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS shares (
    share_id TEXT PRIMARY KEY,
    ticket_id TEXT NOT NULL,
    expires_at INTEGER NOT NULL,
    used_by TEXT,                -- the one job that this share may enter, or has entered
    body BLOB NOT NULL,          -- ticket and acknowledgement; empty if it came with its job
    words BLOB                   -- all but one; NULL once used up
) STRICT;
CREATE TABLE IF NOT EXISTS scopes (
    scope TEXT PRIMARY KEY,
    digest TEXT NOT NULL,        -- the only descriptor that this scope will ever see
    job_id TEXT,                 -- the job that completed it
    expires_at INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 1  -- that were admitted here
) STRICT;
CREATE TABLE IF NOT EXISTS jobs (
    job_id TEXT PRIMARY KEY,
    scope TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    digest TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('staged', 'done')),
    body BLOB NOT NULL           -- the answer, and what committing it will touch
) STRICT;
CREATE TABLE IF NOT EXISTS models (
    model TEXT PRIMARY KEY,
    job_id TEXT NOT NULL,
    committed INTEGER NOT NULL,
    body BLOB NOT NULL,          -- the result ticket
    words BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS renewed (  -- models in new shares, until all members have them
    model TEXT PRIMARY KEY,
    body BLOB NOT NULL,
    words BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS answered (
    model TEXT NOT NULL,
    day INTEGER NOT NULL,        -- UTC, from 1970
    rows INTEGER NOT NULL,       -- of all queries bound that day; never deleted
    PRIMARY KEY (model, day)
) STRICT;
CREATE TABLE IF NOT EXISTS kept (
    root TEXT PRIMARY KEY,       -- whose words these are, and which (`Ticket.root`)
    share_id TEXT NOT NULL,      -- as which they came
    expires_at INTEGER NOT NULL,
    body BLOB NOT NULL,          -- the ticket that they came with, and the scopes they were in
    words BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS withdrawals (
    owner TEXT PRIMARY KEY,      -- digest of a scope, or of "kept:" and a root, and the key that
                                 -- took its shares there back
    at INTEGER NOT NULL          -- none that was issued before is taken; never deleted
) STRICT;
"""


@dataclass
class Page:
    """What is on record of some shares and scopes, and what is to be written of them at once.
    Raises KeyError for others: nothing is known of those."""

    marks: dict[str, tuple[str, str | None] | None]
    bindings: dict[str, Binding | None]
    answered: dict[tuple[str, int], int] = field(default_factory=dict)  # as asked for
    rows: Counter[tuple[str, int]] = field(default_factory=Counter)  # new ones, by model and day
    shares: list[tuple[Any, ...]] = field(default_factory=list)
    scopes: list[tuple[Any, ...]] = field(default_factory=list)
    again: list[tuple[str]] = field(default_factory=list)
    used: list[tuple[str, str]] = field(default_factory=list)

    @property
    def writes(self) -> int:
        return len(self.shares) + len(self.scopes) + len(self.again) + len(self.used)

    def use_share(self, ticket: Ticket, job_id: str) -> None:
        self.shares.append((ticket.share_id, ticket.id, ticket.expires_at, job_id))
        self.marks[ticket.share_id] = (ticket.id, job_id)

    def bind(
        self,
        scope: str,
        digest: str,
        share_ids: Sequence[str],
        job_id: str | None,
        expires_at: int,
        rows: Rows | None,
    ) -> None:
        known = self.bindings[scope]
        if known is None:
            self.scopes.append((scope, digest, expires_at))
            self.bindings[scope] = Binding(digest, None)
            if rows is not None:
                self.rows[rows.model, rows.day] += rows.rows
        else:
            self.again.append((scope,))
            self.bindings[scope] = replace(known, attempts=known.attempts + 1)
        if job_id is not None:
            self.used += [(job_id, share_id) for share_id in share_ids]


class Store(SealedFile):
    """Raises StartError when the file cannot be opened or the key is not its own."""

    SCHEMA = _SCHEMA
    SEALED = SealedFile.SEALED | {
        "shares": ("share_id", "body", "words"),
        "kept": ("root", "body", "words"),
        "jobs": ("job_id", "body"),
        "models": ("model", "body", "words"),
        "renewed": ("model", "body", "words"),
    }

    def __init__(self, path: Path, key: bytes) -> None:
        self._models: OrderedDict[str, StoredModel] = OrderedDict()  # committed ones
        self.damaged: set[str] = set()  # committed models that were found not to open
        self._page: Page | None = None
        super().__init__(path, key)

    # ---- shares -------------------------------------------------------------------------------

    def put_share(
        self,
        *,
        ticket: dict[str, Any],
        ticket_id: str,
        ack: dict[str, Any],
        words: Any,
        until: int | None = None,
    ) -> None:
        """words: each as an array, or as the seed that it is the key stream of; they lie here until
        a job used them, its owner took them back or that time, else the ticket's, is over."""
        self._put_share(ticket, ticket_id, ack, pack_short(words), until or ticket["expires_at"])

    def _put_share(
        self,
        ticket: dict[str, Any],
        ticket_id: str,
        ack: dict[str, Any],
        packed: bytes,
        until: int,
    ) -> None:
        share_id = ticket["share_id"]
        with self._transaction() as db:
            body = self._seal("shares", share_id, "body", as_json({"ticket": ticket, "ack": ack}))
            sealed = self._seal("shares", share_id, "words", packed)
            db.execute(
                "INSERT INTO shares VALUES (?, ?, ?, NULL, ?, ?)",
                (share_id, ticket_id, until, body, sealed),
            )

    # ---- shares that stay for further rounds --------------------------------------------------

    def keep(self, *, root: str, ticket: dict[str, Any], words: Any, bytes_max: int) -> bool:
        """Let a share's words stay, beside those of its round; False where there is no room for
        them under this sum of all that stays."""
        packed = pack_short(words)
        with self._transaction() as db:
            (held,) = db.execute("SELECT coalesce(sum(length(words)), 0) FROM kept").fetchone()
            if held + len(packed) > bytes_max:
                return False
            content = as_json({"ticket": ticket, "scopes": [ticket["scope"]]})
            body = self._seal("kept", root, "body", content)
            sealed = self._seal("kept", root, "words", packed)
            db.execute(
                "INSERT OR REPLACE INTO kept VALUES (?, ?, ?, ?, ?)",
                (root, ticket["share_id"], ticket["expires_at"], body, sealed),
            )
        return True

    def kept_share(self, root: str) -> KeptShare | None:
        """What stays of this owner under these commitments; of what does not open, nothing."""
        with self._lock, suppress(CorruptStore):
            row = self._one("SELECT body FROM kept WHERE root = ?", root)
            if row is not None:
                return KeptShare(**json.loads(self._open("kept", root, "body", row[0])))
        return None

    def use_kept(
        self, *, root: str, ticket: dict[str, Any], ticket_id: str, ack: dict[str, Any]
    ) -> None:
        """Put what stays into another round, as a share of its own there, counted once a scope.
        Raises: CorruptStore."""
        with self._transaction() as db:
            body, words = db.execute(
                "SELECT body, words FROM kept WHERE root = ?", (root,)
            ).fetchone()
            content = json.loads(self._open("kept", root, "body", body))
            packed = self._open("kept", root, "words", words)
            self._put_share(ticket, ticket_id, ack, packed, ticket["expires_at"])
            content["scopes"] = sorted({*content["scopes"], ticket["scope"]})
            sealed = self._seal("kept", root, "body", as_json(content))
            db.execute("UPDATE kept SET body = ? WHERE root = ?", (sealed, root))

    def drop_kept(self, share_id: str) -> bool:
        """Forget what stayed of this share; whether anything did."""
        with self._transaction() as db:
            gone = db.execute("DELETE FROM kept WHERE share_id = ?", (share_id,)).rowcount
        if gone:
            self._empty_log()
        return bool(gone)

    def keep_only(self, *, nodes: Sequence[str], circuits_hash: str) -> None:
        """Forget what stays but can't be used any more: by other nodes, by another release."""
        before = self.changes
        with self._transaction() as db:
            for root, body in db.execute("SELECT root, body FROM kept").fetchall():
                with suppress(CorruptStore):
                    ticket = json.loads(self._open("kept", root, "body", body))["ticket"]
                    if (ticket["nodes"], ticket["circuits_hash"]) == (list(nodes), circuits_hash):
                        continue
                db.execute("DELETE FROM kept WHERE root = ?", (root,))
        if self.changes != before:
            self._empty_log()

    def use_share(self, *, ticket: Ticket, job_id: str) -> None:
        """From now on this share is that job's. If it only came with it, no more is kept of it:
        every attempt brings it again."""
        self._write(lambda page: page.use_share(ticket, job_id))

    def share(self, share_id: str) -> StoredShare | None:
        """A share that came before its job; of others there is but a mark."""
        with self._lock:
            row = self._one(
                "SELECT ticket_id, used_by, body, words FROM shares "
                "WHERE share_id = ? AND body <> x''",
                share_id,
            )
            if row is None:
                return None
            ticket_id, used_by, body, words = row
            content = json.loads(self._open("shares", share_id, "body", body))
            held = None
            if words is not None:
                shape = content["ticket"]["shape"]
                held = unpack_short(self._open("shares", share_id, "words", words), shape)
        return StoredShare(
            ticket=content["ticket"],
            ticket_id=ticket_id,
            ack=content["ack"],
            used_by=used_by,
            words=held,
        )

    def share_mark(self, share_id: str) -> tuple[str, str | None] | None:
        """(ticket id, the job that uses it) of any share that has come, without deciphering it."""
        with self._lock:
            if self._page is not None:
                return self._page.marks[share_id]
            row = self._one("SELECT ticket_id, used_by FROM shares WHERE share_id = ?", share_id)
        return (row[0], row[1]) if row else None

    def forget_share(self, share_id: str) -> None:
        """And what stays of it."""
        with self._transaction() as db:
            db.execute("DELETE FROM kept WHERE share_id = ?", (share_id,))
            db.execute("DELETE FROM shares WHERE share_id = ?", (share_id,))
        self._empty_log()

    def scopes_with(self, ticket: Ticket) -> set[str]:
        """The ticket's scope, and those that the same words came to."""
        with self._lock:
            return {ticket.scope, *self._shares_of(self._db, _same_words(ticket)).values()}

    def withdraw_share(self, *, ticket: dict[str, Any], checked: Ticket, at: int) -> str:
        """Delete the words of a share and of all others of its owner in its scope, or never take
        them: no job may use any that is here, or was issued before `at`. Where its words stay for
        further rounds, those go too, with what they were put into, and are taken from nobody again.

        Returns "taken", or "computed" where a job's result has, or may have, been made of one. What
        a completed job has used stays that job's: "over" then, and nothing has changed; but
        "computed" where its words might have stayed.
        """
        share_id, scope, sender = checked.share_id, checked.scope, checked.sender

        def theirs(other: dict[str, Any]) -> bool:
            return (other["scope"], other["sender"]) == (scope, sender)

        with self._transaction() as db:
            body = self._seal("shares", share_id, "body", as_json({"ticket": ticket, "ack": {}}))
            changed = db.execute(
                "INSERT INTO shares VALUES (?, ?, ?, ?, ?, NULL) ON CONFLICT (share_id) "
                "DO UPDATE SET words = NULL, used_by = excluded.used_by WHERE words IS NOT NULL "
                "OR NOT EXISTS (SELECT 1 FROM jobs WHERE job_id = shares.used_by)",
                (share_id, checked.id, ticket["expires_at"], WITHDRAWN, body),
            ).rowcount
            if not changed and not checked.stays:
                return "over"
            same = _same_words(checked)
            mine = self._shares_of(db, lambda t: theirs(t) or same(t)) | {share_id: scope}
            db.execute(
                "UPDATE shares SET words = NULL, used_by = ? "
                f"WHERE share_id IN ({_places([*mine])}) "
                "AND NOT EXISTS (SELECT 1 FROM jobs WHERE job_id = shares.used_by)",
                (WITHDRAWN, *mine),
            )
            db.execute(
                f"DELETE FROM kept WHERE root = ? OR share_id IN ({_places([*mine])})",
                (checked.root, *mine),
            )
            barred = [(_owner(scope, sender), min(at, _AT_MAX))]
            if checked.stays:
                barred.append((_owner(_of_root(checked), sender), _FOREVER))
            db.executemany(
                "INSERT INTO withdrawals VALUES (?, ?) "
                "ON CONFLICT DO UPDATE SET at = max(at, excluded.at)",
                barred,
            )
            scopes = sorted(set(mine.values()))
            made = db.execute(
                f"SELECT job_id, body FROM jobs WHERE scope IN ({_places(scopes)})", scopes
            ).fetchall()
            records = [json.loads(self._open("jobs", job, "body", body)) for job, body in made]
        self._empty_log()
        # who lost its store does not know any more of what a result was made
        unsure = any(not r["share_ids"] or mine.keys() & set(r["share_ids"]) for r in records)
        return "computed" if unsure else "taken"

    def is_withdrawn(self, ticket: Ticket) -> bool:
        """Has its owner taken back what it had sent to this scope, later than that, or these very
        words?"""
        for where in (ticket.scope, _of_root(ticket)):
            owner = _owner(where, ticket.sender)
            row = self._one("SELECT at FROM withdrawals WHERE owner = ?", owner)
            if row is not None and ticket.issued_at < row[0]:
                return True
        return False

    # ---- scopes and jobs ----------------------------------------------------------------------

    def binding(self, scope: str) -> Binding | None:
        with self._lock:
            if self._page is not None:
                return self._page.bindings[scope]
            row = self._one("SELECT digest, job_id, attempts FROM scopes WHERE scope = ?", scope)
        return Binding(*row) if row else None

    def bind(
        self,
        *,
        scope: str,
        digest: str,
        share_ids: list[str],
        job_id: str | None,
        expires_at: int,
        rows: Rows | None = None,
    ) -> None:
        """From now on this scope is for that descriptor only; with `job_id`, its shares for that
        job only. Each call is an attempt; `rows` are counted at the first."""
        about = (scope, digest, share_ids, job_id, expires_at, rows)
        self._write(lambda page: page.bind(*about), scope)

    def _write(self, what: Callable[[Page], None], *scopes: str) -> None:
        """On the page that is open, or one of its own."""
        with self._lock:
            if self._page is not None:
                what(self._page)
                return
            with self._writing(*scopes) as page:
                what(page)

    @contextmanager
    def admitting(self, *, shares: Sequence[str], scopes: Sequence[str]) -> Iterator[None]:
        """`together`, not lasting, for queries that are admitted one after the other: what is on
        record of these shares and scopes, and of no others, is read at once, and what is written
        of them goes in at once at the end. Each sees what was written of those before it."""
        with self.together(lasting=False), self._writing(*scopes, shares=shares):
            yield

    @contextmanager
    def _writing(self, *scopes: str, shares: Sequence[str] = ()) -> Iterator[Page]:
        """A page, of which what was written goes in at the end. One is open at a time."""
        with self._transaction() as db:
            marks = _among(db, "share_id, ticket_id, used_by FROM shares WHERE share_id", shares)
            bound = _among(db, "scope, digest, job_id, attempts FROM scopes WHERE scope", scopes)
            page = self._page = Page(
                dict.fromkeys(shares) | {id_: (ticket_id, job) for id_, ticket_id, job in marks},
                dict.fromkeys(scopes) | {scope: Binding(*rest) for scope, *rest in bound},
            )
            try:
                yield page
            finally:
                self._page = None
            db.executemany(
                "INSERT INTO shares VALUES (?, ?, ?, ?, x'', NULL) "
                "ON CONFLICT DO UPDATE SET used_by = excluded.used_by",
                page.shares,
            )
            db.executemany(
                "INSERT INTO scopes (scope, digest, expires_at) VALUES (?, ?, ?)", page.scopes
            )
            db.executemany("UPDATE scopes SET attempts = attempts + 1 WHERE scope = ?", page.again)
            db.executemany(
                "INSERT INTO answered VALUES (?, ?, ?) "
                "ON CONFLICT DO UPDATE SET rows = rows + excluded.rows",
                [(*where, rows) for where, rows in page.rows.items()],
            )
            db.executemany("UPDATE shares SET used_by = ? WHERE share_id = ?", page.used)

    @property
    def changes(self) -> int:
        return super().changes + (self._page.writes if self._page is not None else 0)

    def forgive(self, scope: str) -> None:
        """The last attempt was none: a peer had no room for it."""
        with self._transaction() as db:
            db.execute("UPDATE scopes SET attempts = attempts - 1 WHERE scope = ?", (scope,))

    def unbind(self, scope: str, rows: Rows) -> None:
        """Take a query's first binding back, with the rows that it was counted by: it was not
        computed. Its share stays its job's."""
        with self._transaction() as db:
            db.execute("DELETE FROM scopes WHERE scope = ?", (scope,))
            db.execute(
                "UPDATE answered SET rows = rows - ? WHERE model = ? AND day = ?",
                (rows.rows, rows.model, rows.day),
            )

    def rows_answered(self, model: str, *, since: int) -> int:
        """How many rows this model was asked about from that UTC day on."""
        with self._lock:
            page = self._page
            rows = page.answered.get((model, since)) if page is not None else None
            if rows is None:
                (rows,) = self._db.execute(
                    "SELECT coalesce(sum(rows), 0) FROM answered WHERE model = ? AND day >= ?",
                    (model, since),
                ).fetchone()
            if page is not None:
                page.answered[model, since] = rows
                rows += sum(n for (of, day), n in page.rows.items() if of == model and day >= since)
        return int(rows)

    def answered(self) -> list[Rows]:
        """Every model's rows by day, oldest first."""
        with self._lock:
            found = self._db.execute("SELECT * FROM answered ORDER BY day, model").fetchall()
        return [Rows(*row) for row in found]

    def known(self, job_ids: Sequence[str]) -> set[str]:
        """Those of these jobs that are here."""
        with self._lock:
            try:
                return {
                    row[0] for row in _among(self._db, "job_id FROM jobs WHERE job_id", job_ids)
                }
            except sqlite3.Error as error:
                raise Unavailable("store_failed", f"The share store failed: {error}.") from None

    def job(self, job_id: str) -> StoredJob | None:
        with self._lock:
            row = self._one(
                "SELECT scope, attempt, digest, state, body FROM jobs WHERE job_id = ?", job_id
            )
            if row is None:
                return None
            scope, attempt, digest, state, body = row
            record = json.loads(self._open("jobs", job_id, "body", body))
        return StoredJob(
            job_id=job_id, scope=scope, attempt=attempt, digest=digest, state=state, record=record
        )

    def stage(
        self,
        job: StoredJob,
        *,
        model: str | None = None,
        result: dict[str, Any] | None = None,
        words: tuple[Words, ...] | None = None,
    ) -> None:
        """Keep a computed job until all members have reported; replaces an earlier attempt's."""
        with self._transaction() as db:
            self._put_job(db, job)
            if model is not None:
                db.execute("DELETE FROM models WHERE model = ? AND committed = 0", (model,))
                self._put_model(db, job.job_id, model, result, words, committed=False)

    def commit(self, job_id: str, *, share_ids: list[str]) -> None:
        """Make a staged job permanent and its inputs used up, all at once."""
        with self._transaction() as db:
            db.execute("UPDATE jobs SET state = 'done' WHERE job_id = ?", (job_id,))
            db.execute("UPDATE models SET committed = 1 WHERE job_id = ?", (job_id,))
            self._models.clear()
            self._complete(db, job_id, share_ids)
            self._forget_others(db, job_id)
        self._empty_log()

    def adopt(
        self,
        job: StoredJob,
        *,
        share_ids: list[str],
        expires_at: int,
        model: str | None = None,
        result: dict[str, Any] | None = None,
        words: tuple[Words, ...] | None = None,
    ) -> None:
        """Keep what others have committed, as if this node had been there: all at once."""
        with self._transaction() as db:
            db.execute(
                "INSERT OR IGNORE INTO scopes (scope, digest, expires_at) VALUES (?, ?, ?)",
                (job.scope, job.digest, expires_at),
            )
            self._put_job(db, job)
            # what this node has staged is of an attempt that the others did not commit
            db.execute("DELETE FROM models WHERE job_id = ? AND committed = 0", (job.job_id,))
            if model is not None:
                db.execute("DELETE FROM models WHERE model = ?", (model,))
                self._put_model(db, job.job_id, model, result, words, committed=True)
            self._complete(db, job.job_id, share_ids)
            self._forget_others(db, job.job_id)
        self._empty_log()

    def finish(self, done: Sequence[StoredJob]) -> None:
        """Keep the answers of jobs that leave nothing behind; their inputs, bound to them before,
        are used up."""
        with self._transaction() as db:
            self._put_jobs(db, done)
            db.executemany(
                "UPDATE scopes SET job_id = ? WHERE scope = ?",
                [(job.job_id, job.scope) for job in done],
            )
            used = [share_id for job in done for share_id in job.record["share_ids"]]
            db.execute(
                "UPDATE shares SET words = NULL WHERE words IS NOT NULL "
                f"AND share_id IN ({_places(used)})",
                used,
            )

    def model(self, model: str) -> StoredModel | None:
        """A committed model; a staged one does not exist yet. The latest ones stay in memory."""
        with self._lock:
            known = self._models.get(model)
            if known is None:
                known = self._read_model(model)
                if known is not None:
                    for word in known.words:
                        word.flags.writeable = False
                    self._models[model] = known
                    while len(self._models) > MODELS_MAX:
                        self._models.popitem(last=False)
        return known

    def _read_model(self, model: str) -> StoredModel | None:
        row = self._one("SELECT body, words FROM models WHERE model = ? AND committed = 1", model)
        if row is None:
            return None
        ticket = json.loads(self._open_model(model, "body", row[0]))
        words = unpack(self._open_model(model, "words", row[1]), ticket["shape"])
        return StoredModel(ticket=ticket, words=words)

    def kept(self, sets: Sequence[Sequence[str]] | None = None) -> dict[str, Sharing]:
        """The sharing of each committed model, in order of their ids; of these node sets. What is
        `damaged` is not kept: the others may still have it."""
        return {model: Sharing.of(ticket) for model, ticket in self.tickets(sets).items()}

    def tickets(self, sets: Sequence[Sequence[str]] | None = None) -> dict[str, dict[str, Any]]:
        """Those of what is `kept`."""
        tickets = {}
        with self._lock:
            rows = self._db.execute(
                "SELECT model, body FROM models WHERE committed = 1 ORDER BY model"
            ).fetchall()
            for model, body in rows:
                with suppress(CorruptStore):
                    ticket = json.loads(self._open_model(model, "body", body))
                    known = sets is None or ticket.get("nodes") in sets
                    if known and model not in self.damaged:
                        tickets[model] = ticket
        return tickets

    def examine(self) -> None:
        """Find out which committed models are damaged: reads all of each."""
        with self._lock:
            rows = self._db.execute("SELECT model FROM models WHERE committed = 1").fetchall()
        for (model,) in rows:
            with self._lock, suppress(CorruptStore):
                self._read_model(model)

    def _open_model(self, model: str, column: str, blob: bytes) -> bytes:
        try:
            return self._open("models", model, column, blob)
        except CorruptStore:
            if model not in self.damaged:
                log.error("a stored model is damaged", extra={"model": model})
            self.damaged.add(model)
            raise

    # ---- new shares of the same ----------------------------------------------------------------

    def stage_renewed(self, renewed: Iterable[tuple[str, StoredModel]]) -> None:
        """Keep models in new shares beside the old ones, in place of any that were kept so."""
        with self._transaction() as db:
            db.execute("DELETE FROM renewed")
            for model, held in renewed:
                body = self._seal("renewed", model, "body", as_json(held.ticket))
                words = self._seal("renewed", model, "words", pack(held.words))
                db.execute("INSERT INTO renewed VALUES (?, ?, ?)", (model, body, words))

    def renew(self, by: str, copied: Mapping[str, StoredModel] | None = None) -> None:
        """The shares that are staged, or `copied` ones, in place of the old, which go; what is
        staged stays so. A model that is new here stands under `by` as its job. What was damaged on
        the stage stays as it was, for the others to show."""
        with self._transaction() as db:
            if copied is None:
                for model, body, words in db.execute("SELECT * FROM renewed").fetchall():
                    with suppress(CorruptStore):
                        ticket = self._open("renewed", model, "body", body)
                        held = self._open("renewed", model, "words", words)
                        self._replace(db, by, model, ticket, held)
            else:
                for model, held in copied.items():
                    self._replace(db, by, model, as_json(held.ticket), pack(held.words))
            self._models.clear()

    def _replace(
        self, db: sqlite3.Connection, by: str, model: str, body: bytes, words: bytes
    ) -> None:
        sealed = [
            self._seal("models", model, c, data) for c, data in (("body", body), ("words", words))
        ]
        db.execute(
            "INSERT INTO models VALUES (?, ?, 1, ?, ?) ON CONFLICT (model) "
            "DO UPDATE SET body = excluded.body, words = excluded.words",
            (model, by, *sealed),
        )
        self.damaged.discard(model)

    # ---- giving and taking over what nodes have done ------------------------------------------

    def marks(self) -> dict[str, Any]:
        """What has been done here and may not be done again, and which results are kept."""
        with self._lock:
            scopes = self._db.execute(
                "SELECT scope, digest, job_id, expires_at, attempts FROM scopes ORDER BY scope"
            ).fetchall()
            models = self._db.execute(
                "SELECT model, job_id FROM models WHERE committed = 1 ORDER BY model"
            ).fetchall()
            withdrawn = self._db.execute(
                "SELECT share_id, ticket_id, expires_at FROM shares WHERE used_by = ?", (WITHDRAWN,)
            ).fetchall()
            owners = self._db.execute("SELECT owner, at FROM withdrawals").fetchall()
        return {
            "scopes": [list(row) for row in scopes],
            "answered": [[r.model, r.day, r.rows] for r in self.answered()],
            "models": [list(row) for row in models],
            "withdrawn": [list(row) for row in withdrawn],
            "withdrawals": [list(row) for row in owners],
        }

    @property
    def is_empty(self) -> bool:
        tables = ("shares", "scopes", "jobs", "models", "answered", "kept")
        with self._lock:
            found = [self._db.execute(f"SELECT 1 FROM {t} LIMIT 1").fetchone() for t in tables]
        return not any(found)

    def restore(self, marks: dict[str, Any], models: Mapping[str, tuple[str, StoredModel]]) -> None:
        """Fill an empty store, all at once; `models` gives job id, ticket and words of each."""
        with self._transaction() as db:
            db.executemany("INSERT INTO scopes VALUES (?, ?, ?, ?, ?)", marks["scopes"])
            db.executemany("INSERT INTO answered VALUES (?, ?, ?)", marks["answered"])
            db.executemany(
                f"INSERT INTO shares VALUES (?, ?, ?, '{WITHDRAWN}', x'', NULL)",
                marks.get("withdrawn", []),
            )
            db.executemany(
                "INSERT INTO withdrawals VALUES (?, ?) "
                "ON CONFLICT DO UPDATE SET at = max(at, excluded.at)",
                marks.get("withdrawals", []),
            )
            scope_of = {job_id: (scope, digest) for scope, digest, job_id, *_ in marks["scopes"]}
            for model, (job_id, held) in models.items():
                scope, digest = scope_of.get(job_id, ("", ""))
                record = {"answer": None, "share_ids": [], "model": model}
                done = StoredJob(
                    job_id=job_id,
                    scope=scope,
                    attempt=1,
                    digest=digest,
                    state="done",
                    record=record,
                )
                self._put_job(db, done)
                self._put_model(db, job_id, model, held.ticket, held.words, committed=True)

    def purge(self, *, now: int) -> None:
        """Forget what has expired: its tickets would be refused anyway.

        A round's scope stays bound for ever. What was staged for it and never committed goes some
        time later: a node that was away may still have to commit what the others did.
        """
        with self._transaction() as db:
            db.execute("DELETE FROM shares WHERE expires_at <= ?", (now,))
            db.execute("DELETE FROM kept WHERE expires_at <= ?", (now,))
            db.execute(
                "DELETE FROM jobs WHERE scope IN (SELECT scope FROM scopes "
                "WHERE expires_at <= ? AND scope LIKE 'query:%')",
                (now,),
            )
            db.execute("DELETE FROM scopes WHERE expires_at <= ? AND scope LIKE 'query:%'", (now,))
            abandoned = (
                "(SELECT job_id FROM jobs WHERE state = 'staged' AND scope IN "
                "(SELECT scope FROM scopes WHERE expires_at <= ?))"
            )
            late = (now - STAGED_FOR_S,)
            db.execute(f"DELETE FROM models WHERE committed = 0 AND job_id IN {abandoned}", late)
            db.execute(f"DELETE FROM jobs WHERE job_id IN {abandoned}", late)
        self._empty_log()

    # ---- inner --------------------------------------------------------------------------------

    def _put_job(self, db: sqlite3.Connection, job: StoredJob) -> None:
        self._put_jobs(db, [job])

    def _put_jobs(self, db: sqlite3.Connection, jobs: Sequence[StoredJob]) -> None:
        db.executemany(
            "INSERT OR REPLACE INTO jobs VALUES (?, ?, ?, ?, ?, ?)",
            [
                (
                    *(job.job_id, job.scope, job.attempt, job.digest, job.state),
                    self._seal("jobs", job.job_id, "body", with_answer(job.record).encode()),
                )
                for job in jobs
            ],
        )

    def _put_model(
        self,
        db: sqlite3.Connection,
        job_id: str,
        model: str,
        result: dict[str, Any] | None,
        words: tuple[Words, ...] | None,
        *,
        committed: bool,
    ) -> None:
        body = self._seal("models", model, "body", as_json(result))
        sealed = self._seal("models", model, "words", pack(words))
        db.execute(
            "INSERT INTO models VALUES (?, ?, ?, ?, ?)", (model, job_id, committed, body, sealed)
        )

    def _complete(self, db: sqlite3.Connection, job_id: str, share_ids: list[str]) -> None:
        mine = "(SELECT scope FROM jobs WHERE job_id = ?)"
        db.execute(f"UPDATE scopes SET job_id = ? WHERE scope = {mine}", (job_id, job_id))
        # another job of this scope may have been staged; its result will never be one
        others = f"(SELECT job_id FROM jobs WHERE scope = {mine} AND state = 'staged')"
        db.execute(f"DELETE FROM models WHERE committed = 0 AND job_id IN {others}", (job_id,))
        db.execute(f"DELETE FROM jobs WHERE state = 'staged' AND scope = {mine}", (job_id,))
        db.executemany(
            "UPDATE shares SET used_by = ?, words = NULL WHERE share_id = ?",
            [(job_id, share_id) for share_id in share_ids],
        )

    def _forget_others(self, db: sqlite3.Connection, job_id: str) -> None:
        """Shares of a completed round that were none of its inputs (signed for a roster that was
        made smaller, say) can never be used: their words go too."""
        (scope,) = db.execute("SELECT scope FROM jobs WHERE job_id = ?", (job_id,)).fetchone()
        for share_id in self._shares_of(db, lambda ticket: ticket["scope"] == scope):
            db.execute(
                "UPDATE shares SET words = NULL WHERE share_id = ? AND used_by IS NULL", (share_id,)
            )

    def _shares_of(
        self, db: sqlite3.Connection, wanted: Callable[[dict[str, Any]], bool]
    ) -> dict[str, str]:
        """{id: scope} of the shares that came before their job, with such a ticket."""
        found = {}
        rows = db.execute("SELECT share_id, body FROM shares WHERE body <> x''").fetchall()
        for share_id, body in rows:
            try:
                ticket = json.loads(self._open("shares", share_id, "body", body))["ticket"]
            except CorruptStore:
                continue  # no job can take it
            if wanted(ticket):
                found[share_id] = ticket["scope"]
        return found

    def _upgrade(self) -> None:
        """A store that was made before attempts were counted."""
        with self._transaction() as db:
            if all(name != "attempts" for _, name, *_ in db.execute("PRAGMA table_info(scopes)")):
                db.execute("ALTER TABLE scopes ADD COLUMN attempts INTEGER NOT NULL DEFAULT 1")


def _same_words(ticket: Ticket) -> Callable[[dict[str, Any]], bool]:
    """Is a ticket about the same words of the same owner?"""
    wanted = (ticket.sender, list(ticket.commitment))
    return lambda other: (other["sender"], other["commitment"]) == wanted


def _of_root(ticket: Ticket) -> str:
    return f"kept:{ticket.root}"


def _owner(scope: str, sender: str) -> str:
    return hashlib.sha256(f"{scope} {sender}".encode()).hexdigest()


def _places(values: Sequence[str]) -> str:
    return ", ".join("?" * len(values))


def _among(db: sqlite3.Connection, what: str, values: Sequence[str]) -> list[Any]:
    """The rows whose last column named is one of these."""
    if not values:
        return []
    return db.execute(f"SELECT {what} IN ({_places(values)})", values).fetchall()
