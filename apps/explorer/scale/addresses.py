"""The addresses of every page and list, at the heaviest object of each kind and at an ordinary one.

Pages whose address names nothing are found by themselves; a page about an object needs its
examples in `_examples`, which a test insists on.
"""

from __future__ import annotations

from urllib.parse import urlencode

from django.urls import NoReverseMatch, URLPattern, reverse

from apps.explorer import urls
from apps.explorer.scale.plan import Plan

# For strangers only, or what no page is behind; the health of nodes is the nodes' own time; and
# the data set has no pools and vaults yet.
LEFT_OUT = {"sign-in", "sign-up", "sign-out", "download", "nodes-health", "pool", "quote", "vault"}
# Filters and questions.
VARIANTS = {
    "rfms": ["?status=funding", "?status=failed"],
    "proposals": ["?state=active", "?state=succeeded", "?state=defeated"],
    "log": ["?before=5000"],
    "search": ["?q=request", "?q=model+100", "?q=acceptance&kind=proposals"],
}
LISTS = {"models", "rfms", "subdaos", "proposals", "nodes", "wallet"}
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
API_OWN = ("inferences/", "wallet/", "wallet/transfers/", "me/", "me/rounds/", "keys/")


def pages(plan: Plan) -> dict[str, str]:
    """{"name detail": address} of every page that can be asked for, as a member."""
    found: dict[str, str] = {}
    examples = _examples(plan)
    middle = f"{plan.at(plan.half).isoformat()}~{plan.id('middle')}"
    for name in names():
        for detail, value in examples.get(name, {"": None}).items():
            arguments = [] if value is None else [value]
            try:
                address = reverse(f"explorer:{name}", args=arguments)
            except NoReverseMatch:
                continue  # about an object: the test says of which
            found[f"{name} {detail}".strip()] = address
            found |= {f"{name} {query}": address + query for query in VARIANTS.get(name, [])}
            if name in LISTS:
                found[f"{name}, further on"] = f"{address}?{urlencode({'after': middle})}"
    return found


def names() -> list[str]:
    """The names of all addresses, in their order, but for LEFT_OUT."""
    found = [str(row.name) for row in urls.urlpatterns if isinstance(row, URLPattern)]
    return [name for name in found if name not in LEFT_OUT]


def api(plan: Plan) -> dict[str, str]:
    """The lists of the API and one of each thing in it, for anybody."""
    voting, funding = plan.id("approval", plan.first("voting")), plan.first("funding")
    things = {
        "rfm": f"rfms/request-{funding}/",
        "rfm applications": f"rfms/request-{funding}/applications/",
        "subdao": "subdaos/model-0/",
        "subdao epochs": "subdaos/model-0/epochs/",
        "subdao emission": "subdaos/model-0/emission/",
        "subdao rounds": "subdaos/model-0/rounds/",
        "subdao versions": "subdaos/model-0/versions/",
        "superdao": "subdaos/superdao/",
        "proposal": f"proposals/{voting}/",
        "proposal votes": f"proposals/{voting}/votes/",
        "listing": "listings/model-0/",
        "round": f"rounds/{plan.id('round', 0, plan.half)}/",
    }
    found = {path: path for path in API} | things
    return {f"api {name}": f"/api/v1/{path}" for name, path in found.items()}


def api_own(plan: Plan) -> dict[str, str]:
    """What the API tells a member alone."""
    found = {path: path for path in API_OWN} | {"inference": f"inferences/{plan.id('query', 0)}/"}
    return {f"api {name}": f"/api/v1/{path}" for name, path in found.items()}


def _examples(plan: Plan) -> dict[str, dict[str, object]]:
    voting, funding, last = plan.first("voting"), plan.first("funding"), plan.objects - 1
    return {
        "model": {"heavy": "model-0", "usual": f"model-{last}"},
        "query": {"": plan.id("query", 0)},
        "rfm": {
            "voting": f"request-{voting}",
            "funding, heavy": f"request-{funding}",
            "awarded": f"request-{last}",
            "draft": f"request-{plan.first('draft')}",
        },
        "subdao": {"heavy": "model-0", "usual": f"model-{last}", "superdao": "superdao"},
        "round": {"heavy": plan.id("round", 0, plan.half), "usual": plan.id("round", last, 1)},
        "proposal": {
            "open, heavy": plan.id("approval", voting),
            "executed": plan.id("acceptance", last),
        },
        "job": {
            "query": plan.job_id("query", 0),
            "round": plan.job_id("round", last, 1),
        },
        "token": {"heavy": "SDT-m0", "usual": f"SDT-m{last}"},
        "convert": {"": "SDT-m0"},
        "propose": {"": "model-0"},
        "epoch": {"closed": plan.id("epoch", 0, 1), "open": plan.id("epoch", 0, plan.half + 1)},
        "log-entry": {"first": 0, "later": plan.objects},
    }
