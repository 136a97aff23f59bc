"""Who opens the transaction: the outermost service, durably, and nobody else.

A view marked `@idempotent` stores its answer in the transaction of the effect, so it is itself the
outermost; services below it join. Inner writers refuse to run outside any transaction.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from django.db import connection, transaction

from apps.core.errors import DomainError
from apps.core.joined import prepared

# Of what the log's verifier allows between the clocks of a site's machines, so that two of them,
# each so far from the database, are within it.
CLOCKS_APART_S = 20.0
CLOCKS_SEEN_S = 10.0  # how long clocks that agreed are believed to
_seen_until = 0.0
_joinable: ContextVar[bool] = ContextVar("flai_joinable_transaction", default=False)


class ClockWrong(DomainError):
    code = "clock_wrong"
    status = 503
    text = (
        "The clock of this server is {apart_s} seconds away from its database's. What it writes "
        "now would look backdated or late to whoever checks the log, so nothing was done. Its "
        "operator has to set the clock."
    )


def clocks_agree() -> None:
    """Before anything is stamped by this machine's clock. Raises ClockWrong."""
    global _seen_until
    if time.monotonic() < _seen_until:
        return
    before = time.time()
    [(there,)] = prepared("SELECT extract(epoch FROM clock_timestamp())::float8", [])
    apart = max(there - time.time(), before - there)  # at least so far, however long the way was
    if apart > CLOCKS_APART_S:
        raise ClockWrong(apart_s=round(apart))
    _seen_until = time.monotonic() + CLOCKS_SEEN_S


@contextmanager
def durable() -> Iterator[None]:
    """The outermost service's transaction: committed when this block ends.

    Inside an `@idempotent` view it joins that view's transaction as a savepoint.
    Raises RuntimeError inside any other transaction; ClockWrong.
    """
    if _joinable.get() and connection.in_atomic_block:
        with transaction.atomic():
            yield
    else:
        clocks_agree()
        with transaction.atomic(durable=True):
            yield


@contextmanager
def one_statement() -> Iterator[None]:
    """As `durable`, for a single statement: where no transaction is open it is one by itself, which
    spares the round trips of beginning and committing another."""
    if connection.in_atomic_block:
        with durable():
            yield
    else:
        clocks_agree()
        yield


@contextmanager
def joinable() -> Iterator[None]:
    """A durable transaction that the services called inside may join."""
    clocks_agree()
    with transaction.atomic(durable=True):
        token = _joinable.set(True)
        try:
            yield
        finally:
            _joinable.reset(token)


def require_transaction(what: str) -> None:
    """Raises RuntimeError unless a transaction is open: `what` is an inner writer."""
    if not connection.in_atomic_block:
        raise RuntimeError(f"{what} must run inside the transaction of the service that calls it")


def require_no_transaction() -> None:
    """Raises RuntimeError inside any transaction, a joinable one too: for who commits and then
    waits for others."""
    if connection.in_atomic_block:
        with transaction.atomic(durable=True):  # as Django tells it, which knows a test's own
            pass
