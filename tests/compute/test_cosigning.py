"""The platform has real nodes sign its heads; what they refuse stays unsigned."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import transaction
from django.test import Client

from apps.compute import control, cosigning, selectors
from apps.compute.models import Cosignature, Node
from apps.core import clock
from apps.protocol import heads, jobs, merkle, wire
from apps.wallets import log
from apps.wallets.models import TreeHead
from tests.support.nodes import cosigned_anew


def grow(count: int) -> TreeHead:
    with transaction.atomic():
        log.append_all([("test.leaf", {"id": str(i)}, None) for i in range(count)], now=clock.now())
    head = log.sequence(now=clock.now())
    assert head is not None
    return head


def published() -> tuple[list[str], int]:
    """The nodes whose signatures check in what the API shows, and the size they signed."""
    shown = Client().get("/api/v1/log/cosigned/").json()
    signed = {name: shown[name] for name in ("v", "size", "root", "at", "signature")}
    head = heads.check_head(signed, log=log.public_key())
    sign_keys = {jobs.check_node(node): node["sign_key"] for node in shown["nodes"]}
    found = heads.cosigners(
        head, shown["cosignatures"], log=log.public_key(), sign_keys=sign_keys, trusted=sign_keys
    )
    return list(found), head.size


def test_heads_are_signed_by_the_nodes_and_published(market: Any) -> None:
    nodes = list(Node.objects.filter(active=True).order_by("index"))
    fingerprints = [node.fingerprint for node in nodes]
    cosigned_anew(market.nodes)
    for _ in range(2):
        newest = grow(5)
        assert cosigning.collect() == 3 and cosigning.collect() == 0
        assert published() == (fingerprints, newest.size)
    grow(1)
    assert published() == (fingerprints, newest.size)  # the newest that is signed enough

    # A server that rewrites what they signed: no node signs that.
    root = merkle.leaf_hash(b"forged").hex()
    content = heads.head_content(newest.size, root, newest.at_ms)
    forged = content | {"signature": wire.sign(log.log_key(), heads.HEAD_DOMAIN, content)}
    for member in selectors.members(nodes):
        with pytest.raises(control.Final) as refused:
            control.cosign(member, log=log.public_key(), head=forged, path=[])
        assert refused.value.code == "fork"
    assert set(Cosignature.objects.filter(head__size__gt=newest.size)) == set()
