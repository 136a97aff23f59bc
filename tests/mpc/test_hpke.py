"""HPKE as others have it, and what only we ask of it: a given ephemeral key, exports, answers."""

from __future__ import annotations

import hmac
import secrets

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from workers.mpc import hpke

SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
NODE, OTHER = X25519PrivateKey.generate(), X25519PrivateKey.generate()
PUBLIC = NODE.public_key().public_bytes_raw()


def test_each_opens_what_the_librarys_suite_has_sealed_and_the_other_way() -> None:
    made = SUITE.encrypt(b"row", X25519PublicKey.from_public_bytes(PUBLIC), b"info")
    assert hpke.recipient(made[:32], NODE, b"info").open(made[32:]) == b"row"
    ours = hpke.sender(X25519PrivateKey.generate(), PUBLIC, b"info")
    assert SUITE.decrypt(ours.enc + ours.seal(b"row"), NODE, b"info") == b"row"


def test_a_secret_is_of_these_two_and_this_purpose() -> None:
    asker = X25519PrivateKey.generate()
    mine = hpke.sender(asker, PUBLIC, b"info")
    theirs = hpke.recipient(mine.enc, NODE, b"info")
    assert mine == theirs and mine.export(b"reply") == theirs.export(b"reply")
    others = [
        theirs.export(b"another purpose"),
        hpke.recipient(mine.enc, NODE, b"another ticket").export(b"reply"),
        hpke.recipient(mine.enc, OTHER, b"info").export(b"reply"),
        theirs.key,
        theirs.exporter,
    ]
    assert mine.export(b"reply") not in others


@pytest.mark.parametrize("size", [0, 1, 32, 63, 64])
def test_our_hmac_is_the_librarys(size: int) -> None:
    key = secrets.token_bytes(size)
    for message in (b"", b"m", bytes(200)):
        assert hpke._hmac(key, message) == hmac.digest(key, message, "sha256")
    with pytest.raises(ValueError, match="block"):
        hpke._hmac(bytes(65), b"")


def test_an_answer_may_be_given_twice_and_is_sealed_differently_each_time() -> None:
    secret, enc = bytes(32), bytes(range(32))
    one, two = hpke.answer(secret, enc, b"same"), hpke.answer(secret, enc, b"same")
    assert one[32:] != two[32:]
    assert hpke.open_answer(secret, enc, one) == hpke.open_answer(secret, enc, two) == b"same"
    for wrong in (
        (bytes(31) + b"1", enc, one),
        (secret, enc[::-1], one),
        (secret, enc, b"0" + one),
    ):
        with pytest.raises(InvalidTag):
            hpke.open_answer(*wrong)
    with pytest.raises(ValueError, match="nonce"):
        hpke.open_answer(secret, enc, one[:31])


def test_a_public_key_without_a_secret_is_refused() -> None:
    for ends in (lambda: hpke.sender(NODE, bytes(32), b""), lambda: hpke.recipient(b"", NODE, b"")):
        with pytest.raises(ValueError):
            ends()
