"""The wallet of the command line against the real API: keys made, used, replaced, revoked."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.test import Client

from apps.accounts.models import Party
from apps.accounts.services import api_key_create, sign_up
from apps.core.clock import now
from apps.protocol import credentials as rules
from apps.wallets.models import Credential, LogLeaf, Transfer
from apps.wallets.services import faucet
from tests.support import epochs
from tests.support.credentials import KIND, Keyed, voted
from workers.client import cli
from workers.client.api import Api, ClientError
from workers.client.home import Home
from workers.client.proofs import proof_for
from workers.client.replay import replay
from workers.client.wallet import RECOVERY, Wallet

pytestmark = pytest.mark.django_db
MICRO = 1_000_000


class OverDjango(httpx.BaseTransport):
    """Requests answered by the site in this process."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = Client().generic(
            request.method,
            request.url.raw_path.decode(),
            request.read(),
            content_type=request.headers.get("content-type", ""),
            headers={k: v for k, v in request.headers.items() if k != "content-length"},
        )
        return httpx.Response(
            answer.status_code, headers=dict(answer.items()), content=answer.content
        )


@pytest.fixture
def ada(tmp_path: Path, monkeypatch: Any) -> tuple[Party, Home]:
    user, party = sign_up(
        email="ada@example.org", password="a long pass phrase 7", name="Ada", kind="person"
    )
    _, key = api_key_create(user=user, party=party)
    home = Home(tmp_path / "ada")
    home.connect(url="http://testserver", api_key=key)
    monkeypatch.setattr(
        Home, "api", lambda self: Api("http://testserver", key, transport=OverDjango())
    )
    for asset in ("USDC", "FLAI"):
        faucet(party=party, asset=asset, amount_micro=10 * MICRO)
    sign_up(email="bob@example.org", password="a long pass phrase 7", name="Bob", kind="person")
    return party, home


def said(capsys: Any, *words: str, status: int = 0) -> str:
    assert cli.main(["wallet", *words]) == status
    return str(capsys.readouterr().out)


def findings() -> list[str]:
    rows = LogLeaf.objects.order_by("id").values_list("data", flat=True)
    return replay(json.loads(bytes(data)) for data in rows).findings.errors


def test_a_wallet_is_bound_used_rotated_and_revoked_from_the_command_line(
    ada: tuple[Party, Home], capsys: Any
) -> None:
    _, home = ada
    at = ["--home", str(home.path)]
    pay = ["send", *at, "--to", "bob", "--asset", "USDC", "--amount", "1.5"]
    assert "needs no wallet key" in said(capsys, "show", *at)
    said(capsys, *pay)
    assert "needs wallet key" in said(capsys, "bind", *at)
    said(capsys, "bind", *at, "--recovery")
    for _ in range(2):
        said(capsys, *pay, "--idempotency-key", "tea")
    assert Transfer.objects.filter(kind="wallets.send").count() == 2
    said(capsys, "stake", *at, "--asset", "FLAI", "--amount", "3")
    said(capsys, "unstake", *at, "--asset", "FLAI", "--amount", "0.000001")
    old = home.wallet_key().private_bytes_raw()
    said(capsys, "rotate", *at)
    assert home.wallet_key().private_bytes_raw() != old
    assert said(capsys, "show", *at).count("in this home") == 2
    said(capsys, *pay)
    said(capsys, "revoke", *at)
    said(capsys, *pay)
    auths = [
        json.loads(bytes(leaf.data))["body"].get("auth")
        for leaf in LogLeaf.objects.filter(type="wallets.transfer").order_by("id")
    ]
    assert [a for a in auths if a] == ["api_key", *["key"] * 4, "api_key"]
    assert findings() == []


def test_a_rotation_that_was_cut_off_is_taken_up(ada: tuple[Party, Home], monkeypatch: Any) -> None:
    _, home = ada
    wallet = Wallet(home)
    wallet.bind()
    with monkeypatch.context() as cut:
        cut.setattr(Home, "take_next_wallet_key", lambda self: None)
        wallet.rotate()  # the server has the new key, the home died before it took it
    wallet.stake(asset="FLAI", amount_micro=1)
    wallet.rotate()
    wallet.stake(asset="FLAI", amount_micro=1)
    assert not (home.path / "wallet.next.key").exists() and findings() == []


def test_a_home_without_the_key_says_where_to_go(ada: tuple[Party, Home], tmp_path: Path) -> None:
    _, home = ada
    Wallet(home).bind()
    elsewhere = Wallet(Home(tmp_path / "elsewhere"))
    for work in (
        lambda: elsewhere.send(to="bob", asset="USDC", amount_micro=1),
        elsewhere.rotate,
        lambda: elsewhere.bind(RECOVERY),
    ):
        with pytest.raises(ClientError) as refused:
            work()
        assert refused.value.code == "no_key"
    assert not Transfer.objects.filter(kind="wallets.send").exists()


