"""manage.py's own commands: demo, up, test, bench, verify."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from flai_site.stack.layout import ROOT, Home, Ports, StackError
from flai_site.stack.supervisor import Service
from flai_site.stack.up import Stack, free_ports, python, run_stack


def run(argv: list[str]) -> int:
    """The exit code of one of our own commands; errors are one message, never a trace."""
    # pytest's arguments are its own; everything else is parsed here.
    if argv[:1] == ["test"]:
        from flai_site.stack.testing import run_tests

        return run_tests(argv[1:])
    options = _parser().parse_args(argv if argv and argv[0] != "help" else ["--help"])
    try:
        return int(options.call(options))
    except StackError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="manage.py",
        description="FLAI: requests for model, private training, governance, paid inference.",
        epilog="Anything else is a Django command (manage.py shell, migrate, …). "
        "State lives in $FLAI_HOME (default .flai).",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    up = commands.add_parser("up", help="run the whole stack until Ctrl-C")
    up.set_defaults(call=_up)
    demo = commands.add_parser("demo", help="run the stack and play a whole story on real data")
    demo.set_defaults(call=_demo)
    for command in (up, demo):
        command.add_argument("--fresh", action="store_true", help="start over from nothing")
        command.add_argument("-v", "--verbose", action="store_true", help="show every log line")
    demo.add_argument("--once", action="store_true", help="stop when the story has ended")
    demo.add_argument("--json", type=Path, metavar="FILE", help="write the result's numbers there")
    demo.add_argument("--sites", type=Path, metavar="DIR", help="your own data: one CSV a site")
    demo.add_argument("--label", metavar="COLUMN", help="the column to predict (with --sites)")
    demo.add_argument("--region", metavar="COLUMN", help="the column of strata (with --sites)")
    demo.add_argument("--seed", type=int, metavar="N", help="another split of the built-in data")
    demo.add_argument(
        "--compare", action="store_true", help="also train pooled, which reads all sites"
    )

    bench = commands.add_parser("bench", help="measure, as JSON lines")
    bench.add_argument("group", nargs="?", default="all")
    bench.add_argument("--json", type=Path, metavar="FILE", help="write the lines there as well")
    bench.set_defaults(call=_bench)

    verify = commands.add_parser("verify", help="check ledger and log")
    verify.add_argument("--url", help="the site to check (default: the one that runs here)")
    verify.set_defaults(call=_verify)

    commands.add_parser("test", help="set up and run the whole test suite", add_help=False)
    return parser


def _up(options: argparse.Namespace) -> int:
    stack = Stack(Home.from_environment(), Ports.from_environment())
    print(f"FLAI, state in {stack.home.root}")
    return run_stack(
        stack,
        fresh=options.fresh,
        verbose=options.verbose,
        say=_say,
        banner=lambda: _say("Ctrl-C stops it"),
    )


def _demo(options: argparse.Namespace) -> int:
    _check_demo(options)
    stack = Stack(Home.from_environment(), Ports.from_environment())
    arguments = ["--url", stack.url, "--home", str(stack.home.demo)]
    for name in ("once", "compare"):
        arguments += [f"--{name}"] if getattr(options, name) else []
    for name in ("json", "sites", "label", "region", "seed"):
        value = getattr(options, name)
        if value is not None:
            absolute = isinstance(value, Path)
            arguments += [f"--{name}", str(value.absolute() if absolute else value)]
    story = Service(
        "demo",
        lambda: python("-m", "workers.demo", *arguments),
        attached=True,
        guarded=True,
        stop_within_s=4,
    )
    print(f"FLAI, state in {stack.home.root}")
    return run_stack(
        stack,
        story=story,
        stay=not options.once,
        fresh=options.fresh,
        verbose=options.verbose,
        say=_say,
    )


def _check_demo(options: argparse.Namespace) -> None:
    """Everything that can be known to be wrong before anything starts."""
    if options.sites is None:
        for name in ("label", "region"):
            if getattr(options, name) is not None:
                raise StackError(f"--{name} goes with --sites DIR.", 2)
    else:
        if not options.sites.is_dir():
            raise StackError(f"--sites {options.sites} is no directory.", 2)
        if not any(options.sites.glob("*.csv")):
            raise StackError(f"--sites {options.sites} holds no .csv file (one a site).", 2)
        if options.label is None:
            raise StackError("--sites needs --label COLUMN: the column to predict.", 2)
        region = ["--region", options.region] if options.region else []
        check = python(
            *("-m", "workers.demo.userdata", str(options.sites.absolute())),
            *("--label", options.label, *region),
        )
        done = subprocess.run(check, cwd=ROOT, check=False, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            raise StackError(f"{done.stderr.strip()}\nNothing was started.", 2)
    if options.json is not None:
        _check_writable(options.json)


def _check_writable(path: Path) -> None:
    existed = path.exists()
    try:
        with open(path, "a"):
            pass
    except OSError as error:
        raise StackError(f"{path} cannot be written: {error.strerror}.", 2) from None
    if not existed:
        path.unlink()


def _bench(options: argparse.Namespace) -> int:
    from flai_site.bench import run_bench

    if options.json is not None:
        _check_writable(options.json)
    return run_bench(options.group, options.json)


def _verify(options: argparse.Namespace) -> int:
    """The auditor's check over the public API, then the database's own invariants."""
    home = Home.from_environment()
    running = home.running()
    if running or options.url:
        code = _audit(options.url or running["url"])
        return max(code, _verify_ledger(running["environment"]) if running else 0)
    if not (home.root / "stack.lock").exists():
        raise StackError(f"No stack runs and {home.root} holds none; start one, or give --url URL.")
    ports = Ports(web=free_ports(1)[0], control=(), mesh=())
    stack = Stack(home, ports)
    story = Service(
        "verify",
        lambda: python("manage.py", "verify"),
        attached=True,
        environment=os.environ | {"FLAI_HOME": str(home.root)},
    )
    return run_stack(stack, services=stack.web_only(), story=story, stay=False, say=lambda _: None)


def _audit(url: str) -> int:
    command = python("-m", "workers.client", "verify", "--url", url)
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def _verify_ledger(environment: dict[str, str]) -> int:
    command = python("-m", "django", "verify_ledger")
    return subprocess.run(command, cwd=ROOT, env=os.environ | environment, check=False).returncode


def _say(line: str) -> None:
    print(f"  {line}", flush=True)
