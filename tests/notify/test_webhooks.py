"""Webhooks: signed, made again with growing waits, given up, made again by hand."""

from __future__ import annotations

import functools
import json
import threading
import time
from datetime import timedelta

import httpcore
import pytest
from rest_framework.test import APIClient

from apps.accounts.models import User
from apps.accounts.services import api_key_create, sign_up
from apps.core.clock import now
from apps.core.transactions import durable
from apps.notify import outside, services
from apps.notify.models import Delivery, Endpoint
from apps.protocol import webhooks

EVENT = "inference.settled"


@pytest.fixture(autouse=True)
def _public(monkeypatch):
    monkeypatch.setattr(outside, "resolve", lambda host, port: "93.184.215.14")


class Party:
    def __init__(self, email: str) -> None:
        user, self.party = sign_up(email=email, password="correct horse 9", name="P", kind="person")
        _, key = api_key_create(user=user, party=self.party)
        self.client = APIClient(headers={"Authorization": f"Bearer {key}"})

    def register(self, url="https://hook.example/x", events=(EVENT,)):
        answer = self.client.post("/api/v1/webhooks/", {"url": url, "events": list(events)})
        assert answer.status_code == 201, answer.json()
        return answer.json()


@pytest.fixture
def buyer(transactional_db):
    return Party("buyer@example.org")


class Receiver:
    """What was called, and what it answers: a status or an error, one after the other."""

    def __init__(self, *answers) -> None:
        self.answers, self.calls = list(answers), []

    def __call__(self, url, body, headers):
        self.calls.append((url, body, headers))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def tell(*parties, event=EVENT):
    with durable():
        return services.tell([(p.party.id, event, {"id": "q1"}) for p in parties], now=now())


def due_now() -> None:
    Delivery.objects.update(due_at=now())


def test_who_registered_for_an_event_is_called_with_a_signature_that_checks(buyer) -> None:
    made = buyer.register()
    other = Party("other@example.org")
    other.register(events=["webhook.ping"])
    assert tell(buyer, other) == 1
    receiver = Receiver(204)
    assert services.deliver_due(post=receiver) == 1
    ((url, body, headers),) = receiver.calls
    assert url == made["url"] and json.loads(body)["data"] == {"id": "q1"}
    call = Delivery.objects.get()
    assert webhooks.verify(made["secret"], headers, body, now=int(time.time())) == str(call.id)
    assert (call.state, call.attempts, call.answer) == ("delivered", 1, "answered 204")
    assert services.deliver_due(post=receiver) == 0
    assert made["secret"] not in str(list(Endpoint.objects.values()))


def test_what_was_altered_is_late_or_signed_with_another_secret_is_no_call() -> None:
    key, body = b"k" * 32, b'{"a":1}'
    secret = webhooks.secret_text(key)
    headers = {
        "Webhook-Id": "m1",
        "Webhook-Timestamp": "1000",
        "Webhook-Signature": "v1,AAAA " + webhooks.sign(key, id="m1", timestamp=1000, body=body),
    }
    assert webhooks.verify(secret, headers, body, now=1300) == "m1"
    for spoilt, content, at in (
        (headers, b'{"a":2}', 1000),
        (headers, body, 1301),
        (headers, body, 699),
        (headers | {"Webhook-Id": "m2"}, body, 1000),
        (headers | {"Webhook-Timestamp": "1001"}, body, 1000),
        (headers | {"Webhook-Signature": "v1,"}, body, 1000),
        ({}, body, 1000),
    ):
        with pytest.raises(webhooks.BadWebhook):
            webhooks.verify(secret, spoilt, content, now=at)
    with pytest.raises(webhooks.BadWebhook):
        webhooks.verify(webhooks.secret_text(b"x" * 32), headers, body, now=1000)


