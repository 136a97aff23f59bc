"""Everything but money: requests, votes, SubDAOs, rounds, versions, listings, jobs, receipts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from apps.compute.models import Cosignature, Job, Node, Receipt
from apps.explorer.scale.money import PLEDGE_MICRO, PRICE_MICRO, STAKE_MICRO, Money
from apps.explorer.scale.payouts import Payouts
from apps.explorer.scale.plan import FEATURES, MICRO, SITES, STRATA, Plan
from apps.explorer.scale.rows import digest, fill
from apps.governance.models import Proposal, SnapshotWeight, Vote
from apps.listings.models import Listing, Query
from apps.notify.models import EVENTS, Delivery, Endpoint
from apps.participants.models import Application, Call
from apps.protocol.evidence import evidence_of
from apps.protocol.rfm_spec import DOMAINS, LICENCES
from apps.protocol.tickets import RING
from apps.protocol.wire import digest as wire_digest
from apps.rfms.models import Crowdfund, Pledge, Rfm
from apps.subdaos.models import Dao, Epoch, SbgtCheckpoint
from apps.subdaos.selectors import superdao
from apps.training.models import Member, ModelVersion, Round, Score, Submission
from apps.wallets.log import head_latest

Row = dict[str, Any]
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
ROLES = ("custodian",) * SITES + ("validator",)
OPENINGS = {
    "auc_milli": 931,
    "auc_strata_milli": [940, 921],
    "accuracy_milli": 902,
    "accuracy_strata_milli": [911, 893],
    "support": [[120, 40], [60, 20], [60, 20]],
}


class World:
    """Writes each kind of row, in the order in which they need one another."""

    def __init__(self, plan: Plan, money: Money) -> None:
        self.plan, self.money = plan, money
        self.spec = json.dumps(plan.spec)
        self.payouts = Payouts(plan, money)
        self.superdao = superdao()
        self.heavy_vote, self.heavy_fund = plan.first("voting"), plan.first("funding")

    def write(self) -> None:
        self.nodes = self._nodes()
        fill(Dao, self._daos())
        fill(Proposal, self._proposals())
        fill(SnapshotWeight, self._weights())
        fill(Vote, self._votes())
        fill(Call, self._calls())
        fill(Application, self._applications())
        fill(Rfm, self._rfms())
        fill(Crowdfund, self._crowdfunds())
        fill(Pledge, self._pledges())
        fill(SbgtCheckpoint, self._points())
        fill(Epoch, self._epochs())
        fill(Job, self._jobs())
        fill(Receipt, self._receipts())
        fill(Round, self._rounds())
        fill(Member, self._members())
        fill(Submission, self._submissions())
        fill(Score, self._scores())
        fill(ModelVersion, self._versions())
        fill(Listing, self._listings())
        fill(Endpoint, self._endpoints())
        fill(Delivery, self._deliveries())
        self.payouts.write()

    def sell(self) -> None:
        """The queries, whose holds are written by now."""
        fill(Query, self._queries())

    def cosign(self) -> None:
        """The newest head, by every node."""
        Cosignature.objects.bulk_create(
            Cosignature(
                id=self.plan.id("cosignature", node.index),
                head=head_latest(),
                node=node,
                signature="0" * 128,
                created_at=self.plan.now,
            )
            for node in self.nodes
        )

    def _nodes(self) -> list[Node]:
        """The node set that is here, or three that nobody can reach."""
        there = list(Node.objects.filter(active=True).order_by("index"))
        return there or [
            Node.objects.create(
                id=self.plan.id("node", index),
                index=index,
                name=f"node-{index}",
                fingerprint=digest(self.plan.seed, "node", index),
                control_url="http://127.0.0.1:1",
                descriptor={"engines": ["ring"], "sign_key": "0" * 64, "circuits_hash": "c1" * 32},
            )
            for index in range(3)
        ]

    # -- requests

    def _requests(self) -> Iterator[tuple[int, str]]:
        yield from ((number, "awarded") for number in range(self.plan.objects))
        yield from self.plan.courses()

    def _rfms(self) -> Iterator[Row]:
        at, id_ = self.plan.at, self.plan.id
        for number, course in self._requests():
            drafts = course == "draft"
            row: Row = {
                "id": id_("rfm", number),
                "slug": f"request-{number}",
                "title": f"Request {number}",
                "submitter_id": self._person(0 if drafts else number),
                "spec": self.spec,
                "spec_hash": self.plan.spec_hash,
                "created_at": at(number),
            }
            if not drafts:
                row |= {"submitted_at": at(number), "proposal_id": id_("approval", number)}
            if course in ("awarded", "funding", "failed"):
                row |= {"approved_at": at(number) + HOUR, "call_id": id_("call", number)}
            if course == "awarded":
                row |= {"awarded_at": at(number) + 2 * HOUR, "subdao_id": id_("dao", number)}
            if course in ("failed", "rejected"):
                row |= {f"{course}_at": at(number) + 2 * HOUR}
            yield row

    def _calls(self) -> Iterator[Row]:
        schema = json.dumps(self.plan.schema)
        schema_hash = wire_digest("flai/schema/v1", self.plan.schema)
        for number in self.money.funded:
            yield {
                "id": self.plan.id("call", number),
                "slug": f"request-{number}",
                "dao_id": self.plan.id("dao", number) if number < self.plan.objects else None,
                "schema": schema,
                "schema_hash": schema_hash,
                "rows_min": 20,
                "opened_at": self.plan.at(number),
            }

    def _applications(self) -> Iterator[Row]:
        attestation = json.dumps({"rows": 200})
        for number in self.money.funded:
            awarded = number < self.plan.objects
            count = self.plan.half if number == self.heavy_fund else len(ROLES)
            for place in range(count):
                at = self.plan.at(number)
                yield {
                    "id": self.plan.id("application", number, place),
                    "call_id": self.plan.id("call", number),
                    "party_id": self._person(number + place),
                    "role": ROLES[place % len(ROLES)],
                    "public_key": self._key(number, place),
                    "attestation": attestation,
                    "signature": "0" * 128,
                    "filed_at": at,
                    "verified_at": at,
                    "whitelisted_at": at if awarded else None,
                }

    def _crowdfunds(self) -> Iterator[Row]:
        n, now = self.plan.objects, self.plan.now
        funding = {number for number, course in self.plan.courses() if course == "funding"}
        for number in self.money.funded:
            awarded = number < n
            failed = not awarded and number not in funding
            at = self.plan.at(number)
            raised = PLEDGE_MICRO * (self.plan.half if number == self.heavy_fund else 1)
            over = at + HOUR if awarded else None
            holder = self.money.holders[number]
            yield {
                "id": self.plan.id("crowdfund", number),
                "rfm_id": self.plan.id("rfm", number),
                "escrow_id": self.money.account(holder, self.money.usdc, "escrow").id,
                "target_micro": raised if awarded else self.plan.target_micro,
                "raised_micro": 0 if failed else raised,
                "sdt_supply_micro": 10**12,
                "opened_at": at,
                "deadline_at": at + HOUR if failed else now + 30 * DAY,
                "filled_at": over,
                "awarded_at": over,
                "failed_at": at + HOUR if failed else None,
                "refunded_at": at + HOUR if failed else None,
            }

    def _pledges(self) -> Iterator[Row]:
        for number, person in self.money.pledges():
            yield {
                "id": self.plan.id("pledged", number, person),
                "crowdfund_id": self.plan.id("crowdfund", number),
                "party_id": self._person(person),
                "asked_micro": PLEDGE_MICRO,
                "amount_micro": PLEDGE_MICRO,
                "pledged_at": self.plan.at(number),
            }

    # -- votes

    def _proposals(self) -> Iterator[Row]:
        n, now = self.plan.objects, self.plan.now
        for number, course in self._requests():
            if course == "draft":
                continue
            at = self.plan.at(number)
            row = self._proposal("approval", number, self.superdao.id, "super", "rfms.approve")
            if course == "voting":
                row |= {"voting_starts_at": now - HOUR, "voting_ends_at": now + 30 * DAY}
            elif course == "rejected":
                row |= {"concluded_at": at + HOUR}
            else:
                row |= {"concluded_at": at + HOUR, "executed_at": at + HOUR, "for_weight": 10}
            if number == self.heavy_vote:
                row |= {
                    "total_weight": n * STAKE_MICRO,
                    "for_weight": self.plan.half * STAKE_MICRO,
                }
            yield row
        for i in range(n):
            kind = "training.accept_version"
            row = self._proposal("acceptance", i, self.plan.id("dao", i), "sbgt", kind)
            at = self.plan.at(i) + HOUR
            yield row | {
                "total_weight": 2 * MICRO,
                "for_weight": 2 * MICRO,
                "concluded_at": at,
                "executed_at": at,
            }

    def _proposal(self, what: str, number: int, dao: Any, house: str, kind: str) -> Row:
        at = self.plan.at(number)
        return {
            "id": self.plan.id(what, number),
            "dao_id": dao,
            "house": house,
            "kind": kind,
            "payload": "{}",
            "payload_hash": digest(what, number),
            "changes": '[{"label": "State", "before": "before", "after": "after"}]',
            "title": f"{what.capitalize()} {number}",
            "proposer_id": self._person(number),
            "snapshot_at": at,
            "voting_starts_at": at,
            "voting_ends_at": at + HOUR,
            "quorum_bps": 2_000,
            "threshold_bps": 5_000,
            "grace_s": 7 * 86_400,
            "total_weight": 10,
            "created_at": at,
        }

    def _electorate(self) -> Iterator[tuple[Any, int, int, bool]]:
        """(proposal, person, weight, voted)."""
        heavy = self.plan.id("approval", self.heavy_vote)
        for i in range(self.plan.objects):
            yield heavy, i, STAKE_MICRO, i >= self.plan.objects - self.plan.half
            for voter in (i, i + 1):
                yield self.plan.id("acceptance", i), voter, MICRO, True

    def _weights(self) -> Iterator[Row]:
        for proposal, person, weight, _ in self._electorate():
            yield {"proposal_id": proposal, "party_id": self._person(person), "weight": weight}

    def _votes(self) -> Iterator[Row]:
        for proposal, person, weight, voted in self._electorate():
            if voted:
                yield {
                    "id": self.plan.id("vote", proposal, person),
                    "proposal_id": proposal,
                    "voter_id": self._person(person),
                    "support": "for",
                    "weight": weight,
                    "at": self.plan.at(person),
                }

    # -- SubDAOs

    def _daos(self) -> Iterator[Row]:
        for i, party in enumerate(self.money.daos):
            yield {
                "id": self.plan.id("dao", i),
                "party_id": party.id,
                "slug": f"model-{i}",
                "name": f"Model {i}",
                "kind": "sub",
                "asset_id": self.money.assets[i].id,
                "params": json.dumps(
                    self.plan.params
                    | {
                        "domain": DOMAINS[i % len(DOMAINS)],
                        "licence": tuple(LICENCES)[i % len(LICENCES)],
                    }
                ),
                "rfm_ref": self.plan.id("rfm", i),
                "founded_at": self.plan.at(i),
            }

    def _points(self) -> Iterator[Row]:
        for i in range(self.plan.objects):
            for place in range(self.plan.half if i == 0 else len(ROLES)):
                yield {
                    "dao_id": self.plan.id("dao", i),
                    "party_id": self._person(i + place),
                    "at": self.plan.at(i),
                    "points_micro": MICRO + place,
                    "reason": "round",
                }

    def _epochs(self) -> Iterator[Row]:
        start, now = self.plan.now - 31 * DAY, self.plan.now
        for i in range(self.plan.objects):
            closed = self.plan.half if i == 0 else 1
            for number in range(1, closed + 2):
                over = number <= closed
                settled = self._settlement(i, number) if over else None
                begins = start + number * timedelta(minutes=1)
                ends = begins + timedelta(minutes=1) if over else now + 30 * DAY
                yield {
                    "id": self.plan.id("epoch", i, number),
                    "dao_id": self.plan.id("dao", i),
                    "number": number,
                    "starts_at": begins,
                    "ends_at": ends,
                    "closed_at": ends if over else None,
                    "revenue_micro": int(settled["revenue_micro"]) if settled else 0,
                    "settlement": settled,
                }

    def _settlement(self, i: int, number: int) -> Row:
        nothing: Row = {"revenue_micro": "0", "treasury_micro": "0", "owed_micro": {}}
        return self.payouts.settlement(number) if i == 0 else nothing

    def _open_epoch(self, i: int) -> Any:
        return self.plan.id("epoch", i, self.plan.half + 1 if i == 0 else 2)

    # -- rounds and versions: one of each SubDAO, but for the heavy one

    def _made(self) -> Iterator[tuple[int, int]]:
        """(SubDAO, number) of each round and of the version that came of it."""
        for i in range(self.plan.objects):
            yield from ((i, number) for number in range(1, self._last(i) + 1))

    def _last(self, i: int) -> int:
        return self.plan.half if i == 0 else 1

    def _rounds(self) -> Iterator[Row]:
        fingerprints = json.dumps([node.fingerprint for node in self.nodes])
        progress = json.dumps([{"phase": "done", "at": self.plan.now.isoformat(), "text": "Done."}])
        normalisation = json.dumps({"mean": ["0"] * FEATURES, "std": ["1"] * FEATURES})
        roster = json.dumps(
            {"members": [{"key": "", "name": role, "role": role} for role in ROLES]}
        )
        for i, number in self._made():
            at = self.plan.at(i + number)
            yield {
                "id": self.plan.id("round", i, number),
                "dao_id": self.plan.id("dao", i),
                "number": number,
                "phase": "done",
                "roster": roster,
                "roster_hash": digest("roster", i),
                "nodes": fingerprints,
                "circuits_hash": "c1" * 32,
                "features": FEATURES,
                "strata": json.dumps(STRATA),
                "resolution": "logit",
                "normalisation": normalisation,
                "round_job_id": self.plan.id("job", "round", i, number),
                "progress": progress,
                "opened_at": at,
                "expires_at": at + HOUR,
                "closed_at": at + HOUR,
            }

    def _seats(self) -> Iterator[tuple[int, int]]:
        """(SubDAO, place in the roster) of the last round of each."""
        for i in range(self.plan.objects):
            yield from ((i, place) for place in range(len(ROLES)))

    def _seat(self, what: str, i: int, place: int) -> Row:
        return {
            "id": self.plan.id(what, i, place),
            "round_id": self.plan.id("round", i, self._last(i)),
            "party_id": self._person(i + place),
        }

    def _members(self) -> Iterator[Row]:
        for i, place in self._seats():
            seat = {"role": ROLES[place], "key": self._key(i, place)}
            yield self._seat("member", i, place) | seat

    def _submissions(self) -> Iterator[Row]:
        nodes = [node.fingerprint for node in self.nodes]
        ticket = {"type": "share", "shape": [FEATURES + 1], "engine": RING, "nodes": nodes}
        for i, place in self._seats():
            yield self._seat("submission", i, place) | {
                "stage": "round",
                "slot": "update" if place < SITES else "holdout",
                "share_id": digest("share", i, place)[:32],
                "ticket": json.dumps(ticket),
                "ticket_id": digest("ticket", i, place),
                "state": "delivered",
                "due_at": self.plan.at(i),
            }

    def _scores(self) -> Iterator[Row]:
        for i, place in self._seats():
            if place < SITES:
                yield self._seat("score", i, place) | {"phi_milli": 1000 - 300 * place}

    def _versions(self) -> Iterator[Row]:
        gates = self.plan.params["gates"]
        evidence = json.dumps(evidence_of(OPENINGS, strata=STRATA, gates=gates))
        for i, number in self._made():
            serves = number == self._last(i)
            yield {
                "id": self.plan.id("version", i, number),
                "dao_id": self.plan.id("dao", i),
                "number": number,
                "round_id": self.plan.id("round", i, number),
                "model": digest("model", i, number),
                "evidence": evidence,
                "status": "accepted" if serves else "rejected",
                "proposal_id": self.plan.id("acceptance", i) if serves else None,
                "decided_at": self.plan.at(i + number) + HOUR,
                "created_at": self.plan.at(i + number),
            }

    def _listings(self) -> Iterator[Row]:
        for i in range(self.plan.objects):
            yield {
                "id": self.plan.id("listing", i),
                "dao_id": self.plan.id("dao", i),
                "slug": f"model-{i}",
                "version_id": self.plan.id("version", i, self._last(i)),
                "opened_at": self.plan.at(i),
                "created_at": self.plan.at(i),
            }

    # -- jobs and queries

    def _jobs(self) -> Iterator[Row]:
        for i, number in self._made():
            yield self._job("round", (i, number), "logistic_round@1", self.plan.at(i + number))
        for q in range(self.plan.objects):
            yield self._job("query", (q,), "logistic_infer@1", self.plan.at(q))

    def _job(self, kind: str, number: tuple[int, ...], circuit: str, at: Any) -> Row:
        job_id = self.plan.job_id(kind, *number)
        return {
            "id": self.plan.id("job", kind, *number),
            "job_id": job_id,
            "kind": kind,
            "circuit": circuit,
            "scope": f"{kind}:{job_id}",
            "descriptor": json.dumps(
                {
                    "circuit": circuit,
                    "engine": "ring",
                    "nodes": [node.fingerprint for node in self.nodes],
                }
            ),
            "attempt": 1,
            "state": "done",
            "openings": json.dumps(OPENINGS) if kind == "round" else None,
            "due_at": at,
            "expires_at": at + HOUR,
            "done_at": at,
            "created_at": at,
        }

    def _receipts(self) -> Iterator[Row]:
        jobs: list[tuple[str, tuple[int, ...]]] = []
        jobs += [("query", (q,)) for q in range(self.plan.objects)]
        jobs += [("round", (i, self._last(i))) for i in range(self.plan.objects)]
        for kind, number in jobs:
            at = self.plan.at(sum(number))
            body = json.dumps({"job_id": self.plan.job_id(kind, *number), "inputs": []})
            for node in self.nodes:
                yield {
                    "id": self.plan.id("receipt", kind, *number, node.index),
                    "job_id": self.plan.id("job", kind, *number),
                    "node_id": node.id,
                    "body": body,
                    "signature": "0" * 128,
                    "created_at": at,
                }

    def _queries(self) -> Iterator[Row]:
        for q, buyer, i in self.money.queries():
            at, released = self.plan.at(q), self.money.is_released(q)
            states = ("held", "running", "released" if released else "settled")
            yield {
                "id": self.plan.id("query", q),
                "buyer_id": self._person(buyer),
                "listing_id": self.plan.id("listing", i),
                "version_id": self.plan.id("version", i, self._last(i)),
                "epoch_id": self._open_epoch(i),
                "job_id": self.plan.id("job", "query", q),
                "hold_id": self.plan.id("hold", q),
                "rows": 1,
                "price_micro": PRICE_MICRO,
                "share_id": digest("query share", q)[:32],
                "scope": f"query:{self.plan.id('query', q).hex}",
                "ticket_id": digest("query ticket", q),
                "outputs": "[]",
                "state": states[-1],
                "timeline": json.dumps([{"state": s, "at": at.isoformat()} for s in states]),
                "expires_at": at + HOUR,
                "ended_at": at,
                "created_at": at,
            }

    # -- webhooks: all of person 0

    def _endpoints(self) -> Iterator[Row]:
        yield {
            "id": self.plan.id("endpoint"),
            "party_id": self._person(0),
            "url": "https://hooks.example.org/flai",
            "events": json.dumps(EVENTS),
            "created_at": self.plan.at(0),
        }

    def _deliveries(self) -> Iterator[Row]:
        for number in range(self.plan.objects):
            at = self.plan.at(number)
            yield {
                "id": self.plan.id("delivery", number),
                "endpoint_id": self.plan.id("endpoint"),
                "event": EVENTS[0],
                "body": json.dumps({"inference": str(self.plan.id("query", number))}),
                "state": "delivered",
                "attempts": 1,
                "due_at": at,
                "answer": "200",
                "ended_at": at,
                "created_at": at,
            }

    def _person(self, number: int) -> Any:
        return self.money.people[number % self.plan.people].id

    def _key(self, number: int, place: int) -> str:
        return digest(self.plan.seed, "key", number, place)
