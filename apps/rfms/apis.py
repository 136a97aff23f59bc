"""/api/v1/rfms: the whole life of a request, pledges and applications included."""

from __future__ import annotations

from typing import Any

from django.urls import path
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.accounts.permissions import acting_party, acting_party_or_none
from apps.core import clock
from apps.core.errors import BadInput
from apps.core.idempotency import effect_id, idempotent
from apps.core.pagination import paged
from apps.core.serial import MicroField, checked, micro
from apps.participants import selectors as participants
from apps.participants.services import application_file
from apps.rfms import selectors, services
from apps.rfms.models import Rfm, Status
from apps.wallets.consenting import ConsentSerializer, consent_of

RFM = OpenApiResponse(
    OpenApiTypes.OBJECT,
    description="{slug, title, status, spec, spec_hash, schema_hash, submitter, proposal_id, "
    "crowdfund: {target_micro, raised_micro, deadline_at, sdt_supply_micro, backers, filled_at, "
    "my_pledge_micro} | null, applications: {custodian, validator} | null, waits_for: […], "
    "subdao: slug | null, created_at, timeline: [{state, at, text}]}",
)
LIST = OpenApiResponse(OpenApiTypes.OBJECT, description="{results: […], next: url | null}")
BRIEFS = OpenApiResponse(
    OpenApiTypes.OBJECT,
    description="{results: [{slug, title, status, objective, spec_hash, submitter, proposal_id, "
    "crowdfund: {target_micro, raised_micro, deadline_at, sdt_supply_micro, filled_at} | null, "
    "subdao: slug | null, created_at}], next: url | null}",
)


class RfmSerializer(serializers.Serializer[Any]):
    title = serializers.CharField(max_length=services.TITLE_MAX)
    spec = serializers.DictField(
        help_text="features: [{name, type: number | category | boolean, unit, min, max (of a "
        "number), levels (of a category, the one first that others are compared with), system, "
        'code, resource: "Condition", active (of a boolean: whether a patient has one)}]'
    )


class PledgeSerializer(ConsentSerializer):
    amount_micro = MicroField()


class PledgedSerializer(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    asked_micro = MicroField()
    amount_micro = MicroField(help_text="What was taken: never more than the target lacked.")
    pledged_at = serializers.DateTimeField()


class WithdrawnSerializer(serializers.Serializer[Any]):
    returned_micro = MicroField()


class ApplicationSerializer(serializers.Serializer[Any]):
    role = serializers.ChoiceField(choices=["custodian", "validator"])
    attestation = serializers.DictField()
    signature = serializers.RegexField(r"^[0-9a-f]{128}$")


def _json(slug: str, request: Request) -> dict[str, Any]:
    viewer = acting_party_or_none(request)
    return selectors.describe(selectors.rfm_seen_by(slug, viewer), viewer)


class RfmsView(APIView):
    """Requests in brief, newest first (?status=); POST writes a draft."""

    @extend_schema(
        operation_id="rfms_list",
        parameters=[OpenApiParameter("status", str, enum=[status.value for status in Status])],
        responses={200: BRIEFS},
    )
    def get(self, request: Request) -> Response:
        viewer, status = acting_party_or_none(request), request.query_params.get("status")
        if status and status not in set(Status):
            raise BadInput("bad_status", f"The status is one of {', '.join(Status.values)}.")
        rows = selectors.rfm_list(status=status, viewer=viewer)
        return paged(request, rows, selectors.brief)

    @extend_schema(request=RfmSerializer, responses={201: RFM})
    @idempotent(required=False)
    def post(self, request: Request) -> Response:
        data = checked(RfmSerializer, request)
        made = services.rfm_create(submitter=acting_party(request), now=clock.now(), **data)
        return Response(_json(made.slug, request), status=201)


class RfmView(APIView):
    """One request; PUT writes a draft anew."""

    @extend_schema(responses={200: RFM})
    def get(self, request: Request, slug: str) -> Response:
        return Response(_json(slug, request))

    @extend_schema(request=RfmSerializer, responses={200: RFM})
    def put(self, request: Request, slug: str) -> Response:
        data, actor = checked(RfmSerializer, request), acting_party(request)
        _seen(slug, request)
        services.rfm_update(actor=actor, slug=slug, now=clock.now(), **data)
        return Response(_json(slug, request))


class SubmitView(APIView):
    """Freeze the draft and put it to the SuperDAO's vote."""

    @extend_schema(request=None, responses={200: RFM})
    def post(self, request: Request, slug: str) -> Response:
        actor = acting_party(request)
        _seen(slug, request)
        services.rfm_submit(actor=actor, slug=slug, now=clock.now())
        return Response(_json(slug, request))


class PledgesView(APIView):
    """Fund a request in USDC, all or nothing."""

    @extend_schema(request=PledgeSerializer, responses={201: PledgedSerializer})
    @idempotent
    def post(self, request: Request, slug: str) -> Response:
        data = checked(PledgeSerializer, request)
        _seen(slug, request)
        made = services.pledge(
            party=acting_party(request),
            slug=slug,
            amount_micro=data["amount_micro"],
            idempotency=effect_id(request),
            consent=consent_of(request, data),
            now=clock.now(),
        )
        return Response(selectors.describe_pledge(made), status=201)


class WithdrawView(APIView):
    """Take back everything pledged to a request that is still open."""

    @extend_schema(request=None, responses={200: WithdrawnSerializer})
    @idempotent
    def post(self, request: Request, slug: str) -> Response:
        party = acting_party(request)
        _seen(slug, request)
        returned = services.pledge_withdraw(party=party, slug=slug, now=clock.now())
        return Response({"returned_micro": micro(returned)})


class ApplicationsView(APIView):
    """Who offers data or validation; POST files a signed attestation."""

    @extend_schema(operation_id="rfms_applications_list", responses={200: LIST})
    def get(self, request: Request, slug: str) -> Response:
        rfm = _seen(slug, request)
        if rfm.call is None:
            return Response({"results": [], "next": None})
        rows = participants.applications(rfm.call)
        return paged(request, rows, participants.describe, ordering=("filed_at", "id"))

    @extend_schema(
        request=ApplicationSerializer, responses={201: OpenApiResponse(OpenApiTypes.OBJECT)}
    )
    def post(self, request: Request, slug: str) -> Response:
        data = checked(ApplicationSerializer, request)
        actor, rfm = acting_party(request), _seen(slug, request)
        made = application_file(actor=actor, call=rfm.call, now=clock.now(), **data)
        return Response(participants.describe(made), status=201)


def _seen(slug: str, request: Request) -> Rfm:
    return selectors.rfm_seen_by(slug, acting_party_or_none(request))


urlpatterns = [
    path("rfms/", RfmsView.as_view(), name="rfms"),
    path("rfms/<slug:slug>/", RfmView.as_view(), name="rfm"),
    path("rfms/<slug:slug>/submit/", SubmitView.as_view(), name="rfm-submit"),
    path("rfms/<slug:slug>/pledges/", PledgesView.as_view(), name="rfm-pledges"),
    path("rfms/<slug:slug>/pledges/withdraw/", WithdrawView.as_view(), name="rfm-withdraw"),
    path("rfms/<slug:slug>/applications/", ApplicationsView.as_view(), name="rfm-applications"),
]
