"""`Authorization: Bearer flai_…`: an API key acts for its party."""

from __future__ import annotations

from datetime import datetime

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from apps.accounts.models import ApiKey, Party, User
from apps.accounts.services import KEY_PREFIX, api_key_hash, api_key_used
from apps.core.clock import now as clock_now
from apps.core.joined import Joined


class ApiKeyAuthentication(BaseAuthentication):
    """request.user is the person who made the key, acting for the key's party."""

    def authenticate(self, request: Request) -> tuple[User, ApiKey] | None:
        scheme, _, key = get_authorization_header(request).partition(b" ")
        if scheme.lower() != b"bearer":
            return None
        try:
            text = key.strip().decode("ascii")
        except UnicodeDecodeError:
            text = ""
        now = clock_now()
        found = _key(text, now) if text.startswith(KEY_PREFIX) else None
        if found is None:
            raise AuthenticationFailed("This API key is not valid.", code="bad_api_key")
        if found.expires_at is not None and found.expires_at <= now:
            raise AuthenticationFailed("This API key has expired.", code="api_key_expired")
        api_key_used(found, now=now)
        found.user.acting_party = found.party
        return found.user, found

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="flai"'


_KEYS = Joined(
    """
    FROM accounts_apikey k
    JOIN accounts_user u ON u.id = k.user_id JOIN accounts_party p ON p.id = k.party_id
    WHERE (k.sha256 = %s OR k.previous_sha256 = %s AND k.previous_until > %s)
        AND k.revoked_at IS NULL AND u.is_active
    """,
    k=ApiKey,
    u=User,
    p=Party,
)


def _key(text: str, now: datetime) -> ApiKey | None:
    """The key of this secret, or of the one before it while that is still good."""
    hashed = api_key_hash(text)
    found = _KEYS.first(hashed, hashed, now)
    if found is None:
        return None
    key, key.user, key.party = found
    return key


class ApiKeyScheme(OpenApiAuthenticationExtension):
    """How the schema names it."""

    target_class = "apps.accounts.authentication.ApiKeyAuthentication"
    name = "apiKey"

    def get_security_definition(self, auto_schema: object) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer", "bearerFormat": "flai_…"}
