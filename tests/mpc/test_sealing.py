"""Sharing and sealing: any two nodes rebuild, no single one can, nothing can be swapped."""

import copy
import json
import time

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from apps.protocol import jobs, tickets, wire
from workers.mpc import commitments, keys, sealing, shamir_shares
from workers.mpc.engines import field89
from workers.mpc.replicated import PART, expand, held_by, join


class FakeNode:
    """A node's keys and its signed descriptor."""

    def __init__(self, index):
        self.sign = Ed25519PrivateKey.generate()
        self.hpke = X25519PrivateKey.generate()
        body = {
            "v": 1,
            "index": index,
            "name": f"node-{index}",
            "sign_key": wire.public_hex(self.sign),
            "hpke_key": keys.hpke_public_hex(self.hpke),
            "tls_cert": "-",
            "control": "127.0.0.1:1",
            "mesh": "127.0.0.1:2",
            "engines": ["ring"],
            "circuits_hash": "00" * 32,
            "release": "0",
        }
        self.descriptor = body | {"signature": wire.sign(self.sign, jobs.NODE_DOMAIN, body)}


FIVE = [FakeNode(i) for i in range(5)]
NODES = FIVE[:3]
DESCRIPTORS = [n.descriptor for n in NODES]
SENDER = Ed25519PrivateKey.generate()
REPLY = X25519PrivateKey.generate()
int64s = st.integers(-(2**63), 2**63 - 1)


def fields(**changes):
    now = int(time.time())
    return {
        "scope": "query:" + "ab" * 16,
        "slot": "row",
        "circuits": ["logistic_infer@1"],
        "circuits_hash": "11" * 32,
        "params": {"features": 3},
        "f": 16,
        "issued_at": now,
        "expires_at": now + 60,
        "model": "33" * 32,
        "price_micro": "1",
        "resolution": "logit",
    } | changes


def upload_of(values):
    return sealing.make_upload(
        np.array(values, dtype=np.int64), fields(), SENDER, DESCRIPTORS, reply=REPLY
    )


@given(st.lists(int64s, min_size=1, max_size=20), st.integers(3, 5))
def test_any_two_nodes_rebuild_what_was_shared(values, n):
    described = [node.descriptor for node in FIVE[:n]]
    upload = sealing.make_upload(np.array(values), fields(), SENDER, described, reply=REPLY)
    words = {}
    for i, node in enumerate(FIVE[:n]):
        opened = sealing.open_upload(upload, i, node.hpke)
        for j, word in zip(held_by(i, n), opened, strict=True):
            assert np.array_equal(words.setdefault(j, word), word)
    assert join(words).view(np.int64).tolist() == values


@pytest.mark.parametrize("n", [3, 5])
def test_what_a_node_keeps_is_short_and_stands_for_the_same_words(n):
    described = [node.descriptor for node in FIVE[:n]]
    upload = sealing.make_upload(np.arange(99), fields(), SENDER, described, reply=REPLY)
    for i, node in enumerate(FIVE[:n]):
        whole = sealing.open_upload(upload, i, node.hpke)
        short = sealing.open_short(upload, i, node.hpke)
        for j, word, kept in zip(held_by(i, n), whole, short, strict=True):
            assert isinstance(kept, bytes) == (j < n - 1)  # all but the correction
            assert np.array_equal(expand(kept, 99) if j < n - 1 else kept, word)


@pytest.mark.parametrize("n", [4, 5])
def test_a_node_of_more_gets_every_word_but_its_own(n):
    described = [node.descriptor for node in FIVE[:n]]
    upload = sealing.make_upload(np.arange(3), fields(), SENDER, described, reply=REPLY)
    for i, node in enumerate(FIVE[:n]):
        info = sealing.SEAL_CONTEXT + bytes.fromhex(tickets.ticket_id(upload["ticket"]))
        info += bytes.fromhex(upload["ticket"]["nodes"][i])
        content, _ = sealing._unseal(wire.unb64(upload["envelopes"][i]), node.hpke, info)
        assert sorted(content["words"]) == [str(j) for j in range(n) if j != i]
    two = [FIVE[0].descriptor, FIVE[1].descriptor]
    with pytest.raises(sealing.SealError):
        sealing.make_upload(np.arange(3), fields(), SENDER, two, reply=REPLY)


def test_the_shape_is_kept_and_an_upload_costs_about_eight_bytes_a_value():
    values = np.arange(3000, dtype=np.int64).reshape(100, 30)
    upload = sealing.make_upload(values, fields(), SENDER, DESCRIPTORS, reply=REPLY)
    assert sealing.open_upload(upload, 0, NODES[0].hpke)[0].shape == (100, 30)
    assert len(json.dumps(upload)) < 3000 * 8 * 4 / 3 + 6000
    five = sealing.make_upload(values, fields(), SENDER, [n.descriptor for n in FIVE], reply=REPLY)
    assert len(json.dumps(five)) < 3000 * 8 * 4 / 3 + 9000


