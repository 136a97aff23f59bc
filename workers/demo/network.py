"""The story's first half once more, with a neural network: `python -m workers.demo.network`.

A request for a network of one hidden layer, its funding, a round on shared rows, the vote, and the
listing: so that such a model is on sale beside the story's own. Sites and people are new ones.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from workers.client.api import ClientError
from workers.demo import agents, founding, making
from workers.demo.cast import State
from workers.demo.screen import Screen
from workers.demo.story import Story


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m workers.demo.network", description=__doc__)
    parser.add_argument("--url", required=True, help="address of the running site")
    parser.add_argument("--home", type=Path, required=True, help="directory of the participants")
    parser.add_argument("--nodes", type=Path, required=True, help="node homes")
    options = parser.parse_args(argv)
    home, screen = options.home.absolute(), Screen()
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        log = home / "logs" / "sites.log"
        agents.run("workers.demo.sites", ["--out", str(home / "sites")], log=log)
        story = Story(
            url=options.url,
            root=home,
            state=State(home / "state.json"),
            screen=screen,
            nodes=options.nodes,
            network=True,
        )
        for phase in (founding.request_phase, founding.onboarding_phase, making.training_phase):
            phase(story)
            screen.end_phase()
        if story.state.get("void"):
            return 1
        sold = making.vote_phase(story)
        screen.end_phase()
    except ClientError as error:
        print(f"The network is not on sale: {error.text}", file=sys.stderr)
        return 1
    return 0 if sold else 1


if __name__ == "__main__":
    sys.exit(main())
