"""/api/v1/subscriptions and …/listings/{slug}/plan: rows that are paid ahead."""

from __future__ import annotations

from typing import Any

from django.urls import path
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.accounts.permissions import acting_party
from apps.core.clock import now
from apps.core.errors import NotFound
from apps.core.idempotency import idempotent
from apps.core.pagination import paged
from apps.core.serial import MicroField, checked
from apps.listings import plans
from apps.listings.services import listing_get
from apps.protocol.plans import DAYS_MAX, NAME_MAX, Renewal
from apps.protocol.tariff import ROWS_MAX
from apps.wallets.consenting import ConsentSerializer, consent_of

NAME = {
    "max_length": NAME_MAX,
    "allow_blank": True,
    "help_text": "A plan's name on the listing; empty: none.",
}


class RenewalSerializer(serializers.Serializer[Any]):
    rows = serializers.IntegerField(min_value=1, max_value=ROWS_MAX, help_text="of each period")
    days = serializers.IntegerField(min_value=1, max_value=DAYS_MAX, help_text="of each period")
    max_micro = MicroField(help_text="the most that a period may cost")


class SubscriptionSerializer(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    listing = serializers.SlugField()
    plan = serializers.CharField()
    rows = serializers.IntegerField(help_text="the quota")
    left_rows = serializers.IntegerField(help_text="what nobody has asked yet of it")
    row_micro = MicroField(help_text="what a row takes of it")
    answered_rows = serializers.IntegerField(help_text="since the period began")
    answered_micro = MicroField(allow_zero=True)
    began_at = serializers.DateTimeField()
    ends_at = serializers.DateTimeField()
    ended_at = serializers.DateTimeField(allow_null=True)
    renewal = RenewalSerializer(
        allow_null=True, help_text="what the next period may be; null: none"
    )
    unrenewed = serializers.CharField(
        allow_blank=True, help_text="the code of the reason why there was none all the same"
    )


class AgreedSerializer(serializers.Serializer[Any]):
    renewal = RenewalSerializer(
        allow_null=True,
        help_text="rows and days as on offer now, and the most to pay a period; null: no more",
    )


class WantedSerializer(serializers.Serializer[Any]):
    plan = serializers.CharField(**NAME)


class PreviewSerializer(serializers.Serializer[Any]):
    listing = serializers.SlugField()
    before = serializers.CharField(allow_blank=True, help_text="the plan of now")
    plan = serializers.CharField(allow_blank=True)
    at_ms = serializers.IntegerField(help_text="the moment that it is computed for, Unix ms")
    rows = serializers.IntegerField(help_text="the quota until the end")
    row_micro = MicroField(allow_zero=True)
    ends_at = serializers.DateTimeField(allow_null=True)
    credit_micro = MicroField(allow_zero=True, help_text="what counts of what is left")
    lapsed_micro = MicroField(allow_zero=True, help_text="what does not; it goes to the SubDAO")
    due_micro = MicroField(allow_zero=True, help_text="what you pay")
    refund_micro = MicroField(allow_zero=True, help_text="what you get back")


class ChangeSerializer(ConsentSerializer):
    plan = serializers.CharField(**NAME)
    at_ms = serializers.IntegerField(min_value=1, max_value=2**53, help_text="as previewed")
    rows = serializers.IntegerField(min_value=0, max_value=2**53, help_text="as previewed")
    due_micro = MicroField(allow_zero=True, help_text="as previewed")
    refund_micro = MicroField(allow_zero=True, help_text="as previewed")


class SubscriptionsView(APIView):
    """Your plans, newest first."""

    @extend_schema(
        operation_id="subscriptions_list",
        responses={200: SubscriptionSerializer(many=True)},
        tags=["listings"],
    )
    def get(self, request: Request) -> Response:
        rows, at = plans.subscriptions_of(acting_party(request)), now()
        return paged(
            request,
            rows,
            lambda row: plans.plan_json(row, now=at),
            ordering=("-began_at", "-id"),
        )


class PlanView(APIView):
    """Your plan at a listing: rows of a period, paid ahead.

    POST begins, changes or cancels it, exactly as a preview of the last five minutes said; else 409
    `plan_changed`, and nothing moves. A bound wallet key signs "listings.plan".
    """

    key_scope = "wallet"

    @extend_schema(operation_id="plan", responses={200: SubscriptionSerializer}, tags=["listings"])
    def get(self, request: Request, slug: str) -> Response:
        at = now()
        row = plans.running(acting_party(request), listing_get(slug), now=at)
        if row is None:
            raise NotFound("no_plan", "You have no plan here.")
        return Response(plans.plan_json(row, now=at))

    @extend_schema(
        operation_id="plan_set",
        request=ChangeSerializer,
        responses={200: SubscriptionSerializer},
        tags=["listings"],
    )
    @idempotent
    def post(self, request: Request, slug: str) -> Response:
        data, at = checked(ChangeSerializer, request), now()
        row = plans.plan_set(
            listing=listing_get(slug),
            buyer=acting_party(request),
            consent=consent_of(request, data),
            now=at,
            **data,
        )
        return Response(plans.plan_json(row, now=at))


class PlanPreviewView(APIView):
    """What beginning, changing or cancelling would do now. Nothing moves."""

    key_scope = "wallet"

    @extend_schema(
        operation_id="plan_preview",
        request=WantedSerializer,
        responses={200: PreviewSerializer},
        tags=["listings"],
    )
    def post(self, request: Request, slug: str) -> Response:
        data = checked(WantedSerializer, request)
        seen = plans.preview(
            listing=listing_get(slug), buyer=acting_party(request), now=now(), **data
        )
        return Response(plans.preview_json(seen))


class PlanRenewalView(APIView):
    """Let your plan renew itself at its end, from your balance: at the price that the listing has
    then, never above what you agree to here. Else it ends, and the webhook event
    `plan.not_renewed` says why. Null takes that back, at any time before. Nothing moves now.

    A wallet with a bound key signs each period: 403 `wallet_key_bound`.
    """

    key_scope = "wallet"

    @extend_schema(
        operation_id="plan_renewal_set",
        request=AgreedSerializer,
        responses={200: SubscriptionSerializer},
        tags=["listings"],
    )
    def post(self, request: Request, slug: str) -> Response:
        said, at = checked(AgreedSerializer, request)["renewal"], now()
        row = plans.renewal_set(
            listing=listing_get(slug),
            buyer=acting_party(request),
            agreed=Renewal(**said) if said else None,
            consent=consent_of(request, {}),
            now=at,
        )
        return Response(plans.plan_json(row, now=at))


urlpatterns = [
    path("subscriptions/", SubscriptionsView.as_view()),
    path("listings/<slug:slug>/plan/", PlanView.as_view()),
    path("listings/<slug:slug>/plan/preview/", PlanPreviewView.as_view()),
    path("listings/<slug:slug>/plan/renewal/", PlanRenewalView.as_view()),
]
