"""What the reserve releases, points converted, sponsors paid: by the services and in the replay."""

from __future__ import annotations

import copy
import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.db import IntegrityError, transaction

from apps.accounts.models import Party
from apps.core.errors import DomainError
from apps.core.transactions import durable
from apps.governance import executing
from apps.governance.services import propose, vote
from apps.protocol import consent, emission
from apps.subdaos import converting, selectors, services
from apps.subdaos.emission import sponsor_take
from apps.subdaos.models import Dao, Emission
from apps.wallets.keys import Consent
from apps.wallets.models import Asset, LogLeaf, Transfer
from apps.wallets.services import account, mint
from tests.governance.helpers import MICRO, at, balance, founded, party
from tests.support.consents import bind, signed
from workers.client.replay import replay

pytestmark = pytest.mark.django_db
Leaves = list[dict[str, Any]]


def close_epoch(dao: Dao, seconds: float) -> Emission:
    with durable():
        epoch = services.epoch_open(dao=dao, now=at(seconds - 1))
        locked = services.dao_lock(dao)
        services.epoch_close(epoch=epoch, dao=locked, revenue_micro=0, now=at(seconds))
    return Emission.objects.get(epoch=epoch)


def convert(dao: Dao, who: Party, points: int, least: int = 0, **more: Any) -> Any:
    return converting.convert(
        party=who, dao=dao, points_micro=points, tokens_min_micro=least, **{"now": at(50)} | more
    )


def pot(dao: Dao, purpose: str) -> int:
    return balance(dao.party, dao.asset.code, purpose)


def leaves() -> Leaves:
    return [json.loads(bytes(row.data)) for row in LogLeaf.objects.order_by("pk")]


def errors(said: Leaves | None = None) -> list[str]:
    return replay(said if said is not None else leaves()).findings.errors


def test_each_epoch_releases_its_part_of_what_is_left_and_divides_it() -> None:
    dao, _, _ = founded()
    reserve = pot(dao, "reserve")
    assert reserve > 0
    held = pot(dao, "treasury")
    for n in range(3):
        made = close_epoch(dao, 40 + n)
        part = emission.emission(reserve, emission.Schedule())
        assert (made.contributors_micro, made.sponsors_micro, made.treasury_micro) == (
            part.contributors,
            part.sponsors,
            part.treasury,
        )
        reserve, held = reserve - part.total, held + part.treasury
        assert (pot(dao, "reserve"), pot(dao, "treasury")) == (reserve, held)
    told = selectors.describe_emission(dao)
    assert told["reserve_micro"] == str(reserve)
    assert told["next_micro"] == str(emission.emission(reserve, emission.Schedule()).total)
    assert pot(dao, "conversion") == int(told["released"]["contributors"])
    assert errors() == []


def test_an_emission_is_written_with_the_end_of_its_epoch_once_or_not_at_all() -> None:
    dao, _, _ = founded()
    before = pot(dao, "reserve")
    with durable():
        epoch = services.epoch_open(dao=dao, now=at(30))
    with pytest.raises(ZeroDivisionError), durable():
        services.epoch_close(epoch=epoch, dao=services.dao_lock(dao), revenue_micro=0, now=at(40))
        raise ZeroDivisionError
    assert pot(dao, "reserve") == before and not Emission.objects.exists()
    close_epoch(dao, 41)
    after = pot(dao, "reserve")
    with pytest.raises(DomainError, match="epoch_closed"), durable():
        services.epoch_close(epoch=epoch, dao=services.dao_lock(dao), revenue_micro=0, now=at(42))
    assert pot(dao, "reserve") == after < before


def test_the_database_holds_the_cap_and_keeps_emissions_as_they_were() -> None:
    dao, _, _ = founded()
    close_epoch(dao, 40)
    with pytest.raises(DomainError, match="cap"), durable():
        mint(dao.asset, account(dao.party, dao.asset), 1, None, at(41))
    for change in (
        lambda: Emission.objects.update(sponsors_micro=0),
        lambda: Emission.objects.all().delete(),
    ):
        with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
            change()
    with durable():
        epoch = services.epoch_open(dao=dao, now=at(50))
    fields = {"dao": dao, "epoch": epoch, "at": at(51), "rate_bps": 1, "reserve_micro": 1}
    with pytest.raises(IntegrityError, match="within_reserve"), transaction.atomic():
        Emission.objects.create(**fields, contributors_micro=1, sponsors_micro=1, treasury_micro=0)


