"""On what terms answers are sold, as strangers meet them on the running stack: what the owners and
makers of the story's model vote for holds for whoever comes by, through the API and the SDK. At the
end the terms are those of the beginning, and the log alone tells all that was paid.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from tests.support.stage import PATIENCE_S, ROOT, Json, Stage
from tests.support.strangers import Receiver, Stranger, receiving
from workers.client import training
from workers.client.api import Api, ClientError, wait_for

PRICE = 500_000
TIERS = [{"from_rows": 2, "off_bps": 1_000}, {"from_rows": 5, "off_bps": 5_000}]
PLANS = [
    {"name": "basic", "rows": 4, "days": 30, "off_bps": 2_000},
    {"name": "pro", "rows": 40, "days": 30, "off_bps": 4_000},
]
BASIC, PRO = 400_000, 300_000  # a row of each
KIND = "accredited-hospital"
TRANSACTIONS = """
SELECT count(*) FROM pg_stat_activity WHERE xact_start IS NOT NULL AND pid <> pg_backend_pid()
    AND backend_type = 'client backend'
"""


class Terms(Stage):
    """A stage on which the story's listing is sold on other terms, for a while."""

    folder: Path
    receiver: Receiver

    @property
    def listing(self) -> str:
        return str(self.steps["listing"])

    @property
    def path(self) -> str:
        return f"listings/{self.listing}/inferences/"

    @property
    def now(self) -> Json:
        return dict(self.api.get(f"listings/{self.listing}/"))

    def stranger(self, name: str) -> Stranger:
        return Stranger(self.url, self.folder, name, self.receiver)

    def voted(self, *, owners: Json, members: Json) -> None:
        """{kind: payload} that each house votes for; until all of it holds."""
        made = [self.proposed(*one, owners=True) for one in owners.items()]
        self.executed(*made, *[self.proposed(*one) for one in members.items()])

    def as_before(self) -> None:
        """The terms that the story left: one price for each row, for everybody."""
        now = self.now
        owners = {f"subdaos.set_{name}": {name: []} for name in ("tiers", "plans") if now[name]}
        if now["status"] != "open":
            owners["listings.set_on_sale"] = {"on_sale": True}
        members = {"listings.set_access": {"access": {}}} if now["access"] else {}
        self.voted(owners=owners, members=members)

    @cached_property
    def _constants(self) -> tuple[np.ndarray, np.ndarray]:
        return training.constants(self.now["normalisation"])

    def rows(self, count: int) -> list[list[float]]:
        mean, std = self._constants
        return [(mean + place * std).tolist() for place in np.linspace(-1, 1, count)]

    @contextmanager
    def busy(self) -> Iterator[None]:
        """The worker has no time: nobody takes up what is asked meanwhile. It stands still between
        two transactions, so that nobody waits for what it has locked."""
        worker = self.service("celery", "worker")
        with psycopg.connect(self.database, autocommit=True) as connection:

            def stopped() -> bool:
                os.kill(worker, signal.SIGSTOP)
                [(under_way,)] = connection.execute(TRANSACTIONS)
                if under_way:
                    os.kill(worker, signal.SIGCONT)
                return not under_way

            try:
                wait_for(stopped, deadline_s=PATIENCE_S, what="a pause", every_s=0.01)
                yield
            finally:
                os.kill(worker, signal.SIGCONT)


