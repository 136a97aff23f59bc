"""What a round must satisfy before a site shares anything with it.

The server says which nodes compute, for whom, what and with which parameters; the site believes
none of it. What the columns are this site attested to, or accepted, since it follows whose sums are
opened. Nodes are pinned, the circuits are those of this release and of the site's own list, the
roster names this site and organisations that it pinned, the parameters fit its rows, and the
normalisation is what the nodes signed for.

Two totals whose rosters differ by one member show that member's sums. So the roster of a round's
sums has lost nobody who was in those of an earlier round, unless the site says so; where such a
member is late, the earlier round's constants are kept. Within a round members may leave (they were
late): nodes compute one of its rosters only, once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from apps.protocol import tickets, wire
from apps.protocol.circuits import CIRCUITS, Circuit, ModelClass, Slot
from apps.protocol.circuits.family import NORMALISATION
from apps.protocol.circuits.noise import CLIP, RHO
from apps.protocol.circuits.resolution import LOGIT, RESOLUTIONS
from apps.protocol.credentials import demand_of, is_kind
from apps.protocol.encoding import NUMBER
from apps.protocol.normalise import constants_digest, numbers_in, public_constants
from apps.protocol.privacy import DELTA_EXPONENT, epsilon_milli
from apps.protocol.tickets import (
    COMPUTING,
    SHAMIR,
    VERIFIED,
    TicketError,
    check_engine,
    threshold_of,
)
from apps.protocol.wire import is_hex
from workers.client.api import ClientError
from workers.client.data import Table
from workers.client.errors import few
from workers.client.home import Home
from workers.client.nodes import NotTrusted, check_release, receipted, trusted_nodes
from workers.client.training import FEATURE_BOUND

Print = Callable[[str], None]

SCHEMA_DOMAIN = "flai/schema/v1"
MIN_CELL = 5
MIN_SITES = 3
CUT_MAX, FLAT, SAME = 0.2, 2.0**-10, 2.0**-20
ROSTERS_MAX = 2  # that a site signs in one stage: the first, and one without who was late

CUSTODIAN, VALIDATOR = "custodian", "validator"
MOMENTS, ROUND = "moments", "round"
MOMENTS_CIRCUIT = "moments@1"
SECURE_SGD = "secure_sgd"
ENDED = frozenset({"done", "void", "failed"})


@dataclass(frozen=True, kw_only=True)
class Joined:
    """A checked stage of a round: who computes what, and which slot this site fills."""

    nodes: list[dict[str, Any]]
    release: str
    custodians: int
    circuit: Circuit
    name: str
    subdao: str
    params: dict[str, Any]
    scope: str
    resolution: Any
    engine: str
    model: str | None = None
    expires_at: int | None = None
    access: dict[str, Any] | None = None

    @property
    def slot(self) -> Slot:
        return self.circuit.slots[self.name]


def join(
    current: Mapping[str, Any],
    stage: str,
    table: Table,
    *,
    subdao: str,
    model: ModelClass,
    home: Home,
    role: str,
    say: Print,
    accept_roster: bool = False,
    accept_threshold: int | None = None,
    note: bool = True,
) -> Joined:
    """What to share in this stage, once everything that the server says of the round holds.

    Shows the roster, and (with `note`) notes it. Without `accept_roster` the sums' roster may not
    have lost or swapped a member since an earlier round. `accept_threshold` is the person's word
    that from now on so many are enough for this SubDAO.
    Raises: NotTrusted; ClientError("round_over"), ClientError("too_early").
    """
    if current["phase"] in ENDED:
        raise ClientError(f"The round is over ({current['phase']}).", code="round_over")
    nodes = trusted_nodes(home, current["nodes"])
    release = check_release(current["circuits_hash"], nodes)
    custodians = _check_roster(current, home=home, role=role, say=say)
    _check_only_left(current, stage, home)
    if stage == MOMENTS and not accept_roster:
        _check_continuity(current["roster"], current["id"], subdao, home)
    shares_rows = stage == ROUND and current["training"] == SECURE_SGD
    circuit = circuit_of(current, stage, model)
    _check_allowed(circuit, home)
    asked = current["ticket"]
    if asked is None:
        raise ClientError(
            f"The round takes no shares while it is {current['phase']}; try again later.",
            code="too_early",
        )
    scope = f"{stage}:{current['id']}"
    if asked["scope"] != scope or list(asked["circuits"]) != [circuit.id]:
        raise NotTrusted(
            f"The round asks for {asked['circuits']} in {asked['scope']}, not {circuit.id}.",
            "wrong_stage",
        )
    params = asked["params"]
    try:
        circuit.validate(params)
    except ValueError as error:
        raise NotTrusted(f"The round's parameters: {error}.", "bad_params") from None
    _check_params(params, current, table, stage, home=home, role=role)
    if stage == ROUND:
        _check_resolution(asked.get("resolution"), model, home=home, say=say)
        _check_access(asked.get("access"), home=home, say=say)
        _check_privacy(params, home=home, say=say)
        if role == CUSTODIAN:
            _check_spent(params, current["id"], subdao, home=home, say=say)
    engine = _check_engine(
        asked["engine"], nodes, subdao, home=home, say=say, accept=accept_threshold, note=note
    )
    start = current["start"] if stage == ROUND else None
    if asked["model"] != (start and start["model"]):
        raise NotTrusted("The round asks for tickets that name another model.", "wrong_model")
    if start:
        say(
            f"Training goes on from version {start['version']} (model {start['model'][:8]}…), and "
            "rows are standardised as they were for it. Nodes refuse unless all its makers take "
            "part, and all tickets name this normalisation."
        )
    if shares_rows:
        check_schedule(params, home=home, say=say)
    elif stage == ROUND:
        say(f"Contributions are scored by: {params['scoring']}.")
    if len(params.get("rows", [])) > 1:
        say(f"  Weights of the validators, in the roster's order: {params.get('weights')}.")
    if note:
        _note_roster(current, stage, subdao, home)
    return Joined(
        nodes=nodes,
        release=release,
        custodians=custodians,
        circuit=circuit,
        name=next(name for name, slot in circuit.slots.items() if slot.role == role),
        subdao=subdao,
        params=params,
        scope=scope,
        resolution=asked.get("resolution"),
        engine=engine,
        model=asked["model"],
        # rows lie with the nodes no longer than their round
        expires_at=asked["expires_at"] if shares_rows and role == CUSTODIAN else None,
        access=asked.get("access"),
    )


def circuit_of(current: Mapping[str, Any], stage: str, model: ModelClass) -> Circuit:
    """What this stage of a round computes. Raises: NotTrusted for what this class can't."""
    if stage == MOMENTS:
        return CIRCUITS[MOMENTS_CIRCUIT]
    steps = model.sgd_on_id if current["start"] else model.sgd_id
    name = steps if current["training"] == SECURE_SGD else model.round_id
    if name not in CIRCUITS:
        raise NotTrusted(f"This release has no circuit {name}.", "wrong_stage")
    return CIRCUITS[name]


