"""Shares in parts: what is here stays, the sender goes on from there, and nothing half is used."""

from __future__ import annotations

import threading
import uuid
from datetime import timedelta

import pytest
from django.db import close_old_connections
from rest_framework.test import APIClient

from apps.accounts.models import User
from apps.accounts.services import api_key_create
from apps.core.clock import now
from apps.core.errors import DomainError
from apps.protocol import uploads, wire
from apps.training import deadlines, submissions
from apps.training.models import SharePart, Submission
from apps.wallets.models import LogLeaf
from tests.support.market import drain

SIZE = 8 * 5 + 16  # five sums


@pytest.fixture
def sending(market):
    """A round that waits for sums; a site, and its share, of which nothing has come yet."""
    held = market.whitelist()
    site = market.custodians[0]
    upload = market.upload(held, site, "sums", market.sums(1))
    market.begin(held, site, upload)
    return held, site, upload


def refused(call, code: str) -> DomainError:
    with pytest.raises(DomainError) as caught:
        call()
    assert caught.value.code == code, caught.value
    return caught.value


def share_of(upload) -> Submission:
    return Submission.objects.get(share_id=upload["ticket"]["share_id"])


def logged(upload) -> int:
    ticket_id = share_of(upload).ticket_id.encode()
    leaves = LogLeaf.objects.filter(type="training.share_received")
    return sum(ticket_id in bytes(leaf.data) for leaf in leaves)


def test_parts_become_the_share_and_only_the_whole_one_is_logged_and_handed_on(
    market, sending
) -> None:
    held, site, upload = sending
    for offset, end in ((0, 20), (20, 21)):
        row = market.part(held, site, upload, offset, end)
        assert (row.state, row.offset_bytes, row.size_bytes) == ("receiving", end, SIZE)
        drain()
    assert not logged(upload) and share_of(upload).acks == []
    assert market.part(held, site, upload, 21, None).state == "received"
    assert logged(upload) == 1
    drain()
    assert (share_of(upload).state, len(share_of(upload).acks)) == ("delivered", 3)


def test_a_wrong_offset_names_the_right_one_and_stores_nothing(market, sending) -> None:
    held, site, upload = sending
    market.part(held, site, upload, 0, 20)
    for offset in (0, 19, 21):
        error = refused(
            lambda offset=offset: market.part(held, site, upload, offset, None), "wrong_offset"
        )
        assert error.args_["offset"] == 20
    assert share_of(upload).offset_bytes == 20 and SharePart.objects.count() == 1
    market.part(held, site, upload, 20, None)
    error = refused(lambda: market.part(held, site, upload, 20, None), "wrong_offset")
    assert error.args_["offset"] == SIZE
    assert market.begin(held, site, upload)[1] is False


def test_a_part_that_is_damaged_too_long_empty_or_anothers_stores_nothing(market, sending) -> None:
    held, site, upload = sending
    about = {"round_id": held.id, "share_id": upload["ticket"]["share_id"], "now": now()}

    def part(data: bytes, *, party=site.party, sent: bytes | None = None, **changes):
        digest = uploads.content_digest(data if sent is None else sent)
        fields = {"party": party, "offset_bytes": 0, "data": data, "digest": digest}
        return lambda: submissions.share_part(**about | fields | changes)

    refused(part(b"x" * 20, sent=b"y" * 20), "bad_digest")
    refused(part(b""), "bad_part")
    refused(part(b"x" * (SIZE + 1)), "bad_part")
    refused(part(b"x" * (uploads.PART_BYTES_MAX + 1)), "bad_part")
    refused(part(b"x", party=market.custodians[1].party), "share_not_found")
    refused(part(b"x", share_id="00" * 16), "share_not_found")
    refused(part(b"x", round_id=uuid.uuid4()), "share_not_found")
    assert not SharePart.objects.exists() and share_of(upload).offset_bytes == 0


