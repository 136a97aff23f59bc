"""Taking in what owners sealed: checked, opened, compared with its commitments, then stored."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from apps.protocol import jobs, tickets, wire
from apps.protocol.circuits import CIRCUITS
from apps.protocol.sharing import WITHDRAWN_DOMAIN, check_withdrawal
from apps.protocol.tickets import KEPT_UNDER, Ticket, TicketError
from workers.mpc.sealing import SealError, Words, open_query, open_short
from workers.node import metrics, policy
from workers.node.errors import Conflict, Malformed, NodeError, Refused
from workers.node.home import Limits, Node, Peers
from workers.node.sealed import CorruptStore
from workers.node.store import WITHDRAWN, Store

T = TypeVar("T")
_MALFORMED = ("malformed", "too_large")
MB = 1 << 20
ROUND_S = 7 * 24 * 3600  # a round is over by then, or in vain


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A query's upload, checked and opened: it came with its job, and its words stay in memory.
    `secret` seals this node's part of the answer."""

    ticket: Ticket
    words: tuple[Words, ...]
    secret: bytes


def _refusal(error: TicketError) -> NodeError:
    """What the protocol says of a ticket, as this node's."""
    kind: type[NodeError] = Malformed if error.code in _MALFORMED else Refused
    return kind(error.code, error.text)


