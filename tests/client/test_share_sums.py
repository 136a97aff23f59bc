"""A site's sums for a solved regression leave it by its own word only, and not of a few rows."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from apps.protocol.circuits import CLASSES
from tests.support.bridge import attested
from workers.client.agent import Agent
from workers.client.api import ClientError
from workers.client.data import DataError
from workers.client.home import Home

PARAMS = {
    "model_class": "linear",
    "label": {"name": "days", "min": "0", "max": "40"},
    "strata": None,
    "schema": {"standard": "tabular-csv", "features": [{"name": "a"}, {"name": "b"}]},
}


class Server:
    """Asks for sums, and takes none."""

    params = PARAMS

    def get(self, path: str) -> dict[str, Any]:
        rounds = {"id": "r", "training": "fedavg", "summed": None}
        return rounds if path.startswith("rounds/") else {"params": self.params}

    def post(self, path: str, body: Any) -> None:
        raise AssertionError(f"{path} was sent {body}")


def agent(folder: Path, rows: int, train: str = "", **options: Any) -> Agent:
    (folder / "agent.toml").write_text(f"[train]\n{train}\n")
    made = Agent(Home(folder), "custodian", say=lambda line: None, api=Server(), **options)  # type: ignore[arg-type]
    table = SimpleNamespace(
        **{"path": folder / "rows.csv", "rows": rows, "columns": ("a", "b"), "width": 2},
        labels=np.linspace(0, 40, rows),
    )
    attested(made.home, PARAMS | PARAMS["schema"])  # type: ignore[operator]
    made.table = lambda spec: table  # type: ignore[assignment,method-assign,return-value]
    return made


@pytest.mark.parametrize(
    ("rows", "train", "options", "error", "said"),
    [
        (40, "", {}, ClientError, "--share-sums"),
        (40, "", {"share_rows": True}, ClientError, "--share-sums"),
        (7, "", {"share_sums": True}, DataError, "fewer than 8"),
        (40, "C = 0.1", {"share_sums": True}, DataError, "Take C out"),
        (40, 'update = "w.csv"', {"share_sums": True}, DataError, "Take update out"),
    ],
)
def test_nothing_is_summed_without_consent_of_few_rows_or_by_a_penalty_of_ones_own(
    tmp_path, rows, train, options, error, said
) -> None:
    one = agent(tmp_path, rows, train, **options)
    with pytest.raises(error, match=said):
        one.normalise(subdao="d", round_id="r")
    # nor at the second step, whatever the server says the round is
    with pytest.raises(error, match=said):
        one._update(one.table(PARAMS), np.zeros((rows, 2)), PARAMS)


def test_who_consents_shares_a_factor(tmp_path) -> None:
    one = agent(tmp_path, 40, share_sums=True)
    features = np.random.default_rng(0).normal(size=(40, 2))
    update = one._update(one.table(PARAMS), features, PARAMS)
    assert len(update) == CLASSES["linear"].update({"features": 2})


def test_a_site_is_told_what_a_budget_leaves_of_the_model_of_its_sums(tmp_path) -> None:
    """Not of the sums: what nodes shorten is what these give alone."""
    one, lines = agent(tmp_path, 40, share_sums=True), []
    one.say = lines.append
    table, features = one.table(PARAMS), np.linspace(-1, 1, 80).reshape(40, 2)
    update = one._update(table, features, PARAMS)
    targets = np.linspace(-2, 2, 40)
    length = np.linalg.norm(CLASSES["linear"].train(features, targets, 1, 1.0))
    for clip, said in ((500, "the nodes shorten it to 0.5"), (9000, "all of it counts")):
        one._say_length(table, features, update, PARAMS, {"clip_milli": clip, "rho_micro": 1})
        assert lines[-1] == f"The model of these sums alone has a length of {length:.3f}: {said}."


def test_columns_are_what_was_attested_or_accepted_once(tmp_path: Path) -> None:
    """A column that is called a number is summed: the server's word alone makes none one."""

    def asked(subdao: str = "d", **options: Any) -> str:
        one = agent(tmp_path, 40, **options)
        one.api.params = PARAMS | {"schema": schema}  # type: ignore[attr-defined]
        with pytest.raises(ClientError) as refused:
            one.normalise(subdao=subdao, round_id="r")
        return str(refused.value.code)

    schema: dict[str, Any] = {**PARAMS["schema"]}  # type: ignore[dict-item]
    assert asked() == "no_consent"  # which comes after
    schema["features"] = [*schema["features"], {"name": "c", "type": "number"}]
    assert asked() == "other_schema"
    assert asked(accept_schema=True, dry_run=True) == "no_consent"
    assert asked() == "other_schema"
    assert asked(accept_schema=True) == asked() == "no_consent"
    assert asked("another") == "other_schema"
