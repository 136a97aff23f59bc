"""Tables of any length in, tables of answers out; and the same for programs with an event loop.

A table is rows of numbers, a numpy array, or a pandas data frame, whose columns are taken by name.
It goes out as as many queries as the nodes' limit of rows asks for, a few at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt

from apps.protocol.circuits.resolution import BAND, LABEL
from workers.client.buyer import Answers, Buyer, Prediction
from workers.client.data import DataError
from workers.client.errors import few
from workers.client.home import Home
from workers.client.nodes import trusted_nodes

AT_ONCE = 4
T = TypeVar("T")


def features_of(table: Any, columns: Sequence[str]) -> npt.NDArray[np.float64]:
    """The features [n, d] of a table, in the model's order; further columns of a frame stay here.

    Raises: DataError, naming the row or column.
    """
    if hasattr(table, "columns") and hasattr(table, "to_numpy"):
        missing = [name for name in columns if name not in table.columns]
        if missing:
            raise DataError(f"The table lacks the columns {few(missing)}.")
        if not table.columns.is_unique:
            raise DataError("The table has two columns of one name.")
        table = table[list(columns)].to_numpy()
    try:
        values = np.asarray(table, dtype=float)
    except (ValueError, TypeError):
        raise DataError("The table has rows of unlike length, or what is no number.") from None
    if values.ndim != 2 or values.shape[1] != len(columns):
        raise DataError(f"The model takes rows of {len(columns)} values, not {values.shape[1:]}.")
    for row, column in np.argwhere(~np.isfinite(values))[:1]:
        raise DataError(f"Row {row + 1}, column “{columns[column]}” is missing or not finite.")
    return values


def columns_of(answers: Answers, label: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Answers as named columns, a value a row: label; probability (and logit), of classes
    probability_NAME; else the label's own name. A band has two: …_low and …_high."""
    if answers.resolution == LABEL:
        return {"label": list(answers.labels)}
    names = ["probability" if "positive" in label else str(label["name"])]
    if "classes" in label:
        names = [f"probability_{name}" for name in label["classes"]]
    if answers.resolution == BAND:
        names = [f"{name}_{end}" for name in names for end in ("low", "high")]
    named = zip(names, zip(*answers.answers, strict=True), strict=True)
    columns = {name: list(values) for name, values in named}
    return columns | ({"logit": list(answers.logits)} if answers.logits else {})


def predict_parts(
    buyer: Buyer,
    rows: Sequence[Sequence[float]],
    *,
    idempotency_key: str | None = None,
    at_once: int = AT_ONCE,
) -> list[Prediction]:
    """Any number of rows as queries that the nodes take, `at_once` at a time; part i by key/i.

    With an idempotency key the same call again, after whatever broke it off, pays only for what
    was not paid yet. Raises: ClientError; what was answered until then is paid.
    """
    size = int(buyer.listing["rows_per_query"])
    parts = [rows[start : start + size] for start in range(0, len(rows), size)]
    if len(parts) <= 1:
        return [buyer.predict(rows, idempotency_key=idempotency_key)]
    trusted_nodes(buyer.home, buyer.listing["nodes"])  # pinned before several threads look
    keys = [f"{idempotency_key}/{i}" if idempotency_key else None for i in range(len(parts))]
    threads = ThreadPoolExecutor(min(at_once, len(parts)), thread_name_prefix="query")
    try:
        asked = threads.map(lambda part, key: buyer.predict(part, idempotency_key=key), parts, keys)
        return list(asked)
    finally:
        threads.shutdown(cancel_futures=True)


def predict_table(
    buyer: Buyer, table: Any, *, idempotency_key: str | None = None, at_once: int = AT_ONCE
) -> Any:
    """The answers to a table: columns by name, or a data frame with its index if it was one.

    Raises: DataError before anything is sent; else as `predict_parts`.
    """
    rows = features_of(table, buyer.columns).tolist()
    columns: dict[str, list[Any]] = {}
    for part in predict_parts(buyer, rows, idempotency_key=idempotency_key, at_once=at_once):
        for name, cells in columns_of(part, buyer.listing.get("label", {})).items():
            columns.setdefault(name, []).extend(cells)
    return type(table)(columns, index=table.index) if hasattr(table, "to_numpy") else columns


class AsyncBuyer:
    """A buyer for programs with an event loop: `at_once` queries are under way at a time.

        async with AsyncBuyer(Home("./me"), "predict-malignant") as buyer:
            answers = await asyncio.gather(*(buyer.predict([row]) for row in rows))

    A cancelled call may have been sent, and is paid then; with an idempotency key the same call
    opens its answer.
    """

    def __init__(self, home: Home, listing: str, *, at_once: int = AT_ONCE, **options: Any) -> None:
        self._make = lambda: Buyer(home, listing, **options)
        self._at_once = at_once
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="query")
        self.sync: Buyer

    async def __aenter__(self) -> Self:
        self.sync = await self._run(self._make)
        await self._run(lambda: trusted_nodes(self.sync.home, self.sync.listing["nodes"]))
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)
        self.sync.api.close()

    async def predict(
        self, rows: Sequence[Sequence[float]], *, idempotency_key: str | None = None
    ) -> Prediction:
        """As `Buyer.predict`."""
        return await self._run(lambda: self.sync.predict(rows, idempotency_key=idempotency_key))

    async def predict_table(self, table: Any, *, idempotency_key: str | None = None) -> Any:
        """As `predict_table`."""

        def ask() -> Any:
            return predict_table(
                self.sync, table, idempotency_key=idempotency_key, at_once=self._at_once
            )

        return await asyncio.to_thread(ask)

    async def quote(self, rows: int) -> dict[str, Any]:
        """As `Buyer.quote`."""
        return await self._run(lambda: self.sync.quote(rows))

    async def _run(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)
