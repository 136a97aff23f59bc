"""Plans that are paid ahead, replayed: what they cost, what they pay for, where the rest goes.

A plan's money lies on an account of the purpose "prepaid". It comes there from its buyer, by a leaf
"listings.plan" with the plan that the SubDAO then offered; it leaves by the holds of predictions at
the plan's price of a row, to that SubDAO and for that buyer, and by such leaves again: changed,
cancelled or ended as `apps.protocol.plans` says, or paid back where the model was voted off sale:
within a day and what the clocks differ by, or that is a finding. (Until the first that is paid
back they end as earlier releases had them end.) It begins again by itself, at the moment of its
end, where its buyer agreed to that and at most for what was agreed to. Any other transfer on it is
a finding, and so is one of a plan's kinds elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from apps.protocol import consent, ledger
from apps.protocol.plans import (
    DAY_MS,
    Change,
    Plan,
    Renewal,
    Term,
    Used,
    and_used,
    begin,
    change,
    renewed,
    withdrawn,
)
from workers.client.accounts import parts
from workers.client.earnings import CURRENCY, QUERY, Body, Finding
from workers.client.parameters import Parameters

PURPOSE = "prepaid"
PREVIEW_MS = 5 * 60_000
# Until then a plan of a retired model is paid back: what is held under it may last a day.
BACK_MS = DAY_MS + consent.SKEW_MS
KINDS = {
    "due": consent.PLAN,
    "refund": f"{consent.PLAN}_refund",
    "lapsed": f"{consent.PLAN}_lapsed",
}


@dataclass
class Running:
    """A plan as its leaves tell it; used and spent since its period began."""

    id: str
    buyer: str
    dao: str
    listing: str
    plan: str
    term: Term
    used: tuple[Used, ...] = ()
    spent_micro: int = 0
    agreed: Renewal | None = None

    @property
    def facts(self) -> tuple[str, ...]:
        return self.id, self.buyer, self.dao, self.listing


class Plans:
    """Fed with leaves by `Replay`; each method raises Finding for what does not fit."""

    def __init__(self, balances: Mapping[str, ledger.Balance], parameters: Parameters) -> None:
        self.balances, self.parameters = balances, parameters
        self.running: dict[str, Running] = {}
        self.over: dict[str, tuple[Running, int]] = {}  # ended by the time, and when
        self.seen: set[str] = set()
        self.pays_back = False  # earlier releases let plans of retired models run out
        self.holds: dict[str, tuple[str, int]] = {}
        self.unsaid: dict[str, tuple[str, str, str, int]] = {}

    def transfer(self, body: Body, at: int, amount: int) -> None:
        """Any transfer that broke no rule of the ledger."""
        debit, credit, phase = body["debit"], body["credit"], body["phase"]
        if PURPOSE not in (parts(debit)[1], parts(credit)[1]):
            if body["kind"] in KINDS.values():  # for which a wallet's key signs a plan's leaf
                raise Finding(f"transfer {body['id']} is for a plan, and on no plan's account")
            return
        if phase == "single":
            self.unsaid[body["id"]] = (body["kind"], debit, credit, amount)
        elif phase == "pend":
            self._draw(body, debit, credit, amount, at)
        else:
            account, rows = self.holds.pop(body["pending"])
            plan = self.running.get(account)
            if phase == "post" and plan is not None:
                plan.used = and_used(plan.used, rows, plan.term.price_micro)
                plan.spent_micro += amount

    def _draw(self, body: Body, debit: str, credit: str, amount: int, at: int) -> None:
        plan, name = self.running.get(debit), f"hold {body['id']}"
        if plan is None or body["kind"] != QUERY or credit != f"{plan.dao}/revenue/{CURRENCY}":
            raise Finding(f"{name} takes from what was paid ahead for no prediction of its plan")
        rows, rest = divmod(amount, plan.term.row_micro)
        if rest or at > plan.term.ends_ms + consent.SKEW_MS:
            raise Finding(f"{name} takes another price than its plan's, or comes after its end")
        self.holds[body["id"]] = (debit, rows)

    def query_held(self, body: Body) -> int | None:
        """A prediction that a plan pays for is of its buyer and listing. Returns the rows that it
        pays, None where none does."""
        account, rows = self.holds.get(body["hold"], ("", 0))
        plan = self.running.get(account)
        named = (plan.id, plan.buyer, plan.listing) if plan else (None, body["buyer"], "")
        told = (body.get("plan"), body["buyer"], body["listing"] if plan else "")
        if named != told:
            raise Finding(f"query {body['query']} is not of the plan that pays for it")
        return rows if plan else None

    def told(self, body: Body, at: int, seller: str) -> None:
        """A leaf "listings.plan"; `seller`: the SubDAO of its listing, as the log knows it."""
        account = f"{body['account']}/{PURPOSE}/{CURRENCY}"
        plan, step, name = self.running.get(account), body["step"], f"plan {body['id']}"
        balance = self.balances.get(account)
        if balance is not None and balance.held_micro:
            raise Finding(f"{name} changed while predictions under it waited")
        before = self.over.pop(account, None)
        if (step in ("begun", "renewed")) is (plan is not None) or seller != body["dao"]:
            raise Finding(f"{name}: {step} without a plan, or beside one, or at no listing")
        if plan is None and body["id"] in self.seen:
            raise Finding(f"{name} began twice")
        told = tuple(body[key] for key in ("id", "buyer", "dao", "listing"))
        if plan is not None and plan.facts != told:
            raise Finding(f"{name}: {step} on the account of another one")
        self.seen.add(body["id"])
        moved = self._moved(body, account, name)
        left = (balance.posted_micro if balance else 0) - moved["due"]
        left += moved["refund"] + moved["lapsed"]
        agreed = None
        if step == "ended":
            made, to_name = self._ended(plan, left, at, name), ""
            if plan is not None:
                self.over[account] = (plan, at)
        elif step == "withdrawn":
            made, to_name = self._withdrawn(plan, left, name), ""
        elif step == "renewed":
            made, to_name, agreed = self._renewed(body, before, left, at, name)
        else:
            made, to_name = self._asked(body, plan, left, at, name)
        if (made.due_micro, made.refund_micro, made.lapsed_micro) != tuple(moved.values()):
            raise Finding(f"{name}: {step} moves other sums than follow from its terms")
        term = {key: str(value) for key, value in vars(made.term).items()} if made.term else None
        steps = (
            ("begun", "changed", "renewed") if made.term else ("cancelled", "ended", "withdrawn")
        )
        if (body["term"], body["plan"]) != (term, to_name) or step not in steps:
            raise Finding(f"{name}: {step} has other terms than the SubDAO offered")
        if made.term is None:
            del self.running[account]
        elif plan is None:
            self.running[account] = Running(
                body["id"], body["buyer"], body["dao"], body["listing"], to_name, made.term
            )
            self.running[account].agreed = agreed
        else:
            plan.term, plan.plan, plan.agreed = made.term, to_name, None

    def _moved(self, body: Body, account: str, name: str) -> dict[str, int]:
        """{"due", "refund", "lapsed": micro-units}, of the transfers that the leaf names."""
        main, sums = f"{body['buyer']}/main/{CURRENCY}", dict.fromkeys(KINDS, 0)
        sides = {
            "due": (main, account),
            "refund": (account, main),
            "lapsed": (account, f"{body['dao']}/treasury/{CURRENCY}"),
        }
        for part, id_ in body["moved"].items():
            kind, debit, credit, amount = self.unsaid.pop(id_, ("", "", "", 0))
            if (kind, (debit, credit)) != (KINDS[part], sides[part]):
                raise Finding(f"{name}: the transfer {id_} is another than it says")
            sums[part] = amount
        return sums

    def _ended(self, plan: Running | None, left: int, at: int, name: str) -> Change:
        if plan is None or at < plan.term.ends_ms:
            raise Finding(f"{name} ended before its time")
        retired = self.parameters.retired.get(plan.dao, at) < plan.term.ends_ms
        if retired and self.pays_back:
            raise Finding(f"{name} lapsed, and its model was off sale before its end")
        return Change(None, 0, left, 0, 0)

    def _withdrawn(self, plan: Running | None, left: int, name: str) -> Change:
        """Paid back as of the vote that took the model off sale."""
        since = self.parameters.retired.get(plan.dao) if plan else None
        if plan is None or since is None or since >= plan.term.ends_ms:
            raise Finding(f"{name} was paid back, and its model was on sale")
        self.pays_back = True
        return withdrawn(plan.term, left_micro=left, at_ms=max(since, plan.term.starts_ms))

    def agreed(self, body: Body) -> None:
        """A leaf "listings.plan_renewal"."""
        plan = self.running.get(f"{body['account']}/{PURPOSE}/{CURRENCY}")
        told = tuple(body[key] for key in ("id", "buyer", "dao", "listing"))
        if plan is None or (*plan.facts, plan.plan) != (*told, body["plan"]):
            raise Finding(f"plan {body['id']}: a renewal was agreed to of no plan that runs")
        said = body["agreed"]
        plan.agreed = Renewal(**{key: int(said[key]) for key in said}) if said else None

    def _renewed(
        self, body: Body, before: tuple[Running, int] | None, left: int, at: int, name: str
    ) -> tuple[Change, str, Renewal]:
        """The next period of a plan that has ended in the same moment."""
        plan, ended = before or (None, 0)
        told = (body["renews"], *(body[key] for key in ("buyer", "dao", "listing")))
        if plan is None or plan.agreed is None or (plan.facts, ended, left) != (told, at, 0):
            raise Finding(f"{name} renews no plan that ended then and was to renew itself")
        to, price = self._offered(plan.dao, plan.plan, at, name), self.parameters.price[plan.dao]
        term = renewed(plan.agreed, to, price_micro=price, at_ms=at) if to else None
        if term is None:
            raise Finding(f"{name} is another plan than its buyer agreed to, or dearer")
        return Change(term, 0, 0, term.cost_micro, 0), plan.plan, plan.agreed

    def _asked(
        self, body: Body, plan: Running | None, left: int, at: int, name: str
    ) -> tuple[Change, str]:
        """What follows from what the buyer asked for."""
        asked, dao = body["asked"], body["dao"]
        at_ms, wanted = int(asked["at_ms"]), asked["plan"]
        if not at - PREVIEW_MS - consent.SKEW_MS <= at_ms <= at + consent.SKEW_MS:
            raise Finding(f"{name} was done as of another time")
        to = self._offered(dao, wanted, at, name)
        price = self.parameters.price[dao]
        if plan is None:
            if to is None or left:
                raise Finding(f"{name} began as no plan, or with money of another one")
            term = begin(to, price_micro=price, at_ms=at_ms)
            made = Change(term, 0, 0, term.cost_micro, 0)
        else:
            made = change(
                plan.term,
                to,
                price_micro=price,
                left_micro=left,
                used=plan.used,
                spent_micro=plan.spent_micro,
                at_ms=at_ms,
            )
        said = consent.plan_payload(
            listing=body["listing"],
            plan=wanted,
            at_ms=at_ms,
            rows=made.term.rows if made.term else 0,
            due_micro=made.due_micro,
            refund_micro=made.refund_micro,
        )
        if asked != said:
            raise Finding(f"{name} did something else than its buyer asked for")
        return made, wanted

    def _offered(self, dao: str, wanted: str, at: int, name: str) -> Plan | None:
        if not wanted:
            return None
        if at - self.parameters.retired.get(dao, at) > consent.SKEW_MS:
            raise Finding(f"{name} is of a model that is retired")
        for plan in self.parameters.plans.get(dao, ()):
            if plan.name == wanted:
                return plan
        raise Finding(f"{name}: the SubDAO offers no plan {wanted}")

    def end(self, latest_ms: int) -> list[str]:
        """latest_ms: of the log's last leaf."""
        late = latest_ms - BACK_MS
        kept = [
            f"plan {plan.id} was not paid back, and its model is off sale"
            for plan in self.running.values()
            if self.parameters.retired.get(plan.dao, late) < min(late, plan.term.ends_ms)
        ]
        moved = [f"transfer {id_} moves what is paid ahead by no plan" for id_ in self.unsaid]
        return moved + kept
