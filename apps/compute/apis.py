"""/api/v1/nodes and /api/v1/jobs."""

from __future__ import annotations

from typing import Any

from django.urls import path
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.accounts.permissions import ANY, acting_party
from apps.compute import control, cosigning, selectors, services
from apps.compute.models import Node
from apps.core.clock import now
from apps.core.serial import checked


class ClaimSerializer(serializers.Serializer[Any]):
    signature = serializers.RegexField(r"^[0-9a-f]{128}$")


class NodesView(APIView):
    """The node set: signed descriptors, who runs each node, whether it answers now."""

    key_scope = ANY

    @extend_schema(responses=OpenApiTypes.OBJECT)
    def get(self, request: Request) -> Response:
        nodes = list(Node.objects.filter(active=True).select_related("operator").order_by("index"))
        healthy = control.health(selectors.members(nodes))
        rows = [_node_json(node, up) for node, up in zip(nodes, healthy, strict=True)]
        return Response({"results": rows, "next": None})


class ClaimView(APIView):
    """An operator claims its node: the node's key signs {"pid", "node"} (flai/node-claim/v1)."""

    @extend_schema(request=ClaimSerializer, responses=OpenApiTypes.OBJECT)
    def post(self, request: Request, fingerprint: str) -> Response:
        node = services.node_claim(
            fingerprint=fingerprint,
            party=acting_party(request),
            now=now(),
            **checked(ClaimSerializer, request),
        )
        return Response(_node_json(node, None))


class CosignedView(APIView):
    """The newest head of the log that at least two nodes signed, with their signatures.

    A node signs (domain flai/cosign/v1, {"v","size","root","at","log","node"}) only what goes on
    from the head that it signed last.
    """

    key_scope = ANY

    @extend_schema(responses=OpenApiTypes.OBJECT)
    def get(self, request: Request) -> Response:
        return Response(cosigning.cosigned_json())


class JobView(APIView):
    """A job, its nodes, and what each of them signed about it."""

    key_scope = ANY

    @extend_schema(responses=OpenApiTypes.OBJECT)
    def get(self, request: Request, job_id: str) -> Response:
        job = selectors.job_get(job_id)
        content = selectors.job_json(job) or {}
        return Response({**content, "nodes": selectors.descriptors_of(job)})


def _node_json(node: Node, healthy: bool | None) -> dict[str, Any]:
    operator = node.operator
    return {
        "fingerprint": node.fingerprint,
        "name": node.name,
        "index": node.index,
        "healthy": healthy,
        "operator": {"slug": operator.slug, "name": operator.name} if operator else None,
        "descriptor": node.descriptor,
    }


urlpatterns = [
    path("nodes/", NodesView.as_view()),
    path("nodes/<str:fingerprint>/claim/", ClaimView.as_view()),
    path("log/cosigned/", CosignedView.as_view()),
    path("jobs/<str:job_id>/", JobView.as_view()),
]
