"""logistic_round@1: clip, score, aggregate and evaluate one federated round, as one job.

Inputs: each custodian's weights w_k [d+1] (intercept last), each validator's holdout rows
[m, d + 1 + R]: standardised features, label, one-hot of R strata. Rows of even index within a
validator's block score the updates, the odd ones make the evidence: the two never meet.

1. w_k clipped to the median norm: w_k · min(1, median‖w‖ / ‖w_k‖).
2. φ_k = relu(u_k) / max_j relu(u_j), u_k the utility on log-loss that `scoring` names (paper
   eq. 7; circuits/scoring.py).
   φ is opened in thousandths; fewer than three > 0: the round is void.
3. w* = Σ (φ_k / S)·w_k with the opened φ (paper eq. 1 and 6). It stays secret.
4. Evidence: counts, AUC, accuracy, precision, recall and log-loss, overall and per stratum, and
   calibration; metrics rounded to thousandths before they are opened, so that nothing finer leaks.
   A cell with fewer than min_cell positives or negatives opens nothing, nor does it follow by
   subtraction (cells.cells_shown).

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
from apps.protocol.circuits.games import SCORINGS, SHAPLEY_MAX
from apps.protocol.circuits.logistic_infer import (
    FEATURE_LIMIT,
    FEATURES_MAX,
    INPUT_F,
    MODEL_F,
    with_intercept,
)
from apps.protocol.circuits.scoring import aggregate, clip_to_median_norm, phi_milli, utilities

WEIGHT_LIMIT = 64
STRATA_MAX = 32
ROWS_MAX = 4000
MEMBERS_MAX = 64
PHI_MIN_POSITIVE = 3


def validate(params: Params) -> None:
    """params = {"features": d, "strata": R, "rows": [m_1, …], "min_cell": c, "scoring": name}.

    Raises: BadParams.
    """
    only(params, "features", "strata", "rows", "min_cell", "scoring")
    if params["scoring"] not in SCORINGS:
        raise BadParams(f"parameter 'scoring' must be one of: {', '.join(SCORINGS)}")
    whole(params, "features", 1, FEATURES_MAX)
    whole(params, "strata", 0, STRATA_MAX)
    whole(params, "min_cell", 3, ROWS_MAX)
    rows = params["rows"]
    if not isinstance(rows, (list, tuple)) or not 1 <= len(rows) <= MEMBERS_MAX:
        raise BadParams(f"parameter 'rows' must list 1 to {MEMBERS_MAX} validators' row counts")
    if any(type(count) is not int or count < 2 for count in rows) or sum(rows) > ROWS_MAX:
        raise BadParams(f"each validator brings at least 2 rows, all together {ROWS_MAX} at most")


def update_shape(params: Params, index: int) -> Shape:
    """Raises: BadParams for a site too many, so that no node takes part in such a job."""
    if params["scoring"] == "shapley" and index >= SHAPLEY_MAX:
        raise BadParams(f"exact Shapley values are computed for {SHAPLEY_MAX} custodians at most")
    return (params["features"] + 1,)


def holdout_shape(params: Params, index: int) -> Shape:
    return (params["rows"][index], params["features"] + 1 + params["strata"])


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
        ops,
        weights,
        ops.index(inputs, scoring),
        ops.index(flags, np.s_[scoring, 0]),
        params["scoring"],
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
        Opening(
            "auc_error_milli",
            "by how much the AUC may be off because more than 1 000 rows are counted in 200 bins",
        ),
        Opening("auc_error_strata_milli", "the same per stratum"),
        Opening("accuracy_milli", "share of right answers at probability ½, in thousandths"),
        Opening("accuracy_strata_milli", "the same per stratum; null where support is"),
        Opening("recall_milli", "share of the positives that the model calls so, in thousandths"),
        Opening("recall_strata_milli", "the same per stratum; null where support is"),
        Opening(
            "precision_milli",
            "share of the called that are positive; null also where fewer than min_cell are called",
        ),
        Opening("precision_strata_milli", "the same per stratum"),
        Opening("log_loss_milli", "mean log-loss in thousandths of a nat, scores within ±16"),
        Opening("log_loss_strata_milli", "the same per stratum; null where support is"),
        Opening(
            "calibration",
            "per fifth of the probability: rows, positives, mean probability in thousandths; null "
            "where there are fewer than min_cell rows, and for the smallest other fifth where "
            "those would follow by subtraction. The nodes see which are hidden for which reason",
        ),
    ),
    result_allows=("logistic_infer@1",),
    result_f=MODEL_F,
    min_members={"custodian": 3, "validator": 1},
)
