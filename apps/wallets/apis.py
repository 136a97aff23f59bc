"""/api/v1/wallet and /api/v1/log."""

from __future__ import annotations

import uuid
from typing import Any

from django.http import HttpResponse
from django.urls import path
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.accounts.models import Party
from apps.accounts.permissions import ANY, acting_party
from apps.accounts.selectors import party_by_slug
from apps.core.clock import now
from apps.core.errors import BadInput
from apps.core.idempotency import effect_id, idempotent
from apps.core.pagination import paged
from apps.core.serial import MicroField, asked, checked
from apps.protocol import consent as rules
from apps.wallets import credential_apis, keys, log, low_balance, proofs, selectors, services
from apps.wallets.consenting import ConsentSerializer, SignedSerializer, consent_of
from apps.wallets.models import Account, Transfer, TreeHead
from apps.wallets.statement import statement_csv

NUMBER_MAX = 10**18 - 1


class WalletLineSerializer(serializers.Serializer[Any]):
    asset = serializers.CharField()
    purpose = serializers.CharField()
    posted_micro = MicroField()
    held_micro = MicroField()
    available_micro = MicroField()


class WalletSerializer(serializers.Serializer[Any]):
    accounts = WalletLineSerializer(many=True)


class SettingsSerializer(serializers.Serializer[Any]):
    low_micro = MicroField(allow_null=True, help_text="USDC micro-units; null: you are not warned.")
    billing = serializers.CharField(
        max_length=low_balance.BILLING_MAX,
        allow_blank=True,
        default="",
        help_text="Name, address and tax number, as your invoices shall give them.",
    )
    low_since = serializers.DateTimeField(
        read_only=True, allow_null=True, help_text="since when the balance is lower"
    )


class PartyRefSerializer(serializers.ModelSerializer[Party]):
    class Meta:
        model = Party
        fields = ["slug", "name", "pid"]


class SideSerializer(serializers.ModelSerializer[Account]):
    party = PartyRefSerializer(source="owner")

    class Meta:
        model = Account
        fields = ["party", "purpose"]


class TransferSerializer(serializers.ModelSerializer[Transfer]):
    asset = serializers.CharField(source="debit.asset.code")
    amount_micro = MicroField()
    debit = SideSerializer()
    credit = SideSerializer()
    pending = serializers.UUIDField(source="pending_id", allow_null=True)
    ref = serializers.SerializerMethodField()

    class Meta:
        model = Transfer
        fields = [
            "id",
            "created_at",
            "kind",
            "phase",
            "asset",
            "amount_micro",
            "debit",
            "credit",
            "pending",
            "expires_at",
            "ref",
            "memo",
        ]

    def get_ref(self, transfer: Transfer) -> str | None:
        return f"{transfer.ref_type}:{transfer.ref_id}" if transfer.ref_type else None


class GiftSerializer(serializers.Serializer[Any]):
    asset = serializers.CharField(max_length=40)
    amount_micro = MicroField()


class AmountSerializer(GiftSerializer, ConsentSerializer):
    pass


class SendSerializer(AmountSerializer):
    to = serializers.SlugField(max_length=60)
    memo = serializers.CharField(max_length=200, required=False, allow_blank=True, default="")


class PossessionSerializer(ConsentSerializer):
    public_key = serializers.RegexField(r"^[0-9a-f]{64}$")
    signature = serializers.RegexField(
        r"^[0-9a-f]{128}$",
        write_only=True,
        help_text='By the new key, with domain "flai/party-key/v1": {"pid","public_key"} for an '
        'agent\'s key, {"pid","public_key","purpose"} for the others.',
    )


class SigningKeySerializer(PossessionSerializer):
    signed = SignedSerializer(
        required=False,
        allow_null=True,
        default=None,
        write_only=True,
        help_text="Needed to replace a key: by the old one, the wallet or the recovery key.",
    )


class KeyPurposeSerializer(ConsentSerializer):
    purpose = serializers.ChoiceField(choices=list(rules.PURPOSES))


class BindSerializer(PossessionSerializer, KeyPurposeSerializer):
    pass


class PartyKeysSerializer(serializers.Serializer[Any]):
    pid = serializers.CharField()
    keyed = serializers.BooleanField(help_text="Whether actions need the wallet key's signature.")
    next_nonce = serializers.IntegerField()
    keys = serializers.DictField(child=serializers.CharField())


class SigningKeyView(APIView):
    """Bind the Ed25519 key that signs this party's tickets and attestations."""

    key_scope = "account"

    @extend_schema(request=SigningKeySerializer, responses=SigningKeySerializer)
    def put(self, request: Request) -> Response:
        data = checked(SigningKeySerializer, request)
        consent = consent_of(request, data)
        party = acting_party(request)
        key = keys.key_bind(party=party, purpose=rules.AGENT, consent=consent, **data)
        return Response({"public_key": key.public_key})


