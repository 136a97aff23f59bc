"""What all these tests begin with, made once: their files go to one process (tests/conftest.py)."""

from typing import Any

import pytest

from tests.support.nodes import NodeSet
from tests.support.trained import trained


@pytest.fixture(scope="package")
def world(three_nodes: NodeSet, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Six sites and three validators that have played one round; and what was said on the way."""
    bridge, agents, made, lines = trained(three_nodes, tmp_path_factory.mktemp("sites"))
    bridge.compute_round()
    return bridge, agents, made, lines


@pytest.fixture(scope="package")
def sharing(three_nodes: NodeSet, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The same before the nodes have computed: they take no shares of a round that is done."""
    return trained(three_nodes, tmp_path_factory.mktemp("sharing"))
