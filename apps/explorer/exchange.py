"""Tokens, their pools and vaults: what one is worth, trading it, staking it."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import messages
from django.db.models import Q, Sum
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_POST

from apps.accounts.models import Party
from apps.core import clock
from apps.core.clock import from_unix_ms, unix_ms
from apps.core.errors import DomainError
from apps.exchange import pools, selectors, vaults
from apps.exchange.models import Pool, PoolEvent
from apps.explorer.emission import course
from apps.explorer.fields import AmountField, PercentField
from apps.explorer.formatting import amount as amount_parts
from apps.explorer.page import act, explain, for_party, paged, party_of, show
from apps.explorer.pictures import Timeline, timeline
from apps.protocol import pool as rules
from apps.protocol import unlocks
from apps.protocol.money import BPS
from apps.subdaos.models import Dao
from apps.subdaos.selectors import dao_list, superdao
from apps.wallets.consenting import consent_of_form
from apps.wallets.models import Account, Asset
from apps.wallets.selectors import asset_by_code

DAY = timedelta(days=1)
CHART_DAYS = 30
EVENTS_SHOWN = 10
HOLDERS_SHOWN = 8  # the page says eight
# A preview is a price with an end; whoever takes longer looks again.
QUOTE_LIFE = timedelta(minutes=3)
LOCKS = (("0", "No lock"), ("2592000", "30 days"), ("7776000", "90 days"), ("15552000", "180 days"))
KINDS = {"swap": "Swap", "add": "Liquidity added", "remove": "Liquidity removed"}


class OnceForm(forms.Form):
    once = forms.UUIDField(widget=forms.HiddenInput, initial=uuid.uuid4)


class SwapForm(OnceForm):
    side = forms.ChoiceField(label="You give")
    amount = AmountField(label="Amount", initial="10")
    slippage = PercentField(label="Slippage limit", initial="0.5", maximum=5_000)

    def __init__(self, *args: Any, pool: Pool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["side"].choices = [
            ("quote", f"{pool.quote.code} for {short(pool.base)}"),
            ("base", f"{short(pool.base)} for {pool.quote.code}"),
        ]


class ConfirmForm(SwapForm):
    """A swap after its preview: what was previewed, the least that must come out, until when."""

    out_min = forms.IntegerField(min_value=0)
    until = forms.IntegerField(min_value=0, max_value=2**53)
    previewed = forms.CharField(max_length=40)

    def clean(self) -> dict[str, Any]:
        """A limit is that of the amount it was shown for, and of no other."""
        data = super().clean()
        if data.get("previewed") != f"{data.get('side')} {data.get('amount')}":
            self.add_error("previewed", "Look at the preview of these values first.")
        return data


class LiquidityForm(OnceForm):
    base = AmountField(label="Token, at most")
    quote = AmountField(label="USDC, at most")


class RemoveForm(OnceForm):
    """The other three are what the page showed: limits are measured from there."""

    part = PercentField(label="Part of your liquidity", initial="100")
    shares_micro = forms.IntegerField(widget=forms.HiddenInput, min_value=0)
    base_micro = forms.IntegerField(widget=forms.HiddenInput, min_value=0)
    quote_micro = forms.IntegerField(widget=forms.HiddenInput, min_value=0)


class StakeForm(OnceForm):
    amount = AmountField(label="Amount")
    lock = forms.ChoiceField(label="Lock", choices=LOCKS, initial="0", required=False)


class UnstakeForm(OnceForm):
    amount = AmountField(label="Amount")


def tokens(request: HttpRequest) -> HttpResponse:
    """All tokens that can be traded or staked: FLAI, then the SubDAOs', newest first."""
    page = paged(request, dao_list())
    shown: list[tuple[Asset, Dao | None]] = [(dao.asset, dao) for dao in page]
    if not page.newer:
        shown.insert(0, (asset_by_code("FLAI"), None))
    ids = [asset.id for asset, _ in shown]
    sums = Account.objects.filter(asset__in=ids, purpose__in=("staked", "issuance"))
    by_purpose = {
        (row["asset"], row["purpose"]): row["sum"]
        for row in sums.values("asset", "purpose").annotate(sum=Sum("posted_micro"))
    }
    prices = {pool.base_id: pool.price_micro for pool in Pool.objects.filter(base__in=ids)}
    listed = [
        {
            "asset": asset,
            "dao": dao,
            "supply_micro": -by_purpose.get((asset.id, "issuance"), 0),
            "staked_micro": by_purpose.get((asset.id, "staked"), 0),
            "price_micro": prices.get(asset.id),
        }
        for asset, dao in shown
    ]
    return show(request, "tokens.html", "tokens", page=page, rows=listed)