def _check_resolution(resolution: Any, model: ModelClass, *, home: Home, say: Print) -> None:
    """How finely buyers will see answers is signed here, for as long as the model lives; the nodes
    hold everybody to it. `resolution` in agent.toml is the finest that this site signs."""
    if resolution not in model.resolutions:
        raise NotTrusted(f"A {model.name} model is not answered by {resolution}.", "bad_resolution")
    finest = home.config.get("resolution", LOGIT)
    if finest not in RESOLUTIONS:
        raise NotTrusted(
            f"agent.toml: resolution must be one of: {', '.join(RESOLUTIONS)}.", "bad_resolution"
        )
    if RESOLUTIONS.index(resolution) > RESOLUTIONS.index(finest):
        raise NotTrusted(
            f"The model would be answered by {resolution}; agent.toml allows {finest} at most.",
            "resolution_too_fine",
        )
    say(f"Buyers will be answered by: {resolution}.")


def _check_access(access: Any, *, home: Home, say: Print) -> None:
    """Whom the nodes will answer is signed here, for as long as the model lives. `credential` in
    agent.toml is the kind without which this site signs for none, `issuers` the only wallet keys
    that it takes issuers by: which key is whose, the server says else."""
    try:
        demand = demand_of(access)
    except ValueError as error:
        raise NotTrusted(f"Whom the model would answer: {error}.", "bad_access") from None
    kind, issuers = home.config.get("credential"), home.config.get("issuers")
    listed = isinstance(issuers, list) and all(is_hex(key, 32) for key in issuers)
    if (kind is not None and not is_kind(kind)) or (issuers is not None and not listed):
        raise NotTrusted(
            "agent.toml: credential is a kind like accredited-hospital, issuers a list of wallet "
            "keys in hex.",
            "bad_access",
        )
    if kind is not None and (demand is None or demand.credential != kind):
        told = f"holders of “{demand.credential}”" if demand else "everybody"
        raise NotTrusted(
            f"The nodes would answer {told}; agent.toml asks for holders of “{kind}”. Its SubDAO "
            "votes that (listings.set_access), and plans of before end first.",
            "access_differs",
        )
    if demand is None:
        say("The nodes will answer everybody who asks the model: they ask for no credential.")
        return
    if issuers is not None and (others := set(demand.keys) - set(issuers)):
        raise NotTrusted(
            f"The nodes would take credentials signed by {min(others)}, which agent.toml does not "
            "list among issuers.",
            "access_differs",
        )
    say(
        f"The nodes will answer holders of a credential “{demand.credential}” alone, signed by "
        f"{', '.join(key[:8] + '…' for key in demand.keys)}."
    )


