"""/api/v1/listings, /api/v1/inferences and /api/v1/quotas."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any
from uuid import UUID

from django.conf import settings
from django.http import HttpResponse
from django.urls import path
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.accounts.permissions import ANY, acting_party, key_of_request
from apps.accounts.throttling import WINDOW_S, used_now
from apps.compute import availability
from apps.core.clock import now
from apps.core.idempotency import Call, call_of, first_answer
from apps.core.pagination import paged
from apps.core.prefer import WAIT_S_MAX, preferred_wait_s
from apps.core.problems import CONTENT_TYPE
from apps.core.schema import idempotency_key, problem_response
from apps.core.serial import MicroField, OpaqueField, asked, checked
from apps.listings import (
    card,
    catalogue_apis,
    epoch_apis,
    examples,
    invoice_apis,
    mandate_apis,
    plan_apis,
    quoting,
    running,
    selectors,
    services,
    spending,
)
from apps.listings.measured import Served, served
from apps.listings.models import Query
from apps.listings.portions import portions_json
from apps.listings.waiting import ended_within, made_and_ended_within, waiters
from apps.protocol.circuits.family import QUERY_ROWS_MAX
from apps.wallets.apis import CsvRenderer

PREFER = OpenApiParameter(
    "Prefer",
    str,
    "header",
    description=f"`wait=N`: answer when it has ended, after N seconds at the latest (at most "
    f"{WAIT_S_MAX}). Other preferences are ignored (RFC 7240), and this one where too many of your "
    "requests wait already: then there is no `Preference-Applied`.",
)


class UploadSerializer(serializers.Serializer[Any]):
    """Sealed rows: the signed ticket, one envelope per node, the encrypted correction.

    The ticket carries, signed by the buyer: the number of rows (`shape`), the `reply_key` that
    alone opens the answer, the model's version and the price.
    """

    ticket = serializers.DictField()
    signature = OpaqueField()
    envelopes = serializers.ListField(child=OpaqueField())
    correction = OpaqueField()


class InferenceRequestSerializer(serializers.Serializer[Any]):
    input = UploadSerializer()
    max_price_micro = MicroField(
        required=False, help_text="Refuse (409 price_changed) what costs more."
    )
    quote = serializers.CharField(
        required=False, max_length=2000, help_text="A quote's token: its price holds."
    )


class SealedSerializer(serializers.Serializer[Any]):
    node = serializers.CharField()
    fingerprint = serializers.CharField()
    blob = serializers.CharField(help_text="base64; opens with the reply key only")


class MomentSerializer(serializers.Serializer[Any]):
    state = serializers.CharField()
    at = serializers.DateTimeField()
    attempt = serializers.IntegerField(required=False)
    together = serializers.IntegerField(
        required=False, help_text="how many inferences the nodes computed in one go"
    )
    nodes_ms = serializers.FloatField(required=False, help_text="what the nodes took")


class InferenceSerializer(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    state = serializers.ChoiceField(choices=Query.State.choices)
    listing = serializers.SlugField()
    version = serializers.IntegerField()
    rows = serializers.IntegerField()
    price_micro = MicroField()
    currency = serializers.CharField()
    hold_id = serializers.UUIDField()
    ticket_id = serializers.CharField()
    sealed = SealedSerializer(
        many=True, allow_null=True, help_text="of one inference, once it is settled; else null"
    )
    job = serializers.DictField(help_text="the computation and, on one inference, its receipts")
    reason = serializers.CharField(allow_null=True)
    timeline = MomentSerializer(many=True)
    created_at = serializers.DateTimeField()
    expires_at = serializers.DateTimeField()


class QuoteRequestSerializer(serializers.Serializer[Any]):
    rows = serializers.IntegerField(min_value=1, max_value=QUERY_ROWS_MAX)


class QuoteSerializer(serializers.Serializer[Any]):
    listing = serializers.SlugField()
    version = serializers.IntegerField()
    rows = serializers.IntegerField()
    volume_rows = serializers.IntegerField(
        help_text="your rows before these this month, where there are tiers; else 0"
    )
    price_micro = MicroField(help_text="what the ticket must say")
    row_price_micro = MicroField(allow_zero=True, help_text="of one row, on average")
    paid_from = serializers.ChoiceField(choices=["plan", "balance"])
    plan_left_rows = serializers.IntegerField(
        allow_null=True, help_text="of your plan's quota; null: you have none"
    )
    buyer_rows_left = serializers.IntegerField(
        help_text="that one buyer may still ask of this model until `buyer_rows_reset_at`"
    )
    buyer_rows_reset_at = serializers.DateTimeField()
    currency = serializers.CharField()
    available_micro = MicroField(allow_zero=True, help_text="your balance less what is held")
    short_micro = MicroField(allow_zero=True)
    quote = serializers.CharField(help_text="send it with the inference")
    expires_at = serializers.DateTimeField()


class RateSerializer(serializers.Serializer[Any]):
    limit = serializers.IntegerField()
    used = serializers.IntegerField()
    window_s = serializers.IntegerField()


class SpendingSerializer(serializers.Serializer[Any]):
    limit_micro = MicroField()
    spent_micro = MicroField(allow_zero=True)
    resets_at = serializers.DateTimeField()


class UsageQuerySerializer(serializers.Serializer[Any]):
    since = serializers.DateTimeField(required=False, help_text="default: this month's start")
    until = serializers.DateTimeField(required=False, help_text="default: now")


class UsageRowSerializer(serializers.Serializer[Any]):
    day = serializers.DateField()
    listing = serializers.SlugField()
    key = serializers.CharField(allow_null=True, help_text="how the key begins; null: in a browser")
    inferences = serializers.IntegerField()
    rows = serializers.IntegerField()
    plan_rows = serializers.IntegerField(help_text="of them, those that a plan had paid ahead")
    price_micro = MicroField(allow_zero=True, help_text="what the balance paid")


class UsageSerializer(serializers.Serializer[Any]):
    since = serializers.DateTimeField()
    until = serializers.DateTimeField()
    price_micro = MicroField(allow_zero=True)
    results = UsageRowSerializer(many=True)


class PortionSerializer(serializers.Serializer[Any]):
    listing = serializers.SlugField()
    rows = serializers.IntegerField(help_text="that you have asked, and not got back")
    rows_max = serializers.IntegerField(help_text="that one buyer may ask until then")
    resets_at = serializers.DateTimeField()


class QuotasSerializer(serializers.Serializer[Any]):
    requests = RateSerializer()
    spending = SpendingSerializer(allow_null=True, help_text="null: this key has no limit")
    rows_per_inference = serializers.IntegerField(
        help_text="of any model, at most; a listing's own is `rows_per_query`"
    )
    waiting = serializers.IntegerField(help_text="your inferences that have not ended")
    waiting_max = serializers.IntegerField()
    waiting_rows = serializers.IntegerField(help_text="the rows of these together")
    waiting_rows_max = serializers.IntegerField()
    models = PortionSerializer(
        many=True, help_text="the models that you have asked in this span of their nodes' rows"
    )


class ListingFilterSerializer(serializers.Serializer[Any]):
    listing = serializers.SlugField(required=False)
    state = serializers.ChoiceField(choices=Query.State.choices, required=False)


class ListingView(APIView):
    """One listing with all that an inference's ticket must carry (of `features` a row has the
    numbers first, then of each category a 0 or 1 for each of its `levels` but the first, of a
    boolean for yes; `normalisation` is in that order), how its answers are read (`reading`), by
    which vote nodes compute it as they do (`engine_vote`, null where none changed what its request
    said), and how it has `served`: of its newest paid queries how many were answered, and how
    fast."""

    key_scope = ANY

    @extend_schema(
        responses={200: OpenApiTypes.OBJECT}, examples=[examples.LISTING], tags=["listings"]
    )
    def get(self, request: Request, slug: str) -> Response:
        listing = services.listing_get(slug)
        how = served([listing.id], now=now()).get(listing.id, Served())
        more = {
            "reading": selectors.reading_json(listing),
            "engine_vote": selectors.engine_vote_json(listing),
            "served": asdict(how),
        }
        return Response(selectors.listing_json(listing) | more)


class CardView(APIView):
    """The model card: request, schema, evidence per stratum, how even it is, who made it and what
    each contributed, the rounds and versions before it, its lineage."""

    key_scope = ANY

    @extend_schema(responses={200: OpenApiTypes.OBJECT}, tags=["listings"])
    def get(self, request: Request, slug: str) -> Response:
        return Response(card.card_json(services.listing_get(slug)))


class QuoteView(APIView):
    """What so many rows cost you now. The price holds for the quote's life; nothing is moved."""

    @extend_schema(
        request=QuoteRequestSerializer,
        responses={200: QuoteSerializer},
        examples=[examples.QUOTE],
        tags=["listings"],
    )
    def post(self, request: Request, slug: str) -> Response:
        party = acting_party(request)
        rows = checked(QuoteRequestSerializer, request)["rows"]
        listing = services.listing_get(slug)
        return Response(quoting.quote_json(listing=listing, buyer=party, rows=rows, now=now()))


