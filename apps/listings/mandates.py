"""Mandates: a wallet key lets predictions be paid, signed once, up to a limit and a time.

A signature for each prediction would need the key where programs run, and a nonce that makes them
wait for one another. So the key signs once: which listing, how much in all, until when, for which
API key. Each hold then names its mandate in the log (`listings_hold` chooses the one that ends
first), and the verifier adds them up (`workers.client.keyring`). A mandate ends with the key that
signed it, or when its owner says so.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from django.db.models import BigIntegerField, OuterRef, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce

from apps.accounts.models import ApiKey, Party, PartyKey
from apps.core.clock import from_unix_ms, unix_ms
from apps.core.errors import BadInput, Forbidden, NotFound
from apps.core.transactions import durable
from apps.listings.models import Listing, Mandate, Query
from apps.protocol import consent as rules
from apps.wallets import keys, log


class MandateNeeded(Forbidden):
    code = "mandate_needed"
    text = (
        "A key is bound to this wallet, and it has not allowed {price_micro} micro-units for this"
        " prediction. Sign a mandate on the wallet key's page. Nothing was charged."
    )


def mandate_give(
    *,
    party: Party,
    listing: str,
    limit_micro: int,
    until_ms: int,
    api_key: str = "",
    consent: keys.Consent,
    now: datetime,
) -> Mandate:
    """Let predictions take so much, by the wallet key's signature; no other will do.

    listing: its short name, or consent.ANY_LISTING. api_key: the prefix of one of the party's keys,
    "" for its signed-in browser. Leaf "listings.mandate".
    Raises BadInput (listing, until, api_key), Forbidden without a bound key, what `keys.grant`
    raises.
    """
    if not unix_ms(now) < until_ms <= unix_ms(now) + rules.MANDATE_MS_MAX:
        raise BadInput("bad_until", "A mandate ends in the future, within a year.")
    if listing != rules.ANY_LISTING and not Listing.objects.filter(slug=listing).exists():
        raise BadInput("bad_listing", "There is no listing with this name.")
    key = None
    if api_key:
        key = ApiKey.objects.filter(party=party, prefix=api_key, revoked_at=None).first()
        if key is None:
            raise BadInput("bad_api_key", "You have no API key with this prefix.")
    asked = rules.mandate_payload(
        listing=listing, limit_micro=limit_micro, until_ms=until_ms, api_key=api_key
    )
    with durable():
        if consent.signed is None and not keys.keyed(party):
            raise Forbidden("no_wallet_key", "No key is bound: your predictions need no mandate.")
        said = keys.grant(party, rules.MANDATE, asked, consent, now=now)
        made = Mandate.objects.create(
            id=uuid4(),
            party=party,
            public_key=said["signed"]["key"],
            listing=listing,
            limit_micro=limit_micro,
            until=from_unix_ms(until_ms),
            api_key=key,
            created_at=now,
        )
        body = {"id": str(made.id), "pid": party.pid, "payload": asked, **said}
        log.append("listings.mandate", body, now=now)
    return made


def mandate_end(*, party: Party, mandate_id: UUID, now: datetime) -> Mandate:
    """Nothing more is taken by it. The session will do: it only takes away. Again: nothing changes.

    Leaf "listings.mandate_ended". Raises NotFound.
    """
    with durable():
        rows = Mandate.objects.select_for_update(of=("self",)).filter(party=party, id=mandate_id)
        mandate = rows.first()
        if mandate is None:
            raise NotFound("mandate_not_found", "You have no such mandate.")
        if mandate.ended_at is None:
            mandate.ended_at = now
            mandate.save(update_fields=["ended_at"])
            body = {"id": str(mandate.id), "pid": party.pid}
            log.append("listings.mandate_ended", body, now=now)
    return mandate


def in_force(party: Party, *, now: datetime) -> QuerySet[Mandate]:
    """Neither ended nor over, and of the wallet key that is bound now."""
    bound = PartyKey.objects.filter(party=party, purpose=rules.WALLET, active=True)
    rows = Mandate.objects.filter(party=party, ended_at=None, until__gt=now)
    return rows.filter(public_key__in=bound.values("public_key")).select_related("api_key")


def with_spent(rows: QuerySet[Mandate]) -> QuerySet[Mandate]:
    """Each with `spent`, as `spent_micro` gives it."""
    paid = Query.objects.filter(mandate=OuterRef("pk")).exclude(state=Query.State.RELEASED)
    sums = paid.order_by().values("mandate").annotate(sum=Sum("price_micro")).values("sum")
    return rows.annotate(spent=Coalesce(Subquery(sums), 0, output_field=BigIntegerField()))


def spent_micro(mandate: Mandate) -> int:
    """What was paid by it, or is held for answers to come; releases give it back."""
    rows = Query.objects.filter(mandate=mandate).exclude(state=Query.State.RELEASED)
    return int(rows.aggregate(sum=Sum("price_micro"))["sum"] or 0)


def mandate_json(mandate: Mandate, spent: int | None = None) -> dict[str, Any]:
    """spent: where the caller, who describes many, has it; read here otherwise."""
    return {
        "id": str(mandate.id),
        "listing": mandate.listing,
        "limit_micro": str(mandate.limit_micro),
        "spent_micro": str(spent_micro(mandate) if spent is None else spent),
        "until": mandate.until.isoformat(),
        "api_key": mandate.api_key.prefix if mandate.api_key else "",
        "ended_at": mandate.ended_at.isoformat() if mandate.ended_at else None,
    }
