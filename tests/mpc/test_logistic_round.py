"""A federated round on three processes against the plain engine and the equations."""

from collections import Counter

import numpy as np
import pytest
from scipy.stats import spearmanr

from apps.protocol import aggregation, contribution, metrics
from apps.protocol.circuits import CIRCUITS, BadParams, judges
from apps.protocol.circuits.cells import Rule
from apps.protocol.circuits.evidence import CALIBRATION_EDGES, METRICS, evidence
from apps.protocol.circuits.family import first_alone, proving_rows
from apps.protocol.circuits.regression import open_rows
from tests.support.ring import joined, plain_function, ring_function, three_processes
from workers.mpc import bench
from workers.mpc.engines.plain import run_plain
from workers.mpc.fixed import decode, encode

ROUND, INFER = CIRCUITS["logistic_round@1"], CIRCUITS["logistic_infer@1"]
MIN_CELL = 5


def federation(
    seed, *, sites=6, features=5, rows=(40, 37, 44), strata=3, bad=True, scoring="taylor"
):
    """Updates near a true model; with `bad`, one is noise and one is flipped and scaled."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=features + 1)
    updates = truth + rng.normal(size=(sites, features + 1)) * 0.3
    if bad:
        updates[1] = rng.normal(size=features + 1) * 2
        updates[4] = -truth * 10
    x = rng.normal(size=(sum(rows), features))
    z = x @ truth[:-1] + truth[-1] + rng.logistic(size=len(x))
    y = (z > 0).astype(float)
    groups = np.eye(strata)[rng.integers(0, max(strata, 1), len(x))] if strata else x[:, :0]
    blocks = np.split(np.column_stack([x, y, groups]), np.cumsum(rows)[:-1])
    params = {
        "features": features,
        "strata": strata,
        "rows": list(rows),
        "min_cell": MIN_CELL,
        "scoring": scoring,
    }
    return updates, blocks, params


def encoded(updates, blocks):
    return {
        "update": [encode(u).astype(np.int64) for u in updates],
        "holdout": [encode(block).astype(np.int64) for block in blocks],
    }


def equations(updates, blocks, params, phi_opened):
    """The same round in real numbers, with the φ that was opened; support of each validator."""
    d = params["features"]
    counts = proving_rows(params["rows"])
    halves = [block[1::2] for block in blocks]
    halves = [rows[np.arange(n) * len(rows) // n] for rows, n in zip(halves, counts)]
    proving, owner = np.concatenate(halves), np.repeat(np.arange(len(blocks)), counts)
    clipped = contribution.clip_to_median_norm(updates)
    scores = contribution.upper_median(
        [
            contribution.taylor_scores(clipped, rows[:, :d], rows[:, d])
            if params["scoring"] == "taylor"
            else contribution.coalition_scores(clipped, rows[:, :d], rows[:, d], params["scoring"])
            for rows in (block[0::2] for block in blocks)
        ],
        params.get("weights") or [1] * len(blocks),
    )
    phi = contribution.phi_from_utilities(scores)
    model = aggregation.aggregate(clipped, phi_opened)
    logits = proving[:, :d] @ model[:-1] + model[-1]
    cells = [np.ones(len(proving), bool)]
    cells += [proving[:, d + 1 + r] == 1 for r in range(params["strata"])]
    found = {
        name: [getattr(metrics, name)(logits[cell], proving[cell, d]) for cell in cells]
        for name in METRICS
    }
    own = [[cell & (owner == v) for cell in cells] for v in range(len(blocks))]
    support = [[[int(at.sum()), int(proving[at, d].sum())] for at in each] for each in own]
    return phi, model, found, support


def check_openings(openings, phi, found, support):
    assert np.max(np.abs(np.array(openings["phi_milli"]) - 1000 * phi)) <= 2
    own, support = support, np.sum(support, axis=0).tolist()
    shown = metrics.cells_shown(support, MIN_CELL, own)
    assert set(found) == set(METRICS)
    for name, exact in found.items():
        measured = _cells(openings, name)
        if name == "precision":  # hidden as well where few are called
            seen = [cell for cell, value in enumerate(measured) if value is not None]
            assert set(seen) <= set(shown)
            assert all(abs(measured[cell] - 1000 * exact[cell]) <= 1 for cell in seen)
            continue
        assert [cell for cell, value in enumerate(measured) if value is not None] == shown
        assert all(abs(measured[cell] - 1000 * exact[cell]) <= 1 for cell in shown)
    assert openings["support"] == [
        count if cell in shown else None for cell, count in enumerate(support)
    ]


def test_round_on_three_processes_agrees_with_plain_and_with_the_equations():
    updates, blocks, params = federation(7)
    values = encoded(updates, blocks)
    outcomes = three_processes(ROUND, values, params)
    openings = outcomes[0].openings
    assert all(outcome.openings == openings for outcome in outcomes)
    plain = run_plain(ROUND, values, params)
    assert openings["support"] == plain.openings["support"]
    difference = np.array(openings["phi_milli"]) - np.array(plain.openings["phi_milli"])
    assert np.max(np.abs(difference)) <= 1
    assert abs(openings["auc_milli"] - plain.openings["auc_milli"]) <= 1

    phi, model, found, support = equations(updates, blocks, params, openings["phi_milli"])
    check_openings(openings, phi, found, support)
    assert openings["phi_milli"][1] < min(openings["phi_milli"][k] for k in (0, 2, 3, 5))
    assert openings["phi_milli"][4] == 0
    secret = joined(outcomes, "result")
    assert outcomes[0].result_f == ROUND.result_f == INFER.slots["model"].f
    assert np.max(np.abs(decode(secret.astype(np.uint64), 24) - model)) < 3e-5


@pytest.mark.parametrize("seed", range(4))
def test_round_in_the_clear_follows_the_equations(seed):
    updates, blocks, params = federation(seed, sites=5 + seed, features=3 + 9 * seed)
    outcome = run_plain(ROUND, encoded(updates, blocks), params)
    phi, model, found, support = equations(updates, blocks, params, outcome.openings["phi_milli"])
    check_openings(outcome.openings, phi, found, support)
    assert np.max(np.abs(decode(outcome.result.words[0], 24) - model)) < 3e-5


@pytest.mark.parametrize(
    ("scoring", "sites", "least", "most"),
    [("shapley", 6, 0.99, 2), ("leave_one_out", 6, 0.99, 2), ("shapley", 7, 0.98, 25)],
)
def test_games_on_shares_rank_like_the_same_games_in_the_clear(scoring, sites, least, most):
    """Twenty seeds. Few coalitions' loss is the true one, of scores cut to ±8; that of many a
    polynomial."""
    agreement, apart = [], []
    for seed in range(20):
        updates, blocks, params = federation(seed, sites=sites, scoring=scoring)
        opened = run_plain(ROUND, encoded(updates, blocks), params).openings["phi_milli"]
        phi, *_ = equations(updates, blocks, params, opened)
        agreement.append(spearmanr(phi, opened).statistic)
        apart.append(np.max(np.abs(np.array(opened) - 1000 * phi)))
    assert np.mean(agreement) >= least
    assert np.median(apart) <= most


@pytest.mark.parametrize(
    ("scoring", "sites"), [("shapley", 3), ("shapley", 7), ("shapley", 13), ("leave_one_out", 6)]
)
def test_games_on_three_processes_agree_with_plain(scoring, sites, monkeypatch):
    monkeypatch.setattr("apps.protocol.circuits.logistic.VALUES_MAX", 1 << 10)
    updates, blocks, params = federation(7, sites=sites, scoring=scoring, bad=sites > 3)
    values = encoded(updates, blocks)
    opened = [outcome.openings for outcome in three_processes(ROUND, values, params)]
    assert opened[0] == opened[1] == opened[2]
    plain = run_plain(ROUND, values, params).openings
    difference = np.subtract(opened[0]["phi_milli"], plain["phi_milli"])
    assert np.max(np.abs(difference)) <= 1
    assert set(opened[0]) == set(plain)


def test_extreme_updates_of_twelve_sites_stay_in_the_word():
    """Every score at its bound: the plain engine raises where an intermediate leaves the word."""
    for scoring, sites in (("shapley", 12), ("shapley", 32), ("leave_one_out", 63)):
        updates, blocks, params = federation(
            3, sites=sites, rows=(2000,), strata=0, scoring=scoring
        )
        updates = np.where(np.arange(sites)[:, None] % 3 == 0, -64.0, 64.0) * np.ones((1, 6))
        blocks[0][:, :5] = 16.0
        openings = run_plain(ROUND, encoded(updates, blocks), params).openings
        phi, *_ = equations(np.sign(updates) / 81 * 8, blocks, params, [1000] * sites)
        assert np.max(np.abs(np.array(openings["phi_milli"]) - 1000 * phi)) <= 40


def test_a_site_too_many_is_refused_by_the_shape_of_its_update():
    params = federation(1, scoring="shapley")[2]
    assert ROUND.slots["update"].shape(params, 31) == (6,)
    with pytest.raises(BadParams, match="32 custodians"):
        ROUND.slots["update"].shape(params, 32)


def test_honest_sites_all_count():
    updates, blocks, params = federation(3, bad=False)
    outcome = run_plain(ROUND, encoded(updates, blocks), params)
    phi, *_ = equations(updates, blocks, params, outcome.openings["phi_milli"])
    assert np.max(np.abs(np.array(outcome.openings["phi_milli"]) - 1000 * phi)) <= 2


def test_fewer_than_three_contributions_make_no_model():
    """Two sites pull one way, two the other: the mean is 0 and only two can gain."""
    updates, blocks, params = federation(5, bad=False)
    opposed = np.stack([updates[0], updates[0], -updates[0], -updates[0]])
    outcomes = three_processes(ROUND, encoded(opposed, blocks), params)
    pairs = [[0, 1], [2, 3]]
    assert outcomes[0].openings == {"phi_milli": [1000, 1000, 0, 0], "copies": pairs, "void": 1}
    assert all(outcome.result is None for outcome in outcomes)


@pytest.mark.parametrize("run", ["plain", "ring"])
def test_a_copy_is_found_whatever_its_length_and_counts_once(run):
    """Site 1 sends half of site 0's update, site 2 its own with 1 % of noise, the last one
    nothing, and another one nothing too."""
    updates, blocks, params = federation(3, bad=False, sites=7)
    updates[1] = updates[0] / 2
    noise = np.random.default_rng(1).normal(size=updates.shape[1])
    updates[2] = updates[0] + 0.01 * noise
    updates[5:] = 0
    values = encoded(updates, blocks)
    if run == "plain":
        outcome = run_plain(ROUND, values, params)
        secret = outcome.result.words[0]
    else:
        outcomes = three_processes(ROUND, values, params)
        outcome, secret = outcomes[0], joined(outcomes, "result").astype(np.uint64)
    opened = outcome.openings
    assert opened["copies"] == [[0, 1]] == [list(p) for p in contribution.copies(updates)]
    weights = np.array(opened["phi_milli"], float)
    weights[:2] /= 2
    model = aggregation.aggregate(contribution.clip_to_median_norm(updates), weights)
    assert np.max(np.abs(decode(secret, 24) - model)) < 3e-5


def test_two_sites_and_a_copy_of_one_make_no_model():
    """Else the copier, who knows two of three, would know the third's."""
    updates, blocks, params = federation(3, bad=False, sites=3, scoring="shapley")
    assert run_plain(ROUND, encoded(updates, blocks), params).openings["void"] == 0
    updates[2] = 3 * updates[1]
    opened = run_plain(ROUND, encoded(updates, blocks), params).openings
    assert sum(value > 0 for value in opened["phi_milli"]) == 3
    assert opened["copies"] == [[1, 2]] and opened["void"] == 1