def test_two_uploads_of_the_same_values_have_nothing_in_common():
    one, two = upload_of([5, 6]), upload_of([5, 6])
    assert one["ticket"]["commitment"] != two["ticket"]["commitment"]
    assert one["correction"] != two["correction"]
    assert not set(one["envelopes"]) & set(two["envelopes"])


def test_a_nodes_words_are_uniform():
    upload = upload_of([0] * 20_000)
    for word in sealing.open_upload(upload, 1, NODES[1].hpke):
        counts = np.bincount(word.view(np.uint8), minlength=256)
        chi2 = float(((counts - counts.mean()) ** 2 / counts.mean()).sum())
        assert 150 < chi2 < 380  # 255 degrees of freedom


def test_an_envelope_opens_for_its_own_node_only():
    upload = upload_of([1, 2, 3])
    with pytest.raises(sealing.SealError) as error:
        sealing.open_upload(upload, 0, NODES[1].hpke)
    assert error.value.code == "sealed_elsewhere"
    upload["envelopes"].reverse()
    with pytest.raises(sealing.SealError) as error:
        sealing.open_upload(upload, 0, NODES[0].hpke)
    assert error.value.code == "sealed_elsewhere"


def test_a_foreign_envelope_under_an_own_ticket_does_not_open():
    victim, mine = upload_of([1, 2, 3]), upload_of([4, 5, 6])
    for part in ("envelopes", "correction"):
        mixed = mine | {part: victim[part]}
        with pytest.raises(sealing.SealError):
            sealing.open_upload(mixed, 0, NODES[0].hpke)


@pytest.mark.parametrize("j", range(3))
def test_an_altered_commitment_is_seen_by_both_holders(j):
    values = np.array([1, 2, 3], dtype=np.int64)
    honest = commitments.commit

    def lie(*, salt, share_id, j: int, word, wrong=j):
        return honest(
            salt=salt, share_id=share_id, j=j, word=bytes(word)[::-1] if j == wrong else word
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commitments, "commit", lie)
        upload = sealing.make_upload(values, fields(), SENDER, DESCRIPTORS, reply=REPLY)
    for i, node in enumerate(NODES):
        if j == i:
            sealing.open_upload(upload, i, node.hpke)
        else:
            for opens in (sealing.open_upload, sealing.open_short):
                with pytest.raises(sealing.SealError) as error:
                    opens(upload, i, node.hpke)
                assert error.value.code == "bad_commitment"


@pytest.mark.parametrize("size", [sealing.LONG - 1, sealing.LONG, PART, 2 * PART + 7])
def test_words_of_any_length_are_what_was_committed_to(size):
    """Long ones are hashed in parts while they are made."""
    values = np.arange(size, dtype=np.int64) * 977 - 5
    upload = sealing.make_upload(values, fields(), SENDER, DESCRIPTORS, binary=True, reply=REPLY)
    words = {}
    for i, node in enumerate(NODES):
        words.update(zip(held_by(i), sealing.open_upload(upload, i, node.hpke), strict=True))
    np.testing.assert_array_equal(join(words).view(np.int64), values)


def test_a_commitment_depends_on_salt_share_and_position():
    base = {"salt": b"s" * 16, "share_id": b"i" * 16, "j": 0, "word": b"w" * 8}
    others = [{"salt": b"t" * 16}, {"share_id": b"j" * 16}, {"j": 1}, {"word": b"v" * 8}]
    assert len({commitments.commit(**(base | o)) for o in [{}, *others]}) == 5


def test_unsigned_or_reordered_node_descriptors_are_refused():
    forged = copy.deepcopy(DESCRIPTORS)
    forged[1]["hpke_key"] = keys.hpke_public_hex(X25519PrivateKey.generate())
    with pytest.raises(jobs.JobError):
        sealing.make_upload(np.zeros(1, dtype=np.int64), fields(), SENDER, forged, reply=REPLY)
    with pytest.raises(sealing.SealError):
        sealing.make_upload(
            np.zeros(1, dtype=np.int64), fields(), SENDER, DESCRIPTORS[::-1], reply=REPLY
        )


def output_blobs(ticket, values, spoil=None):
    words = [np.array(w, dtype=np.uint64) for w in ([7, 9], [11, 2**63])]
    words.append(np.array(values, dtype=np.int64).view(np.uint64) - words[0] - words[1])
    blobs = []
    for i in range(3):
        mine = {j: words[j].copy() for j in held_by(i)}
        if spoil == i:
            mine[(i + 1) % 3][0] += np.uint64(1)
        blobs.append(
            sealing.seal_output(
                mine,
                f=16,
                job_id="aa" * 16,
                secret=sealing.reply_secret(ticket, DESCRIPTORS[i], REPLY),
                reply_key=ticket["reply_key"],
            )
        )
    return blobs


