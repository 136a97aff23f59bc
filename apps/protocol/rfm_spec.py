"""What a Request-for-Model may say: `check_spec` is the one place that knows.

Source: paper §8.1. The checked spec has every default filled in, holds only what canonical bytes
can carry (decimals as strings, micro amounts as strings), and checking it again changes nothing,
so that its hash names exactly what was voted on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from decimal import Decimal, InvalidOperation
from typing import Any

from apps.protocol.circuits import CLASSES, ModelClass
from apps.protocol.circuits.descent import defaults_of
from apps.protocol.circuits.games import SCORINGS, SHAPLEY_MAX
from apps.protocol.circuits.multinomial import CLASSES_MAX
from apps.protocol.circuits.network import STEPS_WEIGHTS_MAX, UNITS_MAX, WEIGHTS_MAX
from apps.protocol.circuits.poisson import COUNT_MAX
from apps.protocol.emission import Schedule
from apps.protocol.encoding import (
    BOOLEAN,
    CATEGORY,
    LEVELS_MAX,
    NUMBER,
    TYPES,
    alike,
    encoded_names,
    width,
)
from apps.protocol.money import BPS
from apps.protocol.plans import plans_of
from apps.protocol.privacy import budget_of
from apps.protocol.series import HORIZON, LAGS_MAX, SEASON_MAX, STEPS, feature_names, moment
from apps.protocol.targets import class_of, weights_of
from apps.protocol.tariff import tiers_of
from apps.protocol.tickets import NODE_COUNTS, RING, SHAMIR, VERIFIED, TicketError, check_engine
from apps.protocol.unlocks import Unlocks
from apps.protocol.wire import digest

Spec = dict[str, Any]

SPEC_DOMAIN = "flai/rfm/v1"

FHIR, SERIES = "hl7-fhir-r4", "time-series"
CONDITION = "Condition"
STANDARDS = ("tabular-csv", FHIR, "omop-cdm-v5", "ga4gh", SERIES)
KINDS = ("federated_learning",)
DOMAINS = (
    "health",
    "finance",
    "industry",
    "energy",
    "environment",
    "mobility",
    "public-sector",
    "other",
)
DOMAIN = "other"
# What a buyer may do with the answers: {name: in words}.
LICENCES = {
    "any-use": "Answers may be used for any purpose and passed on.",
    "own-use": "Answers may be used within the buyer's own organisation, for any purpose.",
    "research": "Answers may be used for research and teaching, in no decision about a person.",
}
LICENCE = "any-use"
SHAMIR_FAMILY = "shamir"
FAMILIES = (RING, VERIFIED, SHAMIR_FAMILY)
MODEL_CLASSES = tuple(CLASSES)
# A gate is a least value: where less is better there is none.
GATELESS = ("log_loss",)
METRICS = tuple(dict.fromkeys(m for c in CLASSES.values() for m in c.metrics if m not in GATELESS))
REBATE_BPS_MAX = 5_000
FEATURES_MAX = 200
STRATA_MAX = 16
DAY_S = 86_400
AMOUNT_MAX = 10**15
_SLUG = re.compile(r"[a-z0-9-]{1,60}")
_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,80}")
_FORMULA = re.compile(r"[=@]|[+-](?![\d.]+$)")


class SpecError(ValueError):
    """`field` is the path of what is wrong ("features[3].min"), `text` is safe to show."""

    def __init__(self, field: str, text: str) -> None:
        super().__init__(f"{field}: {text}" if field else text)
        self.field = field
        self.text = text


def check_spec(spec: object) -> Spec:
    """The spec with defaults filled in. Raises SpecError for the first thing that is wrong."""
    raw = _table(
        spec,
        "",
        "objective kind domain model_class hidden interpretable standard features label strata "
        "gates governance price_micro funding licence terms parent",
    )
    model_class = _choice(raw.get("model_class", "logistic"), "model_class", MODEL_CLASSES)
    model = CLASSES[model_class]
    features = [] if model.series else check_features(raw.get("features"))
    label = _label(raw.get("label"), features, model) | _code_of_label(raw.get("label"))
    if model.series:
        features = _lags(raw.get("features"), label)
    usual = SERIES if model.series else STANDARDS[0]
    standard = _choice(raw.get("standard", usual), "standard", STANDARDS)
    if model.label == "survival" and standard == FHIR:
        raise SpecError("standard", "Times until an event are read from CSV or Parquet only.")
    if model.series and standard != SERIES:
        raise SpecError("standard", "A forecaster's data are a time series.")
    strata = _strata(raw.get("strata"), features, label)
    hidden = _hidden(raw.get("hidden"), model, features, label)
    governance = _governance(raw.get("governance", {}), model)
    size = weights_of(model, features, {"label": label, **hidden})
    if "engine" in governance and model.hidden and size > STEPS_WEIGHTS_MAX:
        raise SpecError(
            "governance.engine",
            f"Over {STEPS_WEIGHTS_MAX} weights take hours on it: choose the ring, or fewer units.",
        )
    return {
        "objective": _text(raw.get("objective"), "objective", most=2_000),
        "kind": _choice(raw.get("kind", KINDS[0]), "kind", KINDS),
        "domain": _choice(raw.get("domain", DOMAIN), "domain", DOMAINS),
        "model_class": model_class,
        **hidden,
        "interpretable": _interpretable(raw.get("interpretable"), model),
        "standard": standard,
        "features": features,
        "label": label,
        "strata": strata,
        "gates": _gates(raw.get("gates", []), strata, model),
        "governance": governance,
        "price_micro": str(_amount(raw.get("price_micro"), "price_micro")),
        "funding": _funding(raw.get("funding")),
        "licence": _choice(raw.get("licence", LICENCE), "licence", tuple(LICENCES)),
        "terms": _terms(raw.get("terms", {}), model),
        **({"parent": _slug(raw["parent"])} if raw.get("parent") else {}),
    }


def spec_hash(spec: Mapping[str, Any]) -> str:
    """What exactly is voted on, of a checked spec."""
    return digest(SPEC_DOMAIN, dict(spec))


def _slug(raw: object) -> str:
    """Of the SubDAO whose model is forked."""
    if not isinstance(raw, str) or not _SLUG.fullmatch(raw):
        raise SpecError("parent", "Name a SubDAO by its address, like “sepsis-risk”.")
    return raw


def _interpretable(raw: object, model: ModelClass) -> bool:
    """As the request says; a network's features have no effect each by itself."""
    wanted = _flag(not model.hidden if raw is None else raw, "interpretable")
    if wanted and model.hidden:
        raise SpecError("interpretable", f"{model.title}: its answers can't be explained so.")
    return wanted


