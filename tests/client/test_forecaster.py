"""A forecaster through real agents and nodes, from files of series to a buyer's next value."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import numpy as np
import pytest

from apps.protocol import tickets
from apps.protocol.metrics import skill
from apps.protocol.rfm_spec import check_spec
from tests.support.bridge import SUBDAO, Bridge
from tests.support.market import SPEC
from tests.support.nodes import NodeSet
from workers.client import data
from workers.client.agent import Agent
from workers.client.buyer import Buyer
from workers.client.home import Home

LAGS, SEASON, DAYS, SPLIT = 3, 7, 400, 280
FIRST = date(2023, 1, 2)
BAD = 3  # the custodian whose series runs backwards


def request() -> dict[str, Any]:
    series = {"time": "day", "step": "day", "lags": LAGS, "season": SEASON}
    series["split"] = str(FIRST + timedelta(days=SPLIT))
    label = {"name": "admissions", "min": "0", "max": "100", "series": series}
    raw = {k: v for k, v in SPEC.items() if k not in ("features", "standard", "strata")}
    gates = [{"metric": "skill", "min_milli": 100}]
    return check_spec(raw | {"model_class": "forecaster", "label": label, "gates": gates})


def week(rng: Any, level: float) -> np.ndarray:
    """Admissions of a hospital by day: a weekly swing, and what lasts of the days before."""
    days, left = np.arange(DAYS), np.zeros(DAYS)
    for day in range(1, DAYS):
        left[day] = 0.6 * left[day - 1] + rng.normal() * 4
    return np.clip(level + 8 * np.sin(2 * np.pi * days / 7) + left, 0, 100)


@pytest.fixture(scope="module")
def played(three_nodes: NodeSet, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(bridge, homes, series by name) of a round that is over."""
    root, rng = tmp_path_factory.mktemp("series"), np.random.default_rng(5)
    homes, made = {}, {}
    for place in range(7):
        role = "custodian" if place < 4 else "validator"
        name = f"{role}-{place}"
        values = made[name] = week(rng, 40 + 4 * (place % 3))
        told = values[rng.permutation(DAYS)] if place == BAD else values
        (root / name).mkdir(mode=0o700)
        lines = ["day,admissions"]
        lines += [
            f"{FIRST + timedelta(days=day)},{value!r}" for day, value in enumerate(told.tolist())
        ]
        (root / name / "rows.csv").write_text("\n".join(lines))
        about = f'name = "{name}"\nrole = "{role}"\ndata = "rows.csv"\n'
        (root / name / "agent.toml").write_text(about)
        homes[name] = Home(root / name)
    for home in homes.values():
        home.pin_nodes(three_nodes.fingerprints)
        home.pin_peers([each.identity_hex() for each in homes.values()])
    bridge = Bridge(three_nodes, homes, spec=request())
    agents = {
        name: Agent(
            home, home.config["role"], say=lambda line: None, api=bridge.api(), share_sums=True
        )
        for name, home in homes.items()
    }
    for name, agent in agents.items():
        if agent.role == "validator":
            bridge.rows[homes[name].identity_hex()] = agent.table(bridge.spec).rows
        else:
            agent.normalise(subdao=SUBDAO, round_id=bridge.round_id)
    bridge.compute_moments()
    for agent in agents.values():
        agent.train(subdao=SUBDAO, round_id=bridge.round_id)
    bridge.compute_round()
    return bridge, homes, made


def windows(values: np.ndarray, days: range) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(lags, values, naive forecasts) of these days."""
    lags = [*range(1, LAGS + 1), SEASON]
    days_ = np.array(days)
    return (
        np.column_stack([values[days_ - lag] for lag in lags]),
        values[days_],
        values[days_ - SEASON],
    )


def solved(made: dict[str, np.ndarray], used: list[str]) -> Any:
    """The ridge regression of the pooled rows of these sites, as a function of raw lags."""
    each = [
        windows(made[name], range(SEASON, SPLIT)) for name in sorted(made) if "custodian" in name
    ]
    x = np.concatenate([lags for lags, _, _ in each])
    mean, std = x[:, 0].mean(), x[:, 0].std()  # of t-1, for every lag
    mine = [windows(made[name], range(SEASON, SPLIT)) for name in used]
    rows = (np.concatenate([lags for lags, _, _ in mine]) - mean) / std
    t = (np.concatenate([values for _, values, _ in mine]) - 50) / 25
    inputs = np.column_stack([rows, np.ones(len(rows))])
    w = np.linalg.solve(inputs.T @ inputs + np.diag([1.0] * 4 + [0.0]), inputs.T @ t)
    return lambda lags: 50 + 25 * (np.column_stack([(lags - mean) / std, np.ones(len(lags))]) @ w)


def test_opened_sums_of_the_lags_tell_no_value_at_the_ends_of_a_series(played: Any) -> None:
    bridge, homes, _ = played
    opened = bridge.jobs["moments@1"]["openings"]["sums"]
    total = np.array([int(word) for word in opened[1:]]).reshape(2, LAGS + 1)
    assert not np.diff(total).any()
    schema = data.Schema.of_spec(bridge.spec)
    sites = [home.path / "rows.csv" for name, home in homes.items() if "custodian" in name]
    lags = np.concatenate([data.read_table(path, schema).features for path in sites])
    assert total[:, 0] / 2**20 == pytest.approx([lags[:, 0].sum(), (lags[:, 0] ** 2).sum()])
    assert np.ptp(lags.sum(0)) > 1  # each column's own would have told


def test_the_next_value_and_the_skill_are_those_of_the_pooled_regression(played: Any) -> None:
    bridge, homes, made = played
    by_key = {home.identity_hex(): name for name, home in homes.items()}
    custodians = [by_key[key] for key in tickets.members_with_role(bridge.roster, "custodian")]
    phi = dict(zip(custodians, bridge.openings["phi_milli"], strict=True))
    assert phi[f"custodian-{BAD}"] == 0 and sorted(phi.values())[1] > 0, phi
    shuffled = data.read_table(
        homes[f"custodian-{BAD}"].path / "rows.csv",
        data.Schema.of_spec(bridge.spec),
    )
    assert shuffled.rows == SPLIT - SEASON  # its rows are in the normalisation, as everybody's
    forecast = solved(made, [name for name in custodians if phi[name]])

    proving = [
        windows(made[name], range(SPLIT, DAYS)) for name in homes if name.startswith("validator")
    ]
    half = -(-(DAYS - SPLIT) // 2)
    lags, truth, naive = (
        np.concatenate([each[part][half:] for each in proving]) for part in range(3)
    )
    squared, absolute = skill(truth, forecast(lags), naive)
    r2 = 1 - np.sum((truth - forecast(lags)) ** 2) / np.sum((truth - truth.mean()) ** 2)
    opened = bridge.openings
    assert opened["support"] == [len(truth)]
    for name, value in (("skill", squared), ("mae_skill", absolute), ("r2", r2)):
        assert opened[f"{name}_milli"] == pytest.approx(1000 * value, abs=2), name
    assert squared > 0.2

    home = homes["validator-4"]  # whoever asks
    buyer = Buyer(home, SUBDAO, api=bridge.api(home))
    assert buyer.columns == ("t-1", "t-2", "t-3", "t-7")
    asked = windows(made["validator-5"], range(DAYS - 3, DAYS))[0]
    said = buyer.predict(asked.tolist())
    found = np.array([float(answer[0]) for answer in said.answers])
    assert found == pytest.approx(forecast(asked), abs=0.05)
