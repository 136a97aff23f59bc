"""Canonical bytes and signatures."""

import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from apps.protocol import wire

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-wire.SAFE_INT, wire.SAFE_INT)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=12,
)


def test_canonical_bytes_are_sorted_dense_utf8():
    assert (
        wire.canonical({"b": [1, True, None], "a": "é"}) == '{"a":"é","b":[1,true,null]}'.encode()
    )


@pytest.mark.parametrize(
    "bad", [1.0, 2**53 + 1, -(2**53) - 1, {1: 2}, b"x", {"a": {"b": 0.5}}, {1, 2}, "\ud800"]
)
def test_what_has_no_canonical_form_is_refused(bad):
    with pytest.raises(ValueError):
        wire.canonical(bad)


def test_nesting_is_bounded():
    deep = 1
    for _ in range(wire.MAX_DEPTH):
        deep = [deep]
    wire.canonical(deep)
    wire.canonical({"a": []} | {"b": deep[0]})
    with pytest.raises(ValueError):
        wire.canonical([deep])


def test_a_digest_is_sha256_over_domain_zero_and_bytes():
    assert wire.digest("d/v1", {"a": 1}) == hashlib.sha256(b'd/v1\0{"a":1}').hexdigest()
    assert wire.digest("d/v1", b"raw") == hashlib.sha256(b"d/v1\0raw").hexdigest()


@given(values)
def test_a_signature_holds_for_its_key_domain_and_content_only(value):
    key, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    signature = wire.sign(key, "d/v1", value)
    wire.verify(wire.public_hex(key), "d/v1", value, signature)
    wire.verify(wire.public_hex(key), "d/v1", wire.canonical(value), signature)
    for public, domain, content in (
        (wire.public_hex(other), "d/v1", value),
        (wire.public_hex(key), "d/v2", value),
        (wire.public_hex(key), "d/v1", [value]),
    ):
        with pytest.raises(wire.BadSignature):
            wire.verify(public, domain, content, signature)


@pytest.mark.parametrize("signature", ["", "zz", None, 5, "00" * 64, "AB" * 64])
def test_a_malformed_signature_is_a_bad_signature(signature):
    key = Ed25519PrivateKey.generate()
    with pytest.raises(wire.BadSignature):
        wire.verify(wire.public_hex(key), "d", {}, signature)


@pytest.mark.parametrize("text", ["AB", "a", "0x", None, " 00", "00\n"])
def test_hex_is_lower_case_and_whole_bytes(text):
    with pytest.raises(ValueError):
        wire.unhex(text)


def test_base64_is_strict():
    assert wire.unb64(wire.b64(b"\0\1\2")) == b"\0\1\2"
    for bad in ("a", "####", None, "AA=A"):
        with pytest.raises(ValueError):
            wire.unb64(bad)
