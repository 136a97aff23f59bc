"""Lists: {"results": […], "next": url | null}, by cursor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from django.db import DataError
from django.db.models import QuerySet
from rest_framework.pagination import CursorPagination as DrfCursorPagination
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core.errors import BadInput, NotFound


class CursorPagination(DrfCursorPagination):
    """Newest first, stable while rows are added; `?limit=` up to 200."""

    page_size = 50
    page_size_query_param = "limit"
    max_page_size = 200
    ordering = ("-created_at", "-id")

    def get_page_size(self, request: Request) -> int:
        """Raises BadInput for a limit that is no number from 1 to 200."""
        text = request.query_params.get(self.page_size_query_param)
        if text is None:
            return self.page_size
        if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= self.max_page_size):
            raise BadInput("bad_limit", f"limit is a number from 1 to {self.max_page_size}.")
        return int(text)

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        size = {"type": "integer", "minimum": 1, "maximum": self.max_page_size}
        return [
            {
                "name": "cursor",
                "in": "query",
                "schema": {"type": "string"},
                "description": "from `next`; leave it out for the first page",
            },
            {
                "name": self.page_size_query_param,
                "in": "query",
                "schema": size | {"default": self.page_size},
                "description": "rows a page",
            },
        ]

    def get_paginated_response(self, data: Any) -> Response:
        return Response({"results": data, "next": self.get_next_link()})

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        return {
            "type": "object",
            "required": ["results", "next"],
            "properties": {
                "results": schema,
                "next": {"type": ["string", "null"], "format": "uri", "example": None},
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
    try:
        page = paginator.paginate_queryset(rows, request) or []
    except (ValueError, DataError):  # a cursor that holds no place in these rows
        raise NotFound(
            "bad_cursor", "This cursor leads nowhere: start from the first page."
        ) from None
    if complete is not None:
        complete(page)
    return paginator.get_paginated_response([to_json(row) for row in page])
