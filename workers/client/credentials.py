"""Credentials, replayed: who was admitted to a listing that is not open to all, and by whose word.

Each was signed by its issuer's wallet key, as was its revocation. What was asked of a listing whose
SubDAO had voted for a credential names one that admitted its buyer then, by the terms of then, or
by those with which the plan began that paid for it; and of a buyer with a wallet key no prediction
is paid without that key's mandate (`keyring`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from apps.protocol import consent
from apps.protocol import credentials as rules
from apps.protocol.credentials import access_of
from workers.client.earnings import Finding
from workers.client.keyring import Keyring, Unsigned
from workers.client.parameters import Parameters

LATE_MS = 60_000  # what was asked before a vote or a revocation may be written after it


@dataclass
class Sold:
    """A plan: whose model it is of, the terms that it may have begun with, and when it ends."""

    dao: str
    terms: list[rules.Access | None]
    until_ms: int


class Credentials:
    """Fed with leaves by `Replay`; each method raises Finding for what does not fit."""

    def __init__(self, keyring: Keyring, parameters: Parameters) -> None:
        self.keyring, self.parameters = keyring, parameters
        self.issued: dict[str, rules.Credential] = {}
        self.held: dict[str, list[str]] = {}  # pid → those that it was given
        self.plans: dict[str, Sold] = {}

    def issue(self, body: Mapping[str, Any], at: int) -> None:
        issuer, payload = body["issuer"], body["payload"]
        if body.get("signed") is None:
            raise Unsigned(f"credential {body['id']} of {issuer} is signed by nobody")
        self.keyring.action(issuer, rules.ISSUE, payload, body, at)
        said = rules.credential_of(issuer, payload, body["signed"])
        if said.id != body["id"] or said.id in self.issued:
            raise Finding(f"credential {body['id']} is another than was signed, or came twice")
        if not at - consent.SKEW_MS < said.until_ms <= at + rules.LIFETIME_MS_MAX + consent.SKEW_MS:
            raise Finding(f"credential {said.id} was over when it was issued, or lasts too long")
        self.issued[said.id] = said
        self.held.setdefault(said.subject, []).append(said.id)
        terms = [term for dao in self.parameters.access for term in self._terms(dao, at) if term]
        if not any(said.kind == term.credential and issuer in term.issuers for term in terms):
            raise Finding(f"credential {said.id} is of a kind that no vote asks of its issuer")

    def revoke(self, body: Mapping[str, Any], at: int) -> None:
        said, issuer = self.issued.get(body["id"]), body["issuer"]
        if body.get("signed") is None or said is None or said.issuer != issuer:
            raise Unsigned(f"credential {body['id']} was revoked by who had not issued it")
        self.keyring.action(issuer, rules.REVOKE, rules.revoke_payload(id=said.id), body, at)
        self.issued[said.id] = replace(said, revoked_ms=at)

    def voted(self, body: Mapping[str, Any]) -> None:
        """Who is trusted had a wallet key, or else whoever writes the log could bind the first."""
        access = access_of(body["value"]) if body["key"] == "access" else None
        lacking = set(access.issuers if access else ()) - self.keyring.wallets
        if lacking:
            raise Finding(f"proposal {body['proposal']} trusts {min(lacking)}, who had no key")

    def round_opened(self, body: Mapping[str, Any], at: int) -> None:
        """What its model's nodes will ask for is what was voted, by keys that its issuers have;
        they ask for nothing only where `_for_everybody` says so."""
        said, name = body.get("access"), f"round {body['round']}"
        terms = self._terms(body["dao"], at)
        if said is None:
            if not self._for_everybody(body["dao"], terms, at):
                raise Finding(f"{name} lets its nodes answer who lacks the credential of the vote")
            return
        if not any(
            term
            and said["credential"] == term.credential
            and set(said["issuers"]) <= {*term.issuers}
            for term in terms
        ):
            raise Finding(f"{name} lets its nodes ask for a credential that no vote asks for")
        for issuer, key in zip(said["issuers"], said["keys"], strict=True):
            party = self.keyring.parties.get(issuer)
            if party is None or party.active.get(consent.WALLET) != key:
                raise Finding(f"{name} trusts the key {key[:16]}, which is not that of {issuer}")

    def _for_everybody(self, dao: str, terms: list[rules.Access | None], at: int) -> bool:
        """Whether by one of these terms a round's nodes ask for nothing: it is for everybody, or no
        issuer that it names has a key, or a plan runs that began by other terms."""
        running = [
            plan for plan in self.plans.values() if plan.dao == dao and at < plan.until_ms + LATE_MS
        ]
        return any(
            term is None
            or not any(self.keyring.keyed(pid) for pid in term.issuers)
            or any(before != term for plan in running for before in plan.terms)
            for term in terms
        )

    def _terms(self, dao: str, at: int) -> list[rules.Access | None]:
        """Those in force, and those that a vote has just replaced."""
        *before, (since, now) = self.parameters.access.get(dao, [(at, None)])
        return [now] + ([before[-1][1] if before else None] if at - since <= LATE_MS else [])

    def query_held(self, body: Mapping[str, Any], at: int, dao: str) -> None:
        """It names one that admits its buyer, by the terms of then or of the plan that pays it."""
        named = [body["credential"]] if body.get("credential") else []
        plan = self.plans.get(body.get("plan", ""))
        terms = self._terms(dao, at) + (plan.terms if plan else [])
        self._admitted(f"query {body['query']}", body["buyer"], named, at, terms)

    def plan_begun(self, body: Mapping[str, Any], at: int, dao: str) -> None:
        """Its buyer holds one, by the same terms; they are the plan's until it is over."""
        held, terms = self.held.get(body["buyer"], []), self._terms(dao, at)
        self._admitted(f"plan {body['id']}", body["buyer"], held, at, terms)
        self.plans[body["id"]] = Sold(dao, terms, int(body["term"]["ends_ms"]))

    def plan_over(self, body: Mapping[str, Any], at: int) -> None:
        """At its end or before; predictions that it paid for may be told after."""
        plan = self.plans.get(body["id"])
        if plan is not None:
            plan.until_ms = min(plan.until_ms, at)

    def _admitted(
        self, what: str, buyer: str, named: list[str], at: int, terms: list[rules.Access | None]
    ) -> None:
        if None in terms:
            return
        party = self.keyring.parties.get(buyer)
        key = party.active.get(consent.WALLET) if party else None
        why: str | None = "none"
        for access in filter(None, terms):
            for held in (self.issued[id_] for id_ in named if id_ in self.issued):
                asked = {"holder": buyer, "key": key, "at_ms": at, "late_ms": LATE_MS}
                why = rules.obstacle(access, held, **asked)
                if why is None:
                    return
        raise Finding(f"{what} was sold to who lacked the credential ({why})")
