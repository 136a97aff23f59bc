"""The marketplace: models found by words and facets, up to four of them side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse, QueryDict
from django.urls import reverse

from apps.core import clock
from apps.explorer.formatting import RESOLUTION_NAMES
from apps.explorer.listings import card
from apps.explorer.page import paged, show
from apps.explorer.rfm_form import DOMAIN_NAMES, LICENCE_NAMES, STANDARD_NAMES
from apps.explorer.templatetags.flai import strata_rows
from apps.listings import catalogue
from apps.listings.measured import Served, served
from apps.listings.models import TO_ALL, Listing
from apps.protocol.circuits import CLASSES
from apps.protocol.evidence import METRIC_NAMES, leading
from apps.protocol.rfm_spec import LICENCES
from apps.protocol.tickets import members_with_role

COMPARED_MAX = 4
WORDS_MAX = 200
PAGE_SIZE = 24
TITLES = {
    "domain": "Domain",
    "model_class": "Model class",
    "standard": "Data standard",
    "price": "Price a row",
    "metric": "Leading metric",
    "licence": "Licence",
    "access": "Who may ask",
}
NAMES: dict[str, dict[str, str]] = {
    "domain": DOMAIN_NAMES,
    "model_class": {name: model.title for name, model in CLASSES.items()},
    "standard": STANDARD_NAMES,
    "price": {
        "under-0.10": "under $0.10",
        "0.10-0.50": "$0.10 to $0.50",
        "0.50-2": "$0.50 to $2",
        "from-2": "$2 and more",
    },
    "metric": {
        "from-0.95": "0.95 and better",
        "0.90-0.95": "0.90 to 0.95",
        "0.80-0.90": "0.80 to 0.90",
        "under-0.80": "under 0.80",
    },
    "licence": LICENCE_NAMES,
    "access": {TO_ALL: "open to all"},
}
SORTS = {
    "newest": "Newest first",
    "oldest": "Oldest first",
    "use": "Most used",
    "metric": "Best metric",
    "cheapest": "Cheapest",
    "dearest": "Dearest",
}
BEST = "Best match"


@dataclass(frozen=True)
class Link:
    """One choice that an address makes or takes back."""

    text: str
    url: str
    chosen: bool
    count: int | None = None


def models(request: HttpRequest) -> HttpResponse:
    """`?q=`, each facet's values, `?sort=`; `?m=` are the ones chosen for comparison."""
    words = request.GET.get("q", "").strip()[:WORDS_MAX]
    chosen = {name: request.GET.getlist(name) for name in catalogue.FACETS}
    sort = request.GET.get("sort", "")
    found, facets = catalogue.facets(words=words, chosen=chosen)
    rows = Listing.objects.select_related("dao", "version")
    page = paged(
        request,
        catalogue.search(rows, words=words, chosen=chosen, sort=sort),
        PAGE_SIZE,
        words=("Back", "Further"),
    )
    menus = [(TITLES[name], _links(request, name, choices)) for name, choices in facets.items()]
    picked = _picked(request)
    return show(
        request,
        "models.html",
        "models",
        page=page,
        listings=[card(listing) | {"picked": listing.slug in picked} for listing in page],
        picked_elsewhere=picked - {listing.slug for listing in page},
        several=found > 1 or bool(picked),
        asked=words,
        found=found,
        menus=[(title, links) for title, links in menus if len(links) > 1 or _any(links)],
        taken=[link for _, links in menus for link in links if link.chosen],
        kept=[(name, value) for name, values in chosen.items() for value in values],
        sorts=_sorts(request, words, sort),
        bare=not words and not any(chosen.values()),
    )


def _any(links: Sequence[Link]) -> bool:
    return any(link.chosen for link in links)


def _links(request: HttpRequest, name: str, choices: Sequence[catalogue.Choice]) -> list[Link]:
    """What can be chosen or taken back; a value that would leave nothing isn't offered."""
    return [
        Link(
            NAMES[name].get(c.value) or f"needs “{c.value}”",
            _toggled(request, name, c),
            c.chosen,
            c.count,
        )
        for c in choices
        if c.count or c.chosen
    ]


