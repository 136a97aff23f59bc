"""An attestation: what a site says about its data, signed, without any of the data.

    {"v":1, "rfm", "pid", "role", "schema_hash", "rows", "columns":[…], "missing_ppm",
     "strata":{value: rows ≥ 5 | null}, "dataset_commitment"}

It is bound to the RFM, the party and the role, so that it means nothing elsewhere. No count below
five is ever stated: small groups are persons.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from apps.core.errors import Unprocessable
from apps.protocol import wire

DOMAIN = "flai/attestation/v1"
SCHEMA_DOMAIN = "flai/schema/v1"
COUNT_MIN = 5
ROWS_MAX = 10**9
FIELDS = frozenset(
    {
        "v",
        "rfm",
        "pid",
        "role",
        "schema_hash",
        "rows",
        "columns",
        "missing_ppm",
        "strata",
        "dataset_commitment",
    }
)


class BadAttestation(Unprocessable):
    code = "bad_attestation"


def schema_hash(schema: Mapping[str, Any]) -> str:
    """Of {"standard", "features", "label", "strata"} of a checked spec."""
    return wire.digest(SCHEMA_DOMAIN, dict(schema))


def check(
    attestation: object,
    signature: object,
    *,
    public_key: str,
    rfm: str,
    pid: str,
    role: str,
    schema: Mapping[str, Any],
    rows_min: int,
) -> dict[str, Any]:
    """The attestation, if everything about it holds. Raises BadAttestation naming the field."""
    if not isinstance(attestation, dict) or set(attestation) != FIELDS:
        raise _bad("attestation", f"An attestation has exactly the fields {sorted(FIELDS)}.")
    if type(attestation["v"]) is not int or attestation["v"] != 1:
        raise _bad("v", "The version must be 1.")
    for field, expected in (("rfm", rfm), ("pid", pid), ("role", role)):
        if attestation[field] != expected:
            raise _bad(field, f"The attestation names another {field} than this application.")
    if attestation["schema_hash"] != schema_hash(schema):
        raise _bad("schema_hash", "The data was checked against another schema than this RFM's.")
    names = [feature["name"] for feature in schema["features"]]
    if attestation["columns"] != names:
        raise _bad("columns", "The columns are not the features of the schema, in its order.")
    rows = _whole(attestation["rows"], "rows", 0, ROWS_MAX)
    if rows < rows_min:
        raise _bad("rows", f"At least {rows_min} rows are needed; {rows} are attested.")
    _whole(attestation["missing_ppm"], "missing_ppm", 0, 1_000_000)
    _strata(attestation["strata"], schema["strata"], rows)
    if not wire.is_hex(attestation["dataset_commitment"], 32):
        raise _bad("dataset_commitment", "The commitment must be 64 hex digits.")
    try:
        wire.verify(public_key, DOMAIN, attestation, signature)  # type: ignore[arg-type]
    except wire.BadSignature:
        raise _bad("signature", "The signature does not match your signing key.") from None
    return attestation


def _strata(stated: object, strata: Mapping[str, Any] | None, rows: int) -> None:
    allowed = strata["values"] if strata else []
    if not isinstance(stated, dict) or not set(stated) <= set(allowed):
        raise _bad("strata", "The strata are not those of the schema.")
    counted = 0
    for value, count in stated.items():
        if count is not None:
            counted += _whole(count, f"strata.{value}", COUNT_MIN, ROWS_MAX)
    if counted > rows:
        raise _bad("strata", "The strata hold more rows than there are.")


def _whole(value: object, field: str, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        raise _bad(field, f"Must be a whole number from {least} to {most}.")
    return value


def _bad(field: str, text: str) -> BadAttestation:
    return BadAttestation(text=text, field=field)
