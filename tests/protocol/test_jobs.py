"""Jobs and receipts of three, four and five nodes: who takes part, and who must sign."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from apps.protocol import jobs, tickets, wire

KEYS = [Ed25519PrivateKey.from_private_bytes(bytes([i] * 32)) for i in range(1, 6)]
NODES = [f"{i:02x}" * 32 for i in range(1, 6)]
# What three nodes have signed so far must keep its meaning.
GOLDEN_MODEL_OF_THREE = "c6023e648738968127a360687ee878b1b2a45b00749d45c31c73ca4c2ad3de62"
GOLDEN_JOB_OF_FIVE = "fe83b932917be1b44db23e76576116ac072d862765e6eb0e1bfc43872e4e40a5"


def job(n, **changes):
    base = {
        "v": 1,
        "job_id": "aa" * 16,
        "attempt": 1,
        "circuit": "logistic_round@1",
        "circuits_hash": "11" * 32,
        "engine": "ring",
        "nodes": NODES[:n],
        "scope": "round:1",
        "roster": None,
        "inputs": {"update": ["0a" * 16]},
        "model": None,
        "deadline_s": 20,
    }
    if n > 3:
        base |= {"computing": [0, 1, 3], "holding": [2]}
    return base | changes


def receipts(n, members, **changes):
    """Signed by these members; word j has the hash "j"."""
    signed = []
    for i in members:
        receipt = {
            "v": 1,
            "job_id": "aa" * 16,
            "attempt": 1,
            "descriptor": "00" * 32,
            "circuit": "logistic_round@1",
            "circuits_hash": "11" * 32,
            "scope": "round:1",
            "inputs": [],
            "openings": "22" * 32,
            "model": "33" * 32,
            "result": {str(j): f"hash of {j}" for j in range(n) if j != i},
            "sealed": None,
            "node": NODES[i],
            "at": 5,
        } | changes.get(i, changes.get(str(i), {}))
        signature = wire.sign(KEYS[i], jobs.RECEIPT_DOMAIN, receipt)
        signed.append({"receipt": receipt, "signature": signature})
    return signed


def check(n, members, signed):
    keys = {NODES[i]: wire.public_hex(KEYS[i]) for i in members}
    return jobs.check_receipts(signed, sign_keys=keys, nodes=NODES[:n])


def test_the_ids_of_jobs_are_golden_vectors():
    assert jobs.model_id(job(3)) == GOLDEN_MODEL_OF_THREE
    assert jobs.job_digest(job(5)) == GOLDEN_JOB_OF_FIVE


@pytest.mark.parametrize("n", [3, 4, 5])
def test_who_takes_part_follows_from_the_descriptor(n):
    described = job(n)
    jobs.check_job(described)
    assert jobs.computing_of(described) == ((0, 1, 2) if n == 3 else (0, 1, 3))
    assert jobs.members_of(described) == ((0, 1, 2) if n == 3 else (0, 1, 2, 3))


@pytest.mark.parametrize(
    ("n", "changes"),
    [
        (3, {"computing": [0, 1, 2], "holding": []}),
        (3, {"computing": [0, 1, 2]}),
        (4, {"computing": [0, 1]}),
        (4, {"computing": [0, 1, 2, 3], "holding": []}),
        (4, {"computing": [1, 0, 3]}),
        (4, {"computing": [0, 1, 4]}),
        (4, {"computing": [0, 1, 1]}),
        (4, {"computing": [0, True, 3]}),
        (4, {"computing": None}),
        (5, {"holding": [1]}),
        (5, {"holding": [2, 2]}),
        (5, {"holding": [5]}),
        (5, {"holding": "2"}),
        (4, {"nodes": NODES[:3] + NODES[:1]}),
    ],
)
def test_a_group_has_one_form(n, changes):
    with pytest.raises(jobs.JobError) as error:
        jobs.check_job(job(n, **changes))
    assert error.value.code == "malformed_job"


def test_a_job_of_more_than_three_says_who_takes_part():
    for name in ("computing", "holding"):
        described = job(5)
        del described[name]
        with pytest.raises(jobs.JobError):
            jobs.check_job(described)


def test_scope_and_model_are_the_same_whoever_computes():
    one, two = job(5), job(5, computing=[2, 3, 4], holding=[], attempt=2, deadline_s=9)
    assert jobs.model_id(one) == jobs.model_id(two)
    assert jobs.scope_digest(one) == jobs.scope_digest(two)
    assert jobs.job_digest(one) != jobs.job_digest(two)
    assert jobs.model_id(one) != jobs.model_id(job(5, job_id="bb" * 16))


@pytest.mark.parametrize(("n", "members"), [(3, (0, 1, 2)), (4, (0, 2, 3)), (5, (0, 1, 2, 3, 4))])
def test_all_holders_of_a_word_must_report_the_same(n, members):
    assert len(check(n, members, receipts(n, members))) == len(members)
    i = members[1]
    words = {str(j): f"hash of {j}" for j in range(n) if j != i}
    first = next(iter(words))
    for wrong in (
        words | {first: "other"},
        {j: h for j, h in words.items() if j != first},
        words | {str(i): f"hash of {i}"},
        None,
    ):
        with pytest.raises(jobs.JobError) as error:
            check(n, members, receipts(n, members, **{str(i): {"result": wrong}}))
        assert error.value.code == "receipts_disagree"


def test_every_member_signs_and_nobody_else():
    members = (0, 1, 3)
    with pytest.raises(jobs.JobError):
        check(5, members, receipts(5, (0, 1)))
    with pytest.raises(jobs.JobError):
        check(5, members, receipts(5, (0, 1, 2)))
    with pytest.raises(jobs.JobError):
        check(5, members, receipts(5, (0, 1, 1)))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 32, 256])
def test_a_bundles_receipts_are_signed_for_once_and_checked_one_by_one(size):
    key = Ed25519PrivateKey.generate()
    public = wire.public_hex(key)
    said = [{"v": 1, "job_id": f"{k:032x}"} for k in range(size)]
    signatures = jobs.sign_receipts(key, said)
    assert len({signature[:128] for signature in signatures}) == 1
    assert len(signatures[0]) <= 1024
    for receipt, signature in zip(said, signatures):
        jobs.verify_receipt(public, receipt, signature)
    other, last = wire.public_hex(Ed25519PrivateKey.generate()), signatures[-1]
    refused = [
        (other, said[-1], last),
        (public, said[-1] | {"v": 2}, last),
        (public, said[-1], last[:-2]),
        (public, said[-1], last + "00" * 32),
        (public, said[-1], last[:128] + "00" * 8 + last[144:]),
        (public, said[-1], "00" * 64 + last[128:]),
        (public, said[-1], None),
    ]
    if size > 1:
        refused += [(public, said[0], last), (public, said[-1], last[:128])]
    for case in refused:
        with pytest.raises(wire.BadSignature):
            jobs.verify_receipt(*case)


def test_a_root_that_was_signed_is_no_receipt_and_the_other_way():
    """They have domains of their own."""
    key = Ed25519PrivateKey.generate()
    public = wire.public_hex(key)
    tree = {"v": 1, "size": 1, "root": "00" * 32}
    signed = wire.sign(key, jobs.RECEIPTS_DOMAIN, tree)
    with pytest.raises(wire.BadSignature):
        jobs.verify_receipt(public, tree, signed)


def test_a_verified_job_names_four_nodes_that_compute():
    four = {"engine": tickets.VERIFIED, "computing": [0, 1, 2, 4], "holding": [3]}
    jobs.check_job(job(5, **four))
    assert jobs.computing_of(job(5, **four)) == (0, 1, 2, 4)
    wrong = [
        (job(3, engine=tickets.VERIFIED), "too_few_nodes"),
        (job(5, **four | {"engine": tickets.RING}), "malformed_job"),
        (job(5, engine=tickets.VERIFIED), "malformed_job"),
    ]
    for described, code in wrong:
        with pytest.raises(jobs.JobError) as error:
            jobs.check_job(described)
        assert error.value.code == code


def test_of_shamir_shares_all_members_compute_and_each_reports_its_own():
    four = {"engine": "shamir_t1", "computing": [0, 1, 2, 4], "holding": []}
    jobs.check_job(job(5, **four))
    assert jobs.members_of(job(5, **four)) == (0, 1, 2, 4)
    wrong = [
        (job(5, **four | {"holding": [3]}), "malformed_job"),
        (job(5, **four | {"engine": "shamir_t2"}), "malformed_job"),
        (job(5, **four | {"computing": [0, 1]}), "malformed_job"),
        (job(4, **four | {"engine": "shamir_t2", "computing": [0, 1, 2, 3]}), "too_few_nodes"),
        (job(5, **four | {"nodes": [f"{i:02x}" * 32 for i in range(6)]}), "too_many_nodes"),
    ]
    for described, code in wrong:
        with pytest.raises(jobs.JobError) as error:
            jobs.check_job(described)
        assert error.value.code == code
    every = range(4)
    own = {str(i): {"engine": "shamir_t1", "result": {str(i): f"hash of {i}"}} for i in every}
    assert len(check(4, every, receipts(4, every, **own))) == 4
    for result in ({"1": "a", "2": "b"}, {"2": "b"}, {}, None):
        with pytest.raises(jobs.JobError) as error:
            check(4, every, receipts(4, every, **own | {"1": own["1"] | {"result": result}}))
        assert error.value.code == "receipts_disagree"


def test_receipts_say_who_may_ask_what_was_made_and_agree_on_it():
    trio, asked = range(3), {"credential": "accredited-hospital", "keys": ["ab" * 32]}
    says = {str(i): {"access": asked} for i in trio}
    assert [one["access"] for one in check(3, trio, receipts(3, trio, **says))] == [asked] * 3
    for other in ({}, {"access": asked | {"keys": ["cd" * 32]}}):
        with pytest.raises(jobs.JobError, match="do not agree"):
            check(3, trio, receipts(3, trio, **says | {"1": other}))
    for wrong in (None, {}, "all", {"credential": "lab"}, asked | {"keys": []}):
        with pytest.raises(jobs.JobError, match="who may ask is malformed"):
            check(3, trio, receipts(3, trio, **{str(i): {"access": wrong} for i in trio}))


def test_receipts_say_what_they_were_computed_by_and_agree_on_it():
    """One that says nothing is of the passive ring, as all were before there was another."""
    every = range(4)
    assert jobs.engine_named({"engine": "ring"}) == {}
    assert jobs.engine_of(check(4, every, receipts(4, every))[0]) == "ring"
    says = jobs.engine_named({"engine": tickets.VERIFIED})
    signed = receipts(4, every, **{str(i): says for i in every})
    assert jobs.engine_of(check(4, every, signed)[0]) == tickets.VERIFIED
    one_differs = receipts(4, every, **{str(i): says for i in (0, 1, 2)})
    with pytest.raises(jobs.JobError, match="do not agree"):
        check(4, every, one_differs)
    for wrong in (None, "ring", "other", ["ring_verified"]):
        with pytest.raises(jobs.JobError, match="not named so"):
            check(4, every, receipts(4, every, **{str(i): {"engine": wrong} for i in every}))
