"""The only client of the nodes' control ports: sends to all nodes at once, outside transactions.

A node's "no" is Final; a node that does not answer, lost a peer or ran out of time is Retryable.
Nothing here reads what is sealed, and nothing is logged.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from apps.compute.links import Reply, Unreachable, coordinator_key, links_to
from apps.protocol import jobs, refreshes, sharing, tickets, uploads, wire

T = TypeVar("T")

# By fingerprint, until when (time.monotonic()); for this process only.
_away: dict[str, float] = {}

# One HTTP round trip must fit besides the nodes' own deadline for the job.
ANSWER_MARGIN_S = 5.0
HEALTH_S = 2.0
AWAY_S = 10.0  # how long a node that did not answer is taken for away


class ControlError(Exception):
    """What went wrong with the nodes: `code` for programs, `text` safe to show."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.node = ""  # the fingerprint of the one at fault, where that is known


class Retryable(ControlError):
    """The same request may succeed later: a node is away, or lost another one."""


class Final(ControlError):
    """A node refused, or the nodes' answers do not fit together; asking again changes nothing."""


@dataclass(frozen=True)
class Member:
    """Where to reach one node, what it signs with, the only certificate that it may show (PEM)."""

    name: str
    fingerprint: str
    sign_key: str
    certificate: str
    url: str


@dataclass(frozen=True)
class Answer:
    """One node's answer to a job."""

    member: Member
    receipt: dict[str, Any]
    signature: str
    openings: dict[str, Any]
    sealed: str | None

    @property
    def signed(self) -> dict[str, Any]:
        """The receipt as the other nodes want to see it."""
        return {"receipt": self.receipt, "signature": self.signature}


def run_job(
    members: Sequence[Member],
    descriptor: dict[str, Any],
    *,
    ticket_ids: Sequence[str],
    uploads: Sequence[dict[str, Any]] = (),
) -> list[Answer]:
    """Sign the descriptor, run it on every node, and return agreeing answers in the nodes' order.

    Checked: each receipt's signature, that it is about this descriptor (attempt included) and
    these tickets, that the openings are those receipted, that all nodes opened the same, and that
    the two holders of each word of the result report the same hash.

    Raises: Retryable, Final.
    """
    body = _encode(
        {
            "descriptor": descriptor,
            "signature": wire.sign(coordinator_key(), jobs.JOB_DOMAIN, descriptor),
            "uploads": list(uploads),
        }
    )
    patience = descriptor["deadline_s"] + ANSWER_MARGIN_S
    try:
        found = _all(members, lambda member: _post(member, "/jobs", body, timeout_s=patience))
    except Final:
        for upload in uploads:
            drop_share(members, upload["ticket"])
        raise
    answers = [_answer(member, content) for member, content in zip(members, found, strict=True)]
    _check_answers(answers, descriptor, sorted(ticket_ids))
    return answers


@dataclass(frozen=True)
class Asked:
    """One query of a bundle: its descriptor with the attempt, its ticket's id, its upload."""

    descriptor: dict[str, Any]
    ticket_id: str
    upload: dict[str, Any]


def run_bundle(
    members: Sequence[Member], asked: Sequence[Asked]
) -> list[list[Answer] | ControlError]:
    """Run queries of one model on every node, together; for each what `run_job` gives or raises.

    A node of another release may not know this form of a bundle: its "malformed" is about none of
    the queries, which wait until all nodes are of one. Raises: Retryable, Final, for all of them.
    """
    bundle = jobs.bundle_of([jobs.job_digest(query.descriptor) for query in asked])
    body = _encode(
        {
            "jobs": [{"descriptor": one.descriptor, "upload": one.upload} for one in asked],
            "signature": wire.sign(coordinator_key(), jobs.BUNDLE_DOMAIN, bundle),
        }
    )
    patience = max(query.descriptor["deadline_s"] for query in asked) + ANSWER_MARGIN_S
    try:
        found = _all(members, lambda member: _post(member, "/bundles", body, timeout_s=patience))
    except Final as error:
        if error.code == "malformed":
            raise Retryable(error.code, error.text) from None
        raise
    replies = [content.get("answers") for content in found]
    if any(not isinstance(listed, list) or len(listed) != len(asked) for listed in replies):
        raise Final("bad_answer", "A node did not answer for each query.")
    return [_told(members, query, said) for query, said in zip(asked, zip(*replies))]


