"""/api/v1/invoices: the months that are over."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.http import HttpResponse
from django.urls import path
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.accounts.permissions import acting_party
from apps.core.clock import now
from apps.core.months import month_of
from apps.core.serial import SignedMicroField
from apps.listings.invoicing import Invoice, invoice_csv, invoice_json, invoice_of
from apps.wallets.apis import CsvRenderer

MONTH = OpenApiParameter(
    "month", str, "path", description="2026-11, in UTC", pattern=r"^20\d\d-\d\d$"
)


class BuyerSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    pid = serializers.CharField()


class LineSerializer(serializers.Serializer[Any]):
    seller = serializers.CharField(help_text="the SubDAO")
    seller_pid = serializers.CharField()
    listing = serializers.SlugField()
    what = serializers.CharField()
    rows = serializers.IntegerField()
    amount_micro = SignedMicroField()


class InvoiceSerializer(serializers.Serializer[Any]):
    number = serializers.CharField()
    since = serializers.DateTimeField()
    until = serializers.DateTimeField()
    buyer = BuyerSerializer()
    billing = serializers.CharField(allow_blank=True)
    currency = serializers.CharField()
    lines = LineSerializer(many=True)
    total_micro = SignedMicroField()


class InvoiceView(APIView):
    """The invoice of a month that is over: paid already, from your balance."""

    @extend_schema(parameters=[MONTH], responses={200: InvoiceSerializer}, tags=["inferences"])
    def get(self, request: Request, month: datetime) -> Response:
        return Response(invoice_json(_invoice(request, month)))


class InvoiceCsvView(APIView):
    """The same as CSV."""

    renderer_classes = [JSONRenderer, CsvRenderer]

    @extend_schema(parameters=[MONTH], responses={(200, "text/csv"): str}, tags=["inferences"])
    def get(self, request: Request, month: datetime) -> HttpResponse:
        invoice = _invoice(request, month)
        name = f"invoice-{invoice.number}.csv"
        return HttpResponse(
            invoice_csv(invoice),
            content_type="text/csv; charset=utf-8",
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )


def _invoice(request: Request, month: datetime) -> Invoice:
    start, end = month_of(month)
    return invoice_of(acting_party(request), start=start, end=end, now=now())


urlpatterns = [
    path("invoices/<month:month>/", InvoiceView.as_view()),
    path("invoices/<month:month>.csv", InvoiceCsvView.as_view()),
]
