"""The consent that a request brings along: how API and pages read it."""

from __future__ import annotations

import json
from typing import Any

from django.http import HttpRequest
from rest_framework import serializers
from rest_framework.request import Request

from apps.accounts.models import ApiKey
from apps.core.errors import BadInput
from apps.wallets.keys import Consent


class SignedSerializer(serializers.Serializer[Any]):
    """A bound key's signature over canonical {"v":1,"pid","kind","payload","key","nonce",
    "expires_at"} with domain "flai/action/v1"; nonce and expiry as signed."""

    key = serializers.RegexField(r"^[0-9a-f]{64}$", help_text="The public key that signed.")
    nonce = serializers.IntegerField(
        min_value=1, max_value=2**53, help_text="Greater than the last: GET /wallet/keys/."
    )
    expires_at = serializers.IntegerField(
        min_value=1, max_value=2**53, help_text="Unix milliseconds, at most a day ahead."
    )
    signature = serializers.RegexField(r"^[0-9a-f]{128}$")


class ConsentSerializer(serializers.Serializer[Any]):
    """What the requests share that a bound wallet key must sign."""

    signed = SignedSerializer(
        required=False, allow_null=True, default=None, help_text="Needed once a key is bound."
    )


def consent_of(request: Request, data: dict[str, Any]) -> Consent:
    """Takes `signed` out of checked data; by what the request acts follows from how it came."""
    auth = "api_key" if isinstance(request.auth, ApiKey) else "session"
    return Consent(auth, data.pop("signed", None))


def consent_of_form(request: HttpRequest) -> Consent:
    """The same of a page's form: `signed` is JSON text that the page's script has put there.

    Raises BadInput for text that is none.
    """
    text = request.POST.get("signed", "")
    try:
        return Consent("session", json.loads(text) if text else None)
    except ValueError:
        raise BadInput("bad_consent", "The signature arrived damaged. Nothing was done.") from None
