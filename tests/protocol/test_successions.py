"""Who may say that a node's place is another key's from now on, and which sets follow which."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from apps.protocol import successions, wire
from apps.protocol.jobs import fingerprint

Keys = tuple[Ed25519PrivateKey, dict[str, str]]


def made() -> Keys:
    key = Ed25519PrivateKey.generate()
    return key, {"sign_key": wire.public_hex(key), "hpke_key": wire.public_hex(key)[::-1]}


def names(keys: list[Keys]) -> list[str]:
    return [fingerprint(public) for _, public in keys]


def succession(nodes: list[Keys], index: int, new: Keys, by: list[Keys]) -> dict[str, Any]:
    said = successions.statement_of(
        old=names(nodes)[index], new=fingerprint(new[1]), nodes=names(nodes)
    )
    signed = [
        public | {"signature": wire.sign(key, successions.SUCCESSION_DOMAIN, said)}
        for key, public in by
    ]
    return {"statement": said, "signatures": signed}


@pytest.fixture
def nodes() -> list[Keys]:
    return [made() for _ in range(3)]


def test_the_old_key_or_two_others_may_say_so(nodes: list[Keys]) -> None:
    new, stranger = made(), made()
    for by, may in (
        ([nodes[1]], True),
        ([nodes[0], nodes[2]], True),
        ([nodes[0]], False),
        ([nodes[0], nodes[0]], False),
        ([nodes[0], stranger], False),
        ([nodes[0], new], False),
        ([stranger, made()], False),
        ([], False),
    ):
        assert successions.is_succession(succession(nodes, 1, new, by)) == may
    good = succession(nodes, 1, new, [nodes[1]])
    other = good["statement"] | {"new": fingerprint(stranger[1])}
    assert not successions.is_succession(good | {"statement": other})
    assert not successions.is_succession(None) and not successions.is_succession({})
    many = [made() for _ in range(7)]
    for n, least in ((4, 2), (5, 3), (6, 3), (7, 4)):  # so that t with a friend's key are not t + 1
        for count in (least - 1, least):
            signed = succession(many[:n], n - 1, new, many[:count])
            assert successions.is_succession(signed) == (count == least), (n, count)
    taken = succession(nodes, 1, nodes[0], [nodes[1]])
    assert not successions.is_succession(taken)


def test_what_follows_a_set_was_signed_for_just_that_set(nodes: list[Keys]) -> None:
    one, two = made(), made()
    first = succession(nodes, 1, one, [nodes[1]])
    middle = [nodes[0], one, nodes[2]]
    second = succession(middle, 0, two, [nodes[0]])
    for said in ([first, second], [second, first]):
        assert successions.successions_after(names(nodes)[::-1], said) == [first, second]
    assert successions.successions_after(names(middle), [first, second]) == [second]
    # a set that never was, all of whose keys are trusted; a larger list; a place taken once
    never = succession([nodes[1], one, nodes[0]], 2, two, [nodes[1], one])
    assert successions.successions_after(names(nodes), [first, never]) == [first]
    assert successions.successions_after([*names(nodes), "ee" * 32], [first]) == []
    other = succession(nodes, 1, two, [nodes[1]])
    assert successions.successions_after(names(nodes), [first, other]) == [first]
    # back and forth ends
    back = succession(middle, 1, nodes[1], [one])
    assert successions.successions_after(names(nodes), [first, back]) == [first, back]


def test_sets_follow_each_other_as_their_descriptors_say(nodes: list[Keys]) -> None:
    one, two = made(), made()
    first = succession(nodes, 1, one, [nodes[0], nodes[2]])
    middle = [nodes[0], one, nodes[2]]
    second = succession(middle, 0, two, [nodes[0]])
    last = [two, one, nodes[2]]
    carried = [{"succeeds": [second]}, {"succeeds": [first]}, {}]
    assert successions.sets_before(names(last), carried) == [names(middle), names(nodes)]
    assert successions.sets_before(names(last), carried[1:]) == []
    assert successions.sets_before(names(middle), carried) == [names(nodes)]
    # signed by one alone: nobody's word
    weak = succession(nodes, 1, one, [nodes[0]])
    assert successions.sets_before(names(middle), [{"succeeds": [weak]}]) == []
    # back and forth ends
    back = succession(middle, 1, nodes[1], [one])
    assert successions.sets_before(names(middle), [{"succeeds": [back, first]}]) == [names(nodes)]