def _hidden(raw: object, model: ModelClass, features: list[Spec], label: Spec) -> Spec:
    """Units of each hidden layer, where the request names them."""
    if raw is None:
        return {}
    count = len(model.hidden)
    if not count:
        raise SpecError("hidden", f"{model.title} has no hidden layers.")
    units = [
        _whole(each, f"hidden[{place}]", 1, UNITS_MAX)
        for place, each in enumerate(_items(raw, "hidden", least=count, most=count))
    ]
    size = weights_of(model, features, {"label": label, "hidden": units})
    if size > WEIGHTS_MAX:
        raise SpecError(
            "hidden", f"That makes {size} weights; a network has {WEIGHTS_MAX} at most."
        )
    return {"hidden": units}


def training_of(spec: Mapping[str, Any]) -> Spec:
    """How rounds of a new SubDAO train, until its members vote for another way: a network by steps,
    unless it has too many weights for them."""
    model = class_of(spec)
    if not model.hidden or weights_of(model, spec["features"], spec) > STEPS_WEIGHTS_MAX:
        return {"kind": "fedavg"}
    return {"kind": "secure_sgd", "schedule": defaults_of(model), "start": "serving"}


def schema_of(spec: Mapping[str, Any]) -> Spec:
    """The part of a checked spec that a site's data must fit; its hash goes into attestations."""
    return {key: spec[key] for key in ("standard", "features", "label", "strata")}


