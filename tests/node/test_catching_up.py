"""What a node that was away takes over from the others, and from how many: real stores, no network.

In these tests node i of n keeps the model in the sharing of refresh number `numbers[i]`.
"""

import hashlib
import json
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from apps.protocol import refreshes, wire
from apps.protocol.jobs import fingerprint
from workers.mpc import keys
from workers.mpc.replicated import held_by
from workers.mpc.transport import PeerLost
from workers.node import storekey
from workers.node.copies import REFRESHED, Copies
from workers.node.errors import Refused, Unavailable
from workers.node.home import Peers
from workers.node.idle import Idle
from workers.node.jobs import Jobs
from workers.node.records import StoredJob, StoredModel
from workers.node.refreshing import STAGED, Refreshing
from workers.node.store import Store

NAMES = ("sign_key", "hpke_key")
MODEL, JOB = "ab" * 32, "ef" * 16


class Mesh:
    """Questions and answers alone, in this thread."""

    def __init__(self, me, all_):
        self.me, self.all = me, all_

    def wait_for_any(self, peers, until):
        return {i for i in peers if self.all[i].up}

    def ask(self, to, question, *, deadline):
        said = self.all[to].answer(self.me, question)
        if said is None:
            raise PeerLost("it says nothing")
        return said


class Nodes:
    def __init__(self, directory, n, numbers):
        self.n, self.all = n, []
        self.keys = [Ed25519PrivateKey.generate() for _ in range(n)]
        self.former = ()
        peers = self.peers()
        for i, number in enumerate(numbers):
            home, root = directory / str(i), bytes(32)
            home.mkdir()
            keys.create(home / storekey.FILE)
            node = SimpleNamespace(home=home, root_key=root, index=i, sign_key=self.keys[i])
            node.fingerprint = self.fingerprints[i]
            store, mesh = Store(home / "s", storekey.current(home, root)), Mesh(i, self.all)
            copies = Copies(node=node, sets=peers.sets, store=store, mesh=mesh)
            parts = {"peers": peers, "store": store, "mesh": mesh, "copies": copies}
            one = SimpleNamespace(node=node, up=True, answer=copies.answer, **parts)
            one.refreshing = Refreshing(node=node, **parts)
            one.jobs = partial(Jobs, node=node, limits=None, shares=None, **parts)
            one.jobs.keywords.update(refreshing=one.refreshing, idle=Idle(mesh))
            if number is not None:
                store.restore({"scopes": [], "answered": []}, {MODEL: (JOB, self.held(i, number))})
            if number:
                note = {"number": number, "proof": self.proof(number)}
                store.put_note(REFRESHED, note)
            self.all.append(one)

    def __getitem__(self, i):
        return self.all[i]

    def peers(self):
        described = [{k: wire.public_hex(key) for k in NAMES} for key in self.keys]
        self.fingerprints = tuple(fingerprint(d) for d in described)
        return Peers(
            coordinator="",
            coordinator_cert="",
            nodes=tuple(described),
            fingerprints=self.fingerprints,
            former=self.former,
        )

    def succeeded(self, i):
        """Node i's home is lost; another key stands there, and the others have been told."""
        self.former, self.keys[i] = (list(self.fingerprints),), Ed25519PrivateKey.generate()
        self[i].up, peers = False, self.peers()
        for one in self.all:
            one.copies._sets = peers.sets
            parts = {"store": one.store, "mesh": one.mesh, "copies": one.copies}
            one.refreshing = Refreshing(node=one.node, peers=peers, **parts)

    def held(self, i, number):
        """The model as node i has it after that refresh; not of one secret, which nobody checks."""

        def made(what, j):
            return hashlib.sha256(f"{what}{number}{j}".encode())

        mine = held_by(i, self.n)
        first = self.former[0] if self.former else list(self.fingerprints)
        ticket = {"sharing": f"s{number}", "renewed": number, "shape": [2], "nodes": first}
        ticket["salts"] = {str(j): made("salt", j).hexdigest() for j in mine}
        words = [np.frombuffer(made("word", j).digest()[:16], np.uint64) for j in mine]
        return StoredModel(ticket=ticket, words=tuple(words))

    def proof(self, number, members=(0, 1, 2)):
        refresh = refreshes.refresh_of(
            id_=f"{number:032x}",
            after=number - 1,
            nodes=self.fingerprints,
            members=members,
            deadline_s=10,
        )
        receipts = []
        for i in members:
            receipt = {
                "v": 1,
                "refresh": refreshes.check_refresh(refresh),
                "number": number,
                "models": "00" * 32,
                "result": {str(j): str(j) for j in held_by(i, self.n)},
                "node": self.fingerprints[i],
                "at": 1,
            }
            signature = wire.sign(self.keys[i], refreshes.REFRESHED_DOMAIN, receipt)
            receipts.append({"receipt": receipt, "signature": signature})
        described = [{k: wire.public_hex(self.keys[i]) for k in NAMES} for i in members]
        keys_ = refreshes.keys_of(described)
        return {"refresh": refresh, "receipts": receipts, "keys": keys_}

    def state(self, i):
        """(its number, what it calls its shares)."""
        kept = self[i].store.kept().get(MODEL)
        return self[i].refreshing.state()["number"], kept and kept.name

    def lies(self, i, **changes):
        """Node i tells these instead of what it keeps."""
        true = self[i].answer

        def answer(asker, question):
            if b"refreshed" not in question:
                return true(asker, question)
            return wire.canonical(json.loads(true(asker, question)) | changes)

        self[i].answer = answer


