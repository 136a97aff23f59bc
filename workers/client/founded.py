"""SubDAOs against the requests that were voted on: the log has a request's hash alone, since it is
free text; whoever shows the request itself shows what its SubDAO had to be founded with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from apps.protocol.founding import LATER, shares_of, terms_of
from apps.protocol.rfm_spec import spec_hash, subdao_params
from workers.client.holdings import SDT
from workers.client.replay import Replay


def slug_of(sdt: str) -> str:
    """A SubDAO's token is named by the address of its request."""
    return sdt.removeprefix(SDT)


def not_as_requested(spec: Any, state: Replay, dao: str) -> str | None:
    """Why a SubDAO's founding does not follow from the request that its vote was about, or None."""
    body = state.points.founded[dao]
    fund = state.crowdfunds.funds[body["rfm"]]
    voted = state.votes.proposals[fund.proposal].body
    try:
        if spec_hash(spec) != state.crowdfunds.requests[body["rfm"]]["spec_hash"]:
            return "the server shows another request than was voted on"
        terms = terms_of(subdao_params(spec)) | {
            "shares": asdict(shares_of(spec)),
            "supply_micro": spec["funding"]["sdt_supply_micro"],
        }
        if body.get("engine") != terms.get("engine"):
            return "its nodes compute by another engine than the request asks for"
        for name, value in terms.items():
            if (name in body or name not in LATER) and body[name] != value:
                return f"its {name} are other ones than those of the request"
        if body.get("privacy") != terms.get("privacy"):
            return "it has a privacy budget that the request does not ask for"
        windows = (w for (whose, _), w in state.earnings.windows.items() if whose == dao)
        if any(ends - starts != 1000 * terms["epoch_s"] for starts, ends in windows):
            return "its epochs have another length than the request says"
        if fund.target != int(spec["funding"]["target_micro"]):
            return "its crowdfund had another target than the request"
        parent = state.reserves.sdt.get(body.get("parent", ""))
        if parent != (f"{SDT}{spec['parent']}" if "parent" in spec else None):
            return "it goes on from another model than the request"
        if _shorter(voted, spec["governance"]):
            return "its vote had less time than the request asks for"
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        return "its request is malformed"
    return None


def _shorter(voted: Mapping[str, Any], times: Mapping[str, Any]) -> bool:
    lasted_ms = int(voted["ends_at"]) - int(voted["starts_at"])
    locked_s = int(voted["timelock_s"])
    return lasted_ms < 1000 * times["voting_period_s"] or locked_s < times["timelock_s"]