def subdao_params(spec: Mapping[str, Any]) -> Spec:
    """A checked spec as the parameters of the SubDAO that its award founds.

    A spec that was voted on before there were domains and licences has the default ones.
    """
    governance, terms = spec["governance"], spec["terms"]
    return {
        "objective": spec["objective"],
        "domain": spec.get("domain", DOMAIN),
        "licence": spec.get("licence", LICENCE),
        "schema": {"standard": spec["standard"], "features": spec["features"]},
        "label": spec["label"],
        "strata": spec["strata"],
        "gates": spec["gates"],
        "model_class": spec["model_class"],
        **({"hidden": spec["hidden"]} if "hidden" in spec else {}),
        "interpretable": spec["interpretable"],
        "price_micro": spec["price_micro"],
        "tiers": terms.get("tiers", []),
        "plans": terms.get("plans", []),
        "rebate_bps": terms.get("rebate_bps", 0),
        "resolution": terms["resolution"],
        "scoring": SCORINGS[0],
        "training": training_of(spec),
        "privacy": {},
        **governance,
        "engine": engine_named_by(governance.get("engine", RING), governance["t"]),
        "proposal_threshold_bps": 100,
        "split": {
            "sbgt_bps": terms["sbgt_bps"],
            "sdt_bps": terms["sdt_bps"],
            "treasury_bps": terms["treasury_bps"],
        },
        "sbgt_split": {
            "custodians_bps": terms["custodians_bps"],
            "validators_bps": terms["validators_bps"],
            "operators_bps": terms["operators_bps"],
        },
        "decay_ppm": terms["decay_ppm"],
        "stake_boost_bps": terms["stake_boost_bps"],
        "emission": asdict(Schedule()),
        "unlocks": asdict(Unlocks()),
    }


def check_features(raw: object) -> list[Spec]:
    """A spec's features with defaults filled in. Raises: SpecError."""
    items = _items(raw, "features", least=1, most=FEATURES_MAX)
    seen: set[str] = set()
    checked = []
    for index, item in enumerate(items):
        at = f"features[{index}]"
        row = _table(item, at, "name type levels unit min max code system resource active")
        name = _name(row.get("name"), f"{at}.name")
        if name in seen:
            raise SpecError(f"{at}.name", f"“{name}” is listed twice.")
        seen.add(name)
        kind = _choice(row.get("type", NUMBER), f"{at}.type", TYPES)
        ranged = [key for key in ("unit", "min", "max") if row.get(key) not in (None, "")]
        if kind != NUMBER and ranged:
            raise SpecError(f"{at}.{ranged[0]}", f"Only a {NUMBER} has a unit and a range.")
        low = _decimal(row.get("min"), f"{at}.min")
        high = _decimal(row.get("max"), f"{at}.max")
        if low is not None and high is not None and Decimal(low) >= Decimal(high):
            raise SpecError(f"{at}.max", "The range ends before it starts.")
        feature: Spec = {
            "name": name,
            "type": kind,
            **_levels(row.get("levels"), kind, f"{at}.levels"),
            "unit": _text(row.get("unit") or "", f"{at}.unit", least=0, most=40),
            "min": low,
            "max": high,
        }
        for extra in ("system", "code"):
            if row.get(extra):
                feature[extra] = _text(row[extra], f"{at}.{extra}", most=120)
        checked.append(feature | _condition(row, feature, at))
    if (wide := width(checked)) > FEATURES_MAX:
        raise SpecError(
            "features",
            f"They are {wide} columns for a model, since a category is one for each level but the "
            f"first; {FEATURES_MAX} are the most.",
        )
    names = encoded_names(checked)
    if twice := next((name for place, name in enumerate(names) if name in names[:place]), None):
        raise SpecError(
            "features", f"“{twice}” would be a column and a level, or two levels. Rename one."
        )
    return checked


