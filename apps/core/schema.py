"""What the API's description says of all operations alike: problems, pages by cursor, retries."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse
from rest_framework import serializers

from apps.core.idempotency import HEADER, KEY_MAX
from apps.core.pagination import CursorPagination
from apps.core.problems import CONTENT_TYPE


class ProblemSerializer(serializers.Serializer[Any]):
    """RFC 9457 problem details; a problem's own facts stand beside these."""

    type = serializers.CharField(help_text="urn:flai:problem:…, by code")
    title = serializers.CharField()
    status = serializers.IntegerField()
    code = serializers.CharField(help_text="stable; what a program decides by")
    detail = serializers.CharField(help_text="for people: what happened, and what to do")


def problem_response(text: str, **kwargs: Any) -> OpenApiResponse:
    """A problem in `extend_schema(responses={(402, CONTENT_TYPE): problem_response(…)})`."""
    return OpenApiResponse(ProblemSerializer, text, **kwargs)


def idempotency_key(*, required: bool = True) -> OpenApiParameter:
    """The header that makes a retry harmless (apps/core/idempotency.py)."""
    text = "A new UUID for each effect; a retry with the same key gets the first answer."
    pattern = rf"^[ -~]{{1,{KEY_MAX}}}$"
    return OpenApiParameter(
        HEADER, str, "header", required=required, pattern=pattern, description=text
    )


class Schema(AutoSchema):
    """Lists are {"results", "next"}; every operation tells of its problems."""

    def _get_paginator(self) -> CursorPagination:
        return CursorPagination()

    def get_override_parameters(self) -> list[Any]:
        handler = getattr(self.view, self.method.lower())
        required = getattr(handler, "idempotency_required", None)
        return [] if required is None else [idempotency_key(required=required)]

    def _get_response_bodies(self, direction: Any = "response") -> dict[str, Any]:
        bodies: dict[str, Any] = super()._get_response_bodies(direction)
        for code, text in self._problems():
            if code not in bodies:
                bodies[code] = self._get_response_for_code(
                    problem_response(text), code, [CONTENT_TYPE], direction
                )
        return bodies

    def _problems(self) -> Iterator[tuple[str, str]]:
        writes = self.method not in ("GET", "HEAD")
        yield "400", "Not well formed"
        if self.view.get_authenticators():
            yield "401", "No valid API key or session"
            yield "403", "The key lacks a scope, or you may not do this"
        if "{" in self.path:
            yield "404", "There is nothing by this name or id"
        if writes:
            yield "409", "Contradicts what is recorded already"
            yield "422", "The content breaks a rule"
        yield "429", "Too many requests; Retry-After"
        yield "default", "Whatever else goes wrong"
