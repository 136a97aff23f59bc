"""Why whoever dispatches jobs is blind: the rules that every node applies to every job.

A dispatcher that could choose jobs and public inputs freely would be an oracle: one-hot "weights"
read out one hospital's update. So a job may only do what the owners of its inputs signed. Each rule
below is one function; each raises Refused with its own code; `admit` applies them all before
anything is computed. The dispatcher can refuse service. It cannot learn, and cannot decide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from apps.protocol import jobs, wire
from apps.protocol.circuits import CIRCUITS, BadParams, Circuit, query_hash
from apps.protocol.circuits.declare import Params
from apps.protocol.circuits.noise import RHO
from apps.protocol.credentials import NotShown, demand_of, shown
from apps.protocol.tickets import (
    MIN_CUSTODIANS,
    RING,
    VERIFIED,
    ParamsKey,
    Ticket,
    check_roster,
    members_with_role,
    params_key,
    permits,
)
from workers.mpc.proving import proved
from workers.node.errors import Refused
from workers.node.home import Limits
from workers.node.records import Binding

QUERY_ATTEMPTS_MAX = 10
NOISE_ATTEMPTS_MAX = 10
ROSTER_MAX = 1000  # as check_roster has it
DAY_S = 86_400
REMEMBERED = 256  # of what was found of a circuit at some parameters
ROUND_SCOPES = ("round:", "moments:")


@dataclass(frozen=True, kw_only=True)
class Case:
    """A job as one node sees it: what is asked, what the owners signed, what is on record here."""

    job: dict[str, Any]
    circuit: Circuit
    inputs: Mapping[str, Sequence[Ticket]]
    used_by: Mapping[str, str | None]
    model: dict[str, Any] | None
    binding: Binding | None
    rows_answered: int
    limits: Limits
    circuits_hash: str
    nodes: Sequence[str]
    former: Sequence[list[str]]  # sets that these nodes follow: each in a lost one's place
    now: int

    tickets: list[Ticket] = field(init=False, repr=False, compare=False)
    is_query: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        listed = [t for listed in self.inputs.values() for t in listed]
        vars(self).update(tickets=listed, is_query=str(self.job["scope"]).startswith("query:"))

    @property
    def engines_signed(self) -> set[str]:
        """By the inputs' owners, and by the makers of the model."""
        model = set() if self.model is None else {self.model.get("engine", RING)}
        return {t.engine for t in self.tickets} | model


def admit(case: Case) -> None:
    """Every rule, or Refused."""
    for rule in RULES:
        rule(case)


def coordinator_signed_it(
    body: Any, signature: Any, *, coordinator: str, domain: str = jobs.JOB_DOMAIN
) -> None:
    """Only the coordinator that this node's operator named may ask for jobs."""
    try:
        wire.verify(coordinator, domain, body, signature)
    except wire.BadSignature:
        raise Refused("bad_signature", "This is not signed by this node's coordinator.") from None


# ---- the node computes what it carries, with whom it knows --------------------------------------


def circuits_are_our_own(case: Case) -> None:
    """A node runs the circuits of its own release; all tickets of a round were signed for exactly
    those. What a query's names is held against its model's, further down."""
    if not case.is_query and _hashes_named(case) != {case.circuits_hash}:
        raise Refused("circuits_differ", "Job or ticket is for another set of circuits.")


def _hashes_named(case: Case) -> set[str]:
    return {case.job["circuits_hash"], *(t.circuits_hash for t in case.tickets)}


def nodes_are_this_set(case: Case) -> None:
    """Words sealed to these nodes are computed on by these nodes."""
    wanted = list(case.nodes)
    if case.job["nodes"] != wanted or any(list(t.nodes) != wanted for t in case.tickets):
        raise Refused("wrong_nodes", "Job or ticket is for another set of nodes.")


def engine_is_the_one_signed_for(case: Case) -> None:
    """An owner, or the makers of the model, may demand nodes that check each other; Shamir shares
    of one threshold are of no use to any other engine, nor to that of another threshold."""
    if all(permits(engine, case.job["engine"]) for engine in case.engines_signed):
        return
    if VERIFIED in case.engines_signed:
        raise Refused("verified_only", "An owner demands verified mode: four nodes that live.")
    raise Refused("wrong_engine", "Ticket or model is for another engine or threshold.")


