"""What every page shares: rendering with its section, the session's party, paging, POST → redirect.

A view is input → one service → message and redirect (PRG); a DomainError becomes a message that
says what happened, and the page it happened on is shown again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import reduce, wraps
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import ValidationError
from django.db.models import Q, QuerySet
from django.db.models.constants import LOOKUP_SEP
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.http import url_has_allowed_host_and_scheme

from apps.core.errors import DomainError

PAGE_SIZE = 25


NUMBER_MAX = 400


@dataclass(frozen=True)
class Page:
    """One page of a list, without counting it: it looks one row ahead.

    `newer` and `older` are the query strings of its neighbours, empty where there is none.
    """

    rows: Sequence[Any]
    newer: str = ""
    older: str = ""
    words: tuple[str, str] = ("Newer", "Older")

    @property
    def has_other_pages(self) -> bool:
        return bool(self.newer or self.older)

    def __iter__(self) -> Any:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)


def paged(
    request: HttpRequest,
    rows: QuerySet[Any],
    size: int = PAGE_SIZE,
    words: tuple[str, str] | None = None,
) -> Page:
    """The page of `rows` that `?after=` or `?before=` asks for; nonsense means the first one.

    They name the row that the page is next to by what it is sorted by, so that the tenth page costs
    what the first does, and new rows don't shift what one reads. Where the order is computed
    (by rank) or goes up and down at once, `?page=` counts, up to NUMBER_MAX. `words` name the ways
    back and on, where rows don't stand by their time.
    """
    names = [str(name) for name in rows.query.order_by if isinstance(name, str)]
    columns = [name.removeprefix("-") for name in names]
    falling = {name.startswith("-") for name in names}
    if len(names) < len(rows.query.order_by) or len(falling) != 1:
        return numbered(request, lambda start, end: rows[start:end], size)
    down = falling == {True}
    words = words or (("Newer", "Older") if down else ("Earlier", "Later"))
    for name, back in (("after", False), ("before", True)):
        at = _place(rows, columns, request.GET.get(name, ""))
        if at is None:
            continue
        beyond = rows.filter(_beyond(columns, at, lower=down is not back))
        found = list((beyond.reverse() if back else beyond)[: size + 1])
        more, found = len(found) > size, found[:size]
        kept = found[::-1] if back else found
        if not kept:
            continue
        newer = _to("before", columns, kept[0]) if more or not back else ""
        older = _to("after", columns, kept[-1]) if more or back else ""
        return Page(kept, newer, older, words)
    found = list(rows[: size + 1])
    older = _to("after", columns, found[size - 1]) if len(found) > size else ""
    return Page(found[:size], "", older, words)


def _beyond(columns: list[str], at: list[Any], *, lower: bool) -> Q:
    """(a, b) < (x, y), or >, in a form for which the database walks an index on (a, b)."""
    sign = "lt" if lower else "gt"
    first = columns[0]
    past = Q(**{f"{first}__{sign}": at[0]})
    if len(columns) > 1:
        past |= Q(**{first: at[0]}) & _beyond(columns[1:], at[1:], lower=lower)
    return Q(**{f"{first}__{sign}e": at[0]}) & past


def _place(rows: QuerySet[Any], columns: list[str], text: str) -> list[Any] | None:
    """The values that `_to` has written down; None for any other text."""
    parts = text.split("~")
    if not text or len(parts) != len(columns):
        return None
    fields = [_field(rows, name) for name in columns]
    try:
        values = [f.to_python(part) for f, part in zip(fields, parts, strict=True)]
    except (ValidationError, ValueError, OverflowError):
        return None
    dated = any(isinstance(v, datetime) and v.tzinfo is None for v in values)
    return None if dated else values


def _field(rows: QuerySet[Any], column: str) -> Any:
    """The field that a column names, also one of a related row ("dao__founded_at") or an
    annotation."""
    if column in rows.query.annotations:
        return rows.query.annotations[column].output_field
    model: Any = rows.model
    *through, last = column.split(LOOKUP_SEP)
    for name in through:
        model = model._meta.get_field(name).related_model
    return model._meta.get_field(last)


def _to(name: str, columns: list[str], row: Any) -> str:
    values = [reduce(getattr, column.split(LOOKUP_SEP), row) for column in columns]
    texts = [v.isoformat() if isinstance(v, datetime) else str(v) for v in values]
    return urlencode({name: "~".join(texts)})


def numbered(
    request: HttpRequest, read: Callable[[int, int], Sequence[Any]], size: int = PAGE_SIZE
) -> Page:
    """The page that `?page=` counts, up to NUMBER_MAX, of rows that `read` gives from the start-th
    to before the end-th."""
    raw = request.GET.get("page", "1")
    number = int(raw) if raw.isascii() and raw.isdigit() and len(raw) < 6 else 1
    number = min(max(number, 1), NUMBER_MAX)
    start = (number - 1) * size
    found = list(read(start, start + size + 1))
    more = len(found) > size and number < NUMBER_MAX
    return Page(
        found[:size],
        urlencode({"page": number - 1}) if number > 1 else "",
        urlencode({"page": number + 1}) if more else "",
        ("Back", "Further"),
    )


def show(
    request: HttpRequest, template: str, section: str, status: int = 200, **context: Any
) -> HttpResponse:
    """Renders `explorer/<template>` with its place in the navigation."""
    return render(request, f"explorer/{template}", {"section": section, **context}, status=status)


def party_of(request: HttpRequest) -> Any:
    """The first party of the signed-in user, or None; asked once a request."""
    if not hasattr(request, "_flai_party"):
        from apps.accounts import selectors

        user = getattr(request, "user", None)
        known = user is not None and user.is_authenticated
        request._flai_party = selectors.party_of_user(user) if known else None  # type: ignore[attr-defined]
    return request._flai_party  # type: ignore[attr-defined]


def for_party(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """What takes a session that acts for a party: strangers sign in first, and who acts for nobody
    is told what to do instead, before anything is written."""

    @login_required
    @wraps(view)
    def entered(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if party_of(request) is None:
            return show(request, "nobody.html", "", status=403 if request.method == "POST" else 200)
        return view(request, *args, **kwargs)

    return entered


def act(
    request: HttpRequest, back: str, done: str | Callable[[Any], str], service: Callable[[], Any]
) -> HttpResponse:
    """Calls the service and goes back with a message: what happened, or why nothing did."""
    try:
        result = service()
    except DomainError as error:
        messages.error(request, explain(error))
    else:
        messages.success(request, done(result) if callable(done) else done)
    return redirect(safe_next(request, back))


def explain(error: DomainError) -> str:
    """The error's own words; they are written to be shown."""
    return str(getattr(error, "text", "") or error)


def safe_next(request: HttpRequest, fallback: str) -> str:
    """Where the visitor came from, if that is on this site."""
    target = request.POST.get("next") or request.GET.get("next") or ""
    if url_has_allowed_host_and_scheme(
        target, allowed_hosts={request.get_host()}, require_https=request.is_secure()
    ):
        return target
    return fallback
