"""Whose vote counts how much: one reading per house, taken at one instant.

super  staked FLAI (micro-units)
sbgt   soul-bound points π_k (micro-points); v_k = π_k / Σ_j π_j, paper eq. 9
sdt    the SubDAO's tokens, held or staked (micro-units); treasury, reserve and escrow don't vote
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from apps.accounts.models import Party
from apps.governance.models import House
from apps.subdaos import selectors as subdaos
from apps.subdaos.models import Dao
from apps.wallets import selectors as wallets
from apps.wallets.models import Asset

_VOTERS = (Party.Kind.PERSON, Party.Kind.ORGANISATION)

NAMES = {
    House.SUPER: "staked FLAI",
    House.SBGT: "soul-bound points of this SubDAO",
    House.SDT: "tokens of this SubDAO, held or staked",
}


def asset_of(dao: Dao) -> Asset:
    """The token that votes in a DAO's house of tokens."""
    return dao.asset or Asset.objects.get(code="FLAI")


def house_weights(dao: Dao, house: str, at: datetime) -> dict[UUID, int]:
    """{party id: weight > 0} at the instant `at`. People and organisations vote, DAOs do not."""
    if house == House.SBGT:
        weights = subdaos.points_at(dao, at)
    elif house == House.SUPER:
        weights = wallets.supply_weights(asset_of(dao), ("staked",), at)
    else:
        weights = wallets.supply_weights(asset_of(dao), ("main", "staked"), at)
    voters = set(
        Party.objects.filter(id__in=list(weights), kind__in=_VOTERS).values_list("id", flat=True)
    )
    return {party: weight for party, weight in weights.items() if weight > 0 and party in voters}


def house_weight(dao: Dao, house: str, party: Party, at: datetime) -> int:
    """The weight of one party at `at`."""
    if party.kind not in _VOTERS:
        return 0
    if house == House.SBGT:
        return subdaos.points_of(dao, party, at)
    if house == House.SUPER:
        return wallets.balance_at(party, asset_of(dao), ("staked",), at)
    return wallets.balance_at(party, asset_of(dao), ("main", "staked"), at)
