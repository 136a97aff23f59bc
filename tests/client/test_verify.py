"""The auditor finds every lie a server can tell about its log; an honest log passes."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from apps.protocol import heads, identity, jobs, merkle, successions, tally, wire
from workers.client.api import Api
from workers.client.earnings import Earnings, Finding, Made
from workers.client.exchange import SLASH_REF, Exchange, Leaving
from workers.client.holdings import Holdings
from workers.client.replay import AHEAD_MS, BEHIND_MS, replay
from workers.client.verify import HEAD_DOMAIN, Auditor, Report

MINT, ADA, BOB = "00/issuance/USDC", "aa/main/USDC", "bb/main/USDC"


def leaf(type_: str, body: dict[str, Any], at: int = 1000) -> dict[str, Any]:
    return {"v": 1, "type": type_, "at": at, "body": body}


def transfer(id_: str, debit: str, credit: str, amount: int, **more: Any) -> dict[str, Any]:
    body = {"id": id_, "debit": debit, "credit": credit, "amount_micro": str(amount)}
    return leaf("wallets.transfer", body | {"phase": "single", "kind": "x", "ref": None} | more)


def proposal(**more: Any) -> dict[str, Any]:
    body = {
        "proposal": "p",
        "dao": "d",
        "house": "super",
        "kind": "rfms.approve",
        "payload_hash": "h",
    }
    body |= {"proposer": None, "starts_at": 1000, "ends_at": 2000}
    body |= {"timelock_s": 0, "grace_s": GRACE_S}
    return leaf("governance.proposal", body | {"quorum_bps": 2000, "threshold_bps": 5000} | more)


def snapshot(of: int = 1000, holders: int = 2) -> dict[str, Any]:
    body = {"proposal": "p", "at": of, "total": "10", "holders": holders}
    return leaf("governance.snapshot", body, 1000)


def vote(voter: str, support: str, weight: int, at: int = 1500) -> dict[str, Any]:
    body = {"proposal": "p", "voter": voter, "support": support, "weight": str(weight)}
    return leaf("governance.vote", body, at)


def late(voter: str, weight: int, ends_at: int) -> dict[str, Any]:
    cast = vote(voter, "for", weight)
    return cast | {"body": cast["body"] | {"ends_at": ends_at}}


def staked(at: int = 900, **micro: int) -> list[dict[str, Any]]:
    """FLAI that votes, by pid; of ten in all, those that are not named are cc's."""
    rest = {"cc": 10 - sum(micro.values())}
    return [
        transfer(f"s-{pid}", "00/issuance/FLAI", f"{pid}/staked/FLAI", n) | {"at": at}
        for pid, n in (micro | rest).items()
        if n
    ]


def voted(*ballots: dict[str, Any], held: dict[str, int], **more: Any) -> list[dict[str, Any]]:
    given = staked(**held)
    return [*given, proposal(**more), snapshot(holders=len(given)), *ballots]


def concluded(at: int = 2000, **more: Any) -> dict[str, Any]:
    sums = {"for": "4", "against": "3", "abstain": "0", "total": "10"}
    return leaf("governance.concluded", {"proposal": "p", "carried": True} | sums | more, at)


def on_sale(listing: str, dao: str, price: int) -> dict[str, Any]:
    body = {"listing": listing, "dao": dao, "version": 1, "model": "m", "price_micro": str(price)}
    return leaf("listings.opened", body)


SNAPSHOT = snapshot()
LONG_ENOUGH = 1000 + 259_200_000
GRACE_S = 7 * 86_400
LATER = proposal(starts_at=1200, proposer="aa")
CANCELED = leaf("governance.canceled", {"proposal": "p"}, 1100)
EXECUTED = leaf("governance.executed", {"proposal": "p", "payload_hash": "h"}, 2000)

HONEST = [
    transfer("1", MINT, ADA, 100),
    transfer("2", ADA, BOB, 30, phase="pend"),
    transfer("3", ADA, BOB, 30, phase="post", pending="2"),
    transfer("4", ADA, BOB, 70),
    *staked(aa=4, bb=3),
    proposal(),
    snapshot(holders=3),
    vote("aa", "for", 4),
    vote("bb", "against", 3),
    concluded(),
    EXECUTED,
]


