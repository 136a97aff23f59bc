"""The guided form for a Request-for-Model: five steps in, one checked spec out.

`data-label` on a field names the kinds of label whose model classes need it; the page's script
shows it for those alone and asks for it there (static/js/steps.js).
`apps.protocol.rfm_spec.check_spec` alone decides what is acceptable; its error is shown at the
field that its path names.
"""

from __future__ import annotations

import csv
import re
from typing import Any

from django import forms

from apps.explorer.fields import (
    AmountField,
    DurationField,
    ListField,
    MetricField,
    PercentField,
    ThousandthsField,
)
from apps.explorer.formatting import (
    ENGINE_NAMES,
    RESOLUTION_NAMES,
    SCORING_NAMES,
    duration,
    quoted,
    short,
)
from apps.protocol.circuits import CLASSES, ModelClass
from apps.protocol.circuits.family import LABELS
from apps.protocol.circuits.network import STEPS_WEIGHTS_MAX
from apps.protocol.circuits.noise import CLIP_MILLI
from apps.protocol.encoding import BOOLEAN, CATEGORY, NUMBER, TYPES, levels_of
from apps.protocol.evidence import METRIC_NAMES
from apps.protocol.privacy import EPSILON_MILLI, ROUNDS, budget_asked
from apps.protocol.rfm_spec import (
    DOMAINS,
    MODEL_CLASSES,
    SERIES,
    SHAMIR_FAMILY,
    STANDARDS,
    SpecError,
    check_spec,
    engine_named_by,
)
from apps.protocol.series import STEPS
from apps.protocol.tickets import COMPUTING, NODE_COUNTS, RING, SHAMIR, threshold_of

STANDARD_NAMES = {
    "tabular-csv": "Tabular CSV",
    "hl7-fhir-r4": "HL7 FHIR R4",
    "omop-cdm-v5": "OMOP CDM v5",
    "ga4gh": "GA4GH",
    "time-series": "Time series",
}
DOMAIN_NAMES = {name: name.replace("-", " ").capitalize() for name in DOMAINS}
LICENCE_NAMES = {
    "any-use": "Any use",
    "own-use": "Within one's own organisation",
    "research": "Research and teaching",
}
FEATURES_EXAMPLE = "age, a, 0, 120\nlactate, mmol/L\nstage, category, I, II, III\nsmoker, boolean"

# Where the path of a SpecError is entered; the longest match wins.
PLACES = {
    "objective": "objective",
    "kind": "objective",
    "domain": "domain",
    "licence": "licence",
    "model_class": "model_class",
    "hidden": "hidden",
    "interpretable": "interpretable",
    "standard": "standard",
    "features": "features",
    "label.name": "label_name",
    "label.positive": "label_positive",
    "label.event": "label_event",
    "label.occurred": "label_occurred",
    "label.classes": "label_classes",
    "label.min": "label_min",
    "label.max": "label_max",
    "label.series": "series_time",
    **{
        f"label.series.{name}": f"series_{name}"
        for name in ("time", "id", "step", "lags", "season", "split")
    },
    "strata.column": "strata_column",
    "strata.values": "strata_values",
    "gates[0]": "auc_min",
    "gates": "auc_min",
    "price_micro": "price",
    "funding.target_micro": "target",
    "funding.deadline_s": "deadline",
    "terms.resolution": "resolution",
    "governance.privacy": "epsilon",
    "terms.sbgt_bps": "share_sbgt",
    "terms.sdt_bps": "share_sdt",
    "terms.treasury_bps": "share_treasury",
    **{
        f"governance.{name}": name
        for name in (
            "voting_delay_s", "voting_period_s", "timelock_s", "quorum_bps", "threshold_bps",
            "epoch_s", "min_custodians", "min_validators", "min_rows", "scoring", "n", "engine",
        )
    },
}  # fmt: skip
# What people write where it is no unit.
MEANT = {name: BOOLEAN for name in ("bool", "yes", "no", "yes/no", "yes or no", "true/false")} | {
    name: CATEGORY for name in ("categorical", "categories", "levels")
}
CODES = ("system", "code", "resource", "active")
_LINE = re.compile(r"features\[(\d+)\]")


