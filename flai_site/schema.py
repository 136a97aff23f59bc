"""The description of the API, OpenAPI 3.1."""

from __future__ import annotations

from typing import Any

from drf_spectacular.generators import SchemaGenerator


class SchemaOnce(SchemaGenerator):
    """Made once a process: it follows from the code alone, and takes a fifth of a second."""

    _made: dict[str, Any] | None = None

    def get_schema(self, request: Any = None, public: bool = False) -> dict[str, Any]:
        if SchemaOnce._made is None:
            SchemaOnce._made = super().get_schema(request=request, public=public)
        return SchemaOnce._made
