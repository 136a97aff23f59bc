"""/api/v1/pools, /api/v1/vaults, and the stakes of /api/v1/wallet."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.urls import path
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.accounts.permissions import acting_party
from apps.core.clock import now
from apps.core.errors import BadInput
from apps.core.idempotency import effect_id, idempotent
from apps.core.pagination import paged
from apps.core.serial import MicroField, SignedMicroField, asked, checked
from apps.exchange import pools, selectors, vaults
from apps.exchange.models import Pool, PoolEvent, Vault
from apps.exchange.selectors import add_last_day
from apps.protocol.pool import BASE, QUOTE
from apps.wallets.apis import AmountSerializer, PartyRefSerializer, TransferSerializer
from apps.wallets.consenting import ConsentSerializer, consent_of
from apps.wallets.models import Asset, Transfer

DAY = timedelta(days=1)
POOL = {
    "base": "FLAI",
    "quote": "USDC",
    "pid": "9f86d081884c7d659a2feaa0c55ad015",
    "shares": "LP-FLAI",
    "base_micro": "4000000000",
    "quote_micro": "1000000000",
    "shares_micro": "2000000000",
    "price_micro": "250000",
    "mean_24h_micro": "248112",
    "volume_24h_micro": "51000000",
}
EVENT = {
    "id": "0d2f3f5e-0b7c-4a53-9c53-0a3a6a5b8f10",
    "kind": "swap",
    "party": {"slug": "ada", "name": "Ada", "pid": "3c6ef372fe94f82ba54ff53a5f1d36f1"},
    "base_micro": "-39481089",
    "quote_micro": "10000000",
    "shares_micro": "0",
    "price_micro": "255006",
    "at": "2026-11-24T12:00:00Z",
}
QUOTED = {
    "side": "quote",
    "amount_in_micro": "10000000",
    "amount_out_micro": "39481089",
    "out_min_micro": "39283684",
    "fee_micro": "30000",
    "impact_ppm": 9872,
    "slippage_bps": 50,
    "asset_in": "USDC",
    "asset_out": "FLAI",
    "price_micro": "250000",
    "price_after_micro": "255006",
}


def example(name: str, value: Any, *, request: bool = False) -> OpenApiExample:
    return OpenApiExample(name, value=value, request_only=request, response_only=not request)


class PoolSerializer(serializers.ModelSerializer[Pool]):
    base = serializers.CharField(source="base.code")
    quote = serializers.CharField(source="quote.code")
    shares = serializers.CharField(source="shares.code")
    pid = serializers.CharField(source="party.pid")
    base_micro = MicroField(allow_zero=True)
    quote_micro = MicroField(allow_zero=True)
    shares_micro = MicroField(allow_zero=True)
    price_micro = MicroField(allow_zero=True)
    mean_24h_micro = MicroField(allow_zero=True, allow_null=True)
    volume_24h_micro = MicroField(allow_zero=True)

    class Meta:
        model = Pool
        fields = list(POOL)


class PoolEventSerializer(serializers.ModelSerializer[PoolEvent]):
    party = PartyRefSerializer()
    base_micro = SignedMicroField(read_only=True)
    quote_micro = SignedMicroField(read_only=True)
    shares_micro = SignedMicroField(read_only=True)
    price_micro = MicroField()
    at = serializers.DateTimeField()

    class Meta:
        model = PoolEvent
        fields = list(EVENT)


class SwapQuoteSerializer(serializers.Serializer[Any]):
    side = serializers.ChoiceField(choices=[BASE, QUOTE])
    amount_in_micro = MicroField()
    amount_out_micro = MicroField()
    out_min_micro = MicroField(allow_zero=True)
    fee_micro = MicroField()
    impact_ppm = serializers.IntegerField()
    slippage_bps = serializers.IntegerField()
    asset_in = serializers.CharField()
    asset_out = serializers.CharField()
    price_micro = MicroField(allow_zero=True)
    price_after_micro = MicroField(allow_zero=True)


class QuoteAskSerializer(serializers.Serializer[Any]):
    side = serializers.ChoiceField(choices=[BASE, QUOTE])
    amount_micro = MicroField()
    slippage_bps = serializers.IntegerField(
        min_value=0, max_value=10_000, default=selectors.SLIPPAGE_BPS
    )


class PoolOpenSerializer(ConsentSerializer):
    base = serializers.CharField(max_length=40)
    base_micro = MicroField()
    quote_micro = MicroField()


class SwapSerializer(ConsentSerializer):
    side = serializers.ChoiceField(
        choices=[BASE, QUOTE], help_text="What you give: the pool's token, or USDC."
    )
    amount_micro = MicroField()
    out_min_micro = MicroField(
        allow_zero=True, default=0, help_text="Nothing is traded for less than this."
    )
    deadline = serializers.DateTimeField(required=False, allow_null=True, default=None)


class LiquiditySerializer(ConsentSerializer):
    base_max_micro = MicroField()
    quote_max_micro = MicroField()
    shares_min_micro = MicroField(allow_zero=True, default=0)
    deadline = serializers.DateTimeField(required=False, allow_null=True, default=None)


class WithdrawalSerializer(ConsentSerializer):
    shares_micro = MicroField()
    base_min_micro = MicroField(allow_zero=True, default=0)
    quote_min_micro = MicroField(allow_zero=True, default=0)
    deadline = serializers.DateTimeField(required=False, allow_null=True, default=None)


class BucketSerializer(serializers.Serializer[Any]):
    start = serializers.DateTimeField()
    end = serializers.DateTimeField()
    price_micro = MicroField(allow_zero=True)
    mean_micro = MicroField(allow_zero=True)
    volume_micro = MicroField(allow_zero=True)


class HistoryAskSerializer(serializers.Serializer[Any]):
    start = serializers.DateTimeField(required=False, default=None)
    end = serializers.DateTimeField(required=False, default=None)
    buckets = serializers.IntegerField(min_value=1, max_value=500, default=48)


class HistorySerializer(serializers.Serializer[Any]):
    mean_micro = MicroField(allow_null=True)
    buckets = BucketSerializer(many=True)


class VaultSerializer(serializers.Serializer[Any]):
    asset = serializers.CharField()
    shares = serializers.CharField(allow_null=True)
    pid = serializers.CharField(allow_null=True)
    staked_micro = MicroField(allow_zero=True)
    assets_micro = MicroField(allow_zero=True)
    shares_micro = MicroField(allow_zero=True)
    pot_micro = MicroField(allow_zero=True)


class PositionSerializer(serializers.Serializer[Any]):
    principal_micro = MicroField(allow_zero=True)
    worth_micro = MicroField(allow_zero=True)
    shares_micro = MicroField(allow_zero=True)
    locked_until = serializers.DateTimeField(allow_null=True)
    unstaking_micro = MicroField(allow_zero=True)


class UnstakingSerializer(serializers.Serializer[Any]):
    amount_micro = MicroField(allow_zero=True)
    ready_at = serializers.DateTimeField()


class MineSerializer(serializers.Serializer[Any]):
    position = PositionSerializer()
    unstaking = UnstakingSerializer(many=True)


class VaultAmountSerializer(ConsentSerializer):
    amount_micro = MicroField()


class VaultStakeSerializer(VaultAmountSerializer):
    lock_s = serializers.IntegerField(
        min_value=0, default=0, help_text="Cannot be taken out for so long; a year at most."
    )


class StakeSerializer(AmountSerializer):
    lock_s = serializers.IntegerField(min_value=0, default=0)


class PoolsView(APIView):
    """All pools; open one with its first liquidity, which sets its price."""

    @extend_schema(
        operation_id="pools_list",
        responses=PoolSerializer(many=True),
        examples=[example("Pools", POOL)],
    )
    def get(self, request: Request) -> Response:
        rows, to_json = selectors.pool_list(), PoolSerializer().to_representation
        return paged(request, rows, to_json, complete=lambda page: add_last_day(page, now()))

    @extend_schema(
        request=PoolOpenSerializer,
        responses={201: PoolEventSerializer},
        examples=[
            example(
                "FLAI at $0.25",
                {"base": "FLAI", "base_micro": "4000000000", "quote_micro": "1000000000"},
                request=True,
            )
        ],
    )
    @idempotent
    def post(self, request: Request) -> Response:
        return _changed(request, pools.pool_open, PoolOpenSerializer)


class PoolView(APIView):
    """Reserves, price, the time-weighted mean and the volume of the last 24 hours."""

    @extend_schema(responses=PoolSerializer, examples=[example("FLAI/USDC", POOL)])
    def get(self, request: Request, base: str) -> Response:
        pool = selectors.pool_by_base(base)
        add_last_day([pool], now())
        return Response(PoolSerializer(pool).data)


class QuoteView(APIView):
    """What a swap would give now: price impact, fee, and the limit at a slippage."""

    @extend_schema(
        parameters=[QuoteAskSerializer],
        responses=SwapQuoteSerializer,
        examples=[example("10 USDC into FLAI", QUOTED)],
    )
    def get(self, request: Request, base: str) -> Response:
        wanted = asked(QuoteAskSerializer, request)
        found = selectors.quote(selectors.pool_by_base(base), **wanted)
        return Response(SwapQuoteSerializer(found).data)


class SwapsView(APIView):
    """Trade with the pool: all of it, at your limit or better, in time, or nothing."""

    @extend_schema(
        request=SwapSerializer,
        responses={201: PoolEventSerializer},
        examples=[
            example(
                "10 USDC into FLAI",
                {"side": "quote", "amount_micro": "10000000", "out_min_micro": "39283684"},
                request=True,
            ),
            example("Done", EVENT),
        ],
    )
    @idempotent
    def post(self, request: Request, base: str) -> Response:
        return _changed(request, pools.swap, SwapSerializer, base=base)


class LiquidityView(APIView):
    """Add to both reserves in their proportion, for shares of the pool and its fees."""

    @extend_schema(request=LiquiditySerializer, responses={201: PoolEventSerializer})
    @idempotent
    def post(self, request: Request, base: str) -> Response:
        return _changed(request, pools.liquidity_add, LiquiditySerializer, base=base)


class WithdrawalsView(APIView):
    """Give shares back for their part of both reserves."""

    @extend_schema(request=WithdrawalSerializer, responses={201: PoolEventSerializer})
    @idempotent
    def post(self, request: Request, base: str) -> Response:
        return _changed(request, pools.liquidity_remove, WithdrawalSerializer, base=base)


class PoolEventsView(APIView):
    """Swaps and changes of liquidity, newest first."""

    @extend_schema(responses=PoolEventSerializer(many=True), examples=[example("Swap", EVENT)])
    def get(self, request: Request, base: str) -> Response:
        rows = selectors.pool_events(selectors.pool_by_base(base))
        return paged(request, rows, PoolEventSerializer().to_representation, ordering=("-number",))


class PoolHistoryView(APIView):
    """Price and volume in equal stretches, and the time-weighted mean over all of them."""

    @extend_schema(parameters=[HistoryAskSerializer], responses=HistorySerializer)
    def get(self, request: Request, base: str) -> Response:
        data, pool = asked(HistoryAskSerializer, request), selectors.pool_by_base(base)
        end = min(data["end"] or now(), now())
        start = data["start"] or end - 7 * DAY
        if start >= end:
            raise BadInput("bad_period", "start must lie before end, and before now.")
        mean = selectors.price_mean_micro(pool, start, end)
        rows = selectors.history(pool, start=start, end=end, buckets=data["buckets"])
        answer = {"mean_micro": mean, "buckets": rows}
        return Response(HistorySerializer(answer).data)


class VaultsView(APIView):
    """What is staked of each token."""

    @extend_schema(operation_id="vaults_list", responses=VaultSerializer(many=True))
    def get(self, request: Request) -> Response:
        to_json = VaultSerializer().to_representation
        rows = selectors.vault_list()
        return paged(request, rows, lambda v: to_json(vault_json(v.asset, v, v.staked_micro)))


class VaultView(APIView):
    """One token's vault."""

    @extend_schema(responses=VaultSerializer)
    def get(self, request: Request, asset: str) -> Response:
        found = vaults.stakeable(asset)
        staked = selectors.staked_micro(found)
        return Response(VaultSerializer(vault_json(found, selectors.vault_of(found), staked)).data)


