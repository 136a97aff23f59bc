"""Logs that a server with the database and the log's key would write to steal: each is found, and
the same log without the theft is not."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from apps.protocol import consent, ledger, pool, tally, vault, wire
from apps.protocol.plans import Plan
from apps.protocol.privacy import Budget
from tests.client.test_verify import ADA, BOB, EXECUTED, MINT, leaf, transfer
from workers.client.crowdfund import Fund
from workers.client.earnings import Cycle, Finding, Made
from workers.client.exchange import SLASH_REF, Leaving
from workers.client.replay import Replay
from workers.client.votes import Ballots

EVE = "ee/main/USDC"
KEY = Ed25519PrivateKey.generate()
Leaf = dict[str, Any]


def bound(pid: str = "aa") -> Leaf:
    public = wire.public_hex(KEY)
    proof = wire.sign(KEY, consent.KEY_DOMAIN, consent.possession(pid, "wallet", public))
    body = {"id": "x", "pid": pid, "purpose": "wallet", "public_key": public, "proof": proof}
    return leaf("accounts.key_bound", body)


def word(kind: str, payload: dict[str, str], nonce: int = 1) -> dict[str, Any]:
    """What aa's key says to an action, as its leaf has it."""
    fields = {"key": wire.public_hex(KEY), "nonce": nonce, "expires_at": 5000}
    content = consent.message(pid="aa", kind=kind, payload=payload, **fields)
    signature = wire.sign(KEY, consent.ACTION_DOMAIN, content)
    return {"auth": "key", "signed": fields | {"signature": signature}}


def errors(leaves: list[Leaf], state: Replay | None = None) -> str:
    state = state or Replay()
    for index, one in enumerate(leaves):
        state.leaf(index, one)
    return " ".join(state.end().errors)


@pytest.mark.parametrize("kind", consent.LEAF_KINDS)
def test_no_hold_is_part_of_a_swap_or_of_another_leaf(kind: str) -> None:
    leaves = [bound(), transfer("1", MINT, ADA, 100),
              transfer("2", ADA, EVE, 100, phase="pend", kind=kind),
              transfer("3", ADA, EVE, 100, phase="post", kind=kind, pending="2")]  # fmt: skip
    assert f"{kind} takes from aa" in errors(leaves)


@pytest.mark.parametrize(
    "more", [{"credit": EVE}, {"kind": "y"}, {"ref": "q"}, {"amount_micro": "101"}]
)
@pytest.mark.parametrize("phase", ["post", "void"])
def test_a_hold_is_paid_as_what_it_was_held_for_or_not_at_all(
    phase: str, more: dict[str, str]
) -> None:
    payload = consent.send_payload(to="bb", asset="USDC", amount_micro=100)
    held = {"kind": consent.SEND, "ref": "r:1"}
    leaves = [bound(), transfer("1", MINT, ADA, 100),
              transfer("2", ADA, BOB, 100, phase="pend", **held, **word(consent.SEND, payload)),
              ]  # fmt: skip
    ended = transfer("3", ADA, BOB, 100, phase=phase, pending="2", **held)
    assert errors([*leaves, ended]) == ""
    bent = ended | {"body": ended["body"] | more}
    said = "post_over_hold" if "amount_micro" in more else "something else"
    assert said in errors([*leaves, bent])


