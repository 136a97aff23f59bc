"""Steps on shared rows on the running stack: the story's SubDAO votes for `secure_sgd`, its
custodians consent, a version is made from zero and another one from that, with a hospital that came
later; a site takes its rows back in between. What the nodes make is what the equations make of the
same files.
"""

from __future__ import annotations

import json
import secrets
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer

from apps.protocol.contribution import phi_from_utilities
from apps.protocol.descent import Descent, descend, scores_of
from tests.support.corpora import everything_in, rows_of_every_table
from tests.support.needles import Needles, assert_clean
from tests.support.stage import PATIENCE_S, Json, Stage
from workers.client import data, training
from workers.client.agent import Agent
from workers.client.api import ClientError, wait_for
from workers.client.buyer import Buyer, rows_from_csv, sigmoid
from workers.client.home import Home
from workers.client.verify import verify_server
from workers.node import home as homes
from workers.node.store import Store, StoredShare

SCHEDULE = {
    "epochs": 12,
    "steps": 4,
    "rate_ppm": 400_000,
    "momentum_ppm": 800_000,
    "l2_ppm": 1_000,
    "patience": 1,
    "curve": 1,
}
NEW, NODES, ASKED = "hospital-linden", 3, 3


class Sharing(Stage):
    """A stage whose custodians share rows."""

    def train_on_rows(self, start: str) -> str:
        """The members vote for steps on shared rows, from zero or from what serves."""
        chosen = {"kind": "secure_sgd", "schedule": SCHEDULE}
        chosen |= {"start": start} if start == "zero" else {}
        return self.proposed("subdaos.set_training", {"training": chosen})

    def share(self, keys: list[str], step: str, round_id: str) -> None:
        custodians = [key for key in keys if self.roles[key] == "custodian"]
        self.all_act(custodians, step, round_id, share_rows=True)
        self.all_act([key for key in keys if key not in custodians], step, round_id)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.params = self.api.get(f"subdaos/{self.dao}/")["params"]
        self.tables = {key: self.table(key) for key in self.homes}

    def table(self, key: str) -> data.Table:
        agent = Agent(self.homes[key], self.roles[key], say=lambda _: None, api=self.api)
        return agent.table(self.params)

    def rows(self, key: str, normalisation: Json) -> tuple[np.ndarray, np.ndarray]:
        """What a site shares: (standardised features, labels [n, 1]), in the order it has there."""
        table = self.tables[key]
        mean, std = training.constants(normalisation)
        custodian = self.roles[key] == "custodian"
        order = data.row_order(table.labels, None if custodian else table.strata)
        x = training.standardise(table.features, mean, std)
        return x[order], table.labels[order, None].astype(float)

    def in_the_clear(self, normalisation: Json, before: Descent | None = None) -> Descent:
        """The same round in real numbers."""
        holdouts = [self.rows(key, normalisation) for key in self.validators]
        return descend(
            [self.rows(key, normalisation) for key in self.custodians],
            [(x[::2], y[::2]) for x, y in holdouts],
            SCHEDULE,
            kind="logistic",
            start=before and before.layers,
        )

    def done(self, round_id: str) -> Json:
        """The round's end; the members vote for its version at once, before voting is over."""
        over = self.until(
            round_id,
            lambda r: r["phase"] == "done" and r["version"]["proposal"],
            "the round's end",
        )
        self.vote_for(over["version"]["proposal"])
        return over

    def accepted(self, over: Json) -> None:
        """Waits until queries are answered by the round's version."""
        self.executed(over["version"]["proposal"])
        number, listing = over["version"]["number"], self.steps["listing"]
        wait_for(
            lambda: self.api.get(f"listings/{listing}/")["version"] == number,
            deadline_s=PATIENCE_S,
            what="the listing",
        )

    def another_custodian(self, folder: Path) -> str:
        """A hospital that had no part in the story, with the buyers' patients, whose diagnoses are
        known by now. It files its attestation; the sites exchange their keys. Returns its filing's
        id."""
        known, columns, label = load_breast_cancer(), self.about["columns"], self.about["label"]
        lines = [",".join([*columns, label])]
        for buyer in self.about["buyers"]:
            for row in rows_from_csv(self.home_of(buyer["slug"]).path / "patients.csv", columns):
                (place,) = np.flatnonzero((known.data == row).all(axis=1))
                lines.append(",".join([*map(str, row), str(1 - known.target[place])]))
        folder.mkdir(mode=0o700)
        (folder / "agent.toml").write_text(f'data = "rows.csv"\nlabel = "{label}"\n')
        (folder / "rows.csv").write_text("\n".join(lines) + "\n")
        home = Home(folder)
        made = {"email": f"{NEW}@example.org", "name": "Hospital Linden", "kind": "organisation"}
        made["password"] = secrets.token_urlsafe(20)
        home.connect(url=self.url, api_key=self.api.post("accounts/", made)["api_key"])
        home.pin_nodes(self.homes[self.custodians[0]].pinned_nodes() or [])
        lines: list[str] = []
        filed = Agent(home, "custodian", say=lines.append).attest(self.steps["rfm"]["slug"])
        assert f"the {len(self.about['columns'])} that are numbers alone" in lines[-2]
        self.homes[NEW], self.roles[NEW] = home, "custodian"
        self.slugs[NEW], self.tables[NEW] = filed["party"]["slug"], self.table(NEW)
        keys = sorted(each.identity_hex() for each in self.homes.values())
        for each in self.homes.values():
            each.pin_peers(keys)
        return str(filed["id"])

    def held(self, node: int, share_id: str) -> StoredShare | None:
        """What a node has of a share."""
        home = self.home / "nodes" / str(node)
        store = Store(home / "store.sqlite", homes.load(home).store_key)
        found = store.share(share_id)
        store.close()
        return found

    def needles(self, normalisation: Json) -> Needles:
        """All rows of all sites, in their units and standardised."""
        found = Needles()
        for key in self.homes:
            for number, row in enumerate(self.tables[key].features):
                found.vector(f"{key} row {number}", row)
            for number, row in enumerate(self.rows(key, normalisation)[0]):
                found.vector(f"{key} standardised row {number}", row)
        return found


