"""The addresses of every page and list, at the heaviest object of each kind and at an ordinary one.

Pages whose address names nothing are found by themselves; a page about an object needs its
examples in `_examples`, which a test insists on.
"""

from __future__ import annotations

from django.urls import NoReverseMatch, URLPattern, reverse

from apps.explorer import urls
from apps.explorer.scale.plan import Plan

# For strangers only, or what no page is behind.
LEFT_OUT = {"sign-in", "sign-up", "sign-out"}
# Filters, and pages far down a list.
VARIANTS = {
    "models": ["?page=400"],
    "rfms": ["?status=funding", "?status=failed", "?page=400"],
    "proposals": ["?state=active", "?state=succeeded", "?state=defeated", "?page=400"],
    "subdaos": ["?page=400"],
    "nodes": ["?page=1000"],
    "log": ["?before=5000"],
    "wallet": ["?page=400"],
}
API = (
    "rfms/",
    "rfms/?status=funding",
    "subdaos/",
    "proposals/",
    "proposals/?state=active",
    "proposals/?dao=superdao",
    "listings/",
    "log/entries/?start=0&end=100",
    "log/heads/",
)
API_OWN = ("queries/", "wallet/", "wallet/transfers/", "me/", "keys/")


def pages(plan: Plan) -> dict[str, str]:
    """{"name detail": address} of every page that can be asked for, as a member."""
    found: dict[str, str] = {}
    examples = _examples(plan)
    for name in names():
        for detail, value in examples.get(name, {"": None}).items():
            arguments = [] if value is None else [value]
            try:
                address = reverse(f"explorer:{name}", args=arguments)
            except NoReverseMatch:
                continue  # about an object: the test says of which
            found[f"{name} {detail}".strip()] = address
            found |= {f"{name} {query}": address + query for query in VARIANTS.get(name, [])}
    return found


def names() -> list[str]:
    """The names of all addresses, in their order, but for LEFT_OUT."""
    found = [str(row.name) for row in urls.urlpatterns if isinstance(row, URLPattern)]
    return [name for name in found if name not in LEFT_OUT]


def api(plan: Plan) -> dict[str, str]:
    """The lists of the API and one of each thing in it, for anybody."""
    heavy, fund = plan.id("approval", plan.first("voting")), plan.first("funding")
    things = (
        f"rfms/request-{fund}/",
        f"rfms/request-{fund}/applications/",
        "subdaos/model-0/",
        "subdaos/model-0/epochs/",
        "subdaos/model-0/rounds/",
        "subdaos/model-0/versions/",
        "subdaos/superdao/",
        f"proposals/{heavy}/",
        "listings/model-0/",
        f"rounds/{plan.id('round', 0, plan.half)}/",
    )
    return {f"api {path}": f"/api/v1/{path}" for path in (*API, *things)}


def api_own(plan: Plan) -> dict[str, str]:
    """What the API tells a member alone."""
    paths = (*API_OWN, f"queries/{plan.id('query', 0)}/")
    return {f"api {path}": f"/api/v1/{path}" for path in paths}


def _examples(plan: Plan) -> dict[str, dict[str, object]]:
    voting, funding = plan.first("voting"), plan.first("funding")
    return {
        "model": {"heavy": "model-0", "usual": "model-5"},
        "query": {"": plan.id("query", 0)},
        "rfm": {
            "voting": f"request-{voting}",
            "funding, heavy": f"request-{funding}",
            "awarded": "request-5",
            "draft": f"request-{plan.first('draft')}",
        },
        "subdao": {"heavy": "model-0", "usual": "model-5", "superdao": "superdao"},
        "round": {"heavy": plan.id("round", 0, plan.half), "usual": plan.id("round", 5, 1)},
        "proposal": {
            "open, heavy": plan.id("approval", voting),
            "executed": plan.id("acceptance", 5),
        },
        "log-entry": {"first": 0, "later": plan.objects},
    }