# ---- every share goes where its owner said, and nowhere else ------------------------------------


def scope_is_the_one_signed_for(case: Case) -> None:
    """A share lives in one round or one query."""
    if any(t.scope != case.job["scope"] for t in case.tickets):
        raise Refused("wrong_scope", "A ticket is for another round or query.")


def circuit_is_allowed_by_every_owner(case: Case) -> None:
    if any(case.circuit.id not in t.circuits for t in case.tickets):
        raise Refused("circuit_not_allowed", f"An owner did not allow {case.circuit.id}.")


def slots_are_the_ones_signed_for(case: Case) -> None:
    """Exactly the circuit's slots are filled; a model never comes from outside."""
    wanted = {name for name, slot in case.circuit.slots.items() if slot.role != "model"}
    if set(case.inputs) != wanted or not all(case.inputs.values()):
        raise Refused("wrong_slot", "The job does not fill exactly the circuit's slots.")
    for name, tickets in case.inputs.items():
        if any(t.slot != name for t in tickets):
            raise Refused("wrong_slot", "A ticket is for another slot.")


def tickets_are_in_time(case: Case) -> None:
    if any(t.expires_at <= case.now for t in case.tickets):
        raise Refused("expired", "A ticket has expired.")


def shares_enter_one_job_only(case: Case) -> None:
    ids = [t.share_id for t in case.tickets]
    if len(set(ids)) != len(ids):
        raise Refused("duplicate_input", "A share is listed twice.")
    if any(case.used_by[share_id] not in (None, case.job["job_id"]) for share_id in ids):
        raise Refused("share_used", "A share has been used in another job.")


def owners_agree_on_the_parameters(case: Case) -> None:
    """Public inputs are what all owners signed, never what the dispatcher says."""
    first, *others = case.tickets
    if others and len({wire.canonical(t.params) for t in case.tickets}) != 1:
        raise Refused("params_differ", "The owners signed different parameters.")
    _check_params(case.circuit, first)


def owners_agree_on_the_resolution(case: Case) -> None:
    """How finely a model's outputs may be seen is signed by those who make it; a query's circuit
    computes what its ticket says, and `the_model_was_made_here_and_goes_where_it_may` holds that
    against what the makers signed."""
    resolutions = {t.resolution for t in case.tickets}
    if len(resolutions) != 1:
        raise Refused("resolution_differs", "The owners signed different resolutions.")
    if case.circuit.result_allows and None in resolutions:
        raise Refused("resolution_missing", "The tickets of a model must state its resolution.")
    if case.is_query and resolutions != {case.circuit.resolution}:
        raise Refused("resolution_differs", "The circuit answers at another resolution.")


def owners_agree_on_who_may_ask(case: Case) -> None:
    """Whom the model will answer is signed by those who make it."""
    if not case.is_query and len({wire.canonical(t.access) for t in case.tickets}) != 1:
        raise Refused("access_differs", "The owners signed for other askers.")


def shapes_fit_the_circuit(case: Case) -> None:
    for name, tickets in case.inputs.items():
        for position, ticket in enumerate(tickets):
            wanted = _shape(case.circuit, ticket, position)
            if wanted is None:
                raise Refused("wrong_shape", f"There are more inputs {name} than rows.")
            if (ticket.shape, ticket.f) != wanted:
                raise Refused("wrong_shape", f"An input {name} does not have the circuit's shape.")


def share_fits(circuit: Circuit, ticket: Ticket) -> None:
    """A share by itself, before any job: its parameters are the circuit's, its shape that of some
    place in its slot. Raises: Refused."""
    _check_params(circuit, ticket)
    for position in range(ROSTER_MAX):
        wanted = _shape(circuit, ticket, position)
        if wanted == (ticket.shape, ticket.f):
            return
        if wanted is None:
            break
    raise Refused("wrong_shape", f"No input {ticket.slot} of {circuit.id} has this shape.")


def stays_in_the_word(job: dict[str, Any], params: dict[str, Any]) -> None:
    """No word of the circuit leaves its range at these parameters, whatever the inputs are. It may
    take seconds the first time, so nothing is locked. What does not fit the circuit has other rules
    to refuse it."""
    circuit = CIRCUITS.get(job["circuit"])
    if circuit is None:
        return
    counts = tuple(sorted((name, len(listed)) for name, listed in job["inputs"].items()))
    _of_params(_stays, circuit, params, params_key(params), counts)


