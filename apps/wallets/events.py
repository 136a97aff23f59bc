"""What has happened to wallets."""

from __future__ import annotations

from dataclasses import dataclass

from apps.core.events import Event


@dataclass(frozen=True)
class TransferReversed(Event):
    transfer_id: str
    reversal_id: str
