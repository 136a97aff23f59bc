"""Serializer fields: micro amounts are decimal strings in JSON, exact in every language."""

from __future__ import annotations

import re
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request

MICRO_MAX = 2**63 - 1
_DIGITS = re.compile(r"[0-9]{1,19}")


def micro(amount: int | None) -> str | None:
    """An amount as JSON carries it."""
    return None if amount is None else str(amount)


@extend_schema_field({"type": "string", "pattern": "^[0-9]{1,19}$", "examples": ["500000"]})
class MicroField(serializers.Field):
    """Micro-units, 1 … 2^63 − 1 (0 with `allow_zero`): a string of digits, or an int."""

    default_error_messages = {
        "shape": "Give whole micro-units as a string of digits.",
        "positive": "The amount must be greater than zero.",
        "large": "The amount is too large.",
    }

    def __init__(self, *, allow_zero: bool = False, **kwargs: Any) -> None:
        self.allow_zero = allow_zero
        super().__init__(**kwargs)

    def to_internal_value(self, data: Any) -> int:
        if isinstance(data, bool) or not _DIGITS.fullmatch(str(data)):
            self.fail("shape")
        amount_micro = int(data)
        if amount_micro == 0 and not self.allow_zero:
            self.fail("positive")
        if amount_micro > MICRO_MAX:
            self.fail("large")
        return amount_micro

    def to_representation(self, value: int) -> str:
        return str(value)


def checked(serializer: type[serializers.BaseSerializer[Any]], request: Request) -> dict[str, Any]:
    """The request's body, checked by the serializer. Raises ValidationError (400)."""
    bound = serializer(data=request.data)
    bound.is_valid(raise_exception=True)
    return dict(bound.validated_data)