def test_a_snapshot_counts_what_was_stamped_until_then_and_each_token_once() -> None:
    held = Holdings()
    for debit, credit, micro, at in (
        ("00/issuance", "aa/main", 100, 0),
        ("aa/main", "aa/staked", 60, 100),
        ("aa/staked", "aa/unstaking", 20, 101),
        ("aa/main", "bb/main", 5, 102),
    ):
        assert held.transfer(f"{debit}/SDT-x", f"{credit}/SDT-x", micro, at) is None
    assert held.count("SDT-x", 100, but=()) == {"aa": 100}
    assert held.count("SDT-x", 101, but=()) == {"aa": 80}
    assert held.count("SDT-x", 102, but=["bb"]) == {"aa": 75}
    late = held.transfer("aa/main/SDT-x", "bb/main/SDT-x", 5, 102)
    assert late == "is stamped before a vote that counted SDT-x without it"
    assert held.transfer("aa/main/SDT-x", "bb/main/SDT-x", 5, 104) is None
    backwards = held.transfer("bb/main/SDT-x", "cc/main/SDT-x", 5, 103)
    assert backwards == "is stamped before the last one of bb/main/SDT-x"


def test_one_stake_casts_no_two_votes_whichever_leaf_the_server_bends() -> None:
    """aa votes, hands its stake to bb, who votes in the same proposal: on any stamp."""
    given = [transfer("s", "00/issuance/FLAI", "aa/staked/FLAI", 10) | {"at": 900}]
    moved = transfer("m", "aa/staked/FLAI", "bb/staked/FLAI", 10)
    both = [vote("aa", "for", 10), vote("bb", "for", 10)]
    for at in (900, 999, 1000, 1001, 1400):
        for leaves in (
            [*given, moved | {"at": at}, proposal(), snapshot(holders=1), *both],
            [*given, proposal(), moved | {"at": at}, snapshot(holders=1), *both],
            [*given, proposal(), snapshot(holders=1), both[0], moved | {"at": at}, both[1]],
        ):
            assert replay(leaves).findings.errors, (at, leaves)


def test_no_vote_counts_once_a_proposal_is_concluded() -> None:
    done = concluded(against="0")
    leaves = voted(vote("aa", "for", 4), done, vote("bb", "for", 3), held={"aa": 4, "bb": 3})
    [error] = replay(leaves).findings.errors
    assert "bb voted with a weight it did not have" in error


def test_an_honest_log_replays() -> None:
    state = replay(HONEST)
    assert state.findings.errors == []
    assert state.balances[BOB].posted_micro == 100
    assert (state.findings.votes, state.findings.executed) == (2, 1)


