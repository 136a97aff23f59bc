"""What a privacy budget allows, and what rounds have spent of it.

A round that makes its model with Gaussian noise of variance Δ² / 2ρ a weight spends ρ of "zero-
concentrated" differential privacy. ρ adds up over rounds, whatever is made of their models. A sum
ρ is (ε, δ) for

    ε(ρ) = min_{α>1} αρ + [ln 1/δ + (α − 1)·ln(1 − 1/α) − ln α] / (α − 1)        δ = 10^−6

Sources: Bun and Steinke (2016) for the sum; Canonne, Kamath and Steinke (2020), section 2.3, for
ε, and for the discrete Gaussian in many dimensions. ρ is kept in whole millionths, ε in
thousandths; ε is rounded up.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from apps.protocol.circuits.noise import CLIP, CLIP_MILLI, RHO

MICRO, MILLI = 1_000_000, 1_000
DELTA_EXPONENT = 6  # one in a million, where a round has some three to sixty sites
EPSILON_MILLI = (100, 50_000)
ROUNDS = (1, 100)
NARROWING = 200


@dataclass(frozen=True, slots=True)
class Budget:
    """All models of a SubDAO together are (ε, 10^−6); so many rounds spend that, in equal parts.

    clip_milli: an update longer than this, in thousandths, is shortened to it.
    """

    epsilon_milli: int
    rounds: int
    clip_milli: int

    @property
    def total_micro(self) -> int:
        """ρ that ε allows, in millionths, rounded down."""
        return _rho_micro(self.epsilon_milli)

    @property
    def round_micro(self) -> int:
        """ρ of one round."""
        return self.total_micro // self.rounds

    @property
    def params(self) -> dict[str, int]:
        """What a round's tickets say."""
        return {CLIP: self.clip_milli, RHO: self.round_micro}

    @property
    def as_json(self) -> dict[str, int]:
        return asdict(self)

    def rounds_left(self, spent_micro: int) -> int:
        """How many more rounds there may be after so much was spent."""
        return max(0, self.total_micro - spent_micro) // self.round_micro


def budget_of(raw: Any) -> Budget | None:
    """A budget as a request or a vote states it; None for none. Raises: ValueError."""
    if raw in (None, {}):
        return None
    limits = {"epsilon_milli": EPSILON_MILLI, "rounds": ROUNDS, "clip_milli": CLIP_MILLI}
    if not isinstance(raw, Mapping) or set(raw) != set(limits):
        raise ValueError(f"a budget says {', '.join(limits)}, and no more")
    for name, (least, most) in limits.items():
        value = raw[name]
        if type(value) is not int or not least <= value <= most:
            raise ValueError(f"{name} is a whole number from {least} to {most}")
    budget = Budget(**raw)
    if budget.round_micro < 1:
        raise ValueError("so small an ε leaves nothing for each of so many rounds")
    return budget


def budget_asked(epsilon_milli: int | None, rounds: int, clip_milli: int) -> dict[str, int]:
    """A budget as people fill it in: no ε, none."""
    return Budget(epsilon_milli, rounds, clip_milli).as_json if epsilon_milli else {}


def spent_micro(rounds: Iterable[Mapping[str, int]]) -> int:
    """ρ of rounds that made a model, by the parameters that their tickets named: a plain sum."""
    return sum(params.get(RHO, 0) for params in rounds)


def epsilon(rho: float, delta: float = 10.0**-DELTA_EXPONENT) -> float:
    """ε(ρ) as above; 0 for ρ = 0."""
    if rho <= 0:
        return 0.0

    def at(log_step: float) -> float:
        step = math.exp(log_step)  # α − 1
        alpha = 1 + step
        return alpha * rho + (math.log(1 / delta) - math.log(alpha)) / step - math.log1p(1 / step)

    low, high = -25.0, 25.0
    for _ in range(NARROWING):  # it falls, then rises; any α gives a true ε
        third = (high - low) / 3
        if at(low + third) < at(high - third):
            high -= third
        else:
            low += third
    return max(0.0, at((low + high) / 2))


def epsilon_milli(rho_micro: int) -> int:
    """ε of so much ρ, in thousandths, rounded up."""
    return math.ceil(epsilon(rho_micro / MICRO) * MILLI - 1e-6)


@lru_cache(maxsize=64)
def _rho_micro(most_milli: int) -> int:
    """The largest ρ whose ε is no more than this."""
    low, high = 0, most_milli * MILLI + 1  # ε(ρ) ≥ ρ where δ is small
    while high - low > 1:
        middle = (low + high) // 2
        if epsilon_milli(middle) <= most_milli:
            low = middle
        else:
            high = middle
    return low
