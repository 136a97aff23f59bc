"""The running API keeps to its own description.

schemathesis asks each operation whatever the schema allows, and much that it doesn't, and compares
every answer with what is promised.
"""

from __future__ import annotations

import subprocess
import sys
import uuid
from pathlib import Path

from django.test import Client
from drf_spectacular.drainage import GENERATOR_STATS
from drf_spectacular.generators import SchemaGenerator

from apps.accounts.services import api_key_create
from apps.subdaos.models import Epoch
from tests.explorer import world as worlds
from tests.support.browser import served

DEADLINE_S = 900
# Left out: what a schema can't say, for example that a signature must fit its key, is refused with
# 400 or 422 although each field has its form.
CONFIG = """
seed = 1
workers = 2
continue-on-failure = true
request-timeout = 60.0
headers = {{ Authorization = "Bearer {key}" }}
warnings = false

[checks]
positive_data_acceptance.enabled = false
# 402: the balance is short, so that nothing was done
negative_data_rejection.expected-statuses = [
    "400", "401", "402", "403", "404", "405", "406", "409", "415", "422", "429",
]

[generation]
max-examples = 6

[phases]
stateful.enabled = false
coverage.enabled = false  # thousands of requests: for a run by hand (docs/operations.md)

[parameters]
{parameters}
{operations}
"""
OPERATION = """
[[operations]]
include-path-regex = "^/api/v1/{path}/"
parameters = {{ "{name}" = "{value}" }}
"""


def test_the_description_is_complete_and_without_doubts() -> None:
    """No two components share a name, nothing is guessed."""
    GENERATOR_STATS.reset()
    schema = SchemaGenerator().get_schema(request=None, public=True)
    assert not GENERATOR_STATS, GENERATOR_STATS.emit_summary()
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            assert {"400", "default"} <= set(operation["responses"]), (path, method)
            assert operation["description"], (path, method)


def test_the_running_api_keeps_to_its_description(transactional_db: None, tmp_path: Path) -> None:
    from flai_site.asgi import application

    world = worlds.build()
    _, key = api_key_create(user=world.buyer, party=world.party, label="contract")
    (tmp_path / "schemathesis.toml").write_text(config(world, key))
    with served(application) as url:
        run = subprocess.run(
            [
                str(Path(sys.executable).with_name("schemathesis")),
                "--config-file=schemathesis.toml",
                "--no-color",
                "run",
                f"{url}/api/v1/schema/",
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
        )
    assert run.returncode == 0, run.stdout[-30_000:] + run.stderr[-2_000:]
    schema = Client().get("/api/v1/schema/").json()
    count = sum(len(operations) for operations in schema["paths"].values())
    assert f"Tested: {count}\n" in run.stdout, run.stdout[-3_000:]


def config(world: worlds.World, key: str) -> str:
    """schemathesis's settings, with ids and names of things that there are."""
    everywhere = {
        "query_id": world.query.id,
        "epoch_id": Epoch.objects.get(dao=world.dao, number=2).id,
        "round_id": world.round.id,
        "proposal_id": world.open_vote.id,
        "job_id": world.round.round_job.job_id,
        "fingerprint": world.round.nodes[0],
        "base": world.dao.asset.code,
        "asset": "FLAI",
        "key_id": uuid.UUID(int=0),  # its own key shall stay
    }
    slugs = {
        "rfms": world.funding.slug,
        "subdaos": world.dao.slug,
        "listings": world.listing.slug,
        "parties": world.party.slug,
    }
    return CONFIG.format(
        key=key,
        parameters="\n".join(f'"path.{name}" = "{value}"' for name, value in everywhere.items()),
        operations="".join(
            OPERATION.format(path=path, name="path.slug", value=value)
            for path, value in slugs.items()
        ),
    )
