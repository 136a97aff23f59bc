"""DATABASE_URL → one entry of Django's DATABASES."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured


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
        options["pool"] = {"min_size": 1, "max_size": pool_max, "timeout": 15}
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
