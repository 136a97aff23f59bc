"""Charts say what the numbers say: nothing is lost, nothing leaves the plot."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.explorer import charts, pictures
from apps.explorer.charts import Part
from apps.explorer.templatetags.flai import gate_bar
from apps.protocol.evidence import evidence_of
from apps.protocol.revenue import Policy, Served, split

AMOUNTS = st.lists(st.integers(0, 10**12), min_size=1, max_size=6)


@given(AMOUNTS)
def test_a_flow_loses_nothing_and_its_labels_never_meet(values: list[int]) -> None:
    drawn = charts.flow([Part(str(i), v) for i, v in enumerate(values)], sum(values))
    lefts = [int(re.match(r"M0 (\d+)C", band.path)[1]) for band in drawn.bands]  # type: ignore[index]
    assert lefts == sorted(lefts) and lefts[0] == drawn.top
    assert all(b.y - a.y >= charts.LABEL_HEIGHT for a, b in pairwise(drawn.bands))
    assert drawn.bands[0].y >= 0 and drawn.bands[-1].y <= drawn.height
    assert all(0 <= int(n) <= max(drawn.height, 1000) for b in drawn.bands for n in numbers(b.path))


def numbers(path: str) -> list[str]:
    return re.findall(r"-?\d+", path)


def test_a_flow_that_loses_money_is_refused() -> None:
    with pytest.raises(ValueError):
        charts.flow([Part("a", 1), Part("b", 1)], 3)
    with pytest.raises(ValueError):
        charts.flow([Part("a", -1), Part("b", 4)], 3)


def test_half_of_a_flow_is_half_as_thick() -> None:
    half, quarter, rest = charts.flow([Part("a", 50), Part("b", 25), Part("c", 25)], 100).bands
    assert half.path.startswith("M0 8C500 8 500 0 1000 0V84")
    assert (half.share_bps, quarter.share_bps, rest.share_bps) == (5_000, 2_500, 2_500)


@pytest.mark.parametrize(
    ("value", "top"), [(0, 1), (1, 1), (3, 5), (5, 5), (6, 10), (11, 20), (51, 100), (201, 500)]
)
def test_a_scale_ends_at_a_round_number(value: int, top: int) -> None:
    assert charts.ceiling(value) == top


def test_steps_hold_each_value_from_its_time_on() -> None:
    drawn = charts.steps([(25, 400), (50, 1000)], start=0, end=100, goal=1000)
    assert drawn.line == "M0 160H250V96H500V0H1000"
    assert drawn.area == drawn.line + "V160H0Z"
    assert (drawn.goal_y, drawn.top, drawn.last_y) == (0, 1000, 0)


def test_steps_without_points_are_a_flat_line() -> None:
    assert charts.steps([], start=5, end=5).line == "M0 160H1000"


@given(st.lists(st.tuples(st.integers(-50, 150), st.integers(0, 10**15)), max_size=8))
def test_steps_stay_in_the_plot_and_go_forward(points: list[tuple[int, int]]) -> None:
    drawn = charts.steps(sorted(points), start=0, end=100)
    xs = [int(n) for n in re.findall(r"H(\d+)", drawn.line)]
    assert xs == sorted(xs) and xs[-1] == charts.WIDTH
    assert all(0 <= int(n) <= charts.PLOT_HEIGHT for n in re.findall(r"V(-?\d+)", drawn.line))


def test_a_zero_is_seen_and_a_gap_is_not() -> None:
    zero, gap, full = charts.spark([0, None, 1000], 1000)
    assert (zero.height, gap.height, full.height) == (2, 0, charts.SPARK_HEIGHT)
    assert (full.x, full.width) == (250, 100)  # room for eight, a fifth of it air
    assert len(charts.spark([1] * 20, 1)) == 20


@given(AMOUNTS)
def test_a_stack_fills_its_bar(values: list[int]) -> None:
    parts = [Part(str(i), v) for i, v in enumerate(values)]
    drawn = charts.stack(parts, sum(values))
    assert all(a.x + a.width == b.x for a, b in pairwise(drawn))
    assert drawn[-1].x + drawn[-1].width == (charts.WIDTH if sum(values) else 0)


POLICY = Policy(
    sbgt_bps=6_000, sdt_bps=2_800, treasury_bps=1_200,
    custodians_bps=7_000, validators_bps=1_500, operators_bps=1_500,
)  # fmt: skip


@given(st.integers(1, 10**13))
def test_a_prices_parts_are_those_of_the_settlement(price: int) -> None:
    """The picture of a price and protocol.revenue agree where each class has one member."""
    drawn = pictures.price_flow(price, POLICY)
    served = [Served("1", price, {"k": 1}, {"v": 1})]
    paid = split(served, jobs={"o": 1}, holdings={"h": 1}, policy=POLICY)
    expected = [paid.by_payee().get(who, 0) for who in "kvoh"] + [paid.treasury_micro]
    assert [band.part.value for band in drawn.bands] == expected


def test_a_payment_divides_as_its_epoch_did_and_a_released_one_goes_back() -> None:
    """Before its epoch is divided, as it would be if every part had somebody who earned it."""
    settled = {"revenue_micro": "3000000", "owed_micro": {"custodian": "1000000", "holder": "1"}}
    flow = pictures.query_flow(500_000, POLICY, settled, back=False)
    parts = {band.part.label: band.part.value for band in flow.bands}
    assert parts["Custodians, by φ"] == 166_666 and parts["Treasury"] == 500_000 - 166_666
    ahead = pictures.query_flow(500_000, POLICY, None, back=False)
    assert ahead == pictures.price_flow(500_000, POLICY)
    (back,) = pictures.query_flow(500_000, POLICY, settled, back=True).bands
    assert (back.part.label, back.part.value) == ("Back to you", 500_000)


def test_epochs_without_revenue_have_no_picture() -> None:
    assert pictures.epochs_flow([None, {"revenue_micro": "0", "payments": []}]) is None


def test_phi_is_a_row_a_site_best_first_with_gaps() -> None:
    numbers, rows = pictures.phi_by_round([(1, "a", 10), (1, "b", 900), (2, "a", 950)])
    assert numbers == [1, 2]
    assert [(row.name, row.values) for row in rows] == [("a", [10, 950]), ("b", [900, None])]


@pytest.mark.parametrize("name", pictures.SEES)
def test_who_sees_what_is_said_of_each_thing(name: str) -> None:
    columns, rows = pictures.SEES[name]
    assert all(len(marks) == len(columns) and set(marks) <= set("yn") for _, marks in rows)


@pytest.mark.parametrize(
    ("region", "expected"),
    [
        (None, ("91.0%", "", "85.0%", "AUC 0.910, gate 0.850")),
        ("north", ("85.0%", "", "85.0%", "AUC 0.850, gate 0.850")),
        ("east", ("84.9%", "bad", "85.0%", "AUC 0.849, gate 0.850")),
        ("south", ("0.0%", "bad", "85.0%", "AUC hidden, gate 0.850")),
    ],
)
def test_each_regions_auc_stands_beside_its_gate(
    region: str | None, expected: tuple[str, str, str | None, str]
) -> None:
    """Red is what is under the line; where nothing was opened, nothing shows that it is met."""
    evidence = evidence_of(
        {"auc_milli": 910, "auc_strata_milli": [850, 849, None]},
        strata=["north", "east", "south"],
        gates=[{"metric": "auc", "min_milli": 850, "per_stratum": True}],
    )
    drawn = gate_bar(evidence, "auc", region)
    assert (drawn["width"], drawn["tone"], drawn["mark"], drawn["label"]) == expected
