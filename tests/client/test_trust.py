"""Which nodes a client believes in: pinned ones quietly, the server's word only aloud."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from apps.protocol import refreshes
from apps.protocol.jobs import JobError
from tests.support.nodes import NodeSet
from workers.client.cli import main
from workers.client.home import Home
from workers.client.nodes import trusted_nodes


def test_the_servers_word_is_taken_once_and_said_aloud(
    three_nodes: NodeSet,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    home = Home(tmp_path / "me")
    with caplog.at_level(logging.WARNING, "flai.client"):
        trusted_nodes(home, three_nodes.descriptors)
        said = [record.getMessage() for record in caplog.records]
        trusted_nodes(home, three_nodes.descriptors)
    assert len(caplog.records) == len(said) == 1
    assert "on the server's word" in said[0]
    assert all(fp[:6] in said[0] for fp in three_nodes.fingerprints)


def test_nodes_pinned_beforehand_need_no_warning(
    three_nodes: NodeSet,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    home = Home(tmp_path / "me")
    home.pin_nodes(three_nodes.fingerprints)
    assert json.loads((home.path / "nodes.pin.json").read_text())
    trusted_nodes(home, three_nodes.descriptors)
    assert not caplog.records


def test_a_maker_lets_its_model_go_to_the_nodes_that_it_pinned_and_no_others(
    three_nodes: NodeSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    home, model = Home(tmp_path / "me"), "ab" * 32
    command = ["resharing", "--home", str(home.path), "--model", model]
    shown = {"results": [{"descriptor": d} for d in three_nodes.descriptors]}
    monkeypatch.setattr(Home, "api", lambda _: SimpleNamespace(get=lambda _: shown))
    assert main(command) == 1
    home.pin_nodes(["ab" * 32] * 3)
    assert main(command) == 1 and not capsys.readouterr().out
    home.pin_nodes(three_nodes.fingerprints)
    assert main(command) == 0
    consent = json.loads(capsys.readouterr().out)
    where = {"model": model, "nodes": three_nodes.fingerprints}
    mine = {"makers": [home.identity_hex()], "now": int(time.time())}
    refreshes.check_consents([consent], **where, **mine)
    for changed in (
        *(where | more for more in ({"model": "cd" * 32}, {"nodes": ["ab" * 32] * 3})),
        where | {"engine": "shamir_t1"},
    ):
        with pytest.raises(JobError):
            refreshes.check_consents([consent], **changed, **mine)
    for wrong in ("ring", "shamir_t2"):  # which takes five nodes
        assert main([*command, "--engine", wrong]) == 1 and not capsys.readouterr().out
    assert main([*command, "--engine", "shamir_t1"]) == 0
    consent = json.loads(capsys.readouterr().out)
    named = where | {"engine": "shamir_t1"}
    refreshes.check_consents([consent], **named, **mine)
    # the nodes take it for seven days, or as many as are named
    later = mine | {"now": mine["now"] + 7 * 86_400 + 60}
    with pytest.raises(JobError, match="lapsed"):
        refreshes.check_consents([consent], **named, **later)
    with pytest.raises(JobError, match="Not all"):
        refreshes.check_consents(
            [consent | {"expires_at": consent["expires_at"] + 86_400}], **named, **later
        )
    assert main([*command, "--engine", "shamir_t1", "--days", "8"]) == 0
    refreshes.check_consents([json.loads(capsys.readouterr().out)], **named, **later)
    for days in ("0", "91"):
        assert main([*command, "--days", days]) == 1
