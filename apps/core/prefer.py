"""`Prefer: wait=N` (RFC 7240): the client would rather wait N seconds than ask again."""

from __future__ import annotations

import re

from rest_framework.request import Request

WAIT_S_MAX = 20
_WAIT = re.compile(r"(?:^|[,;\s])wait=\"?([0-9]{1,6})\"?(?=$|[,;\s])", re.IGNORECASE)


def preferred_wait_s(request: Request) -> int:
    """Seconds that the client will wait, 0 … 20; a preference that is no number is none."""
    found = _WAIT.search(request.headers.get("Prefer", ""))
    return min(int(found[1]), WAIT_S_MAX) if found else 0
