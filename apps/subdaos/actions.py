"""Kinds of proposals that change a SubDAO's parameters or spend its money."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any
from uuid import UUID

from django.conf import settings

from apps.core.actions import Payload, action
from apps.core.errors import BadInput
from apps.protocol import decay, emission, plans, privacy, tariff, unlocks
from apps.protocol.circuits import BadParams
from apps.protocol.circuits.descent import DEFAULTS, check_schedule, defaults_of
from apps.protocol.circuits.network import STEPS_WEIGHTS_MAX
from apps.protocol.ledger import AMOUNT_MAX
from apps.protocol.money import BPS
from apps.protocol.portion import portion_rows
from apps.protocol.revenue import SPLIT
from apps.protocol.targets import class_of, weights_of
from apps.protocol.tickets import ENGINES, TRIO, nodes_max_of
from apps.subdaos import selectors, services
from apps.subdaos.models import Dao

PRICE_MAX = 10**15


@action("subdaos.set_price", house="sdt")
class SetPrice:
    """{"price_micro": "500000"}: what one query costs. SDT holders decide prices."""

    def validate(self, payload: Payload, dao: Dao) -> Payload:
        raw = payload.get("price_micro")
        text = str(raw) if isinstance(raw, int) and not isinstance(raw, bool) else raw
        if set(payload) != {"price_micro"} or not isinstance(text, str):
            raise BadInput("bad_payload", "Give price_micro, in micro-units, and nothing else.")
        digits = text.isascii() and text.isdigit() and len(text) <= len(str(PRICE_MAX))
        if not digits or not 1 <= int(text) <= PRICE_MAX:
            raise BadInput("bad_price", f"A price lies between 1 and {PRICE_MAX} micro-units.")
        price = str(int(text))
        if price == dao.params["price_micro"]:
            raise BadInput("no_change", "This is the price already.")
        return {"price_micro": price}

    def describe(self, payload: Payload, dao: Dao) -> list[dict[str, Any]]:
        return [
            {
                "label": "Price of one query (USDC micro-units)",
                "before": dao.params["price_micro"],
                "after": payload["price_micro"],
            }
        ]

    def execute(self, payload: Payload, *, dao: Dao, proposal_id: UUID, now: datetime) -> None:
        services.param_set(
            dao=dao,
            key="price_micro",
            value=payload["price_micro"],
            proposal_id=proposal_id,
            now=now,
        )


@action("subdaos.set_tiers", house="sdt")
class SetTiers:
    """{"tiers": [{"from_rows": 1000, "off_bps": 1000}, …]}: after so many rows in a month a row
    costs so much less. An empty list: every row costs the same."""

    def validate(self, payload: Payload, dao: Dao) -> Payload:
        if set(payload) != {"tiers"}:
            raise BadInput("bad_payload", "Give tiers, a list, and nothing else.")
        try:
            tiers = [asdict(tier) for tier in tariff.tiers_of(payload["tiers"])]
        except ValueError as error:
            raise BadInput("bad_tiers", f"tiers: {error}.") from None
        if tiers == dao.params["tiers"]:
            raise BadInput("no_change", "These are the tiers already.")
        return {"tiers": tiers}

    def describe(self, payload: Payload, dao: Dao) -> list[dict[str, Any]]:
        sides = [
            {t.from_rows: _percent(t.off_bps) for t in tariff.tiers_of(raw)}
            for raw in (dao.params["tiers"], payload["tiers"])
        ]
        return _sides_changed("Off the price, after {} rows in a month", *sides)

    def execute(self, payload: Payload, *, dao: Dao, proposal_id: UUID, now: datetime) -> None:
        services.param_set(
            dao=dao, key="tiers", value=payload["tiers"], proposal_id=proposal_id, now=now
        )


@action("subdaos.set_plans", house="sdt")
class SetPlans:
    """{"plans": [{"name": "pro", "rows": 10000, "days": 30, "off_bps": 2500}, …]}: rows that are
    paid ahead, for so much less each. Plans that run go on as they were bought."""

    def validate(self, payload: Payload, dao: Dao) -> Payload:
        if set(payload) != {"plans"}:
            raise BadInput("bad_payload", "Give plans, a list, and nothing else.")
        try:
            asked = plans.plans_of(payload["plans"])
            plans.check_answerable(
                asked,
                rows_per_epoch=portion_rows(settings.ROWS_PER_EPOCH, selectors.portion_bps(dao)),
                epoch_days=settings.ROWS_EPOCH_DAYS,
            )
        except ValueError as error:
            raise BadInput("bad_plans", f"plans: {error}.") from None
        found = [asdict(plan) for plan in asked]
        if found == dao.params["plans"]:
            raise BadInput("no_change", "These are the plans already.")
        return {"plans": found}

    def describe(self, payload: Payload, dao: Dao) -> list[dict[str, Any]]:
        sides = [
            {
                p.name: f"{p.rows:,} rows for {p.days} days, {_percent(p.off_bps)} off each"
                for p in plans.plans_of(raw)
            }
            for raw in (dao.params["plans"], payload["plans"])
        ]
        return _sides_changed("Plan “{}”", *sides)

    def execute(self, payload: Payload, *, dao: Dao, proposal_id: UUID, now: datetime) -> None:
        services.param_set(
            dao=dao, key="plans", value=payload["plans"], proposal_id=proposal_id, now=now
        )


@action("subdaos.set_scoring", house="sbgt")
class SetScoring:
    """{"scoring": "shapley"}: what contributions are scored by, from the next round on."""

    def validate(self, payload: Payload, dao: Dao) -> Payload:
        scorings = class_of(dao.params).scorings
        if set(payload) != {"scoring"} or payload["scoring"] not in scorings:
            raise BadInput("bad_scoring", f"Give scoring, one of: {', '.join(scorings)}.")
        if payload["scoring"] == dao.params["scoring"]:
            raise BadInput("no_change", "Contributions are scored by this already.")
        return dict(payload)

    def describe(self, payload: Payload, dao: Dao) -> list[dict[str, Any]]:
        return [
            {
                "label": "Contributions are scored by",
                "before": dao.params["scoring"],
                "after": payload["scoring"],
            }
        ]

    def execute(self, payload: Payload, *, dao: Dao, proposal_id: UUID, now: datetime) -> None:
        services.param_set(
            dao=dao, key="scoring", value=payload["scoring"], proposal_id=proposal_id, now=now
        )


@action("subdaos.set_engine", house="sbgt")
class SetEngine:
    """{"engine": "ring_verified"}: what nodes compute with, from the next round on: "ring", three
    nodes of which one may be curious; four that check each other, so that one may even cheat; or
    "shamir_t1", "shamir_t2", "shamir_t3", 2t + 1 nodes of which t may be curious together. A round
    opens only while there are so many.

    A model keeps what its makers signed when it was made: the nodes hold its queries to that.
    """

    def validate(self, payload: Payload, dao: Dao) -> Payload:
        if set(payload) != {"engine"} or payload["engine"] not in ENGINES:
            raise BadInput("bad_engine", f"Give engine, one of: {', '.join(ENGINES)}.")
        if payload["engine"] == selectors.engine_of(dao):
            raise BadInput("no_change", "Nodes compute with this already.")
        most, least = nodes_max_of(payload["engine"]), int(dao.params.get("n", TRIO))
        if least > most:
            text = (
                f"{payload['engine']} takes {most} nodes at most, and here {least} are the least."
            )
            raise BadInput("bad_engine", text)
        return dict(payload)

    def describe(self, payload: Payload, dao: Dao) -> list[dict[str, Any]]:
        return [
            {
                "label": "Nodes compute with",
                "before": selectors.engine_of(dao),
                "after": payload["engine"],
            }
        ]

    def execute(self, payload: Payload, *, dao: Dao, proposal_id: UUID, now: datetime) -> None:
        services.param_set(
            dao=dao, key="engine", value=payload["engine"], proposal_id=proposal_id, now=now
        )


@action("subdaos.set_resolution", house="sbgt")
class SetResolution:
    """{"resolution": "rounded"}: how finely buyers see answers of models that are made from now on.

    A model keeps the one that its makers signed when it was made: the nodes hold it to that, and no
    vote reaches them.
    """

    def validate(self, payload: Payload, dao: Dao) -> Payload:
        resolutions = class_of(dao.params).resolutions
        if set(payload) != {"resolution"} or payload["resolution"] not in resolutions:
            raise BadInput("bad_resolution", f"Give resolution, one of: {', '.join(resolutions)}.")
        if payload["resolution"] == dao.params["resolution"]:
            raise BadInput("no_change", "Answers are given like this already.")
        return dict(payload)

    def describe(self, payload: Payload, dao: Dao) -> list[dict[str, Any]]:
        return [
            {
                "label": "Answers of the next model version are given as",
                "before": dao.params["resolution"],
                "after": payload["resolution"],
            }
        ]

    def execute(self, payload: Payload, *, dao: Dao, proposal_id: UUID, now: datetime) -> None:
        services.param_set(
            dao=dao, key="resolution", value=payload["resolution"], proposal_id=proposal_id, now=now
        )


@action("subdaos.set_privacy", house="sbgt")
class SetPrivacy:
    """{"privacy": {"epsilon_milli": 8000, "rounds": 4, "clip_milli": 2000}}: noise on the models of
    so many rounds, so that they show no more than ε of one site's update, shortened to that length.
    {"privacy": {}}: none, from the next round on. What rounds have spent stays spent.
    """

    def validate(self, payload: Payload, dao: Dao) -> Payload:
        if set(payload) != {"privacy"} or not isinstance(payload["privacy"], dict):
            raise BadInput("bad_payload", "Give privacy, an object, and nothing else.")
        try:
            budget = privacy.budget_of(payload["privacy"])
        except ValueError as error:
            raise BadInput("bad_privacy", f"privacy: {error}.") from None
        if budget == selectors.budget_of(dao):
            raise BadInput("no_change", "This is the privacy budget already.")
        model = class_of(dao.params)
        if budget and not model.noises:
            raise BadInput("bad_privacy", f"{model.title}: its rounds make no noise yet.")
        if budget and dao.params["training"]["kind"] != "fedavg":
            raise BadInput("bad_privacy", "Steps on shared rows make no noise yet; fedavg does.")
        return {"privacy": budget.as_json if budget else {}}

    def describe(self, payload: Payload, dao: Dao) -> list[dict[str, Any]]:
        before, after = dao.params.get("privacy") or {}, payload["privacy"]
        return [
            {"label": label, "before": _said(before, name), "after": _said(after, name)}
            for name, label in PRIVACY_LABELS.items()
            if before.get(name) != after.get(name)
        ]

    def execute(self, payload: Payload, *, dao: Dao, proposal_id: UUID, now: datetime) -> None:
        services.param_set(
            dao=dao, key="privacy", value=payload["privacy"], proposal_id=proposal_id, now=now
        )


PRIVACY_LABELS = {
    "epsilon_milli": "Privacy budget: ε of all models together",
    "rounds": "Rounds that spend it",
    "clip_milli": "Updates are shortened to",
}


def _said(budget: dict[str, int], name: str) -> str:
    if not budget:
        return "no noise"
    return str(budget[name]) if name == "rounds" else f"{budget[name] / 1000:.3f}"


@action("subdaos.set_training", house="sbgt")
class SetTraining:
    """{"training": {"kind": "fedavg"}}, or of kind "secure_sgd" with a schedule and a start: how
    rounds train, from the next one on. What a schedule leaves out is as in
    `circuits.descent.defaults_of`; start is "serving" (go on from the serving version where nodes
    allow it) unless it is "zero" (with the normalisation taken anew)."""

    def validate(self, payload: Payload, dao: Dao) -> Payload:
        asked = payload.get("training")
        formed = set(payload) == {"training"} and isinstance(asked, dict)
        chosen = _training(asked if isinstance(asked, dict) and formed else {}, dao)
        if chosen == dao.params["training"]:
            raise BadInput("no_change", "Rounds train like this already.")
        return {"training": chosen}

    def describe(self, payload: Payload, dao: Dao) -> list[dict[str, Any]]:
        before, after = dao.params["training"], payload["training"]
        was = before.get("schedule", {})
        starts = [START_NAMES[t.get("start", "serving")] for t in (before, after)]
        return [
            {"label": "Rounds train by", "before": before["kind"], "after": after["kind"]},
            *(
                [{"label": START_LABEL, "before": starts[0], "after": starts[1]}]
                if starts[0] != starts[1]
                else []
            ),
            *(
                {
                    "label": SCHEDULE_LABELS[name],
                    "before": str(was.get(name, "")),
                    "after": str(value),
                }
                for name, value in after.get("schedule", {}).items()
                if was.get(name) != value
            ),
        ]

    def execute(self, payload: Payload, *, dao: Dao, proposal_id: UUID, now: datetime) -> None:
        services.param_set(
            dao=dao, key="training", value=payload["training"], proposal_id=proposal_id, now=now
        )


SCHEDULE_LABELS = {
    "epochs": "Epochs, at most",
    "steps": "Steps in an epoch",
    "rate_ppm": "Rate of a step, in millionths",
    "momentum_ppm": "Momentum, in millionths",
    "l2_ppm": "Penalty on weights, in millionths",
    "patience": "Epochs without gain until it stops (0: never)",
    "curve": "Open the validators' loss after each epoch (1: yes, 0: no)",
}


START_LABEL = "Steps begin at"
START_NAMES = {
    "serving": "The serving version, where all its makers take part",
    "zero": "Zero, with mean and variance taken anew",
}


def _training(asked: dict[str, Any], dao: Dao) -> dict[str, Any]:
    """The parameter in full. Raises: BadInput."""
    model = class_of(dao.params)
    if asked == {"kind": "fedavg"}:
        return asked
    schedule = asked.get("schedule", {})
    start = asked.get("start", "serving")
    formed = set(asked) <= {"kind", "schedule", "start"} and isinstance(schedule, dict)
    formed = formed and start in list(START_NAMES)
    if asked.get("kind") != "secure_sgd" or not formed or not set(schedule) <= set(DEFAULTS):
        raise BadInput(
            "bad_training",
            "Give training with kind, fedavg or secure_sgd, and for secure_sgd perhaps schedule, "
            f"of: {', '.join(DEFAULTS)}, and start, serving or zero.",
        )
    if not model.descends:
        raise BadInput("bad_training", f"{model.title} is trained by fedavg only.")
    size = weights_of(model, dao.params["schema"]["features"], dao.params)
    if model.hidden and size > STEPS_WEIGHTS_MAX:
        raise BadInput(
            "bad_training",
            f"Steps are taken of networks of {STEPS_WEIGHTS_MAX} weights at most; this has {size}.",
        )
    if dao.params.get("privacy"):
        raise BadInput(
            "bad_training",
            "Steps on shared rows make no noise yet, and this SubDAO has a privacy budget.",
        )
    full = {**defaults_of(model), **schedule}
    try:
        check_schedule(full)
    except BadParams as error:
        raise BadInput("bad_training", f"The {error}.") from None
    return {"kind": "secure_sgd", "schedule": full, "start": start}


@action("subdaos.set_emission", house="sdt")
class SetEmission:
    """{"emission": {"rate_bps": 200, …}}: how the reserve is released, from the end of the running
    epoch on."""

    def validate(self, payload: Payload, dao: Dao) -> Payload:
        if set(payload) != {"emission"}:
            raise BadInput("bad_payload", "Give emission, an object, and nothing else.")
        try:
            schedule = asdict(emission.schedule_of(payload["emission"]))
        except ValueError as error:
            raise BadInput("bad_schedule", f"emission: {error}.") from None
        if schedule == dao.params["emission"]:
            raise BadInput("no_change", "This is the schedule already.")
        return {"emission": schedule}

    def describe(self, payload: Payload, dao: Dao) -> list[dict[str, Any]]:
        return _shares_changed(EMISSION_LABELS, dao.params["emission"], payload["emission"])

    def execute(self, payload: Payload, *, dao: Dao, proposal_id: UUID, now: datetime) -> None:
        services.param_set(
            dao=dao,
            key="emission",
            value=payload["emission"],
            proposal_id=proposal_id,
            now=now,
        )


@action("subdaos.set_split", house="sdt")
class SetSplit:
    """{"split": {"sbgt_bps", "sdt_bps", "treasury_bps"}}: who gets which part of the revenue, from
    the end of the running epoch on. The treasury's part is 10 to 15 % (paper §7.2)."""

    def validate(self, payload: Payload, dao: Dao) -> Payload:
        split = payload.get("split")
        if set(payload) != {"split"} or not isinstance(split, dict) or set(split) != set(SPLIT):
            raise BadInput("bad_payload", f"Give split with {', '.join(SPLIT)} and no more.")
        if any(isinstance(v, bool) or not isinstance(v, int) or v < 0 for v in split.values()):
            raise BadInput("bad_split", "Shares are whole basis points, 0 or more.")
        if sum(split.values()) != BPS:
            raise BadInput("bad_split", f"The three shares must sum to {BPS} basis points.")
        if not TREASURY_BPS[0] <= split["treasury_bps"] <= TREASURY_BPS[1]:
            raise BadInput("bad_split", "The treasury's share lies between 10 and 15 %.")
        if split == dao.params["split"]:
            raise BadInput("no_change", "The revenue is divided like this already.")
        return {"split": dict(split)}

    def describe(self, payload: Payload, dao: Dao) -> list[dict[str, Any]]:
        return _shares_changed(SPLIT_LABELS, dao.params["split"], payload["split"])

    def execute(self, payload: Payload, *, dao: Dao, proposal_id: UUID, now: datetime) -> None:
        services.param_set(
            dao=dao, key="split", value=payload["split"], proposal_id=proposal_id, now=now
        )


