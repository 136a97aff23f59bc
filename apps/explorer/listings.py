"""Models on sale, and the queries that were paid for."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse

from apps.accounts.models import Party
from apps.compute.selectors import receipts_json
from apps.core import clock
from apps.core.errors import NotFound
from apps.exchange.selectors import price_mean_micro
from apps.explorer.access import standing_of
from apps.explorer.formatting import ENGINE_NAMES, quoted, short
from apps.explorer.package import package
from apps.explorer.page import for_party, party_of, show
from apps.explorer.pictures import metric_by_round, price_flow, query_flow
from apps.explorer.plans import line as plan_line
from apps.listings import plans, pricing, services
from apps.listings.access import access_of
from apps.listings.asking import obstacle
from apps.listings.card import Facts, by_round, facts_of, fairness, history_of, scores_of
from apps.listings.measured import Served, served
from apps.listings.models import Listing, Query
from apps.listings.portions import portion
from apps.listings.selectors import reading_json
from apps.listings.unlocks import early_until
from apps.protocol.encoding import levels_of, width
from apps.protocol.evidence import METRIC_NAMES, leading
from apps.protocol.jobs import RECEIPT_DOMAIN
from apps.protocol.revenue import policy_of
from apps.protocol.tickets import SHAMIR
from apps.protocol.wire import digest
from apps.training.access import demand_of
from apps.training.privacy import noise_json
from apps.wallets.log import leaf_for
from apps.wallets.selectors import spendable_micro

MEANS_F = 20
# (how finely, what that means by kind of label); "classes" where a kind is not named.
RESOLUTIONS: dict[str, tuple[str, dict[str, str]]] = {
    "label": ("as the likelier label", {"classes": "And nothing about how likely it is."}),
    "band": (
        "as a band",
        {
            "binary": "Which fifth of the probability: 0 to 20 %, 20 to 40 %, and so on.",
            "classes": "Of each class, which fifth of the probability: 0 to 20 %, and so on.",
            "number": "Which fifth of its range.",
            "count": "Under 1, 1 to 2, 2 to 5, 5 to 10, and so on.",
            "survival": "How high the hazard is against a row of mean features: under a quarter, "
            "to a half, to 1, to 2, to 4 times, or more.",
        },
    ),
    "rounded": (
        "rounded",
        {
            "binary": "A probability in whole per cent.",
            "classes": "Of each class, a probability in whole per cent.",
            "number": "To a hundredth of its range.",
            "count": "A whole number; above 100, a whole ten.",
            "survival": "The hazard against a row of mean features, to a tenth; above 5, whole.",
        },
    ),
    "logit": (
        "as an exact score",
        {
            "binary": "A logit, the log of the odds: 0 is even chances, 2 is about 88 %, −2 about "
            "12 %. The page or your program turns it into a probability.",
            "classes": "A score of each class. The page or your program turns them into "
            "probabilities.",
            "number": "The number itself.",
            "count": "The logarithm of the expected count.",
            "survival": "The logarithm of the hazard against a row of mean features.",
        },
    ),
}
# What is written around the label's name, above an answer of such a kind and resolution.
ANSWERS: dict[tuple[str, str | None], tuple[str, str]] = {
    ("binary", None): ("Probability of", " = {}"),
    ("binary", "label"): ("More likely,", " is"),
    ("classes", None): ("Most likely,", " is"),
    ("number", None): ("Expected", ""),
    ("count", None): ("Expected", ""),
    ("survival", None): ("Hazard of", ", as a multiple of a row of mean features"),
}
CURRENCY = pricing.CURRENCY
LINE_MAX = 84  # of a snippet's row
CALL_CURL = """curl {url}/api/v1/listings/{slug}/ \\
  -H "Authorization: Bearer $FLAI_API_KEY"
"""
CALL_SHELL = """echo "$FLAI_API_KEY" | python3 -m workers.client connect \\
  --home ./me --url {url} --api-key-file -
