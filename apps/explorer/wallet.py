"""Balances, holds, history; staking and, on demonstration sites, the faucet."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_POST

from apps.accounts.selectors import keys_of, party_found
from apps.core import clock
from apps.core.clock import unix_ms
from apps.exchange import vaults
from apps.explorer.fields import AmountField
from apps.explorer.formatting import amount as amount_parts
from apps.explorer.formatting import short
from apps.explorer.page import act, for_party, paged, party_of, safe_next, show
from apps.explorer.pictures import sums
from apps.listings import mandates
from apps.listings.claims import claimable_now
from apps.listings.models import Query
from apps.protocol.consent import ANY_LISTING
from apps.wallets import keys, selectors, services
from apps.wallets import low_balance as warnings
from apps.wallets.consenting import consent_of_form
from apps.wallets.log import seqs

MANDATES_SHOWN = 50
HOLDS_SHOWN = 20
PURPOSES = {
    "main": "Available to spend",
    "staked": "Staked, votes with this weight",
    "unstaking": "On its way out of the vault",
    "vault": "Shares of the vault",
    "pool": "In the pool",
    "escrow": "In escrow",
    "treasury": "Treasury",
    "reserve": "Reserve",
    "conversion": "Released for contributors",
    "sponsors": "Released for sponsors",
    "revenue": "Revenue",
    "fees": "Fees",
    "issuance": "Issuance",
}
KINDS = {
    "wallets.faucet": "Test tokens",
    "wallets.send": "Payment",
    "wallets.reversal": "Payment given back",
    "wallets.mint": "Issued",
    "wallets.stake": "Staked",
    "wallets.unstake": "Unstaking",
    "exchange.release": "Unstaked",
    "exchange.earned": "Earned by staking",
    "exchange.shares": "Shares of the vault",
    "exchange.reward": "Reward for stakers",
    "exchange.slash": "Slashed by vote",
    "exchange.swap": "Swap",
    "exchange.add": "Liquidity added",
    "exchange.remove": "Liquidity removed",
    "rfms.pledge": "Pledge",
    "rfms.refund": "Pledge refunded",
    "rfms.withdraw": "Pledge withdrawn",
    "rfms.withdrawal": "Pledge withdrawn",
    "rfms.award": "Award of a request",
    "subdaos.mint": "Issued",
    "subdaos.pay": "Paid by a treasury",
    "subdaos.emit": "Released from the reserve",
    "subdaos.convert": "Points converted",
    "subdaos.sponsor": "Part of a sponsor",
    "listings.query": "Prediction",
    "listings.payout": "Payout of an epoch",
    "listings.treasury": "Left over of an epoch",
    "listings.plan": "Plan, paid ahead",
    "listings.plan_refund": "Plan, paid back",
    "listings.plan_lapsed": "Plan, what nobody used",
}
PHASES = {"pend": "held", "post": "paid", "void": "released", "single": ""}


KIND_GROUPS = [
    ("wallets.send", "Payments"),
    ("wallets.stake", "Staked"),
    ("wallets.unstake", "Unstaked"),
    ("listings.query", "Predictions"),
    ("rfms.pledge", "Pledges"),
    ("listings.payout", "Payouts"),
]


class OnceForm(forms.Form):
    """A form whose second sending changes nothing: `once` goes along as the idempotency."""

    once = forms.UUIDField(widget=forms.HiddenInput, initial=uuid.uuid4)


class FaucetForm(OnceForm):
    asset = forms.ChoiceField(label="Token", choices=[("USDC", "USDC"), ("FLAI", "FLAI")])
    amount = AmountField(label="Amount", initial="1000")


class StakeForm(OnceForm):
    asset = forms.ChoiceField(label="Token")
    amount = AmountField(label="Amount")

    def __init__(self, *args: Any, assets: list[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["asset"].choices = [(code, code) for code in assets]


class MandateForm(forms.Form):
    limit = AmountField(label="At most, in all", initial="25")
    # An instant, not a number of days: the page's script signs what is sent.
    until_ms = forms.CharField(label="Until", max_length=16, widget=forms.Select)
    api_key = forms.ChoiceField(label="Asked for by", required=False)
    listing = forms.CharField(
        label="Only for the model",
        required=False,
        max_length=60,
        help_text="Its short name, or nothing for every model.",
    )

    def __init__(self, *args: Any, party: Any, now: datetime, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        spans = ((30, "30 days"), (1, "a day"), (365, "a year"))
        self.fields["until_ms"].widget.choices = [
            (unix_ms(now) + days * 86_400_000, words) for days, words in spans
        ]
        self.fields["api_key"].choices = [("", "this site's pages")] + [
            (key.prefix, f"the API key {key.prefix} {key.label}") for key in keys_of(party)
        ]

    def clean_until_ms(self) -> str:
        text: str = self.cleaned_data["until_ms"]
        if not (text.isascii() and text.isdigit()):
            raise forms.ValidationError("Choose until when.")
        return text


class LowBalanceForm(forms.Form):
    low = AmountField(
        label="Warn me below", required=False, help_text="In USDC. Empty: no warning."
    )


class SendForm(OnceForm):
    to = forms.CharField(
        label="To",
        max_length=60,
        help_text="The payee's short name, or its pseudonym from the log.",
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )
    asset = forms.ChoiceField(label="Token")
    amount = AmountField(label="Amount")
    memo = forms.CharField(
        label="Note to the payee",
        required=False,
        max_length=200,
        help_text="Only you two see it; it is not in the log.",
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )

    def __init__(self, *args: Any, assets: list[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["asset"].choices = [(code, code) for code in assets]

    def clean_to(self) -> Any:
        """The party itself, found by slug or pid."""
        return payee(self.cleaned_data["to"])


class HistoryForm(forms.Form):
    """What of the history to show; empty fields leave nothing out."""

    asset = forms.ChoiceField(label="Token", required=False)
    kind = forms.ChoiceField(
        label="What", required=False, choices=[("", "Everything"), *KIND_GROUPS]
    )
    since = forms.DateField(
        label="From", required=False, widget=forms.DateInput(attrs={"type": "date"})
    )
    until = forms.DateField(
        label="To", required=False, widget=forms.DateInput(attrs={"type": "date"})
    )

    def __init__(self, *args: Any, assets: list[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["asset"].choices = [("", "All")] + [(code, code) for code in assets]


def payee(text: str) -> Any:
    """The party of a short name or a pseudonym. Raises ValidationError."""
    found = party_found(text.strip().lower())
    if found is None:
        raise forms.ValidationError("There is no party with this name or pseudonym.")
    return found


def wallet(request: HttpRequest) -> HttpResponse:
    """Your money. Without an account: what a wallet is, and how to get one."""
    party = party_of(request)
    if party is None:
        known = request.user.is_authenticated
        return show(request, "nobody.html" if known else "wallet_none.html", "wallet")
    now = clock.now()
    lines = selectors.wallet(party, now=now)
    usdc = next((x for x in lines if x.asset == "USDC" and x.purpose == "main"), None)
    flai = next((x for x in lines if x.asset == "FLAI" and x.purpose == "main"), None)
    staked = next((x for x in lines if x.asset == "FLAI" and x.purpose == "staked"), None)
    assets = sorted({x.asset for x in lines})
    wanted = HistoryForm(request.GET, assets=assets, auto_id="history_%s")
    chosen = {k: v for k, v in wanted.cleaned_data.items() if v} if wanted.is_valid() else {}
    history = paged(request, selectors.transfers_of(party, **chosen))
    entries = seqs("wallets.transfer", [str(transfer.id) for transfer in history])
    stakeable = sorted({x.asset for x in lines if _stakeable(x.asset)} | {"FLAI"})
    queries = _queries(party)
    low_micro = warnings.settings_of(party).low_micro
    waiting, more = claimable_now(party)
    held = _holds(party, lines, now)
    return show(
        request,
        "wallet.html",
        "wallet",
        party=party,
        lines=[
            {
                "line": x,
                "purpose": PURPOSES.get(x.purpose, x.purpose),
                "token": _stakeable(x.asset),
            }
            for x in lines
        ],
        usdc=usdc,
        flai=flai,
        staked=staked,
        history=history,
        moves=[_move(party, transfer, entries.get(str(transfer.id))) for transfer in history],
        stake_form=StakeForm(assets=stakeable, auto_id="stake_%s"),
        unstake_form=StakeForm(
            assets=[x.asset for x in lines if x.purpose == "staked" and x.posted_micro],
            auto_id="unstake_%s",
        ),
        faucet_form=FaucetForm(auto_id="faucet_%s") if settings.FAUCET else None,
        queries=queries,
        holds=held[:HOLDS_SHOWN],
        holds_more=len(held) > HOLDS_SHOWN,
        claimable=waiting,
        claimable_more=more,
        claimable_sum=sums((row.asset, row.amount_micro) for row in waiting),
        claimable_epochs=",".join(str(row.epoch_id) for row in waiting),
        send_form=SendForm(assets=_spendable(lines), auto_id="send_%s"),
        history_form=wanted,
        low_form=LowBalanceForm(initial={"low": _plain(low_micro)}, auto_id="low_%s"),
        low_micro=low_micro,
        filtered=bool(chosen),
        query=urlencode({k: str(v) for k, v in chosen.items()}),
    )


def _plain(micro: int | None) -> str:
    return short(micro, decimals_min=2) if micro else ""


def _spendable(lines: list[Any]) -> list[str]:
    return [x.asset for x in lines if x.purpose == "main" and x.available_micro > 0]


@for_party
def key(request: HttpRequest) -> HttpResponse:
    """The wallet key: what it does, which are bound, and what can be done; a script does it."""
    party, now = party_of(request), clock.now()
    rows = mandates.with_spent(mandates.in_force(party, now=now)).order_by("until", "id")
    response = show(
        request,
        "wallet_key.html",
        "wallet",
        party=party,
        bound=keys.keys_of(party)["keys"],
        mandates=rows[:MANDATES_SHOWN],
        mandate_form=MandateForm(party=party, now=now, auto_id="mandate_%s"),
    )
    response.headers["Cache-Control"] = "no-store"
    return response


@require_POST
@for_party
def mandate_give(request: HttpRequest) -> HttpResponse:
    """A mandate for predictions, as the page's script has had it signed."""
    party, now, back = party_of(request), clock.now(), reverse("explorer:wallet-key")
    form = MandateForm(request.POST, party=party, now=now)
    if not form.is_valid():
        problem = " ".join(text for errors in form.errors.values() for text in errors)
        messages.error(request, f"No mandate was given. {problem}")
        return redirect(back)
    data = form.cleaned_data
    return act(
        request,
        back,
        "Predictions can be paid by this mandate now.",
        lambda: mandates.mandate_give(
            party=party,
            listing=data["listing"] or ANY_LISTING,
            limit_micro=data["limit"],
            until_ms=int(data["until_ms"]),
            api_key=data["api_key"],
            consent=consent_of_form(request),
            now=now,
        ),
    )


