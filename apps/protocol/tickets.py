"""Tickets: what the owner of a share allows to be done with it.

Every share that reaches a node carries a ticket signed by its owner's key. It names the scope (a
round or a query), the circuits and the slot that the share may enter, the public parameters, the
roster or the model it may meet, the nodes, the commitments to its words, and an expiry. Nodes obey
tickets; whoever dispatches jobs can only pick among what the owners have signed.

A query's ticket (scope "query:…") also names the model, the reply key that alone can read the
output, the price and the resolution; a round's ticket names the roster, and the model where
training goes on from one. `access` stands in a ticket only where a model is not for everybody: in
its round's what it asks for, in a query's what shows it (`apps.protocol.credentials`).

A holdout, or rows, may stay with the nodes for further rounds: the ticket that they come with says
in how many (`uses`), until it expires. In each further round their owner signs a ticket of type
"kept", which brings no words: it binds that round's slot, roster, circuit and parameters to the
words that lie there, by their owner's key and their commitments (`Ticket.root`).

ticket_id = digest("flai/ticket/v1", ticket); the signature has the same domain.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from typing import Any

from apps.protocol.credentials import demand_of
from apps.protocol.wire import (
    BadSignature,
    canonical,
    digest,
    encoded,
    ensure_canonical,
    is_hex,
    unb64,
    verify,
)

TICKET_DOMAIN = "flai/ticket/v1"
ROSTER_DOMAIN = "flai/roster/v1"
KEPT_DOMAIN = "flai/kept/v1"

SHARE, KEPT = "share", "kept"  # a ticket's type: it comes with its words, or they lie there
KEPT_SLOTS = ("holdout", "rows")  # what may stay for further rounds
USES_MAX = 64
# What rows were encoded by: of parameters that differ in these, other rows must be shared.
KEPT_UNDER = ("features", "strata", "normalisation")

NODE_COUNTS = (3, 4, 5, 6, 7)
TRIO = 3  # nodes that compute one job on the ring, whichever of the n they are
QUARTET = 4  # nodes that compute one job on the verified ring
RING_NODES_MAX = 5
RING, VERIFIED = "ring", "ring_verified"
# Shamir shares, by how many nodes together learn nothing: so the threshold is compared, signed and
# bound wherever the engine is. The ring's is 1.
SHAMIR = {"shamir_t1": 1, "shamir_t2": 2, "shamir_t3": 3}
SHAMIR_PATIENCE = 5
# How many nodes compute a job; of Shamir shares at least so many, 2t + 1.
COMPUTING = {RING: TRIO, VERIFIED: QUARTET} | {name: 2 * t + 1 for name, t in SHAMIR.items()}
ENGINES = tuple(COMPUTING)
RESOLUTIONS = ("label", "band", "rounded", "logit")  # coarse to fine
ROLES = ("custodian", "validator")
MIN_CUSTODIANS = 3  # with two, each learns the other's by subtraction

MAX_VALUES = 1 << 21
MAX_DIMENSIONS = 4
MAX_PARAMS_BYTES = 64 * 1024
MAX_ENVELOPE_BYTES = 4096
MAX_ACCESS_BYTES = 4096
MAX_LIFETIME_S = 366 * 24 * 3600
CLOCK_SKEW_S = 300
GCM_TAG_BYTES = 16
MAX_CORRECTION_BYTES = 8 * MAX_VALUES + GCM_TAG_BYTES
ELEMENT_BYTES = 12  # of a number mod 2^89 − 1 on its way

_SCOPE = re.compile(r"(moments|round|query):[A-Za-z0-9._-]{1,64}")
_CIRCUIT = re.compile(r"[a-z][a-z0-9_]{0,63}@[1-9][0-9]{0,5}")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_AMOUNT = re.compile(r"0|[1-9][0-9]{0,17}")


ParamsKey = tuple[tuple[str, type, Any], ...]


class TicketError(Exception):
    """A ticket, upload or roster is not acceptable. `code` for programs, `text` safe to show."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """A checked share ticket; field by field what the owner signed, and its id."""

    v: int
    type: str
    share_id: str
    sender: str
    scope: str
    slot: str
    circuits: tuple[str, ...]
    circuits_hash: str
    engine: str
    nodes: tuple[str, ...]
    roster: str | None
    model: str | None
    params: dict[str, Any]
    shape: tuple[int, ...]
    f: int
    commitment: tuple[str, ...]
    uses: int
    issued_at: int
    expires_at: int
    reply_key: str | None
    price_micro: str | None
    resolution: str | None
    id: str
    access: dict[str, Any] | None = None

    @cached_property
    def params_key(self) -> ParamsKey:
        """The parameters by name, type and value, as 1 is True to a dictionary. It has a hash where
        none of them is a list."""
        return params_key(self.params)

    @property
    def values(self) -> int:
        """How many numbers the share holds."""
        return math.prod(self.shape)

    @property
    def correction_bytes(self) -> int:
        """How long the encrypted correction is."""
        if self.is_kept:
            return 0
        return correction_bytes_of(self.engine, len(self.nodes), self.values)

    @property
    def is_query(self) -> bool:
        return self.scope.startswith("query:")

    @property
    def is_kept(self) -> bool:
        """Does it stand for words that lie with the nodes already?"""
        return self.type == KEPT

    @property
    def stays(self) -> bool:
        """May its words stay for further rounds, or have they?"""
        return self.is_kept or self.uses > 1

    @property
    def root(self) -> str:
        """Names the words and whose they are: alike for a share and all tickets that bring it into
        further rounds; nobody else's commitments give the same."""
        return digest(KEPT_DOMAIN, {"sender": self.sender, "commitment": list(self.commitment)})


