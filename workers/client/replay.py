"""Replaying the log: what anybody can recompute from its leaves alone.

Balances follow from transfers by the ledger's rules, outcomes of votes from the ballots by the
tally's, payouts of an epoch from φ by eq. 10 and 11. A leaf that breaks a rule is a finding with
its index. Leaves name parties by pid and amounts as strings; nothing here needs the server.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from apps.protocol import ledger, revenue, tally

NO_FLOOR = -(2**63)


@dataclass
class Findings:
    """What did not fit, and how much was looked at."""

    errors: list[str] = field(default_factory=list)
    transfers: int = 0
    proposals: int = 0
    votes: int = 0
    executed: int = 0
    epochs: int = 0


@dataclass
class Ballots:
    """One proposal as its leaves tell it."""

    body: Mapping[str, Any]
    total: int | None = None
    voters: set[str] = field(default_factory=set)
    weight: dict[str, int] = field(default_factory=lambda: dict.fromkeys(tally.Support, 0))
    ends_at: int = 0
    executed: bool = False


class Replay:
    """Feed leaves in order with `leaf`, then read `findings`, `balances` and `proposals`."""

    def __init__(self) -> None:
        self.findings = Findings()
        self.balances: dict[str, ledger.Balance] = {}
        self.holds: dict[str, tuple[str, int]] = {}
        self.seen: set[str] = set()
        self.paid: dict[str, dict[str, int]] = {}
        self.proposals: dict[str, Ballots] = {}

    def leaf(self, index: int, leaf: Mapping[str, Any]) -> None:
        """Apply one decoded leaf {"v", "type", "at", "body"}."""
        handler = _HANDLERS.get(leaf.get("type", ""))
        if handler is None:
            return
        try:
            handler(self, leaf["body"], int(leaf["at"]))
        except _Finding as finding:
            self.findings.errors.append(f"leaf {index}: {finding}")
        except (KeyError, TypeError, ValueError) as error:
            text = (
                f"leaf {index}: {leaf.get('type')} is malformed ({type(error).__name__}: {error})"
            )
            self.findings.errors.append(text)

    def end(self) -> Findings:
        """The checks that need the whole log."""
        totals: dict[str, int] = {}
        for account, balance in self.balances.items():
            totals[_asset(account)] = totals.get(_asset(account), 0) + balance.posted_micro
        self.findings.errors += [
            f"the balances of {asset} sum to {total}, not to 0"
            for asset, total in totals.items()
            if total
        ]
        return self.findings

    # -- money

    def _transfer(self, body: Mapping[str, Any], at: int) -> None:
        if body["id"] in self.seen:
            raise _Finding(f"transfer {body['id']} appears twice")
        self.seen.add(body["id"])
        debit, credit = body["debit"], body["credit"]
        amount, phase = int(body["amount_micro"]), body["phase"]
        if phase not in ("single", "pend", "post", "void"):
            raise _Finding(f"unknown phase {phase}")
        hold = 0
        if phase in ("post", "void"):
            account, hold = self.holds.pop(body["pending"], ("", 0))
            if account != debit:
                raise _Finding(f"transfer {body['id']} resolves no open hold of its account")
        pair = {name: self.balances.get(name) or _opened(name) for name in (debit, credit)}
        try:
            after = ledger.apply(pair, [ledger.Move(debit, credit, amount, phase, hold)])
        except ledger.RuleBroken as broken:
            raise _Finding(f"transfer {body['id']} breaks the rule {broken.code}") from None
        self.balances |= after
        if phase == "pend":
            self.holds[body["id"]] = (debit, amount)
        else:
            ref = body.get("ref")
            if ref and phase in ("single", "post"):
                received = self.paid.setdefault(ref, {})
                received[credit] = received.get(credit, 0) + amount
        self.findings.transfers += 1

    # -- votes

    def _proposal(self, body: Mapping[str, Any], at: int) -> None:
        if body["proposal"] in self.proposals:
            raise _Finding(f"proposal {body['proposal']} appears twice")
        self.proposals[body["proposal"]] = Ballots(body=body, ends_at=int(body["ends_at"]))
        self.findings.proposals += 1

    def _snapshot(self, body: Mapping[str, Any], at: int) -> None:
        ballots = self._ballots(body)
        if ballots.total is not None or ballots.voters:
            raise _Finding(f"proposal {body['proposal']}: its snapshot came late or twice")
        ballots.total = int(body["total"])

    def _vote(self, body: Mapping[str, Any], at: int) -> None:
        ballots, who = self._ballots(body), body["voter"]
        weight = int(body["weight"])
        if who in ballots.voters:
            raise _Finding(f"proposal {body['proposal']}: {who} voted twice")
        if weight <= 0 or ballots.executed:
            raise _Finding(f"proposal {body['proposal']}: a vote without weight or after the end")
        had = tally.quorum_reached(_facts(ballots))
        ballots.voters.add(who)
        ballots.weight[tally.Support(body["support"])] += weight
        if ballots.total is not None and sum(ballots.weight.values()) > ballots.total:
            raise _Finding(f"proposal {body['proposal']}: more weight voted than there is")
        late = int(body.get("ends_at") or ballots.ends_at)
        if at >= ballots.ends_at or (late != ballots.ends_at and had):
            raise _Finding(f"proposal {body['proposal']}: a vote after the end counted")
        ballots.ends_at = late
        self.findings.votes += 1

    def _executed(self, body: Mapping[str, Any], at: int) -> None:
        ballots = self._ballots(body)
        if ballots.executed:
            raise _Finding(f"proposal {body['proposal']} was executed twice")
        ballots.executed = True
        if body["payload_hash"] != ballots.body["payload_hash"]:
            raise _Finding(f"proposal {body['proposal']}: what ran is not what was voted on")
        facts = _facts(ballots)
        if not (tally.quorum_reached(facts) and tally.vote_carried(facts)):
            raise _Finding(f"proposal {body['proposal']} was executed without a majority or quorum")
        if at < ballots.ends_at:
            raise _Finding(f"proposal {body['proposal']} was executed before its deadline")
        self.findings.executed += 1

    def _ballots(self, body: Mapping[str, Any]) -> Ballots:
        ballots = self.proposals.get(body["proposal"])
        if ballots is None:
            raise _Finding(f"proposal {body['proposal']} is not in the log")
        return ballots

    # -- epochs

    def _epoch(self, body: Mapping[str, Any], at: int) -> None:
        settlement = settle(body)
        claimed = {pid: int(amount) for pid, amount in body["paid_micro"].items()}
        computed = settlement.by_payee()
        # What falls to the SubDAO itself (a node that nobody has claimed) stays in its treasury.
        own = computed.pop(body["dao"], 0)
        if computed != claimed:
            raise _Finding(f"epoch {body['epoch']}: its payouts don't follow from φ and holdings")
        if settlement.treasury_micro + own != int(body["treasury_micro"]):
            raise _Finding(f"epoch {body['epoch']}: the treasury's part is wrong")
        self.findings.epochs += 1


class _Finding(Exception):
    pass


def settle(body: Mapping[str, Any]) -> revenue.Settlement:
    """The settlement that an epoch's leaf must lead to (paper eq. 10 and 11)."""
    return revenue.split(
        [
            revenue.Served(
                version=str(served["version"]),
                revenue_micro=int(served["revenue_micro"]),
                phi=_integers(served["phi"]),
                work=_integers(served["work"]),
            )
            for served in body["served"]
        ],
        jobs=_integers(body["jobs"]),
        holdings=_integers(body["holdings"]),
        policy=revenue.Policy(**{name: int(value) for name, value in body["policy"].items()}),
    )


