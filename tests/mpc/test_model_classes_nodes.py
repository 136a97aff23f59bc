"""Every model class on every three of three, four and five nodes, against the clear."""

import numpy as np
import pytest

from apps.protocol.circuits import CIRCUITS, CLASSES
from tests.mpc.test_model_classes import CLASS_COUNT, FEATURES, NEW, agree, federation
from tests.mpc.test_ring_nodes import every_triple, groups
from tests.support.ring import group_threads
from workers.mpc import replicated
from workers.mpc.engines.plain import run_plain
from workers.mpc.fixed import encode
from workers.mpc.keeping import Group
from workers.mpc.transport import LocalMesh


@pytest.mark.parametrize("name", NEW)
@every_triple
def test_a_round_agrees_with_plain_and_all_who_are_there_keep_its_model(name, n, computing):
    *_, values, params = federation(name, "taylor", rows=(24, 20))
    circuit = CIRCUITS[CLASSES[name].round_id]
    plain = run_plain(circuit, values, params)
    assert not plain.openings["void"]
    group = groups(n, computing)[-1]  # with all others holding
    answers = group_threads(circuit, values, params, group, LocalMesh(n).transports)
    opened = [answers[node][0].openings for node in computing]
    assert opened[0] == opened[1] == opened[2]
    agree(opened[0], plain.openings)
    words = {}
    for node in range(n):
        kept = answers[node][1]
        assert set(kept.words) == set(range(n)) - {node}
        for j, word in kept.words.items():
            np.testing.assert_array_equal(words.setdefault(j, word), word)
    difference = replicated.join(words) - plain.result.words[0].reshape(words[0].shape)
    # φ may differ by its last thousandth: then the weights do by as much of an update
    assert np.max(np.abs(difference.astype(np.int64))) / 2**24 <= 2e-3


@pytest.mark.parametrize("name", NEW)
@every_triple
def test_a_query_agrees_with_plain_at_the_bounds(name, n, computing):
    model = CLASSES[name]
    extras = {"classes": CLASS_COUNT} if model.extras else {}
    params = {"features": FEATURES, "rows": 3, **extras}
    rng = np.random.default_rng(1)
    weights = rng.normal(size=(model.outputs(params), FEATURES + 1))
    row = encode(rng.normal(size=(3, FEATURES))).astype(np.int64).reshape(-1)
    row[:3] = [2**62, -(2**62), 2**61]
    values = {
        "model": [encode(weights.reshape(-1), 24).astype(np.int64)],
        "row": [row.reshape(3, FEATURES)],
    }
    circuit = CIRCUITS[model.infer_id("logit")]
    answers = group_threads(circuit, values, params, Group(n, computing), LocalMesh(n).transports)
    roles = {}
    for role, node in enumerate(computing):
        for j, word in zip(replicated.held_by(role), answers[node][0].sealed, strict=True):
            np.testing.assert_array_equal(roles.setdefault(j, word), word)
    plain = run_plain(circuit, values, params).sealed.words[0]
    assert np.max(np.abs((replicated.join(roles) - plain).astype(np.int64))) <= 1
