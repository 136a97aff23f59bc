"""Share refresh, three nodes over their real meshes in one process: whoever falls when, all keep
the old shares or all the new ones; what is thrown away opens nothing."""

import secrets
import shutil
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from apps.protocol import identity, jobs, refreshes, wire
from tests.support.meshes import Net, until
from workers.mpc import keys
from workers.mpc.refresh import Zeros
from workers.mpc.replicated import held_by, join
from workers.node import home as homes
from workers.node import storekey
from workers.node.copies import Copies
from workers.node.errors import NodeError, Refused, StartError, Unavailable
from workers.node.records import StoredModel
from workers.node.refreshing import STAGED, Refreshing
from workers.node.store import Store

MODEL, OTHER = "ab" * 32, "ac" * 32
SECRET = np.arange(6, dtype=np.uint64).reshape(2, 3)


class Death(BaseException):
    """The process ends here."""


class Three:
    """Three nodes that keep one model, and a second one that the last node lacks."""

    def __init__(self, directory):
        self.net = Net()
        self.coordinator = Ed25519PrivateKey.generate()
        self.homes = [directory / str(i) for i in range(3)]
        made = [
            homes.init(h, index=i, name=f"n{i}", control="h:1", mesh="h:2")
            for i, h in enumerate(self.homes)
        ]
        peers = {
            "coordinator": wire.public_hex(self.coordinator),
            "coordinator_cert": identity.certificate_pem(self.coordinator, "c"),
            "nodes": [node.descriptor() for node in made],
        }
        self.fingerprints = [jobs.fingerprint(d) for d in peers["nodes"]]
        words = [np.frombuffer(secrets.token_bytes(48), np.uint64).reshape(2, 3) for _ in range(2)]
        words.append(SECRET - words[0] - words[1])
        self.nodes = [None] * 3
        for i, home in enumerate(self.homes):
            homes.write_json(home / "peers.json", peers)
            self.start(i)
            held = StoredModel(
                ticket={"sharing": "cd" * 32, "shape": [2, 3], "salts": {}, "allows": ["x@1"]}
                | {"nodes": self.fingerprints},
                words=tuple(words[j] for j in held_by(i)),
            )
            kept = {MODEL: ("ef" * 16, held)} | ({OTHER: ("ee" * 16, held)} if i < 2 else {})
            self.store(i).restore({"scopes": [], "answered": []}, kept)
        self.connected()

    def start(self, i):
        node = homes.load(self.homes[i])
        store, mesh = storekey.open_store(node), self.net.meshes[i]
        copies = Copies(node=node, sets=[self.fingerprints], store=store, mesh=mesh)
        mesh.answer = copies.answer
        self.nodes[i] = Refreshing(
            node=node, peers=homes.load_peers(node), store=store, mesh=mesh, copies=copies
        )

    def connected(self):
        until(lambda: all(len(m.peers_up()) == 2 for m in self.net.meshes))

    def store(self, i):
        return self.nodes[i]._store

    def refresh(self, number, **changes):
        """What each node says to a refresh that the coordinator asks for, or why not."""
        refresh = refreshes.refresh_of(
            id_=secrets.token_hex(16),
            after=number,
            nodes=self.fingerprints,
            members=[0, 1, 2],
            deadline_s=20,
        )
        refresh |= changes
        signature = wire.sign(self.coordinator, refreshes.REFRESH_DOMAIN, refresh)

        def ask(node):
            try:
                return node.run(refresh, signature)
            except (NodeError, Death) as error:
                return error

        with ThreadPoolExecutor(3) as pool:
            return list(pool.map(ask, self.nodes))

    def words(self):
        """All words of the model as those who hold them do, which must be alike."""
        held = {}
        for i in range(3):
            for j, word in zip(held_by(i), self.store(i).model(MODEL).words, strict=True):
                assert np.array_equal(held.setdefault(j, word), word), (i, j)
        return held

    def numbers(self):
        return [node.state()["number"] for node in self.nodes]

    def restart(self, i):
        self.store(i).close()
        self.net.restart(i)
        self.start(i)
        self.connected()

    def close(self):
        self.net.close()
        for i in range(3):
            self.store(i).close()