def token(request: HttpRequest, code: str) -> HttpResponse:
    """One token: supply, holders, price, its pool and vault."""
    asset, dao = _asset(code)
    pool, now = _pool(asset), clock.now()
    spread = selectors.spread(asset)
    holders, largest = selectors.holders(asset, most=HOLDERS_SHOWN)
    return show(
        request,
        "token.html",
        "tokens",
        asset=asset,
        dao=dao,
        name=short(asset),
        supply_micro=spread.supply_micro,
        staked_micro=spread.staked_micro,
        holders=[
            {
                "micro": micro,
                "who": _who(party, dao),
                "bps": micro * BPS // max(spread.supply_micro, 1),
            }
            for party, micro in largest
        ],
        holders_count=holders,
        pool=pool,
        **(_market(pool, now) if pool else {}),
        **(course(dao, now) if dao else {}),
    )


def pool_page(request: HttpRequest, code: str) -> HttpResponse:
    """Swap, liquidity, history of one pool; where there is none, how to open it."""
    asset, dao = _asset(code)
    pool, party, now = _pool(asset), party_of(request), clock.now()
    context: dict[str, Any] = {
        "asset": asset,
        "dao": dao,
        "name": short(asset),
        "pool": pool,
        "party": party,
        "has": _available(party, asset, "USDC"),
        "liquidity_form": LiquidityForm(auto_id="liquidity_%s"),
    }
    if pool is None:
        return show(request, "pool.html", "tokens", **context)
    asked = SwapForm(request.GET, pool=pool) if "amount" in request.GET else None
    events = list(selectors.pool_events(pool)[:EVENTS_SHOWN])
    mine = selectors.liquidity_of(pool, party) if party else None
    form = SwapForm(
        pool=pool, initial={k: request.GET[k] for k in request.GET if k in ("side", "amount")}
    )
    return show(
        request,
        "pool.html",
        "tokens",
        **context,
        **_market(pool, now),
        form=form,
        **_preview(pool, asked, now),
        mine=mine,
        remove_form=RemoveForm(auto_id="remove_%s", initial=mine),
        events=[_event(event, pool) for event in events],
        fee_bps=rules.FEE_PER_MILLE * 10,
    )


def quote(request: HttpRequest, code: str) -> HttpResponse:
    """The preview alone, as one types."""
    asset, _ = _asset(code)
    pool = _pool(asset)
    if pool is None:
        raise Http404
    context = _preview(pool, SwapForm(request.GET, pool=pool), clock.now())
    context |= {"party": party_of(request), "asset": asset, "name": short(asset), "pool": pool}
    return render(request, "explorer/_quote.html", context)


@require_POST
@for_party
def swap(request: HttpRequest, code: str) -> HttpResponse:
    """Trade as previewed; without a preview, show one first."""
    asset, _ = _asset(code)
    pool, back = _pool(asset), reverse("explorer:pool", args=[code])
    if pool is None:
        raise Http404
    form = ConfirmForm(request.POST, pool=pool)
    if not form.is_valid():
        shown = {k: request.POST.get(k, "")[:32] for k in ("side", "amount", "slippage")}
        query = "&".join(f"{k}={v}" for k, v in shown.items() if v.replace(".", "").isalnum())
        return redirect(f"{back}?{query}#swap")
    data = form.cleaned_data

    def done(event: PoolEvent) -> str:
        paid, got = (event.base_micro, -event.quote_micro)
        if data["side"] == "quote":
            paid, got = event.quote_micro, -event.base_micro
        names = (asset.code, pool.quote.code)
        names = names if data["side"] == "base" else names[::-1]
        return f"Swapped {say(paid, names[0])} for {say(got, names[1])}."

    return act(
        request,
        back,
        done,
        lambda: pools.swap(
            party=party_of(request),
            base=code,
            side=data["side"],
            amount_micro=data["amount"],
            out_min_micro=data["out_min"],
            deadline=from_unix_ms(data["until"]),
            idempotency=data["once"],
            consent=consent_of_form(request),
        ),
    )