def _told(
    members: Sequence[Member], asked: Asked, said: Sequence[Any]
) -> list[Answer] | ControlError:
    """One query's answers; a refusal outweighs the others' lost peers."""
    errors = [
        _error(member, reply["error"])
        for member, reply in zip(members, said)
        if isinstance(reply, dict) and isinstance(reply.get("error"), dict)
    ]
    try:
        for kind in (Final, Retryable):
            for error in errors:
                if isinstance(error, kind):
                    raise error
        answers = []
        for member, reply in zip(members, said):
            content = reply.get("answer") if isinstance(reply, dict) else None
            if not isinstance(content, dict):
                raise Final("bad_answer", f"{member.name} sent a malformed answer.")
            answers.append(_answer(member, content))
        _check_answers(answers, asked.descriptor, [asked.ticket_id])
    except ControlError as error:
        return error
    return answers


def commit(
    members: Sequence[Member], job_id: str, signed: Sequence[dict[str, Any]]
) -> tuple[str | None, list[str]]:
    """Show all receipts to all members, so that each makes its part of the result permanent.

    All three must, of more members any three, or of Shamir shares as many as compute. Returns the
    model's id, None where the job made none, and the fingerprints of those who have committed.
    Raises: Retryable, Final.
    """
    body = _encode({"receipts": list(signed)})
    engine = jobs.engine_of(signed[0]["receipt"]) if signed else tickets.RING
    found = _most(
        members,
        lambda m: _post(m, f"/jobs/{job_id}/commit", body, timeout_s=15.0),
        least=tickets.holders_of(engine),
        despite_refusals=len(members) > tickets.TRIO,
    )
    if any(content.get("committed") is not True for _, content in found):
        raise Final("bad_answer", "A node did not confirm the commit.")
    models = {content.get("model") for _, content in found}
    if len(models) != 1:
        raise Final("receipts_disagree", "The nodes name different models.")
    return models.pop(), [member.fingerprint for member, _ in found]


def adopt(
    member: Member, descriptor: dict[str, Any], signed: Sequence[dict[str, Any]], model: str | None
) -> bool:
    """Show a node what others committed while it was away. Returns whether it has its part: of a
    model in Shamir shares it has none before t + 1 others are there to tell it.
    Raises: Retryable, Final."""
    body = _encode({"receipts": list(signed), "descriptor": descriptor})
    answer = _post(member, f"/jobs/{descriptor['job_id']}/commit", body, timeout_s=30.0)
    if answer.get("committed") is not True or answer.get("model") != model:
        raise Final("bad_answer", f"{member.name} did not confirm the commit.")
    return answer.get("held") is not False


def put_share(
    members: Sequence[Member],
    head: dict[str, Any],
    correction: Sequence[bytes],
    *,
    ticket_id: str,
    again: bool = False,
) -> list[Any]:
    """Hand a sealed upload to every node; returns their signed acknowledgements in order.

    `correction` is in parts, as it came. With `again` it goes only to nodes that do not have it.
    Of four or five nodes, three must take it; of Shamir shares as many as compute. When a node
    refuses it, the others are asked to forget it. Raises: Retryable, Final.
    """
    frame = [uploads.head_line(head), *correction]

    def hand(member: Member) -> dict[str, Any]:
        if again:
            try:
                return _get(member, f"/shares/{head['ticket']['share_id']}")
            except ControlError as error:
                if error.code != "unknown_share":
                    raise
        return _post(member, "/shares", frame, timeout_s=15.0, media_type=uploads.MEDIA_TYPE)

    try:
        found = _most(members, hand, least=tickets.holders_of(head["ticket"]["engine"]))
    except Final:
        drop_share(members, head["ticket"])
        raise
    return _acks(found, jobs.ACK_DOMAIN, ticket_id)


def withdraw_share(
    members: Sequence[Member], asked: dict[str, Any], *, ticket_id: str
) -> list[Any]:
    """Hand its owner's signed withdrawal to every node; what all of them signed, in order.

    asked = {"ticket", "withdrawal", "signature"}. Raises: Retryable, Final.
    """
    body, path = _encode(asked), f"/shares/{asked['ticket']['share_id']}/withdraw"
    found = _most(
        members, lambda member: _post(member, path, body, timeout_s=15.0), least=len(members)
    )
    return _acks(found, sharing.WITHDRAWN_DOMAIN, ticket_id)


def _acks(found: Sequence[tuple[Member, dict[str, Any]]], domain: str, ticket_id: str) -> list[Any]:
    """What nodes signed about a share, each about this ticket. Raises: Final."""
    for member, content in found:
        ack = content.get("ack")
        try:
            wire.verify(member.sign_key, domain, ack, content.get("signature"))
        except wire.BadSignature:
            raise Final("bad_answer", f"{member.name} did not sign for the share.") from None
        if ack.get("ticket_id") != ticket_id or ack.get("node") != member.fingerprint:
            raise Final("bad_answer", f"{member.name} signed for another share.")
    return [content for _, content in found]


