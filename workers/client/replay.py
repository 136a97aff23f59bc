"""Replaying the log: what anybody can recompute from its leaves alone.

Balances follow from transfers by the ledger's rules, outcomes of votes from the ballots by the
tally's (`votes`), payouts of an epoch from φ by eq. 10 and 11 (`earnings`), pools and vaults by
their own (`exchange`), escrows and minted tokens by pledges (`crowdfund`), what a reserve releases
by its schedule (`emission`), what predictions cost (`prices`), what plans cost and pay for
(`plans`); whoever has bound a wallet key has signed what was done in its name (`keyring`). A leaf
that breaks a rule is a finding with its index.
Leaves name parties by pid and amounts as strings; nothing here needs the server.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from apps.protocol import consent, ledger
from apps.protocol.tickets import RING
from apps.protocol.unlocks import Sponsoring, Unlocks, early, first, unlocked
from workers.client.accounts import parts
from workers.client.credentials import Credentials
from workers.client.crowdfund import FORK, Crowdfunds
from workers.client.earnings import CURRENCY, QUERY, UNDER_WAY_MS, Earnings, Finding
from workers.client.emission import Reserves
from workers.client.exchange import Exchange
from workers.client.holdings import SDT, Holdings
from workers.client.keyring import Keyring, Unsigned
from workers.client.members import Members
from workers.client.parameters import Parameters
from workers.client.plans import Plans
from workers.client.points import Points
from workers.client.prices import Prices
from workers.client.votes import LET_IN, PUT_OUT, Votes

NO_FLOOR = -(2**63)
# How far behind leaves before it an honest one may be stamped: its transaction's length, and what
# the clocks of a site's machines differ by.
BEHIND_MS = 600_000
# How far before a leaf the head that covers it may be stamped: the clocks alone.
AHEAD_MS = 60_000


@dataclass
class Findings:
    """What did not fit, and how much was looked at."""

    errors: list[str] = field(default_factory=list)
    unsigned: list[str] = field(default_factory=list)
    transfers: int = 0
    proposals: int = 0
    votes: int = 0
    executed: int = 0
    rounds: int = 0
    epochs: int = 0
    signatures: int = 0


class Replay:
    """Feed leaves in order with `leaf`, then read `findings` and `balances`.

    heads: (size, time) of signed heads that are known, smallest first: no leaf is stamped after
    the first that covers it.
    """

    def __init__(self, heads: Sequence[tuple[int, int]] = ()) -> None:
        self.findings = Findings()
        self.heads = list(reversed(heads))
        self.balances: dict[str, ledger.Balance] = {}
        self.caps = dict(ledger.BASE_CAPS)
        # What is held, of whom, for whom and for what: it can be paid as just that, or released.
        self.holds: dict[str, tuple[str, str, str, str | None, int]] = {}
        self.seen: set[str] = set()
        self.issuing: set[str] = set()  # accounts, of FLAI
        self.payments: dict[str, tuple[str, str, int]] = {}
        self.reversed: set[str] = set()
        self.holdings = Holdings()
        self.earnings = Earnings(self.holdings)
        self.points = Points()
        self.exchange = Exchange(self.balances)
        self.crowdfunds, self.parameters = Crowdfunds(), Parameters()
        self.reserves = Reserves(self.balances, self.crowdfunds, self.parameters, self.points)
        self.earnings.policies, self.earnings.ended = self.reserves.policies, self.reserves.ended
        self.plans = Plans(self.balances, self.parameters)
        self.prices = Prices(self.parameters)
        self.keyring = Keyring()
        self.credentials = Credentials(self.keyring, self.parameters)
        self.keys: dict[str, str] = {}
        self.members = Members()
        self.accepted: set[tuple[str, str]] = set()  # (SubDAO, number of the version)
        self.votes = Votes(
            points=self.points,
            holdings=self.holdings,
            parameters=self.parameters,
            reserves=self.reserves,
            exchange=self.exchange,
            keyring=self.keyring,
        )
        self.latest_ms = NO_FLOOR
        self.sales: dict[str, tuple[str, int]] = {}

    def leaf(self, index: int, leaf: Mapping[str, Any]) -> None:
        """Apply one decoded leaf {"v", "type", "at", "body"}."""
        handler = _HANDLERS.get(leaf.get("type", ""))
        try:
            at = int(leaf["at"])
            if leaf["v"] != 1:
                raise Finding(f"{leaf['type']} is of version {leaf['v']}, which is not known here")
            if wrong := self._untimely(index, at):
                self.findings.errors.append(f"leaf {index}: {leaf['type']} {wrong}")
            if handler is not None:
                handler(self, leaf["body"], at)
        except Finding as finding:
            self.findings.errors.append(f"leaf {index}: {finding}")
            if isinstance(finding, Unsigned):
                self.findings.unsigned.append(self.findings.errors[-1])
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            text = (
                f"leaf {index}: {leaf.get('type')} is malformed ({type(error).__name__}: {error})"
            )
            self.findings.errors.append(text)

    def _untimely(self, index: int, at: int) -> str | None:
        """Leaves are stamped in their order, within what a transaction lasts, after the heads that
        don't cover them alike, and before the head that does, within what clocks differ by."""
        while self.heads and index >= self.heads[-1][0]:
            self.latest_ms = max(self.latest_ms, self.heads.pop()[1])
        if self.heads and at > self.heads[-1][1] + AHEAD_MS:
            return f"is stamped {at - self.heads[-1][1]} ms after the head that covers it"
        if at < self.latest_ms - BEHIND_MS:
            return f"is stamped {self.latest_ms - at} ms before what the log told already"
        self.latest_ms = max(self.latest_ms, at)
        return None

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
        self.findings.errors += self.earnings.end() + self.points.end()
        self.findings.errors += self.exchange.end() + self.crowdfunds.end() + self.reserves.end()
        self.findings.errors += self.plans.end(self.latest_ms)
        self.findings.signatures = self.keyring.checked
        self.findings.errors += self.votes.end()
        self.findings.proposals = len(self.votes.proposals)
        self.findings.votes, self.findings.executed = self.votes.counted, self.votes.executed
        return self.findings

    # -- money

    def _transfer(self, body: Mapping[str, Any], at: int) -> None:
        id_, debit, credit, kind = body["id"], body["debit"], body["credit"], body["kind"]
        amount, phase = int(body["amount_micro"]), body["phase"]
        if id_ in self.seen:
            raise Finding(f"transfer {id_} appears twice")
        self.seen.add(id_)
        if phase not in ("single", "pend", "post", "void"):
            raise Finding(f"unknown phase {phase}")
        hold = 0
        if phase in ("post", "void"):
            held = self.holds.pop(body["pending"], None)
            if held is None or held[0] != debit:
                raise Finding(f"transfer {id_} resolves no open hold of its account")
            hold = held[4]
            if held[1:4] != (credit, kind, body["ref"]):
                raise Finding(f"transfer {id_} makes something else of a hold than was held")
        pair = {name: self.balances.get(name) or self._opened(name) for name in (debit, credit)}
        try:
            after = ledger.apply(pair, [ledger.Move(debit, credit, amount, phase, hold)])
        except ledger.RuleBroken as broken:
            raise Finding(f"transfer {id_} breaks the rule {broken.code}") from None
        self.balances.update(after)
        for side in (debit, credit):
            if side.endswith("/issuance/FLAI"):
                self.issuing.add(side)
        untimely = None
        if phase in ("single", "post"):
            untimely = self.holdings.transfer(debit, credit, amount, at)
        if phase == "pend":
            self.holds[id_] = (debit, credit, kind, body["ref"], amount)
        self.findings.transfers += 1
        self.keyring.transfer(body, at)
        self.plans.transfer(body, at, amount)
        if kind == consent.GIVE_BACK:
            self._reversal(body, debit, credit, amount)
        elif kind == consent.SEND:
            self.payments[id_] = (debit, credit, amount)
        if phase in ("single", "post"):
            if parts(debit)[1] == "treasury":
                self.votes.spent[id_] = (debit, credit, amount)
            self.earnings.transfer(body, at, amount)
            self.exchange.transfer(body, at, amount)
            self.reserves.transfer(body, amount)
            self.crowdfunds.transfer(body, at, amount)
        if untimely:
            raise Finding(f"transfer {id_} {untimely}")

    def _reversal(self, body: Mapping[str, Any], debit: str, credit: str, amount: int) -> None:
        """A reversal takes back exactly the payment that it names, once."""
        original = str(body["ref"]).removeprefix("wallets.transfer:")
        if self.payments.get(original) != (credit, debit, amount):
            raise Finding(f"transfer {body['id']} does not reverse the payment that it names")
        if original in self.reversed:
            raise Finding(f"payment {original} was reversed twice")
        self.reversed.add(original)

    def _asset(self, body: Mapping[str, Any], at: int) -> None:
        if body["id"] in self.caps:
            raise Finding(f"asset {body['id']} was made twice, or after it was issued")
        self.caps[body["id"]] = int(body["cap_micro"])

    def _opened(self, account: str) -> ledger.Balance:
        """Of an asset that no leaf has made as much may be issued as its own rules say."""
        _, purpose, asset = parts(account)
        cap = self.caps.setdefault(asset, -NO_FLOOR) if purpose == "issuance" else 0
        return ledger.Balance(asset, floor_micro=-cap)

    def _closed(self, body: Mapping[str, Any], at: int) -> None:
        name = body["id"]
        balance = self.balances.get(name) or self._opened(name)
        if balance.posted_micro or balance.held_micro:
            raise Finding(f"account {name} was closed with money on it")
        self.balances[name] = balance._replace(closed=True)

    # -- who may

    def _proposal(self, body: Mapping[str, Any], at: int) -> None:
        self.votes.proposed(body, at)
        if body["kind"] == FORK:
            dao = body["dao"]
            rules = Unlocks(**self.parameters.unlocks[dao])
            supply = self.crowdfunds.supply[dao]
            if not self._unlocked(rules, body["proposer"], self.reserves.sdt[dao], supply):
                raise Finding(f"proposal {body['proposal']}: a fork by who has not staked enough")

    def _unlocked(
        self, rules: Unlocks | Sponsoring, pid: str, asset: str, supply_micro: int
    ) -> bool:
        staked = self.balances.get(f"{pid}/staked/{asset}")
        held = staked.posted_micro if staked else 0
        return unlocked(rules, staked_micro=held, supply_micro=supply_micro)

    def _pledged(self, body: Mapping[str, Any], at: int) -> None:
        self.crowdfunds.pledged(body, at)
        rules, opened = self.parameters.sponsoring, self.crowdfunds.funds[body["rfm"]].opened
        if not first(rules, opened_ms=opened, at_ms=at):
            return
        supply = -sum(self.balances[name].posted_micro for name in self.issuing)
        if not self._unlocked(rules, body["party"], "FLAI", supply):
            raise Finding(f"pledge {body['id']} came before its backer might fund the request")

    def _pool_changed(self, body: Mapping[str, Any], at: int) -> None:
        self.exchange.pool_changed(body, at)
        kind = f"exchange.{body['kind']}"
        self.keyring.action(body["party"], kind, body["asked"], body, at)

    # -- rounds and epochs

    def _on_sale(self, body: Mapping[str, Any], at: int) -> None:
        """At the price of the founding, or of the last vote on it."""
        listing, dao, price = body["listing"], body["dao"], int(body["price_micro"])
        if self.sales.setdefault(listing, (dao, at))[0] != dao:
            raise Finding(f"listing {listing} is another SubDAO's")
        self.earnings.on_sale.setdefault(dao, at)
        if not self.parameters.on_sale(dao, price):
            raise Finding(f"listing {listing} is sold at a price that nobody voted on")
        self.earnings.made(body)
        if (dao, str(body["version"])) not in self.accepted:
            raise Finding(f"listing {listing} sells version {body['version']}, never accepted")

    def _query_held(self, body: Mapping[str, Any], at: int) -> None:
        self.earnings.query_held(body, at)
        dao, opened = self.sales.get(body["listing"], ("", 0))
        if at - self.parameters.retired.get(dao, at) > UNDER_WAY_MS:
            raise Finding(f"query {body['query']} was sold of a model that is retired")
        self.keyring.query_held(body, dao)
        self.credentials.query_held(body, at, dao)
        planned, name = self.plans.query_held(body), f"query {body['query']}"
        if not dao:
            raise Finding(f"{name} is of a listing that is not in the log")
        if dao in self.parameters.unlocks:
            self._early(dao, opened, body, at)
        payer, payee, kind, _, held = self.holds.get(body["hold"], ("", "", "", None, 0))
        if planned is None and payer != f"{body['buyer']}/main/{CURRENCY}":
            raise Finding(f"{name} is not paid by its buyer")
        due = (f"{dao}/revenue/{CURRENCY}", QUERY, int(body["price_micro"]))
        if (payee, kind, held) != due:
            raise Finding(f"{name} holds something else than its price for its SubDAO")
        author = body["buyer"] == self.crowdfunds.authors.get(dao)
        self.prices.query_held(body, at, dao=dao, author=author, planned=planned)

    def _query_settled(self, body: Mapping[str, Any], at: int) -> None:
        self.prices.query_settled(body, at)
        self.earnings.query_settled(body, at)

    def _reset(self, body: Mapping[str, Any], at: int) -> None:
        self.votes.reset(body, at)
        self.credentials.voted(body)

    def _plan(self, body: Mapping[str, Any], at: int) -> None:
        dao, _ = self.sales.get(body["listing"], ("", 0))
        self.plans.told(body, at, dao)
        if body["step"] in ("begun", "changed", "renewed"):
            self.credentials.plan_begun(body, at, dao)
        else:
            self.credentials.plan_over(body, at)
        if body["step"] == "renewed":  # a wallet key would have had to sign it
            self.keyring.action(body["buyer"], consent.PLAN, {}, body, at)
        elif body["step"] not in ("ended", "withdrawn"):
            self.keyring.action(body["buyer"], consent.PLAN, body["asked"], body, at)

    def _plan_renewal(self, body: Mapping[str, Any], at: int) -> None:
        self.plans.agreed(body)
        if body["agreed"]:
            self.keyring.action(body["buyer"], "listings.plan_renewal", {}, body, at)

    def _early(self, dao: str, opened: int, body: Mapping[str, Any], at: int) -> None:
        """Early access is for those who have staked enough, and for the request's author."""
        unlocks = Unlocks(**self.parameters.unlocks[dao])
        buyer, asset = body["buyer"], self.reserves.sdt[dao]
        if not early(unlocks, opened_ms=opened, at_ms=at):
            return
        if not self._unlocked(
            unlocks, buyer, asset, self.crowdfunds.supply[dao]
        ) and buyer != self.crowdfunds.authors.get(dao):
            raise Finding(f"query {body['query']} came before its buyer might ask")

    def _application(self, body: Mapping[str, Any], at: int) -> None:
        if self.keys.setdefault(body["key"], body["party"]) != body["party"]:
            raise Finding(f"two parties applied with the key {body['key'][:12]}…")
        self.points.applicants.add(body["party"])
        self.members.applied(body)

    def _let_in(self, body: Mapping[str, Any], at: int) -> None:
        self.members.let_in(body)
        self.votes.admit(LET_IN, body, at)

    def _put_out(self, body: Mapping[str, Any], at: int) -> None:
        self.members.put_out(body)
        self.votes.admit(PUT_OUT, body, at)

    def _accepted(self, body: Mapping[str, Any], at: int) -> None:
        """By a vote on what its round's end names: the version's number, model and evidence."""
        made = self.earnings.made(body)
        self.accepted.add((body["dao"], str(body["version"])))
        self.votes.accept(body, at, made.done.get("acceptance"))

    def _approved(self, body: Mapping[str, Any], at: int) -> None:
        """Its execution comes after, in the same transaction: the founding asks for it."""
        self.crowdfunds.approved(body, at, self.votes.ballots(body["proposal"]).body)

    def _founded(self, body: Mapping[str, Any], at: int) -> None:
        """A fork is one by the vote of its parent's members, and says so."""
        if body["dao"] in self.reserves.sdt or self._known(body["dao"]):
            raise Finding(f"SubDAO {body['dao']} was founded twice, or is somebody already")
        fund = self.crowdfunds.funds.get(body["rfm"])
        if fund is None:
            raise Finding(f"SubDAO {body['dao']} was founded for no crowdfund")
        voted = self.votes.proposals[fund.proposal]
        if not voted.executed:
            raise Finding(f"SubDAO {body['dao']} was founded on a vote that was not carried out")
        forked = voted.body["dao"] if voted.body["kind"] == FORK else None
        if body.get("parent") != forked:
            raise Finding(f"SubDAO {body['dao']} goes on from another one than was voted on")
        if not str(body["sdt"]).startswith(SDT):  # what is held of it would weigh nothing here
            raise Finding(f"SubDAO {body['dao']} has a token that is not called {SDT}…")
        self.earnings.founded(body, at)
        self.points.founded[body["dao"]] = body
        self.parameters.founded(body)
        self.reserves.founded(body)
        self.crowdfunds.founded(body, at)

    def _known(self, pid: str) -> bool:
        """Has it had money or a key before? Then it is no SubDAO's that is only founded now."""
        mine = f"{pid}/"
        return pid in self.keyring.parties or any(name.startswith(mine) for name in self.balances)

    def _awarded(self, body: Mapping[str, Any], at: int) -> None:
        self.points.awarded.add(body["id"])
        self.crowdfunds.awarded(body, at)

    def _converted(self, body: Mapping[str, Any], at: int) -> None:
        self.reserves.converted(body, at)
        self.keyring.action(body["party"], consent.CONVERT, body["asked"], body, at)

    def _points(self, body: Mapping[str, Any], at: int) -> None:
        before = self.points.held.get((body["dao"], body["party"]), 0)
        _raise(self.points.change(body, at))
        if body["reason"] == "revoked":
            self.votes.revoke(body, at, before)

    def _round_opened(self, body: Mapping[str, Any], at: int) -> None:
        """Nodes compute it as its SubDAO has voted: three, where a leaf names no engine."""
        named, voted = body.get("engine", RING), self.parameters.engine.get(body["dao"], RING)
        if named != voted:
            raise Finding(f"round {body['round']} is computed by {named}, the vote was for {voted}")
        self.parameters.round_opened(body)
        self.earnings.round_opened(body, at)
        self.members.round_opened(body)
        self.credentials.round_opened(body, at)

    def _slashed(self, body: Mapping[str, Any], at: int) -> None:
        self.votes.slash(body, at)
        if "round" in body:
            self.earnings.cited(body, self.votes.ballots(body["id"]).body["house"])

    def _round_done(self, body: Mapping[str, Any], at: int) -> None:
        self.earnings.round_done(body, at)
        self.parameters.round_done(body, self.earnings.opened[body["round"]])
        _raise(self.points.round_done(body, self.earnings.opened[body["round"]]["members"]))
        self.findings.rounds += 1

    def _round_failed(self, body: Mapping[str, Any], at: int) -> None:
        self.earnings.round_over(body, at)
        self.parameters.round_over(body, self.earnings.opened.get(body["round"], {}))

    def _round_void(self, body: Mapping[str, Any], at: int) -> None:
        """It makes no model, and spends nothing."""
        self.earnings.round_over(body, at)
        self.parameters.open.pop(body["round"], None)

    def _refreshed(self, body: Mapping[str, Any], at: int) -> None:
        if "model" in body:  # otherwise what nodes keep stays where it is
            self.earnings.reshared(body, at, self.keys)

    def _epoch(self, body: Mapping[str, Any], at: int) -> None:
        self.earnings.epoch(body, at)
        self.findings.epochs += 1