class PositionView(APIView):
    """The acting party's stake, and what of it is on its way out and free the soonest: all of that
    is at `unstakings/`."""

    @extend_schema(responses=MineSerializer)
    def get(self, request: Request, asset: str) -> Response:
        party, found = acting_party(request), vaults.stakeable(asset)
        answer = {
            "position": selectors.staked_of(party, found),
            "unstaking": selectors.unstakings_of(party, found)[: selectors.UNSTAKINGS_SHOWN],
        }
        return Response(MineSerializer(answer).data)


class UnstakingsView(APIView):
    """What the acting party has on its way out of a vault, soonest first."""

    @extend_schema(operation_id="unstakings_list", responses=UnstakingSerializer(many=True))
    def get(self, request: Request, asset: str) -> Response:
        rows = selectors.unstakings_of(acting_party(request), vaults.stakeable(asset))
        to_json = UnstakingSerializer().to_representation
        return paged(request, rows, to_json, ordering=("ready_at", "id"))


class VaultStakesView(APIView):
    """Stake; a lock is a promise not to take it out for so long."""

    @extend_schema(request=VaultStakeSerializer, responses={201: TransferSerializer})
    @idempotent
    def post(self, request: Request, asset: str) -> Response:
        return _done(request, vaults.stake, VaultStakeSerializer, asset=asset)


