"""Who opens the transaction: the outermost service, durably, and nobody else.

A view marked `@idempotent` stores its answer in the transaction of the effect, so it is itself the
outermost; services below it join. Inner writers refuse to run outside any transaction.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from django.db import connection, transaction

_joinable: ContextVar[bool] = ContextVar("flai_joinable_transaction", default=False)


@contextmanager
def durable() -> Iterator[None]:
    """The outermost service's transaction: committed when this block ends.

    Inside an `@idempotent` view it joins that view's transaction as a savepoint.
    Raises RuntimeError inside any other transaction.
    """
    if _joinable.get() and connection.in_atomic_block:
        with transaction.atomic():
            yield
    else:
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
        yield


@contextmanager
def joinable() -> Iterator[None]:
    """A durable transaction that the services called inside may join."""
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
