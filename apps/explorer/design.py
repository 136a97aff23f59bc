"""/design/: every component of the design system on one page, in its states."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse

from apps.core import clock
from apps.explorer import pictures
from apps.explorer.charts import Part
from apps.explorer.page import Page, show
from apps.protocol.revenue import Policy

# Name, rem, px and what it is for; the values are those of static/css/flai.css.
TYPE = [
    ("--text-xxl", "2.75", 44, "The one sentence of the landing page", "xxl"),
    ("--text-xl", "1.75", 28, "A page's name; large figures", "xl"),
    ("--text-l", "1.25", 20, "A section's name; figures", "l"),
    ("--text-m", "1", 16, "Running text, forms, a card's name", "m"),
    ("--text-s", "0.8125", 13, "Captions, badges, metadata", "s"),
]
COLOURS = [
    ("paper", "Behind everything"),
    ("surface", "Cards, fields"),
    ("sunk", "Code, tracks, notes"),
    ("line", "Rules between rows"),
    ("line-strong", "Edges of controls"),
    ("ink", "Text"),
    ("ink-2", "Secondary text"),
    ("ink-3", "Metadata, labels"),
    ("accent", "Actions, links, what is well"),
    ("accent-soft", "Good and live states"),
    ("sbgt", "The technical house"),
    ("sdt", "The financial house"),
    ("warn", "Waits, or is short"),
    ("danger", "Failed, refused, missed"),
]
SPACE = [4, 8, 16, 24, 32, 48, 64]
STATES = [
    "draft", "voting", "funding", "awarded", "pending", "active", "succeeded", "executed",
    "defeated", "updates", "computing", "void", "held", "settled", "released", "sbgt", "sdt",
    "super",
]  # fmt: skip
POLICY = Policy(
    sbgt_bps=6_000, sdt_bps=2_800, treasury_bps=1_200,
    custodians_bps=8_000, validators_bps=1_000, operators_bps=1_000,
)  # fmt: skip
PHI = [
    (number, name, phi)
    for name, phis in (
        ("Clinic Aare", (940, 971, 1000)),
        ("Clinic Birs", (612, 790, 871)),
        ("Clinic Cher", (410, 0, 0)),
    )
    for number, phi in enumerate(phis, 1)
]
EVIDENCE = {
    "auc_milli": 971,
    "auc_by_stratum": {"north": 982, "centre": 912, "south": 834, "islands": None},
    "gates": [
        {"metric": "auc", "stratum": name, "min_milli": 850, "got_milli": got, "met": got >= 850}
        for name, got in ((None, 971), ("north", 982), ("centre", 912), ("south", 834))
    ],
    "accuracy_milli": 924,
}


class ExampleForm(forms.Form):
    amount = forms.CharField(label="Pledge", help_text="You can withdraw until the target is met.")
    note = forms.CharField(label="Note", required=False, widget=forms.Textarea(attrs={"rows": 2}))
    house = forms.ChoiceField(
        label="House", choices=[("sbgt", "Technical"), ("sdt", "Financial")], required=False
    )
    agree = forms.BooleanField(label="Show my name to other backers", required=False)


def design(request: HttpRequest) -> HttpResponse:
    now = clock.now()
    return show(
        request,
        "design.html",
        "design",
        type_scale=TYPE,
        colours=COLOURS,
        space=SPACE,
        form=ExampleForm(auto_id="fresh_%s"),
        wrong=ExampleForm({"amount": "", "agree": "on"}, auto_id="wrong_%s"),
        digest="3fa9c1d07be2456688aa01bcde90f3e1c5a1772d4b0e9c5f6a7b8c9d0e1f77b0",
        soon=now + timedelta(hours=3),
        past=now - timedelta(minutes=12),
        states=STATES,
        tally=(("For", 6_200_000, "sdt"), ("Against", 1_100_000, "quiet"), ("Abstain", 0, "quiet")),
        flow=pictures.price_flow(500_000, POLICY),
        funding=_funding(now),
        phi=pictures.phi_by_round(PHI),
        work=pictures.stacks(
            (name, [Part("Training", a, "", "sbgt"), Part("Predictions", b)])
            for name, a, b in (("node-0", 12, 44), ("node-1", 12, 44), ("node-2", 12, 31))
        ),
        evidence=EVIDENCE,
        pages=Page(range(80), 2),
        preview=_preview(),
    )


def _funding(now: datetime) -> pictures.Timeline:
    moves = [(90, 200), (61, 140), (60, 60), (30, -140), (11, 377)]
    points = [(now - timedelta(hours=hours), 10**6 * amount) for hours, amount in moves]
    start = now - timedelta(hours=96)
    return pictures.timeline(
        pictures.summed(points), start=start, end=now, goal_micro=1_000_000_000
    )


def _preview() -> dict[str, Any]:
    return {
        "action": "#confirm",
        "back": "#confirm",
        "submit": "Pledge $362.50",
        "warning": "Only this much is still missing; the rest of your $400.00 stays with you.",
        "hidden": [],
        "rows": [
            ("You pay into escrow", "$362.50"),
            ("You get if it is funded", "217,500 SDT"),
            ("If the target is missed", "all of it back"),
        ],
    }