@require_POST
@for_party
def mandate_end(request: HttpRequest, mandate_id: uuid.UUID) -> HttpResponse:
    party = party_of(request)
    return act(
        request,
        reverse("explorer:wallet-key"),
        "Nothing more is paid by this mandate.",
        lambda: mandates.mandate_end(party=party, mandate_id=mandate_id, now=clock.now()),
    )


@require_POST
@for_party
def send(request: HttpRequest) -> HttpResponse:
    """First a preview of exactly what will happen; with `confirm`, the payment."""
    party = party_of(request)
    lines = selectors.wallet(party, now=clock.now())
    assets = sorted({*_spendable(lines), request.POST.get("asset", "")} - {""})
    form = SendForm(request.POST, assets=assets, auto_id="send_%s")
    if not form.is_valid():
        return show(request, "send.html", "wallet", status=422, party=party, form=form)
    data = form.cleaned_data
    if not request.POST.get("confirm"):
        line = next((x for x in lines if (x.asset, x.purpose) == (data["asset"], "main")), None)
        left = (line.available_micro if line else 0) - data["amount"]
        return show(
            request, "send.html", "wallet", party=party, form=form, data=data, left_micro=left
        )
    return _moved(
        request,
        form,
        reverse("explorer:wallet"),
        lambda amount: f"Paid {amount} to {data['to'].name}.",
        lambda data: services.send(
            party=party,
            to=data["to"],
            asset=data["asset"],
            amount_micro=data["amount"],
            memo=data["memo"],
            idempotency=data["once"],
            consent=consent_of_form(request),
        ),
    )