cat > row.csv <<'END'
{names}
{row}
END
python3 -m workers.client predict --home ./me {slug} row.csv
"""
CALL_PYTHON = """import os

from workers.client.buyer import Buyer, rows_from_csv
from workers.client.home import Home

home = Home("./me")
home.connect(url="{url}", api_key=os.environ["FLAI_API_KEY"])
buyer = Buyer(home, "{slug}")
rows = rows_from_csv("row.csv", buyer.features)  # the file of the shell commands
answer = buyer.predict(rows)  # shared and sealed here, opened here
print(answer.texts)
"""
CALL_JAVASCRIPT = """import {{ Client }} from "{url}/static/js/flai-client.js";

const key = globalThis.process?.env.FLAI_API_KEY ?? prompt("Your API key");
const client = new Client({{ url: "{url}", key }});
const rows = [{{
{members}
}}];
const answers = await client.predict("{slug}", rows, {{ maxPrice: "{most}" }});
console.log(answers, "paid", Number(answers.priceMicro) / 1e6);
"""


def cards(rows: Any) -> list[dict[str, Any]]:
    """Listings as their cards show them."""
    return [card(listing) for listing in rows]


def card(listing: Listing) -> dict[str, Any]:
    return {
        "slug": listing.slug,
        "title": listing.dao.name,
        "purpose": listing.dao.params.get("objective", ""),
        "domain": listing.dao.domain,
        "status": listing.status,
        "access": access_of(listing.dao),
        "version_number": listing.version.number,
        "evidence": listing.version.evidence or {},
        "price_micro": pricing.price_micro(listing),
    }


def listing_rows() -> Any:
    return Listing.objects.select_related("dao", "version").order_by("status", "-opened_at", "-id")


def model(request: HttpRequest, slug: str) -> HttpResponse:
    """A model page: what it is for, how good it is where, what it costs, how to ask it."""
    try:
        listing = services.listing_get(slug)
    except NotFound:
        raise Http404 from None
    dao, party = listing.dao, party_of(request)
    features = dao.params["schema"]["features"]
    facts, rounds = facts_of(listing, party=party, now=clock.now()), history_of(listing)
    normalisation = listing.version.round.normalisation or {}
    means = normalisation.get("mean") or []
    price_micro = pricing.price_micro(listing)
    words = {
        "url": settings.BASE_URL,
        "slug": slug,
        "names": ",".join(quoted(f["name"]) for f in features),
        "row": ",".join(map(quoted, examples(features, means))),
        "members": _members(features, means),
        "most": short(price_micro, decimals_min=2).replace(",", ""),
    }
    roles = [member["role"] for member in listing.version.round.roster["members"]]
    volume = pricing.volume(party, listing, now=clock.now()) if party else 0
    next_micro = pricing.price_of(listing, rows=1, before=volume, buyer=party)
    offered = plans.plans_json(listing)
    running = plans.running(party, listing, now=clock.now()) if party and facts.planned else None
    to_spend_micro = _to_spend_micro(party)
    return show(
        request,
        "model.html",
        "models",
        listing=listing,
        dao=dao,
        title=dao.name,
        features=features,
        evidence=listing.version.evidence,
        version=listing.version,
        early_until=early_until(listing, clock.now()),
        access=standing_of(dao, party, plan=running, issuers=facts.issuers),
        node_access=demand_of(listing.version.round),
        price_micro=price_micro,
        copied=pricing.copy_cost(listing),
        privacy=noise_json(listing.version.round),
        rows_per_epoch=pricing.rows_per_epoch_max(listing),
        served=served([listing.id], now=clock.now()).get(listing.id, Served()),
        epoch_days=settings.ROWS_EPOCH_DAYS,
        **_resolution(listing),
        rows_per_query=pricing.rows_max(listing),
        portion=portion(listing, facts.taken_rows, plan=running, now=clock.now()),
        to_spend_micro=to_spend_micro,
        short_micro=max(next_micro - to_spend_micro, 0),
        next_micro=next_micro,
        volume=volume,
        tiers=pricing.tiers_json(listing),
        plans=offered,
        own_plan=plan_line(running, clock.now()) if running else None,
        inputs=inputs(features, means),
        validators=roles.count("validator"),
        sites=roles.count("custodian"),
        supply_micro=facts.supply_micro,
        **_token_price(dao, facts),
        scores=scores_of(listing),
        facts=facts,
        even=fairness(listing.version.evidence),
        rounds=rounds[::-1],
        start=next((one.start for one in rounds if one.pk == listing.version.round_id), None),
        history_caption=f"{METRIC_NAMES[leading(listing.version.evidence)]} of each version that a "
        "round made, the oldest on the left, on rows that were not used for scoring. The figure is "
        "the latest.",
        history=metric_by_round(*by_round(rounds)),
        flow=price_flow(price_micro, policy_of(dao.params)),
        party=party,
        own_prefix=facts.own_prefix,
        obstacle=obstacle(listing),
        ranged=any(f.get("unit") or f.get("min") is not None or levels_of(f) for f in features),
        curl=CALL_CURL.format(**words),
        shell=CALL_SHELL.format(**words),
        python=CALL_PYTHON.format(**words),
        javascript=CALL_JAVASCRIPT.format(**words),
        package=package().filename,
        url=settings.BASE_URL,
    )


def _resolution(listing: Listing) -> dict[str, Any]:
    """How finely it answers, and that in words; what computes it; how its answers are read."""
    held, label = listing.version.round, listing.dao.params["label"]
    reading = reading_json(listing)
    kind = reading["kind"]
    what, words = RESOLUTIONS[held.resolution]
    before, after = ANSWERS.get((kind, held.resolution)) or ANSWERS.get((kind, None), ("", ""))
    levels = any(map(levels_of, listing.dao.params["schema"]["features"]))

    def told(text: str) -> str:
        return text.replace("mean features", "mean numbers and first levels") if levels else text

    return {
        "reading": reading,
        "answer_before": before,
        "answer_after": told(after.format(label.get("positive", "1"))),
        "engine": held.engine,
        "engine_words": ENGINE_NAMES[held.engine] if held.engine in SHAMIR else "",
        "resolution": held.resolution,
        "resolution_words": what,
        "resolution_term": told(words.get(kind) or words["classes"]),
    }


def _token_price(dao: Any, facts: Facts) -> dict[str, Any]:
    """The token's time-weighted price of the last closed epoch; before one, what it is now."""
    pool = getattr(dao.asset, "pool", None)
    if pool is None:
        return {}
    number, *span = facts.closed or (0,)
    mean = price_mean_micro(pool, *span) if span else None
    if mean is None:
        return {"token_price_micro": pool.price_micro, "token_price_of": "now"}
    return {"token_price_micro": mean, "token_price_of": f"mean of epoch {number}"}