class PartyKeysView(APIView):
    """The acting party's public keys by purpose, and the nonce for what it signs next."""

    key_scope = ANY

    @extend_schema(responses=PartyKeysSerializer)
    def get(self, request: Request) -> Response:
        return Response(keys.keys_of(acting_party(request)))


class KeyBindingView(APIView):
    """Bind or replace a key.

    `wallet`: from then on transfers, stakes, votes and proposals need its signature. `recovery`:
    signs changes of keys only, should the wallet key be lost.
    """

    key_scope = "account"

    @extend_schema(request=BindSerializer, responses={201: PartyKeysSerializer})
    def post(self, request: Request) -> Response:
        data, party = checked(BindSerializer, request), acting_party(request)
        keys.key_bind(party=party, consent=consent_of(request, data), **data)
        return Response(keys.keys_of(party), status=201)


class KeyRevocationView(APIView):
    """Revoke a key; always signed, by the key itself or by the recovery key."""

    key_scope = "account"

    @extend_schema(request=KeyPurposeSerializer, responses=PartyKeysSerializer)
    def post(self, request: Request) -> Response:
        data, party = checked(KeyPurposeSerializer, request), acting_party(request)
        keys.key_revoke(party=party, consent=consent_of(request, data), **data)
        return Response(keys.keys_of(party))


class WalletView(APIView):
    """Balances of the acting party."""

    @extend_schema(responses=WalletSerializer)
    def get(self, request: Request) -> Response:
        lines = selectors.wallet(acting_party(request), now=now())
        return Response({"accounts": WalletLineSerializer(lines, many=True).data})


class SettingsView(APIView):
    """Below which balance you want to be warned, once each time it falls below: on your dashboard
    and by the webhook event "balance.low". And what your invoices say of you.
    """

    @extend_schema(operation_id="wallet_settings", responses=SettingsSerializer)
    def get(self, request: Request) -> Response:
        found = low_balance.settings_of(acting_party(request))
        return Response(SettingsSerializer(found).data)

    @extend_schema(
        operation_id="wallet_settings_set",
        request=SettingsSerializer,
        responses=SettingsSerializer,
    )
    def put(self, request: Request) -> Response:
        data = checked(SettingsSerializer, request)
        found = low_balance.settings_set(
            party=acting_party(request),
            low_micro=data["low_micro"],
            billing=data["billing"],
            now=now(),
        )
        return Response(SettingsSerializer(found).data)


class TransfersView(APIView):
    """History of the acting party; a payment to another party."""

    @extend_schema(responses=TransferSerializer(many=True))
    def get(self, request: Request) -> Response:
        transfers = selectors.transfers_of(acting_party(request))
        return paged(request, transfers, TransferSerializer().to_representation)

    @extend_schema(request=SendSerializer, responses={201: TransferSerializer})
    @idempotent
    def post(self, request: Request) -> Response:
        data = checked(SendSerializer, request)
        transfer = services.send(
            party=acting_party(request),
            consent=consent_of(request, data),
            to=party_by_slug(data.pop("to")),
            idempotency=effect_id(request),
            **data,
        )
        return Response(TransferSerializer(transfer).data, status=201)


class ReversalView(APIView):
    """Give a received payment back, whole and once."""

    @extend_schema(request=ConsentSerializer, responses={201: TransferSerializer})
    @idempotent
    def post(self, request: Request, transfer_id: uuid.UUID) -> Response:
        transfer = services.give_back(
            party=acting_party(request),
            transfer_id=transfer_id,
            consent=consent_of(request, checked(ConsentSerializer, request)),
        )
        return Response(TransferSerializer(transfer).data, status=201)


class CsvRenderer(JSONRenderer):
    """Lets a client ask for text/csv; what goes wrong is said in JSON all the same."""

    media_type = "text/csv"
    format = "csv"


class PeriodSerializer(serializers.Serializer[Any]):
    since = serializers.DateTimeField(required=False, allow_null=True, default=None)
    until = serializers.DateTimeField(required=False, allow_null=True, default=None)


class StatementView(APIView):
    """All transfers on the acting party's accounts in a period, with balances, as CSV."""

    renderer_classes = [JSONRenderer, CsvRenderer]

    @extend_schema(parameters=[PeriodSerializer], responses={(200, "text/csv"): str})
    def get(self, request: Request) -> HttpResponse:
        text = statement_csv(acting_party(request), **asked(PeriodSerializer, request))
        return HttpResponse(
            text,
            content_type="text/csv; charset=utf-8",
            headers={"Content-Disposition": 'attachment; filename="statement.csv"'},
        )


