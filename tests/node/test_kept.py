"""A holdout that stays with a node for further rounds (M-FL3): what the node takes under which
ticket, until when, and what it forgets. Its intake, without peers; tests/privacy plays the server.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from apps.protocol import sharing, tickets, wire
from apps.protocol.circuits import circuits_hash
from workers.mpc import sealing
from workers.node import home as homes
from workers.node import shares as intake
from workers.node.errors import Malformed, Refused
from workers.node.home import Limits
from workers.node.shares import Shares
from workers.node.store import Store

NOW, DAY = 1_800_000_000, 86_400
ROWS = np.arange(24 * 4).reshape(24, 4)
PARAMS = {"features": 2, "strata": 1, "rows": [24], "min_cell": 3, "scoring": "taylor"}
PARAMS |= {"normalisation": "ab" * 32}
FIELDS = {
    "scope": "round:1",
    "slot": "holdout",
    "circuits": ["logistic_round@1"],
    "circuits_hash": circuits_hash(),
    "params": PARAMS,
    "f": 16,
    "roster": "22" * 32,
    "resolution": "logit",
    "issued_at": NOW,
    "expires_at": NOW + 7 * DAY,
}


class Site:
    """One node's intake at a time of the test's choice, and a validator."""

    def __init__(self, path, monkeypatch):
        where = {"control": "127.0.0.1:1", "mesh": "127.0.0.1:2"}
        self.nodes = [homes.init(path / str(i), index=i, name=f"n{i}", **where) for i in range(3)]
        self.prints = tuple(node.fingerprint for node in self.nodes)
        self.store, self.key, self.now = (
            Store(path / "s", bytes(32)),
            Ed25519PrivateKey.generate(),
            NOW,
        )
        monkeypatch.setattr(intake.time, "time", lambda: self.now)
        self.open()

    def open(self, *, prints=None, **limits):
        peers = SimpleNamespace(fingerprints=prints or self.prints, former=())
        made = {"node": self.nodes[0], "peers": peers, "store": self.store}
        self.shares = Shares(**made, limits=Limits(**limits))

    def put(self, **changes):
        """A holdout that may stay for three rounds in all; the upload."""
        named = FIELDS | {"uses": 3} | changes
        described = [node.descriptor() for node in self.nodes]
        upload = sealing.make_upload(ROWS, named, self.key, described, binary=True)
        self.ack = self.shares.accept(upload)["ack"]
        return upload

    def again(self, upload, number, *, key=None, **changes):
        """The same rows in round `number`."""
        named = FIELDS | {"scope": f"round:{number}", "issued_at": self.now} | changes
        kept = sealing.kept_upload(upload["ticket"], named, key or self.key)
        self.shares.accept(kept)
        return kept

    def words(self, upload):
        return self.store.share(upload["ticket"]["share_id"]).words

    def withdraw(self, upload):
        ticket = upload["ticket"]
        about = {"share_id": ticket["share_id"], "ticket_id": tickets.ticket_id(ticket)}
        body = sharing.withdrawal_of(**about, at=self.now)
        signature = wire.sign(self.key, sharing.WITHDRAWAL_DOMAIN, body)
        return self.shares.withdraw(about["share_id"], ticket, body, signature)["ack"]

    def refuses(self, code, call, *arguments, **named):
        with pytest.raises(Refused) as error:
            call(*arguments, **named)
        assert error.value.code == code, error.value.text


@pytest.fixture
def site(tmp_path, monkeypatch):
    made = Site(tmp_path, monkeypatch)
    yield made
    made.store.close()


def complete(site, upload):
    """As if the nodes had committed the round of that share."""
    ticket = upload["ticket"]
    site.store.adopt(
        SimpleNamespace(
            **{"job_id": ticket["scope"], "scope": ticket["scope"], "attempt": 1, "digest": "d"},
            **{"state": "done", "record": {"share_ids": [ticket["share_id"]]}},
        ),
        share_ids=[ticket["share_id"]],
        expires_at=site.now,
    )


@pytest.mark.parametrize("engine", ["ring", "shamir_t1"])
def test_the_same_words_enter_further_rounds_and_only_a_ticket_comes(site, engine):
    first = site.put(engine=engine)
    assert site.ack["kept"] is True
    words = [word.copy() for word in site.words(first)]
    complete(site, first)
    assert site.words(first) is None
    for number in (2, 3):
        again = site.again(first, number, engine=engine)
        assert len(again["correction"]) == 0 and again["envelopes"] == []
        assert all(map(np.array_equal, site.words(again), words))
        complete(site, again)
        assert site.words(again) is None
    site.refuses("not_kept", site.again, first, 4, engine=engine)  # its owner let it into three


def test_a_round_counts_once_however_many_rosters_were_signed(site):
    first = site.put()
    for roster in ("22", "33", "44"):
        site.again(first, 1, roster=roster * 32)
        site.again(first, 2, roster=roster * 32)
    site.again(first, 3)
    site.refuses("not_kept", site.again, first, 4)


def test_nothing_stays_beyond_its_ticket(site):
    first = site.put()
    site.now = NOW + 7 * DAY - 1
    site.again(first, 2, expires_at=site.now + DAY)
    site.now += 1
    site.refuses("not_kept", site.again, first, 3, expires_at=site.now + DAY)
    site.store.purge(now=site.now)
    assert site.store.kept_share(tickets.check_ticket(first["ticket"], now=NOW).root) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"params": PARAMS | {"normalisation": "cd" * 32}},
        {"params": PARAMS | {"features": 1, "strata": 2}},
    ],
)
def test_rows_of_another_scale_or_form_are_not_meant(site, changes):
    site.refuses("not_kept", site.again, site.put(), 2, **changes)


def test_who_did_not_share_it_brings_it_into_no_round(site):
    first, other = site.put(), Ed25519PrivateKey.generate()
    site.refuses("not_kept", site.again, first, 2, key=other)
    mixed = {**first["ticket"], "commitment": ["aa" * 32, *first["ticket"]["commitment"][1:]]}
    site.refuses("not_kept", site.again, {"ticket": mixed}, 2)


def test_what_was_not_let_stay_does_not(site):
    first = site.put(uses=1)
    assert "kept" not in site.ack
    site.refuses("not_kept", site.again, first, 2)


@pytest.mark.parametrize("limits", [{"kept_days": 6}, {"kept_mb": 0}])
def test_the_nodes_operator_says_how_long_and_how_much_may_stay(site, limits):
    """It is taken for its round all the same, and what is signed says that it does not stay."""
    site.open(**limits)
    first = site.put()
    assert site.ack["kept"] is False and site.words(first) is not None
    site.refuses("not_kept", site.again, first, 2)


def test_its_owner_takes_it_back_for_good(site):
    first = site.put()
    complete(site, first)
    second = site.again(first, 2)
    signed_before = sealing.kept_upload(first["ticket"], FIELDS | {"scope": "round:3"}, site.key)
    site.now += 60
    assert site.withdraw(first)["computed"] is True  # in its first round
    assert site.words(second) is None
    site.refuses("withdrawn", site.shares.accept, second)
    site.refuses("withdrawn", site.shares.accept, signed_before)
    site.refuses("withdrawn", site.again, first, 4)
    assert site.withdraw(first)["computed"] is True  # again is harmless
    # the very upload, brought by a server that kept it, to a node that has forgotten the share
    site.store.forget_share(first["ticket"]["share_id"])
    site.refuses("withdrawn", site.shares.accept, first)


def test_any_of_its_tickets_takes_it_back_and_a_later_one_too(site):
    first = site.put()
    second = site.again(first, 2)
    complete(site, second)
    assert site.withdraw(second)["computed"] is True
    assert site.words(first) is None
    site.refuses("withdrawn", site.again, first, 3)
    site.now += 60
    another = site.put(scope="round:3", issued_at=site.now)
    site.again(another, 4)


def test_weeks_later_the_ticket_that_it_came_with_still_takes_it_back(site):
    first = site.put(expires_at=NOW + 30 * DAY)
    complete(site, first)
    complete(site, site.again(first, 2))
    site.now += 8 * DAY
    site.store.purge(now=site.now)
    assert site.withdraw(first)["computed"] is True
    root = tickets.check_ticket(first["ticket"], now=site.now).root
    assert site.store.kept_share(root) is None


def test_a_round_that_came_to_nothing_holds_its_words_no_longer_than_others_do(site):
    site.open(kept_days=0)
    first = site.put(expires_at=NOW + 31 * DAY)
    assert site.ack["kept"] is False and site.words(first) is not None
    site.store.purge(now=NOW + 7 * DAY)
    assert site.store.share(first["ticket"]["share_id"]) is None


def test_a_withdrawal_of_what_does_not_stay_is_over_with_its_round(site):
    first = site.put(uses=1)
    complete(site, first)
    site.refuses("already_completed", site.withdraw, first)


def test_the_coordinator_may_have_it_dropped_and_no_more(site):
    first = site.put()
    complete(site, first)
    coordinator = Ed25519PrivateKey.generate()
    site.shares._peers.coordinator = wire.public_hex(coordinator)
    share_id = first["ticket"]["share_id"]
    body = {"v": 1, "share_id": share_id, "ticket_id": tickets.ticket_id(first["ticket"])}
    signature = wire.sign(coordinator, "flai/drop/v1", body)
    assert site.shares.drop(share_id, body, signature) is True
    assert site.shares.drop(share_id, body, signature) is False
    site.refuses("not_kept", site.again, first, 2)


def test_what_other_nodes_or_another_release_would_need_is_forgotten_at_the_start(
    site, monkeypatch
):
    first = site.put()
    site.open()
    site.again(first, 2)
    site.open(prints=("00" * 32, *site.prints[1:]))
    site.open()
    site.refuses("not_kept", site.again, first, 3)


def test_what_does_not_open_any_more_is_not_kept(site):
    first = site.put()
    with site.store._transaction() as db:
        db.execute("UPDATE kept SET words = zeroblob(64)")
    site.refuses("not_kept", site.again, first, 2)


def test_it_is_sealed_anew_with_the_store(site):
    first = site.put()
    words = [word.copy() for word in site.words(first)]
    with site.store.rekeyed(bytes(range(32))):
        pass
    assert all(map(np.array_equal, site.words(site.again(first, 2)), words))


@pytest.mark.parametrize(
    "changes",
    [{"slot": "update"}, {"scope": "moments:1"}, {"scope": "query:1"}, {"uses": 65}, {"uses": 0}],
)
def test_only_a_holdout_of_a_round_may_stay_and_for_so_many(site, changes):
    with pytest.raises((tickets.TicketError, Malformed)):
        site.put(**changes)


def test_a_ticket_for_what_is_kept_is_for_one_round(site):
    first = site.put()
    with pytest.raises(tickets.TicketError, match="one round"):
        site.again(first, 2, uses=2)
