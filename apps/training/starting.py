"""Where a round's steps begin: at the serving version's model, or at zero. Reads only.

A model's weights mean something only under the constants by which the rows were standardised that
it was trained on. So a round that goes on from it keeps them and asks for no sums; sites that are
new encode by them too. The nodes demand the same of the owners' tickets: that they name the model,
its makers are all there, and that model and tickets name one normalisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from apps.compute.selectors import sets_followed
from apps.participants.selectors import Member
from apps.protocol.normalise import constants_digest
from apps.protocol.tickets import members_with_role
from apps.training.models import ModelVersion, Round


@dataclass(frozen=True)
class Start:
    """`version`: whose model the steps go on from, None for zero; `why`: safe to show."""

    version: ModelVersion | None
    why: str

    @property
    def summed(self) -> Round | None:
        """The round whose sums gave the normalisation that is kept."""
        return None if self.version is None else _summed(self.version.round)


def start_of(opened: Round, people: Sequence[Member], *, zero: bool) -> Start:
    """Where this round, on the way to be opened, begins. `zero`: its members voted for that."""
    version = serving(opened)
    if zero:
        return Start(None, "Training starts from zero, as the members voted.")
    if version is None:
        return Start(None, "Training starts from zero: no version is in service yet.")
    reason = _why_not(version.round, opened, people)
    if reason is not None:
        number = version.number
        return Start(None, f"Training starts from zero, not from version {number}: {reason}")
    return Start(
        version,
        f"Training goes on from version {version.number}: all who made it are on the roster. Its "
        "mean and variance are kept, and everybody's rows are standardised by them.",
    )


def sums_to_keep(held: Round, leaving: set[str]) -> Round | None:
    """The last round of the SubDAO that took sums, where a custodian who leaves this one (by key)
    is among them; None otherwise.

    A total without it would show, by the difference of both, what it shared then. So none is
    opened: the round goes on under the constants that there are. Its nodes must be those that
    signed for them or follow them, or agents can't check.
    """
    took = Round.objects.filter(dao=held.dao, number__lt=held.number, summed=None)
    last = (
        took.filter(normalisation__isnull=False)
        .select_related("moments_job")
        .order_by("-number")
        .first()
    )
    if last is None or last.moments_job is None or not _known(last, held):
        return None
    summed = members_with_role(last.moments_job.descriptor["roster"], "custodian")
    return last if leaving & set(summed) else None


def serving(held: Round) -> ModelVersion | None:
    """The newest accepted version of the round's SubDAO."""
    accepted = ModelVersion.objects.filter(dao=held.dao, status=ModelVersion.Status.ACCEPTED)
    made = accepted.select_related("round__summed__moments_job", "round__moments_job")
    return made.order_by("-number").first()


def makers_missing(made: Round, keys: set[str]) -> list[str]:
    """Names of those custodians of an earlier round whose keys are not among these."""
    makers = set(members_with_role(made.roster, "custodian")) - keys
    return [m["name"] for m in made.roster["members"] if m["key"] in makers]


def _why_not(made: Round, opened: Round, people: Sequence[Member]) -> str | None:
    """Why nodes would not go on from the model of this round, or None."""
    missing = makers_missing(made, {p.public_key for p in people if p.role == "custodian"})
    if missing:
        return (
            f"{', '.join(missing)} helped to make it and is not on the roster with that key; "
            "nobody trains on a model without all its makers."
        )
    for field, text in _SAME.items():
        if getattr(made, field) != getattr(opened, field):
            return f"{text} since."
    if not _known(_summed(made), opened):
        return "other nodes signed for the mean and variance that it was made under."
    named = constants_digest(made.normalisation or {"f": 0, "mean": [], "std": []})
    shares = made.submissions.filter(stage="round").values_list("ticket", flat=True)
    if not any(ticket["params"].get("normalisation") == named for ticket in shares[:1]):
        return "it was made by a release whose models do not name their normalisation."
    return None


def _summed(made: Round) -> Round:
    return made.summed or made


def _known(took: Round, held: Round) -> bool:
    """Can agents of this round check what the nodes signed for that took those sums? The rows'
    `nodes` say where models are kept by now."""
    job = took.moments_job
    return job is not None and job.descriptor["nodes"] in sets_followed(held.nodes)


_SAME = {
    "model_class": "the model class has changed",
    "extras": "the label's classes or the hidden layers have changed",
    "features": "the number of features has changed",
    "resolution": "the resolution of answers has changed",
    "nodes": "the set of nodes has changed",
    "engine": "the engine that computes has changed",
}
