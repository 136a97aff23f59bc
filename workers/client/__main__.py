"""`python3 -m workers.client …`: agents, buyers and auditors at the command line.

In a checkout any Python 3.11 will do: where the libraries are missing, the command goes on in the
environment that manage.py has made.
"""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

NEEDED = ("cryptography", "httpx", "numpy")


def go_on_in_the_environment() -> None:
    """Replace this process by the same command there; exit with one line when there is none."""
    root = Path(__file__).resolve().parents[2]
    environment = Path(os.environ.get("FLAI_VENV") or root / ".venv").absolute()
    python = environment / "bin" / "python"
    if not python.exists() or Path(sys.prefix).resolve() == environment.resolve():
        sys.exit(
            f"The client needs {', '.join(NEEDED)}, which this Python does not have.\n"
            "Run `python3 manage.py help` once: it makes .venv, and this command will use it."
        )
    os.execv(python, [str(python), "-m", "workers.client", *sys.argv[1:]])


if __name__ == "__main__":
    if not all(map(find_spec, NEEDED)):
        go_on_in_the_environment()
    from workers.client.cli import main

    sys.exit(main())
