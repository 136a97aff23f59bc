"""Integer money: 1 token = 1 000 000 micro-units; every division says which way it rounds."""

from __future__ import annotations

MICRO = 1_000_000
BPS = 10_000
PPM = 1_000_000


def mul_div_floor(a: int, b: int, divisor: int) -> int:
    """⌊a·b / divisor⌋ for a, b ≥ 0 and divisor > 0, without overflow.

    Raises ValueError outside of that: a negative amount has no single "down".
    """
    if a < 0 or b < 0 or divisor <= 0:
        raise ValueError("amounts are not negative and divisors are positive")
    return a * b // divisor


def mul_div_ceil(a: int, b: int, divisor: int) -> int:
    """⌈a·b / divisor⌉ for a, b ≥ 0 and divisor > 0.

    Raises ValueError outside of that.
    """
    if a < 0 or b < 0 or divisor <= 0:
        raise ValueError("amounts are not negative and divisors are positive")
    return -(-a * b // divisor)
