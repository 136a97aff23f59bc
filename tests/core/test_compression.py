"""Text is compressed for whoever takes it; a page of ours is what it is without."""

from __future__ import annotations

import gzip

import pytest
from django.test import Client

pytestmark = pytest.mark.django_db


def body(answer: object) -> bytes:
    content = getattr(answer, "streaming_content", None)
    return b"".join(content) if content is not None else answer.content  # type: ignore[attr-defined]


@pytest.mark.parametrize("address", ["/design/", "/api/v1/schema/", "/static/css/flai.css"])
def test_text_is_compressed_for_whoever_takes_it(address: str) -> None:
    plain = Client().get(address)
    packed = Client().get(address, headers={"Accept-Encoding": "gzip"})
    assert plain.status_code == packed.status_code == 200
    assert "Content-Encoding" not in plain.headers
    assert packed.headers["Content-Encoding"] == "gzip"
    assert "Accept-Encoding" in packed.headers["Vary"]
    whole, sent = body(plain), body(packed)
    assert len(sent) < len(whole) / 2
    assert len(gzip.decompress(sent)) == len(whole)


def test_fonts_and_parts_of_files_go_as_they_are() -> None:
    wanted = {"Accept-Encoding": "gzip"}
    font = Client().get("/static/fonts/inter-latin.woff2", headers=wanted)
    assert font.status_code == 200 and "Content-Encoding" not in font.headers
    part = Client().get("/static/css/flai.css", headers=wanted | {"Range": "bytes=0-9"})
    assert part.status_code == 206 and "Content-Encoding" not in part.headers
    assert len(body(part)) == 10
