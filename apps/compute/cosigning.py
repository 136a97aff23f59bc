"""Heads of the log that the nodes signed beside the log: asked for, checked, kept.

Each node is shown the proof from the head that it signed last. What a node refuses stays unsigned:
whoever reads the log sees how many nodes vouch for which head.
"""

from __future__ import annotations

import logging
from typing import Any

from django.db.models import Count

from apps.compute import control, selectors
from apps.compute.control import ControlError, Member
from apps.compute.models import Cosignature, Node
from apps.core.errors import NotFound
from apps.core.live import changed
from apps.protocol.heads import COSIGN_DOMAIN, COSIGNERS_MIN, Head, cosign_content
from apps.protocol.wire import BadSignature, verify
from apps.wallets import log, proofs
from apps.wallets.models import TreeHead

HEADS_MAX = 10  # that a recovered node has from itself and the others, and goes on from all

logger = logging.getLogger(__name__)


def collect() -> int:
    """Have every node that has not signed the newest head do so. Returns how many did now.

    One node's silence or refusal does not keep the others.
    """
    newest = log.head_latest()
    if newest is None:
        return 0
    nodes = list(Node.objects.filter(active=True).order_by("index"))
    signed = set(
        Cosignature.objects.filter(head=newest, node__in=nodes).values_list("node_id", flat=True)
    )
    waiting = [node for node in nodes if node.id not in signed]
    members = selectors.members(waiting)
    futures = [control.pool().submit(control.last_head, member) for member in members]
    made = 0
    for node, member, future in zip(waiting, members, futures, strict=True):
        try:
            signature = _cosigned(member, newest, future.result(), tries=HEADS_MAX)
        except ControlError as error:
            logger.warning("%s has not signed the head of size %d: %s", node.name, newest.size,
                           error.code)  # fmt: skip
            continue
        Cosignature.objects.get_or_create(head=newest, node=node, defaults={"signature": signature})
        made += 1
    if made:
        changed("log")
    return made


def _cosigned(member: Member, newest: TreeHead, last: dict[str, Any], *, tries: int) -> str:
    size = last.get("size")
    if not isinstance(size, int) or not 0 <= size <= newest.size:
        raise control.Final("shorter_log", f"{member.name} has signed a longer log.")
    path = proofs.consistency(size, newest.size)["path"] if size else []
    public = log.public_key()
    try:
        answer = control.cosign(member, log=public, head=proofs.head_json(newest), path=path)
    except control.Retryable as error:
        if error.code != "more_proofs" or tries <= 1:
            raise
        return _cosigned(member, newest, control.last_head(member), tries=tries - 1)
    content = cosign_content(
        Head(newest.size, newest.root, newest.at_ms), log=public, node=member.fingerprint
    )
    try:
        verify(member.sign_key, COSIGN_DOMAIN, content, answer.get("signature"))
    except BadSignature:
        raise control.Final("bad_answer", f"{member.name} signed another head.") from None
    return str(answer["signature"])


def cosigned_latest() -> TreeHead | None:
    """The newest head that enough nodes signed; else the newest that any did."""
    sizes = Cosignature.objects.values("head_id").annotate(count=Count("id")).order_by("-head_id")
    found = sizes.filter(count__gte=COSIGNERS_MIN).first() or sizes.first()
    return TreeHead.objects.get(size=found["head_id"]) if found else None


def cosigned_json() -> dict[str, Any]:
    """{…head, "cosignatures": [{"node", "signature"}], "nodes": [descriptors]}.

    Raises NotFound while no node has signed any.
    """
    head = cosigned_latest()
    if head is None:
        raise NotFound("not_cosigned", "No node has signed a head of this log yet.")
    rows = list(
        Cosignature.objects.filter(head=head).select_related("node").order_by("node__index")
    )
    return proofs.head_json(head) | {
        "cosignatures": [
            {"node": row.node.fingerprint, "name": row.node.name, "signature": row.signature}
            for row in rows
        ],
        "nodes": [row.node.descriptor for row in rows],
    }


__all__ = ["collect", "cosigned_json", "cosigned_latest"]
