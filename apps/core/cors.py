"""Pages of other origins may buy predictions by an API key: what this takes answers to any origin.

Nothing opens here with what a browser adds by itself. Without `Access-Control-Allow-Credentials` no
foreign page reads what somebody's session would show (Fetch standard, CORS protocol), and who knows
a key can use it from anywhere anyway.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

# Read a listing, ask its price, ask it; read what was asked, take it back; compare the nodes.
OPEN = re.compile(
    r"/api/v1/(?:nodes|listings/[\w-]+(?:/(?:quote|inferences))?|inferences/[\w-]+(?:/cancel)?)/?"
)
PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Allow-Headers": "authorization, content-type, idempotency-key, prefer",
    "Access-Control-Max-Age": "7200",
}
READABLE = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "Location, Preference-Applied, RateLimit-Limit, "
    "RateLimit-Policy, RateLimit-Remaining, RateLimit-Reset, Retry-After",
}


def cross_origin(
    get_response: Callable[[HttpRequest], HttpResponseBase],
) -> Callable[[HttpRequest], HttpResponseBase]:
    """Middleware: answers preflights of these calls, and lets any page read their answers."""

    def answer(request: HttpRequest) -> HttpResponseBase:
        if not OPEN.fullmatch(request.path_info):
            return get_response(request)
        if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
            return HttpResponse(status=204, headers=READABLE | PREFLIGHT)
        response = get_response(request)
        for name, text in READABLE.items():
            response.headers[name] = text
        return response

    return answer
