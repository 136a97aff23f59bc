"""`manage.py test`: find a browser, check style and imports, then types while the suite runs.

With arguments it is only pytest with these. pytest's own summary is the last line and its exit
code ours.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time

from flai_site.stack.layout import ROOT
from flai_site.stack.up import python

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHECKED = ("manage.py", "flai_site", "apps", "workers", "tests")


def run_tests(arguments: list[str]) -> int:
    """The first check's exit code that is not 0, else pytest's."""
    if arguments:
        return _run(python("-m", "pytest", *arguments), _environment(find_chromium()))
    browser = find_chromium() or install_chromium()
    if browser is None:
        return 1
    environment = _environment(browser)
    present = [name for name in CHECKED if (ROOT / name).exists()]
    checks = {
        "format": python("-m", "ruff", "format", "--no-cache", "--check", "--quiet", *present),
        "lint": python("-m", "ruff", "check", "--no-cache", "--quiet", *present),
        "imports": [os.path.join(os.path.dirname(sys.executable), "lint-imports")],
    }
    for name, command in checks.items():
        if code := _check(name, command, environment):
            return code
    workers = os.environ.get("FLAI_TEST_WORKERS", "2")
    spread = ["-n", workers, "--dist", "loadfile", "--no-loadscope-reorder"]
    # mypy has one core busy and the suite doesn't always have both
    with subprocess.Popen(python("-m", "pytest", *spread), cwd=ROOT, env=environment) as suite:
        if code := _check("types", python("-m", "mypy"), environment):
            suite.send_signal(signal.SIGINT)
            return code
        return suite.wait()


def _check(name: str, command: list[str], environment: dict[str, str]) -> int:
    """Its exit code; what it says is shown where that is not 0."""
    started = time.monotonic()
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        print(done.stdout)
        print(f"{name}: failed", file=sys.stderr)
    else:
        print(f"{name}: in order ({time.monotonic() - started:.1f} s)", flush=True)
    return done.returncode


def find_chromium() -> str | None:
    """$CHROMIUM, or the first known name on PATH."""
    given = os.environ.get("CHROMIUM")
    if given:
        return given if shutil.which(given) else None
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def install_chromium() -> str | None:
    """Root on Debian gets the system's package; anybody else is told what to install."""
    if os.geteuid() == 0 and shutil.which("apt-get"):
        print("Chromium for the browser tests: installing the system's package", flush=True)
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        for step in (
            ["update", "-qq"],
            ["install", "-y", "-qq", "--no-install-recommends", "chromium"],
        ):
            done = subprocess.run(
                ["apt-get", *step], env=environment, capture_output=True, text=True, check=False
            )
            if done.returncode:
                print(done.stderr or done.stdout, file=sys.stderr)
                break
        found = find_chromium()
        if found:
            return found
    print(
        "The browser tests need Chromium, and none was found.\n"
        "Install it (Debian: apt-get install chromium; Fedora: dnf install chromium), or set "
        "CHROMIUM to its path.",
        file=sys.stderr,
    )
    return None


def _environment(browser: str | None) -> dict[str, str]:
    ours = {"PYTHONUNBUFFERED": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    return os.environ | ours | ({"CHROMIUM": browser} if browser else {})


def _run(command: list[str], environment: dict[str, str]) -> int:
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