@pytest.mark.parametrize("weights", [(1, 1, 1), (5, 4, 3), (10, 1, 10)])
def test_validators_are_combined_by_their_weights(weights):
    updates, blocks, params = federation(7)
    params["weights"] = list(weights)
    values = encoded(updates, blocks)
    opened = [outcome.openings for outcome in three_processes(ROUND, values, params)]
    phi, *_ = equations(updates, blocks, params, opened[0]["phi_milli"])
    assert opened[0] == opened[1] == opened[2]
    assert np.max(np.abs(np.array(opened[0]["phi_milli"]) - 1000 * phi)) <= 2


def test_validators_of_very_different_size_judge_alike():
    """The small one's scores count per row as the large one's: it is the median here."""
    updates, blocks, params = federation(3, rows=(400, 20, 380), bad=False)
    opened = run_plain(ROUND, encoded(updates, blocks), params).openings
    phi, *_ = equations(updates, blocks, params, opened["phi_milli"])
    assert np.max(np.abs(np.array(opened["phi_milli"]) - 1000 * phi)) <= 4


@pytest.mark.parametrize("weights", [[1], [0, 1, 1], [1, 1, True], [2, 1, 1], [1, 1, 10**6 + 1]])
def test_weights_that_let_one_decide_are_no_parameters(weights):
    params = federation(7)[2] | {"weights": weights}
    with pytest.raises(BadParams, match="weight"):
        ROUND.validate(params)