@action("subdaos.set_unlocks", house="sdt")
class SetUnlocks:
    """{"unlocks": {"early_access_s": 86400, "stake_bps": 10}}: how long after its first sale a
    model is for those alone who have staked so much of the supply."""

    def validate(self, payload: Payload, dao: Dao) -> Payload:
        if set(payload) != {"unlocks"}:
            raise BadInput("bad_payload", "Give unlocks, an object, and nothing else.")
        try:
            found = asdict(unlocks.unlocks_of(payload["unlocks"]))
        except ValueError as error:
            raise BadInput("bad_unlocks", f"unlocks: {error}.") from None
        if found == dao.params["unlocks"]:
            raise BadInput("no_change", "Stakes unlock just this already.")
        return {"unlocks": found}

    def describe(self, payload: Payload, dao: Dao) -> list[dict[str, Any]]:
        before, after = dao.params["unlocks"], payload["unlocks"]
        rows = [
            {
                "label": "Early access to a new model (seconds)",
                "before": str(before["early_access_s"]),
                "after": str(after["early_access_s"]),
            },
            {
                "label": "Stake that unlocks it, of the supply",
                "before": _percent(before["stake_bps"]),
                "after": _percent(after["stake_bps"]),
            },
        ]
        return [row for row in rows if row["before"] != row["after"]]

    def execute(self, payload: Payload, *, dao: Dao, proposal_id: UUID, now: datetime) -> None:
        services.param_set(
            dao=dao, key="unlocks", value=payload["unlocks"], proposal_id=proposal_id, now=now
        )


