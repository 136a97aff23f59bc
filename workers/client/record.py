"""Checking the record of a round (`GET /api/v1/rounds/ID/record/`) by itself, offline.

Its entries are in the log whose head is signed; the members, their φ, what was opened and which
nodes signed for it are what those entries say. That the nodes themselves are the right ones, and
that the log's rules hold, is what `verify` checks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from apps.protocol import heads, merkle, wire
from apps.protocol.tickets import TicketError, check_roster

Body = Mapping[str, Any]
ENDS = {
    "done": "training.round_done",
    "void": "training.round_void",
    "failed": "training.round_failed",
}


def check_record(record: Mapping[str, Any], key: str | None = None) -> list[str]:
    """What does not fit, in words; nothing where all does. key: the log's, from elsewhere."""
    try:
        return _check(record, key)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        return [f"The record has a wrong form ({type(error).__name__}: {error})."]


def _check(record: Mapping[str, Any], key: str | None) -> list[str]:
    log = record["log"]
    if key is not None and key != log["key"]:
        return ["The record is of a log with another key."]
    try:
        head = heads.check_head(log["head"], log=key or log["key"])
    except heads.HeadRefused as refused:
        return [refused.text]
    wrong, bodies = [], []
    for entry in log["entries"]:
        data = wire.unb64(entry["leaf_b64"])
        path = [wire.unhex(step, merkle.HASH_BYTES) for step in entry["path"]]
        found = merkle.root_from_inclusion(
            merkle.leaf_hash(data), entry["index"], head.size, path
        ).hex()
        if found != head.root:
            wrong.append(f"Entry {entry['index']} is not in the log with this head.")
            continue
        leaf = json.loads(data)
        bodies.append((leaf["type"], leaf["body"]))
    return wrong + _told(record, bodies)


def _told(record: Mapping[str, Any], bodies: list[tuple[str, Body]]) -> list[str]:
    """Is the record what these entries tell?"""
    round_, wrong = record["round"], []
    own = [(type_, body) for type_, body in bodies if body.get("round") == round_["id"]]

    def about(type_: str) -> list[Body]:
        return [body for found, body in own if found == type_]

    opened = about("training.round_opened")
    if len(opened) != 1:
        return ["The record has not the one entry that opens the round."]
    roles = {member["pid"]: member["role"] for member in record["members"]}
    same = (opened[0]["dao"], opened[0]["number"], opened[0]["members"])
    if same != (round_["dao"]["pid"], round_["number"], roles):
        wrong.append("SubDAO, number or members are not those that the log names.")
    rosters = [opened[0]["roster"]] + [b["roster"] for b in about("training.roster_reduced")]
    try:
        if not check_roster(round_["roster"]) == round_["roster_hash"] == rosters[-1]:
            wrong.append("The roster is not the one that the log names.")
    except TicketError as error:
        wrong.append(error.text)
    late = {pid for body in about("training.roster_reduced") for pid in body["left"]}
    if late != {m["pid"] for m in record["members"] if m["left_phase"]}:
        wrong.append("Others were left out than the log names.")
    received = {(b["party"], b["ticket"]) for b in about("training.share_received")}
    for share in record["shares"]:
        if share["state"] == "delivered" and (share["pid"], share["ticket_id"]) not in received:
            wrong.append(f"The share {share['ticket_id'][:12]}… is not in the log.")
    return wrong + _ended(record, about)


def _ended(record: Mapping[str, Any], about: Any) -> list[str]:
    round_, phase = record["round"], record["round"]["phase"]
    phi = {m["pid"]: m["phi_milli"] for m in record["members"] if m["phi_milli"] is not None}
    if phase not in ENDS:
        return ["A round that goes on has scores."] if phi else []
    ends = about(ENDS[phase])
    if len(ends) != 1:
        return [f"The log does not say once that round {round_['number']} is {phase}."]
    wrong, end = [], ends[0]
    if phi != end.get("phi_milli", {}):
        wrong.append("φ is not what the log says.")
    if phase == "done" and end["evidence"] != record["openings"]:
        wrong.append("What was opened is not what the log says.")
    signed = sorted(receipt["signature"] for receipt in record["receipts"])
    if phase != "failed" and signed != end["receipts"]:
        wrong.append("The receipts are not those that the log names.")
    return wrong
