"""The addresses of every page of a world."""

from __future__ import annotations

from uuid import UUID

from django.http import Http404
from django.test import RequestFactory
from django.urls import URLPattern, converters, reverse

from apps.accounts.models import User
from apps.subdaos.models import Epoch
from tests.explorer.second import Second
from tests.explorer.world import World

DUMMIES: dict[type, object] = {
    converters.SlugConverter: "x",
    converters.StringConverter: "x",
    converters.IntConverter: 1,
    converters.UUIDConverter: UUID(int=1),
}
# No pages: files, what an open page asks for itself, and where forms go (`takes_posts_only`).
LEFT_OUT = {"download", "nodes-health", "quote"}

FIXED = [
    "home",
    "models",
    "compare",
    "reference",
    "rfms",
    "subdaos",
    "proposals",
    "log",
    "nodes",
    "design",
    "downloads",
    "tokens",
]


def public(world: World) -> dict[str, str]:
    """Pages that anybody may read."""
    pages = {name: reverse(f"explorer:{name}") for name in FIXED}
    examples = {
        "model": ("model", world.listing.slug),
        "audit": ("audit", world.listing.slug),
        "rfm in vote": ("rfm", world.voting.slug),
        "rfm in funding": ("rfm", world.funding.slug),
        "rfm awarded": ("rfm", world.awarded.slug),
        "subdao": ("subdao", world.dao.slug),
        "epoch": ("epoch", Epoch.objects.get(dao=world.dao, number=1).id),
        "running epoch": ("epoch", Epoch.objects.get(dao=world.dao, number=2).id),
        "superdao": ("subdao", "superdao"),
        "open proposal": ("proposal", world.open_vote.id),
        "executed proposal": ("proposal", world.accepted.id),
        "round": ("round", world.round.id),
        "part of the API": ("reference-group", "inferences"),
        "token": ("token", world.dao.asset.code),
        "pool": ("pool", world.dao.asset.code),
        "vault": ("vault", world.dao.asset.code),
        "convert": ("convert", world.dao.asset.code),
        "token without a pool": ("token", "FLAI"),
        "no pool": ("pool", "FLAI"),
        "vault of FLAI": ("vault", "FLAI"),
        "log entry": ("log-entry", 2),
        "job": ("job", world.round.round_job.job_id),
        "prediction's job": ("job", world.query.job.job_id),
    }
    search = reverse("explorer:search")
    return (
        pages
        | {name: reverse(f"explorer:{to}", args=[arg]) for name, (to, arg) in examples.items()}
        | {
            "search": f"{search}?q=mass",
            "models by facet": f"{reverse('explorer:models')}?q=mass&metric=0.90-0.95&sort=use",
            "no such models": f"{reverse('explorer:models')}?domain=finance",
            "one compared": f"{reverse('explorer:compare')}?m={world.listing.slug}&m=nothing",
            "nothing found": f"{search}?q=zebra",
            "one kind": f"{search}?q=mass&kind=requests",
            "pseudonym": f"{reverse('explorer:log')}?about={world.party.pid}",
        }
    )


def own(world: World) -> dict[str, str]:
    """Pages of a signed-in party."""
    return {
        "dashboard": reverse("explorer:dashboard"),
        "wallet": reverse("explorer:wallet"),
        "usage": reverse("explorer:usage"),
        "usage of a month without any": f"{reverse('explorer:usage')}?month=2020-02",
        "invoice": reverse("explorer:invoice", args=["2026-10"]),
        "plans": reverse("explorer:plans"),
        "plans of a model": reverse("explorer:plan", args=[world.listing.slug]),
        "credentials": reverse("explorer:credentials"),
        "issued credentials": reverse("explorer:credentials-issued"),
        "wallet key": reverse("explorer:wallet-key"),
        "account": reverse("explorer:account"),
        "webhooks": reverse("explorer:webhooks"),
        "form": reverse("explorer:rfm-new"),
        "draft": reverse("explorer:rfm", args=[world.draft.slug]),
        "draft form": reverse("explorer:rfm-edit", args=[world.draft.slug]),
        "propose": reverse("explorer:propose", args=[world.dao.slug]),
        "propose a split": reverse("explorer:propose", args=[world.dao.slug])
        + "?kind=subdaos.set_split",
        "query": reverse("explorer:query", args=[world.query.id]),
    }


def beside(world: World, second: Second) -> dict[str, str]:
    """What anybody may read once there are two models."""
    models = f"m={world.listing.slug}&m={second.listing.slug}"
    return {
        "two compared": f"{reverse('explorer:compare')}?{models}",
        "model that misses a gate": reverse("explorer:model", args=[second.listing.slug]),
        "failed round": reverse("explorer:round", args=[second.failed.id]),
        "open round": reverse("explorer:round", args=[second.open.id]),
    }


def strangers(world: World) -> dict[str, str]:
    """What only those see who aren't signed in, or what they see otherwise."""
    return {
        "landing": reverse("explorer:home"),
        "sign-up": reverse("explorer:sign-up"),
        "sign-in": reverse("explorer:sign-in"),
        "no wallet": reverse("explorer:wallet"),
        "model to a stranger": reverse("explorer:model", args=[world.listing.slug]),
        "funding to a stranger": reverse("explorer:rfm", args=[world.funding.slug]),
        "vote to a stranger": reverse("explorer:proposal", args=[world.open_vote.id]),
    }


def of_nobody() -> dict[str, str]:
    """What somebody sees who is signed in and acts for no party."""
    names = ("dashboard", "wallet", "wallet-key", "account", "webhooks", "usage", "rfm-new")
    return {f"{name} of nobody": reverse(f"explorer:{name}") for name in names}


def takes_posts_only(row: URLPattern) -> bool:
    """Whether an address refuses to be read: a form goes there."""
    values = {name: DUMMIES[type(c)] for name, c in row.pattern.converters.items()}
    request = RequestFactory().get("/")
    request.user = User(email="somebody@example.org")
    try:
        return bool(row.callback(request, **values).status_code == 405)
    except Http404:
        return False
