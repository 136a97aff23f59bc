"""The nodes that compute, who runs them, and the latest jobs with their receipts."""

from __future__ import annotations

from django.db.models import Count
from django.http import HttpRequest, HttpResponse

from apps.compute.models import Job, Node
from apps.explorer.page import paged, show


def nodes(request: HttpRequest) -> HttpResponse:
    jobs = paged(
        request,
        Job.objects.order_by("-created_at", "-id").annotate(receipt_count=Count("receipts")),
        20,
    )
    members = Node.objects.filter(active=True).select_related("operator").order_by("index")
    return show(
        request,
        "nodes.html",
        "nodes",
        nodes=members.annotate(receipt_count=Count("receipts")),
        jobs=jobs,
    )
