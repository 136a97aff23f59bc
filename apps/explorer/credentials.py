"""Credentials: those that one holds, and those that one issues to others and revokes."""

from __future__ import annotations

from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_POST

from apps.accounts.selectors import party_found
from apps.core import clock
from apps.core.errors import DomainError, NotFound
from apps.explorer.page import act, explain, for_party, paged, party_of, show
from apps.protocol.credentials import KIND_MAX, LIFETIME_MS_MAX
from apps.wallets import credentials as service
from apps.wallets.consenting import consent_of_form

DAYS_MAX = LIFETIME_MS_MAX // 86_400_000
STATES = {
    "in_force": "in force",
    "revoked": "revoked",
    "expired": "expired",
    "other_key": "of a replaced key",
}


class IssueForm(forms.Form):
    """What a preview is made of."""

    subject = forms.CharField(
        label="Who", max_length=60, help_text="A short name, or the pseudonym from the log."
    )
    credential = forms.CharField(
        label="Is",
        max_length=KIND_MAX,
        help_text="Like accredited-hospital: as the models that ask for it call it.",
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )
    days = forms.IntegerField(
        label="For how many days", min_value=1, max_value=DAYS_MAX, initial=365
    )

    def __init__(self, *args: Any, issuer: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.issuer = issuer

    def clean_subject(self) -> Any:
        found = party_found(self.cleaned_data["subject"].strip().lower())
        if found is None:
            raise forms.ValidationError("There is no party with this name or pseudonym.")
        try:
            service.ensure_subject(found, found.wallet_key)
        except DomainError as error:
            raise forms.ValidationError(explain(error)) from None
        return found

    def clean_credential(self) -> str:
        kind = "-".join(self.cleaned_data["credential"].lower().split())
        try:
            service.ensure_asked(self.issuer, kind)
        except DomainError as error:
            raise forms.ValidationError(explain(error)) from None
        return kind


class IssuedForm(forms.Form):
    """What the preview has put there, as it is signed."""

    subject = forms.CharField(max_length=32)
    credential = forms.CharField(max_length=KIND_MAX)
    key = forms.CharField(max_length=64)
    until_ms = forms.IntegerField(min_value=1, max_value=2**53)


def _lines(rows: Any) -> list[dict[str, Any]]:
    now = clock.now()
    states = [service.state_of(row, now=now) for row in rows]
    return [
        {"row": row, "state": state, "said": STATES[state]}
        for row, state in zip(rows, states, strict=True)
    ]


@for_party
def held(request: HttpRequest) -> HttpResponse:
    """One's own, newest first."""
    party = party_of(request)
    rows = paged(request, service.held_by(party))
    return show(request, "credentials.html", "wallet", party=party, rows=rows, lines=_lines(rows))


@for_party
def issued(request: HttpRequest) -> HttpResponse:
    """Those that one has issued; `?subject=…&credential=…&days=…` previews another, POST issues it
    exactly so."""
    party, now = party_of(request), clock.now()
    if request.method == "POST":
        return _issue(request, party)
    asks = "subject" in request.GET
    form = IssueForm(request.GET if asks else None, auto_id="issue_%s", issuer=party)
    seen = None
    if asks and form.is_valid():
        data = form.cleaned_data
        until_ms = service.until_of(data["days"], now=now)
        seen = data | {"until_ms": until_ms, "until": clock.from_unix_ms(until_ms)}
    rows = paged(request, service.issued_by(party))
    return show(
        request,
        "credentials_issued.html",
        "wallet",
        status=422 if asks and seen is None else 200,
        party=party,
        form=form,
        kinds=service.kinds_of(party),
        seen=seen,
        rows=rows,
        lines=_lines(rows),
    )


def _issue(request: HttpRequest, party: Any) -> HttpResponse:
    form = IssuedForm(request.POST)

    def issue() -> Any:
        subject = party_found(form.cleaned_data["subject"]) if form.is_valid() else None
        if subject is None:
            raise NotFound("party_not_found", "There is no such party. Nothing was issued.")
        data = form.cleaned_data
        return service.credential_issue(
            issuer=party,
            subject=subject,
            kind=data["credential"],
            key=data["key"],
            until_ms=data["until_ms"],
            consent=consent_of_form(request),
            now=clock.now(),
        )

    return act(
        request,
        reverse("explorer:credentials-issued"),
        lambda row: f"{row.subject.name} has the credential “{row.kind}” now.",
        issue,
    )


@require_POST
@for_party
def revoke(request: HttpRequest) -> HttpResponse:
    """Take one back that one has issued."""
    party = party_of(request)
    return act(
        request,
        reverse("explorer:credentials-issued"),
        lambda row: f"The credential “{row.kind}” of {row.subject.name} is revoked.",
        lambda: service.credential_revoke(
            issuer=party,
            digest=request.POST.get("id", "")[:64],
            consent=consent_of_form(request),
            now=clock.now(),
        ),
    )
