"""The policy as browsers get it: whoever loosens it, changes this line too."""

from __future__ import annotations

from django.test import Client

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; manifest-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)


def test_every_answer_carries_the_strict_policy() -> None:
    """A page, a refusal and a file; nothing inline, nothing evaluated, nothing from elsewhere."""
    for address in ("/design/", "/no/such/page/", "/static/css/flai.css"):
        answer = Client().get(address)
        assert answer.headers["Content-Security-Policy"] == POLICY, address
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin", address
