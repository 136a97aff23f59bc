"""GET /metrics: what the platform has and what waits, for Prometheus, read from the database.

Web and workers are many processes; the database is what they have in common, so numbers come from
there when they are asked for. Labels are states of the source's own tables: no id, no name.

Whoever shows FLAI_METRICS_TOKEN (`Authorization: Bearer …`) may read it. Without a token set, this
machine alone may, and not behind a proxy, which would make every stranger look like this machine.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db.models import Count, Max, Min, OuterRef, QuerySet, Subquery
from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import generate_latest

from apps.compute.models import Cosignature, Job, JobState, Node
from apps.core.clock import now as clock_now
from apps.core.models import OutboxEvent
from apps.listings.models import Query
from apps.training.models import OPEN_PHASES, Round, Submission
from apps.wallets.models import LogLeaf, TreeHead

OPEN_QUERIES = (Query.State.HELD, Query.State.RUNNING)
ON_THE_WAY = (Submission.State.RECEIVING, Submission.State.RECEIVED)


@require_safe
@never_cache
def metrics(request: HttpRequest) -> HttpResponse:
    """404 to whoever may not read it: there is nothing to see."""
    if not _may_read(request):
        raise Http404
    registry = CollectorRegistry()
    registry.register(Platform(clock_now()))
    return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


def _may_read(request: HttpRequest) -> bool:
    if settings.METRICS_TOKEN:
        shown = request.headers.get("Authorization", "").removeprefix("Bearer ")
        return secrets.compare_digest(shown.encode(), settings.METRICS_TOKEN.encode())
    forwarded = any(name.startswith("X-Forwarded") for name in request.headers)
    here = request.META.get("REMOTE_ADDR") in ("127.0.0.1", "::1")
    return here and not forwarded and not settings.BEHIND_PROXY


class Platform:
    """Eight queries, none over a table's whole history but the count of jobs."""

    def __init__(self, now: datetime) -> None:
        self._now = now

    def describe(self) -> list[Any]:
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield _by("flai_jobs", "Jobs", "state", JobState.values, Job.objects)
        yield _by("flai_rounds_open", "Rounds not yet closed", "phase", OPEN_PHASES, Round.objects)
        yield _by("flai_queries_open", "Paid queries held", "state", OPEN_QUERIES, Query.objects)
        yield _by(
            *("flai_shares_open", "Sealed shares not yet at the nodes", "state"),
            *(ON_THE_WAY, Submission.objects),
        )
        waiting = OutboxEvent.objects.filter(dispatched_at=None).aggregate(
            count=Count("id"), oldest=Min("created_at")
        )
        yield _one("flai_events_waiting", "Events not yet handled", waiting["count"])
        age_s = (self._now - waiting["oldest"]).total_seconds() if waiting["oldest"] else 0.0
        yield _one("flai_events_oldest_seconds", "Age of the oldest of them", max(age_s, 0.0))
        unnumbered = LogLeaf.objects.filter(seq=None).count()
        yield _one("flai_log_unnumbered", "Log entries without a number", unnumbered)
        size = TreeHead.objects.aggregate(size=Max("size"))["size"] or 0
        yield _one("flai_log_size", "Log entries under the newest head", size)
        yield self._lag(size)

    def _lag(self, size: int) -> GaugeMetricFamily:
        family = GaugeMetricFamily(
            "flai_log_head_lag", "Log entries that a node has not signed yet", labels=["node"]
        )
        last = Cosignature.objects.filter(node=OuterRef("pk")).order_by("-head_id")
        signed = Subquery(last.values("head_id")[:1])
        nodes = Node.objects.filter(active=True).order_by("index")
        for index, seen in nodes.values_list("index", signed):
            family.add_metric([str(index)], size - (seen or 0))
        return family


def _one(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)


def _by(name: str, text: str, field: str, values: Any, rows: Any) -> GaugeMetricFamily:
    """How many rows are in each of these states, zeros too."""
    family = GaugeMetricFamily(name, text, labels=[field])
    found: QuerySet[Any] = rows.filter(**{f"{field}__in": values}).order_by()
    counts = dict(found.values_list(field).annotate(count=Count("pk")))
    for value in values:
        family.add_metric([str(value)], counts.get(value, 0))
    return family