def _stays(circuit: Circuit, params: Params, counts: tuple[tuple[str, int], ...]) -> None:
    number = dict(counts)
    try:
        circuit.validate(params)
        for name, slot in circuit.slots.items():
            for position in range(number.get(name, 1)):
                slot.shape(params, position)
    except (BadParams, LookupError, TypeError):
        return
    try:
        proved(circuit.id, params, number)
    except ValueError as error:  # LeavesTheWord, or parameters at which it does not run at all
        raise Refused("not_proved", f"{circuit.id} cannot run on this: {error}.") from None


def _check_params(circuit: Circuit, ticket: Ticket) -> None:
    _of_params(_valid, circuit, ticket.params, ticket.params_key)


def _valid(circuit: Circuit, params: Params) -> None:
    try:
        circuit.validate(params)
    except BadParams as error:
        raise Refused("bad_params", str(error)) from None


def _shape(circuit: Circuit, ticket: Ticket, position: int) -> tuple[tuple[int, ...], int] | None:
    """Shape and fractional bits at this place of the ticket's slot; None where there is no more."""
    key = ticket.params_key
    return _of_params(_shape_at, circuit, ticket.params, key, ticket.slot, position)


def _shape_at(
    circuit: Circuit, params: Params, name: str, position: int
) -> tuple[tuple[int, ...], int] | None:
    slot = circuit.slots[name]
    try:
        return tuple(slot.shape(params, position)), slot.f
    except (BadParams, LookupError, TypeError):
        return None


def _of_params(
    rule: Callable[..., Any], circuit: Circuit, params: Params, key: ParamsKey, *more: Any
) -> Any:
    """rule(circuit, params, *more), which depends on nothing else: remembered, but for refusals, as
    most queries have the parameters of others. `key`: tickets.params_key(params)."""
    circuit_id = circuit.id
    if CIRCUITS.get(circuit_id) is circuit:
        try:
            return _remembered(rule, circuit_id, key, more)
        except TypeError:  # a list among them
            pass
    return rule(circuit, params, *more)


@lru_cache(maxsize=REMEMBERED)
def _remembered(
    rule: Callable[..., Any], circuit_id: str, items: ParamsKey, more: tuple[Any, ...]
) -> Any:
    return rule(CIRCUITS[circuit_id], {name: value for name, _, value in items}, *more)


# ---- a round: the whole roster, each key once ---------------------------------------------------


def scope_suits_the_circuit(case: Case) -> None:
    """What is opened comes from a round; a query's output is sealed to the one who asked."""
    if case.circuit.sealed != case.is_query:
        raise Refused("wrong_scope", "This circuit does not belong into this kind of scope.")
    if not case.is_query and not str(case.job["scope"]).startswith(ROUND_SCOPES):
        raise Refused("wrong_scope", "Unknown kind of scope.")


def everyone_signed_the_same_roster(case: Case) -> None:
    """Who is in is what every owner saw and signed: nobody can be surrounded by inventions."""
    roster = case.job["roster"]
    if case.is_query:
        if roster is not None:
            raise Refused("roster_differs", "A query has no roster.")
        return
    if roster is None:
        raise Refused("roster_differs", "A round needs its roster.")
    signed = check_roster(roster)
    if any(t.roster != signed for t in case.tickets):
        raise Refused("roster_differs", "An owner signed another roster.")
    if roster["scope_of"] != case.job["scope"].partition(":")[2]:
        raise Refused("roster_differs", "The roster is of another round.")


def enough_members_take_part(case: Case) -> None:
    """With two in a sum each learns the other's by subtraction."""
    if case.is_query:
        return
    roster = case.job["roster"]
    roles = {slot.role for slot in case.circuit.slots.values()}
    least = {"custodian": max(MIN_CUSTODIANS, case.circuit.min_custodians)}
    if "validator" in roles:
        least["validator"] = max(1, case.circuit.min_validators)
    for role, count in least.items():
        if len(members_with_role(roster, role)) < count:
            raise Refused(f"too_few_{role}s", f"At least {count} {role}s must take part.")


