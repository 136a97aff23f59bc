"""A market for the model's token: a backer opens a pool at the price she paid, another one trades
with it and stakes."""

from __future__ import annotations

from typing import Any

from workers.demo.cast import BACKERS
from workers.demo.screen import money
from workers.demo.story import TOKEN, Story

SEED_MICRO = 100 * TOKEN
SWAP_MICRO = 10 * TOKEN


def market(story: Story, sdt: str, paid_micro: int) -> None:
    """`paid_micro`: what the first backer gave for all of her tokens."""
    ada, _, chiara = BACKERS
    held = story.state.step("sdt of the first", lambda: story.cast.balance(ada.key, sdt))
    seed = {
        "base": sdt,
        "base_micro": str(held * SEED_MICRO // paid_micro),
        "quote_micro": str(SEED_MICRO),
    }
    opened = _once(story, ada.key, "pools/", seed)
    story.screen.done(
        f"{ada.name} opens a pool of {sdt} and USDC: ${money(int(opened['price_micro']), 4)} each"
    )
    quote = story.public.get(f"pools/{sdt}/quote/", side="quote", amount_micro=SWAP_MICRO)
    limits = {
        "side": "quote",
        "amount_micro": str(SWAP_MICRO),
        "out_min_micro": quote["out_min_micro"],
    }
    bought = _once(story, chiara.key, f"pools/{sdt}/swaps/", limits)
    tokens = -int(bought["base_micro"])
    _once(story, chiara.key, f"vaults/{sdt}/stakes/", {"amount_micro": str(tokens)})
    story.screen.done(f"{chiara.name} swaps ${money(SWAP_MICRO, 0)} for {money(tokens, 2)} of them")
    story.screen.note("and stakes these, which counts for more when revenue is divided")


def _once(story: Story, who: str, path: str, body: dict[str, str]) -> Any:
    """Asked once, however often the story is begun: with the body of the first time."""
    name = f"{who} {path}"
    asked = story.state.step(f"asked {name}", lambda: body)
    return story.state.step(
        name,
        lambda: story.cast.api(who).post(path, asked, idempotency_key=story.state.key(name)),
    )