@require_POST
@for_party
def liquidity(request: HttpRequest, code: str) -> HttpResponse:
    """Open the pool or add to it."""
    asset, _ = _asset(code)
    pool, back = _pool(asset), reverse("explorer:pool", args=[code])
    form = LiquidityForm(request.POST)
    if not form.is_valid():
        return _refused(request, form, back)
    data = form.cleaned_data
    shared = {
        "party": party_of(request),
        "base": code,
        "idempotency": data["once"],
        "consent": consent_of_form(request),
    }

    def done(event: PoolEvent) -> str:
        parts = f"{say(event.base_micro, code)} and {say(event.quote_micro, 'USDC')}"
        return f"Added {parts}." if pool else f"The pool is open with {parts}."

    if pool is None:
        amounts = {"base_micro": data["base"], "quote_micro": data["quote"]}
        return act(request, back, done, lambda: pools.pool_open(**shared, **amounts))
    amounts = {"base_max_micro": data["base"], "quote_max_micro": data["quote"]}
    return act(request, back, done, lambda: pools.liquidity_add(**shared, **amounts))


@require_POST
@for_party
def liquidity_remove(request: HttpRequest, code: str) -> HttpResponse:
    """Take out a part of one's liquidity, at most half a per cent worse than it stands now."""
    asset, _ = _asset(code)
    pool, back = _pool(asset), reverse("explorer:pool", args=[code])
    if pool is None:
        raise Http404
    form = RemoveForm(request.POST)
    if not form.is_valid():
        return _refused(request, form, back)
    mine, part = form.cleaned_data, form.cleaned_data["part"]
    slack = BPS - selectors.SLIPPAGE_BPS

    def done(event: PoolEvent) -> str:
        return f"Took out {say(-event.base_micro, code)} and {say(-event.quote_micro, 'USDC')}."

    return act(
        request,
        back,
        done,
        lambda: pools.liquidity_remove(
            party=party_of(request),
            base=code,
            shares_micro=mine["shares_micro"] * part // BPS,
            base_min_micro=mine["base_micro"] * part // BPS * slack // BPS,
            quote_min_micro=mine["quote_micro"] * part // BPS * slack // BPS,
            idempotency=form.cleaned_data["once"],
            consent=consent_of_form(request),
        ),
    )


def vault_page(request: HttpRequest, code: str) -> HttpResponse:
    """Stake and unstake one token; what is locked, what is on its way out, what it is good for."""
    asset, dao = _asset(code)
    party, now = party_of(request), clock.now()
    vault = selectors.vault_of(asset)
    mine = selectors.staked_of(party, asset) if party else None
    locked = mine.locked_until if mine and mine.locked_until and mine.locked_until > now else None
    leaving = selectors.unstakings_of(party, asset) if party else ()
    waiting = list(leaving[: selectors.UNSTAKINGS_SHOWN + 1])
    spread = selectors.spread(asset)
    rules = _unlocks(asset, dao)
    needed = unlocks.needed_micro(rules, supply_micro=spread.supply_micro) if rules else 0
    return show(
        request,
        "vault.html",
        "tokens",
        asset=asset,
        dao=dao,
        name=short(asset),
        vault=vault,
        pot_micro=vault.state.pot if vault else 0,
        staked_micro=spread.staked_micro,
        supply_micro=spread.supply_micro,
        unlocks=rules,
        needed_micro=needed,
        lacks_micro=max(needed - (mine.principal_micro if mine else 0), 0),
        party=party,
        mine=mine,
        share_bps=mine.principal_micro * BPS // max(spread.staked_micro, 1) if mine else 0,
        earned_micro=mine.worth_micro - mine.principal_micro if mine else 0,
        locked_until=locked,
        waiting=waiting[: selectors.UNSTAKINGS_SHOWN],
        more=len(waiting) > selectors.UNSTAKINGS_SHOWN,
        has=_available(party, asset)[0] if party else 0,
        delay_s=vault.delay_s if vault and vault.delay_s is not None else settings.UNSTAKE_DELAY_S,
        boost=int(dao.params["stake_boost_bps"]) / BPS if dao else None,
        stake_form=StakeForm(auto_id="stake_%s"),
        unstake_form=UnstakeForm(auto_id="unstake_%s"),
    )


@require_POST
@for_party
def vault_stake(request: HttpRequest, code: str) -> HttpResponse:
    back = reverse("explorer:vault", args=[code])
    form = StakeForm(request.POST)
    if not form.is_valid():
        return _refused(request, form, back)
    data = form.cleaned_data
    return act(
        request,
        back,
        f"Staked {say(data['amount'], code)}.",
        lambda: vaults.stake(
            party=party_of(request),
            asset=code,
            amount_micro=data["amount"],
            lock_s=int(data["lock"] or 0),
            idempotency=data["once"],
            consent=consent_of_form(request),
        ),
    )


