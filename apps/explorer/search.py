"""One search over models, requests, SubDAOs and proposals by their words, and over everything that
has an id, a hash, a signature or a number by that.

What one may not read one doesn't find either: drafts are their author's, predictions their buyer's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.db.models import F, Q, QuerySet, TextField, Value
from django.db.models.functions import Cast
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse

from apps.accounts.models import Party
from apps.compute.models import Job, Node, Receipt
from apps.core import clock
from apps.core.search import RANKED_MAX, matching, words
from apps.explorer.page import paged, party_of, show
from apps.governance.models import Proposal
from apps.listings.models import Query
from apps.rfms.models import Rfm
from apps.subdaos.models import Dao
from apps.training.models import ModelVersion, Round, Submission
from apps.wallets.models import LogLeaf, TreeHead

KINDS = {
    "models": "Models",
    "requests": "Requests",
    "subdaos": "SubDAOs",
    "proposals": "Proposals",
}
SHOWN, SUGGESTED = 6, 4
TEXT_MAX, TEXT_MIN = 200, 2
_HEX = re.compile(r"[0-9a-f]{32}|[0-9a-f]{64}|[0-9a-f]{128}")


@dataclass(frozen=True)
class Hit:
    """One thing that was found, and where it stands."""

    title: str
    url: str
    note: str = ""
    state: str = ""


@dataclass(frozen=True)
class Group:
    """The best hits of one kind; `url` leads to all of them."""

    kind: str
    title: str
    hits: list[Hit]
    url: str = ""


def search(request: HttpRequest) -> HttpResponse:
    """`?q=` finds; an id goes straight to its page. `?kind=` pages through one kind."""
    text = request.GET.get("q", "").strip()[:TEXT_MAX]
    kind = request.GET.get("kind", "")
    party = party_of(request)
    found = list(by_id(text, party))
    if request.htmx:  # type: ignore[attr-defined]
        groups = _groups(text, party, found, SUGGESTED) if len(text) >= TEXT_MIN else []
        answer = show(request, "_suggestions.html", "", find=text, groups=groups)
        answer.headers["Cache-Control"] = "no-store"
        return answer
    page = None
    if kind in KINDS:
        page = paged(request, _rows(kind, text, party))
        groups = [Group(kind, KINDS[kind], _hits(kind, page.rows))] if page.rows else []
    else:
        groups = _groups(text, party, found, SHOWN)
        if len(found) == len(groups) == 1:
            return redirect(found[0].url)
    return show(
        request,
        "search.html",
        "",
        find=text,
        groups=groups,
        page=page,
        kind=kind,
        ranked_max=RANKED_MAX,
    )


def _groups(text: str, party: Party | None, found: list[Hit], size: int) -> list[Group]:
    """What the id leads to, then the best of each kind; one query a kind."""
    groups = [Group("ids", "By id or hash", found)] if found else []
    for kind, title in KINDS.items() if words(text) else ():
        rows = list(_rows(kind, text, party)[: size + 1])
        if rows:
            query = urlencode({"q": text, "kind": kind})
            url = f"{reverse('explorer:search')}?{query}" if len(rows) > size else ""
            groups.append(Group(kind, title, _hits(kind, rows[:size]), url))
    return groups


def _rows(kind: str, text: str, party: Party | None) -> QuerySet[Any]:
    """The rows of one kind that the party may read, best first."""
    if kind == "models":
        return matching(Dao.objects.exclude(listing=None).select_related("listing__version"), text)
    if kind == "requests":
        seen = Q(submitted_at__isnull=False)
        if party is not None:
            seen |= Q(submitter=party)
        return matching(Rfm.objects.filter(seen), text)
    if kind == "subdaos":
        return matching(Dao.objects.all(), text)
    return matching(Proposal.objects.select_related("dao"), text)


def _hits(kind: str, rows: Any) -> list[Hit]:
    if kind == "models":
        return [
            Hit(r.name, _to("model", r.listing.slug), r.params["objective"], r.listing.status)
            for r in rows
        ]
    if kind == "requests":
        return [Hit(r.title, _to("rfm", r.slug), r.objective, r.status.value) for r in rows]
    if kind == "subdaos":
        return [
            Hit(r.name, _to("subdao", r.slug), r.params.get("objective", "Decides for all"))
            for r in rows
        ]
    now = clock.now()
    return [Hit(r.title, _to("proposal", r.id), r.dao.name, r.state(now).value) for r in rows]


def _to(page: str, key: Any) -> str:
    return reverse(f"explorer:{page}", args=[key])


# ---------- by id ----------


def by_id(text: str, party: Party | None) -> Iterator[Hit]:
    """What the text names, if it is a number, a UUID, a hash, a key or a signature."""
    bare = text.lower().replace("-", "").removeprefix("0x")
    if text.isascii() and text.isdigit() and len(text) < 16:
        rows = [_leaf(LogLeaf.objects.filter(seq=int(text)))]
    elif not _HEX.fullmatch(bare):
        return
    elif len(bare) >= 128:
        rows = [_row("job", Receipt.objects.filter(signature=bare), "job__job_id", "Receipt of")]
    elif len(bare) == 64:
        rows = _of_digest(bare, party)
    else:
        rows = _of_short(bare, party)
    for kind, key, label in rows[0].union(*rows[1:], all=True):
        yield Hit(label.strip(), *_place(kind, key))


def _of_digest(bare: str, party: Party | None) -> list[QuerySet[Any]]:
    """64 hex digits: a hash, a model, a ticket, or a node's fingerprint."""
    return [
        _leaf(LogLeaf.objects.filter(hash=bytes.fromhex(bare), seq__isnull=False)),
        _row("subdao", ModelVersion.objects.filter(model=bare), "dao__slug", "Model of"),
        _row("proposal", Proposal.objects.filter(payload_hash=bare), "id", "Proposal"),
        _row("rfm", _readable(party).filter(spec_hash=bare), "slug", "Request"),
        _row("node", Node.objects.filter(fingerprint=bare), "fingerprint", "Node"),
        _row("head", TreeHead.objects.filter(root=bare), "size", "Log head of entries"),
        _row("round", Round.objects.filter(roster_hash=bare), "id", "Round with this roster"),
        _row("round", Submission.objects.filter(ticket_id=bare), "round_id", "Round of a ticket"),
        _row("query", Query.objects.filter(ticket_id=bare, buyer=party), "id", "Prediction"),
    ]


