"""A forecaster on lags: the next value of a series, linear in its last ones (protocol/series.py).

Features are the values at t−1 … t−p and perhaps t−s, which each site cuts out of its own series. A
target is (t, n): the value, and the naive forecast of it, both within ±2 of the label's range. The
model is that of linear.py, solved of all sites' rows; n has a part in the evidence alone:

    skill = 1 − Σ(y − ŷ)² / Σ(y − n)²       the same of |y − ŷ| and |y − n|

0 is as good as the naive forecast, 1 without error (1 − MSE/MSE_ref, Murphy 1988; 1 − MASE where
the naive errors are those of the rows that are judged).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from apps.protocol.circuits import least_squares, linear
from apps.protocol.circuits.cells import Rule
from apps.protocol.circuits.declare import Opening
from apps.protocol.circuits.family import Real
from apps.protocol.circuits.regression import NULL_WHERE, r_squared


def _values(ops: Any, targets: Any) -> Any:
    return ops.index(targets, np.s_[:, :1])


def residuals(ops: Any, scores: Any, targets: Any) -> Any:
    return linear.residuals(ops, scores, _values(ops, targets))


def gains(ops: Any, scores: Any, targets: Any, members: Any) -> Any:
    return linear.gains(ops, scores, _values(ops, targets), members)


def evidence(ops: Any, scores: Any, targets: Any, strata: Any, rule: Rule) -> dict[str, Any]:
    read = (linear.tamed(ops, scores), _values(ops, targets), ops.index(targets, np.s_[:, 1:]))
    found, truth, naive = (ops.reshape(each, (-1,)) for each in read)
    return r_squared(ops, found, truth, strata, rule, linear.SPAN, naive=naive)


def train(features: Real, labels: Any, outputs: int, c: float) -> Real:
    """As linear.train, of labels [n, 2]."""
    return linear.train(features, np.asarray(labels, float)[:, 0], outputs, c)


def sums_made(features: Real, targets: Real) -> Real:
    return least_squares.factor_of(features, targets[:, 0])


_LINEAR = linear.CLASS
assert _LINEAR.sums is not None
CLASS = replace(
    _LINEAR,
    name="forecaster",
    title="Forecaster on lags",
    series=True,
    metrics=("r2", "skill", "mae_skill"),
    targets=lambda params: 2,
    residuals=residuals,
    gains=gains,
    evidence=evidence,
    train=train,
    sums=replace(_LINEAR.sums, made=sums_made),
    descends=False,
    opens=(
        *_LINEAR.opens,
        Opening(
            "skill_milli",
            "1 less the squared errors' share of the naive forecast's, in thousandths, −1000 at "
            "least; null where those errors are less than can be measured, which the nodes see",
        ),
        Opening("skill_strata_milli", NULL_WHERE),
        Opening(
            "skill_spread_milli",
            "root mean square, in thousandths, of what each row adds to or takes from 1 − skill, "
            "as r2_spread_milli; null where skill is null or −1000",
        ),
        Opening("skill_spread_strata_milli", "the same per stratum"),
        Opening("mae_skill_milli", "the same of absolute errors"),
        Opening("mae_skill_strata_milli", NULL_WHERE),
    ),
)
