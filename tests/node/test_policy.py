"""Each rule of the policy, alone: one spoilt case per code, beside the good cases."""

import copy
import inspect
import re
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from apps.protocol import jobs, tickets
from apps.protocol.circuits import CIRCUITS, CLASSES, circuits_hash, query_hash
from apps.protocol.circuits.descent import DEFAULTS
from apps.protocol.circuits.noise import CLIP, RHO
from apps.protocol.tickets import VERIFIED
from tests.support.proofs import demand, proof
from workers.node import policy
from workers.node.errors import Refused
from workers.node.home import Limits
from workers.node.records import Binding

NOW = 1_800_000_000
NODES = ["a1" * 32, "a2" * 32, "a3" * 32]
CUSTODIANS = [f"{n:02x}" * 32 for n in (1, 2, 3)]
VALIDATORS = ["0f" * 32]
LIMITS = Limits(rows_per_epoch=10, rows_per_query=4, price_micro_min=1)
NOISE = {CLIP: 2000, RHO: 1}
PARAMS = {"features": 2, "strata": 1, "rows": [8], "min_cell": 3, "scoring": "taylor"}


def roster(custodians=CUSTODIANS, validators=VALIDATORS, round_id="r1"):
    members = [{"key": k, "role": "custodian", "name": ""} for k in custodians]
    members += [{"key": k, "role": "validator", "name": ""} for k in validators]
    return tickets.roster_of(round_id=round_id, members=members)


def ticket(number, sender, **changes):
    base = {
        "v": 1,
        "type": "share",
        "share_id": f"{number:02x}" * 16,
        "sender": sender,
        "scope": "round:r1",
        "slot": "update",
        "circuits": ["logistic_round@1"],
        "circuits_hash": circuits_hash(),
        "engine": "ring",
        "nodes": NODES,
        "roster": tickets.check_roster(roster()),
        "model": None,
        "params": PARAMS,
        "shape": [3],
        "f": 16,
        "commitment": ["cc" * 32] * 3,
        "uses": 1,
        "issued_at": NOW,
        "expires_at": NOW + 100,
        "reply_key": None,
        "price_micro": None,
        "resolution": "logit",
    }
    return tickets.check_ticket(base | changes, now=NOW)


def job_of(inputs, **changes):
    base = {
        "v": 1,
        "job_id": "dd" * 16,
        "attempt": 1,
        "circuit": "logistic_round@1",
        "circuits_hash": circuits_hash(),
        "engine": "ring",
        "nodes": NODES,
        "scope": "round:r1",
        "roster": roster(),
        "inputs": {slot: [t.share_id for t in listed] for slot, listed in inputs.items()},
        "model": None,
        "deadline_s": 10,
    }
    return base | changes


def case_of(inputs, *, stored=None, binding=None, **changes):
    job = job_of(inputs, **changes)
    jobs.check_job(job)
    return policy.Case(
        job=job,
        circuit=CIRCUITS[job["circuit"]],
        inputs=inputs,
        used_by={t.share_id: None for listed in inputs.values() for t in listed},
        model=stored,
        binding=binding,
        rows_answered=0,
        limits=LIMITS,
        circuits_hash=circuits_hash(),
        nodes=NODES,
        former=(),
        now=NOW,
    )


def round_inputs(**changes):
    return {
        "update": [ticket(n, k, **changes) for n, k in enumerate(CUSTODIANS)],
        "holdout": [
            ticket(9, VALIDATORS[0], slot="holdout", shape=[8, 4], **changes),
        ],
    }


def round_case(**changes):
    return case_of(round_inputs(), **changes)


def spoilt(slot, position, /, **changes):
    return spoilt_of(round_inputs(), slot, position, **changes)


def spoilt_of(inputs, slot, position=0, /, **changes):
    inputs[slot][position] = replace(inputs[slot][position], **changes)
    return case_of(inputs)


MODEL = {
    "allows": ["logistic_infer@1"],
    "nodes": NODES,
    "resolution": "logit",
    "params": PARAMS,
}
HASHED = MODEL | {"allows": {"logistic_infer@1": query_hash("logistic_infer@1", PARAMS)}}
OTHER_HASH = {"circuits_hash": "00" * 32}
SGD = {
    "features": 2,
    "strata": 1,
    "rows": [8],
    "min_cell": 3,
    "site_rows": [20, 20, 20],
    **DEFAULTS,
}
NAMED = SGD | {"normalisation": "ab" * 32}
TRAINABLE = MODEL | {
    "allows": ["logistic_infer@1", "logistic_sgd_on@1"],
    "makers": CUSTODIANS,
    "params": PARAMS | {"normalisation": "ab" * 32},
}


