"""NAME_sgd@1 and NAME_sgd_on@1: gradient steps on secret rows, from zero or from a shared model.

Inputs: each custodian's rows [n_k, d + t], standardised features and target; each validator's
holdout as in the federated round; for NAME_sgd_on the model that its makers share. An epoch has
`steps` of them; step s takes the rows s, s + steps, s + 2·steps … of each site (public, fixed), so
that each site gives its share to every step. Before each epoch, at p = ¼·w, all sites' whole
gradients are compared with the validators' on the scoring half of their holdouts (docs/adr/0015):

    φ_vk ← φ_vk + c_k·⟨g_k(p), −∇L_v(p)⟩     φ_k = median_v φ_vk      a_k = [φ_k > 0], never opened

and in each step of the epoch

    g = Σ_k a_k c_k g_k / Σ_k a_k m_k · steps    g_k = Σ_i x_i (y_i − ŷ_i) over the site's rows
    v ← μ·v + g − λ·w (no penalty on intercepts)      w ← w + η·v, cut to ±64

No site counts for more than two: m_k = min(n_k, 2·median n), which is public, and c_k = m_k / n_k ·
min(1, median_j ‖ḡ_j‖ / ‖ḡ_k‖), ḡ_k = g_k(p) / n_k, so that neither many rows nor long ones make it
more. Each validator v judges by its own rows, and the upper weighted median of them counts
(circuits/judges.py). Which sites share the same rows is opened before anything else
(circuits/same_rows.py): the rows of such a pair count half, and both are one of the three sites
that a model needs.

Where a class has hidden layers, each layer takes this step with its own inputs in place of x and
what flows back to it in place of y − ŷ (circuits/network.py), from public weights in place of zero.
Sites are compared by the last layer's gradient, ¼ of that layer's weights taken, on hidden features
less their mean on the validator's rows; and in the first epochs (`warm_epochs`) by those rows alone
that no step has seen: steps of even number are taken then, and rows of odd ones compared.

With `patience`, whether the validators' loss fell (by the same median) is opened after each epoch:
training ends when it has not for so many, and the model of the best epoch counts. With `curve`, by
how much it fell is opened too. In the end φ, void and the evidence as in the federated round.

`apps.protocol.descent` is the same in real numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from apps.protocol.circuits.copies import distinct
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
from apps.protocol.circuits.family import (
    MEMBERS_MAX,
    NORMALISATION,
    OPENS,
    PHI_MIN_POSITIVE,
    Holdouts,
    ModelClass,
    check_holdouts,
    holdout_slot,
    model_slot,
    prove,
    read_holdouts,
    read_rows,
)
from apps.protocol.circuits.judges import Judges, check_weights
from apps.protocol.circuits.layout import (
    FEATURE_LIMIT,
    INPUT_F,
    MODEL_BOUND,
    MODEL_F,
    SCORE_F,
    WEIGHT_LIMIT,
)
from apps.protocol.circuits.network import (
    ALIVE_MAX,
    STEPS_WEIGHTS_MAX,
    Layers,
    back_f,
    backward,
    columns_of,
    flat_of,
    forward,
    start_of,
)
from apps.protocol.circuits.same_rows import same_rows
from apps.protocol.circuits.scoring import (
    GAIN_F,
    UTILITY_F,
    UTILITY_NOISE_BITS,
    clipping,
    lengths,
    phi_milli,
)

ONE_PPM = 1_000_000
EPOCHS_MAX, STEPS_MAX, PATIENCE_MAX = 100, 200, 10
MOMENTUM_MAX_PPM = 950_000
SITE_ROWS_MIN, SITE_ROWS_MAX = 10, 20_000  # the most of all sites together
# name -> (least, most); what the members of a SubDAO vote on
SCHEDULE = {
    "epochs": (1, EPOCHS_MAX),
    "steps": (1, STEPS_MAX),
    "rate_ppm": (1, ONE_PPM),
    "momentum_ppm": (0, MOMENTUM_MAX_PPM),
    "l2_ppm": (0, ONE_PPM),
    "patience": (0, PATIENCE_MAX),
    "curve": (0, 1),
}
# What fits standardised features of some tens of columns and some hundreds of rows a site.
DEFAULTS = {
    "epochs": 40,
    "steps": 10,
    "rate_ppm": 100_000,
    "momentum_ppm": 500_000,
    "l2_ppm": 1_000,
    "patience": 3,
    "curve": 0,
}

SAME_ROWS = Opening(
    "copies",
    "which pairs of custodians share the same rows, or half of them (within 2^−6 deviations), by "
    "roster place; of such a pair the one committed later gets nothing, and both count once for "
    "the three",
)
# A network learns what it is shown, right or wrong: a site is judged while it has not been yet.
WARM_EPOCHS = 10
MEAN_F = 14
PART_F = 20  # of what a site's rows count for
OVER_MEDIAN = 2
CLIP_F = 22

# Where sites are compared: 2^−2 of the way (docs/adr/0015).
SCORING_HALVINGS = 2
# |Σ x (y − ŷ)| ≤ 16 · 10, of a batch that may be twice the mean one.
RESIDUAL_MAX, GRADIENT_MAX = 10, 320
# Fractional bits of η, μ and λ: |v| < 2^16 keeps 2^(16 + 24 + 22) in the word.
FACTOR_F = 22
SPEED_MAX = 60_000
# How much more than computed in real numbers a step may be: 2^−10.
ROUNDED = 1025 / 1024
# 1 / Σ a_k n_k, and a residual times it
SHARE_F, PULL_F = 30, 32
ROWS_BITS = 15
# φ is a product of a site's and the validators' gradient
SITE_F, HOLDOUT_F = 18, UTILITY_F - 18
# A loss that falls by less has not fallen: 2^-12.
LEAST_GAIN = 1 << (GAIN_F - 12)


def sgd_circuit(model: ModelClass, *, goes_on: bool) -> Circuit:
    """The circuit of a class's steps, from zero, or with `goes_on` from the slot "model"."""

    def validate(params: Params) -> None:
        """{"features", "strata", "rows": [m_1, …], "min_cell", "site_rows": [n_1, …]}, SCHEDULE
        and the class's extras; the normalisation where there is one, and always with a model, whose
        weights mean something only under it. Raises: BadParams.
        """
        only(
            params,
            *("features", "strata", "rows", "min_cell", "site_rows"),
            *SCHEDULE,
            *model.extras,
            *model.optional(params),
            *({"weights"} & set(params)),
            *({NORMALISATION} if goes_on else ()),
        )
        check_holdouts(model, params)
        check_weights(params)
        check_schedule(params)
        if model.hidden and model.weights(params) > STEPS_WEIGHTS_MAX:
            raise BadParams(f"steps are taken of a network of {STEPS_WEIGHTS_MAX} weights at most")
        sites = params["site_rows"]
        if not isinstance(sites, (list, tuple)) or not 1 <= len(sites) <= MEMBERS_MAX:
            raise BadParams(
                f"parameter 'site_rows' must list 1 to {MEMBERS_MAX} custodians' row counts"
            )
        least = max(SITE_ROWS_MIN, params["steps"])
        if any(type(count) is not int or count < least for count in sites):
            raise BadParams(f"each custodian brings at least {least} rows, one for each step")
        if sum(sites) > SITE_ROWS_MAX:
            raise BadParams(f"custodians bring {SITE_ROWS_MAX} rows at most, all together")
        widest = max((into for into, _ in model.layers(params)[1:]), default=1)
        if sum(sites) * widest > ALIVE_MAX:
            raise BadParams(
                f"with {widest} units in a layer custodians bring {ALIVE_MAX // widest} rows at "
                "most, all together"
            )

    def rows_shape(params: Params, index: int) -> Shape:
        return (params["site_rows"][index], params["features"] + model.targets(params))

    def run(ops: Any, secrets: Mapping[str, Sequence[Any]], params: Params) -> Outcome:
        return _run(model, ops, secrets, params)

    slots = {"rows": Slot("custodian", rows_shape, f=INPUT_F), "holdout": holdout_slot(model)}
    if goes_on:
        slots["model"] = model_slot(model)
    return Circuit(
        name=(model.sgd_on_id if goes_on else model.sgd_id).partition("@")[0],
        version=1,
        slots=slots,
        validate=validate,
        run=run,
        opens=(
            *OPENS,
            SAME_ROWS,
            *model.opens,
            Opening(
                "improved",
                "per epoch 1 when the validators' loss fell, which decides whether training goes "
                "on; empty where 'patience' is 0",
            ),
            Opening(
                "curve_milli",
                "per epoch by how much the validators' mean loss is under that of score 0, in "
                "thousandths; empty unless 'curve' is 1",
            ),
        ),
        result_allows=model.made_for,
        result_f=MODEL_F,
        result_bound=MODEL_BOUND,
        proved_at=_proved_at,
        of_model=("features", NORMALISATION, *model.extras) if goes_on else (),
        of_model_too=model.unit_names if goes_on else (),
        min_members={"custodian": 3, "validator": 1},
    )