def the_whole_roster_takes_part_once(case: Case) -> None:
    """No subset, no outsider, each member once per slot of its role, in roster order: leaving one
    out and running again would show that one by the difference."""
    if case.is_query:
        return
    for name, tickets in case.inputs.items():
        members = members_with_role(case.job["roster"], case.circuit.slots[name].role)
        senders = [t.sender for t in tickets]
        if set(senders) - set(members):
            raise Refused("not_on_roster", f"An input {name} is from no member of that role.")
        if len(set(senders)) != len(senders):
            raise Refused("duplicate_sender", f"A member has two inputs {name}.")
        if set(members) - set(senders):
            raise Refused("sub_roster", f"A member's input {name} is left out.")
        if senders != members:
            raise Refused("roster_order", f"The inputs {name} are not in roster order.")


def a_scope_has_one_descriptor_and_completes_once(case: Case) -> None:
    """Attempts may repeat, but only with the same inputs and circuit; what is done is done."""
    if case.binding is None:
        return
    if case.binding.digest != jobs.scope_digest(case.job):
        raise Refused("scope_bound", "This round or query is bound to another descriptor.")
    if case.binding.job_id is None:
        return
    if not case.is_query or case.binding.job_id != case.job["job_id"]:
        raise Refused("already_completed", "This round or query is already completed.")


def noise_is_drawn_a_few_times_only(case: Case) -> None:
    """Each attempt opens the metrics of a model with other noise. Of enough of them one could see
    those of the model without."""
    if case.is_query or RHO not in case.tickets[0].params or case.binding is None:
        return
    if case.binding.attempts >= NOISE_ATTEMPTS_MAX:
        raise Refused(
            "too_many_attempts",
            f"A round under a privacy budget has at most {NOISE_ATTEMPTS_MAX} attempts.",
        )


# ---- a query: a model that the network made, an output for the buyer alone ----------------------


def a_query_is_one_buyers(case: Case) -> None:
    if not case.is_query:
        return
    if len(case.tickets) != 1 or case.tickets[0].reply_key is None:
        raise Refused("wrong_query", "A query has one input, with a reply key.")
    # a node whose peers failed may run a paid query again, sealed to the same key; an attempt that
    # a busy node turned away has its number but is not counted
    if case.binding is not None and case.binding.attempts >= QUERY_ATTEMPTS_MAX:
        raise Refused("too_many_attempts", f"A query has at most {QUERY_ATTEMPTS_MAX} attempts.")


def the_model_is_the_one_the_buyer_named(case: Case) -> None:
    named = {t.model for t in case.tickets}
    if named != {case.job["model"]}:
        raise Refused("wrong_model", "The tickets name another model than the job.")
    needs_one = any(slot.role == "model" for slot in case.circuit.slots.values())
    if needs_one != (case.job["model"] is not None):
        raise Refused("wrong_model", "This circuit takes exactly the model it declares.")


def the_model_was_made_here_and_goes_where_it_may(case: Case) -> None:
    """A result inherits the ticket that its circuit declares: a model enters only what its makers'
    circuit allows, on the same nodes, at their resolution, with as many features, and for values
    that were standardised as the rows it was trained on were."""
    if case.job["model"] is None:
        return
    if case.model is None:
        raise Refused("unknown_model", "No such model has been made and committed here.")
    if case.circuit.id not in case.model["allows"]:
        raise Refused("circuit_not_allowed", f"The model may not enter {case.circuit.id}.")
    if case.model["nodes"] not in (list(case.nodes), *case.former):
        raise Refused("wrong_nodes", "The model belongs to another set of nodes.")
    if case.model["resolution"] != case.tickets[0].resolution:
        raise Refused("resolution_differs", "The model's makers allow another resolution.")
    asked, made = case.tickets[0].params, case.model["params"]
    named = (*case.circuit.of_model, *case.circuit.of_model_too)
    others = [name for name in named if asked.get(name) != made.get(name)]
    if others:
        raise Refused("wrong_shape", f"The model was made with another value of {others[0]}.")


def a_model_is_asked_by_the_circuit_that_its_makers_signed_for(case: Case) -> None:
    """Whichever release runs here: by the circuit that computes what it computed when the model was
    made, and that the buyer means. Of models of releases before 2 only its name was kept."""
    if not case.is_query or case.model is None:
        return
    ours = query_hash(case.circuit.id, case.model["params"])
    allows = case.model["allows"]
    if isinstance(allows, dict) and allows[case.circuit.id] != ours:
        raise Refused(
            "circuit_changed",
            f"The {case.circuit.id} of this release computes something else than the one that the "
            "model's makers signed for.",
        )
    if _hashes_named(case) != {ours}:
        raise Refused("circuits_differ", f"The query is for another {case.circuit.id}.")


