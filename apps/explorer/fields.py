"""Form fields for exact quantities: amounts in micro-units, durations, percentages, lists.

People write `0.50`, `3 d`, `12.5`; services get integers. No float on the way.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import Any

from django import forms
from django.core.exceptions import ValidationError

_WORDS = {
    "s sec second": 1,
    "m min minute": 60,
    "h hour": 3_600,
    "d day": 86_400,
    "w week": 604_800,
}
UNITS = {name: seconds for names, seconds in _WORDS.items() for name in names.split()}
_DURATION = re.compile(r"(\d{1,6})\s*([a-z]+)")
_GROUPED = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d*)?")


def _decimal(text: str) -> Decimal:
    bare = text.replace("$", "").replace("%", "").strip()
    try:  # a comma stands between thousands only: 0,50 may mean a half, and is not fifty
        value = Decimal(bare.replace(",", "") if _GROUPED.fullmatch(bare) else bare)
    except InvalidOperation:
        raise ValidationError("Write a number, like 12.50.", code="number") from None
    if not value.is_finite() or abs(value) > Decimal(10) ** 12:
        raise ValidationError("Write a number below 1,000,000,000,000.", code="number")
    return value


class ScaledField(forms.CharField):
    """A decimal number as an integer of a smaller unit: `scale` units make one."""

    scale = 1
    decimals = 0
    minimum = 0

    def __init__(self, **kwargs: Any) -> None:
        self.maximum: int | None = kwargs.pop("maximum", None)
        kwargs.setdefault("max_length", 32)
        super().__init__(**kwargs)
        self.widget.attrs.setdefault("inputmode", "decimal")
        self.widget.attrs.setdefault("autocomplete", "off")
        if self.maximum is not None:  # a hint for the page; `clean` decides
            self.widget.attrs.setdefault("data-most", f"{Decimal(self.maximum) / self.scale:f}")

    def clean(self, value: Any) -> int | None:  # type: ignore[override]
        text = super().clean(value)
        if not text:
            return None
        scaled = _decimal(text) * self.scale
        if scaled != scaled.to_integral_value():
            raise ValidationError(f"At most {self.decimals} decimals.", code="decimals")
        if scaled < self.minimum:
            least = Decimal(self.minimum) / self.scale
            raise ValidationError(f"At least {least.normalize():f}.", code="least")
        if self.maximum is not None and scaled > self.maximum:
            most = Decimal(self.maximum) / self.scale
            raise ValidationError(f"At most {most.normalize():f}.", code="most")
        return int(scaled)


class AmountField(ScaledField):
    """Tokens, as micro-units > 0."""

    scale, decimals, minimum = 1_000_000, 6, 1


class PercentField(ScaledField):
    """A percentage, as basis points."""

    scale, decimals = 100, 2

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("maximum", 10_000)
        super().__init__(**kwargs)


class MetricField(ScaledField):
    """A metric between 0 and 1, as thousandths."""

    scale, decimals = 1_000, 3

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("maximum", 1_000)
        super().__init__(**kwargs)


class ThousandthsField(ScaledField):
    """A number with three decimals, as thousandths."""

    scale, decimals = 1_000, 3


class DurationField(forms.CharField):
    """`3 d`, `12 h`, `90 min`, `3 s` or `1 d 12 h`, as seconds."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.widget.attrs.setdefault("data-kind", "duration")

    def clean(self, value: Any) -> int | None:  # type: ignore[override]
        text = super().clean(value).strip().lower()
        if not text:
            return None
        if text in ("0", "none"):
            return 0
        seconds, rest = 0, text
        while rest:
            found = _DURATION.match(rest)
            unit = UNITS.get(found[2]) or UNITS.get(found[2].removesuffix("s")) if found else None
            if found is None or unit is None:
                raise ValidationError("Write it like 3 d, 12 h, 30 min or 10 s.", code="duration")
            seconds += int(found[1]) * unit
            rest = rest[found.end() :].strip(" ,")
        return seconds


class TiersField(forms.CharField):
    """`1000: 10 %, 10000: 25 %`: rows a month, and what they take off. Empty: none."""

    def clean(self, value: Any) -> list[dict[str, int]]:  # type: ignore[override]
        entries = [part for part in super().clean(value).split(",") if part.strip()]
        return [self._tier(*part.partition(":")[::2]) for part in entries]

    def _tier(self, rows: str, off: str) -> dict[str, int]:
        if not rows.strip().isdecimal() or not off.strip():
            raise ValidationError("Write it like 1000: 10 %, 10000: 25 %.", code="tiers")
        return {"from_rows": int(rows), "off_bps": PercentField().clean(off) or 0}


class PlansField(forms.CharField):
    """`basic 1000 30 10, pro 10000 30 25`: name, rows, days, per cent off. Empty: none."""

    def clean(self, value: Any) -> list[dict[str, Any]]:  # type: ignore[override]
        entries = [part.split() for part in super().clean(value).split(",") if part.strip()]
        return [self._plan(*entry) for entry in entries]

    def _plan(self, *parts: str) -> dict[str, Any]:
        if len(parts) != 4 or not (parts[1].isdecimal() and parts[2].isdecimal()):
            raise ValidationError("Write it like basic 1000 30 10, pro 10000 30 25.", code="plans")
        name, rows, days, off = parts
        off_bps = PercentField().clean(off) or 0
        return {"name": name, "rows": int(rows), "days": int(days), "off_bps": off_bps}


class ListField(forms.CharField):
    """Comma-separated names, as a list without empty entries."""

    def clean(self, value: Any) -> list[str]:  # type: ignore[override]
        return [part.strip() for part in super().clean(value).split(",") if part.strip()]
