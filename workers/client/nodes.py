"""Which nodes a client trusts, and whether they said what they said.

A descriptor counts only if it is signed by its own key and its fingerprint is pinned: the server
hands descriptors out, but it can't put its own keys in their place.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from apps.protocol.circuits import circuits_hash, query_hash
from apps.protocol.jobs import (
    ACK_DOMAIN,
    OPENINGS_DOMAIN,
    JobError,
    check_job,
    check_node,
    check_receipts,
    computing_of,
    engine_of,
    job_digest,
    members_of,
    sealed_hash,
)
from apps.protocol.successions import sets_before
from apps.protocol.tickets import NODE_COUNTS, RING, holders_of, is_node_set, permits, ticket_id
from apps.protocol.wire import BadSignature, digest, unb64, verify
from workers.client.api import ClientError
from workers.client.home import Home

_log = logging.getLogger("flai.client")


class NotTrusted(ClientError):
    """Something differs from what this site pinned or runs. Nothing has been sent."""

    def __init__(self, text: str, code: str) -> None:
        super().__init__(f"{text} Nothing was sent.", code=code)


def trusted_nodes(home: Home, descriptors: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The descriptors in index order, each checked and pinned.

    A home without pins pins what it sees now, and says so as a warning: this once it takes the
    server's word, and a server that lies could name nodes of its own. A home with pins accepts
    exactly those, and a successor that the lost node's own key or enough of the pinned ones signed
    for (`successions.others_least`). Raises: NotTrusted.
    """
    nodes = sorted((dict(d) for d in descriptors), key=lambda d: d.get("index", -1))
    try:
        fingerprints = [check_node(node) for node in nodes]
    except JobError as error:
        raise NotTrusted(error.text, "bad_node_descriptor") from None
    in_order = [node["index"] for node in nodes] == list(range(len(nodes)))
    if not in_order or not is_node_set(fingerprints):
        wanted = " or ".join(map(str, NODE_COUNTS))
        raise NotTrusted(f"The server names {len(nodes)} nodes where {wanted} belong.", "bad_nodes")
    pinned = home.pinned_nodes()
    if pinned is None:
        home.pin_nodes(fingerprints)
        home.journal.write("nodes_pinned", fingerprints=fingerprints, how="first use")
        _log.warning(
            "These nodes are trusted from now on, on the server's word: %s. Compare them with the "
            "fingerprints that their operators publish; they are kept in %s.",
            ", ".join(f"{fp[:6]}…{fp[-4:]}" for fp in fingerprints),
            home.path / "nodes.pin.json",
        )
    elif sorted(pinned) in map(sorted, sets_before(fingerprints, nodes)):
        home.pin_nodes(fingerprints)
        home.journal.write("nodes_pinned", fingerprints=fingerprints, how="succession")
        _log.warning(
            "A node has a new key: its old one, or enough other nodes, signed that it takes the "
            "old one's place. %s has the new fingerprints.",
            home.path / "nodes.pin.json",
        )
    elif sorted(pinned) != sorted(fingerprints):
        strangers = [
            n["name"] for n, fp in zip(nodes, fingerprints, strict=True) if fp not in pinned
        ]
        raise NotTrusted(
            f"The server names nodes that are not the ones pinned in {home.path / 'nodes.pin.json'}"
            f" ({', '.join(strangers) or 'one is missing'}). If an operator has changed a key, "
            "ask that operator for the new fingerprint and write it there.",
            "nodes_not_pinned",
        )
    return nodes


def check_release(announced: str, nodes: Sequence[Mapping[str, Any]]) -> str:
    """This release's circuits hash, if server and nodes have the same. Raises: NotTrusted."""
    ours = circuits_hash()
    others = {"the server": announced} | {str(n["name"]): n["circuits_hash"] for n in nodes}
    different = [who for who, theirs in others.items() if theirs != ours]
    if different:
        raise NotTrusted(
            f"{', '.join(different)} would compute with other circuits than this release knows "
            f"({ours[:8]}…). Use the same release, or ask why.",
            "circuits_differ",
        )
    return ours


def check_circuit(announced: str, circuit: str, made: Mapping[str, Any]) -> str:
    """The hash of a query's circuit as this release computes it, if the model's is the same. The
    releases of nodes and server may be others. Raises: NotTrusted."""
    ours = query_hash(circuit, made)
    if announced != ours:
        raise NotTrusted(
            f"The model is asked by another {circuit} than this release knows ({ours[:8]}…). Use a "
            "release of the model's time, or a newer one that still has that circuit.",
            "circuits_differ",
        )
    return ours