@action("subdaos.set_sponsoring", house="super")
class SetSponsoring:
    """{"sponsoring": {"first_s": 86400, "stake_bps": 1}}: how long after it opened a crowdfund is
    for those alone who have staked so much of all FLAI."""

    def validate(self, payload: Payload, dao: Dao) -> Payload:
        if set(payload) != {"sponsoring"}:
            raise BadInput("bad_payload", "Give sponsoring, an object, and nothing else.")
        try:
            found = asdict(unlocks.sponsoring_of(payload["sponsoring"]))
        except ValueError as error:
            raise BadInput("bad_sponsoring", f"sponsoring: {error}.") from None
        if found == dao.params["sponsoring"]:
            raise BadInput("no_change", "Crowdfunds open like this already.")
        return {"sponsoring": found}

    def describe(self, payload: Payload, dao: Dao) -> list[dict[str, Any]]:
        before, after = dao.params["sponsoring"], payload["sponsoring"]
        rows = [
            {
                "label": "A crowdfund's first time, for stakers alone (seconds)",
                "before": str(before["first_s"]),
                "after": str(after["first_s"]),
            },
            {
                "label": "Stake that it takes, of all FLAI",
                "before": _percent(before["stake_bps"]),
                "after": _percent(after["stake_bps"]),
            },
        ]
        return [row for row in rows if row["before"] != row["after"]]

    def execute(self, payload: Payload, *, dao: Dao, proposal_id: UUID, now: datetime) -> None:
        services.param_set(
            dao=dao, key="sponsoring", value=payload["sponsoring"], proposal_id=proposal_id, now=now
        )


