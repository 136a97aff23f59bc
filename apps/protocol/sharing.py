"""What an organisation signs before it shares rows, and when it takes them back.

Rows that are shared lie word by word in the nodes' stores: t + 1 nodes that put their words
together read them. So a custodian signs its consent to one round beforehand, and may withdraw a
share until the round is computed; the nodes themselves obey the owner's signature.

consent = {"v", "type": "rows_consent", "round", "circuits", "nodes", "rows", "columns",
"expires_at"} and, where the rows may stay with the nodes for further rounds, to each of which their
owner consents anew, "stays_until"; under domain "flai/rows-consent/v1". Which of the circuits, whom
the rows meet there, the model that training goes on from and the normalisation are in the share's
ticket.
withdrawal = {"v", "type": "withdrawal", "share_id", "ticket_id", "at"}, "flai/withdrawal/v1".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from apps.protocol.tickets import Ticket, TicketError
from apps.protocol.wire import BadSignature, digest, is_hex, verify

CONSENT_DOMAIN = "flai/rows-consent/v1"
WITHDRAWAL_DOMAIN = "flai/withdrawal/v1"
WITHDRAWN_DOMAIN = "flai/withdrawn/v1"

Json = dict[str, Any]


def consent_to(
    *,
    round_id: str,
    circuits: Sequence[str],
    nodes: Sequence[str],
    rows: int,
    columns: int,
    expires_at: int,
    stays_until: int | None = None,
) -> Json:
    """What a custodian consents to: so many rows of so many values, for this round alone; the
    nodes delete them after it, or at `stays_until`."""
    stays = {} if stays_until is None else {"stays_until": stays_until}
    return stays | {
        "v": 1,
        "type": "rows_consent",
        "round": round_id,
        "circuits": list(circuits),
        "nodes": list(nodes),
        "rows": rows,
        "columns": columns,
        "expires_at": expires_at,
    }


def check_consent(consent: Any, signature: Any, *, key: str, wanted: Mapping[str, Any]) -> str:
    """The consent's digest, if it says exactly `wanted` and its owner signed it.

    Raises: TicketError("no_consent", "bad_signature").
    """
    if not isinstance(consent, dict) or consent != dict(wanted):
        raise TicketError("no_consent", "The consent is not to this round's use of the rows.")
    _signed(consent, signature, key=key, domain=CONSENT_DOMAIN)
    return digest(CONSENT_DOMAIN, consent)


def withdrawal_of(*, share_id: str, ticket_id: str, at: int) -> Json:
    return {
        "v": 1,
        "type": "withdrawal",
        "share_id": share_id,
        "ticket_id": ticket_id,
        "at": at,
    }


def check_withdrawal(withdrawal: Any, signature: Any, *, ticket: Ticket) -> None:
    """Raises: TicketError("malformed", "bad_signature") unless the owner of this ticket's share
    takes it back."""
    at = withdrawal.get("at") if isinstance(withdrawal, dict) else None
    wanted = withdrawal_of(share_id=ticket.share_id, ticket_id=ticket.id, at=at)  # type: ignore[arg-type]
    if type(at) is not int or at < 0 or withdrawal != wanted:
        raise TicketError("malformed", "This is not about withdrawing that share.")
    _signed(withdrawal, signature, key=ticket.sender, domain=WITHDRAWAL_DOMAIN)


def _signed(body: Json, signature: Any, *, key: str, domain: str) -> None:
    try:
        verify(key, domain, body, signature if is_hex(signature, 64) else "")
    except BadSignature:
        raise TicketError("bad_signature", "It is not signed by the owner's key.") from None