def _integers(weights: Mapping[str, Any]) -> dict[str, int]:
    return {name: int(value) for name, value in weights.items()}


def _opened(account: str) -> ledger.Balance:
    purpose = account.split("/")[1]
    return ledger.Balance(_asset(account), floor_micro=NO_FLOOR if purpose == "issuance" else 0)


def _asset(account: str) -> str:
    return account.split("/", 2)[2]


def _facts(ballots: Ballots) -> tally.Facts:
    start = datetime(1970, 1, 1, tzinfo=UTC)
    return tally.Facts(
        voting_starts_at=start,
        voting_ends_at=start + timedelta(milliseconds=ballots.ends_at),
        timelock_s=0,
        grace_s=0,
        quorum_bps=int(ballots.body["quorum_bps"]),
        threshold_bps=int(ballots.body["threshold_bps"]),
        total_weight=ballots.total or 0,
        for_weight=ballots.weight[tally.Support.FOR],
        against_weight=ballots.weight[tally.Support.AGAINST],
        abstain_weight=ballots.weight[tally.Support.ABSTAIN],
    )


_HANDLERS = {
    "wallets.transfer": Replay._transfer,
    "governance.proposal": Replay._proposal,
    "governance.snapshot": Replay._snapshot,
    "governance.vote": Replay._vote,
    "governance.executed": Replay._executed,
    "listings.epoch_settled": Replay._epoch,
}


def replay(leaves: Iterable[Mapping[str, Any]]) -> Replay:
    """All leaves in order, with the closing checks done."""
    state = Replay()
    for index, leaf in enumerate(leaves):
        state.leaf(index, leaf)
    state.end()
    return state


__all__ = ["Ballots", "Findings", "Replay", "replay", "settle"]
