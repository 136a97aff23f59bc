"""Which nodes a client believes in: pinned ones quietly, the server's word only aloud."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from tests.support.nodes import NodeSet
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
