"""/api/v1/listings and /api/v1/queries."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db import connection
from django.urls import path
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.accounts.permissions import acting_party
from apps.core.clock import now
from apps.core.idempotency import idempotent
from apps.core.pagination import paged
from apps.listings import selectors, services
from apps.listings.waiting import waiters

WAIT_MS_MAX = 10_000


class QueryUploadSerializer(serializers.Serializer[Any]):
    """A sealed row: the signed ticket, one envelope per node, the encrypted correction."""

    ticket = serializers.DictField()
    signature = serializers.CharField()
    envelopes = serializers.ListField(child=serializers.CharField())
    correction = serializers.CharField()


class ListingsView(APIView):
    """Every model on sale, newest first."""

    @extend_schema(responses=OpenApiTypes.OBJECT)
    def get(self, request: Request) -> Response:
        nodes = selectors.nodes_known()
        return paged(request, selectors.listings(), lambda row: selectors.listing_json(row, nodes))


class ListingView(APIView):
    """One listing with all that a query's ticket must carry."""

    @extend_schema(responses=OpenApiTypes.OBJECT)
    def get(self, request: Request, slug: str) -> Response:
        return Response(selectors.listing_json(services.listing_get(slug)))


class ListingQueriesView(APIView):
    """Buy a prediction: hold the price, run, then pay. Needs an Idempotency-Key."""

    @extend_schema(
        request=QueryUploadSerializer,
        responses={201: OpenApiTypes.OBJECT},
        parameters=[OpenApiParameter("Idempotency-Key", str, "header", required=True)],
    )
    @idempotent
    def post(self, request: Request, slug: str) -> Response:
        query = services.query_create(
            slug=slug, buyer=acting_party(request), upload=request.data, now=now()
        )
        return Response(selectors.query_json(query, receipts=False), status=201)


class QueriesView(APIView):
    """Your queries, newest first."""

    @extend_schema(responses=OpenApiTypes.OBJECT)
    def get(self, request: Request) -> Response:
        rows = selectors.queries_of(acting_party(request))
        return paged(request, rows, lambda row: selectors.query_json(row, receipts=False))


class QueryView(APIView):
    """One query; with `wait_ms` the answer comes when it has ended, or after that time."""

    @extend_schema(
        responses=OpenApiTypes.OBJECT,
        parameters=[OpenApiParameter("wait_ms", int, description=f"at most {WAIT_MS_MAX}")],
    )
    def get(self, request: Request, query_id: UUID) -> Response:
        party = acting_party(request)
        query = selectors.query_get(party, query_id)
        wait_ms = _wait_ms(request)
        if wait_ms and query.state not in selectors.ENDED:
            ended = waiters.register(query_id)
            try:
                # It may have ended before we were listening.
                if not selectors.query_ended(query_id):
                    connection.close()  # a waiting request holds no database connection
                    ended.wait(wait_ms / 1000)
            finally:
                waiters.forget(query_id, ended)
            query = selectors.query_get(party, query_id)
        return Response(selectors.query_json(query))


def _wait_ms(request: Request) -> int:
    text = request.query_params.get("wait_ms", "0")
    return min(int(text), WAIT_MS_MAX) if text.isdecimal() and len(text) < 8 else 0


urlpatterns = [
    path("listings/", ListingsView.as_view()),
    path("listings/<slug:slug>/", ListingView.as_view()),
    path("listings/<slug:slug>/queries/", ListingQueriesView.as_view()),
    path("queries/", QueriesView.as_view()),
    path("queries/<uuid:query_id>/", QueryView.as_view()),
]
