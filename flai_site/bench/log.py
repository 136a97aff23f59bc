"""A log of a wanted size, and what a proof and a replay cost on it."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator
from typing import Any

PROOFS = 200
REPLAYED_MAX = 100_000
SIGNED = 5_000
BATCH = 100_000

# Payments of one micro-unit there and back, as the ledger would have written them, numbered in the
# log. (The triggers that watch foreign keys are not what is measured, so they rest.)
_FILL = """
WITH made AS (
    SELECT n, gen_random_uuid() AS id, n %% 2 = 0 AS back,
        now() - interval '1 day' + n * interval '1 millisecond' AS at
    FROM generate_series(%(first)s, %(last)s) AS n
), written AS (
    INSERT INTO wallets_transfer (id, debit_id, credit_id, amount_micro, kind, phase, ref_type,
        ref_id, memo, created_at)
    SELECT id, CASE WHEN back THEN %(b)s ELSE %(a)s END::uuid,
        CASE WHEN back THEN %(a)s ELSE %(b)s END::uuid, 1, 'wallets.send', 'single', '', '', '', at
    FROM made
), leaves AS (
    SELECT n, id, convert_to('{"at":' || floor(extract(epoch FROM at) * 1000)::bigint
        || ',"body":{"amount_micro":"1","credit":"'
        || CASE WHEN back THEN %(code_a)s ELSE %(code_b)s END
        || '","debit":"' || CASE WHEN back THEN %(code_b)s ELSE %(code_a)s END
        || '","id":"' || id || '","kind":"wallets.send","phase":"single","ref":null}'
        || ',"type":"wallets.transfer","v":1}', 'UTF8') AS data
    FROM made
)
INSERT INTO wallets_logleaf (type, ref_id, data, hash)
SELECT 'wallets.transfer', id::text, data, sha256('\\x00'::bytea || data) FROM leaves ORDER BY n
"""


def fill(ends: list[Any], size: int) -> None:
    """Bring ledger and log to `size` transfers, all leaves numbered, under a signed head."""
    from django.db import connection

    from apps.core.clock import now
    from apps.wallets import log
    from apps.wallets.models import Transfer

    a, b = ends
    missing = size - Transfer.objects.count()
    if missing > 0:
        with connection.cursor() as cursor:
            cursor.execute("SET session_replication_role = replica")
            cursor.execute(
                _FILL,
                {
                    "first": 1,
                    "last": missing - missing % 2,
                    "a": a.id,
                    "b": b.id,
                    "code_a": a.code,
                    "code_b": b.code,
                },
            )
            cursor.execute("SET session_replication_role = origin")
            cursor.execute("ANALYZE wallets_transfer, wallets_logleaf")
    while log.sequence(now=now(), limit=BATCH):
        pass


def measure(size: int) -> Iterator[dict[str, Any]]:
    """A proof by the service from the log as it is; replay as the stand-alone verifier does it."""
    from apps.wallets import proofs
    from apps.wallets.models import LogLeaf
    from workers.client.replay import Replay, undisturbed

    size_now = proofs.head().size
    spent_ms = []
    for i in range(PROOFS):
        leaf = proofs.find(index=i * size_now // PROOFS)
        began = time.perf_counter()
        proofs.inclusion(leaf)
        spent_ms.append(1000 * (time.perf_counter() - began))
    name = f"log_at_{size}"
    yield _line(name, statistics.median(spent_ms), "ms", "proof_p50")
    yield _line(name, sorted(spent_ms)[len(spent_ms) * 95 // 100], "ms", "proof_p95")
    leaves = LogLeaf.objects.exclude(seq=None).order_by("seq").values_list("data", flat=True)
    data = [bytes(leaf) for leaf in leaves[:REPLAYED_MAX]]
    replay, began = Replay(), time.process_time()
    with undisturbed():
        for index, leaf_data in enumerate(data):
            replay.leaf(index, json.loads(leaf_data))
    spent_s = time.process_time() - began
    yield _line(name, len(data) / spent_s, "leaves/s of processor time", "replay")


def signatures() -> Iterator[dict[str, Any]]:
    """Replay of payments that each carry the signature of a wallet key."""
    from workers.client.replay import Replay, undisturbed

    data, replay = _signed_payments(), Replay()
    began = time.process_time()
    with undisturbed():
        for index, leaf in enumerate(data):
            replay.leaf(index, json.loads(leaf))
    spent_s = time.process_time() - began
    if replay.end().errors or replay.keyring.checked != SIGNED + 1:
        raise RuntimeError("the signed payments do not replay")
    yield _line(
        "log_signed", replay.keyring.checked / spent_s, "signatures/s of processor time", "replay"
    )


def _signed_payments() -> list[bytes]:
    """A binding, money, and SIGNED payments from one keyed wallet, in canonical bytes."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from apps.protocol import consent, wire

    key, me, you, at = Ed25519PrivateKey.generate(), "aa" * 16, "bb" * 16, 1_800_000_000_000
    public = wire.public_hex(key)
    bound = {"id": "k", "pid": me, "purpose": consent.WALLET, "public_key": public}
    content = consent.possession(me, consent.WALLET, public)
    bound["proof"] = wire.sign(key, consent.KEY_DOMAIN, content)
    found: list[tuple[str, dict[str, Any]]] = [("accounts.key_bound", bound | {"auth": "session"})]
    move: dict[str, Any] = {"phase": "single", "ref": None}
    issued = {"debit": f"{'cc' * 16}/issuance/USDC", "credit": f"{me}/main/USDC"}
    money = issued | {"id": "0", "amount_micro": str(SIGNED), "kind": "wallets.mint"}
    found.append(("wallets.transfer", money | move))
    for nonce in range(1, SIGNED + 1):
        said = consent.message(
            pid=me,
            kind=consent.SEND,
            payload=consent.send_payload(to=you, asset="USDC", amount_micro=1),
            key=public,
            nonce=nonce,
            expires_at=at + 60_000,
        )
        signed = {name: said[name] for name in ("key", "nonce", "expires_at")}
        signed["signature"] = wire.sign(key, consent.ACTION_DOMAIN, said)
        body = {"id": str(nonce), "debit": f"{me}/main/USDC", "credit": f"{you}/main/USDC"}
        body |= {"amount_micro": "1", "kind": consent.SEND, **move}
        found.append(("wallets.transfer", body | {"auth": "key", "signed": signed}))
    return [wire.canonical({"v": 1, "type": t, "at": at, "body": body}) for t, body in found]


def _line(workload: str, value: float, unit: str, metric: str) -> dict[str, Any]:
    return {
        "workload": workload,
        "engine": "postgresql",
        "metric": metric,
        "value": round(value, 2),
        "unit": unit,
    }