@require_POST
@for_party
def low_balance(request: HttpRequest) -> HttpResponse:
    """The balance to be warned below; nothing: no warning."""
    party, back = party_of(request), reverse("explorer:wallet")
    form = LowBalanceForm(request.POST)
    if not form.is_valid():
        messages.error(request, f"Nothing was changed. {' '.join(form.errors.get('low', []))}")
        return redirect(back)
    low_micro = form.cleaned_data["low"]
    return act(
        request,
        back,
        "You are warned once each time your balance falls below it."
        if low_micro
        else "You are not warned of a low balance any more.",
        lambda: warnings.settings_set(
            party=party,
            low_micro=low_micro,
            billing=warnings.settings_of(party).billing,
            now=clock.now(),
        ),
    )


@require_POST
@for_party
def stake(request: HttpRequest) -> HttpResponse:
    return _staking(
        request, vaults.stake, "Staked {amount}. It votes in the SuperDAO's next proposals."
    )


@require_POST
@for_party
def unstake(request: HttpRequest) -> HttpResponse:
    return _staking(
        request, vaults.unstake, "Unstaking {amount}. It is free again after the delay."
    )


def _staking(request: HttpRequest, service: Any, done: str) -> HttpResponse:
    party, back = party_of(request), reverse("explorer:wallet")
    form = StakeForm(request.POST, assets=[request.POST.get("asset", "")])
    return _moved(
        request,
        form,
        back,
        done,
        lambda data: service(
            party=party,
            asset=data["asset"],
            amount_micro=data["amount"],
            idempotency=data["once"],
            consent=consent_of_form(request),
        ),
    )


