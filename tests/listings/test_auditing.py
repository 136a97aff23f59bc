"""The auditor over leaves of the server's own services: honest ones pass, forged ones do not.

The server may write any leaf it likes, and sign the head over it. So each test forges one claim, as
a server would that wants somebody else to be paid or a model to look better, everything else left
as it was, and asks the stand-alone verifier.
"""

from __future__ import annotations

import copy
import json
import time
import uuid
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.test import Client

from apps.compute.services import node_claim
from apps.core.clock import now
from apps.exchange.vaults import stake
from apps.listings.epochs import epoch_settle
from apps.protocol import entitlements, jobs, wire
from apps.subdaos.models import Epoch
from apps.wallets import log
from apps.wallets.models import LogLeaf
from apps.wallets.services import send
from tests.support.market import PRICE, Market, drain
from tests.support.nodes import consents_of, cosigned_anew, succeeded
from workers.client.api import Api
from workers.client.earnings import settle
from workers.client.replay import Replay, replay
from workers.client.verify import Auditor, Report
from workers.mpc import keys

Leaves = list[dict[str, Any]]


@pytest.fixture
def sold(sale: Market) -> Market:
    """Two paid queries, moved tokens, one node of three claimed in time, and the settled epoch."""
    claimed(sale, 0)
    sdt = sale.dao.asset.code
    send(party=sale.backer.party, to=sale.buyer.party, asset=sdt, amount_micro=150, now=now())
    stake(party=sale.backer.party, asset=sdt, amount_micro=100, now=now())
    sale.fund()
    for _ in range(2):
        sale.ask(sale.listing, sale.row(sale.listing, [[0.5, -1.0]]))
    drain()
    claimed(sale, 1)  # too late to be paid for these
    epoch = Epoch.objects.get(dao=sale.dao, closed_at=None)
    assert epoch_settle(epoch_id=epoch.id, now=epoch.ends_at)
    log.sequence(now=epoch.ends_at)  # no head is of a time before what it covers
    return sale


def claimed(market: Market, index: int) -> None:
    operator = market.person("Operator").party
    fingerprint = market.nodes.fingerprints[index]
    claim = {"pid": operator.pid, "node": fingerprint}
    key = keys.signing_key(keys.load(market.nodes.homes[index] / "sign.key"))
    signature = wire.sign(key, jobs.NODE_CLAIM_DOMAIN, claim)
    node_claim(fingerprint=fingerprint, party=operator, signature=signature, now=now())


def leaves() -> Leaves:
    """All of the log but the votes in the SubDAO: the market shortens their time by hand."""
    rows = [json.loads(bytes(row.data)) for row in LogLeaf.objects.order_by("pk")]
    kept = {row["body"]["id"] for row in rows if row["type"] == "rfms.submitted"}
    return [
        row
        for row in rows
        if not row["type"].startswith("governance.") or row["body"]["proposal"] in kept
    ]


def errors(said: Leaves) -> str:
    """But for the votes that `leaves` leaves out."""
    types = ("participants.whitelisted", "training.version_accepted")
    unvoted = {row["body"]["proposal"] for row in said if row["type"] in types}
    expected = tuple(f"proposal {id_} is not in the log" for id_ in unvoted)
    return "\n".join(e for e in replay(said).findings.errors if not e.endswith(expected))


def body_of(said: Leaves, type_: str) -> dict[str, Any]:
    return next(row["body"] for row in said if row["type"] == type_)


def holdings_of(said: Leaves) -> dict[str, int]:
    """T_i of every holder, as the leaves before the settlement tell them."""
    state = Replay()
    for index, row in enumerate(said):
        if row["type"] == "listings.epoch_settled":
            return state.earnings.holdings(row["body"]["dao"], row["body"])
        state.leaf(index, row)
    raise AssertionError("no settlement")


