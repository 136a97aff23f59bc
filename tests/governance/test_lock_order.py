"""A SubDAO's row before its members' keys: whoever takes both takes them in this order."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from apps.accounts.models import Party
from apps.core.transactions import durable
from apps.protocol import consent
from apps.subdaos import converting
from apps.subdaos.models import Dao
from apps.subdaos.services import dao_lock
from apps.wallets.keys import Consent
from tests.governance.helpers import at, founded, together
from tests.support.consents import bind, signed
from tests.support.locks import until_blocked

pytestmark = pytest.mark.django_db(transaction=True)


def convert(dao: Dao, who: Party, key: Ed25519PrivateKey) -> Any:
    asked = consent.convert_payload(dao=dao.party.pid, points_micro=9, tokens_min_micro=1)
    said = signed(who, key, consent.CONVERT, asked, nonce=1, now=at(50))
    return converting.convert(
        party=who, dao=dao, points_micro=9, tokens_min_micro=1, consent=Consent("api_key", said),
        now=at(50),
    )  # fmt: skip


def test_a_member_that_votes_meanwhile_is_not_waited_for_in_a_circle() -> None:
    """A first ballot holds the SubDAO's row for its snapshot, then takes its voter's nonce."""
    dao, members, _ = founded()
    who, key = members[0], Ed25519PrivateKey.generate()
    bind(who, key, now=at(45))
    with ThreadPoolExecutor(1) as pool:
        with durable():
            dao_lock(dao)
            work = pool.submit(together, lambda: convert(dao, who, key))
            assert until_blocked()
            Party.objects.select_for_update(no_key=True, nowait=True).get(pk=who.pk)
        [made] = work.result(timeout=60)
    assert not isinstance(made, Exception) or isinstance(made, converting.NothingReleased)
