"""The model card: what is told of a model beside its price, from what is there already."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import Subquery
from django.db.models.functions import JSONObject

from apps.accounts.models import Party
from apps.accounts.selectors import keys_of
from apps.listings.access import access_of
from apps.listings.models import Listing
from apps.rfms.models import Rfm
from apps.subdaos.models import Dao, Epoch
from apps.wallets.models import Account

FORKS_MAX = 20
Named = dict[str, str]


@dataclass(frozen=True)
class Facts:
    """What stands about a listing in other tables, by one query. `closed`: (number, start, end) of
    the last closed epoch; `issuers`: those that its terms trust, {"pid", "name"}; `own_prefix`: of
    the newest API key of who looks."""

    supply_micro: int
    closed: tuple[int, datetime, datetime] | None
    request: Named | None
    parent: Named | None
    forks: list[Named]
    issuers: list[Named]
    own_prefix: str


def facts_of(listing: Listing, *, party: Party | None = None) -> Facts:
    dao, access = listing.dao, access_of(listing.dao)
    issued = Account.objects.filter(asset_id=dao.asset_id, purpose="issuance")
    epochs = Epoch.objects.filter(dao=dao).exclude(closed_at=None).order_by("-number")
    named = JSONObject(slug="slug", name="name")
    said: dict[str, Any] = {
        "supply": Subquery(issued.values("posted_micro")[:1]),
        "closed": Subquery(
            epochs.values(said=JSONObject(of="number", since="starts_at", until="ends_at"))[:1]
        ),
        "request": Subquery(
            Rfm.objects.filter(subdao=dao).values(said=JSONObject(slug="slug", name="title"))[:1]
        ),
        "above": Subquery(Dao.objects.filter(forks=dao).values(said=named)[:1]),
        "below": ArraySubquery(
            Dao.objects.filter(parent=dao).order_by("founded_at").values(said=named)[:FORKS_MAX]
        ),
    }
    if access is not None:
        trusted = Party.objects.filter(pid__in=access.issuers).order_by("pid")
        said["issuers"] = ArraySubquery(trusted.values(said=JSONObject(pid="pid", name="name")))
    if party is not None:
        said["prefix"] = Subquery(keys_of(party).values("prefix")[:1])
    row = Dao.objects.filter(pk=dao.pk).values(**said).get()
    closed = row["closed"]
    return Facts(
        supply_micro=-(row["supply"] or 0),
        closed=closed
        and (
            closed["of"],
            datetime.fromisoformat(closed["since"]),
            datetime.fromisoformat(closed["until"]),
        ),
        request=row["request"],
        parent=row["above"],
        forks=row["below"],
        issuers=row.get("issuers", []),
        own_prefix=row.get("prefix") or "",
    )
