"""A member's own proposal: a form for each kind, its effect as a diff, then the proposal itself.

What is voted on is the payload; each form says how its fields become one. The action decides what
is valid, here as in the API: nothing is written before a preview was confirmed.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar
from uuid import uuid4

from django import forms
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse

from apps.accounts.selectors import party_found
from apps.core import actions, clock
from apps.core.errors import DomainError
from apps.explorer.fields import (
    AmountField,
    DurationField,
    PercentField,
    PlansField,
    ThousandthsField,
    TiersField,
)
from apps.explorer.formatting import (
    ENGINE_NAMES,
    RESOLUTION_NAMES,
    SCORING_NAMES,
    TRAINING_NAMES,
    short,
)
from apps.explorer.governance import KINDS, changes_in_words
from apps.explorer.page import explain, for_party, party_of, show
from apps.governance import services
from apps.governance.models import House
from apps.protocol import emission
from apps.protocol.circuits.descent import DEFAULTS, SCHEDULE, defaults_of
from apps.protocol.circuits.noise import CLIP_MILLI
from apps.protocol.privacy import EPSILON_MILLI, ROUNDS, budget_asked
from apps.protocol.revenue import SPLIT
from apps.protocol.targets import class_of
from apps.subdaos.actions import (
    EMISSION_LABELS,
    SCHEDULE_LABELS,
    SPLIT_LABELS,
    START_LABEL,
    START_NAMES,
)
from apps.subdaos.models import Dao
from apps.subdaos.selectors import budget_of, engine_of, on_sale
from apps.wallets.consenting import consent_of_form


class KindForm(forms.Form):
    """Fields of one kind of proposal, filled with what is in force; `payload` is what is voted.

    `about` is the sentence by which members choose the kind.
    """

    kind: ClassVar[str]
    about: ClassVar[str] = ""

    def __init__(self, *args: Any, dao: Dao, **kwargs: Any) -> None:
        self.dao = dao
        super().__init__(*args, auto_id="propose_%s", **kwargs)

    @property
    def payload(self) -> dict[str, Any]:
        raise NotImplementedError


class PriceForm(KindForm):
    kind = "subdaos.set_price"
    about = "What a buyer pays for one row, from the moment it carries."
    price = AmountField(label="Price of one row, in USDC")

    def __init__(self, *args: Any, dao: Dao, **kwargs: Any) -> None:
        now = {"price": short(int(dao.params["price_micro"]), decimals_min=2)}
        super().__init__(*args, dao=dao, initial=now, **kwargs)

    @property
    def payload(self) -> dict[str, Any]:
        return {"price_micro": str(self.cleaned_data["price"])}


class TiersForm(KindForm):
    kind = "subdaos.set_tiers"
    about = "A lower price for buyers of many rows in a month."
    tiers = TiersField(
        label="Rows in a month, and what a row costs less after them",
        required=False,
        max_length=200,
        help_text="Like 1000: 10 %, 10000: 25 %. Empty: every row costs the same.",
    )

    def __init__(self, *args: Any, dao: Dao, **kwargs: Any) -> None:
        now = [f"{t['from_rows']}: {percent(t['off_bps'])} %" for t in dao.params["tiers"]]
        super().__init__(*args, dao=dao, initial={"tiers": ", ".join(now)}, **kwargs)

    @property
    def payload(self) -> dict[str, Any]:
        return {"tiers": self.cleaned_data["tiers"]}


class PlansForm(KindForm):
    kind = "subdaos.set_plans"
    about = "Rows that buyers pay ahead, for less each. Plans that run go on as they were bought."
    plans = PlansField(
        label="Plans: name, rows, days, % off",
        required=False,
        max_length=300,
        help_text="Like basic 1000 30 10, pro 10000 30 25. Empty: none.",
    )

    def __init__(self, *args: Any, dao: Dao, **kwargs: Any) -> None:
        now = [
            f"{p['name']} {p['rows']} {p['days']} {percent(p['off_bps'])}"
            for p in dao.params["plans"]
        ]
        super().__init__(*args, dao=dao, initial={"plans": ", ".join(now)}, **kwargs)

    @property
    def payload(self) -> dict[str, Any]:
        return {"plans": self.cleaned_data["plans"]}


class OnSaleForm(KindForm):
    kind = "listings.set_on_sale"
    about = "Whether answers are sold at all. What is held by then is answered."
    on_sale = forms.ChoiceField(
        label="Answers of the model", choices=[("yes", "are sold"), ("no", "are not sold any more")]
    )

    def __init__(self, *args: Any, dao: Dao, **kwargs: Any) -> None:
        now = {"on_sale": "yes" if on_sale(dao) else "no"}
        super().__init__(*args, dao=dao, initial=now, **kwargs)

    @property
    def payload(self) -> dict[str, Any]:
        return {"on_sale": self.cleaned_data["on_sale"] == "yes"}


class ScoringForm(KindForm):
    kind = "subdaos.set_scoring"
    about = "The method that says what each site's part in a round was worth."
    scoring = forms.ChoiceField(label="Contributions are scored by")

    def __init__(self, *args: Any, dao: Dao, **kwargs: Any) -> None:
        super().__init__(*args, dao=dao, initial={"scoring": dao.params["scoring"]}, **kwargs)
        choices = [(name, SCORING_NAMES.get(name, name)) for name in class_of(dao.params).scorings]
        self.fields["scoring"].choices = choices  # type: ignore[attr-defined]

    @property
    def payload(self) -> dict[str, Any]:
        return {"scoring": self.cleaned_data["scoring"]}


class EngineForm(KindForm):
    kind = "subdaos.set_engine"
    about = "Whether nodes check each other, from the next round on."
    engine = forms.ChoiceField(
        label="Nodes compute as",
        choices=list(ENGINE_NAMES.items()),
        help_text="Four take longer than three. A model keeps what its makers have signed.",
    )

    def __init__(self, *args: Any, dao: Dao, **kwargs: Any) -> None:
        super().__init__(*args, dao=dao, initial={"engine": engine_of(dao)}, **kwargs)

    @property
    def payload(self) -> dict[str, Any]:
        return {"engine": self.cleaned_data["engine"]}


class ResolutionForm(KindForm):
    kind = "subdaos.set_resolution"
    about = "How finely buyers see the answers of models made from then on."
    resolution = forms.ChoiceField(
        label="Buyers are answered by",
        help_text="Of models made from then on: a model keeps what its makers have signed.",
    )

    def __init__(self, *args: Any, dao: Dao, **kwargs: Any) -> None:
        now = {"resolution": dao.params["resolution"]}
        super().__init__(*args, dao=dao, initial=now, **kwargs)
        choices = [(name, RESOLUTION_NAMES[name]) for name in class_of(dao.params).resolutions]
        self.fields["resolution"].choices = choices  # type: ignore[attr-defined]

    @property
    def payload(self) -> dict[str, Any]:
        return {"resolution": self.cleaned_data["resolution"]}


class PrivacyForm(KindForm):
    """Noise on the models of so many rounds; no ε means none."""

    kind = "subdaos.set_privacy"
    about = "Noise on models, so that answers show little of what one site sent."
    epsilon = ThousandthsField(
        label="ε of all models together",
        required=False,
        maximum=EPSILON_MILLI[1],
        help_text="Like 8. The smaller, the more noise. Empty: no noise.",
    )
    rounds = forms.IntegerField(
        label="Rounds that spend it, in equal parts",
        min_value=ROUNDS[0],
        max_value=ROUNDS[1],
        initial=1,
    )
    clip = ThousandthsField(
        label="Updates are shortened to length",
        maximum=CLIP_MILLI[1],
        initial="1",
        help_text="A third of the usual length cost least where it was tried. Longer: more noise.",
    )

    def __init__(self, *args: Any, dao: Dao, **kwargs: Any) -> None:
        budget, now = budget_of(dao), {}
        if budget:
            now = {
                "epsilon": f"{budget.epsilon_milli / 1000:g}",
                "rounds": budget.rounds,
                "clip": f"{budget.clip_milli / 1000:g}",
            }
        super().__init__(*args, dao=dao, initial=now, **kwargs)

    @property
    def payload(self) -> dict[str, Any]:
        data = self.cleaned_data
        return {"privacy": budget_asked(data["epsilon"], data["rounds"], data["clip"])}


class TrainingForm(KindForm):
    """How rounds train; the schedule counts for steps on shared rows only."""

    kind = "subdaos.set_training"
    about = "Averages of what sites trained, or steps on rows that they share."
    training = forms.ChoiceField(label="Rounds train by")

    def __init__(self, *args: Any, dao: Dao, **kwargs: Any) -> None:
        now = dao.params["training"]
        super().__init__(*args, dao=dao, initial={"training": now["kind"]}, **kwargs)
        model = class_of(dao.params)
        can = {"fedavg": model.averages, "secure_sgd": model.descends}
        choices = [(name, text) for name, text in TRAINING_NAMES.items() if can[name]]
        self.fields["training"].choices = choices  # type: ignore[attr-defined]
        if not model.descends:
            return
        self.fields["start"] = forms.ChoiceField(
            label=START_LABEL,
            choices=list(START_NAMES.items()),
            initial=now.get("start", "serving"),
        )
        for name, value in {**defaults_of(model), **now.get("schedule", {})}.items():
            least, most = SCHEDULE[name]
            self.fields[name] = forms.IntegerField(
                label=SCHEDULE_LABELS[name], initial=value, min_value=least, max_value=most
            )

    @property
    def payload(self) -> dict[str, Any]:
        data = self.cleaned_data
        if data["training"] == "fedavg":
            return {"training": {"kind": "fedavg"}}
        schedule = {name: data[name] for name in DEFAULTS}
        return {"training": {"kind": "secure_sgd", "schedule": schedule, "start": data["start"]}}


class SharesForm(KindForm):
    """Shares in per cent, one field each."""

    parameter: ClassVar[str]
    labels: ClassVar[dict[str, str]]

    def __init__(self, *args: Any, dao: Dao, **kwargs: Any) -> None:
        now = {name: percent(dao.params[self.parameter][name]) for name in self.labels}
        super().__init__(*args, dao=dao, initial=now, **kwargs)
        for name, label in self.labels.items():
            self.fields[name] = PercentField(label=f"{label}, in %", initial=now[name])

    @property
    def payload(self) -> dict[str, Any]:
        return {self.parameter: {name: self.cleaned_data[name] for name in self.labels}}


class EmissionForm(SharesForm):
    kind, parameter = "subdaos.set_emission", "emission"
    about = "How much of the reserve goes out each epoch, and to whom."
    labels = {name: EMISSION_LABELS[name] for name in emission.FIELDS}


class SplitForm(SharesForm):
    kind, parameter = "subdaos.set_split", "split"
    about = "What contributors, validators, operators and holders get of each sale."
    labels = {name: SPLIT_LABELS[name] for name in SPLIT}


class UnlocksForm(KindForm):
    kind = "subdaos.set_unlocks"
    about = "Early access to a new model for those who stake the SubDAO's token."
    early = DurationField(label="Early access after the first sale", help_text="Like 3 d; 0: none.")
    stake = PercentField(label="Stake that unlocks it, in % of the supply")

    def __init__(self, *args: Any, dao: Dao, **kwargs: Any) -> None:
        before = dao.params["unlocks"]
        seconds = before["early_access_s"]
        now = {"early": f"{seconds} s" if seconds else "0", "stake": percent(before["stake_bps"])}
        super().__init__(*args, dao=dao, initial=now, **kwargs)

    @property
    def payload(self) -> dict[str, Any]:
        data = self.cleaned_data
        return {"unlocks": {"early_access_s": data["early"], "stake_bps": data["stake"]}}


class SponsoringForm(KindForm):
    kind = "subdaos.set_sponsoring"
    about = "A first time in which those alone may fund a new request who stake FLAI."
    first = DurationField(label="For stakers alone, after it opened", help_text="Like 1 d; 0: no.")
    stake = PercentField(label="Stake that it takes, in % of all FLAI")

    def __init__(self, *args: Any, dao: Dao, **kwargs: Any) -> None:
        before = dao.params["sponsoring"]
        seconds = before["first_s"]
        now = {"first": f"{seconds} s" if seconds else "0", "stake": percent(before["stake_bps"])}
        super().__init__(*args, dao=dao, initial=now, **kwargs)

    @property
    def payload(self) -> dict[str, Any]:
        data = self.cleaned_data
        return {"sponsoring": {"first_s": data["first"], "stake_bps": data["stake"]}}


class PartyForm(KindForm):
    """About one party, by its short name or its pseudonym."""

    to = forms.CharField(label="Whom", max_length=60, help_text="Short name, or pseudonym.")

    def clean_to(self) -> str:
        found = party_found(self.cleaned_data["to"].strip().lower())
        if found is None:
            raise forms.ValidationError("Nobody here has this short name or pseudonym.")
        return str(found.pid)


class PayForm(PartyForm):
    kind = "subdaos.pay"
    about = "Money or tokens of the SubDAO to one party."
    amount = AmountField(label="Amount")
    asset = forms.ChoiceField(label="Token")

    def __init__(self, *args: Any, dao: Dao, **kwargs: Any) -> None:
        super().__init__(*args, dao=dao, **kwargs)
        codes = ["USDC", dao.asset.code] if dao.asset else ["USDC"]
        self.fields["asset"].choices = [(code, code) for code in codes]  # type: ignore[attr-defined]

    @property
    def payload(self) -> dict[str, Any]:
        data = self.cleaned_data
        return {"to": data["to"], "asset": data["asset"], "amount_micro": str(data["amount"])}


class RevokeForm(PartyForm):
    kind = "subdaos.revoke"
    about = "Points of a member who harmed the model."
    points = AmountField(label="Points to take")

    @property
    def payload(self) -> dict[str, Any]:
        data = self.cleaned_data
        return {"party": data["to"], "points_micro": str(data["points"])}


FORMS: dict[str, type[KindForm]] = {
    form.kind: form
    for form in (
        PriceForm,
        TiersForm,
        PlansForm,
        OnSaleForm,
        SplitForm,
        EmissionForm,
        UnlocksForm,
        SponsoringForm,
        PayForm,
        ScoringForm,
        EngineForm,
        ResolutionForm,
        PrivacyForm,
        TrainingForm,
        RevokeForm,
    )
}


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


def percent(bps: int) -> str:
    return f"{bps / 100:g}"


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
        text = TextForm(auto_id="propose_%s", initial={"title": KINDS[asked]})
        return show(
            request, "propose.html", "governance", form=form_class(dao=dao), text=text, **context
        )
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


def _dao(slug: str) -> Dao:
    dao = Dao.objects.select_related("party", "asset").filter(slug=slug).first()
    if dao is None:
        raise Http404
    return dao