def _check_engine(
    engine: Any,
    nodes: Sequence[Any],
    subdao: str,
    *,
    home: Home,
    say: Print,
    accept: int | None = None,
    note: bool = True,
) -> str:
    """What nodes compute with, signed for here. `verified = true` in agent.toml signs for the
    verified ring alone: the nodes then refuse to use this share, or a model made of it, without.
    `threshold` there is the least number of nodes that shall learn nothing by telling each other
    all that they see; where it is not said, the highest that this site signed for the SubDAO, until
    a person accepts a lower one."""
    try:
        check_engine(engine, len(nodes))
    except (KeyError, TypeError, TicketError):
        raise NotTrusted(f"The nodes can't compute with {engine}.", "wrong_engine") from None
    told = "threshold" in home.config
    least = home.config["threshold"] if told else home.threshold_signed(f"subdao:{subdao}")
    if isinstance(least, bool) or not isinstance(least, int):
        raise NotTrusted("agent.toml: threshold must be a whole number.", "bad_threshold")
    could = threshold_of(engine)
    if could < least and not told and accept is not None and accept <= could:
        say(f"Accepted for {subdao}: {could + 1} nodes together could read what this site shares.")
        if note:
            home.accept_threshold(f"subdao:{subdao}", could)
    elif could < least:
        why = f"agent.toml asks that {least} can't."
        if not told:
            why = (
                f"until now this site has signed for {subdao} where {least} can't. If its members "
                f"voted for that, run the same command with --accept-threshold {could}, or write "
                f"threshold = {could} in agent.toml."
            )
        raise NotTrusted(
            f"{could + 1} nodes that put their parts together could read them; " + why,
            "threshold_too_low",
        )
    if home.config.get("verified", False) is not False and engine != VERIFIED:
        raise NotTrusted(
            f"The round would be computed by {engine}; agent.toml allows {VERIFIED} alone.",
            "verified_only",
        )
    if engine == VERIFIED:
        say("Computed by four nodes that check each other: one that cheats is caught.")
    if engine in SHAMIR:
        say(
            f"Shared among {len(nodes)} nodes, of which any {SHAMIR[engine]} together learn "
            f"nothing; {COMPUTING[engine]} must be there to compute."
        )
    return str(engine)


