"""A round as a file that a stranger checks against the log: what was opened, who took part and what
each scored, with the log's entries about it and their paths to one signed head.

`workers/client/record.py` checks it. Reads only.
"""

from __future__ import annotations

import csv
import io
from typing import Any

from apps.compute.selectors import descriptors_of, receipts_json
from apps.core.cells import cell_text
from apps.training.models import Member, ModelVersion, Phase, Round, Score, Submission
from apps.wallets import proofs
from apps.wallets.models import LogLeaf

Json = dict[str, Any]
COLUMNS = (
    "round", "number", "pid", "name", "role", "phi_milli", "left_phase", "log_index", "log_hash",
)  # fmt: skip
ENDS = ("training.round_done", "training.round_void", "training.round_failed")


def record_json(held: Round) -> Json:
    """Of a round that is under way what there is of it so far."""
    version = ModelVersion.objects.filter(round=held).first()
    shares = list(
        Submission.objects.filter(round=held)
        .select_related("party")
        .defer("sealed", "acks")
        .order_by("created_at")
    )
    refs = [str(held.id), *(share.ticket_id for share in shares)]
    job = held.round_job if held.phase in (Phase.DONE, Phase.VOID) else None
    leaves = LogLeaf.objects.filter(type__startswith="training.", ref_id__in=refs)
    return {
        "v": 1,
        "round": _round(held),
        "course": held.progress,
        "members": _members(held),
        "shares": [
            {
                "pid": share.party.pid,
                "stage": share.stage,
                "slot": share.slot,
                "ticket_id": share.ticket_id,
                "ticket": share.ticket,
                "state": share.state,
                "reason": share.reason or None,
            }
            for share in shares
        ],
        "job": {"descriptor": job.descriptor, "nodes": descriptors_of(job)} if job else None,
        "openings": job.openings if job else None,
        "receipts": receipts_json(job) if job else [],
        "version": version.number if version else None,
        "evidence": version.evidence if version else None,
        "log": proofs.inclusions(leaves.filter(seq__isnull=False).order_by("seq")),
    }


def scores_csv(held: Round) -> str:
    """A line for each member, with the entry of the log that ends the round."""
    leaf = LogLeaf.objects.filter(type__in=ENDS, ref_id=str(held.id)).first()
    place = {
        "log_index": leaf.seq if leaf else None,
        "log_hash": bytes(leaf.hash).hex() if leaf else None,
    }
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for member in _members(held):
        name = {"name": cell_text(member["name"])}
        writer.writerow({"round": held.id, "number": held.number, **member, **name, **place})
    return out.getvalue()


def _round(held: Round) -> Json:
    kept = (
        "number", "phase", "roster", "roster_hash", "circuits_hash", "features", "strata",
        "model_class", "training", "scoring", "normalisation", "privacy",
    )  # fmt: skip
    # by whom it was computed and how; the row says where its model is kept now
    job = held.round_job or held.moments_job
    where = job.descriptor if job else {"nodes": held.nodes, "engine": held.engine}
    return {
        "id": str(held.id),
        "dao": {"slug": held.dao.slug, "name": held.dao.name, "pid": held.dao.party.pid},
        **{name: getattr(held, name) for name in kept},
        **{name: where[name] for name in ("nodes", "engine")},
        "reason": held.reason or None,
        "opened_at": held.opened_at.isoformat(),
        "closed_at": held.closed_at.isoformat() if held.closed_at else None,
    }


def _members(held: Round) -> list[Json]:
    phi = dict(Score.objects.filter(round=held).values_list("party_id", "phi_milli"))
    names = {member["key"]: member["name"] for member in held.roster["members"]}
    return [
        {
            "pid": member.party.pid,
            "name": names.get(member.key, member.party.name),
            "role": member.role,
            "key": member.key,
            "rows": held.rows.get(member.key),
            "left_phase": member.left_phase or None,
            "phi_milli": phi.get(member.party_id),
        }
        for member in Member.objects.filter(round=held).select_related("party")
    ]