def test_one_party_issues_all_there_is() -> None:
    """Shares of a pool that somebody else makes would empty it."""
    opened = {"pool": "pp", "base": "FLAI", "quote": "USDC", "shares": "LP-FLAI"}
    leaves = [
        transfer("1", MINT, ADA, 10**9),
        transfer("2", "00/issuance/FLAI", "aa/main/FLAI", 10**9),
        leaf("exchange.pool_opened", opened),
    ]
    state, issuance = pool.Pool(), "00/issuance/LP-FLAI"

    def changed(id_: str, kind: str, pid: str, change: pool.Change, limits: dict[str, int],
                legs: list[tuple[str, str, int]]) -> None:  # fmt: skip
        ref = {"kind": f"exchange.{kind}", "ref": f"exchange.pool:{id_}"}
        leaves.extend(transfer(f"{id_}{n}", *leg, **ref) for n, leg in enumerate(legs))
        after = change.pool
        facts = {"base_micro": change.base, "quote_micro": change.quote,
                 "shares_micro": change.shares, "base_after_micro": after.base,
                 "quote_after_micro": after.quote, "area": after.area,
                 "at_ms": after.at_ms}  # fmt: skip
        asked = {"base": "FLAI", **{name: str(value) for name, value in limits.items()}}
        body = {"id": id_, "pool": "pp", "kind": kind, "party": pid, "asked": asked}
        leaves.append(leaf("exchange.pool_changed", body | {k: str(v) for k, v in facts.items()}))

    added = pool.add(state, 10**9, 10**9, at_ms=1000)
    most = {"base_max_micro": 10**9, "quote_max_micro": 10**9, "shares_min_micro": 0}
    changed("a", "add", "aa", added, most, [
        ("aa/main/FLAI", "pp/pool/FLAI", 10**9), (ADA, "pp/pool/USDC", 10**9),
        (issuance, "aa/main/LP-FLAI", added.shares),
        (issuance, "pp/pool/LP-FLAI", 1000)])  # fmt: skip
    assert errors(leaves) == ""
    out = pool.remove(added.pool, added.shares, held=added.shares, at_ms=1000)
    least = {"shares_micro": added.shares, "base_min_micro": 0, "quote_min_micro": 0}
    leaves.append(transfer("z", "ee/issuance/LP-FLAI", "ee/main/LP-FLAI", added.shares))
    changed("r", "remove", "ee", out, least, [
        ("pp/pool/FLAI", "ee/main/FLAI", -out.base), ("pp/pool/USDC", EVE, -out.quote),
        ("ee/main/LP-FLAI", issuance, added.shares)])  # fmt: skip
    assert "ee does not issue LP-FLAI" in errors(leaves)


def test_a_reserve_is_not_taken_by_calling_it_minted() -> None:
    mint = {"kind": "subdaos.mint"}
    leaves = [transfer("1", "00/issuance/SDT-x", "dd/reserve/SDT-x", 9, **mint)]
    taken = transfer("2", "dd/reserve/SDT-x", "ee/main/SDT-x", 9, **mint)
    assert "emission's transfer" not in errors(leaves)
    assert "emission's transfer for None stands without its leaf" in errors([*leaves, taken])


def test_a_pledge_goes_to_the_request_that_was_signed() -> None:
    for rfm, said in (("A", ""), ("B", "pledges to another request than its escrow's")):
        state, id_ = Replay(), str(uuid.uuid4())
        for name in "AB":
            state.crowdfunds.funds[name] = Fund(f"{name}/escrow/USDC", 1000, opened=-(10**12))
            state.crowdfunds.escrows[f"{name}/escrow/USDC"] = name
        payload = consent.pledge_payload(rfm="A", amount_micro=50)
        paid = transfer(id_, ADA, f"{rfm}/escrow/USDC", 50, kind=consent.PLEDGE, ref="rfms.rfm:A",
                        asked_micro="50", **word(consent.PLEDGE, payload))  # fmt: skip
        told = {"id": id_, "rfm": rfm, "party": "aa", "amount_micro": "50"}
        found = errors(
            [bound(), transfer("1", MINT, ADA, 100), paid, leaf("rfms.pledged", told)], state
        )
        assert said in found and bool(said) == bool(found)


def test_no_agent_key_is_replaced_in_the_old_form() -> None:
    leaves = []
    for key in (KEY, KEY, Ed25519PrivateKey.generate()):
        public = wire.public_hex(key)
        proof = wire.sign(key, consent.KEY_DOMAIN, consent.possession("aa", "agent", public))
        body = {"pid": "aa", "public_key": public, "signature": proof}
        leaves.append(leaf("accounts.signing_key", body))
    assert errors(leaves[:2]) == ""
    assert "replaced a key in the old form" in errors(leaves)


def test_no_more_is_issued_than_a_cap_or_a_founding_says() -> None:
    flai, cap = "00/issuance/FLAI", ledger.BASE_CAPS["FLAI"]
    made = leaf("wallets.asset", {"id": "LP-x", "cap_micro": "5"})
    five = transfer("1", "00/issuance/LP-x", "ee/main/LP-x", 5)
    for leaves, said in (
        ([transfer("1", flai, "ee/main/FLAI", cap)], ""),
        ([transfer("1", flai, "ee/main/FLAI", cap + 1)], "insufficient_balance"),
        ([leaf("wallets.asset", {"id": "FLAI", "cap_micro": "5"})], "made twice, or after"),
        ([made, five], ""),
        ([made, five, transfer("2", "00/issuance/LP-x", "ee/main/LP-x", 1)], "insufficient"),
        ([five, made], "made twice, or after it was issued"),
        ([transfer("1", "00/issuance/SDT-x", "ee/main/SDT-x", 1)], "that no founding asks for"),
    ):
        found = errors(leaves)
        assert said in found and bool(said) == bool(found), (leaves, found)


