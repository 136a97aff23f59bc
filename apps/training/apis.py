"""/api/v1/rounds, and the rounds and versions of a SubDAO."""

from __future__ import annotations

import re
from typing import Any

from django.http import HttpResponse
from django.urls import path
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.parsers import BaseParser
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.accounts.permissions import acting_party
from apps.core.clock import now
from apps.core.errors import BadInput
from apps.core.pagination import paged
from apps.core.serial import checked
from apps.protocol import uploads
from apps.subdaos.selectors import dao_by_slug
from apps.training import selectors, submissions
from apps.training.models import Submission
from apps.training.record import record_json, scores_csv
from apps.wallets.apis import CsvRenderer


class HeadSerializer(serializers.Serializer[Any]):
    """A sealed share but for its correction: the signed ticket, one envelope per node."""

    ticket = serializers.DictField()
    signature = serializers.CharField()
    envelopes = serializers.ListField(child=serializers.CharField())


class OctetStream(BaseParser):
    """A part's bytes as they are; of a longer body as much as shows that it is too long."""

    media_type = uploads.MEDIA_TYPE

    def parse(self, stream: Any, media_type: Any = None, parser_context: Any = None) -> bytes:
        return bytes(stream.read(uploads.PART_BYTES_MAX + 1))


class RowsSerializer(serializers.Serializer[Any]):
    """A custodian gives its signed consent as well, where rows are shared to train on."""

    rows = serializers.IntegerField(min_value=1, max_value=1_000_000)
    consent = serializers.DictField(required=False)
    signature = serializers.CharField(required=False, max_length=128)


class RowsWithdrawalSerializer(serializers.Serializer[Any]):
    """The owner's signed word: {"v", "type", "share_id", "ticket_id", "at"}."""

    withdrawal = serializers.DictField()
    signature = serializers.CharField(max_length=128)


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


class RecordView(APIView):
    """A round as a file that anybody checks against the log: members, φ, what was opened, the
    nodes' receipts, and the log's entries with their paths to one signed head."""

    @extend_schema(responses=OpenApiTypes.OBJECT)
    def get(self, request: Request, round_id: Any) -> Response:
        return Response(record_json(selectors.round_get(round_id)))


class ScoresCsvView(APIView):
    """φ of each member as CSV, with the entry of the log that says so."""

    renderer_classes = [JSONRenderer, CsvRenderer]

    @extend_schema(
        parameters=[OpenApiParameter("format", exclude=True)], responses={(200, "text/csv"): str}
    )
    def get(self, request: Request, round_id: Any) -> HttpResponse:
        held = selectors.round_get(round_id)
        name = f"{held.dao.slug}-round-{held.number}.csv"
        return HttpResponse(
            scores_csv(held),
            content_type="text/csv; charset=utf-8",
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )


class RowsView(APIView):
    """A validator says how many holdout rows it will share, a custodian how many to train on."""

    @extend_schema(request=RowsSerializer, responses=OpenApiTypes.OBJECT)
    def post(self, request: Request, round_id: Any) -> Response:
        held = submissions.rows_announce(
            round_id=round_id,
            party=acting_party(request),
            now=now(),
            **checked(RowsSerializer, request),
        )
        return Response({"round": str(held.id), "rows": sum(held.rows.values())})


class SharesView(APIView):
    """Begin a sealed share for the present stage; posting the same head again is harmless.

    The answer says how many bytes of the correction (`size_bytes`) are here (`offset`); none come
    of a ticket for a holdout that the nodes keep, which has no envelopes either. The rest goes to
    the share's own address, in parts of up to `part_bytes_max`.
    """

    @extend_schema(request=HeadSerializer, responses={202: OpenApiTypes.OBJECT})
    def post(self, request: Request, round_id: Any) -> Response:
        submission, new = submissions.share_begin(
            round_id=round_id, party=acting_party(request), head=request.data, now=now()
        )
        return Response(_share_json(submission), status=202 if new else 200)


class ShareView(APIView):
    """A sealed share: where it is, and the parts of its correction."""

    parser_classes = [OctetStream]

    @extend_schema(responses=OpenApiTypes.OBJECT)
    def get(self, request: Request, round_id: Any, share_id: str) -> Response:
        """How much of it is here, what became of it; `acks` is what the nodes signed for it."""
        return Response(_share_json(selectors.submission_get(round_id, share_id)))

    @extend_schema(
        parameters=[
            OpenApiParameter("Upload-Offset", int, "header", required=True),
            OpenApiParameter("Content-Digest", str, "header", required=True),
        ],
        request={uploads.MEDIA_TYPE: OpenApiTypes.BINARY},
        responses=OpenApiTypes.OBJECT,
    )
    def patch(self, request: Request, round_id: Any, share_id: str) -> Response:
        """The next part of the correction. Any other offset is a conflict that names the right one;
        after a broken connection ask for it and go on from there."""
        offset = request.headers.get("Upload-Offset", "")
        digest = request.headers.get("Content-Digest", "")
        if not re.fullmatch("[0-9]{1,9}", offset) or not uploads.is_digest(digest):
            raise BadInput(
                "bad_part_headers", "Send Upload-Offset: N and Content-Digest: sha-256=:base64:."
            )
        submission = submissions.share_part(
            round_id=round_id,
            party=acting_party(request),
            share_id=share_id,
            offset_bytes=int(offset),
            data=request.data if isinstance(request.data, bytes) else b"",
            digest=digest,
            now=now(),
        )
        return Response(_share_json(submission))


class WithdrawView(APIView):
    """Take back a share that is not computed yet: the nodes delete it, and sign that they did."""

    @extend_schema(request=RowsWithdrawalSerializer, responses={202: OpenApiTypes.OBJECT})
    def post(self, request: Request, round_id: Any, share_id: str) -> Response:
        submission = submissions.share_withdraw(
            round_id=round_id,
            party=acting_party(request),
            share_id=share_id,
            now=now(),
            **checked(RowsWithdrawalSerializer, request),
        )
        return Response(_share_json(submission), status=202)


class VersionsView(APIView):
    """The model versions of a SubDAO, newest first."""

    @extend_schema(operation_id="subdaos_versions_list", responses=OpenApiTypes.OBJECT)
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
        "offset": submission.offset_bytes,
        "size_bytes": submission.size_bytes,
        "part_bytes_max": uploads.PART_BYTES_MAX,
        "reason": submission.reason or None,
        "acks": submission.acks,
    }


urlpatterns = [
    path("subdaos/<slug:slug>/rounds/", RoundsView.as_view()),
    path("subdaos/<slug:slug>/versions/", VersionsView.as_view()),
    path("subdaos/<slug:slug>/versions/<int:number>/", VersionView.as_view()),
    path("me/rounds/", OwnRoundsView.as_view()),
    path("rounds/<uuid:round_id>/", RoundView.as_view()),
    path("rounds/<uuid:round_id>/record/", RecordView.as_view()),
    path("rounds/<uuid:round_id>/scores.csv", ScoresCsvView.as_view()),
    path("rounds/<uuid:round_id>/rows/", RowsView.as_view()),
    path("rounds/<uuid:round_id>/shares/", SharesView.as_view()),
    path("rounds/<uuid:round_id>/shares/<str:share_id>/", ShareView.as_view()),
    path("rounds/<uuid:round_id>/shares/<str:share_id>/withdraw/", WithdrawView.as_view()),
]
