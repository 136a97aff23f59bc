"""One error type for every broken rule; `apps.core.problems` turns it into an answer.

A subclass names its rule by `code`, its HTTP status by `status` and its text by `text`, which is
safe to show and may name the arguments: `text = "Only {available_micro} are available."`.
"""

from __future__ import annotations

from typing import Any


class DomainError(Exception):
    """A rule of the domain is broken. `DomainError("code", "Text safe to show.", amount_micro=5)`.

    `args_` are the typed facts behind the text; they go into the problem details as they are.
    """

    code = "rule_broken"
    status = 409
    text = "This is not possible."

    def __init__(
        self,
        code: str | None = None,
        text: str | None = None,
        *,
        status: int | None = None,
        **args: Any,
    ) -> None:
        self.code = code or type(self).code
        self.status = status or type(self).status
        self.args_ = args
        self.text = text if text is not None else type(self).text.format_map(args)
        super().__init__(f"{self.code}: {self.text}")


class BadInput(DomainError):
    code = "bad_input"
    status = 400
    text = "The request is not well formed."


class PaymentRequired(DomainError):
    code = "payment_required"
    status = 402
    text = "The balance does not cover this."


class Forbidden(DomainError):
    code = "forbidden"
    status = 403
    text = "You may not do this."


class NotFound(DomainError):
    code = "not_found"
    status = 404
    text = "There is nothing here."


class Conflict(DomainError):
    code = "conflict"
    status = 409
    text = "This contradicts what is already recorded."


class Unprocessable(DomainError):
    code = "unprocessable"
    status = 422
    text = "The content breaks a rule."
