"""Proposals and ballots, replayed: each vote weighs what its voter had, each outcome is its
ballots', and what a vote carries out is what was voted on, once (`apps.protocol.tally`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from apps.protocol import decay, tally
from workers.client.earnings import Finding
from workers.client.emission import Reserves
from workers.client.exchange import SLASHING, Exchange
from workers.client.holdings import Holdings
from workers.client.keyring import Keyring
from workers.client.parameters import VOTED, Parameters
from workers.client.points import Points

Body = Mapping[str, Any]
PAY, REVOKE = "subdaos.pay", "subdaos.revoke"
LET_IN, PUT_OUT = "participants.whitelist", "participants.remove"
ACCEPT = "training.accept_version"
SPENDING = {PAY, *SLASHING.values()}
RESETTING = {kind for kind, _ in VOTED.values()}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass
class Ballots:
    """One proposal as its leaves tell it."""

    body: Body
    total: int | None = None
    voters: set[str] = field(default_factory=set)
    weight: dict[str, int] = field(default_factory=lambda: dict.fromkeys(tally.Support, 0))
    ends_at: int = 0
    executed: bool = False
    weights: dict[str, int] = field(default_factory=dict)
    concluded: bool = False
    canceled: bool = False
    extended: bool = False

    @property
    def facts(self) -> tally.Facts:
        return tally.Facts(
            voting_starts_at=EPOCH,
            voting_ends_at=EPOCH + timedelta(milliseconds=self.ends_at),
            timelock_s=int(self.body["timelock_s"]),
            grace_s=int(self.body["grace_s"]),
            quorum_bps=int(self.body["quorum_bps"]),
            threshold_bps=int(self.body["threshold_bps"]),
            total_weight=self.total or 0,
            for_weight=self.weight[tally.Support.FOR],
            against_weight=self.weight[tally.Support.AGAINST],
            abstain_weight=self.weight[tally.Support.ABSTAIN],
        )


class Votes:
    """Fed with leaves by `Replay`; each method raises Finding for what does not fit."""

    def __init__(
        self,
        *,
        points: Points,
        holdings: Holdings,
        parameters: Parameters,
        reserves: Reserves,
        exchange: Exchange,
        keyring: Keyring,
    ) -> None:
        self.points, self.holdings, self.parameters = points, holdings, parameters
        self.reserves, self.exchange, self.keyring = reserves, exchange, keyring
        self.proposals: dict[str, Ballots] = {}
        # Transfers from treasuries; the leaf that names the vote on each comes after it.
        self.spent: dict[str, tuple[str, str, int]] = {}
        # Carried out before its "governance.executed", in one transaction: what spent or slashed,
        # what took points, what changed a parameter, what let in or put out, what put into service.
        self.paid: set[str] = set()
        self.revocations: set[str] = set()
        self.resettings: set[str] = set()
        self.admissions: set[str] = set()
        self.acceptances: set[str] = set()
        self.counted = self.executed = 0

    def end(self) -> list[str]:
        """The checks that need the whole log."""
        wrong = [f"transfer {id_} spends a treasury unvoted" for id_ in self.spent]
        for ids, did in (
            (self.paid, "spent a treasury"),
            (self.revocations, "took points"),
            (self.resettings, "changed a parameter"),
            (self.admissions, "changed the members"),
            (self.acceptances, "accepted a version"),
        ):
            wrong += [
                f"proposal {id_} {did} and was not executed"
                for id_ in sorted(ids)
                if not self.proposals[id_].executed
            ]
        return wrong

    def ballots(self, id_: str) -> Ballots:
        ballots = self.proposals.get(id_)
        if ballots is None:
            raise Finding(f"proposal {id_} is not in the log")
        return ballots

    def proposed(self, body: Body, at: int) -> None:
        if body["proposal"] in self.proposals:
            raise Finding(f"proposal {body['proposal']} appears twice")
        self.proposals[body["proposal"]] = Ballots(body=body, ends_at=int(body["ends_at"]))
        if int(body["starts_at"]) < at:
            raise Finding(f"proposal {body['proposal']}: its voting began before it was made")
        self.parameters.proposed(body, at)
        self.keyring.proposal(body, at)

    def snapshot(self, body: Body, at: int) -> None:
        ballots = self.ballots(body["proposal"])
        if ballots.total is not None or ballots.voters or ballots.canceled:
            raise Finding(f"proposal {body['proposal']}: its snapshot came late or twice")
        starts = int(ballots.body["starts_at"])
        if int(body["at"]) != starts or at < starts:
            raise Finding(f"proposal {body['proposal']}: its snapshot is of another time")
        ballots.total = int(body["total"])
        ballots.weights = self._weights(ballots.body["dao"], ballots.body["house"], starts)
        said = (ballots.total, int(body["holders"]))
        if said != (sum(ballots.weights.values()), len(ballots.weights)):
            raise Finding(f"proposal {body['proposal']}: its snapshot sums other weights")

    def _weights(self, dao: str, house: str, at: int) -> dict[str, int]:
        """{pid: what its vote counts}: points, or tokens held or staked."""
        if house == "sbgt":
            return self.points.at(dao, at)
        asset = "FLAI" if house == "super" else self.reserves.sdt[dao]
        return self.holdings.count(asset, at, but=self.reserves.sdt)

    def vote(self, body: Body, at: int) -> None:
        ballots, who = self.ballots(body["proposal"]), body["voter"]
        weight = int(body["weight"])
        if who in ballots.voters:
            raise Finding(f"proposal {body['proposal']}: {who} voted twice")
        if weight <= 0 or ballots.executed or ballots.canceled:
            raise Finding(f"proposal {body['proposal']}: a vote without weight or after the end")
        if weight != ballots.weights.get(who):
            raise Finding(f"proposal {body['proposal']}: {who} voted with a weight it did not have")
        had = tally.quorum_reached(ballots.facts)
        ballots.voters.add(who)
        ballots.weight[tally.Support(body["support"])] += weight
        if ballots.total is not None and sum(ballots.weight.values()) > ballots.total:
            raise Finding(f"proposal {body['proposal']}: more weight voted than there is")
        late = int(body.get("ends_at") or ballots.ends_at)
        if at >= ballots.ends_at:
            raise Finding(f"proposal {body['proposal']}: a vote after the end counted")
        if late != ballots.ends_at:
            if had or ballots.extended or not tally.quorum_reached(ballots.facts):
                raise Finding(f"proposal {body['proposal']}: its end was moved by no late quorum")
            ballots.extended = True
        if (
            not ballots.ends_at
            <= late
            <= self.parameters.extended(ballots.body, at, ballots.ends_at)
        ):
            raise Finding(f"proposal {body['proposal']}: its end was moved further than its rules")
        ballots.ends_at = late
        self.counted += 1
        self.keyring.vote(body, at)

    def take_back(self, body: Body, at: int) -> None:
        """Its proposer may take it back until voting begins."""
        ballots = self.ballots(body["proposal"])
        if ballots.total is not None or at > int(ballots.body["starts_at"]):
            raise Finding(f"proposal {body['proposal']} was taken back once voting had begun")
        ballots.canceled = True
        self.keyring.canceled(ballots.body.get("proposer"), body, at)

    def conclude(self, body: Body, at: int) -> None:
        """The ballots are counted again. No vote is taken any more: what each would have counted
        needs no room."""
        ballots, name = self.ballots(body["proposal"]), f"proposal {body['proposal']}"
        ballots.weights = {}
        if ballots.concluded or at < ballots.ends_at:
            raise Finding(f"{name} was concluded twice, or before its deadline")
        ballots.concluded = True
        sums = {support.value: str(micro) for support, micro in ballots.weight.items()}
        due = {**sums, "total": str(ballots.total)}
        if {key: body[key] for key in due} != due:
            raise Finding(f"{name} was concluded with other sums than those of its ballots")
        facts = ballots.facts
        if body["carried"] != (tally.quorum_reached(facts) and tally.vote_carried(facts)):
            raise Finding(f"{name} did not end as its ballots say")

    def execute(self, body: Body, at: int) -> None:
        ballots = self.ballots(body["proposal"])
        self._ripe(ballots, at)
        ballots.executed = True
        if body["payload_hash"] != ballots.body["payload_hash"]:
            raise Finding(f"proposal {body['proposal']}: what ran is not what was voted on")
        did = self._did(ballots.body["kind"])
        if did is not None and body["proposal"] not in did:
            raise Finding(f"proposal {body['proposal']} was executed, and nothing came of it")
        self.executed += 1

    def _ripe(self, ballots: Ballots, at: int) -> None:
        """May what was voted on be done now? What does it comes in the transaction that says so."""
        name, facts = f"proposal {ballots.body['proposal']}", ballots.facts
        if ballots.executed or ballots.canceled:
            raise Finding(f"{name} was executed twice, or taken back before")
        if not (tally.quorum_reached(facts) and tally.vote_carried(facts)):
            raise Finding(f"{name} was executed without a majority or quorum")
        if at < ballots.ends_at:
            raise Finding(f"{name} was executed before its deadline")
        opens = ballots.ends_at + 1000 * facts.timelock_s
        if at < opens:
            raise Finding(f"{name} was executed while its timelock ran")
        if at >= opens + 1000 * facts.grace_s:
            raise Finding(f"{name} was executed after it had expired")

    def _did(self, kind: str) -> set[str] | None:
        """The proposals that have done what one of this kind does, where the log tells of it."""
        if kind in SPENDING:
            return self.paid
        if kind == REVOKE:
            return self.revocations
        if kind in (LET_IN, PUT_OUT):
            return self.admissions
        if kind == ACCEPT:
            return self.acceptances
        return self.resettings if kind in RESETTING else None

    # -- what votes carry out; their executions come after

    def pay(self, body: Body, at: int) -> None:
        """The transfer is the one that the holders of SDT voted on."""
        proposal, dao, asset, amount = (
            body[name] for name in ("proposal", "dao", "asset", "amount_micro")
        )
        payload = {"to": body["to"], "asset": asset, "amount_micro": amount}
        if not self._voted(proposal, dao, "sdt", PAY, payload):
            raise Finding(f"proposal {proposal}: the treasury paid what was not voted on")
        moved = (f"{dao}/treasury/{asset}", f"{body['to']}/main/{asset}", int(amount))
        if self.spent.get(body["transfer"]) != moved or proposal in self.paid:
            raise Finding(f"proposal {proposal}: its transfer is another one, or came twice")
        del self.spent[body["transfer"]]
        self.paid.add(proposal)
        self._ripe(self.ballots(proposal), at)

    def slash(self, body: Body, at: int) -> None:
        """Of the token of the house that voted."""
        proposal = body["id"]
        ballots = self.ballots(proposal)
        voted = ballots.body
        if proposal in self.paid:
            raise Finding(f"proposal {proposal} was carried out twice")
        token = "FLAI" if voted["house"] == "super" else self.reserves.sdt.get(body["dao"])
        self.exchange.slashed(body, at, voted, token)
        self.paid.add(proposal)
        self._ripe(ballots, at)

    def revoke(self, body: Body, at: int, before: int) -> None:
        """The points are those that the holders of SBGT voted on."""
        dao, proposal, taken = body["dao"], body["ref"], body["taken_micro"]
        payload = {"party": body["party"], "points_micro": taken}
        if not self._voted(proposal, dao, "sbgt", REVOKE, payload):
            raise Finding(f"proposal {proposal}: points were taken that nobody voted on")
        left = decay.revoked(before, int(taken))
        if int(body["points_micro"]) != left or proposal in self.revocations:
            raise Finding(f"proposal {proposal}: it left other points, or came twice")
        self.revocations.add(proposal)
        self._ripe(self.ballots(proposal), at)

    def reset(self, body: Body, at: int) -> None:
        proposal = body["proposal"]
        if proposal in self.resettings:
            raise Finding(f"proposal {proposal} changed a parameter twice")
        ballots = self.ballots(proposal)
        self.parameters.changed(body, at, ballots.body)
        self.resettings.add(proposal)
        self._ripe(ballots, at)

    def admit(self, kind: str, body: Body, at: int) -> None:
        """Whom the holders of SBGT let in or put out, LET_IN or PUT_OUT, by that very list."""
        proposal, payload = body["proposal"], {"applications": body["applications"]}
        if not self._voted(proposal, body["dao"], "sbgt", kind, payload):
            raise Finding(f"proposal {proposal}: its members changed otherwise than was voted on")
        if proposal in self.admissions:
            raise Finding(f"proposal {proposal} changed the members twice")
        self.admissions.add(proposal)
        self._ripe(self.ballots(proposal), at)

    def accept(self, body: Body, at: int, asked: str | None) -> None:
        """asked: the hash of what a vote on this version says, where its round's leaf has it."""
        proposal = body["proposal"]
        voted = self.ballots(proposal).body
        due = (body["dao"], "sbgt", ACCEPT, asked or voted["payload_hash"])
        if tuple(voted[name] for name in ("dao", "house", "kind", "payload_hash")) != due:
            raise Finding(f"proposal {proposal}: a version was accepted that was not voted on")
        if proposal in self.acceptances:
            raise Finding(f"proposal {proposal} accepted a version twice")
        self.acceptances.add(proposal)
        self._ripe(self.ballots(proposal), at)

    def _voted(self, proposal: str, dao: str, house: str, kind: str, payload: Body) -> bool:
        voted = self.ballots(proposal).body
        hash_ = tally.payload_hash(dao=dao, kind=kind, payload=dict(payload))
        # The leaf's own word for the kind counts too: by it the vote had its time.
        asked = (dao, house, kind, hash_)
        return tuple(voted[name] for name in ("dao", "house", "kind", "payload_hash")) == asked


__all__ = ["Ballots", "Votes"]
