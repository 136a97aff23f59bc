"""Sites that play a round against real nodes, over a server that only hands things on."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.bridge import SUBDAO, Bridge
from tests.support.nodes import NodeSet
from workers.client.agent import Agent
from workers.client.home import Home
from workers.demo import sites


def trained(three_nodes: NodeSet, root: Path, *, engine: str = "ring") -> Any:
    made = sites.make(11)
    sites.write(made, root, None)
    bridge, agents, lines = trained_at(three_nodes, root, engine=engine)
    return bridge, agents, made, lines


def trained_at(three_nodes: NodeSet, root: Path, *, engine: str = "ring") -> Any:
    """What sites with homes under root share in a round, as far as the nodes' computation."""
    about = json.loads((root / "sites.json").read_text())
    homes = {site["slug"]: Home(root / site["slug"]) for site in about["sites"]}
    for home in homes.values():
        home.pin_nodes(three_nodes.fingerprints)
        home.pin_peers([each.identity_hex() for each in homes.values()])
    bridge = Bridge(three_nodes, homes, about, engine=engine)
    lines: list[str] = []
    agents = {
        slug: Agent(home, home.config["role"], say=lines.append, api=bridge.api())
        for slug, home in homes.items()
    }
    for slug, agent in agents.items():
        if agent.role == "validator":
            table = agent.table(bridge.spec)
            bridge.rows[homes[slug].identity_hex()] = table.rows
        else:
            agent.normalise(subdao=SUBDAO, round_id=bridge.round_id)
    bridge.compute_moments()
    # Rows are announced in the order of validators; the roster's order is what tickets carry.
    for agent in agents.values():
        agent.train(subdao=SUBDAO, round_id=bridge.round_id)
    return bridge, agents, lines


def own_words(agent: Agent) -> np.ndarray:
    left = agent.home.journal.last("leaving", stage="round")
    return np.fromfile(agent.home.path / "uploads" / left["own"], dtype="<i8")


def own_update(agent: Agent) -> np.ndarray:
    return own_words(agent) / 2.0 ** agent.home.journal.last("leaving", stage="round")["f"]