def defaults_of(model: ModelClass) -> dict[str, int]:
    """The schedule of this class where the members of a SubDAO have voted for no other."""
    return {**DEFAULTS, **model.schedule}


def check_schedule(params: Params) -> None:
    """Raises: BadParams."""
    for name, (least, most) in SCHEDULE.items():
        whole(params, name, least, most)


def _run(
    model: ModelClass, ops: Any, secrets: Mapping[str, Sequence[Any]], params: Params
) -> Outcome:
    sites, steps, patience = params["site_rows"], params["steps"], params["patience"]
    inputs, targets = read_rows(model, ops, ops.concat(secrets["rows"]), params)
    held = read_holdouts(model, ops, secrets["holdout"], params)
    pairs = same_rows(ops, inputs, sites)
    doubled = [1 + sum(site in pair for pair in pairs) for site in range(len(sites))]
    owner = np.repeat(np.arange(len(sites)), sites)
    place = np.concatenate([np.arange(count) for count in sites])
    batches = [
        (ops.index(inputs, at), ops.index(targets, at), owner[at])
        for at in (np.flatnonzero(place % steps == step) for step in range(steps))
    ]

    layers = model.layers(params)
    speed = ops.public(np.zeros(model.weights(params), np.int64), MODEL_F)
    weights = ops.public(start_of(layers), MODEL_F)
    if "model" in secrets:
        (weights,) = secrets["model"]
    every = ops.concat([inputs, ops.index(held.inputs, held.scoring)])
    (reach, most, _), limit = _reach(params, layers), WEIGHT_LIMIT << MODEL_F
    best, missed = weights, 0
    seen, scores = _scores(model, ops, every, weights, layers)
    judges = Judges(params)
    spared = judges.spared(_spared(model, params))

    def gained(scores: Any) -> list[Any]:
        """Over score 0: nothing from zero, or what the shared model gains."""
        on = ops.index(scores, np.s_[-len(held.scoring) :])
        return judges.gains(ops, on, ops.index(held.targets, held.scoring), model.gains)

    least = gained(scores) if patience else []
    utility = ops.public(np.zeros((len(judges.rows), len(sites)), np.int64), UTILITY_F)
    improved: list[int] = []
    curve: list[int] = []
    for epoch in range(params["epochs"]):
        unseen = epoch < warm_epochs(model.hidden, params)
        judged = place % steps % 2 == 1 if unseen else place >= 0
        seen_by, clip = _alignment(model, ops, seen, scores, targets, held, judges, judged, params)
        utility = ops.add(utility, seen_by)
        share = _shares(ops, judges.of_sites(ops, utility), spared, clip, doubled, params)
        taken = batches[::2] if unseen else batches
        for step, batch in enumerate(taken, start=1):
            weights, speed = _step(model, ops, weights, speed, batch, share, params)
            if step % reach == 0 or step == len(taken):
                weights = ops.clamp(weights, -limit, limit)
            else:
                weights = ops.within(weights, -most, most)  # what `_reach` says
        seen, scores = _scores(model, ops, every, weights, layers)
        if params["curve"] or patience:
            gains = gained(scores)
        if params["curve"]:
            curve.append(judges.open_gain(ops, gains))
        if patience:
            fell = judges.fell(ops, gains, least, LEAST_GAIN)
            improved += [int(bit) for bit in ops.open(fell)]
            missed = 0 if improved[-1] else missed + 1
            if not missed:
                best, least = weights, gains
            if missed == patience:
                break

    weights = best if patience else weights
    phi = phi_milli(ops, judges.of_sites(ops, utility), spared)
    told = {"phi_milli": phi, "copies": pairs, "improved": improved, "curve_milli": curve}
    if distinct(phi, pairs) < PHI_MIN_POSITIVE:
        return Outcome(openings={**told, "void": 1})
    evidence = prove(model, ops, held, weights, params)
    return Outcome(openings={**told, "void": 0, **evidence}, result=weights)


