"""The site is killed in the middle of an upload: what it had taken stays, the rest follows."""

from __future__ import annotations

import os
import threading
import uuid
from urllib.parse import urlsplit

import pytest
from django.db import connection

from apps.accounts.models import User
from apps.accounts.services import api_key_create
from apps.protocol import uploads, wire
from apps.training.models import Submission
from tests.support.market import built, drain, founded
from tests.support.web import Web
from workers.client.api import Api
from workers.client.home import Home
from workers.client.outbox import Outbox


def web_on_this_database() -> Web:
    base = urlsplit(os.environ["DATABASE_URL"])
    name = str(connection.settings_dict["NAME"])
    return Web(os.environ | {"DATABASE_URL": base._replace(path=f"/{name}").geturl()})


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
    web, sent, lines = web_on_this_database(), [], []
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
