"""Whom a request acts for, and what its key may do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rest_framework.exceptions import NotAuthenticated
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request

from apps.accounts.models import ApiKey, Party
from apps.core.errors import Forbidden

if TYPE_CHECKING:  # rest_framework.views reads the settings that name this module
    from rest_framework.views import APIView

# What a key must be good for, by the app that a view is of; a view may name its own `key_scope`.
ANY = "any"  # what is public may be read with every key
SCOPE_OF_APP = {
    "accounts": "account",
    "notify": "account",
    "wallets": "wallet",
    "exchange": "wallet",
    "subdaos": "governance",
    "governance": "governance",
    "compute": "training",
    "participants": "training",
    "training": "training",
    "rfms": "governance",
    "listings": "inferences",
}


class KeyScope(BasePermission):
    """A key writes within its scopes only, and reads within them unless it has "read".

    A person who is signed in may do everything that the party may.
    """

    def has_permission(self, request: Request, view: APIView) -> bool:
        if not isinstance(request.auth, ApiKey):
            return True
        wanted = scope_of(view)
        scopes = request.auth.scopes
        reads = request.method in SAFE_METHODS and (wanted == ANY or "read" in scopes)
        if reads or wanted in scopes:
            return True
        raise Forbidden("wrong_scope", f'This key lacks the scope "{wanted}".', scope=wanted)


def scope_of(view: APIView) -> str:
    """The scope that a key needs for this view. An app that is not listed asks for the widest."""
    named = getattr(view, "key_scope", None)
    return str(named or SCOPE_OF_APP.get(type(view).__module__.split(".")[1], "account"))


def key_of_request(request: Request) -> ApiKey | None:
    """The API key of a request; None for a person who is signed in."""
    return request.auth if isinstance(request.auth, ApiKey) else None


def acting_party(request: Request) -> Party:
    """The party of the API key or of the signed-in person.

    Raises NotAuthenticated (401), Forbidden when the person is of no party.
    """
    if not request.user.is_authenticated:
        raise NotAuthenticated()
    party = request.user.acting_party
    if party is None:
        raise Forbidden("no_party", "Your sign-in acts for no party.")
    return party


def acting_party_or_none(request: Request) -> Party | None:
    """For public reads that show "my" part when there is one; works for Django requests too."""
    return request.user.acting_party if request.user.is_authenticated else None
