"""What a ticket of a round, or of a query, must carry; compared field by field. Pure.

The nodes check the same and are the ones that count. This check comes first so that a participant
learns which field is wrong before anything is sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from apps.protocol import wire
from apps.protocol.circuits import CIRCUITS, CLASSES, Slot
from apps.protocol.circuits.moments import LIMIT_MAX, LIMITS
from apps.protocol.credentials import Demand
from apps.protocol.judging import judge_weights
from apps.protocol.normalise import constants_digest
from apps.protocol.tickets import RING, Ticket, members_with_role

Json = dict[str, Any]
MIN_CELL = 5

# Fields that are the same for every ticket of a stage, in the order in which they are compared.
COMMON = (
    "scope",
    "circuits",
    "circuits_hash",
    "engine",
    "nodes",
    "roster",
    "model",
    "params",
    "resolution",
    "access",
    "reply_key",
    "price_micro",
)


class Mismatch(Exception):
    """One field is not what was asked for; `field`, and a text that is safe to show."""

    def __init__(self, field: str, text: str) -> None:
        super().__init__(text)
        self.field = field
        self.text = text


def compare(ticket: Ticket, wanted: Mapping[str, Any]) -> None:
    """Every field in `wanted` must be equal in the ticket. Raises Mismatch naming the first."""
    all_of_it = {field: getattr(ticket, field) for field in wanted}
    if wire.canonical(all_of_it) == wire.canonical(wanted):
        return
    for field, value in wanted.items():
        got = _plain(getattr(ticket, field))
        # As bytes, as the nodes compare: to Python, True is 1.
        if wire.canonical(got) != wire.canonical(_plain(value)):
            raise Mismatch(
                field, f"The ticket's {field} is {_show(got)}, it must be {_show(_plain(value))}."
            )


def stage_ticket(
    *,
    stage: str,
    round_id: str,
    roster: Json,
    roster_hash: str,
    nodes: list[str],
    circuits_hash: str,
    features: int,
    numbers: int,
    strata: int,
    rows: Mapping[str, int],
    resolution: str,
    scoring: str,
    engine: str = RING,
    model_class: str = "logistic",
    extras: Mapping[str, int] | None = None,
    privacy: Mapping[str, int] | None = None,
    schedule: Mapping[str, int] | None = None,
    stakes: Mapping[str, int] | None = None,
    model: str | None = None,
    normalisation: Mapping[str, Any] | None = None,
    limits: Sequence[int] = (),
    access: Demand | None = None,
) -> Json:
    """What tickets of this stage carry: the COMMON fields, and per slot role, f and shapes by key.

    `features` are encoded columns, the first of which are `numbers` (encoding.py).
    `privacy` is what the nodes' noise is made by, where there is a budget for it.
    `schedule` is that of steps on shared rows; `stakes` are the validators' by key, in micro-units:
    how much each one's scores weigh; `model` is the one that steps go on from; `normalisation` are
    the public constants, once they are known; `limits` what values the sums are cut to; `access` is
    what the nodes shall ask of who asks the model.
    `rows` may lack members as long as they have not announced theirs; their shape is null.
    """
    if stage == "moments":
        circuit_id, params, resolves = "moments@1", {"features": numbers}, None
        if min(limits, default=LIMIT_MAX) < LIMIT_MAX:
            params[LIMITS] = list(limits)
        model = None
    else:

        def counts(role: str) -> list[int]:
            return [rows[key] for key in members_with_role(roster, role) if key in rows]

        made, resolves = CLASSES[model_class], resolution
        params = {
            "features": features,
            "strata": strata,
            "rows": counts("validator"),
            "min_cell": MIN_CELL,
            **(extras or {}),
        }
        if normalisation is not None:
            params["normalisation"] = constants_digest(normalisation)
        if schedule:
            circuit_id = made.sgd_on_id if model else made.sgd_id
            params |= {"site_rows": counts("custodian"), **schedule}
        else:
            circuit_id, params["scoring"] = made.round_id, scoring
            params |= privacy or {}
        judges = [key for key in members_with_role(roster, "validator") if key in rows]
        if len(judges) > 1 or not schedule:
            params["weights"] = judge_weights([(stakes or {}).get(key, 0) for key in judges])
    slots: Json = {}
    for name, slot in CIRCUITS[circuit_id].slots.items():
        if slot.role == "model":  # it lies with the nodes; nobody shares it
            continue
        keys = members_with_role(roster, slot.role)
        slots[name] = {
            "role": slot.role,
            "f": slot.f,
            "shapes": {key: _shape(slot, params, place) for place, key in enumerate(keys)},
        }
    return {
        "scope": f"{stage}:{round_id}",
        "circuits": [circuit_id],
        "circuits_hash": circuits_hash,
        "engine": engine,
        "nodes": list(nodes),
        "roster": roster_hash,
        "model": model,
        "params": params,
        "resolution": resolves,
        "access": access.params if access and stage != "moments" else None,
        "reply_key": None,
        "price_micro": None,
        "slots": slots,
    }


def _shape(slot: Slot, params: Json, place: int) -> list[int] | None:
    try:
        return list(slot.shape(params, place))
    except IndexError:
        return None


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _show(value: Any) -> str:
    text = "empty" if value is None else str(value)
    return text if len(text) <= 120 else text[:117] + "…"
