"""Examples in the API's description. The shapes are real; the values stand for sealed bytes."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import OpenApiExample

_INFERENCE_ID = "6f1c1c1e-8d0a-4a57-9f0e-0d4d7c0a4c11"
_TICKET: dict[str, Any] = {
    "v": 1,
    "type": "share",
    "scope": "query:5b7f0a1e",
    "slot": "row",
    "circuits": ["logistic_infer@1"],
    "params": {"features": 30, "rows": 1, "normalisation": "b2…64 hex digits"},
    "shape": [1, 30],
    "reply_key": "9f…64 hex digits",
    "price_micro": "500000",
    "resolution": "logit",
    "…": "as GET /listings/{slug}/ says; workers.client makes and signs it",
}

REQUEST = OpenApiExample(
    "One sealed row",
    value={
        "input": {
            "ticket": _TICKET,
            "signature": "4b…128 hex digits",
            "envelopes": ["base64", "base64", "base64"],
            "correction": "base64",
        },
        "max_price_micro": "500000",
    },
    request_only=True,
)
SETTLED = OpenApiExample(
    "Answered and paid",
    value={
        "id": _INFERENCE_ID,
        "state": "settled",
        "listing": "response-to-immunotherapy",
        "version": 1,
        "rows": 1,
        "price_micro": "500000",
        "currency": "USDC",
        "hold_id": "0b0f6f5e-6f70-4f2e-8d43-2a5d7f0b8a10",
        "ticket_id": "c0…64 hex digits",
        "sealed": [{"node": "node-0", "fingerprint": "a1…64 hex digits", "blob": "base64"}],
        "job": {"id": "d1…32 hex digits", "circuit": "logistic_infer@1", "state": "done"},
        "reason": None,
        "timeline": [{"state": "settled", "at": "2026-11-24T12:00:00.031Z"}],
        "created_at": "2026-11-24T12:00:00Z",
        "expires_at": "2026-11-24T12:10:00Z",
    },
    response_only=True,
    status_codes=["200"],
)
SHORT = OpenApiExample(
    "Short of money",
    value={
        "type": "urn:flai:problem:insufficient_balance",
        "title": "Payment Required",
        "status": 402,
        "code": "insufficient_balance",
        "detail": "The balance is short by 0.400000 USDC (main). Nothing was charged.",
        "short_micro": "400000",
        "asset": "USDC",
        "top_up": "/wallet/",
    },
    response_only=True,
)
NODES = OpenApiExample(
    "A node is away",
    value={
        "type": "urn:flai:problem:nodes_short",
        "title": "Service Unavailable",
        "status": 503,
        "code": "nodes_short",
        "detail": "node-2 does not answer, and every inference needs three nodes.",
        "retry_after_s": 2,
    },
    response_only=True,
)
USED_UP = OpenApiExample(
    "Your rows of the day",
    value={
        "type": "urn:flai:problem:buyer_rows_used_up",
        "title": "Too Many Requests",
        "status": 429,
        "code": "buyer_rows_used_up",
        "detail": "You asked 40 row(s), and have 12 left of the 1000 of this model that one buyer "
        "may ask until 2026-11-29T00:00:00+00:00. Nothing was charged.",
        "rows": 40,
        "rows_left": 12,
        "rows_max": 1000,
        "resets_at": "2026-11-29T00:00:00+00:00",
        "retry_after_s": 43_200,
    },
    response_only=True,
)
QUOTE = OpenApiExample("Ten rows", value={"rows": 10}, request_only=True)
LISTING = OpenApiExample(
    "A model on sale, in part",
    value={
        "slug": "response-to-immunotherapy",
        "status": "open",
        "version": 1,
        "model": "9c…64 hex digits",
        "model_class": "logistic",
        "price_micro": "500000",
        "currency": "USDC",
        "access": None,
        "node_access": None,
        "resolution": "logit",
        "engine": "ring",
        "engine_vote": None,
        "rows_per_query": 10_000,
        "portion_bps": 5000,
        "rows_per_buyer": 10_000,
        "extraction": {
            "agreement_bps": 9900,
            "rows": 31,
            "measured": True,
            "cost_micro": "15500000",
            "epochs": 1,
            "rows_per_epoch": 20_000,
            "rows_per_epoch_max": 20_000,
            "epoch_days": 1,
        },
        "features": [
            {"name": "age", "type": "number", "unit": "a", "min": "0", "max": "120"},
            {"name": "stage", "type": "category", "levels": ["I", "II", "III"]},
            {"name": "smoker", "type": "boolean"},
        ],
        "circuit": "logistic_infer@1",
        "circuits_hash": "5e…64 hex digits",
        "served": {"ended": 500, "answered_bps": 9980, "p50_ms": 31, "p95_ms": 58},
    },
    response_only=True,
    status_codes=["200"],
)