@pytest.mark.parametrize(
    ("leaves", "said"),
    [
        ([transfer("1", ADA, BOB, 1)], "insufficient_balance"),
        ([transfer("1", MINT, ADA, 5), transfer("1", MINT, ADA, 5)], "twice"),
        ([transfer("1", MINT, ADA, 5), transfer("2", ADA, BOB, 5, phase="post", pending="9")],
         "no open hold"),
        ([transfer("1", MINT, ADA, 5), transfer("2", ADA, BOB, 5, phase="pend"),
          transfer("3", ADA, BOB, 1)], "insufficient_balance"),
        ([transfer("1", MINT, "aa/main/FLAI", 5)], "asset_mismatch"),
        (voted(vote("aa", "for", 1), EXECUTED, held={"aa": 1}), "without a majority or quorum"),
        (voted(vote("aa", "for", 3),
          vote("bb", "against", 3), EXECUTED, held={"aa": 3, "bb": 3}),
         "without a majority or quorum"),
        (voted(vote("aa", "for", 3), vote("aa", "for", 3), held={"aa": 3}),
         "voted twice"),
        (voted(vote("aa", "for", 4), held={"aa": 3}), "a weight it did not have"),
        # the server may not choose the time at which somebody had the most
        ([*staked(aa=3), proposal(), snapshot(999), vote("aa", "for", 3)], "of another time"),
        ([*staked(aa=3), proposal(starts_at=1001), snapshot(1001)], "of another time"),
        ([*staked(aa=3), proposal(starts_at=999), snapshot(999)], "began before it was made"),
        ([transfer("5", MINT, ADA, 1) | {"at": 601_001}, transfer("6", MINT, ADA, 1)],
         "leaf 1: wallets.transfer is stamped 600001 ms before what the log told already"),
        ([leaf("notify.any", {}, 601_001), proposal()], "leaf 1: governance.proposal is stamped"),
        (voted(vote("dd", "for", 1), held={"aa": 3}), "a weight it did not have"),
        # neither what came after the snapshot votes, nor what was gone long before it
        ([*staked(aa=3), proposal(),
          transfer("5", "00/issuance/FLAI", "bb/staked/FLAI", 7) | {"at": 1001}, SNAPSHOT,
          vote("bb", "for", 7)], "a weight it did not have"),
        ([*staked(at=-99_999, aa=3, bb=4),
          transfer("5", "aa/staked/FLAI", "bb/staked/FLAI", 3) | {"at": -90_000}, proposal(),
          SNAPSHOT, vote("aa", "for", 3)], "a weight it did not have"),
        ([transfer("s", "00/issuance/FLAI", "aa/staked/FLAI", 7), proposal(), SNAPSHOT],
         "sums other weights"),
        ([*staked(aa=3), transfer("m", "00/issuance/FLAI", "aa/main/FLAI", 5), proposal(),
          SNAPSHOT, vote("aa", "for", 8)], "a weight it did not have"),
        (voted(vote("aa", "for", 5, at=2000), held={"aa": 5}), "after the end"),
        (voted(vote("aa", "for", 5), EXECUTED | {"at": 1999}, held={"aa": 5}), "before its"),
        (voted(vote("aa", "for", 5), EXECUTED, held={"aa": 5}, payload_hash="other"), "what ran"),
        ([vote("aa", "for", 5)], "not in the log"),
        (voted(vote("aa", "for", 5), EXECUTED | {"at": 2999}, held={"aa": 5}, timelock_s=1),
         "timelock"),
        (voted(vote("aa", "for", 5), EXECUTED | {"at": 3000 + 1000 * GRACE_S}, held={"aa": 5},
          timelock_s=1), "expired"),
        (voted(vote("aa", "for", 5), EXECUTED | {"at": LONG_ENOUGH}, held={"aa": 5},
          kind="exchange.slash_flai", ends_at=LONG_ENOUGH), "nothing came of it"),
        (voted(held={"aa": 5}, quorum_bps=1), "runs by quorum_bps 1, its DAO's is 2000"),
        (voted(held={"aa": 5}, threshold_bps=1), "runs by threshold_bps 1, its DAO's is 5000"),
        (voted(held={"aa": 5}, grace_s=10**6), "runs by grace_s"),
        (voted(held={"aa": 5}, kind="k"), "runs by voting_period_s 1, its DAO's is 259200"),
        (voted(held={"aa": 5}, kind="k", ends_at=259_201_000, timelock_s=1), "runs by timelock_s"),
        ([proposal(), proposal(proposal="q", dao="e")], "another DAO than the SuperDAO"),
        (voted(vote("aa", "for", 5), concluded(**{"for": "6"}), held={"aa": 5}), "other sums"),
        (voted(vote("aa", "for", 5), concluded(**{"for": "5", "against": "0"}, at=1999),
          held={"aa": 5}), "before its deadline"),
        (voted(vote("aa", "for", 5), concluded(**{"for": "5", "against": "0"}, carried=False),
          held={"aa": 5}), "did not end as its ballots say"),
        ([*staked(aa=5), LATER, CANCELED, snapshot()], "came late or twice"),
        ([*staked(aa=5), LATER, CANCELED, EXECUTED], "or taken back before"),
        ([*staked(aa=5), proposal(starts_at=1200), CANCELED], "which nobody made"),
        ([*staked(aa=5), proposal(), CANCELED], "taken back once voting had begun"),
        (voted(CANCELED, held={"aa": 5}), "taken back once voting had begun"),
        (voted(late("aa", 5, ends_at=2_001), held={"aa": 5}), "moved further than its rules"),
        (voted(late("aa", 5, ends_at=1_600), held={"aa": 5}), "moved further than its rules"),
        (voted(late("aa", 1, ends_at=2_001), held={"aa": 1}), "moved by no late quorum"),
        (voted(vote("aa", "for", 5), late("bb", 1, ends_at=2_001), held={"aa": 5, "bb": 1}),
         "moved by no late quorum"),
        ([leaf("wallets.transfer", {"id": "1"})], "malformed"),
        ([transfer("1", MINT, ADA, 5) | {"v": 2}], "of version 2, which is not known here"),
        ([transfer("1", MINT, "aa", 5)], "malformed"),
        (voted(vote("aa", "for", 5), held={"aa": 5}, ends_at=2**50), "malformed"),
        ([transfer("1", MINT, ADA, 5), transfer("2", ADA, BOB, 5, kind="wallets.send"),
          transfer("3", BOB, ADA, 4, kind="wallets.reversal", ref="wallets.transfer:2")],
         "does not reverse"),
        ([transfer("1", MINT, ADA, 5), transfer("2", ADA, BOB, 5, kind="wallets.send"),
          transfer("3", BOB, ADA, 5, kind="wallets.reversal", ref="wallets.transfer:1")],
         "does not reverse"),
        ([transfer("1", MINT, ADA, 9), transfer("2", ADA, BOB, 3, kind="wallets.send"),
          transfer("3", ADA, BOB, 3),
          transfer("4", BOB, ADA, 3, kind="wallets.reversal", ref="wallets.transfer:2"),
          transfer("5", BOB, ADA, 3, kind="wallets.reversal", ref="wallets.transfer:2")],
         "reversed twice"),
        ([on_sale("l", "d", 5), on_sale("l", "d", 5), on_sale("l", "d", 6)], "nobody voted on"),
        ([on_sale("l", "d", 5), on_sale("l", "e", 5)], "another SubDAO's"),
    ],
)  # fmt: skip
def test_a_broken_rule_is_found(leaves: list[dict[str, Any]], said: str) -> None:
    errors = replay(leaves).findings.errors
    assert any(said in error for error in errors), errors


