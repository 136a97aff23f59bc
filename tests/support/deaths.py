"""Blows at a round on the running stack: who is killed by SIGKILL in which phase of it.

While a service is dead the supervisor stands still, so that nobody comes back before we have
looked; a lock on one table holds the site at the very point where the blow is to fall.

    python -m tests.support.deaths      plays a story and four rounds on what it left: each of the
                                        parties dies once in each phase; prints the table
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import datetime
from html import unescape
from pathlib import Path
from typing import Any

import psycopg

from apps.protocol.decay import POINT_MICRO, points_of_phi
from tests.support import story
from tests.support.stage import PATIENCE_S, Json, Stage
from workers.client.api import wait_for
from workers.client.verify import verify_server

PHASES = ("moments", "normalising", "updates", "computing", "committing", "voting")
PARTIES = ("custodian", "worker", "validator", "node")
VICTIM = "node-1"
LEFT = "The worker that asked the nodes is gone"
ACCEPTED = "training.version_accepted"
VOTER = """
import pathlib, sys
from workers.client.home import Home
api = Home(pathlib.Path(sys.argv[1])).api()
print("ready", flush=True)
api.post(f"proposals/{sys.stdin.readline().strip()}/votes/", {"support": "for"})
"""


def deaths_of(number: int) -> dict[str, str]:
    """{phase: who dies in it} of one of four rounds, which together have each pair once."""
    return {phase: PARTIES[(number + place) % 4] for place, phase in enumerate(PHASES)}


class Deadly(Stage):
    """A stage on which whoever plays may be killed."""

    # -- blows

    @contextmanager
    def dead(self, party: str) -> Iterator[None]:
        """The worker, or a node, is killed, and nobody starts it again until the end of the
        block."""
        home = str(self.home / "nodes" / VICTIM[-1])
        words = {"worker": ("celery", "worker"), "node": ("workers.node", home)}[party]
        os.kill(self.supervisor, signal.SIGSTOP)
        try:
            with os.fdopen(os.pidfd_open(self.service(*words))) as ended:
                signal.pidfd_send_signal(ended.fileno(), signal.SIGKILL)
                assert select.select([ended], [], [], PATIENCE_S)[0]
            yield
        finally:
            os.kill(self.supervisor, signal.SIGCONT)

    @contextmanager
    def held(self, table: str) -> Iterator[Callable[[], None]]:
        """Nobody writes to this table; yields how to wait until somebody wants to."""
        waiting = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = %s::regclass"
        with psycopg.connect(self.database) as connection:
            connection.execute(f"LOCK TABLE {table} IN SHARE MODE")
            yield lambda: wait_for(
                lambda: connection.execute(waiting, [table]).fetchone(),
                deadline_s=PATIENCE_S,
                what=f"a write to {table}",
                every_s_max=0.1,
            )

    def killed(self, process: subprocess.Popen[str]) -> None:
        process.kill()
        assert process.wait() == -signal.SIGKILL
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()

    def ended(self, process: subprocess.Popen[str]) -> str:
        said, _ = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, said
        return said

    def idle_agent_dies(self, role: str) -> None:
        """The service of a site that has nothing to do now, and one that looks once after it."""
        key = self.victim(role)
        policy = self.homes[key].path / "agent.toml"
        if "subdaos" not in policy.read_text():
            policy.write_text('subdaos = "any"\n' + policy.read_text())
        agent = self.command(key, "serve")
        assert agent.stdout is not None and "Serving as" in agent.stdout.readline()
        self.killed(agent)
        self.ended(self.command(key, "serve", "--once"))

    def victim(self, role: str) -> str:
        return self.custodians[0] if role == "custodian" else self.validators[0]

    # -- a round

    def play(self, deaths: Mapping[str, str]) -> tuple[Json, dict[str, float]]:
        """A round on which all these blows fall, to the vote on its version: (the round as it is
        then, seconds from each blow to the end of its phase)."""
        self.blows: dict[str, float] = {}
        round_id = self.opened()
        before = self.points
        with ExitStack() as until_told, ThreadPoolExecutor(len(self.roles)) as pool:
            with self.held(_halts(deaths["normalising"])) as begun:
                sent = self.sending(pool, "normalise", round_id, "moments", deaths["moments"])
                begun()
                self.working(round_id, "normalising", deaths["normalising"], until_told)
            self.told(round_id, "normalising", deaths["normalising"], until_told)
            for share in sent:
                share.result()
        self.until(round_id, lambda r: r["phase"] == "updates", "the normalisation")
        with ExitStack() as until_told, ThreadPoolExecutor(len(self.roles)) as pool:
            late = "compute_receipt" if deaths["committing"] == "node" else "training_score"
            with self.held(late) as computed:
                with self.held(_halts(deaths["computing"])) as begun:
                    sent = self.sending(pool, "train", round_id, "updates", deaths["updates"])
                    begun()
                    self.working(round_id, "computing", deaths["computing"], until_told)
                self.told(round_id, "computing", deaths["computing"], until_told)
                voter = self.voter(deaths["voting"])
                computed()
                self.committing(round_id, deaths["committing"], until_told)
            self.told(round_id, "committing", deaths["committing"], until_told)
            for share in sent:
                share.result()
        done = self.until(round_id, lambda r: r["phase"] == "done", "the round's end")
        self.voting(done, deaths["voting"], voter)
        self.counted_once(done, before)
        return self.round(round_id), self._took(round_id)

    def sending(
        self, pool: ThreadPoolExecutor, step: str, round_id: str, phase: str, party: str
    ) -> list[Future[Any]]:
        """All members take this step, and somebody dies; what is not over yet."""
        if party in ("worker", "node"):
            with self.dead(party):
                self.blow(phase)
                sent = [pool.submit(self.act, key, step, round_id) for key in self.roles]
                found = self.until(round_id, lambda r: self.all_received(r, phase), "all shares")
                assert found["phase"] == phase and not found["waits_for"]
                assert self.page(round_id).count("received") >= len(self.custodians)
                if party == "node":
                    wait_for(
                        lambda: f"{VICTIM} does not answer" in self.page(round_id),
                        deadline_s=PATIENCE_S,
                        what="word of the node",
                    )
            return sent
        key = self.victim(party)
        name = self.names(round_id)[key]
        with self.held("training_round" if step != "train" and party == "validator" else
                       "training_submission") as wanted:  # fmt: skip
            agent = self.process(key, step, round_id)
            wanted()
            self.blow(phase)
            self.killed(agent)
        others = [pool.submit(self.act, k, step, round_id) for k in self.roles if k != key]
        if (party, phase) != ("validator", "moments"):  # a number of rows is said by one request
            for share in others:
                share.result()
            found = self.round(round_id)
            assert found["phase"] == phase
            assert [who["slug"] for who in found["waits_for"]] == [self.slugs[key]]
            assert f"Waits for {name} until" in self.page(round_id)
        again = self.process(key, step, round_id)
        return [*others, pool.submit(self.ended, again)]

    def all_received(self, held: Json, phase: str) -> bool:
        """Is a share of every member with the site? (What one answer lists and what it says it
        waits for are read a moment apart.)"""
        stage, count = ("moments", len(self.custodians)) if phase == "moments" else (
            "round", len(self.roles))  # fmt: skip
        states = [row["state"] for row in held["submissions"] if row["stage"] == stage]
        return states == ["received"] * count and not held["waits_for"]

    def working(self, round_id: str, phase: str, party: str, until_told: ExitStack) -> None:
        """The nodes are asked to compute, or have just done so."""
        self.blow(phase)
        if party == "node":  # the worker has not asked it yet
            until_told.enter_context(self.dead(party))
        elif party == "worker":
            assert self.round(round_id)["job"]["state"] == "running"
            with self.dead(party):
                assert self.round(round_id)["phase"] == phase
        else:
            found = self.round(round_id)
            assert found["phase"] == phase and not found["waits_for"]
            self.idle_agent_dies(party)

    def committing(self, round_id: str, party: str, until_told: ExitStack) -> None:
        """All nodes have the result, and have signed for it."""
        self.blow("committing")
        if party == "node":
            until_told.enter_context(self.dead(party))
        elif party == "worker":
            with self.dead(party):
                assert self.round(round_id)["job"]["state"] == "committing"
        else:
            self.idle_agent_dies(party)

    def told(self, round_id: str, phase: str, party: str, until_told: ExitStack) -> None:
        """The round says what befell it, and whom it waits for."""
        if party == "node":
            word = "one is away" if phase == "committing" else f"Waits for {VICTIM}"
            found = self.until(round_id, lambda r: word in r["progress"][-1]["text"], "word of it")
            assert found["phase"] == ("computing" if phase == "committing" else phase)
            assert found["progress"][-1]["text"] in unescape(self.page(round_id))
            if phase == "committing":
                assert found["job"]["state"] == "committing"
                assert f"{VICTIM} does not answer" in found["progress"][-1]["text"]
            until_told.close()
        elif party == "worker" and phase != "committing":
            self.until(round_id, lambda r: LEFT in str(r["progress"]), "another worker")

    def voter(self, party: str) -> subprocess.Popen[str] | None:
        """A program that waits to vote for a site: voting is over in seconds."""
        if party not in ("custodian", "validator"):
            return None
        found = self.python("-c", VOTER, str(self.homes[self.victim(party)].path))
        assert found.stdout is not None and found.stdout.readline() == "ready\n"
        return found

    def voting(self, done: Json, party: str, voter: subprocess.Popen[str] | None) -> None:
        """Everybody votes for the version, also who died as it voted."""
        proposal = done["version"]["proposal"]
        with ExitStack() as until_voted:
            if voter is not None:
                with self.held("governance_vote") as wanted:
                    assert voter.stdin is not None
                    print(proposal, file=voter.stdin, flush=True)
                    wanted()
                    self.blow("voting")
                    self.killed(voter)
            elif party == "node":
                self.blow("voting")
                until_voted.enter_context(self.dead(party))
            else:
                wanted = until_voted.enter_context(self.held("training_modelversion"))
            self.vote_for(proposal)
            if party == "worker":
                wanted()
                self.blow("voting")
                with self.dead(party):
                    assert self.api.get(f"proposals/{proposal}/")["state"] != "executed"
                until_voted.close()
            self.executed(proposal)
        leaves = self.leaves(done["id"], proposal, end=ACCEPTED)
        voters = [x["body"]["voter"] for x in leaves if x["type"] == "governance.vote"]
        assert len(set(voters)) == len(voters) >= len(self.roles)
        assert Counter(leaf["type"] for leaf in leaves)[ACCEPTED] == 1

    def counted_once(self, done: Json, before: Mapping[str, int]) -> None:
        """One score, one addition of points, one leaf of each kind, for each."""
        phi = {row["party"]["slug"]: row["phi_milli"] for row in done["scores"]}
        earned = {slug: points_of_phi(value) for slug, value in phi.items()}
        earned |= {self.slugs[key]: POINT_MICRO for key in self.validators}
        after = self.points
        assert {slug: after[slug] - before.get(slug, 0) for slug in earned} == earned
        leaves = self.leaves(done["id"])
        counted = Counter(leaf["type"] for leaf in leaves)
        assert counted["training.share_received"] == len(self.custodians) + len(self.roles)
        assert counted["subdaos.sbgt"] == sum(micro > 0 for micro in earned.values())
        for once in ("round_opened", "normalised", "round_done"):
            assert counted[f"training.{once}"] == 1
        shared = [leaf["body"] for leaf in leaves if leaf["type"] == "training.share_received"]
        assert len({(body["party"], body["slot"]) for body in shared}) == len(shared)

    def verified(self) -> None:
        report = verify_server(self.url, sets=[self.homes[self.custodians[0]].pinned_nodes()])
        assert report.ok, [check.text for check in report.checks if not check.ok]

    # -- small parts

    def blow(self, phase: str) -> None:
        self.blows[phase] = time.time()

    def names(self, round_id: str) -> dict[str, str]:
        by_key = {m["key"]: m["name"] for m in self.round(round_id)["roster"]["members"]}
        return {key: by_key[home.identity_hex()] for key, home in self.homes.items()}

    def _took(self, round_id: str) -> dict[str, float]:
        found = self.round(round_id)
        began: dict[str, str] = {}
        for step in found["progress"]:
            began.setdefault(step["phase"], step["at"])
        ends = {"moments": began["normalising"], "normalising": began["updates"]}
        ends |= {"updates": began["computing"], "computing": found["closed_at"]}
        ends |= {"committing": found["closed_at"], "voting": found["version"]["decided_at"]}
        when = {phase: datetime.fromisoformat(at).timestamp() for phase, at in ends.items()}
        return {phase: max(0.0, when[phase] - at) for phase, at in self.blows.items()}


def _halts(party: str) -> str:
    """What is not written while the blow on a computation falls: a node dies before it is asked,
    all others as its answer comes."""
    return "compute_job" if party == "node" else "compute_receipt"


def main() -> int:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        home = Path(folder) / "demo" / "flai"
        home.parent.mkdir()
        facts, _, _ = story.play(home)
        took: dict[tuple[str, str], float] = {}
        with story.running(home) as (url, own):
            stage = Deadly(url, home, own)
            for number in range(len(PARTIES)):
                deaths = deaths_of(number)
                over, seconds = stage.play(deaths)
                phi = {row["party"]["slug"]: row["phi_milli"] for row in over["scores"]}
                off = max(abs(phi[stage.slugs[k]] - 1000 * v) for k, v in facts["phi"].items())
                print(f"round {over['number']}: φ off by {off:.0f} thousandths at most")
                took |= {(deaths[phase], phase): s for phase, s in seconds.items()}
            stage.verified()
    print("| |", " | ".join(PHASES), "|")
    for party in PARTIES:
        print("|", party, "|", " | ".join(f"{took[party, phase]:.1f}" for phase in PHASES), "|")
    return 0


if __name__ == "__main__":
    sys.exit(main())
