"""Small parts of core: errors, problems, permissions, actions, transactions, clock, amounts."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from django.db import connection, transaction
from django.http import Http404
from rest_framework import exceptions, serializers

from apps.core import actions
from apps.core.clock import now, unix_ms
from apps.core.errors import BadInput, DomainError, Forbidden
from apps.core.permissions import Denied, ensure
from apps.core.problems import exception_handler
from apps.core.serial import MicroField, micro
from apps.core.transactions import durable, joinable, require_transaction


class QuorumNotReached(DomainError):
    code = "quorum_not_reached"
    status = 422
    text = "Only {votes} of {needed} votes."


def test_an_error_has_code_status_text_and_facts():
    error = QuorumNotReached(votes=3, needed=5)
    assert (error.code, error.status, error.text) == (
        "quorum_not_reached",
        422,
        "Only 3 of 5 votes.",
    )
    plain = DomainError("odd", "This is odd {as it stands}.", status=404, why="x")
    assert (plain.code, plain.status, plain.args_) == ("odd", 404, {"why": "x"})
    assert plain.text == "This is odd {as it stands}."


@pytest.mark.parametrize(
    ("raised", "status", "code", "detail"),
    [
        (QuorumNotReached(votes=3, needed=5), 422, "quorum_not_reached", "Only 3 of 5 votes."),
        (Http404(), 404, "not_found", "There is nothing at this address."),
        (exceptions.NotAuthenticated(), 401, "not_authenticated", None),
        (exceptions.ValidationError({"a": ["Bad."]}), 400, "invalid", "a: Bad."),
        (exceptions.ValidationError({"a": {"b": ["Bad."]}}), 400, "invalid", "a: b: Bad."),
        (exceptions.ParseError(), 400, "parse_error", None),
        (exceptions.MethodNotAllowed("PUT"), 405, "method_not_allowed", None),
        (exceptions.Throttled(wait=3), 429, "throttled", None),
    ],
)
@pytest.mark.django_db
def test_every_error_becomes_problem_details(raised, status, code, detail):
    answer = exception_handler(raised, {})
    assert (answer.status_code, answer.data["status"], answer.data["code"]) == (
        status,
        status,
        code,
    )
    assert answer.content_type == "application/problem+json"
    assert answer.data["type"] == f"urn:flai:problem:{code}" and answer.data["title"]
    assert answer.data["detail"] == detail if detail else answer.data["detail"]


@pytest.mark.django_db
def test_facts_of_an_error_never_replace_the_problems_own_members():
    answer = exception_handler(DomainError("odd", "Text.", why="x", detail="y"), {})
    assert (answer.data["detail"], answer.data["why"]) == ("Text.", "x")


def test_what_nobody_foresaw_is_not_shown():
    assert exception_handler(ValueError("secret"), {}) is None


def test_denied_becomes_forbidden_and_none_passes():
    ensure(None)
    with pytest.raises(Forbidden) as error:
        ensure(Denied("not_yours", "This is not yours."))
    assert (error.value.code, error.value.text) == ("not_yours", "This is not yours.")


def test_actions_are_found_by_kind_and_kinds_are_taken_once(monkeypatch):
    monkeypatch.setattr(actions, "_actions", {})

    @actions.action("tests.pour", house="sbgt")
    class Pour:
        pass

    assert (actions.get("tests.pour").kind, actions.get("tests.pour").house) == (
        "tests.pour",
        "sbgt",
    )
    assert actions.kinds() == actions.kinds("sbgt") == ["tests.pour"] and not actions.kinds("sdt")
    with pytest.raises(BadInput):
        actions.get("tests.spill")

    class Other:
        pass

    with pytest.raises(ValueError, match="taken"):
        actions.action("tests.pour", house="sdt")(Other)


@pytest.mark.django_db(transaction=True)
def test_the_outermost_service_opens_the_transaction_and_nobody_nests_it():
    with pytest.raises(RuntimeError, match="must run inside"):
        require_transaction("this")
    with durable():
        require_transaction("this")
        with pytest.raises(RuntimeError, match="durable"), durable():
            pass
    assert not connection.in_atomic_block


@pytest.mark.django_db(transaction=True)
def test_a_service_joins_the_transaction_of_an_idempotent_view_only():
    with joinable(), durable():
        require_transaction("this")
    with pytest.raises(RuntimeError, match="durable"), transaction.atomic(), durable():
        pass


def test_milliseconds_are_whole_and_rounded_down():
    assert unix_ms(datetime(1970, 1, 1, 0, 0, 1, 999_999, tzinfo=UTC)) == 1999
    assert now().tzinfo is UTC


@pytest.mark.parametrize("value", ["1", "0001", 7, str(2**63 - 1)])
def test_amounts_are_read_from_digits(value):
    assert MicroField().run_validation(value) == int(value)


@pytest.mark.parametrize(
    "value", ["", "0", "-1", "+1", "1.0", 1.0, "1e3", " 1", "1_0", "١", True, None, [], str(2**63)]
)
def test_what_is_no_amount_is_refused(value):
    with pytest.raises(serializers.ValidationError):
        MicroField().run_validation(value)


def test_amounts_are_shown_as_strings():
    assert (micro(5), micro(None), MicroField().to_representation(2**60)) == (
        "5",
        None,
        str(2**60),
    )
    assert MicroField(allow_zero=True).run_validation("0") == 0
