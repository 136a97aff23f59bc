"""The buyer: a row goes out shared and sealed, the answer is opened here and nowhere else.

    p = 1 / (1 + exp(−z)),   z the model's logit for (x − mean) / std

and for other model classes what they make of their scores z: probabilities of the classes, a
number on the label's scale, an expected count. The nodes compute z on shares, or as coarse an
answer as the model's makers allow, and seal their parts of it to a key made for this one query.
Every part comes from two nodes, and they must agree; or of Shamir shares one comes from each, and
all must fit. Each node must have signed for what it sealed.
"""

from __future__ import annotations

import hashlib
import json
import math
import secrets
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from apps.protocol.circuits import CIRCUITS, INFERS
from apps.protocol.circuits.family import NORMALISATION, QUERY_ROWS_MAX
from apps.protocol.circuits.resolution import BAND, LABEL, LOGIT, ROUNDED
from apps.protocol.encoding import encode, width
from apps.protocol.normalise import constants_digest
from apps.protocol.targets import extras_of, scale_of
from apps.protocol.tickets import RING, SHAMIR, VERIFIED, permits, threshold_of
from workers.client import questions, training
from workers.client.api import Api, ClientError, wait_for
from workers.client.errors import DataError
from workers.client.home import Home
from workers.client.nodes import answered, check_circuit, trusted_nodes
from workers.client.proofs import proof_for
from workers.client.questions import Row
from workers.mpc import keys, sealing

SLOT = "row"
TICKET_LIFETIME_S = 600
QUERY_DEADLINE_S = 90.0
WAIT_S = 10
ENDED = ("settled", "released")
EXPIRED = ("expired", "quote_expired")
NOTHING_HELD = ("nodes_short", "query_lost", "too_many_waiting", "buyer_rows_used_up")
RELEASED = "released"
LISTING_CHANGED = ("ticket_mismatch", "price_changed")
PLAN_ASIDE = ("plan_covers", "plan_changed", "quota_used_up")