def _check_privacy(params: Mapping[str, Any], *, home: Home, say: Print) -> None:
    """What noise the model gets is signed for here, and the nodes hold everybody to it. `epsilon`
    in agent.toml is the most that this site's update may show through one round's model."""
    found = epsilon_milli(params[RHO]) / 1000 if RHO in params else None
    most = home.config.get("epsilon")
    if most is not None and (isinstance(most, bool) or not isinstance(most, (int, float))):
        raise NotTrusted("agent.toml: epsilon must be a number.", "bad_privacy")
    if most is not None and (found is None or found > most):
        told = "no noise" if found is None else f"noise for ε = {found:.3f}"
        raise NotTrusted(
            f"The round's model would get {told}; agent.toml asks for ε = {most:g} at most.",
            "too_little_noise",
        )
    if found is not None:
        say(
            f"The nodes add noise to the model: given the scores φ, it shows no more than ε = "
            f"{found:.3f} (δ = 10^-{DELTA_EXPONENT}) of this site's update, which is shortened to "
            f"length {params[CLIP] / 1000:g}."
        )


def signed_for_micro(home: Home, subdao: str, round_id: str, rho_micro: int) -> int:
    """ρ of all rounds of a SubDAO whose tickets this site has signed, that one with so much among
    them. A round makes one model, whichever of its tickets it is made of."""
    of_round: dict[str, int] = {}
    for entry in home.journal:
        if entry.get("event") == "leaving" and entry.get("subdao") == subdao:
            known = of_round.get(entry["round"], 0)
            of_round[entry["round"]] = max(known, entry.get("rho_micro", 0))
    of_round[round_id] = max(of_round.get(round_id, 0), rho_micro)
    return sum(of_round.values())


def _check_spent(
    params: Mapping[str, Any], round_id: str, subdao: str, *, home: Home, say: Print
) -> None:
    """What all models of a SubDAO show together, by this site's own count: the server's is its own.
    `epsilon_total` in agent.toml is the most that this site signs for. Raises: NotTrusted."""
    most = home.config.get("epsilon_total")
    if most is not None and (isinstance(most, bool) or not isinstance(most, (int, float))):
        raise NotTrusted("agent.toml: epsilon_total must be a number.", "bad_privacy")
    if RHO not in params:
        if most is not None:
            raise NotTrusted(
                f"The round's model would get no noise; agent.toml asks for ε = {most:g} at most "
                "of all models together.",
                "too_little_noise",
            )
        return
    total = epsilon_milli(signed_for_micro(home, subdao, round_id, params[RHO])) / 1000
    if most is not None and total > most:
        raise NotTrusted(
            f"With this round, the models of {subdao} that this site has signed for would show "
            f"ε = {total:.3f}; agent.toml allows {most:g} in all (epsilon_total).",
            "privacy_spent",
        )
    say(f"  All models of {subdao} that this site has signed for: ε = {total:.3f} at most.")


def check_schedule(schedule: Mapping[str, Any], *, home: Home, say: Print) -> None:
    """What steps this site signs for, and what they open on the way, is shown; `curve = false` in
    agent.toml signs none that open the loss curve. Raises: NotTrusted."""
    say(
        f"Training on shared rows: at most {schedule['epochs']} × {schedule['steps']} steps, rate "
        f"{schedule['rate_ppm'] / 1e6:g}, momentum {schedule['momentum_ppm'] / 1e6:g}, penalty "
        f"{schedule['l2_ppm'] / 1e6:g}; sites that do not help the validators' holdouts are left "
        "out, and nobody sees who."
    )
    if schedule["patience"]:
        say(
            f"  It stops after {schedule['patience']} epochs in which the validators' loss does "
            "not fall; whether it fell is opened after each."
        )
    if not schedule["curve"]:
        return
    if home.config.get("curve", True) is not True:
        raise NotTrusted(
            "The validators' loss would be opened after each epoch, which agent.toml does not "
            "allow (curve).",
            "curve_opened",
        )
    say("  THE LOSS CURVE IS OPENED: the validators' loss after each epoch, in thousandths.")