def test_equal_utilities_and_one_validator_have_a_median():
    said = (np.array([[5, -3], [5, 1], [5, 1]]), 0)
    median = plain_function(lambda ops, x: judges.weighted_median(ops, x, [1, 2, 2]), said)
    assert median.tolist() == [5, 1]


class Watching:
    """An engine that keeps what it makes public."""

    def __init__(self, ops):
        self.ops, self.seen = ops, []

    def __getattr__(self, name):
        method = getattr(self.ops, name)
        if name not in ("open", "open_rounded"):
            return method

        def opened(a):
            value = method(a)
            self.seen += np.asarray(value).ravel().tolist()
            return value

        return opened


# (rows, positives) of the strata, and which of them may be seen
CELLS = [
    ("all large", [(30, 12), (20, 9), (14, 6)], [0, 1, 2]),
    ("three rows: the smallest large one would give them away", [(30, 12), (20, 9), (3, 1)], [0]),
    ("none at all is a count as well", [(30, 12), (20, 9), (0, 0)], [0]),
    ("many rows, few positives", [(40, 17), (11, 6), (60, 2)], [0]),
    ("many rows, few negatives", [(40, 17), (11, 6), (60, 57)], [0]),
    ("two small ones that are small together", [(30, 12), (20, 9), (3, 1), (4, 2)], [0]),
    ("two small ones that hide each other", [(30, 12), (20, 9), (40, 4), (30, 27)], [0, 1]),
    ("two without a negative hide not each other", [(30, 12), (20, 9), (6, 6), (7, 7)], [0]),
    ("equals: the first goes", [(20, 9), (20, 8), (20, 10), (2, 1)], [1, 2]),
    ("only one is large", [(30, 12), (3, 1)], []),
    ("none is large", [(12, 3), (9, 4)], []),
    ("one stratum", [(25, 11)], [0]),
    ("too few rows over all", [(7, 3), (2, 1)], []),
]


