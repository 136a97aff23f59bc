"""How soul-bound points grow and fade. Integers of micro-points (1 point = 1 000 000)."""

from __future__ import annotations

from apps.protocol.money import mul_div_floor

PPM = 1_000_000
MILLI_TO_MICRO = 1_000
POINT_MICRO = 1_000_000
WORK_UNITS_A_ROUND = 1  # each validator's, whatever it scores
COMMITMENT_MICRO = POINT_MICRO  # for each verified commitment, when a SubDAO is founded


def decayed(points_micro: int, decay_ppm: int) -> int:
    """π⁽ᵗ⁺¹⁾ = ⌊λ · π⁽ᵗ⁾⌋ with λ = decay_ppm / 10⁶ and 0 < λ < 1.

    Source: paper eq. 12. Raises ValueError for λ outside (0, 1) or negative points.
    """
    if not 0 < decay_ppm < PPM:
        raise ValueError("λ lies strictly between 0 and 1")
    return mul_div_floor(points_micro, decay_ppm, PPM)


def next_points(points_micro: int, *, earned_micro: int, active: bool, decay_ppm: int) -> int:
    """π′ = π + earned when active in the cycle, λ·π when not (settled reading of §6.1 and eq. 12).

    An active member may have earned nothing: a site scored φ = 0 keeps its points and gains none.
    Raises ValueError for negative arguments, or for earnings of a member who was not active.
    """
    if points_micro < 0 or earned_micro < 0:
        raise ValueError("points are ≥ 0")
    if active:
        return points_micro + earned_micro
    if earned_micro:
        raise ValueError("only an active member earns points")
    return decayed(points_micro, decay_ppm)


def revoked(points_micro: int, taken_micro: int) -> int:
    """π′ = max(π − taken, 0): what a vote leaves of a member's points.

    Raises ValueError for negative points or a vote that takes nothing.
    """
    if points_micro < 0 or taken_micro <= 0:
        raise ValueError("points are ≥ 0, and a revocation takes some")
    return max(points_micro - taken_micro, 0)


def points_of_phi(phi_milli: int) -> int:
    """φ ∈ [0, 1], opened with three decimals, as micro-points: φ = 1 earns one point."""
    if not 0 <= phi_milli <= 1_000:
        raise ValueError("φ lies between 0 and 1")
    return phi_milli * MILLI_TO_MICRO