HEAD_FIELDS = ("ticket", "signature", "envelopes")
UPLOAD_FIELDS = (*HEAD_FIELDS, "correction")
TICKET_FIELDS = tuple(f.name for f in fields(Ticket) if f.name != "id")


def params_key(params: Mapping[str, Any]) -> ParamsKey:
    return tuple([(name, type(value), value) for name, value in params.items()])


def correction_bytes_of(engine: str, nodes: int, values: int) -> int:
    """8 bytes a value, and the cipher's tag; of Shamir shares each node's own, 12 bytes a value."""
    if engine in SHAMIR:
        return nodes * (ELEMENT_BYTES * values + GCM_TAG_BYTES)
    return 8 * values + GCM_TAG_BYTES


def ticket_id(ticket: dict[str, Any]) -> str:
    """digest("flai/ticket/v1", ticket), hex."""
    return digest(TICKET_DOMAIN, ticket)


def check_ticket(ticket: Any, *, now: int) -> Ticket:
    """The ticket with every field of the right form, and not out of its time.

    `now` in Unix seconds. Says nothing about signatures. Raises: TicketError.
    """
    return _checked(ticket, now)[0]


def _checked(ticket: Any, now: int) -> tuple[Ticket, bytes]:
    """`check_ticket`'s, and the canonical bytes: what its id and its signature are made of."""
    _require(isinstance(ticket, dict), "malformed", "The ticket is not an object.")
    missing = ticket.keys() ^ _FORMS.keys()
    if missing - {"access"}:
        names = ", ".join(sorted(map(str, missing)))
        raise TicketError("malformed", f"The ticket lacks or adds fields: {names}.")
    for name, good in _FORMS.items():
        if name not in missing and not good(ticket[name]):
            raise TicketError("malformed", f"The ticket's field {name} has a wrong form.")
    data = _canonical(ticket)
    _require(
        len(ticket["commitment"]) == len(ticket["nodes"]),
        "malformed",
        "The ticket does not commit to one word or share per node.",
    )
    check_engine(ticket["engine"], len(ticket["nodes"]))
    values = math.prod(ticket["shape"])
    _require(values <= MAX_VALUES, "too_large", _TOO_MANY)
    _check_kind(ticket)
    _check_time(ticket, now)
    _require(
        correction_bytes_of(ticket["engine"], len(ticket["nodes"]), values) <= MAX_CORRECTION_BYTES,
        "too_large",
        "A share of so many values does not fit an upload.",
    )
    checked = object.__new__(Ticket)  # a frozen one's own __init__ makes a call for each field
    vars(checked).update(ticket, id=digest(TICKET_DOMAIN, data))
    vars(checked).update((name, tuple(ticket[name])) for name in _LISTS)
    return checked, data


