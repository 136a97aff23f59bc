"""Signing up, in and out; the account with its keys."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from django import forms
from django.conf import settings
from django.contrib import messages
from django.contrib.auth import login
from django.contrib.auth.forms import AuthenticationForm
from django.contrib.auth.views import LoginView, LogoutView
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse, reverse_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_POST

from apps.accounts import selectors, services, throttling
from apps.accounts.models import SCOPES
from apps.core import clock
from apps.core.errors import DomainError
from apps.explorer.page import act, explain, for_party, party_of, safe_next, show

# What a key is for, in words, and the scopes that this takes; the API knows any mixture.
MAY: dict[str, tuple[str, Sequence[str]]] = {
    "all": ("everything that you may", SCOPES),
    "buy": ("buy predictions, read everything", ("read", "inferences")),
    "inferences": ("buy predictions only", ("inferences",)),
    "read": ("read only", ("read",)),
}
TOO_MANY = "Too many accounts were asked for from your address. Wait an hour, then try again."


class SignUpForm(forms.Form):
    email = forms.EmailField(
        label="E-mail", widget=forms.EmailInput(attrs={"autocomplete": "email"})
    )
    password = forms.CharField(
        label="Password",
        help_text="At least 8 characters, not one of the common ones.",
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
        strip=False,
    )
    name = forms.CharField(
        label="Public name",
        max_length=120,
        help_text="Shown beside your votes, pledges and applications. The log has a pseudonym.",
        widget=forms.TextInput(attrs={"autocomplete": "organization"}),
    )
    kind = forms.ChoiceField(
        label="You act as",
        choices=[("person", "A person"), ("organisation", "An organisation")],
    )


class SignInForm(AuthenticationForm):
    error_messages = {
        "invalid_login": "This e-mail and password don't belong together. Check both, try again.",
        "inactive": "This account is closed.",
        "too_many": "Too many wrong passwords. Wait a quarter of an hour, then try again.",
    }

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.fields["username"].label = "E-mail"

    def clean(self) -> dict[str, object]:
        who = {
            "email": str(self.cleaned_data.get("username", "")),
            "address": str(self.request.META.get("REMOTE_ADDR", "")),
        }
        if not throttling.may_guess(**who):
            raise forms.ValidationError(self.error_messages["too_many"], code="too_many")
        try:
            return super().clean()
        except forms.ValidationError:
            throttling.guessed_wrong(**who)
            raise


class KeyForm(forms.Form):
    label = forms.CharField(
        label="What is it for?",
        max_length=60,
        help_text="For example: prediction service, staging.",
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )
    may = forms.ChoiceField(
        label="What may it do?", choices=[(name, text) for name, (text, _) in MAY.items()]
    )
    days = forms.IntegerField(
        label="For how many days?",
        min_value=1,
        max_value=3650,
        required=False,
        help_text="Leave it empty for a key that works until you revoke it.",
    )


def may(scopes: list[str]) -> str:
    """A key's scopes in words."""
    for text, wanted in MAY.values():
        if list(wanted) == scopes:
            return text
    return ", ".join(scopes)


@never_cache
@sensitive_post_parameters("password")
def sign_up(request: HttpRequest) -> HttpResponse:
    """A new account, signed in at once."""
    if request.user.is_authenticated:
        return redirect("explorer:account")
    form = SignUpForm(request.POST if request.method == "POST" else None)
    # Every attempt counts, as in the API: whether an e-mail is known is an answer too.
    if request.method == "POST" and not throttling.SignUpThrottle().allow_request(request):
        form.is_valid()
        form.add_error(None, TOO_MANY)
        return show(request, "sign_up.html", "", status=429, form=form)
    if request.method == "POST" and form.is_valid():
        try:
            user, party = services.sign_up(**form.cleaned_data)
        except DomainError as error:
            field = str(error.args_.get("field") or ("email" if "email" in error.code else ""))
            form.add_error(field if field in form.fields else None, explain(error))
        else:
            login(request, user, backend="django.contrib.auth.backends.ModelBackend")
            messages.success(request, f"Welcome, {party.name}. Your account is ready.")
            start = reverse("explorer:wallet" if settings.FAUCET else "explorer:home")
            return redirect(safe_next(request, start))
    status = 422 if form.errors else 200
    return show(request, "sign_up.html", "", status=status, form=form)


class SignIn(LoginView):
    template_name = "explorer/sign_in.html"
    authentication_form = SignInForm
    redirect_authenticated_user = True
    extra_context = {"section": ""}


class SignOut(LogoutView):
    next_page = reverse_lazy("explorer:home")


@never_cache
@for_party
def account(request: HttpRequest) -> HttpResponse:
    """Who you are here, and the keys your programs use. A new key is shown in this answer only."""
    party = party_of(request)
    form, fresh = KeyForm(), None
    if request.method == "POST":
        form = KeyForm(request.POST)
        if form.is_valid():
            try:
                wanted, now = form.cleaned_data, clock.now()
                days = wanted["days"]
                _, fresh = services.api_key_create(
                    user=request.user,
                    party=party,
                    label=wanted["label"],
                    scopes=MAY[wanted["may"]][1],
                    expires_at=now + timedelta(days=days) if days else None,
                    now=now,
                )
                form = KeyForm()
            except DomainError as error:
                form.add_error(None, explain(error))
    keys = list(selectors.keys_of(party))
    for key in keys:
        key.may = may(key.scopes)
    response = show(
        request,
        "account.html",
        "account",
        party=party,
        form=form,
        fresh=fresh,
        keys=keys,
        base_url=settings.BASE_URL,
    )
    response.headers["Cache-Control"] = "no-store"
    return response


@require_POST
@for_party
def key_revoke(request: HttpRequest, key_id: str) -> HttpResponse:
    party = party_of(request)
    return act(
        request,
        reverse("explorer:account"),
        "The key is revoked. Programs that use it are refused from now on.",
        lambda: services.api_key_revoke(party=party, key_id=key_id),
    )