def _step(
    model: ModelClass,
    ops: Any,
    weights: Any,
    speed: Any,
    batch: tuple[Any, Any, Any],
    share: Any,
    params: Params,
) -> tuple[Any, Any]:
    """One step on one batch: (w, v), flat at f = 24. Of each layer |x| ≤ 16, |residual| ≤ 10."""
    inputs, targets, owner = batch
    layers = model.layers(params)
    columns = columns_of(ops, weights, layers)
    taken, alive = forward(ops, inputs, columns)
    scores = model.settle(ops, ops.matmul(taken[-1], columns[-1], f=SCORE_F))
    errors = model.residuals(ops, scores, targets)
    own = ops.reshape(ops.index(share, owner), (-1, 1))
    gradients = []
    for x, each in zip(taken, backward(ops, errors, columns, alive), strict=True):
        pulls = ops.mul(each, ops.broadcast(own, each.shape), f=PULL_F)
        # of a batch that may be twice the mean one, inputs within ±16, residuals within ±10
        most = GRADIENT_MAX << MODEL_F
        pulled = ops.matmul(ops.transpose(x), pulls, f=MODEL_F)
        gradients.append(ops.within(pulled, -most, most))
    gradient = flat_of(ops, gradients)
    shrink = _factor(params["l2_ppm"]) * _penalised(layers)
    kept = ops.scale(speed, _factor(params["momentum_ppm"]), f=FACTOR_F)
    change = ops.sub(
        ops.add(kept, ops.lift(gradient, MODEL_F + FACTOR_F)),
        ops.scale(weights, shrink, f=FACTOR_F),
    )
    *_, fastest = _reach(params, layers)
    speed = ops.within(ops.trunc(change, MODEL_F), -fastest, fastest)
    moved = ops.trunc(ops.scale(speed, _factor(params["rate_ppm"]), f=FACTOR_F), MODEL_F)
    return ops.add(weights, moved), speed


