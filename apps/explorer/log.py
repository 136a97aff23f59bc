"""The public log: its signed head, its entries, the proof of one entry."""

from __future__ import annotations

import json
from typing import Any

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse

from apps.accounts.models import Party
from apps.compute.cosigning import cosigned_latest
from apps.core.errors import NotFound
from apps.explorer.page import PAGE_SIZE, paged, show
from apps.explorer.wallet import KINDS, PHASES
from apps.listings.services import listing_get
from apps.protocol import merkle
from apps.rfms.models import Rfm
from apps.training.models import Submission
from apps.wallets import log
from apps.wallets.models import LogLeaf
from apps.wallets.selectors import transfers_of

WORDS = {
    "wallets.transfer": "Transfer",
    "wallets.asset": "New asset",
    "wallets.closed": "Account closed",
    "wallets.pulse": "Nothing happened",
    "accounts.signing_key": "Signing key bound",
    "governance.proposal": "Proposal made",
    "governance.snapshot": "Weights taken for a vote",
    "governance.vote": "Vote cast",
    "governance.concluded": "Vote ended",
    "governance.executed": "Proposal executed",
    "governance.canceled": "Proposal taken back",
    "governance.expired": "Proposal expired",
    "rfms.submitted": "Request submitted",
    "rfms.taken_back": "Request taken back",
    "rfms.approved": "Request approved",
    "wallets.credential": "Credential issued",
    "wallets.credential_revoked": "Credential revoked",
    "rfms.rejected": "Request not approved",
    "rfms.awarded": "Request awarded",
    "rfms.failed": "Request's target missed",
    "rfms.pledged": "Pledge made",
    "rfms.returned": "Pledge given back",
    "participants.application": "Application filed",
    "participants.whitelisted": "Participants let in",
    "participants.removed": "Participants removed",
    "subdaos.founded": "SubDAO founded",
    "subdaos.params": "Rules changed",
    "subdaos.paid": "Paid from a treasury",
    "subdaos.sbgt": "Points earned",
    "training.round_opened": "Round opened",
    "training.normalised": "Sums opened for normalising",
    "training.scored": "Round scored",
    "training.round_void": "Round void",
    "training.round_failed": "Round failed",
    "training.share_received": "Share received",
    "training.share_withdrawn": "Share taken back",
    "training.rows_consented": "Consent to share rows",
    "training.roster_reduced": "Roster reduced",
    "training.round_done": "Round done",
    "training.version_accepted": "Version accepted",
    "training.version_rejected": "Version rejected",
    "listings.opened": "Model on sale",
    "listings.plan": "Plan begun, changed or ended",
    "listings.plan_renewal": "Plan renews itself, or no more",
    "listings.query_held": "Prediction asked",
    "listings.query_settled": "Prediction answered",
    "listings.query_released": "Prediction released",
    "listings.epoch_settled": "Epoch settled",
    "compute.node_claimed": "Node claimed",
    "compute.node_succeeded": "Node has a successor",
    "compute.refreshed": "Shares refreshed",
}
AUDITED = (
    "rfms.submitted", "rfms.approved", "rfms.awarded", "subdaos.founded",
    "governance.proposal", "governance.snapshot", "governance.concluded", "governance.executed",
    "training.round_opened", "training.rows_consented", "training.share_received",
    "training.roster_reduced", "training.normalised", "training.round_done",
    "training.version_accepted", "listings.opened",
)  # fmt: skip
AUDIT_MAX = 500


def entries(request: HttpRequest) -> HttpResponse:
    """Newest first. `?before=` pages by index, so that new entries don't shift what one reads."""
    if pid := request.GET.get("about", ""):
        return _about(request, pid)
    head = log.head_latest()
    size = head.size if head else 0
    raw = request.GET.get("before", "")
    before = min(int(raw), size) if raw.isascii() and raw.isdigit() and len(raw) < 16 else size
    rows = LogLeaf.objects.filter(seq__lt=before).order_by("-seq")[:PAGE_SIZE]
    leaves = [_entry(leaf) for leaf in rows]
    return show(
        request,
        "log.html",
        "log",
        head=head,
        public_key=log.public_key(),
        cosigned=_cosigned(),
        entries=leaves,
        older=leaves[-1]["index"] if leaves and leaves[-1]["index"] else None,
        newest=before == size,
        base_url=settings.BASE_URL,
    )


