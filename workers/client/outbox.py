"""A share's way from the site to the nodes: one share for each step, however often it is begun.

    encode, share, seal, sign → keep → journal → send in parts → wait for the nodes' receipts

What leaves is shown and in the journal before it leaves. Of a holdout that the nodes keep a ticket
leaves alone (keeping.py). Going on after a stop sends the rest of
the kept share, not another one, unless that was refused.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from apps.protocol import tickets, uploads, wire
from apps.protocol.circuits.noise import RHO
from apps.protocol.jobs import fingerprint
from apps.protocol.sharing import WITHDRAWAL_DOMAIN, WITHDRAWN_DOMAIN, withdrawal_of
from workers.client import keeping
from workers.client.api import RETRY_STATUS, Api, ClientError, wait_for
from workers.client.home import Home, write_private
from workers.client.joining import ROUND, Joined, Print
from workers.client.nodes import delivered, trusted_nodes
from workers.mpc import sealing

TICKET_LIFETIME_S = 7 * 24 * 3600
DELIVERY_DEADLINE_S = 120.0
AWAY_DEADLINE_S = 120.0  # how long a server may be away before an upload is given up for now
FRUITLESS_MAX = 20  # cuts in a row without one byte more at the server
# A share that was given up: another is made.
REFUSALS = ("refused", "share_refused", "share_over")
# After these the server is asked how far it is.
CUTS = ("unreachable", "wrong_offset", "bad_digest")


@dataclass(frozen=True)
class Kept:
    """A share as it lies in the home: one frame. Its correction begins at byte `start`."""

    path: Path
    head: dict[str, Any]
    start: int

    @classmethod
    def of(cls, path: Path) -> Kept:
        """Raises: ClientError for a file that cannot be read."""
        try:
            with path.open("rb") as file:
                line = file.readline(uploads.HEAD_BYTES_MAX)
            return cls(path, uploads.read_head(line), len(line))
        except OSError as error:
            raise ClientError(f"{path} can't be read: {error.strerror}.") from None
        except tickets.TicketError:
            raise ClientError(f"{path} is damaged.") from None

    def part(self, offset: int, most: int) -> bytes:
        """At most so many bytes of the correction, from that one on."""
        with self.path.open("rb") as file:
            file.seek(self.start + offset)
            return file.read(min(most, uploads.PART_BYTES_MAX))


def few_words(count: int) -> str:
    return ["none", "one", "two", "three", "four", "five", "six", "seven"][count]


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
        *,
        stays: bool = False,
        until: int | None = None,
    ) -> dict[str, Any]:
        """Encode, share, seal, sign, journal, show, send; then wait for the nodes' receipts.

        `stays`: what the nodes keep from an earlier round is not sent again, if it is the same, and
        what is sent may stay for further ones `until` then.
        """
        words = np.round(values * 2.0**joined.slot.f).astype(np.int64)
        keepable = joined.name in tickets.KEPT_SLOTS
        before = keeping.standing_of(self.home.journal, joined.subdao) if keepable else None
        if before is not None and before.there:
            came = self._kept(before.entry["upload"]).head["ticket"]
            why: str | None = "this site lets none stay"
            if stays:
                why = before.why_not(came, joined, words, current["id"])
            if why is None:
                done = self._submit_kept(current, joined, before, came, what)
                if done is not None:
                    return done
            else:
                self.say(f"The nodes keep {what} since {before.since}; shared anew, as {why}.")
        fields = self._fields(current, joined)
        keeps: dict[str, Any] = {}
        if stays and until is not None:
            fields |= {"uses": keeping.ROUNDS_MAX, "expires_at": until}
            keeps = {"keeps": keeping.named(words, {"salt": secrets.token_hex(16)})}
        upload = sealing.make_upload(words, fields, self.home.identity(), joined.nodes, binary=True)
        self._show_leaving(upload, joined, what)
        if self.dry_run:
            return self._tried()
        share = self._keep(upload)
        local: dict[str, Any] = {}
        if joined.name == "update":
            own = share.path.with_suffix(".own")
            write_private(own, words.astype("<i8", copy=False).data.cast("B"))
            local = {"own": own.name, "f": joined.slot.f}
            if RHO in joined.params:
                local["rho_micro"] = joined.params[RHO]
        self._journal(current, stage, joined, share, what, **local, **keeps)
        done = self._send(current["id"], stage, share, joined.nodes)
        if before is not None and before.there:
            self._let_go(before, current, joined)
        return done

    def _fields(self, current: Mapping[str, Any], joined: Joined) -> dict[str, Any]:
        now = int(time.time())
        return {
            "scope": joined.scope,
            "slot": joined.name,
            "circuits": [joined.circuit.id],
            "circuits_hash": joined.release,
            "params": dict(joined.params),
            "f": joined.slot.f,
            "roster": current["roster_hash"],
            "model": joined.model,
            "resolution": joined.resolution,
            "engine": joined.engine,
            "issued_at": now,
            "expires_at": joined.expires_at or now + TICKET_LIFETIME_S,
            **({"access": joined.access} if joined.access else {}),
        }

    def _tried(self) -> dict[str, Any]:
        self.say("A dry run: nothing was sent, and nothing was written down.")
        return {"dry_run": True}

    def _journal(
        self,
        current: Mapping[str, Any],
        stage: str,
        joined: Joined,
        share: Kept,
        what: str,
        **more: Any,
    ) -> None:
        """That this is about to leave."""
        threshold = tickets.threshold_of(joined.engine)
        self.home.keep_threshold(f"subdao:{joined.subdao}", threshold)
        ticket = dict(share.head["ticket"])
        self.home.journal.write(
            "leaving",
            round=current["id"],
            stage=stage,
            subdao=joined.subdao,
            what=what,
            share_id=ticket["share_id"],
            ticket_id=tickets.ticket_id(ticket),
            roster=current["roster_hash"],
            upload=share.path.name,
            size_bytes=share.path.stat().st_size,
            **more,
        )

    # -- what the nodes keep

    def _submit_kept(
        self,
        current: Mapping[str, Any],
        joined: Joined,
        before: keeping.Standing,
        came: Mapping[str, Any],
        what: str,
    ) -> dict[str, Any] | None:
        """Have the nodes use what they keep; None where one of them does not keep it (any more)."""
        upload = sealing.kept_upload(came, self._fields(current, joined), self.home.identity())
        size = len(uploads.head_line(uploads.head_of(upload)))
        leaves = "would leave" if self.dry_run else "leaves"
        self.say(
            f"0 rows are sent: the nodes hold {what} of this site since {before.since}, until "
            f"{keeping.shown(came['expires_at'])}."
        )
        self.say(f"What {leaves} this site: a ticket of {size} bytes, for this round alone.")
        if self.dry_run:
            return self._tried()
        share = self._keep(upload)
        told = f"a ticket for {what} that the nodes keep"
        self._journal(current, ROUND, joined, share, told, kept_from=before.share_id)
        try:
            return self._send(current["id"], ROUND, share, joined.nodes)
        except ClientError as error:
            if error.code not in REFUSALS:
                raise
            self.say(f"{error.text} So this site shares its rows anew.")
            return None

    def _let_go(self, before: keeping.Standing, current: Mapping[str, Any], joined: Joined) -> None:
        """Have the nodes forget what they keep in vain, now that something else took its place.
        Where that fails they forget it when its ticket expires."""
        entry = before.entry
        ticket = self._kept(entry["upload"]).head["ticket"]
        here = [fingerprint(node) for node in joined.nodes]
        if entry["round"] == current["id"] or ticket["nodes"] != here:
            return  # what this site sent to the round now stays; others forget it by themselves
        try:
            self._take_back({"id": entry["round"]}, entry, last=True)
            self.say(f"What they kept since {before.since} is taken back.")
        except ClientError as error:
            until = keeping.shown(ticket["expires_at"])
            self.say(f"What they kept since {before.since} goes at {until}: {error.text}")

    def done(self, current: Mapping[str, Any], stage: str) -> dict[str, Any] | None:
        """The journal's word that this step is done for the round's present roster, or None."""
        begun = self._begun(current, stage)
        return begun and self.home.journal.last("delivered", share_id=begun["share_id"])

    def _begun(self, current: Mapping[str, Any], stage: str) -> dict[str, Any] | None:
        """The share that was made for the present roster, unless it was refused: a share that a
        node refused is never taken again, so another is made."""
        about = {"round": current["id"], "stage": stage, "roster": current["roster_hash"]}
        begun = self.home.journal.last("leaving", **about)
        over = ("refused", "withdrawn")
        if begun and any(self.home.journal.last(e, share_id=begun["share_id"]) for e in over):
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
        share = self._kept(begun["upload"])
        self.say("Going on with the share that an earlier run has made.")
        nodes = trusted_nodes(self.home, current["nodes"])
        try:
            return self._send(current["id"], stage, share, nodes)
        except ClientError as error:
            if error.code not in (REFUSALS if "kept_from" in begun else ("share_refused",)):
                raise
            self.say(error.text)
            return None

    def withdraw(self, current: Mapping[str, Any]) -> dict[str, Any]:
        """Take back all that was sent to this round's training, if it is not computed yet: for
        each roster that was signed one share has left. With it goes what the nodes keep of it for
        further rounds, computed or not.

        The nodes themselves check this site's signature, delete their words and sign that they did,
        and whether something had been computed of them.
        Raises: ClientError("nothing_sent"), and where the server does not pass it on in time.
        """
        left = self.sent_to(current["id"])
        if not left:
            raise ClientError("This site has sent nothing to that round.", code="nothing_sent")
        known = [begun for begun in left if self._take_back(current, begun, last=begun is left[-1])]
        done = [self._taken_back(current, begun) for begun in known]
        if any(entry.get("computed") for entry in done):
            self.say(
                "The nodes hold none of its words any more, but were computing or had computed "
                "with them before: what the round makes of that stays."
            )
        else:
            count = len(current["nodes"])
            self.say(f"Withdrawn: {count} nodes signed that they hold nothing of it.")
        return done[-1]

    def sent_to(self, round_id: str) -> list[dict[str, Any]]:
        """The journal's word of all that has left for this round's training."""
        about = {"event": "leaving", "round": round_id, "stage": ROUND}
        return [e for e in self.home.journal if all(e.get(k) == v for k, v in about.items())]

    def kept_in(self, subdao: str, round_id: str | None) -> str | None:
        """The round where what the nodes keep of this site can be taken back: the open one if it is
        to use it, else the one that it came with, whose ticket lasts as long as it does. None
        where they keep nothing (any more)."""
        kept = keeping.standing_of(self.home.journal, subdao)
        if kept is None or not kept.lies:
            return None
        until = self._kept(kept.entry["upload"]).head["ticket"]["expires_at"]
        if until <= time.time():
            return None
        return round_id if round_id in kept.rounds else str(kept.entry["round"])

    def _take_back(self, current: Mapping[str, Any], begun: Mapping[str, Any], last: bool) -> bool:
        """Send the word for one share; whether the server knows of it, as of the last it must.
        What it never heard of goes with the others: a word bars all that was made before it."""
        share_id, ticket_id = begun["share_id"], begun["ticket_id"]
        if self.home.journal.last("withdrawn", share_id=share_id):
            return True
        word = withdrawal_of(share_id=share_id, ticket_id=ticket_id, at=int(time.time()))
        body = {
            "withdrawal": word,
            "signature": wire.sign(self.home.identity(), WITHDRAWAL_DOMAIN, word),
        }
        self.home.journal.write("withdrawing", round=current["id"], share_id=share_id, **body)
        try:
            self.api.post(f"rounds/{current['id']}/shares/{share_id}/withdraw/", body)
        except ClientError as error:
            if last or error.code != "share_not_found":
                raise
            return False
        return True

    def _taken_back(self, current: Mapping[str, Any], begun: Mapping[str, Any]) -> dict[str, Any]:
        """The journal's word that the nodes obeyed, once they did."""
        share_id, ticket_id = begun["share_id"], begun["ticket_id"]
        done = self.home.journal.last("withdrawn", share_id=share_id)
        if done:
            return done
        nodes = trusted_nodes(self.home, current["nodes"])

        def deleted() -> dict[str, Any] | None:
            answer = self.api.get(f"rounds/{current['id']}/shares/{share_id}/")
            if answer["state"] != "withdrawn":
                return None
            acks = answer["acks"]
            if not acks:  # the round was faster: no node signs that it took the share back
                raise ClientError(f"Not taken back: {answer['reason']}", code="already_completed")
            done = delivered(acks, ticket_id=ticket_id, nodes=nodes, domain=WITHDRAWN_DOMAIN)
            return answer if done and len(acks) == len(nodes) else None

        answer = wait_for(
            deleted, deadline_s=DELIVERY_DEADLINE_S, what="the nodes' word that it is deleted"
        )
        return self.home.journal.write(
            "withdrawn",
            round=current["id"],
            stage=ROUND,
            share_id=share_id,
            ticket_id=ticket_id,
            computed=any(signed["ack"].get("computed") for signed in answer["acks"]),
        )

    def _show_leaving(self, upload: Mapping[str, Any], joined: Joined, what: str) -> None:
        nodes = joined.nodes
        leaves = "would leave" if self.dry_run else "leaves"
        n, t = len(nodes), tickets.threshold_of(joined.engine)
        if joined.engine in tickets.SHAMIR:
            held, encrypted = "its share's key", f"encrypted: {n} shares, each under one node's key"
        else:
            held = f"{few_words(n - 1)} of {few_words(n)} words' keys"
            encrypted = f"encrypted once for the {few_words(n - 1)} nodes that may hold that word"
        self.say(f"What {leaves} this site: {what}, split in {few_words(n)}.")
        for node, envelope in zip(nodes, upload["envelopes"], strict=True):
            size = len(wire.unb64(envelope))
            self.say(f"  {size:7} bytes sealed to {node['name']}: {held}")
        size = len(upload["correction"])
        self.say(f"  {size:7} bytes {encrypted}")
        alone = "One node" if t == 1 else f"{few_words(t).capitalize()} nodes"
        self.say(f"  {alone} alone, or the server with {alone.lower()}, reads nothing of it.")
        if upload["ticket"]["uses"] > 1:
            until = keeping.shown(upload["ticket"]["expires_at"])
            self.say(f"  The nodes keep it until {until}, or until you withdraw it. This site")
            self.say("  signs for each further round, and sends no row again while they are these.")
        if joined.name == "rows":
            enough = few_words(t + 1)
            self.say(f"  THESE ARE ROWS: {enough} nodes that put their parts together read them.")
            if upload["ticket"]["uses"] == 1:
                self.say(
                    "  The nodes delete them when the round is computed, or when you withdraw."
                )

    def _keep(self, upload: Mapping[str, Any]) -> Kept:
        folder = self.home.path / "uploads"
        folder.mkdir(exist_ok=True, mode=0o700)
        path = folder / f"{upload['ticket']['share_id']}.share"
        write_private(path, uploads.head_line(uploads.head_of(upload)), upload["correction"])
        return Kept.of(path)

    def _kept(self, name: str) -> Kept:
        path = self.home.path / "uploads" / name
        if path.suffix == ".json":  # kept by a release that sent base64
            old = json.loads(path.read_text(encoding="utf-8"))
            return self._keep({**old, "correction": wire.unb64(old["correction"])})
        return Kept.of(path)

    def _send(
        self, round_id: str, stage: str, share: Kept, nodes: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        ticket = dict(share.head["ticket"])
        share_id, ticket_id = ticket["share_id"], tickets.ticket_id(ticket)
        path = f"rounds/{round_id}/shares/{share_id}/"
        try:
            told = self.api.post(f"rounds/{round_id}/shares/", share.head, idempotency_key=share_id)
            self._send_parts(path, share, told)
        except ClientError as error:
            if error.code in ("share_refused", "share_over"):
                self.home.journal.write("refused", share_id=share_id, reason=error.text)
            raise

        def taken() -> dict[str, Any] | None:
            answer = self.api.get(path)
            if answer["state"] in ("withdrawing", "withdrawn"):
                raise ClientError("This site has withdrawn the share.", code="withdrawn")
            if answer["state"] in ("refused", "replaced"):
                self.home.journal.write("refused", share_id=share_id, reason=answer["reason"])
                why = {"refused": "A node refused the share", "replaced": "The share was given up"}
                text = f"{why[answer['state']]}: {answer['reason']}"
                raise ClientError(text, code=answer["state"])
            done = delivered(
                answer.get("acks") or [],
                ticket_id=ticket_id,
                nodes=nodes,
                engine=ticket["engine"],
            )
            return answer if done else None

        answer = wait_for(taken, deadline_s=DELIVERY_DEADLINE_S, what="the nodes' receipts")
        self.say(f"Delivered: {len(nodes)} nodes signed that they hold it.")
        stays = {"kept": self._say_kept(answer["acks"], nodes)} if ticket["uses"] > 1 else {}
        return self.home.journal.write(
            "delivered",
            round=round_id,
            stage=stage,
            share_id=share_id,
            ticket_id=ticket_id,
            **stays,
        )

    def _say_kept(
        self, acks: Sequence[Mapping[str, Any]], nodes: Sequence[Mapping[str, Any]]
    ) -> bool:
        """Whether each node has signed that it keeps the share for further rounds."""
        keep = {signed["ack"]["node"] for signed in acks if signed["ack"].get("kept") is True}
        if len(keep) == len(nodes):
            return True
        self.say(
            f"{len(keep)} of {len(nodes)} nodes keep it for further rounds: in the next one it is "
            "shared anew."
        )
        return False

    def _send_parts(self, path: str, share: Kept, told: Mapping[str, Any]) -> None:
        """From where the server is until it has all; a cut costs the part that was on its way."""
        fruitless = 0
        if told["state"] == "receiving" and told["offset"]:
            self.say(f"  {_of(told)} are there already.")
        while told["state"] == "receiving":
            offset = int(told["offset"])
            data = share.part(offset, int(told["part_bytes_max"]))
            headers = {
                "Upload-Offset": str(offset),
                "Content-Digest": uploads.content_digest(data),
            }
            try:
                told = self.api.patch(path, data, headers)
            except ClientError as error:
                if not _is_cut(error):
                    raise
                told = wait_for(
                    lambda: self._progress(path),
                    deadline_s=AWAY_DEADLINE_S,
                    what=f"the server, which broke off: {error.text}",
                )
                self.say(f"  Cut off: {error.text} {_of(told)} are there; going on.")
            fruitless = 0 if told["offset"] > offset else fruitless + 1
            if fruitless > FRUITLESS_MAX:
                raise ClientError("The server takes no more of the upload.", code="stuck")
            if told["size_bytes"] > told["part_bytes_max"] and not fruitless:
                self.say(f"  {_of(told)} sent.")

    def _progress(self, path: str) -> dict[str, Any] | None:
        """Where the server is; None while it is away."""
        try:
            return dict(self.api.get(path))
        except ClientError as error:
            if _is_cut(error):
                return None
            raise


def _is_cut(error: ClientError) -> bool:
    return error.code in CUTS or error.status in RETRY_STATUS


def _of(told: Mapping[str, Any]) -> str:
    return f"{told['offset'] / 1e6:.1f} of {told['size_bytes'] / 1e6:.1f} MB"