@lru_cache(maxsize=64)
def check_engine(engine: str, nodes: int) -> None:
    """Does that engine compute on so many nodes? Any two groups that can must share one, as it is
    the node in both that keeps a scope from running twice; and the ring stays within five.
    Raises: TicketError("too_few_nodes", "too_many_nodes")."""
    least, most = COMPUTING[engine], nodes_max_of(engine)
    _require(nodes >= least, "too_few_nodes", f"{engine} takes {least} nodes, not {nodes}.")
    _require(nodes <= most, "too_many_nodes", f"{engine} takes {most} nodes at most, not {nodes}.")


def nodes_max_of(engine: str) -> int:
    """The most nodes that the engine takes: fewer than two groups that compute, n < 2 (2t + 1)."""
    most = max(NODE_COUNTS) if engine in SHAMIR else RING_NODES_MAX
    return min(most, 2 * COMPUTING[engine] - 1)


def holders_of(engine: str) -> int:
    """How many nodes must have a share, or a result, before it counts as kept: on the ring others
    can get theirs from three; of Shamir shares those that have theirs must be able to compute."""
    return COMPUTING[engine] if engine in SHAMIR else TRIO


def threshold_of(engine: str) -> int:
    """t: how many nodes that put together what they see learn nothing."""
    return SHAMIR.get(engine, 1)


def deadline_of(engine: str, ring_s: int) -> int:
    """How long a job may take that the ring has so many seconds for. The dead are seen sooner."""
    return ring_s * SHAMIR_PATIENCE if engine in SHAMIR else ring_s


def permits(signed: str, engine: str) -> bool:
    """May a job run on this engine for an owner who signed for that one? The verified ring shows
    nobody more than the ring, so who signed for the ring has signed for both; who signed for the
    verified one demands it. Shamir shares are of one threshold, and no other engine takes them."""
    return engine == signed or (signed, engine) == (RING, VERIFIED)


def check_upload(upload: Any, *, now: int) -> Ticket:
    """A ticket with a valid owner's signature, and sealed parts of the sizes it promises.

    upload = {"ticket": {}, "signature": hex, "envelopes": [base64 per node], "correction"}; the
    correction is base64, or the bytes themselves where the upload travelled as such.

    Raises: TicketError with code malformed, too_large, expired, not_yet_valid or bad_signature.
    """
    ticket, signed = check_form(upload, now=now)
    check_signature(ticket, signed, upload["signature"])
    return ticket


def check_form(upload: Any, *, now: int) -> tuple[Ticket, bytes]:
    """All of `check_upload` but the signature: the ticket, and the bytes that its owner must have
    signed. Raises: TicketError."""
    _require(
        isinstance(upload, dict) and upload.keys() == set(UPLOAD_FIELDS),
        "malformed",
        "An upload consists of ticket, signature, envelopes and correction.",
    )
    ticket, signed = _checked_head(upload, now)
    correction = upload["correction"]
    raw = isinstance(correction, (bytes, bytearray, memoryview))
    size = len(correction) if raw else _b64_size(correction)
    fits = size == ticket.correction_bytes
    _require(fits, "malformed", "The correction does not fit the ticket's shape.")
    return ticket, signed


def check_signature(ticket: Ticket, signed: bytes, signature: Any) -> None:
    """Raises: TicketError("bad_signature") unless the ticket's sender signed these bytes of it."""
    try:
        verify(ticket.sender, TICKET_DOMAIN, signed, signature)
    except BadSignature:
        raise TicketError("bad_signature", "The ticket is not signed by its sender.") from None


def check_head(head: Any, *, now: int) -> Ticket:
    """What an upload is without its correction: ticket, signature, envelopes, one for each node;
    none where the words lie there already.

    Raises: TicketError as check_upload does.
    """
    _require(
        isinstance(head, dict) and head.keys() == set(HEAD_FIELDS),
        "malformed",
        "The head of an upload consists of ticket, signature and envelopes.",
    )
    ticket, signed = _checked_head(head, now)
    check_signature(ticket, signed, head["signature"])
    return ticket


