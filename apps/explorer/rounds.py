"""A training round: phases, what each site has sent, φ, metrics, the nodes' receipts."""

from __future__ import annotations

from collections import defaultdict
from itertools import zip_longest
from math import prod
from typing import Any
from uuid import UUID

from django.db.models import F
from django.http import Http404, HttpRequest, HttpResponse

from apps.compute.models import Receipt
from apps.explorer.formatting import SCORING_NAMES
from apps.explorer.page import show
from apps.explorer.round_history import curve, history
from apps.explorer.templatetags.flai import as_datetime
from apps.protocol.circuits import CLASSES
from apps.protocol.circuits.descent import warm_epochs
from apps.protocol.circuits.family import proving_rows
from apps.protocol.tickets import KEPT, correction_bytes_of
from apps.training.models import Member, Round, Score, Submission
from apps.training.privacy import noise_json
from apps.training.selectors import awaited
from apps.training.shown import shown

PHASES = [
    ("moments", "Sum up", "Each site shares the sums of its columns."),
    ("normalising", "Normalise", "Nodes open the sums over all sites only."),
    ("updates", "Train", "Each site trains at home and shares its update, sealed."),
    ("computing", "Compute", "Nodes score, combine and test, without opening anything else."),
    ("done", "Result", "A version goes to the vote."),
]
SCORING_TEXT = {
    "taylor": "The nodes go most of the way to the mean of all updates and ask, on the validators' "
    "private data, whether going on towards this site's update makes the predictions better. "
    "It finds sites that pull the wrong way well, and tells good ones apart coarsely.",
    "shapley": "The nodes try every group of sites and give each site its average gain in the "
    "predictions on the validators' private data, over all orders in which sites could have "
    "joined. A site that brings what another brought already shares that gain with it.",
    "leave_one_out": "The nodes combine all updates, then all but this site's, and compare the "
    "predictions on the validators' private data. A site that others could replace "
    "scores little, however good it is.",
}
# What differs in a round on shared rows.
ON_ROWS = {
    "updates": ("Share", "Each site shares its rows, sealed, by consent that it has signed."),
    "computing": ("Train", "Nodes make steps on the rows and test, without reading one."),
}
# And where it goes on from a version, or did when it was opened.
ON_KEPT = ON_ROWS | {
    "moments": ("Sums kept", "Mean and variance are those of the serving version."),
    "normalising": ("Announce", "Each site says how many rows it will share."),
}
# And where a late site's sums are known already.
ON_LATE = {"moments": ("Sums kept", "A site was late whose sums an earlier round has: those stay.")}
ROWS_SCORING = (
    "Steps on shared rows",
    "Before each epoch the nodes ask, on the validators' private data, whether the direction in "
    "which a site's rows pull makes the predictions better, and add that up. A site whose sum is "
    "not above 0 has no part in the next epoch; nobody sees that until the end.",
)
# What gain is measured in, by kind of label.
SURPRISE = "log-loss: how surprised the model is by what really happened"
LOSSES = {
    "binary": SURPRISE,
    "classes": SURPRISE,
    "number": "squared error: how far predictions lie from what really happened",
    "count": "Poisson log-loss: how surprised the model is by the counts that really came",
    "survival": "partial likelihood: how surprised the model is by who had the event next",
}
STAGES = {"moments": "Sums", "round": "Update or holdout"}