# What points a SubDAO's members have, told by its leaves.


def applied(pid: str, role: str = "custodian") -> Leaf:
    facts = {"id": f"of-{pid}", "key": pid * 32, "party": pid, "role": role, "call": "cc"}
    return leaf("participants.application", facts)


def points(pid: str, micro: int, reason: str = "commitment", ref: str = "rr") -> Leaf:
    body = {"dao": "dd", "party": pid, "points_micro": str(micro), "from": 1000}
    return leaf("subdaos.sbgt", body | {"reason": reason, "ref": ref})


def counted(state: Replay) -> str:
    try:
        state.points.at("dd", 1000)
    except Finding as finding:
        return str(finding)
    return ""


def a_subdao() -> Replay:
    state = Replay()
    state.points.founded["dd"] = {"dao": "dd", "rfm": "rr", "decay_ppm": 900_000}
    state.members.of["dd"] = {"aa": "custodian", "ff": "validator"}
    return state


def carried(state: Replay, id_: str, kind: str, payload: dict[str, Any], **more: Any) -> None:
    """A vote of the SubDAO dd's members that ended at 500, and what it is of."""
    hash_ = tally.payload_hash(dao="dd", kind=kind, payload=payload)
    body = {"proposal": id_, "dao": "dd", "house": "sbgt", "kind": kind, "payload_hash": hash_,
            "timelock_s": 0, "grace_s": 60, "quorum_bps": 1, "threshold_bps": 5_000}  # fmt: skip
    ballots = Ballots(body=body | more, total=10, ends_at=500)
    ballots.weight[tally.Support.FOR] = 10
    state.votes.proposals[id_] = ballots


def did(type_: str, **body: Any) -> list[Leaf]:
    """What a vote did, and that it was executed."""
    hash_ = body.pop("hash")
    executed = {"proposal": body["proposal"], "payload_hash": hash_}
    return [leaf(type_, {"dao": "dd"} | body), leaf("governance.executed", executed)]


def test_members_come_and_go_by_votes_on_those_very_applications() -> None:
    let_in, put_out = "participants.whitelist", "participants.remove"
    two = [applied("bb"), applied("gg", "validator")]
    ids = ["of-bb", "of-gg"]

    def found(leaves: list[Leaf], members: dict[str, str], **more: Any) -> str:
        state = a_subdao()
        carried(state, "p", let_in, {"applications": ids}, **more)
        carried(state, "q", put_out, {"applications": ["of-bb"]})
        opened = {"round": "R", "dao": "dd", "members": members, "nodes": [], "roster": "x"}
        for index, one in enumerate([*leaves, leaf("training.round_opened", opened)]):
            state.leaf(index, one)
        return " ".join([*state.findings.errors, *state.votes.end()])

    state = a_subdao()
    carried(state, "p", let_in, {"applications": ids})
    carried(state, "q", put_out, {"applications": ["of-bb"]})
    hashes = {id_: b.body["payload_hash"] for id_, b in state.votes.proposals.items()}
    came = did("participants.whitelisted", proposal="p", applications=ids, hash=hashes["p"])
    went = did("participants.removed", proposal="q", applications=["of-bb"], hash=hashes["q"])
    before, both = {"aa": "custodian", "ff": "validator"}, {"bb": "custodian", "gg": "validator"}
    assert found(two, before) == found([*two, *came], before | both) == ""
    assert found([*two, *came, *went], before | {"gg": "validator"}) == ""
    assert "other members than were voted in: bb" in found([*two, *came, *went], before | both)
    assert "other members than were voted in: bb, gg" in found(two, before | both)
    other = [leaf("participants.whitelisted",
                  {"dao": "dd", "proposal": "p", "applications": ["of-bb"]})]  # fmt: skip
    assert "otherwise than was voted on" in found([*two, *other], before)
    assert "changed the members and was not executed" in found([*two, came[0]], before | both)
    assert "executed, and nothing came of it" in found([*two, came[1]], before)
    assert "changed the members twice" in found([*two, came[0], *came], before | both)
    assert "otherwise than was voted on" in found([*two, *came], before | both, house="sdt")
    assert "without a majority or quorum" in found(
        [*two, *came], before | both, threshold_bps=10_001
    )
    assert "never filed" in found([two[0], *came], before)
    assert "who is no member" in found([*two, *went], before)
    assert "was filed twice" in found([*two, *two[:1], *came], before | both)
    elsewhere = came[0] | {"body": came[0]["body"] | {"dao": "ee"}}
    assert "let in who applied to another SubDAO" in found([*two, *came, elsewhere], before | both)


