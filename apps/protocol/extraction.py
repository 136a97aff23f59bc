"""What it costs to read a model out by asking, as measured by a buyer who tries.

Whoever buys answers can make a copy from them. So many rows it takes until the copy agrees on 99 of
100 rows, for each of the weights that its answers leave open:

    rows = ⌈PER_WEIGHT_MILLI · weights / 1000⌉,   cost = F(rows),   epochs = ⌈rows / cap⌉
    weights = d + 1 of a linear score, (C − 1)·(d + 1) of C classes' scores, unless one answer tells
        all of them (logits), and all that a network has

F the price of so many rows in one month (tariff.py), or of a plan that has them (plans.py) where
that is less.

tests/protocol/test_extraction.py holds the factors against what its buyers need (tests/support/
reading_out.py, of classes and networks copying.py): one method, the best of those tried. Another
may need less, so these say what an attack costs that is known to work, and promise nothing. Where
nothing was measured the rows are d + 1: fewer answers determine no score of d + 1 weights, however
fine they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from apps.protocol.circuits import CLASSES
from apps.protocol.circuits.resolution import LOGIT
from apps.protocol.plans import Plan
from apps.protocol.tariff import Tier, charge, row_price

AGREEMENT_BPS = 9_900
# Rows for each weight, in thousandths, by class and resolution. To agree is to say the
# same label, of a number to be within a hundredth of its range, of a count or a hazard within a
# twentieth of it.
PER_WEIGHT_MILLI: dict[str, dict[str, int]] = {
    "logistic": {"label": 6_000, "band": 4_300, "rounded": 1_100, "logit": 1_000},
    "multinomial": {"label": 7_400, "band": 4_200, "rounded": 720, "logit": 1_000},
    "linear": {"band": 6_200, "rounded": 1_600, "logit": 1_000},
    # on rows of a series, which hang together: a copy errs less on them than on free ones
    "forecaster": {"band": 5_300, "rounded": 1_200, "logit": 1_000},
    "poisson": {"rounded": 3_900, "logit": 1_000},
    "cox": {"band": 5_300, "rounded": 1_800, "logit": 1_000},
    "mlp": {"label": 17_000, "band": 13_000, "rounded": 3_300, "logit": 1_300},
    "mlp2": {"rounded": 6_000, "logit": 2_500},  # of labels and bands many copies never agree
}


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """rows: to be asked; measured: or only the least there can be; cost_micro: of all of them;
    epochs: of the nodes' own, over which their cap spreads the rows."""

    rows: int
    measured: bool
    cost_micro: int
    epochs: int


def extraction(
    *,
    model_class: str,
    resolution: str,
    features: int,
    extras: Mapping[str, int] = MappingProxyType({}),
    price_micro: int,
    tiers: Sequence[Tier] = (),
    plans: Sequence[Plan] = (),
    rows_per_epoch: int,
) -> Extraction:
    """The cost of a copy. extras: what else its circuits are told of the model's size (`classes`,
    units). rows_per_epoch: what the nodes answer of one model, 1 or more."""
    factor = PER_WEIGHT_MILLI.get(model_class, {}).get(resolution)
    rows = features + 1
    if factor is not None:
        weights = _weights(model_class, resolution, {"features": features, **extras})
        rows = max(rows, -(-factor * weights // 1_000))
    ahead = [p.rows * row_price(price_micro, p.off_bps) for p in plans if p.rows >= rows]
    asked = charge(rows, before=0, price_micro=price_micro, tiers=tiers)
    return Extraction(
        rows=rows,
        measured=factor is not None,
        cost_micro=min([asked, *ahead]),
        epochs=-(-rows // rows_per_epoch),
    )


def _weights(model_class: str, resolution: str, sizes: Mapping[str, int]) -> int:
    model = CLASSES[model_class]
    if model.hidden:
        return model.weights(sizes)
    scores = 1 if resolution == LOGIT else max(1, model.outputs(sizes) - 1)
    return scores * (sizes["features"] + 1)
