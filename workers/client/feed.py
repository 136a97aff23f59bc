"""The market's feed, checked: every page signed by the log's key, fresh, and in one chain.

The key is the one given, else the one that an earlier `verify --state` has pinned; with neither the
server is believed once about it, and the caller is told.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apps.protocol.feed import AGE_MS_MAX, FeedRefused, check_page
from apps.protocol.heads import Head
from workers.client.api import Api, ClientError


@dataclass(frozen=True)
class Feed:
    """Models on sale, by slug; `pinned`: whether the key was known before."""

    models: tuple[dict[str, Any], ...]
    head: Head
    key: str
    pinned: bool


def read_feed(
    api: Api,
    *,
    key: str | None = None,
    state: Path | None = None,
    age_ms_max: int = AGE_MS_MAX,
    clock: Callable[[], float] = time.time,
) -> Feed:
    """The whole feed. Raises ClientError: what `check_page` refuses, or "shorter_log" when its head
    is behind one that was checked before."""
    known = _known(state)
    expected = key or known.get("key")
    log = expected or str(api.get("log/key/")["public_key"])
    models: list[dict[str, Any]] = []
    after: str | None = ""
    head: Head | None = None
    while after is not None:
        served = api.get("feed/", after=after or None)
        try:
            head, page, after = check_page(
                served, log=log, after=after, now_ms=int(clock() * 1000), age_ms_max=age_ms_max
            )
        except FeedRefused as error:
            raise ClientError(error.text, code=error.code) from None
        models += page
    assert head is not None
    if (seen := known.get("head")) and head.size < seen["size"]:
        raise ClientError(
            f"The log has shrunk: {seen['size']} entries were signed, now {head.size}.",
            code="shorter_log",
        )
    return Feed(tuple(models), head, log, expected is not None)


def _known(state: Path | None) -> dict[str, Any]:
    """What an earlier check of the log has kept."""
    if state is None:
        return {}
    try:
        return dict(json.loads(state.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        raise ClientError(f"{state} is not the state of an earlier check of the log.") from None
