"""A round outlives its dead: a site's agent, a Celery worker and a node, each killed by SIGKILL in
another phase of one round, on the stack that the story left.

While one is dead the supervisor stands still, so that nobody comes back before we have looked; a
lock on one table holds the site at the very point where the blow is to fall.
"""

from __future__ import annotations

import json
import os
import select
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from apps.protocol.decay import POINT_MICRO, points_of_phi
from tests.support.stage import PATIENCE_S, Json, Stage
from workers.client.api import wait_for
from workers.client.verify import verify_server

VICTIM = "node-1"


class Deadly(Stage):
    """A stage on which whoever plays may be killed."""

    def all_received(self, held: Json) -> bool:
        """Is a share of every member with the site? (What one answer lists and what it says it
        waits for are read a moment apart.)"""
        states = [row["state"] for row in held["submissions"] if row["stage"] == "round"]
        return states == ["received"] * len(self.roles)

    @property
    def supervisor(self) -> int:
        return int(json.loads((self.home / "stack.json").read_text())["pid"])

    @contextmanager
    def dead(self, *words: str) -> Iterator[None]:
        """The service whose command has these words is killed, and nobody starts it again until
        the end of the block."""
        os.kill(self.supervisor, signal.SIGSTOP)
        try:
            with os.fdopen(os.pidfd_open(self._service(words))) as ended:
                signal.pidfd_send_signal(ended.fileno(), signal.SIGKILL)
                assert select.select([ended], [], [], PATIENCE_S)[0]
            yield
        finally:
            os.kill(self.supervisor, signal.SIGCONT)

    def _service(self, words: tuple[str, ...]) -> int:
        children = Path(f"/proc/{self.supervisor}/task").glob("*/children")
        for pid in " ".join(path.read_text() for path in children).split():
            command = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
            if set(words) <= set(command):
                return int(pid)
        raise AssertionError(f"no service of {words}")

    @contextmanager
    def held(self, table: str) -> Iterator[Callable[[], None]]:
        """Nobody writes to this table; yields how to wait until somebody wants to."""
        waiting = "SELECT FROM pg_locks WHERE NOT granted AND relation = %s::regclass"
        database = json.loads((self.home / "stack.json").read_text())["environment"]
        with psycopg.connect(database["DATABASE_URL"]) as connection:
            connection.execute(f"LOCK TABLE {table} IN SHARE MODE")
            yield lambda: wait_for(
                lambda: connection.execute(waiting, [table]).fetchone(),
                deadline_s=PATIENCE_S,
                what=f"a write to {table}",
                every_s_max=0.1,
            )


@pytest.mark.slow
def test_an_agent_a_worker_and_a_node_are_killed_in_one_round_and_nothing_counts_twice(
    played: Any, stack: Any
) -> None:
    url, own = stack
    stage = Deadly(url, played[2], own)
    before, round_id = stage.points, stage.opened()
    late, *punctual = stage.custodians
    name = {m["key"]: m["name"] for m in stage.round(round_id)["roster"]["members"]}[
        stage.homes[late].identity_hex()
    ]

    # Sum up: an agent dies while its share is on the way
    stage.all_act(punctual + stage.validators, "normalise", round_id)
    with stage.held("training_submission") as wanted:
        agent = stage.process(late, "normalise", round_id)
        wanted()
        agent.kill()
        assert agent.wait() == -signal.SIGKILL
    found = stage.round(round_id)
    assert found["phase"] == "moments"
    assert [party["slug"] for party in found["waits_for"]] == [stage.slugs[late]]
    assert f"Waits for {name} until" in stage.page(round_id)
    again = stage.process(late, "normalise", round_id)
    said, _ = again.communicate(timeout=PATIENCE_S)
    assert again.returncode == 0, said
    assert "Going on with the share that an earlier run has made." in said
    stage.until(round_id, lambda r: r["phase"] == "updates", "the normalisation")

    with ExitStack() as without_a_node, ThreadPoolExecutor(len(stage.roles)) as pool:
        with stage.held("compute_receipt") as wanted:
            # Train: the worker dies that was to hand the shares to the nodes
            with stage.dead("celery", "worker"):
                sent = [pool.submit(stage.act, key, "train", round_id) for key in stage.roles]
                found = stage.until(round_id, stage.all_received, "all shares")
                assert found["phase"] == "updates" and not found["waits_for"]
                assert stage.page(round_id).count("received") >= len(stage.roles)
            # Compute: a node dies that has signed the result and not yet kept its part of it
            wanted()
            home = str(stage.home / "nodes" / VICTIM[-1])
            without_a_node.enter_context(stage.dead("workers.node", home))
        for share in sent:
            share.result()
        told = f"{VICTIM} does not answer"
        found = stage.until(round_id, lambda r: told in r["progress"][-1]["text"], "word of it")
        assert found["phase"] == "computing" and found["job"]["state"] == "committing"
        assert "All nodes have signed the result, but one is away" in stage.page(round_id)
    done = stage.until(round_id, lambda r: r["phase"] == "done", "the round's end")

    # nothing counts twice: one score, one addition of points, one leaf of each kind, for each
    phi = {row["party"]["slug"]: row["phi_milli"] for row in done["scores"]}
    undisturbed = {stage.slugs[key]: 1000 * value for key, value in played[0]["phi"].items()}
    assert phi == pytest.approx(undisturbed, abs=3)
    earned = {slug: points_of_phi(value) for slug, value in phi.items()}
    earned |= {stage.slugs[key]: POINT_MICRO for key in stage.validators}
    after = stage.points
    assert {slug: after[slug] - before.get(slug, 0) for slug in earned} == earned
    leaves = stage.leaves(round_id)
    counted = Counter(leaf["type"] for leaf in leaves)
    assert counted["training.share_received"] == len(stage.custodians) + len(stage.roles)
    assert counted["subdaos.sbgt"] == sum(micro > 0 for micro in earned.values())
    for once in ("round_opened", "normalised", "round_done"):
        assert counted[f"training.{once}"] == 1
    shared = [leaf["body"] for leaf in leaves if leaf["type"] == "training.share_received"]
    assert len({(body["party"], body["slot"]) for body in shared}) == len(shared)
    report = verify_server(url, nodes=stage.homes[late].pinned_nodes())
    assert report.ok, [check.text for check in report.checks if not check.ok]