def _levels(raw: object, kind: str, field: str) -> Spec:
    """What a category may say, the level first that others are compared with."""
    if kind != CATEGORY:
        if raw:
            raise SpecError(field, f"Only a {CATEGORY} has levels to name.")
        return {}
    levels = [
        _value(one, f"{field}[{place}]")
        for place, one in enumerate(_items(raw, field, least=2, most=LEVELS_MAX))
    ]
    if len({alike(level) for level in levels}) != len(levels):
        raise SpecError(field, "A level is listed twice.")
    return {"levels": levels}


def _condition(row: Mapping[str, Any], feature: Spec, at: str) -> Spec:
    """Of a boolean that says whether a patient has a FHIR Condition of its code."""
    if not row.get("resource"):
        if row.get("active"):
            raise SpecError(f"{at}.active", f"Only a {CONDITION} is active.")
        return {}
    resource = _choice(row["resource"], f"{at}.resource", (CONDITION,))
    if feature["type"] != BOOLEAN:
        raise SpecError(f"{at}.type", f"Whether there is a {CONDITION} is a {BOOLEAN}.")
    if not {"system", "code"} <= set(feature):
        raise SpecError(f"{at}.code", f"A {CONDITION} has a code, and the system that it is of.")
    active = _flag(row.get("active", False), f"{at}.active")
    return {"resource": resource, **({"active": True} if active else {})}


def _lags(raw: object, label: Spec) -> list[Spec]:
    """The features of a forecaster, which follow from its label: the last values, in order."""
    ends = {"min": label["min"], "max": label["max"]}
    made = check_features([{"name": name, **ends} for name in feature_names(label["series"])])
    if raw and raw != made:
        raise SpecError("features", "They are the series' last values: leave them out.")
    return made


def _series(raw: object, name: str) -> Spec:
    """How a forecaster's label lies in time (apps/protocol/series.py)."""
    row = _table(raw, "label.series", "time id step lags season horizon split")
    time = _name(row.get("time"), "label.series.time")
    own = _name(row["id"], "label.series.id") if row.get("id") else None
    for field, value, others in (("time", time, (name,)), ("id", own, (name, time))):
        if value in others:
            raise SpecError(f"label.series.{field}", "Value, time and series are columns each.")
    lags = _whole(row.get("lags"), "label.series.lags", 1, LAGS_MAX)
    season = row.get("season")
    if season is not None:
        season = _whole(season, "label.series.season", 2, SEASON_MAX)
    step = _choice(row.get("step"), "label.series.step", tuple(STEPS))
    split = row.get("split")
    split = _name(str(split) if type(split) is int else split, "label.series.split")
    try:
        moment(split, step)
    except ValueError as error:
        raise SpecError("label.series.split", f"A time of the series: {error}.") from None
    horizon = _whole(row.get("horizon", HORIZON), "label.series.horizon", HORIZON, HORIZON)
    return {
        "time": time,
        **({"id": own} if own else {}),
        "step": step,
        "lags": lags,
        **({"season": season} if season else {}),
        "horizon": horizon,
        "split": split,
    }


def _label(raw: object, features: list[Spec], model: ModelClass) -> Spec:
    """binary: the value that means yes; classes: their names; number, count: plausible range;
    survival: the longest time, and the column and value that say that the event came then; of a
    forecaster, how its series lies in time."""
    known = {
        "binary": "positive",
        "classes": "classes",
        "number": "min max",
        "count": "min max",
        "survival": "event occurred min max",
    }
    row = _table(raw, "label", "name system code " + known[model.label] + " series" * model.series)
    name = _name(row.get("name"), "label.name")
    if any(feature["name"] == name for feature in features):
        raise SpecError("label.name", "The label is listed among the features.")
    if model.label == "classes":
        values = [
            _name(str(value) if type(value) is int else value, f"label.classes[{index}]")
            for index, value in enumerate(
                _items(row.get("classes"), "label.classes", least=2, most=CLASSES_MAX)
            )
        ]
        if len(set(values)) != len(values):
            raise SpecError("label.classes", "A class is listed twice.")
        return {"name": name, "classes": values}
    if model.label == "count":
        if str(row.get("min", "0")) != "0":
            raise SpecError("label.min", "A count starts at 0.")
        text = row.get("max", COUNT_MAX)
        digits = isinstance(text, str) and text.isascii() and text.isdigit() and len(text) < 9
        most = _whole(int(text) if digits else text, "label.max", 1, COUNT_MAX)
        return {"name": name, "min": "0", "max": str(most)}
    if model.label == "number":
        low, high = (_decimal(row.get(end), f"label.{end}") for end in ("min", "max"))
        if low is None or high is None or Decimal(low) >= Decimal(high):
            raise SpecError("label.max", "A number needs its plausible range: min below max.")
        series = {"series": _series(row.get("series"), name)} if model.series else {}
        return {"name": name, "min": low, "max": high, **series}
    if model.label == "survival":
        event = _name(row.get("event"), "label.event")
        if event == name or any(feature["name"] == event for feature in features):
            raise SpecError("label.event", "The event is a column of its own.")
        longest = _decimal(row.get("max"), "label.max")
        if str(row.get("min", "0")) != "0" or longest is None or Decimal(longest) <= 0:
            raise SpecError("label.max", "A time starts at 0 and needs the longest one watched.")
        occurred = _value(row.get("occurred", "1"), "label.occurred")
        return {"name": name, "event": event, "occurred": occurred, "min": "0", "max": longest}
    return {"name": name, "positive": _value(row.get("positive", "1"), "label.positive")}


