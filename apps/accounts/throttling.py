"""Every caller of the API has its rate; sign-up is open and passwords can be guessed, so both are
slowed down further. Counted in the cache: one that is away lets requests pass, since a broker must
not close the door.
"""

from __future__ import annotations

import hashlib
import time
from functools import cache as once
from typing import TYPE_CHECKING

import redis
from django.conf import settings
from django.core.cache import cache
from django.http import HttpRequest
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle, SimpleRateThrottle

from apps.accounts.models import ApiKey
from apps.core.broker import AWAY, outage

if TYPE_CHECKING:  # rest_framework.views reads the settings that name this module
    from rest_framework.views import APIView

GUESSES = 10
GUESSES_FOR_S = 15 * 60
WINDOW_S = 60


class RateLimit(BaseThrottle):
    """settings.RATE_PER_MINUTE requests a minute for each key, person or address.

    Said in every answer: RateLimit-Limit, -Remaining, -Reset (seconds) and RateLimit-Policy
    (draft-ietf-httpapi-ratelimit-headers); 429 comes with Retry-After.
    """

    def __init__(self) -> None:
        self.reset_s = 0

    def allow_request(self, request: Request, view: APIView) -> bool:
        now = int(time.time())
        window, self.reset_s = now // WINDOW_S, WINDOW_S - now % WINDOW_S
        limit = settings.RATE_PER_MINUTE
        used = _count(f"rate:{caller(request)}:{window}")
        view.headers |= {
            "RateLimit-Limit": str(limit),
            "RateLimit-Remaining": str(max(limit - used, 0)),
            "RateLimit-Reset": str(self.reset_s),
            "RateLimit-Policy": f"{limit};w={WINDOW_S}",
        }
        return used <= limit

    def wait(self) -> float:
        return self.reset_s - 1


def caller(request: Request) -> str:
    """Who is counted: the key, else the person, else the address."""
    if isinstance(request.auth, ApiKey):
        return f"key:{request.auth.pk}"
    if request.user.is_authenticated:
        return f"user:{request.user.pk}"
    return f"address:{request.META.get('REMOTE_ADDR', '')}"


def used_now(request: Request) -> int:
    """Requests counted in this minute, this one included; 0 while there is no cache."""
    try:
        found = _valkey().get(f"rate:{caller(request)}:{int(time.time()) // WINDOW_S}")
        return int(found or 0)
    except AWAY:
        return 0


def _count(key: str) -> int:
    """One more, in one round trip but for the first. A process that ends between these two leaves a
    key that nobody asks for again."""
    try:
        used = int(_valkey().incr(key))
        if used == 1:
            _valkey().expire(key, 2 * WINDOW_S)
        return used
    except AWAY as error:
        outage.failed(error)
        return 0


@once
def _valkey() -> redis.Redis:
    return redis.Redis.from_url(settings.VALKEY_URL, socket_timeout=1, socket_connect_timeout=1)


class SignUpThrottle(SimpleRateThrottle):
    """20 accounts an hour from one address; a site with a faucet (a demo) allows 600."""

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
        except AWAY as error:
            outage.failed(error)
            return True


def _guesses_key(email: str, address: str) -> str:
    # by both: nobody can lock somebody else's account, and an office shares an address
    return "sign_in:" + hashlib.sha256(f"{email.strip().lower()}\0{address}".encode()).hexdigest()


def may_guess(*, email: str, address: str) -> bool:
    """Whether this address may try a password for this e-mail: 10 wrong ones in 15 minutes."""
    try:
        return int(cache.get(_guesses_key(email, address), 0)) < GUESSES
    except AWAY as error:
        outage.failed(error)
        return True


def guessed_wrong(*, email: str, address: str) -> None:
    """Count a wrong password."""
    key = _guesses_key(email, address)
    try:
        cache.add(key, 0, GUESSES_FOR_S)
        cache.incr(key)
    except ValueError:  # it ran out in between
        pass
    except AWAY as error:
        outage.failed(error)