def test_a_version_goes_on_sale_by_a_vote_on_what_its_round_made() -> None:
    kind, asked = "training.accept_version", {"version": "v", "number": 1, "model": "m"}

    def found(*leaves: Leaf, payload: dict[str, Any] = asked, **more: Any) -> str:
        state = a_subdao()
        carried(state, "p", kind, payload, **more)
        state.earnings.versions["dd", "1"] = Made({}, {"model": "m", "acceptance": hash_})
        for index, one in enumerate(leaves):
            state.leaf(index, one)
        return " ".join([*state.findings.errors, *state.votes.end()])

    hash_ = tally.payload_hash(dao="dd", kind=kind, payload=asked)
    facts = {"proposal": "p", "version": 1, "model": "m"}
    accepted, executed = did("training.version_accepted", hash=hash_, **facts)
    sold = leaf("listings.opened", {"listing": "l", "dao": "dd", "version": 1, "model": "m",
                                    "price_micro": "5"})  # fmt: skip
    assert found(accepted, executed, sold) == ""
    assert "sells version 1, never accepted" in found(sold)
    assert "executed, and nothing came of it" in found(executed)
    assert "accepted a version and was not executed" in found(accepted)
    assert "accepted a version twice" in found(accepted, accepted, executed)
    assert "not voted on" in found(accepted, executed, payload=asked | {"model": "n"})
    assert "not voted on" in found(accepted, executed, house="super")
    assert "without a majority" in found(accepted, executed, threshold_bps=10_001)
    other = [row | {"body": row["body"] | {"model": "n"}} for row in (accepted, sold)]
    assert found(*other).count("is of no round in the log") == 2


def test_a_commitment_counts_once_for_who_applied_until_the_award() -> None:
    first, point = [applied("aa"), points("aa", 10**6)], 10**6
    for more, said in (
        ([], ""),
        ([points("aa", 2 * point)], "aa was given points of dd for no commitment"),
        ([points("ee", point)], "ee was given points of dd for no commitment"),
        ([applied("bb"), points("bb", point)], ""),
        ([applied("bb"), leaf("rfms.awarded", {"id": "rr"}), points("bb", point)],
         "bb was given points of dd for no commitment"),
    ):  # fmt: skip
        assert said in (found := errors([*first, *more], a_subdao()))
        assert bool(said) == bool(found)


def test_what_a_round_changes_counts_when_the_round_has_said_why() -> None:
    members = {"aa": "custodian", "ff": "validator"}
    opened = {"round": "R", "dao": "dd", "members": members, "nodes": [], "roster": "x"}
    done = {"round": "R", "dao": "dd", "version": 1, "phi_milli": {"aa": 0}, "model": "m"}
    begun = [applied("aa"), points("aa", 10**6), leaf("training.round_opened", opened)]
    right = [points("ff", 10**6, "round", "R")]
    end = leaf("training.round_done", done | {"work": {"ff": 1}, "job": "j"})
    state = a_subdao()
    assert errors([*begun, *right, end], state) == "" and counted(state) == ""

    twice = [points("ff", 10**12, "round", "R"), *right]
    state = a_subdao()
    assert "changed twice for round R" in errors([*begun, *twice, end], state)
    state = a_subdao()
    assert errors([*begun, *right], state) and "while a round changed them" in counted(state)
    given_up = points("aa", 1, "converted", "c")
    given_up["body"]["taken_micro"] = str(10**6 - 1)
    assert "while a round's were" in errors([*begun, *right, given_up], a_subdao())

    more = leaf("training.round_done", end["body"] | {"work": {"ff": 10**9}})
    found = errors([*begun, points("ff", 10**15, "round", "R"), more], a_subdao())
    assert "credits more scoring than a round has" in found

    again = [leaf("training.round_done", end["body"] | {"version": 2})]
    failed = [leaf("training.round_failed", {"round": "R", "dao": "dd"})]
    void = [leaf("training.round_void", {"round": "R", "dao": "dd"})]
    for ends in ([end, *again], [end, *failed], [*failed, end], [*void, end], [*void, *failed]):
        assert "round R ended twice" in errors([*begun, *right, *ends], a_subdao())
    assert "round R was opened twice" in errors([*begun, begun[-1], *right, end], a_subdao())