def inputs(features: list[dict[str, Any]], means: list[str]) -> list[dict[str, Any]]:
    """The try-it form's fields: each feature with its levels, or its range in words and an example
    within it."""
    return [
        {
            **feature,
            "choices": levels_of(feature),
            "range": _range(feature),
            "example": within(feature, text),
        }
        for feature, text in zip(features, examples(features, means), strict=True)
    ]


def within(feature: dict[str, Any], text: str) -> str:
    """The example, or the bound that it lies beyond."""
    low, high = feature.get("min"), feature.get("max")
    if low is not None and Decimal(text) < Decimal(low):
        return str(low)
    if high is not None and Decimal(text) > Decimal(high):
        return str(high)
    return text


def _range(feature: dict[str, Any]) -> str:
    low, high = feature.get("min"), feature.get("max")
    if low is not None and high is not None:
        return f"{low} to {high}"
    if low is not None:
        return f"from {low}"
    return f"up to {high}" if high is not None else ""


def _to_spend_micro(party: Party | None) -> int:
    """What the party may spend on predictions now."""
    return spendable_micro(party, CURRENCY, now=clock.now()) if party else 0


def examples(features: list[dict[str, Any]], means: list[str]) -> list[str]:
    """A row for the snippet: each number's mean over all sites, which the round has opened, and the
    first level of the others.

    `means` holds integers with MEANS_F bits after the point, of numbers first.
    """
    if len(means) != width(features):
        return [example(feature) for feature in features]
    told = (f"{float(f'{int(mean) / 2**MEANS_F:.4g}'):.12g}" for mean in means)
    return [example(feature) if levels_of(feature) else next(told) for feature in features]