def test_a_conversion_does_what_its_preview_says_and_costs_points() -> None:
    dao, members, _ = founded()
    who = members[0]
    with pytest.raises(converting.NothingReleased):
        converting.preview(dao, who, 1)
    close_epoch(dao, 40)
    seen = converting.preview(dao, who, 250_000)
    assert (seen.points_before, seen.points_after, seen.all_points) == (MICRO, 750_000, 4 * MICRO)
    assert (seen.weight_before_bps, seen.weight_after_bps) == (2_500, 2_000)
    assert seen.tokens == pot(dao, "conversion") // 16 and seen.may == 250_000
    made = convert(dao, who, 250_000, seen.tokens)
    assert balance(who, dao.asset.code) == made.tokens_micro == seen.tokens
    assert selectors.points_now(dao, who) == 750_000
    assert converting.limit_micro(dao, who) == 0
    with pytest.raises(converting.OverLimit, match="at most 0"):
        convert(dao, who, 1)
    close_epoch(dao, 60)
    assert converting.limit_micro(dao, who) == 187_500
    assert errors() == []


def test_the_same_conversion_again_is_the_same_one() -> None:
    dao, members, _ = founded()
    close_epoch(dao, 40)
    once = uuid.uuid4()
    first = convert(dao, members[0], 100_000, 5, idempotency=once)
    assert convert(dao, members[0], 100_000, 5, idempotency=once) == first
    for points, least in ((100_001, 5), (100_000, 6)):
        with pytest.raises(converting.ConversionConflict):
            convert(dao, members[0], points, least, idempotency=once)
    assert Transfer.objects.filter(kind="subdaos.convert").count() == 1
    assert selectors.points_now(dao, members[0]) == 900_000


@pytest.mark.parametrize(("points", "least", "said"), [
    (0, 0, "over_limit"),
    (-1, 0, "over_limit"),
    (250_001, 0, "over_limit"),
    (2**63, 0, "over_limit"),
    (250_000, 2**62, "price_moved"),
])  # fmt: skip
def test_a_conversion_that_is_refused_changes_nothing(points: int, least: int, said: str) -> None:
    dao, members, _ = founded()
    close_epoch(dao, 40)
    before = leaves()
    with pytest.raises(DomainError, match=said):
        convert(dao, members[0], points, least)
    with pytest.raises(DomainError, match="over_limit"):
        convert(dao, party("Stranger"), 1)
    assert leaves()[: len(before)] == before
    assert selectors.points_now(dao, members[0]) == MICRO


def test_a_bound_key_signs_what_is_converted() -> None:
    dao, members, _ = founded()
    close_epoch(dao, 40)
    who, key = members[0], Ed25519PrivateKey.generate()
    bind(who, key, now=at(45))
    with pytest.raises(DomainError, match="signature_required"):
        convert(dao, who, 100_000)
    asked = consent.convert_payload(dao=dao.party.pid, points_micro=100_000, tokens_min_micro=7)

    def word(nonce: int) -> Consent:
        said = signed(who, key, consent.CONVERT, asked, nonce=nonce, now=at(50))
        return Consent("session", said)

    with pytest.raises(DomainError, match="bad_signature"):
        convert(dao, who, 100_000, 6, consent=word(1))
    convert(dao, who, 100_000, 7, consent=word(1))
    honest = leaves()
    assert errors(honest) == []
    body_of(honest, "subdaos.converted")["signed"] = None
    assert any("lacks the signature" in line for line in errors(honest))


def test_sponsors_take_their_part_when_they_like() -> None:
    dao, members, backer = founded()
    close_epoch(dao, 40)
    due = Emission.objects.get().sponsors_micro
    before = balance(backer, dao.asset.code)
    assert sponsor_take(party=backer, dao=dao, now=at(41)).amount_micro == due
    for who in (backer, members[0]):
        with pytest.raises(DomainError, match="nothing_due"):
            sponsor_take(party=who, dao=dao, now=at(42))
    for n in range(2):
        due += close_epoch(dao, 50 + n).sponsors_micro
    sponsor_take(party=backer, dao=dao, now=at(55))
    assert balance(backer, dao.asset.code) == before + due
    assert pot(dao, "sponsors") == 0
    assert errors() == []


def resolved(dao: Dao, backer: Party, kind: str, payload: dict[str, Any], seconds: float) -> None:
    made = propose(
        actor=backer, dao=dao, kind=kind, payload=payload, title="New terms", now=at(seconds)
    )
    vote(actor=backer, proposal_id=made.id, support="for", now=made.voting_starts_at)
    executing.advance(proposal_id=made.id, now=made.voting_ends_at)


