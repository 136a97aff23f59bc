"""Checking the record of a round (`GET /api/v1/rounds/ID/record/`) by itself, offline.

Its entries are in the log whose head is signed. They name the roster, the nodes, each share's
ticket by its hash, φ, and what was opened; the tickets say what was computed on what, and the
nodes' receipts, each signed by a key that the node's fingerprint is made of, that it was so. What
none of them says is the site's word: `unchecked` lists it. That the nodes themselves are the right
ones, and that the log's rules hold, is what `verify` checks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from apps.protocol import heads, merkle, wire
from apps.protocol.circuits import CLASSES
from apps.protocol.evidence import evidence_of
from apps.protocol.jobs import JobError, check_node
from apps.protocol.normalise import constants_digest, public_constants
from apps.protocol.tickets import RING, TicketError, check_roster, members_with_role, roster_of
from apps.protocol.tickets import ticket_id as id_of
from workers.client.earnings import Made
from workers.client.verify import not_receipted

Body = Mapping[str, Any]
ENDS = {
    "done": "training.round_done",
    "void": "training.round_void",
    "failed": "training.round_failed",
}
COMPUTED = ("done", "void")
UNDER_WAY = ("moments", "normalising", "updates", "computing")
RECORD = {
    "v", "round", "course", "members", "shares", "job", "openings", "receipts", "version",
    "evidence", "log",
}  # fmt: skip
ROUND = {
    "id", "dao", "number", "phase", "roster", "roster_hash", "nodes", "circuits_hash", "features",
    "strata", "model_class", "training", "scoring", "engine", "normalisation", "privacy", "reason",
    "opened_at", "closed_at",
}  # fmt: skip
MEMBER = {"pid", "name", "role", "key", "rows", "left_phase", "phi_milli"}
SHARE = {"pid", "stage", "slot", "ticket_id", "ticket", "state", "reason"}


@dataclass(frozen=True)
class Entry:
    type: str
    body: Body
    at: int


@dataclass(frozen=True)
class Unchecked:
    """path: a regular expression of the fields that it is about, as “members.3.rows”."""

    path: str
    text: str


def check_record(record: Mapping[str, Any], key: str | None = None) -> list[str]:
    """What does not fit, in words; nothing where all does. key: the log's, from elsewhere."""
    found: dict[str, None] = {}  # in order, each once
    try:
        for text in _check(record, key):
            found[text] = None
    except (JobError, TicketError) as error:
        found[error.text] = None
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # what was found before explains it better
        found = found or {f"The record has a wrong form ({type(error).__name__}: {error}).": None}
    return list(found)


def unchecked(record: Mapping[str, Any]) -> list[Unchecked]:
    """What neither the log nor the nodes say: the site's word."""
    found = [
        Unchecked(r"course\b.*|round\.reason", "the course in words, and a reason"),
        Unchecked(r"round\.dao\.(name|slug)", "the SubDAO's name and address (its id is checked)"),
        Unchecked(r"round\.strata\.\d+", "the strata's names"),
        Unchecked(r"log\.entries", "whether the log has more entries about this round"),
    ]
    used = {ticket for item in record["receipts"] for ticket in item["receipt"]["inputs"]}
    others = [str(n) for n, s in enumerate(record["shares"]) if s["ticket_id"] not in used]
    if others:
        path = rf"shares\.({'|'.join(others)})\.(state|reason)"
        found.append(
            Unchecked(path, "what became of shares that the round was not computed with, and why")
        )
    tickets = [s["ticket"] for s in record["shares"] if s["stage"] == "round"]
    without = [
        str(n)
        for n, member in enumerate(record["members"])
        if not tickets or member["left_phase"] or not _rows_named(tickets[0], member)
    ]
    if without:
        path = rf"members\.({'|'.join(without)})\.rows"
        found.append(Unchecked(path, "the rows of members whose tickets do not count them"))
    if not tickets:
        path = r"round\.(features|strata|model_class|scoring)\b.*"
        found.append(Unchecked(path, "features, strata, class of model and scoring"))
    elif "scoring" not in tickets[0]["params"]:
        found.append(Unchecked(r"round\.scoring", "the scoring, which these steps have none of"))
    if record["round"]["phase"] not in ENDS:
        found.append(Unchecked(r"round\.phase", "the phase of a round that goes on"))
    if record["evidence"] is not None:
        found.append(Unchecked(r"evidence\.gates\b.*", "which gates the SubDAO has"))
    return found