def _toggled(request: HttpRequest, name: str, choice: catalogue.Choice) -> str:
    query = _first_page(request)
    values = [value for value in query.getlist(name) if value != choice.value]
    query.setlist(name, values if choice.chosen else [*values, choice.value])
    return f"?{query.urlencode()}"


def _sorts(request: HttpRequest, words: str, sort: str) -> list[Link]:
    names = {"": BEST, **SORTS} if words else SORTS
    present = sort if sort in SORTS else next(iter(names))
    links = []
    for name, text in names.items():
        query = _first_page(request)
        query["sort"] = name
        links.append(Link(text, f"?{query.urlencode()}", name == present))
    return links


def _first_page(request: HttpRequest) -> QueryDict:
    query = request.GET.copy()
    for name in ("page", "after", "before"):
        query.pop(name, None)
    return query


def _picked(request: HttpRequest) -> set[str]:
    return set(dict.fromkeys(request.GET.getlist("m")[:COMPARED_MAX]))


def compare(request: HttpRequest) -> HttpResponse:
    """`?m=slug` up to four times, in that order; others are left out, and the page says so."""
    wanted = list(dict.fromkeys(request.GET.getlist("m")))
    found = {
        listing.slug: listing
        for listing in Listing.objects.filter(slug__in=wanted[:COMPARED_MAX]).select_related(
            "dao", "version__round"
        )
    }
    listings = [found[slug] for slug in wanted[:COMPARED_MAX] if slug in found]
    measured = served([listing.id for listing in listings], now=clock.now())
    columns = [_column(listing, measured.get(listing.id, Served())) for listing in listings]
    for column in columns:
        others = [("m", c["slug"]) for c in columns if c is not column]
        column["without"] = f"{reverse('explorer:compare')}?{urlencode(others)}"
    metrics = [name for name in METRIC_NAMES if any(name in c["metrics"] for c in columns)]
    regions = dict.fromkeys(region for c in columns for region in c["regions"])
    leads = {c["lead"] for c in columns}
    picks = urlencode([("m", c["slug"]) for c in columns])
    return show(
        request,
        "compare.html",
        "models",
        columns=columns,
        metrics=[
            (METRIC_NAMES[name], [c["metrics"].get(name) for c in columns]) for name in metrics
        ],
        regions=[(region, [_region(c, region) for c in columns]) for region in regions],
        lead=leads.pop() if len(leads) == 1 else "Leading metric",
        left_out=len(wanted) - len(listings),
        choose=f"{reverse('explorer:models')}?{picks}",
    )


def _column(listing: Listing, how: Served) -> dict[str, Any]:
    dao, version = listing.dao, listing.version
    evidence, held = version.evidence or {}, version.round
    gates = evidence.get("gates") or []
    return card(listing) | {
        "lead": METRIC_NAMES[leading(evidence)],
        "metrics": {n: evidence[f"{n}_milli"] for n in METRIC_NAMES if f"{n}_milli" in evidence},
        "regions": dict(strata_rows(evidence)),
        "gates_met": sum(bool(gate["met"]) for gate in gates),
        "gates": len(gates),
        "domain": NAMES["domain"].get(dao.domain, dao.domain),
        "model_class": NAMES["model_class"].get(dao.model_class, dao.model_class),
        "standard": STANDARD_NAMES.get(dao.standard, dao.standard),
        "interpretable": dao.params.get("interpretable", False),
        "features": len(dao.params["schema"]["features"]),
        "resolution": RESOLUTION_NAMES[held.resolution],
        "nodes": len(held.nodes),
        "sites": len(members_with_role(held.roster, "custodian")),
        "validators": len(members_with_role(held.roster, "validator")),
        "licence": LICENCES.get(dao.licence, dao.licence),
        "opened_at": listing.opened_at,
        "answers": listing.answers_recent,
        "served": how,
    }


def _region(column: dict[str, Any], region: str) -> tuple[bool, int | None]:
    """(whether the model was measured there, its leading metric; None: hidden)."""
    return region in column["regions"], column["regions"].get(region)