@require_POST
@for_party
def faucet(request: HttpRequest) -> HttpResponse:
    party, back = party_of(request), reverse("explorer:wallet")
    return _moved(
        request,
        FaucetForm(request.POST),
        back,
        "You received {amount} of test money.",
        lambda data: services.faucet(
            party=party,
            asset=data["asset"],
            amount_micro=data["amount"],
            idempotency=data["once"],
        ),
    )


def _moved(
    request: HttpRequest, form: forms.Form, back: str, done: Any, service: Any
) -> HttpResponse:
    if not form.is_valid():
        problem = "; ".join(
            f"{form.fields[name].label or name}: {' '.join(errors)}"
            for name, errors in form.errors.items()
        )
        messages.error(request, f"Nothing was moved. {problem}")
        onward = safe_next(request, "")
        return redirect(f"{back}?{urlencode({'next': onward})}" if onward else back)
    data = form.cleaned_data
    sign, prefix, number, unit = amount_parts(data["amount"], data["asset"])
    moved = f"{sign}{prefix}{number} {unit}".strip()
    text = done(moved) if callable(done) else done.format(amount=moved)
    return act(request, back, text, lambda: service(data))


def _stakeable(code: str) -> bool:
    return code == "FLAI" or code.startswith("SDT-")


def _move(party: Any, transfer: Any, entry: int | None) -> dict[str, Any]:
    """A transfer as this party sees it: signed, with the other side and its entry in the log."""
    mine_out, mine_in = transfer.debit.owner_id == party.id, transfer.credit.owner_id == party.id
    within = mine_out and mine_in
    other = transfer.credit if mine_out else transfer.debit
    sign = 0 if within else (-1 if mine_out else 1)
    return {
        "transfer": transfer,
        "entry": entry,
        "asset": transfer.debit.asset.code,
        "amount_micro": transfer.amount_micro * (sign or 1),
        "signed": not within and transfer.phase in ("single", "post"),
        "what": KINDS.get(transfer.kind, transfer.kind.split(".")[-1].replace("_", " ")),
        "phase": PHASES.get(transfer.phase, transfer.phase),
        "other": f"{transfer.debit.purpose} → {transfer.credit.purpose}"
        if within
        else other.owner.name,
    }


def _holds(party: Any, lines: list[Any], now: datetime) -> list[dict[str, Any]]:
    """What makes up the balances' `held`, one more than is shown; asked only where there is any."""
    if not any(line.held_micro for line in lines):
        return []
    return [
        {
            "what": KINDS.get(hold.transfer.kind, hold.transfer.kind),
            "to": hold.transfer.credit.owner.name,
            "asset": hold.account.asset.code,
            "amount_micro": hold.amount_micro,
            "expires_at": hold.expires_at,
        }
        for hold in selectors.holds_of(party, now=now)[: HOLDS_SHOWN + 1]
    ]


def _queries(party: Any) -> list[Any]:
    rows = Query.objects.filter(buyer=party).select_related("listing__dao")
    shown = ("state", "price_micro", "created_at", "listing__dao__name")
    return list(rows.only(*shown).order_by("-created_at")[:5])
