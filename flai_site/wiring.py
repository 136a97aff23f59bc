"""Which event calls which handler: the whole table. Alone knows every app.

Imported where events are dispatched (workers/tasks) and where descriptions are read (the site's
URLs).
"""

from __future__ import annotations

from collections.abc import Callable

import apps.listings.handlers as listings
import apps.listings.selectors as listing_reads
import apps.participants.handlers as participants
import apps.rfms.handlers as rfms
import apps.training.handlers as training
import apps.training.selectors as training_reads
from apps.compute.events import ModelReshared, NodesSucceeded
from apps.core.events import Event
from apps.core.handlers import on
from apps.governance.events import ProposalCanceled, ProposalDefeated, ProposalExpired
from apps.participants.events import ApplicationVerified, WhitelistExecuted
from apps.rfms.events import CrowdfundFilled
from apps.subdaos.events import SubdaoFounded
from apps.subdaos.selectors import add_detail
from apps.training.events import VersionAccepted
from apps.training.privacy import budget_json

TABLE: list[tuple[type[Event], Callable[..., None]]] = [
    (ProposalDefeated, rfms.proposal_ended),
    (ProposalExpired, rfms.proposal_ended),
    (ProposalCanceled, rfms.proposal_taken_back),
    (CrowdfundFilled, rfms.award_if_ready),
    (ApplicationVerified, rfms.award_if_ready),
    (SubdaoFounded, participants.subdao_founded),
    (WhitelistExecuted, training.whitelist_executed),
    (ProposalDefeated, training.proposal_lost),
    (ProposalExpired, training.proposal_lost),
    (ProposalCanceled, training.proposal_lost),
    (NodesSucceeded, training.nodes_succeeded),
    (ModelReshared, training.model_reshared),
    (VersionAccepted, listings.version_accepted),
]

for event, handler in TABLE:
    on(event, handler)

# What higher apps add to the public description of a SubDAO.
add_detail("current_round", training_reads.current_round)
add_detail("listing", listing_reads.listing_of)
add_detail("privacy", budget_json)
