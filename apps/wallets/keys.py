"""Keys of parties, and the consent that an action needs: `grant` before its effect is written.

A party without a wallet key acts by its session or API key, and the leaf of the action says so.
From the moment that one is bound (`apps.protocol.consent`) its signature is asked for as well, and
stands in the leaf. Bindings and revocations are leaves too, written with the change itself: the
log's order tells what was in force.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import connection

from apps.accounts.models import Party, PartyKey
from apps.core.clock import now as clock_now
from apps.core.clock import unix_ms
from apps.core.errors import BadInput, Conflict, Forbidden
from apps.core.transactions import durable, require_transaction
from apps.protocol import consent as rules
from apps.protocol import wire
from apps.protocol.consent import WALLET
from apps.wallets import log

TEXTS = {
    "consent_expired": "The signature has expired. Sign again; nothing was done.",
    "consent_too_long": "A signature may be valid for a day at most.",
    "stale_nonce": "This nonce was used already: {party}'s next one is {next}.",
    "bad_signature": "The signature does not cover this action with these values.",
}


@dataclass(frozen=True)
class Consent:
    """By what a request acts: `auth` is "session" or "api_key"; `signed` the key's word, if any."""

    auth: str = "session"
    signed: Mapping[str, Any] | None = None


SESSION = Consent()


class SignatureRequired(Forbidden):
    code = "signature_required"
    text = (
        "A key is bound to this wallet, so this needs its signature. Sign in the browser that has "
        "the key, or with the SDK."
    )


class UnknownKey(Forbidden):
    code = "unknown_key"
    text = "This key was never bound to this party."


class KeyRevoked(Forbidden):
    code = "key_revoked"
    text = "This key was replaced or revoked."


class WrongKey(Forbidden):
    code = "wrong_key"
    text = "This needs the signature of the {needed} key; that is another one."


class ConsentError(Forbidden):
    """A signature that does not authorise the action; the code is one of rules.PRECEDENCE."""


def grant(
    party: Party, kind: str, payload: Mapping[str, Any], consent: Consent, *, now: datetime
) -> dict[str, Any]:
    """Inner writer: may `party` do this? Takes the nonce. Returns what the leaf says of it.

    Call it before any other lock is taken on what is the party's own.
    Raises: SignatureRequired, UnknownKey, KeyRevoked, WrongKey, ConsentError.
    """
    require_transaction("keys.grant")
    if consent.signed is None:
        if keyed(party):
            raise SignatureRequired()
        return {"auth": consent.auth}
    return _signed(_locked(party), kind, payload, consent.signed, frozenset({WALLET}), now)


def key_bind(
    *,
    party: Party,
    purpose: str,
    public_key: str,
    signature: str,
    consent: Consent = SESSION,
    now: datetime | None = None,
) -> PartyKey:
    """Bind an Ed25519 key for a purpose; `signature` by that key over `possession` proves that the
    caller has it. The same key again changes nothing; another one replaces the active one.

    Leaf "accounts.key_bound". A change needs the signature of a key that is bound: `rules.signers`.
    Raises: BadInput (purpose, signature), Conflict (the key is or was in use), or as `grant`.
    """
    now = now or clock_now()
    if purpose not in rules.PURPOSES:
        raise BadInput("bad_purpose", f"A key is for one of {', '.join(rules.PURPOSES)}.")
    try:
        content = rules.possession(party.pid, purpose, public_key)
        wire.verify(public_key, rules.KEY_DOMAIN, content, signature)
    except wire.BadSignature:
        raise BadInput(
            "bad_signature", f"The signature over {rules.KEY_DOMAIN} does not match the key."
        ) from None
    with durable():
        locked = _locked(party)
        active = _active(party)
        if purpose in active and active[purpose].public_key == public_key:
            return active[purpose]
        held = PartyKey.objects.filter(public_key=public_key).order_by("-active").first()
        if held is not None:
            mine = held.party_id == party.id and not held.active
            raise (
                Conflict("key_used", "This key was replaced or revoked once; make a new one.")
                if mine
                else Conflict("key_taken", "This key is in use already.")
            )
        said = _change(
            locked, rules.BIND, purpose, public_key, rules.signers(purpose, active), consent, now
        )
        # After this point it must succeed.
        PartyKey.objects.filter(party=party, purpose=purpose, active=True).update(active=False)
        key = PartyKey.objects.create(
            party=party,
            purpose=purpose,
            public_key=public_key,
            signature=signature,
            created_at=now,
        )
        log.append("accounts.key_bound", _leaf(locked, key) | {"proof": signature} | said, now=now)
        _note(party, purpose, keyed=True)
    return key