@pytest.mark.parametrize(
    ("asset", "staked", "unstaking", "said"),
    [
        ("FLAI", 0, {"u1": 30, "u2": 10}, ""),
        ("SDT-x", 0, {"u1": 30, "u2": 10}, "its house does not decide on"),
        ("FLAI", 0, {"u1": 30}, "takes less than was voted"),
        ("FLAI", 0, {"u1": 20, "u2": 20}, "first what leaves the soonest"),
        ("FLAI", 0, {"u1": 45, "u2": -5}, "more of unstaking u1 than there is"),
        ("FLAI", 0, {"u1": 30, "u2": 11}, "takes too much"),
        ("FLAI", 40, {}, "another stake was taken"),
    ],
)
def test_a_slashing_takes_what_its_house_may_and_in_order(
    asset: str, staked: int, unstaking: dict[str, int], said: str
) -> None:
    exchange, id_ = Exchange({}), "00000000-0000-0000-0000-000000000001"
    for name, micro, ready in (("u1", 30, 10), ("u2", 20, 20)):
        exchange.leaving[name] = Leaving("aa", asset, micro, ready)
    rest = sum(unstaking.values())
    moves = {(f"aa/unstaking/{asset}", f"d/treasury/{asset}"): rest} if rest else {}
    exchange.moved[SLASH_REF + id_] = moves
    payload = {"party": "aa", "amount_micro": "40"}
    hash_ = tally.payload_hash(dao="d", kind="exchange.slash_flai", payload=payload)
    body = {
        "id": id_, "dao": "d", "party": "aa", "asset": asset, "asked_micro": "40",
        "staked_micro": str(staked), "unstaking": {k: str(v) for k, v in unstaking.items()},
    }  # fmt: skip
    voted = {"dao": "d", "house": "super", "kind": "exchange.slash_flai", "payload_hash": hash_}
    if not said:
        exchange.slashed(body, 5, voted, "FLAI")
        assert exchange.leaving == {"u2": Leaving("aa", "FLAI", 10, 20)}
        return
    with pytest.raises(Finding, match=said):
        exchange.slashed(body, 5, voted, "FLAI")