def _rows_named(ticket: Body, member: Body) -> bool:
    return member["role"] == "validator" or "site_rows" in ticket["params"]


def _check(record: Mapping[str, Any], key: str | None) -> Iterator[str]:
    log = record["log"]
    if key is not None and key != log["key"]:
        yield "The record is of a log with another key."
        return
    try:
        head = heads.check_head(log["head"], log=key or log["key"])
    except heads.HeadRefused as refused:
        yield refused.text
        return
    yield from _forms(record)
    entries: dict[int, Entry] = {}
    for entry in log["entries"]:
        data, index = wire.unb64(entry["leaf_b64"]), entry["index"]
        path = [wire.unhex(step, merkle.HASH_BYTES) for step in entry["path"]]
        hashed = merkle.leaf_hash(data)
        try:
            root = merkle.root_from_inclusion(hashed, index, head.size, path).hex()
        except merkle.ProofInvalid:
            root = ""
        if root != head.root:
            yield f"Entry {index} is not in the log with this head."
        elif hashed.hex() != entry["hash"] or index in entries:
            yield f"Entry {index} has another hash, or stands twice."
        else:
            leaf = json.loads(data)
            entries[index] = Entry(leaf["type"], leaf["body"], leaf["at"])
    yield from _told(record, [entries[index] for index in sorted(entries)])


def _forms(record: Mapping[str, Any]) -> Iterator[str]:
    """A field that nobody knows is a field that nobody checks."""
    round_, log = record["round"], record["log"]
    known = [
        ("The record", record, RECORD),
        ("The round", round_, ROUND),
        ("The SubDAO", round_["dao"], {"slug", "name", "pid"}),
        ("The log", log, {"head", "key", "entries"}),
        *(("A member", member, MEMBER) for member in record["members"]),
        *(("A share", share, SHARE) for share in record["shares"]),
        *(("A receipt", item, {"node", "receipt", "signature"}) for item in record["receipts"]),
        *(("An entry", e, {"index", "leaf_b64", "hash", "path"}) for e in log["entries"]),
    ]
    for what, found, names in known:
        if set(found) != names:
            yield f"{what} has a wrong form: {', '.join(sorted(set(found) ^ names))}."
    if record["v"] != 1:
        yield "The record has a wrong form: its version is unknown."


def _told(record: Mapping[str, Any], entries: Sequence[Entry]) -> Iterator[str]:
    """Is the record what these entries tell?"""
    round_ = record["round"]
    own = [entry for entry in entries if entry.body.get("round") == round_["id"]]

    def about(type_: str) -> list[Entry]:
        return [entry for entry in own if entry.type == type_]

    opened = about("training.round_opened")
    if len(opened) != 1:
        yield "The record has not the one entry that opens the round."
        return
    if len(own) != len(entries):
        yield "An entry is about another round."
    first, reduced = opened[0].body, [e.body for e in about("training.roster_reduced")]
    yield from _opened(round_, opened[0])
    yield from _members(record, first, reduced)
    received = [e.body for e in about("training.share_received")]
    yield from _shares(record, received)
    yield from _computed_on(record)
    normalised, constants = about("training.normalised"), round_["normalisation"]
    for entry in normalised:
        if public_constants(entry.body["sums"], round_["features"]) != constants:
            yield "The normalisation is not that of the sums in the log."
    kept = first["start"] is not None or any("kept" in body for body in reduced)
    if constants is not None and not normalised and not kept:
        yield "No entry says what the normalisation was made of."
    yield from _ended(record, [e for e in own if e.type in ENDS.values()])
    if round_["phase"] in COMPUTED and (ends := about(ENDS[round_["phase"]])):
        roster = [first, *reduced][-1]["roster"]
        yield from _receipted(record, {**first, "roster": roster}, ends[0].body, received)


def _opened(round_: Body, entry: Entry) -> Iterator[str]:
    body, said = entry.body, {"engine": RING, "privacy": {}, **entry.body}
    if (body["dao"], body["number"]) != (round_["dao"]["pid"], round_["number"]):
        yield "SubDAO or number are not those that the log names."
    for name in ("nodes", "circuits_hash", "training", "engine", "privacy"):
        if round_[name] != said[name]:
            yield f"{name} of the round is not what the log names."
    if not _when(round_["opened_at"], entry):
        yield "The log says that the round was opened at another time."


