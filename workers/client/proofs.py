"""The credential that a query's ticket shows, where a model's nodes ask for one.

A credential is of a wallet key, and tickets are signed by the home's own: the wallet key lends it
the credential, for a while. It does so here where both lie in one home; else where the wallet key
is (`wallet lend`), and this home keeps what was lent as `credential.json`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from apps.protocol import credentials as rules
from apps.protocol import wire
from apps.protocol.consent import WALLET
from workers.client.api import Api, ClientError
from workers.client.home import Home, read_json

HERE_MS = 24 * 3_600_000  # what is lent by a key that lies in the same home is lent anew
DAY_MS = 86_400_000
DAYS_MAX = 90  # that anything is lent for: it can't be taken back


def lent(
    row: Mapping[str, Any], key: Ed25519PrivateKey, *, asker: str, until_ms: int
) -> dict[str, Any]:
    """The proof by which tickets of `asker` show the credential of this row, as the API gives it,
    until then. `key`: the wallet key that it is of."""
    payload, signed, issuer = row["payload"], row["signed"], row["issuer"]["pid"]
    said = rules.credential_of(issuer, payload, signed)
    loan = rules.lending(said.id, key=asker, until_ms=until_ms)
    word = {"until_ms": until_ms, "signature": wire.sign(key, rules.ASKER_DOMAIN, loan)}
    return {"issuer": issuer, "payload": payload, "signed": signed, "lent": word}


def proof_for(asked: Any, home: Home, api: Api, *, at_ms: int) -> dict[str, Any] | None:
    """What a ticket of this home must show where a listing's nodes ask for this; None: nothing.

    Raises: ClientError("credential_needed"), naming the way to one.
    """
    try:
        demand = rules.demand_of(asked)
    except ValueError as error:
        raise ClientError(f"What the nodes ask for can't be read: {error}.") from None
    if demand is None:
        return None
    asker, why = home.identity_hex(), f"This home holds no credential “{demand.credential}”."
    try:
        kept = _kept(home)
    except ClientError as error:  # what `wallet lend` left that failed
        kept, why = [], error.text
    for proof in [*kept, *_made(home, api, asker, at_ms)]:
        try:
            rules.shown(demand, proof, sender=asker, at_ms=at_ms)
        except rules.NotShown as error:
            why = error.text
        else:
            return proof
    raise ClientError(
        f"{why} The model's nodes answer holders of “{demand.credential}” alone. Nothing was sent. "
        "Where the wallet key lies in another home, run there: python3 -m workers.client wallet "
        f"lend --to {asker} > credential.json, and put the file into {home.path}.",
        code="credential_needed",
    )


def _kept(home: Home) -> Sequence[Any]:
    path = home.path / "credential.json"
    return [read_json(path)] if path.exists() else []


def _made(home: Home, api: Api, asker: str, at_ms: int) -> Sequence[dict[str, Any]]:
    """By the wallet key of this home, of all that the party holds."""
    own = {wire.public_hex(key): key for key in home.wallet_keys(WALLET)}
    if not own:
        return []
    until_ms = at_ms + HERE_MS
    return [
        lent(row, own[row["payload"]["key"]], asker=asker, until_ms=until_ms)
        for row in api.get("credentials/", role="held")["results"]
        if row["state"] == "in_force" and row["payload"]["key"] in own
    ]