def test_holders_vote_the_schedule_and_the_split_within_bounds() -> None:
    dao, _, backer = founded()
    slower = dao.params["emission"] | {"rate_bps": 100}
    for kind, payload, said in (
        ("subdaos.set_emission", {"emission": slower | {"rate_bps": 1_001}}, "bad_schedule"),
        ("subdaos.set_emission", {"emission": dict(dao.params["emission"])}, "no_change"),
        ("subdaos.set_emission", {"emission": "fast"}, "bad_schedule"),
        ("subdaos.set_emission", {"emission": slower, "more": 1}, "bad_payload"),
        ("subdaos.set_split", {"split": dict(dao.params["split"])}, "no_change"),
        ("subdaos.set_split", {"split": split(6_000, 3_500, 500)}, "10 and 15"),
        ("subdaos.set_split", {"split": split(6_000, 2_000, 1_000)}, "sum to"),
        ("subdaos.set_split", {"split": split(-1, 9_001, 1_000)}, "bad_split"),
        ("subdaos.set_split", {"split": {"sbgt_bps": 10_000}}, "bad_payload"),
        ("subdaos.set_unlocks", {"unlocks": dict(dao.params["unlocks"])}, "no_change"),
        ("subdaos.set_unlocks", {"unlocks": {"early_access_s": -1, "stake_bps": 1}}, "bad_unl"),
        ("subdaos.set_unlocks", {}, "bad_payload"),
    ):
        with pytest.raises(DomainError, match=said):
            propose(actor=backer, dao=dao, kind=kind, payload=payload, title="x", now=at(25))
    resolved(dao, backer, "subdaos.set_emission", {"emission": slower}, 25)
    resolved(dao, backer, "subdaos.set_split", {"split": split(5_000, 3_800, 1_200)}, 30)
    opens = {"early_access_s": 3_600, "stake_bps": 50}
    resolved(dao, backer, "subdaos.set_unlocks", {"unlocks": opens}, 35)
    dao = selectors.dao_by_slug(dao.slug)
    assert dao.params["unlocks"] == opens
    reserve = pot(dao, "reserve")
    made = close_epoch(dao, 60)
    assert (made.rate_bps, made.total_micro) == (100, reserve // 100)
    said = body_of(leaves(), "subdaos.emitted")["policy"]
    assert (said["sbgt_bps"], said["sdt_bps"]) == (5_000, 3_800)
    assert errors() == []


def split(sbgt: int, sdt: int, treasury: int) -> dict[str, int]:
    return {"sbgt_bps": sbgt, "sdt_bps": sdt, "treasury_bps": treasury}


# -- what the stand-alone verifier finds


def body_of(said: Leaves, type_: str, index: int = 0) -> dict[str, Any]:
    return [row["body"] for row in said if row["type"] == type_][index]


def moved(said: Leaves, kind: str) -> dict[str, Any]:
    return next(
        row["body"]
        for row in said
        if row["type"] == "wallets.transfer" and row["body"]["kind"] == kind
    )


def more(body: dict[str, Any], field: str, by: int = 1) -> None:
    body[field] = str(int(body[field]) + by)


def faster(said: Leaves) -> None:
    """More is released, and everything else says so too."""
    body = body_of(said, "subdaos.emitted")
    body["schedule"]["rate_bps"] = 1_000


def a_voted_value(said: Leaves) -> None:
    body_of(said, "subdaos.params")["value"]["rate_bps"] = 101


def an_unvoted_parameter(said: Leaves) -> None:
    body_of(said, "subdaos.params")["key"] = "decay_ppm"


def another_policy(said: Leaves) -> None:
    body_of(said, "subdaos.emitted")["policy"]["treasury_bps"] += 1


def another_ballot(said: Leaves) -> None:
    more(body_of(said, "governance.vote", -1), "weight")


FORGERIES: list[tuple[Callable[[Leaves], None], str]] = [
    (faster, "another schedule than was voted"),
    (a_voted_value, "changed to what nobody voted on"),
    (an_unvoted_parameter, "which no vote changes"),
    (another_policy, "policy is not the one in force"),
    (another_ballot, "voted with a weight it did not have"),
    (lambda said: more(body_of(said, "governance.snapshot", -1), "total"), "sums other weights"),
    (lambda said: more(body_of(said, "subdaos.emitted"), "sponsors_micro"), "its schedule gives"),
    (lambda said: more(body_of(said, "subdaos.emitted"), "reserve_micro"), "emission of epoch 1"),
    (lambda said: more(moved(said, "subdaos.emit"), "amount_micro"), "emission of epoch 1"),
    (lambda said: moved(said, "subdaos.emit").update(ref=None), "are not what the rules give"),
    (lambda said: more(body_of(said, "subdaos.converted"), "tokens_micro"), "are worth"),
    (lambda said: more(body_of(said, "subdaos.converted"), "points_micro"), "other points"),
    (lambda said: more(body_of(said, "subdaos.converted")["asked"], "tokens_min_micro", 10**15),
     "not what was asked for"),
    (lambda said: moved(said, "subdaos.convert").update(credit="ee/main/X"), "asset_mismatch"),
    (lambda said: more(body_of(said, "subdaos.sponsor_paid"), "amount_micro"), "part is"),
    (lambda said: body_of(said, "subdaos.sponsor_paid").update(party="ee"), "is no sponsor"),
    (lambda said: drop(said, "subdaos.emitted"), "before anything was released"),
    (lambda said: drop(said, "subdaos.converted"), "points were given up without it"),
    (lambda said: drop(said, "subdaos.sponsor_paid"), "stands without its leaf"),
    (lambda said: drop(said, "rfms.pledged"), "has no leaf of its own"),
    (lambda said: drop(said, "rfms.awarded"), "founded and not awarded"),
    (lambda said: more(body_of(said, "rfms.awarded"), "raised_micro"), "another sum"),
    (lambda said: more(moved(said, "rfms.award"), "amount_micro", -1), "nor the award"),
    (lambda said: moved(said, "rfms.award").update(credit="ee/main/USDC"), "nor the award"),
    (lambda said: body_of(said, "rfms.pledged").update(party="ee"), "another than it says"),
    (lambda said: more(body_of(said, "rfms.approved"), "target_micro", -1), "than the target"),
    (lambda said: body_of(said, "subdaos.founded").update(rfm="ee"), "for no crowdfund"),
    (lambda said: body_of(said, "subdaos.founded").update(submitter="ee"), "another submitter"),
    (lambda said: body_of(said, "subdaos.founded").update(sdt="XYZ"), "is not called SDT-"),
    (lambda said: body_of(said, "subdaos.founded")["shares"].update(
        backers_bps=5_000, reserve_bps=2_500), "that no founding asks for"),
    (lambda said: more(moved(said, "subdaos.mint"), "amount_micro"), "no founding asks for"),
]  # fmt: skip


def drop(said: Leaves, type_: str) -> None:
    said[:] = [row for row in said if row["type"] != type_]


def test_the_log_replays_and_every_forgery_is_found() -> None:
    dao, members, backer = founded()
    slower = dao.params["emission"] | {"rate_bps": 100}
    resolved(dao, backer, "subdaos.set_emission", {"emission": slower}, 25)
    dao = selectors.dao_by_slug(dao.slug)
    close_epoch(dao, 40)
    convert(dao, members[0], 200_000)
    sponsor_take(party=backer, dao=dao, now=at(51))
    made = propose(
        actor=members[0], dao=dao, kind="subdaos.set_scoring",
        payload={"scoring": "shapley" if dao.params["scoring"] != "shapley" else "taylor"},
        title="Score otherwise", now=at(60),
    )  # fmt: skip
    for member in members:
        vote(actor=member, proposal_id=made.id, support="for", now=made.voting_starts_at)
    executing.advance(proposal_id=made.id, now=made.voting_ends_at)
    honest = leaves()
    assert errors(honest) == []
    for forge, said in FORGERIES:
        forged = copy.deepcopy(honest)
        forge(forged)
        found = errors(forged)
        assert any(said in line for line in found), (said, found)


def test_an_escrow_gives_back_each_pledge_once_and_nothing_else() -> None:
    from apps.rfms import services as rfms
    from tests.governance.helpers import approved

    author, one, two = party("A", flai=100), party("B", usdc=900), party("C", usdc=900)
    rfm = approved(author, author)
    for who, micro in ((one, 300), (one, 50), (two, 400)):
        rfms.pledge(party=who, slug=rfm.slug, amount_micro=micro * MICRO, now=at(15))
    rfms.pledge_withdraw(party=two, slug=rfm.slug, now=at(16))
    rfms.close_due(rfm_id=rfm.id, now=at(10_000))
    honest = leaves()
    assert errors(honest) == []
    for forge, said in (
        (lambda x: more(moved(x, "rfms.refund"), "amount_micro", -1), "does not give back"),
        (lambda x: moved(x, "rfms.refund").update(credit=f"{two.pid}/main/USDC"), "give back"),
        (lambda x: moved(x, "rfms.refund").update(id=str(uuid.uuid4())), "nor the award"),
        (lambda x: drop(x, "rfms.returned"), "has no leaf"),
        (lambda x: body_of(x, "rfms.returned").update(party=one.pid), "another than it says"),
        (lambda x: drop(x, "rfms.approved"), "pays into an escrow"),
        (lambda x: moved(x, "rfms.pledge").update(kind="wallets.send"), "pays into an escrow"),
    ):
        forged = copy.deepcopy(honest)
        forge(forged)
        assert any(said in line for line in errors(forged)), (said, errors(forged))
    assert not Asset.objects.filter(code__startswith="SDT-").exists()
