"""Tickets and rosters: what is accepted, and the code of each refusal."""

import itertools
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from apps.protocol import refreshes, tickets, wire
from apps.protocol.jobs import JobError

NOW = 1_800_000_000
GOLDEN_ROUND_TICKET_ID = "8f833a26939786b4eea79e38b2bc4fe1ea8650b3c0b3d1545594056f9ceefb5d"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def round_ticket(**changes):
    ticket = {
        "v": 1,
        "type": "share",
        "share_id": "0a" * 16,
        "sender": wire.public_hex(KEY),
        "scope": "round:7d8c1f0e-6a55-4a1e-9d2a-1f2e3d4c5b6a",
        "slot": "update",
        "circuits": ["logistic_round@1"],
        "circuits_hash": "11" * 32,
        "engine": "ring",
        "nodes": ["01" * 32, "02" * 32, "03" * 32],
        "roster": "22" * 32,
        "model": None,
        "params": {"features": 2, "rows": [4, 4]},
        "shape": [3],
        "f": 16,
        "commitment": ["aa" * 32, "bb" * 32, "cc" * 32],
        "uses": 1,
        "issued_at": NOW,
        "expires_at": NOW + 3600,
        "reply_key": None,
        "price_micro": None,
        "resolution": "logit",
    }
    return ticket | changes


def query_ticket(**changes):
    query = {
        "scope": "query:" + "ab" * 16,
        "slot": "row",
        "roster": None,
        "model": "33" * 32,
        "reply_key": "44" * 32,
        "price_micro": "500000",
    }
    return round_ticket() | query | changes


def upload_of(ticket):
    return {
        "ticket": ticket,
        "signature": wire.sign(KEY, tickets.TICKET_DOMAIN, ticket),
        "envelopes": [wire.b64(b"e" * 200)] * 3,
        "correction": wire.b64(bytes(8 * 3 + 16)),
    }


@pytest.mark.parametrize("ticket", [round_ticket(), query_ticket()])
def test_a_signed_ticket_is_accepted_and_keeps_its_id(ticket):
    checked = tickets.check_upload(upload_of(ticket), now=NOW)
    assert checked.id == tickets.ticket_id(ticket)
    assert checked.values == 3
    assert checked.is_query == (ticket["scope"][0] == "q")


def test_parameters_may_be_whatever_has_a_canonical_form_inside_of_a_ticket():
    deepest = 1
    for _ in range(wire.MAX_DEPTH - 2):
        deepest = [deepest]
    for held, good in ((deepest, True), ([deepest], False), ("\ud800", False), (2**53, True)):
        ticket = round_ticket(params={"x": held})
        try:
            wire.canonical(ticket)
        except ValueError:
            assert not good
            with pytest.raises(tickets.TicketError) as error:
                tickets.check_ticket(ticket, now=NOW)
            assert error.value.code == "malformed"
        else:
            assert good
            assert tickets.check_ticket(ticket, now=NOW).id == tickets.ticket_id(ticket)


def test_the_id_of_a_ticket_is_a_golden_vector():
    assert tickets.ticket_id(round_ticket()) == GOLDEN_ROUND_TICKET_ID


@pytest.mark.parametrize("n", [4, 5])
def test_a_ticket_may_name_four_or_five_nodes_and_commits_to_a_word_for_each(n):
    several = {"nodes": [f"{i:02x}" * 32 for i in range(n)], "commitment": ["aa" * 32] * n}
    assert len(tickets.check_ticket(round_ticket(**several), now=NOW).nodes) == n
    for wrong in (
        {"nodes": several["nodes"]},
        {"commitment": several["commitment"]},
        several | {"nodes": [several["nodes"][0]] * n},
        {"nodes": [f"{i:02x}" * 32 for i in range(8)], "commitment": ["aa" * 32] * 8},
    ):
        with pytest.raises(tickets.TicketError) as error:
            tickets.check_ticket(round_ticket(**wrong), now=NOW)
        assert error.value.code == "malformed"


REFUSALS = """
malformed      share_id      0a
malformed      sender        AB
malformed      scope         round
malformed      scope         job:1
malformed      slot          Update
malformed      circuits      []
malformed      circuits      ["logistic_round"]
malformed      circuits_hash null
malformed      engine        "shamir"
too_few_nodes  engine        "ring_verified"
malformed      nodes         []
malformed      shape         []
malformed      shape         [0]
malformed      shape         [true]
too_large      shape         [2000000, 2]
malformed      f             41
malformed      commitment    []
malformed      uses          2
malformed      expires_at    1
malformed      expires_at    1900000000
malformed      roster        null
malformed      reply_key     "4444444444444444444444444444444444444444444444444444444444444444"
malformed      model         "44"
malformed      price_micro   "1"
malformed      resolution    "weights"
malformed      params        {"x": 0.5}
not_yet_valid  issued_at     1800001000
"""


