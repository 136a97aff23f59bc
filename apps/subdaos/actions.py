"""Kinds of proposals that change a SubDAO's parameters."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from apps.core.actions import Payload, action
from apps.core.errors import BadInput
from apps.subdaos import services
from apps.subdaos.models import Dao

PRICE_MAX = 10**15


@action("subdaos.set_price", house="sdt")
class SetPrice:
    """{"price_micro": "500000"}: what one query costs. SDT holders decide prices."""

    def validate(self, payload: Payload, dao: Dao) -> Payload:
        raw = payload.get("price_micro")
        text = str(raw) if isinstance(raw, int) and not isinstance(raw, bool) else raw
        if set(payload) != {"price_micro"} or not isinstance(text, str):
            raise BadInput("bad_payload", "Give price_micro, in micro-units, and nothing else.")
        digits = text.isascii() and text.isdigit() and len(text) <= len(str(PRICE_MAX))
        if not digits or not 1 <= int(text) <= PRICE_MAX:
            raise BadInput("bad_price", f"A price lies between 1 and {PRICE_MAX} micro-units.")
        price = str(int(text))
        if price == dao.params["price_micro"]:
            raise BadInput("no_change", "This is the price already.")
        return {"price_micro": price}

    def describe(self, payload: Payload, dao: Dao) -> list[dict[str, Any]]:
        return [
            {
                "label": "Price of one query (USDC micro-units)",
                "before": dao.params["price_micro"],
                "after": payload["price_micro"],
            }
        ]

    def execute(self, payload: Payload, *, dao: Dao, proposal_id: UUID, now: datetime) -> None:
        services.param_set(
            dao=dao,
            key="price_micro",
            value=payload["price_micro"],
            proposal_id=proposal_id,
            now=now,
        )