def delivered(
    acks: Sequence[Mapping[str, Any]],
    *,
    ticket_id: str,
    nodes: Sequence[Mapping[str, Any]],
    engine: str = RING,
    domain: str = ACK_DOMAIN,
) -> bool:
    """Have all three nodes, or three of more, signed that they hold this ticket's share? Another
    one gets it with the job. Of Shamir shares as many must as compute.

    Raises: NotTrusted for an ack that its node did not sign or that is about something else.
    """
    keys = {check_node(dict(node)): node for node in nodes}
    seen = set()
    for signed in acks:
        ack = signed["ack"]
        node = keys.get(ack.get("node"))
        if node is None or ack.get("ticket_id") != ticket_id:
            raise ClientError(
                "A receipt is for another share or from another node.", code="bad_ack"
            )
        try:
            verify(node["sign_key"], domain, ack, signed["signature"])
        except BadSignature:
            raise ClientError(
                f"A receipt is said to be from {node['name']}, but that node did not sign it.",
                code="bad_ack",
            ) from None
        seen.add(ack["node"])
    return len(seen) >= holders_of(engine)


def receipted(
    job: Any, *, circuit: str, scope: str, nodes: Sequence[Any]
) -> tuple[dict[str, Any], Any]:
    """(what a job opened, over which roster), if all nodes signed for it.

    So may those do that they follow. The server shows openings; only the nodes' receipts make
    them true. Raises: NotTrusted.
    """
    try:
        receipts, descriptor = signed_for(job, _signers(job, nodes))
        openings, receipt = dict(job["openings"]), receipts[0]
        same = (receipt["circuit"], receipt["scope"]) == (circuit, scope) and receipt[
            "openings"
        ] == digest(OPENINGS_DOMAIN, openings)
    except (JobError, KeyError, TypeError, ValueError):
        same = False
    if not same:
        raise NotTrusted(
            f"The nodes did not sign for what {circuit} is said to have opened.", "not_receipted"
        )
    return openings, descriptor["roster"]


def _signers(job: Any, nodes: Sequence[Any]) -> Sequence[Any]:
    """These nodes or, as the job shows them, those of a set that these follow by what their
    descriptors carry. Raises: JobError; KeyError, TypeError for what is no job."""
    before = sets_before([check_node(dict(node)) for node in nodes], nodes)
    return list(job["nodes"]) if job["descriptor"]["nodes"] in before else nodes


def answered(
    query: Any, ticket: Mapping[str, Any], *, nodes: Sequence[Any]
) -> tuple[list[bytes], tuple[int, ...]]:
    """(parts, computing): the sealed parts of an answer by the nodes that computed, in the ticket's
    order, and their indices, if each node signed for its own.

    Anybody can seal to a reply key: what makes a part a node's is its receipt. It must be about
    this ticket, alone, with the ticket's circuit and model. Raises: ClientError("not_receipted").
    """
    try:
        receipts, descriptor = signed_for(query["job"], nodes)
        blobs = {entry["fingerprint"]: unb64(entry["blob"]) for entry in query["sealed"]}
        receipt, hashes = receipts[0], {r["node"]: r["sealed"] for r in receipts}
        computing = computing_of(descriptor)
        same = (
            [receipt["circuit"]] == list(ticket["circuits"])
            and receipt["circuits_hash"] == ticket["circuits_hash"]
            and receipt["scope"] == ticket["scope"]
            and receipt["inputs"] == [ticket_id(dict(ticket))]
            and descriptor["model"] == ticket["model"]
            and descriptor["inputs"] == {ticket["slot"]: [ticket["share_id"]]}
            and descriptor["nodes"] == list(ticket["nodes"])
            and permits(ticket["engine"], descriptor["engine"])
            and set(blobs) == set(hashes) == {ticket["nodes"][i] for i in computing}
            and all(sealed_hash(blob) == hashes[node] for node, blob in blobs.items())
        )
    except (JobError, KeyError, TypeError, ValueError):
        same = False
    if not same:
        raise ClientError(
            "The answer can't be trusted: the nodes did not sign for it.", code="not_receipted"
        )
    return [blobs[ticket["nodes"][i]] for i in computing], computing


def signed_for(job: Any, nodes: Sequence[Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """(receipts, descriptor): what all members of a job signed, and the very job that they mean.

    `nodes` are the descriptors of the whole set, in index order; who of them took part is in the
    job that they signed for. Raises: JobError; KeyError, TypeError for what is no job.
    """
    signed = [{k: item[k] for k in ("receipt", "signature")} for item in job["receipts"]]
    # Nodes that completed an earlier attempt, whose answer got lost, repeat what they signed then.
    attempt = signed[0]["receipt"]["attempt"] if signed else 0
    descriptor = {**job["descriptor"], "attempt": attempt}
    check_job(descriptor)
    fingerprints = [check_node(node) for node in nodes]
    if descriptor["nodes"] != fingerprints:
        raise JobError("bad_receipt", "The job is for other nodes.")
    keys = {fingerprints[i]: nodes[i]["sign_key"] for i in members_of(descriptor)}
    receipts = check_receipts(signed, sign_keys=keys, nodes=fingerprints)
    named = engine_of(receipts[0]) == descriptor["engine"]
    if not named or receipts[0]["descriptor"] != job_digest(descriptor):
        raise JobError("bad_receipt", "The receipts are about another job.")
    return receipts, descriptor