@pytest.fixture
def nodes(tmp_path):
    made = []

    def make(*numbers):
        made.append(Nodes(tmp_path, len(numbers), numbers))
        return made[-1]

    yield make
    for one in made[0].all:
        one.store.close()


def test_what_is_committed_late_follows_the_others_to_their_shares(nodes):
    """Its number says that it was there: only what it keeps shows that it was not."""
    four = nodes(1, 1, 1, None)
    last = four[3]
    job = StoredJob(
        job_id=JOB, scope="round:x", attempt=1, digest="d", state="staged",
        record={"answer": {"receipt": {}}, "share_ids": [], "model": MODEL},
    )  # fmt: skip
    last.store.bind(scope="round:x", digest="d", share_ids=[], job_id=None, expires_at=1 << 40)
    staged = four.held(3, 0)
    last.store.stage(job, model=MODEL, result=staged.ticket, words=staged.words)
    assert last.refreshing.catch_up() and four.state(3) == (1, None)

    jobs = last.jobs()
    jobs._check_receipts = lambda *_: None
    last.refreshing._wake.clear()
    jobs.commit(JOB, [])
    assert last.refreshing._wake.is_set() and four.state(3) == (1, "s0")
    last.refreshing._renewed_at = -1e9
    assert last.refreshing.moved(MODEL, "s0")  # a job that met it is tried again
    assert last.refreshing.catch_up() and four.state(3) == (1, "s1")
    words = zip(last.store.model(MODEL).words, four.held(3, 1).words, strict=True)
    assert all(np.array_equal(a, b) for a, b in words)
    last.refreshing._renewed_at = -1e9
    assert not last.refreshing.catch_up() and not last.refreshing.moved(MODEL, "s1")


def test_no_number_without_the_shares_that_go_with_it(nodes):
    """Of five three went on; the others find one of them, then two, then all: two of each word."""
    five = nodes(1, 1, 1, 0, 0)
    for i in (1, 2):
        five[i].up = False
    for i in (0, 3, 4):
        assert not five[i].refreshing.catch_up()
    assert [five.state(i) for i in (0, 3, 4)] == [(1, "s1"), (0, "s0"), (0, "s0")]
    five[2].up = True
    assert not five[3].refreshing.catch_up() and five.state(3) == (0, "s0")
    five[1].up = True
    assert five[3].refreshing.catch_up() and five.state(3) == (1, "s1")


def test_a_model_that_nobody_gives_holds_up_no_other(nodes):
    """Nor is the number taken without it. One is behind here, one damaged."""
    four, behind, true = nodes(1, 1, 1, 0), "cd" * 32, []
    for i in range(4):
        four[i].store.renew("e0" * 16, {behind: four.held(i, 0 if i == 3 else 1)})
        true.append(four[i].answer)
        four[i].answer = lambda asker, asked, i=i: (
            None if behind.encode() in asked else true[i](asker, asked)
        )
    last, broken = four[3], "de" * 32
    for i in range(4):
        four[i].store.renew("e1" * 16, {broken: four.held(i, 1)})
    damage = "UPDATE models SET words = zeroblob(100) WHERE model = ?"
    last.store._db.execute(damage, (broken,))
    last.store.examine()
    assert last.refreshing.catch_up() and four.state(3) == (0, "s1")
    assert not last.store.damaged and last.store.kept()[behind].name == "s0"
    assert not last.refreshing.catch_up()
    for i in range(3):
        four[i].answer = true[i]
    assert last.refreshing.catch_up() and four.state(3) == (1, "s1")
    assert last.store.kept()[behind].name == "s1"


def test_two_that_name_a_wrong_sharing_keep_no_model_from_being_repaired(nodes):
    """Of Shamir shares of a higher threshold so many may be wrong."""
    five = nodes(0, 0, 0, 0, 0)
    five[0].store._db.execute("UPDATE models SET words = zeroblob(100)")
    five[0].store.examine()
    for i in (1, 2):
        five.lies(i, sharings={MODEL: [9, "s9"]})
    assert five[0].refreshing.catch_up() and not five[0].store.damaged
    assert five.state(0) == (0, "s0")


LIES = [
    {"sharings": {MODEL: [0, "s0"]}},
    {"sharings": {}},
    {"sharings": {MODEL: [9, "s9"]}, "number": 9},
    {"sharings": {MODEL: ["9", []]}},
    {"sharings": {MODEL: [9, []]}},
    {"sharings": []},
    {"number": "1"},
]


