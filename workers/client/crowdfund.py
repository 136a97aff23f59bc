"""Crowdfunds, replayed: what lies in an escrow, and where alone it may go.

    opens  by a carried vote about the very request: of the SuperDAO, or of a fork's parent
    in     pledges, while their sum stays within the target
    out    each pledge once, exactly, to whoever made it; or all of them, when they reach the
           target, to the treasury of the SubDAO that was founded for the request
    SDT    minted at the founding as pledges, shares and supply ask (`apps.protocol.founding`), and
           never before or after

Any other transfer out of an escrow, or of a SubDAO's issuance, is a finding.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from apps.protocol import tally
from apps.protocol.founding import SdtShares, sdt_allocation
from workers.client.accounts import parts
from workers.client.earnings import CURRENCY, Finding
from workers.client.holdings import SDT

Body = Mapping[str, Any]
PLEDGE, RFM_REF = "rfms.pledge", "rfms.rfm:"
APPROVE, FORK = "rfms.approve", "rfms.fork"
HOUSES = {APPROVE: "super", FORK: "sbgt"}  # who decides on a request


@dataclass(frozen=True)
class Pledge:
    """A payment into an escrow."""

    rfm: str
    pid: str
    micro: int


@dataclass
class Fund:
    """One crowdfund; `standing` are the pledges that lie in its escrow, by their transfer."""

    escrow: str
    target: int
    standing: dict[str, Pledge] = field(default_factory=dict)
    dao: str | None = None
    opened: int = 0
    proposal: str = ""
    paid: bool = False
    awarded: bool = False
    raised: int = 0
    due: Counter[tuple[str, int]] = field(default_factory=Counter)

    def by_backer(self) -> dict[str, int]:
        sums: dict[str, int] = {}
        for pledge in self.standing.values():
            sums[pledge.pid] = sums.get(pledge.pid, 0) + pledge.micro
        return sums


class Crowdfunds:
    """Fed with leaves by `Replay`; each method raises Finding for what does not fit."""

    def __init__(self) -> None:
        self.funds: dict[str, Fund] = {}
        self.escrows: dict[str, str] = {}
        self.requests: dict[str, Body] = {}
        self.unsaid: dict[str, Pledge] = {}
        self.returnable: dict[str, str] = {}
        self.returned_: dict[str, Pledge] = {}
        self.tokens: dict[str, str] = {}
        self.sponsors: dict[str, dict[str, int]] = {}
        self.supply: dict[str, int] = {}
        self.authors: dict[str, str] = {}

    def submitted(self, body: Body, at: int) -> None:
        self.requests[body["id"]] = body

    def approved(self, body: Body, at: int, voted: Body) -> None:
        """By the proposal of its last submission, about exactly this request."""
        rfm, escrow = body["id"], f"{body['escrow']}/escrow/{CURRENCY}"
        request, kind = self.requests.get(rfm), voted["kind"]
        if request is None or request["proposal"] != body["proposal"]:
            raise Finding(f"request {rfm} was approved by a proposal that is not its own")
        payload = {"rfm": rfm, "spec_hash": request["spec_hash"]}
        hash_ = tally.payload_hash(dao=voted["dao"], kind=kind, payload=payload)
        asked = (HOUSES.get(kind), request["submitter"], hash_)
        if (voted["house"], voted["proposer"], voted["payload_hash"]) != asked:
            raise Finding(f"request {rfm} was approved by a vote about something else")
        if rfm in self.funds or escrow in self.escrows:
            raise Finding(f"request {rfm} was approved twice, or its escrow is another's")
        self.funds[rfm] = Fund(
            escrow, int(body["target_micro"]), opened=at, proposal=body["proposal"]
        )
        self.escrows[escrow] = rfm

    def transfer(self, body: Body, at: int, amount: int) -> None:
        """A posted transfer that broke no rule of the ledger."""
        debit, credit = body["debit"], body["credit"]
        if parts(credit)[1] == "escrow":
            self._pledge(body, debit, credit, amount)
        if parts(debit)[1] == "escrow":
            self._out(body, debit, credit, amount)
        _, purpose, asset = parts(debit)
        if purpose == "issuance" and asset.startswith(SDT):
            rfm = self.tokens.get(asset)
            due = self.funds[rfm].due if rfm else Counter()
            if not due[credit, amount]:
                raise Finding(f"transfer {body['id']} mints {asset} that no founding asks for")
            due[credit, amount] -= 1

    def _pledge(self, body: Body, debit: str, credit: str, amount: int) -> None:
        rfm, id_ = self.escrows.get(credit), body["id"]
        pid, purpose, _ = parts(debit)
        if rfm is None or (body["kind"], body["phase"], purpose) != (PLEDGE, "single", "main"):
            raise Finding(f"transfer {id_} pays into an escrow and is no pledge")
        if body["ref"] != f"{RFM_REF}{rfm}":  # which is what a wallet's key has signed
            raise Finding(f"transfer {id_} pledges to another request than its escrow's")
        fund = self.funds[rfm]
        if fund.paid or fund.raised + amount > fund.target:
            raise Finding(f"transfer {id_} pledges more than the target, or after the award")
        fund.standing[id_] = self.unsaid[id_] = Pledge(rfm, pid, amount)
        fund.raised += amount
        self.returnable[str(uuid.uuid5(uuid.UUID(id_), "returned"))] = id_

    def _out(self, body: Body, debit: str, credit: str, amount: int) -> None:
        rfm = self.escrows.get(debit)
        fund = self.funds[rfm] if rfm else None
        if rfm is None or fund is None:
            raise Finding(f"transfer {body['id']} takes from an escrow of no crowdfund")
        given = self.returnable.get(body["id"], "")
        if given in fund.standing:
            pledge = fund.standing.pop(given)
            fund.raised -= pledge.micro
            if (credit, amount) != (f"{pledge.pid}/main/{CURRENCY}", pledge.micro):
                raise Finding(f"transfer {body['id']} does not give back the pledge {given}")
            self.returned_[given] = pledge
            return
        due = (f"{fund.dao}/treasury/{CURRENCY}", fund.raised)
        if fund.dao is None or fund.paid or (credit, amount) != due or amount != fund.target:
            raise Finding(
                f"transfer {body['id']} takes from the escrow of request {rfm}, which is neither a "
                "pledge's return nor the award of a full crowdfund"
            )
        fund.paid = True

    def pledged(self, body: Body, at: int) -> None:
        pledge = Pledge(body["rfm"], body["party"], int(body["amount_micro"]))
        if self.unsaid.pop(body["id"], None) != pledge:
            raise Finding(f"transfer of pledge {body['id']} is another than it says")

    def given_back(self, body: Body, at: int) -> None:
        pledge = Pledge(body["rfm"], body["party"], int(body["amount_micro"]))
        if self.returned_.pop(body["id"], None) != pledge:
            raise Finding(f"transfer that returns pledge {body['id']} is another than it says")

    def founded(self, body: Body, at: int) -> None:
        dao, rfm, asset = body["dao"], body["rfm"], body["sdt"]
        fund = self.funds.get(rfm)
        if fund is None or fund.dao is not None or asset in self.tokens:
            raise Finding(f"SubDAO {dao} was founded for no crowdfund, or for one that has one")
        fund.dao, self.tokens[asset], self.sponsors[dao] = dao, rfm, fund.by_backer()
        if body["submitter"] != self.requests[rfm]["submitter"]:
            raise Finding(f"SubDAO {dao} names another submitter than its request")
        self.supply[dao], self.authors[dao] = int(body["supply_micro"]), body["submitter"]
        shares = SdtShares(**{name: int(value) for name, value in body["shares"].items()})
        parts = sdt_allocation(int(body["supply_micro"]), self.sponsors[dao], shares)
        # One transfer each: who submitted and backed gets two.
        owed = [
            *((f"{pid}/main/{asset}", micro) for pid, micro in parts.backers.items()),
            (f"{body['submitter']}/main/{asset}", parts.submitter),
            (f"{dao}/reserve/{asset}", parts.reserve),
            (f"{dao}/treasury/{asset}", parts.treasury),
        ]
        fund.due = Counter((credit, micro) for credit, micro in owed if micro)

    def awarded(self, body: Body, at: int) -> None:
        fund = self.funds.get(body["id"])
        if fund is None or fund.awarded or fund.dao != body["dao"] or not fund.paid:
            raise Finding(f"request {body['id']} was awarded without its escrow, or twice")
        fund.awarded = True
        if int(body["raised_micro"]) != fund.raised:
            raise Finding(f"request {body['id']} was awarded with another sum than was pledged")
        if owed := +fund.due:
            credit, _ = next(iter(owed))
            raise Finding(f"request {body['id']}: its founding owes tokens to {credit}")

    def end(self) -> list[str]:
        errors = [f"transfer of pledge {id_} has no leaf of its own" for id_ in self.unsaid]
        errors += [f"transfer that returns pledge {id_} has no leaf" for id_ in self.returned_]
        return errors + [
            f"request {rfm}: SubDAO {fund.dao} was founded and not awarded"
            for rfm, fund in self.funds.items()
            if fund.dao and not fund.awarded
        ]
