"""A page of another origin than the site's: what somebody else's web server would serve."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

from tests.support.browser import served


@contextmanager
def foreign_page(script: str = "") -> Iterator[str]:
    """Its address: an empty page that runs `script` as a module."""
    module = f'<script type="module">{script}</script>' if script else ""
    page = f"<!doctype html><title>{escape('Elsewhere')}</title>{module}".encode()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        kind = b"text/html" if scope["path"] == "/" else b"text/plain"
        headers = [(b"content-type", kind)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": page if kind == b"text/html" else b""})

    with served(application) as url:
        yield f"{url}/"
