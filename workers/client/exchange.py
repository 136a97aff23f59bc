"""Pools and vaults, computed again from the log alone.

A pool's leaf says what somebody put in; what had to come out follows from the reserves before by
the rules of `apps.protocol.pool`, and the transfers that refer to it must be exactly that. A
vault's likewise, by `apps.protocol.vault`. After each leaf, and at the end, the accounts hold what
the rules say: nothing leaves a pool, a pot or a stake without a leaf that accounts for it. All
assets are issued by one party, the first that issues any: no shares come from anybody else.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from apps.protocol import consent, ledger, pool, tally, vault
from apps.protocol.wire import digest
from workers.client.accounts import parts
from workers.client.earnings import Finding, integers

POOL_REF, VAULT_REF = "exchange.pool:", "exchange.vault:"
OUT_REF, SLASH_REF = "exchange.unstaking:", "exchange.slash:"
OWN = ("pool", "vault", "unstaking")
SLASHING = {"super": "exchange.slash_flai", "sbgt": "exchange.slash"}
# What else a slashing may have been voted on by: a round, and what it scored the party.
CITED = ("round", "phi_milli")

# What a wallet's key signs, or the leaf of a swap or of a slashing stands for, is told by the kind:
# under each reference no other than its own.
POOL_KINDS = (consent.SWAP, consent.ADD, consent.REMOVE)
VAULT_KINDS = {
    ("main", "staked"): consent.STAKE,
    ("staked", "unstaking"): consent.UNSTAKE,
    ("main", "vault"): consent.REWARD,
    ("staked", "treasury"): "exchange.slash",
    ("vault", "staked"): "exchange.earned",
    ("staked", "vault"): "exchange.earned",
    ("issuance", "vault"): "exchange.shares",
    ("vault", "issuance"): "exchange.shares",
}

Body = Mapping[str, Any]
Balances = Mapping[str, ledger.Balance]
Moves = dict[tuple[str, str], int]


@dataclass
class Market:
    """A pool: `pid` owns the reserves, `issuer` is who makes its shares."""

    pid: str
    base: str
    quote: str
    shares: str
    state: pool.Pool = field(default_factory=pool.Pool)


@dataclass
class Stakes:
    """A vault and who has what in it."""

    pid: str
    asset: str
    shares: str
    delay_s: int | None = None  # not said of vaults that earlier releases opened
    state: vault.Vault = field(default_factory=vault.Vault)
    positions: dict[str, vault.Position] = field(default_factory=dict)


@dataclass
class Leaving:
    """What is on its way out of a vault."""

    pid: str
    asset: str
    amount_micro: int
    ready_at: int


class Exchange:
    """Fed with leaves by `Replay`; each method raises Finding for what does not fit."""

    def __init__(self, balances: Balances) -> None:
        self.balances = balances
        self.pools: dict[str, Market] = {}
        self.vaults: dict[str, Stakes] = {}
        self.leaving: dict[str, Leaving] = {}
        self.moved: dict[str, Moves] = {}
        self.issuer = ""
        self.slashes: dict[str, tuple[str, str, str, int]] = {}
        self.locks: dict[str, int] = {}
        self.told = False
        self.changes = 0

    # -- money

    def transfer(self, body: Body, at: int, amount: int) -> None:
        """A posted transfer that broke no rule: kept until the leaf that accounts for it."""
        debit, credit = body["debit"], body["credit"]
        for account in (debit, credit):
            pid, purpose, asset = parts(account)
            if purpose == "issuance":
                self.issuer = self.issuer or pid
                if pid != self.issuer:
                    raise Finding(f"transfer {body['id']}: {pid} does not issue {asset}")
        ref = str(body["ref"] or "")
        if ref.startswith(OUT_REF):
            self._release(ref.removeprefix(OUT_REF), debit, credit, amount, at)
        elif ref.startswith((POOL_REF, VAULT_REF, SLASH_REF)):
            if not _kind_fits(ref, body["kind"], parts(debit)[1], parts(credit)[1]):
                raise Finding(f"transfer {body['id']} for {ref} is of the kind {body['kind']}")
            moves = self.moved.setdefault(ref, {})
            moves[debit, credit] = moves.get((debit, credit), 0) + amount
            if body["kind"] == consent.STAKE:
                self.locks[body["id"]] = int(body.get("lock_s") or 0)
        elif body["kind"].startswith("exchange.") or parts(debit)[1] in OWN:
            raise Finding(f"transfer {body['id']} takes from {debit} for no reason in the log")

    def _release(self, id_: str, debit: str, credit: str, amount: int, at: int) -> None:
        out = self.leaving.pop(id_, None)
        if out is None or at < out.ready_at:
            raise Finding(f"transfer of unstaking {id_} came twice or before its time")
        sides = (f"{out.pid}/unstaking/{out.asset}", f"{out.pid}/main/{out.asset}")
        if (debit, credit, amount) != (*sides, out.amount_micro):
            raise Finding(f"transfer of unstaking {id_} is not what was on its way out")

    # -- pools

    def pool_opened(self, body: Body, at: int) -> None:
        opened = Market(body["pool"], body["base"], body["quote"], body["shares"])
        if self.pools.setdefault(opened.pid, opened) is not opened:
            raise Finding(f"pool {opened.pid} was opened twice")

    def pool_changed(self, body: Body, at: int) -> None:
        market = self.pools.get(body["pool"])
        if market is None:
            raise Finding(f"pool {body['pool']} is not in the log")
        state, name = market.state, f"pool {market.base}/{market.quote}, {body['id']}"
        at_ms = int(body["at_ms"])
        if at_ms != max(at, state.at_ms):
            raise Finding(f"{name}: its time is another than the log's")
        base, quote, shares = (int(body[k]) for k in ("base_micro", "quote_micro", "shares_micro"))
        try:
            if body["kind"] == "swap":
                side = pool.BASE if base > 0 else pool.QUOTE
                change = pool.swap(state, side, max(base, quote), at_ms=at_ms)
            elif body["kind"] == "add":
                change = pool.add(state, base, quote, at_ms=at_ms)
            else:
                change = pool.remove(state, -shares, held=-shares, at_ms=at_ms)
        except pool.PoolRule as broken:
            raise Finding(f"{name} breaks the rule {broken.code}") from None
        after = change.pool
        said = (base, quote, shares, *(int(body[k]) for k in ("base_after_micro",
                "quote_after_micro", "area")))  # fmt: skip
        due = (change.base, change.quote, change.shares, after.base, after.quote, after.area)
        if said != due:
            raise Finding(f"{name} is not what the rules of a pool give")
        if not _lawful(market.base, body["kind"], body["asked"], change):
            raise Finding(f"{name} is not what was asked for")
        market.state = after
        self.changes += 1
        self._moved(POOL_REF + body["id"], self._due(market, state, change, body["party"]), name)
        self._reserves(market, name)

    def _due(self, market: Market, before: pool.Pool, change: pool.Change, pid: str) -> Moves:
        due: Moves = {}
        for asset, micro in ((market.base, change.base), (market.quote, change.quote)):
            _put(due, f"{pid}/main/{asset}", f"{market.pid}/pool/{asset}", micro)
        issuance, shares = self._issuance(market.shares), market.shares
        _put(due, issuance, f"{pid}/main/{shares}", change.shares)
        if not before.shares:
            _put(due, issuance, f"{market.pid}/pool/{shares}", pool.MINIMUM_LIQUIDITY)
        return due

    def _reserves(self, market: Market, name: str) -> None:
        found = (
            self._has(f"{market.pid}/pool/{market.base}"),
            self._has(f"{market.pid}/pool/{market.quote}"),
            -self._has(self._issuance(market.shares)),
        )
        if found != (market.state.base, market.state.quote, market.state.shares):
            raise Finding(f"{name}: the balances of the pool are not its reserves")

    # -- vaults

    def vault_opened(self, body: Body, at: int) -> None:
        opened = Stakes(body["vault"], body["asset"], body["shares"], body.get("delay_s"))
        if self.told and opened.delay_s is None:
            raise Finding(f"vault {opened.pid} does not say how long leaving it takes")
        self.told = opened.delay_s is not None
        if self.vaults.setdefault(opened.pid, opened) is not opened:
            raise Finding(f"vault {opened.pid} was opened twice")

    def vault_changed(self, body: Body, at: int) -> None:
        stakes = self.vaults.get(body["vault"])
        if stakes is None:
            raise Finding(f"vault {body['vault']} is not in the log")
        name = f"vault {stakes.asset}, {body['id']}"
        pid, kind, amount = body["party"], body["kind"], int(body["amount_micro"])
        try:
            if kind == "reward":
                stakes.state = vault.reward(stakes.state, amount)
                due: Moves = {}
                pot = f"{stakes.pid}/vault/{stakes.asset}"
                _put(due, f"{pid}/main/{stakes.asset}", pot, amount)
            else:
                due = self._staked(stakes, body, at, name)
        except vault.VaultRule as broken:
            raise Finding(f"{name} breaks the rule {broken.code}") from None
        self.changes += 1
        self._moved(VAULT_REF + body["id"], due, name)
        self._stakes(stakes, name, pid)

    def _staked(self, stakes: Stakes, body: Body, at: int, name: str) -> Moves:
        """A stake, a way out or a slashing; before it, what was staked before there was a vault."""
        pid, kind, amount = body["party"], body["kind"], int(body["amount_micro"])
        outside, lock_s = int(body["outside_micro"]), self.locks.pop(body["id"], 0)
        until = at + 1000 * lock_s if lock_s else 0
        old = stakes.positions.get(pid, vault.Position())
        state, position = stakes.state, old
        if outside:
            joined = vault.stake(state, position, outside)
            state, position = joined.vault, joined.position
        if kind == "stake":
            change = vault.stake(state, position, amount, locked_until_ms=until)
            moved = amount
        else:
            change = vault.leave(state, position, amount, at_ms=at, forced=kind == "slash")
            moved = -amount
        after = change.position
        earned = after.principal - old.principal - outside - moved
        shares = after.shares - old.shares
        said = tuple(int(body[k]) for k in ("earned_micro", "shares_micro", "locked_until_ms"))
        if said != (earned, shares, after.locked_until_ms):
            raise Finding(f"{name} is not what the rules of a vault give")
        stakes.state = change.vault
        stakes.positions[pid] = after
        asset, due = stakes.asset, {}
        own, pot = f"{pid}/staked/{asset}", f"{stakes.pid}/vault/{asset}"
        if kind == "stake":
            _put(due, f"{pid}/main/{asset}", own, amount)
        elif kind == "unstake":
            _put(due, own, f"{pid}/unstaking/{asset}", amount)
            ready_at = int(body["ready_at"])
            if stakes.delay_s is not None and ready_at != at + 1000 * stakes.delay_s:
                raise Finding(f"{name} leaves unstaking sooner or later than the vault says")
            self.leaving[body["id"]] = Leaving(pid, asset, amount, ready_at)
        else:
            _put(due, own, f"{body['dao']}/treasury/{asset}", amount)
            self.slashes[body["id"]] = (body["dao"], pid, asset, amount)
        _put(due, pot, own, earned)
        _put(due, self._issuance(stakes.shares), f"{pid}/vault/{stakes.shares}", shares)
        return due

    def slashed(self, body: Body, at: int, voted: Body, token: str | None) -> None:
        """By a proposal of the right house with exactly this payload, of that house's own `token`:
        what was asked or all that there is; first what is staked, then what leaves the soonest."""
        name = f"slashing {body['id']}"
        if body["asset"] != token:
            raise Finding(f"{name} takes {body['asset']}, which its house does not decide on")
        cited = {name: body[name] for name in CITED if name in body}
        payload = {"party": body["party"], "amount_micro": body["asked_micro"], **cited}
        kind = SLASHING.get(voted["house"], "")
        content = {"dao": body["dao"], "kind": kind, "payload": payload}
        asked = (body["dao"], kind, digest(tally.PROPOSAL_DOMAIN, content))
        if (voted["dao"], voted["kind"], voted["payload_hash"]) != asked:
            raise Finding(f"{name}: proposal {body['id']} is another one")
        pid, asset, asked_micro = body["party"], body["asset"], int(body["asked_micro"])
        staked, rest, latest = int(body["staked_micro"]), 0, 0
        for id_, taken in integers(body["unstaking"]).items():
            out = self.leaving.get(id_)
            mine = out is not None and (out.pid, out.asset) == (pid, asset)
            if out is None or not mine or not 0 < taken <= out.amount_micro:
                raise Finding(f"{name} takes more of unstaking {id_} than there is")
            out.amount_micro -= taken
            rest += taken
            latest = max(latest, out.ready_at)
            if not out.amount_micro:
                del self.leaving[id_]
        taken_id = str(uuid.uuid5(uuid.UUID(body["id"]), "exchange.slash"))
        took = self.slashes.pop(taken_id, (body["dao"], pid, asset, 0))
        if took != (body["dao"], pid, asset, staked):
            raise Finding(f"{name}: another stake was taken than it says")
        left = self._has(f"{pid}/staked/{asset}")
        if not 0 < staked + rest <= asked_micro or (rest and left):
            raise Finding(f"{name} takes too much, or not first what is staked")
        stay = [o.ready_at for o in self.leaving.values() if (o.pid, o.asset) == (pid, asset)]
        if (left or stay) and staked + rest != asked_micro:
            raise Finding(f"{name} takes less than was voted, and leaves something")
        if stay and latest > min(stay):
            raise Finding(f"{name} does not take first what leaves the soonest")
        due: Moves = {}
        _put(due, f"{pid}/unstaking/{asset}", f"{body['dao']}/treasury/{asset}", rest)
        self._moved(SLASH_REF + body["id"], due, name)

    def _stakes(self, stakes: Stakes, name: str, pid: str) -> None:
        position = stakes.positions.get(pid, vault.Position())
        found = (
            self._has(f"{stakes.pid}/vault/{stakes.asset}"),
            -self._has(self._issuance(stakes.shares)),
            self._has(f"{pid}/vault/{stakes.shares}"),
        )
        if found != (stakes.state.pot, stakes.state.shares, position.shares):
            raise Finding(f"{name}: the balances of the vault are not what its rules say")
        if self._has(f"{pid}/staked/{stakes.asset}") < position.principal:
            raise Finding(f"{name}: a stake was taken without a leaf of the vault")

    # -- both

    def _moved(self, ref: str, due: Moves, name: str) -> None:
        if self.moved.pop(ref, {}) != due:
            raise Finding(f"{name}: its transfers are not what the rules give")

    def _has(self, account: str) -> int:
        balance = self.balances.get(account)
        return balance.posted_micro if balance else 0

    def _issuance(self, asset: str) -> str:
        return f"{self.issuer}/issuance/{asset}"

    def end(self) -> list[str]:
        """What is left over when the log is, and every pool and stake once more."""
        errors = [f"transfer for {ref} stands without its leaf" for ref in self.moved]
        errors += [f"transfer for slashing {id_} was not voted on" for id_ in self.slashes]
        for check in (
            *((self._reserves, (m, f"pool {m.base}/{m.quote}")) for m in self.pools.values()),
            *(
                (self._stakes, (s, f"vault {s.asset}", pid))
                for s in self.vaults.values()
                for pid in s.positions
            ),
        ):
            try:
                check[0](*check[1])
            except Finding as finding:
                errors.append(str(finding))
        return errors


def _kind_fits(ref: str, kind: str, purpose: str, to_purpose: str) -> bool:
    if ref.startswith(POOL_REF):
        return kind in POOL_KINDS
    if ref.startswith(SLASH_REF):
        return kind == "exchange.slash"
    return kind == VAULT_KINDS.get((purpose, to_purpose))


def _lawful(base: str, kind: str, asked: Body, change: pool.Change) -> bool:
    """Is this what its party asked for, within the limits that it gave?"""
    if asked["base"] != base:
        return False
    limits = {name: int(value) for name, value in asked.items() if name.endswith("_micro")}
    if kind == "swap":
        sides = (change.base, change.quote)
        paid, got = sides if asked["side"] == pool.BASE else sides[::-1]
        return paid == limits["amount_micro"] and -got >= limits["out_min_micro"]
    if kind == "add":
        most = (limits["base_max_micro"], limits["quote_max_micro"])
        within = change.base <= most[0] and change.quote <= most[1]
        return within and change.shares >= limits["shares_min_micro"]
    least = (limits["base_min_micro"], limits["quote_min_micro"])
    within = -change.base >= least[0] and -change.quote >= least[1]
    return within and -change.shares == limits["shares_micro"]


def _put(moves: Moves, debit: str, credit: str, micro: int) -> None:
    if micro < 0:
        debit, credit, micro = credit, debit, -micro
    if micro:
        moves[debit, credit] = moves.get((debit, credit), 0) + micro
