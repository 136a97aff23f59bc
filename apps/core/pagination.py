"""Lists: {"results": […], "next": url | null}, by cursor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from django.db.models import QuerySet
from rest_framework.pagination import CursorPagination as DrfCursorPagination
from rest_framework.request import Request
from rest_framework.response import Response


class CursorPagination(DrfCursorPagination):
    """Newest first, stable while rows are added; `?limit=` up to 200."""

    page_size = 50
    page_size_query_param = "limit"
    max_page_size = 200
    ordering = ("-created_at", "-id")

    def get_paginated_response(self, data: Any) -> Response:
        return Response({"results": data, "next": self.get_next_link()})

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        return {
            "type": "object",
            "required": ["results", "next"],
            "properties": {
                "results": schema,
                "next": {"type": ["string", "null"], "format": "uri"},
            },
        }


def paged(
    request: Request,
    rows: QuerySet[Any],
    to_json: Callable[[Any], Any],
    *,
    ordering: Sequence[str] = CursorPagination.ordering,
    complete: Callable[[Sequence[Any]], object] | None = None,
) -> Response:
    """One page of `rows` in `ordering` (unique together), each through `to_json`.

    complete: is given the page's rows first, to read at once what each of them would read alone.
    """
    paginator = CursorPagination()
    paginator.ordering = tuple(ordering)
    page = paginator.paginate_queryset(rows, request) or []
    if complete is not None:
        complete(page)
    return paginator.get_paginated_response([to_json(row) for row in page])
