"""Phases 5 and 6: buyers ask in private, and the epoch pays what they paid to whoever earned it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from workers.client.api import wait_for
from workers.client.buyer import Buyer, rows_from_csv
from workers.demo.screen import money
from workers.demo.story import TOKEN, WAIT_S, Story

BUYER_USDC = 20 * TOKEN


def query_phase(story: Story) -> None:
    story.screen.phase(5, "queries", "Buyers ask; only they can read the answers")
    for key in story.buyers:
        story.cast.faucet(key, "USDC", BUYER_USDC)
    story.remember_money("before queries", story.paid_people())
    with ThreadPoolExecutor(len(story.buyers)) as pool:
        answers = dict(
            zip(story.buyers, pool.map(lambda key: _ask(story, key), story.buyers), strict=True)
        )
    for key, probabilities in answers.items():
        price = story.state.get(f"price {key}")
        story.screen.done(
            f"{story.name(key)}: {len(probabilities)} answers for "
            f"${money(price * len(probabilities))}, each held, run, then posted"
        )


def _ask(story: Story, key: str) -> list[float]:
    home = story.cast.home(key)
    buyer = Buyer(home, story.state.get("listing"), api=story.cast.api(key))
    rows = rows_from_csv(home.path / "patients.csv", buyer.features)
    story.state.step(f"price {key}", lambda: buyer.price_micro)
    probabilities = []
    for number, row in enumerate(rows):
        name = f"query {key} {number}"
        if story.state.get(name) is None:
            # A share is new each time, and so is its key: nothing here can pay for one twice.
            answer = buyer.predict([row])
            story.state.put(name, answer.probabilities[0])
        probabilities.append(story.state.get(name))
    return probabilities


def revenue_phase(story: Story) -> None:
    story.screen.phase(6, "revenue", "The epoch closes and pays")
    prices = {key: story.state.get(f"price {key}") for key in story.buyers}
    asked = {key: len(story.answers(key)) for key in story.buyers}
    revenue = sum(prices[key] * asked[key] for key in story.buyers)

    def settled() -> list[dict[str, Any]] | None:
        epochs = story.public.get(f"subdaos/{story.subdao}/epochs/")["results"]
        closed = [epoch for epoch in epochs if epoch.get("settlement")]
        total = sum(int(epoch["revenue_micro"]) for epoch in closed)
        return [_with_payees(story, epoch) for epoch in closed] if total >= revenue else None

    epochs = story.state.step(
        "epochs",
        lambda: wait_for(settled, deadline_s=WAIT_S, what="the epoch's end", every_s_max=0.4),
    )
    story.remember_money("after", story.paid_people())
    paid, treasury = payouts(epochs)
    people = f"{len(paid)} participants"
    story.screen.done(
        f"${money(revenue)} from {sum(asked.values())} queries: "
        f"${money(sum(paid.values()), 6)} to {people},"
    )
    story.screen.note(f"${money(treasury, 6)} to the treasury; the parts sum to the micro-unit")


def _with_payees(story: Story, epoch: dict[str, Any]) -> dict[str, Any]:
    """The epoch with everybody whom it owes something."""
    path = f"epochs/{epoch['id']}/entitlements/"
    return epoch | {"entitlements": list(story.public.every(path, limit=200))}


def payouts(epochs: list[dict[str, Any]]) -> tuple[dict[str, int], int]:
    """(owed to each payee, kept by the treasury) over some epochs' settlements."""
    paid: dict[str, int] = {}
    treasury = 0
    for epoch in epochs:
        treasury += int(epoch["settlement"]["treasury_micro"])
        for row in epoch["entitlements"]:
            paid[row["pid"]] = paid.get(row["pid"], 0) + int(row["amount_micro"])
    return paid, treasury
