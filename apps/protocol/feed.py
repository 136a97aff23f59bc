"""The market's signed feed: what is on sale, at which price, how good, over which log. Pure.

    page = {"v": 1, "at", "log", "head", "after", "next", "models": [model, …]}

    model = {"slug", "price_micro", "access": {"credential", "issuers": [pid, …]} or null, …}

signed by the log's key over canonical(page), domain flai/feed/v1; `head` carries its own signature.

Models stand in the order of their slugs. A feed is a chain of pages: the first has `after` "", each
other one the `next` of the page before it, and the last one `next` null. So a page that was left
out, repeated or taken from elsewhere breaks the chain, and a model that was left out a signature.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from apps.protocol.heads import Head, HeadRefused, check_head
from apps.protocol.wire import SAFE_INT, BadSignature, verify

FEED_DOMAIN = "flai/feed/v1"
PAGE_MAX = 100
AGE_MS_MAX = 300_000
_FIELDS = {"v", "at", "log", "head", "after", "next", "models"}


class FeedRefused(Exception):
    """Why a page can't be believed: `code` for programs, `text` safe to show."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


def check_page(
    served: Any, *, log: str, after: str, now_ms: int, age_ms_max: int = AGE_MS_MAX
) -> tuple[Head, list[dict[str, Any]], str | None]:
    """(the log's head, models, the next page's `after`) of {"page", "signature"} by the key `log`.

    Raises FeedRefused: "malformed", "bad_signature", "stale" (older than age_ms_max, or from the
    future), "out_of_order" (another page than the one after `after`), "bad_head".
    """
    page = served.get("page") if isinstance(served, Mapping) else None
    if not isinstance(page, Mapping) or set(page) != _FIELDS or page["v"] != 1:
        raise FeedRefused("malformed", "This is no page of a feed, version 1.")
    try:
        verify(log, FEED_DOMAIN, page, str(served.get("signature")))
    except BadSignature:
        raise FeedRefused("bad_signature", "The page is not signed by the log's key.") from None
    at, models, following = page["at"], page["models"], page["next"]
    if not (_whole(at) and isinstance(models, list) and all(map(_named, models))):
        raise FeedRefused("malformed", "The page has a wrong form.")
    if page["log"] != log:
        raise FeedRefused("bad_signature", "The page names another log's key.")
    if abs(now_ms - at) > age_ms_max:
        raise FeedRefused("stale", f"The page was signed {abs(now_ms - at) // 1000} s from now.")
    slugs = [model["slug"] for model in models]
    ordered = all(low < high for low, high in zip([after, *slugs], slugs, strict=False))
    last = slugs[-1] if slugs else after
    if page["after"] != after or not ordered or following not in (None, last):
        raise FeedRefused("out_of_order", "The pages of the feed do not follow one another.")
    if following is not None and not slugs:
        raise FeedRefused("out_of_order", "A page of the feed is empty and not the last.")
    try:
        head = check_head(page["head"], log=log)
    except HeadRefused as error:
        raise FeedRefused("bad_head", error.text) from None
    return head, models, following


def _named(model: Any) -> bool:
    return isinstance(model, dict) and isinstance(model.get("slug"), str) and model["slug"] != ""


def _whole(x: Any) -> bool:
    return isinstance(x, int) and not isinstance(x, bool) and 0 <= x <= SAFE_INT