def test_the_same_part_twice_at_once_is_stored_once(market, sending) -> None:
    held, site, upload = sending
    codes: list[str] = []

    def send() -> None:
        try:
            codes.append(market.part(held, site, upload, 0, 20).state)
        except DomainError as error:
            codes.append(error.code)
        finally:
            close_old_connections()

    threads = [threading.Thread(target=send) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(codes) == ["receiving"] + ["wrong_offset"] * 5
    assert SharePart.objects.count() == 1


def test_a_round_that_closes_meanwhile_says_so_and_keeps_nothing(market, sending) -> None:
    held, site, upload = sending
    market.part(held, site, upload, 0, 20)
    deadlines.rounds_go_on(now=held.expires_at + timedelta(seconds=1))
    error = refused(lambda: market.part(held, site, upload, 20, None), "share_over")
    assert "The round is over." in error.text
    refused(lambda: market.begin(held, site, upload), "share_refused")
    assert not SharePart.objects.exists() and not logged(upload)


def test_an_upload_that_stops_expires_and_another_may_be_made(market, sending) -> None:
    held, site, upload = sending
    market.part(held, site, upload, 0, 20)
    due = share_of(upload).due_at
    assert submissions.shares_expire(now=due - timedelta(seconds=1)) == 0
    assert submissions.shares_expire(now=due) == 1
    assert not SharePart.objects.exists()
    assert (
        "nothing came"
        in refused(lambda: market.part(held, site, upload, 20, None), "share_over").text
    )
    other = market.upload(held, site, "sums", market.sums(1))
    assert market.submit(held, site, other)[0].state == "received"
    assert submissions.shares_expire(now=due + timedelta(days=1)) == 0


def test_a_new_upload_takes_the_place_of_an_unfinished_one_and_of_no_other(market, sending) -> None:
    held, site, upload = sending
    market.part(held, site, upload, 0, 20)
    other = market.upload(held, site, "sums", market.sums(2))
    market.submit(held, site, other)
    assert share_of(upload).state == "refused" and not share_of(upload).parts.exists()
    refused(lambda: market.part(held, site, upload, 20, None), "share_over")
    third = market.upload(held, site, "sums", market.sums(3))
    refused(lambda: market.begin(held, site, third), "already_submitted")


def test_the_api_takes_parts_and_says_where_it_is(market, sending) -> None:
    held, site, upload = sending
    user = User.objects.create_user(f"{uuid.uuid4().hex}@example.org", "x")
    _, key = api_key_create(user=user, party=site.party, label="site")
    client = APIClient(headers={"Authorization": f"Bearer {key}"})
    shares = f"/api/v1/rounds/{held.id}/shares/"
    url = f"{shares}{upload['ticket']['share_id']}/"
    data = wire.unb64(upload["correction"])

    def send(part: bytes, offset: object, **changes: str):
        headers = {"Upload-Offset": str(offset), "Content-Digest": uploads.content_digest(part)}
        kind = changes.pop("content_type", uploads.MEDIA_TYPE)
        return client.patch(url, part, content_type=kind, headers=headers | changes)

    begun = client.post(shares, uploads.head_of(upload))
    told = {"offset": 0, "size_bytes": SIZE, "part_bytes_max": 2 << 20, "state": "receiving"}
    assert begun.status_code == 200 and told.items() <= begun.json().items()
    assert client.post(shares, upload).json()["code"] == "malformed"  # with its correction
    for answer, status, code in (
        (send(data[:9], 0, **{"Upload-Offset": "x"}), 400, "bad_part_headers"),
        (send(data[:9], -1), 400, "bad_part_headers"),
        (send(data[:9], 0, **{"Content-Digest": "sha-256=x"}), 400, "bad_part_headers"),
        (send(data[:9], 0, content_type="application/json"), 415, "unsupported_media_type"),
        (send(b"", 0), 400, "bad_part"),
        (send(bytes((2 << 20) + 1), 0), 400, "bad_part"),
        (send(data[:9], 3), 409, "wrong_offset"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (status, code), answer.content
    assert send(data[:9], 3).json()["offset"] == 0
    assert send(data[:9], 0).json()["offset"] == 9
    assert client.get(url).json()["offset"] == 9
    assert send(data[9:], 9).json()["state"] == "received"
    drain()
    assert len(client.get(url).json()["acks"]) == 3
    strangers = APIClient().patch(
        url, b"x", content_type=uploads.MEDIA_TYPE, headers={"Upload-Offset": "0"}
    )
    assert strangers.status_code == 401