class ClassSelect(forms.Select):
    """Each model class with the kind of its label and the name of its leading metric."""

    def create_option(self, name: str, value: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        option: dict[str, Any] = super().create_option(name, value, *args, **kwargs)
        model = CLASSES[str(value)]
        lead = METRIC_NAMES[model.metrics[0]]
        option["attrs"] |= {"data-label": _kind(model), "data-lead": lead}
        return option


def _kind(model: ModelClass) -> str:
    """What its fields are asked for by: the kind of its label, or that it is a series."""
    return "series" if model.series else model.label


TABLES = " ".join(LABELS)


def _of(kinds: str, *, needed: bool = True) -> dict[str, Any]:
    """Attributes of a field that only model classes with these kinds of label know."""
    return {"data-label": kinds} | ({"data-needed": True} if needed else {})


class RfmForm(forms.Form):
    """All fields of the guided request. `cleaned_data["spec"]` is the checked spec."""

    parent = forms.CharField(required=False, widget=forms.HiddenInput)
    title = forms.CharField(
        label="Title",
        max_length=160,
        help_text="What the model will be called, for example “Malignancy of a breast mass”.",
    )
    objective = forms.CharField(
        label="Objective",
        max_length=2000,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text="Who will use the answer, for which decision. Voters read this first.",
    )
    domain = forms.ChoiceField(
        label="Domain",
        choices=list(DOMAIN_NAMES.items()),
        required=False,
        help_text="Where buyers will look for it.",
    )
    model_class = forms.ChoiceField(
        label="Model class",
        choices=[(name, CLASSES[name].title) for name in MODEL_CLASSES],
        widget=ClassSelect,
        help_text="Networks learn best from rows that every custodian shares with the nodes, by "
        "consent that it signs: two nodes that put their words together would read them. Members "
        f"may vote for the mean of what sites learn at home; over {STEPS_WEIGHTS_MAX:,} weights it "
        "is the only way.",
    )
    hidden = ListField(
        label="Units of its hidden layers",
        required=False,
        widget=forms.TextInput(attrs=_of("classes", needed=False)),
        help_text="Of a network, 1 to 1024 a layer, for example 64, 32. Empty: "
        + ", ".join(f"{' and '.join(map(str, m.hidden))}" for m in CLASSES.values() if m.hidden)
        + ".",
    )
    interpretable = forms.BooleanField(
        label="It must be interpretable",
        required=False,
        initial=True,
        help_text="Each feature's effect on the answer can be explained.",
    )
    standard = forms.ChoiceField(
        label="Data standard",
        choices=[(name, STANDARD_NAMES.get(name, name)) for name in STANDARDS],
        widget=forms.Select(attrs={"data-label": TABLES}),
    )
    features = forms.CharField(
        label="Features, one a line",
        required=False,
        widget=forms.Textarea(
            attrs={
                "data-label": TABLES,
                "data-needed": True,
                "rows": 8,
                "class": "code",
                "spellcheck": "false",
                "placeholder": FEATURES_EXAMPLE,
            }
        ),
        help_text="name, unit, least, most. Unit and plausible range may stay empty. Of a column "
        "of words: name, category, and its levels, the one first that others are compared with; of "
        "yes and no: name, boolean. Each site's columns are checked against this list.",
    )
    label_name = forms.CharField(
        label="Label column",
        max_length=80,
        help_text="What is to be predicted, for example malignant.",
    )
    label_positive = forms.CharField(
        label="Value that means yes",
        max_length=80,
        initial="1",
        required=False,
        widget=forms.TextInput(attrs=_of("binary")),
        help_text="For logistic regression.",
    )
    label_classes = ListField(
        label="Its classes",
        required=False,
        widget=forms.TextInput(attrs=_of("classes")),
        help_text="For multinomial regression and networks, separated by commas: benign, unsure, "
        "malignant.",
    )
    label_event = forms.CharField(
        label="Column of the event",
        max_length=80,
        required=False,
        widget=forms.TextInput(attrs=_of("survival")),
        help_text="The label is then a time: until the event, or as long as nobody saw it come.",
    )
    label_occurred = forms.CharField(
        label="Value that means it came",
        max_length=80,
        initial="1",
        required=False,
        widget=forms.TextInput(attrs=_of("survival")),
    )
    label_min = forms.CharField(
        label="Least plausible value",
        max_length=20,
        required=False,
        widget=forms.TextInput(attrs=_of("number series")),
        help_text="For a number: values beyond its range are moved to its edge.",
    )
    label_max = forms.CharField(
        label="Largest plausible value",
        max_length=20,
        required=False,
        widget=forms.TextInput(attrs=_of("number count survival series")),
        help_text="Of times: the longest that is watched.",
    )
    series_time = forms.CharField(
        label="Column of the time",
        max_length=80,
        required=False,
        widget=forms.TextInput(attrs=_of("series")),
        help_text="The label is then a series, and is forecast from its own last values. Times are "
        "like 2024-03-15 or 2024-03-15T10:00, or whole numbers.",
    )
    series_id = forms.CharField(
        label="Column that names the series",
        max_length=80,
        required=False,
        widget=forms.TextInput(attrs=_of("series", needed=False)),
        help_text="Where a site has several, for example ward.",
    )
    series_step = forms.ChoiceField(
        label="One value every",
        choices=[(step, step) for step in STEPS],
        required=False,
        widget=forms.Select(attrs=_of("series")),
        help_text="What is not so spaced is refused; rows beside a gap are left out.",
    )
    series_lags = forms.IntegerField(
        label="Last values that it is made of",
        required=False,
        widget=forms.NumberInput(attrs=_of("series")),
        help_text="Buyers give them, the latest first: t-1, t-2, …",
    )
    series_season = forms.IntegerField(
        label="Season, in steps",
        required=False,
        widget=forms.NumberInput(attrs=_of("series", needed=False)),
        help_text="For example 7 of days. The value so far back is the naive forecast, and one "
        "more that the model is made of.",
    )
    series_split = forms.CharField(
        label="Trained on values before",
        max_length=80,
        required=False,
        widget=forms.TextInput(attrs=_of("series")),
        help_text="Custodians train before this time, validators judge from it on.",
    )
    strata_column = forms.CharField(
        label="Strata column",
        max_length=80,
        required=False,
        help_text="A column whose groups must all be served well, for example region.",
    )
    strata_values = ListField(
        label="Its values",
        required=False,
        help_text="Separated by commas: north, centre, south.",
    )
    auc_min = MetricField(
        label="Least AUC",
        initial="0.85",
        widget=forms.TextInput(attrs={"data-lead": True}),
        help_text="Between 0.5 (chance) and 1 (perfect), computed on secret-shared holdouts. Of "
        "classes: least accuracy; of numbers: least R²; of times: least C-index.",
    )
    auc_per_stratum = forms.BooleanField(label="In each stratum too", required=False)
    accuracy_min = MetricField(
        label="Least accuracy",
        required=False,
        widget=forms.TextInput(attrs=_of("binary", needed=False)),
    )
    skill_min = MetricField(
        label="Least skill",
        required=False,
        widget=forms.TextInput(attrs=_of("series", needed=False)),
        help_text="By what part its squared errors are smaller than the naive forecast's.",
    )
    price = AmountField(label="Price of one prediction", initial="0.50")
    licence = forms.ChoiceField(
        label="Licence",
        choices=list(LICENCE_NAMES.items()),
        required=False,
        help_text="What buyers may do with the answers.",
    )
    target = AmountField(label="Funding target", initial="1000")
    deadline = DurationField(
        label="Open for",
        initial="30 d",
        help_text="If the target is missed, everybody is refunded.",
    )
    voting_delay_s = DurationField(label="Voting delay", initial="0")
    voting_period_s = DurationField(label="Voting period", initial="3 d")
    timelock_s = DurationField(
        label="Timelock", initial="0", help_text="Between a decision and its execution."
    )
    quorum_bps = PercentField(label="Quorum", initial="20")
    threshold_bps = PercentField(label="Approval threshold", initial="50")
    epoch_s = DurationField(
        label="Epoch", initial="7 d", help_text="Revenue is paid out after each."
    )
    min_custodians = forms.IntegerField(label="Least custodians", initial=3, min_value=3)
    min_validators = forms.IntegerField(label="Least validators", initial=1, min_value=1)
    min_rows = forms.IntegerField(label="Least rows a site", initial=20, min_value=5)
    scoring = forms.ChoiceField(
        label="Contributions are scored by",
        choices=list(SCORING_NAMES.items()),
        required=False,
        help_text="What each site's score, and so its pay, is made of. Members can change it by "
        "vote.",
    )
    engine = forms.ChoiceField(
        label="Nodes compute as",
        choices=list(ENGINE_NAMES.items()),
        required=False,
        help_text="Who is curious may look at all that its node sees. Beside the ring four that "
        "check each other take three times as long; Shamir shares two to nine times for a query, "
        "five to fifty times and more for a round. Members can change it by vote.",
    )
    n = forms.IntegerField(
        label="Least nodes",
        initial=min(NODE_COUNTS),
        min_value=min(NODE_COUNTS),
        max_value=max(NODE_COUNTS),
        required=False,
        help_text="More than compute may be dead. The rings, and Shamir shares of which one may be "
        "curious, take five at most; and so many must be registered here.",
    )
    resolution = forms.ChoiceField(
        label="Buyers are answered by",
        choices=list(RESOLUTION_NAMES.items()),
        initial="logit",
        required=False,
        help_text="The nodes compute nothing finer than this, whoever asks. The coarser, the "
        "dearer it is to read the model out by asking.",
    )
    epsilon = ThousandthsField(
        label="Privacy budget, ε",
        required=False,
        maximum=EPSILON_MILLI[1],
        help_text="Noise on models, so that their answers show little of what one site sent: the "
        "smaller, the more noise. With six sites 16 costs some quality, 4 most of it. Empty: none.",
    )
    privacy_rounds = forms.IntegerField(
        label="Rounds that spend it",
        help_text="In equal parts. Without ε this says nothing.",
        min_value=ROUNDS[0],
        max_value=ROUNDS[1],
        initial=1,
        required=False,
    )
    clip = ThousandthsField(
        label="Updates shortened to",
        maximum=CLIP_MILLI[1],
        initial="1",
        required=False,
        help_text="Their length; a third of the usual one cost least where it was tried.",
    )
    share_sbgt = PercentField(label="Contributors (SBGT)", initial="60")
    share_sdt = PercentField(label="Owners (SDT)", initial="28")
    share_treasury = PercentField(label="Treasury", initial="12")

    def __init__(self, *args: Any, base: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """`base` is the checked spec that one starts from: what isn't asked for here stays so."""
        super().__init__(*args, **kwargs)
        self.base = base

    @property
    def kept(self) -> list[str]:
        """What `base` says otherwise than a new request would, and no field here shows."""
        return kept_of(self.base) if self.base else []

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        if self.errors:
            return data
        try:
            spec = self._spec(data)
            data["spec"] = check_spec(carried(spec, self.base) if self.base else spec)
        except SpecError as error:
            self._place(error)
        return data

    def _spec(self, data: dict[str, Any]) -> dict[str, Any]:
        column, values = data["strata_column"], data["strata_values"]
        per_stratum = data["auc_per_stratum"]
        model = CLASSES[data["model_class"]]
        lead = model.metrics[0]
        gates = [{"metric": lead, "min_milli": data["auc_min"], "per_stratum": per_stratum}]
        if data["accuracy_min"] is not None and lead == "auc":
            gates.append({"metric": "accuracy", "min_milli": data["accuracy_min"]})
        if data["skill_min"] is not None and model.series:
            gates.append({"metric": "skill", "min_milli": data["skill_min"]})
        governance = [
            "voting_delay_s",
            "voting_period_s",
            "timelock_s",
            "quorum_bps",
            "threshold_bps",
            "epoch_s",
            "min_custodians",
            "min_validators",
            "min_rows",
        ]
        scoring = {"scoring": data["scoring"]} if data["scoring"] else {}
        scoring |= nodes_asked(data["engine"] or RING, data["n"] or min(NODE_COUNTS))
        budget = budget_asked(data["epsilon"], data["privacy_rounds"] or 1, data["clip"] or 1_000)
        privacy = {"privacy": budget}
        resolution = {"resolution": data["resolution"]} if data["resolution"] else {}
        chosen = {name: data[name] for name in ("domain", "licence") if data[name]}
        return {
            "objective": data["objective"],
            **chosen,
            **({"parent": data["parent"]} if data["parent"] else {}),
            "model_class": data["model_class"],
            **({"hidden": _whole_numbers(data["hidden"])} if data["hidden"] else {}),
            "interpretable": data["interpretable"],
            "standard": SERIES if model.series else data["standard"],
            **({} if model.series else {"features": feature_rows(data["features"])}),
            "label": {"name": data["label_name"], **_label(data, _kind(model))},
            "strata": {"column": column, "values": values} if column or values else None,
            "gates": gates,
            "governance": {name: data[name] for name in governance} | scoring | privacy,
            "price_micro": str(data["price"]),
            "funding": {"target_micro": str(data["target"]), "deadline_s": data["deadline"]},
            "terms": {
                "sbgt_bps": data["share_sbgt"],
                "sdt_bps": data["share_sdt"],
                "treasury_bps": data["share_treasury"],
                **resolution,
            },
        }

    def _place(self, error: SpecError) -> None:
        matches = [path for path in PLACES if error.field.startswith(path)]
        text = error.text
        if line := _LINE.match(error.field):
            text = f"Line {int(line[1]) + 1}: {text}"
            if error.field.endswith((".min", ".max")) and text.endswith("Must be a number."):
                text += " Of a column of words: its name, category, and its levels."
        if error.field.endswith("_bps") and "add up" in text:
            text = "The three shares must add up to 100 %."
        self.add_error(PLACES[max(matches, key=len)] if matches else None, text)


def _whole_numbers(texts: list[str]) -> list[int | str]:
    """As numbers where they are; `check_spec` says what is wrong with the rest."""
    return [int(t) if t.isascii() and t.isdigit() and len(t) < 9 else t for t in texts]


def _label(data: dict[str, Any], kind: str) -> dict[str, Any]:
    if kind == "classes":
        return {"classes": data["label_classes"]}
    if kind == "binary":
        return {"positive": data["label_positive"]}
    if kind == "survival":
        ends = {"event": data["label_event"], "occurred": data["label_occurred"]}
        ends |= {"max": data["label_max"]}
        return {name: value for name, value in ends.items() if value}
    ends = {"min": data["label_min"], "max": data["label_max"]}
    if kind == "series":
        names = [name for name in data if name.startswith("series_") and data[name]]
        ends["series"] = {name.removeprefix("series_"): data[name] for name in names}
    return {name: value for name, value in ends.items() if value}


def feature_rows(text: str) -> list[dict[str, Any]]:
    """Lines of `name, unit, min, max`, `name, category, level, …` or `name, boolean` as the spec's
    features; empty lines are skipped. `name, number, unit, …` has a unit that is called so.
    Raises: SpecError where a unit is none."""
    rows: list[dict[str, Any]] = []
    lines = (line for line in text.splitlines() if line.strip())
    for line in csv.reader(lines, skipinitialspace=True):
        name, *cells = (cell.strip() for cell in line)
        kind = cells[0].lower() if cells else ""
        if kind in (CATEGORY, BOOLEAN):
            levels = [cell for cell in cells[1:] if cell]
            rows.append({"name": name, "type": kind} | ({"levels": levels} if levels else {}))
            continue
        if kind == NUMBER:
            cells = cells[1:]
        elif kind in MEANT:
            raise SpecError(
                f"features[{len(rows)}].unit",
                f"“{cells[0]}” is no unit. Did you mean “{name}, {MEANT[kind]}”?",
            )
        named = zip(("unit", "min", "max", "code"), cells, strict=False)
        rows.append({"name": name} | {key: cell for key, cell in named if cell})
    return rows


def feature_lines(features: list[dict[str, Any]]) -> str:
    """The same lines of a checked spec's features."""
    lines = []
    for row in features:
        told = [row.get(key) or "" for key in ("unit", "min", "max")]
        if told[0].lower() in (*TYPES, *MEANT):
            told = [NUMBER, *told]
        cells = [row["type"], *row.get("levels", [])] if levels_of(row) else told
        lines.append(", ".join(quoted(str(cell)) for cell in (row["name"], *cells)))
    return "\n".join(lines)


def carried(spec: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    """`spec` as the form gives it, with what the form does not ask for as `base` has it."""
    codes = {row["name"]: row for row in [*base["features"], base["label"]]}
    for row in [*spec.get("features", []), spec["label"]]:
        before = codes.get(row["name"], {})
        if before.get("type", NUMBER) == row.get("type", NUMBER):
            row |= {name: before[name] for name in CODES if name in before}
    asked = {gate["metric"] for gate in spec["gates"]} | {"accuracy", "skill"}
    metrics = CLASSES[spec["model_class"]].metrics
    return spec | {
        "gates": spec["gates"]
        + [g for g in base["gates"] if g["metric"] not in asked and g["metric"] in metrics],
        **{part: base[part] | spec[part] for part in ("governance", "funding", "terms")},
    }


def kept_of(base: dict[str, Any]) -> list[str]:
    """In words, what `carried` keeps that is not as it would be without a word about it."""
    target = {"target_micro": base["funding"]["target_micro"]}
    usual = check_spec(base | {"governance": {}, "terms": {}, "funding": target})
    kept = [
        name.removesuffix("_bps").removesuffix("_ppm").removesuffix("_micro").replace("_", " ")
        for part in ("governance", "funding", "terms")
        for name, value in base[part].items()
        if f"{part}.{name}" not in PLACES and usual[part].get(name) != value
    ]
    lead = CLASSES[base["model_class"]].metrics[0]
    kept += [
        f"gate on {g['metric']}"
        for g in base["gates"]
        if g["metric"] not in (lead, "accuracy", "skill")
    ]
    return kept + ["codes"] * any("code" in row for row in [*base["features"], base["label"]])


def _budget_in(budget: dict[str, int] | None) -> dict[str, Any]:
    """The form's content for a privacy budget."""
    if not budget:
        return {}
    return {
        "epsilon": f"{budget['epsilon_milli'] / 1000:g}",
        "privacy_rounds": budget["rounds"],
        "clip": f"{budget['clip_milli'] / 1000:g}",
    }


def nodes_asked(engine: str, n: int) -> dict[str, Any]:
    """As a request says what nodes compute with."""
    family = SHAMIR_FAMILY if engine in SHAMIR else engine
    return {"n": max(n, COMPUTING[engine]), "t": threshold_of(engine), "engine": family}


def initial_from(title: str, spec: dict[str, Any]) -> dict[str, Any]:
    """The form's content for an existing request, so that one can start from it."""
    governance, terms, strata = spec["governance"], spec["terms"], spec["strata"] or {}
    gates = {gate["metric"]: gate for gate in spec["gates"]}
    lead = CLASSES[spec["model_class"]].metrics[0]
    auc, accuracy = gates.get(lead), gates.get("accuracy") if lead == "auc" else None
    spans = {
        name: duration(governance[name])
        for name in ("voting_delay_s", "voting_period_s", "timelock_s", "epoch_s")
    }
    return {
        "title": title,
        **{name: spec[name] for name in ("domain", "licence", "parent") if name in spec},
        **{name: spec[name] for name in ("objective", "model_class", "interpretable", "standard")},
        "hidden": ", ".join(map(str, spec.get("hidden", []))),
        "features": feature_lines(spec["features"]),
        "label_name": spec["label"]["name"],
        "label_positive": spec["label"].get("positive", "1"),
        "label_event": spec["label"].get("event", ""),
        "label_occurred": spec["label"].get("occurred", "1"),
        "label_classes": ", ".join(spec["label"].get("classes", [])),
        "label_min": spec["label"].get("min", ""),
        "label_max": spec["label"].get("max", ""),
        **{f"series_{name}": value for name, value in spec["label"].get("series", {}).items()},
        "strata_column": strata.get("column", ""),
        "strata_values": ", ".join(strata.get("values", [])),
        "auc_min": f"{auc['min_milli'] / 1000:g}" if auc else "0",
        "auc_per_stratum": bool(auc and auc["per_stratum"]),
        "accuracy_min": f"{accuracy['min_milli'] / 1000:g}" if accuracy else "",
        "skill_min": f"{gates['skill']['min_milli'] / 1000:g}" if "skill" in gates else "",
        "price": short(int(spec["price_micro"]), decimals_min=2),
        "target": short(int(spec["funding"]["target_micro"]), decimals_min=0),
        "deadline": duration(spec["funding"]["deadline_s"]),
        **spans,
        **{name: f"{governance[name] / 100:g}" for name in ("quorum_bps", "threshold_bps")},
        **{
            name: governance[name]
            for name in ("min_custodians", "min_validators", "min_rows", "scoring")
            if name in governance
        },
        "engine": engine_named_by(governance.get("engine", RING), governance["t"]),
        "n": governance["n"],
        "resolution": terms.get("resolution", "logit"),
        **_budget_in(governance.get("privacy")),
        "share_sbgt": f"{terms['sbgt_bps'] / 100:g}",
        "share_sdt": f"{terms['sdt_bps'] / 100:g}",
        "share_treasury": f"{terms['treasury_bps'] / 100:g}",
    }
