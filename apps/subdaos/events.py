"""What happened to a DAO."""

from __future__ import annotations

from dataclasses import dataclass

from apps.core.events import Event


@dataclass(frozen=True)
class SubdaoFounded(Event):
    dao_id: str
    rfm_id: str


@dataclass(frozen=True)
class PriceChanged(Event):
    dao_id: str
    price_micro: str