@contextmanager
def undisturbed() -> Iterator[None]:
    """No garbage is looked for meanwhile: what a replay makes stays, and would be gone through
    again and again."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


Handler = Callable[[Replay, Mapping[str, Any], int], None]


def _asset(account: str) -> str:
    return parts(account)[2]


def _raise(wrong: str | None) -> None:
    if wrong is not None:
        raise Finding(wrong)


def _voted(method: Callable[[Votes, Mapping[str, Any], int], None]) -> Handler:
    return lambda state, body, at: method(state.votes, body, at)


def _earned(method: Callable[[Earnings, Mapping[str, Any], int], None]) -> Handler:
    return lambda state, body, at: method(state.earnings, body, at)


def _keys(method: Callable[[Keyring, Mapping[str, Any], int], None]) -> Handler:
    return lambda state, body, at: method(state.keyring, body, at)


def _credential(method: Callable[[Credentials, Mapping[str, Any], int], None]) -> Handler:
    return lambda state, body, at: method(state.credentials, body, at)


def _exchanged(method: Callable[[Exchange, Mapping[str, Any], int], None]) -> Handler:
    return lambda state, body, at: method(state.exchange, body, at)


def _funded(method: Callable[[Crowdfunds, Mapping[str, Any], int], None]) -> Handler:
    return lambda state, body, at: method(state.crowdfunds, body, at)


def _released(method: Callable[[Reserves, Mapping[str, Any], int], None]) -> Handler:
    return lambda state, body, at: method(state.reserves, body, at)


_HANDLERS: dict[str, Handler] = {
    "accounts.signing_key": _keys(Keyring.agent_key),
    "accounts.key_bound": _keys(Keyring.bound),
    "accounts.key_revoked": _keys(Keyring.revoked),
    "wallets.credential": _credential(Credentials.issue),
    "wallets.credential_revoked": _credential(Credentials.revoke),
    "wallets.transfer": Replay._transfer,
    "wallets.asset": Replay._asset,
    "wallets.closed": Replay._closed,
    "governance.proposal": Replay._proposal,
    "governance.snapshot": _voted(Votes.snapshot),
    "governance.vote": _voted(Votes.vote),
    "governance.canceled": _voted(Votes.take_back),
    "governance.concluded": _voted(Votes.conclude),
    "governance.executed": _voted(Votes.execute),
    "participants.application": Replay._application,
    "participants.whitelisted": Replay._let_in,
    "participants.removed": Replay._put_out,
    "subdaos.paid": _voted(Votes.pay),
    "exchange.pool_opened": _exchanged(Exchange.pool_opened),
    "exchange.pool_changed": Replay._pool_changed,
    "exchange.vault_opened": _exchanged(Exchange.vault_opened),
    "exchange.vault_changed": _exchanged(Exchange.vault_changed),
    "exchange.slashed": Replay._slashed,
    "subdaos.founded": Replay._founded,
    "subdaos.params": Replay._reset,
    "subdaos.emitted": _released(Reserves.emitted),
    "subdaos.converted": Replay._converted,
    "subdaos.sponsor_paid": _released(Reserves.sponsor_paid),
    "rfms.submitted": _funded(Crowdfunds.submitted),
    "rfms.approved": Replay._approved,
    "rfms.pledged": Replay._pledged,
    "rfms.returned": _funded(Crowdfunds.given_back),
    "rfms.awarded": Replay._awarded,
    "subdaos.sbgt": Replay._points,
    "compute.node_claimed": _earned(Earnings.claimed),
    "compute.node_succeeded": _earned(Earnings.succeeded),
    "compute.refreshed": Replay._refreshed,
    "training.round_opened": Replay._round_opened,
    "training.share_received": _earned(Earnings.share_received),
    "training.normalised": _earned(Earnings.sums_taken),
    "training.roster_reduced": _earned(Earnings.roster_reduced),
    "training.round_done": Replay._round_done,
    "training.round_failed": Replay._round_failed,
    "training.round_void": Replay._round_void,
    "training.version_accepted": Replay._accepted,
    "listings.mandate": _keys(Keyring.mandate),
    "listings.mandate_ended": _keys(Keyring.mandate_ended),
    "listings.query_held": Replay._query_held,
    "listings.opened": Replay._on_sale,
    "listings.plan": Replay._plan,
    "listings.plan_renewal": Replay._plan_renewal,
    "listings.query_settled": Replay._query_settled,
    "listings.epoch_settled": Replay._epoch,
}


def replay(leaves: Iterable[Mapping[str, Any]], heads: Sequence[tuple[int, int]] = ()) -> Replay:
    """All leaves in order, with the closing checks done; `heads` as `Replay` has them."""
    state = Replay(heads)
    with undisturbed():
        for index, leaf in enumerate(leaves):
            state.leaf(index, leaf)
        state.end()
    return state


__all__ = ["Findings", "Replay", "replay", "undisturbed"]
