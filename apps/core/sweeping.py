"""What sweeps share: many rows are due, and none of them may stand in the others' way."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any


def each(ids: Iterable[Any], step: Callable[[Any], Any], *, log: logging.Logger, what: str) -> int:
    """Do `step` for every id, each in its own transaction; returns how many of them did something.

    One row's trouble is logged and comes round again with the next sweep; the others get their
    turn now. `step` says by a false answer that there was nothing left to do.
    """
    done = 0
    for id_ in list(ids):
        try:
            done += bool(step(id_))
        except Exception:  # whatever it is, it is this row's alone
            log.exception("%s %s failed", what, id_)
    return done
