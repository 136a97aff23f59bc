"""Being paid what epochs owe, each part proved before it is believed.

    entitlement ──path──▶ root ──in──▶ leaf of the log ──path──▶ root of the signed head

A server that shows one payee another tree than the log has is found here, by the payee alone; that
the tree itself is right, whoever replays the log finds (`earnings`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from apps.protocol import entitlements, merkle, wire
from apps.protocol.entitlements import Entitlement
from workers.client.api import Api, ClientError
from workers.client.verify import head_signed

LEAF = "listings.epoch_settled"


@dataclass(frozen=True)
class Part:
    """One proved entitlement; `waiting` until it has been paid."""

    epoch: str
    owed: Entitlement
    waiting: bool


def waiting(api: Api) -> Iterator[str]:
    """The epochs that owe something to the owner of the key."""
    rows = api.get("payouts/")["claimable"]
    yield from dict.fromkeys(row["epoch"] for row in rows)


def parts(api: Api, epoch: str) -> list[Part]:
    """What an epoch owes to the owner of the key, proved against the log's signed head.

    Raises ClientError (bad_proof) for what the log does not bear out.
    """
    root = _logged_root(api, epoch)
    found = []
    for row in api.get(f"epochs/{epoch}/entitlement/")["results"]:
        owed = Entitlement(row["asset"], row["role"], row["pid"], int(row["amount_micro"]))
        proof = row["proof"]
        try:
            merkle.verify_inclusion(
                entitlements.leaf_hash(epoch, owed),
                int(proof["index"]),
                int(proof["size"]),
                [bytes.fromhex(hash_) for hash_ in proof["path"]],
                root,
            )
        except (merkle.ProofInvalid, ValueError):
            raise _bad(f"your part as {owed.role} is not in the tree of epoch {epoch}") from None
        found.append(Part(epoch, owed, row["claimed_at"] is None))
    return found


def claim(api: Api, epoch: str) -> list[Part]:
    """Be paid all that waits in one epoch, after its proofs. Again: nothing more is paid."""
    due = [part for part in parts(api, epoch) if part.waiting]
    if due:
        api.post(f"epochs/{epoch}/claim/")
    return due


def _logged_root(api: Api, epoch: str) -> bytes:
    """The root that the epoch's entry in the log states; the entry is under the signed head."""
    head = api.get("log/head/")
    proof = api.get("log/inclusion/", ref=f"{LEAF}:{epoch}", size=head["size"])
    data = wire.unb64(proof["leaf_b64"])
    try:
        merkle.verify_inclusion(
            merkle.leaf_hash(data),
            int(proof["index"]),
            int(head["size"]),
            [bytes.fromhex(hash_) for hash_ in proof["path"]],
            bytes.fromhex(head["root"]),
        )
    except (merkle.ProofInvalid, ValueError):
        raise _bad(f"the entry of epoch {epoch} is not in the log") from None
    if not head_signed(api.get("log/key/")["public_key"], head):
        raise _bad("the log's head is not signed by its key")
    leaf: dict[str, Any] = json.loads(data)
    if leaf["type"] != LEAF or leaf["body"]["id"] != epoch:
        raise _bad(f"the entry shown is not that of epoch {epoch}")
    return bytes.fromhex(leaf["body"]["root"])


def _bad(text: str) -> ClientError:
    return ClientError(f"Nothing was claimed: {text}.", code="bad_proof")
