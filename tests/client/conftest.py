"""Real nodes for these tests."""

from tests.support.nodes import three_nodes  # noqa: F401
