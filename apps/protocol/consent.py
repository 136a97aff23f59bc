"""Consent: what a party signs with its wallet key, so that nobody else can act for it.

    possession = sign_new("flai/party-key/v1", {"pid","public_key"[,"purpose"]})
    consent    = sign_key("flai/action/v1",
                          {"v","pid","kind","payload","key","nonce","expires_at"})

A party's keys have purposes: `agent` signs tickets and attestations on a machine that runs by
itself, `wallet` what the party does with its money and votes, `recovery` nothing but changes of
keys. From the moment a wallet key is bound, an action without its signature is refused; whoever
replays the log refuses it too, so that the server can't act for the party either. The nonce of a
party's signed actions strictly increases; times are Unix milliseconds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from apps.protocol.wire import SAFE_INT, BadSignature, is_hex, verify

ACTION_DOMAIN = "flai/action/v1"
KEY_DOMAIN = "flai/party-key/v1"

AGENT, WALLET, RECOVERY = PURPOSES = ("agent", "wallet", "recovery")
LIFETIME_MS_MAX = 24 * 3600 * 1000
# The log tells when the ledger wrote, by the clock of whichever worker that was.
SKEW_MS = 60_000
FIELDS = ("key", "nonce", "expires_at", "signature")

SEND, GIVE_BACK = "wallets.send", "wallets.reversal"
STAKE, UNSTAKE = "wallets.stake", "wallets.unstake"
VOTE, PROPOSE, CANCEL = "governance.vote", "governance.propose", "governance.cancel"
SWAP, ADD, REMOVE = "exchange.swap", "exchange.add", "exchange.remove"
REWARD = "exchange.reward"
CONVERT = "subdaos.convert"
BIND, REVOKE = "keys.bind", "keys.revoke"
PLEDGE = "rfms.pledge"
MANDATE = "listings.mandate"
PLAN = "listings.plan"
# A prediction is paid by programs, many a second: a mandate that the key signed once stands for its
# signature, up to a limit and a time. Here its phase, and the accounts that it moves between.
QUERY, QUERY_MOVE = "listings.query", ("pend", "main", "revenue")
ANY_LISTING = "*"
MANDATE_MS_MAX = 366 * 24 * 3600 * 1000
# Transfers that are part of something larger: its leaf has the signature (a swap, a plan), or the
# vote (a slashing), and the replay compares the transfers with it. None of them is a hold.
LEAF_KINDS = (SWAP, ADD, REMOVE, PLAN, "exchange.earned", "exchange.slash")
# Proposals that follow from an event may name a party which has not signed them.
SYSTEM_PROPOSALS = ("rfms.approve", "rfms.fork")
WALLET_PURPOSES = ("main", "staked")

# Which of several faults is named.
PRECEDENCE = ("consent_expired", "consent_too_long", "stale_nonce", "bad_signature")


class ConsentRefused(Exception):
    """A signature does not authorise the action; `code` is one of PRECEDENCE."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def possession(pid: str, purpose: str, public_key: str) -> dict[str, str]:
    """What a new key signs, with KEY_DOMAIN, to prove that who binds it has it."""
    content = {"pid": pid, "public_key": public_key}
    return content if purpose == AGENT else content | {"purpose": purpose}


def message(
    *, pid: str, kind: str, payload: Mapping[str, Any], key: str, nonce: int, expires_at: int
) -> dict[str, Any]:
    """What a wallet key signs, with ACTION_DOMAIN."""
    return {
        "v": 1,
        "pid": pid,
        "kind": kind,
        "payload": dict(payload),
        "key": key,
        "nonce": nonce,
        "expires_at": expires_at,
    }


def check_form(signed: Any) -> dict[str, Any]:
    """{"key","nonce","expires_at","signature"} and nothing else. Raises ValueError naming what."""
    if not isinstance(signed, Mapping) or set(signed) != set(FIELDS):
        raise ValueError("signed")
    for name, good in (
        ("key", is_hex(signed["key"], 32)),
        ("nonce", _whole(signed["nonce"])),
        ("expires_at", _whole(signed["expires_at"])),
        ("signature", is_hex(signed["signature"], 64)),
    ):
        if not good:
            raise ValueError(name)
    return dict(signed)


def _whole(x: Any) -> bool:
    return isinstance(x, int) and not isinstance(x, bool) and 0 < x <= SAFE_INT


def check(
    signed: Mapping[str, Any],
    *,
    pid: str,
    kind: str,
    payload: Mapping[str, Any],
    last_nonce: int,
    at_ms: int,
    skew_ms: int = 0,
) -> None:
    """`signed` is the consent of `signed["key"]` to exactly this action, now and not before used.

    Raises: ConsentRefused, the first of PRECEDENCE that holds.
    """
    expires_at, nonce = signed["expires_at"], signed["nonce"]
    if at_ms >= expires_at + skew_ms:
        raise ConsentRefused("consent_expired")
    if expires_at > at_ms + LIFETIME_MS_MAX + skew_ms:
        raise ConsentRefused("consent_too_long")
    if nonce <= last_nonce:
        raise ConsentRefused("stale_nonce")
    content = message(
        pid=pid, kind=kind, payload=payload, key=signed["key"], nonce=nonce, expires_at=expires_at
    )
    try:
        verify(signed["key"], ACTION_DOMAIN, content, signed["signature"])
    except BadSignature:
        raise ConsentRefused("bad_signature") from None


