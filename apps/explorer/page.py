"""What every page shares: rendering with its section, the session's party, paging, POST → redirect.

A view is input → one service → message and redirect (PRG); a DomainError becomes a message that
says what happened, and the page it happened on is shown again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.http import url_has_allowed_host_and_scheme

from apps.core.errors import DomainError

PAGE_SIZE = 25


class Page:
    """One page of a queryset or list, without counting it: it looks one row ahead."""

    def __init__(self, rows: Any, number: int, size: int = PAGE_SIZE) -> None:
        self.number = max(number, 1)
        start = (self.number - 1) * size
        found = list(rows[start : start + size + 1])
        self.rows: Sequence[Any] = found[:size]
        self.has_next = len(found) > size

    @property
    def has_previous(self) -> bool:
        return self.number > 1

    @property
    def has_other_pages(self) -> bool:
        return self.has_next or self.has_previous

    @property
    def next_page_number(self) -> int:
        return self.number + 1

    @property
    def previous_page_number(self) -> int:
        return self.number - 1

    def __iter__(self) -> Any:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)


def paged(request: HttpRequest, rows: Any, size: int = PAGE_SIZE) -> Page:
    """The page that `?page=` asks for; nonsense and absurd numbers mean the first one."""
    raw = request.GET.get("page", "1")
    number = int(raw) if raw.isascii() and raw.isdigit() and len(raw) < 6 else 1
    return Page(rows, number, size)


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
