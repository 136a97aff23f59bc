"""The model card: what is told of a model beside its price, from what is there already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import Exists, QuerySet, Subquery
from django.db.models.functions import JSONObject

from apps.accounts.models import Party
from apps.accounts.selectors import keys_of
from apps.listings.access import access_of
from apps.listings.models import Listing
from apps.listings.plans import running_of
from apps.listings.portions import taken_of
from apps.protocol.evidence import leading
from apps.rfms.models import Rfm
from apps.subdaos.models import Dao, Epoch
from apps.training.models import ModelVersion, Round, Score
from apps.training.privacy import noise_json
from apps.wallets.models import Account

FORKS_MAX = 20
ROUNDS_MAX = 20
Json = dict[str, Any]
Named = dict[str, str]


@dataclass(frozen=True)
class Facts:
    """What stands about a listing in other tables, by one query. `closed`: (number, start, end) of
    the last closed epoch; `issuers`: those that its terms trust, {"pid", "name"}; `own_prefix`: of
    the newest API key of who looks; `taken_rows`: that it has asked in the nodes' epoch; `planned`:
    whether it has a plan here."""

    supply_micro: int
    closed: tuple[int, datetime, datetime] | None
    request: Named | None
    parent: Named | None
    forks: list[Named]
    issuers: list[Named]
    own_prefix: str
    taken_rows: int
    planned: bool


def facts_of(listing: Listing, *, party: Party | None = None, now: datetime | None = None) -> Facts:
    """party: who looks, at `now`."""
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
    if party is not None and now is not None:
        said["prefix"] = Subquery(keys_of(party).values("prefix")[:1])
        said["planned"] = Exists(running_of(party, now=now).filter(listing=listing))
        said["taken"] = Subquery(taken_of(party, listing, now=now).values("rows")[:1])
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
        taken_rows=row.get("taken") or 0,
        planned=row.get("planned", False),
    )


def history_of(listing: Listing) -> list[Round]:
    """The newest rounds of its SubDAO, oldest first, with the versions that they made and began at
    (`start`)."""
    shown = Round.objects.filter(dao=listing.dao).select_related("version", "start")
    shown = shown.defer("normalisation", "progress", "rows", "stakes", "nodes", "schedule")
    return list(shown.order_by("-number")[:ROUNDS_MAX])[::-1]


def version_of(held: Round) -> ModelVersion | None:
    return getattr(held, "version", None)


def scores_of(listing: Listing) -> QuerySet[Score]:
    """What each site's update contributed to the version on sale, the most first."""
    scores = Score.objects.filter(round=listing.version.round_id).select_related("party")
    return scores.order_by("-phi_milli", "id")


@dataclass(frozen=True)
class Fairness:
    """How even the leading metric is over the strata: (name, thousandths) of the best and the worst
    that are shown, the gap between them; the hidden ones; the strata that missed a gate."""

    metric: str
    best: tuple[str, int]
    worst: tuple[str, int]
    hidden: list[str]
    missed: list[str]

    @property
    def gap_milli(self) -> int:
        return self.best[1] - self.worst[1]


def fairness(evidence: Mapping[str, Any]) -> Fairness | None:
    """None where fewer than two strata are shown: there is nothing to compare."""
    metric = leading(evidence)
    values = evidence.get(f"{metric}_by_stratum") or {}
    shown = sorted((value, name) for name, value in values.items() if value is not None)
    if len(shown) < 2:
        return None
    gates = evidence.get("gates") or []
    return Fairness(
        metric,
        (shown[-1][1], shown[-1][0]),
        (shown[0][1], shown[0][0]),
        sorted(name for name, value in values.items() if value is None),
        sorted({gate["stratum"] for gate in gates if gate["stratum"] and not gate["met"]}),
    )


def by_round(rounds: Sequence[Round]) -> tuple[list[int], list[tuple[str, list[int | None]]]]:
    """(numbers of the rounds that made a version, [(all rows or a stratum, the leading metric in
    thousandths by round)]), as the newest version measures it."""
    made = [(held.number, found.evidence) for held in rounds if (found := version_of(held))]
    if not made:
        return [], []
    metric = leading(made[-1][1])
    by = [evidence.get(f"{metric}_by_stratum") or {} for _, evidence in made]
    rows = [("All rows", [evidence.get(f"{metric}_milli") for _, evidence in made])]
    rows += [(name, [values.get(name) for values in by]) for name in sorted(by[-1])]
    return [number for number, _ in made], rows


def card_json(listing: Listing) -> Json:
    """All of it, for programs; four queries."""
    dao, version, held = listing.dao, listing.version, listing.version.round
    facts, rounds = facts_of(listing), history_of(listing)
    even = fairness(version.evidence)
    members = held.roster["members"]
    start = next((one.start for one in rounds if one.pk == held.pk), None)
    return {
        "listing": listing.slug,
        "title": dao.name,
        "objective": dao.params.get("objective"),
        "request": facts.request,
        "model_class": held.model_class,
        "model": version.model,
        "version": version.number,
        "schema": dao.params["schema"],
        "label": dao.params["label"],
        "licence": dao.licence,
        "resolution": held.resolution,
        "access": dao.params.get("access") or None,
        "privacy": noise_json(held),
        "evidence": version.evidence,
        "fairness": even
        and {
            "metric": even.metric,
            "best": dict(zip(("stratum", "milli"), even.best, strict=True)),
            "worst": dict(zip(("stratum", "milli"), even.worst, strict=True)),
            "gap_milli": even.gap_milli,
            "hidden": even.hidden,
            "missed": even.missed,
        },
        "roster": [{"role": one["role"], "name": one.get("name", "")} for one in members],
        "contributions": [
            {"pid": one.party.pid, "name": one.party.name, "phi_milli": one.phi_milli}
            for one in scores_of(listing)
        ],
        "rounds": [_round_json(one) for one in rounds],
        "versions": [_version_json(found, listing) for one in rounds if (found := version_of(one))],
        "lineage": {
            "parent": facts.parent,
            "forks": facts.forks,
            "start_version": start.number if start else None,
        },
        "audit": f"/models/{listing.slug}/audit/",
    }


def _round_json(held: Round) -> Json:
    roles = [one["role"] for one in held.roster["members"]]
    found = version_of(held)
    return {
        "id": str(held.pk),
        "number": held.number,
        "phase": held.phase,
        "training": held.training,
        "scoring": held.scoring,
        "custodians": roles.count("custodian"),
        "validators": roles.count("validator"),
        "start_version": held.start.number if held.start else None,
        "version": found.number if found else None,
        "opened_at": held.opened_at.isoformat(),
        "closed_at": held.closed_at.isoformat() if held.closed_at else None,
    }


def _version_json(version: ModelVersion, listing: Listing) -> Json:
    return {
        "number": version.number,
        "model": version.model,
        "status": version.status,
        "on_sale": version.pk == listing.version_id,
        "metric": leading(version.evidence),
        "milli": version.lead_milli,
        "proposal": str(version.proposal_id) if version.proposal_id else None,
        "decided_at": version.decided_at.isoformat() if version.decided_at else None,
    }