def _cosigned() -> dict[str, Any] | None:
    """The newest head that nodes signed, and their names."""
    head = cosigned_latest()
    if head is None:
        return None
    names = head.cosignatures.order_by("node__index").values_list("node__name", flat=True)
    return {"size": head.size, "at_ms": head.at_ms, "names": list(names)}


def _about(request: HttpRequest, pid: str) -> HttpResponse:
    """The movements of money of whoever stands under this pseudonym, newest first."""
    party = Party.objects.filter(pid=pid).first()
    if party is None:
        raise Http404
    page = paged(request, transfers_of(party).prefetch_related(None).only("id", "created_at"))
    refs = [str(transfer.id) for transfer in page]
    leaves = LogLeaf.objects.filter(type="wallets.transfer", ref_id__in=refs, seq__isnull=False)
    return show(
        request,
        "log_about.html",
        "log",
        pid=pid,
        page=page,
        entries=[_entry(leaf) for leaf in leaves.order_by("-seq")],
    )


def audit(request: HttpRequest, slug: str) -> HttpResponse:
    """What made the model on sale, from its request to its listing, as the log has it; no votes,
    which the proposals' pages list."""
    try:
        listing = listing_get(slug)
    except NotFound:
        raise Http404 from None
    version, rfm_id = listing.version, listing.dao.rfm_ref
    shares = Submission.objects.filter(round=version.round_id).values_list("ticket_id", flat=True)
    approval = Rfm.objects.filter(pk=rfm_id).values_list("proposal_id", flat=True)
    about = [
        slug,
        listing.dao_id,
        rfm_id,
        version.round_id,
        version.proposal_id,
        *approval,
        *shares,
    ]
    leaves = LogLeaf.objects.filter(
        type__in=AUDITED, ref_id__in=[str(ref) for ref in about if ref], seq__isnull=False
    )
    found = [_entry(leaf) for leaf in leaves.order_by("seq")[:AUDIT_MAX]]
    pids = {entry["body"].get("party") for entry in found} - {None}
    names = dict(Party.objects.filter(pid__in=pids).values_list("pid", "name"))
    for entry in found:
        entry["who"] = names.get(entry["body"].get("party"), "")
    return show(
        request,
        "audit.html",
        "models",
        listing=listing,
        title=listing.dao.name,
        entries=found,
        base_url=settings.BASE_URL,
    )


def entry(request: HttpRequest, index: int) -> HttpResponse:
    """One leaf with its bytes and the path of hashes that ties it to the signed head."""
    head = log.head_latest()
    leaf = LogLeaf.objects.filter(seq=index).first()
    if head is None or leaf is None or index >= head.size:
        raise Http404
    ranges = merkle.inclusion_ranges(index, head.size)
    table = log.subtree_hashes(merkle.places(ranges))
    path = merkle.proof(ranges, lambda level, place: table[level, place])
    computed = merkle.root_from_inclusion(bytes(leaf.hash), index, head.size, path)
    return show(
        request,
        "log_entry.html",
        "log",
        head=head,
        cosigned=_cosigned(),
        entry=_entry(leaf),
        path=[digest.hex() for digest in path],
        computed=computed.hex(),
        matches=computed.hex() == head.root,
    )


def _entry(leaf: LogLeaf) -> dict[str, Any]:
    content = json.loads(bytes(leaf.data))
    body = content["body"]
    word = WORDS.get(leaf.type, leaf.type.split(".")[-1].replace("_", " ").capitalize())
    entry = {
        "index": leaf.seq,
        "type": leaf.type,
        "word": word,
        "at": content["at"],
        "body": body,
        "hash": bytes(leaf.hash).hex(),
    }
    if leaf.type == "wallets.transfer":
        phase = PHASES.get(body["phase"], "")
        kind = KINDS.get(body["kind"], word)
        # An account's name ends in its asset: pid/purpose/asset.
        entry |= {
            "word": f"{kind}, {phase}" if phase else kind,
            "amount_micro": body["amount_micro"],
            "asset": body["debit"].rsplit("/", 1)[-1],
        }
    return entry