def drop_share(members: Sequence[Member], ticket: dict[str, Any]) -> None:
    """Have every node that answers forget a share that another refused; its expiry ends the rest.

    The ticket's id names it, so that another share under the same id stays.
    """
    body = {"v": 1, "share_id": ticket["share_id"], "ticket_id": tickets.ticket_id(ticket)}
    signature = wire.sign(coordinator_key(), jobs.DROP_DOMAIN, body)
    content, path = _encode({"drop": body, "signature": signature}), f"/shares/{body['share_id']}"
    with contextlib.suppress(ControlError):
        _all(members, lambda member: _post(member, f"{path}/drop", content, timeout_s=15.0))


def last_refresh(member: Member) -> dict[str, Any]:
    """{"number", "proof"} of what the node refreshed last. Raises: Retryable, Final."""
    return _get(member, "/refresh")


def refresh(members: Sequence[Member], asked: dict[str, Any]) -> list[dict[str, Any]]:
    """Have all these nodes refresh what they keep; what each signed.

    Raises: Retryable, Final: of the `node` that failed by itself, or of any where all say that it
    was another.
    """
    signature = wire.sign(coordinator_key(), refreshes.REFRESH_DOMAIN, asked)
    body = _encode({"refresh": asked, "signature": signature})
    patience = asked["deadline_s"] + ANSWER_MARGIN_S
    futures = [pool().submit(_post, m, "/refresh", body, timeout_s=patience) for m in members]
    signed, failed = [], []
    for member, future in zip(members, futures, strict=True):
        try:
            signed.append(future.result())
        except ControlError as error:
            error.node = member.fingerprint
            failed.append(error)
    if failed:
        secrets.SystemRandom().shuffle(failed)
        raise min(failed, key=lambda error: error.code in ("peer_refused", "peer_lost"))
    return signed


def last_head(member: Member) -> dict[str, Any]:
    """{"log", "size", "root"} that the node signed last. Raises: Retryable, Final."""
    return _get(member, "/log/head")


def cosign(member: Member, *, log: str, head: dict[str, Any], path: list[str]) -> dict[str, Any]:
    """The node's signature over a head, shown the proof from its last. Raises: Retryable, Final."""
    body = _encode({"log": log, "head": head, "path": path})
    return _post(member, "/log/head", body, timeout_s=15.0)


def there(members: Sequence[Member], *, ask: bool) -> list[bool]:
    """Which nodes to count on: those that answer now, or that nobody has missed lately."""
    now = time.monotonic()
    if not ask:
        return [_away.get(member.fingerprint, 0.0) <= now for member in members]
    found = health(members)
    for member, up in zip(members, found, strict=True):
        if up:
            _away.pop(member.fingerprint, None)
        else:
            _away[member.fingerprint] = now + AWAY_S
    return found


def health(members: Sequence[Member]) -> list[bool]:
    """Whether each node answers now."""
    return [taken is not None for taken in answer_times_ms(members)]


def answer_times_ms(members: Sequence[Member]) -> list[int | None]:
    """How long each node takes to say that it is well; None for one that does not."""

    def answers(member: Member) -> int | None:
        began = time.monotonic()
        try:
            link = links_to(member.url, member.certificate)
            reply = link.ask("GET", "/health", timeout_s=HEALTH_S)
        except Unreachable:
            return None
        well = reply.status == 200 and (_read(reply) or {}).get("status") == "ok"
        return round((time.monotonic() - began) * 1000) if well else None

    return [future.result() for future in [pool().submit(answers, m) for m in members]]


@cache
def pool() -> ThreadPoolExecutor:
    """Threads that wait for nodes; enough for several jobs at a time on three nodes each."""
    return ThreadPoolExecutor(max_workers=48, thread_name_prefix="node")


def _encode(content: dict[str, Any]) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()


def _all(members: Sequence[Member], call: Callable[[Member], T]) -> list[T]:
    """Call every node at once and wait for all; one refusal outweighs the others' lost peers."""
    found = _most(members, call, least=len(members))
    return [answer for _, answer in found]


def _most(
    members: Sequence[Member],
    call: Callable[[Member], T],
    *,
    least: int = tickets.TRIO,
    despite_refusals: bool = False,
) -> list[tuple[Member, T]]:
    """Call every node at once and wait for all; the answers, of `least` nodes at least."""

    def ask(member: Member) -> T | ControlError:
        try:
            return call(member)
        except ControlError as error:
            return error

    if not members:
        raise Retryable("node_down", "There is no node to ask.")
    first, *others = members
    waiting = [pool().submit(ask, member) for member in others]
    said = [ask(first), *[future.result() for future in waiting]]
    found = [(m, one) for m, one in zip(members, said) if not isinstance(one, ControlError)]
    errors = [one for one in said if isinstance(one, ControlError)]
    refused = not despite_refusals and any(isinstance(error, Final) for error in errors)
    if len(found) >= least and not refused:
        return found
    for kind in (Final, Retryable):
        for error in errors:
            if isinstance(error, kind):
                raise error
    return found


