"""Tables in, tables of answers out; and the same for programs with an event loop.

A table is rows of numbers and level names, a numpy array, or a pandas data frame, whose columns are
taken by name. It goes out in one request or, where it has more rows than one takes
(`Buyer.rows_max`), in parts, a few at a time. Every part is a query that is kept before it is sent,
under a key that follows from the table's: what was paid can be opened, whatever broke the call off,
by the same call again.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from functools import partial
from typing import Any, Self, TypeVar

import numpy as np

from apps.protocol.circuits.resolution import BAND, LABEL
from workers.client.api import ClientError
from workers.client.buyer import Answers, Buyer, Prediction, kept_name
from workers.client.home import Home
from workers.client.nodes import trusted_nodes
from workers.client.questions import check_ranges, named, table_of

AT_ONCE = 4
T = TypeVar("T")


def columns_of(answers: Answers, label: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Answers as named columns, a value a row: label; probability (and logit), of classes
    probability_NAME, of times until an event relative_hazard; else the label's own name. A band
    has two: …_low and …_high."""
    if answers.resolution == LABEL:
        return {"label": list(answers.labels)}
    if "classes" in label:
        names = [f"probability_{name}" for name in label["classes"]]
    elif "positive" in label:
        names = ["probability"]
    else:
        names = ["relative_hazard" if "event" in label else str(label["name"])]
    if answers.resolution == BAND:
        names = [f"{name}_{end}" for name in names for end in ("low", "high")]
    named = zip(names, zip(*answers.answers, strict=True), strict=True)
    columns = {name: list(values) for name, values in named}
    return columns | ({"logit": list(answers.logits)} if answers.logits else {})


class Parts:
    """The queries that a table is asked in; cut as at the first call with this key.

    Raises: DataError; ClientError("idempotency_conflict") for a key that was used for other rows.
    """

    def __init__(self, buyer: Buyer, table: Any, *, key: str | None = None) -> None:
        values = table_of(table, buyer.features)
        check_ranges(values, buyer.features)
        rows = named(values, buyer.features)
        self.buyer, self.table, self.key = buyer, table, key or str(uuid.uuid4())
        self._passing = key is None
        asked = hashlib.sha256(json.dumps([buyer.slug, rows]).encode()).hexdigest()
        # Made here, before several threads look for them.
        trusted_nodes(buyer.home, buyer.listing["nodes"])
        buyer.home.identity()
        size = buyer.rows_max
        self._record = kept_name(f"table {self.key}")
        if not self._passing or len(rows) > size:
            kept = buyer.home.kept_query(self._record)
            if kept is None:
                kept = {"asked": asked, "rows": size, "listing": buyer.slug}
                kept |= {"key": self.key} if self._passing else {}
                buyer.home.keep_query(self._record, kept)
            if kept["asked"] != asked:
                raise ClientError(
                    "You used this idempotency key for other rows. Choose a new one for a new "
                    "table.",
                    code="idempotency_conflict",
                )
            size = kept["rows"]
        self.rows = [rows[start : start + size] for start in range(0, len(rows), size)]
        self._own = hashlib.sha256(self.key.encode()).hexdigest()[:32]

    @property
    def _alone(self) -> bool:
        """One query without a key of the caller's."""
        return self._passing and len(self) == 1

    def __len__(self) -> int:
        return len(self.rows)

    def ask(self, number: int) -> Prediction:
        """One part's answers. A query of an earlier call that was released, which cost nothing, is
        followed by another one. Raises: ClientError."""
        if self._alone:
            return self.buyer.predict(self.rows[number])
        for attempt in itertools.count():
            key = f"{self._own}/{number}/{attempt}"
            earlier = self.buyer.home.kept_query(kept_name(key)) is not None
            try:
                return self.buyer.predict(self.rows[number], idempotency_key=key)
            except ClientError as error:
                if error.code != "released" or not earlier:
                    raise
        raise AssertionError("unreachable: numbers don't end")

    def forget(self) -> None:
        """All is answered: of a key that its caller never had nothing stays."""
        if self._passing and not self._alone:
            self.buyer.home.forget_query(self._record)
            for number in range(len(self)):
                self.buyer.home.forget_query(kept_name(f"{self._own}/{number}/0"))

    def broken_off(self, error: ClientError, done: int) -> ClientError:
        """The same error, and how to go on."""
        if self._alone:
            return error
        return error.saying(
            f"{error.text} {done} of {len(self)} parts are answered and paid. The same call with "
            f"the idempotency key {self.key} goes on with the rest, and pays no part twice."
        )

    def joined(self, answered: Sequence[Prediction]) -> Any:
        """The answers by column, arrays if the table was one; or a frame with its index."""
        columns: dict[str, list[Any]] = {}
        for part in answered:
            for name, cells in columns_of(part, self.buyer.listing.get("label", {})).items():
                columns.setdefault(name, []).extend(cells)
        if isinstance(self.table, np.ndarray):
            return {name: np.array(cells) for name, cells in columns.items()}
        framed = hasattr(self.table, "columns") and hasattr(self.table, "index")
        return type(self.table)(columns, index=self.table.index) if framed else columns