@require_POST
@for_party
def vault_unstake(request: HttpRequest, code: str) -> HttpResponse:
    back = reverse("explorer:vault", args=[code])
    form = UnstakeForm(request.POST)
    if not form.is_valid():
        return _refused(request, form, back)
    data = form.cleaned_data
    return act(
        request,
        back,
        f"Unstaking {say(data['amount'], code)}. It is free again after the delay.",
        lambda: vaults.unstake(
            party=party_of(request),
            asset=code,
            amount_micro=data["amount"],
            idempotency=data["once"],
            consent=consent_of_form(request),
        ),
    )


def _unlocks(asset: Asset, dao: Dao | None) -> unlocks.Unlocks | unlocks.Sponsoring | None:
    """What a stake of this token unlocks: its model's members said so, of FLAI the SuperDAO."""
    if dao is not None:
        return unlocks.unlocks_of(dao.params["unlocks"])
    if asset.code == "FLAI":
        return unlocks.sponsoring_of(superdao().params["sponsoring"])
    return None


def short(asset: Asset) -> str:
    """How a token is called on pages: FLAI, or SDT."""
    return "SDT" if asset.code.startswith("SDT-") else asset.code


def say(micro: int, code: str) -> str:
    """ "12.5 FLAI" or "$3.20"."""
    sign, prefix, number, unit = amount_parts(micro, code)
    unit = "SDT" if unit.startswith("SDT-") else unit
    return f"{sign}{prefix}{number} {unit}".strip()


def _asset(code: str) -> tuple[Asset, Dao | None]:
    asset = (
        Asset.objects.filter(code=code)
        .filter(Q(code="FLAI") | Q(dao__isnull=False))
        .select_related("dao__party")
        .first()
    )
    if asset is None:
        raise Http404
    return asset, getattr(asset, "dao", None)


def _pool(asset: Asset) -> Pool | None:
    return selectors.pool_list().filter(base=asset).first()


def _market(pool: Pool, now: datetime) -> dict[str, Any]:
    """Price, its mean and course, volume."""
    instants = selectors.edges(pool, start=now - CHART_DAYS * DAY, end=now, buckets=60)
    yesterday, *course = selectors.moments(pool, [now - DAY, *instants])
    rows = selectors.between(course)
    points = [(row.start, row.mean_micro) for row in rows]
    line: Timeline | None = None
    if points:
        points[-1] = (points[-1][0], pool.price_micro)
        line = timeline(points, start=points[0][0], end=rows[-1].end)
    return {
        "price_micro": pool.price_micro,
        "mean_micro": selectors.mean_between(yesterday, course[-1]),
        "volume_micro": int(pool.volume_micro) - (yesterday.volume_micro if yesterday else 0),
        "line": line,
    }


def _preview(pool: Pool, asked: SwapForm | None, now: datetime) -> dict[str, Any]:
    """What the form's swap would give, or why there is none."""
    if asked is None:
        return {"quote": None}
    # `once` is made with the page; a preview does not need it.
    asked.fields.pop("once")
    if not asked.is_valid():
        errors = [str(text) for name in asked.errors for text in asked.errors[name]]
        return {"quote": None, "problem": " ".join(errors)}
    data = asked.cleaned_data
    try:
        found = selectors.quote(
            pool, side=data["side"], amount_micro=data["amount"], slippage_bps=data["slippage"]
        )
    except DomainError as error:
        return {"quote": None, "problem": explain(error)}
    return {
        "quote": found,
        "until_ms": unix_ms(now + QUOTE_LIFE),
        "impact": f"{found.impact_ppm / 10_000:.2f} %",
        "dear": found.impact_ppm > 50_000,
    }


def _available(party: Any, *assets: Asset | str) -> list[int]:
    if party is None:
        return [0 for _ in assets]
    codes = [asset if isinstance(asset, str) else asset.code for asset in assets]
    rows = Account.objects.filter(owner=party, asset__code__in=codes, purpose="main")
    found = {row.asset.code: row.available_micro for row in rows.select_related("asset")}
    return [found.get(code, 0) for code in codes]


def _event(event: PoolEvent, pool: Pool) -> dict[str, Any]:
    return {
        "what": KINDS[event.kind],
        "who": event.party,
        "base_micro": -event.base_micro,
        "quote_micro": -event.quote_micro,
        "price_micro": event.price_micro,
        "at": event.at,
    }


def _who(party: Party, dao: Dao | None) -> str:
    if dao is not None and party.id == dao.party_id:
        return "Treasury and reserve"
    return party.name


def _refused(request: HttpRequest, form: forms.Form, back: str) -> HttpResponse:
    problem = "; ".join(
        f"{form.fields[name].label or name}: {' '.join(errors)}"
        for name, errors in form.errors.items()
    )
    messages.error(request, f"Nothing was moved. {problem}")
    return redirect(back)