class Server:
    """A log behind the API, honest unless told otherwise."""

    def __init__(self, leaves: list[dict[str, Any]]) -> None:
        self.key = Ed25519PrivateKey.generate()
        self.leaves = [wire.canonical(one) for one in leaves]
        self.served = list(self.leaves)
        self.nodes: list[Ed25519PrivateKey] = []
        self.signed: dict[str, Any] | None = None
        self.at = 5
        self.read_at_s = 0.0

    def head(self) -> dict[str, Any]:
        hashes = [merkle.leaf_hash(data) for data in self.leaves]
        content = {"v": 1, "size": len(hashes), "root": merkle.root(hashes).hex()}
        content["at"] = self.at
        return content | {"signature": wire.sign(self.key, HEAD_DOMAIN, content)}

    def cosigned(self) -> dict[str, Any] | None:
        """What the nodes signed: this log's head, unless told otherwise."""
        if not self.nodes:
            return None
        head = self.signed or self.head()
        facts = heads.Head(head["size"], head["root"], head["at"])
        log = wire.public_hex(self.key)
        signatures = [
            {
                "node": fingerprint(node),
                "signature": wire.sign(
                    node,
                    heads.COSIGN_DOMAIN,
                    heads.cosign_content(facts, log=log, node=fingerprint(node)),
                ),
            }
            for node in self.nodes
        ]
        descriptors = [descriptor(node, index) for index, node in enumerate(self.nodes)]
        return head | {"cosignatures": signatures, "nodes": descriptors}

    def answer(self, request: httpx.Request) -> httpx.Response:
        path, query = request.url.path.removeprefix("/api/v1/log/"), request.url.params
        if path == "key/":
            return httpx.Response(200, json={"public_key": wire.public_hex(self.key)})
        if path == "head/":
            return httpx.Response(200, json=self.head())
        if path == "heads/":
            return httpx.Response(200, json={"results": [self.head()], "next": None})
        if path == "cosigned/":
            cosigned = self.cosigned()
            return httpx.Response(200 if cosigned else 404, json=cosigned or {"code": "none"})
        if path == "entries/":
            start, end = int(query["start"]), int(query["end"])
            entries = [
                {
                    "index": index,
                    "leaf_b64": base64.b64encode(self.served[index]).decode(),
                    "hash": merkle.leaf_hash(self.served[index]).hex(),
                }
                for index in range(start, min(end, len(self.served)))
            ]
            return httpx.Response(200, json={"results": entries, "next": None})
        first, second = int(query["first"]), int(query["second"])
        get = merkle.getter([merkle.leaf_hash(data) for data in self.leaves])
        path_ = merkle.proof(merkle.consistency_ranges(first, second), get)
        return httpx.Response(200, json={"path": [one.hex() for one in path_]})

    def check(
        self,
        state: Path | None = None,
        key: str | None = None,
        nodes: list[str] | None = None,
        more: tuple[list[str], ...] = (),
    ) -> Report:
        api = Api("http://log", transport=httpx.MockTransport(self.answer))
        clock = lambda: self.read_at_s  # noqa: E731
        sets = None if nodes is None else [nodes, *more]
        return Auditor(api, state=state, key=key, sets=sets, clock=clock).run()


def fingerprint(node: Ed25519PrivateKey) -> str:
    return jobs.check_node(descriptor(node, 0))


def descriptor(node: Ed25519PrivateKey, index: int) -> dict[str, Any]:
    body = {
        "v": 1, "index": index, "name": f"node {index}", "sign_key": wire.public_hex(node),
        "hpke_key": "ab" * 32, "tls_cert": identity.certificate_pem(node, "node"),
        "control": "127.0.0.1:1", "mesh": "127.0.0.1:2", "engines": ["ring"],
        "circuits_hash": "cd" * 32, "release": "0",
    }  # fmt: skip
    return body | {"signature": wire.sign(node, jobs.NODE_DOMAIN, body)}


def failed(report: Report) -> str:
    return " ".join(check.text for check in report.checks if not check.ok)


def test_an_honest_server_passes_and_may_grow(tmp_path: Path) -> None:
    server, state = Server(HONEST), tmp_path / "state.json"
    report = server.check(state)
    assert report.ok, failed(report)
    assert report.size == len(HONEST)
    server.leaves.append(wire.canonical(transfer("9", MINT, ADA, 1)))
    server.served = list(server.leaves)
    again = server.check(state)
    assert again.ok, failed(again)
    assert any(f"goes on from the {len(HONEST)} entries" in check.text for check in again.checks)


def test_an_altered_entry_is_found() -> None:
    server = Server(HONEST)
    server.served[0] = wire.canonical(transfer("1", MINT, ADA, 1_000_000))
    assert "do not hash to the head's root" in failed(server.check())


def test_a_withheld_entry_is_found() -> None:
    server = Server(HONEST)
    server.served.pop()
    assert "do not hash" in failed(server.check())


def test_a_log_that_stands_still_is_told_from_an_idle_one() -> None:
    server = Server(HONEST)
    server.read_at_s = heads.STALLED_S
    assert server.check().ok
    server.read_at_s += 1
    [wrong] = [check.text for check in server.check().checks if not check.ok]
    assert wrong.startswith("the log stands still: its newest head is 30 minutes old")
    server.read_at_s = -60
    assert server.check().ok
    server.read_at_s = -61
    assert failed(server.check()).endswith("signed 61 s ahead of this machine's clock")


def test_another_key_is_found(tmp_path: Path) -> None:
    server, state = Server(HONEST), tmp_path / "state.json"
    assert server.check(state).ok
    server.key = Ed25519PrivateKey.generate()
    assert "another log key" in failed(server.check(state))
    assert "another log key" in failed(server.check(key="00" * 32))