def pay_as_stated(said: Leaves, holdings: dict[str, int] | None = None) -> None:
    """Make root, totals and transfers of a bent settlement what eq. 10 and 11 then ask for."""
    body = body_of(said, "listings.epoch_settled")
    own, epoch = body["dao"], uuid.UUID(body["id"])
    held = holdings_of(said) if holdings is None else holdings
    result = settle(body, held)
    owed = entitlements.entitlements(result, asset="USDC", own=own)
    by_role: dict[str, int] = {}
    for one in owed:
        by_role[one.role] = by_role.get(one.role, 0) + one.amount_micro
    treasury = result.revenue_micro - sum(by_role.values())
    body |= {
        "owed_micro": {role: str(micro) for role, micro in by_role.items()},
        "holdings": str(sum(held.values())),
        "entitled": len(owed),
        "root": entitlements.root(body["id"], owed),
        "treasury_micro": str(treasury),
    }
    model = next(row for row in said if _pays(row, body))
    said[:] = [row for row in said if not _pays(row, body)]
    targets = [
        (
            entitlements.payment_id(epoch, asset="USDC", role=one.role, pid=one.pid),
            f"{one.pid}/main/USDC",
            one.amount_micro,
        )
        for one in owed
    ]
    targets.append((entitlements.treasury_id(epoch), f"{own}/treasury/USDC", treasury))
    for id_, credit, amount in targets:
        row = copy.deepcopy(model)
        row["body"] |= {"id": str(id_), "credit": credit, "amount_micro": str(amount)}
        said.append(row)


def _pays(row: dict[str, Any], epoch: dict[str, Any]) -> bool:
    return row["body"].get("ref") == f"listings.epoch:{epoch['id']}"


def other_phi(said: Leaves) -> None:
    phi = body_of(said, "listings.epoch_settled")["served"][0]["phi"]
    best, worst = max(phi, key=phi.get), min(phi, key=phi.get)
    phi[best], phi[worst] = phi[worst], phi[best]
    pay_as_stated(said)


def more_work(said: Leaves) -> None:
    work = body_of(said, "listings.epoch_settled")["served"][0]["work"]
    work[next(iter(work))] += 5
    pay_as_stated(said)


def less_revenue(said: Leaves) -> None:
    body = body_of(said, "listings.epoch_settled")
    body["served"][0]["revenue_micro"] = body["revenue_micro"] = str(PRICE)
    pay_as_stated(said)


