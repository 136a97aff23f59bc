"""The addresses of every page and list, at the heaviest object of each kind and at an ordinary one.

Pages whose address names nothing are found by themselves. A page about an object, and whatever the
API gives, needs its examples here, which a test insists on.
"""

from __future__ import annotations

from urllib.parse import urlencode

from django.test import Client
from django.urls import NoReverseMatch, URLPattern, reverse

from apps.explorer import urls
from apps.explorer.scale.plan import Plan
from apps.explorer.scale.rows import digest

# For strangers only, or what no page is behind; the health of nodes is the nodes' own time; and the
# data set has released no tokens that points could be converted into, and sold no plans.
LEFT_OUT = {"sign-in", "sign-up", "sign-out", "download", "nodes-health"}
API_LEFT_OUT = {
    "api/v1/nodes/",
    "api/v1/subdaos/<slug:slug>/conversions/preview/",
    "api/v1/listings/<slug:slug>/plan/",
}
# Filters and questions.
VARIANTS = {
    "rfms": ["?status=funding", "?status=failed"],
    "proposals": ["?state=active", "?state=succeeded", "?state=defeated"],
    "log": ["?before=5000"],
    "models": [
        "?q=model",
        "?domain=health&licence=any-use&price=0.50-2",
        "?sort=use",
        "?sort=metric",
        "?sort=cheapest",
    ],
    "compare": ["?m=model-0&m=model-1&m=model-2&m=model-3"],
    "search": ["?q=request", "?q=model+100", "?q=acceptance&kind=proposals", "?q=nowhere"],
    "wallet": ["?kind=listings.query", "?asset=SDT-m0"],
}
LISTS = {"models", "rfms", "subdaos", "proposals", "nodes", "wallet", "tokens", "webhooks"}
# What an open page asks for while somebody types.
TYPED = {"suggestions": "search/?q=reque", "suggestions, two letters": "search/?q=re"}
API = (
    "rfms/",
    "rfms/?status=funding",
    "subdaos/",
    "proposals/",
    "proposals/?state=active",
    "proposals/?dao=superdao",
    "listings/",
    "pools/",
    "vaults/",
    "listings/?sort=cheapest&domain=health",
    "listing-facets/?domain=health",
    "feed/",
    "log/entries/?start=0&end=100",
    "log/head/",
    "log/heads/",
    "log/key/",
    "log/cosigned/",
    "log/inclusion/?index=0",
    "log/consistency/?first=1&second=2",
    "schema/",
)
API_OWN = (
    "inferences/",
    "inferences/?state=released",
    "wallet/",
    "wallet/transfers/",
    "wallet/keys/",
    "wallet/settings/",
    "me/",
    "me/rounds/",
    "keys/",
    "payouts/",
    "mandates/",
    "credentials/",
    "subscriptions/",
    "quotas/",
    "usage/",
    "webhooks/",
)


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
    swap = "?side=quote&amount=10&slippage=0.5"
    found["pool with a preview"] = found["pool heavy"] + swap
    found["quote"] = found["pool heavy"] + "quote/" + swap
    about = reverse("explorer:log")
    found["log, about the busiest"] = f"{about}?about={pid(plan, 0)}"
    return found | {name: f"/{address}" for name, address in TYPED.items()}


def names() -> list[str]:
    """The names of all addresses, in their order, but for LEFT_OUT."""
    found = [str(row.name) for row in urls.urlpatterns if isinstance(row, URLPattern)]
    return [name for name in found if name not in LEFT_OUT]


def ask(client: Client, name: str, address: str) -> int:
    """Asks for it as a browser does; the status of the answer."""
    headers = {"Accept-Encoding": "gzip"} | ({"HX-Request": "true"} if name in TYPED else {})
    return client.get(address, headers=headers).status_code