def cells_case(strata):
    """Logits [m], flags [m, 1 + R] and the support, overall first."""
    rows = sum(total for total, _ in strata)
    flags = np.zeros((rows, 1 + len(strata)), np.int64)
    at = 0
    for column, (total, positives) in enumerate(strata):
        flags[at : at + total, 1 + column] = 1
        flags[at : at + positives, 0] = 1
        at += total
    logits = np.rint(65536 * (bench.wave(rows) + flags[:, 0])).astype(np.int64)
    return logits, flags, [(rows, int(flags[:, 0].sum())), *strata]


@pytest.mark.parametrize(
    ("strata", "shown"), [case[1:] for case in CELLS], ids=[c[0] for c in CELLS]
)
def test_small_cells_open_nothing(strata, shown):
    """Neither in what a round states, nor by subtraction, nor to the nodes on the way."""
    logits, flags, support = cells_case(strata)
    expected = [cell + 1 for cell in shown]
    if min(support[0][1], support[0][0] - support[0][1]) >= MIN_CELL:
        expected = [0, *expected]
    assert metrics.cells_shown(support, MIN_CELL) == expected
    watching = []

    def run(ops, z, bits):
        watching.append(Watching(ops))
        return evidence(watching[-1], z, bits, Rule(MIN_CELL, [len(flags)]))

    stated = plain_function(run, (logits, 16), (flags, 0))
    assert ring_function(run, (logits, 16), (flags, 0)) == stated
    assert stated["support"] == [
        list(count) if cell in expected else None for cell, count in enumerate(support)
    ]
    for name in (*METRICS, "auc_error", "log_loss_spread"):
        values = _cells(stated, name)
        seen = [cell for cell, value in enumerate(values) if value is not None]
        assert seen == expected or (name == "precision" and set(seen) <= set(expected))
    assert (stated["calibration"] is None) == (0 not in expected)

    hidden = [support[cell] for cell in range(1, len(support)) if cell not in expected]
    if hidden and 0 in expected:  # what subtraction gives is a large cell again
        left = np.subtract(support[0], np.sum([support[c] for c in expected if c], axis=0))
        assert min(left[1], left[0] - left[1]) >= MIN_CELL
    counts = [n for cell in expected for n in stated["support"][cell]]
    said = [
        v for name in (*METRICS, "log_loss_spread") for v in _cells(stated, name) if v is not None
    ]
    said += [n for fifth in stated["calibration"] or [] if fifth for n in fifth]
    for seen in (each.seen for each in watching):
        # bits say which cells are large; all else that is opened is stated
        assert not Counter(n for n in seen if n not in (0, 1)) - Counter([*counts, *said])


