"""Many rows of a query are computed in parts, and answered as if they had been in one."""

import numpy as np
import pytest

from apps.protocol.circuits import CIRCUITS, CLASSES
from apps.protocol.circuits.layout import MODEL_F
from tests.support.ring import joined, ring_threads, verified_threads
from workers.mpc.engines import running
from workers.mpc.engines.plain import run_plain
from workers.mpc.fixed import encode
from workers.mpc.workloads import wave

SIZES = {"features": 3, "rows": 7}
CASES = [
    ("logistic", "logit", {}),
    ("logistic", "band", {}),
    ("multinomial", "label", {"classes": 3}),
    ("mlp", "label", {"classes": 3, "hidden_1": 4}),
]


@pytest.mark.parametrize("run", [ring_threads, verified_threads])
@pytest.mark.parametrize(("name", "of", "extras"), CASES)
def test_rows_in_parts_are_answered_as_the_whole(monkeypatch, name, of, extras, run):
    monkeypatch.setattr(running, "ROWS_AT_ONCE", 3)
    model, params = CLASSES[name], SIZES | extras
    circuit = CIRCUITS[model.infer_id(of)]
    values = {
        "model": [encode(wave(model.weights(params)), MODEL_F).astype(np.int64)],
        "row": [encode(wave(7, 3) * 4).astype(np.int64)],
    }
    outcomes = run(circuit, values, params)
    wanted = run_plain(circuit, values, params).sealed.words[0].astype(np.int64)
    found = joined(outcomes, "sealed")
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= (4 if of == "logit" else 0)
    monkeypatch.setattr(running, "ROWS_AT_ONCE", 7)
    assert run(circuit, values, params)[0].rounds < outcomes[0].rounds