def test_the_buyer_opens_the_output_and_sees_a_disagreement():
    ticket = upload_of([1])["ticket"]
    values, f = sealing.open_outputs(output_blobs(ticket, [-5, 70000]), ticket, REPLY, DESCRIPTORS)
    assert values.tolist() == [-5, 70000] and f == 16
    for spoil in range(3):
        with pytest.raises(sealing.SealError, match="different words"):
            sealing.open_outputs(output_blobs(ticket, [1, 2], spoil), ticket, REPLY, DESCRIPTORS)


def test_an_output_opens_for_its_ticket_and_reply_key_only():
    ticket = upload_of([1])["ticket"]
    blobs = [wire.b64(b) for b in output_blobs(ticket, [1, 2])]
    assert sealing.open_outputs(blobs, ticket, REPLY, DESCRIPTORS)[0].tolist() == [1, 2]
    for wrong in (
        (blobs, upload_of([1])["ticket"], REPLY, DESCRIPTORS),
        (blobs, ticket, X25519PrivateKey.generate(), DESCRIPTORS),
        (blobs[::-1], ticket, REPLY, DESCRIPTORS),
        (blobs[:2], ticket, REPLY, DESCRIPTORS),
        (["?"] * 3, ticket, REPLY, DESCRIPTORS),
    ):
        with pytest.raises(sealing.SealError):
            sealing.open_outputs(*wrong)


def shared(values, n=5, engine="shamir_t2"):
    described = [node.descriptor for node in FIVE[:n]]
    fields_ = fields(engine=engine)
    return sealing.make_upload(np.array(values), fields_, SENDER, described, reply=REPLY)


def test_each_node_gets_its_own_shamir_share_and_no_other():
    values = [-(2**63), -1, 0, 7, 2**63 - 1]
    upload = shared(values)
    tickets.check_upload(upload, now=upload["ticket"]["issued_at"])
    opened = [sealing.open_upload(upload, i, node.hpke) for i, node in enumerate(FIVE)]
    assert all(limb.shape == (5,) for limbs in opened for limb in limbs)
    for few in ((0, 1, 2), (1, 3, 4), range(5)):
        put_together = shamir_shares.join({i: opened[i] for i in few})
        assert put_together.astype(np.int64).tolist() == values
    assert shamir_shares.join({i: opened[i] for i in (1, 3)}).astype(np.int64).tolist() != values
    # another node's envelope, and another's part of what is encrypted
    for i in (0, 1, 3, 4):
        with pytest.raises(sealing.SealError):
            sealing.open_upload(upload, 2, FIVE[i].hpke)
    data = wire.unb64(upload["correction"])
    size = len(data) // 5
    turned = upload | {"correction": wire.b64(data[size:] + data[:size])}
    for i, node in enumerate(FIVE):
        with pytest.raises(sealing.SealError) as error:
            sealing.open_upload(turned, i, node.hpke)
        assert error.value.code == "bad_correction"


@pytest.mark.parametrize(
    ("engine", "n", "computing", "named"),
    [
        ("shamir_t1", 3, (0, 1, 2), ""),
        ("shamir_t1", 5, (1, 2, 4), ""),
        ("shamir_t1", 5, (0, 1, 2, 4), "node 1"),
        ("shamir_t2", 5, (0, 1, 2, 3, 4), "node 1"),
    ],
)
def test_an_answer_in_shamir_shares_is_checked_by_all_of_them(engine, n, computing, named):
    ticket, values = shared([1], n, engine)["ticket"], np.array([[-5, 70000]])
    shares = shamir_shares.split(values, n=n, t=tickets.SHAMIR[engine])
    described = [node.descriptor for node in FIVE[:n]]

    def blobs(spoil=None):
        sealed = []
        for i in computing:
            share = field89.add(shares[i], field89.of_int(int(i == spoil)))
            secret = sealing.reply_secret(ticket, described[i], REPLY)
            to = {"secret": secret, "reply_key": ticket["reply_key"], "job_id": "aa" * 16}
            sealed.append(sealing.seal_share(i, share, shape=(1, 2), f=16, **to))
        return sealed

    def opened(sealed, among=computing):
        return sealing.open_outputs(sealed, ticket, REPLY, described, computing=among)

    got, f = opened(blobs())
    assert got.tolist() == values.tolist() and f == 16
    with pytest.raises(sealing.SealError, match=named or "one cannot tell which node"):
        opened(blobs(spoil=1))
    least = tickets.COMPUTING[engine]
    with pytest.raises(sealing.SealError, match="every computing node"):
        opened(blobs()[: least - 1], computing[: least - 1])


def test_key_files_are_private_kept_and_checked(tmp_path):
    path = tmp_path / "k"
    secret = keys.load_or_create(path)
    assert keys.load_or_create(path) == secret and path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    with pytest.raises(keys.KeyFileError, match="chmod 600"):
        keys.load(path)
    path.chmod(0o600)
    path.write_text("zz")
    with pytest.raises(keys.KeyFileError, match="32 bytes"):
        keys.load(path)
    with pytest.raises(keys.KeyFileError, match="missing"):
        keys.load(tmp_path / "none")
    with pytest.raises(keys.KeyFileError):
        keys.create(path)