def signers(purpose: str, bound: Collection[str]) -> frozenset[str]:
    """Whose signature a change of the key of this purpose needs, any one of them; empty: nobody's.

    `bound`: the purposes that have a key now. A recovery key outlives a thief of the wallet key:
    only its own signature replaces or revokes it. The first one needs the wallet key's.
    """
    if purpose == RECOVERY:
        return frozenset({RECOVERY if RECOVERY in bound else WALLET})
    if purpose == WALLET:
        return frozenset({WALLET, RECOVERY} & set(bound))
    return frozenset(bound) if AGENT in bound else frozenset()


def mandated(kind: str, phase: str, purpose: str, to_purpose: str) -> bool:
    """Is this the hold for a prediction, which a mandate covers where a key is bound?"""
    return (kind, (phase, purpose, to_purpose)) == (QUERY, QUERY_MOVE)


def needs_signature(kind: str, phase: str, purpose: str, to_purpose: str) -> bool:
    """Does a transfer between accounts of these purposes need the debited wallet's key, once bound?

    What is held, escrowed or issued moves by the rules of whoever holds it, not by its owner's.
    """
    if mandated(kind, phase, purpose, to_purpose) or (phase == "single" and kind in LEAF_KINDS):
        return False
    return purpose in WALLET_PURPOSES


# -- payloads: what of an action is signed. A memo is a private note and not part of it.


def send_payload(*, to: str, asset: str, amount_micro: int) -> dict[str, str]:
    """`to`: the payee's pid."""
    return {"to": to, "asset": asset, "amount_micro": str(amount_micro)}


def stake_payload(*, asset: str, amount_micro: int, lock_s: int = 0) -> dict[str, str]:
    """For STAKE, UNSTAKE and REWARD; a lock is named where there is one."""
    payload = {"asset": asset, "amount_micro": str(amount_micro)}
    return payload | {"lock_s": str(lock_s)} if lock_s else payload


def swap_payload(*, base: str, side: str, amount_micro: int, out_min_micro: int) -> dict[str, str]:
    return {
        "base": base,
        "side": side,
        "amount_micro": str(amount_micro),
        "out_min_micro": str(out_min_micro),
    }


def add_payload(
    *, base: str, base_max_micro: int, quote_max_micro: int, shares_min_micro: int
) -> dict[str, str]:
    return {
        "base": base,
        "base_max_micro": str(base_max_micro),
        "quote_max_micro": str(quote_max_micro),
        "shares_min_micro": str(shares_min_micro),
    }


def remove_payload(
    *, base: str, shares_micro: int, base_min_micro: int, quote_min_micro: int
) -> dict[str, str]:
    return {
        "base": base,
        "shares_micro": str(shares_micro),
        "base_min_micro": str(base_min_micro),
        "quote_min_micro": str(quote_min_micro),
    }


def convert_payload(*, dao: str, points_micro: int, tokens_min_micro: int) -> dict[str, str]:
    """`dao`: its pid. Points given up for at least so many tokens."""
    return {
        "dao": dao,
        "points_micro": str(points_micro),
        "tokens_min_micro": str(tokens_min_micro),
    }


def pledge_payload(*, rfm: str, amount_micro: int) -> dict[str, str]:
    """`rfm`: its id. What goes over the target is not taken."""
    return {"rfm": rfm, "amount_micro": str(amount_micro)}


def mandate_payload(
    *, listing: str, limit_micro: int, until_ms: int, api_key: str
) -> dict[str, str]:
    """Predictions of `listing` (ANY_LISTING: of all) may take `limit_micro` in all, until then, for
    requests with the API key of this prefix ("": for those of a signed-in browser)."""
    return {
        "listing": listing,
        "limit_micro": str(limit_micro),
        "until_ms": str(until_ms),
        "api_key": api_key,
    }


def plan_payload(
    *, listing: str, plan: str, at_ms: int, rows: int, due_micro: int, refund_micro: int
) -> dict[str, str]:
    """To have `plan` of a listing ("": none) with so many rows left, as of a time, for what is then
    paid or paid back."""
    return {
        "listing": listing,
        "plan": plan,
        "at_ms": str(at_ms),
        "rows": str(rows),
        "due_micro": str(due_micro),
        "refund_micro": str(refund_micro),
    }


def give_back_payload(*, transfer: str) -> dict[str, str]:
    return {"transfer": transfer}


def vote_payload(*, proposal: str, support: str) -> dict[str, str]:
    return {"proposal": proposal, "support": support}


def propose_payload(*, dao: str, kind: str, payload_hash: str) -> dict[str, str]:
    """`dao`: its pid; `payload_hash`: what is voted on, as `tally.payload_hash` makes it."""
    return {"dao": dao, "kind": kind, "payload_hash": payload_hash}


def cancel_payload(*, proposal: str) -> dict[str, str]:
    return {"proposal": proposal}


def key_payload(*, purpose: str, public_key: str) -> dict[str, str]:
    """For BIND and REVOKE."""
    return {"purpose": purpose, "public_key": public_key}
