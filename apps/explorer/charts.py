"""The geometry of the pages' charts. Pure: integers in, integers out, no Django, no clock.

x counts in thousandths of the plot's width, so that a chart fits any screen while its words keep
their size; y counts in pixels, downwards. Every chart keeps its rows, for the table behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

WIDTH = 1000
FLOW_HEIGHT, LABEL_HEIGHT, GAP = 168, 40, 8
PLOT_HEIGHT = 160
SPARK_HEIGHT = 28
SPARK_BARS = 8


@dataclass(frozen=True)
class Part:
    """A quantity with its name; `text` is how it reads, `tone` the house it belongs to."""

    label: str
    value: int
    text: str = ""
    tone: str = ""


@dataclass(frozen=True)
class Band:
    """One part on its way from left to right; `y` is the middle of its right end."""

    part: Part
    path: str
    y: int
    share_bps: int


@dataclass(frozen=True)
class Flow:
    """A whole that divides into bands, without loss."""

    total: int
    height: int
    top: int
    thickness: int
    bands: tuple[Band, ...]


def flow(parts: Sequence[Part], total: int) -> Flow:
    """Bands as thick as their part of `total`; side by side on the left, apart on the right.

    Raises ValueError unless the parts sum to the total: a picture of money loses none.
    """
    if sum(part.value for part in parts) != total or min([p.value for p in parts] + [total]) < 0:
        raise ValueError("the parts of a flow sum to its total")
    edges = [0]
    for part in parts:
        edges.append(edges[-1] + part.value)
    scaled = [edge * FLOW_HEIGHT // max(total, 1) for edge in edges]
    thick = [after - before for before, after in pairwise(scaled)]
    slots = [max(height, LABEL_HEIGHT) for height in thick]
    height = max(sum(slots) + GAP * (len(parts) - 1), FLOW_HEIGHT)
    top = (height - FLOW_HEIGHT) // 2
    bands, y = [], 0
    for part, left, size, slot in zip(parts, scaled, thick, slots):
        middle = y + slot // 2
        path = _ribbon(top + left, middle - size // 2, size)
        bands.append(Band(part, path, middle, part.value * 10_000 // max(total, 1)))
        y += slot + GAP
    return Flow(total, height, top, FLOW_HEIGHT, tuple(bands))


def _ribbon(left: int, right: int, size: int) -> str:
    """A band from height `left` at x = 0 to height `right` at x = WIDTH."""
    half = WIDTH // 2
    return (
        f"M0 {left}C{half} {left} {half} {right} {WIDTH} {right}V{right + size}"
        f"C{half} {right + size} {half} {left + size} 0 {left + size}Z"
    )


@dataclass(frozen=True)
class Steps:
    """A quantity that jumps: a line, the area below it, and the goal's height if there is one.

    label_y: the line's highest point in the last fifth, above which there is room for words.
    """

    line: str
    area: str
    height: int
    top: int
    goal_y: int | None
    last_y: int
    label_y: int


def ceiling(value: int) -> int:
    """The least of 1, 2, 5 · 10^k that is ≥ value; 1 for nothing."""
    unit = 1
    while True:
        for factor in (1, 2, 5):
            if unit * factor >= value:
                return unit * factor
        unit *= 10


def steps(
    points: Sequence[tuple[int, int]], *, start: int, end: int, goal: int | None = None
) -> Steps:
    """(time, value) pairs in order of time: each value holds from its time on, 0 before the first.

    The scale ends at the goal where nothing is higher, else at the next round number.
    """
    highest = max([value for _, value in points], default=0)
    top = goal if goal and goal >= highest else ceiling(highest)
    span = max(end - start, 1)
    x, y = 0, PLOT_HEIGHT
    line, heights = f"M0 {y}", []
    for at, value in points:
        x = min(max((at - start) * WIDTH // span, x), WIDTH)
        y = _height(value, top)
        # A height that ends before the last fifth gives way to the next.
        heights = [*heights, y] if x > WIDTH * 4 // 5 else [y]
        line += f"H{x}V{y}"
    line += f"H{WIDTH}"
    goal_y = None if goal is None else _height(goal, top)
    return Steps(line, f"{line}V{PLOT_HEIGHT}H0Z", PLOT_HEIGHT, top, goal_y, y, min([*heights, y]))


def _height(value: int, top: int) -> int:
    return PLOT_HEIGHT - value * PLOT_HEIGHT // max(top, 1)


@dataclass(frozen=True)
class Bar:
    """One bar; a value that is missing has no height."""

    x: int
    width: int
    y: int
    height: int
    value: int | None


def spark(values: Sequence[int | None], top: int) -> list[Bar]:
    """A bar for each value, oldest first, on a scale that `top` ends; at least room for eight."""
    slot = WIDTH // max(len(values), SPARK_BARS)
    bars = []
    for place, value in enumerate(values):
        # What is zero is still seen to have been measured.
        height = 0 if value is None else max(value * SPARK_HEIGHT // max(top, 1), 2)
        bars.append(Bar(place * slot, slot * 4 // 5, SPARK_HEIGHT - height, height, value))
    return bars


@dataclass(frozen=True)
class Segment:
    """A part of a bar that is made of several."""

    part: Part
    x: int
    width: int


def stack(parts: Sequence[Part], whole: int) -> list[Segment]:
    """Parts one after the other on a scale that `whole` ends; the last edge is exact."""
    segments, edge, sum_ = [], 0, 0
    for part in parts:
        sum_ += part.value
        after = min(sum_ * WIDTH // max(whole, 1), WIDTH)
        segments.append(Segment(part, edge, after - edge))
        edge = after
    return segments


@dataclass(frozen=True)
class Spot:
    """One measured value: x in thousandths, y and the ends of its interval in pixels."""

    x: int
    y: int
    ends: tuple[int, int] | None


@dataclass(frozen=True)
class Trace:
    """Values in their order, joined by a line that breaks where one is missing; the scale goes
    from `low` to `high`."""

    line: str
    spots: tuple[Spot, ...]
    height: int
    low: int
    high: int
    goal_y: int | None


def trace(
    values: Sequence[int | None],
    ends: Sequence[Sequence[int] | None] = (),
    *,
    goal: int | None = None,
    step: int = 100,
) -> Trace:
    """On a scale of whole steps about all that is drawn."""
    spread = list(ends) or [None] * len(values)
    drawn = [v for v in values if v is not None] + [e for pair in spread for e in pair or ()]
    drawn += [] if goal is None else [goal]
    low = min(drawn, default=0) // step * step
    high = max(-(-max(drawn, default=0) // step) * step, low + step)

    def height(value: int) -> int:
        return (high - value) * PLOT_HEIGHT // (high - low)

    line, spots, joined = "", [], False
    for place, (value, pair) in enumerate(zip(values, spread, strict=True)):
        x = place * WIDTH // (len(values) - 1) if len(values) > 1 else WIDTH // 2
        if value is not None:
            line += f"{'L' if joined else 'M'}{x} {height(value)}"
            whisker = (height(pair[0]), height(pair[1])) if pair else None
            spots.append(Spot(x, height(value), whisker))
        joined = value is not None
    goal_y = None if goal is None else height(goal)
    return Trace(line, tuple(spots), PLOT_HEIGHT, low, high, goal_y)