def in_vault(id_: str, *legs: tuple[str, str, int, str], **told: Any) -> list[Leaf]:
    """A change of the vault vv: its transfers (debit, credit, micro-units, kind), then its leaf."""
    signed = told.pop("signed", {})
    moves = [
        transfer(f"{id_}{n}", *leg, kind=kind, ref=f"exchange.vault:{id_}", **signed)
        for n, (*leg, kind) in enumerate(legs)
    ]
    body = {"id": id_, "vault": "vv", "kind": "reward"}
    return [*moves, leaf("exchange.vault_changed", body | told)]


def test_nothing_is_staked_or_given_to_a_vault_by_calling_it_part_of_a_swap() -> None:
    made = vault.stake(vault.Vault(), vault.Position(), 10)
    facts = {"kind": "stake", "amount_micro": "10", "outside_micro": "0", "earned_micro": "0",
             "shares_micro": str(made.position.shares), "locked_until_ms": "0"}  # fmt: skip

    def stake(id_: str, pid: str, kind: str) -> list[Leaf]:
        return in_vault(
            id_, (f"{pid}/main/FLAI", f"{pid}/staked/FLAI", 10, kind),
            ("00/issuance/ST-FLAI", f"{pid}/vault/ST-FLAI", made.position.shares,
             "exchange.shares"), party=pid, **facts)  # fmt: skip

    opened = {"vault": "vv", "asset": "FLAI", "shares": "ST-FLAI", "delay_s": 60}
    leaves = [bound(), leaf("exchange.vault_opened", opened)]
    leaves += [transfer(pid, "00/issuance/FLAI", f"{pid}/main/FLAI", 99) for pid in ("aa", "bb")]
    leaves += stake("s", "bb", consent.STAKE)
    for kind in (consent.REWARD, consent.SWAP, "exchange.earned", "exchange.slash"):
        payload = consent.stake_payload(asset="FLAI", amount_micro=9)
        signed = word(kind, payload) if kind == consent.REWARD else {}
        given = in_vault("r", ("aa/main/FLAI", "vv/vault/FLAI", 9, kind), party="aa",
                         amount_micro="9", signed=signed)  # fmt: skip
        found = errors([*leaves, *given])
        assert (f"for exchange.vault:r is of the kind {kind}" in found) is (not signed)
        assert bool(found) is (not signed), found
    assert "is of the kind exchange.swap" in errors([*leaves, *stake("t", "aa", consent.SWAP)])


CARRIED_OUT = {
    "subdaos.pay": ("sdt", {"to": "ee", "asset": "USDC", "amount_micro": "5"}),
    "exchange.slash_flai": ("super", {"party": "aa", "amount_micro": "5"}),
    "subdaos.revoke": ("sbgt", {"party": "aa", "points_micro": "5"}),
    "subdaos.set_price": ("sdt", {"price_micro": "5"}),
}