def query_case(stored=MODEL, ticket_changes=None, circuit="logistic_infer@1", **changes):
    hashed = changes.get("circuits_hash") or query_hash(circuit, PARAMS)
    row = ticket(
        1,
        "0e" * 32,
        **{
            "scope": "query:q1",
            "slot": "row",
            "circuits": ["logistic_infer@1"],
            "circuits_hash": hashed,
            "params": {"features": 2, "rows": 1},
            "shape": [1, 2],
            "roster": None,
            "model": "55" * 32,
            "reply_key": "66" * 32,
            "price_micro": "1",
        }
        | (ticket_changes or {}),
    )
    base = {"scope": "query:q1", "roster": None, "model": "55" * 32}
    base |= {"circuit": circuit, "circuits_hash": hashed}
    return case_of({"row": [row]}, stored=stored, **(base | changes))


def query_at(computed, signed, *, made):
    """A query of one resolution under a ticket of another, of a model of a third."""
    circuit = CLASSES["logistic"].infer_id(computed)
    stored = MODEL | {"allows": list(CLASSES["logistic"].made_for), "resolution": made}
    return query_case(stored, {"circuits": [circuit], "resolution": signed}, circuit=circuit)


def going_on(stored=TRAINABLE, circuit="logistic_sgd_on@1", model="55" * 32, **changes):
    """Custodians' rows and a holdout, to go on from a stored model."""
    shared = {"circuits": [circuit], "params": NAMED, "model": model, **changes}
    rows = [ticket(n, k, slot="rows", shape=[20, 3], **shared) for n, k in enumerate(CUSTODIANS)]
    held = [ticket(9, VALIDATORS[0], slot="holdout", shape=[8, 4], **shared)]
    return case_of({"rows": rows, "holdout": held}, stored=stored, circuit=circuit, model=model)


def query_under(signed, *, made):
    """A query whose row was standardised under one name, of a model made under another."""
    params = {"features": 2, "rows": 1} | named(signed)
    return query_case(MODEL | {"params": PARAMS | named(made)}, {"params": params})


def named(byte):
    return {"normalisation": byte * 32} if byte else {}


ISSUER, HOLDER = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2))


def shows(asker="0e" * 32, until_ms=NOW * 1000 + 1):
    return proof(ISSUER, HOLDER, asker=asker, until_ms=until_ms)


def restricted(access):
    """A query of a model that is for holders alone."""
    shown = {} if access is None else {"access": access}
    return query_case(MODEL | {"access": demand(ISSUER).params}, shown)


def network(made, asked):
    """A query of a network that was made with these units, asked as one with those."""
    sizes = {"features": 2, "classes": 3}
    hashed = query_hash("mlp_infer@1", sizes | asked)
    stored = MODEL | {"allows": {"mlp_infer@1": hashed}, "params": PARAMS | sizes | made}
    signed = {"circuits": ["mlp_infer@1"], "circuits_hash": hashed}
    signed["params"] = {**sizes, "rows": 1, **asked}
    return query_case(stored, signed, circuit="mlp_infer@1", circuits_hash=hashed)


def test_a_network_is_asked_as_it_was_made():
    for made in ({}, {"hidden_1": 9}):
        policy.admit(network(made, made))
    for made, asked in (({}, {"hidden_1": 9}), ({"hidden_1": 9}, {}), ({"hidden_1": 32}, {})):
        with pytest.raises(Refused) as caught:
            policy.admit(network(made, asked))
        assert caught.value.code == "wrong_shape"


