"""Listings that are open to holders of a credential alone: the rule is `apps.protocol.credentials`.

Looking is everybody's. Asking takes a credential that the SubDAO's terms trust; its name stands in
the log beside each answer that was asked for, where anybody holds it against the terms
(`workers.client.credentials`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from apps.accounts.models import Party
from apps.core.clock import unix_ms
from apps.core.errors import BadInput, Forbidden
from apps.listings.models import Listing, Subscription
from apps.protocol import credentials as rules
from apps.protocol.consent import WALLET
from apps.protocol.tickets import Ticket
from apps.subdaos.models import Dao
from apps.training.access import demand_of
from apps.wallets.credentials import SUBJECTS, held_by, stated


class CredentialNeeded(Forbidden):
    code = "credential_needed"
    text = (
        "Only holders of a credential “{credential}” may ask this model. {way} Nothing was charged."
    )


class IssuerKeyless(BadInput):
    code = "issuer_has_no_key"
    text = (
        "An issuer is a person or an organisation here, with a wallet key that signs what it "
        "issues. Who has none binds one first: {issuers}."
    )


# What stands between a party and the model, in words, by the rule's reason.
WAYS = {
    "expired": "Yours has expired: ask its issuer for another.",
    "revoked": "Yours was revoked by its issuer.",
    "other_key": "Yours is of a wallet key that you have replaced: ask its issuer for another.",
    "no_key": "Bind a wallet key, then ask one of its issuers for one: {issuers}.",
    "none": "Ask one of its issuers for one: {issuers}.",
}


def access_of(dao: Dao) -> rules.Access | None:
    """What asking takes; None where everybody may."""
    return rules.access_of(dao.params.get("access"))


def kinds_asked_of(pid: str) -> list[str]:
    """The kinds that some SubDAO's terms trust this issuer with."""
    asking = Dao.objects.filter(params__access__issuers__contains=[pid])
    kinds: Any = asking.values_list("params__access__credential", flat=True)
    return sorted(set(kinds))


def plans_before(dao: Dao, now: datetime) -> bool:
    """Whether a plan runs that began by other terms than those of now: its rows go on by them, so
    the nodes ask for nothing until it is over."""
    running = Subscription.objects.filter(listing__dao=dao, ended_at=None, ends_at__gt=now)
    return running.exclude(access=dao.params.get("access")).exists()


def ensure_keyed(access: rules.Access | None) -> None:
    """Each named issuer has a wallet key: in the name of one without, the server could bind the
    first. Raises BadInput."""
    if access is None:
        return
    of = Party.objects.filter(pid__in=access.issuers)
    keyed = of.filter(kind__in=SUBJECTS, keys__purpose=WALLET, keys__active=True)
    if lacking := sorted(set(access.issuers) - set(keyed.values_list("pid", flat=True))):
        names = dict(of.values_list("pid", "name"))
        said = ", ".join(names.get(pid, pid) for pid in lacking)
        raise IssuerKeyless(issuers=said, field="issuers")


def issuers_of(access: rules.Access) -> list[dict[str, str]]:
    """The trusted issuers: {"pid", "name"}, in the terms' order."""
    names = dict(Party.objects.filter(pid__in=access.issuers).values_list("pid", "name"))
    return [{"pid": pid, "name": names.get(pid, pid)} for pid in access.issuers]


@dataclass(frozen=True)
class Standing:
    """Whether a buyer may ask, by `held` where that takes a credential. `why` the terms of now
    admit it by none: a key of WAYS; `kept`: those that its plan began with admit it still."""

    held: rules.Credential | None
    why: str = ""
    kept: bool = False


def standing(
    access: rules.Access, buyer: Party, *, plan: Subscription | None = None, now: datetime
) -> Standing:
    """By these terms, or by those of the buyer's plan."""
    before = rules.access_of(plan.access) if plan else None
    kinds = {one.credential for one in (access, before) if one}
    rows = list(held_by(buyer).filter(kind__in=kinds))

    def by(terms: rules.Access) -> tuple[rules.Credential | None, str]:
        why = ""  # of the newest
        for row in rows:
            said, asked = stated(row), {"holder": buyer.pid, "key": row.bound}
            if said.kind == terms.credential and said.issuer in terms.issuers:
                found = rules.obstacle(terms, said, at_ms=unix_ms(now), **asked)
                if found is None:
                    return said, ""
                why = why or found
        return None, why or ("none" if buyer.keyed else "no_key")

    held, why = by(access)
    if held is not None or plan is None:
        return Standing(held, why)
    held = by(before)[0] if before else None
    return Standing(held, why, kept=before is None or held is not None)


def ensure_shown(listing: Listing, ticket: Ticket, *, now: datetime) -> None:
    """The ticket shows what the model's nodes ask for, or they would refuse it after it is held.
    Raises CredentialNeeded."""
    demand = demand_of(listing.version.round)
    if demand is None:
        return
    try:
        rules.shown(demand, ticket.access, sender=ticket.sender, at_ms=unix_ms(now))
    except rules.NotShown as error:
        raise CredentialNeeded(
            credential=demand.credential,
            issuers=[],
            reason="not_shown",
            way=f"Its nodes ask for that themselves. {error.text}",
            page="/wallet/credentials/",
        ) from None


def admitted(
    buyer: Party, listing: Listing, *, plan: Subscription | None = None, now: datetime
) -> str:
    """The id of the credential by which the buyer may ask; "" where none is asked for.

    plan: the buyer's, that pays for what is asked: a vote leaves it the terms that it began with.
    Raises CredentialNeeded.
    """
    access = access_of(listing.dao)
    if access is None:
        return ""
    found = standing(access, buyer, plan=plan, now=now)
    if found.held is not None or found.kept:
        return found.held.id if found.held else ""
    issuers = issuers_of(access)
    names = ", ".join(one["name"] for one in issuers)
    way = WAYS[found.why].format(issuers=names)
    raise CredentialNeeded(
        credential=access.credential,
        issuers=issuers,
        reason=found.why,
        way=way,
        page="/wallet/credentials/",
    )
