"""A round on real nodes: from the whitelist to the version that is voted on."""

from __future__ import annotations

import json

from apps.compute.models import Receipt
from apps.core.clock import now
from apps.subdaos.selectors import points_at
from apps.training.models import ModelVersion, Submission
from apps.wallets.models import LogLeaf


def test_a_round_runs_by_itself_from_whitelist_to_listing(market) -> None:
    before = points_at(market.dao, now())
    held = market.train()
    assert held.phase == "done", held.progress
    phi = {s.party_id: s.phi_milli for s in held.scores.all()}
    good, flipped = market.custodians[:3], market.custodians[3]
    assert phi[flipped.party.id] == 0
    assert max(phi.values()) == 1000 and all(phi[site.party.id] > 0 for site in good)
    version = held.version
    assert version.status == "proposed" and version.proposal is not None
    assert version.evidence["auc_milli"] > 850
    assert [gate["stratum"] for gate in version.evidence["gates"]] == [None, "north", "south"]
    after = points_at(market.dao, now())
    for party, value in phi.items():
        assert after[party] == before[party] + value * 1000
    for validator in market.validators:
        assert after[validator.party.id] == before[validator.party.id] + 1_000_000
    for type_, job in (("normalised", held.moments_job), ("round_done", held.round_job)):
        leaf = json.loads(bytes(LogLeaf.objects.get(type=f"training.{type_}").data))["body"]
        signed = Receipt.objects.filter(job=job).values_list("signature", flat=True)
        assert leaf["receipts"] == sorted(signed) and len(signed) == 3
    assert not Submission.objects.filter(round=held, upload__isnull=False).exists()
    listing = market.accept(held)
    assert listing.version == ModelVersion.objects.get(status="accepted")
