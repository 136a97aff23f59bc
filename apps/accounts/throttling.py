"""Sign-up is open, and passwords can be guessed: both are slowed down."""

from __future__ import annotations

import hashlib
import logging

from django.conf import settings
from django.core.cache import cache
from django.http import HttpRequest
from redis.exceptions import RedisError
from rest_framework.request import Request
from rest_framework.throttling import SimpleRateThrottle
from rest_framework.views import APIView

logger = logging.getLogger(__name__)
GUESSES = 10
GUESSES_FOR_S = 15 * 60


class SignUpThrottle(SimpleRateThrottle):
    """20 accounts an hour from one address; a site with a faucet (a demo) allows 600.

    Without its cache it lets requests pass: a broker that is away must not close the door.
    """

    scope = "sign_up"

    def get_rate(self) -> str:
        return "600/hour" if settings.FAUCET else "20/hour"

    def get_cache_key(self, request: HttpRequest | Request, view: APIView | None) -> str:
        # Not get_ident: it believes the X-Forwarded-For that anybody may send. Behind a proxy, the
        # server in front of us (uvicorn) sets REMOTE_ADDR, from proxies that it is told to trust.
        ident = request.META.get("REMOTE_ADDR", "")
        return self.cache_format % {"scope": self.scope, "ident": ident}

    def allow_request(self, request: HttpRequest | Request, view: APIView | None = None) -> bool:
        """For the page too, which counts in the same place as the API."""
        try:
            return super().allow_request(request, view)
        except (RedisError, OSError):
            logger.warning("no cache to count sign-ups with")
            return True


def _guesses_key(email: str, address: str) -> str:
    # by both: nobody can lock somebody else's account, and an office shares an address
    return "sign_in:" + hashlib.sha256(f"{email.strip().lower()}\0{address}".encode()).hexdigest()


def may_guess(*, email: str, address: str) -> bool:
    """Whether this address may try a password for this e-mail: 10 wrong ones in 15 minutes."""
    try:
        return int(cache.get(_guesses_key(email, address), 0)) < GUESSES
    except (RedisError, OSError):
        logger.warning("no cache to count sign-ins with")
        return True


def guessed_wrong(*, email: str, address: str) -> None:
    """Count a wrong password."""
    key = _guesses_key(email, address)
    try:
        cache.add(key, 0, GUESSES_FOR_S)
        cache.incr(key)
    except (RedisError, OSError, ValueError):  # ValueError: it ran out in between
        logger.warning("no cache to count sign-ins with")