def test_the_signature_is_the_one_of_the_standards_own_example() -> None:
    """standard-webhooks, libraries' test vector."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    body = b'{"test": 2432232314}'
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    assert webhooks.verify(secret, headers, body, now=1614265330) == headers["webhook-id"]


def test_a_call_that_fails_comes_again_later_and_later_under_the_same_id(buyer) -> None:
    buyer.register()
    tell(buyer)
    errors = [
        500,
        httpcore.ConnectError("x"),
        httpcore.ReadTimeout("x"),
        outside.Refused("private"),
    ]
    receiver = Receiver(*errors, 200)
    answers = []
    for wait_s in services.BACKOFF_S[:4]:
        before = now()
        assert services.deliver_due(post=receiver) == 1
        call = Delivery.objects.get()
        answers.append(call.answer)
        assert before <= call.due_at - timedelta(seconds=wait_s) <= now()
        assert services.deliver_due(post=receiver) == 0
        due_now()
    services.deliver_due(post=receiver)
    assert Delivery.objects.get().state == "delivered"
    assert len({headers["webhook-id"] for *_, headers in receiver.calls}) == 1
    words = ["answered 500", "no connection (ConnectError)", "no answer in time", "private"]
    assert answers == words


def test_what_fails_for_ever_is_given_up_and_can_be_made_again_by_hand(buyer) -> None:
    made = buyer.register()
    tell(buyer)
    receiver = Receiver(503)
    for _ in range(len(services.BACKOFF_S) + 1):
        services.deliver_due(post=receiver)
        due_now()
    call = Delivery.objects.get()
    assert (call.state, call.attempts) == ("failed", len(services.BACKOFF_S) + 1)
    assert services.deliver_due(post=receiver) == 0
    listed = buyer.client.get(f"/api/v1/webhooks/{made['id']}/deliveries/").json()["results"]
    assert [row["state"] for row in listed] == ["failed"]
    again = f"/api/v1/webhooks/deliveries/{call.id}/redeliver/"
    assert Party("thief@example.org").client.post(again).status_code == 404
    assert buyer.client.post(again).status_code == 202
    assert buyer.client.post(again).json()["code"] == "still_pending"
    services.deliver_due(post=Receiver(200))
    assert Delivery.objects.get().state == "delivered"


def test_a_rotated_secret_signs_from_then_on_and_a_removed_webhook_is_silent(buyer) -> None:
    made = buyer.register(events=["webhook.ping"])
    url = f"/api/v1/webhooks/{made['id']}/"
    fresh = buyer.client.post(url + "rotate/").json()
    assert fresh["secret"] != made["secret"]
    assert buyer.client.post(url + "ping/").status_code == 202
    receiver = Receiver(200)
    services.deliver_due(post=receiver)
    ((_, body, headers),) = receiver.calls
    assert webhooks.verify(fresh["secret"], headers, body, now=int(time.time()))
    buyer.client.post(url + "ping/")
    assert buyer.client.delete(url).status_code == 204
    assert services.deliver_due(post=receiver) == 0
    assert buyer.client.post(url + "ping/").status_code == 404
    assert buyer.client.get("/api/v1/webhooks/").json()["results"] == []


def test_a_private_address_an_unknown_event_and_one_too_many_are_refused(
    buyer, monkeypatch
) -> None:
    def post(**changes):
        body = {"url": "https://hook.example/", "events": [EVENT]} | changes
        return buyer.client.post("/api/v1/webhooks/", body)

    assert post(events=["everything"]).status_code == 400
    assert post(events=[]).status_code == 400
    assert post(url="http://hook.example/").json()["code"] == "bad_webhook_url"
    monkeypatch.setattr(services, "ENDPOINTS_MAX", 1)
    assert post().status_code == 201
    assert post().json()["code"] == "too_many_webhooks"
    monkeypatch.undo()
    answer = post(url="https://127.0.0.1/")
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_webhook_url")


def test_the_page_shows_a_secret_once_every_call_and_makes_one_again(buyer, client) -> None:
    client.force_login(User.objects.get())
    page = "/account/webhooks/"
    made = client.post(page, {"url": "https://hook.example/x"}).content.decode()
    secret = made.split('id="fresh-secret">')[1].split("<")[0]
    assert secret.startswith("whsec_") and secret not in client.get(page).content.decode()
    endpoint = Endpoint.objects.get()
    client.post(f"{page}{endpoint.id}/test/")
    services.deliver_due(post=Receiver(204))
    assert "answered 204" in client.get(page).content.decode()
    call = Delivery.objects.get()
    client.post(f"{page}calls/{call.id}/again/")
    assert Delivery.objects.get().state == "pending"
    client.post(f"{page}{endpoint.id}/remove/")
    assert "hook.example" not in client.get(page).content.decode()
    private = client.post(page, {"url": "http://hook.example/"}).content.decode()
    assert "must begin with https://" in private and not Endpoint.objects.filter(removed_at=None)


def test_one_slow_address_keeps_no_other_waiting(buyer, monkeypatch) -> None:
    """A stranger's endpoints have one call each under way, two in all; another party's turn comes
    while they last, and whoever wakes the deliveries does not wait for them."""
    slow, quick = Party("slow@example.org"), Receiver(204)
    for number in range(3):
        slow.register(url=f"https://slow.example/{number}")
    buyer.register()
    tell(slow, slow, slow)
    started, told, released = threading.Semaphore(0), threading.Event(), threading.Event()
    under_way: list[str] = []

    def post(url, body, headers):
        if "hook" in url:
            told.set()
            return quick(url, body, headers)
        under_way.append(url)
        started.release()
        released.wait(60)
        return 204

    deliver_due = functools.partial(services.deliver_due, post=post)
    monkeypatch.setattr(services, "deliver_due", deliver_due)
    services.deliver()
    assert started.acquire(timeout=60) and started.acquire(timeout=60)
    assert Endpoint.objects.filter(calling_until__gt=now()).count() == 2 == len(set(under_way))
    assert services._claim(now()) is None
    tell(buyer)
    services.deliver()
    assert told.wait(60) and not released.is_set()
    released.set()
    for _ in range(services.THREADS):  # each thread has ended when all may begin
        assert services._free.acquire(timeout=60)
    for _ in range(services.THREADS):
        services._free.release()
    assert not Delivery.objects.filter(state="pending").exists() and len(under_way) == 9
    assert not Endpoint.objects.exclude(calling_until=None).exists()


def test_an_address_is_tried_out_by_one_call_at_a_time(buyer) -> None:
    url = f"/api/v1/webhooks/{buyer.register(events=['webhook.ping'])['id']}/ping/"
    assert [buyer.client.post(url).status_code for _ in range(2)] == [202, 409]
    services.deliver_due(post=Receiver(200))
    assert buyer.client.post(url).status_code == 202