def test_no_validator_subtracts_its_own_rows_and_reads_the_few_of_others():
    """Each stratum: (rows, positives) of each validator, and whether it may be seen."""
    strata = [
        ([(13, 9), (1, 0), (0, 0)], False),  # the first would learn the second's only label
        ([(13, 9), (4, 3), (8, 2)], True),  # of the two others there are enough of both kinds
        ([(30, 15), (6, 4), (4, 0)], False),  # but four of a kind are too few
        ([(20, 9), (21, 9), (22, 10)], True),
        ([(6, 3), (5, 3), (0, 0)], False),
        ([(0, 0), (17, 8), (0, 0)], True),  # a region of one validator alone: of others nothing
    ]
    own = [[each[v] for each, _ in strata] for v in range(3)]
    parts = [cells_case(each) for each in own]
    own = [part[2] for part in parts]
    logits, flags = (np.concatenate([part[at] for part in parts]) for at in (0, 1))
    support = np.sum(own, axis=0).tolist()
    expected = [0] + [cell for cell, (_, seen) in enumerate(strata, 1) if seen]
    assert metrics.cells_shown(support, MIN_CELL, own) == expected
    assert metrics.cells_shown(support, MIN_CELL) == [0, 1, 2, 3, 4, 5, 6]
    rule = Rule(MIN_CELL, [len(part[0]) for part in parts])

    def run(ops, z, bits):
        ones = ops.public(np.ones((len(flags), 1), np.int64), 0)
        member = ops.concat([ones, ops.index(bits, np.s_[:, 1:])], axis=1)
        return {**evidence(ops, z, bits, rule), "rows": open_rows(ops, member, rule)}

    stated = plain_function(run, (logits, 16), (flags, 0))
    assert ring_function(run, (logits, 16), (flags, 0)) == stated
    for name in ("accuracy", "recall", "auc"):
        assert [at for at, v in enumerate(_cells(stated, name)) if v is not None] == expected
    assert [at for at, n in enumerate(stated["support"]) if n] == expected
    owner = np.repeat(np.arange(3), rule.rows)
    fifths = metrics.calibration(logits / 65536, flags[:, 0], CALIBRATION_EDGES)
    assert any(stated["calibration"])
    for at, (fifth, (count, _, _)) in enumerate(zip(stated["calibration"], fifths, strict=True)):
        others = [
            metrics.calibration(logits[mine] / 65536, flags[mine, 0], CALIBRATION_EDGES)[at][0]
            for mine in (owner != v for v in range(3))
        ]
        assert fifth is None or (fifth[0] == count and min(others) >= MIN_CELL)
    # by rows alone 1 and 5 are too few, together as well: the smallest of the others goes, too
    assert [cell for cell, n in enumerate(stated["rows"]) if n] == [0, 2, 3, 4]


