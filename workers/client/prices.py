"""What predictions cost, replayed: rows by the price and the tiers that the SubDAO had
(`apps.protocol.tariff`), and the rebate of its request's author.

A quote holds for a while, so a price may be any that was right within that time; tiers count the
rows of the buyer's month that were answered and paid by then. What a plan pays, `plans` follows.
"""

from __future__ import annotations

from bisect import bisect_right
from datetime import UTC, datetime
from functools import lru_cache

from apps.protocol.consent import SKEW_MS
from apps.protocol.tariff import QUOTE_MS, ROWS_MAX, charge, row_price
from workers.client.earnings import Body, Finding
from workers.client.parameters import Parameters

DAY_MS = 86_400_000


class Prices:
    """Fed with leaves by `Replay`; each method raises Finding for what does not fit."""

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters
        self.told = False  # leaves of earlier releases say no rows
        self.silent = 0
        self.untold: set[tuple[str, str, int]] = set()  # of which not all rows are known
        self.asked: dict[str, tuple[str, str, int, int]] = {}
        # By buyer, listing and month of asking: when rows were settled, and how many by then.
        self.settled: dict[tuple[str, str, int], tuple[list[int], list[int]]] = {}

    def query_held(
        self, body: Body, at: int, *, dao: str, author: bool, planned: int | None
    ) -> None:
        """`planned`: the rows that a plan pays, None for a query that is paid from the balance."""
        name, told = f"query {body['query']}", "rows" in body
        if (self.told or dao in self.parameters.rebate_bps) and not told:
            raise Finding(f"{name} does not say how many rows it asks")
        self.told = told
        buyer, listing = body["buyer"], body["listing"]
        if not told:
            self.untold.add((buyer, listing, _month(at)))
            self.silent += 1
            return
        rows, price = int(body["rows"]), int(body["price_micro"])
        if planned is not None:
            if rows != planned:
                raise Finding(f"{name} takes other rows of its plan than it asks")
            return
        self.asked[body["query"]] = (buyer, listing, rows, at)
        since = at - QUOTE_MS - SKEW_MS
        least, most = self._volumes(buyer, listing, since, at)
        if self.untold & {(buyer, listing, _month(then)) for then in (since, at)}:
            most = ROWS_MAX
        versions = self.parameters.tariffs[dao]
        first = max(0, bisect_right(versions, since, key=lambda one: one.since_ms) - 1)
        rebate = self.parameters.rebate_bps.get(dao) if author else 0
        for one in versions[first:]:
            dearest = cheapest = 0
            if rebate is not None and one.tiers is not None:
                each = row_price(one.price_micro, rebate)
                dearest = charge(rows, before=least, price_micro=each, tiers=one.tiers)
                cheapest = charge(rows, before=most, price_micro=each, tiers=one.tiers)
            else:  # its founding did not say: no more than the price, at least
                dearest = rows * one.price_micro
            if cheapest <= price <= dearest:
                return
        raise Finding(f"{name} costs {price}, which is not the price of {rows} rows")

    def query_settled(self, body: Body, at: int) -> None:
        asked = self.asked.pop(body["query"], None)
        if asked is None:
            return
        buyer, listing, rows, asked_at = asked
        times, sums = self.settled.setdefault((buyer, listing, _month(asked_at)), ([], []))
        times.append(max(at, times[-1]) if times else at)
        sums.append(rows + (sums[-1] if sums else 0))

    def _volumes(self, buyer: str, listing: str, since: int, at: int) -> tuple[int, int]:
        """The least and the most rows of a month that a quote within this time may have counted."""
        month, before = _month(at), _month(since)
        times, sums = self.settled.get((buyer, listing, month), ([], []))
        most = sums[-1] if sums else 0
        if month != before:
            _, earlier = self.settled.get((buyer, listing, before), ([], []))
            return 0, max(most, earlier[-1] if earlier else 0)
        count = bisect_right(times, since)
        return sums[count - 1] if count else 0, most


def _month(at_ms: int) -> int:
    return _month_of_day(at_ms // DAY_MS)


@lru_cache(maxsize=64)
def _month_of_day(day: int) -> int:
    """Months since year 0, UTC."""
    date = datetime.fromtimestamp(day * DAY_MS / 1000, UTC)
    return 12 * date.year + date.month
