"""Listings that are open to holders of a credential alone: the rule is `apps.protocol.credentials`.

Looking is everybody's. Asking takes a credential that the SubDAO's terms trust; its name stands in
the log beside each answer that was asked for, where anybody holds it against the terms
(`workers.client.credentials`).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from apps.accounts.models import Party
from apps.core.clock import unix_ms
from apps.core.errors import BadInput, Forbidden
from apps.listings.models import Listing, Subscription
from apps.protocol import credentials as rules
from apps.protocol.consent import WALLET
from apps.subdaos.models import Dao
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


def standing(
    access: rules.Access, buyer: Party, *, now: datetime
) -> tuple[rules.Credential | None, str]:
    """The credential that admits the buyer, else why none does: a key of WAYS."""
    key, at_ms, why = buyer.wallet_key, unix_ms(now), "none"
    rows = held_by(buyer).filter(kind=access.credential, issuer__pid__in=access.issuers)
    for row in rows:
        said = stated(row)
        found = rules.obstacle(access, said, holder=buyer.pid, key=key, at_ms=at_ms)
        if found is None:
            return said, ""
        why = found if why == "none" else why  # of the newest
    return None, why if key or why != "none" else "no_key"


def kept_by(
    plan: Subscription | None, buyer: Party, *, now: datetime
) -> tuple[bool, rules.Credential | None]:
    """Whether the terms that a plan began with admit its buyer still, and by which credential."""
    if plan is None:
        return False, None
    terms = rules.access_of(plan.access)
    held = standing(terms, buyer, now=now)[0] if terms else None
    return terms is None or held is not None, held


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
    held, why = standing(access, buyer, now=now)
    if held is not None:
        return held.id
    kept, held = kept_by(plan, buyer, now=now)
    if kept:
        return held.id if held else ""
    issuers = issuers_of(access)
    names = ", ".join(one["name"] for one in issuers)
    way = WAYS[why].format(issuers=names)
    raise CredentialNeeded(
        credential=access.credential,
        issuers=issuers,
        reason=why,
        way=way,
        page="/wallet/credentials/",
    )
