"""Reads of parties and keys."""

from __future__ import annotations

from django.db.models import Q

from apps.accounts.bootstrap import SYSTEM_PARTIES
from apps.accounts.models import ApiKey, Party, User
from apps.core.errors import Forbidden, NotFound


def system_party(code: str) -> Party:
    """The party of the system itself: "protocol", "faucet" or "superdao".

    Raises KeyError for any other code.
    """
    if code not in SYSTEM_PARTIES:
        raise KeyError(code)
    return Party.objects.get(slug=code)


def party_by_slug(slug: str) -> Party:
    """Raises NotFound."""
    party = Party.objects.filter(slug=slug).first()
    if party is None:
        raise NotFound("party_not_found", "There is no party with this name.")
    return party


def party_found(name: str) -> Party | None:
    """The party of a short name or a pid, if there is one."""
    return Party.objects.filter(Q(slug=name) | Q(pid=name)).first()


def party_of_user(user: User) -> Party | None:
    """The party that a signed-in person acts for."""
    return user.acting_party


def keys_of(party: Party):
    """The keys of a party that are not revoked, newest first."""
    return ApiKey.objects.filter(party=party, revoked_at=None).order_by("-created_at")


def key_within(party: Party, key_id: object, *, by: ApiKey | None) -> ApiKey:
    """A key of this party that may do no more than `by`, the one that asks (None: a person).

    Raises NotFound, Forbidden.
    """
    row = keys_of(party).filter(id=key_id).first()
    if row is None:
        raise NotFound("key_not_found", "There is no such key.")
    if by is not None and by.spend_limit_micro is not None and row.id != by.id:
        raise Forbidden("limited_key", "A key with a spending limit can't renew others.")
    if by is not None and set(row.scopes) - set(by.scopes):
        raise Forbidden("scope_not_yours", "That key may do what this one may not.")
    if by is not None and row.outlives(by):
        raise Forbidden("expiring_key", "That key works longer than this one.")
    return row