@pytest.mark.parametrize("line", REFUSALS.strip().splitlines())
def test_a_wrong_field_is_refused(line):
    code, name, value = line.split(None, 2)
    try:
        value = json.loads(value)
    except ValueError:
        pass
    with pytest.raises(tickets.TicketError) as error:
        tickets.check_ticket(round_ticket(**{name: value}), now=NOW)
    assert error.value.code == code


def test_a_round_may_go_on_from_a_model_and_sums_may_not():
    assert tickets.check_ticket(round_ticket(model="44" * 32), now=NOW).model == "44" * 32
    with pytest.raises(tickets.TicketError, match="model"):
        tickets.check_ticket(round_ticket(model="44" * 32, scope="moments:r1"), now=NOW)


@pytest.mark.parametrize("name", ["model", "reply_key", "price_micro", "resolution"])
def test_a_query_names_all_that_it_pays_for(name):
    with pytest.raises(tickets.TicketError, match=name):
        tickets.check_ticket(query_ticket(**{name: None}), now=NOW)


def test_who_signs_for_the_ring_signs_for_the_verified_one_and_not_the_other_way_round():
    ring, verified = tickets.RING, tickets.VERIFIED
    assert tickets.permits(ring, ring) and tickets.permits(ring, verified)
    assert tickets.permits(verified, verified) and not tickets.permits(verified, ring)
    nodes = [f"{i:02x}" * 32 for i in range(1, 5)]
    four = round_ticket(engine=verified, nodes=nodes, commitment=["aa" * 32] * 4)
    assert tickets.check_ticket(four, now=NOW).engine == verified


def test_shamir_shares_are_of_one_threshold_and_more_than_five_nodes_hold_nothing_else():
    prints = [f"{i:02x}" * 32 for i in range(8)]

    def code(engine, n):
        try:
            of_n = {"nodes": prints[:n], "commitment": ["aa" * 32] * n}
            return tickets.check_ticket(round_ticket(engine=engine, **of_n), now=NOW).engine
        except tickets.TicketError as error:
            return error.code

    for engine, t in tickets.SHAMIR.items():
        assert tickets.threshold_of(engine) == t
        few = "malformed" if t == 1 else "too_few_nodes"
        assert code(engine, 2 * t) == few and code(engine, 2 * t + 1) == engine
        permitted = [other for other in tickets.ENGINES if tickets.permits(engine, other)]
        permitted += [other for other in tickets.ENGINES if tickets.permits(other, engine)]
        assert permitted == [engine, engine]
    assert tickets.threshold_of(tickets.RING) == 1
    assert code(tickets.RING, 6) == code(tickets.VERIFIED, 7) == "too_many_nodes"
    assert code("shamir_t3", 8) == "malformed" == code("shamir_t4", 7)


def test_any_two_groups_that_compute_share_a_node():
    """What keeps a round from running twice is the node that is in both."""
    taken = {}
    for engine in tickets.ENGINES:
        for n in tickets.NODE_COUNTS:
            try:
                tickets.check_engine(engine, n)
            except tickets.TicketError as error:
                few = n < tickets.COMPUTING[engine]
                assert error.code == ("too_few_nodes" if few else "too_many_nodes")
                continue
            taken.setdefault(engine, []).append(n)
            groups = list(itertools.combinations(range(n), tickets.COMPUTING[engine]))
            assert all(set(a) & set(b) for a in groups for b in groups)
        assert taken[engine][-1] == tickets.nodes_max_of(engine)
    assert [taken[engine] for engine in tickets.SHAMIR] == [[3, 4, 5], [5, 6, 7], [7]]
    assert taken[tickets.RING] == [3, 4, 5] and taken[tickets.VERIFIED] == [4, 5]


@pytest.mark.parametrize(("count", "least"), [(3, 3), (4, 3), (5, 3), (6, 4), (7, 4)])
def test_any_two_groups_that_refresh_share_a_node(count, least):
    asked = {"v": 1, "type": "refresh", "id": "aa" * 16, "after": 0, "deadline_s": 10}
    asked["nodes"] = [f"{i:02x}" * 32 for i in range(count)]
    assert refreshes.members_least(count) == least and 2 * least > count
    assert refreshes.check_refresh(asked | {"members": list(range(least))})
    with pytest.raises(JobError, match="wrong form"):
        refreshes.check_refresh(asked | {"members": list(range(least - 1))})


def test_an_upload_of_shamir_shares_has_a_size_and_a_limit():
    three = tickets.check_ticket(round_ticket(engine="shamir_t1"), now=NOW)
    assert three.correction_bytes == 3 * (12 * three.values + 16)
    much = {"shape": [1 << 19], "nodes": [f"{i:02x}" * 32 for i in range(1, 6)]}
    much |= {"commitment": ["aa" * 32] * 5}
    assert tickets.check_ticket(round_ticket(**much), now=NOW)
    with pytest.raises(tickets.TicketError) as error:
        tickets.check_ticket(round_ticket(engine="shamir_t2", **much), now=NOW)
    assert error.value.code == "too_large"