def api(plan: Plan) -> dict[str, str]:
    """The lists of the API and one of each thing in it, for anybody."""
    voting, funding = plan.id("approval", plan.first("voting")), plan.first("funding")
    heavy = f"epochs/{plan.id('epoch', 0, plan.half)}/"
    round_ = f"rounds/{plan.id('round', 0, plan.half)}/"
    things = {
        "rfm": f"rfms/request-{funding}/",
        "rfm applications": f"rfms/request-{funding}/applications/",
        "subdao": "subdaos/model-0/",
        "subdao epochs": "subdaos/model-0/epochs/",
        "subdao emission": "subdaos/model-0/emission/",
        "subdao rounds": "subdaos/model-0/rounds/",
        "subdao versions": "subdaos/model-0/versions/",
        "subdao version": "subdaos/model-0/versions/1/",
        "superdao": "subdaos/superdao/",
        "proposal": f"proposals/{voting}/",
        "proposal votes": f"proposals/{voting}/votes/",
        "listing": "listings/model-0/",
        "listing card": "listings/model-0/card/",
        "round": round_,
        "round record": f"{round_}record/",
        "round scores": f"{round_}scores.csv",
        "round share": f"{round_}shares/{digest('share', 0, 0)[:32]}/",
        "job": f"jobs/{plan.job_id('query', 0)}/",
        "party": "parties/person-0/",
        "epoch": heavy,
        "epoch entitlements": f"{heavy}entitlements/",
        "epoch entitlement": f"{heavy}entitlement/?pid={pid(plan, 0)}",
        "pool": "pools/SDT-m0/",
        "pool quote": "pools/SDT-m0/quote/?side=quote&amount_micro=10000000",
        "pool events": "pools/SDT-m0/events/",
        "pool history": "pools/SDT-m0/history/",
        "vault": "vaults/SDT-m0/",
        "vault of FLAI": "vaults/FLAI/",
    }
    found = {path: path for path in API} | things
    return {f"api {name}": f"/api/v1/{path}" for name, path in found.items()}


def api_own(plan: Plan) -> dict[str, str]:
    """What the API tells a member alone; of what it gives as files, a day."""
    until = plan.at(plan.objects // 30 + 1)
    day = urlencode({"since": plan.at(0).isoformat(), "until": until.isoformat()})
    things = {
        "inference": f"inferences/{plan.id('query', 0)}/",
        "webhook deliveries": f"webhooks/{plan.id('endpoint')}/deliveries/",
        "position": "vaults/SDT-m0/position/",
        "unstakings": "vaults/SDT-m0/unstakings/",
        "usage.csv": f"usage.csv?{day}",
        "invoice": f"invoices/{plan.at(0):%Y-%m}/",
        "invoice.csv": f"invoices/{plan.at(0):%Y-%m}.csv",
        "statement.csv": f"wallet/statement.csv?{day}",
    }
    found = {path: path for path in API_OWN} | things
    return {f"api {name}": f"/api/v1/{path}" for name, path in found.items()}


def pid(plan: Plan, person: int) -> str:
    return digest(plan.seed, "pid", "person", person)[:32]


def _examples(plan: Plan) -> dict[str, dict[str, object]]:
    voting, funding, last = plan.first("voting"), plan.first("funding"), plan.objects - 1
    tokens: dict[str, object] = {"heavy": "SDT-m0", "usual": f"SDT-m{last}", "of FLAI": "FLAI"}
    return {
        "model": {"heavy": "model-0", "usual": f"model-{last}"},
        "audit": {"": "model-0"},
        "query": {"": plan.id("query", 0)},
        "rfm": {
            "voting": f"request-{voting}",
            "funding, heavy": f"request-{funding}",
            "awarded": f"request-{last}",
            "draft": f"request-{plan.first('draft')}",
        },
        "rfm-edit": {"": f"request-{plan.first('draft')}"},
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
        "reference-group": {"": "listings"},
        "convert": {"": "SDT-m0"},
        "propose": {"": "model-0"},
        "plan": {"": "model-0"},
        "token": tokens,
        "pool": tokens,
        "vault": tokens,
        "epoch": {
            "heavy": plan.id("epoch", 0, plan.half),
            "closed": plan.id("epoch", last, 1),
            "open": plan.id("epoch", 0, plan.half + 1),
        },
        "invoice": {"": f"{plan.at(0):%Y-%m}"},
        "log-entry": {"first": 0, "later": plan.objects},
    }
