"""What the nodes keep of this site for further rounds, as its journal tells: a validator's holdout
is shared once an epoch; in each further round the site signs a ticket, and no row leaves it. So are
a custodian's rows, where it lets them stay.

Only while it is what would be shared: the same rows, encoded alike, for the same nodes.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np

from apps.protocol.jobs import fingerprint
from apps.protocol.tickets import KEPT_SLOTS, KEPT_UNDER
from workers.client.home import Home
from workers.client.joining import Joined
from workers.client.nodes import NotTrusted

ROUNDS_MAX = 16  # that one holdout is let into
STAYS_S_MAX = 31 * 24 * 3600
SOON_S = 60  # before its end it is shared anew


@dataclass
class Standing:
    """A share that was to stay, and what became of it: `rounds` that it was in, `shares` by which;
    `there` once all nodes have signed that they keep it, until one says that it does not; `lies`
    until all have signed that it is gone."""

    entry: dict[str, Any]
    rounds: list[str] = field(default_factory=list)
    shares: set[str] = field(default_factory=set)
    there: bool = False
    lies: bool = False

    @property
    def share_id(self) -> str:
        return str(self.entry["share_id"])

    @property
    def since(self) -> str:
        return shown(self.entry["at"])

    def why_not(
        self, ticket: Mapping[str, Any], joined: Joined, words: np.ndarray, round_id: str
    ) -> str | None:
        """Why these words must be shared anew in this round; None where those that the nodes keep
        are these. `ticket`: the one that they came with."""
        if ticket["expires_at"] <= time.time() + SOON_S:
            return "the time for which they were let stay is over"
        if len({*self.rounds, round_id}) > ticket["uses"]:
            return f"they were let into {ticket['uses']} rounds, and were in them"
        if ticket["nodes"] != [fingerprint(node) for node in joined.nodes]:
            return "the nodes are others"
        if (ticket["engine"], ticket["circuits_hash"]) != (joined.engine, joined.release):
            return "the engine or the release is another"
        if any(ticket["params"].get(name) != joined.params.get(name) for name in KEPT_UNDER):
            return "the round's mean and variance, or the form of its rows, are others"
        return None if self.entry["keeps"] == named(words, self.entry["keeps"]) else "they changed"


def standing_of(journal: Iterable[Mapping[str, Any]], subdao: str) -> Standing | None:
    """The last share of this site that was to stay for that SubDAO."""
    found: Standing | None = None
    for entry in journal:
        event, share_id = entry["event"], entry.get("share_id")
        if event == "leaving" and "keeps" in entry and entry["subdao"] == subdao:
            found = Standing(dict(entry))
        if found is None:
            continue
        if event == "leaving" and found.share_id in (share_id, entry.get("kept_from")):
            found.rounds.append(entry["round"])
            found.shares.add(str(share_id))
        elif event == "delivered" and share_id == found.share_id:
            found.there = found.lies = entry.get("kept") is True
        elif event in ("refused", "withdrawing") and share_id in found.shares:
            found.there = False
        elif event == "withdrawn" and share_id in found.shares:
            found.lies = False
    return found


def lets_stay(slot: str, home: Home, *, keep_rows: bool) -> bool:
    """Whether this site lets what it puts into that slot stay: a holdout unless agent.toml says
    `keep = false`, rows only if it says so. Raises: NotTrusted."""
    wanted = home.config.get("keep", True)
    if type(wanted) is not bool:
        raise NotTrusted("agent.toml: keep must be true or false.", "bad_keep")
    return slot in KEPT_SLOTS and (keep_rows if slot == "rows" else wanted)


def stays_until(current: Mapping[str, Any]) -> int | None:
    """Until when what is shared now may stay: the epoch's end, as the server says, within this
    site's own bound; None where the round may outlast it."""
    until = current.get("keep_until")
    if type(until) is not int:
        return None
    until = min(until, int(time.time()) + STAYS_S_MAX)
    return until if until > datetime.fromisoformat(current["expires_at"]).timestamp() else None


def named(words: np.ndarray, keeps: Mapping[str, Any]) -> dict[str, Any]:
    """What the journal keeps to know these words again by, under a salt that does not leave."""
    data = np.ascontiguousarray(words, "<i8").tobytes()
    content = hashlib.sha256(bytes.fromhex(keeps["salt"]) + data).hexdigest()
    return {"salt": keeps["salt"], "content": content}


def shown(at_s: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at_s))
