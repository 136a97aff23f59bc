"""Where your programs are called, every call, and "make it again"."""

from __future__ import annotations

from uuid import UUID

from django import forms
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from apps.core import clock
from apps.core.errors import DomainError
from apps.explorer.page import act, explain, for_party, paged, party_of, show
from apps.notify import services
from apps.notify.models import EVENTS, Delivery, Endpoint

PAGE = "explorer:webhooks"


class WebhookForm(forms.Form):
    url = forms.CharField(
        label="Address",
        max_length=500,
        help_text="https:// on a public host. Addresses of private networks are not called.",
        widget=forms.URLInput(attrs={"autocomplete": "off"}),
    )


@never_cache
@for_party
def webhooks(request: HttpRequest) -> HttpResponse:
    """Your webhooks and the calls to them. A new secret is shown in this answer only."""
    party = party_of(request)
    form, fresh = WebhookForm(), None
    if request.method == "POST":
        form = WebhookForm(request.POST)
        if form.is_valid():
            try:
                _, fresh = services.endpoint_create(
                    party=party, url=form.cleaned_data["url"], events=EVENTS, now=clock.now()
                )
                form = WebhookForm()
            except DomainError as error:
                form.add_error("url" if error.args_.get("field") == "url" else None, explain(error))
    endpoints = list(Endpoint.objects.filter(party=party, removed_at=None).order_by("-created_at"))
    calls = (
        Delivery.objects.filter(endpoint__in=[endpoint.pk for endpoint in endpoints])
        .select_related("endpoint")
        .order_by("-created_at", "-id")
    )
    response = show(
        request,
        "webhooks.html",
        "account",
        form=form,
        fresh=fresh,
        endpoints=endpoints,
        calls=paged(request, calls),
        attempts_max=len(services.BACKOFF_S) + 1,
    )
    response.headers["Cache-Control"] = "no-store"
    return response


@require_POST
@for_party
def ping(request: HttpRequest, endpoint_id: UUID) -> HttpResponse:
    party = party_of(request)
    return act(
        request,
        reverse(PAGE),
        "A test call is on its way. Look below for what came back.",
        lambda: services.ping(party=party, endpoint_id=endpoint_id, now=clock.now()),
    )


@require_POST
@for_party
def remove(request: HttpRequest, endpoint_id: UUID) -> HttpResponse:
    party = party_of(request)
    return act(
        request,
        reverse(PAGE),
        "Removed. That address is not called any more.",
        lambda: services.endpoint_remove(party=party, endpoint_id=endpoint_id, now=clock.now()),
    )


@require_POST
@for_party
def redeliver(request: HttpRequest, delivery_id: UUID) -> HttpResponse:
    party = party_of(request)
    return act(
        request,
        reverse(PAGE),
        "The call is made again, under the same id.",
        lambda: services.redeliver(party=party, delivery_id=delivery_id, now=clock.now()),
    )