def _check_roster(current: Mapping[str, Any], *, home: Home, role: str, say: Print) -> int:
    """The number of custodians in the roster."""
    roster = current["roster"]
    try:
        computed = tickets.check_roster(roster)
    except tickets.TicketError as error:
        raise NotTrusted(error.text, "bad_roster") from None
    if computed != current["roster_hash"] or roster["scope_of"] != current["id"]:
        raise NotTrusted("The roster is not this round's.", "bad_roster")
    mine = [m for m in roster["members"] if m["key"] == home.identity_hex()]
    if [m["role"] for m in mine] != [role]:
        raise NotTrusted(f"This site's key is not in the roster as {role}.", "not_listed")
    custodians = tickets.members_with_role(roster, CUSTODIAN)
    least = max(MIN_SITES, int(home.config.get("min_sites", MIN_SITES)))
    if len(custodians) < least:
        raise NotTrusted(
            f"The roster has {len(custodians)} custodians; this site asks for {least}.",
            "too_few_sites",
        )
    _check_peers(roster["members"], home)
    say(f"Roster {computed[:8]}…, signed with what this site sends:")
    for member in roster["members"]:
        say(f"  {member['role']:10} {member['key'][:8]}…  {member['name']}")
    return len(custodians)


def _check_peers(members: Iterable[Mapping[str, Any]], home: Home) -> None:
    """Keys are free: among members whom the server invented, a total is this site's own sum."""
    peers, path = home.pinned_peers(), home.path / "peers.pin.json"
    if peers is None:
        if home.takes_any_peers:
            return
        raise NotTrusted(
            f"{path} does not say with which organisations this site computes, and a server could "
            "invent them. Ask each for its key (python3 -m workers.client key --home HOME) and "
            'write them there; or write peers = "any" into agent.toml and believe the server.',
            "peers_not_pinned",
        )
    known = {*peers, home.identity_hex()}
    strangers = [m["name"] for m in members if m["key"] not in known]
    if strangers:
        raise NotTrusted(
            f"The roster names organisations that are not in {path}: {', '.join(strangers)}.",
            "peers_not_pinned",
        )


def _check_allowed(circuit: Circuit, home: Home) -> None:
    """The site's own list of circuits, where agent.toml has one. Raises: NotTrusted."""
    allowed = home.config.get("circuits")
    if allowed is not None and circuit.id not in allowed:
        raise NotTrusted(
            f"agent.toml allows {', '.join(allowed) or 'no circuit'}, not {circuit.id}.",
            "circuit_not_allowed",
        )


def _check_only_left(current: Mapping[str, Any], stage: str, home: Home) -> None:
    """Since this site's last word in this round members have only left, once a stage at most."""
    signed = [e for e in home.journal if (e["event"], e.get("round")) == ("roster", current["id"])]
    here = {entry.get("hash") for entry in signed if entry.get("stage") == stage}
    again = current["roster_hash"] in here
    members = {m["key"] for m in current["roster"]["members"]}
    grown = bool(signed) and not members <= set(signed[-1]["members"])
    if grown or (not again and len(here) >= ROSTERS_MAX):
        raise NotTrusted(
            "The roster of this round has changed otherwise than by one loss of late members.",
            "roster_changed",
        )


def _check_continuity(roster: Mapping[str, Any], round_id: str, subdao: str, home: Home) -> None:
    """Two totals over rosters that differ by one member show that member's own sums."""
    before = _summed_before(round_id, subdao, home)
    now = {m["key"] for m in roster["members"]}
    lost = sorted(name for key, name in before.items() if key not in now)
    if lost:
        raise NotTrusted(
            f"The roster of {subdao} has lost {', '.join(lost)} since this site last took part: "
            "with both totals, what they shared shows. Ask why; if that is right, run the same "
            "command with --accept-roster.",
            "roster_changed",
        )


