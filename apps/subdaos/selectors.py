"""Reads of DAOs, their points and epochs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.models import F, QuerySet, Sum, Window

from apps.accounts.models import Party
from apps.core.errors import NotFound
from apps.protocol import emission as rules
from apps.protocol import privacy
from apps.protocol.money import BPS
from apps.protocol.portion import DEFAULT_BPS
from apps.protocol.tally import PPM, share_ppm
from apps.protocol.tickets import RING
from apps.subdaos.models import Dao, Emission, Epoch, SbgtCheckpoint, Sponsor
from apps.wallets.models import Account

SBGT_SHOWN = 100
_HEAVIEST = """
SELECT party_id, points_micro, count(*) OVER (), sum(points_micro) OVER ()
FROM (
    SELECT DISTINCT ON (party_id) party_id, points_micro FROM subdaos_sbgtcheckpoint
    WHERE dao_id = %(dao)s AND at <= %(at)s ORDER BY party_id, at DESC, id DESC
) latest
WHERE points_micro > 0 ORDER BY points_micro DESC, party_id LIMIT %(most)s
"""

_details: dict[str, Callable[[Dao], Any]] = {}


def engine_of(dao: Dao) -> str:
    """What nodes compute this SubDAO's next round with."""
    return str(dao.params.get("engine", RING))


def on_sale(dao: Dao) -> bool:
    """Whether answers of its model are sold, where it has one."""
    return bool(dao.params.get("on_sale", True))


def portion_bps(dao: Dao) -> int:
    """What part of the rows that nodes answer of its model one buyer may ask."""
    return int(dao.params.get("portion_bps", DEFAULT_BPS))


def budget_of(dao: Dao) -> privacy.Budget | None:
    """What noise this SubDAO's next round makes, and how many such rounds there may be."""
    return privacy.budget_of(dao.params.get("privacy"))


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
    dao = Dao.objects.select_related("party", "asset", "parent").filter(slug=slug).first()
    if dao is None:
        raise NotFound("subdao_not_found", "There is no SubDAO with this name.")
    return dao


def points_at(dao: Dao, at: datetime) -> dict[UUID, int]:
    """{party id: π in micro-points} at the instant `at`; members without points are left out."""
    return _latest(SbgtCheckpoint.objects.filter(dao=dao, at__lte=at))


def points_newest(dao: Dao) -> dict[UUID, int]:
    """As `points_at`, by each member's newest points, whatever the clock says."""
    return _latest(SbgtCheckpoint.objects.filter(dao=dao))


def _latest(rows: QuerySet[SbgtCheckpoint]) -> dict[UUID, int]:
    latest = rows.order_by("party_id", "-at", "-id").distinct("party_id")
    pairs = latest.values_list("party_id", "points_micro")
    return {party_id: points_micro for party_id, points_micro in pairs if points_micro > 0}


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


def heaviest(dao: Dao, at: datetime, *, most: int) -> tuple[int, list[dict[str, Any]]]:
    """(members with points, [{party, points_micro, weight_bps}] of the `most` heaviest of them).

    Weights among all members by eq. 9, floored. The database picks: however many members there
    are, two queries and `most` rows.
    """
    with connection.cursor() as cursor:
        cursor.execute(_HEAVIEST, {"dao": dao.id, "at": at, "most": most})
        found = cursor.fetchall()
    parties = Party.objects.in_bulk([party_id for party_id, *_ in found])
    rows = [
        {
            "party": parties[party_id],
            "points_micro": micro,
            "weight_bps": share_ppm(micro, int(whole)) * BPS // PPM,
        }
        for party_id, micro, _, whole in found
    ]
    rows.sort(key=lambda row: (-row["points_micro"], row["party"].slug))
    return (found[0][2] if found else 0), rows


def treasury_micro(dao: Dao, asset: str = "USDC") -> int:
    """What the treasury has of an asset; nothing of one that there is not."""
    account = Account.objects.filter(
        owner_id=dao.party_id, asset__code=asset, purpose="treasury"
    ).first()
    return account.available_micro if account else 0


def pot_micro(dao: Dao, purpose: str) -> int:
    """What a SubDAO's account for this purpose has of its own token."""
    found = Account.objects.filter(owner_id=dao.party_id, asset_id=dao.asset_id, purpose=purpose)
    return found.values_list("posted_micro", flat=True).first() or 0


def sponsor_of(dao: Dao, party: Party) -> Sponsor | None:
    return Sponsor.objects.filter(dao=dao, party=party).first()


def sponsor_due_micro(sponsor: Sponsor) -> int:
    """What a sponsor may take now of all that was released for sponsors so far."""
    emitted = Emission.objects.filter(dao=sponsor.dao_id).aggregate(sum=Sum("sponsors_micro"))
    every = Sponsor.objects.filter(dao=sponsor.dao_id).aggregate(sum=Sum("pledged_micro"))
    return rules.sponsor_due(
        sponsor.pledged_micro,
        all_pledged_micro=every["sum"],
        emitted_micro=emitted["sum"] or 0,
        taken_micro=sponsor.taken_micro,
    )


def released_course(dao: Dao, most: int) -> list[tuple[datetime, int]]:
    """(end of an epoch, released from the reserve by then), the last `most` in order of time."""
    total = F("contributors_micro") + F("sponsors_micro") + F("treasury_micro")
    by_then = Window(Sum(total), order_by=F("at").asc())
    rows = Emission.objects.filter(dao=dao).annotate(by_then=by_then).order_by("-at")
    return [(at, int(micro)) for at, micro in rows.values_list("at", "by_then")[:most]][::-1]


def describe_emission(dao: Dao) -> dict[str, Any]:
    """The schedule, what is left and what was released, as the API gives it."""
    purposes = ("reserve", "conversion", "sponsors")
    held = {
        row.purpose: row.posted_micro
        for row in Account.objects.filter(
            owner_id=dao.party_id, asset_id=dao.asset_id, purpose__in=purposes
        )
    }
    reserve = held.get("reserve", 0)
    schedule = rules.schedule_of(dao.params["emission"])
    released = Emission.objects.filter(dao=dao).aggregate(
        contributors=Sum("contributors_micro"),
        sponsors=Sum("sponsors_micro"),
        treasury=Sum("treasury_micro"),
    )
    return {
        "schedule": dao.params["emission"],
        "reserve_micro": str(reserve),
        "next_micro": str(rules.emission(reserve, schedule).total),
        "released_micro": str(sum(value or 0 for value in released.values())),
        "released": {role: str(micro or 0) for role, micro in released.items()},
        "conversion_pot_micro": str(held.get("conversion", 0)),
        "sponsors_pot_micro": str(held.get("sponsors", 0)),
    }


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
    epoch, (members, shown) = current_epoch(dao), heaviest(dao, at, most=SBGT_SHOWN)
    return {
        "slug": dao.slug,
        "parent": dao.parent.slug if dao.parent else None,
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
            for row in shown
        ],
        "sbgt_members": members,
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
