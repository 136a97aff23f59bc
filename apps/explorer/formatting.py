"""How amounts, weights, hashes and times read on a page. Pure: no Django, no clock.

Amounts are integer micro-units (1 token = 1 000 000); none is computed with floats.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from datetime import UTC, datetime

from apps.protocol.tickets import COMPUTING, VERIFIED, threshold_of

MICRO = 1_000_000
TRAINING_NAMES = {
    "fedavg": "Averaging updates that sites train at home",
    "secure_sgd": "Gradient steps on rows that sites share",
}
SCORING_NAMES = {
    "taylor": "Direction at the mean update",
    "shapley": "Shapley value",
    "leave_one_out": "Leaving each site out",
}
ENGINE_NAMES = {
    "ring": "Three nodes; one may be curious",
    "ring_verified": "Four nodes that check each other; one may even cheat, and is caught",
    "shamir_t1": "Shamir shares: any three nodes; one may be curious",
    "shamir_t2": "Shamir shares: any five nodes; two may be curious, and tell each other",
    "shamir_t3": "Shamir shares: seven nodes; three may be curious, and tell each other",
}
# What they cost beside the ring of three, from docs/performance.md.
ENGINE_COSTS = {
    "ring": "The ring: the fastest",
    "ring_verified": "The verified ring: three times as long as the ring",
    "shamir_t1": "Shamir shares: a query takes two to six times as long as on the ring, a round "
    "five to fifty times",
    "shamir_t2": "Shamir shares: a query takes about three to nine times as long as on the ring, a "
    "round a dozen times and more",
    "shamir_t3": "Shamir shares among seven: longer than among five; not measured",
}
RESOLUTION_NAMES = {
    "label": "The likelier label alone",
    "band": "A band, like a fifth of the scale",
    "rounded": "A rounded value, like whole per cent",
    "logit": "The exact score (logit)",
}


def nodes_words(engine: str, n: int) -> str:
    """What so many nodes on this engine bear."""
    t, spare = threshold_of(engine), n - COMPUTING[engine]
    one = "one may be curious, or cheat" if engine == VERIFIED else "one may be curious"
    curious = one if t == 1 else f"{t} may be curious and tell each other all"
    dead = f"{spare} may be dead" if spare else "all must be there"
    return f"{n} at least: {curious}, {dead}"


def times_as_likely(epsilon_milli: int) -> str:
    """e^ε, rounded up to two digits: 2720 -> "16"."""
    odds = math.exp(epsilon_milli / 1000)
    unit = 10 ** max(0, math.floor(math.log10(odds)) - 1)
    return f"{math.ceil(odds / unit) * unit:,}" if odds >= 10 else f"{math.ceil(odds * 10) / 10:g}"


def budget_words(budget: dict[str, int]) -> str:
    """A privacy budget in one line."""
    if not budget:
        return "none: models get no noise"
    rounds = budget["rounds"]
    return (
        f"ε = {budget['epsilon_milli'] / 1000:g} in {rounds} round{'s'[: rounds != 1]}, updates "
        f"shortened to length {budget['clip_milli'] / 1000:g}"
    )


def exact(micro: int) -> str:
    """`1_500_000 -> "1.500000"`: every digit that the ledger holds, thousands grouped."""
    sign = "-" if micro < 0 else ""
    whole, part = divmod(abs(micro), MICRO)
    return f"{sign}{whole:,}.{part:06d}"


def short(micro: int, *, decimals_min: int, decimals_max: int = 6) -> str:
    """Truncates towards zero to the fewest decimals in [min, max] that lose nothing.

    `short(500_000, decimals_min=2) == "0.50"`; a value under one cent keeps its digits.
    """
    text = exact(micro)
    whole, part = text.split(".")
    part = part[:decimals_max].rstrip("0").ljust(decimals_min, "0")
    return f"{whole}.{part}" if part else whole


def amount(micro: int, asset: str) -> tuple[str, str, str, str]:
    """(sign, prefix, number, unit) as shown: ("", "$", "0.50", "") or ("", "", "1,250", "FLAI").

    Dollars show cents, and whole micro-units only below one cent; tokens show at most 4 decimals.
    """
    sign = "−" if micro < 0 else ""
    size = abs(micro)
    if asset == "USDC":
        decimals = 6 if 0 < size < 10_000 else 2
        return sign, "$", short(size, decimals_min=2, decimals_max=decimals), ""
    return sign, "", short(size, decimals_min=0, decimals_max=4), asset


def percent(part: int, whole: int, *, decimals: int = 1) -> str:
    """100·part/whole, truncated, so never rounded up across a threshold: 1 of 8 is "12.5 %"."""
    if whole <= 0:
        return "0 %"
    scaled = part * 100 * 10**decimals // whole
    head, tail = divmod(scaled, 10**decimals)
    text = f"{head}.{tail:0{decimals}d}".rstrip("0").rstrip(".")
    return f"{text} %"


def bps(value: int) -> str:
    """Basis points as a percentage: `bps(1250) == "12.5 %"`."""
    return percent(value, 10_000, decimals=2)


def milli(value: int | None) -> str:
    """Thousandths with three decimals: `milli(931) == "0.931"`; None (too few rows) is a dash."""
    if value is None:
        return "—"
    sign = "−" if value < 0 else ""
    return f"{sign}{abs(value) // 1000}.{abs(value) % 1000:03d}"


def between(ends: Sequence[int]) -> str:
    """`0.871 to 0.934` of two numbers of thousandths."""
    return f"{milli(ends[0])} to {milli(ends[1])}"


def size(count: int) -> str:
    """`size(8_016) == "8.0 kB"`: bytes with two figures or more."""
    for unit, name in ((10**6, "MB"), (10**3, "kB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} bytes"


def duration(seconds: int) -> str:
    """`3 s`, `5 min`, `1 h 30 min`, `7 d`: at most two units, the ones that matter."""
    if seconds == 0:
        return "none"
    parts = []
    for size, name in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count} {name}")
    return " ".join(parts[:2])


def relative(at: datetime, now: datetime) -> str:
    """`in 3 h`, `12 min ago`, `now`; beyond 30 days the date. flai.js repeats this rule."""
    seconds = round(abs((at - now).total_seconds()))
    if seconds < 5:
        return "now"
    if seconds > 30 * 86_400:
        return at.astimezone(UTC).strftime("%-d %b %Y")
    for limit, unit, name in (
        (60, 1, "s"),
        (3_600, 60, "min"),
        (172_800, 3_600, "h"),
        (None, 86_400, "d"),
    ):
        if limit is None or seconds < limit:
            text = f"{seconds // unit} {name}"
            break
    return f"in {text}" if at > now else f"{text} ago"


def short_hash(value: str) -> str:
    """First six, last four: `3fa9c1…77b0`; short values stay whole."""
    return value if len(value) <= 12 else f"{value[:6]}…{value[-4:]}"


def identicon(value: str) -> tuple[int, str]:
    """(hue 0–359, an SVG path of the filled cells of a mirrored 5×5 grid), the same for a value
    everywhere. Cells overlap by a little, so that no seam shows."""
    seed = hashlib.sha256(value.encode()).digest()
    filled = [(x, y) for x in range(3) for y in range(5) if seed[x * 5 + y] & 1]
    cells = {cell for x, y in filled for cell in ((x, y), (4 - x, y))}
    path = "".join(f"M{x} {y}h1.02v1.02h-1.02z" for x, y in sorted(cells))
    return seed[31] * 360 // 256, path


def quoted(name: str) -> str:
    """A name as one cell of a line of CSV. END too: alone it ends such lines in a shell's block."""
    plain = name != "END" and not any(c in name for c in ',"')
    return name if plain else '"' + name.replace('"', '""') + '"'