def _checked_head(head: dict[str, Any], now: int) -> tuple[Ticket, bytes]:
    ticket, signed = _checked(head["ticket"], now)
    envelopes = head["envelopes"]
    _require(
        isinstance(envelopes, list)
        and len(envelopes) == (0 if ticket.is_kept else len(ticket.nodes)),
        "malformed",
        "An upload has one envelope per node, and none for what the nodes keep.",
    )
    for envelope in envelopes:
        size = _b64_size(envelope)
        _require(0 < size <= MAX_ENVELOPE_BYTES, "malformed", "An envelope has a wrong size.")
    return ticket, signed


def check_roster(roster: Any) -> str:
    """The roster's hash, after its form, order and distinct keys have been checked.

    roster = {"v": 1, "scope_of": round id, "members": [{"key", "role", "name"}, …]}, members sorted
    by (role, key), every key once. Raises: TicketError("bad_roster").
    """

    def good(condition: bool, text: str) -> None:
        _require(condition, "bad_roster", text)

    good(
        isinstance(roster, dict) and set(roster) == {"v", "scope_of", "members"},
        "A roster consists of v, scope_of and members.",
    )
    good(roster["v"] == 1 and isinstance(roster["scope_of"], str), "Unknown form of roster.")
    members = roster["members"]
    good(isinstance(members, list) and 0 < len(members) <= 1000, "A roster lists its members.")
    for member in members:
        good(
            isinstance(member, dict) and set(member) == {"key", "role", "name"},
            "A member has key, role and name.",
        )
        good(is_hex(member["key"], 32), "A member's key is not an Ed25519 key in hex.")
        good(member["role"] in ROLES, "A member is a custodian or a validator.")
        good(isinstance(member["name"], str) and len(member["name"]) <= 200, "A name is too long.")
    order = [(m["role"], m["key"]) for m in members]
    good(order == sorted(order), "Members must be sorted by role and key.")
    good(len({m["key"] for m in members}) == len(members), "A key appears twice in the roster.")
    try:
        return digest(ROSTER_DOMAIN, roster)
    except ValueError:
        raise TicketError("bad_roster", "The roster has no canonical form.") from None


def roster_of(*, round_id: str, members: list[dict[str, str]]) -> dict[str, Any]:
    """A roster with its members in the canonical order."""
    ordered = sorted(members, key=lambda m: (m["role"], m["key"]))
    return {"v": 1, "scope_of": round_id, "members": ordered}


def members_with_role(roster: dict[str, Any], role: str) -> list[str]:
    """The keys of one role, in roster order: the order of a slot's inputs in a job."""
    return [m["key"] for m in roster["members"] if m["role"] == role]


def _require(condition: bool, code: str, text: str) -> None:
    if not condition:
        raise TicketError(code, text)


