"""Real nodes for these tests."""

from tests.support.nodes import model, three_nodes  # noqa: F401
