"""Converting soul-bound points into tokens: a preview, then the service that does it.

A member gives up x of its points for ⌊x / Σπ · P⌋ tokens of the contributors' pot P, at most the
convertible part of them between two emissions (`apps.protocol.emission`). The points are gone: its
vote falls, nobody else gets them. What one keeps is worth no less afterwards.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Sum

from apps.accounts.models import Party
from apps.core.errors import Conflict, Unprocessable
from apps.core.ids import effect_of
from apps.core.transactions import durable
from apps.protocol import consent as signing
from apps.protocol import emission as rules
from apps.protocol.money import BPS
from apps.subdaos import selectors
from apps.subdaos.emission import CONVERSION
from apps.subdaos.models import Conversion, Dao, Emission
from apps.subdaos.services import dao_lock, sbgt_convert
from apps.wallets import keys, ledger, log
from apps.wallets.ledger import Leg
from apps.wallets.services import account

REF = "subdaos.conversion"


class NothingReleased(Conflict):
    code = "nothing_released"
    text = "Nothing was released for contributors yet: the first epoch has still to end."


class OverLimit(Unprocessable):
    code = "over_limit"
    text = (
        "You may convert at most {may_micro} micro-points until the next epoch ends. "
        "Nothing was converted."
    )


class WorthNothing(Unprocessable):
    code = "worth_nothing"
    text = "This is worth less than the smallest part of a token. Nothing was converted."


class PriceMoved(Conflict):
    code = "price_moved"
    text = (
        "You would get {tokens_micro} micro-units now, less than you asked for at least. "
        "Nothing was converted."
    )


class ConversionConflict(Conflict):
    code = "conversion_conflict"
    text = "This conversion was made with other content."


@dataclass(frozen=True)
class Preview:
    """What a conversion would do right now; all in micro."""

    points: int
    tokens: int
    points_before: int
    all_points: int
    pot: int
    may: int

    @property
    def points_after(self) -> int:
        return self.points_before - self.points

    @property
    def weight_before_bps(self) -> int:
        return self.points_before * BPS // max(self.all_points, 1)

    @property
    def weight_after_bps(self) -> int:
        """The vote that is left when the converted points are gone from the whole as well."""
        return self.points_after * BPS // max(self.all_points - self.points, 1)


def preview(dao: Dao, party: Party, points_micro: int) -> Preview:
    """What `convert` would do with these points now. Writes nothing, raises as it does."""
    emission = Emission.objects.filter(dao=dao).order_by("-at").first()
    if emission is None:
        raise NothingReleased()
    return _checked(dao, party, points_micro, emission)


def limit_micro(dao: Dao, party: Party) -> int:
    """Points that `party` may convert until the next emission; 0 before the first one."""
    emission = Emission.objects.filter(dao=dao).order_by("-at").first()
    return _may(dao, party, emission, selectors.points_now(dao, party)) if emission else 0


def convert(
    *,
    party: Party,
    dao: Dao,
    points_micro: int,
    tokens_min_micro: int,
    idempotency: uuid.UUID | None = None,
    consent: keys.Consent = keys.SESSION,
    now: datetime,
) -> Conversion:
    """Give up points for at least `tokens_min_micro`, which its owner saw before.

    idempotency: the same one again, from the same party, returns the conversion that exists.
    consent: by what the request acts; a bound wallet key must have signed what is asked.
    Leaf "subdaos.converted". Raises NothingReleased, OverLimit, WorthNothing, PriceMoved,
    ConversionConflict, what `keys.grant` raises.
    """
    id_ = effect_of(party.id, signing.CONVERT, idempotency)
    asked = signing.convert_payload(
        dao=dao.party.pid, points_micro=points_micro, tokens_min_micro=tokens_min_micro
    )
    with durable():
        made = Conversion.objects.select_related("emission").filter(id=id_).first()
        if made is None:
            # Points, pot and emissions stand still. The DAO before its member's keys, as a vote
            # that takes its proposal's snapshot does: they would wait for each other.
            locked = dao_lock(dao)
            said = keys.grant(party, signing.CONVERT, asked, consent, now=now)
            made = Conversion.objects.select_related("emission").filter(id=id_).first()
        if made is not None:
            wanted = (dao.id, points_micro, tokens_min_micro)
            if (made.emission.dao_id, made.points_micro, made.asked_min_micro) != wanted:
                raise ConversionConflict()
            return made
        emission = Emission.objects.filter(dao=locked).order_by("-at").first()
        if emission is None:
            raise NothingReleased()
        found = _checked(locked, party, points_micro, emission)
        if found.tokens < tokens_min_micro:
            raise PriceMoved(tokens_micro=str(found.tokens))
        assert locked.asset is not None
        leg = Leg(
            id=id_,
            debit_account=account(locked.party, locked.asset, CONVERSION),
            credit_account=account(party, locked.asset),
            amount_micro=found.tokens,
            kind=signing.CONVERT,
            ref=(REF, id_),
        )
        # After this point it must succeed.
        ledger.post([leg], now=now)
        sbgt_convert(dao=locked, party=party, points_micro=points_micro, conversion_id=id_, now=now)
        made = Conversion.objects.create(
            id=id_,
            emission=emission,
            party=party,
            asked_min_micro=tokens_min_micro,
            points_micro=points_micro,
            tokens_micro=found.tokens,
            created_at=now,
        )
        log.append(
            "subdaos.converted",
            {
                "id": str(id_),
                "dao": locked.party.pid,
                "party": party.pid,
                "asked": asked,
                "points_micro": str(points_micro),
                "tokens_micro": str(found.tokens),
                **said,
            },
            now=now,
        )
    return made


def _checked(dao: Dao, party: Party, points_micro: int, emission: Emission) -> Preview:
    held = selectors.points_now(dao, party)
    may = _may(dao, party, emission, held)
    if not 0 < points_micro <= may:
        raise OverLimit(may_micro=str(may))
    every = sum(selectors.points_newest(dao).values())
    pot = selectors.pot_micro(dao, CONVERSION)
    tokens = rules.converted(points_micro, all_points_micro=every, pot_micro=pot)
    if not tokens:
        raise WorthNothing()
    return Preview(points_micro, tokens, held, every, pot, may)


def _may(dao: Dao, party: Party, emission: Emission, held_micro: int) -> int:
    done = Conversion.objects.filter(emission=emission, party=party)
    done_micro = done.aggregate(sum=Sum("points_micro"))["sum"] or 0
    schedule = rules.schedule_of(dao.params["emission"])
    return rules.convertible(held_micro, done_micro=done_micro, schedule=schedule)


def conversion_json(made: Conversion) -> dict[str, Any]:
    return {
        "id": str(made.id),
        "points_micro": str(made.points_micro),
        "tokens_micro": str(made.tokens_micro),
        "at": made.created_at.isoformat(),
    }