@pytest.fixture
def three(tmp_path):
    three = Three(tmp_path)
    yield three
    three.close()


def test_new_words_of_the_same_secret_under_a_new_key(three, tmp_path):
    before, ticket = three.words(), three.store(0).model(MODEL).ticket
    shutil.copytree(three.homes[0], tmp_path / "stolen")
    old = [(h / "epoch.key").read_bytes() for h in three.homes]
    answers = three.refresh(0)
    after, renewed = three.words(), three.store(0).model(MODEL).ticket
    assert three.numbers() == [1, 1, 1] and np.array_equal(join(after), SECRET)
    assert all(np.all(before[j] != after[j]) for j in range(3))
    assert renewed["allows"] == ticket["allows"] and renewed["sharing"] != ticket["sharing"]
    # the coordinator gets signed, salted hashes, and nothing else
    assert [set(a["receipt"]["result"]) for a in answers] == [{"1", "2"}, {"0", "2"}, {"0", "1"}]
    proof = {k: three.nodes[2].state()["proof"][k] for k in ("refresh", "receipts")}
    keys = homes.load_peers(homes.load(three.homes[0])).sign_keys(range(3))
    assert refreshes.check_proof(proof, nodes=three.fingerprints, sign_keys=keys) == 1
    with pytest.raises(jobs.JobError):
        refreshes.check_proof(
            proof | {"receipts": proof["receipts"][:2]}, nodes=three.fingerprints, sign_keys=keys
        )
    # the thief: node 0's words of before with node 1's of after are no secret
    assert not np.any(before[1] + before[2] + after[0] == SECRET)
    # and a copy of the old file opens with nothing that is still there
    for home, key in zip(three.homes, old, strict=True):
        assert all(key.strip() not in path.read_bytes() for path in home.iterdir())
    (tmp_path / "stolen" / "epoch.key").unlink()
    for file in ("store.key", "epoch.key"):
        shutil.copy(three.homes[0] / file, tmp_path / "stolen" / file)
    with pytest.raises(StartError, match="another store key"):
        storekey.open_store(homes.load(tmp_path / "stolen"))
    assert not isinstance(three.refresh(1)[0], Exception) and three.numbers() == [2, 2, 2]


def test_what_one_member_lacks_stays_as_it_is(three):
    kept = three.store(0).kept()[OTHER].name
    receipt = three.refresh(0)[2]["receipt"]
    assert (receipt["count"], receipt["left"]) == (1, 1)  # and whoever reads the log is told so
    assert three.store(0).kept()[OTHER].name == kept and three.numbers() == [1, 1, 1]
    assert three.nodes[0].moved(OTHER, kept) and three.nodes[0].moved(MODEL, "cd" * 32)


def damage(three, i, model, column):
    """Bits of node i's disk are no longer what they were."""
    with sqlite3.connect(three.homes[i] / "store.sqlite") as db:
        db.execute(f"UPDATE models SET {column} = zeroblob(100) WHERE model = ?", (model,))
    db.close()
    three.store(i)._models.clear()


def test_a_damaged_model_is_copied_again_and_holds_up_no_other(three, caplog):
    damage(three, 0, OTHER, "body")  # only one other has this one: nothing can be done
    assert set(three.store(0).kept()) == {MODEL} and three.store(0).damaged == {OTHER}
    receipt = three.refresh(0)[2]["receipt"]
    assert three.numbers() == [1, 1, 1] and (receipt["count"], receipt["left"]) == (1, 1)
    damage(three, 0, MODEL, "body")
    assert three.nodes[0].catch_up()
    damage(three, 2, MODEL, "words")  # which only reading them shows
    assert three.nodes[1]._copies.answer(0, b'{"refreshed":true}')
    three.refresh(1)
    assert three.numbers() == [2, 2, 2] and np.array_equal(join(three.words()), SECRET)
    assert three.store(0).damaged == {OTHER} and not three.store(2).damaged
    damage(three, 1, MODEL, "words")  # and whoever is asked for it does not let others wait
    asked = wire.canonical({"model": MODEL, "sharing": None})
    assert three.nodes[1]._copies.answer(0, asked) == b""
    assert three.nodes[1].catch_up() and three.nodes[1]._copies.answer(0, asked)
    assert caplog.text.count("a stored model is damaged") == 4


