"""SubDAOs and the SuperDAO: parameters, people, treasury, versions, rounds, epochs."""

from __future__ import annotations

from typing import Any

from django.db.models import OuterRef, Q, Subquery
from django.http import Http404, HttpRequest, HttpResponse

from apps.core import clock
from apps.explorer.formatting import (
    ENGINE_NAMES,
    RESOLUTION_NAMES,
    SCORING_NAMES,
    TRAINING_NAMES,
    bps,
    budget_words,
    duration,
    nodes_words,
)
from apps.explorer.page import paged, show
from apps.explorer.pictures import epochs_flow, phi_by_round, price_flow
from apps.governance.models import Proposal
from apps.listings.models import Listing
from apps.participants.selectors import roster
from apps.protocol.revenue import policy_of
from apps.protocol.tickets import COMPUTING, RING
from apps.subdaos import selectors
from apps.subdaos.models import Dao
from apps.training.models import Round, Score
from apps.training.privacy import budget_json, with_spending
from apps.wallets.models import Account, Asset
from apps.wallets.selectors import holders

SHOWN = 10


def subdaos(request: HttpRequest) -> HttpResponse:
    """The SuperDAO first, then each model's own DAO, newest first."""
    rows = paged(request, selectors.dao_list())
    listings = {x.dao_id: x for x in Listing.objects.filter(dao__in=[d.id for d in rows])}
    return show(
        request,
        "subdaos.html",
        "subdaos",
        page=rows,
        rows=[{"dao": dao, "listing": listings.get(dao.id)} for dao in rows],
    )


def subdao(request: HttpRequest, slug: str) -> HttpResponse:
    """One DAO on one page."""
    now = clock.now()
    joined = Dao.objects.select_related("party", "asset", "listing", "parent")
    dao = with_spending(joined).filter(slug=slug).first()
    if dao is None:
        raise Http404
    proposals = list(Proposal.objects.filter(dao=dao).order_by("-created_at", "-id")[:5])
    stated = [(proposal, proposal.state(now).value) for proposal in proposals]
    if dao.kind == Dao.Kind.SUPER:
        return _superdao(request, dao, stated)
    # A version is made by one round, so the rounds bring their versions along.
    made = Round.objects.filter(dao=dao).select_related("version")
    rounds = list(made.order_by("-number")[:SHOWN])
    versions = [held.version for held in rounds if hasattr(held, "version")]
    treasury_micro, supply_micro = _money(dao)
    count, members = selectors.heaviest(dao, now, most=SHOWN)
    epochs = list(selectors.epochs(dao)[:SHOWN])
    return show(
        request,
        "subdao.html",
        "subdaos",
        dao=dao,
        listing=getattr(dao, "listing", None),
        treasury_micro=treasury_micro,
        supply_micro=supply_micro,
        members=members,
        further=count - len(members),
        roles=_roles(roster(dao)),
        rounds=rounds,
        versions=versions,
        epochs=_epochs(epochs),
        open_epoch=next((e for e in epochs if e.closed_at is None), None),
        proposals=stated,
        parameters=parameters(dao.params),
        privacy=budget_json(dao),
        phi=phi_by_round(_scores(rounds)),
        flow_paid=epochs_flow(epoch.settlement for epoch in epochs),
        flow_price=price_flow(int(dao.params["price_micro"]), policy_of(dao.params)),
    )


def _scores(rounds: list[Round]) -> list[tuple[int, str, int]]:
    """(round, site, φ) of the rounds shown."""
    rows = Score.objects.filter(round__in=rounds)
    return list(rows.values_list("round__number", "party__name", "phi_milli"))


def _superdao(
    request: HttpRequest, dao: Dao, proposals: list[tuple[Proposal, str]]
) -> HttpResponse:
    stakers, staked_micro, largest = holders("FLAI", "staked", most=SHOWN)
    return show(
        request,
        "superdao.html",
        "subdaos",
        dao=dao,
        proposals=proposals,
        total=staked_micro,
        stakers=stakers,
        top=[(account.owner, account.posted_micro) for account in largest],
        parameters=parameters(dao.params),
    )


def parameters(params: dict[str, Any]) -> list[tuple[str, str]]:
    """The parameters that its members decide, in words."""
    names = {
        "voting_delay_s": ("Voting delay", duration),
        "voting_period_s": ("Voting period", duration),
        "timelock_s": ("Timelock", duration),
        "quorum_bps": ("Quorum", bps),
        "threshold_bps": ("Approval threshold", bps),
        "proposal_threshold_bps": ("Weight needed to propose", bps),
        "epoch_s": ("Epoch", duration),
        "min_custodians": ("Least custodians", str),
        "min_validators": ("Least validators", str),
        "min_rows": ("Least rows a site", str),
        "stake_boost_bps": ("A staked token counts", lambda v: f"{int(v) / 10_000:g} ×"),
        "training": ("Rounds train by", lambda v: TRAINING_NAMES[v["kind"]]),
        "scoring": ("Contributions are scored by", lambda v: SCORING_NAMES.get(v, v)),
        "resolution": ("Buyers are answered by", lambda v: RESOLUTION_NAMES.get(v, v)),
        "engine": ("Nodes compute as", lambda v: ENGINE_NAMES.get(v, v)),
        "privacy": ("Privacy budget", budget_words),
    }
    rows = [(title, say(params[key])) for key, (title, say) in names.items() if key in params]
    if "n" in params:
        engine = params.get("engine", RING)
        rows.append(("Nodes", nodes_words(engine, max(params["n"], COMPUTING[engine]))))
    return rows


def _money(dao: Dao) -> tuple[int, int]:
    """(USDC in the treasury, tokens issued), by one query."""
    treasury = Q(owner_id=dao.party_id, purpose="treasury")
    issuance = Q(asset_id=dao.asset_id, purpose="issuance")
    # The codes of the three that are found: joined, the database would read all assets first.
    code = Subquery(Asset.objects.filter(pk=OuterRef("asset")).values("code"))
    rows = Account.objects.filter(treasury | issuance).annotate(token=code)
    held = next((row for row in rows if (row.purpose, row.token) == ("treasury", "USDC")), None)
    issued = next((row for row in rows if row.purpose == "issuance"), None)
    return (held.available_micro if held else 0, -issued.posted_micro if issued else 0)


def _roles(members: list[Any]) -> dict[str, list[Any]]:
    roles: dict[str, list[Any]] = {"custodian": [], "validator": []}
    for member in members:
        roles[member.role].append(member)
    return roles


def _epochs(epochs: list[Any]) -> list[dict[str, Any]]:
    """Closed and open epochs, with what each became."""
    return [
        {
            "epoch": epoch,
            "treasury_micro": int((epoch.settlement or {}).get("treasury_micro", 0)),
            "owed_micro": sum(map(int, (epoch.settlement or {}).get("owed_micro", {}).values())),
        }
        for epoch in epochs
    ]
