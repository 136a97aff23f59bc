"""A share's way from the site to the nodes: one share for each step, however often it is begun.

    encode, share, seal, sign → keep → journal → send → wait for the nodes' receipts

What leaves is shown and in the journal before it leaves. Going on after a stop sends the kept share
again, not another one, unless a node refused it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from apps.protocol import tickets, wire
from workers.client.api import Api, ClientError, wait_for
from workers.client.home import Home
from workers.client.joining import CUSTODIAN, ROUND, SLOT, Joined, Print
from workers.client.nodes import delivered, trusted_nodes
from workers.mpc import sealing

TICKET_LIFETIME_S = 7 * 24 * 3600
DELIVERY_DEADLINE_S = 120.0


class Outbox:
    """What one site in one role sends to rounds; with `dry_run` it shows it, and sends nothing."""

    def __init__(
        self, home: Home, role: str, *, api: Api, say: Print, dry_run: bool = False
    ) -> None:
        self.dry_run = dry_run
        self.home = home
        self.role = role
        self.api = api
        self.say = say

    def submit(
        self,
        current: Mapping[str, Any],
        stage: str,
        joined: Joined,
        values: np.ndarray,
        what: str,
    ) -> dict[str, Any]:
        """Encode, share, seal, sign, journal, show, send; then wait for the nodes' receipts."""
        words = np.round(values * 2.0**joined.slot.f).astype(np.int64)
        now = int(time.time())
        upload = sealing.make_upload(
            words,
            {
                "scope": joined.scope,
                "slot": SLOT[self.role, stage],
                "circuits": [joined.circuit.id],
                "circuits_hash": joined.release,
                "params": dict(joined.params),
                "f": joined.slot.f,
                "roster": current["roster_hash"],
                "resolution": joined.resolution,
                "issued_at": now,
                "expires_at": now + TICKET_LIFETIME_S,
            },
            self.home.identity(),
            joined.nodes,
        )
        self._show_leaving(upload, joined.nodes, what)
        if self.dry_run:
            self.say("A dry run: nothing was sent, and nothing was written down.")
            return {"dry_run": True}
        path = self._keep(upload)
        local: dict[str, Any] = {}
        if self.role == CUSTODIAN and stage == ROUND:
            local = {"update": [int(word) for word in words], "f": joined.slot.f}
        self.home.journal.write(
            "leaving",
            round=current["id"],
            stage=stage,
            what=what,
            share_id=upload["ticket"]["share_id"],
            ticket_id=tickets.ticket_id(upload["ticket"]),
            roster=current["roster_hash"],
            upload=path.name,
            size_bytes=path.stat().st_size,
            **local,
        )
        return self._send(current["id"], stage, upload, joined.nodes)

    def done(self, current: Mapping[str, Any], stage: str) -> dict[str, Any] | None:
        """The journal's word that this step is done for the round's present roster, or None."""
        begun = self._begun(current, stage)
        return begun and self.home.journal.last("delivered", share_id=begun["share_id"])

    def _begun(self, current: Mapping[str, Any], stage: str) -> dict[str, Any] | None:
        """The share that was made for the present roster, unless it was refused: a share that a
        node refused is never taken again, so another is made."""
        about = {"round": current["id"], "stage": stage, "roster": current["roster_hash"]}
        begun = self.home.journal.last("leaving", **about)
        if begun and self.home.journal.last("refused", share_id=begun["share_id"]):
            return None
        return begun

    def resumed(self, current: Mapping[str, Any], stage: str) -> dict[str, Any] | None:
        """The end of this step, where an earlier run has come far enough."""
        begun = self._begun(current, stage)
        if not begun:
            return None
        done = self.done(current, stage)
        if done:
            self.say(f"Already delivered for round {current['number']}.")
            return done
        # The same share again, not another: one site has one input, and nodes count uses.
        path = self.home.path / "uploads" / begun["upload"]
        upload = json.loads(path.read_text(encoding="utf-8"))
        self.say("Going on with the share that an earlier run has made.")
        nodes = trusted_nodes(self.home, current["nodes"])
        return self._send(current["id"], stage, upload, nodes)

    def _show_leaving(
        self, upload: Mapping[str, Any], nodes: Sequence[Mapping[str, Any]], what: str
    ) -> None:
        leaves = "would leave" if self.dry_run else "leaves"
        self.say(f"What {leaves} this site: {what}, split in three.")
        for node, envelope in zip(nodes, upload["envelopes"], strict=True):
            size = len(wire.unb64(envelope))
            self.say(f"  {size:7} bytes sealed to {node['name']}: two of three words' keys")
        size = len(wire.unb64(upload["correction"]))
        self.say(f"  {size:7} bytes encrypted once for the two nodes that may hold that word")
        self.say("  One node alone, or the server with one node, reads nothing of it.")

    def _keep(self, upload: Mapping[str, Any]) -> Path:
        folder = self.home.path / "uploads"
        folder.mkdir(exist_ok=True, mode=0o700)
        path = folder / f"{upload['ticket']['share_id']}.json"
        path.write_text(json.dumps(upload), encoding="utf-8")
        return path

    def _send(
        self,
        round_id: str,
        stage: str,
        upload: Mapping[str, Any],
        nodes: Sequence[Mapping[str, Any]],
    ) -> dict[str, Any]:
        share_id = upload["ticket"]["share_id"]
        ticket_id = tickets.ticket_id(dict(upload["ticket"]))
        self.api.post(f"rounds/{round_id}/shares/", upload, idempotency_key=share_id)

        def taken() -> dict[str, Any] | None:
            answer = self.api.get(f"rounds/{round_id}/shares/{share_id}/")
            if answer["state"] in ("refused", "replaced"):
                self.home.journal.write("refused", share_id=share_id, reason=answer["reason"])
                why = {"refused": "A node refused the share", "replaced": "The share was given up"}
                text = f"{why[answer['state']]}: {answer['reason']}"
                raise ClientError(text, code=answer["state"])
            done = delivered(answer.get("acks") or [], ticket_id=ticket_id, nodes=nodes)
            return answer if done else None

        wait_for(taken, deadline_s=DELIVERY_DEADLINE_S, what="the nodes' receipts")
        self.say(f"Delivered: {len(nodes)} nodes signed that they hold it.")
        return self.home.journal.write(
            "delivered", round=round_id, stage=stage, share_id=share_id, ticket_id=ticket_id
        )
