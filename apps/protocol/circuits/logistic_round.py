"""logistic_round@1: clip, score, aggregate and evaluate one federated round, as one job.

Inputs: each custodian's weights w_k [d+1] (intercept last), each validator's holdout rows
[m, d + 1 + R]: standardised features, label, one-hot of R strata. Rows of even index within a
validator's block score the updates, the odd ones make the evidence: the two never meet.

1. w_k clipped to the median norm: w_k · min(1, median‖w‖ / ‖w_k‖).
2. φ_k = relu(u_k) / max_j relu(u_j), u_k = ⟨w_k − p, −∇L_val(p)⟩ on log-loss at p = ¾·w̄
   (paper eq. 7).
   φ is opened in thousandths; fewer than three > 0: the round is void.
3. w* = Σ (φ_k / S)·w_k with the opened φ (paper eq. 1 and 6). It stays secret.
4. Evidence: counts, AUC by pairs and accuracy, overall and per stratum, metrics rounded to
   thousandths before they are opened, so that nothing finer leaks. A cell with fewer than min_cell
   positives or negatives opens nothing, nor does it follow by subtraction (evidence.cells_shown).

Worst cases against |word| < 2^62: ‖w‖² 2^55, z 2^60, gradient 2^52, u 2^61, w* 2^61.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

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
from apps.protocol.circuits.evidence import evidence
from apps.protocol.circuits.logistic_infer import (
    FEATURE_LIMIT,
    FEATURES_MAX,
    INPUT_F,
    MODEL_F,
    with_intercept,
)

WEIGHT_LIMIT = 64
STRATA_MAX = 32
ROWS_MAX = 4000
MEMBERS_MAX = 64
PHI_ONE = 1000
SCORING_POINT = 0.75  # as in apps/protocol/contribution.py
PHI_MIN_POSITIVE = 3
UTILITY_F = 40
# Utilities (in log-loss) under 2^-18 are rounding noise: nobody contributed.
UTILITY_NOISE_BITS = UTILITY_F - 18


def validate(params: Params) -> None:
    """params = {"features": d, "strata": R, "rows": [m_1, …], "min_cell": c}. Raises: BadParams."""
    only(params, "features", "strata", "rows", "min_cell")
    whole(params, "features", 1, FEATURES_MAX)
    whole(params, "strata", 0, STRATA_MAX)
    whole(params, "min_cell", 3, ROWS_MAX)
    rows = params["rows"]
    if not isinstance(rows, (list, tuple)) or not 1 <= len(rows) <= MEMBERS_MAX:
        raise BadParams(f"parameter 'rows' must list 1 to {MEMBERS_MAX} validators' row counts")
    if any(type(count) is not int or count < 2 for count in rows) or sum(rows) > ROWS_MAX:
        raise BadParams(f"each validator brings at least 2 rows, all together {ROWS_MAX} at most")


def update_shape(params: Params, index: int) -> Shape:
    return (params["features"] + 1,)


def holdout_shape(params: Params, index: int) -> Shape:
    return (params["rows"][index], params["features"] + 1 + params["strata"])


def clip_to_median_norm(ops: Any, updates: Any) -> Any:
    """w_k · min(1, median‖w‖ / ‖w_k‖); [K, d+1] at f = 16 -> f = 24. A zero update stays zero."""
    squared = ops.dot(updates, updates, f=2 * INPUT_F)
    inverse = ops.rsqrt(squared, f=22, bits=56)
    norms = ops.mul(ops.trunc(squared, 26), inverse, f=20)
    middle = ops.broadcast(ops.median(norms), norms.shape)
    too_long = ops.less_than(middle, norms)
    # the bit is applied to 1/‖w‖ first: median/‖w‖ of a tiny update would overflow
    shrink = ops.mul(middle, ops.mul(too_long, inverse), f=22)
    keep = ops.lift(ops.sub(ops.public(np.ones(norms.shape, np.int64), 0), too_long), 22)
    factor = ops.broadcast(ops.reshape(ops.add(keep, shrink), (-1, 1)), updates.shape)
    return ops.mul(updates, factor, f=MODEL_F)


def utilities(ops: Any, weights: Any, inputs: Any, labels: Any) -> Any:
    """u_k = ⟨w_k − p, −∇L(p)⟩ at p = ¾·w̄ of the rows' log-loss, times a public constant in (½, 1].

    weights [K, d+1] f = 24, inputs [m, d+1] f = 16 (last column 1), labels [m] f = 0 -> [K] f = 40.
    The constant (m / next power of two) cancels in φ; it spares a product.
    """
    members, rows = weights.shape[0], inputs.shape[0]
    part_of_mean = round(SCORING_POINT * 2**20 / members)
    point = ops.trunc(ops.scale(ops.sum(weights, 0), part_of_mean, f=20), MODEL_F)
    logits = ops.matmul(inputs, ops.reshape(point, (-1, 1)), f=20)
    errors = ops.sub(ops.lift(ops.reshape(labels, (-1, 1)), 20), ops.sigmoid_accurate(logits))
    total = ops.matmul(ops.transpose(inputs), errors, f=INPUT_F + 20)
    descent = ops.trunc(ops.halve(total, (rows - 1).bit_length()), UTILITY_F - INPUT_F)
    apart = ops.trunc(
        ops.sub(weights, ops.broadcast(ops.reshape(point, (1, -1)), weights.shape)), INPUT_F
    )
    return ops.reshape(ops.matmul(apart, descent, f=UTILITY_F), (-1,))


def phi_milli(ops: Any, utility: Any) -> list[int]:
    """Open round(1000 · relu(u_k) / max); all 0 when no utility exceeds the noise."""
    ratio = ops.ratio_of_max(ops.relu(utility), bits=61, low_bits=UTILITY_NOISE_BITS, f=28)
    opened = ops.open_rounded(ops.scale(ratio, PHI_ONE))
    return [int(value) for value in opened]


def aggregate(ops: Any, weights: Any, phi: Sequence[int]) -> Any:
    """w* = Σ_k (φ_k / S)·w_k with public φ, S = Σφ; [K, d+1] -> [d+1], same f, within 2 ulp."""
    total = sum(phi)
    table = np.array([[(2 * share * 2**30 + total) // (2 * total)] for share in phi], np.int64)
    return ops.reshape(ops.trunc(ops.combine(weights, table, f=30), weights.f), (-1,))


def run(ops: Any, secrets: Mapping[str, Sequence[Any]], params: Params) -> Outcome:
    """The whole round; see the module's docstring."""
    features = params["features"]
    limit, bound = WEIGHT_LIMIT << INPUT_F, FEATURE_LIMIT << INPUT_F
    updates = ops.clamp(ops.stack(secrets["update"]), -limit, limit)
    rows = ops.concat(secrets["holdout"])
    inputs = with_intercept(ops, ops.clamp(ops.index(rows, np.s_[:, :features]), -bound, bound))
    # a flag is 1 when its word is at least ½: exactly 0 or 1 whatever a validator sent
    flags = ops.bit(ops.index(rows, np.s_[:, features:]))

    place = np.concatenate([np.arange(count) for count in params["rows"]])
    scoring, proving = np.flatnonzero(place % 2 == 0), np.flatnonzero(place % 2 == 1)

    weights = clip_to_median_norm(ops, updates)
    utility = utilities(
        ops, weights, ops.index(inputs, scoring), ops.index(flags, np.s_[scoring, 0])
    )
    phi = phi_milli(ops, utility)
    if sum(value > 0 for value in phi) < PHI_MIN_POSITIVE:
        return Outcome(openings={"phi_milli": phi, "void": 1})

    model = aggregate(ops, weights, phi)
    logits = ops.matmul(
        ops.index(inputs, proving), ops.reshape(model, (-1, 1)), f=INPUT_F + MODEL_F
    )
    openings = evidence(
        ops, ops.reshape(logits, (-1,)), ops.index(flags, proving), params["min_cell"]
    )
    return Outcome(openings={"phi_milli": phi, "void": 0, **openings}, result=model)


CIRCUIT = Circuit(
    name="logistic_round",
    version=1,
    slots={
        "update": Slot("custodian", update_shape, f=INPUT_F),
        "holdout": Slot("validator", holdout_shape, f=INPUT_F),
    },
    validate=validate,
    run=run,
    opens=(
        Opening("phi_milli", "contribution of each custodian, 0 to 1000, in roster order"),
        Opening("void", "1 when fewer than three contributions are positive: no model"),
        Opening(
            "support",
            "[rows, positives] of the evidence half: overall, then per stratum; null where there "
            "are fewer than min_cell positives or negatives, and for the smallest other stratum "
            "where those would follow by subtraction. The nodes see which strata are hidden for "
            "which reason, and no count of them",
        ),
        Opening("auc_milli", "area under the ROC curve of the new model, in thousandths"),
        Opening("auc_strata_milli", "the same per stratum; null where support is"),
        Opening("accuracy_milli", "share of right answers at probability ½, in thousandths"),
        Opening("accuracy_strata_milli", "the same per stratum; null where support is"),
    ),
    result_allows=("logistic_infer@1",),
    result_f=MODEL_F,
    min_members={"custodian": 3, "validator": 1},
)
