"""Soul-bound: no service, no SQL, no address moves points from one party to another.

Each list below is made by looking, not by hand; a new way to write points makes one of them longer
and must be argued for here.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from drf_spectacular.generators import SchemaGenerator

from apps.core.transactions import durable
from apps.governance import executing
from apps.governance.services import propose, vote
from apps.protocol import decay
from apps.subdaos import actions, selectors, services
from apps.subdaos.models import SbgtCheckpoint
from apps.wallets.models import Asset, LogLeaf
from tests.governance.helpers import MICRO, at, founded
from workers.client.replay import replay

pytestmark = pytest.mark.django_db
ROOT = Path(__file__).parents[2]
CODE = [p for top in ("apps", "workers", "flai_site") for p in (ROOT / top).rglob("*.py")]
WRITERS = {"sbgt_set", "sbgt_mint", "sbgt_revoke", "sbgt_convert"}
# Fills a database for the measuring of pages, before anybody uses it.
FILLED = "apps/explorer/scale/world.py"
# Read them only.
READERS = {"apps/subdaos/selectors.py", "apps/explorer/round_history.py"}


@cache
def names_in(path: Path) -> set[tuple[str, str]]:
    """(function, name) of every name that a function of this file uses."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            for inner in (one for line in node.body for one in ast.walk(line)):
                name = getattr(inner, "id", None) or getattr(inner, "attr", None)
                if isinstance(name, str):
                    found.add((node.name, name))
    return found


def users_of(name: str) -> set[tuple[str, str]]:
    """(file, function) of everybody who uses this name, migrations left out."""
    return {
        (str(path.relative_to(ROOT)), function)
        for path in CODE
        if "migrations" not in path.parts
        for function, used in names_in(path)
        if used == name
    }


def test_one_function_writes_points_and_it_writes_one_partys() -> None:
    writes = {user for user in users_of("SbgtCheckpoint") if user[0] != FILLED}
    in_services = {function for file, function in writes if file == "apps/subdaos/services.py"}
    assert {file for file, _ in writes} == READERS | {"apps/subdaos/services.py"}
    assert in_services == {"_checkpoint"}
    assert users_of("_checkpoint") == {("apps/subdaos/services.py", name) for name in WRITERS}


def test_every_writer_knows_one_party_only() -> None:
    for name in WRITERS:
        known = inspect.signature(getattr(services, name)).parameters.values()
        assert [p.name for p in known if "Party" in str(p.annotation)] == ["party"], name


def test_who_calls_the_writers_gives_points_for_work_or_takes_them_by_vote() -> None:
    callers = {user for name in WRITERS for user in users_of(name)}
    assert callers == {
        ("apps/subdaos/services.py", "found"),
        ("apps/training/running.py", "_points"),
        ("apps/subdaos/actions.py", "execute"),
        ("apps/subdaos/converting.py", "convert"),
    }


def test_no_sql_function_touches_points_and_triggers_refuse_every_change() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT p.proname FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace"
            " WHERE n.nspname = 'public' AND p.prosrc ILIKE '%sbgt%'"
        )
        assert cursor.fetchall() == []
    _, members, _ = founded()
    rows = SbgtCheckpoint.objects.filter(party=members[0])
    for change in (lambda: rows.update(party=members[1]), rows.delete):
        with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
            change()


def test_no_address_takes_points() -> None:
    """Neither path nor field of a request names them, but for the one by which a member gives up
    its own; the ledger has no asset of theirs."""
    schema: dict[str, Any] = SchemaGenerator().get_schema(request=None, public=True)
    asked = {
        name: schema["paths"][path][method].get("requestBody", {})
        for path in schema["paths"]
        for method, name in ((m, f"{m} {path}") for m in schema["paths"][path])
        if method != "get"
    }
    assert len(asked) > 20
    parts = schema["components"]["schemas"]
    said = {
        name: " ".join(
            [name, *(str(parts[one]) for one in re.findall(r"schemas/(\w+)", str(body)))]
        )
        for name, body in asked.items()
    }
    named = {n for n, text in said.items() if re.search(r"sbgt|(?<![a-z])points", text.lower())}
    assert named == {"post /api/v1/subdaos/{slug}/conversions/"}
    assert not Asset.objects.filter(code__icontains="sbgt").exists()


def test_a_vote_takes_points_and_gives_them_to_nobody() -> None:
    dao, members, _ = founded()
    before = {party.id: selectors.points_now(dao, party) for party in members}
    asked = {"party": members[0].pid, "points_micro": str(400_000)}
    proposal = propose(
        actor=members[1], dao=dao, kind="subdaos.revoke", payload=asked, title="Left",
        now=at(25),
    )  # fmt: skip
    for member in members[1:]:
        vote(actor=member, proposal_id=proposal.id, support="for", now=at(26))
    executing.advance(proposal_id=proposal.id, now=proposal.voting_ends_at)
    after = {party.id: selectors.points_now(dao, party) for party in members}
    assert after == before | {members[0].id: MICRO - 400_000}
    said = [json.loads(bytes(row.data)) for row in LogLeaf.objects.order_by("pk")]
    assert [e for e in replay(said).findings.errors if "points" in e or "proposal" in e] == []
    taken = next(row["body"] for row in said if row["body"].get("reason") == "revoked")
    for lie in ({"points_micro": "0"}, {"taken_micro": "500000"}, {"party": members[1].pid}):
        kept = dict(taken)
        taken |= lie
        assert any(
            "it left other" in e or "nobody voted" in e for e in replay(said).findings.errors
        )
        taken |= kept
    with durable():
        last = services.sbgt_revoke(
            dao=dao, party=members[0], points_micro=10**12, proposal_id=proposal.id, now=at(40)
        )
    assert last.points_micro == 0


@pytest.mark.parametrize("taken", ["0", "-1", "1.5", "", "٣", str(2**63), 5])
def test_a_revocation_names_whole_points(taken: Any) -> None:
    dao, members, _ = founded()
    with pytest.raises(Exception, match="bad_p"):
        actions.Revoke().validate({"party": members[0].pid, "points_micro": taken}, dao)


def test_revoking_takes_at_most_what_there_is() -> None:
    assert (decay.revoked(5, 3), decay.revoked(5, 9)) == (2, 0)
    for points, taken in ((-1, 1), (1, 0)):
        with pytest.raises(ValueError, match="points are"):
            decay.revoked(points, taken)
