"""What a thief would search: one node's store, decrypted, and all tables of a database."""

from __future__ import annotations

import json
from pathlib import Path

import psycopg
from psycopg import sql

from workers.node import home as homes
from workers.node.store import Store


def everything_in(home: Path) -> bytes:
    """Every byte that this node's store holds, decrypted with its own key, and the words that the
    seeds in it stand for."""
    store = Store(home / "store.sqlite", homes.load(home).store_key)
    found = []
    for table, name, columns in (
        ("shares", "share_id", ("body", "words")),
        ("jobs", "job_id", ("body",)),
        ("models", "model", ("body", "words")),
    ):
        for column in columns:
            for row, blob in store._db.execute(f"SELECT {name}, {column} FROM {table}"):
                if blob:  # nothing is kept of a query but its ids
                    found.append(store._open(table, row, column, blob))
                if blob and (table, column) == ("shares", "words"):
                    found += [word.astype("<u8").tobytes() for word in store.share(row).words]
    store.close()
    return b"".join(found)


def rows_of_every_table(database_url: str) -> dict[str, bytes]:
    """{table: all of its cells, as bytes}; JSON and text as text, bytea as it is."""
    found = {}
    with psycopg.connect(database_url) as connection:
        tables = connection.execute(
            "SELECT schemaname, tablename FROM pg_tables "
            "WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        ).fetchall()
        for schema, table in tables:
            query = sql.SQL("SELECT * FROM {}").format(sql.Identifier(schema, table))
            rows = connection.execute(query).fetchall()
            found[table] = b"\n".join(b"\t".join(map(_cell, row)) for row in rows)
    return found


def _cell(value: object) -> bytes:
    if isinstance(value, bytes | memoryview):
        return bytes(value)
    if isinstance(value, dict | list):
        return json.dumps(value, default=str).encode()
    return str(value).encode()