EMISSION_LABELS = {
    "rate_bps": "Of the reserve, released each epoch",
    "contributors_bps": "Of it, to contributors who convert points",
    "sponsors_bps": "Of it, to the request's sponsors",
    "treasury_bps": "Of it, to the treasury",
    "convertible_bps": "Of a member's points, convertible each epoch",
}
SPLIT_LABELS = {
    "sbgt_bps": "Of the revenue, to contributors",
    "sdt_bps": "Of the revenue, to token holders",
    "treasury_bps": "Of the revenue, to the treasury",
}
TREASURY_BPS = (1_000, 1_500)


def _shares_changed(
    labels: dict[str, str], before: dict[str, int], after: dict[str, int]
) -> list[dict[str, Any]]:
    """What a page shows of a change of shares: those that change, in per cent."""
    return [
        {"label": label, "before": _percent(before[name]), "after": _percent(after[name])}
        for name, label in labels.items()
        if before[name] != after[name]
    ]


def _sides_changed(
    label: str, before: dict[Any, str], after: dict[Any, str]
) -> list[dict[str, Any]]:
    """What a page shows of a change of named entries: those that come, go or change."""
    return [
        {"label": label.format(name), "before": before.get(name, ""), "after": after.get(name, "")}
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


def _percent(bps: int) -> str:
    return f"{bps // 100}.{bps % 100:02} %"


@action("subdaos.pay", house="sdt")
class Pay:
    """{"to": pid, "asset": "USDC", "amount_micro": "1000000"}: a payment from the treasury.

    What it is for stands in the proposal: the ledger and the log keep no free text.
    """

    def validate(self, payload: Payload, dao: Dao) -> Payload:
        if set(payload) != {"to", "asset", "amount_micro"} or not all(
            isinstance(value, str) and value.isprintable() for value in payload.values()
        ):
            raise BadInput("bad_payload", "Give to, asset and amount_micro, as texts, and no more.")
        text = payload["amount_micro"]
        digits = text.isascii() and text.isdigit() and len(text) <= len(str(AMOUNT_MAX))
        if not digits or text.startswith("0") or int(text) > AMOUNT_MAX:
            raise BadInput("bad_amount", f"An amount lies between 1 and {AMOUNT_MAX} micro-units.")
        services.payee(payload["to"])
        has = selectors.treasury_micro(dao, payload["asset"])
        if has < int(text):
            raise BadInput(
                "treasury_short", f"The treasury has {has} micro-units of {payload['asset'][:40]}."
            )
        return dict(payload)

    def describe(self, payload: Payload, dao: Dao) -> list[dict[str, Any]]:
        asset, to = payload["asset"], services.payee(payload["to"])
        has, amount = selectors.treasury_micro(dao, asset), int(payload["amount_micro"])
        return [
            {
                "label": f"Payment to {to.name} ({asset} micro-units)",
                "before": "",
                "after": str(amount),
            },
            {
                "label": f"Treasury, as it is now ({asset} micro-units)",
                "before": str(has),
                "after": str(has - amount),
            },
        ]

    def execute(self, payload: Payload, *, dao: Dao, proposal_id: UUID, now: datetime) -> None:
        services.treasury_pay(
            dao=dao,
            to=services.payee(payload["to"]),
            asset=payload["asset"],
            amount_micro=int(payload["amount_micro"]),
            proposal_id=proposal_id,
            now=now,
        )


@action("subdaos.revoke", house="sbgt")
class Revoke:
    """{"party": pid, "points_micro": "1000000"}: take a member's points, for inactivity, exit or
    malice. Whoever has fewer by then keeps none; nobody else gets them.
    """

    def validate(self, payload: Payload, dao: Dao) -> Payload:
        if set(payload) != {"party", "points_micro"} or not all(
            isinstance(value, str) for value in payload.values()
        ):
            raise BadInput("bad_payload", "Give party and points_micro, as texts, and no more.")
        text = payload["points_micro"]
        digits = text.isascii() and text.isdigit() and len(text) <= len(str(AMOUNT_MAX))
        if not digits or text.startswith("0") or int(text) > AMOUNT_MAX:
            raise BadInput("bad_points", f"Points lie between 1 and {AMOUNT_MAX} micro-points.")
        member = services.payee(payload["party"])
        if not selectors.points_now(dao, member):
            raise BadInput("no_points", f"{member.name} has no points here.")
        return dict(payload)

    def describe(self, payload: Payload, dao: Dao) -> list[dict[str, Any]]:
        member = services.payee(payload["party"])
        held = selectors.points_now(dao, member)
        left = decay.revoked(held, int(payload["points_micro"]))
        return [
            {
                "label": f"Points of {member.name} (micro-points)",
                "before": str(held),
                "after": str(left),
            }
        ]

    def execute(self, payload: Payload, *, dao: Dao, proposal_id: UUID, now: datetime) -> None:
        services.sbgt_revoke(
            dao=dao,
            party=services.payee(payload["party"]),
            points_micro=int(payload["points_micro"]),
            proposal_id=proposal_id,
            now=now,
        )
