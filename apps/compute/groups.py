"""Who takes part in an attempt of a job on more than three nodes: three compute, or four where they
check each other; the others that are there keep what comes of it. Of Shamir shares 2t + 1 answer a
query, and all that are there make a model, as only who computes has its share of it. On three nodes
all take part, and a job names nobody."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from apps.compute import control
from apps.compute.models import Job, JobState
from apps.protocol.tickets import COMPUTING, SHAMIR, TRIO

NAMES = ("computing", "holding")


def group_choose(job: Job, members: Sequence[control.Member]) -> dict[str, list[int]]:
    """What this attempt's descriptor says of its members, of all nodes of the job; jobs take turns
    on the nodes.

    A first attempt goes by what has been seen lately; a later one asks every node. A query takes
    nodes that have its model. Raises: control.Retryable("nodes_short").
    """
    wanted = COMPUTING[job.descriptor["engine"]]
    if len(members) == TRIO:
        return {}
    up = control.there(members, ask=job.attempt > 1)
    able = able_of(members, up, job.descriptor["model"])
    if len(able) < wanted:
        raise control.Retryable(
            "nodes_short", f"{len(able)} of {len(members)} nodes can do this now; {wanted} must."
        )
    if job.descriptor["engine"] in SHAMIR and job.kind != "query":
        return dict(zip(NAMES, (able, []), strict=True))
    turn = (int(job.job_id[:8], 16) + job.attempt) % len(able)
    computing = sorted((able[turn:] + able[:turn])[:wanted])
    holding = [] if job.kind == "query" else [i for i in able if i not in computing]
    return dict(zip(NAMES, (computing, holding), strict=True))


def group_any(descriptor: dict[str, Any]) -> dict[str, list[int]]:
    """A group of the right form, to check a descriptor that has none yet."""
    if len(descriptor["nodes"]) == TRIO:
        return {}
    return {"computing": list(range(COMPUTING[descriptor["engine"]])), "holding": []}


def able_of(members: Sequence[control.Member], up: Sequence[bool], model: str | None) -> list[int]:
    """Of these nodes, of which some are up, those that have this model too, by their index."""
    lacking = nodes_behind(model)
    return [i for i, m in enumerate(members) if up[i] and m.fingerprint not in lacking]


def enough(able: Sequence[int], engine: str) -> bool:
    """Whether so many can do a job: all of three, of more as many as its engine takes."""
    return len(able) >= COMPUTING[engine]


def nodes_behind(model: str | None) -> set[str]:
    """The fingerprints of nodes that do not have this model yet."""
    if model is None:
        return set()
    rows: list[Any] = list(
        Job.objects.filter(model=model, state=JobState.DONE).values_list("behind", flat=True)
    )
    return {fingerprint for behind in rows for fingerprint in behind}
