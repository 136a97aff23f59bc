"""What sweeps share: many rows are due, and none of them may stand in the others' way."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from django.db.models import QuerySet

REST_S_MAX = 300
RESTING_MAX = 10_000

# {what: {id: (failures in a row, not again before)}}, this process's own: a sweep is a net, so what
# another process does not know costs it one more try.
_resting: dict[str, dict[Any, tuple[int, datetime]]] = defaultdict(dict)


def each(
    due: QuerySet[Any],
    step: Callable[[Any], Any],
    *,
    now: datetime,
    limit: int,
    log: logging.Logger,
    what: str,
) -> int:
    """Do `step` for the first `limit` rows of `due`, each in its own transaction; returns how many
    of them did something.

    One row's trouble is logged. It then rests for 2, 4, 8 … s, REST_S_MAX at most, so that rows
    that can never be done do not fill the batch for ever: whoever stands behind them is taken
    instead. `step` gets the row's id, and says by a false answer that there was nothing to do.
    """
    resting = _resting[what]
    away = [id_ for id_, (_, until) in resting.items() if until > now]
    done = 0
    for id_ in list(due.exclude(pk__in=away).values_list("pk", flat=True)[:limit]):
        try:
            done += bool(step(id_))
        except Exception:  # whatever it is, it is this row's alone
            failures = resting.get(id_, (0, now))[0] + 1
            rest = timedelta(seconds=min(2 ** min(failures, 10), REST_S_MAX))
            resting[id_] = (failures, now + rest)
            log.exception("%s %s failed", what, id_)
        else:
            resting.pop(id_, None)
    _forget(resting, now)
    return done


def _forget(resting: dict[Any, tuple[int, datetime]], now: datetime) -> None:
    """Rows that were not due again for long, and beyond RESTING_MAX the oldest."""
    over = now - timedelta(seconds=2 * REST_S_MAX)
    for id_ in [id_ for id_, (_, until) in resting.items() if until < over]:
        del resting[id_]
    for id_ in list(resting)[: max(len(resting) - RESTING_MAX, 0)]:
        del resting[id_]
