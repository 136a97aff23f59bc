"""Phases 3 and 4: the sites and nodes make a version, and the members decide on its evidence."""

from __future__ import annotations

from typing import Any

from workers.client.api import ClientError, wait_for
from workers.demo import agents
from workers.demo.screen import money
from workers.demo.story import WAIT_S, Story

TRAIN_WAIT_S = 300.0


def training_phase(story: Story) -> bool:
    """True when a model was made; False when the round is void."""
    story.screen.phase(3, "training", "Hospitals train at home; the nodes score and aggregate")
    round_id = story.state.step("round", lambda: _round_opened(story))
    began = story.state.get("trained")
    if not began:
        _share_moments(story, round_id)
        _share_updates(story, round_id)
        story.state.step("trained", lambda: True)
    over = wait_for(
        lambda: _round_in(story, round_id, "done", "void"),
        deadline_s=TRAIN_WAIT_S,
        what="the nodes",
        every_s_max=0.3,
    )
    scores = {entry["party"]: entry["phi_milli"] for entry in _scores(over)}
    by_slug = {story.cast.entry(key)["slug"]: key for key in story.custodians}
    phi = {by_slug[slug]: value / 1000 for slug, value in scores.items()}
    story.state.step("phi", lambda: phi)
    story.state.step("normalisation", lambda: over["normalisation"])
    story.state.step("roster", lambda: over["roster"])
    story.screen.done("Clipped, scored, aggregated and evaluated in MPC, as one job. Opened: φ")
    _show_phi(story, phi)
    if over["phase"] == "void":
        reason = over.get("reason") or "Fewer than three sites contribute."
        story.state.step("void", lambda: reason)
        story.screen.failed("The round is void: no model was made, nothing is sold or paid.")
        story.screen.note(reason)
        return False
    return True


def _show_phi(story: Story, phi: dict[str, float]) -> None:
    for key, value in phi.items():
        bar = "█" * round(24 * value)
        story.screen.note(f"{story.name(key):24} {value:5.3f}  {bar}")


def _round_opened(story: Story) -> str:
    def current() -> str | None:
        found = story.public.get(f"subdaos/{story.subdao}/").get("current_round")
        return found["id"] if isinstance(found, dict) else found

    return wait_for(current, deadline_s=WAIT_S, what="the first round")


def _round_in(story: Story, round_id: str, *phases: str) -> dict[str, Any] | None:
    current = story.public.get(f"rounds/{round_id}/")
    if current["phase"] == "failed":
        raise ClientError(f"The round failed: {current.get('reason') or 'no reason given'}")
    return current if current["phase"] in phases else None


def _step(story: Story, key: str, step: str, round_id: str) -> None:
    role = "custodian" if key in story.custodians else "validator"
    consents = ["--share-rows"] if story.network and role == "custodian" else []
    story.agent(key, role, step, "--subdao", story.subdao, "--round", round_id, *consents)


def _share_moments(story: Story, round_id: str) -> None:
    def normalise(key: str) -> None:
        _step(story, key, "normalise", round_id)

    if _round_in(story, round_id, "moments", "normalising"):
        agents.each(story.members, normalise, lambda key: None)
        story.screen.done(
            f"{len(story.custodians)} hospitals share the sums of their numbers, "
            f"{len(story.validators)} validators say how many rows they hold"
        )
    wait_for(
        lambda: _round_in(story, round_id, "updates", "computing", "done", "void"),
        deadline_s=TRAIN_WAIT_S,
        what="the normalisation",
        every_s_max=0.3,
    )
    story.screen.done("The nodes open only the total: mean and deviation of every number")


def _share_updates(story: Story, round_id: str) -> None:
    def train(key: str) -> None:
        _step(story, key, "train", round_id)

    def told(key: str) -> None:
        left = story.cast.home(key).journal.last("leaving", round=round_id, stage="round")
        size = f"{left['size_bytes'] / 1000:.1f} kB" if left else "its share"
        verb = "trained and shared" if key in story.custodians else "shared its holdout"
        story.screen.done(f"{story.name(key)} {verb}: {size}, sealed to the nodes")

    if _round_in(story, round_id, "updates"):
        agents.each(story.members, train, told)


def vote_phase(story: Story) -> bool:
    """True when the version was accepted and the listing is open."""
    story.screen.phase(4, "vote", "The members decide on the evidence")
    proposal = story.proposal(story.subdao, "training.accept_version")
    version = story.public.get(f"subdaos/{story.subdao}/versions/")["results"][0]
    evidence = story.state.step("evidence", lambda: version["evidence"])
    met = _evidence(story, evidence)
    story.state.step("gates met", lambda: met)
    support = "for" if met else "against"
    story.state.step(
        "version voted", lambda: story.vote(proposal["id"], story.members, support) or True
    )
    result = story.decided(proposal["id"])
    accepted = result["state"] == "executed"
    story.state.step("accepted", lambda: accepted)
    if not accepted:
        story.screen.failed("The gate is not met, so the members reject this version.")
        story.screen.note("No listing opens and nothing is sold; the round's scores stand.")
        return False
    listing = wait_for(lambda: _listing(story), deadline_s=WAIT_S, what="the listing")
    story.state.step("listing", lambda: listing["slug"])
    story.screen.done(f"Accepted with all votes; listed at ${money(int(listing['price_micro']))}")
    return True


def _listing(story: Story) -> dict[str, Any] | None:
    for item in story.public.get("listings/")["results"]:
        if item["subdao"] == story.subdao:
            return item
    return None


def _evidence(story: Story, evidence: dict[str, Any]) -> bool:
    """Show the opened metrics; do they meet every gate?"""
    shown = [name for name in ("auc", "accuracy") if f"{name}_milli" in evidence]
    for where in ("overall", *evidence["accuracy_by_stratum"]):
        found = [
            f"{name.upper() if name == 'auc' else name} {_milli(evidence, name, where)}"
            for name in shown
        ]
        story.screen.note(f"{where:10} {'   '.join(found)}")
    met = True
    for gate in evidence["gates"]:
        met = met and gate["met"]
        where = gate["stratum"] or "overall"
        text = f"{gate['metric'].upper()} ≥ {gate['min_milli'] / 1000:.2f} {where}"
        (story.screen.done if gate["met"] else story.screen.failed)(text)
    return met


def _milli(evidence: dict[str, Any], metric: str, where: str) -> str:
    by_stratum = evidence[f"{metric}_by_stratum"]
    value = evidence[f"{metric}_milli"] if where == "overall" else by_stratum.get(where)
    return "too few rows" if value is None else f"{value / 1000:.3f}"


def _scores(current: dict[str, Any]) -> list[dict[str, Any]]:
    scores = current["scores"] or []
    return [
        {"party": _slug(entry["party"]), "phi_milli": int(entry["phi_milli"])} for entry in scores
    ]


def _slug(party: Any) -> str:
    return party["slug"] if isinstance(party, dict) else party