@dataclass(frozen=True)
class Answers:
    """What a model says of k rows.

    resolution: how finely the nodes show it, as the model's makers decided.
    answers: rounded and logit: per row the probability of the positive label, of each class, or the
    number. band: from and to of each of these. label: 1 for the positive label and 0 for the other,
    or the place of the class. labels: the same in words, of a label only. scores: before the
    class's link, of a logit only. probabilities [k]: of the positive label, logits [k]: its scores;
    empty where the label is not binary or the answer too coarse.
    """

    resolution: str
    answers: tuple[tuple[float, ...], ...]
    labels: tuple[str, ...] = ()
    scores: tuple[tuple[float, ...], ...] = ()
    probabilities: tuple[float, ...] = ()
    logits: tuple[float, ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        """Each row's answer in a line."""
        if self.resolution == LABEL:
            return self.labels
        if self.resolution == BAND:
            pairs = (zip(row[::2], row[1::2], strict=True) for row in self.answers)
            return tuple(" ".join(f"{low:.6g}..{high:.6g}" for low, high in row) for row in pairs)
        digits = ".6g" if self.resolution == ROUNDED else ".4f"
        return tuple(" ".join(f"{value:{digits}}" for value in row) for row in self.answers)


@dataclass(frozen=True)
class Prediction(Answers):
    """Answers, and the payment that bought them."""

    query_id: str = ""
    price_micro: int = 0


def meaning(
    circuit: str, values: npt.NDArray[np.int64], f: int, label: Mapping[str, Any]
) -> Answers:
    """What the opened values [k, …] of a query's circuit say about rows with this label.

    Raises: IndexError for a step of the answer that does not exist.
    """
    model, resolution = INFERS[circuit]
    middle, unit = scale_of(model, label)
    if resolution == LABEL:
        steps = values.reshape(len(values), -1)
        read = model.scale.read(LABEL, steps)
        positive = label.get("positive", "1")
        names = label.get("classes") or [f"not {positive}", positive]
        labels = tuple(str(names[place]) for place in steps[:, 0].tolist())
        return Answers(LABEL, _rows(read), labels)
    if resolution != LOGIT:
        read = middle + unit * model.scale.read(resolution, values.reshape(len(values), -1))
        binary = model.label == "binary" and resolution == ROUNDED
        return Answers(
            resolution, _rows(read), probabilities=tuple(read[:, 0].tolist()) if binary else ()
        )
    scores = (values / 2.0**f).reshape(len(values), -1)
    logits = tuple(scores[:, 0].tolist()) if model.label == "binary" else ()
    return Answers(
        LOGIT,
        _rows(middle + unit * model.answer(scores)),
        scores=_rows(scores),
        probabilities=tuple(map(sigmoid, logits)),
        logits=logits,
    )


def _rows(table: npt.NDArray[np.float64]) -> tuple[tuple[float, ...], ...]:
    return tuple(map(tuple, table.tolist()))


class Buyer:
    """Buys predictions of one listing from the balance of the home's party.

    `predict(rows)` takes rows of features in the listing's order and units, of a category the
    name of a level, as many as its `rows_per_query`, 10 000 at most, and pays the listing's price
    for each of them, or where large buyers pay less what a quote says: once, for all of them or for
    none.

    max_row_micro: the most that a row may cost; without it the listing's price as it is read now,
    once. No ticket for more is signed, whatever the server quotes and says it is paid from: rows of
    a plan that you began before the price fell may need a limit of yours.

    verified: each ticket demands that four nodes compute that check each other; a listing whose
    model is not asked so is refused before anything is sent. threshold: the least number of nodes
    that shall learn nothing of a row by telling each other all that they see, refused likewise;
    without it the highest that this home has signed for the listing, until you accept a lower one:
    accept_threshold, down to how many from now on. The nodes compute with a row as its ticket says,
    or not at all.
    """

    def __init__(
        self,
        home: Home,
        listing: str,
        *,
        api: Api | None = None,
        max_row_micro: int | None = None,
        verified: bool = False,
        threshold: int | None = None,
        accept_threshold: int | None = None,
    ) -> None:
        if threshold is not None and accept_threshold is not None:
            raise ClientError("Give threshold or accept_threshold, not both.", code="bad_threshold")
        if any(told is not None and told < 1 for told in (threshold, accept_threshold)):
            raise ClientError("A threshold is a number of nodes, from 1.", code="bad_threshold")
        self.home = home
        self.api = api or home.api()
        self.listing = self.api.get(f"listings/{listing}/")
        self.slug = listing
        self.max_row_micro = self.price_micro if max_row_micro is None else max_row_micro
        self.verified, self.threshold = verified, threshold
        self.accept_threshold = accept_threshold
        self._has_plan = False

    @property
    def features(self) -> list[dict[str, Any]]:
        """What a row gives, in order: name, type, levels or unit and range of each."""
        return list(self.listing["features"])

    @property
    def columns(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(f["name"] for f in self.features)

    @property
    def engine(self) -> str:
        """What each ticket is signed for: Shamir shares where the model is in such."""
        if self.verified:
            return VERIFIED
        listed = str(self.listing.get("engine", RING))
        return listed if listed in SHAMIR else RING

    @property
    def price_micro(self) -> int:
        return int(self.listing["price_micro"])

    def predict(
        self, rows: Sequence[Sequence[float | str]], *, idempotency_key: str | None = None
    ) -> Prediction:
        """One paid query. Raises: ClientError; where the query fails, the hold is released.

        The sealed row and its reply key are kept in the home before they are sent, until the answer
        is opened; what breaks off before is named in the error, and opened by `reopened`. With an
        `idempotency_key` of yours they stay, so that the same call again, by another process too,
        is the same query: paid once, and its answer can still be opened.
        """
        key, passing = idempotency_key or str(uuid.uuid4()), idempotency_key is None
        try:
            query, ticket, reply_private = self._sent(rows, key, passing=passing)
            answer = self._open(self._ended(query), ticket, reply_private)
        except ClientError as error:
            if error.code == RELEASED and passing:
                self.home.forget_query(kept_name(key))
            if not passing or self.home.kept_query(kept_name(key)) is None:
                raise
            raise error.saying(
                f"{error.text} If it arrived it is paid once, and its answer waits: `answers` "
                f"opens it, or the same call with the idempotency key {key}."
            ) from None
        if passing:
            self.home.forget_query(kept_name(key))
        return answer

    def _sent(
        self, rows: Sequence[Sequence[float | str]], key: str, *, passing: bool
    ) -> tuple[dict[str, Any], Mapping[str, Any], Any]:
        """(the query as the server has it, its ticket, what opens its answer). Asked anew, once,
        where the server knows no query by this key, else it had repeated its answer: the kept one
        never arrived, and is too old now; or model, price or what pays are not what the ticket
        says. Nothing was charged then."""
        for last in (False, True):
            body, reply_private = self._kept_query(rows, key, passing=passing)
            try:
                return self._post(body, key), body["input"]["ticket"], reply_private
            except ClientError as error:
                again = error.code in EXPIRED + PLAN_ASIDE + LISTING_CHANGED
                if (again and not last) or (passing and _refused(error)):
                    self.home.forget_query(kept_name(key))
                if last or not again:
                    raise
                self._has_plan = self._has_plan or error.code in PLAN_ASIDE
                if error.code in LISTING_CHANGED:
                    self._read_again()
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _read_again(self) -> None:
        """The listing as it is now. Raises: ClientError where rows would mean something else."""
        now = self.api.get(f"listings/{self.slug}/")
        if now.get("features") != self.listing.get("features"):
            raise ClientError(
                "The model takes other features now. Nothing was charged; begin again with them.",
                code="listing_changed",
            )
        self.listing = now

    def quote(self, rows: int) -> dict[str, Any]:
        """What so many rows cost now; the price holds for ten minutes. Raises: ClientError."""
        return dict(self.api.post(f"listings/{self.slug}/quote/", {"rows": rows}))

    def _post(self, body: Mapping[str, Any], key: str) -> dict[str, Any]:
        path = f"listings/{self.slug}/inferences/"
        return dict(self.api.post(path, dict(body), idempotency_key=key, wait_s=WAIT_S))

    def _quoted_query(
        self, rows: Sequence[Sequence[float | str]], key: str
    ) -> tuple[dict[str, Any], Any]:
        """The body of the request, and what opens its answer. Where the price depends on the buyer
        it is asked for first."""
        self._fit(rows)
        depends = any(self.listing.get(name) for name in ("tiers", "plans", "rebate_bps"))
        asks = depends or self._has_plan
        quote = self.quote(len(rows)) if asks else None
        price_micro = int(quote["price_micro"]) if quote else self.price_micro * len(rows)
        if price_micro > self.max_row_micro * len(rows):
            raise ClientError(
                f"These {len(rows)} rows shall cost {price_micro} micro-units, more than the "
                f"{self.max_row_micro} a row that you know of. Nothing was sent. Look at the price "
                "again; to pay it, say max_row_micro.",
                code="price_changed",
            )
        upload, reply_private = self.make_query(rows, price_micro=price_micro)
        return _body(upload, quote["quote"] if quote else None), reply_private

    def _kept_query(
        self, rows: Sequence[Sequence[float | str]], key: str, *, passing: bool
    ) -> tuple[dict[str, Any], Any]:
        demand = [self.engine] if self.engine != RING else []
        listed = questions.named(self._table(rows), self.features)
        question = json.dumps([self.slug, listed, *demand])
        asked = hashlib.sha256(question.encode()).hexdigest()
        name = kept_name(key)
        kept = self.home.kept_query(name)
        if kept is None:
            body, reply_private = self._quoted_query(rows, key)
            secret = reply_private.private_bytes_raw().hex()
            kept = {"asked": asked, "upload": body["input"], "reply_key": secret}
            kept |= {"quote": body.get("quote"), "listing": self.slug}
            kept |= {"key": key} if passing else {}
            self.home.keep_query(name, kept)
        if kept["asked"] != asked:
            raise ClientError(
                "You used this idempotency key for other rows. Choose a new one for a new query.",
                code="idempotency_conflict",
            )
        trusted_nodes(self.home, self.listing["nodes"])  # before it is sent
        self._check_threshold(kept["upload"]["ticket"].get("engine", RING))
        body = _body(kept["upload"], kept.get("quote"))
        return body, keys.hpke_key(bytes.fromhex(kept["reply_key"]))

    def make_query(
        self, rows: Sequence[Sequence[float | str]], *, price_micro: int | None = None
    ) -> tuple[dict[str, Any], Any]:
        """The upload of one query and the private key that opens its answer.

        price_micro: as quoted; without it the listing's price of each row.
        """
        values = self._standardised(rows)
        nodes = trusted_nodes(self.home, self.listing["nodes"])
        if self.listing.get("obstacle"):
            raise ClientError(str(self.listing["obstacle"]), code="circuit_changed")
        if not permits(self.engine, self.listing.get("engine", RING)):
            raise ClientError(
                "Nodes that do not check each other answer for this model. Nothing was sent.",
                code="verified_only",
            )
        self._check_threshold(self.engine)
        name = self.listing["circuit"]
        if name not in INFERS:
            raise ClientError(f"This release can't query {name}.", code="unknown_circuit")
        model, resolution = INFERS[name]
        params = {
            "features": width(self.features),
            "rows": len(values),
            NORMALISATION: self._normalisation(),
            **extras_of(model, {"label": {}, **self.listing}),
        }
        circuit = CIRCUITS[name]
        try:
            circuit.validate(params)
        except ValueError as error:
            raise DataError(f"These rows don't fit one query: {error}.") from None
        hashed = check_circuit(self.listing["circuits_hash"], name, params)
        f = circuit.slots[SLOT].f
        # A key of its own for each query: an answer can't be tied to another one's.
        reply_private = keys.hpke_key(secrets.token_bytes(32))
        now = int(time.time())
        fields = {
            "scope": f"query:{uuid.uuid4().hex}",
            "slot": SLOT,
            "circuits": [name],
            "circuits_hash": hashed,
            "params": params,
            "f": f,
            "engine": self.engine,
            "model": self.listing["model"],
            "price_micro": str(price_micro or self.price_micro * len(values)),
            "resolution": resolution,
            "issued_at": now,
            "expires_at": now + TICKET_LIFETIME_S,
        }
        asked = self.listing.get("node_access")
        if proof := proof_for(asked, self.home, self.api, at_ms=now * 1000):
            fields["access"] = proof
        words = np.round(values * 2.0**f).astype(np.int64)
        self.home.keep_threshold(f"listing:{self.slug}", threshold_of(self.engine))
        upload = sealing.make_upload(words, fields, self._identity, nodes, reply=reply_private)
        return upload, reply_private

    @cached_property
    def _identity(self) -> Ed25519PrivateKey:
        return self.home.identity()

    def _check_threshold(self, engine: str) -> None:
        """Raises: ClientError where fewer curious nodes could read a row than you allow."""
        could, told, what = threshold_of(engine), self.threshold, f"listing:{self.slug}"
        least = self.home.threshold_signed(what) if told is None else told
        if could >= least:
            return
        why = f"and you asked that {least} can't."
        if told is None:
            if self.accept_threshold is not None and self.accept_threshold <= could:
                self.home.accept_threshold(what, could)
                return
            why = (
                f"and until now {least} could not. {self._decided(could)} If you accept it: "
                f"accept_threshold={could} (--accept-threshold {could})."
            )
        raise ClientError(
            f"{could + 1} nodes that put their parts together could read a row, {why} "
            "Nothing was sent.",
            code="threshold_too_low",
        )

    def _decided(self, could: int) -> str:
        """By which vote of its members a model is so, as the site says."""
        vote = self.listing.get("engine_vote")
        if not isinstance(vote, dict) or threshold_of(str(vote.get("engine"))) != could:
            return "The site names no vote for that: ask the members first."
        where = f"{self.api.url}/proposals/{vote.get('proposal')}/"
        return f"The site says that its members voted for that: {where}."

    def collect(self, query_id: str, ticket: Mapping[str, Any], reply_private: Any) -> Prediction:
        """Wait for the query, open its three sealed parts.

        Raises: ClientError when released; ClientError("not_receipted") when the pinned nodes did
        not sign for these very parts.
        """
        return self._open(self._ended({"id": query_id, "state": "held"}), ticket, reply_private)

    def _ended(self, query: dict[str, Any]) -> dict[str, Any]:
        """The query when it has ended: at once if it has already."""
        if query["state"] in ENDED:
            return query

        def ended() -> dict[str, Any] | None:
            answer = self.api.get(f"inferences/{query['id']}/", wait_s=WAIT_S)
            return answer if answer["state"] in ENDED else None

        return wait_for(ended, deadline_s=QUERY_DEADLINE_S, what="the answer", every_s=0.05)

    def _open(
        self, query: dict[str, Any], ticket: Mapping[str, Any], reply_private: Any
    ) -> Prediction:
        if query["state"] == "released":
            why = query.get("reason") or "the nodes could not compute it"
            raise ClientError(f"No answer: {why}. You were not charged.", code=RELEASED)
        nodes = trusted_nodes(self.home, self.listing["nodes"])
        blobs, computing = answered(query, ticket, nodes=nodes)
        try:
            values, f = sealing.open_outputs(
                blobs, ticket, reply_private, nodes, computing=computing
            )
        except sealing.SealError as error:
            raise ClientError(
                f"The answer can't be trusted: {error.text}", code=error.code
            ) from None
        try:
            said = meaning(
                ticket["circuits"][0],
                values.reshape(ticket["params"]["rows"], -1),
                f,
                self.listing.get("label", {}),
            )
        except IndexError:
            raise ClientError(
                "The answer can't be trusted: there is no such step.", code="bad_output"
            ) from None
        self.home.journal.write(
            "answered", query=query["id"], listing=self.slug, price_micro=str(query["price_micro"])
        )
        return Prediction(**vars(said), query_id=query["id"], price_micro=int(query["price_micro"]))

    def _normalisation(self) -> str:
        """The name of the listing's constants. Nodes refuse any but the model's own: other ones,
        whoever shows them, would shift every row and so what the model says of it."""
        try:
            return constants_digest(self.listing["normalisation"])
        except (KeyError, ValueError) as error:
            raise ClientError(f"The listing's normalisation can't be read: {error}.") from None

    @property
    def rows_max(self) -> int:
        """How many rows one request takes, as the listing says."""
        return int(self.listing.get("rows_per_query", QUERY_ROWS_MAX))

    def _fit(self, rows: Sequence[Sequence[float | str]]) -> None:
        if len(rows) > self.rows_max:
            raise DataError(
                f"One request takes {self.rows_max} rows of this model at most; these are "
                f"{len(rows)}. Nothing was sent. `predict_table` asks for them in several."
            )

    def _table(self, rows: Sequence[Sequence[float | str]]) -> np.ndarray:
        if not len(rows):
            raise DataError("There is no row to predict.")
        for number, row in enumerate(rows, start=1):
            if len(row) != len(self.columns):
                raise DataError(
                    f"Row {number} has {len(row)} values; the model takes {len(self.columns)}."
                )
        return questions.table_of(rows, self.features)

    def _standardised(self, rows: Sequence[Sequence[float | str]]) -> np.ndarray:
        self._fit(rows)
        values = self._table(rows)
        questions.check_ranges(values, self.features)
        mean, std = training.constants(self.listing["normalisation"])
        return training.standardise(encode(values, self.features), mean, std)


def rows_from_csv(path: Path | str, features: Sequence[Mapping[str, Any] | str]) -> list[Row]:
    """The rows of a file with a header, as `predict` takes them; further columns are ignored and
    stay here. features: the buyer's; of numbers their names are enough."""
    return questions.rows_of(Path(path), features)


def _body(upload: Mapping[str, Any], quote: str | None) -> dict[str, Any]:
    body = {"input": upload, "max_price_micro": upload["ticket"]["price_micro"]}
    return body | {"quote": quote} if quote else body


def _refused(error: ClientError) -> bool:
    """Whether the server has looked at the query and holds nothing for it."""
    status = error.status or 0
    return (status not in (401, 429) and 400 <= status < 500) or error.code in NOTHING_HELD


def kept_name(key: str) -> str:
    """Under which the home keeps the query of an idempotency key."""
    return hashlib.sha256(key.encode()).hexdigest()[:32]


def sigmoid(z: float) -> float:
    """1 / (1 + exp(−z)) without overflow."""
    if z >= 0:
        return 1.0 / (1.0 + math.exp(-z))
    e = math.exp(z)
    return e / (1.0 + e)