def test_a_rewritten_log_is_found(tmp_path: Path) -> None:
    server, state = Server(HONEST), tmp_path / "state.json"
    assert server.check(state).ok
    server.leaves[3] = wire.canonical(transfer("4", ADA, BOB, 7))
    server.leaves.append(wire.canonical(transfer("9", MINT, ADA, 1)))
    server.served = list(server.leaves)
    assert "was rewritten" in failed(server.check(state))


def test_a_log_that_shrank_is_found(tmp_path: Path) -> None:
    server, state = Server(HONEST), tmp_path / "state.json"
    assert server.check(state).ok
    server.leaves = server.leaves[:4]
    server.served = list(server.leaves)
    assert "shrunk" in failed(server.check(state))


def test_a_signed_log_that_breaks_the_rules_is_found() -> None:
    report = Server([transfer("1", ADA, BOB, 5)]).check()
    assert "insufficient_balance" in failed(report)


def test_no_leaf_is_stamped_after_a_head_that_covers_it(tmp_path: Path) -> None:
    server, state = Server(HONEST), tmp_path / "state.json"
    assert server.check(state).ok
    ahead = server.at + AHEAD_MS
    for at, said in ((ahead, ""), (ahead + 1, "is stamped 60001 ms after the head that covers it")):
        last = wire.canonical(transfer("9", MINT, ADA, 1) | {"at": at})
        server.leaves = [*server.leaves[: len(HONEST)], last]
        server.served = list(server.leaves)
        found = failed(server.check(state))
        assert said in found and bool(found) == bool(said)
    server.at, state = ahead + 1, tmp_path / "again.json"
    assert failed(server.check(state)) == ""  # the newest head allows it
    server.leaves[0] = wire.canonical(transfer("1", MINT, ADA, 100) | {"at": ahead + 1})
    server.served = list(server.leaves)
    assert failed(server.check()) == ""
    heads_ = [(len(HONEST), 5), (len(HONEST) + 1, server.at)]  # not by one that was seen earlier
    [error] = replay(map(json.loads, server.leaves), heads_).findings.errors
    assert error == "leaf 0: wallets.transfer is stamped 60001 ms after the head that covers it"


def test_no_leaf_is_stamped_long_before_a_head_that_does_not_cover_it() -> None:
    """A ballot that the server writes days after the vote, stamped before its end."""
    leaves, signed_at = voted(vote("aa", "for", 5), held={"aa": 5}), 1500 + BEHIND_MS
    covered = len(leaves) - 1
    assert replay(leaves, [(covered, signed_at)]).findings.errors == []
    [error] = replay(leaves, [(covered, signed_at + 1)]).findings.errors
    assert error.startswith(f"leaf {covered}: governance.vote is stamped 600001 ms before")


def test_two_pinned_nodes_vouch_that_everybody_is_shown_this_log(tmp_path: Path) -> None:
    server = Server(HONEST)
    report = server.check()
    assert report.ok and "only the server vouches" in report.checks[-1].text
    server.nodes = [Ed25519PrivateKey.generate() for _ in range(3)]
    pins = pins_of(server)
    assert server.check(nodes=pins).ok
    assert server.check(tmp_path / "s").ok and server.check(tmp_path / "s").ok

    server.nodes = server.nodes[:1]  # too few, then none
    assert "only 1 of the 2" in failed(server.check(nodes=pins))
    assert "only 1 of the 2" in failed(server.check(tmp_path / "s"))
    server.nodes = []
    assert "no node has signed" in failed(server.check(nodes=pins))
    server.nodes = [Ed25519PrivateKey.generate() for _ in range(3)]  # nodes of the server's own
    assert "only 0 of the 2" in failed(server.check(nodes=pins))


def successor_leaf(
    nodes: list[Ed25519PrivateKey], lost: int, new: Ed25519PrivateKey, by: tuple[int, ...]
) -> dict[str, Any]:
    said = successions.statement_of(
        old=fingerprint(nodes[lost]), new=fingerprint(new), nodes=[fingerprint(n) for n in nodes]
    )
    signatures = [
        {"sign_key": wire.public_hex(nodes[i]), "hpke_key": "ab" * 32}
        | {"signature": wire.sign(nodes[i], successions.SUCCESSION_DOMAIN, said)}
        for i in by
    ]
    body = {"statement": said, "signatures": signatures}
    return leaf("compute.node_succeeded", body, HONEST[-1]["at"])


