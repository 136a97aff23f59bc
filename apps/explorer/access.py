"""Whether the reader may ask a model, where that takes a credential."""

from __future__ import annotations

from typing import Any

from apps.accounts.models import Party
from apps.core import clock
from apps.core.clock import from_unix_ms
from apps.listings.access import WAYS, Standing, access_of, issuers_of, standing
from apps.listings.models import Subscription
from apps.subdaos.models import Dao


def standing_of(
    dao: Dao,
    party: Party | None,
    *,
    plan: Subscription | None = None,
    issuers: list[dict[str, str]] | None = None,
) -> dict[str, Any] | None:
    """What asking takes, whether the reader has it, and else the way to it; None: nothing.
    plan: the reader's that runs, which may admit it until its end. issuers: as `issuers_of`, where
    the caller has them."""
    access = access_of(dao)
    if access is None:
        return None
    found = standing(access, party, plan=plan, now=clock.now()) if party else Standing(None, "none")
    held = None if found.kept else found.held
    if issuers is None:
        issuers = [] if held else issuers_of(access)
    names = ", ".join(one["name"] for one in issuers)
    return {
        "kind": access.credential,
        "issuers": issuers,
        "held": held is not None,
        "kept": found.kept,
        "plan": plan,
        "until": from_unix_ms(held.until_ms) if held else None,
        "way": WAYS[found.why].format(issuers=names) if found.why else "",
    }