class VaultUnstakesView(APIView):
    """Begin to take a stake out: it is free again after the delay."""

    @extend_schema(request=VaultAmountSerializer, responses={201: TransferSerializer})
    @idempotent
    def post(self, request: Request, asset: str) -> Response:
        return _done(request, vaults.unstake, VaultAmountSerializer, asset=asset)


class RewardsView(APIView):
    """Give tokens to all who stake now."""

    @extend_schema(request=VaultAmountSerializer, responses={201: TransferSerializer})
    @idempotent
    def post(self, request: Request, asset: str) -> Response:
        return _done(request, vaults.reward, VaultAmountSerializer, asset=asset)


class StakesView(APIView):
    """Stake FLAI or an SDT."""

    @extend_schema(request=StakeSerializer, responses={201: TransferSerializer})
    @idempotent
    def post(self, request: Request) -> Response:
        return _done(request, vaults.stake, StakeSerializer)


class UnstakesView(APIView):
    """Begin to take staked tokens back: they are free again after the delay."""

    @extend_schema(request=AmountSerializer, responses={201: TransferSerializer})
    @idempotent
    def post(self, request: Request) -> Response:
        return _done(request, vaults.unstake, AmountSerializer)


def _changed(request: Request, service: Any, serializer: Any, **more: Any) -> Response:
    data = checked(serializer, request) | more
    event: PoolEvent = service(
        party=acting_party(request),
        consent=consent_of(request, data),
        idempotency=effect_id(request),
        **data,
    )
    return Response(PoolEventSerializer(event).data, status=201)


