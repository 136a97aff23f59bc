"""Kinds of proposals that take a stake."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from apps.accounts.models import Party
from apps.core.actions import Payload, action
from apps.core.errors import BadInput
from apps.exchange import selectors, vaults
from apps.protocol.ledger import AMOUNT_MAX
from apps.wallets.models import Asset
from apps.wallets.selectors import asset_by_code


class Slashing:
    """{"party": pid, "amount_micro": "1000000"}: up to so much of a party's stake goes to the
    treasury: first what is staked, then what is on its way out."""

    def validate(self, payload: Payload, dao: Any) -> Payload:
        if set(payload) != {"party", "amount_micro"} or not all(
            isinstance(value, str) for value in payload.values()
        ):
            raise BadInput("bad_payload", "Give party and amount_micro, as texts, and no more.")
        text = payload["amount_micro"]
        digits = text.isascii() and text.isdigit() and len(text) <= len(str(AMOUNT_MAX))
        if not digits or text.startswith("0") or int(text) > AMOUNT_MAX:
            raise BadInput("bad_amount", f"An amount lies between 1 and {AMOUNT_MAX} micro-units.")
        if selectors.slashable_micro(_party(payload), _asset(dao)) == 0:
            raise BadInput("nothing_staked", "This party has nothing staked here.")
        return dict(payload)

    def describe(self, payload: Payload, dao: Any) -> list[dict[str, Any]]:
        asset, party, amount = _asset(dao), _party(payload), int(payload["amount_micro"])
        has = selectors.slashable_micro(party, asset)
        return [
            {
                "label": f"Stake of {party.name}, as it is now ({asset.code} micro-units)",
                "before": str(has),
                "after": str(max(has - amount, 0)),
            }
        ]

    def execute(self, payload: Payload, *, dao: Any, proposal_id: UUID, now: datetime) -> None:
        vaults.slash(
            party=_party(payload),
            asset=_asset(dao),
            amount_micro=int(payload["amount_micro"]),
            dao=dao,
            proposal_id=proposal_id,
            now=now,
        )


@action("exchange.slash", house="sbgt")
class Slash(Slashing):
    """Of a SubDAO's own token, by those who answer for its quality."""


@action("exchange.slash_flai", house="super")
class SlashFlai(Slashing):
    """Of FLAI, by the SuperDAO."""


def _asset(dao: Any) -> Asset:
    return dao.asset or asset_by_code("FLAI")


def _party(payload: Payload) -> Party:
    party = Party.objects.filter(pid=payload["party"]).first()
    if party is None:
        raise BadInput("party_not_found", "There is no party with this pid.")
    return party
