"""Accounts as the log names them."""

from __future__ import annotations

from functools import lru_cache


@lru_cache(maxsize=1 << 16)
def parts(account: str) -> tuple[str, str, str]:
    """(pid, purpose, asset) of "pid/purpose/asset". A replay asks a dozen times a transfer.

    Raises ValueError for what is no account.
    """
    pid, purpose, asset = account.split("/", 2)
    return pid, purpose, asset
