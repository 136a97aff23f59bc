"""Keys and consents, replayed: nobody acts for a party whose wallet key is bound, but that key.

The log's order says which keys were in force. A binding proves possession; a change is signed by a
key that was bound before (`apps.protocol.consent.signers`); an action of a party with a wallet key
carries its signature over exactly what the leaf says was done, with a nonce that increases. So a
server that holds the database and every key of its own still can't vote or pay for such a party.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from apps.protocol import consent
from apps.protocol.consent import AGENT, RECOVERY, WALLET
from apps.protocol.wire import BadSignature, verify
from workers.client.accounts import parts
from workers.client.earnings import Finding


class Unsigned(Finding):
    """What was done in a party's name without its key."""


@dataclass
class Keys:
    """One party's keys by purpose, those it had, and the last nonce that it used."""

    active: dict[str, str] = field(default_factory=dict)
    past: set[str] = field(default_factory=set)
    nonce: int = 0


@dataclass
class Mandate:
    """What a wallet key lets predictions take; `held`: the sum of its holds that stand."""

    pid: str
    key: str
    listing: str
    limit: int
    until_ms: int
    held: int = 0
    ended: bool = False


class Keyring:
    """Feed `bound`, `revoked` and the actions in the log's order. Each raises Unsigned."""

    def __init__(self) -> None:
        self.parties: dict[str, Keys] = {}
        self.owners: dict[str, str] = {}
        self.wallets: set[str] = set()  # who has had a wallet key
        self.checked = 0
        self.mandates: dict[str, Mandate] = {}
        self.held: dict[str, tuple[str, int, str]] = {}

    def keyed(self, pid: str) -> bool:
        party = self.parties.get(pid)
        return party is not None and WALLET in party.active

    def agent_key(self, body: Mapping[str, Any], at: int) -> None:
        """A leaf "accounts.signing_key", as logs had it before keys had purposes."""
        party = self.parties.setdefault(body["pid"], Keys())
        if WALLET in party.active or RECOVERY in party.active:
            raise Unsigned(f"{body['pid']} bound a key in the old form beside a wallet key")
        if party.active.get(AGENT, body["public_key"]) != body["public_key"]:
            raise Unsigned(f"{body['pid']} replaced a key in the old form, which nothing signs")
        self._possessed(body["pid"], AGENT, body["public_key"], body["signature"])
        party.active[AGENT] = body["public_key"]

    def bound(self, body: Mapping[str, Any], at: int) -> None:
        pid, purpose, key = body["pid"], body["purpose"], body["public_key"]
        party = self.parties.setdefault(pid, Keys())
        if purpose not in consent.PURPOSES:
            raise Unsigned(f"{pid} bound a key for no known purpose")
        self._possessed(pid, purpose, key, body["proof"])
        if key in party.past or self.owners.get(key, pid) != pid or key in party.active.values():
            raise Unsigned(f"the key {key[:12]}… was bound twice")
        self._changed(party, consent.BIND, body, at)
        if purpose in party.active:
            party.past.add(party.active[purpose])
        party.active[purpose], self.owners[key] = key, pid
        if purpose == WALLET:
            self.wallets.add(pid)

    def revoked(self, body: Mapping[str, Any], at: int) -> None:
        party = self.parties.get(body["pid"], Keys())
        if party.active.get(body["purpose"]) != body["public_key"]:
            raise Unsigned(f"{body['pid']} revoked a key that it does not have")
        self._changed(party, consent.REVOKE, body, at)
        party.past.add(party.active.pop(body["purpose"]))

    def action(
        self, pid: str, kind: str, payload: Mapping[str, Any], body: Mapping[str, Any], at: int
    ) -> None:
        """`body` is the leaf's: its `auth` and `signed` must cover `kind` and `payload`."""
        if body.get("signed") is None:
            if self.keyed(pid):
                raise Unsigned(f"{kind} of {pid} lacks the signature of its wallet key")
            if body.get("auth", "session") not in ("session", "api_key"):
                raise Unsigned(f"{kind} of {pid} claims a signature that is not there")
            return
        party = self.parties.get(pid, Keys())
        self._signed(party, pid, kind, payload, body, at, {WALLET})

    def transfer(self, body: Mapping[str, Any], at: int) -> None:
        """A debit of a wallet: where its owner has a key, it is signed, or a prediction's hold
        within a mandate."""
        pid, purpose, asset = parts(body["debit"])
        kind, signed = body["kind"], body.get("signed") is not None
        if not signed and pid not in self.parties:
            return  # has no key at all, as most
        if body["phase"] not in ("single", "pend"):
            mandate, freed, _ = self.held.pop(body["pending"], ("", 0, ""))
            if mandate and body["phase"] == "void":
                self.mandates[mandate].held -= freed
            return  # resolves a hold that was one of the others
        to, amount = parts(body["credit"]), int(body["amount_micro"])
        if consent.mandated(kind, body["phase"], purpose, to[1]) and self.keyed(pid):
            self._within(pid, body, amount, at)
            return
        needed = consent.needs_signature(kind, body["phase"], purpose, to[1])
        if not signed and not (needed and self.keyed(pid)):
            return
        payloads = {
            consent.SEND: lambda: consent.send_payload(to=to[0], asset=asset, amount_micro=amount),
            consent.STAKE: lambda: consent.stake_payload(
                asset=asset, amount_micro=amount, lock_s=int(body.get("lock_s") or 0)
            ),
            consent.REWARD: lambda: consent.stake_payload(asset=asset, amount_micro=amount),
            consent.UNSTAKE: lambda: consent.stake_payload(asset=asset, amount_micro=amount),
            consent.PLEDGE: lambda: self._pledge(body, amount),
            consent.GIVE_BACK: lambda: consent.give_back_payload(
                transfer=str(body["ref"]).partition(":")[2]
            ),
        }
        if kind not in payloads:
            raise Unsigned(f"{kind} takes from {pid}, whose wallet key signs no such thing")
        moves = {
            consent.STAKE: ("main", pid, "staked"),
            consent.UNSTAKE: ("staked", pid, "unstaking"),
            consent.REWARD: ("main", to[0], "vault"),
            consent.PLEDGE: ("main", to[0], "escrow"),
        }
        if (purpose, to[0], to[1]) != moves.get(kind, ("main", to[0], "main")):
            raise Unsigned(f"{kind} of {pid} moves between other accounts than it says")
        self.action(pid, kind, payloads[kind](), body, at)

    def _pledge(self, body: Mapping[str, Any], amount: int) -> dict[str, str]:
        """What was asked: the target may take less of it, never more."""
        asked = int(body["asked_micro"])
        if amount > asked:
            raise Unsigned(f"transfer {body['id']} pledges more than was signed")
        return consent.pledge_payload(rfm=str(body["ref"]).partition(":")[2], amount_micro=asked)

    def mandate(self, body: Mapping[str, Any], at: int) -> None:
        """A mandate always carries the wallet key's signature."""
        pid, asked = body["pid"], body["payload"]
        if body.get("signed") is None or body["id"] in self.mandates:
            raise Unsigned(f"mandate {body['id']} of {pid} is not signed, or came twice")
        self.action(pid, consent.MANDATE, asked, body, at)
        until = int(asked["until_ms"])
        if until > at + consent.MANDATE_MS_MAX + consent.SKEW_MS:
            raise Unsigned(f"mandate {body['id']} of {pid} lasts longer than one may")
        self.mandates[body["id"]] = Mandate(
            pid, body["signed"]["key"], asked["listing"], int(asked["limit_micro"]), until
        )

    def mandate_ended(self, body: Mapping[str, Any], at: int) -> None:
        mandate = self.mandates.get(body["id"])
        if mandate is None or mandate.pid != body["pid"]:
            raise Unsigned(f"{body['pid']} ended a mandate that it did not give")
        mandate.ended = True

    def _within(self, pid: str, body: Mapping[str, Any], amount: int, at: int) -> None:
        id_ = body.get("mandate")
        mandate, name = self.mandates.get(id_ or ""), f"hold {body['id']} of {pid}"
        if mandate is None or mandate.pid != pid or mandate.ended:
            raise Unsigned(f"{name} for a prediction has no mandate of its wallet key")
        if self.parties[pid].active.get(WALLET) != mandate.key:
            raise Unsigned(f"{name} rests on a mandate of a key that is not in force any more")
        if at > mandate.until_ms + consent.SKEW_MS:
            raise Unsigned(f"{name} came after the end of its mandate")
        if mandate.held + amount > mandate.limit:
            raise Unsigned(f"{name} goes beyond the limit of its mandate")
        mandate.held += amount
        self.held[body["id"]] = (str(id_), amount, parts(body["credit"])[0])

    def query_held(self, body: Mapping[str, Any], seller: str) -> None:
        """A hold under a mandate pays for a prediction of the listing that the mandate names, and
        to the SubDAO that sells it (`seller`, "" where the log knows none)."""
        id_, _, payee = self.held.get(body["hold"], ("", 0, ""))
        allowed = self.mandates[id_].listing if id_ else consent.ANY_LISTING
        if allowed != consent.ANY_LISTING and (body["listing"], seller) != (allowed, payee):
            raise Unsigned(f"hold {body['hold']} pays for another listing than its mandate allows")

    def vote(self, body: Mapping[str, Any], at: int) -> None:
        payload = consent.vote_payload(proposal=body["proposal"], support=body["support"])
        self.action(body["voter"], consent.VOTE, payload, body, at)

    def proposal(self, body: Mapping[str, Any], at: int) -> None:
        proposer = body.get("proposer")
        if proposer is None:
            return
        if body.get("auth") == "system" and body["kind"] in consent.SYSTEM_PROPOSALS:
            return
        payload = consent.propose_payload(
            dao=body["dao"], kind=body["kind"], payload_hash=body["payload_hash"]
        )
        self.action(proposer, consent.PROPOSE, payload, body, at)

    def canceled(self, proposer: str | None, body: Mapping[str, Any], at: int) -> None:
        if proposer is None:
            raise Unsigned(f"proposal {body['proposal']}, which nobody made, was taken back")
        payload = consent.cancel_payload(proposal=body["proposal"])
        self.action(proposer, consent.CANCEL, payload, body, at)

    def _changed(self, party: Keys, kind: str, body: Mapping[str, Any], at: int) -> None:
        purpose, key = body["purpose"], body["public_key"]
        needed = consent.signers(purpose, party.active)
        if not needed:
            return
        if body.get("signed") is None:
            raise Unsigned(f"the {purpose} key of {body['pid']} changed without a signature")
        payload = consent.key_payload(purpose=purpose, public_key=key)
        self._signed(party, body["pid"], kind, payload, body, at, needed)

    def _signed(
        self,
        party: Keys,
        pid: str,
        kind: str,
        payload: Mapping[str, Any],
        body: Mapping[str, Any],
        at: int,
        needed: Collection[str],
    ) -> None:
        try:
            signed = consent.check_form(body["signed"])
        except ValueError as error:
            raise Unsigned(f"{kind} of {pid}: its consent has a wrong {error}") from None
        if signed["key"] not in {party.active.get(purpose) for purpose in needed}:
            raise Unsigned(f"{kind} of {pid} is signed by a key that was not in force")
        try:
            consent.check(
                signed,
                pid=pid,
                kind=kind,
                payload=payload,
                last_nonce=party.nonce,
                at_ms=at,
                skew_ms=consent.SKEW_MS,
            )
        except consent.ConsentRefused as refused:
            raise Unsigned(f"{kind} of {pid}: {refused.code}") from None
        party.nonce = signed["nonce"]
        self.checked += 1

    def _possessed(self, pid: str, purpose: str, key: str, proof: str) -> None:
        try:
            verify(key, consent.KEY_DOMAIN, consent.possession(pid, purpose, key), proof)
        except BadSignature:
            raise Unsigned(
                f"the {purpose} key of {pid} was bound without its own signature"
            ) from None
        self.checked += 1


__all__ = ["Keyring", "Keys", "Unsigned"]