def _when(said: str | None, entry: Entry) -> bool:
    """As the log says, to the millisecond."""
    if said is None:
        return False
    return round(datetime.fromisoformat(said).timestamp() * 1e6) // 1000 == entry.at


def _members(record: Mapping[str, Any], first: Body, reduced: Sequence[Body]) -> Iterator[str]:
    """Who, by which key and name: the rosters' hashes are in the log, the first one's and the last
    one's."""
    round_, members = record["round"], record["members"]
    if len({m["pid"] for m in members}) != len(members) or first["members"] != {
        m["pid"]: m["role"] for m in members
    }:
        yield "The members are not those that the log names."
    last = [first, *reduced][-1]["roster"]
    try:
        if not check_roster(round_["roster"]) == round_["roster_hash"] == last:
            yield "The roster is not the one that the log names."
        known = [{name: m[name] for name in ("key", "role", "name")} for m in members]
        if check_roster(roster_of(round_id=round_["id"], members=known)) != first["roster"]:
            yield "Keys or names of the members are not those of the roster that the log names."
    except TicketError as error:
        yield error.text
    left = {pid: body["phase"] for body in reduced for pid in body["left"]}
    if left != {m["pid"]: m["left_phase"] for m in members if m["left_phase"] is not None}:
        yield "Others were left out than the log names."
    stay = {m["key"] for m in members if m["left_phase"] is None}
    if stay != {m["key"] for m in round_["roster"]["members"]}:
        yield "Others have stayed than the roster names."


def _shares(record: Mapping[str, Any], received: Sequence[Body]) -> Iterator[str]:
    """Each share that the log names is here, and what is said of it is what its owner signed."""
    keys = {member["pid"]: member["key"] for member in record["members"]}
    named = {body["ticket"]: body for body in received}
    used = {ticket for item in record["receipts"] for ticket in item["receipt"]["inputs"]}
    there = [share["ticket_id"] for share in record["shares"]]
    if len(set(there)) != len(there):
        yield "A share stands twice."
    if missing := named.keys() - set(there):
        yield f"The share {min(missing)[:12]}…, which the log names, is left out."
    for share in record["shares"]:
        ticket, body = share["ticket"], named.get(share["ticket_id"])
        what = f"The share {share['ticket_id'][:12]}…"
        if share["state"] == "delivered" and body is None:
            yield f"{what} is not in the log."
        said = (share["pid"], share["slot"])
        if body is not None and (said != (body["party"], body["slot"])):
            yield f"{what} is of another party or slot than the log says."
        scope = f"{share['stage']}:{record['round']['id']}"
        signed = (id_of(ticket), ticket["scope"], ticket["slot"], ticket["sender"])
        if signed != (share["ticket_id"], scope, share["slot"], keys.get(share["pid"])):
            yield f"{what} has another ticket."
        state = (share["state"], share["reason"])
        if share["ticket_id"] in used and state != ("delivered", None):
            yield f"{what} was computed with, and is said to be {share['state']}."


def _computed_on(record: Mapping[str, Any]) -> Iterator[str]:
    """What the tickets under the last roster say of the round."""
    round_, rows = record["round"], {m["key"]: m["rows"] for m in record["members"]}
    model, roster = CLASSES[round_["model_class"]], round_["roster"]
    circuits = (model.round_id,) if round_["training"] == "fedavg" else model.steps_ids
    constants = round_["normalisation"]
    for share in record["shares"]:
        ticket, params = share["ticket"], share["ticket"]["params"]
        if share["stage"] != "round" or ticket["roster"] != round_["roster_hash"]:
            continue
        of = {role: [rows[k] for k in members_with_role(roster, role)] for role in
              ("validator", "custodian")}  # fmt: skip
        same = {
            "class of model or training": ticket["circuits"][0] in circuits,
            "circuits, nodes or engine": all(
                ticket[name] == round_[name] for name in ("circuits_hash", "nodes", "engine")
            ),
            "features": params["features"] == round_["features"],
            "strata": params["strata"] == len(round_["strata"]),
            "scoring": params.get("scoring", round_["scoring"]) == round_["scoring"],
            "rows": params["rows"] == of["validator"]
            and params.get("site_rows", of["custodian"]) == of["custodian"],
            "normalisation": constants is not None
            and set(constants) == {"f", "mean", "std"}
            and params.get("normalisation") in (None, constants_digest(constants)),
        }
        for name, good in same.items():
            if not good:
                yield f"The {name} are not what the tickets say."


