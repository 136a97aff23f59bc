#!/usr/bin/env python3
"""The one command: `python3 manage.py demo|up|test|bench|verify|<any Django command>`.

Needs only Python 3.11: it makes .venv, installs the hash-pinned requirements and runs itself there.
"""

from __future__ import annotations

import sys

from flai_site import bootstrap

OWN = ("demo", "up", "test", "bench", "verify")


def main(argv: list[str]) -> int:
    command = argv[0] if argv else "help"
    wanted = [bootstrap.RUNTIME] + ([bootstrap.TESTING] if command == "test" else [])
    try:
        bootstrap.check_python(sys.version_info)
        python = bootstrap.ensure(wanted)
    except bootstrap.BootstrapError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. The next start resumes.", file=sys.stderr)
        return 130
    if not bootstrap.inside(bootstrap.venv_dir()):
        bootstrap.reexec(python, [__file__, *argv])
    if command in OWN or command in ("help", "-h", "--help"):
        from flai_site.stack.cli import run

        return run(argv)
    from flai_site.stack.commands import run_django

    return run_django(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