def test_a_ticket_expires():
    with pytest.raises(tickets.TicketError) as error:
        tickets.check_ticket(round_ticket(), now=NOW + 3600)
    assert error.value.code == "expired"


# Another value of each field that its owner may have signed.
OTHERS = {
    "v": 2,
    "type": "result",
    "share_id": "0b" * 16,
    "sender": "05" * 32,
    "scope": "query:" + "ac" * 16,
    "slot": "model",
    "circuits": ["logistic_infer@2"],
    "circuits_hash": "12" * 32,
    "engine": "shamir",
    "nodes": ["01" * 32, "02" * 32, "04" * 32],
    "roster": "22" * 32,
    "model": "34" * 32,
    "params": {"features": 3, "rows": [4, 4]},
    "shape": [1, 3],
    "f": 17,
    "commitment": ["aa" * 32, "bb" * 32, "cd" * 32],
    "uses": 2,
    "issued_at": NOW - 1,
    "expires_at": NOW + 3601,
    "reply_key": "45" * 32,
    "price_micro": "500001",
    "resolution": "band",
    "access": {"shown": "x"},
}


@pytest.mark.parametrize("name", tickets.TICKET_FIELDS)
def test_every_field_is_under_the_signature(name):
    """Of two tickets that differ in one field, the signature of one does not do for the other.

    The ticket shown has the right form in every field, so nothing but its signature is wrong.
    """
    signed = query_ticket(**{name: OTHERS[name]})
    assert signed != query_ticket()
    upload = upload_of(query_ticket()) | {"signature": upload_of(signed)["signature"]}
    with pytest.raises(tickets.TicketError) as error:
        tickets.check_upload(upload, now=NOW)
    assert error.value.code == "bad_signature"


def test_a_forged_signature_is_refused():
    upload = upload_of(round_ticket())
    other = Ed25519PrivateKey.generate()
    upload["signature"] = wire.sign(other, tickets.TICKET_DOMAIN, upload["ticket"])
    with pytest.raises(tickets.TicketError) as error:
        tickets.check_upload(upload, now=NOW)
    assert error.value.code == "bad_signature"


@pytest.mark.parametrize(
    "part",
    [
        {"envelopes": []},
        {"envelopes": [wire.b64(b"x" * 5000)] * 3},
        {"envelopes": ["", "", ""]},
        {"correction": wire.b64(bytes(39))},
        {"correction": "###"},
        {"extra": 1},
    ],
)
def test_sealed_parts_of_another_size_are_refused(part):
    with pytest.raises(tickets.TicketError) as error:
        tickets.check_upload(upload_of(round_ticket()) | part, now=NOW)
    assert error.value.code == "malformed"


def roster():
    return tickets.roster_of(
        round_id="r1",
        members=[{"key": f"{i:02x}" * 32, "role": r, "name": f"site {i}"}
                 for i, r in [(9, "custodian"), (1, "validator"), (4, "custodian")]],
    )  # fmt: skip


def test_a_roster_is_sorted_and_hashed():
    r = roster()
    assert [m["key"][:2] for m in r["members"]] == ["04", "09", "01"]
    assert tickets.check_roster(r) == wire.digest(tickets.ROSTER_DOMAIN, r)
    assert tickets.members_with_role(r, "custodian") == ["04" * 32, "09" * 32]


def test_a_roster_with_a_key_twice_or_out_of_order_is_refused():
    for spoil in (
        lambda m: m.append(dict(m[2])),
        lambda m: m.reverse(),
        lambda m: m[0].update(role="owner"),
        lambda m: m[0].update(key="xx"),
        lambda m: m.clear(),
    ):
        r = roster()
        spoil(r["members"])
        with pytest.raises(tickets.TicketError) as error:
            tickets.check_roster(r)
        assert error.value.code == "bad_roster"


def test_who_may_ask_stands_in_a_ticket_only_where_it_is_asked_for():
    """So the tickets of every other model are what they were."""
    terms = {"credential": "hospital", "keys": ["ab" * 32]}
    assert tickets.check_ticket(round_ticket(), now=NOW).access is None
    assert tickets.check_ticket(round_ticket(access=terms), now=NOW).access == terms
    assert tickets.check_ticket(query_ticket(access={}), now=NOW).access == {}
    for bad in (
        round_ticket(access=None),
        round_ticket(access={}),
        round_ticket(access=terms | {"keys": []}),
        round_ticket(access=terms, scope="moments:r", resolution=None),
        query_ticket(access=None),
        query_ticket(access="x"),
        query_ticket(access={"shown": "x" * 5000}),
        query_ticket(access={"shown": 1.5}),
        query_ticket(access={1: "x"}),
    ):
        with pytest.raises(tickets.TicketError):
            tickets.check_ticket(bad, now=NOW)
