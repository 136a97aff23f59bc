"""/design/: every component of the design system on one page, in its states."""

from __future__ import annotations

from datetime import timedelta

from django import forms
from django.http import HttpRequest, HttpResponse

from apps.core import clock
from apps.explorer.page import show


class ExampleForm(forms.Form):
    amount = forms.CharField(label="Pledge", help_text="You can withdraw until the target is met.")
    note = forms.CharField(label="Note", required=False, widget=forms.Textarea(attrs={"rows": 2}))
    agree = forms.BooleanField(label="Show my name to other backers", required=False)


def design(request: HttpRequest) -> HttpResponse:
    now = clock.now()
    wrong = ExampleForm({"amount": "", "note": "", "agree": "on"}, auto_id="wrong_%s")
    return show(
        request,
        "design.html",
        "design",
        form=ExampleForm(auto_id="fresh_%s"),
        wrong=wrong,
        digest="3fa9c1d07be2456688aa01bcde90f3e1c5a1772d4b0e9c5f6a7b8c9d0e1f77b0",
        soon=now + timedelta(hours=3),
        past=now - timedelta(minutes=12),
        states=[
            "draft",
            "voting",
            "funding",
            "awarded",
            "pending",
            "active",
            "succeeded",
            "executed",
            "defeated",
            "updates",
            "computing",
            "void",
            "held",
            "settled",
            "released",
            "sbgt",
            "sdt",
            "super",
        ],
        tally=(("For", 6_200_000, ""), ("Against", 1_100_000, "quiet"), ("Abstain", 0, "quiet")),
        phis=(("Clinic Aare", 1000, ""), ("Clinic Birs", 871, ""), ("Clinic Cher", 0, "quiet")),
    )
