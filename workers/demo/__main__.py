"""The demonstration's story: `python -m workers.demo --url URL --home DIR`.

A client of the REST API and nothing more. Seven phases: request, funding, training, vote, queries,
revenue, audit; then the table, and what was left for the visitor. A second run goes on where the
first stopped, and shows the result of a finished story again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from workers.client.api import Api, ClientError
from workers.demo import agents, founding, making, report, selling, userdata, visitor
from workers.demo.cast import State
from workers.demo.screen import Screen
from workers.demo.story import Story


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m workers.demo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--url", required=True, help="address of the running site")
    parser.add_argument("--home", type=Path, required=True, help="directory of the participants")
    parser.add_argument("--nodes", type=Path, help="node homes (default: nodes beside --home)")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    parser.add_argument("--sites", type=Path, help="your own files: one CSV a site")
    parser.add_argument("--label", help="the label's column in your files")
    parser.add_argument("--region", help="a column of your files that names regions")
    parser.add_argument(
        "--compare", action="store_true", help="also train on all your rows pooled (reads them all)"
    )
    parser.add_argument("--once", action="store_true", help="the site will not keep running")
    parser.add_argument("--seed", type=int, default=0, help="of the built-in sites")
    options = parser.parse_args(argv)
    if options.sites and not options.label:
        parser.error("--sites needs --label: the name of the column to predict")
    if not options.sites and (options.label or options.region):
        parser.error("--label and --region go with --sites")
    return options


class OtherSites(ClientError):
    """Going on would mix two stories."""


def prepare_sites(options: argparse.Namespace, state: State) -> None:
    """The sites' homes, made once by a program of its own that the story does not look into."""
    out = options.home / "sites"
    wanted = [str(options.sites and options.sites.resolve()), options.label, options.region]
    wanted += [] if options.sites else [str(options.seed)]
    made = state.get("sites")
    if made is not None and made != wanted:
        raise OtherSites(
            "This home has begun a story with other sites. Start over with --fresh, or choose "
            "another home (FLAI_HOME)."
        )
    if made is not None:
        return
    if options.sites:
        userdata.prepare(options.sites, out, label=options.label, region=options.region)
    else:
        record = options.home / "sites-record.json"
        arguments = ["--out", str(out), "--seed", str(options.seed), "--record", str(record)]
        agents.run("workers.demo.sites", arguments, log=options.home / "logs" / "sites.log")
    state.put("sites", wanted)


def play(story: Story, state: State) -> None:
    """The phases that are not done yet."""
    phases = state.get("phases_s") or {}

    def passed(name: str) -> None:
        story.screen.end_phase()
        phases.update(story.screen.seconds)
        state.put("phases_s", phases)
        state.put(f"done {name}", True)

    for name, run in (
        ("rfm", founding.request_phase),
        ("funding", founding.onboarding_phase),
        ("training", making.training_phase),
        ("vote", making.vote_phase),
    ):
        if state.get("void"):
            break
        if not state.get(f"done {name}"):
            run(story)
            passed(name)
    if state.get("accepted"):
        for name, run in (("queries", selling.query_phase), ("revenue", selling.revenue_phase)):
            if not state.get(f"done {name}"):
                run(story)
                passed(name)
    story.remember_end()
    visitor.leave_for_visitor(story)
    report.audit(story)
    passed("audit")


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    options.home = options.home.absolute()
    screen = Screen()
    try:
        options.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        state = State(options.home / "state.json")
        nodes = options.nodes or options.home.parent / "nodes"
        compare = options.compare or not options.sites
        Api(options.url).get("log/key/")  # is anybody there?
        if not state.get("finished"):
            screen.title("FLAI: from a request to a paid private prediction")
            prepare_sites(options, state)
        story = Story(
            url=options.url,
            root=options.home,
            state=state,
            screen=screen,
            nodes=nodes if nodes.is_dir() else None,
        )
        if not state.get("finished"):
            play(story, state)
        else:
            prepare_sites(options, state)
            screen.title("The story was played before; here is how it ended.")
        facts = report.numbers(story, compare=compare)
        report.show(story, facts, compared=compare)
        if options.json:
            report.write_json(facts, options.json)
        report.what_next(story, keeps_running=not options.once)
        state.put("finished", True)
        ok = facts["log_verified"]
    except OtherSites as error:
        print(f"\n   {error.text}", file=sys.stderr)
        return 2
    except ClientError as error:
        screen.end_phase()
        print(f"\n   The story stops here: {error.text}", file=sys.stderr)
        print("   Run the same command again to go on from this point.", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"\n   {error.filename or options.home}: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