def phi_of(stage: Sharing, over: Json) -> list[int]:
    """Opened φ of the custodians, in their order here."""
    told = {row["party"]["slug"]: row["phi_milli"] for row in over["scores"]}
    return [told[stage.slugs[key]] for key in stage.custodians]


def follows(stage: Sharing, over: Json, clear: Descent) -> None:
    """φ, when training ended and how far it came are what the equations say, and it is evidence of
    a model as good as the request wants."""
    assert phi_of(stage, over) == pytest.approx(1000 * phi_from_utilities(clear.utilities), abs=5)
    told = over["evidence"]["training"]
    # the validators' loss fell no more: they ended it long before the last epoch
    assert told["improved"] == clear.improved and told["improved"][-1] == 0
    assert len(told["improved"]) < SCHEDULE["epochs"]
    # loss on shares is a polynomial, off by 0.0103 at most at each end
    assert told["curve_milli"] == pytest.approx([1000 * gain for gain in clear.gains], abs=21)
    assert all(gate["met"] for gate in over["evidence"]["gates"])
    assert over["evidence"]["auc_milli"] >= 950


@pytest.mark.slow
def test_sites_share_rows_by_consent_and_a_version_goes_on_from_another(
    played: Any, stack: Any, tmp_path: Path
) -> None:
    stage = Sharing(stack[0], played[2], stack[1])
    recorded = played[2].parent / "recorded"
    logs = played[2] / "logs"
    before = {file: file.stat().st_size for file in (*recorded.iterdir(), *logs.iterdir())}
    flipped = json.loads((played[2] / "demo" / "sites-record.json").read_text())["flipped"]

    # The first round, from zero: nothing leaves without consent, and consent is signed
    stage.executed(stage.train_on_rows("zero"))
    first = stage.opened()
    with pytest.raises(ClientError, match="--share-rows"):
        stage.act(stage.custodians[0], "normalise", first)
    stage.share(list(stage.roles), "normalise", first)
    made = stage.until(first, lambda r: r["phase"] == "updates", "the normalisation")
    assert made["training"] == "secure_sgd" and made["start"] is None
    stage.share(list(stage.roles), "train", first)
    made = stage.done(first)
    clear = stage.in_the_clear(made["normalisation"])
    follows(stage, made, clear)
    phi = dict(zip(stage.custodians, phi_of(stage, made), strict=True))
    assert phi[flipped] == 0 and min(phi[key] for key in phi if key != flipped) > 100

    # It is accepted; a hospital joins, and what the members voted for opens a round with it
    onward = stage.train_on_rows("serving")
    stage.accepted(made)
    filed = stage.another_custodian(tmp_path / NEW)
    stage.executed(onward)
    stage.executed(stage.proposed("participants.whitelist", {"applications": [filed]}))
    second = stage.current("normalising")
    begun = stage.round(second)
    assert begun["start"] == {
        "version": made["version"]["number"],
        "model": made["version"]["model"],
    }
    stage.share(list(stage.roles), "normalise", second)
    stage.until(second, lambda r: r["phase"] == "updates", "the numbers of rows")

    # One takes its rows back, and no node has them any more; the others' are in no store in the
    # clear
    wary, *others = stage.custodians
    ended = stage.process(wary, "train", second, "--share-rows")
    stage.share(others[1:], "train", second)
    said, _ = ended.communicate(timeout=PATIENCE_S)
    assert ended.returncode == 0 and "THESE ARE ROWS" in said, said
    share_id = stage.homes[wary].journal.last("delivered", round=second)["share_id"]
    needles = stage.needles(made["normalisation"])
    words = []
    for node in range(NODES):
        found = stage.held(node, share_id)
        assert found is not None and found.words is not None
        words += [word.tobytes() for word in found.words]
        store = everything_in(stage.home / "nodes" / str(node))
        assert all(word.tobytes() in store for word in found.words)
        assert_clean(needles, f"node {node}", store)
    said_last = stage.act(wary, "withdraw", second)[-1]
    assert said_last == f"Withdrawn: {NODES} nodes signed that they hold nothing of it."
    for node in range(NODES):
        found = stage.held(node, share_id)
        assert found is not None and found.words is None
        store = everything_in(stage.home / "nodes" / str(node))
        assert store and not any(word in store for word in words)
    waits = {party["slug"] for party in stage.round(second)["waits_for"]}
    assert stage.slugs[wary] in waits

    # On second thoughts it shares them again, as another share; the round ends
    stage.share([wary, others[0], *stage.validators], "train", second)
    over = stage.done(second)
    went_on = stage.in_the_clear(made["normalisation"], clear)
    follows(stage, over, went_on)
    stage.accepted(over)

    # A buyer is answered by it, as by the equations
    home = stage.home_of("research-group-oak")
    buyer = Buyer(home, stage.steps["listing"])
    asked = rows_from_csv(home.path / "patients.csv", buyer.columns)[:ASKED]
    standard = training.standardise(np.array(asked), *training.constants(over["normalisation"]))
    wanted = [sigmoid(score) for score in scores_of(went_on.layers, standard)[:, 0]]
    assert buyer.predict(asked).probabilities == pytest.approx(wanted, abs=0.01)

    # The log has each consent and what was taken back; it checks
    counted = Counter(leaf["type"] for leaf in stage.leaves(second))
    assert counted["training.rows_consented"] == len(stage.custodians)
    assert counted["training.share_withdrawn"] == counted["training.round_done"] == 1
    report = verify_server(stage.url, sets=[stage.homes[wary].pinned_nodes()])
    assert report.ok, [check.text for check in report.checks if not check.ok]

    # Nothing is left of any row at the nodes, and none is in the clear in tables, logs, requests
    for node in range(NODES):
        sent = [row["share_id"] for row in over["submissions"]]
        assert all(not (held := stage.held(node, one)) or held.words is None for one in sent)
    tables = rows_of_every_table(stage.database)
    assert_clean(needles, "tables", b"\n".join(tables.values()))
    traffic, said = (
        b"\n".join(file.read_bytes()[before.get(file, 0) :] for file in sorted(place.iterdir()))
        for place in (recorded, logs)
    )
    assert_clean(needles, "logs", said)
    assert f"/rounds/{second}/shares/{share_id}/".encode() in traffic
    assert_clean(needles, "HTTP", traffic)
