"""Signed webhooks, as standardwebhooks.com has them.

    signature = "v1," ‖ base64(HMAC-SHA256(key, id ‖ "." ‖ timestamp ‖ "." ‖ body))

sent as webhook-id, webhook-timestamp (Unix seconds) and webhook-signature (one or more, by spaces).
The receiver compares in constant time, refuses what is older than TOLERANCE_S, and handles each id
once.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping

PREFIX = "whsec_"
TOLERANCE_S = 300


class BadWebhook(ValueError):
    """A call that was not signed with this secret, or not lately. The text is safe to show."""


def secret_text(key: bytes) -> str:
    """A key as its owner sees it."""
    return PREFIX + base64.b64encode(key).decode()


def sign(key: bytes, *, id: str, timestamp: int, body: bytes) -> str:
    """The value of webhook-signature."""
    content = f"{id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()


def verify(secret: str, headers: Mapping[str, str], body: bytes, *, now: int) -> str:
    """The id of a call that the holder of `secret` signed within TOLERANCE_S. Raises BadWebhook."""
    given = {name.lower(): value for name, value in headers.items()}
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
        id_, timestamp = given["webhook-id"], int(given["webhook-timestamp"])
        signatures = given["webhook-signature"].split()
    except (KeyError, ValueError, binascii.Error):
        raise BadWebhook("The call lacks its id, time or signature.") from None
    if abs(now - timestamp) > TOLERANCE_S:
        raise BadWebhook("The call is too old, or the clocks differ.")
    wanted = sign(key, id=id_, timestamp=timestamp, body=body).encode()
    if not any(hmac.compare_digest(wanted, one.encode()) for one in signatures):
        raise BadWebhook("The call is not signed with this secret.")
    return id_