class ListingInferencesView(APIView):
    """Buy predictions of 1 to 10 000 rows, `rows_per_query` of the listing at most: one price, held
    once; the nodes compute; then it is paid and all rows are answered, or all of it is released.

    200 when it has ended within `Prefer: wait=N`, else 202; `Location` says where to look again.
    The same Idempotency-Key is the same inference, paid once.
    """

    @extend_schema(
        request=InferenceRequestSerializer,
        responses={
            200: InferenceSerializer,
            202: InferenceSerializer,
            (402, CONTENT_TYPE): problem_response(
                "The balance is short", examples=[examples.SHORT]
            ),
            (429, CONTENT_TYPE): problem_response(
                "Too much waits, or the buyer's rows of the day are asked; Retry-After",
                examples=[examples.USED_UP],
            ),
            (503, CONTENT_TYPE): problem_response(
                "Nodes are short; Retry-After", examples=[examples.NODES]
            ),
        },
        parameters=[idempotency_key(), PREFER],
        examples=[examples.REQUEST, examples.SETTLED],
        tags=["inferences"],
    )
    def post(self, request: Request, slug: str) -> Response:
        party = acting_party(request)
        call, kept = call_of(request), {}
        with waiters.seated(party, preferred_wait_s(request)) as wait_s:

            def make(query_id: UUID) -> UUID:
                held = first_answer(
                    call, lambda: self._hold(request, slug, call, query_id, wait_s > 0)
                )
                kept.update(held.headers)
                return UUID(held.data["id"])

            query = made_and_ended_within(party, make, wait_s)
        response = _inference(query, wait_s)
        response.status_code = 200 if query.state in selectors.ENDED else 202
        response.headers["Location"] = f"/api/v1/inferences/{query.id}/"
        for name, value in kept.items():
            response.headers.setdefault(name, value)
        return response

    def _hold(
        self, request: Request, slug: str, call: Call, query_id: UUID, waited_for: bool
    ) -> Response:
        data = checked(InferenceRequestSerializer, request)
        if availability.missed():
            version = services.listing_get(slug).version
            held = version.round
            availability.nodes_ensure(held.nodes, held.engine, version.model)
        services.query_create(
            query_id=query_id,
            slug=slug,
            buyer=acting_party(request),
            upload=request.data["input"],
            max_price_micro=data.get("max_price_micro"),
            quote=data.get("quote"),
            key=key_of_request(request),
            call=call,
            waited_for=waited_for,
            now=now(),
        )
        return Response({"id": str(query_id)}, status=202)