def test_the_good_cases_are_admitted():
    policy.admit(going_on())
    policy.admit(going_on(stored=None, circuit="logistic_sgd@1", model=None, params=SGD))
    policy.admit(going_on(stored=None, circuit="logistic_sgd@1", model=None))
    policy.admit(round_case())
    policy.admit(case_of(round_inputs(params=PARAMS | NOISE)))
    policy.admit(noised(attempts=9))
    policy.admit(query_case())
    policy.admit(query_case(HASHED))
    policy.admit(query_under("ab", made="ab"))
    bound = Binding(jobs.scope_digest(round_case().job), None)
    policy.admit(round_case(binding=bound, attempt=2, deadline_s=99))
    for of in tickets.RESOLUTIONS:
        policy.admit(query_at(of, of, made=of))
    policy.admit(tried(9, attempt=200))
    policy.admit(asked(rows=4, answered=6))
    policy.admit(replace(asked(rows=4, answered=10), binding=bound_query(rows=4)))


def tried(times, **changes):
    case = query_case(**changes)
    return replace(case, binding=Binding(jobs.scope_digest(case.job), None, times))


def noised(*, attempts):
    """A round under a privacy budget that was tried so often."""
    case = case_of(round_inputs(params=PARAMS | NOISE))
    return replace(case, binding=Binding(jobs.scope_digest(case.job), None, attempts))


def asked(*, rows, answered=0, **ticket):
    """A query of so many rows, after so many that were answered today."""
    changes = {"params": {"features": 2, "rows": rows}, "shape": [rows, 2]} | ticket
    return replace(query_case(ticket_changes=changes), rows_answered=answered)


def bound_query(*, rows):
    return Binding(jobs.scope_digest(asked(rows=rows).job), None)


def without_one():
    inputs = round_inputs()
    inputs["update"].pop()
    return inputs


def renumbered(case, used_by):
    return replace(case, used_by=dict.fromkeys(case.used_by, used_by))


def two_rows():
    case = query_case()
    (row,) = case.inputs["row"]
    other = replace(row, share_id="77" * 16)
    return replace(
        case, inputs={"row": [row, other]}, used_by={row.share_id: None, other.share_id: None}
    )


def validator_fills():
    inputs = round_inputs()
    inputs["update"][0] = replace(inputs["update"][0], sender=VALIDATORS[0])
    return case_of(inputs)


def sealed_in_a_round():
    (row,) = query_case().inputs["row"]
    row = replace(row, scope="round:r1", circuits_hash=circuits_hash())
    return case_of({"row": [row]}, stored=MODEL, circuit="logistic_infer@1", model="55" * 32)


def small_roster(custodians, validators):
    r = roster(custodians, validators)
    signed = tickets.check_roster(r)
    inputs = round_inputs(roster=signed)
    return case_of(inputs, roster=r)


def foreign_round():
    r = roster(round_id="r2")
    return case_of(round_inputs(roster=tickets.check_roster(r)), roster=r)


def reordered():
    inputs = round_inputs()
    inputs["update"].reverse()
    return case_of(inputs)


def done(job_id):
    case = round_case()
    return replace(case, binding=Binding(jobs.scope_digest(case.job), job_id))


def replace_job(case, **changes):
    return replace(case, job=copy.deepcopy(case.job) | changes)


