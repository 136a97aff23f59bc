"""How a node says no: a code for programs, a text safe to show, worth trying again or not."""

from __future__ import annotations


class NodeError(Exception):
    """Base of every refusal and failure that leaves the node; `status` is the HTTP status."""

    status = 500
    retryable = False

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class Refused(NodeError):
    """Owners' tickets, or the rules, do not allow it. Trying again will not help."""

    status = 403


class Malformed(NodeError):
    """The request itself is wrong."""

    status = 400


class Conflict(NodeError):
    """Something else is stored under that id, or not yet there."""

    status = 409

    def __init__(self, code: str, text: str, *, retryable: bool = False) -> None:
        super().__init__(code, text)
        self.retryable = retryable


class Unavailable(NodeError):
    """A peer is gone, time is over, or there is too much to do: try again."""

    status = 503
    retryable = True


class StartError(Exception):
    """The node cannot start; one line for the operator."""
