"""From a bare Python 3.11 to a ready .venv, with the standard library alone.

Rule: `.venv/flai-<name>.sha256` holds the hash of the requirements file that was installed
completely; equal means nothing to do (a warm start costs some milliseconds). It is written last,
so an interrupted installation resumes. A lock keeps two starts apart.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PYTHON_WANTED = (3, 11)
ROOT = Path(__file__).resolve().parent.parent
RUNTIME = "requirements.txt"
TESTING = "requirements-test.txt"
LOCK = "flai-install.lock"


class BootstrapError(Exception):
    """A message for the person at the terminal; no trace belongs with it."""


def check_python(version: tuple[int, ...]) -> None:
    """Exactly 3.11: the pinned wheels are built for it.

    Raises BootstrapError naming both versions.
    """
    if tuple(version[:2]) != PYTHON_WANTED:
        have = ".".join(map(str, version[:3]))
        raise BootstrapError(
            f"FLAI needs Python 3.11; this is Python {have} ({sys.executable}).\n"
            "Install it (Debian 12: apt-get install python3 python3-venv) and run:\n"
            f"    python3.11 {' '.join(sys.argv) or 'manage.py demo'}"
        )


def venv_dir(root: Path = ROOT) -> Path:
    """$FLAI_VENV, or .venv beside manage.py."""
    return Path(os.environ.get("FLAI_VENV") or root / ".venv").absolute()


def inside(venv: Path) -> bool:
    """Whether this interpreter already is the one of `venv`."""
    return Path(sys.prefix).resolve() == venv.resolve()


def missing(venv: Path, names: list[str], root: Path = ROOT) -> list[str]:
    """Those requirements files whose exact present content is not completely installed."""
    if not (venv / "bin" / "python").exists():
        return list(names)
    return [name for name in names if _stamp_read(venv, name) != _digest(root / name)]


def ensure(names: list[str], *, root: Path = ROOT, say=print) -> Path:
    """Make `.venv` hold every requirements file in `names`; returns its interpreter.

    Raises BootstrapError when the directory cannot be written, pip is missing or pip fails.
    """
    venv = venv_dir(root)
    if not missing(venv, names, root):
        return venv / "bin" / "python"
    with _lock(venv):
        todo = missing(venv, names, root)  # another start may have done it while we waited
        if todo:
            _make_venv(venv, say)
            started = time.monotonic()
            _pip(venv, [root / name for name in todo], say)
            _compile(venv)
            for name in todo:
                _stamp_path(venv, name).write_text(_digest(root / name))
            say(f"  requirements installed in {time.monotonic() - started:.0f} s")
    return venv / "bin" / "python"


def reexec(python: Path, argv: list[str]) -> None:
    """Replace this process by the same command under the environment's interpreter."""
    sys.stdout.flush()
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONHOME", "__PYVENV_LAUNCHER__")}
    os.execve(str(python), [str(python), *argv], env)


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise BootstrapError(f"{path} cannot be read: {error.strerror}.") from None


def _stamp_path(venv: Path, name: str) -> Path:
    return venv / f"flai-{Path(name).stem}.sha256"


def _stamp_read(venv: Path, name: str) -> str:
    try:
        return _stamp_path(venv, name).read_text().strip()
    except OSError:
        return ""


@contextmanager
def _lock(venv: Path) -> Iterator[None]:
    """One installer at a time. The lock lies in the directory itself: it goes when that goes."""
    try:
        venv.mkdir(parents=True, exist_ok=True)
        handle = open(venv / LOCK, "w")
    except OSError as error:
        raise BootstrapError(
            f"The directory {venv} cannot be written ({error.strerror}).\n"
            "Run as its owner, or set FLAI_VENV to a directory that you may write."
        ) from None
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("  another start is installing the requirements; waiting for it", flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _make_venv(venv: Path, say) -> None:
    if (venv / "bin" / "python").exists() and (venv / "pyvenv.cfg").exists() and _has_pip(venv):
        return
    for left in venv.iterdir():  # of an interrupted start; the lock's file must stay where it is
        if left.name != LOCK:
            shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
    say(f"  making {venv}")
    import venv as venv_module

    try:
        venv_module.EnvBuilder(symlinks=True, with_pip=_find_spec("ensurepip")).create(venv)
    except (OSError, subprocess.CalledProcessError) as error:
        raise BootstrapError(f"The virtual environment {venv} cannot be made: {error}") from None


def _pip_command(venv: Path) -> list[str]:
    """The environment's own pip; else (Debian without python3-venv) this Python's, told where."""
    python = str(venv / "bin" / "python")
    if _has_pip(venv):
        return [python, "-m", "pip"]
    if _find_spec("pip"):
        return [sys.executable, "-m", "pip", "--python", python]
    raise BootstrapError(
        "This Python has neither ensurepip nor pip, so nothing can be installed.\n"
        "Debian and Ubuntu: apt-get install python3-venv"
    )


def _find_spec(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _has_pip(venv: Path) -> bool:
    python = venv / "bin" / "python"
    if not python.exists():
        return False
    done = subprocess.run([python, "-m", "pip", "--version"], capture_output=True, check=False)
    return done.returncode == 0


def _pip(venv: Path, files: list[Path], say) -> None:
    command = [*_pip_command(venv), "install", "--require-hashes"]
    command += ["--only-binary=:all:", "--no-deps", "--no-input", "--disable-pip-version-check"]
    command += ["--no-compile"]
    command += ["--progress-bar=off", "--no-color"]
    for file in files:
        command += ["-r", str(file)]
    total = sum(line.count("==") and line[:1] not in " #" for f in files for line in _lines(f))
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=venv
    )
    assert child.stdout is not None and child.stderr is not None
    problems: list[str] = []
    reader = threading.Thread(target=lambda: problems.extend(child.stderr or ()), daemon=True)
    reader.start()
    try:
        seen = 0
        for line in child.stdout:
            if line.startswith(("Collecting ", "Requirement already satisfied")):
                seen += 1
                _progress(f"  requirements: {min(seen, total)} of {total}")
            elif line.startswith("Installing collected"):
                _progress("  requirements: unpacking")
        code = child.wait()
    except BaseException:
        child.terminate()
        child.wait()
        raise
    finally:
        _progress("")
    reader.join()
    if code:
        kept = [line.rstrip() for line in problems if not line.startswith("WARNING")][-8:]
        raise BootstrapError(
            "The requirements could not be installed; the next start tries again.\n"
            + "\n".join(f"    {line}" for line in kept)
        )


def _compile(venv: Path) -> None:
    """What was installed, on all cores, which pip would do on one; nobody imports others' tests."""
    code = [str(venv / "bin" / "python"), "-m", "compileall", "-q", "-j", "0", "-x", "/tests/"]
    # a file that is no Python of this version is compiled by nobody: no error of ours
    subprocess.run([*code, str(venv / "lib")], capture_output=True, check=False)


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def _progress(text: str) -> None:
    """One line that rewrites itself on a terminal; silent elsewhere."""
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns - 1
        print("\r" + text[:width].ljust(width) + ("\r" if not text else ""), end="", flush=True)