REFUSED = {
    "circuit_changed": [
        lambda: query_case(MODEL | {"allows": {"logistic_infer@1": "00" * 32}}),
    ],
    "circuits_differ": [
        # all agree on a hash, but not on what this release computes
        lambda: query_case(ticket_changes=OTHER_HASH, circuits_hash="00" * 32),
        lambda: query_case(HASHED, ticket_changes=OTHER_HASH, circuits_hash="00" * 32),
        # job and ticket differ
        lambda: query_case(ticket_changes=OTHER_HASH),
        lambda: query_case(circuits_hash="00" * 32),
        lambda: query_case(ticket_changes={"circuits_hash": circuits_hash()}),
        lambda: round_case(circuits_hash="00" * 32),
        lambda: spoilt("update", 0, circuits_hash="00" * 32),
    ],
    "wrong_nodes": [
        lambda: round_case(nodes=NODES[::-1]),
        lambda: spoilt("holdout", 0, nodes=tuple(NODES[::-1])),
        lambda: query_case(stored=MODEL | {"nodes": NODES[::-1]}),
    ],
    "wrong_engine": [lambda: spoilt("update", 2, engine="other")],
    "verified_only": [
        lambda: spoilt("update", 2, engine=VERIFIED),
        lambda: query_case(stored=MODEL | {"engine": VERIFIED}),
        lambda: replace(round_case(), limits=replace(LIMITS, verified_only=True)),
    ],
    "wrong_scope": [
        lambda: round_case(scope="round:r2"),
        lambda: spoilt("update", 0, scope="round:r2"),
        sealed_in_a_round,
    ],
    "scope_bound": [lambda: round_case(binding=Binding("00" * 32, None))],
    "already_completed": [
        lambda: done("dd" * 16),
        lambda: done("ee" * 16),
        lambda: replace(
            query_case(), binding=Binding(jobs.scope_digest(query_case().job), "ee" * 16)
        ),
    ],
    "circuit_not_allowed": [
        lambda: spoilt("update", 0, circuits=("moments@1",)),
        lambda: query_case(stored=MODEL | {"allows": []}),
        lambda: going_on(stored=MODEL | {"makers": CUSTODIANS}),
    ],
    "wrong_slot": [
        lambda: spoilt("update", 0, slot="holdout"),
        lambda: case_of({"update": round_inputs()["update"]}),
        lambda: case_of(round_inputs() | {"extra": [ticket(7, VALIDATORS[0], slot="extra")]}),
    ],
    "expired": [lambda: spoilt("update", 0, expires_at=NOW)],
    "share_used": [lambda: renumbered(round_case(), "ee" * 16)],
    "params_differ": [
        lambda: spoilt("update", 0, params=PARAMS | {"min_cell": 4}),
        lambda: spoilt("update", 1, params=PARAMS | NOISE),
        lambda: spoilt_of(round_inputs(params=PARAMS | NOISE), "holdout", params=PARAMS),
        lambda: spoilt_of(
            round_inputs(params=PARAMS | NOISE), "update", params=PARAMS | NOISE | {RHO: 2}
        ),
    ],
    "bad_params": [
        lambda: case_of(round_inputs(params=PARAMS | {"min_cell": 1})),
        lambda: case_of(round_inputs(params=PARAMS | {RHO: 1})),
        lambda: going_on(params=NAMED | NOISE),
        # a model and tickets that name no normalisation do not agree on one
        lambda: going_on(stored=TRAINABLE | {"params": PARAMS}, params=SGD),
    ],
    "resolution_differs": [
        lambda: spoilt("update", 0, resolution=None),
        lambda: query_case(stored=MODEL | {"resolution": "label"}),
        lambda: query_at("logit", "label", made="label"),
        lambda: query_at("label", "logit", made="label"),
        lambda: query_at("label", "label", made="rounded"),
        lambda: query_at("rounded", "rounded", made="label"),
    ],
    "resolution_missing": [lambda: case_of(round_inputs(resolution=None))],
    "access_differs": [
        lambda: spoilt("update", 0, access=demand(ISSUER).params),
        lambda: spoilt_of(round_inputs(access=demand(ISSUER).params), "holdout", access=None),
    ],
    "not_admitted": [
        lambda: restricted(None),
        lambda: restricted({}),
        lambda: restricted(shows(asker="0d" * 32)),
        lambda: restricted(shows(until_ms=NOW * 1000)),
    ],
    "roster_differs": [
        lambda: round_case(roster=None),
        lambda: round_case(roster=roster(CUSTODIANS + ["0d" * 32])),
        lambda: spoilt("update", 1, roster="00" * 32),
        foreign_round,
        lambda: query_case(roster=roster()),
    ],
    "too_few_custodians": [lambda: small_roster(CUSTODIANS[:2], VALIDATORS)],
    "too_few_validators": [lambda: small_roster(CUSTODIANS, [])],
    "not_on_roster": [
        lambda: spoilt("update", 0, sender="0c" * 32),
        validator_fills,
    ],
    "duplicate_sender": [lambda: spoilt("update", 0, sender=CUSTODIANS[1])],
    "sub_roster": [lambda: case_of(without_one())],
    "roster_order": [reordered],
    "wrong_shape": [
        lambda: spoilt("update", 0, shape=(4,)),
        lambda: spoilt("update", 0, f=20),
        lambda: spoilt("holdout", 0, shape=(7, 4)),
        lambda: query_case(stored=MODEL | {"params": {"features": 3}}),
        lambda: query_under("cd", made="ab"),
        lambda: query_under(None, made="ab"),
        lambda: query_under("ab", made=None),
        lambda: going_on(stored=TRAINABLE | {"params": {"features": 3}}),
        lambda: going_on(stored=TRAINABLE | {"params": PARAMS}),
        lambda: going_on(params=SGD | {"normalisation": "cd" * 32}),
    ],
    "wrong_query": [two_rows],
    "too_many_attempts": [
        lambda: tried(10, attempt=11),
        lambda: tried(11),
        lambda: noised(attempts=10),
        lambda: noised(attempts=11),
    ],
    "wrong_model": [
        lambda: replace_job(query_case(), model="99" * 32),
        lambda: replace_job(round_case(), model="99" * 32),
        lambda: replace_job(going_on(), model="99" * 32),
        lambda: going_on(circuit="logistic_sgd@1"),
        lambda: going_on(model=None),
    ],
    "price_too_low": [lambda: asked(rows=1, price_micro="0")],
    "too_many_rows": [lambda: asked(rows=5)],
    "row_budget_spent": [
        lambda: asked(rows=4, answered=7),
        lambda: asked(rows=1, answered=10),
        lambda: asked(rows=1, answered=11),
    ],
    "unknown_model": [lambda: query_case(stored=None), lambda: going_on(stored=None)],
    "makers_missing": [
        lambda: going_on(stored=TRAINABLE | {"makers": [*CUSTODIANS, "0d" * 32]}),
        lambda: going_on(stored=TRAINABLE | {"makers": []}),
        lambda: going_on(stored={k: v for k, v in TRAINABLE.items() if k != "makers"}),
    ],
}