@pytest.mark.parametrize("by", [(0, 2), (1,)])
def test_a_successor_that_pinned_nodes_signed_for_is_trusted_and_has_one_voice_with_the_old_key(
    by: tuple[int, ...], tmp_path: Path
) -> None:
    old = [Ed25519PrivateKey.generate() for _ in range(3)]
    new = Ed25519PrivateKey.generate()
    server = Server(HONEST)
    server.nodes = old
    pins, state = pins_of(server), tmp_path / "s"
    assert server.check(state).ok
    server.leaves.append(wire.canonical(successor_leaf(old, 1, new, by)))
    server.served = list(server.leaves)
    server.nodes = [old[0], new]
    for report in (server.check(nodes=pins), server.check(state), server.check(state)):
        assert report.ok, failed(report)
    says = f"node {fingerprint(new)[:6]}… has the place of node {fingerprint(old[1])[:6]}…"
    for report in (server.check(nodes=pins), server.check(state)):
        assert [says in check.text for check in report.checks].count(True) == 1
    another = Ed25519PrivateKey.generate()  # and one after that one, by what the two sets signed
    server.leaves.append(wire.canonical(successor_leaf([old[0], new, old[2]], 2, another, (0, 1))))
    server.served = list(server.leaves)
    server.nodes = [new, another]
    for report in (server.check(nodes=pins[::-1]), server.check(state)):
        assert report.ok, failed(report)
    server.leaves.pop()
    server.served.pop()
    server.nodes = [old[1], new]
    for report in (server.check(nodes=pins), server.check(nodes=[*pins, fingerprint(new)])):
        assert "only 1 of the 2" in failed(report)
    # of a set that is not the pinned one: by hand
    server.nodes = [old[0], new]
    for known in ([pins[0], "ee" * 32, pins[2]], pins[:1], [*pins, "ee" * 32]):
        assert "only 1 of the 2" in failed(server.check(nodes=known))
    found = failed(server.check(nodes=[*pins, "ee" * 32]))
    assert f"if they publish {fingerprint(new)}, give their set too" in found
    set_of_now = [pins[0], fingerprint(new), pins[2]]
    assert server.check(nodes=[*pins, "ee" * 32], more=(set_of_now,)).ok
    assert server.check(nodes=[*pins[:2], "ee" * 32], more=(pins,)).ok


def test_a_dishonest_node_that_renames_itself_does_not_sign_as_two_in_a_set_that_never_was() -> (
    None
):
    evil, *others = pinned = [Ed25519PrivateKey.generate() for _ in range(3)]
    server = Server(HONEST)
    server.nodes = pinned
    pins = pins_of(server)
    assert server.check(nodes=pins).ok
    renamed, *made_up = new = [Ed25519PrivateKey.generate() for _ in range(3)]
    said = [successor_leaf(pinned, 0, renamed, (0,))]
    for other, one in zip(others, made_up, strict=True):
        said.append(successor_leaf([evil, renamed, other], 2, one, (0, 1)))
    server.leaves += map(wire.canonical, said)
    server.served = list(server.leaves)
    server.nodes = [evil, *new]
    report = server.check(nodes=pins)
    has = "node {}… has the place of node {}…"
    good = has.format(fingerprint(renamed)[:6], pins[0][:6])
    assert any(check.ok and check.text.startswith(good) for check in report.checks)
    found = failed(report)
    assert "only 1 of the 2" in found and good not in found
    for place, one in zip(pins[1:], made_up, strict=True):
        assert has.format(fingerprint(one)[:6], place[:6]) in found


def test_a_list_with_two_keys_of_one_place_is_no_set_for_which_they_could_sign() -> None:
    first, *others = [Ed25519PrivateKey.generate() for _ in range(3)]
    second, made_up = (Ed25519PrivateKey.generate() for _ in range(2))
    server = Server(HONEST)
    server.nodes = [first, second, *others]
    pins = pins_of(server)
    for said in (
        successor_leaf([first, *others], 0, second, (0,)),
        successor_leaf([first, second, *others], 3, made_up, (0, 1)),
    ):
        server.leaves.append(wire.canonical(said))
    server.served = list(server.leaves)
    says = f"node {fingerprint(made_up)[:6]}… has the place of node {pins[3][:6]}…"
    assert says in failed(server.check(nodes=pins))