def test_a_credential_is_issued_listed_and_taken_back(ada: tuple[Party, Home], capsys: Any) -> None:
    party, home = ada
    at, bob = ["--home", str(home.path)], Party.objects.get(slug="bob")
    issue = ["issue", *at, "--to", "bob", "--credential", "accredited-hospital", "--days", "30"]
    said(capsys, *issue, status=1)  # Bob has no wallet key yet
    key = Keyed(bob).public
    said(capsys, *issue, status=1)  # nor has Ada
    said(capsys, "bind", *at)
    said(capsys, *issue, status=1)  # and nobody asks for it of her
    assert not Credential.objects.exists()
    voted(epochs.subdao(now()), party.pid)
    said(capsys, *issue, "--key", "00" * 32, status=1)
    issued = said(capsys, *issue, "--key", key)
    row = Credential.objects.get()
    assert row.digest in issued and (row.subject, row.public_key) == (bob, key)
    listed = said(capsys, "credentials", *at, "--issued")
    assert f"{row.digest}  accredited-hospital  Bob  in_force" in listed
    assert said(capsys, "credentials", *at) == ""
    assert "Revoked." in said(capsys, "take-back", *at, "--id", row.digest)
    assert "Bob  revoked" in said(capsys, "credentials", *at, "--issued")
    said(capsys, "take-back", *at, "--id", "00" * 32, status=1)
    [unvoted, issued] = findings()  # the vote was made up here: so is what rests on it
    assert "is not in the log" in unvoted and "no vote asks" in issued


def test_a_wallet_lends_a_credential_to_the_key_that_asks(
    ada: tuple[Party, Home], tmp_path: Path, capsys: Any
) -> None:
    """In its own home it does so by itself; elsewhere by a file."""
    party, home = ada
    Wallet(home).bind()
    holder, board = Keyed.__new__(Keyed), Keyed(Party.objects.get(name="Bob"))
    holder.party, holder.key = Party.objects.get(pk=party.pk), home.wallet_key()
    board.asked()
    demand = rules.Demand(KIND, (board.public,))
    at_ms = int(time.time() * 1000)

    def proof(of: Home, asked: Any = None) -> Any:
        made = proof_for(asked or demand.params, of, home.api(), at_ms=at_ms)
        return made and rules.shown(demand, made, sender=of.identity_hex(), at_ms=at_ms)

    def refusal(of: Home, asked: Any = None) -> str:
        with pytest.raises(ClientError) as error:
            proof(of, asked)
        return f"{error.value.code}: {error.value}"

    assert proof_for(None, home, home.api(), at_ms=at_ms) is None
    assert refusal(home).startswith("credential_needed: This home holds no credential")
    assert "can't be read" in refusal(home, {"credential": KIND})
    row = board.issue(holder)
    assert proof(home).id == row.digest
    program = Home(tmp_path / "program")  # with an API key, a mandate and no wallet key
    assert f"wallet lend --to {program.identity_hex()}" in refusal(program)
    about = ["wallet", "lend", "--home", str(home.path), "--to"]
    assert cli.main([*about, program.identity_hex(), "--days", "2"]) == 0
    text = capsys.readouterr().out
    (program.path / "credential.json").write_text(text)
    assert proof(program).id == row.digest
    assert home.journal.last("lent", credential=row.digest, to=program.identity_hex())
    thief = Home(tmp_path / "thief")
    (thief.path / "credential.json").write_text(text)
    assert "not lent to the ticket's sender" in refusal(thief)
    for left in ("", "{", "[]"):  # by a `lend` that failed, say
        for of in (program, home):
            (of.path / "credential.json").write_text(left)
        said_so = refusal(program)
        assert ("malformed" if left == "[]" else "can't be read as JSON") in said_so
        assert f"wallet lend --to {program.identity_hex()}" in said_so
        assert proof(home).id == row.digest  # by the wallet key that lies there
    for days in ("0", "91", "-1"):
        assert cli.main([*about, program.identity_hex(), "--days", days]) == 1
        assert "lent for 1 to 90 days" in capsys.readouterr().err
    assert cli.main([*about, program.identity_hex(), "--days", "90"]) == 0
    assert cli.main([*about, "x"]) == 1
    assert cli.main([*about, program.identity_hex(), "--credential", "lab"]) == 1
    board.revoke(row.digest)
    assert refusal(home).startswith("credential_needed")
    assert cli.main([*about, program.identity_hex()]) == 1
