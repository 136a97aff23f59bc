"""/api/v1/rounds, and the rounds and versions of a SubDAO."""

from __future__ import annotations

from typing import Any

from django.urls import path
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.accounts.permissions import acting_party
from apps.core.clock import now
from apps.core.pagination import paged
from apps.core.serial import checked
from apps.subdaos.selectors import dao_by_slug
from apps.training import selectors, submissions
from apps.training.models import Submission


class UploadSerializer(serializers.Serializer[Any]):
    """A sealed share: the signed ticket, one envelope per node, the encrypted correction."""

    ticket = serializers.DictField()
    signature = serializers.CharField()
    envelopes = serializers.ListField(child=serializers.CharField())
    correction = serializers.CharField()


class RowsSerializer(serializers.Serializer[Any]):
    rows = serializers.IntegerField(min_value=1, max_value=1_000_000)


class RoundsView(APIView):
    """The rounds of a SubDAO, newest first."""

    @extend_schema(responses=OpenApiTypes.OBJECT)
    def get(self, request: Request, slug: str) -> Response:
        rows = selectors.rounds(dao_by_slug(slug))
        return paged(request, rows, selectors.round_brief, ordering=("-number",))


class OwnRoundsView(APIView):
    """Open rounds whose roster you are on, those that end first first."""

    @extend_schema(responses=OpenApiTypes.OBJECT)
    def get(self, request: Request) -> Response:
        rows = selectors.rounds_of(acting_party(request))
        return paged(request, rows, selectors.round_brief, ordering=("expires_at", "id"))


class RoundView(APIView):
    """One round: what a ticket must carry now, what has come in, what was opened."""

    @extend_schema(responses=OpenApiTypes.OBJECT)
    def get(self, request: Request, round_id: Any) -> Response:
        return Response(selectors.round_json(selectors.round_get(round_id)))


class HoldoutRowsView(APIView):
    """A validator says how many holdout rows it will share."""

    @extend_schema(request=RowsSerializer, responses=OpenApiTypes.OBJECT)
    def post(self, request: Request, round_id: Any) -> Response:
        held = submissions.holdout_rows_announce(
            round_id=round_id,
            party=acting_party(request),
            now=now(),
            **checked(RowsSerializer, request),
        )
        return Response({"round": str(held.id), "rows": sum(held.rows.values())})


class SharesView(APIView):
    """Hand in a sealed share for the present stage; posting the same one again is harmless."""

    @extend_schema(request=UploadSerializer, responses={202: OpenApiTypes.OBJECT})
    def post(self, request: Request, round_id: Any) -> Response:
        submission, new = submissions.share_submit(
            round_id=round_id, party=acting_party(request), upload=request.data, now=now()
        )
        return Response(_share_json(submission), status=202 if new else 200)


class ShareView(APIView):
    """Where a share is; `acks` is what the nodes signed for it."""

    @extend_schema(responses=OpenApiTypes.OBJECT)
    def get(self, request: Request, round_id: Any, share_id: str) -> Response:
        return Response(_share_json(selectors.submission_get(round_id, share_id)))


class VersionsView(APIView):
    """The model versions of a SubDAO, newest first."""

    @extend_schema(responses=OpenApiTypes.OBJECT)
    def get(self, request: Request, slug: str) -> Response:
        rows = selectors.versions(dao_by_slug(slug))
        return paged(request, rows, selectors.version_json, ordering=("-number",))


class VersionView(APIView):
    """One model version with its evidence."""

    @extend_schema(responses=OpenApiTypes.OBJECT)
    def get(self, request: Request, slug: str, number: int) -> Response:
        version = selectors.version_get(dao_by_slug(slug), number)
        return Response(selectors.version_json(version))


def _share_json(submission: Submission) -> dict[str, Any]:
    return {
        "share_id": submission.share_id,
        "ticket_id": submission.ticket_id,
        "slot": submission.slot,
        "state": submission.state,
        "reason": submission.reason or None,
        "acks": submission.acks,
    }


urlpatterns = [
    path("subdaos/<slug:slug>/rounds/", RoundsView.as_view()),
    path("subdaos/<slug:slug>/versions/", VersionsView.as_view()),
    path("subdaos/<slug:slug>/versions/<int:number>/", VersionView.as_view()),
    path("me/rounds/", OwnRoundsView.as_view()),
    path("rounds/<uuid:round_id>/", RoundView.as_view()),
    path("rounds/<uuid:round_id>/holdout-rows/", HoldoutRowsView.as_view()),
    path("rounds/<uuid:round_id>/shares/", SharesView.as_view()),
    path("rounds/<uuid:round_id>/shares/<str:share_id>/", ShareView.as_view()),
]