class Shares:
    """One node's intake of uploads."""

    def __init__(self, *, node: Node, peers: Peers, store: Store, limits: Limits) -> None:
        self._node = node
        self._peers = peers
        self._store = store
        self._limits = limits
        self._fingerprint = node.fingerprint
        self.lock = threading.RLock()
        store.keep_only(nodes=peers.fingerprints, circuits_hash=node.circuits_hash)

    def accept(self, upload: Any) -> dict[str, Any]:
        """The signed acknowledgement of a round's stored share; the same for the same upload. Where
        its owner lets it stay for further rounds, "kept" says whether it does.

        Raises: Malformed, Refused (a query's comes with its job and is not stored; of a round that
        is completed none can be used any more; "not_kept", where its owner means a share that does
        not lie here), Conflict("share_conflict").
        """
        now = int(time.time())
        ticket = self.check(upload, now=now)
        if ticket.is_query:
            raise Refused("wrong_scope", "A query's share comes with its job.")
        with self.lock:
            known = self._accepted(ticket)
        if known is not None:
            return known
        words = None
        if not ticket.is_kept:  # takes its time: no job shall wait for it
            words = self._open(open_short, upload, ticket)
        with self.lock:
            known = self._accepted(ticket)
            if known is not None:
                return known
            with self._store.together():
                if words is None:
                    ack = self._from_kept(upload["ticket"], ticket, now)
                else:
                    ack = self._put(upload["ticket"], ticket, words, now)
        metrics.SHARES.inc()
        return ack

    def _put(
        self, signed: dict[str, Any], ticket: Ticket, words: tuple[Any, ...], now: int
    ) -> dict[str, Any]:
        said, until = {}, ticket.expires_at
        if ticket.stays:
            until = min(until, now + ROUND_S)  # what lies longer does so as the operator allows
            days_s = self._limits.kept_days * policy.DAY_S
            said["kept"] = ticket.expires_at - now <= days_s and self._store.keep(
                root=ticket.root, ticket=signed, words=words, bytes_max=self._limits.kept_mb * MB
            )
        ack = self._ack(ticket, now, **said)
        about = {"ticket": signed, "ticket_id": ticket.id, "ack": ack}
        self._store.put_share(**about, words=words, until=until)
        return ack

    def _from_kept(self, signed: dict[str, Any], ticket: Ticket, now: int) -> dict[str, Any]:
        """The words that stayed, as this round's share: all else is as if they had come with it."""
        kept = self._store.kept_share(ticket.root)
        if kept is None:
            raise not_kept("This node keeps no such share of its owner")
        came = tickets.check_ticket(kept.ticket, now=kept.ticket["issued_at"])
        if came.expires_at <= now:
            raise not_kept("It was to stay until its ticket expired")
        if len({*kept.scopes, ticket.scope}) > came.uses:
            raise not_kept("Its owner let it into so many rounds, and they were")
        if _encoded_as(came) != _encoded_as(ticket):
            raise not_kept("It was encoded for another form, scale or release of the rows")
        ack = self._ack(ticket, now)
        about = {"root": ticket.root, "ticket": signed, "ticket_id": ticket.id, "ack": ack}
        try:
            self._store.use_kept(**about)
        except CorruptStore:
            raise not_kept("It is damaged here") from None
        return ack

    def _accepted(self, ticket: Ticket) -> dict[str, Any] | None:
        """What was said of this share before; None of one that may be taken now."""
        if self._store.share_mark(ticket.share_id) is not None:
            self.used_by(ticket)
            known = self._store.share(ticket.share_id)
            if known is None:
                raise Conflict("share_conflict", "Of this share only a mark is here.")
            return known.ack
        self._not_withdrawn(ticket)
        bound = self._store.binding(ticket.scope)
        if bound is not None and bound.job_id is not None:
            raise Refused("already_completed", "This round is completed: it takes no more shares.")
        return None

    def acknowledged(self, share_id: str) -> dict[str, Any]:
        """What `accept` said of a share whose words are here.

        Raises: Conflict("unknown_share") for any other: it may be sent (again).
        """
        known = self._store.share(share_id)
        if known is None or known.words is None:
            raise Conflict("unknown_share", f"Share {share_id} is not here.", retryable=True)
        return known.ack

    def open(self, upload: Any, ticket: Ticket) -> Opened:
        """A query's upload that came with its job, with its ticket that was checked; nothing is
        stored. Raises: Refused."""
        words, secret = self._open(open_query, upload, ticket)
        return Opened(ticket=ticket, words=words, secret=secret)

    def used_by(self, ticket: Ticket) -> str | None:
        """The job that uses this share. Raises: Conflict if another one has its id, Refused."""
        ticket_id, job_id = self._store.share_mark(ticket.share_id) or (ticket.id, None)
        if ticket_id != ticket.id:
            raise Conflict("share_conflict", "Another share is stored under this id.")
        if job_id == WITHDRAWN:
            raise Refused("withdrawn", "Its owner has withdrawn this share.")
        return job_id

    def _not_withdrawn(self, ticket: Ticket) -> None:
        if self._store.is_withdrawn(ticket):
            raise Refused("withdrawn", "Its owner has withdrawn what it had sent before.")

    def drop(self, share_id: str, body: Any, signature: Any) -> bool:
        """Forget a share that another node refused, so that none keeps a part; whether it did.

        body = {"v": 1, "share_id", "ticket_id"}, signed by the coordinator: it can refuse service,
        and does no more here. A share that a round is bound to stays in it, and for no further
        one; of a query there is but the mark of the job that it belongs to, which stays too.
        Raises: Malformed, Refused.
        """
        policy.coordinator_signed_it(
            body, signature, coordinator=self._peers.coordinator, domain=jobs.DROP_DOMAIN
        )
        ok = isinstance(body, dict) and set(body) == {"v", "share_id", "ticket_id"}
        if not ok or body["v"] != 1 or body["share_id"] != share_id:
            raise Malformed("malformed", "This is not about dropping that share.")
        with self.lock:
            known = self._store.share(share_id)
            if known is None or known.ticket_id != body["ticket_id"]:
                return False
            if known.used_by == WITHDRAWN:
                return False  # or the same share could come again
            if self._store.binding(known.ticket["scope"]) is not None:
                return self._store.drop_kept(share_id)
            self._store.forget_share(share_id)
        return True

    def withdraw(
        self,
        share_id: str,
        ticket: Any,
        body: Any,
        signature: Any,
        *,
        runs: Callable[[str], bool] = lambda scope: False,
    ) -> dict[str, Any]:
        """Forget a share because its owner says so, and take it from nobody again; signed for.

        body as `protocol.sharing.withdrawal_of`, signed by the ticket's sender. All that it has
        sent to this scope goes too, whatever roster it was signed for; what has not come yet and
        was issued before is refused when it does. So do words that stay for further rounds,
        whichever of their tickets it names, and in every round that they were put into. What is
        just being computed (`runs` says it of a scope) is not undone: then its words go now or with
        the round, and what is signed says "computed".
        Raises: Malformed, Refused ("already_completed": the job that used it is over, its words
        are gone), Conflict("share_conflict").
        """
        now = int(time.time())
        try:
            checked = tickets.check_ticket(ticket, now=now)
            check_withdrawal(body, signature, ticket=checked)
        except TicketError as error:
            raise _refusal(error) from None
        if checked.share_id != share_id:
            raise Malformed("malformed", "This is not about withdrawing that share.")
        with self.lock:
            known = self._store.share_mark(share_id)
            if known is not None and known[0] != checked.id:
                raise Conflict("share_conflict", "Another share is stored under this id.")
            # asked first: what ends in between is staged by then
            running = any(runs(scope) for scope in self._store.scopes_with(checked))
            became = self._store.withdraw_share(ticket=ticket, checked=checked, at=body["at"])
            if became == "over":
                raise Refused("already_completed", "This share's job is over; its words are gone.")
        said = {
            "v": 1,
            "ticket_id": checked.id,
            "node": self._fingerprint,
            "at": now,
            "computed": running or became == "computed",
        }
        return {
            "ack": said,
            "signature": wire.sign(self._node.sign_key, WITHDRAWN_DOMAIN, said),
        }

    def check(self, upload: Any, *, now: int) -> Ticket:
        """What an upload must satisfy before this node opens it, in its three steps: of many, each
        is taken for all of them. Raises: Malformed, Refused."""
        ticket, signed = self.check_form(upload, now=now)
        self.check_signature(ticket, signed, upload)
        self.check_fit(ticket)
        return ticket

    def check_form(self, upload: Any, *, now: int) -> tuple[Ticket, bytes]:
        """The ticket, and what of it must be signed. Raises: Malformed, Refused."""
        try:
            return tickets.check_form(upload, now=now)
        except TicketError as error:
            raise _refusal(error) from None

    def check_signature(self, ticket: Ticket, signed: bytes, upload: Any) -> None:
        """Raises: Refused."""
        try:
            tickets.check_signature(ticket, signed, upload["signature"])
        except TicketError as error:
            raise _refusal(error) from None

    def check_fit(self, ticket: Ticket) -> None:
        """It is for this node, and for circuits that it has. Raises: Refused."""
        if ticket.nodes != self._peers.fingerprints:
            raise Refused("wrong_nodes", "The ticket is for another set of nodes.")
        # what a query's names depends on its model: a rule of the policy
        if not ticket.is_query and ticket.circuits_hash != self._node.circuits_hash:
            raise Refused("circuits_differ", "The ticket is for another set of circuits.")
        for name in ticket.circuits:
            circuit = CIRCUITS.get(name)
            if circuit is None:
                raise Refused("unknown_circuit", f"This node has no circuit {name}.")
            slot = circuit.slots.get(ticket.slot)
            if slot is None or slot.role == "model":
                raise Refused("wrong_slot", f"{name} takes no input {ticket.slot} from outside.")
        self._check_use(ticket)

    def _check_use(self, ticket: Ticket) -> None:
        """Some circuit that its owner allows can take it: what never can is refused now, not when
        all others wait for the job."""
        reasons = []
        for name in ticket.circuits:
            try:
                policy.share_fits(CIRCUITS[name], ticket)
                return
            except Refused as refused:
                reasons.append(refused)
        raise reasons[0]

    def _open(self, how: Callable[..., T], upload: Any, ticket: Ticket) -> T:
        node = self._node
        try:
            return how(upload, node.index, node.hpke_key, known_id=ticket.id)
        except SealError as error:
            raise Refused(error.code, error.text) from None

    def _ack(self, ticket: Ticket, now: int, **said: Any) -> dict[str, Any]:
        body = {"v": 1, "ticket_id": ticket.id, "node": self._fingerprint, "at": now, **said}
        return {"ack": body, "signature": wire.sign(self._node.sign_key, jobs.ACK_DOMAIN, body)}


def not_kept(why: str) -> Refused:
    return Refused("not_kept", f"{why}. The rows must be shared anew.")


def _encoded_as(ticket: Ticket) -> dict[str, Any]:
    """What must be as it was for the same words to be the same rows."""
    fields = ("slot", "shape", "f", "engine", "nodes", "circuits_hash")
    return {name: getattr(ticket, name) for name in fields} | {
        name: ticket.params.get(name) for name in KEPT_UNDER
    }
