"""What is text goes compressed to whoever takes it: a page with all that it loads, a third of it.

Django's GZipMiddleware pads answers by a random length, so that their size tells little of a secret
beside a guess (BREACH); the one secret of a page, its CSRF token, is masked anew each time.
"""

from __future__ import annotations

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.middleware.gzip import GZipMiddleware

TEXT = frozenset(
    {
        "text/html",
        "text/css",
        "text/csv",
        "text/javascript",
        "application/javascript",
        "application/json",
        "application/problem+json",
        "application/vnd.oai.openapi+json",
        "image/svg+xml",
    }
)


class TextCompressionMiddleware(GZipMiddleware):
    """Not for what is compressed already (fonts, wheels), nor for a part of a file."""

    def process_response(
        self, request: HttpRequest, response: HttpResponseBase
    ) -> HttpResponseBase:
        kind = response.headers.get("Content-Type", "").partition(";")[0]
        if kind not in TEXT or response.status_code == 206:
            return response
        return super().process_response(request, response)