def _post(
    member: Member,
    path: str,
    body: bytes | Sequence[bytes],
    *,
    timeout_s: float,
    media_type: str = "application/json",
) -> dict[str, Any]:
    """A body in parts is sent as they are, without being put together."""
    parts = [body] if isinstance(body, bytes) else body
    reply = _ask(member, "POST", path, parts, {"content-type": media_type}, timeout_s=timeout_s)
    return _content(member, reply)


def _get(member: Member, path: str) -> dict[str, Any]:
    return _content(member, _ask(member, "GET", path, timeout_s=HEALTH_S))


def _ask(member: Member, method: str, path: str, *body: Any, timeout_s: float) -> Reply:
    link = links_to(member.url, member.certificate)
    try:
        return link.ask(method, path, *body, timeout_s=timeout_s)
    except Unreachable:
        _away[member.fingerprint] = time.monotonic() + AWAY_S
        raise Retryable("node_down", f"{member.name} does not answer.") from None


def _read(reply: Reply) -> dict[str, Any] | None:
    try:
        content = json.loads(reply.body)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _content(member: Member, reply: Reply) -> dict[str, Any]:
    content = _read(reply)
    if content is None:
        raise Retryable("bad_answer", f"{member.name} answered {reply.status} unreadably.")
    if reply.status < 300:
        return content
    retryable = bool(content.get("retryable")) or reply.status >= 500
    raise _error(member, {"code": reply.status, **content, "retryable": retryable})


def _error(member: Member, content: dict[str, Any]) -> ControlError:
    """A node's own words about what it did not do."""
    code, detail = str(content.get("code", "refused")), str(content.get("detail", ""))
    kind = Retryable if content.get("retryable") is True else Final
    return kind(code, f"{member.name}: {detail}" if detail else f"{member.name} refused.")


def _answer(member: Member, content: dict[str, Any]) -> Answer:
    """Of the right form, and this node's own by what it says; `_check_answers` sees who signed."""
    receipt, signature = content.get("receipt"), content.get("signature")
    openings, sealed = content.get("openings"), content.get("sealed")
    if not isinstance(openings, dict) or not (sealed is None or isinstance(sealed, str)):
        raise Final("bad_answer", f"{member.name} sent a malformed answer.")
    if not isinstance(receipt, dict) or not isinstance(signature, str):
        raise Final("bad_receipt", f"{member.name} sent no signed receipt.")
    if receipt.get("node") != member.fingerprint:
        raise Final("bad_receipt", f"{member.name} sent another node's receipt.")
    return Answer(member, receipt, signature, openings, sealed)


def _check_answers(
    answers: Sequence[Answer], descriptor: dict[str, Any], ticket_ids: list[str]
) -> None:
    try:
        receipts = jobs.check_receipts(
            [answer.signed for answer in answers],
            sign_keys={a.member.fingerprint: a.member.sign_key for a in answers},
            nodes=descriptor["nodes"],
        )
    except jobs.JobError as error:
        raise Final(error.code, error.text) from None
    receipt = receipts[0]
    # Nodes that completed an earlier attempt, whose answer we lost, repeat what they signed then.
    sent = descriptor | {"attempt": receipt["attempt"]}
    if receipt["attempt"] > descriptor["attempt"] or receipt["descriptor"] != jobs.job_digest(sent):
        raise Final("receipts_disagree", "The nodes' receipts are about another job than asked.")
    if receipt["inputs"] != ticket_ids:
        raise Final("receipts_disagree", "The nodes computed on other inputs than asked.")
    for answer in answers:
        if jobs.openings_digest(answer.openings) != receipt["openings"]:
            raise Final("receipts_disagree", f"{answer.member.name} reports other openings.")
        if _sealed_hash(answer) != answer.receipt["sealed"]:
            raise Final("receipts_disagree", f"{answer.member.name} sealed something else.")


def _sealed_hash(answer: Answer) -> str | None:
    """What the node's receipt must say of its sealed part: nobody pays for another."""
    if answer.sealed is None:
        return None
    try:
        return jobs.sealed_hash(wire.unb64(answer.sealed))
    except ValueError:
        raise Final("bad_answer", f"{answer.member.name} sealed no base64.") from None