def test_a_stage_that_is_damaged_does_not_stay_for_ever(three, monkeypatch):
    with monkeypatch.context() as patch:
        dies(patch, three, "before it believes the others")
        three.refresh(0)
    with sqlite3.connect(three.homes[2] / "store.sqlite") as db:
        db.execute("UPDATE renewed SET words = zeroblob(100)")
    db.close()
    three.restart(2)
    three.nodes[2].catch_up()
    three.nodes[2].catch_up()
    assert three.numbers() == [1, 1, 1] and np.array_equal(join(three.words()), SECRET)


def dies(monkeypatch, three, where):
    """Node 2 ends at this point of a refresh."""
    node, home = three.nodes[2], three.homes[2]

    def before(target, name, mine=lambda *a: True):
        real = getattr(target, name)

        def fall(*arguments, **named):
            if mine(*arguments):
                raise Death
            return real(*arguments, **named)

        monkeypatch.setattr(target, name, fall)

    def after(target, name):
        real = getattr(target, name)

        def fall(*arguments, **named):
            real(*arguments, **named)
            raise Death

        monkeypatch.setattr(target, name, fall)

    if where == "before it has staged":
        before(node, "_stage")
    elif where == "before it has said so":
        after(node, "_stage")
    elif where == "before it believes the others":
        before(node, "_renew")
    elif where == "before all is under the new key":
        before(node._store, "rekeyed")
    elif where == "while that is written":
        after(node._store, "renew")
    elif where == "before the old key is destroyed":
        before(storekey, "settle", lambda h: h == home)
    elif where == "before the new key is in its place":
        real = storekey.os.replace

        def fall(source, target):
            if target == home / storekey.FILE:
                raise Death
            real(source, target)

        monkeypatch.setattr(storekey.os, "replace", fall)


@pytest.mark.parametrize(
    ("where", "number"),
    [
        ("before it has staged", 0),
        ("before it has said so", 0),
        ("before it believes the others", 1),
        ("before all is under the new key", 1),
        ("while that is written", 1),
        ("before the old key is destroyed", 1),
        ("before the new key is in its place", 1),
    ],
)
def test_whoever_falls_when_all_have_the_old_shares_or_all_the_new(
    three, monkeypatch, where, number
):
    with monkeypatch.context() as patch:
        dies(patch, three, where)
        said = three.refresh(0)
    assert isinstance(said[2], Death)
    assert all(isinstance(s, Unavailable) == (number == 0) for s in said[:2])
    three.restart(2)
    three.nodes[2].catch_up()
    assert three.numbers() == [number] * 3
    assert not (three.homes[2] / storekey.NEXT).exists()
    assert np.array_equal(join(three.words()), SECRET)
    assert not any(isinstance(s, Exception) for s in three.refresh(number))
    assert three.numbers() == [number + 1] * 3 and np.array_equal(join(three.words()), SECRET)
    assert all(three.store(i).note(STAGED) is None for i in range(3))


def test_one_that_nobody_heard_does_not_hold_the_others_up(three, monkeypatch):
    """Two have the proof, the third hears of it before it takes part in the next."""
    with monkeypatch.context() as patch:
        patch.setattr(three.nodes[2], "_renew", lambda *a: (_ for _ in ()).throw(Death()))
        three.refresh(0)
    three.restart(2)
    assert three.numbers() == [1, 1, 0]
    three.refresh(1)
    assert three.numbers() == [2, 2, 2] and np.array_equal(join(three.words()), SECRET)


def test_a_store_of_an_earlier_time_copies_what_the_others_have(three, tmp_path):
    """Restored with its own old key, as from a backup of both."""
    three.store(2).close()
    shutil.copytree(three.homes[2], tmp_path / "backup")
    three.start(2)
    three.refresh(0)
    three.refresh(1)
    three.store(2).close()
    shutil.rmtree(three.homes[2])
    shutil.copytree(tmp_path / "backup", three.homes[2])
    three.restart(2)
    assert three.nodes[2].catch_up() and three.numbers() == [2, 2, 2]
    assert np.array_equal(join(three.words()), SECRET)
    assert not three.nodes[2].catch_up()


