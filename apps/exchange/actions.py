"""Kinds of proposals that take a stake."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from apps.accounts.models import Party
from apps.core.actions import Payload, action
from apps.core.errors import BadInput
from apps.exchange import selectors, vaults
from apps.protocol.ledger import AMOUNT_MAX
from apps.wallets import log
from apps.wallets.models import Asset
from apps.wallets.selectors import asset_by_code

# The leaves that end a round; the first two say what each custodian has scored.
OUTCOMES = ("training.round_done", "training.round_void", "training.round_failed")


class Slashing:
    """{"party": pid, "amount_micro": "1000000"}: up to so much of a party's stake goes to the
    treasury: first what is staked, then what is on its way out. With {"round": id} it cites a round
    that the log has, and where that scored the party, {"phi_milli": "0"} must say so."""

    def validate(self, payload: Payload, dao: Any) -> Payload:
        asked = {"party", "amount_micro", *(("round",) if "round" in payload else ())}
        if not asked <= set(payload) <= asked | {"phi_milli"} or not all(
            isinstance(value, str) for value in payload.values()
        ):
            raise BadInput(
                "bad_payload",
                "Give party and amount_micro, as texts; round and phi_milli where a round shows "
                "why; and no more.",
            )
        text = payload["amount_micro"]
        digits = text.isascii() and text.isdigit() and len(text) <= len(str(AMOUNT_MAX))
        if not digits or text.startswith("0") or int(text) > AMOUNT_MAX:
            raise BadInput("bad_amount", f"An amount lies between 1 and {AMOUNT_MAX} micro-units.")
        if selectors.slashable_micro(_party(payload), _asset(dao)) == 0:
            raise BadInput("nothing_staked", "This party has nothing staked here.")
        if payload.get("phi_milli") != _scored(payload, dao):
            raise BadInput(
                "other_phi", "phi_milli must be what the cited round gave this party, if it did."
            )
        return dict(payload)

    def describe(self, payload: Payload, dao: Any) -> list[dict[str, Any]]:
        asset, party, amount = _asset(dao), _party(payload), int(payload["amount_micro"])
        has = selectors.slashable_micro(party, asset)
        changes = [
            {
                "label": f"Stake of {party.name}, as it is now ({asset.code} micro-units)",
                "before": str(has),
                "after": str(max(has - amount, 0)),
            }
        ]
        if "round" in payload:
            phi = payload.get("phi_milli")
            said = f", φ {int(phi) / 1000:.3f}" if phi is not None else ""
            changes.append(
                {"label": "Cited round", "before": "", "after": f"{payload['round']}{said}"}
            )
        return changes

    def execute(self, payload: Payload, *, dao: Any, proposal_id: UUID, now: datetime) -> None:
        vaults.slash(
            party=_party(payload),
            asset=_asset(dao),
            amount_micro=int(payload["amount_micro"]),
            cites={name: payload[name] for name in ("round", "phi_milli") if name in payload},
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


def _scored(payload: Payload, dao: Any) -> str | None:
    """φ of the party in the round that is cited, as the log has it; None where there is none.

    Raises BadInput for a round that the log has not, that is another SubDAO's, or that the party
    was no member of. The SuperDAO may cite any SubDAO's.
    """
    if "round" not in payload:
        return None
    opened = _body("training.round_opened", payload["round"])
    mine = dao.asset is None or opened.get("dao") == dao.party.pid
    if not mine or payload["party"] not in opened.get("members", {}):
        raise BadInput(
            "no_such_round", "The log has no round with this id here that this party was in."
        )
    outcomes = [body for kind in OUTCOMES if (body := _body(kind, payload["round"]))]
    if not outcomes:
        raise BadInput("round_not_over", "The round that is cited is not over yet.")
    phi = outcomes[0].get("phi_milli", {}).get(payload["party"])
    return None if phi is None else str(phi)


def _body(type: str, ref: str) -> Mapping[str, Any]:
    leaf = log.leaf_for(type, ref)
    body: Mapping[str, Any] = json.loads(bytes(leaf.data))["body"] if leaf else {}
    return body