def _value(raw: object, field: str) -> str:
    """What a cell says, as text."""
    return _name(str(raw) if type(raw) is int else raw, field)


def _code_of_label(raw: Any) -> Spec:
    """The code that the label has in the data's standard, where the request names one."""
    extras = ("system", "code")
    return {name: _text(raw[name], f"label.{name}", most=120) for name in extras if raw.get(name)}


def _strata(raw: object, features: list[Spec], label: Spec) -> Spec | None:
    if raw is None:
        return None
    row = _table(raw, "strata", "column values")
    column = _name(row.get("column"), "strata.column")
    series = label.get("series", {})
    taken = {label["name"], label.get("event"), series.get("time"), series.get("id")}
    taken |= {feature["name"] for feature in features}
    if column in taken:
        raise SpecError("strata.column", "The strata are a column of their own.")
    values = [
        _name(value, f"strata.values[{index}]")
        for index, value in enumerate(
            _items(row.get("values"), "strata.values", least=2, most=STRATA_MAX)
        )
    ]
    if len(set(values)) != len(values):
        raise SpecError("strata.values", "A stratum is listed twice.")
    return {"column": column, "values": values}


def _gates(raw: object, strata: Spec | None, model: ModelClass) -> list[Spec]:
    checked = []
    metrics = tuple(metric for metric in model.metrics if metric not in GATELESS)
    for index, item in enumerate(_items(raw, "gates", least=0, most=8)):
        at = f"gates[{index}]"
        row = _table(item, at, "metric min_milli per_stratum")
        per_stratum = _flag(row.get("per_stratum", False), f"{at}.per_stratum")
        if per_stratum and strata is None:
            raise SpecError(f"{at}.per_stratum", "There are no strata to hold this gate in.")
        checked.append(
            {
                "metric": _choice(row.get("metric"), f"{at}.metric", metrics),
                "min_milli": _whole(row.get("min_milli"), f"{at}.min_milli", 0, 1_000),
                "per_stratum": per_stratum,
            }
        )
    return checked