def _of_short(bare: str, party: Party | None) -> list[QuerySet[Any]]:
    """32 hex digits: a UUID, a job, a share, or the pseudonym of somebody in the log."""
    key = UUID(bare)
    transfers = LogLeaf.objects.filter(type="wallets.transfer", ref_id=str(key), seq__isnull=False)
    return [
        _row("proposal", Proposal.objects.filter(id=key), "id", "Proposal"),
        _row("rfm", _readable(party).filter(id=key), "slug", "Request"),
        _row("subdao", Dao.objects.filter(id=key), "slug", "SubDAO"),
        _row("round", Round.objects.filter(id=key), "id", "Round"),
        _row("query", Query.objects.filter(id=key, buyer=party), "id", "Prediction"),
        _row("query", Query.objects.filter(share_id=bare, buyer=party), "id", "Prediction"),
        _row("round", Submission.objects.filter(share_id=bare), "round_id", "Round of a share"),
        _row("job", Job.objects.filter(job_id=bare), "job_id", "Job"),
        _row("about", Party.objects.filter(pid=bare), "pid", "Log entries of"),
        _leaf(transfers),
    ]


def _readable(party: Party | None) -> QuerySet[Rfm]:
    return Rfm.objects.filter(Q(submitted_at__isnull=False) | Q(submitter=party))


def _row(kind: str, rows: QuerySet[Any], key: str, label: str) -> QuerySet[Any]:
    """(kind, key, label) of at most two rows, in a form that unites with others."""
    columns = {"kind_": Value(kind), "key_": Cast(F(key), TextField()), "label_": Value(label)}
    return rows.order_by().annotate(**columns).values_list(*columns)[:2]


def _leaf(rows: QuerySet[LogLeaf]) -> QuerySet[Any]:
    return _row("log-entry", rows, "seq", "Log entry")


def _place(kind: str, key: str) -> tuple[str, str]:
    """(address, what stands beside the label) of an id's page."""
    if kind == "node":
        return f"{reverse('explorer:nodes')}#node-{key[:12]}", key[:12]
    if kind == "head":
        return reverse("explorer:log"), key
    if kind == "about":
        return f"{reverse('explorer:log')}?about={key}", key
    return _to(kind, int(key) if kind == "log-entry" else key), key
