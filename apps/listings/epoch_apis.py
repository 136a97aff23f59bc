"""/api/v1/epochs and /api/v1/payouts: what an epoch owes to whom, with proofs, and claiming it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.urls import path
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.accounts.models import Party
from apps.accounts.permissions import ANY, acting_party
from apps.core.clock import now
from apps.core.pagination import paged
from apps.core.serial import checked
from apps.listings import claims

CLAIMABLE_MAX = 100
EPOCH = OpenApiResponse(
    OpenApiTypes.OBJECT,
    description="{id, subdao, number, starts_at, ends_at, closed_at, revenue_micro, settlement: "
    "{served, jobs, policy, holdings, entitled, owed_micro, root, treasury_micro, …} | null}",
)
ENTITLEMENTS = OpenApiResponse(
    OpenApiTypes.OBJECT,
    description="{results: [{pid, role, asset, amount_micro, claimed_at, transfer_id}], next}",
)
PROVED = OpenApiResponse(
    OpenApiTypes.OBJECT,
    description="{epoch, results: [{pid, role, asset, amount_micro, claimed_at, transfer_id, "
    "proof: {index, size, path, root}}]}",
)
PAYOUTS = OpenApiResponse(
    OpenApiTypes.OBJECT,
    description="{auto: bool | null, claimable: [{epoch, subdao, number, pid, role, asset, "
    "amount_micro, …}]}",
)


class PayoutChoiceSerializer(serializers.Serializer[Any]):
    auto = serializers.BooleanField(
        allow_null=True, help_text="null: the epoch's own rule, by its size"
    )


class EpochView(APIView):
    """One epoch: what it earned, how that is divided, and the root over all entitlements."""

    key_scope = ANY

    @extend_schema(responses={200: EPOCH})
    def get(self, request: Request, epoch_id: UUID) -> Response:
        return Response(claims.epoch_json(claims.epoch_get(epoch_id)))


class EntitlementsView(APIView):
    """Everybody whom an epoch owes or owed something."""

    key_scope = ANY

    @extend_schema(operation_id="epochs_entitlements_list", responses={200: ENTITLEMENTS})
    def get(self, request: Request, epoch_id: UUID) -> Response:
        rows = claims.entitled(claims.epoch_get(epoch_id)).prefetch_related(None)
        return paged(request, rows, claims.entitlement_json, ordering=("pid", "role", "asset"))


class EntitlementView(APIView):
    """One party's entitlements with their proofs: yours, or those of `pid`."""

    key_scope = ANY

    @extend_schema(
        responses={200: PROVED}, parameters=[OpenApiParameter("pid", str, description="whose")]
    )
    def get(self, request: Request, epoch_id: UUID) -> Response:
        epoch = claims.epoch_get(epoch_id)
        pid = request.query_params.get("pid")
        party = acting_party(request) if pid is None else claims.payee_by_pid(pid)
        rows = claims.owed(epoch, party)
        return Response(
            {
                "epoch": str(epoch.id),
                "results": [
                    claims.entitlement_json(row) | {"proof": claims.proof(row)} for row in rows
                ],
            }
        )


class ClaimView(APIView):
    """Be paid what an epoch owes you. Again: what was paid."""

    key_scope = "wallet"

    @extend_schema(request=None, responses={200: ENTITLEMENTS})
    def post(self, request: Request, epoch_id: UUID) -> Response:
        party = acting_party(request)
        claims.claim(epoch_id=epoch_id, party=party, now=now())
        rows = claims.owed(claims.epoch_get(epoch_id), party)
        return Response({"results": [claims.entitlement_json(row) for row in rows], "next": None})


class PayoutsView(APIView):
    """What waits for you in all epochs, and whether you are paid without asking."""

    key_scope = "wallet"

    @extend_schema(responses={200: PAYOUTS})
    def get(self, request: Request) -> Response:
        return Response(self._answer(acting_party(request)))

    @extend_schema(request=PayoutChoiceSerializer, responses={200: PAYOUTS})
    def put(self, request: Request) -> Response:
        data, party = checked(PayoutChoiceSerializer, request), acting_party(request)
        claims.payouts_choose(party=party, auto=data["auto"])
        return Response(self._answer(party))

    def _answer(self, party: Party) -> dict[str, Any]:
        waiting = claims.claimable(party)[:CLAIMABLE_MAX]
        return {
            "auto": claims.payouts_choice(party),
            "claimable": [
                {
                    "epoch": str(row.epoch_id),
                    "subdao": row.epoch.dao.slug,
                    "number": row.epoch.number,
                    **claims.entitlement_json(row),
                }
                for row in waiting
            ],
        }


urlpatterns = [
    path("epochs/<uuid:epoch_id>/", EpochView.as_view()),
    path("epochs/<uuid:epoch_id>/entitlements/", EntitlementsView.as_view()),
    path("epochs/<uuid:epoch_id>/entitlement/", EntitlementView.as_view()),
    path("epochs/<uuid:epoch_id>/claim/", ClaimView.as_view()),
    path("payouts/", PayoutsView.as_view()),
]