def test_what_one_other_tells_alone_changes_nothing(nodes):
    four = nodes(1, 1, 1, 0)
    true, four[1].up = four[0].answer, False
    for lie in LIES:
        four[0].answer = true
        four.lies(0, **lie)
        assert not four[3].refreshing.catch_up() and four.state(3) == (0, "s0")
    four[0].answer = lambda asker, asked: b"[]" if b"refreshed" in asked else true(asker, asked)
    four[1].up = True
    assert four[3].refreshing.catch_up() and four.state(3) == (1, "s1")


def test_only_what_the_proof_names_is_taken_from_the_stage(nodes):
    """One refresh run twice, with other entropy, gives other words under the same name."""
    three = nodes(1, 0, 0)
    proof = three.proof(1)
    for i, receipt in ((1, {"of": "another run"}), (2, proof["receipts"][2]["receipt"])):
        three[i].store.stage_renewed([(MODEL, three.held(i, 1))])
        three[i].store.put_note(STAGED, {"refresh": proof["refresh"], "receipt": receipt})
    assert not three[1].refreshing.catch_up() and three.state(1) == (0, "s0")
    with pytest.raises(Refused):  # so it is not run twice by those who remember it
        three[1].refreshing._decided(proof["refresh"])
    assert three[2].refreshing.catch_up() and three.state(2) == (1, "s1")
    assert three[1].refreshing.catch_up() and three.state(1) == (1, "s1")
    assert three[1].store.note(STAGED) is None


def test_a_refresh_outlives_the_node_that_a_successor_follows(nodes):
    """One of three had it done, one had it staged, the third is lost with its keys."""
    three = nodes(1, 0, 0)
    proof = three.proof(1)
    three[1].store.stage_renewed([(MODEL, three.held(1, 1))])
    staged = {"refresh": proof["refresh"], "receipt": proof["receipts"][1]["receipt"]}
    three[1].store.put_note(STAGED, staged)
    three.succeeded(2)
    assert three.state(0) == (1, "s1") and not three[0].refreshing.catch_up()
    three.lies(0, proof=proof | {"keys": refreshes.keys_of(three[0].refreshing._peers.nodes)})
    assert not three[1].refreshing.catch_up()  # the lost node's key is not among these
    three.lies(0, proof=proof)
    assert three[1].refreshing.catch_up() and three.state(1) == (1, "s1")


def test_who_missed_some_before_a_succession_still_has_to_copy_them(nodes):
    five = nodes(2, 2, 2, 0, 2)
    five.succeeded(4)
    assert five[3].refreshing.catch_up() and five.state(3) == (2, "s2")
    assert not five[0].refreshing.catch_up()


def test_a_job_whose_model_is_damaged_has_it_copied_again(nodes):
    """What one other tells alone is not taken for it either."""
    three = nodes(0, 0, 0)
    three[0].store._db.execute("UPDATE models SET words = zeroblob(100)")
    jobs, store = three[0].jobs(), three[0].store
    three[0].refreshing._wake.clear()
    with pytest.raises(Unavailable) as failed:
        jobs._model(MODEL)
    assert failed.value.code == "model_damaged" and failed.value.retryable
    assert three[0].refreshing._wake.is_set() and store.damaged == {MODEL}
    three[2].up = False
    assert not three[0].refreshing.catch_up() and store.damaged == {MODEL}
    three[2].up = True
    assert three[0].refreshing.catch_up() and not store.damaged
    words = zip(jobs._model(MODEL).words, three.held(0, 0).words, strict=True)
    assert all(np.array_equal(a, b) for a, b in words)


def test_what_one_alone_names_or_holds_does_not_hold_up_a_recovery(nodes):
    three, invented, unlike = nodes(None, 0, 0), "ba" * 32, "bb" * 32
    marks = json.loads(three[1].answer(0, b'{"marks":true}'))
    true = [three[i].answer for i in (1, 2)]
    for i, more in ((1, [[invented, JOB], [unlike, JOB]]), (2, [[unlike, JOB]])):
        told = wire.canonical(marks | {"models": marks["models"] + more})
        three[i].answer = lambda asker, asked, told=told, real=true[i - 1]: (
            told if b"marks" in asked else real(asker, asked)
        )
    assert three[0].copies.recover() == ([MODEL], [invented, unlike])
    assert set(three[0].store.kept()) == {MODEL}


def test_a_copy_of_what_was_signed_for_is_held_against_the_hashes(nodes):
    """Of three nodes one holds each word alone: what it tells is not taken for want of another."""
    three = nodes(None, 0, 0)
    jobs = three[0].jobs()
    ticket, words = three.held(0, 0).ticket, three.held(0, 0).words
    hashes = {
        str(j): hashlib.sha256(bytes.fromhex(ticket["salts"][str(j)]) + word.tobytes()).hexdigest()
        for j, word in zip(held_by(0), words, strict=True)
    }
    copied = jobs._copied(MODEL, "s0", hashes)[1]
    assert all(np.array_equal(a, b) for a, b in zip(copied, words, strict=True))
    with pytest.raises(Unavailable):
        jobs._copied(MODEL, "s0", hashes | {"1": "00" * 32})
