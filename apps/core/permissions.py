"""`can_award(actor, rfm) -> Denied | None`: one answer for service, API and template."""

from __future__ import annotations

from dataclasses import dataclass

from apps.core.errors import Forbidden


@dataclass(frozen=True)
class Denied:
    """Why not, safe to show. Falsy-free on purpose: test with `is None`."""

    code: str
    text: str


def ensure(denied: Denied | None) -> None:
    """Raise Forbidden for a Denied, pass for None."""
    if denied is not None:
        raise Forbidden(denied.code, denied.text)