def predict_parts(parts: Parts, *, at_once: int = AT_ONCE) -> list[Prediction]:
    """Each part's answers. After a failure no further part begins; those under way are waited for.

    Raises: ClientError, which says how to go on.
    """
    with ThreadPoolExecutor(min(at_once, len(parts)), thread_name_prefix="query") as threads:
        asked = [threads.submit(parts.ask, number) for number in range(len(parts))]
        try:
            wait(asked, return_when=FIRST_EXCEPTION)
        finally:
            threads.shutdown(cancel_futures=True)
    return _collected(parts, asked)


def _collected(parts: Parts, asked: Sequence[Future[Prediction]]) -> list[Prediction]:
    ended = [future for future in asked if not future.cancelled()]
    failed = [error for future in ended if (error := future.exception()) is not None]
    for error in failed:
        if isinstance(error, ClientError):
            raise parts.broken_off(error, len(ended) - len(failed)) from None
        raise error
    parts.forget()
    return [future.result() for future in asked]


def predict_table(
    buyer: Buyer, table: Any, *, idempotency_key: str | None = None, at_once: int = AT_ONCE
) -> Any:
    """The answers to a table: columns by name (arrays if it was one), or a frame with its index.

    Raises: DataError before anything is sent; else as `predict_parts`.
    """
    parts = Parts(buyer, table, key=idempotency_key)
    return parts.joined(predict_parts(parts, at_once=at_once))


class AsyncBuyer:
    """A buyer for programs with an event loop: `at_once` queries are under way at a time.

        async with AsyncBuyer(Home("./me"), "predict-malignant") as buyer:
            answers = await asyncio.gather(*(buyer.predict([row]) for row in rows))

    A call that is cancelled begins nothing more; what was sent may be paid then, and its answer is
    still opened: with an idempotency key by the same call, else by `reopening.reopened`.
    """

    def __init__(self, home: Home, listing: str, *, at_once: int = AT_ONCE, **options: Any) -> None:
        self._make = lambda: Buyer(home, listing, **options)
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="query")
        self.sync: Buyer

    async def __aenter__(self) -> Self:
        try:
            self.sync = await self._run(self._make)
            await self._run(lambda: trusted_nodes(self.sync.home, self.sync.listing["nodes"]))
            await self._run(self.sync.home.identity)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)
        if hasattr(self, "sync"):
            self.sync.api.close()

    async def predict(
        self, rows: Sequence[Sequence[float | str]], *, idempotency_key: str | None = None
    ) -> Prediction:
        """As `Buyer.predict`."""
        return await self._run(lambda: self.sync.predict(rows, idempotency_key=idempotency_key))

    async def predict_table(self, table: Any, *, idempotency_key: str | None = None) -> Any:
        """As `predict_table`."""
        parts = await self._run(lambda: Parts(self.sync, table, key=idempotency_key))
        asked = [self._threads.submit(partial(parts.ask, n)) for n in range(len(parts))]
        try:
            await asyncio.gather(*map(asyncio.wrap_future, asked))
        except ClientError:
            pass  # said below, when the others have ended
        finally:
            for future in asked:
                future.cancel()
        await asyncio.to_thread(wait, asked)
        return parts.joined(_collected(parts, asked))

    async def quote(self, rows: int) -> dict[str, Any]:
        """As `Buyer.quote`."""
        return await self._run(lambda: self.sync.quote(rows))

    async def _run(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)