def a_sale_kept_back(said: Leaves) -> None:
    settled = body_of(said, "listings.query_settled")
    said[:] = [row for row in said if row["body"] is not settled]
    body = body_of(said, "listings.epoch_settled")
    body["served"][0]["revenue_micro"] = body["revenue_micro"] = str(PRICE)
    body["jobs"] = {pid: count // 2 for pid, count in body["jobs"].items()}
    pay_as_stated(said)


def a_sale_told_twice(said: Leaves) -> None:
    said.append({**next(row for row in said if row["type"] == "listings.query_settled")})


def all_jobs_of_one(said: Leaves) -> None:
    body = body_of(said, "listings.epoch_settled")
    [operator] = set(body["jobs"]) - {body["dao"]}
    body["jobs"] = {operator: 6}
    pay_as_stated(said)


def one_holder_more(said: Leaves) -> None:
    pay_as_stated(said, holdings_of(said) | {"ee" * 16: 10**12})


def two_holders_exchanged(said: Leaves) -> None:
    """The sum is right, and all that follows from it."""
    held = holdings_of(said)
    one, other = sorted(held, key=held.__getitem__)[:: len(held) - 1]
    pay_as_stated(said, held | {one: held[other], other: held[one]})


def a_false_root(said: Leaves) -> None:
    body_of(said, "listings.epoch_settled")["root"] = "ab" * 32


def roles_that_get_more(said: Leaves) -> None:
    owed = body_of(said, "listings.epoch_settled")["owed_micro"]
    owed["custodian"] = str(int(owed["custodian"]) + 1)


def a_treasury_that_does_not_follow(said: Leaves) -> None:
    body = body_of(said, "listings.epoch_settled")
    body["treasury_micro"] = str(int(body["treasury_micro"]) + 1)


def payment(said: Leaves, kind: str = "listings.payout") -> dict[str, Any]:
    epoch = body_of(said, "listings.epoch_settled")
    return next(r["body"] for r in said if _pays(r, epoch) and r["body"]["kind"] == kind)


def somebody_else_is_paid(said: Leaves) -> None:
    payment(said)["credit"] = "ee/main/USDC"


def somebody_is_paid_more(said: Leaves) -> None:
    payment(said)["amount_micro"] = str(int(payment(said)["amount_micro"]) + 1)


def somebody_is_paid_twice(said: Leaves) -> None:
    epoch = body_of(said, "listings.epoch_settled")
    again = copy.deepcopy(next(row for row in said if _pays(row, epoch)))
    again["body"]["id"] = str(uuid.uuid4())
    said.append(again)


def paid_outside_the_settlement(said: Leaves) -> None:
    payment(said)["id"] = str(uuid.uuid4())
    payment(said)["ref"] = None


def a_treasury_that_is_not_paid(said: Leaves) -> None:
    body = payment(said, "listings.treasury")
    said[:] = [row for row in said if row["body"] is not body]


def a_settlement_kept_back(said: Leaves) -> None:
    said[:] = [row for row in said if row["type"] != "listings.epoch_settled"]


def settled_twice(said: Leaves) -> None:
    said.append(next(row for row in said if row["type"] == "listings.epoch_settled"))


def another_model_accepted(said: Leaves) -> None:
    body_of(said, "training.version_accepted")["model"] = "ab" * 32


def a_model_sold_unaccepted(said: Leaves) -> None:
    said[:] = [row for row in said if row["type"] != "training.version_accepted"]


def a_member_that_nobody_let_in(said: Leaves) -> None:
    members = body_of(said, "training.round_opened")["members"]
    members["ee" * 16] = "custodian"


def a_member_left_out(said: Leaves) -> None:
    members = body_of(said, "training.round_opened")["members"]
    members.pop(next(iter(members)))


def a_validator_made_custodian(said: Leaves) -> None:
    members = body_of(said, "training.round_opened")["members"]
    members[next(pid for pid, role in members.items() if role == "validator")] = "custodian"


def an_application_that_nobody_filed(said: Leaves) -> None:
    body_of(said, "participants.whitelisted")["applications"][0] = "99" * 16


def a_vote_on_something_else(said: Leaves) -> None:
    """The end of a second round that names no vote, as that of the first does."""
    for type_ in ("training.round_opened", "training.round_done"):
        again = copy.deepcopy(next(row for row in said if row["type"] == type_))
        again["body"] |= {"round": "other", "version": 2}
        again["body"].pop("acceptance", None)
        said.append(again)


def a_round_that_scores_a_stranger(said: Leaves) -> None:
    phi = body_of(said, "training.round_done")["phi_milli"]
    phi["ee" * 16] = phi.pop(next(iter(phi)))


def points(said: Leaves, reason: str) -> list[dict[str, Any]]:
    return [
        row["body"]
        for row in said
        if row["type"] == "subdaos.sbgt" and row["body"]["reason"] == reason
    ]


def points_that_move(said: Leaves) -> None:
    one, other = points(said, "round")[:2]
    one["points_micro"] = str(int(one["points_micro"]) - 1)
    other["points_micro"] = str(int(other["points_micro"]) + 1)


def points_for_a_stranger(said: Leaves) -> None:
    points(said, "round")[0]["party"] = "ee" * 16


def points_of_an_earlier_time(said: Leaves) -> None:
    points(said, "round")[0]["from"] -= 1


def points_for_nothing(said: Leaves) -> None:
    said.append(copy.deepcopy(next(r for r in said if r["type"] == "subdaos.sbgt")))


def points_by_decree(said: Leaves) -> None:
    points_for_nothing(said)
    said[-1]["body"]["reason"] = "exit"


def an_epoch_of_another_length(said: Leaves) -> None:
    body_of(said, "listings.epoch_settled")["starts_at"] += 1_000


def an_epoch_of_another_time(said: Leaves) -> None:
    body = body_of(said, "listings.epoch_settled")
    body["starts_at"], body["ends_at"] = (body[key] - 120_000 for key in ("starts_at", "ends_at"))


def an_epoch_before_its_end(said: Leaves) -> None:
    row = next(row for row in said if row["type"] == "subdaos.emitted")
    row["at"] -= 1


def an_epoch_before_its_payments(said: Leaves) -> None:
    row = next(row for row in said if row["type"] == "listings.query_settled")
    row["at"] = body_of(said, "listings.epoch_settled")["starts_at"] - 60_001


def an_epoch_of_another_number(said: Leaves) -> None:
    for type_ in ("subdaos.emitted", "listings.epoch_settled"):
        body_of(said, type_)["epoch"] = 2


def a_price_of_the_servers_own(said: Leaves) -> None:
    held = body_of(said, "listings.query_held")
    held["price_micro"] = str(2 * PRICE)
    for row in said:
        if held["hold"] in (row["body"].get("id"), row["body"].get("pending")):
            row["body"]["amount_micro"] = held["price_micro"]


def a_hold_beyond_the_price(said: Leaves) -> None:
    held = body_of(said, "listings.query_held")
    hold = next(row["body"] for row in said if row["body"].get("id") == held["hold"])
    hold["amount_micro"] = str(2 * PRICE)


def another_buyer_pays(said: Leaves) -> None:
    body_of(said, "listings.query_held")["buyer"] = "ee" * 16


def other_rows(said: Leaves) -> None:
    body_of(said, "listings.query_held")["rows"] += 1


def rows_kept_back(said: Leaves) -> None:
    last = next(row for row in reversed(said) if row["type"] == "listings.query_held")
    del last["body"]["rows"]


def a_listing_of_nobody(said: Leaves) -> None:
    body_of(said, "listings.query_held")["listing"] = "other"


def a_node_claimed_by_the_server(said: Leaves) -> None:
    body_of(said, "compute.node_claimed")["operator"] = "ee" * 16


def a_node_claimed_by_another_key(said: Leaves) -> None:
    one, other = (r["body"] for r in said if r["type"] == "compute.node_claimed")
    claim = {"node": one["node"], "pid": one["operator"]}
    key = Ed25519PrivateKey.generate()
    other["sign_key"] = one["sign_key"] = wire.public_hex(key)
    one["signature"] = wire.sign(key, jobs.NODE_CLAIM_DOMAIN, claim)


def a_node_claimed_without_a_word(said: Leaves) -> None:
    del [r["body"] for r in said if r["type"] == "compute.node_claimed"][1]["signature"]


NEWER = {
    "listings.query_held": ("rows",),
    "subdaos.founded": ("tiers", "rebate_bps", "epoch_s"),
    "compute.node_claimed": ("sign_key", "hpke_key", "signature"),
    "exchange.vault_opened": ("delay_s",),
}


def as_before(said: Leaves) -> Leaves:
    """The same log as earlier releases told it."""
    old = copy.deepcopy(said)
    for row in old:
        for name in NEWER.get(row["type"], ()):
            del row["body"][name]
    return old


FORGERIES: list[tuple[Callable[[Leaves], None], str]] = [
    (other_phi, "φ of version 1 is not its round's"),
    (more_work, "scoring work of version 1 is not"),
    (less_revenue, "its revenue is not what the queries in it paid"),
    (a_sale_kept_back, "was paid but is in no epoch"),
    (a_sale_told_twice, "settled twice"),
    (all_jobs_of_one, "its jobs are not"),
    (one_holder_more, "its holdings are not"),
    (two_holders_exchanged, "its root is not that"),
    (a_false_root, "its root is not that"),
    (roles_that_get_more, "doesn't follow from φ"),
    (a_treasury_that_does_not_follow, "treasury's part is wrong"),
    (somebody_else_is_paid, "to ee/main/USDC, not"),
    (somebody_is_paid_more, "epoch 1,"),
    (somebody_is_paid_twice, "insufficient_balance"),
    (paid_outside_the_settlement, "takes revenue for no entitlement"),
    (a_treasury_that_is_not_paid, "its treasury: it was not paid"),
    (a_settlement_kept_back, "takes revenue for no entitlement"),
    (settled_twice, "settled twice"),
    (another_model_accepted, "is of no round in the log"),
    (a_model_sold_unaccepted, "sells version 1, never accepted"),
    (a_vote_on_something_else, "does not say what a vote on its version is of"),
    (a_member_that_nobody_let_in, f"other members than were voted in: {'ee' * 16}"),
    (a_member_left_out, "other members than were voted in"),
    (a_validator_made_custodian, "other members than were voted in"),
    (an_application_that_nobody_filed, f"application {'99' * 16}, never filed"),
    (points_that_move, "eq. 12 gives"),
    (points_for_a_stranger, "eq. 12 gives"),
    (points_of_an_earlier_time, "were changed for another time"),
    (points_for_nothing, "for no commitment"),
    (points_by_decree, "for no rule (exit)"),
    (a_round_that_scores_a_stranger, "scores others than its members"),
    (a_node_claimed_by_the_server, "is not its own"),
    (a_node_claimed_by_another_key, "by another one's key"),
    (a_node_claimed_without_a_word, "without its own signature"),
    (an_epoch_of_another_length, "another length than its SubDAO was founded with"),
    (an_epoch_of_another_time, "did not begin with the first sale"),
    (an_epoch_before_its_end, "was closed before its end"),
    (an_epoch_before_its_payments, "queries were paid into it before or after it"),
    (an_epoch_of_another_number, "is not the next one's"),
    (a_price_of_the_servers_own, f"costs {2 * PRICE}, which is not the price of 1 rows"),
    (a_hold_beyond_the_price, "holds something else than its price"),
    (another_buyer_pays, "is not paid by its buyer"),
    (other_rows, "is not the price of 2 rows"),
    (rows_kept_back, "does not say how many rows it asks"),
    (a_listing_of_nobody, "is of a listing that is not in the log"),
]


def test_the_servers_own_settlement_replays_and_every_forgery_is_found(sold: Market) -> None:
    """One node of three was claimed in time: the rest of the operators' part is the SubDAO's."""
    honest = leaves()
    body = body_of(honest, "listings.epoch_settled")
    assert len(body["jobs"]) == 2
    due = settle(body, holdings_of(honest)).by_payee()
    own = due[body["dao"]]
    assert (
        own
        and int(body["treasury_micro"]) == own + settle(body, holdings_of(honest)).treasury_micro
    )
    assert errors(honest) == "" and errors(as_before(honest)) == ""
    for forge, said in FORGERIES:
        forged = copy.deepcopy(honest)
        forge(forged)
        assert said in errors(forged), (forge.__name__, errors(forged))
    follows_a_model_to_other_nodes(sold, honest)


def follows_a_model_to_other_nodes(sold: Market, honest: Leaves) -> None:
    """By what the nodes signed for a successor, or all makers for another set; nobody else's word
    moves it, nor does it come back for a sale of later."""
    nodes, first = sold.nodes, body_of(honest, "listings.query_held")
    made = body_of(honest, "training.round_done")
    at = next(row for row in honest if row["body"] is first)["at"]
    last = next(r for r in reversed(honest) if r["type"] == "listings.query_settled")

    def told(type_: str, body: Any, *, before_ms: int = 0, by: list[str] | None = None) -> str:
        """With that leaf before both sales, the last of them answered by those nodes."""
        forged = copy.deepcopy(honest)
        forged[honest.index(last)]["body"] |= {"nodes": by} if by else {}
        place = next(i for i, row in enumerate(honest) if row["body"] is first)
        forged.insert(place, {"v": 1, "type": type_, "at": at - before_ms, "body": body})
        return errors(forged)

    for signers, may in (((1,), True), ((0, 2), True), ((0,), False)):
        after = succeeded(nodes, 1, by=signers)
        (signed,) = after[1]["succeeds"]
        new = [jobs.fingerprint(one) for one in after]
        said = told("compute.node_succeeded", signed, by=new)
        assert (said == "") == may, said
        assert may or ("not enough nodes" in said and "was not answered by" in said)
        # what was asked just before may still be the old set's, and nothing later
        long_ago = told("compute.node_succeeded", signed, before_ms=60_001, by=nodes.fingerprints)
        assert ("was not answered by" in long_ago) == may
        assert told("compute.node_succeeded", signed, by=nodes.fingerprints).count("\n") == 0

    five = [*nodes.fingerprints, "dd" * 32, "ee" * 32]
    three = [five[i] for i in (0, 1, 4)]  # of whom one is paid, as before
    what = {"model": made["model"], "nodes": five}

    def consented(people: Any, *, days: int | None = 1, **changes: Any) -> dict[str, Any]:
        consents = consents_of([p.key for p in people], days=days, **what)
        return {"refresh": "ab" * 32, "number": 1, "consents": consents, **what, **changes}

    assert told("compute.refreshed", consented(sold.custodians), by=three) == ""
    undated = consented(sold.custodians, days=None)  # of an earlier release, and none after others
    assert told("compute.refreshed", undated, by=three) == ""
    place = next(i for i, row in enumerate(honest) if row["body"] is first)
    dated = consented(sold.custodians)
    honest.insert(place, {"v": 1, "type": "compute.refreshed", "at": at, "body": dated})
    assert "without an end" in told("compute.refreshed", undated, by=three)
    del honest[place]
    for body, why in (
        (consented(sold.custodians[1:]), "its makers didn't sign"),
        (consented(sold.validators), "its makers didn't sign"),
        (consented(sold.custodians, engine="shamir_t1"), "its makers didn't sign"),
        (consented(sold.custodians, nodes=three), "its makers didn't sign"),
        (consented(sold.custodians, model="ab" * 32), "is of no round in the log"),
        (consented(sold.custodians, days=-1), "its makers didn't sign"),  # any more
    ):
        assert why in told("compute.refreshed", body, by=three)
    assert "was not answered by" in told(
        "compute.refreshed", consented(sold.custodians), by=[*three[:2], "ff" * 32]
    )


def test_a_round_is_what_its_nodes_signed_for(sold: Market) -> None:
    """φ, evidence and model of a round are the server's claim until its nodes' receipts bear it."""
    cosigned_anew(sold.nodes)
    report = audit(sold)
    assert "1 rounds: φ, evidence and model are what the nodes signed for" in said(report)
    assert "that you gave" in said(report) and failed(report) == []
    assert "seen for the first time" in said(audit(sold, nodes=None))
    error, alone = failed(audit(sold, nodes=["00" * 32]))
    assert "its nodes are others" in error and "only 0 of the 2 pinned nodes" in alone

    def evidence(job: dict[str, Any], body: dict[str, Any]) -> None:
        job["openings"]["auc_milli"] = body["evidence"]["auc_milli"] = 999

    def phi(job: dict[str, Any], body: dict[str, Any]) -> None:
        values = body["evidence"]["phi_milli"]
        values[0], values[1] = values[1] + 1, values[0]
        job["openings"]["phi_milli"] = values

    def owners(job: dict[str, Any], body: dict[str, Any]) -> None:
        pids = list(body["phi_milli"])
        values = list(body["phi_milli"].values())
        body["phi_milli"] = dict(zip(pids, values[1:] + values[:1]))

    def judges(job: dict[str, Any], body: dict[str, Any]) -> None:
        body["work"]["ee" * 16] = body["work"].popitem()[1]

    def model(job: dict[str, Any], body: dict[str, Any]) -> None:
        body["model"] = job["model"] = "ab" * 32

    def roster(job: dict[str, Any], body: dict[str, Any]) -> None:
        job["descriptor"]["roster"]["members"].pop()

    def receipts(job: dict[str, Any], body: dict[str, Any]) -> None:
        job["receipts"][1] = job["receipts"][0]

    def nodes(job: dict[str, Any], body: dict[str, Any]) -> None:
        job["nodes"][1]["sign_key"] = job["nodes"][0]["sign_key"]

    for forge in (evidence, phi, owners, judges, model, roster, receipts, nodes):
        assert any("version 1 of" in line for line in failed(audit(sold, forge=forge))), forge


def audit(sold: Market, *, nodes: Any = (), forge: Any = None) -> Report:
    """The stand-alone check of this very server; `forge` bends a round's job and its leaf."""
    while LogLeaf.objects.filter(seq=None).exists():
        log.sequence(now=now())
    site = Client()

    def answer(request: httpx.Request) -> httpx.Response:
        reply = site.get(request.url.raw_path.decode())
        return httpx.Response(reply.status_code, content=reply.content)

    class Forged(Auditor):
        def _receipted(self, state: Any) -> None:
            [made] = state.earnings.versions.values()
            real = self.api.get

            def get(path: str, **params: Any) -> Any:
                job = real(path, **params)
                if forge is not None:
                    forge(job, made.done)
                return job

            self.api.get = get  # type: ignore[method-assign]
            super()._receipted(state)

    api = Api("http://testserver", transport=httpx.MockTransport(answer))
    # an epoch is closed at its end, which no test waits for: whoever audits does so after that
    newest = log.head_latest().at_ms / 1000
    return Forged(
        api,
        sets=None if nodes is None else [nodes or sold.nodes.fingerprints],
        clock=lambda: max(time.time(), newest),
    ).run()


def said(report: Report) -> str:
    return "\n".join(check.text for check in report.checks)


def failed(report: Report) -> list[str]:
    """What does not check, but for the vote that the market hurried and its founding, which is of
    no request."""
    texts = [check.text for check in report.checks if not check.ok]
    return [text for text in texts if "proposal" not in text and "SubDAO " not in text]
