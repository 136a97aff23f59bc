"""What the data set holds: how many of each, which of them are heavy, and when they were made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any
from uuid import UUID

from apps.explorer.scale.rows import digest, ident
from apps.protocol import wire
from apps.protocol.rfm_spec import check_spec, schema_of, subdao_params

MICRO = 1_000_000
AGE = timedelta(days=30)
SITES = 3  # custodians of a SubDAO; one validator comes to them
FEATURES = 8
STRATA = ["north", "south"]
# What becomes of the requests that found no SubDAO, in turn.
COURSES = ("voting", "funding", "rejected", "failed", "draft")
EMAIL = "scale@example.org"


@dataclass(frozen=True)
class Plan:
    """`objects` of each kind, by `seed`.

    One of each kind is heavy: person 0 bought half of all queries and voted everywhere, SubDAO 0
    has half of the rounds, versions, epochs and members, sold half of the queries, and its token's
    pool and vault have half of the swaps and stakes; its last epoch owes everybody; the first
    request that is being funded has half of the pledges and applications, the first that is being
    voted on has every staker's weight and half of their votes. The rest is spread evenly.
    """

    objects: int
    seed: int
    now: datetime
    half: int = field(init=False)

    def __post_init__(self) -> None:
        if self.objects < SITES:
            raise ValueError(f"A data set has at least {SITES} objects of each kind.")
        object.__setattr__(self, "half", self.objects // 2)

    def id(self, kind: str, *number: object) -> UUID:
        return ident(self.seed, kind, *number)

    def job_id(self, kind: str, *number: int) -> str:
        """32 hex digits, as nodes name a job: a query's by its number, a round's by SubDAO too."""
        return digest(self.seed, "job", kind, *number)[:32]

    def at(self, number: int) -> datetime:
        """When the `number`th of its kind was made: evenly over the last AGE, but for an hour."""
        span = AGE - timedelta(hours=1)
        return self.now - AGE + span * (number % self.objects) / self.objects

    @property
    def people(self) -> int:
        """A SubDAO's sites and its validator are different parties."""
        return self.objects + 1

    def courses(self) -> Iterator[tuple[int, str]]:
        """(number, course) of the requests without a SubDAO, which come after those with one."""
        for number in range(self.objects, self.objects + max(self.half, len(COURSES))):
            yield number, COURSES[number % len(COURSES)]

    def first(self, course: str) -> int:
        """The heavy request of this course."""
        return next(number for number, name in self.courses() if name == course)

    @cached_property
    def spec(self) -> dict[str, Any]:
        return check_spec(
            {
                "objective": "Tell malignant from benign masses, as a second opinion.",
                "features": [{"name": f"feature {i}", "min": 0} for i in range(FEATURES)],
                "label": {"name": "malignant", "positive": "1"},
                "strata": {"column": "region", "values": STRATA},
                "gates": [{"metric": "auc", "min_milli": 850, "per_stratum": True}],
                "price_micro": str(MICRO // 2),
                "funding": {"target_micro": str(self.target_micro), "deadline_s": 60 * 86_400},
            }
        )

    @property
    def target_micro(self) -> int:
        return 1_000_000 * MICRO

    @cached_property
    def spec_hash(self) -> str:
        return wire.digest("flai/rfm/v1", self.spec)

    @cached_property
    def schema(self) -> dict[str, Any]:
        return schema_of(self.spec)

    @cached_property
    def params(self) -> dict[str, Any]:
        return subdao_params(self.spec)
