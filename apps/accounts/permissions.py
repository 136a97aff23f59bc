"""Whom a request acts for."""

from __future__ import annotations

from rest_framework.exceptions import NotAuthenticated
from rest_framework.request import Request

from apps.accounts.models import Party
from apps.core.errors import Forbidden


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
