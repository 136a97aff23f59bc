"""/api/v1/subdaos."""

from __future__ import annotations

from django.urls import path
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.core import clock
from apps.core.pagination import paged
from apps.subdaos import selectors

SUBDAO = OpenApiResponse(
    OpenApiTypes.OBJECT,
    description="{slug, name, kind, pid, params, founded_at, treasury_micro, "
    "sdt: {code, supply_micro} | null, sbgt: [{party, points_micro, weight_bps}] (the 100 "
    "heaviest), sbgt_members, current_round, listing, epoch}",
)
LIST = OpenApiResponse(OpenApiTypes.OBJECT, description="{results: […], next: url | null}")
BRIEFS = OpenApiResponse(
    OpenApiTypes.OBJECT,
    description="{results: [{slug, name, kind, pid, objective, price_micro, founded_at, "
    "sdt: {code} | null}], next: url | null}",
)


class SubdaosView(APIView):
    """All SubDAOs in brief, newest first."""

    @extend_schema(operation_id="subdaos_list", responses={200: BRIEFS})
    def get(self, request: Request) -> Response:
        rows = selectors.dao_list()
        return paged(request, rows, selectors.brief, ordering=("-founded_at", "-id"))


class SubdaoView(APIView):
    """One SubDAO; "superdao" is the SuperDAO."""

    @extend_schema(responses={200: SUBDAO})
    def get(self, request: Request, slug: str) -> Response:
        return Response(selectors.describe(selectors.dao_by_slug(slug), clock.now()))


class EpochsView(APIView):
    """Epochs with their settlements, newest first."""

    @extend_schema(operation_id="subdaos_epochs_list", responses={200: LIST})
    def get(self, request: Request, slug: str) -> Response:
        rows = selectors.epochs(selectors.dao_by_slug(slug))
        return paged(request, rows, selectors.describe_epoch, ordering=("-number",))


urlpatterns = [
    path("subdaos/", SubdaosView.as_view(), name="subdaos"),
    path("subdaos/<slug:slug>/", SubdaoView.as_view(), name="subdao"),
    path("subdaos/<slug:slug>/epochs/", EpochsView.as_view(), name="subdao-epochs"),
]