def _summed_before(round_id: str, subdao: str, home: Home) -> dict[str, str]:
    """{key: name} of the sums of the last other round that this site took part in; where it did
    not hear which, of the largest roster that it signed there."""
    rounds: dict[str, dict[str, str]] = {}
    for entry in home.journal:
        if entry.get("subdao") != subdao or entry.get("round") == round_id:
            continue
        if entry["event"] == "roster" and entry.get("stage") != ROUND:
            rounds.setdefault(entry["round"], entry["members"])
        elif entry["event"] == "summed":
            rounds[entry["round"]] = entry["members"]
    return list(rounds.values())[-1] if rounds else {}


def _note_roster(current: Mapping[str, Any], stage: str, subdao: str, home: Home) -> None:
    about = {"round": current["id"], "stage": stage, "hash": current["roster_hash"]}
    if home.journal.last("roster", **about) is None:
        members = _names(current["roster"])
        home.journal.write("roster", subdao=subdao, **about, members=members)


def _names(roster: Mapping[str, Any]) -> dict[str, str]:
    return {m["key"]: m["name"] for m in roster["members"]}


def _check_params(
    params: Mapping[str, Any],
    current: Mapping[str, Any],
    table: Table,
    stage: str,
    *,
    home: Home,
    role: str,
) -> None:
    wrong = params.get("features") != (table.width if stage == ROUND else len(table.numbers))
    if stage == ROUND:
        wrong = wrong or params.get("min_cell", 0) < MIN_CELL
        counts = "rows" if role == VALIDATOR else "site_rows"
        if counts in params:
            order = tickets.members_with_role(current["roster"], role)
            place = order.index(home.identity_hex())
            wrong = wrong or params[counts][place] != table.rows
    if wrong:
        raise NotTrusted("The round's parameters do not fit this site's rows.", "bad_params")


def schema_digest(schema: Mapping[str, Any]) -> str:
    """Of `rfm_spec.schema_of` a spec: what attestations name it by."""
    return wire.digest(SCHEMA_DOMAIN, dict(schema))


def check_schema(
    schema: Mapping[str, Any],
    *,
    subdao: str,
    home: Home,
    accept_schema: bool = False,
    note: bool = True,
) -> None:
    """A SubDAO's schema is one that this site attested to or, by `accept_schema`, accepted for it.

    A server that calls a boolean a number would have it summed: how many patients have it. With
    `note` the journal keeps what was accepted. Raises: NotTrusted("other_schema").
    """
    digest, hashes, known = schema_digest(schema), set(), []
    for entry in home.journal:
        if entry["event"] == "attesting":
            hashes.add(entry["attestation"]["schema_hash"])
        elif entry["event"] == "schema_accepted" and entry["subdao"] == subdao:
            hashes.add(entry["schema_hash"])
        else:
            continue
        known += entry.get("schema", {}).get("features", [])
    if digest in hashes:
        return
    if not accept_schema:
        new = [feature for feature in schema["features"] if feature not in known]
        other = [f"{feature['name']}, a {feature.get('type', NUMBER)}" for feature in new]
        raise NotTrusted(
            f"{subdao} asks for other columns than this site attested to: "
            f"{few(other) if other else 'label, strata or order differ'}. Of each that is called a "
            "number, rounds open the sum. If its members voted for that and you agree, run the "
            "same command with --accept-schema.",
            "other_schema",
        )
    if note:
        kept = {"schema_hash": digest, "schema": dict(schema)}
        home.journal.write("schema_accepted", subdao=subdao, **kept)