def test_a_cell_of_one_validator_alone_hides_no_others_from_it():
    strata = [
        [(12, 6), (0, 0), (0, 0)],  # the smallest large one, all of the first validator's
        [(16, 8), (1, 1), (0, 0)],  # of which it would know the one other row if only that went
        [(11, 5), (12, 6), (13, 6)],
        [(20, 9), (21, 9), (22, 10)],
    ]
    own = [[each[v] for each in strata] for v in range(3)]
    parts = [cells_case(each) for each in own]
    logits, flags = (np.concatenate([part[at] for part in parts]) for at in (0, 1))
    rule, own = Rule(MIN_CELL, [len(part[0]) for part in parts]), [part[2] for part in parts]
    assert metrics.cells_shown(np.sum(own, axis=0).tolist(), MIN_CELL, own) == [0, 4]

    def run(ops, z, bits):
        return {"support": evidence(ops, z, bits, rule)["support"]}

    stated = plain_function(run, (logits, 16), (flags, 0))
    assert ring_function(run, (logits, 16), (flags, 0)) == stated
    assert [at for at, n in enumerate(stated["support"]) if n] == [0, 4]


def test_no_validator_of_three_makes_more_than_half_of_the_evidence():
    assert proving_rows([200, 24, 21]) == [22, 12, 10] and proving_rows([9, 9, 9]) == [4, 4, 4]
    assert proving_rows([200, 24]) == [100, 12] and proving_rows([7]) == [3]
    updates, blocks, params = federation(4, rows=(200, 24, 21), bad=False)
    outcome = run_plain(ROUND, encoded(updates, blocks), params)
    phi, _, found, support = equations(updates, blocks, params, outcome.openings["phi_milli"])
    check_openings(outcome.openings, phi, found, support)
    assert outcome.openings["support"][0][0] == 44


def test_a_row_is_of_one_stratum_whatever_its_validator_sent():
    bits = np.array([[1, 0, 0], [0, 1, 1], [1, 1, 1], [0, 0, 0], [0, 0, 1]], np.int64)

    def run(ops, sent):
        return ops.open(first_alone(ops, sent)).tolist()

    alone = [[1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 0], [0, 0, 1]]
    assert plain_function(run, (bits, 0)) == ring_function(run, (bits, 0)) == alone


def _cells(stated, name):
    return [stated[f"{name}_milli"], *stated[f"{name}_strata_milli"]]


def test_a_round_with_a_stratum_of_three_rows_does_not_state_it():
    updates, blocks, params = federation(2)
    for block in blocks:
        block[:, -3:] = [1, 0, 0]
        block[np.arange(len(block)) % 4 < 2, -3:] = [0, 1, 0]
    blocks[0][1:6:2, -3:] = [0, 0, 1]  # the evidence half
    openings = three_processes(ROUND, encoded(updates, blocks), params)[0].openings
    phi, _, found, support = equations(updates, blocks, params, openings["phi_milli"])
    assert np.sum(support, axis=0)[3][0] == 3
    check_openings(openings, phi, found, support)
    assert openings["support"].count(None) == openings["accuracy_strata_milli"].count(None) == 2


def test_garbage_words_of_one_site_do_no_more_than_a_clamped_update():
    updates, blocks, params = federation(11)
    values = encoded(updates, blocks)
    extremes = np.array([2**63 - 1, -(2**63), 2**62, -(2**62), 2**50, -1], np.int64)
    values["update"][2] = extremes
    outcomes = three_processes(ROUND, values, params)
    # garbage beyond ±2^62 lands on a bound; which one does not matter
    like = updates.copy()
    landed = run_plain(ROUND, values, params).openings
    assert np.max(np.abs(np.subtract(outcomes[0].openings["phi_milli"], landed["phi_milli"]))) <= 1
    like[2] = np.clip(extremes / 65536, -64, 64)
    model = aggregation.aggregate(
        contribution.clip_to_median_norm(like), outcomes[0].openings["phi_milli"]
    )
    secret = decode(joined(outcomes, "result").astype(np.uint64), 24)
    assert np.max(np.abs(secret)) <= 64
    if outcomes[0].openings["phi_milli"][2] == 0:
        assert np.max(np.abs(secret - model)) < 1e-3


def test_garbage_rows_of_one_validator_leave_counts_and_metrics_sane():
    updates, blocks, params = federation(12)
    values = encoded(updates, blocks)
    rng = np.random.default_rng(0)
    block = values["holdout"][1]
    block[1::2] = rng.integers(-(2**63), 2**63 - 1, block[1::2].shape)
    openings = run_plain(ROUND, values, params).openings
    ring = three_processes(ROUND, values, params)[0].openings
    assert ring["support"] == openings["support"]
    assert 0 <= ring["auc_milli"] <= 1000
    assert 0 <= ring["accuracy_milli"] <= 1000
    assert all(0 <= phi <= 1000 for phi in ring["phi_milli"])