class InferencesView(APIView):
    """Your inferences, newest first, page by page (keyset): `?listing=`, `?state=`. Here
    `sealed` is null: ask for one by its id."""

    @extend_schema(
        operation_id="inferences_list",
        parameters=[ListingFilterSerializer],
        responses={200: InferenceSerializer(many=True)},
        tags=["inferences"],
    )
    def get(self, request: Request) -> Response:
        wanted = asked(ListingFilterSerializer, request)
        rows = selectors.queries_of(acting_party(request), **wanted)
        return paged(request, rows, lambda row: selectors.query_json(row, listed=True))


class InferenceView(APIView):
    """One inference with its receipts; with `Prefer: wait=N` when it has ended, or after that."""

    @extend_schema(
        parameters=[PREFER],
        responses={200: InferenceSerializer},
        examples=[examples.SETTLED],
        tags=["inferences"],
    )
    def get(self, request: Request, query_id: UUID) -> Response:
        party = acting_party(request)
        with waiters.seated(party, preferred_wait_s(request)) as wait_s:
            query = ended_within(party, query_id, wait_s)
        return _inference(query, wait_s)


class CancelView(APIView):
    """Cancel an inference that no node has begun: the hold is released, nothing is charged."""

    @extend_schema(request=None, responses={200: InferenceSerializer}, tags=["inferences"])
    def post(self, request: Request, query_id: UUID) -> Response:
        query = selectors.query_get(acting_party(request), query_id)
        running.query_cancel(query_id=query.id, now=now())
        return Response(selectors.query_json(selectors.query_get(query.buyer, query.id)))


