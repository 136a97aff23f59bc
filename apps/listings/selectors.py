"""What anybody may know of listings, and a buyer of a query. Reads only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db.models import Count, QuerySet, Sum

from apps.accounts.models import Party
from apps.compute.models import Job, Node
from apps.compute.selectors import job_json
from apps.core.errors import NotFound
from apps.core.joined import Joined
from apps.governance.selectors import last_carried
from apps.listings.asking import hash_of, infer_of, obstacle
from apps.listings.models import Listing, Query
from apps.listings.plans import plans_json
from apps.listings.pricing import (
    CURRENCY,
    copy_cost,
    price_micro,
    rebate_bps,
    rows_max,
    rows_per_buyer,
    rows_per_epoch_max,
    tiers_json,
)
from apps.protocol.circuits import CLASSES
from apps.protocol.extraction import AGREEMENT_BPS
from apps.protocol.targets import reading_of
from apps.subdaos.models import Dao
from apps.subdaos.selectors import portion_bps
from apps.training.access import demand_of
from apps.training.models import ModelVersion
from apps.training.privacy import noise_json

Json = dict[str, Any]
ENDED = (Query.State.SETTLED, Query.State.RELEASED)


def listings() -> QuerySet[Listing]:
    """Newest first, with what their description needs."""
    return Listing.objects.select_related("dao__party", "dao__asset", "version__round").order_by(
        "-created_at", "-id"
    )


def listings_described() -> QuerySet[Listing]:
    """The same with only what `listing_json` and the catalogue's orders read, for many at once."""
    return listings().only(
        *("slug", "status", "opened_at", "answers_recent", "row_price_micro", "lead_milli"),
        *("created_at", "dao__slug", "dao__name", "dao__domain", "dao__standard"),
        *("dao__licence", "dao__params", "dao__party__id", "dao__asset__code"),
        *("version__number", "version__model", "version__asked_by", "version__asked_hash"),
        *("version__evidence", "version__round__resolution", "version__round__privacy"),
        *("version__round__normalisation",),
        *("version__round__nodes", "version__round__features", "version__round__extras"),
        *("version__round__model_class", "version__round__roster", "version__round__engine"),
        "version__round__access",
    )


def listing_of(dao: Dao) -> Json | None:
    """A SubDAO's listing in brief."""
    found = listings().filter(dao=dao).first()
    if found is None:
        return None
    return {
        "slug": found.slug,
        "status": found.status,
        "version": found.version.number,
        "price_micro": str(price_micro(found)),
    }


def nodes_known() -> list[Node]:
    """Every node that ever served, by index: what `listing_json` picks a model's own from."""
    return list(Node.objects.order_by("index"))


def listing_json(listing: Listing, nodes: Sequence[Node] | None = None) -> Json:
    """A listing with everything that a client needs to make a query's ticket.

    nodes: all there are, in order; read here unless the caller, who describes many, has them.
    """
    dao, version, held = listing.dao, listing.version, listing.version.round
    nodes = nodes_known() if nodes is None else nodes
    copied = copy_cost(listing)
    return {
        "slug": listing.slug,
        "title": dao.name,
        "objective": dao.params.get("objective"),
        "subdao": dao.slug,
        "status": listing.status,
        "version": version.number,
        "model": version.model,
        "model_class": dao.params.get("model_class"),
        "hidden": dao.params.get("hidden"),
        "domain": dao.domain,
        "standard": dao.standard,
        "licence": dao.licence,
        "price_micro": str(price_micro(listing)),
        "tiers": tiers_json(listing),
        "plans": plans_json(listing),
        "rebate_bps": rebate_bps(listing),
        "access": dao.params.get("access") or None,
        "node_access": demand.params if (demand := demand_of(held)) else None,
        "currency": CURRENCY,
        "resolution": held.resolution,
        "engine": held.engine,
        "privacy": noise_json(held),
        "rows_per_query": rows_max(listing),
        "portion_bps": portion_bps(dao),
        "rows_per_buyer": rows_per_buyer(listing),
        "extraction": {
            "agreement_bps": AGREEMENT_BPS,
            "rows": copied.rows,
            "measured": copied.measured,
            "cost_micro": str(copied.cost_micro),
            "epochs": copied.epochs,
            "rows_per_epoch": settings.ROWS_PER_EPOCH,
            "rows_per_epoch_max": rows_per_epoch_max(listing),
            "epoch_days": settings.ROWS_EPOCH_DAYS,
        },
        "features": dao.params["schema"]["features"],
        "label": dao.params["label"],
        "normalisation": held.normalisation,
        "nodes": [node.descriptor for node in nodes if node.fingerprint in held.nodes],
        "circuit": infer_of(listing),
        "circuits_hash": hash_of(listing),
        "obstacle": obstacle(listing),
        "params": {"features": held.features, **held.extras},
        "evidence": version.evidence,
        "roster_size": len(held.roster["members"]),
        "sdt": dao.asset.code if dao.asset else None,
        "opened_at": listing.opened_at.isoformat(),
    }


