"""/api/v1/credentials: what issuers say of parties, signed by their wallet keys."""

from __future__ import annotations

from typing import Any

from django.urls import path
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.accounts.permissions import acting_party
from apps.accounts.selectors import party_found
from apps.core.clock import now
from apps.core.errors import BadInput, NotFound
from apps.core.pagination import paged
from apps.core.serial import checked
from apps.protocol.credentials import KIND_MAX
from apps.wallets import credentials
from apps.wallets.consenting import ConsentSerializer, SignedSerializer, consent_of

ROLES = {"held": credentials.held_by, "issued": credentials.issued_by}


class NamedSerializer(serializers.Serializer[Any]):
    pid = serializers.CharField()
    name = serializers.CharField()


class CredentialSerializer(serializers.Serializer[Any]):
    id = serializers.CharField(help_text='digest("flai/credential/v1", what was signed)')
    credential = serializers.CharField(help_text="its kind")
    issuer = NamedSerializer()
    subject = NamedSerializer()
    state = serializers.CharField(
        help_text="in_force, revoked, expired, or other_key: its subject has changed its wallet key"
    )
    until = serializers.DateTimeField()
    issued_at = serializers.DateTimeField()
    revoked_at = serializers.DateTimeField(allow_null=True)
    payload = serializers.DictField(help_text="what was signed, of the kind credentials.issue")
    signed = SignedSerializer()


class IssueSerializer(ConsentSerializer):
    credential = serializers.CharField(max_length=KIND_MAX, help_text="like accredited-hospital")
    subject = serializers.CharField(max_length=60, help_text="a short name or a pid")
    key = serializers.RegexField(r"^[0-9a-f]{64}$", help_text="the subject's wallet key")
    until_ms = serializers.IntegerField(min_value=1, max_value=2**53, help_text="Unix ms")


class CredentialsView(APIView):
    """Yours, newest first; POST issues one, signed by your wallet key (`credentials.issue`)."""

    key_scope = "wallet"

    @extend_schema(
        operation_id="credentials_list",
        parameters=[OpenApiParameter("role", str, enum=list(ROLES), description="default: held")],
        responses={200: CredentialSerializer(many=True)},
        tags=["wallet"],
    )
    def get(self, request: Request) -> Response:
        role, at = request.query_params.get("role", "held"), now()
        if role not in ROLES:
            raise BadInput("bad_role", "role is held or issued.")
        rows = ROLES[role](acting_party(request))
        return paged(request, rows, lambda row: credentials.credential_json(row, now=at))

    @extend_schema(request=IssueSerializer, responses={201: CredentialSerializer}, tags=["wallet"])
    def post(self, request: Request) -> Response:
        data, at = checked(IssueSerializer, request), now()
        subject = party_found(data["subject"])
        if subject is None:
            raise NotFound("party_not_found", "There is no party with this name.")
        made = credentials.credential_issue(
            issuer=acting_party(request),
            subject=subject,
            kind=data["credential"],
            key=data["key"],
            until_ms=data["until_ms"],
            consent=consent_of(request, data),
            now=at,
        )
        return Response(credentials.credential_json(made, now=at), status=201)


class CredentialRevocationView(APIView):
    """Nothing is admitted by it any more; signed by its issuer's key (`credentials.revoke`)."""

    key_scope = "wallet"

    @extend_schema(
        request=ConsentSerializer, responses={200: CredentialSerializer}, tags=["wallet"]
    )
    def post(self, request: Request, digest: str) -> Response:
        data, at = checked(ConsentSerializer, request), now()
        row = credentials.credential_revoke(
            issuer=acting_party(request),
            digest=digest,
            consent=consent_of(request, data),
            now=at,
        )
        return Response(credentials.credential_json(row, now=at))


urlpatterns = [
    path("credentials/", CredentialsView.as_view()),
    path("credentials/<slug:digest>/revoke/", CredentialRevocationView.as_view()),
]