class QuotasView(APIView):
    """How much this key may ask for, and how much of it is used."""

    @extend_schema(responses={200: QuotasSerializer}, tags=["inferences"])
    def get(self, request: Request) -> Response:
        party, at = acting_party(request), now()
        waiting, waiting_rows = selectors.waiting_of(party)
        return Response(
            {
                "requests": {
                    "limit": settings.RATE_PER_MINUTE,
                    "used": used_now(request),
                    "window_s": WINDOW_S,
                },
                "spending": spending.spending_json(key_of_request(request), now=at),
                "rows_per_inference": min(settings.ROWS_PER_QUERY, settings.ROWS_PER_EPOCH),
                "waiting": waiting,
                "waiting_max": services.WAITING_MAX,
                "waiting_rows": waiting_rows,
                "waiting_rows_max": services.WAITING_ROWS_MAX,
                "models": portions_json(party, now=at),
            }
        )


class UsageView(APIView):
    """What you paid for inferences, by day, listing and key. The sum is what was charged."""

    @extend_schema(
        parameters=[UsageQuerySerializer], responses={200: UsageSerializer}, tags=["inferences"]
    )
    def get(self, request: Request) -> Response:
        since, until, rows = _usage(request)
        total = sum(int(row["price_micro"]) for row in rows)
        facts = {"since": since.isoformat(), "until": until.isoformat()}
        return Response({**facts, "price_micro": str(total), "results": rows})


class UsageCsvView(APIView):
    """The same as CSV."""

    renderer_classes = [JSONRenderer, CsvRenderer]

    @extend_schema(
        parameters=[UsageQuerySerializer], responses={(200, "text/csv"): str}, tags=["inferences"]
    )
    def get(self, request: Request) -> HttpResponse:
        _, _, rows = _usage(request)
        return HttpResponse(
            spending.usage_csv(rows),
            content_type="text/csv; charset=utf-8",
            headers={"Content-Disposition": 'attachment; filename="usage.csv"'},
        )


def _usage(request: Request) -> tuple[datetime, datetime, list[dict[str, Any]]]:
    wanted = asked(UsageQuerySerializer, request)
    at = now()
    since = wanted.get("since", spending.month_of(at)[0])
    until = wanted.get("until", at)
    return since, until, spending.usage(acting_party(request), since=since, until=until)


def _inference(query: Query, waited_s: int) -> Response:
    response = Response(selectors.query_json(query))
    if waited_s:
        response.headers["Preference-Applied"] = f"wait={waited_s}"
    return response


urlpatterns = [
    path("listings/<slug:slug>/inferences/", ListingInferencesView.as_view()),
    path("inferences/<uuid:query_id>/", InferenceView.as_view()),
    path("listings/", catalogue_apis.ListingsView.as_view()),
    path("feed/", catalogue_apis.FeedView.as_view()),
    path("listing-facets/", catalogue_apis.FacetsView.as_view()),
    path("listings/<slug:slug>/", ListingView.as_view()),
    path("listings/<slug:slug>/card/", CardView.as_view()),
    path("listings/<slug:slug>/quote/", QuoteView.as_view()),
    path("inferences/", InferencesView.as_view()),
    path("inferences/<uuid:query_id>/cancel/", CancelView.as_view()),
    path("quotas/", QuotasView.as_view()),
    path("usage/", UsageView.as_view()),
    path("usage.csv", UsageCsvView.as_view()),
    *epoch_apis.urlpatterns,
    *invoice_apis.urlpatterns,
    *mandate_apis.urlpatterns,
    *plan_apis.urlpatterns,
]