def _governance(raw: object, model: ModelClass) -> Spec:
    bounds: dict[str, tuple[int, int, int]] = {  # default, least, most
        "voting_delay_s": (0, 0, 30 * DAY_S),
        "voting_period_s": (3 * DAY_S, 3, 30 * DAY_S),
        "timelock_s": (0, 0, 30 * DAY_S),
        "late_quorum_s": (0, 0, 7 * DAY_S),
        "grace_s": (7 * DAY_S, 60, 90 * DAY_S),
        "quorum_bps": (2_000, 1, BPS),
        "threshold_bps": (5_000, 5_000, BPS),
        "epoch_s": (7 * DAY_S, 5, 365 * DAY_S),
        "min_custodians": (3, 3, 64),
        "min_validators": (1, 1, 16),
        "min_rows": (20, 5, 10**9),
        "n": (min(NODE_COUNTS), min(NODE_COUNTS), max(NODE_COUNTS)),
        "t": (1, 1, max(SHAMIR.values())),
    }
    row = _table(raw, "governance", " ".join(bounds) + " scoring privacy engine")
    rules: Spec = {
        key: _whole(row.get(key, default), f"governance.{key}", least, most)
        for key, (default, least, most) in bounds.items()
    }
    rules["scoring"] = _choice(
        row.get("scoring", SCORINGS[0]), "governance.scoring", model.scorings
    )
    if rules["scoring"] == "shapley" and rules["min_custodians"] > SHAPLEY_MAX:
        raise SpecError(
            "governance.scoring",
            f"Shapley values are computed for {SHAPLEY_MAX} custodians at most.",
        )
    return rules | _engine(row.get("engine"), rules) | _privacy(row.get("privacy"), model)


def _engine(raw: object, rules: Spec) -> Spec:
    """What nodes compute with, where that is not the ring: requests said nothing of it before there
    was a choice. With Shamir shares any t of the n nodes together learn nothing."""
    named = _choice(RING if raw is None else raw, "governance.engine", FAMILIES)
    n, t = rules["n"], rules["t"]
    if named != SHAMIR_FAMILY and t != 1:
        raise SpecError("governance.t", f"Of the {named} one node may be curious: t is 1.")
    try:
        check_engine(engine_named_by(named, t), n)
    except TicketError as error:
        raise SpecError("governance.n", error.text) from None
    return {} if named == RING else {"engine": named}


def engine_named_by(family: str, t: int) -> str:
    """As tickets name it: of Shamir shares the threshold is part of the name."""
    return f"{family}_t{t}" if family == SHAMIR_FAMILY else family


def _privacy(raw: object, model: ModelClass) -> Spec:
    """A request without a budget says nothing of one, as requests did before there were any."""
    try:
        budget = budget_of(raw)
    except ValueError as error:
        raise SpecError("governance.privacy", f"{error}.") from None
    if budget is None:
        return {}
    if not model.noises:
        raise SpecError("governance.privacy", f"{model.title}: its rounds make no noise yet.")
    return {"privacy": budget.as_json}


def _funding(raw: object) -> Spec:
    row = _table(raw, "funding", "target_micro deadline_s sdt_supply_micro")
    supply = row.get("sdt_supply_micro", 10**12)
    return {
        "target_micro": str(_amount(row.get("target_micro"), "funding.target_micro")),
        "deadline_s": _whole(
            row.get("deadline_s", 30 * DAY_S), "funding.deadline_s", 5, 365 * DAY_S
        ),
        "sdt_supply_micro": str(_amount(supply, "funding.sdt_supply_micro", least=10**6)),
    }


def _terms(raw: object, model: ModelClass) -> Spec:
    defaults = {
        "sbgt_bps": 6_000,
        "sdt_bps": 2_800,
        "treasury_bps": 1_200,
        "custodians_bps": 8_000,
        "validators_bps": 1_000,
        "operators_bps": 1_000,
        "backers_sdt_bps": 6_000,
        "treasury_sdt_bps": 2_000,
        "reserve_sdt_bps": 1_500,
        "submitter_sdt_bps": 500,
    }
    others = " resolution decay_ppm stake_boost_bps rebate_bps tiers plans"
    row = _table(raw, "terms", " ".join(defaults) + others)
    terms: Spec = {
        key: _whole(row.get(key, default), f"terms.{key}", 0, BPS)
        for key, default in defaults.items()
    }
    for group in (
        ("sbgt_bps", "sdt_bps", "treasury_bps"),
        ("custodians_bps", "validators_bps", "operators_bps"),
        ("backers_sdt_bps", "treasury_sdt_bps", "reserve_sdt_bps", "submitter_sdt_bps"),
    ):
        if sum(terms[key] for key in group) != BPS:
            raise SpecError(
                f"terms.{group[0]}", f"{', '.join(group)} must add up to {BPS} (the whole)."
            )
    terms["resolution"] = _choice(
        row.get("resolution", "logit"), "terms.resolution", model.resolutions
    )
    terms["decay_ppm"] = _whole(row.get("decay_ppm", 900_000), "terms.decay_ppm", 1, 999_999)
    terms["stake_boost_bps"] = _whole(
        row.get("stake_boost_bps", 15_000), "terms.stake_boost_bps", BPS, 10 * BPS
    )
    terms["rebate_bps"] = _whole(row.get("rebate_bps", 0), "terms.rebate_bps", 0, REBATE_BPS_MAX)
    for name, made_of in (("tiers", tiers_of), ("plans", plans_of)):
        try:
            terms[name] = [asdict(one) for one in made_of(row.get(name, []))]
        except ValueError as error:
            raise SpecError(f"terms.{name}", f"{error}.") from None
    return terms


