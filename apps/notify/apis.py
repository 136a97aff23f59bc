"""/api/v1/webhooks: where to be called when an inference has ended."""

from __future__ import annotations

from uuid import UUID

from django.urls import path
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.accounts.permissions import acting_party
from apps.core.clock import now
from apps.core.pagination import paged
from apps.core.serial import checked
from apps.notify import services
from apps.notify.models import EVENTS, Delivery, Endpoint


class WebhookSerializer(serializers.ModelSerializer[Endpoint]):
    url = serializers.CharField(max_length=500, help_text="https, on a public address")
    events = serializers.ListField(
        child=serializers.ChoiceField(choices=EVENTS), allow_empty=False, max_length=len(EVENTS)
    )

    class Meta:
        model = Endpoint
        fields = ["id", "url", "events", "created_at"]
        read_only_fields = ["id", "created_at"]


class NewWebhookSerializer(WebhookSerializer):
    secret = serializers.CharField(read_only=True, help_text="signs the calls; keep it")

    class Meta(WebhookSerializer.Meta):
        fields = [*WebhookSerializer.Meta.fields, "secret"]


class DeliverySerializer(serializers.ModelSerializer[Delivery]):
    class Meta:
        model = Delivery
        fields = [
            "id",
            "event",
            "body",
            "state",
            "attempts",
            "due_at",
            "answer",
            "created_at",
            "ended_at",
        ]


class WebhooksView(APIView):
    """Your webhooks; a new one's secret is in the answer."""

    @extend_schema(operation_id="webhooks_list", responses=WebhookSerializer(many=True))
    def get(self, request: Request) -> Response:
        rows = Endpoint.objects.filter(party=acting_party(request), removed_at=None)
        return paged(request, rows, WebhookSerializer().to_representation)

    @extend_schema(request=WebhookSerializer, responses={201: NewWebhookSerializer})
    def post(self, request: Request) -> Response:
        data = checked(WebhookSerializer, request)
        row, secret = services.endpoint_create(party=acting_party(request), now=now(), **data)
        return Response(WebhookSerializer(row).data | {"secret": secret}, status=201)


class WebhookView(APIView):
    """One webhook."""

    @extend_schema(request=None, responses={204: OpenApiResponse(description="Removed.")})
    def delete(self, request: Request, endpoint_id: UUID) -> Response:
        party = acting_party(request)
        services.endpoint_remove(party=party, endpoint_id=endpoint_id, now=now())
        return Response(status=204)


class RotateView(APIView):
    """A new secret; calls are signed with it from now on."""

    @extend_schema(request=None, responses=NewWebhookSerializer)
    def post(self, request: Request, endpoint_id: UUID) -> Response:
        party = acting_party(request)
        row, secret = services.endpoint_rotate(party=party, endpoint_id=endpoint_id)
        return Response(WebhookSerializer(row).data | {"secret": secret})


class PingView(APIView):
    """A call that says nothing, to try the address out."""

    @extend_schema(request=None, responses={202: DeliverySerializer})
    def post(self, request: Request, endpoint_id: UUID) -> Response:
        party = acting_party(request)
        call = services.ping(party=party, endpoint_id=endpoint_id, now=now())
        return Response(DeliverySerializer(call).data, status=202)


class DeliveriesView(APIView):
    """The calls to one webhook, newest first."""

    @extend_schema(responses=DeliverySerializer(many=True))
    def get(self, request: Request, endpoint_id: UUID) -> Response:
        endpoint = services.endpoint_get(acting_party(request), endpoint_id)
        rows = Delivery.objects.filter(endpoint=endpoint)
        return paged(request, rows, DeliverySerializer().to_representation)


class RedeliverView(APIView):
    """Make an ended call again, under the same id."""

    @extend_schema(request=None, responses={202: DeliverySerializer})
    def post(self, request: Request, delivery_id: UUID) -> Response:
        party = acting_party(request)
        call = services.redeliver(party=party, delivery_id=delivery_id, now=now())
        return Response(DeliverySerializer(call).data, status=202)


urlpatterns = [
    path("webhooks/", WebhooksView.as_view()),
    path("webhooks/<uuid:endpoint_id>/", WebhookView.as_view()),
    path("webhooks/<uuid:endpoint_id>/rotate/", RotateView.as_view()),
    path("webhooks/<uuid:endpoint_id>/ping/", PingView.as_view()),
    path("webhooks/<uuid:endpoint_id>/deliveries/", DeliveriesView.as_view()),
    path("webhooks/deliveries/<uuid:delivery_id>/redeliver/", RedeliverView.as_view()),
]