def _penalised(layers: Layers) -> npt.NDArray[np.int64]:
    """1 for each weight, 0 for intercepts; flat."""
    each = [np.ones((out, into + 1), np.int64) for into, out in layers]
    for one in each:
        one[:, -1] = 0
    return np.concatenate([one.reshape(-1) for one in each])


def _reach(params: Params, layers: Layers) -> tuple[int, int, int]:
    """How many steps weights may take from ±64 before a score, what flows back or the speed could
    leave the word: then they are cut to ±64 again, as at the end of an epoch. And as words, how far
    they get until then, and how fast: |v| ≤ (|g| + λ|w|) / (1 − μ)."""
    most = min(2 ** (62 - INPUT_F - MODEL_F) / (FEATURE_LIMIT * (into + 1)) for into, _ in layers)
    for _, out in layers[1:]:
        most = min(most, 2 ** (62 - back_f(out) - MODEL_F) / (RESIDUAL_MAX * out))
    shrink, rest = params["l2_ppm"] / ONE_PPM, 1 - params["momentum_ppm"] / ONE_PPM
    if shrink:
        most = min(most, (SPEED_MAX * rest - GRADIENT_MAX) / shrink)
    fastest = (GRADIENT_MAX + most * shrink) / rest * ROUNDED
    moved = params["rate_ppm"] / ONE_PPM * fastest
    steps = max(1, int((most - WEIGHT_LIMIT) / moved))
    return steps, int(most * 2**MODEL_F), int(fastest * 2**MODEL_F)


