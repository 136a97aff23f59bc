"""/api/v1/mandates: what a wallet key lets predictions take."""

from __future__ import annotations

from uuid import UUID

from django.urls import path
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.accounts.permissions import acting_party
from apps.core.clock import now
from apps.core.serial import MicroField, checked
from apps.listings import mandates
from apps.protocol.consent import ANY_LISTING
from apps.wallets.consenting import ConsentSerializer, consent_of

MANDATE = OpenApiResponse(
    OpenApiTypes.OBJECT,
    description="{id, listing, limit_micro, spent_micro, until, api_key, ended_at}",
)
MANDATES = OpenApiResponse(OpenApiTypes.OBJECT, description="{results: [as one of them]}")


class MandateSerializer(ConsentSerializer):
    listing = serializers.CharField(
        max_length=60, default=ANY_LISTING, help_text='A listing\'s short name, or "*" for all.'
    )
    limit_micro = MicroField(help_text="USDC micro-units in all.")
    until_ms = serializers.IntegerField(min_value=1, max_value=2**53, help_text="Unix ms.")
    api_key = serializers.CharField(
        max_length=12, default="", allow_blank=True, help_text="Its prefix; empty: the browser."
    )


class MandatesView(APIView):
    """The mandates in force, with what was spent; POST gives one, signed by the wallet key."""

    key_scope = "wallet"

    @extend_schema(operation_id="mandates_list", responses={200: MANDATES})
    def get(self, request: Request) -> Response:
        rows = mandates.with_spent(mandates.in_force(acting_party(request), now=now()))
        found = [mandates.mandate_json(row, row.spent) for row in rows.order_by("until", "id")]
        return Response({"results": found})

    @extend_schema(request=MandateSerializer, responses={201: MANDATE})
    def post(self, request: Request) -> Response:
        data = checked(MandateSerializer, request)
        made = mandates.mandate_give(
            party=acting_party(request), consent=consent_of(request, data), now=now(), **data
        )
        return Response(mandates.mandate_json(made), status=201)


class MandateEndView(APIView):
    """Nothing more is taken by it."""

    key_scope = "wallet"

    @extend_schema(request=None, responses={200: MANDATE})
    def post(self, request: Request, mandate_id: UUID) -> Response:
        ended = mandates.mandate_end(party=acting_party(request), mandate_id=mandate_id, now=now())
        return Response(mandates.mandate_json(ended))


urlpatterns = [
    path("mandates/", MandatesView.as_view()),
    path("mandates/<uuid:mandate_id>/end/", MandateEndView.as_view()),
]
