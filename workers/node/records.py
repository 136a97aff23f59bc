"""What a node's store gives back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from workers.mpc.sealing import Words


@dataclass(frozen=True, kw_only=True)
class StoredShare:
    ticket: dict[str, Any]
    ticket_id: str
    ack: dict[str, Any]
    used_by: str | None
    words: tuple[Words, ...] | None


class Answer(dict[str, Any]):
    """A node's answer to a job; `text` is the same as JSON, written once, to be stored and sent."""

    def __init__(self, content: dict[str, Any], text: str) -> None:
        super().__init__(content)
        self.text = text


def with_answer(content: dict[str, Any]) -> str:
    """The JSON of an object whose "answer" may be written already."""
    answer = content.get("answer")
    if not isinstance(answer, Answer):
        return json.dumps(content)
    rest = {name: value for name, value in content.items() if name != "answer"}
    more = f", {json.dumps(rest)[1:-1]}" if rest else ""
    return f'{{"answer": {answer.text}{more}}}'


@dataclass(frozen=True, kw_only=True)
class KeptShare:
    """What stays for further rounds: the ticket it came with, and the scopes it was let into."""

    ticket: dict[str, Any]
    scopes: list[str]


@dataclass(frozen=True, kw_only=True)
class StoredJob:
    job_id: str
    scope: str
    attempt: int
    digest: str
    state: str
    record: dict[str, Any]  # {"answer", "share_ids", "model", "members"}


@dataclass(frozen=True, kw_only=True)
class StoredModel:
    ticket: dict[str, Any]
    words: tuple[Words, ...]


class Sharing(NamedTuple):
    """What a model's shares are called; those renewed more often follow from the others."""

    renewed: int  # how often, since the model was made
    name: str

    @classmethod
    def of(cls, ticket: Mapping[str, Any]) -> Sharing:
        return cls(ticket.get("renewed", 0), str(ticket.get("sharing")))


@dataclass(frozen=True)
class Binding:
    """What a scope is bound to; `job_id` is set once it is completed."""

    digest: str
    job_id: str | None
    attempts: int = 1


@dataclass(frozen=True)
class Rows:
    """Rows that a model is asked about on a UTC day."""

    model: str
    day: int
    rows: int
