"""Kinds of proposals that change a SubDAO's parameters or spend its money."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from apps.core.actions import Payload, action
from apps.core.errors import BadInput
from apps.protocol import decay
from apps.protocol.ledger import AMOUNT_MAX
from apps.protocol.targets import class_of
from apps.subdaos import selectors, services
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


@action("subdaos.set_scoring", house="sbgt")
class SetScoring:
    """{"scoring": "shapley"}: what contributions are scored by, from the next round on."""

    def validate(self, payload: Payload, dao: Dao) -> Payload:
        scorings = class_of(dao.params).scorings
        if set(payload) != {"scoring"} or payload["scoring"] not in scorings:
            raise BadInput("bad_scoring", f"Give scoring, one of: {', '.join(scorings)}.")
        if payload["scoring"] == dao.params["scoring"]:
            raise BadInput("no_change", "Contributions are scored by this already.")
        return dict(payload)

    def describe(self, payload: Payload, dao: Dao) -> list[dict[str, Any]]:
        return [
            {
                "label": "Contributions are scored by",
                "before": dao.params["scoring"],
                "after": payload["scoring"],
            }
        ]

    def execute(self, payload: Payload, *, dao: Dao, proposal_id: UUID, now: datetime) -> None:
        services.param_set(
            dao=dao, key="scoring", value=payload["scoring"], proposal_id=proposal_id, now=now
        )


@action("subdaos.pay", house="sdt")
class Pay:
    """{"to": pid, "asset": "USDC", "amount_micro": "1000000"}: a payment from the treasury.

    What it is for stands in the proposal: the ledger and the log keep no free text.
    """

    def validate(self, payload: Payload, dao: Dao) -> Payload:
        if set(payload) != {"to", "asset", "amount_micro"} or not all(
            isinstance(value, str) and value.isprintable() for value in payload.values()
        ):
            raise BadInput("bad_payload", "Give to, asset and amount_micro, as texts, and no more.")
        text = payload["amount_micro"]
        digits = text.isascii() and text.isdigit() and len(text) <= len(str(AMOUNT_MAX))
        if not digits or text.startswith("0") or int(text) > AMOUNT_MAX:
            raise BadInput("bad_amount", f"An amount lies between 1 and {AMOUNT_MAX} micro-units.")
        services.payee(payload["to"])
        has = selectors.treasury_micro(dao, payload["asset"])
        if has < int(text):
            raise BadInput(
                "treasury_short", f"The treasury has {has} micro-units of {payload['asset'][:40]}."
            )
        return dict(payload)

    def describe(self, payload: Payload, dao: Dao) -> list[dict[str, Any]]:
        asset, to = payload["asset"], services.payee(payload["to"])
        has, amount = selectors.treasury_micro(dao, asset), int(payload["amount_micro"])
        return [
            {
                "label": f"Payment to {to.name} ({asset} micro-units)",
                "before": "",
                "after": str(amount),
            },
            {
                "label": f"Treasury, as it is now ({asset} micro-units)",
                "before": str(has),
                "after": str(has - amount),
            },
        ]

    def execute(self, payload: Payload, *, dao: Dao, proposal_id: UUID, now: datetime) -> None:
        services.treasury_pay(
            dao=dao,
            to=services.payee(payload["to"]),
            asset=payload["asset"],
            amount_micro=int(payload["amount_micro"]),
            proposal_id=proposal_id,
            now=now,
        )


@action("subdaos.revoke", house="sbgt")
class Revoke:
    """{"party": pid, "points_micro": "1000000"}: take a member's points, for inactivity, exit or
    malice. Whoever has fewer by then keeps none; nobody else gets them.
    """

    def validate(self, payload: Payload, dao: Dao) -> Payload:
        if set(payload) != {"party", "points_micro"} or not all(
            isinstance(value, str) for value in payload.values()
        ):
            raise BadInput("bad_payload", "Give party and points_micro, as texts, and no more.")
        text = payload["points_micro"]
        digits = text.isascii() and text.isdigit() and len(text) <= len(str(AMOUNT_MAX))
        if not digits or text.startswith("0") or int(text) > AMOUNT_MAX:
            raise BadInput("bad_points", f"Points lie between 1 and {AMOUNT_MAX} micro-points.")
        member = services.payee(payload["party"])
        if not selectors.points_now(dao, member):
            raise BadInput("no_points", f"{member.name} has no points here.")
        return dict(payload)

    def describe(self, payload: Payload, dao: Dao) -> list[dict[str, Any]]:
        member = services.payee(payload["party"])
        held = selectors.points_now(dao, member)
        left = decay.revoked(held, int(payload["points_micro"]))
        return [
            {
                "label": f"Points of {member.name} (micro-points)",
                "before": str(held),
                "after": str(left),
            }
        ]

    def execute(self, payload: Payload, *, dao: Dao, proposal_id: UUID, now: datetime) -> None:
        services.sbgt_revoke(
            dao=dao,
            party=services.payee(payload["party"]),
            points_micro=int(payload["points_micro"]),
            proposal_id=proposal_id,
            now=now,
        )
