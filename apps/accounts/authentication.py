"""`Authorization: Bearer flai_…`: an API key acts for its party."""

from __future__ import annotations

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from apps.accounts.models import ApiKey, User
from apps.accounts.services import KEY_PREFIX, api_key_hash


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
        found = None
        if text.startswith(KEY_PREFIX):
            found = (
                ApiKey.objects.select_related("user", "party")
                .filter(sha256=api_key_hash(text), revoked_at=None, user__is_active=True)
                .first()
            )
        if found is None:
            raise AuthenticationFailed("This API key is not valid.", code="bad_api_key")
        found.user.acting_party = found.party
        return found.user, found

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="flai"'


class ApiKeyScheme(OpenApiAuthenticationExtension):
    """How the schema names it."""

    target_class = "apps.accounts.authentication.ApiKeyAuthentication"
    name = "apiKey"

    def get_security_definition(self, auto_schema: object) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer", "bearerFormat": "flai_…"}