def _ended(record: Mapping[str, Any], ends: Sequence[Entry]) -> Iterator[str]:
    round_, phase = record["round"], record["round"]["phase"]
    phi = {m["pid"]: m["phi_milli"] for m in record["members"] if m["phi_milli"] is not None}
    if phase not in COMPUTED:
        named = ("job", "openings", "version", "evidence")
        if record["receipts"] or any(record[name] is not None for name in named):
            yield "A round that nothing came of has results."
    if phase not in ENDS:
        if phi:
            yield "A round that goes on has scores."
        if ends or round_["closed_at"] is not None or phase not in UNDER_WAY:
            yield "A round that is over is said to go on."
        return
    if [entry.type for entry in ends] != [ENDS[phase]]:
        yield f"The log does not say once that round {round_['number']} is {phase}."
        return
    end = ends[0].body
    if not _when(round_["closed_at"], ends[0]):
        yield "The log says that the round ended at another time."
    if phi != end.get("phi_milli", {}):
        yield "φ is not what the log says."
    if record["version"] != end.get("version"):
        yield "The version is not the one that the log names."
    if phase == "done" and end["evidence"] != record["openings"]:
        yield "What was opened is not what the log says."
    signed = sorted(receipt["signature"] for receipt in record["receipts"])
    if phase in COMPUTED and signed != end["receipts"]:
        yield "The receipts are not those that the log names."
    if phase == "done":
        yield from _evidence(record)
    elif record["evidence"] is not None:
        yield "A round that made no version has evidence."


def _evidence(record: Mapping[str, Any]) -> Iterator[str]:
    """It follows from what was opened."""
    found = dict(record["evidence"])
    lines, strata = found.pop("gates"), record["round"]["strata"]
    own = evidence_of(record["openings"], strata=strata, gates=[])
    del own["gates"]
    if {**found, "intervals": None} != {**own, "intervals": None}:
        yield "The evidence is not what was opened."
    # whether a forecast has a season, which leaves skill without one, is in no ticket
    seasons = [evidence_of(record["openings"], strata=strata, gates=[], season=s) for s in (0, 1)]
    if found.get("intervals") not in [each["intervals"] for each in seasons]:
        yield "The intervals are not those that this release computes from what was opened."
    for line in lines:
        metric, stratum = line["metric"], line["stratum"]
        by_stratum = own.get(f"{metric}_by_stratum", {})
        got = own.get(f"{metric}_milli") if stratum is None else by_stratum.get(stratum)
        met = got is not None and got >= line["min_milli"]
        if (line["got_milli"], line["met"]) != (got, met):
            yield "A gate is not met by what was opened as the record says."


def _receipted(
    record: Mapping[str, Any], opened: Body, end: Body, received: Sequence[Body]
) -> Iterator[str]:
    """Each node of the job signed for what was opened over this roster."""
    job = record["job"]
    if set(job) != {"descriptor", "nodes"} or "attempt" in job["descriptor"]:
        yield "The job has a wrong form."
    names = {check_node(node): node["name"] for node in job["nodes"]}
    if any(names.get(r["receipt"]["node"]) != r["node"] for r in record["receipts"]):
        yield "A receipt is said to be from another node."
    judges = [m["pid"] for m in record["members"]
              if m["role"] == "validator" and m["left_phase"] is None]  # fmt: skip
    done = {"work": dict.fromkeys(judges, 1), "evidence": record["openings"], **end}
    why = not_receipted(
        {**job, "receipts": record["receipts"]},
        Made(opened, done),
        keys={member["key"]: member["pid"] for member in record["members"]},
        committed={
            body["ticket"]: (place, body["slot"], body["party"])
            for place, body in enumerate(received)
        },
    )
    if why is not None:
        yield f"The receipts do not bear it out: {why.removesuffix('.')}."
    circuits = {s["ticket"]["circuits"][0] for s in record["shares"] if s["stage"] == "round"}
    if not {item["receipt"]["circuit"] for item in record["receipts"]} <= circuits:
        yield "The nodes computed another circuit than the tickets say."
