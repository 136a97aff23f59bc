"""`demo --sites DIR --label COLUMN --compare` from the files to the bought answer: public data in
four uneven files, two columns of which are words (M-FL1, M-FL5), agents and buyers on real nodes,
and pooled training beside it.

The server is imitated; requests, votes and money are the story's whoever brings the rows.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from apps.protocol.encoding import width
from tests.support import public
from tests.support.bridge import SUBDAO, Bridge
from tests.support.nodes import NodeSet
from tests.support.trained import trained_at
from workers.client import oracle
from workers.client.agent import Agent
from workers.client.buyer import Buyer, rows_from_csv
from workers.client.home import Home
from workers.client.nodes import NotTrusted
from workers.demo.__main__ import parse, prepare_sites
from workers.demo.cast import State
from workers.demo.compare import compare


def test_files_of_ones_own_become_a_model_as_good_as_pooled_and_its_answers(
    three_nodes: NodeSet, tmp_path: Path
) -> None:
    public.write("breast_cancer", tmp_path / "files")
    given = ["--sites", str(tmp_path / "files"), "--label", public.LABEL, "--compare"]
    options = parse(["--url", "http://unused", "--home", str(tmp_path / "demo"), *given])
    prepare_sites(options, State(tmp_path / "demo" / "state.json"))
    root = tmp_path / "demo" / "sites"
    about = json.loads((root / "sites.json").read_text())
    kinds = {f["name"]: f["type"] for f in about["features"] if "type" in f}
    assert kinds == {"mean_texture": "category", "worst_concave_points": "boolean"}
    bridge, agents, _ = trained_at(three_nodes, root)
    numbers = len(about["features"]) - len(kinds)
    assert len(bridge.openings["sums"]) == 1 + 2 * numbers  # of levels nothing is opened
    assert bridge.normalisation["mean"][numbers:] == [0, 0, 0]
    bridge.compute_round()

    keys = {agent.home.identity_hex(): slug for slug, agent in agents.items()}
    custodians = [m["key"] for m in bridge.roster["members"] if m["role"] == "custodian"]
    phi = dict(zip([keys[key] for key in custodians], bridge.openings["phi_milli"], strict=True))
    assert set(phi) == {f"site-{name}" for name in public.PARTS} and max(phi.values()) == 1000
    beside = compare(root, frozenset(oracle.flagged({k: v / 1000 for k, v in phi.items()})))
    assert beside["auc_pooled"] is not None and beside["auc_pooled"] > 0.98
    assert abs(bridge.openings["auc_milli"] / 1000 - beside["auc_pooled"]) <= 0.01

    homes = [agents[keys[key]].home for key in custodians]
    updates = [oracle.own_update(home, bridge.round_id) for home in homes]
    model = oracle.model_of(updates, bridge.openings["phi_milli"])
    for buyer in about["buyers"]:
        home = Home(root / buyer["slug"])
        home.pin_nodes(bridge.nodes.fingerprints)
        rows = rows_from_csv(home.path / "patients.csv", about["features"])
        answer = Buyer(home, SUBDAO, api=bridge.api()).predict(rows)
        expected = oracle.predictions(model, rows, bridge.spec["features"], bridge.normalisation)
        assert len(rows) > 1 and np.abs(np.array(answer.probabilities) - expected).max() < 0.001

    # how many rows have a level is nothing that sites add up, whatever the round asks for or the
    # SubDAO calls the column
    bridge.stage = bridge.phase = "moments"
    trial = Agent(homes[0], "custodian", say=str, api=bridge.api())
    trial.dry_run = True
    where = {"subdao": SUBDAO, "round_id": bridge.round_id}
    assert trial.normalise(**where) == {"dry_run": True}
    bridge.schema["features"] = [
        feature | {"type": "number"} if feature.get("type") == "boolean" else feature
        for feature in bridge.spec["features"]
    ]
    for step in (trial.normalise, trial.train):
        with pytest.raises(NotTrusted, match=r"“worst_concave_points, a number”.*--accept-schema"):
            step(**where)
    bridge.schema["features"] = bridge.spec["features"]
    bridge.changes = {"ticket": asking_sums_of(bridge, width(bridge.spec["features"]))}
    with pytest.raises(NotTrusted) as refused:
        trial.normalise(**where)
    assert refused.value.code == "bad_params"


def asking_sums_of(bridge: Bridge, columns: int) -> dict[str, Any]:
    ticket = bridge.round()["ticket"]
    sums = ticket["slots"]["sums"]
    shapes = {key: [1 + 2 * columns] for key in sums["shapes"]}
    slots = {"sums": sums | {"shapes": shapes}}
    return ticket | {"params": {"features": columns}, "slots": slots}
