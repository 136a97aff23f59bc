"""/api/v1/subdaos."""

from __future__ import annotations

from django.urls import path
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.accounts.permissions import acting_party, acting_party_or_none
from apps.core import clock
from apps.core.errors import NotFound
from apps.core.idempotency import effect_id, idempotent
from apps.core.pagination import paged
from apps.core.serial import MicroField, checked
from apps.subdaos import converting, selectors
from apps.subdaos.emission import sponsor_take
from apps.subdaos.models import Dao
from apps.wallets.apis import TransferSerializer
from apps.wallets.consenting import ConsentSerializer, consent_of

SUBDAO = OpenApiResponse(
    OpenApiTypes.OBJECT,
    description="{slug, name, kind, pid, params, founded_at, treasury_micro, "
    "sdt: {code, supply_micro} | null, sbgt: [{party, points_micro, weight_bps}] (the 100 "
    "heaviest), sbgt_members, current_round, listing, epoch, privacy: {epsilon_milli, "
    "delta_exponent, clip_milli, rounds, rounds_spent, rounds_left, rounds_without_noise, "
    "spent_epsilon_milli} | null}",
)
LIST = OpenApiResponse(OpenApiTypes.OBJECT, description="{results: […], next: url | null}")
BRIEFS = OpenApiResponse(
    OpenApiTypes.OBJECT,
    description="{results: [{slug, name, kind, pid, objective, price_micro, founded_at, "
    "sdt: {code} | null}], next: url | null}",
)


EMISSION = OpenApiResponse(
    OpenApiTypes.OBJECT,
    description="{schedule, reserve_micro, next_micro, released_micro, released: {contributors, "
    "sponsors, treasury}, conversion_pot_micro, sponsors_pot_micro, my: {points_micro, "
    "convertible_micro, sponsor_due_micro} | null}",
)
PREVIEW = OpenApiResponse(
    OpenApiTypes.OBJECT,
    description="{points_micro, tokens_micro, points_after_micro, all_points_micro, pot_micro, "
    "convertible_micro, weight_before_bps, weight_after_bps}",
)
CONVERSION = OpenApiResponse(
    OpenApiTypes.OBJECT, description="{id, points_micro, tokens_micro, at}"
)


class ConversionSerializer(ConsentSerializer):
    points_micro = MicroField(help_text="Your own points that you give up.")
    tokens_min_micro = MicroField(allow_zero=True, help_text="What the preview said, at least.")


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


class EmissionView(APIView):
    """What the SubDAO's reserve releases, and what of it is open to you."""

    @extend_schema(responses={200: EMISSION})
    def get(self, request: Request, slug: str) -> Response:
        dao, party = _subdao(slug), acting_party_or_none(request)
        my = None
        if party is not None:
            sponsor = selectors.sponsor_of(dao, party)
            my = {
                "points_micro": str(selectors.points_now(dao, party)),
                "convertible_micro": str(converting.limit_micro(dao, party)),
                "sponsor_due_micro": str(selectors.sponsor_due_micro(sponsor) if sponsor else 0),
            }
        return Response(selectors.describe_emission(dao) | {"my": my})


class ConversionPreviewView(APIView):
    """What giving up so many of your points would bring now, and what it costs."""

    @extend_schema(
        parameters=[OpenApiParameter("points_micro", str, required=True)], responses={200: PREVIEW}
    )
    def get(self, request: Request, slug: str) -> Response:
        points = MicroField().run_validation(request.query_params.get("points_micro", ""))
        seen = converting.preview(_subdao(slug), acting_party(request), points)
        return Response(
            {
                "points_micro": str(seen.points),
                "tokens_micro": str(seen.tokens),
                "points_after_micro": str(seen.points_after),
                "all_points_micro": str(seen.all_points),
                "pot_micro": str(seen.pot),
                "convertible_micro": str(seen.may),
                "weight_before_bps": seen.weight_before_bps,
                "weight_after_bps": seen.weight_after_bps,
            }
        )


class ConversionsView(APIView):
    """Give up points of yours for tokens; they are gone then, and your vote falls."""

    key_scope = "wallet"

    @extend_schema(request=ConversionSerializer, responses={201: CONVERSION})
    @idempotent
    def post(self, request: Request, slug: str) -> Response:
        data = checked(ConversionSerializer, request)
        made = converting.convert(
            party=acting_party(request),
            dao=_subdao(slug),
            consent=consent_of(request, data),
            idempotency=effect_id(request),
            now=clock.now(),
            **data,
        )
        return Response(converting.conversion_json(made), status=201)


class SponsorView(APIView):
    """Take your part of what was released for the request's sponsors."""

    key_scope = "wallet"

    @extend_schema(request=None, responses={201: TransferSerializer})
    def post(self, request: Request, slug: str) -> Response:
        paid = sponsor_take(party=acting_party(request), dao=_subdao(slug), now=clock.now())
        return Response(TransferSerializer(paid).data, status=201)


def _subdao(slug: str) -> Dao:
    """Raises NotFound for the SuperDAO as well: it has no token."""
    dao = selectors.dao_by_slug(slug)
    if dao.asset is None:
        raise NotFound("subdao_not_found", "This DAO has no token of its own.")
    return dao


urlpatterns = [
    path("subdaos/", SubdaosView.as_view(), name="subdaos"),
    path("subdaos/<slug:slug>/", SubdaoView.as_view(), name="subdao"),
    path("subdaos/<slug:slug>/epochs/", EpochsView.as_view(), name="subdao-epochs"),
    path("subdaos/<slug:slug>/emission/", EmissionView.as_view()),
    path("subdaos/<slug:slug>/conversions/preview/", ConversionPreviewView.as_view()),
    path("subdaos/<slug:slug>/conversions/", ConversionsView.as_view()),
    path("subdaos/<slug:slug>/sponsorship/", SponsorView.as_view()),
]
