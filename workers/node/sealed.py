"""A SQLite file whose contents are encrypted with AES-256-GCM, each under the name of its place.

What names a row (ids, states, times) is readable; the sealed columns are not. The additional data
of each ciphertext is table, row id and column, so that nothing can be moved to another row. One
transaction per step, on disk (synchronous=FULL) before the node says so; what a query binds before
it is computed is there with its answer, before which nothing is said.

What is deleted is overwritten in the database, but its ciphertext stays in the write-ahead log
until that is emptied. A change of key seals every row anew, all at once.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from workers.node.errors import NodeError, StartError, Unavailable

_META = "CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, body BLOB NOT NULL) STRICT;"


class CorruptStore(NodeError):
    """A stored row does not decrypt: damaged or tampered with."""


class SealedFile:
    """Raises StartError when the file cannot be opened or the key is not its own.

    `SEALED` names each table's id and sealed columns; an empty or missing content is not sealed.
    """

    SCHEMA = ""
    SEALED: dict[str, tuple[str, ...]] = {"meta": ("name", "body")}

    def __init__(self, path: Path, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self._lock = threading.RLock()
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("PRAGMA secure_delete=ON")
            self._db.executescript(_META + self.SCHEMA)
            self._upgrade()
            self._check_key()
        except OSError as error:
            raise StartError(f"share store {path} cannot be opened: {error.strerror}") from None
        except sqlite3.Error as error:
            raise StartError(f"share store {path} cannot be opened: {error}") from None
        except Unavailable as error:
            raise StartError(f"share store {path} cannot be opened: {error.text}") from None
        except CorruptStore:
            self._db.close()
            raise StartError(f"share store {path} belongs to another store key") from None

    def close(self) -> None:
        with self._lock:
            self._db.close()

    # ---- what the node writes down for itself -------------------------------------------------

    def note(self, name: str) -> dict[str, Any] | None:
        """What the node wrote down for itself under this name."""
        with self._lock:
            row = self._one("SELECT body FROM meta WHERE name = ?", name)
            return json.loads(self._open("meta", name, "body", row[0])) if row else None

    def put_note(self, name: str, content: dict[str, Any]) -> None:
        """On disk when this returns."""
        with self._transaction() as db:
            body = self._seal("meta", name, "body", as_json(content))
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, body))

    def forget_note(self, name: str) -> dict[str, Any] | None:
        """The note, which is gone then."""
        with self._transaction() as db:
            note = self.note(name)
            db.execute("DELETE FROM meta WHERE name = ?", (name,))
        return note

    # ---- keys ---------------------------------------------------------------------------------

    @contextmanager
    def rekeyed(self, key: bytes) -> Iterator[None]:
        """What is written inside, and all that is there, is sealed with that key from then on: all
        of it, or nothing has changed. A row that was damaged before stays damaged."""
        with self._lock:
            new = AESGCM(key)
            with self._transaction() as db:
                self._check_key()  # what this one does not open would be left under the old one
                yield
                for table in self.SEALED:
                    self._seal_anew(db, table, new)
            self._cipher = new
            with suppress(sqlite3.Error):  # all is written: emptying the log can wait
                self._empty_log()

    def _seal_anew(self, db: sqlite3.Connection, table: str, new: AESGCM) -> None:
        id_, *columns = self.SEALED[table]
        listed = ", ".join(columns)
        write = f"UPDATE {table} SET {' = ?, '.join(columns)} = ? WHERE {id_} = ?"
        for (row,) in db.execute(f"SELECT {id_} FROM {table}").fetchall():
            blobs = db.execute(f"SELECT {listed} FROM {table} WHERE {id_} = ?", (row,)).fetchone()
            anew = [self._anew(new, table, row, c, blob) for c, blob in zip(columns, blobs)]
            db.execute(write, (*anew, row))

    def _anew(self, new: AESGCM, table: str, row: str, column: str, blob: bytes) -> bytes:
        if not blob:
            return blob
        try:
            data = self._open(table, row, column, blob)
        except CorruptStore:
            return blob
        return _sealed(new, table, row, column, data)

    def opens_with(self, key: bytes) -> bool:
        """Is that the key that this file is sealed under now, as the file itself shows?"""
        with self._lock:
            row = self._one("SELECT body FROM meta WHERE name = ?", "key-check")
        try:
            _opened(AESGCM(key), "meta", "key-check", "body", row[0])
        except InvalidTag:
            return False
        return True

    def _check_key(self) -> None:
        row = self._one("SELECT body FROM meta WHERE name = ?", "key-check")
        if row is not None:
            self._open("meta", "key-check", "body", row[0])
            return
        with self._transaction() as db:
            body = self._seal("meta", "key-check", "body", b"flai share store 1")
            db.execute("INSERT INTO meta VALUES ('key-check', ?)", (body,))

    # ---- inner --------------------------------------------------------------------------------

    def _upgrade(self) -> None:
        """What a file of an earlier release lacks."""

    @contextmanager
    def together(self, *, lasting: bool = True) -> Iterator[None]:
        """What is written inside is on disk with one write, all of it or none.

        Not `lasting`: the disk gets it with the next write that is. Until then it outlives this
        process, but not the machine, which would lose it whole, never half.
        """
        with self._transaction(lasting=lasting):
            yield

    @contextmanager
    def _transaction(self, *, lasting: bool = True) -> Iterator[sqlite3.Connection]:
        with self._lock:
            if self._db.in_transaction:  # this thread's own: it has the lock
                yield self._db
                return
            try:
                self._db.execute(f"PRAGMA synchronous={'FULL' if lasting else 'NORMAL'}")
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
                self._db.execute("COMMIT")
            except BaseException as error:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                if isinstance(error, sqlite3.OperationalError):
                    raise Unavailable("store_failed", f"The share store failed: {error}.") from None
                raise

    @property
    def changes(self) -> int:
        """How many rows have been written, kept or not: whether a step has begun to write."""
        return self._db.total_changes

    def _one(self, query: str, argument: str) -> Any:
        with self._lock:
            try:
                return self._db.execute(query, (argument,)).fetchone()
            except sqlite3.Error as error:
                raise Unavailable("store_failed", f"The share store failed: {error}.") from None

    def _seal(self, table: str, row: str, column: str, data: bytes) -> bytes:
        """Within the transaction that writes it: the key may change between any two."""
        return _sealed(self._cipher, table, row, column, data)

    def _open(self, table: str, row: str, column: str, blob: bytes) -> bytes:
        """With the lock held since it was read."""
        try:
            return _opened(self._cipher, table, row, column, blob)
        except InvalidTag:
            raise CorruptStore("corrupt_store", "A stored row is damaged.") from None

    def _empty_log(self) -> None:
        """Another process that reads the store just now leaves it to the next time."""
        with self._lock:
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()


def as_json(content: Any) -> bytes:
    """Nobody signs or hashes what is stored: it needs no canonical form."""
    return json.dumps(content).encode()


def _sealed(cipher: AESGCM, table: str, row: str, column: str, data: bytes) -> bytes:
    nonce = os.urandom(12)
    return nonce + cipher.encrypt(nonce, data, _place(table, row, column))


def _opened(cipher: AESGCM, table: str, row: str, column: str, blob: bytes) -> bytes:
    return cipher.decrypt(blob[:12], blob[12:], _place(table, row, column))


def _place(table: str, row: str, column: str) -> bytes:
    return f"{table}/{row}/{column}".encode()
