"""What has happened in the marketplace."""

from __future__ import annotations

from dataclasses import dataclass

from apps.core.events import Event


@dataclass(frozen=True)
class ListingOpened(Event):
    listing_id: str
    dao_id: str


@dataclass(frozen=True)
class QuerySettled(Event):
    query_id: str
    listing_id: str


@dataclass(frozen=True)
class QueryReleased(Event):
    query_id: str
    listing_id: str


@dataclass(frozen=True)
class EpochSettled(Event):
    epoch_id: str
    dao_id: str
