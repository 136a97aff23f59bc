"""A circuit's words stay in range whatever its inputs are, or it does not run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.protocol.circuits import CIRCUITS, CLASSES, INFERS
from apps.protocol.circuits.declare import Outcome
from apps.protocol.circuits.descent import SCHEDULE, defaults_of
from apps.protocol.circuits.family import FEATURES_MAX, MEMBERS_MAX, ROWS_MAX, STRATA_MAX
from apps.protocol.circuits.games import EXACT_MAX, SHAPLEY_MAX
from apps.protocol.circuits.least_squares import FEATURES_MAX as SOLVED_MAX
from apps.protocol.circuits.moments import FINE_MAX
from apps.protocol.circuits.network import FINE_UNITS_MAX, UNITS_MAX
from apps.protocol.circuits.noise import SIZE_MAX
from apps.protocol.circuits.regression import squared_sums
from apps.protocol.circuits.scoring import clipped, lengths
from workers.mpc.engines.bounds import Bounds, LeavesTheWord, Range
from workers.mpc.engines.plain import Plain, Shared, as_words, run_plain, signed
from workers.mpc.proving import prove, proved
from workers.node import policy
from workers.node.errors import Refused

NORMALISED = {"normalisation": "0" * 64}
QUERY = {"features": 2, "rows": 2}
LOGIT = CIRCUITS["logistic_infer@1"]


def extremes(circuit_id: str) -> list[tuple[dict[str, Any], dict[str, int]]]:
    """(params, inputs of each slot): the largest and the smallest that the circuit takes, and what
    lies between where that is a case of its own."""
    if circuit_id == "moments@1":
        both = {"features": 2, "limits": [FINE_MAX, FINE_MAX + 1]}
        most = ({"features": FEATURES_MAX}, {"sums": MEMBERS_MAX})
        return [most, (both, {"sums": 3}), ({"features": 1}, {})]
    kind = circuit_id.partition("@")[0].removesuffix("_on")
    for model in CLASSES.values():
        small, large = ({k: v[at] for k, v in model.extras.items()} for at in (0, 1))
        few, most = (
            dict(zip(model.unit_names, units)) for units in ((1, 1), (FINE_UNITS_MAX, UNITS_MAX))
        )
        if circuit_id in map(model.infer_id, model.resolutions):
            sizes = ((1, small | few), (FEATURES_MAX, large | most))
            return [({"features": d, "rows": d, **extras}, {}) for d, extras in sizes]
        if kind not in (f"{model.name}_round", f"{model.name}_sgd"):
            continue
        small = {"features": 1, "strata": 0, "rows": [2], "min_cell": 3, **small}
        large = {"features": FEATURES_MAX, "strata": STRATA_MAX, "min_cell": 3, **large}
        one, judged = {"rows": [ROWS_MAX]}, {"rows": [600, *[300] * 8, 1000], "weights": [1] * 10}
        if kind == f"{model.name}_round":
            large["features"] = SOLVED_MAX if model.sums else FEATURES_MAX
            first = {"scoring": model.scorings[0]}
            found = [
                ({**small, **first}, {"update": 3}),
                ({**large, **most, **judged, **first}, {"update": MEMBERS_MAX, "holdout": 10}),
            ]
            for scoring in model.scorings:
                sites = SHAPLEY_MAX if scoring == "shapley" else MEMBERS_MAX
                if model.sums and scoring == "shapley":  # of 32 the circuit's own table takes 0.5 s
                    sites = EXACT_MAX + 1
                found.append(({**large, **most, **one, "scoring": scoring}, {"update": sites}))
            if model.noises:
                per = model.weights({**large, "features": 0})
                noisy = {"features": min(large["features"], SIZE_MAX // per - 1)}
                noisy |= {"clip_milli": 64_000, "rho_micro": 1, **first}
                found.append(({**large, **one, **noisy}, {"update": MEMBERS_MAX}))
            return found
        more = NORMALISED if circuit_id == model.sgd_on_id else {}
        rows = 1000
        if model.hidden:  # with these units as many weights and rows as steps take
            large["features"], rows = 750, 256
        slowest, fastest = ({k: v[at] for k, v in SCHEDULE.items()} for at in (0, 1))
        three, largest = {"site_rows": [200] * 3}, {"site_rows": [rows] * 16}
        return [
            ({**small, **few, **slowest, **three, **more}, {"rows": 3}),
            ({**large, **most, **one, **fastest, **largest, **more}, {"rows": 16}),
            # weights go far between two cuts only where steps are small, and rows are few
            ({**small, **fastest, "rate_ppm": 5, **three, **more}, {"rows": 3}),
            (
                {**large, **judged, **defaults_of(model), **three, **more},
                {"rows": 3, "holdout": 10},
            ),
        ]
    raise AssertionError(f"{circuit_id} has no parameters here")


@pytest.mark.parametrize("circuit_id", CIRCUITS)
def test_every_circuit_is_proved_at_its_largest_and_its_smallest(circuit_id: str) -> None:
    for params, counts in extremes(circuit_id):
        prove(CIRCUITS[circuit_id], params, counts)


# ---- intervals hold what the oracle computes -----------------------------------------------------

SHAPE = (2, 3)
TABLE = np.array([[3, -1], [-2, 5]])
CONSTANT = np.array([[7, -(1 << 20), 0], [1 << 40, -3, 12]])


def _six(ops: Any, a: Any) -> Any:
    return ops.reshape(ops.broadcast(ops.reshape(a, (1, -1)), (6 // a.shape[0], a.shape[0])), SHAPE)


OPERATIONS: list[Callable[[Any, Any, Any], Any]] = [
    lambda ops, a, b: ops.add(a, b),
    lambda ops, a, b: ops.sub(ops.neg(a), b),
    lambda ops, a, b: ops.add_public(a, CONSTANT),
    lambda ops, a, b: ops.scale(a, CONSTANT, f=3),
    lambda ops, a, b: ops.combine(a, TABLE, f=2),
    lambda ops, a, b: ops.combine(ops.broadcast(ops.index(a, 0), SHAPE), TABLE, f=0),
    lambda ops, a, b: ops.weighted_sum([a, a], [3, -7]),
    lambda ops, a, b: ops.trunc(ops.halve(a, 3), 4),
    lambda ops, a, b: ops.broadcast(ops.sum(ops.concat([a, a], axis=0), 0), SHAPE),
    lambda ops, a, b: ops.reshape(ops.transpose(a), SHAPE),
    lambda ops, a, b: ops.index(ops.stack([a, ops.neg(a)], axis=1), np.s_[:, 1, ::-1]),
    lambda ops, a, b: ops.index(a, (np.array([[1], [0]]), np.array([2, 0, 0]))),
    lambda ops, a, b: ops.index(ops.broadcast(a, (4, *SHAPE)), np.s_[..., 3, :, :]),
    lambda ops, a, b: ops.index(ops.broadcast(a, (4, *SHAPE)), np.s_[[2, 0], 1]),
    lambda ops, a, b: ops.index(ops.index(a, np.s_[:, None, 1:]), np.s_[:, 0, [0, 1, 1]]),
    lambda ops, a, b: ops.mul(a, b),
    lambda ops, a, b: ops.mul(a, a),
    lambda ops, a, b: ops.broadcast(ops.reshape(ops.dot(a, b), (2, 1)), SHAPE),
    lambda ops, a, b: ops.matmul(ops.matmul(a, ops.transpose(b)), a),
    lambda ops, a, b: ops.select(ops.ltz(a), a, b),
    lambda ops, a, b: ops.lift(ops.less_than(a, b), 16),
    lambda ops, a, b: ops.mul(ops.bit(a), b),
    lambda ops, a, b: ops.clamp(a, -5 << 16, 1 << 20),
    lambda ops, a, b: ops.relu(a),
    lambda ops, a, b: ops.broadcast(ops.max(a), SHAPE),
    lambda ops, a, b: ops.reshape(ops.sort(ops.reshape(a, (6,))), SHAPE),
    lambda ops, a, b: _six(ops, ops.median(ops.reshape(a, (6,)))),
    lambda ops, a, b: _six(ops, ops.median(ops.index(a, 0))),
    lambda ops, a, b: ops.sigmoid(a),
    lambda ops, a, b: ops.sigmoid_hard(a),
    lambda ops, a, b: ops.sigmoid_accurate(a),
    lambda ops, a, b: ops.lift(ops.floor(ops.mul(a, a), bits=20), 16),
    lambda ops, a, b: ops.reciprocal(ops.relu(a), f=20, bits=40, low_bits=4),
    lambda ops, a, b: ops.rsqrt(ops.relu(a), f=20, bits=40),
    lambda ops, a, b: ops.sqrt(ops.relu(a), f=16, bits=40),
    lambda ops, a, b: ops.log(ops.relu(a), f=20, bits=40),
    lambda ops, a, b: ops.exp(a, f=20),
    lambda ops, a, b: _six(
        ops, ops.ratio_of_max(ops.relu(ops.reshape(a, (6,))), bits=50, low_bits=3, f=20)
    ),
]


@settings(max_examples=150)
@given(st.data())
def test_what_plain_computes_is_within_the_bounds(data: st.DataObject) -> None:
    """And where the bounds see no way out of the word there is none."""
    plain, bounds = Plain(), Bounds()
    bits = data.draw(st.integers(1, 62))
    element = st.integers(-(1 << bits), 1 << bits)
    known: Any = []
    for _ in range(2):
        values = np.array(data.draw(st.lists(element, min_size=6, max_size=6))).reshape(SHAPE)
        wider = 1 << data.draw(st.integers(0, 40))
        thin = data.draw(st.sampled_from([None, (0, 1), (0,), (1,)]))
        low, high = (values - wider).astype(float), (values + wider).astype(float)
        if thin is not None:
            low, high = low.min(axis=thin, keepdims=True), high.max(axis=thin, keepdims=True)
        ends = np.nextafter(low, -np.inf), np.nextafter(high, np.inf)
        known.append((Shared((as_words(values),), 16), Range(ends, SHAPE, 16)))
    for operation in data.draw(st.lists(st.sampled_from(OPERATIONS), max_size=6)):
        (a, ranged_a), (b, ranged_b) = known[-1], known[-2]
        try:
            ranged = operation(bounds, ranged_a, ranged_b)
            ranged = bounds.trunc(ranged, min(ranged.f, 16)) if ranged.f > 24 else ranged
            low, high = ranged.low, ranged.high
        except LeavesTheWord:
            return
        if max(np.abs(low).max(), np.abs(high).max()) > 2.0**62:
            return  # an integer that no word need hold
        with np.errstate(over="ignore"):
            found = operation(plain, a, b)
            found = plain.trunc(found, min(found.f, 16)) if found.f > 24 else found
        assert (found.shape, found.f) == (ranged.shape, ranged.f) == (SHAPE, found.f)
        values = signed(found)
        for end, word in zip(np.broadcast_to(low, SHAPE).flat, values.flat):
            assert end <= int(word)
        for end, word in zip(np.broadcast_to(high, SHAPE).flat, values.flat):
            assert int(word) <= end
        known.append((found, ranged))


class Both:
    """The language on what a circuit computes and on what is proved of it, at once."""

    def __init__(self) -> None:
        self.plain, self.bounds, self.compared = Plain(), Bounds(self._shown), 0
        self._opened: Any = None

    def _shown(self, least: Any, most: Any) -> Any:
        assert (least <= self._opened).all() and (self._opened <= most).all()
        return self._opened

    def __getattr__(self, name: str) -> Any:
        def operation(*arguments: Any, **named: Any) -> Any:
            values = getattr(self.plain, name)(*_side(arguments, 0), **named)
            self._opened = values
            ranged = getattr(self.bounds, name)(*_side(arguments, 1), **named)
            if name in ("open", "open_rounded"):
                return values
            assert (values.shape, values.f) == (ranged.shape, ranged.f)
            low, high = (np.broadcast_to(end, values.shape) for end in ranged.ends)
            if values.words[0].size and max(-low.min(), high.max()) < 2.0**62:
                assert (low <= signed(values)).all() and (signed(values) <= high).all(), name
                self.compared += 1
            return Known(values, ranged)

        return operation


@dataclass
class Known:
    values: Any
    ranged: Any

    @property
    def shape(self) -> Any:
        return self.values.shape

    @property
    def f(self) -> Any:
        return self.values.f


def _side(value: Any, at: int) -> Any:
    if isinstance(value, Known):
        return (value.values, value.ranged)[at]
    return type(value)(_side(x, at) for x in value) if type(value) in (list, tuple) else value


@pytest.mark.parametrize("name", CLASSES)
def test_every_step_of_a_round_is_within_the_bounds(name: str) -> None:
    """Of rows and updates of any words as well as of tame ones, with what was really opened."""
    model, rng = CLASSES[name], np.random.default_rng(3)
    params = {"features": 3, "strata": 1, "rows": [40, 36], "min_cell": 3, "scoring": "taylor"}
    params |= {extra: least for extra, (least, _) in model.extras.items()}
    circuit, ops = CIRCUITS[model.round_id], Both()
    secrets: dict[str, list[Any]] = {}
    for slot_name, count in (("update", 4), ("holdout", 2)):
        slot, secrets[slot_name] = circuit.slots[slot_name], []
        for at in range(count):
            shape = slot.shape(params, at)
            words = (rng.normal(size=shape) * 2**16).astype(np.int64)
            if at == 1:
                words = rng.integers(-(2**63), 2**63 - 1, shape)
            ranged = ops.bounds.any_words(shape, slot.f)
            secrets[slot_name].append(Known(Shared((as_words(words),), slot.f), ranged))
    with np.errstate(over="ignore"):
        circuit.run(ops, secrets, params)  # type: ignore[arg-type]
    assert ops.compared > 100


# ---- what is not proved does not run -------------------------------------------------------------


def squaring(limit: int) -> Any:
    """A query that squares what it cuts to ±limit."""

    def run(ops: Any, secrets: Any, params: Any) -> Outcome:
        cut = ops.clamp(secrets["row"][0], -limit, limit)
        return Outcome(sealed=ops.mul(cut, cut, f=16))

    return replace(LOGIT, run=run)


def test_a_circuit_that_leaves_the_word_only_at_its_bound_is_refused() -> None:
    """Which no input but one in 2^31 would show."""
    prove(squaring((1 << 31) - 1), QUERY, {})
    with pytest.raises(LeavesTheWord, match=r"mul at test_bounds\.py:\d+ is not .* under 2\^62"):
        prove(squaring(1 << 31), QUERY, {})
    inputs = {"model": [np.zeros(3, np.int64)], "row": [np.full((2, 2), 1 << 20)]}
    run_plain(squaring(1 << 31), inputs, QUERY)


class Loose:
    """A language whose clamp is left out."""

    def __init__(self, ops: Any) -> None:
        self._ops = ops

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ops, name)

    def clamp(self, a: Any, low: int, high: int) -> Any:
        return a


def test_a_missing_clamp_is_refused_at_the_engine_and_at_a_node(monkeypatch: Any) -> None:
    for circuit_id in INFERS:
        circuit = CIRCUITS[circuit_id]
        loose: Any = replace(circuit, run=lambda ops, s, p, c=circuit: c.run(Loose(ops), s, p))
        with pytest.raises(LeavesTheWord, match=r" at \w+\.py:\d+ is not proved"):
            prove(loose, extremes(circuit_id)[1][0], {})
    monkeypatch.setitem(CIRCUITS, "loose@1", replace(loose, name="loose"))
    job = {"circuit": "loose@1", "inputs": {"row": ["a"]}}
    for _ in range(2):  # the second time from memory
        with pytest.raises(Refused) as refused:
            policy.stays_in_the_word(job, QUERY)
        assert refused.value.code == "not_proved"
    # what does not fit the circuit is refused by the policy's own rules
    policy.stays_in_the_word(job, {"features": 0})
    policy.stays_in_the_word({**job, "circuit": "none@1"}, QUERY)


def test_a_query_is_proved_once_for_all_numbers_of_rows(monkeypatch: Any) -> None:
    proved(LOGIT.id, {**QUERY, **NORMALISED}, {"row": 1})
    monkeypatch.setattr("workers.mpc.proving._prove", lambda *_: pytest.fail("proved again"))
    proved(LOGIT.id, {**QUERY, "rows": 700, "normalisation": "1" * 64}, {"row": 1})


def test_what_a_circuit_declares_proves_what_was_truncated_and_nothing_else() -> None:
    ops: Any = Bounds()
    a = ops.any_words((3,), 16, 1 << 40)
    large = ops.mul(a, a)
    with pytest.raises(LeavesTheWord, match="mul at test_bounds"):
        ops.add(large, a)
    with pytest.raises(LeavesTheWord, match="mul at test_bounds"):
        ops.within(large, 0, 1 << 46)
    assert ops.within(large, 0, 1 << 40).high.max() == 2.0**40
    plain = Plain()
    five = plain.public([5, -5], 0)
    assert plain.within(five, -5, 5) is five
    with pytest.raises(OverflowError, match="declares"):
        plain.within(five, -4, 5)


def test_openings_and_arguments_are_signed_numbers_in_their_bits() -> None:
    ops: Any = Bounds()
    word, small = ops.any_words((2,), 0), ops.any_words((2,), 0, 7)
    for say, run in {
        "ltz": lambda: ops.ltz(ops.add(word, word)),
        "open": lambda: ops.open(ops.add(word, word)),
        "open_rounded": lambda: ops.open_rounded(ops.scale(word, 3, f=1)),
        "clamp": lambda: ops.clamp(ops.scale(word, 2), -1, 1),
        "reciprocal": lambda: ops.reciprocal(small, f=20, bits=4),
        "log": lambda: ops.log(ops.relu(small), f=20, bits=2),
        "ratio_of_max": lambda: ops.ratio_of_max(ops.relu(word), f=20, bits=61, low_bits=0),
        "floor": lambda: ops.floor(small, bits=3),
        "sigmoid": lambda: ops.sigmoid(word),
        "max": lambda: ops.max(word),
    }.items():
        with pytest.raises(LeavesTheWord, match=f"^{say} at test_bounds"):
            run()
    # a word that a party chose may have anything added to it
    assert ops.clamp(ops.add_public(ops.neg(word), 1 << 62), -1, 1).high.max() == 1
    ops.reciprocal(ops.relu(small), f=20, bits=3)


# ---- what the proof has found --------------------------------------------------------------------


def test_squared_errors_of_many_large_counts_stay_in_the_word() -> None:
    """2 000 of 1 000² with 32 fractional bits are 2^62.9."""
    errors = Shared((as_words(np.full((1, 2000), 1000 << 16)),), 16)
    assert signed(squared_sums(Plain(), errors, 1000)) == [2000 * 1000**2 << 20]


def test_a_long_update_of_many_weights_is_clipped_like_others() -> None:
    """16 classes of 1 000 features: ‖w‖² of up to 2^58 did not fit the 56 bits that it was read in,
    and the site's weights came out as anything."""
    plain, size = Plain(), 16_016
    updates = Shared((as_words(np.full((3, size), 64 << 16) // [[1], [2], [2]]),), 16)
    weights = clipped(plain, updates, *lengths(plain, updates))
    assert np.abs(signed(weights) / 2.0**24 - 32).max() < 0.25
