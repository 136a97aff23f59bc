"""/api/v1/accounts, me, keys, parties."""

from __future__ import annotations

from typing import Any

from django.urls import path
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.accounts import selectors, services
from apps.accounts.models import SCOPES, ApiKey, Party, all_scopes
from apps.accounts.permissions import ANY, acting_party, key_of_request
from apps.accounts.throttling import SignUpThrottle
from apps.core.idempotency import effect_id
from apps.core.pagination import paged
from apps.core.schema import idempotency_key
from apps.core.serial import MicroField, checked


class PartySerializer(serializers.ModelSerializer[Party]):
    public_key = serializers.CharField(source="signing_key", allow_null=True, read_only=True)
    wallet_key = serializers.CharField(allow_null=True, read_only=True)

    class Meta:
        model = Party
        fields = ["pid", "slug", "name", "kind", "public_key", "wallet_key"]
        read_only_fields = fields


class SignUpSerializer(serializers.Serializer[Any]):
    email = serializers.EmailField()
    password = serializers.CharField(trim_whitespace=False, max_length=200, write_only=True)
    name = serializers.CharField(max_length=120)
    kind = serializers.ChoiceField(choices=["person", "organisation"], default="person")


class SignedUpSerializer(serializers.Serializer[Any]):
    party = PartySerializer()
    api_key = serializers.CharField(help_text="Shown this once; only its hash is kept.")


class ApiKeySerializer(serializers.ModelSerializer[ApiKey]):
    scopes = serializers.ListField(
        child=serializers.ChoiceField(choices=SCOPES),
        default=all_scopes,
        allow_empty=False,
        max_length=len(SCOPES),
        help_text='What the key may write to and read; "read" reads everything.',
    )

    spend_limit_micro = MicroField(
        required=False,
        allow_null=True,
        default=None,
        help_text="What the key may spend on inferences in a calendar month (UTC).",
    )

    class Meta:
        model = ApiKey
        fields = [
            "id",
            "prefix",
            "label",
            "scopes",
            "spend_limit_micro",
            "created_at",
            "expires_at",
            "last_used_at",
            "previous_until",
        ]
        read_only_fields = ["id", "prefix", "created_at", "last_used_at", "previous_until"]


class NewApiKeySerializer(ApiKeySerializer):
    api_key = serializers.CharField(read_only=True)

    class Meta(ApiKeySerializer.Meta):
        fields = [*ApiKeySerializer.Meta.fields, "api_key"]


class RotationSerializer(serializers.Serializer[Any]):
    overlap_s = serializers.IntegerField(
        min_value=0,
        max_value=services.OVERLAP_S_MAX,
        default=0,
        help_text="How long the secret before this one works on.",
    )


class MeSerializer(serializers.Serializer[Any]):
    email = serializers.EmailField()
    party = PartySerializer()


class AccountsView(APIView):
    """Sign up. The answer holds an API key that acts for the new party."""

    authentication_classes: list[Any] = []
    permission_classes: list[Any] = []
    throttle_classes = [SignUpThrottle]

    @extend_schema(request=SignUpSerializer, responses={201: SignedUpSerializer})
    def post(self, request: Request) -> Response:
        data = checked(SignUpSerializer, request)
        user, party = services.sign_up(**data)
        _, key = services.api_key_create(user=user, party=party, label="sign-up")
        return Response({"party": PartySerializer(party).data, "api_key": key}, status=201)


class MeView(APIView):
    """Whom these credentials act for."""

    key_scope = ANY

    @extend_schema(responses=MeSerializer)
    def get(self, request: Request) -> Response:
        party = acting_party(request)
        return Response({"email": request.user.email, "party": PartySerializer(party).data})


class KeysView(APIView):
    """The party's API keys; a new one is shown once.

    Its secret is not kept, so a retry (the same Idempotency-Key) gets the same row with a new one.
    """

    @extend_schema(responses=ApiKeySerializer(many=True))
    def get(self, request: Request) -> Response:
        keys = selectors.keys_of(acting_party(request))
        return paged(request, keys, lambda key: ApiKeySerializer(key).data)

    @extend_schema(
        request=ApiKeySerializer,
        responses={201: NewApiKeySerializer},
        parameters=[idempotency_key(required=False)],
    )
    def post(self, request: Request) -> Response:
        data = checked(ApiKeySerializer, request)
        row, key = services.api_key_create(
            user=request.user,
            party=acting_party(request),
            label=data.get("label", ""),
            scopes=data["scopes"],
            expires_at=data.get("expires_at"),
            spend_limit_micro=data["spend_limit_micro"],
            by=key_of_request(request),
            idempotency=effect_id(request, required=False),
        )
        return Response(ApiKeySerializer(row).data | {"api_key": key}, status=201)


class KeyView(APIView):
    """One API key."""

    @extend_schema(request=None, responses={204: OpenApiResponse(description="Revoked.")})
    def delete(self, request: Request, key_id: object) -> Response:
        services.api_key_revoke(party=acting_party(request), key_id=key_id)
        return Response(status=204)


class KeyRotationView(APIView):
    """A new secret for a key, shown once; the one before works on for `overlap_s` seconds."""

    @extend_schema(request=RotationSerializer, responses=NewApiKeySerializer)
    def post(self, request: Request, key_id: object) -> Response:
        party = acting_party(request)
        selectors.key_within(party, key_id, by=key_of_request(request))
        data = checked(RotationSerializer, request)
        row, key = services.api_key_rotate(party=party, key_id=key_id, **data)
        return Response(ApiKeySerializer(row).data | {"api_key": key})


class PartyView(APIView):
    """A party's public face."""

    key_scope = ANY

    @extend_schema(responses=PartySerializer)
    def get(self, request: Request, slug: str) -> Response:
        return Response(PartySerializer(selectors.party_by_slug(slug)).data)


urlpatterns = [
    path("accounts/", AccountsView.as_view()),
    path("me/", MeView.as_view()),
    path("keys/", KeysView.as_view()),
    path("keys/<uuid:key_id>/", KeyView.as_view()),
    path("keys/<uuid:key_id>/rotate/", KeyRotationView.as_view()),
    path("parties/<slug:slug>/", PartyView.as_view()),
]
