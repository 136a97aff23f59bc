"""A member's own proposal: a form for each kind, its effect as a diff, then the proposal itself.

What is voted on is the payload; each form (`proposal_forms`) says how its fields become one. The
action decides what is valid, here as in the API: nothing is written before a preview was confirmed.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode
from uuid import UUID, uuid4

from django import forms
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse

from apps.accounts.selectors import party_found
from apps.core import actions, clock
from apps.core.errors import DomainError
from apps.explorer.governance import KINDS, changes_in_words
from apps.explorer.page import explain, for_party, party_of, show
from apps.explorer.proposal_forms import FORMS, Draft, KindForm
from apps.governance import services
from apps.governance.models import House
from apps.subdaos.models import Dao
from apps.training.models import Round
from apps.wallets.consenting import consent_of_form


class TextForm(forms.Form):
    """What people read, and the one-time id that lets a second click make no second proposal."""

    title = forms.CharField(label="Title", max_length=services.TITLE_MAX)
    description = forms.CharField(
        label="Why",
        required=False,
        max_length=services.DESCRIPTION_MAX,
        widget=forms.Textarea(attrs={"rows": 4}),
    )
    once = forms.UUIDField(widget=forms.HiddenInput, initial=uuid4)


@for_party
def propose(request: HttpRequest, slug: str) -> HttpResponse:
    """Choose a kind, fill its form, see the diff; with `confirm`, the proposal is made."""
    dao, party = _dao(slug), party_of(request)
    asked = request.POST.get("kind") or request.GET.get("kind", "")
    forms_here = {
        kind: form
        for kind, form in FORMS.items()
        if (actions.get(kind).house == House.SUPER) == (dao.kind == Dao.Kind.SUPER)
    }
    form_class = forms_here.get(asked)
    context: dict[str, Any] = {
        "dao": dao,
        "party": party,
        "kinds": [
            {
                "name": kind,
                "label": KINDS[kind],
                "about": form.about,
                "house": actions.get(kind).house,
            }
            for kind, form in forms_here.items()
        ],
        "kind": asked if form_class else "",
    }
    if form_class is None:
        return show(request, "propose.html", "governance", **context)
    now = clock.now()
    context["denied"] = services.can_propose(party, dao, asked, now)
    if request.method != "POST":
        draft = _draft(request, dao, form_class)
        if draft is None:
            form, words = form_class(dao=dao), {"title": KINDS[asked]}
        else:
            form = form_class(dao=dao, initial=draft.form)
            words = {"title": draft.title, "description": draft.why}
            context |= {"note": draft.note, "carried": _about(request)}
        text = TextForm(auto_id="propose_%s", initial=words)
        return show(request, "propose.html", "governance", form=form, text=text, **context)
    form = form_class(request.POST, dao=dao)
    text = TextForm(request.POST, auto_id="propose_%s")
    context |= {"form": form, "text": text}
    valid = [form.is_valid(), text.is_valid()]
    if not all(valid):
        return show(request, "propose.html", "governance", status=422, **context)
    if request.POST.get("change"):  # back from the preview, with all that was written
        return show(request, "propose.html", "governance", **context)
    try:
        if request.POST.get("confirm"):
            made = services.propose(
                actor=party,
                dao=dao,
                kind=asked,
                payload=form.payload,
                title=text.cleaned_data["title"],
                description=text.cleaned_data["description"],
                idempotency=text.cleaned_data["once"],
                consent=consent_of_form(request),
                now=now,
            )
            return redirect(reverse("explorer:proposal", args=[made.id]))
        seen = services.preview(dao=dao, kind=asked, payload=form.payload)
    except DomainError as error:
        return show(
            request, "propose.html", "governance", status=422, problem=explain(error), **context
        )
    return show(
        request,
        "propose.html",
        "governance",
        seen=seen,
        changes=changes_in_words(seen.changes),
        payload=json.dumps(seen.payload),
        **context,
    )


def _about(request: HttpRequest) -> str:
    """What of the address says whom and which round a proposal is about."""
    return urlencode({name: request.GET.get(name, "") for name in ("party", "round")})


def _draft(request: HttpRequest, dao: Dao, form_class: type[KindForm]) -> Draft | None:
    """What `?party=pid&round=id` asks for; nonsense means an empty form."""
    pid, id_ = request.GET.get("party", ""), request.GET.get("round", "")
    party = party_found(pid) if pid else None
    if party is None:
        return None
    rounds = Round.objects.select_related("dao", "round_job")
    if dao.asset is not None:
        rounds = rounds.filter(dao=dao)
    try:
        found = rounds.filter(pk=UUID(id_), closed_at__isnull=False).first()
    except ValueError:
        found = None
    return form_class.drafted(dao, party, found)


def _dao(slug: str) -> Dao:
    dao = Dao.objects.select_related("party", "asset").filter(slug=slug).first()
    if dao is None:
        raise Http404
    return dao
