"""DATABASE_URL → one entry of Django's DATABASES."""

from __future__ import annotations

import select
import time
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import psycopg
from django.core.exceptions import ImproperlyConfigured

QUIET_S = 10.0


class PooledConnection(psycopg.Connection[Any]):
    """The pool sends an empty statement over each connection before it hands it out, to see whether
    the server is still there: a round trip, and a paid query takes two connections. Over one that
    answered within QUIET_S, and whose end or error would be there to be read, none is sent."""

    _answered_at = -QUIET_S

    def execute(self, query: Any, *arguments: Any, **how: Any) -> psycopg.Cursor[Any]:
        if query != "":
            return super().execute(query, *arguments, **how)
        now = time.monotonic()
        if now - self._answered_at < QUIET_S and not self._has_to_read():
            return self.cursor()
        cursor = super().execute(query)
        self._answered_at = now
        return cursor

    def _has_to_read(self) -> bool:
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        return bool(poll.poll(0))


def database_from_url(url: str, *, pool_max: int = 0) -> dict[str, Any]:
    """postgresql://user:password@host:port/name?option=value → a DATABASES entry.

    A unix socket is written as the option `host=/directory`. Every other option (sslmode,
    sslrootcert, …) goes to libpq as it is. `pool_max` > 0 keeps that many connections at most.
    `prepare=off` is for a pooler between, one that gives each transaction another connection.

    Raises ImproperlyConfigured for any other scheme: row locks, SKIP LOCKED and plpgsql matter.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("postgresql", "postgres"):
        raise ImproperlyConfigured(
            f"DATABASE_URL names {parts.scheme or 'no scheme'!r}; only postgresql:// is supported."
        )
    options: dict[str, Any] = dict(parse_qsl(parts.query))
    host = options.pop("host", None) or unquote(parts.hostname or "")
    # A lock that is held this long is a fault, and a waiting request should say so.
    options.setdefault(
        "options", "-c lock_timeout=15000 -c idle_in_transaction_session_timeout=60000"
    )
    prepare = options.pop("prepare", "on") != "off"
    if pool_max:
        sizes = {"min_size": 1, "max_size": pool_max}
        options["pool"] = sizes | {"timeout": 15, "connection_class": PooledConnection}
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(parts.path.lstrip("/")) or "flai",
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": host,
        "PORT": str(parts.port or ""),
        "OPTIONS": options,
        "ATOMIC_REQUESTS": False,
        "CONN_HEALTH_CHECKS": bool(pool_max),
        "PREPARE": prepare,  # what asks for it, `core.joined.prepared`; never the ORM's statements
    }
