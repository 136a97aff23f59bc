"""The nodes that compute, who runs them, and each job with what it opened and who signed for it."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime
from statistics import median
from typing import Any

from django.db.models import Count, OuterRef, Q, Subquery
from django.db.models.functions import Coalesce
from django.http import Http404, HttpRequest, HttpResponse

from apps.compute import control
from apps.compute.models import Job, JobState, Node, Receipt, Refresh
from apps.compute.selectors import members, receipts_signed
from apps.core import clock
from apps.explorer.charts import Part
from apps.explorer.formatting import ENGINE_NAMES
from apps.explorer.page import paged, show
from apps.explorer.pictures import stacks
from apps.protocol.circuits import CIRCUITS

KINDS = {
    "moments": ("Normalising", "quiet"),
    "logistic_round": ("Training", "sbgt"),
    "logistic_infer": ("Predictions", ""),
}
CIRCUIT_WORDS = {
    "moments": "Sums over all sites, for normalising",
    "logistic_round": "Score, combine and test the updates of a round",
    "logistic_infer": "Answer a prediction",
}
SAMPLE = 100
OPEN = ~Q(state__in=[JobState.DONE, JobState.FAILED])


def nodes(request: HttpRequest) -> HttpResponse:
    # Counted for the rows shown: joined, the database would count for all jobs first.
    receipts = Receipt.objects.filter(job=OuterRef("pk")).order_by().values("job")
    counted = Coalesce(Subquery(receipts.annotate(n=Count("id")).values("n")), 0)
    jobs = paged(
        request, Job.objects.order_by("-created_at", "-id").annotate(receipt_count=counted), 20
    )
    members_ = _members()
    return show(
        request,
        "nodes.html",
        "nodes",
        nodes=members_,
        work=stacks([(row["node"].name, row["parts"]) for row in members_]),
        waiting=Job.objects.filter(OPEN).count(),
        refresh=Refresh.objects.first(),
        took_ms=_median_ms("logistic_infer"),
        jobs=jobs,
    )


def health(request: HttpRequest) -> HttpResponse:
    """Whether each node answers this server now, and how quickly; asked for by the open page."""
    found = list(Node.objects.filter(active=True).order_by("index"))
    rows = zip(found, control.answer_times_ms(members(found)), strict=True)
    answer = show(request, "_health.html", "nodes", rows=list(rows))
    answer.headers["Cache-Control"] = "no-store"
    return answer


def job(request: HttpRequest, job_id: str) -> HttpResponse:
    """One computation: what went in, what came out openly, who signed for it."""
    found = (
        Job.objects.select_related("query__listing__dao", "round__dao", "moments_round__dao")
        .filter(job_id=job_id)
        .first()
    )
    if found is None:
        raise Http404
    receipts = Receipt.objects.filter(job=found).select_related("node", "operator")
    held = getattr(found, "round", None) or getattr(found, "moments_round", None)
    circuit = CIRCUITS.get(found.circuit)
    return show(
        request,
        "job.html",
        "nodes",
        job=found,
        engine=ENGINE_NAMES.get(found.descriptor.get("engine", "ring"), "–"),
        title=CIRCUIT_WORDS.get(found.circuit.split("@")[0], found.circuit),
        opens=[(o, (found.openings or {}).get(o.name)) for o in circuit.opens] if circuit else [],
        receipts=list(receipts.order_by("node__index")),
        shares=[(slot, ids) for slot, ids in sorted(found.descriptor.get("inputs", {}).items())],
        round=held,
        query=getattr(found, "query", None),
        live=found.state not in (JobState.DONE, JobState.FAILED),
    )


def _members() -> list[dict[str, Any]]:
    """The node set with its work: receipts signed, and the latest of them."""
    counts: dict[Any, dict[str, int]] = defaultdict(dict)
    latest: dict[Any, datetime] = {}
    for (node, circuit), (count, at) in receipts_signed(now=clock.now()).items():
        name = circuit.split("@")[0]
        counts[node][name] = counts[node].get(name, 0) + count
        latest[node] = max(at, latest.get(node, at))
    rows = Node.objects.filter(active=True).select_related("operator").order_by("index")
    return [
        {
            "node": n,
            "parts": [Part(w, counts[n.id].get(c, 0), "", tone) for c, (w, tone) in KINDS.items()],
            "count": sum(counts[n.id].values()),
            "at": latest.get(n.id),
        }
        for n in rows
    ]


def _median_ms(circuit: str) -> int | None:
    """From asked to done, in the middle of the latest hundred; waiting for a turn counts."""
    latest = Job.objects.filter(circuit__startswith=circuit, state=JobState.DONE)
    times = latest.order_by("-created_at").values_list("created_at", "done_at")[:SAMPLE]
    taken = [round((done - made).total_seconds() * 1000) for made, done in times]
    return round(median(taken)) if taken else None