def engine_vote_json(listing: Listing) -> Json | None:
    """The vote by which its model is computed as it is: the last one on that before its round
    opened. None where none was: then its request said it."""
    held = listing.version.round
    vote = last_carried(listing.dao, "subdaos.set_engine", before=held.opened_at)
    if vote is None or vote.payload["engine"] != held.engine:
        return None
    return {
        "proposal": str(vote.id),
        "engine": held.engine,
        "before": vote.changes[0]["before"],
        "executed_at": vote.executed_at,
    }


def reading_json(listing: Listing) -> Json:
    """How the words of its answers are read, for programs that lack `apps.protocol`."""
    held = listing.version.round
    return reading_of(CLASSES[held.model_class], held.resolution, listing.dao.params)


def queries_of(party: Party, *, listing: str = "", state: str = "") -> QuerySet[Query]:
    """A buyer's queries, newest first; of one listing, in one state. Without their sealed rows and
    answers, which may be megabytes each."""
    wanted = {"listing__slug": listing, "state": state}
    return (
        Query.objects.filter(buyer=party, **{k: v for k, v in wanted.items() if v})
        .select_related("buyer", "listing__dao", "version", "job")
        .defer("upload", "outputs")
        .order_by("-created_at", "-id")
    )


_QUERIES = Joined(
    """
    FROM listings_query q
    JOIN listings_listing l ON l.id = q.listing_id JOIN training_modelversion v
        ON v.id = q.version_id JOIN compute_job j ON j.id = q.job_id
    WHERE q.id = %s AND q.buyer_id = %s
    """,
    {"l": ("id", "slug"), "v": ("id", "number")},
    q=Query,
    l=Listing,
    v=ModelVersion,
    j=Job,
)


def query_get(party: Party, query_id: UUID) -> Query:
    """The buyer's own query; others' do not exist. Raises NotFound."""
    found = _QUERIES.first(query_id, party.id)
    if found is None:
        raise NotFound("query_not_found", "You have no such query.")
    query: Query
    query, query.listing, query.version, query.job = found
    query.buyer = party
    return query


def waiting_of(party: Party) -> tuple[int, int]:
    """(how many of a buyer's queries have not ended, their rows)."""
    waiting = Query.objects.filter(buyer=party, ended_at=None)
    found = waiting.aggregate(queries=Count("pk"), rows=Sum("rows", default=0))
    return found["queries"], found["rows"]


def query_ended(query_id: UUID) -> bool:
    return Query.objects.filter(pk=query_id, state__in=ENDED).exists()


def query_json(query: Query, *, listed: bool = False) -> Json:
    """A query as its buyer sees it; `sealed` can be opened with the reply key only.

    listed: among others, without receipts and sealed answer.
    """
    return {
        "id": str(query.id),
        "state": query.state,
        "price_micro": str(query.price_micro),
        "currency": CURRENCY,
        "rows": query.rows,
        "listing": query.listing.slug,
        "version": query.version.number,
        "hold_id": str(query.hold_id),
        "ticket_id": query.ticket_id,
        "sealed": None if listed else query.outputs,
        "job": job_json(query.job, receipts=not listed and query.state == Query.State.SETTLED),
        "reason": query.reason or None if query.state != Query.State.SETTLED else None,
        "timeline": query.timeline,
        "created_at": query.created_at.isoformat(),
        "expires_at": query.expires_at.isoformat(),
    }


def versions_of_jobs(job_ids: list[Any]) -> list[Any]:
    """Ids of the model versions that these jobs ask, each once."""
    asked = Query.objects.filter(job__in=job_ids).values_list("version_id", flat=True)
    return list(asked.distinct().order_by("version_id"))


def queries_of_jobs(job_ids: list[Any]) -> list[Any]:
    """Ids of the queries that these jobs are for."""
    return list(Query.objects.filter(job__in=job_ids).values_list("id", flat=True))