def test_only_the_coordinator_asks_and_only_for_the_next_one(three):
    three.coordinator, real = Ed25519PrivateKey.generate(), three.coordinator
    assert all(isinstance(s, Refused) and s.code == "bad_signature" for s in three.refresh(0))
    three.coordinator = real
    for changes, code in (
        ({"after": 5}, "other_number"),
        ({"members": [0, 1]}, "malformed"),
        ({"nodes": three.fingerprints[::-1]}, "wrong_nodes"),
    ):
        assert {s.code for s in three.refresh(0, **changes)} == {code}
    assert three.numbers() == [0, 0, 0]


def test_a_member_that_adds_something_else_changes_nothing(three, monkeypatch):
    monkeypatch.setattr(
        three.nodes[0],
        "_entropy",
        lambda s, r, n, real=three.nodes[0]._entropy: (
            Zeros(b"x", [bytes(32)], 3),
            real(s, r, n)[1],
        ),
    )
    assert all(isinstance(s, NodeError) for s in three.refresh(0))
    assert three.numbers() == [0, 0, 0] and np.array_equal(join(three.words()), SECRET)


def test_zeros_sum_to_nothing_and_are_uniform():
    count = 1 << 16
    zero = {j: np.zeros(count, np.uint64) for j in range(4)}
    for_one = Zeros(b"c", [bytes(32), secrets.token_bytes(32)], 4).add_to(zero)
    assert not np.any(join(for_one))
    for z in for_one.values():
        seen = np.bincount(z.view(np.uint8), minlength=256)
        assert ((seen - 8 * count / 256) ** 2 / (8 * count / 256)).sum() < 400  # χ², 255 d.o.f.


def test_a_key_that_may_be_the_stores_own_is_not_thrown_away(tmp_path, monkeypatch):
    """All is sealed under the next key, and something fails before that has its place."""
    root = bytes(32)
    keys.create(tmp_path / storekey.FILE)
    store = Store(tmp_path / "s", storekey.current(tmp_path, root))

    def sealed_anew(n):
        with store.rekeyed(storekey.begin(tmp_path, root, store)):
            store.put_note("a", {"n": n})

    def full(*_):
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(store, "_empty_log", full)
        sealed_anew(1)  # and the process ends here
    with monkeypatch.context() as patch, pytest.raises(Unavailable):
        patch.setattr(store, "_seal_anew", full)
        sealed_anew(2)
    assert not store.opens_with(storekey.begin(tmp_path, root, store))
    (tmp_path / storekey.NEXT).write_text("cut o")
    store.close()
    store = Store(tmp_path / "s", storekey.current(tmp_path, root))
    assert store.note("a") == {"n": 1}
    sealed_anew(3)
    storekey.settle(tmp_path)
    assert store.opens_with(storekey.current(tmp_path, root))
    store.close()


def test_no_store_is_begun_under_the_root_key_alone(tmp_path):
    """As after a restore of a home whose `epoch.key` is in no backup."""
    node = homes.init(tmp_path / "n", index=0, name="n", control="h:1", mesh="h:2")
    (node.home / storekey.FILE).unlink()
    store = storekey.open_store(node)
    assert store.opens_with(node.store_key) and not store.opens_with(node.root_key)
    assert node.store_key not in vars(node).values()
    store.close()


def test_a_store_that_is_sealed_anew_keeps_everything_or_nothing(tmp_path):
    store = Store(tmp_path / "s", bytes(32))
    store.put_note("a", {"n": 1})
    with pytest.raises(ZeroDivisionError), store.rekeyed(b"k" * 32):
        raise ZeroDivisionError
    assert store.note("a") == {"n": 1}
    stop = threading.Event()
    writer = threading.Thread(
        target=lambda: [store.put_note("b", {"n": n}) for n in iter(lambda: stop.is_set(), True)]
    )
    writer.start()
    for key in (b"k" * 32, b"l" * 32, b"m" * 32):
        with store.rekeyed(key):
            pass
        assert store.note("a") == {"n": 1}
    stop.set()
    writer.join()
    assert store.note("b") is None or "n" in store.note("b")
    store.close()
    with pytest.raises(StartError):
        Store(tmp_path / "s", b"l" * 32)
    Store(tmp_path / "s", b"m" * 32).close()