def who_asks_shows_what_the_makers_ask_for(case: Case) -> None:
    """Whatever the site admits. That a credential was revoked no node knows: issuers that mean a
    revocation to count here issue for short."""
    demand = demand_of((case.model or {}).get("access"))
    if demand is None or not case.is_query:
        return
    ticket = case.tickets[0]
    try:
        shown(demand, ticket.access, sender=ticket.sender, at_ms=case.now * 1000)
    except NotShown as refused:
        raise Refused("not_admitted", refused.text) from None


def a_model_is_trained_on_by_its_makers(case: Case) -> None:
    """Evidence on holdouts of one's choice reads a model out. So all custodians whose model it is
    are in the roster, and their tickets name it."""
    if case.is_query or case.model is None:
        return
    present = set(members_with_role(case.job["roster"], "custodian"))
    makers = case.model.get("makers")
    if not makers or not set(makers) <= present:
        raise Refused("makers_missing", "A maker of the model does not take part.")


# ---- what this node's operator allows, whatever was paid ----------------------------------------


def this_node_may_compute_verified_only(case: Case) -> None:
    if case.limits.verified_only and case.job["engine"] != VERIFIED:
        raise Refused("verified_only", "This node takes part in verified jobs only.")


def a_query_costs_what_this_node_asks(case: Case) -> None:
    """The price that the buyer signed; whether it was paid, only the ledger knows."""
    if case.is_query and int(case.tickets[0].price_micro or 0) < case.limits.price_micro_min:
        raise Refused(
            "price_too_low",
            f"This node answers no query under {case.limits.price_micro_min} micro-units.",
        )


def a_query_is_small(case: Case) -> None:
    if case.is_query and rows_asked(case) > case.limits.rows_per_query:
        raise Refused(
            "too_many_rows", f"This node answers {case.limits.rows_per_query} rows a query at most."
        )


def a_model_answers_so_many_rows_an_epoch(case: Case) -> None:
    """Whoever asks, under however many keys. An attempt of a query that is counted is free."""
    if not case.is_query or case.binding is not None:
        return
    left = max(0, case.limits.rows_per_epoch - case.rows_answered)
    if rows_asked(case) > left:
        days = case.limits.epoch_days
        end = datetime.fromtimestamp((epoch_day(day_of(case.now), days) + days) * DAY_S, UTC)
        raise Refused(
            "row_budget_spent",
            f"This node answers {left} more rows of this model until {end:%Y-%m-%d %H:%M} UTC.",
        )


def rows_asked(case: Case) -> int:
    """How many rows of a query the model is asked about."""
    return int(case.tickets[0].params["rows"])


def day_of(now: int) -> int:
    """The UTC day of a Unix time, counted from 1970."""
    return now // DAY_S


def epoch_day(day: int, epoch_days: int) -> int:
    """The first day of the epoch of so many days that this day is in."""
    return day - day % epoch_days


RULES = (
    circuits_are_our_own,
    nodes_are_this_set,
    engine_is_the_one_signed_for,
    scope_is_the_one_signed_for,
    a_scope_has_one_descriptor_and_completes_once,
    circuit_is_allowed_by_every_owner,
    slots_are_the_ones_signed_for,
    scope_suits_the_circuit,
    tickets_are_in_time,
    shares_enter_one_job_only,
    owners_agree_on_the_parameters,
    owners_agree_on_the_resolution,
    owners_agree_on_who_may_ask,
    everyone_signed_the_same_roster,
    enough_members_take_part,
    the_whole_roster_takes_part_once,
    shapes_fit_the_circuit,
    noise_is_drawn_a_few_times_only,
    a_query_is_one_buyers,
    the_model_is_the_one_the_buyer_named,
    the_model_was_made_here_and_goes_where_it_may,
    a_model_is_asked_by_the_circuit_that_its_makers_signed_for,
    who_asks_shows_what_the_makers_ask_for,
    a_model_is_trained_on_by_its_makers,
    this_node_may_compute_verified_only,
    a_query_costs_what_this_node_asks,
    a_query_is_small,
    a_model_answers_so_many_rows_an_epoch,
)