def _table(raw: object, field: str, known: str) -> Mapping[str, Any]:
    if not isinstance(raw, Mapping):
        raise SpecError(field, "Missing." if raw is None else "Must be an object.")
    unknown = sorted(str(key) for key in raw if key not in known.split())
    if unknown:
        raise SpecError(f"{field}.{unknown[0]}".lstrip("."), "Unknown field.")
    return raw


def _items(raw: object, field: str, *, least: int, most: int) -> list[Any]:
    if not isinstance(raw, list | tuple):
        raise SpecError(field, "Missing." if raw is None else "Must be a list.")
    if not least <= len(raw) <= most:
        raise SpecError(field, f"Must have {least} to {most} entries.")
    return list(raw)


def _text(raw: object, field: str, *, least: int = 1, most: int) -> str:
    if not isinstance(raw, str):
        raise SpecError(field, "Missing." if raw is None else "Must be text.")
    text = raw.strip()
    if not least <= len(text) <= most or "\x00" in text or not _encodable(text):
        raise SpecError(field, f"Must be {least} to {most} characters.")
    return text


def _name(raw: object, field: str) -> str:
    text = _text(raw, field, most=80)
    if not _NAME.fullmatch(text):
        raise SpecError(field, "Must be one line of printable characters.")
    if _FORMULA.match(text):
        # names are headers and cells of the files that people open
        raise SpecError(field, "Must not begin with =, +, - or @: a spreadsheet would compute it.")
    return text


def _encodable(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def _choice(raw: object, field: str, choices: tuple[str, ...]) -> str:
    if not isinstance(raw, str) or raw not in choices:
        raise SpecError(field, f"Must be one of: {', '.join(choices)}.")
    return raw


def _flag(raw: object, field: str) -> bool:
    if not isinstance(raw, bool):
        raise SpecError(field, "Must be true or false.")
    return raw


def _whole(raw: object, field: str, least: int, most: int) -> int:
    if isinstance(raw, bool) or not isinstance(raw, int):
        raise SpecError(field, "Missing." if raw is None else "Must be a whole number.")
    if not least <= raw <= most:
        raise SpecError(field, f"Must lie between {least} and {most}.")
    return raw


def _amount(raw: object, field: str, *, least: int = 1) -> int:
    value = raw
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise SpecError(field, "Missing." if raw is None else "Must be micro-units, as digits.")
    if not least <= value <= AMOUNT_MAX:
        raise SpecError(field, f"Must lie between {least} and {AMOUNT_MAX} micro-units.")
    return value


def _decimal(raw: object, field: str) -> str | None:
    """A plausibility bound as a decimal string in one spelling; None and "" mean no bound."""
    if raw is None or raw == "":
        return None
    if isinstance(raw, bool) or not isinstance(raw, int | float | str):
        raise SpecError(field, "Must be a number.")
    try:
        value = Decimal(str(raw).strip())
    except InvalidOperation:
        raise SpecError(field, "Must be a number.") from None
    if not value.is_finite() or abs(value) >= Decimal(10) ** 12:
        raise SpecError(field, "Must lie between -10^12 and 10^12.")
    spelled = format(value.quantize(Decimal("1e-6")), "f").rstrip("0").rstrip(".")
    return "0" if spelled == "-0" else spelled
