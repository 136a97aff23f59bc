"""Answers at each resolution: the same step on every engine, and nothing finer than the step."""

import numpy as np
import pytest

from apps.protocol.circuits import CIRCUITS, CLASSES, INFERS
from apps.protocol.circuits.resolution import BAND, EDGE_F, LABEL, LOGIT, RESOLUTIONS, ROUNDED
from apps.protocol.tickets import RESOLUTIONS as TICKET_RESOLUTIONS
from tests.support import ring, shamir
from workers.mpc.engines.plain import run_plain
from workers.mpc.fixed import encode

FEATURES, ROWS, CLASS_COUNT = 4, 8, 5
COARSE = [(model.name, of) for model, of in INFERS.values() if of != LOGIT]
ONE_SCORE = [(name, of) for name, of in COARSE if CLASSES[name].label != "classes"]
LINEAR = [name for name, model in CLASSES.items() if not model.hidden]
# how far classes' probabilities, computed on shares, may be off
CLASSES_OFF = 2e-5


def params_of(name, rows=ROWS):
    extras = {"classes": CLASS_COUNT} if CLASSES[name].extras else {}
    return {"features": FEATURES, "rows": rows, **extras}


def question(name, seed=1):
    """Words of a model and of rows, some of which no honest client sends."""
    rng = np.random.default_rng(seed)
    params = params_of(name)
    outputs = CLASSES[name].outputs(params)
    if CLASSES[name].hidden:
        flat = rng.normal(size=CLASSES[name].weights(params)) / 2
        weights = encode(flat, 24).astype(np.int64)
    else:
        weights = encode(rng.normal(size=(outputs, FEATURES + 1)), 24).astype(np.int64)
    rows = encode(rng.normal(size=(ROWS, FEATURES))).astype(np.int64)
    rows[0, :2], rows[1, 0], rows[2] = (2**62, -(2**62)), 2**61, 0
    return weights, rows, {"model": [weights.reshape(-1)], "row": [rows]}, params


def steps_of(name, of, values, params):
    outcome = run_plain(CIRCUITS[CLASSES[name].infer_id(of)], values, params)
    assert outcome.sealed.f == 0 and not outcome.openings and outcome.result is None
    return outcome.sealed.words[0].astype(np.int64)


def exact_scores(weights, rows):
    """Scores at f = 40, [k, o], in whole numbers of any size."""
    limit = 16 << 16
    inputs = [[max(-limit, min(limit, int(x))) for x in row] + [1 << 16] for row in rows]
    return [[sum(int(w) * x for w, x in zip(ws, row)) for ws in weights] for row in inputs]


@pytest.mark.parametrize(("name", "of"), COARSE)
def test_every_engine_gives_the_same_step(name, of):
    _, _, values, params = question(name)
    circuit = CIRCUITS[CLASSES[name].infer_id(of)]
    plain = steps_of(name, of, values, params)
    outcomes = ring.ring_threads(circuit, values, params)
    np.testing.assert_array_equal(ring.joined(outcomes, "sealed"), plain)
    outcomes = shamir.run_threads(circuit, values, params)
    np.testing.assert_array_equal(shamir.joined(outcomes, "sealed"), plain)


@pytest.mark.parametrize(("name", "of"), ONE_SCORE)
def test_a_step_is_how_many_edges_the_exact_score_has_reached(name, of):
    weights, rows, values, params = question(name)
    edges = np.round(CLASSES[name].scale.edges(of) * 2.0**EDGE_F).astype(np.int64)
    wanted = [
        sum(z >= int(edge) << (40 - EDGE_F) for edge in edges)
        for (z,) in exact_scores(weights, rows)
    ]
    assert steps_of(name, of, values, params).tolist() == wanted


@pytest.mark.parametrize(("name", "of"), ONE_SCORE)
def test_an_answer_turns_at_its_edge_and_one_unit_below_it_has_not(name, of):
    edges = np.round(CLASSES[name].scale.edges(of) * 2.0**EDGE_F).astype(np.int64)
    row = [np.zeros((1, FEATURES), np.int64)]
    for at in {0, len(edges) // 2, len(edges) - 1}:
        for below in (0, 1):
            intercept = (int(edges[at]) << (24 - EDGE_F)) - below
            values = {"model": [np.array([0] * FEATURES + [intercept])], "row": row}
            assert steps_of(name, of, values, params_of(name, 1)).tolist() == [at + 1 - below]


def test_the_label_of_equal_scores_is_the_first_and_else_that_of_the_highest():
    weights, rows, values, params = question("multinomial")
    wanted = [max(range(CLASS_COUNT), key=lambda c: z[c]) for z in exact_scores(weights, rows)]
    assert steps_of("multinomial", LABEL, values, params).tolist() == wanted
    values = {"model": [np.tile(weights[0], CLASS_COUNT)], "row": [rows]}
    assert not steps_of("multinomial", LABEL, values, params).any()


@pytest.mark.parametrize("of", [BAND, ROUNDED])
def test_probabilities_of_classes_are_cut_where_they_lie(of):
    weights, rows, values, params = question("multinomial")
    model = CLASSES["multinomial"]
    z = np.clip(np.array(exact_scores(weights, rows), float) / 2.0**40, -8, 8)
    chance = model.answer(z).reshape(-1)
    steps = steps_of("multinomial", of, values, params)
    edges = model.scale.edges(of)
    lowest, highest = (
        np.searchsorted(edges, chance + off, side="right") for off in (-CLASSES_OFF, CLASSES_OFF)
    )
    assert ((lowest <= steps) & (steps <= highest)).all() and len(set(steps.tolist())) > 3


@pytest.mark.parametrize("name", LINEAR)
def test_what_is_read_holds_the_exact_answer(name):
    """A band holds it, a rounded value is the nearest, a label is the likelier one."""
    weights, rows, values, params = question(name)
    model = CLASSES[name]
    z = np.array(exact_scores(weights, rows), float) / 2.0**40
    z = np.clip(z, -8, 8) if name == "multinomial" else z
    exact, scale = model.answer(z), model.scale
    within = np.clip(exact, scale.bands[0], scale.bands[-1])
    shape = (ROWS, -1)
    band = scale.read(BAND, steps_of(name, BAND, values, params).reshape(shape))
    low, high = band[:, ::2], band[:, 1::2]
    assert ((low <= within + 1e-4) & (within - 1e-4 <= high)).all()
    rounded = scale.read(ROUNDED, steps_of(name, ROUNDED, values, params).reshape(shape))
    nearest = np.abs(np.array(scale.grid) - within[..., None]).min(-1)
    assert (np.abs(rounded - within) <= nearest + 1e-4).all()
    if name == "logistic":
        label = scale.read(LABEL, steps_of(name, LABEL, values, params).reshape(shape))
        assert (label == (exact >= 0.5)).all()


def test_a_step_that_does_not_exist_is_refused():
    scale = CLASSES["logistic"].scale
    for of, step in ((BAND, 5), (ROUNDED, 101), (ROUNDED, -1)):
        with pytest.raises(IndexError):
            scale.read(of, np.array([[step]]))


def test_resolutions_have_one_name_in_circuits_and_tickets():
    assert TICKET_RESOLUTIONS == RESOLUTIONS
    assert {circuit.resolution for circuit in CIRCUITS.values()} == {None, *RESOLUTIONS}
    for name, circuit in CIRCUITS.items():
        assert (circuit.resolution is not None) == circuit.sealed == (name in INFERS)
