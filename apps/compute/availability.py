"""Are enough nodes of a set there? Asked only after one was missed: a request costs nothing.

A worker that misses a node leaves a note in the cache; while it lies there, whoever wants a new
computation has the nodes asked first. Without a cache nothing is refused: the job waits instead.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from django.core.cache import cache
from redis.exceptions import RedisError

from apps.compute import control, groups
from apps.compute.selectors import members_by_fingerprint
from apps.core.errors import DomainError
from apps.protocol.tickets import COMPUTING

logger = logging.getLogger(__name__)
NOTE = "nodes_missed"
NOTE_S = 10
RETRY_AFTER_S = 2
LOOK_EVERY_S = 1.0


class NodesShort(DomainError):
    """A computation needs all three nodes of its set, or of more as many as its engine takes."""

    code = "nodes_short"
    status = 503
    text = "{why}, and every inference needs {count} nodes. Nothing was charged."


# When this process looks for the note again, and what it found; a note of its own it knows.
_looked = {"again_at": 0.0, "missed": False}


def nodes_missed() -> None:
    """A node did not answer."""
    _looked["again_at"] = 0.0
    try:
        cache.set(NOTE, True, NOTE_S)
    except (RedisError, OSError):
        logger.warning("no cache to note missed nodes in")


def missed() -> bool:
    """Whether a node was missed lately, as of a second ago at most."""
    if time.monotonic() >= _looked["again_at"]:
        try:
            _looked["missed"] = bool(cache.get(NOTE))
        except (RedisError, OSError):
            _looked["missed"] = False
        _looked["again_at"] = time.monotonic() + LOOK_EVERY_S
    return bool(_looked["missed"])


def nodes_ensure(fingerprints: Sequence[str], engine: str, model: str) -> None:
    """Ask these nodes. Raises NodesShort when too few of those answer now that have the model: no
    group of others could, and money would be held for nothing."""
    members = members_by_fingerprint(list(fingerprints))
    found = control.health(members)
    able = groups.able_of(members, found, model)
    if not groups.enough(able, engine):
        away = [
            f"{m.name} {'has no part of this model' if up else 'does not answer'}"
            for i, (m, up) in enumerate(zip(members, found, strict=True))
            if i not in able
        ]
        count = COMPUTING[engine]
        raise NodesShort(why=" and ".join(away), count=count, retry_after_s=RETRY_AFTER_S)
    cache.delete(NOTE)
    _looked["again_at"] = 0.0