class FaucetView(APIView):
    """Test tokens, where the site has a faucet."""

    @extend_schema(
        request=GiftSerializer,
        responses={201: TransferSerializer},
        examples=[
            OpenApiExample(
                "A dollar of test money",
                value={"asset": "USDC", "amount_micro": "1000000"},
                request_only=True,
            )
        ],
    )
    @idempotent
    def post(self, request: Request) -> Response:
        transfer = services.faucet(
            party=acting_party(request),
            idempotency=effect_id(request),
            **checked(GiftSerializer, request),
        )
        return Response(TransferSerializer(transfer).data, status=201)


def _whole(name: str, text: str, *, required: bool = False) -> OpenApiParameter:
    whole = {"type": "integer", "minimum": 0, "maximum": NUMBER_MAX}
    return OpenApiParameter(name, whole, required=required, description=text)


class LogHeadView(APIView):
    """The newest signed head."""

    key_scope = ANY

    @extend_schema(responses={200: dict[str, Any]})
    def get(self, request: Request) -> Response:
        return Response(proofs.head_json(proofs.head()))


class LogHeadsView(APIView):
    """All signed heads, newest first."""

    key_scope = ANY

    @extend_schema(responses={200: dict[str, Any]})
    def get(self, request: Request) -> Response:
        return paged(request, TreeHead.objects.all(), proofs.head_json, ordering=("-size",))


class LogEntriesView(APIView):
    """Leaves [start, end), at most 1000."""

    key_scope = ANY

    @extend_schema(
        parameters=[_whole("start", "default 0"), _whole("end", "default start + 1000")],
        responses={200: dict[str, Any]},
    )
    def get(self, request: Request) -> Response:
        start = _number(request, "start") or 0
        end = _number(request, "end")
        end = start + proofs.ENTRIES_MAX if end is None else end
        return Response({"results": proofs.entries(start, end), "next": None})


class LogInclusionView(APIView):
    """Proof that a leaf (by index, hash or ref "type:id") is in the log."""

    key_scope = ANY

    @extend_schema(
        parameters=[
            _whole("index", "the leaf's, or give hash or ref"),
            OpenApiParameter("hash", str, pattern="^[0-9a-f]{64}$", description="of the leaf"),
            OpenApiParameter("ref", str, description='"type:id" of what it tells of'),
            _whole("size", "of the log to prove it in; default: the newest head's"),
        ],
        responses={200: dict[str, Any]},
    )
    def get(self, request: Request) -> Response:
        query = request.query_params
        leaf = proofs.find(
            index=_number(request, "index"), hash=query.get("hash"), ref=query.get("ref")
        )
        return Response(proofs.inclusion(leaf, _number(request, "size")))


class LogConsistencyView(APIView):
    """Proof that the log of an earlier size begins the later one."""

    key_scope = ANY

    @extend_schema(
        parameters=[
            _whole("first", "the earlier size", required=True),
            _whole("second", "the later size", required=True),
        ],
        responses={200: dict[str, Any]},
    )
    def get(self, request: Request) -> Response:
        first, second = _number(request, "first"), _number(request, "second")
        if first is None or second is None:
            raise BadInput("bad_sizes", "Give first and second.")
        return Response(proofs.consistency(first, second))


class LogKeyView(APIView):
    """The key that signs heads."""

    key_scope = ANY

    @extend_schema(responses={200: dict[str, Any]})
    def get(self, request: Request) -> Response:
        return Response({"public_key": log.public_key()})


def _number(request: Request, name: str) -> int | None:
    text = request.query_params.get(name)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise BadInput("bad_number", f"{name} must be a whole number, at least 0.")
    return int(text)


urlpatterns = [
    path("me/signing-key/", SigningKeyView.as_view()),
    path("wallet/keys/", PartyKeysView.as_view()),
    path("wallet/keys/bind/", KeyBindingView.as_view()),
    path("wallet/keys/revoke/", KeyRevocationView.as_view()),
    path("wallet/", WalletView.as_view()),
    path("wallet/settings/", SettingsView.as_view()),
    path("wallet/transfers/", TransfersView.as_view()),
    path("wallet/transfers/<uuid:transfer_id>/reversal/", ReversalView.as_view()),
    path("wallet/statement.csv", StatementView.as_view()),
    path("wallet/faucet/", FaucetView.as_view()),
    path("log/head/", LogHeadView.as_view()),
    path("log/heads/", LogHeadsView.as_view()),
    path("log/entries/", LogEntriesView.as_view()),
    path("log/inclusion/", LogInclusionView.as_view()),
    path("log/consistency/", LogConsistencyView.as_view()),
    path("log/key/", LogKeyView.as_view()),
    *credential_apis.urlpatterns,
]