@pytest.mark.parametrize("rows", [1, 33])
def test_inference_on_three_processes_is_sealed_and_accurate(rows):
    rng = np.random.default_rng(rows)
    model, x = rng.normal(size=31) * 3, rng.normal(size=(rows, 30)) * 3
    x[0, 0] = 400.0
    values = {"model": [encode(model, 24).astype(np.int64)], "row": [encode(x).astype(np.int64)]}
    params = {"features": 30, "rows": rows}
    outcomes = three_processes(INFER, values, params)
    assert all(outcome.openings == {} and outcome.result is None for outcome in outcomes)
    logits = decode(joined(outcomes, "sealed").astype(np.uint64), 16)
    expected = np.clip(x, -16, 16) @ model[:-1] + model[-1]
    assert np.max(np.abs(logits - expected)) < 2e-3
    plain = run_plain(INFER, values, params).sealed.words[0].astype(np.int64) / 65536
    assert np.max(np.abs(logits - plain)) <= 2 / 65536


def test_moments_open_only_the_total_and_normalise_like_pooled_rows():
    from apps.protocol.normalise import normalisation

    rng = np.random.default_rng(4)
    sites = [rng.normal(loc=3, scale=[1, 50, 1e-7], size=(count, 3)) for count in (20, 31, 7)]
    values = {
        "sums": [encode([len(x), *x.sum(0), *(x**2).sum(0)], 20).astype(np.int64) for x in sites]
    }
    outcomes = three_processes(CIRCUITS["moments@1"], values, {"features": 3})
    mean, std = normalisation(outcomes[1].openings["sums"], 3)
    pooled = np.concatenate(sites)
    assert np.allclose(mean, pooled.mean(0), atol=1e-5)
    assert np.allclose(std[:2], pooled.std(0, ddof=1)[:2], atol=1e-4)
    assert std[2] == 1.0


def test_more_than_a_thousand_rows_are_counted_in_bins_with_the_error_stated():
    rng = np.random.default_rng(8)
    z = np.concatenate([rng.normal(0, 2, 700), rng.normal(30, 1, 300), rng.normal(-30, 1, 200)])
    labels = (z + rng.normal(0, 3, 1200) > 0).astype(np.int64)
    flags = np.column_stack([labels, np.arange(1200) % 2, 1 - np.arange(1200) % 2])
    words = np.rint(z * 65536).astype(np.int64)

    def run(ops, logits, bits):
        return evidence(ops, logits, bits, Rule(MIN_CELL, [1200]))

    stated = plain_function(run, (words, 16), (flags, 0))
    assert ring_function(run, (words, 16), (flags, 0)) == stated
    cells = [np.ones(1200, bool), flags[:, 1] == 1, flags[:, 2] == 1]
    for cell, value, error in zip(cells, _cells(stated, "auc"), _cells(stated, "auc_error")):
        assert 0 < error < 30
        assert abs(value - 1000 * metrics.auc(z[cell], labels[cell])) <= error + 1


def test_calibration_hides_small_fifths_and_what_would_follow_from_them():
    chances = np.repeat([0.05, 0.3, 0.5, 0.7, 0.9], [30, 12, 9, 3, 20])
    z = np.log(chances / (1 - chances))
    labels = (np.arange(len(z)) % 10 < 10 * chances).astype(np.int64)
    words = np.rint(z * 65536).astype(np.int64)

    def run(ops, logits, bits):
        return evidence(ops, logits, bits, Rule(MIN_CELL, [len(z)]))

    stated = plain_function(run, (words, 16), (labels[:, None], 0))["calibration"]
    assert ring_function(run, (words, 16), (labels[:, None], 0))["calibration"] == stated
    clear = metrics.calibration(z, labels, CALIBRATION_EDGES)
    assert [fifth is None for fifth in stated] == [False, False, True, True, False]
    for fifth, (rows, ups, chance) in zip(stated, clear):
        assert fifth is None or fifth == [rows, ups, pytest.approx(1000 * chance, abs=1)]
