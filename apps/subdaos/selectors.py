"""Reads of DAOs, their points and epochs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import QuerySet

from apps.accounts.models import Party
from apps.core.errors import NotFound
from apps.protocol.money import BPS
from apps.protocol.tally import PPM, voting_shares_ppm
from apps.subdaos.models import Dao, Epoch, SbgtCheckpoint
from apps.wallets.models import Account

SBGT_SHOWN = 100

_details: dict[str, Callable[[Dao], Any]] = {}


def superdao() -> Dao:
    return Dao.objects.select_related("party").get(kind=Dao.Kind.SUPER)


def dao_list() -> QuerySet[Dao]:
    """SubDAOs, newest first."""
    return (
        Dao.objects.filter(kind=Dao.Kind.SUB)
        .select_related("party", "asset")
        .order_by("-founded_at", "-id")
    )


def dao_by_slug(slug: str) -> Dao:
    """A SubDAO, or the SuperDAO as "superdao". Raises NotFound."""
    dao = Dao.objects.select_related("party", "asset").filter(slug=slug).first()
    if dao is None:
        raise NotFound("subdao_not_found", "There is no SubDAO with this name.")
    return dao


def points_at(dao: Dao, at: datetime) -> dict[UUID, int]:
    """{party id: π in micro-points} at the instant `at`; members without points are left out."""
    latest = (
        SbgtCheckpoint.objects.filter(dao=dao, at__lte=at)
        .order_by("party_id", "-at", "-id")
        .distinct("party_id")
        .values_list("party_id", "points_micro")
    )
    return {party_id: points_micro for party_id, points_micro in latest if points_micro > 0}


def points_of(dao: Dao, party: Party, at: datetime) -> int:
    """π of one party at `at`, in micro-points."""
    row = (
        SbgtCheckpoint.objects.filter(dao=dao, party=party, at__lte=at)
        .order_by("-at", "-id")
        .first()
    )
    return row.points_micro if row else 0


def points_now(dao: Dao, party: Party) -> int:
    """The newest π of one party, in micro-points."""
    row = SbgtCheckpoint.objects.filter(dao=dao, party=party).order_by("-at", "-id").first()
    return row.points_micro if row else 0


def points_history(dao: Dao, party: Party | None = None) -> QuerySet[SbgtCheckpoint]:
    rows = SbgtCheckpoint.objects.filter(dao=dao).select_related("party").order_by("-at", "-id")
    return rows.filter(party=party) if party else rows


def members(dao: Dao, at: datetime) -> list[dict[str, Any]]:
    """[{party, points_micro, weight_bps}], heaviest first; weights by eq. 9, floored."""
    return heaviest(points_at(dao, at))


def heaviest(points: dict[UUID, int], *, most: int | None = None) -> list[dict[str, Any]]:
    """The `most` heaviest members of these points, weighed among all of them."""
    shares = voting_shares_ppm(points)
    order = sorted(points, key=lambda party_id: (-points[party_id], party_id))[:most]
    parties = Party.objects.in_bulk(order)
    rows = [
        {
            "party": parties[party_id],
            "points_micro": points[party_id],
            "weight_bps": shares[party_id] * BPS // PPM,
        }
        for party_id in order
    ]
    return sorted(rows, key=lambda row: (-row["points_micro"], row["party"].slug))


def treasury_micro(dao: Dao, asset: str = "USDC") -> int:
    """What the treasury has of an asset; nothing of one that there is not."""
    account = Account.objects.filter(
        owner_id=dao.party_id, asset__code=asset, purpose="treasury"
    ).first()
    return account.available_micro if account else 0


def sdt_supply_micro(dao: Dao) -> int:
    """What the issuance account owes is the supply."""
    if dao.asset_id is None:
        return 0
    account = Account.objects.filter(asset_id=dao.asset_id, purpose="issuance").first()
    return -account.posted_micro if account else 0


def epochs(dao: Dao) -> QuerySet[Epoch]:
    return Epoch.objects.filter(dao=dao).order_by("-number")


def current_epoch(dao: Dao) -> Epoch | None:
    return Epoch.objects.filter(dao=dao, closed_at=None).first()


def add_detail(key: str, read: Callable[[Dao], Any]) -> None:
    """A higher app adds a field to a SubDAO's public description; tied in flai_site/wiring.py."""
    _details[key] = read


def brief(dao: Dao) -> dict[str, Any]:
    """One DAO as lists give it: what its own row and those joined to it say."""
    return {
        "slug": dao.slug,
        "name": dao.name,
        "kind": dao.kind,
        "pid": dao.party.pid,
        "objective": dao.params.get("objective", ""),
        "price_micro": dao.params.get("price_micro"),
        "founded_at": dao.founded_at,
        "sdt": {"code": dao.asset.code} if dao.asset else None,
    }


def describe(dao: Dao, at: datetime) -> dict[str, Any]:
    """The public description of a DAO, as the API gives it."""
    epoch, points = current_epoch(dao), points_at(dao, at)
    return {
        "slug": dao.slug,
        "name": dao.name,
        "kind": dao.kind,
        "pid": dao.party.pid,
        "params": dao.params,
        "founded_at": dao.founded_at,
        "treasury_micro": str(treasury_micro(dao)),
        "sdt": (
            {"code": dao.asset.code, "supply_micro": str(sdt_supply_micro(dao))}
            if dao.asset
            else None
        ),
        "sbgt": [
            {
                "party": {"slug": row["party"].slug, "name": row["party"].name},
                "points_micro": str(row["points_micro"]),
                "weight_bps": row["weight_bps"],
            }
            for row in heaviest(points, most=SBGT_SHOWN)
        ],
        "sbgt_members": len(points),
        "current_round": None,
        "listing": None,
        "epoch": describe_epoch(epoch) if epoch else None,
        **{key: read(dao) for key, read in _details.items()},
    }


def describe_epoch(epoch: Epoch) -> dict[str, Any]:
    return {
        "id": str(epoch.id),
        "number": epoch.number,
        "starts_at": epoch.starts_at,
        "ends_at": epoch.ends_at,
        "closed_at": epoch.closed_at,
        "revenue_micro": str(epoch.revenue_micro),
        "settlement": epoch.settlement,
    }