def _int(value: Any, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high


def is_node_set(value: Any) -> bool:
    """Three to seven fingerprints, in index order, each once."""
    formed = isinstance(value, list) and len(value) in NODE_COUNTS
    return formed and all(isinstance(x, str) for x in value) and _are_nodes(tuple(value))


@lru_cache(maxsize=64)
def _are_nodes(prints: tuple[str, ...]) -> bool:
    """The same few sets are named by every ticket and job."""
    return all(is_hex(x, 32) for x in prints) and len(set(prints)) == len(prints)


_FORMS: dict[str, Any] = {
    "v": lambda x: _int(x, 1, 1),
    "type": lambda x: x in (SHARE, KEPT),
    "share_id": lambda x: is_hex(x, 16),
    "sender": lambda x: is_hex(x, 32),
    "scope": lambda x: isinstance(x, str) and bool(_SCOPE.fullmatch(x)),
    "slot": lambda x: isinstance(x, str) and bool(_NAME.fullmatch(x)),
    "circuits": lambda x: (
        isinstance(x, list)
        and 0 < len(x) <= 16
        and all(isinstance(c, str) and _CIRCUIT.fullmatch(c) for c in x)
    ),
    "circuits_hash": lambda x: is_hex(x, 32),
    "engine": lambda x: x in ENGINES,
    "nodes": is_node_set,
    "roster": lambda x: x is None or is_hex(x, 32),
    "model": lambda x: x is None or is_hex(x, 32),
    "params": lambda x: isinstance(x, dict),
    "shape": lambda x: (
        isinstance(x, list)
        and 0 < len(x) <= MAX_DIMENSIONS
        and all(_int(n, 1, MAX_VALUES) for n in x)
    ),
    "f": lambda x: _int(x, 0, 40),
    "commitment": lambda x: isinstance(x, list) and all(is_hex(y, 32) for y in x),
    "uses": lambda x: _int(x, 1, USES_MAX),
    "issued_at": lambda x: _int(x, 0, 1 << 40),
    "expires_at": lambda x: _int(x, 0, 1 << 40),
    "reply_key": lambda x: x is None or is_hex(x, 32),
    "price_micro": lambda x: x is None or (isinstance(x, str) and bool(_AMOUNT.fullmatch(x))),
    "resolution": lambda x: x is None or x in RESOLUTIONS,
    "access": lambda x: isinstance(x, dict),
}


_LISTS = ("circuits", "nodes", "shape", "commitment")
_QUERY_ONLY = ("reply_key", "price_micro")
_OF_A_QUERY = (*_QUERY_ONLY, "model", "resolution")
_TOO_MANY = f"A share holds at most {MAX_VALUES} values."


def _canonical(ticket: dict[str, Any]) -> bytes:
    """A ticket whose fields have the right form is canonical if its parameters and `access` are."""
    try:
        ensure_canonical(ticket["params"], 1)
        ensure_canonical(ticket.get("access"), 1)
        data = encoded(ticket)
    except ValueError:
        raise TicketError(
            "malformed", "The parameters may hold integers, strings and lists."
        ) from None
    if len(data) > MAX_PARAMS_BYTES:  # else they are shorter anyway
        size = len(canonical(ticket["params"]))
        _require(size <= MAX_PARAMS_BYTES, "too_large", "The parameters are too large.")
    return data


def _check_kind(ticket: dict[str, Any]) -> None:
    """A query names model, reply key, price and resolution; a round its roster, perhaps a model."""
    if ticket["scope"].startswith("query:"):
        lacking = [name for name in _OF_A_QUERY if ticket[name] is None]
        if lacking:
            raise TicketError("malformed", f"A query's ticket must name {', '.join(lacking)}.")
        _require(ticket["roster"] is None, "malformed", "A query has no roster.")
    else:
        of_round = ticket["scope"].startswith("round:")
        query_only = _QUERY_ONLY if of_round else (*_QUERY_ONLY, "model")
        extra = [name for name in query_only if ticket[name] is not None]
        _require(not extra, "malformed", f"A round's ticket may not name {', '.join(extra)}.")
        _require(ticket["roster"] is not None, "malformed", "A round's ticket names its roster.")
    if ticket["type"] == KEPT or ticket["uses"] > 1:
        may = ticket["scope"].startswith("round:") and ticket["slot"] in KEPT_SLOTS
        _require(may, "malformed", f"Only a {' or '.join(KEPT_SLOTS)} may stay with the nodes.")
        once = ticket["type"] == SHARE or ticket["uses"] == 1
        _require(once, "malformed", "A ticket for what the nodes keep is for one round.")
    if "access" in ticket:
        _check_access(ticket)


def _check_access(ticket: dict[str, Any]) -> None:
    """Of a query the proof is held against what its model asks for, by who knows the model."""
    small = len(encoded(ticket["access"])) <= MAX_ACCESS_BYTES
    _require(small, "too_large", f"What a ticket says of access has {MAX_ACCESS_BYTES} bytes.")
    if ticket["scope"].startswith("query:"):
        return
    made = ticket["scope"].startswith("round:")
    _require(made, "malformed", "Sums make no model that anybody could ask.")
    try:
        demand_of(ticket["access"])
    except ValueError as error:
        raise TicketError("malformed", f"The ticket's access: {error}.") from None


def _check_time(ticket: dict[str, Any], now: int) -> None:
    issued_at, expires_at = ticket["issued_at"], ticket["expires_at"]
    _require(expires_at > issued_at, "malformed", "The ticket expires before it is issued.")
    _require(
        expires_at - issued_at <= MAX_LIFETIME_S, "malformed", "The ticket lives more than a year."
    )
    _require(issued_at <= now + CLOCK_SKEW_S, "not_yet_valid", "The ticket lies in the future.")
    _require(now < expires_at, "expired", "The ticket has expired.")


def _b64_size(text: Any) -> int:
    if not isinstance(text, str) or len(text) > 4 * MAX_CORRECTION_BYTES:
        return -1
    try:
        return len(unb64(text))
    except ValueError:
        return -1
