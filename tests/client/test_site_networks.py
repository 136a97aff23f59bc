"""What a site shares of a network: what its own steps changed, never longer than nodes take."""

import numpy as np
import pytest

from apps.protocol import descent
from apps.protocol.circuits import CLASSES
from apps.protocol.circuits.network_round import LENGTH_MAX
from tests.client.test_share_sums import agent
from workers.client import training
from workers.client.data import DataError

PARAMS = {"model_class": "mlp", "label": {"name": "grade", "classes": ["a", "b"]}, "hidden": [5]}


def site(folder, train=""):
    one = agent(folder, 40, train)
    table = one.table(PARAMS)
    table.labels = np.arange(40) % 2
    return one, table, np.random.default_rng(0).normal(size=(40, 2))


def test_a_site_shares_what_its_steps_changed_and_no_tooling_of_its_own(tmp_path):
    one, table, features = site(tmp_path, "C = 0.5")
    update = one._update(table, features, PARAMS)
    learnt = descent.learnt(features, np.eye(2)[table.labels], [5], 0.5)
    start = descent.public_start([2, 5, 2])
    wanted = np.concatenate([(b - a).reshape(-1) for a, b in zip(start, learnt, strict=True)])
    np.testing.assert_allclose(update, wanted)
    assert len(update) == CLASSES["mlp"].update({"features": 2, "classes": 2, "hidden_1": 5})
    one, table, features = site(tmp_path, 'update = "w.csv"')
    with pytest.raises(DataError, match="Take update out"):
        one._update(table, features, PARAMS)


def test_what_is_too_long_is_shortened_before_it_leaves(monkeypatch):
    far = [each + 1000 for each in descent.public_start([2, 5, 2])]
    monkeypatch.setattr(descent, "learnt", lambda *given: far)
    about = {"model": CLASSES["mlp"], "label": PARAMS["label"], "hidden": [5]}
    update = training.train(np.zeros((4, 2)), np.arange(4) % 2, c=1.0, **about)
    words = np.rint(update * 2**16)
    assert 0.99 * LENGTH_MAX < np.linalg.norm(words) / 2**16 <= LENGTH_MAX
    far[0][0, 0] = np.inf
    with pytest.raises(DataError, match="not finite"):
        training.train(np.zeros((4, 2)), np.arange(4) % 2, c=1.0, **about)
