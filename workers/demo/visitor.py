"""What the story leaves on the site for the person who watched it."""

from __future__ import annotations

from workers.demo import request
from workers.demo.cast import OTHER_COMPANY, VISITOR
from workers.demo.story import STAKE_MICRO, TOKEN, Story, brief

VISITOR_USDC = 200 * TOKEN


def leave_for_visitor(story: Story) -> None:
    """An open vote, an open crowdfund, and a login with money and a stake."""
    story.cast.faucet(VISITOR.key, "USDC", VISITOR_USDC)
    story.cast.faucet(VISITOR.key, "FLAI", 2 * STAKE_MICRO)
    story.stake(VISITOR.key)
    company = story.cast.api(OTHER_COMPANY.key)
    opened = story.state.step(
        "rfm voting", lambda: brief(company.post("rfms/", request.open_proposal()))
    )
    story.state.step("open proposal", lambda: story.submit(OTHER_COMPANY.key, opened["slug"]))