def check_normalisation(
    current: Mapping[str, Any],
    joined: Joined,
    *,
    numbers: int,
    subdao: str,
    home: Home,
    accept_roster: bool = False,
    note: bool = True,
) -> None:
    """The constants are those of sums that the nodes signed for, over this round's members; where
    they are kept, of an earlier round's sums, over custodians who are all pinned.

    Which earlier round, only the server says. So they are ones that this site took part under in
    this SubDAO before, or whose sums it shared. A site that never did takes them, in a round on
    shared rows, with the model that was made under them, which the nodes compare; in a round of
    updates, where enough others of it shared those sums: each of them signs for no others, and the
    nodes compare what all sign for. `accept_roster` lifts the rule for a site that missed the
    round whose sums they are.

    Who was late may have left since: the sums' roster has all members of the present one, and
    perhaps more; its custodians are all pinned. With constants of its own choice for each site, a
    server could make φ and the metrics, which are opened, tell of single columns; so every ticket
    names them too, and nodes compare. Raises: NotTrusted.
    """
    kept = current["summed"]
    openings, summed = receipted(
        kept["job"] if kept else current.get("job"),
        circuit=MOMENTS_CIRCUIT,
        scope=f"{MOMENTS}:{kept['round'] if kept else current['id']}",
        nodes=joined.nodes,
    )
    before = _names(summed)
    if not kept and not set(_names(current["roster"])) <= set(before):
        raise NotTrusted("The sums are of other members than this round's.", "wrong_normalisation")
    # validators add nothing to the sums: one who left long ago keeps no new site out
    _check_peers([m for m in summed["members"] if m["role"] == CUSTODIAN], home)
    if not accept_roster and not kept:
        _check_continuity(summed, current["id"], subdao, home)
    constants = current["normalisation"]
    if (
        numbers_in(openings["sums"]) != numbers
        or constants != public_constants(openings["sums"], joined.params["features"])
        or joined.params.get(NORMALISATION) != constants_digest(constants)
    ):
        raise NotTrusted(
            "The normalisation is not that of the sums which the nodes opened.",
            "wrong_normalisation",
        )
    digest = constants_digest(constants)
    if kept and not accept_roster:
        _check_kept(digest, summed, current, subdao, home)
    if note and home.journal.last("normalised", subdao=subdao, digest=digest) is None:
        home.journal.write("normalised", subdao=subdao, round=current["id"], digest=digest)
    if note and not kept and home.journal.last("summed", round=current["id"]) is None:
        home.journal.write("summed", subdao=subdao, round=current["id"], members=before)


def check_spread(table: Table, features: np.ndarray) -> None:
    """The constants leave something of this site's rows, features [n, d] as standardised by them.

    One site can shift or stretch them by sums that its rows do not have, and nobody sees which. Of
    all rows together 1 in 256 at most is beyond 16 deviations, and only rows elsewhere that are a
    thousand times as far apart make those of one site lie within 2^−10.
    Raises: NotTrusted where more than a fifth of a column's cells are beyond, or all lie so near.
    """
    features, raw = (each[:, : len(table.numbers)] for each in (features, table.features))
    cut = (np.abs(features) >= FEATURE_BOUND).mean(axis=0) > CUT_MAX
    own, mean = raw.std(axis=0), np.abs(raw.mean(axis=0))
    flat = (features.std(axis=0) < FLAT) & (own > SAME * (1 + mean))
    lost = [name for name, gone in zip(table.numbers, cut | flat, strict=True) if gone]
    if lost:
        raise NotTrusted(
            f"The round's mean and deviation leave nothing of this site's {few(lost)}: cells would "
            f"be cut at ±{FEATURE_BOUND:g} deviations, or all become alike. Either the unit is "
            "another one here, or some site shared other sums than those of its rows.",
            "bad_normalisation",
        )


def _check_kept(
    digest: str, summed: Mapping[str, Any], current: Mapping[str, Any], subdao: str, home: Home
) -> None:
    known = {
        entry["digest"]
        for entry in home.journal
        if (entry["event"], entry.get("subdao")) == ("normalised", subdao)
    }
    shared = {"subdao": subdao, "round": current["summed"]["round"], "stage": MOMENTS}
    if digest in known or home.journal.last("roster", **shared) is not None:
        return
    if current["training"] == SECURE_SGD:
        tied = not known and current["start"] is not None
    else:
        here, there = (
            set(tickets.members_with_role(roster, CUSTODIAN))
            for roster in (current["roster"], summed)
        )
        tied = len(here & there - {home.identity_hex()}) >= MIN_SITES
    if not tied:
        raise NotTrusted(
            f"The round keeps a normalisation under which this site never took part in {subdao}. "
            "Ask whose sums it is of; if that is right, run the same command with --accept-roster.",
            "wrong_normalisation",
        )