@pytest.mark.parametrize(
    ("code", "make"), [(code, make) for code, makes in REFUSED.items() for make in makes]
)
def test_a_spoilt_case_is_refused_with_its_code(code, make):
    with pytest.raises(Refused) as error:
        policy.admit(make())
    assert error.value.code == code
    assert error.value.text.endswith(".") or code == "bad_params"


def test_who_shows_what_the_makers_ask_for_is_answered_and_an_open_model_asks_for_nothing():
    policy.admit(restricted(shows()))
    policy.admit(query_case(ticket_changes={"access": {"whatever": 1}}))
    policy.admit(case_of(round_inputs(access=demand(ISSUER).params)))


def test_a_spent_budget_says_what_is_left_and_until_when():
    with pytest.raises(Refused, match=r"answers 3 more rows .* until 2027-01-16 00:00 UTC"):
        policy.admit(asked(rows=4, answered=7))
    assert policy.day_of(NOW) + 1 == policy.day_of(NOW + policy.DAY_S)


def test_every_code_of_the_policy_is_played():
    source = inspect.getsource(policy)
    codes = set(re.findall(r'Refused\(\s*"([a-z_]+)"', source)) - {"bad_signature", "not_proved"}
    assert codes - set(REFUSED) == {"duplicate_input"}  # the form check comes first


def test_a_share_listed_twice_is_refused():
    inputs = round_inputs()
    inputs["update"][1] = inputs["update"][0]
    with pytest.raises(jobs.JobError) as error:
        case_of(inputs)
    assert error.value.code == "duplicate_input"


def test_an_epoch_is_so_many_whole_days_and_the_refusal_says_when_it_ends():
    day = policy.day_of(NOW)
    assert [policy.epoch_day(day + k, 1) for k in range(3)] == [day, day + 1, day + 2]
    assert {policy.epoch_day(70 + k, 7) for k in range(7)} == {70}
    assert policy.epoch_day(77, 7) == 77
    case = replace(asked(rows=1, answered=10), limits=replace(LIMITS, epoch_days=7))
    with pytest.raises(Refused) as error:
        policy.admit(case)
    end = datetime.fromtimestamp((policy.epoch_day(day, 7) + 7) * policy.DAY_S, UTC)
    assert f"until {end:%Y-%m-%d} 00:00 UTC" in error.value.text


def test_what_is_remembered_of_parameters_is_of_exactly_these() -> None:
    """1 is True to a dictionary, and not to a circuit; refusals are found anew."""
    circuit = CIRCUITS["logistic_infer@1"]

    def check(rows: object) -> None:
        params = {"features": 1, "rows": rows}
        policy._of_params(policy._valid, circuit, params, tickets.params_key(params))

    for _ in range(2):
        check(1)
        for rows in (True, 0, [1], None):
            with pytest.raises(Refused) as refused:
                check(rows)
            assert refused.value.code == "bad_params"