@pytest.fixture(scope="module")
def terms(stack: Any, played: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    found = Terms(stack[0], played[2], stack[1])
    found.folder = tmp_path_factory.mktemp("strangers")
    with receiving() as found.receiver:
        owners = {"subdaos.set_tiers": {"tiers": TIERS}, "subdaos.set_plans": {"plans": PLANS}}
        found.voted(owners=owners, members={})
        yield found
        found.as_before()


@pytest.fixture(scope="module")
def planner(terms: Terms) -> Stranger:
    """Whose plan, begun in one test, runs on until the model is retired in another."""
    found = terms.stranger("planner")
    found.funded(100 * PRICE)
    return found


@pytest.mark.slow
def test_who_buys_much_pays_less_and_who_is_short_is_told_by_how_much(terms: Terms) -> None:
    ward = terms.stranger("ward")
    buyer = ward.buyer(terms.listing)
    for count, due in ((3, 2 * PRICE + 450_000), (3, 2 * 450_000 + 250_000)):
        with pytest.raises(ClientError) as short:
            buyer.predict(terms.rows(count))
        assert (short.value.code, short.value.status) == ("insufficient_balance", 402)
        assert int(short.value.facts["short_micro"]) == due
        assert f"short by {due / 1e6:.6f} USDC" in short.value.text
        ward.funded(due)
        answer = buyer.predict(terms.rows(count))
        assert answer.price_micro == due and len(answer.answers) == count
        assert ward.money == (0, 0)
        event, data = ward.told()
        assert event == "inference.settled" and data["id"] == answer.query_id
        assert (data["rows"], int(data["price_micro"])) == (count, due)
    [used] = ward.api.get("usage/")["results"]
    assert (used["inferences"], used["rows"], used["price_micro"]) == (2, 6, "2600000")


@pytest.mark.slow
def test_a_plan_is_bought_used_changed_cancelled_and_used_up(
    terms: Terms, planner: Stranger
) -> None:
    buyer, wallet = planner.buyer(terms.listing), planner.wallet

    def choose(plan: str, *, due: int = 0, refund: int = 0, lapsed: int = 0) -> None:
        """It does what its preview says, and moves so much."""
        (before, _), seen = planner.money, wallet.plan_preview(listing=terms.listing, plan=plan)
        told = [int(seen[f"{name}_micro"]) for name in ("due", "refund", "lapsed")]
        assert told == [due, refund, lapsed]
        wallet.plan_set(seen)
        assert planner.money == (before - due + refund, 0)

    def ask(rows: int, *, of_plan: bool, left: int) -> None:
        (before, _), quote = planner.money, buyer.quote(rows)
        assert quote["paid_from"] == ("plan" if of_plan else "balance")
        answer = buyer.predict(terms.rows(rows))
        assert answer.price_micro == int(quote["price_micro"])
        assert planner.money == (before - (not of_plan) * answer.price_micro, 0)
        assert planner.api.get(f"listings/{terms.listing}/plan/")["left_rows"] == left

    choose("basic", due=4 * BASIC)
    ask(3, of_plan=True, left=1)
    ask(2, of_plan=False, left=1)  # more than is left: all of it from the balance
    # Of what began a moment ago a moment's part is over, and with it a row of forty. The one that
    # is left counts.
    choose("pro", due=39 * PRO - BASIC)
    ask(3, of_plan=True, left=36)
    # All six rows cost as much as without a plan; the rest comes back.
    over = 6 * PRICE - 3 * BASIC - 3 * PRO
    choose("", refund=36 * PRO - over, lapsed=over)
    with pytest.raises(ClientError, match="no plan here"):
        planner.api.get(f"listings/{terms.listing}/plan/")
    choose("basic", due=4 * BASIC)
    ask(4, of_plan=True, left=0)
    ask(1, of_plan=False, left=0)
    choose("pro", due=39 * PRO)
    ask(1, of_plan=True, left=38)


@pytest.mark.slow
def test_what_nobody_has_begun_is_taken_back_and_costs_nothing(terms: Terms) -> None:
    hasty = terms.stranger("hasty")
    hasty.funded(PRICE)
    buyer = hasty.buyer(terms.listing)
    upload, reply = buyer.make_query(terms.rows(1))
    with terms.busy():
        made = hasty.api.post(terms.path, {"input": upload}, idempotency_key="second-thoughts")
        assert made["state"] == "held" and hasty.money == (PRICE, PRICE)
        gone = hasty.api.post(f"inferences/{made['id']}/cancel/")
        assert gone["state"] == "released" and hasty.money == (PRICE, 0)
    event, data = hasty.told()
    assert event == "inference.released" and data["id"] == made["id"]
    with pytest.raises(ClientError, match="You cancelled it"):
        buyer.collect(made["id"], upload["ticket"], reply)
    answer = buyer.predict(terms.rows(1))
    with pytest.raises(ClientError) as late:
        hasty.api.post(f"inferences/{answer.query_id}/cancel/")
    assert late.value.code == "already_running" and hasty.money == (0, 0)


@pytest.mark.slow
def test_a_key_spends_no_more_than_it_may_in_a_month(terms: Terms) -> None:
    thrifty = terms.stranger("thrifty")
    thrifty.funded(10 * PRICE)
    limited = {"label": "at night", "scopes": ["read", "inferences"]}
    made = thrifty.api.post("keys/", limited | {"spend_limit_micro": str(PRICE + 1)})
    night = Api(terms.url, made["api_key"])
    buyer = thrifty.buyer(terms.listing, api=night)
    buyer.predict(terms.rows(1))
    with pytest.raises(ClientError) as over:
        buyer.predict(terms.rows(1))
    assert (over.value.code, over.value.status) == ("spend_limit_reached", 402)
    assert (over.value.facts["left_micro"], over.value.facts["short_micro"]) == (
        "1",
        f"{PRICE - 1}",
    )
    assert night.get("quotas/")["spending"]["spent_micro"] == str(PRICE)
    with pytest.raises(ClientError) as scope:
        night.post("wallet/transfers/", {}, idempotency_key="not-mine")
    assert scope.value.status == 403
    thrifty.buyer(terms.listing).predict(terms.rows(1))  # by the key of the sign-up
    assert thrifty.money == (8 * PRICE, 0)


@pytest.mark.slow
def test_a_model_is_sold_to_holders_of_a_credential_alone(terms: Terms, planner: Stranger) -> None:
    office, clinic, stranger = map(terms.stranger, ("office", "clinic", "passer-by"))
    office.wallet.bind()
    access = {"credential": KIND, "issuers": [office.party["pid"]]}
    terms.voted(owners={}, members={"listings.set_access": {"access": access}})
    assert terms.now["access"] == access

    def refused(who: Stranger, reason: str) -> None:
        before = who.money
        with pytest.raises(ClientError) as needed:
            who.buyer(terms.listing).predict(terms.rows(1))
        assert (needed.value.code, needed.value.status) == ("credential_needed", 403)
        told = needed.value.facts
        assert (told["reason"], told["issuers"][0]["name"]) == (reason, office.party["name"])
        assert who.money == before

    for who in (clinic, stranger):
        who.funded(PRICE)
        refused(who, "no_key")
    clinic.mandate(PRICE, terms.listing)
    refused(clinic, "none")
    stranger.mandate(PRICE)
    with pytest.raises(ClientError) as unasked:
        stranger.wallet.issue(to=stranger.party["slug"], credential=KIND, days=30)
    assert unasked.value.code == "credential_not_asked"
    made = office.wallet.issue(to=clinic.party["slug"], credential=KIND, days=30)
    [held] = clinic.wallet.credentials()
    assert (held["id"], held["state"]) == (made["id"], "in_force")
    assert clinic.buyer(terms.listing).predict(terms.rows(1)).price_micro == PRICE
    assert clinic.money == (0, 0)
    plan = planner.buyer(terms.listing).predict(terms.rows(1))  # goes on as it was bought
    assert plan.price_micro == PRO
    office.wallet.take_back(made["id"])
    refused(clinic, "revoked")
    refused(stranger, "none")


@pytest.mark.slow
def test_a_retired_model_sells_nothing_and_pays_back_what_was_paid_ahead(
    terms: Terms, planner: Stranger
) -> None:
    (before, _), plan = planner.money, planner.api.get(f"listings/{terms.listing}/plan/")
    left = plan["left_rows"] * PRO
    terms.voted(owners={"listings.set_on_sale": {"on_sale": False}}, members={})
    while (told := planner.told())[0] != "plan.withdrawn":
        pass  # what was answered and called before
    assert (told[1]["refund_micro"], told[1]["lapsed_micro"]) == (f"{left}", "0")
    assert planner.money == (before + left, 0)
    [ended, *_] = planner.api.get("subscriptions/")["results"]
    assert ended["id"] == plan["id"] and ended["unrenewed"] == "plan_withdrawn"
    with pytest.raises(ClientError) as closed:
        planner.buyer(terms.listing).predict(terms.rows(1))
    assert closed.value.code == "listing_closed"
    terms.as_before()
    answer = planner.buyer(terms.listing).predict(terms.rows(3))
    assert answer.price_micro == 3 * PRICE


@pytest.mark.slow
def test_the_log_alone_tells_all_of_it(terms: Terms, planner: Stranger) -> None:
    """By the program that anybody runs, which trusts neither the site nor its database."""

    def told() -> Counter[str] | None:
        leaves = terms.leaves(planner.party["pid"], end="listings.plan")
        steps = Counter(leaf["body"]["step"] for leaf in leaves if leaf["type"] == "listings.plan")
        return steps if steps["withdrawn"] else None

    steps = wait_for(told, deadline_s=PATIENCE_S, what="the log")
    assert steps == {"begun": 2, "changed": 2, "cancelled": 1, "withdrawn": 1}
    done = subprocess.run(
        [sys.executable, "-m", "workers.client", "verify", "--url", terms.url],
        cwd=ROOT,
        env=terms.own,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Everything checks." in done.stdout