def _proved_at(params: Params) -> Params:
    """Every step begins with weights and a speed within what is declared of them, and every epoch
    with what is left of 64: two epochs of three steps show what all the others do. Of a network the
    first of two judges by unseen rows, the second by all."""
    return {**params, "epochs": min(params["epochs"], 2), "steps": min(params["steps"], 3)}


def _factor(ppm: int) -> int:
    return ((ppm << (FACTOR_F + 1)) + ONE_PPM) // (2 * ONE_PPM)


def _scores(
    model: ModelClass, ops: Any, rows: Any, weights: Any, layers: Layers
) -> tuple[Any, Any]:
    """(what the last layer takes [N + m, ·], its scores [N + m, o] at f = 20), of all rows: those
    to train on, then the scoring half."""
    columns = columns_of(ops, weights, layers)
    taken, _ = forward(ops, rows, columns)
    return taken[-1], model.settle(ops, ops.matmul(taken[-1], columns[-1], f=SCORE_F))


def _alignment(
    model: ModelClass,
    ops: Any,
    seen: Any,
    scores: Any,
    targets: Any,
    held: Holdouts,
    judges: Judges,
    judged: npt.NDArray[np.bool_],
    params: Params,
) -> tuple[Any, Any]:
    """c_k·⟨g_k, −∇L_v⟩ at ¼·w of each site and validator, in the last layer's weights, [V, K] at
    f = 40, times a public constant of each validator; and how much each ḡ_k is shortened, [K] at
    CLIP_F. `judged`: by which of the rows."""
    rows, spared = targets.shape[0], _spared(model, params)
    ends, counts = np.cumsum(params["site_rows"]), params["site_rows"]
    sites = [e - n + np.flatnonzero(judged[e - n : e]) for e, n in zip(ends, counts, strict=True)]
    ends = rows + np.cumsum(judges.rows)
    validators = [np.s_[e - n : e] for e, n in zip(ends, judges.rows, strict=True)]
    every = ops.concat([targets, ops.index(held.targets, held.scoring)])
    # scores are linear in the last layer's weights: those of ¼·w are ¼ of these
    errors = model.residuals(ops, ops.halve(scores, SCORING_HALVINGS), every)

    def gradients(places: Sequence[Any], halvings: Sequence[int], f: int) -> Any:
        """[·, in + 1, o]"""
        found = []
        for own, times in zip(places, halvings, strict=True):
            across = ops.transpose(ops.index(seen, own))
            whole = ops.matmul(across, ops.index(errors, own), f=INPUT_F + errors.f)
            found.append(ops.halve(whole, times))
        if len(set(halvings)) == 1:
            return ops.trunc(ops.stack(found), f)
        return ops.stack([ops.trunc(each, f) for each in found])

    taken = np.array([len(each) for each in sites])
    times = [(count - 1).bit_length() for count in taken.tolist()]
    even = 2.0 ** np.array(times) / taken
    given = gradients(sites, times, SITE_F)  # ḡ_k / even
    flat = ops.reshape(given, (len(sites), -1))
    # a quarter of ḡ_k: inputs within ±16, residuals within ±10
    quarter = ops.scale(flat, np.rint(even * 2**MEAN_F).astype(np.int64)[:, None], f=MEAN_F + 2)
    bound = WEIGHT_LIMIT << INPUT_F
    quarter = ops.within(ops.trunc(quarter, INPUT_F), -bound, bound)
    clip = clipping(ops, flat.shape[1], *lengths(ops, quarter))
    clip = ops.clamp(clip, 0, 1 << CLIP_F)
    part = even * counted(params["site_rows"]) / 2.0 ** (rows - 1).bit_length()
    weight = ops.scale(clip, np.rint(part * 2**CLIP_F).astype(np.int64), f=CLIP_F)
    weight = ops.reshape(ops.trunc(weight, CLIP_F), (-1, 1))
    flat = ops.mul(flat, ops.broadcast(weight, flat.shape), f=SITE_F)
    given = ops.reshape(flat, given.shape)
    wanted = gradients(
        validators, [(count - 1).bit_length() + spared for count in judges.rows], HOLDOUT_F
    )
    if model.hidden:
        means = [
            ops.scale(ops.sum(ops.index(seen, own), 0), round(2**MEAN_F / count), f=MEAN_F)
            for own, count in zip(validators, judges.rows, strict=True)
        ]
        wanted = _centred(ops, wanted, ops.trunc(ops.stack(means), INPUT_F))
    flat, across = (ops.reshape(each, (each.shape[0], -1)) for each in (wanted, given))
    return ops.matmul(flat, ops.transpose(across), f=UTILITY_F), clip


