"""What opened values say, at each resolution and for each kind of label."""

import numpy as np
import pytest

from apps.protocol.circuits import CLASSES
from workers.client.buyer import meaning

BINARY = {"name": "malignant", "positive": "M"}
CLASSES_3 = {"name": "kind", "classes": ["a", "b", "c"]}
NUMBER = {"name": "days", "min": "0", "max": "50"}
COUNT = {"name": "visits", "min": "0", "max": "1000"}


def read(name, of, rows, label, f=0):
    return meaning(CLASSES[name].infer_id(of), np.array(rows), f, label)


@pytest.mark.parametrize(
    ("name", "of", "rows", "label", "texts"),
    [
        ("logistic", "label", [[0], [1]], BINARY, ("not M", "M")),
        ("logistic", "band", [[0], [4]], BINARY, ("0..0.2", "0.8..1")),
        ("logistic", "rounded", [[0], [37], [100]], BINARY, ("0", "0.37", "1")),
        ("multinomial", "label", [[2], [0]], CLASSES_3, ("c", "a")),
        ("multinomial", "band", [[0, 4, 0]], CLASSES_3, ("0..0.2 0.8..1 0..0.2",)),
        ("multinomial", "rounded", [[1, 97, 2]], CLASSES_3, ("0.01 0.97 0.02",)),
        ("linear", "band", [[0], [4]], NUMBER, ("0..10", "40..50")),
        ("linear", "rounded", [[0], [51]], NUMBER, ("0", "25.5")),
        ("poisson", "band", [[0], [3], [9]], COUNT, ("0..1", "5..10", "500..1000")),
        ("poisson", "rounded", [[7], [100], [190]], COUNT, ("7", "100", "1000")),
    ],
)
def test_steps_read_as_answers_on_the_labels_scale(name, of, rows, label, texts):
    said = read(name, of, rows, label)
    assert said.texts == texts and said.resolution == of and not said.logits and not said.scores
    shown = name == "logistic" and of == "rounded"
    assert said.probabilities == (tuple(a for (a,) in said.answers) if shown else ())


def test_a_logit_reads_as_its_probability():
    said = read("logistic", "logit", [[0], [2 << 16]], BINARY, f=16)
    assert said.logits == (0, 2) and said.texts == ("0.5000", "0.8808")
    assert said.probabilities == pytest.approx([0.5, 0.880797], abs=1e-6)
    assert read("linear", "logit", [[1 << 16]], NUMBER, f=16).answers == ((37.5,),)


@pytest.mark.parametrize(
    ("of", "step"), [("label", 2), ("label", -1), ("band", 5), ("rounded", 101)]
)
def test_a_step_that_does_not_exist_is_no_answer(of, step):
    with pytest.raises(IndexError):
        read("logistic", of, [[step]], BINARY)
