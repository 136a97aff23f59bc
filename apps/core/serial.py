"""What requests carry, checked as the API's description says it; micro amounts are decimal strings
in JSON, exact in every language."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request

MICRO_MAX = 2**63 - 1
_DIGITS = re.compile(r"[0-9]{1,19}")


def micro(amount: int | None) -> str | None:
    """An amount as JSON carries it."""
    return None if amount is None else str(amount)


@extend_schema_field(
    {
        "type": ["string", "integer"],
        "pattern": "^[0-9]{1,19}$",
        "minimum": 0,
        "examples": ["500000"],
    }
)
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


class OpaqueField(serializers.CharField):
    """Hex or base64 that somebody else judges. It may be megabytes, and Django REST framework asks
    of each character of a string whether it is half of one."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(trim_whitespace=False, **kwargs)
        self.validators = []


@extend_schema_field({"type": "string", "pattern": "^-?[0-9]{1,19}$", "examples": ["-500000"]})
class SignedMicroField(serializers.Field):
    """Micro-units that came (+) or went (−), in answers only."""

    def to_representation(self, value: int) -> str:
        return str(value)


def checked(serializer: type[serializers.BaseSerializer[Any]], request: Request) -> dict[str, Any]:
    """The request's body, checked by the serializer. Raises ValidationError (400)."""
    if wrong := mistyped(_of(serializer), request.data):
        raise serializers.ValidationError(wrong)
    return _validated(serializer, request.data)


def asked(serializer: type[serializers.BaseSerializer[Any]], request: Request) -> dict[str, Any]:
    """The parameters in the request's address, likewise; others are left alone."""
    return _validated(serializer, request.query_params.dict())


def _validated(serializer: type[serializers.BaseSerializer[Any]], data: Any) -> dict[str, Any]:
    try:
        return dict(_of(serializer).run_validation(data))
    except serializers.ValidationError:  # said again by one that was given the data
        bound = serializer(data=data)
        bound.is_valid(raise_exception=True)
        return dict(bound.validated_data)


@cache
def _of(serializer: type[serializers.BaseSerializer[Any]]) -> serializers.BaseSerializer[Any]:
    """One for all requests, without data: each copies all its fields, which costs more than to
    check by them, and checking changes none."""
    return serializer()


# Django REST framework turns 5 into "5" and "yes" into true. What is described as one type of JSON
# is not taken as another: a program's mistake shall be told, not guessed at.
_TYPES: list[tuple[tuple[type[serializers.Field[Any, Any, Any, Any]], ...], type, str]] = [
    ((serializers.BooleanField,), bool, "true or false"),
    ((serializers.IntegerField,), int, "a whole number"),
    (
        (
            serializers.CharField,
            serializers.ChoiceField,
            serializers.UUIDField,
            serializers.DateTimeField,
        ),
        str,
        "a string",
    ),
]


def mistyped(field: Any, value: Any) -> Any:
    """{"name": ["Give a string."], …} for what is of another JSON type than its field; else {}.

    Shapes (objects, lists, what is missing or null) are the serializer's to judge.
    """
    if isinstance(field, serializers.Serializer) and isinstance(value, dict):
        found = {
            name: mistyped(child, value[name])
            for name, child in field.fields.items()
            if name in value and not child.read_only
        }
        return {name: wrong for name, wrong in found.items() if wrong}
    if isinstance(field, (serializers.ListField, serializers.ListSerializer)):
        items = [mistyped(field.child, item) for item in value] if isinstance(value, list) else []
        return next(filter(None, items), {})
    if value is None:
        return {}
    for kinds, wanted, words in _TYPES:
        if isinstance(field, kinds):
            right = isinstance(value, wanted) and (wanted is bool or not isinstance(value, bool))
            return {} if right else [f"Give {words}."]
    return {}
