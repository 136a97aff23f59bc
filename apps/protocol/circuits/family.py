"""What a model class is, and the circuits that every class gets: NAME_round and NAME_infer….

A class is linear in its weights: W [o, d + 1], intercept last, makes o scores of a row, X·Wᵀ; or it
has hidden layers before that (circuits/network.py). What it brings is one file: how targets are
read, the gradient and the loss of scores on shares, its evidence, a local trainer, and what scores
mean to a buyer. `CLASSES` in this package lists them. NAME_round of one with hidden layers is
circuits/network_round.py.

NAME_round@1: clip, score, aggregate and evaluate one federated round, as one job. Inputs: each
custodian's weights [o·(d+1)] (or sums that they are made of), each validator's holdout rows
[m, d + t + R]: standardised features, t columns of target, one-hot of R strata. Rows of even place
within a validator's block score the updates, the odd ones make the evidence (`proving_rows`): the
two never meet.

0. Copies are found before anything else (circuits/copies.py): pairs of updates that are the same
   but for their length. They count once for "three", and share one weight in w*.
1. w_k clipped to the median norm: w_k · min(1, median‖w‖ / ‖w_k‖); or to a public one.
2. φ_k = relu(u_k) / max_j relu(u_j), u_k the utility on the class's loss that `scoring` names
   (paper eq. 7; circuits/scoring.py). Each validator judges by its own rows; of several the upper
   weighted median counts (circuits/judges.py). φ is opened in thousandths; fewer than three > 0: no
   model.
3. w* = Σ (a_k / S)·w_k, a_k the opened φ_k, shared among copies (paper eq. 1 and 6); or the class's
   own model of all sites with φ_k > 0. It stays secret. Where owners signed for a privacy budget,
   it is such a mean in any case (of sites' own models, those with φ_k > 0 alike, where they share
   sums) and gets the nodes' noise here (circuits/noise.py), before anything is made of it.
4. Evidence: metrics divided and rounded in secret, of cells that are large enough and give no
   smaller one away (circuits/cells.py).

NAME_infer@1: scores of secret rows under the secret model (paper eq. 2 and 8), sealed to the asker;
NAME_infer_label@1, _band@1 and _rounded@1: what coarser the makers may allow instead
(circuits/resolution.py). Features are clamped to ±16 first: without it one row with huge entries
could pack several weights into one answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from apps.protocol.circuits.cells import Rule
from apps.protocol.circuits.copies import copies, distinct, shared_out
from apps.protocol.circuits.declare import (
    BadParams,
    Circuit,
    Opening,
    Outcome,
    Params,
    Shape,
    Slot,
    only,
    whole,
)
from apps.protocol.circuits.games import SHAPLEY_MAX
from apps.protocol.circuits.judges import check_weights, equalised, weighted_median
from apps.protocol.circuits.layout import (
    FEATURE_LIMIT,
    FEATURES_MAX,
    INPUT_F,
    MODEL_BOUND,
    MODEL_F,
    WEIGHT_LIMIT,
    with_intercept,
)
from apps.protocol.circuits.network import (
    UNITS_MAX,
    WEIGHTS_MAX,
    columns_of,
    forward,
    size_of,
)
from apps.protocol.circuits.noise import asked, bound_of, check, noised
from apps.protocol.circuits.resolution import LABEL, LOGIT, RESOLUTIONS, Scale, reached
from apps.protocol.circuits.scoring import (
    aggregate,
    clipped,
    coalition_utilities,
    lengths,
    phi_milli,
    taylor_utilities,
)
from apps.protocol.tickets import MAX_VALUES
from apps.protocol.wire import is_hex

Real = npt.NDArray[np.float64]

STRATA_MAX = 32
ROWS_MAX = 4000
QUERY_ROWS_MAX = 10_000
MEMBERS_MAX = 64
ALL_UPDATES_MAX = 1 << 25  # numbers of all sites, which a node holds at once: 0.5 GB
PHI_MIN_POSITIVE = 3
# Digest of the constants by which rows are standardised (`normalise.constants_digest`): all owners
# sign the same one, and a model is trained on and asked under its own alone.
NORMALISATION = "normalisation"
LABELS = ("binary", "classes", "number", "count", "survival")
OPENS = (
    Opening("phi_milli", "contribution of each custodian, 0 to 1000, in roster order"),
    Opening("void", "1 when fewer than three contributions are positive: no model"),
)
COPIES = Opening(
    "copies",
    "which pairs of updates are the same but for their length (within 2 ‰), by roster place; of "
    "such a pair the one committed later gets nothing, and both count once for the three",
)


@dataclass(frozen=True, kw_only=True)
class Sums:
    """What a site of a round shares where that is not its weights.

    size: how many numbers. made(features [n, d], targets [n]): they, by the site's agent.
    models(ops, updates [K, size] any words, params): weights for each site [K, o·(d+1)] at f = 16,
        which φ is found by; numbers [K, ·] at f = 16 that copies are told by; whatever `merged`
        needs.
    merged(ops, that, shares [K]): the model without a privacy budget, flat at f = 24; shares are
        whole numbers, 0 of who has no part in it. With one it is the mean of those weights.
    """

    size: Callable[[Params], int]
    made: Callable[[Real, Real], Real]
    models: Callable[[Any, Any, Params], tuple[Any, Any, Any]]
    merged: Callable[[Any, Any, Sequence[int]], Any]


@dataclass(frozen=True, kw_only=True)
class ModelClass:
    """One kind of model.

    label: how a request describes what is predicted, one of LABELS.
    series: its features are the last values of what is predicted (apps/protocol/series.py).
    metrics: what its evidence opens and a gate may ask for, the first one leading.
    extras: further parameters of its circuits: name -> (least, most).
    outputs, targets: scores of a row, and columns that a holdout row's target takes.
    read_targets: holdout words [m, t] at f = 16 -> targets, whatever a validator sent.
    residuals(ops, scores [m, o] f = 20, targets): target less prediction, −∂loss/∂score, [m, o].
    spare_bits: by so much a residual or a loss may be larger than a logistic one; utilities are
        halved so often.
    gains(ops, scores [K, o, m] f = 16 within ±8, targets, members [C, K]): Σ_i [loss of score 0 −
        loss of the coalition's mean score], over the next power of two ≥ m; [C] at f = 26.
    evidence(ops, scores [m, o] f = 40, targets, strata [m, R] bits, rule): the openings.
    intercept: has it a part in the loss? If not it stays 0, whatever sites send.
    descends: residuals are within ±10, so that `secure_sgd` keeps its steps in the word.
    hidden: units of each hidden layer, unless a request names others (`unit_names`).
    settle(ops, scores [m, o]): scores of the same loss and evidence, where a cut takes nothing.
    train(features [n, d], labels, outputs, c): weights [o, d + 1], c as scikit-learn's C; None for
        one with hidden layers, whose sites take steps (apps/protocol/descent.py).
    sums: what a site shares instead of these weights.
    answer(scores [k, o]): what they mean, per row.
    schedule: of its steps, what is not as in `descent.DEFAULTS`.
    scale: what answers are cut to where the makers allow no scores.
    cut(ops, scores [k, o] f = 40, resolution, scale): the steps, [k·o'] at f = 0; by default every
        score by itself.
    """

    name: str
    title: str
    label: str
    metrics: tuple[str, ...]
    scorings: tuple[str, ...]
    opens: tuple[Opening, ...]
    read_targets: Callable[[Any, Any], Any]
    residuals: Callable[[Any, Any, Any], Any]
    gains: Callable[[Any, Any, Any, Any], Any]
    evidence: Callable[[Any, Any, Any, Any, Rule], dict[str, Any]]
    train: Callable[[Real, Any, int, float], Real] | None
    answer: Callable[[Real], Real]
    scale: Scale
    extras: Mapping[str, tuple[int, int]]
    series: bool = False
    sums: Sums | None = None
    cut: Callable[[Any, Any, str, Scale], Any] = lambda ops, scores, resolution, scale: reached(
        ops, scores, scale.edges(resolution)
    )
    outputs: Callable[[Params], int] = lambda params: 1
    targets: Callable[[Params], int] = lambda params: 1
    spare_bits: int = 0
    intercept: bool = True
    descends: bool = True
    hidden: tuple[int, ...] = ()
    settle: Callable[[Any, Any], Any] = lambda ops, scores: scores
    schedule: Mapping[str, int] = field(default_factory=dict)

    @property
    def round_id(self) -> str:
        return f"{self.name}_round@1"

    @property
    def resolutions(self) -> tuple[str, ...]:
        """How finely its answers may be opened; only what has labels is answered by one."""
        return tuple(r for r in RESOLUTIONS if r != LABEL or self.label in ("binary", "classes"))

    def infer_id(self, resolution: str) -> str:
        """The circuit that answers queries at this resolution."""
        return f"{self.name}_infer{'' if resolution == LOGIT else '_' + resolution}@1"

    @property
    def sgd_id(self) -> str:
        """Gradient steps from zero (circuits/descent.py)."""
        return f"{self.name}_sgd@1"

    @property
    def sgd_on_id(self) -> str:
        """Gradient steps from a model that its makers share already."""
        return f"{self.name}_sgd_on@1"

    @property
    def steps_ids(self) -> tuple[str, str]:
        """What rows that are shared for steps may enter."""
        return (self.sgd_id, self.sgd_on_id)

    @property
    def made_for(self) -> tuple[str, ...]:
        """The circuits that a model of this class may enter: of those that answer queries, the
        one of its makers' resolution."""
        infers = tuple(map(self.infer_id, self.resolutions))
        return (*infers, self.sgd_on_id) if self.descends else infers

    @property
    def noises(self) -> bool:
        """Can its rounds make noise? A network has too many numbers: noise on each would be all
        that is left of it."""
        return not self.hidden

    @property
    def unit_names(self) -> tuple[str, ...]:
        """Parameters that say how many units each hidden layer has: all of them, or none where it
        is `hidden`."""
        return tuple(f"hidden_{place}" for place in range(1, 1 + len(self.hidden)))

    def optional(self, params: Params) -> set[str]:
        """Those parameters that these have, of those that a class may go without."""
        return {NORMALISATION, *self.unit_names} & set(params)

    def layers(self, params: Params) -> list[tuple[int, int]]:
        """(in, out) of each layer."""
        hidden = [int(params.get(n, own)) for n, own in zip(self.unit_names, self.hidden)]
        return list(pairwise([int(params["features"]), *hidden, self.outputs(params)]))

    def weights(self, params: Params) -> int:
        """How many numbers a model has."""
        return size_of(self.layers(params))

    def update(self, params: Params) -> int:
        """How many numbers an update has. Raises: BadParams."""
        return self.sums.size(params) if self.sums else self.weights(params)


Run = Callable[[ModelClass, Any, Mapping[str, Sequence[Any]], Params], Outcome]


def round_circuit(model: ModelClass, run_round: Run) -> Circuit:
    """The circuit of a class's federated round, which this runs."""

    def validate(params: Params) -> None:
        """{"features", "strata", "rows": [m_1, …], "min_cell", "scoring"}, the class's extras, and
        where the model gets noise {"clip_milli", "rho_micro"}.

        Raises: BadParams.
        """
        given = model.optional(params) | {"weights"} & set(params) | asked(params)
        only(params, "features", "strata", "rows", "min_cell", "scoring", *model.extras, *given)
        if params["scoring"] not in model.scorings:
            raise BadParams(f"parameter 'scoring' must be one of: {', '.join(model.scorings)}")
        check_holdouts(model, params)
        check_weights(params)
        check(params, model.weights(params) if model.noises else None)

    def update_shape(params: Params, index: int) -> Shape:
        """Raises: BadParams for a site too many, so that no node takes part in such a job."""
        if params["scoring"] == "shapley" and index >= SHAPLEY_MAX:
            raise BadParams(f"Shapley values are computed for {SHAPLEY_MAX} custodians at most")
        most = ALL_UPDATES_MAX // model.update(params)
        if index >= most:
            raise BadParams(f"of so many numbers each {most} custodians' are computed at most")
        return (model.update(params),)

    def run(ops: Any, secrets: Mapping[str, Sequence[Any]], params: Params) -> Outcome:
        return run_round(model, ops, secrets, params)

    return Circuit(
        name=f"{model.name}_round",
        version=1,
        slots={
            "update": Slot("custodian", update_shape, f=INPUT_F),
            "holdout": holdout_slot(model),
        },
        validate=validate,
        run=run,
        opens=(*OPENS, COPIES, *model.opens),
        result_allows=model.made_for,
        result_f=MODEL_F,
        result_bound=MODEL_BOUND,
        min_members={"custodian": 3, "validator": 1},
    )


def query_rows_max(features: int) -> int:
    """How many rows of so many features one query takes: 10 000, or as many as a share holds."""
    return min(QUERY_ROWS_MAX, MAX_VALUES // features)


def infer_circuit(model: ModelClass, resolution: str) -> Circuit:
    """The circuit of a class's paid query, answered at this resolution."""

    def validate(params: Params) -> None:
        """{"features", "rows": k}, the class's extras, and the name of the normalisation where
        the model has one. Raises: BadParams."""
        only(params, "features", "rows", *model.extras, *model.optional(params))
        _sizes(model, params)
        whole(params, "rows", 1, query_rows_max(params["features"]))

    def run(ops: Any, secrets: Mapping[str, Sequence[Any]], params: Params) -> Outcome:
        """Scores [k·o] at f = 16, row by row, or steps. Bound: 16·65·1001 · 2^40 < 2^60."""
        (weights,), (rows,) = secrets["model"], secrets["row"]
        limit = FEATURE_LIMIT << INPUT_F
        inputs = with_intercept(ops, ops.clamp(rows, -limit, limit))
        columns = columns_of(ops, weights, model.layers(params))
        taken, _ = forward(ops, inputs, columns)
        if resolution == LOGIT:
            scores = ops.matmul(taken[-1], columns[-1], f=INPUT_F)
            return Outcome(sealed=ops.reshape(scores, (-1,)))
        # not truncated: the steps are those of the exact scores
        scores = model.settle(ops, ops.matmul(taken[-1], columns[-1], f=INPUT_F + MODEL_F))
        return Outcome(sealed=ops.reshape(model.cut(ops, scores, resolution, model.scale), (-1,)))

    name, _, version = model.infer_id(resolution).partition("@")
    return Circuit(
        name=name,
        version=int(version),
        slots={
            "model": model_slot(model),
            "row": Slot("buyer", lambda params, index: (params["rows"], params["features"])),
        },
        validate=validate,
        run=run,
        sealed=True,
        rowwise="row",
        resolution=resolution,
        of_model=("features", NORMALISATION, *model.extras),
        of_model_too=model.unit_names,
        proved_at=lambda params: {k: v for k, v in params.items() if type(v) is int} | {"rows": 1},
    )


def model_slot(model: ModelClass) -> Slot:
    """A model that nodes keep: what a circuit of its class has made."""
    return Slot(
        "model", lambda params, index: (model.weights(params),), f=MODEL_F, bound=MODEL_BOUND
    )


def _sizes(model: ModelClass, params: Params) -> None:
    """Sizes, and the name of the normalisation where there is one. Raises: BadParams."""
    whole(params, "features", 1, FEATURES_MAX)
    for name, (least, most) in model.extras.items():
        whole(params, name, least, most)
    if set(model.unit_names) & set(params):
        for name in model.unit_names:
            whole(params, name, 1, UNITS_MAX)
        if model.weights(params) > WEIGHTS_MAX:
            raise BadParams(f"a network has {WEIGHTS_MAX} weights at most")
    if not is_hex(params.get(NORMALISATION, 64 * "0"), 32):
        raise BadParams(f"parameter '{NORMALISATION}' must be a digest in hex")


def check_holdouts(model: ModelClass, params: Params) -> None:
    """Sizes, strata, min_cell and the validators' row counts. Raises: BadParams."""
    _sizes(model, params)
    whole(params, "strata", 0, STRATA_MAX)
    whole(params, "min_cell", 3, ROWS_MAX)
    rows = params["rows"]
    if not isinstance(rows, (list, tuple)) or not 1 <= len(rows) <= MEMBERS_MAX:
        raise BadParams(f"parameter 'rows' must list 1 to {MEMBERS_MAX} validators' row counts")
    if any(type(count) is not int or count < 2 for count in rows) or sum(rows) > ROWS_MAX:
        raise BadParams(f"each validator brings at least 2 rows, all together {ROWS_MAX} at most")


def holdout_slot(model: ModelClass) -> Slot:
    """[m, d + t + R]: standardised features, target, one-hot of strata."""

    def shape(params: Params, index: int) -> Shape:
        columns = params["features"] + model.targets(params) + params["strata"]
        return (params["rows"][index], columns)

    return Slot("validator", shape, f=INPUT_F)


def read_rows(model: ModelClass, ops: Any, rows: Any, params: Params) -> tuple[Any, Any]:
    """(inputs [m, d+1] within ±16, the last one 1; targets [m, t]) of whatever words came."""
    features, bound = params["features"], FEATURE_LIMIT << INPUT_F
    inputs = with_intercept(ops, ops.clamp(ops.index(rows, np.s_[:, :features]), -bound, bound))
    end = features + model.targets(params)
    return inputs, model.read_targets(ops, ops.index(rows, np.s_[:, features:end]))


@dataclass(frozen=True)
class Holdouts:
    """The validators' rows together; `scoring` and `proving` are the places of the two halves."""

    inputs: Any
    targets: Any
    strata: Any
    scoring: npt.NDArray[np.int64]
    proving: npt.NDArray[np.int64]


def read_holdouts(model: ModelClass, ops: Any, blocks: Sequence[Any], params: Params) -> Holdouts:
    rows = ops.concat(blocks)
    inputs, targets = read_rows(model, ops, rows, params)
    if params["strata"]:
        strata = ops.index(rows, np.s_[:, params["features"] + model.targets(params) :])
        strata = first_alone(ops, ops.bit(strata))
    else:
        strata = ops.public(np.zeros((rows.shape[0], 0), np.int64), 0)
    place = np.concatenate([np.arange(count) for count in params["rows"]])
    half, odd = np.flatnonzero(place % 2 == 0), np.flatnonzero(place % 2 == 1)
    counts = [count // 2 for count in params["rows"]]
    # spread over what a validator brings, which it orders by stratum and target
    proving = [
        own[np.arange(kept) * len(own) // max(kept, 1)]
        for own, kept in zip(
            np.split(odd, np.cumsum(counts)[:-1]), proving_rows(params["rows"]), strict=True
        )
    ]
    return Holdouts(inputs, targets, strata, half, np.concatenate(proving))


def proving_rows(rows: Sequence[int]) -> list[int]:
    """How many of each validator's rows make the evidence: every second, but of three or more
    validators none more than all others together, so that no single one decides on a gate."""
    counts = [count // 2 for count in rows]
    if len(counts) > 2:
        largest = max(range(len(counts)), key=lambda v: counts[v])
        counts[largest] = min(counts[largest], sum(counts) - counts[largest])
    return counts


def first_alone(ops: Any, bits: Any) -> Any:
    """Of bits [m, R] the first that is 1 in each row: one stratum, whatever a validator sent."""
    size = bits.shape[1]
    before = np.triu(np.ones((size, size), np.int64), 1) - np.eye(size, dtype=np.int64)
    return ops.transpose(ops.ltz(ops.combine(ops.transpose(bits), before, 0)))


def prove(
    model: ModelClass, ops: Any, held: Holdouts, weights: Any, params: Params
) -> dict[str, Any]:
    """Open the evidence of a model, flat weights at f = 24, on the proving half."""
    at, columns = held.proving, columns_of(ops, weights, model.layers(params))
    taken, _ = forward(ops, ops.index(held.inputs, at), columns)
    scores = model.settle(ops, ops.matmul(taken[-1], columns[-1], f=INPUT_F + MODEL_F))
    targets, strata = ops.index(held.targets, at), ops.index(held.strata, at)
    rule = Rule(params["min_cell"], proving_rows(params["rows"]))
    return model.evidence(ops, scores, targets, strata, rule)


def judged(
    ops: Any, held: Holdouts, params: Params, spared: int, utility: Callable[[Any, Any], Any]
) -> list[int]:
    """φ in thousandths of what the validators' scoring halves say, each judging by itself:
    `utility(inputs, targets)` of one's rows, [K] at f = 40, halved `spared` times."""
    counts = [(rows + 1) // 2 for rows in params["rows"]]
    each = [
        utility(ops.index(held.inputs, places), ops.index(held.targets, places))
        for places in np.split(held.scoring, np.cumsum(counts)[:-1])
    ]
    if len(each) == 1:
        return phi_milli(ops, each[0], spared)
    votes = params.get("weights") or [1] * len(each)
    return phi_milli(ops, weighted_median(ops, equalised(ops, each, counts), votes), spared + 1)


def concluded(
    model: ModelClass,
    ops: Any,
    held: Holdouts,
    params: Params,
    phi: list[int],
    pairs: list[list[int]],
    merged: Callable[[], Any],
) -> Outcome:
    """What a round opens, and of three sites or more the model that `merged` makes, flat at
    f = 24."""
    found = {"phi_milli": phi, "copies": pairs}
    if distinct(phi, pairs) < PHI_MIN_POSITIVE:
        return Outcome(openings={**found, "void": 1})
    result = merged()
    openings = prove(model, ops, held, result, params)
    return Outcome(openings={**found, "void": 0, **openings}, result=result)


def run_round(
    model: ModelClass, ops: Any, secrets: Mapping[str, Sequence[Any]], params: Params
) -> Outcome:
    """Of a class that is linear in its weights."""
    limit, told, kept = WEIGHT_LIMIT << INPUT_F, None, None
    updates = ops.stack(secrets["update"])
    if model.sums:
        updates, told, kept = model.sums.models(ops, updates, params)
    updates = ops.clamp(updates, -limit, limit)
    slopes = np.ones(updates.shape[1], np.int64)
    if not model.intercept:
        slopes[params["features"] :: params["features"] + 1] = 0
        updates = ops.scale(updates, slopes)
    held = read_holdouts(model, ops, secrets["holdout"], params)

    squared, inverse = lengths(ops, updates)
    pairs = (
        copies(ops, updates, inverse) if told is None else copies(ops, told, lengths(ops, told)[1])
    )
    weights = clipped(ops, updates, squared, inverse, bound_of(params))
    scoring, outputs, spared = params["scoring"], model.outputs(params), model.spare_bits

    def utility(on: Any, targets: Any) -> Any:
        if scoring == "taylor":
            return taylor_utilities(ops, weights, on, targets, model.residuals, outputs, spared)
        return coalition_utilities(ops, weights, on, targets, model.gains, outputs, spared, scoring)

    phi = judged(ops, held, params, spared, utility)

    def merged() -> Any:
        shares = shared_out([int(v > 0) for v in phi] if model.sums else phi, pairs)
        if model.sums and not asked(params):
            return model.sums.merged(ops, kept, shares)
        result = aggregate(ops, weights, shares)
        return noised(ops, result, slopes, shares, params) if asked(params) else result

    return concluded(model, ops, held, params, phi, pairs, merged)
