"""`verify` against a site whose database was tampered with by its owner.

Whoever tampers here has the database and the log's key, and turns the append-only triggers off.
Each kind is found, and the place is named.
"""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.db import connection

from apps.accounts.models import Party
from apps.core import clock
from apps.protocol import heads, merkle, wire
from apps.wallets import log
from apps.wallets.models import LogLeaf, LogNode, TreeHead
from apps.wallets.services import faucet
from tests.support.browser import served
from workers.client.cli import main
from workers.client.verify import verify_server

ROOT = Path(__file__).resolve().parents[2]
TABLES = ("wallets_logleaf", "wallets_lognode", "wallets_treehead")


@pytest.fixture
def site(transactional_db: None) -> Iterator[str]:
    from flai_site.asgi import application

    with served(application) as url:
        yield url


def verify(site: str, state: Path, *more: str) -> tuple[int, str]:
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        code = main(["verify", "--url", site, "--state", str(state), *more])
    return code, said.getvalue()


def verify_apart(site: str, state: Path, *more: str) -> tuple[int, str]:
    """The same by a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "workers.client", "verify", "--url", site, "--state", state, *more],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def grow(party: Party, count: int) -> None:
    for _ in range(count):
        faucet(party=party, asset="USDC", amount_micro=1_000_000)
    assert log.sequence(now=clock.now()) is not None


def changed(seq: int, *, hash_too: bool = False) -> None:
    leaf = LogLeaf.objects.get(seq=seq)
    leaf.data = bytes(leaf.data).replace(b'"1000000"', b'"9000000"')
    if hash_too:
        leaf.hash = merkle.leaf_hash(leaf.data)
    leaf.save()


def deleted(seq: int, *, closed_up: bool = False) -> None:
    LogLeaf.objects.get(seq=seq).delete()
    for leaf in LogLeaf.objects.filter(seq__gt=seq).order_by("seq") if closed_up else ():
        LogLeaf.objects.filter(id=leaf.id).update(seq=leaf.seq - 1)


def reordered(seq: int) -> None:
    one, other = LogLeaf.objects.get(seq=seq), LogLeaf.objects.get(seq=seq + 1)
    LogLeaf.objects.filter(id=one.id).update(seq=None)
    LogLeaf.objects.filter(id=other.id).update(seq=seq)
    LogLeaf.objects.filter(id=one.id).update(seq=seq + 1)


def rewritten(seq: int) -> None:
    """At equal size, with every hash, subtree and head made anew and signed by the log's key."""
    changed(seq, hash_too=True)
    rows = LogLeaf.objects.exclude(seq=None).order_by("seq").values_list("hash", flat=True)
    hashes = [bytes(row) for row in rows]
    for level, index, hash_ in merkle.extend(0, [], hashes)[2]:
        LogNode.objects.filter(level=level, index=index).update(hash=hash_)
    for head in TreeHead.objects.all():
        root = merkle.root(hashes[: head.size]).hex()
        signed(head.size, root, log.log_key())


def signed(size: int, root: str, key: Ed25519PrivateKey) -> None:
    at_ms = TreeHead.objects.get(size=size).at_ms
    signature = wire.sign(key, heads.HEAD_DOMAIN, heads.head_content(size, root, at_ms))
    TreeHead.objects.filter(size=size).update(root=root, signature=signature)


def forged_head() -> None:
    signed(log.head_latest().size, "ab" * 32, Ed25519PrivateKey.generate())


def head_of_other_entries() -> None:
    signed(log.head_latest().size, "ab" * 32, log.log_key())


def shortened() -> None:
    TreeHead.objects.filter(size=log.head_latest().size).delete()


def test_each_kind_of_tampering_is_found_and_its_place_is_named(site: str, tmp_path: Path) -> None:
    party = Party.objects.create(kind="person", name="Ada", slug="ada")
    state, sizes = tmp_path / "state.json", []
    for _ in range(3):
        grow(party, 4)
        sizes.append(log.head_latest().size)
        assert verify_server(site, state=state).ok
    a, b, c = sizes
    stretch = f"one of the entries {a} to {b - 1}"
    kinds: list[tuple[Callable[[], Any], str]] = [
        (lambda: changed(a + 1), f"entry {a + 1} does not have the hash"),
        (lambda: changed(a + 1, hash_too=True), stretch),
        (lambda: deleted(a + 1), f"skips entry {a + 1}"),
        (lambda: deleted(a + 1, closed_up=True), stretch),
        (lambda: reordered(a + 1), stretch),
        (lambda: rewritten(a + 1), f"its first {c} entries are others than last time: the first "
                                   f"that differs is {stretch}"),
        (forged_head, "the head is not signed by the log key"),
        (head_of_other_entries, f"one of the entries {b} to {c - 1}"),
        (shortened, f"the log has shrunk: {c} entries were signed, now {b}"),
    ]  # fmt: skip
    kept = {model: list(model.objects.values()) for model in (LogLeaf, LogNode, TreeHead)}
    _triggers("DISABLE")
    try:
        for tamper, said in kinds:
            copy = Path(shutil.copy(state, tmp_path / "copy.json"))
            tamper()
            code, text = (verify_apart if tamper is shortened else verify)(site, copy)
            assert code == 1 and said in text, text
            assert copy.read_text() == state.read_text()  # what was believed is not forgotten
            for model, rows in kept.items():
                model.objects.all().delete()
                model.objects.bulk_create(model(**row) for row in rows)
        # What a user holds, by its id and by its entry's hash; and what this log does not have.
        leaf = LogLeaf.objects.get(seq=a + 1)
        for wanted in (leaf.ref_id, bytes(leaf.hash).hex()):
            code, text = verify(site, state, "--has", wanted)
            assert code == 0 and f"{wanted} is in the log: entry {a + 1} (wallets.tr" in text, text
        code, text = verify(site, state, "--has", f"{leaf.ref_id},no", "--has", "no")
        assert code == 1 and f"✗ no is in none of the {c} entries" in text, text
        assert f"✗ {leaf.ref_id},no is in none" in text
    finally:
        _triggers("ENABLE")


def _triggers(how: str) -> None:
    with connection.cursor() as cursor:
        for table in TABLES:
            cursor.execute(f"ALTER TABLE {table} {how} TRIGGER USER")


def test_each_list_of_nodes_is_a_set_of_its_own(site: str, tmp_path: Path) -> None:
    grow(Party.objects.create(kind="person", name="Ada", slug="ada"), 1)
    state, sets, options = tmp_path / "state.json", [["aa" * 32] * 3, ["bb" * 32] * 3], []
    for name, nodes in zip(("old", "new"), sets, strict=True):
        (tmp_path / name).write_text(json.dumps({"fingerprints": nodes}))
        options += ["--nodes", str(tmp_path / name)]
    code, said = verify(site, state, *options)
    assert code == 1 and "(nodes aaaaaa…, bbbbbb…, that you gave)" in said
    code, said = verify(site, state)
    assert code == 0 and "that you gave" not in said
