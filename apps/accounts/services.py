"""Writers of parties, people and keys."""

from __future__ import annotations

import hashlib
import secrets
import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import IntegrityError
from django.utils.text import slugify

from apps.accounts.bootstrap import SYSTEM_PARTIES
from apps.accounts.models import SCOPES, ApiKey, Membership, Party, User
from apps.core.clock import now as clock_now
from apps.core.errors import BadInput, Conflict, Forbidden, NotFound
from apps.core.ids import effect_of
from apps.core.transactions import durable, require_transaction

KEY_PREFIX = "flai_"
KEYS_MAX = 50
VISIT = timedelta(minutes=30)
OVERLAP_S_MAX = 7 * 24 * 3600
USED_EVERY = timedelta(minutes=1)


def party_create(*, kind: str, name: str, slug: str | None = None, now: datetime) -> Party:
    """Inner writer: a party with a fresh pid; its slug is made from the name unless given.

    Raises Conflict when a given slug is taken.
    """
    require_transaction("accounts.services.party_create")
    if slug is not None:
        if Party.objects.filter(slug=slug).exists():
            raise Conflict("slug_taken", "This short name is taken.")
        return Party.objects.create(kind=kind, name=name, slug=slug, created_at=now)
    return Party.objects.create(kind=kind, name=name, slug=_free_slug(name), created_at=now)


def _free_slug(name: str) -> str:
    base = slugify(name)[:50].strip("-") or "party"
    if base in SYSTEM_PARTIES or Party.objects.filter(slug=base).exists():
        return f"{base}-{secrets.token_hex(3)}"
    return base


def sign_up(
    *, email: str, password: str, name: str, kind: str, now: datetime | None = None
) -> tuple[User, Party]:
    """A person with an e-mail and a password, and the party that they act for.

    Raises BadInput naming the field: e-mail, password, name, kind; Conflict for a known e-mail.
    """
    now = now or clock_now()
    email, name = email.strip().lower(), " ".join(name.split())
    if kind not in ("person", "organisation"):
        raise BadInput("bad_kind", "The kind is person or organisation.", field="kind")
    if not 1 <= len(name) <= 120:
        raise BadInput("bad_name", "Give a name of at most 120 characters.", field="name")
    try:
        validate_email(email)
    except ValidationError:
        raise BadInput("bad_email", "Enter a valid e-mail address.", field="email") from None
    user = User(email=email)
    try:
        validate_password(password, user)
    except ValidationError as error:
        raise BadInput("weak_password", " ".join(error.messages), field="password") from None
    user.set_password(password)
    with durable():
        if User.objects.filter(email=email).exists():
            raise Conflict("email_taken", "There is an account with this e-mail already.")
        try:
            user.save(force_insert=True)
        except IntegrityError:
            raise Conflict("email_taken", "There is an account with this e-mail already.") from None
        party = party_create(kind=kind, name=name, now=now)
        Membership.objects.create(user=user, party=party, created_at=now)
    return user, party


def api_key_hash(key: str) -> str:
    """SHA-256 of a key, hex: 256 random bits need no slow hash."""
    return hashlib.sha256(key.encode()).hexdigest()


