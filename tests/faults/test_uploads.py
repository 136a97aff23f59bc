"""The site is killed in the middle of an upload: what it had taken stays, the rest follows."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import uuid
from urllib.parse import urlsplit

import httpx
import pytest
from django.db import connection

from apps.accounts.models import User
from apps.accounts.services import api_key_create
from apps.protocol import uploads, wire
from apps.training.models import Submission
from flai_site.stack.up import free_ports
from tests.support.market import built, drain, founded
from workers.client.api import Api
from workers.client.home import Home
from workers.client.outbox import Outbox


class Site:
    """The web process on this test's database, to be killed and started again."""

    def __init__(self) -> None:
        [self.port] = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        base = urlsplit(os.environ["DATABASE_URL"])
        name = str(connection.settings_dict["NAME"])
        self.environment = os.environ | {"DATABASE_URL": base._replace(path=f"/{name}").geturl()}

    def start(self) -> None:
        command = ["-m", "uvicorn", "flai_site.asgi:application", "--lifespan", "off"]
        self.process = subprocess.Popen(
            [sys.executable, *command, "--port", str(self.port)],
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        end = time.monotonic() + 60
        while not self._answers():
            assert time.monotonic() < end and self.process.poll() is None
            threading.Event().wait(0.1)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/healthz", timeout=10).status_code == 200
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def market(transactional_db, settings, tmp_path, three_nodes):
    return built(founded, three_nodes, settings, tmp_path)


def test_a_site_that_is_killed_in_the_middle_of_an_upload_loses_no_part(
    market, tmp_path, monkeypatch
) -> None:
    held = market.whitelist()
    site = market.custodians[0]
    user = User.objects.create_user(f"{uuid.uuid4().hex}@example.org", "x")
    _, key = api_key_create(user=user, party=site.party, label="site")
    upload = market.upload(held, site, "sums", market.sums(1))
    correction = wire.unb64(upload["correction"])
    monkeypatch.setattr(uploads, "PART_BYTES_MAX", 8)
    web, sent, lines = Site(), [], []
    web.start()
    again = threading.Thread(target=web.start)

    class Unlucky(Api):
        def patch(self, path, data, headers):
            sent.append(int(headers["Upload-Offset"]))
            if len(sent) == 4:
                web.kill()
                again.start()
            return super().patch(path, data, headers)

    api = Unlucky(web.url, key)
    outbox = Outbox(Home(tmp_path / "home"), "custodian", api=api, say=lines.append)
    share = outbox._keep({**upload, "correction": correction})
    try:
        told = api.post(f"rounds/{held.id}/shares/", share.head)
        path = f"rounds/{held.id}/shares/{told['share_id']}/"
        outbox._send_parts(path, share, told)
    finally:
        again.join()
        web.kill()
    assert sent == [0, 8, 16, 24, 24, 32, 40, 48]  # one part again, no other
    assert any(line.startswith("  Cut off: ") for line in lines)
    row = Submission.objects.get(share_id=told["share_id"])
    assert b"".join(bytes(part.data) for part in row.parts.all()) == correction
    drain()
    row.refresh_from_db()
    assert (row.state, len(row.acks)) == ("delivered", 3)
