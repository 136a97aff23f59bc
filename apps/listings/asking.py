"""By which circuit a listing's model is asked, and whether this release still computes it.

A model's makers sign for what the circuits that it may enter compute; the nodes keep the hash of it
with the model and refuse any other, whichever release they run (`circuits/graph.py`). What is here
is the same, known before anybody pays.
"""

from __future__ import annotations

from apps.core.errors import Conflict
from apps.listings.models import Listing
from apps.protocol.circuits import CIRCUITS, CLASSES, query_hash

CHANGED = (
    "The release that runs here no longer computes {circuit} as it was when this model was made, "
    "and the nodes ask a model only by what its makers signed for. Nothing can be bought until its "
    "makers have made the next version, or the nodes run a release that still has that circuit."
)


def infer_of(listing: Listing) -> str:
    """The circuit that answers queries of this listing: of its model's class and resolution."""
    held = listing.version.round
    return listing.version.asked_by or CLASSES[held.model_class].infer_id(held.resolution)


def hash_of(listing: Listing) -> str:
    """The hash of that circuit when the model was made: what a query's ticket names."""
    return listing.version.asked_hash or _now(listing)


def obstacle(listing: Listing) -> str:
    """Why the model of a listing cannot be asked whoever pays, and what to do; "" if it can."""
    circuit = infer_of(listing)
    if circuit in CIRCUITS and hash_of(listing) == _now(listing):
        return ""
    return CHANGED.format(circuit=circuit)


def ensure_on_sale(listing: Listing) -> None:
    """Raises Conflict for a listing that nobody can ask now: closed, or its circuit is gone."""
    if listing.status != Listing.Status.OPEN:
        raise Conflict("listing_closed", "This listing is closed.")
    reason = obstacle(listing)
    if reason:
        raise Conflict("circuit_changed", reason)


def _now(listing: Listing) -> str:
    held = listing.version.round
    return query_hash(infer_of(listing), {"features": held.features, **held.extras})