def api_key_create(
    *,
    user: User,
    party: Party,
    label: str = "",
    scopes: Sequence[str] = SCOPES,
    expires_at: datetime | None = None,
    spend_limit_micro: int | None = None,
    by: ApiKey | None = None,
    idempotency: uuid.UUID | None = None,
    now: datetime | None = None,
) -> tuple[ApiKey, str]:
    """A new key for `party`. Returns (row, the key itself): it is shown now and never again.

    spend_limit_micro: what it may spend on inferences in a calendar month (UTC).
    by: the key that asks for it; it can't hand on what it may not do itself, nor outlive itself,
    and with a limit none at all: each new key would spend it again.
    idempotency: the same one again means that the first answer was lost, and with it the key. The
    row stays, its key is replaced; the lost one works no more.
    Raises BadInput (a scope, the expiry), Forbidden (more than `by` may), Conflict (too many keys;
    another label; the key was revoked).
    """
    now = now or clock_now()
    scopes = _scopes(scopes, by)
    if by is not None and by.spend_limit_micro is not None:
        raise Forbidden("limited_key", "A key with a spending limit can't make others.")
    if by is not None and by.expires_at is not None:
        expires_at = min(expires_at or by.expires_at, by.expires_at)
    if expires_at is not None and expires_at <= now:
        raise BadInput("bad_expiry", "The key would have expired already.", field="expires_at")
    key, row_id = _new_key(), effect_of(party.id, "accounts.api_key", idempotency)
    with durable():
        Party.objects.select_for_update(no_key=True).get(id=party.id)  # retries one by one
        row = ApiKey.objects.filter(id=row_id).first()
        if row is not None:
            asked = (label[:60], user.id, scopes, spend_limit_micro)
            same = (row.label, row.user_id, row.scopes, row.spend_limit_micro) == asked
            outlives = by is not None and row.outlives(by)
            if not same or outlives or row.revoked_at is not None:
                raise Conflict("idempotency_conflict", "This made another key, or one now revoked.")
            row.prefix, row.sha256 = key[:12], api_key_hash(key)
            row.save(update_fields=["prefix", "sha256"])
            return row, key
        if ApiKey.objects.filter(party=party, revoked_at=None).count() >= KEYS_MAX:
            raise Conflict("too_many_keys", f"Revoke one first: {KEYS_MAX} keys are in use.")
        row = ApiKey.objects.create(
            id=row_id,
            party=party,
            user=user,
            prefix=key[:12],
            sha256=api_key_hash(key),
            label=label[:60],
            scopes=scopes,
            spend_limit_micro=spend_limit_micro,
            expires_at=expires_at,
            created_at=now,
        )
    return row, key


def api_key_rotate(
    *, party: Party, key_id: object, overlap_s: int = 0, now: datetime | None = None
) -> tuple[ApiKey, str]:
    """The same key under a new secret; the one before works on for `overlap_s` seconds.

    Raises NotFound, BadInput.
    """
    now = now or clock_now()
    if not 0 <= overlap_s <= OVERLAP_S_MAX:
        raise BadInput("bad_overlap", f"The overlap is 0 to {OVERLAP_S_MAX} s.", field="overlap_s")
    key = _new_key()
    with durable():
        row = (
            ApiKey.objects.select_for_update()
            .filter(id=key_id, party=party, revoked_at=None)
            .first()
        )
        if row is None:
            raise NotFound("key_not_found", "There is no such key.")
        row.previous_sha256 = row.sha256 if overlap_s else ""
        row.previous_until = now + timedelta(seconds=overlap_s) if overlap_s else None
        row.prefix, row.sha256 = key[:12], api_key_hash(key)
        row.save(update_fields=["prefix", "sha256", "previous_sha256", "previous_until"])
    return row, key


def api_key_used(key: ApiKey, *, now: datetime) -> None:
    """Note when a key was last used, to the minute: not every request is worth a write."""
    if key.last_used_at is None or now - key.last_used_at >= USED_EVERY:
        ApiKey.objects.filter(pk=key.pk).update(last_used_at=now)


def _new_key() -> str:
    return KEY_PREFIX + secrets.token_urlsafe(32)


def _scopes(wanted: Sequence[str], by: ApiKey | None) -> list[str]:
    """In their order, each once. Raises BadInput, Forbidden."""
    unknown = set(wanted) - set(SCOPES)
    if unknown or not wanted:
        raise BadInput(
            "bad_scopes", f"Scopes are one or more of {', '.join(SCOPES)}.", field="scopes"
        )
    if by is not None and (more := set(wanted) - set(by.scopes)):
        raise Forbidden(
            "scope_not_yours", f"This key can't hand on what it may not do: {', '.join(more)}."
        )
    return [scope for scope in SCOPES if scope in wanted]


def api_key_revoke(*, party: Party, key_id: object, now: datetime | None = None) -> None:
    """The key stops working at once. Raises NotFound unless it is the party's and not revoked."""
    changed = ApiKey.objects.filter(id=key_id, party=party, revoked_at=None)
    if not changed.update(revoked_at=now or clock_now()):
        raise NotFound("key_not_found", "There is no such key.")


def visit(user: User, *, now: datetime, count: bool = True) -> datetime:
    """When the person was here before this visit, else when they joined.

    Looking again within VISIT is the same visit, so that a second look still shows what is new.
    `count=False` only asks.
    """
    if count and (user.visited_at is None or user.visited_at <= now - VISIT):
        user.visited_before_at, user.visited_at = user.visited_at, now
        user.save(update_fields=["visited_before_at", "visited_at"])
    return user.visited_before_at or user.date_joined