def _centred(ops: Any, wanted: Any, means: Any) -> Any:
    """W [V, in + 1, o] such that ⟨G, W⟩ is the product of both gradients taken on features less
    these means [V, in + 1], the intercept's not counted.

    A gradient's last row is R = Σ residuals: on x − m it is G − m·R. So W₁ = W − m·R_v, and
    ⟨G − m·R, W₁⟩ = ⟨G, W₁⟩ − R·(mᵀW₁). With softmax residuals |W₁| ≤ 32, mᵀW₁ under 2^17.
    """
    validators, inputs, outputs = wanted.shape
    rest = np.s_[:, :-1]
    means = ops.index(means, rest)
    m = ops.broadcast(ops.reshape(means, (validators, -1, 1)), (validators, inputs - 1, outputs))
    last = ops.index(wanted, np.s_[:, -1:])
    apart = ops.sub(ops.index(wanted, rest), ops.mul(m, ops.broadcast(last, m.shape), f=HOLDOUT_F))
    common = ops.sum(ops.mul(m, apart, f=HOLDOUT_F), 1)
    return ops.concat([apart, ops.sub(last, ops.reshape(common, last.shape))], axis=1)


def warm_epochs(hidden: Sequence[int], schedule: Params) -> int:
    """In how many epochs, the first, sites are compared by rows that no step has seen."""
    if not hidden or schedule["steps"] < 2:
        return 0
    return min(WARM_EPOCHS, int(schedule["epochs"]) // 2)


def _spared(model: ModelClass, params: Params) -> int:
    """By so many bits utilities are halved, so that their sum over the epochs stays in the word."""
    return model.spare_bits + (int(params["epochs"]) - 1).bit_length()


def counted(site_rows: Sequence[int]) -> npt.NDArray[np.int64]:
    """m_k: how many of a site's rows count."""
    rows = np.asarray(site_rows, np.int64)
    return np.minimum(rows, int(OVER_MEDIAN * np.median(rows)))


def _shares(
    ops: Any, utility: Any, spared: int, clip: Any, doubled: Sequence[int], params: Params
) -> Any:
    """steps · (a_k c_k / q_k) / Σ_j a_j m_j / q_j, [K] at SHARE_F, q_k = 1 and how many share k's
    rows; all 0 where nobody is left. `utility` was halved so often as `spared` says."""
    line = 1 << max(0, UTILITY_NOISE_BITS - spared)
    useful = ops.ltz(ops.add_public(ops.neg(utility), line))
    # rounded up, and what is shared down: so no batch pulls more than all of its rows would
    rows, most = np.asarray(params["site_rows"], np.int64), counted(params["site_rows"])
    counts = -(-most // np.asarray(doubled))
    taken = ops.sum(ops.scale(ops.reshape(useful, (-1, 1)), counts[:, None]), 0)
    inverse = ops.scale(ops.reciprocal(taken, f=SHARE_F, bits=ROWS_BITS), params["steps"])
    inverse = ops.within(inverse, 0, STEPS_MAX << SHARE_F)
    share = ops.mul(useful, ops.broadcast(inverse, useful.shape))
    parts = (most << PART_F) // (rows * np.asarray(doubled))
    if parts.min() < 1 << PART_F:
        share = ops.trunc(ops.scale(share, parts, f=PART_F), SHARE_F)
    share = ops.mul(share, clip, f=SHARE_F)
    # each site has `steps` rows at least
    return ops.within(share, 0, 1 << SHARE_F)
