"""The form of each kind of proposal: its fields, what they become as a payload, and how one is
begun for somebody who comes from a round's page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from django import forms
from django.urls import reverse

from apps.accounts.models import Party
from apps.accounts.selectors import party_found
from apps.exchange.selectors import slashable_micro
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
from apps.explorer.pictures import exactly
from apps.listings.access import access_of
from apps.protocol import emission
from apps.protocol.circuits.descent import DEFAULTS, SCHEDULE, defaults_of
from apps.protocol.circuits.noise import CLIP_MILLI
from apps.protocol.credentials import ISSUERS_MAX, KIND_MAX
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
from apps.subdaos.selectors import budget_of, engine_of, on_sale, portion_bps
from apps.training.models import Round, Score
from apps.training.shown import shown_of
from apps.wallets.selectors import asset_by_code

SUGGESTED = 10  # one part of a stake in so many


@dataclass(frozen=True)
class Draft:
    """A proposal that is begun: fields of the form, title, reason, and what to know beside it."""

    form: dict[str, Any]
    title: str
    why: str
    note: str = ""


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

    @classmethod
    def drafted(cls, dao: Dao, party: Party, found: Round | None) -> Draft | None:
        """What stands in the form for somebody who came from a round's page."""
        return None


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


class PortionForm(KindForm):
    kind = "listings.set_portion"
    about = "The most of the model's rows of a day that one buyer may ask."
    portion = PercentField(label="One buyer may ask, in % of the rows that nodes answer")

    def __init__(self, *args: Any, dao: Dao, **kwargs: Any) -> None:
        super().__init__(*args, dao=dao, initial={"portion": percent(portion_bps(dao))}, **kwargs)

    @property
    def payload(self) -> dict[str, Any]:
        return {"portion_bps": self.cleaned_data["portion"]}


class AccessForm(KindForm):
    kind = "listings.set_access"
    about = (
        "Who may ask the model: everybody, or holders of a credential from whom you trust. Plans "
        "that run keep the terms that they began with until their end. The nodes ask for it "
        "themselves from the next version on, if no such plan runs when its round opens; what a "
        "version's nodes ask for no later vote changes."
    )
    credential = forms.CharField(
        label="Credential",
        required=False,
        max_length=KIND_MAX,
        help_text="Like accredited-hospital. Empty: everybody may ask.",
    )
    issuers = forms.CharField(
        label="Issued by",
        required=False,
        max_length=1000,
        help_text="Short names or pseudonyms, with commas between them.",
    )

    def __init__(self, *args: Any, dao: Dao, **kwargs: Any) -> None:
        terms = access_of(dao)
        now = {"credential": terms.credential, "issuers": ", ".join(terms.issuers)} if terms else {}
        super().__init__(*args, dao=dao, initial=now, **kwargs)

    def clean_credential(self) -> str:
        return "-".join(self.cleaned_data["credential"].lower().split())

    def clean_issuers(self) -> list[str]:
        """Their pids, in order."""
        names = {name.strip().lower() for name in self.cleaned_data["issuers"].split(",")} - {""}
        if len(names) > ISSUERS_MAX:
            raise forms.ValidationError(f"At most {ISSUERS_MAX} issuers.")
        found = {name: party_found(name) for name in sorted(names)}
        if missing := [name for name, party in found.items() if party is None]:
            raise forms.ValidationError(f"There is no party called {missing[0]}.")
        return sorted({party.pid for party in found.values() if party})

    @property
    def payload(self) -> dict[str, Any]:
        data = self.cleaned_data
        terms = {"credential": data["credential"], "issuers": data["issuers"]}
        return {"access": terms if data["credential"] else {}}


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
    about = "How many nodes may be curious or cheat, from the next round on."
    engine = forms.ChoiceField(
        label="Nodes compute as",
        choices=list(ENGINE_NAMES.items()),
        help_text="More nodes take longer, and Shamir shares much longer. A model keeps what its "
        "makers have signed.",
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
        help_text="A third of the usual length cost least where it was tried. Longer: more noise. "
        "Of linear regression, which becomes the mean of what each site's sums give alone, two "
        "thirds.",
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
        can = {"fedavg": True, "secure_sgd": model.descends}
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

    @classmethod
    def drafted(cls, dao: Dao, party: Party, found: Round | None) -> Draft:
        return Draft({"to": party.slug}, f"Take points of {party.name}", _why(found, party))


class SlashForm(PartyForm):
    """Of a stake, for what a round showed where one is cited: then φ is part of what is voted."""

    kind = "exchange.slash"
    about = "A part of what a party has staked of the SubDAO's token, for what it did."
    amount = AmountField(label="Amount to take, at most")
    round = forms.UUIDField(
        label="Round that shows why", required=False, help_text="Its id. Empty: none."
    )

    @property
    def payload(self) -> dict[str, Any]:
        data = self.cleaned_data
        payload = {"party": data["to"], "amount_micro": str(data["amount"])}
        if data["round"] is None:
            return payload
        score = Score.objects.filter(round=data["round"], party__pid=data["to"]).first()
        phi = {"phi_milli": str(score.phi_milli)} if score else {}
        return payload | {"round": str(data["round"])} | phi

    @classmethod
    def drafted(cls, dao: Dao, party: Party, found: Round | None) -> Draft:
        asset = dao.asset or asset_by_code("FLAI")
        staked_micro = slashable_micro(party, asset)
        form: dict[str, Any] = {"to": party.slug, "round": str(found.id) if found else ""}
        if staked_micro >= SUGGESTED:
            form["amount"] = short(staked_micro // SUGGESTED, decimals_min=0)
        note = (
            f"{party.name} has {exactly(staked_micro, asset.code)} staked. A tenth of it stands "
            "below; put what you think is right."
            if staked_micro
            else f"{party.name} has nothing staked here: there is nothing to slash. A vote can "
            "take its points."
        )
        return Draft(form, f"Slash {party.name}", _why(found, party), note)


class SlashFlaiForm(SlashForm):
    kind = "exchange.slash_flai"
    about = "A part of what a party has staked of FLAI, for what it did."


FORMS: dict[str, type[KindForm]] = {
    form.kind: form
    for form in (
        PriceForm,
        TiersForm,
        PlansForm,
        OnSaleForm,
        PortionForm,
        AccessForm,
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
        SlashForm,
        SlashFlaiForm,
    )
}


def percent(bps: int) -> str:
    return f"{bps / 100:g}"


def _why(found: Round | None, party: Party) -> str:
    """The reason as a draft: what the round showed, and where that can be checked."""
    showed = shown_of(found, party.pid) if found else None
    if found is None or showed is None:
        return ""
    words = " ".join(showed.words) or "Nothing to remark."
    how = "steps on shared rows" if found.shares_rows else SCORING_NAMES[found.scoring].lower()
    place = reverse("explorer:round", args=[found.id])
    return (
        f"Round {found.number} of {found.dao.name} showed of {party.name}: {words}\n\n"
        f"Scored by {how}. The round is {found.id} ({place}#showed); its end is in the log, with φ."
    )