def _done(request: Request, service: Any, serializer: Any, **more: Any) -> Response:
    data = checked(serializer, request) | more
    transfer: Transfer = service(
        party=acting_party(request),
        consent=consent_of(request, data),
        idempotency=effect_id(request),
        **data,
    )
    return Response(TransferSerializer(transfer).data, status=201)


def vault_json(asset: Asset, vault: Vault | None, staked_micro: int) -> dict[str, Any]:
    return {
        "asset": asset.code,
        "shares": vault.shares.code if vault else None,
        "pid": vault.party.pid if vault else None,
        "staked_micro": staked_micro,
        "assets_micro": vault.assets_micro if vault else 0,
        "shares_micro": vault.shares_micro if vault else 0,
        "pot_micro": vault.state.pot if vault else 0,
    }


urlpatterns = [
    path("pools/", PoolsView.as_view()),
    path("pools/<slug:base>/", PoolView.as_view()),
    path("pools/<slug:base>/quote/", QuoteView.as_view()),
    path("pools/<slug:base>/swaps/", SwapsView.as_view()),
    path("pools/<slug:base>/liquidity/", LiquidityView.as_view()),
    path("pools/<slug:base>/withdrawals/", WithdrawalsView.as_view()),
    path("pools/<slug:base>/events/", PoolEventsView.as_view()),
    path("pools/<slug:base>/history/", PoolHistoryView.as_view()),
    path("vaults/", VaultsView.as_view()),
    path("vaults/<slug:asset>/", VaultView.as_view()),
    path("vaults/<slug:asset>/position/", PositionView.as_view()),
    path("vaults/<slug:asset>/unstakings/", UnstakingsView.as_view()),
    path("vaults/<slug:asset>/stakes/", VaultStakesView.as_view()),
    path("vaults/<slug:asset>/unstakes/", VaultUnstakesView.as_view()),
    path("vaults/<slug:asset>/rewards/", RewardsView.as_view()),
    path("wallet/stakes/", StakesView.as_view()),
    path("wallet/unstakes/", UnstakesView.as_view()),
]
