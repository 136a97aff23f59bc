"""The log, checked by the visitor's own browser: what it remembers, and what it then notices."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.db import connection, transaction

from apps.compute.models import Cosignature, Node
from apps.core import clock
from apps.protocol import heads, jobs, wire
from apps.wallets import log
from apps.wallets.models import TreeHead


def grow(count: int) -> TreeHead:
    with transaction.atomic():
        log.append_all([("test.leaf", {"id": str(i)}, None) for i in range(count)], now=clock.now())
    head = log.sequence(now=clock.now())
    assert head is not None
    return head


def cosign(head: TreeHead, key: Ed25519PrivateKey, index: int) -> None:
    """A node of that key has signed the head."""
    body = {"v": 1, "index": index, "name": f"Node {index}", "sign_key": wire.public_hex(key)}
    body |= {"hpke_key": "ab" * 32}
    node, _ = Node.objects.get_or_create(
        fingerprint=jobs.fingerprint(body),
        defaults={
            "name": f"Node {index}",
            "index": index,
            "descriptor": body | {"signature": wire.sign(key, jobs.NODE_DOMAIN, body)},
        },
    )
    content = heads.cosign_content(
        heads.Head(head.size, head.root, head.at_ms), log=log.public_key(), node=node.fingerprint
    )
    signature = wire.sign(key, heads.COSIGN_DOMAIN, content)
    Cosignature.objects.create(head=head, node=node, signature=signature)


def result(page: Any) -> tuple[str, str]:
    found = page.locator("#log-check[data-result]")
    found.wait_for()
    return found.get_attribute("data-result"), found.inner_text()


@pytest.mark.usefixtures("site")
def test_a_browser_checks_the_log_and_remembers_it(visit: Any) -> None:
    visitor = visit()
    page = visitor.page
    newest, node_keys = grow(5), [Ed25519PrivateKey.generate() for _ in range(3)]
    page.goto("/log/")
    state, said = result(page)
    assert state == "good" and "for the first time" in said and "No node has signed" in said

    for index, key in enumerate(node_keys):
        cosign(newest, key, index)
    grow(4)
    page.goto(f"/log/{newest.size}/")
    state, said = result(page)
    assert state == "good", said
    assert f"goes on from the {newest.size} entries" in said
    assert f"signed its first {newest.size} entries" in said and "Node 2" in said
    assert f"Entry {newest.size}, exactly as shown here" in said

    # Signatures of nodes that it has not seen before count for nothing.
    newest = grow(1)
    for index in range(3):
        Node.objects.filter(index=index).update(index=index + 10)
        cosign(newest, Ed25519PrivateKey.generate(), index)
    page.goto("/log/")
    state, said = result(page)
    assert state == "good" and "Only 0 of the 2 nodes" in said

    # The past rewritten at equal size, with a head that the server signs: found.
    row = TreeHead.objects.latest("size")
    forged = heads.head_content(row.size, "ab" * 32, row.at_ms)
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE wallets_treehead DISABLE TRIGGER USER")
        cursor.execute(
            "UPDATE wallets_treehead SET root = %s, signature = %s WHERE size = %s",
            ["ab" * 32, wire.sign(log.log_key(), heads.HEAD_DOMAIN, forged), row.size],
        )
        cursor.execute("ALTER TABLE wallets_treehead ENABLE TRIGGER USER")
    page.get_by_role("button", name="Check again").click()
    page.locator("#log-check[data-result=bad]").wait_for()
    assert "was rewritten since you were here last" in result(page)[1]
    assert visitor.complaints == []