def _members(features: list[dict[str, Any]], means: list[str]) -> str:
    """The example row as the members of a JavaScript object, as many a line as fit."""
    lines = [""]
    for feature, text in zip(features, examples(features, means), strict=True):
        value = json.dumps(text) if levels_of(feature) else within(feature, text)
        member = f"{json.dumps(feature['name'])}: {value}, "
        if len(lines[-1]) + len(member) > LINE_MAX:
            lines.append("")
        lines[-1] += member
    return "\n".join(f"  {line.rstrip()}" for line in lines)


def example(feature: dict[str, Any]) -> str:
    """The first level, or the middle of the plausible range where one is known."""
    if levels := levels_of(feature):
        return levels[0]
    low, high = feature.get("min"), feature.get("max")
    if low is None or high is None:
        return "1.0"
    return f"{(Decimal(low) + Decimal(high)) / 2:f}"


@for_party
def query(request: HttpRequest, query_id: UUID) -> HttpResponse:
    """A payment with its computation: held → running → settled or released. The buyer's only."""
    party = party_of(request)
    found = (
        Query.objects.filter(id=query_id, buyer=party)
        .select_related("listing__dao", "version", "job", "epoch")
        .defer("upload", "outputs")
        .first()
    )
    if found is None:
        raise Http404
    return show(
        request,
        "query.html",
        "wallet",
        query=found,
        title=found.listing.dao.name,
        steps=_steps(found),
        stages=_stages(found),
        flow=query_flow(
            found.price_micro,
            policy_of(found.listing.dao.params),
            found.epoch and found.epoch.settlement,
            back=found.state == Query.State.RELEASED,
        ),
        live=found.state in (Query.State.HELD, Query.State.RUNNING),
        receipts=[
            row | {"digest": digest(RECEIPT_DOMAIN, row["receipt"])}
            for row in receipts_json(found.job)
        ],
        leaf=leaf_for("listings.query_settled", found.id),
    )


def _stages(query: Query) -> list[tuple[str, str]]:
    """(where the money is, how far that is): held, then paid and divided, or given back."""
    if query.state == Query.State.RELEASED:
        return [("Held", "done"), ("Given back", "now")]
    paid = query.state == Query.State.SETTLED
    divided = bool(query.epoch and query.epoch.settlement is not None)
    return [
        ("Held", "done" if paid else "now"),
        ("Paid", "" if not paid else "done" if divided else "now"),
        ("Divided", "now" if divided else ""),
    ]


def _steps(query: Query) -> list[dict[str, Any]]:
    """The course of the payment: what happened, and what is still to come."""
    happened = {entry["state"]: entry["at"] for entry in query.timeline}
    ended = query.state in ("settled", "released")
    words = {
        "held": ("Price held", "Set aside from your balance, not paid yet."),
        "running": ("Nodes compute", "On shares of your row; none of them can read it."),
        "settled": ("Paid and answered", "The answer is sealed to your key."),
        "released": ("Released", "Nothing was charged; the held amount is yours again."),
    }
    order = ["held", "running", query.state if ended else "settled"]
    rows = []
    for name in order:
        title, text = words[name]
        at = happened.get(name)
        state = "done" if at else ("" if ended else "next")
        if name == query.state and not ended:
            state = "now"
        if name == "released":
            state = "bad"
        if at or not ended:
            rows.append({"title": title, "text": text, "at": at, "state": state})
    return rows
