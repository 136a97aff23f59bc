"""/api/v1/listings, /api/v1/listing-facets and /api/v1/feed: finding models on sale."""

from __future__ import annotations

from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.accounts.permissions import ANY
from apps.core.clock import now
from apps.core.errors import BadInput
from apps.core.pagination import paged
from apps.listings import catalogue, selectors
from apps.listings.feed import feed_page

WORDS = OpenApiParameter("q", str, description="words that all occur in name or purpose")
CHOICES = [
    OpenApiParameter(name, str, many=True, enum=list(values), description="any of these")
    for name, values in catalogue.FACETS.items()
    if name != catalogue.ACCESS
] + [
    OpenApiParameter(
        catalogue.ACCESS,
        str,
        many=True,
        description="`*`: open to all; or a kind of credential that asking takes",
    )
]
SORT = OpenApiParameter(
    "sort", str, enum=list(catalogue.SORTS), default=catalogue.NEWEST, description="the order"
)


class ChoiceSerializer(serializers.Serializer[Any]):
    value = serializers.CharField()
    count = serializers.IntegerField()
    chosen = serializers.BooleanField()


class FacetsSerializer(serializers.Serializer[Any]):
    found = serializers.IntegerField(help_text="how many listings have all that was chosen")
    facets = serializers.DictField(
        child=ChoiceSerializer(many=True),
        help_text="for each value: how many there are with the other facets' choices",
    )


class ListingsView(APIView):
    """Models on sale: all, or those with these words and of these kinds, in an order."""

    key_scope = ANY

    @extend_schema(
        operation_id="listings_list",
        parameters=[WORDS, *CHOICES, SORT],
        responses={200: OpenApiTypes.OBJECT},
        tags=["listings"],
    )
    def get(self, request: Request) -> Response:
        nodes, sort = selectors.nodes_known(), request.query_params.get("sort", catalogue.NEWEST)
        if sort not in catalogue.SORTS:
            raise BadInput("bad_sort", f"sort is one of {', '.join(catalogue.SORTS)}.")
        rows = catalogue.search(selectors.listings_described(), **_asked(request), sort=sort)
        return paged(
            request,
            rows,
            lambda row: selectors.listing_json(row, nodes),
            ordering=catalogue.SORTS[sort],
        )


class SignedPageSerializer(serializers.Serializer[Any]):
    page = serializers.DictField(
        help_text="{v, at (Unix ms), log (public key), head, after, next, models: [{slug, title, "
        "domain, model_class, licence, version, model, price_micro, currency, sdt, metrics: "
        "{name: {milli, by_stratum}}, gates_met, opened_at}]}"
    )
    signature = serializers.CharField(
        help_text="Ed25519, 128 hex digits, by `page.log` over flai/feed/v1 ‖ 0x00 ‖ canonical "
        "JSON (sorted keys, no spaces, UTF-8) of `page`"
    )


class FeedView(APIView):
    """What is on sale, at which price and how good, signed by the log's key together with the log's
    newest head: for programs that pass it on. `?after=` is the `next` of the page before;
    `python3 -m workers.client feed` checks it all.
    """

    key_scope = ANY

    @extend_schema(
        operation_id="feed",
        parameters=[OpenApiParameter("after", str, description="`next` of the page before")],
        responses={200: SignedPageSerializer},
        tags=["listings"],
    )
    def get(self, request: Request) -> Response:
        return Response(feed_page(after=request.query_params.get("after", ""), now=now()))


class FacetsView(APIView):
    """How many listings there are of each kind: what a list can be narrowed down by."""

    key_scope = ANY

    @extend_schema(
        operation_id="listing_facets",
        parameters=[WORDS, *CHOICES],
        responses={200: FacetsSerializer},
        tags=["listings"],
    )
    def get(self, request: Request) -> Response:
        found, facets = catalogue.facets(**_asked(request))
        return Response(FacetsSerializer({"found": found, "facets": facets}).data)


def _asked(request: Request) -> dict[str, Any]:
    """The words and the chosen values. Raises BadInput for a value that a facet doesn't have."""
    chosen = {name: request.query_params.getlist(name) for name in catalogue.FACETS}
    for name, values in chosen.items():
        if unknown := sorted(value for value in values if not catalogue.known(name, value)):
            more = " or a kind of credential" if name == catalogue.ACCESS else ""
            raise BadInput(
                "bad_facet",
                f"{name} is one of {', '.join(catalogue.FACETS[name])}{more}, not {unknown[0]}.",
                field=name,
            )
    return {"words": request.query_params.get("q", "").strip(), "chosen": chosen}