@pytest.mark.parametrize("kind", CARRIED_OUT)
def test_what_a_vote_does_is_done_when_it_may_be(kind: str) -> None:
    house, payload = CARRIED_OUT[kind]
    hash_ = tally.payload_hash(dao="dd", kind=kind, payload=payload)
    slashing = str(uuid.uuid4())
    id_ = slashing if kind.startswith("exchange.") else "p"
    ref = {"proposal": id_, "dao": "dd"}
    bodies = {
        "subdaos.pay": ("subdaos.paid", {**ref, "transfer": "t", **payload}),
        "exchange.slash_flai": ("exchange.slashed", {
            "id": id_, "dao": "dd", "party": "aa", "asset": "FLAI", "asked_micro": "5",
            "staked_micro": "0", "unstaking": {"u": "5"}}),
        "subdaos.revoke": ("subdaos.sbgt", {
            "dao": "dd", "party": "aa", "reason": "revoked", "ref": id_, "taken_micro": "5",
            "points_micro": "4"}),
        "subdaos.set_price": ("subdaos.params", {**ref, "key": "price_micro", "value": "5"}),
    }  # fmt: skip
    type_, body = bodies[kind]
    rules = {"timelock_s": 1, "grace_s": 1, "quorum_bps": 2000, "threshold_bps": 5000}
    asked = {**ref, "house": house, "kind": kind, "payload_hash": hash_, **rules}
    for at, given, canceled, said in (
        (3000, 5, False, ""),
        (1999, 5, False, "before its deadline"),
        (2999, 5, False, "while its timelock ran"),
        (4000, 5, False, "after it had expired"),
        (3000, 1, False, "without a majority or quorum"),
        (3000, 5, True, "taken back before"),
    ):
        state = a_subdao()
        state.votes.proposals[id_] = Ballots(
            asked, total=10, weight={"for": given, "against": 0, "abstain": 0}, ends_at=2000,
            canceled=canceled)  # fmt: skip
        state.votes.spent["t"] = ("dd/treasury/USDC", "ee/main/USDC", 5)
        state.exchange.leaving["u"] = Leaving("aa", "FLAI", 5, 9000)
        moved = {("aa/unstaking/FLAI", "dd/treasury/FLAI"): 5}
        state.exchange.moved[SLASH_REF + slashing] = moved
        state.points.held["dd", "aa"] = 9
        state.leaf(0, leaf(type_, body | {"from": at}, at))
        assert said in (found := " ".join(state.findings.errors)) and bool(said) == bool(found)
        if not said:
            ran = EXECUTED["body"] | {"proposal": id_, "payload_hash": hash_}
            state.leaf(1, leaf("governance.executed", ran, at))
            assert state.findings.errors == []
            state.leaf(2, leaf("governance.executed", ran, at))
            assert "executed twice" in state.findings.errors[0]


def test_no_subdao_is_founded_over_another_or_as_somebody_who_is_there() -> None:
    said = "was founded twice, or is somebody already"
    for pid, found in (("dd", True), ("aa", True), ("bb", True), ("ff", False)):
        state = Replay()
        state.reserves.founded({"dao": "dd", "sdt": "SDT-d"})
        founded = leaf("subdaos.founded", {"dao": pid, "rfm": "r2", "sdt": "SDT-e"})
        assert (said in errors([bound(), transfer("1", MINT, BOB, 1), founded], state)) is found


def test_an_epoch_overlaps_another_by_no_more_than_clocks_differ() -> None:
    earnings, skew = Replay().earnings, consent.SKEW_MS
    earnings.ended = {("dd", 2): 10**9}
    earnings.windows["dd", 1] = (0, 10**8)
    earnings._window("dd", 2, 10**8 - skew, 10**9, Cycle())
    with pytest.raises(Finding, match="overlaps"):
        earnings._window("dd", 2, 10**8 - skew - 1, 10**9, Cycle())
    earnings.ended = {("dd", 1): 10**9}
    earnings.windows = {("dd", 2): (10**8, 10**9)}
    earnings._window("dd", 1, 0, 10**8 + skew, Cycle())
    with pytest.raises(Finding, match="overlaps"):
        earnings._window("dd", 1, 0, 10**8 + skew + 1, Cycle())


def test_rounds_that_are_open_side_by_side_share_one_budget() -> None:
    budget, parameters = Budget(20_000, 2, 2_000), Replay().parameters
    parameters.budget["dd"] = budget
    rounds = [{"round": name, "dao": "dd", "privacy": budget.params} for name in "ABC"]
    for one in rounds[:2]:
        parameters.round_opened(one)
    with pytest.raises(Finding, match="budget is used up"):
        parameters.round_opened(rounds[2])
    for one in rounds[1:]:  # they failed before their nodes had signed for a model
        parameters.round_over({"round": one["round"], "dao": "dd"}, one)
    parameters.round_opened(rounds[1])


def test_no_plan_of_a_retired_model_begins_or_is_renewed() -> None:
    state, skew = Replay(), consent.SKEW_MS
    offered = state.plans.parameters.plans["dd"] = (Plan("small", 10, 30, 100),)
    state.parameters.retired["dd"] = 1000
    assert state.plans._offered("dd", "small", 1000 + skew, "plan p") == offered[0]
    assert state.plans._offered("dd", "", 1001 + skew, "plan p") is None  # cancelled
    with pytest.raises(Finding, match="is of a model that is retired"):
        state.plans._offered("dd", "small", 1001 + skew, "plan p")