def round_page(request: HttpRequest, round_id: UUID) -> HttpResponse:
    held = (
        Round.objects.select_related("dao", "moments_job", "round_job", "start", "summed")
        .filter(id=round_id)
        .first()
    )
    if held is None:
        raise Http404
    scores = {row.party_id: row.phi_milli for row in Score.objects.filter(round=held)}
    members = list(Member.objects.filter(round=held).select_related("party"))
    # of a ticket its shape and type are enough
    sealed = Submission.objects.filter(round=held).defer("sealed", "ticket", "acks")
    of_ticket = {"shape": F("ticket__shape"), "kind": F("ticket__type")}
    shares = list(sealed.annotate(**of_ticket).order_by("created_at"))
    kept_for = [m.party.name for m in members if held.summed_id and m.left_phase == "moments"]
    version = getattr(held, "version", None)
    epochs = _epochs(version.evidence.get("training") if version else None)
    jobs = [job for job in (held.moments_job, held.round_job) if job is not None]
    receipts: dict[Any, list[Receipt]] = defaultdict(list)
    for row in Receipt.objects.filter(job__in=jobs).select_related("node").order_by("node__index"):
        receipts[row.job_id].append(row)
    return show(
        request,
        "round.html",
        "subdaos",
        round=held,
        phases=_strip(held, _otherwise(held, kept_for)),
        kept_for=kept_for,
        sites=_sites(held, members, scores, shares),
        showed=[each for each in shown(held, members, scores, shares) if each.words]
        if held.closed_at
        else [],
        has_scores=bool(scores),
        waits_for=[member.party.name for member in awaited(held)],
        scoring=ROWS_SCORING[0] if held.shares_rows else SCORING_NAMES[held.scoring],
        scoring_text=ROWS_SCORING[1] if held.shares_rows else SCORING_TEXT[held.scoring],
        loss=LOSSES[CLASSES[held.model_class].label],
        model=CLASSES[held.model_class],
        warm_epochs=warm_epochs(CLASSES[held.model_class].hidden, held.schedule)
        if held.shares_rows
        else 0,
        epochs=epochs,
        curve=curve(epochs),
        history=history(held),
        version=version,
        evidence=version.evidence if version else None,
        jobs=[{"job": job, "receipts": receipts[job.id]} for job in jobs],
        privacy=noise_json(held),
        live=held.closed_at is None,
    )


def _otherwise(held: Round, kept_for: list[str]) -> dict[str, tuple[str, str]]:
    rows = ON_ROWS if held.shares_rows else {}
    return rows | (ON_LATE if kept_for else ON_KEPT if held.summed_id else {})


def _epochs(training: dict[str, Any] | None) -> list[dict[str, Any]]:
    """What was opened after each epoch: whether the validators' loss fell, and by how much."""
    opened = training or {"improved": [], "curve_milli": []}
    both = zip_longest(opened["improved"], opened["curve_milli"])
    return [{"fell": fell, "gain_milli": gain} for fell, gain in both]


def _strip(held: Round, otherwise: dict[str, tuple[str, str]]) -> list[dict[str, Any]]:
    """The phases as done, now, ahead, with when each began and how long it took; one that failed is
    bad, those after it were never begun, and the strip ends so."""
    names, phase = [name for name, _, _ in PHASES], held.phase
    bad = phase in ("void", "failed")
    began: dict[str, Any] = {"moments": held.opened_at}
    for step in held.progress:
        began.setdefault(step["phase"], as_datetime(step["at"]))
    if held.closed_at:
        began["done"] = held.closed_at
    end = "done" if phase == "void" else phase  # void is what a whole computation shows
    if phase == "failed":
        end = max(set(names[:-1]) & set(began), key=names.index)
    at = names.index(end)
    rows: list[dict[str, Any]] = []
    for place, (name, title, text) in enumerate(PHASES):
        title, text = otherwise.get(name, (title, text))
        there = "bad" if bad else "done" if phase == "done" else "now"
        state = "done" if place < at else there if place == at else ""
        later = next((began[after] for after in names[place + 1 :] if began.get(after)), None)
        since = began.get(name)
        took = int((later - since).total_seconds()) if since and later else None
        rows.append({"title": title, "text": text, "state": state, "at": since, "took_s": took})
    if bad:
        rows[-1] |= {"state": "bad", "title": "Void" if phase == "void" else "Failed"}
    return rows


def _sites(
    held: Round, members: list[Member], scores: dict[Any, int], shares: list[Submission]
) -> list[dict[str, Any]]:
    sent: dict[Any, dict[str, Submission]] = defaultdict(dict)
    for row in shares:
        row.kept = row.kind == KEPT
        comes = row.shape and not row.kept
        row.whole_bytes = (
            correction_bytes_of(held.engine, len(held.nodes), prod(row.shape)) if comes else 0
        )
        sent[row.party_id][row.stage] = row
    rows = [
        {
            "member": member,
            "moments": sent[member.party_id].get("moments"),
            "round": sent[member.party_id].get("round"),
            "phi": scores.get(member.party_id),
            "rows": held.rows.get(member.key),
        }
        for member in members
    ]
    there = [row for row in rows if row["rows"] and not row["member"].left_phase]
    judges = [row for row in there if row["member"].role == "validator"]
    parts = proving_rows([row["rows"] for row in judges])
    for row, part in zip(judges, parts, strict=True):
        row["part"] = round(100 * part / max(1, sum(parts)))
    return sorted(rows, key=lambda r: (r["member"].role, -(r["phi"] or 0), r["member"].party.slug))