def key_revoke(
    *, party: Party, purpose: str, consent: Consent, now: datetime | None = None
) -> PartyKey:
    """The key of this purpose signs nothing any more. Leaf "accounts.key_revoked".

    It always needs a signature (`rules.signers`). Without a wallet key the session authorises
    again. Raises: Conflict when there is none, or as `grant`.
    """
    now = now or clock_now()
    with durable():
        locked = _locked(party)
        active = _active(party)
        if purpose not in active:
            raise Conflict("no_such_key", "No key is bound for this purpose.")
        key = active[purpose]
        needed = rules.signers(purpose, active)
        said = _change(locked, rules.REVOKE, purpose, key.public_key, needed, consent, now)
        # After this point it must succeed.
        PartyKey.objects.filter(id=key.id).update(active=False)
        log.append("accounts.key_revoked", _leaf(locked, key) | said, now=now)
        _note(party, purpose, keyed=False)
    return key


def _change(
    party: Party,
    kind: str,
    purpose: str,
    public_key: str,
    needed: frozenset[str],
    consent: Consent,
    now: datetime,
) -> dict[str, Any]:
    if not needed:
        return {"auth": consent.auth}
    if consent.signed is None:
        raise SignatureRequired(
            text=f"A change of this key needs the signature of the {' or '.join(sorted(needed))} "
            "key. Bind a wallet key first if you have none."
        )
    payload = rules.key_payload(purpose=purpose, public_key=public_key)
    return _signed(party, kind, payload, consent.signed, needed, now)


def _signed(
    party: Party,
    kind: str,
    payload: Mapping[str, Any],
    signed: Mapping[str, Any],
    needed: frozenset[str],
    now: datetime,
) -> dict[str, Any]:
    """`party` is locked: its nonce is read and taken."""
    try:
        signed = rules.check_form(signed)
    except ValueError as error:
        raise BadInput("bad_consent", f"signed: {error} is missing or has a wrong form.") from None
    key = PartyKey.objects.filter(party=party, public_key=signed["key"]).order_by("-active").first()
    if key is None:
        raise UnknownKey()
    if not key.active:
        raise KeyRevoked()
    if key.purpose not in needed:
        raise WrongKey(needed=" or ".join(sorted(needed)))
    try:
        rules.check(
            signed,
            pid=party.pid,
            kind=kind,
            payload=payload,
            last_nonce=party.nonce,
            at_ms=unix_ms(now),
        )
    except rules.ConsentRefused as refused:
        text = TEXTS[refused.code].format(party=party.name, next=party.nonce + 1)
        raise ConsentError(refused.code, text, next_nonce=party.nonce + 1) from None
    Party.objects.filter(id=party.id).update(nonce=signed["nonce"])
    return {"auth": "key", "signed": signed}


def keyed(party: Party) -> bool:
    """Inner writer: is a wallet key bound? The share lock keeps a binding out until this action is
    committed."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT keyed FROM accounts_party WHERE id = %s FOR SHARE", [party.id])
        return bool(cursor.fetchone()[0])


def _locked(party: Party) -> Party:
    return Party.objects.select_for_update(no_key=True).get(id=party.id)


def _active(party: Party) -> dict[str, PartyKey]:
    return {key.purpose: key for key in PartyKey.objects.filter(party=party, active=True)}


def _leaf(party: Party, key: PartyKey) -> dict[str, Any]:
    return {
        "id": str(key.id),
        "pid": party.pid,
        "purpose": key.purpose,
        "public_key": key.public_key,
    }


def _note(party: Party, purpose: str, *, keyed: bool) -> None:
    if purpose == WALLET:
        Party.objects.filter(id=party.id).update(keyed=keyed)
        party.keyed = keyed
    for name in ("signing_key", "wallet_key"):
        party.__dict__.pop(name, None)


def keys_of(party: Party) -> dict[str, Any]:
    """{"keyed", "next_nonce", "keys": {purpose: public key}} as its owner sees them."""
    fresh = Party.objects.get(id=party.id)
    return {
        "pid": fresh.pid,
        "keyed": fresh.keyed,
        "next_nonce": fresh.nonce + 1,
        "keys": {purpose: key.public_key for purpose, key in sorted(_active(party).items())},
    }