def test_two_nodes_of_five_do_not_sign_where_their_set_asks_for_three(tmp_path: Path) -> None:
    pinned = [Ed25519PrivateKey.generate() for _ in range(5)]
    new = [Ed25519PrivateKey.generate() for _ in range(3)]
    server, state = Server(HONEST), tmp_path / "s"
    server.nodes = pinned
    pins = pins_of(server)
    assert server.check(state).ok
    honest = list(server.leaves)
    for place, one in zip(pinned[2:], new, strict=True):
        made_up = successor_leaf([*pinned[:2], place], 2, one, (0, 1))
        server.leaves.append(wire.canonical(made_up))
    server.served = list(server.leaves)
    server.nodes = [*pinned[:2], *new]
    for report in (server.check(nodes=pins), server.check(state)):
        found = failed(report)
        assert all(f"node {fingerprint(one)[:6]}… has the place" in found for one in new)
        assert any(check.text.startswith("2 nodes (") for check in report.checks)
    server.leaves = [*honest, wire.canonical(successor_leaf(pinned, 4, new[2], (0, 1, 2)))]
    server.served = list(server.leaves)
    server.nodes = [pinned[0], new[2]]
    for report in (server.check(nodes=pins), server.check(state)):
        assert report.ok, failed(report)


def test_each_set_of_the_first_check_is_followed_by_itself(tmp_path: Path) -> None:
    three = [Ed25519PrivateKey.generate() for _ in range(3)]
    five = [three[0], *(Ed25519PrivateKey.generate() for _ in range(4))]
    new = Ed25519PrivateKey.generate()
    server, state = Server(HONEST), tmp_path / "s"
    server.nodes = three
    assert server.check(state).ok
    kept = json.loads(state.read_text())
    sets = [[fingerprint(node) for node in nodes] for nodes in (three, five)]
    assert kept["nodes"] == [sorted(sets[0])]
    server.leaves.append(wire.canonical(successor_leaf(five, 4, new, (0, 1, 2))))
    server.served = list(server.leaves)
    server.nodes = [three[1], new]
    for nodes, ok in ((sets, True), (sets[1], False), ([*sets[0], *sets[1][1:]], False)):
        state.write_text(json.dumps(kept | {"nodes": nodes}))  # flat: as earlier releases wrote it
        report = server.check(state)
        assert report.ok == ok, failed(report)
        if ok:
            assert json.loads(state.read_text())["nodes"] == sets
    # those sets are the ones that the log's rounds had
    earnings = Earnings(Holdings())
    earnings.successions = [json.loads(server.leaves[-1])["body"]]
    for index, nodes in enumerate((*sets, sets[0])):
        earnings.versions["d", str(index)] = Made({"nodes": nodes}, {"job": "j"})
    first = Auditor(Api("http://log", transport=httpx.MockTransport(lambda _: httpx.Response(404))))
    first._receipted(SimpleNamespace(earnings=earnings, keys={}))
    assert (first.sets, first.nodes) == (sets, {*sets[0], *sets[1], fingerprint(new)})


def test_keys_of_one_place_stay_one_node_whatever_else_the_log_says_of_them() -> None:
    """A list that names both, and a server's own statement that one of them is another's place."""
    old, z, w = ([Ed25519PrivateKey.generate() for _ in range(n)] for n in (3, 1, 1))
    new = Ed25519PrivateKey.generate()
    server = Server(HONEST)
    server.nodes = old
    pins = [*pins_of(server), fingerprint(new)]
    made_up = successor_leaf([old[0], *z, *w], 0, new, (1, 2))
    for said in ([made_up], [successor_leaf(old, 1, new, (1,)), made_up]):
        for leaves in (said, said[::-1]):
            server.leaves = [wire.canonical(one) for one in (*HONEST, *leaves)]
            server.served = list(server.leaves)
            server.nodes = [old[1], new]
            found = failed(server.check(nodes=pins))
            assert ("only 1 of the 2" in found) == (len(said) == 2)


def test_a_log_that_the_nodes_did_not_sign_is_a_fork() -> None:
    server = Server(HONEST)
    server.nodes = [Ed25519PrivateKey.generate() for _ in range(3)]
    pins = pins_of(server)
    shown = server.head()
    server.leaves[3] = wire.canonical(transfer("4", ADA, BOB, 69))  # at equal size, for this one
    server.served, server.signed = list(server.leaves), shown
    assert "it was forked" in failed(server.check(nodes=pins))
    server.signed = shown | {"at": 6}
    assert "malformed, or another log" in failed(server.check(nodes=pins))

    late = Server(HONEST)
    late.nodes = server.nodes
    first = {"v": 1, "size": 1, "root": merkle.leaf_hash(late.leaves[0]).hex(), "at": 5}
    late.signed = first | {"signature": wire.sign(late.key, HEAD_DOMAIN, first)}
    late.at = 5 + 3_600_001
    assert "have signed nothing for 60 minutes" in failed(late.check(nodes=pins_of(late)))


def pins_of(server: Server) -> list[str]:
    return [fingerprint(node) for node in server.nodes]
