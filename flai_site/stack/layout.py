"""The home of a stack: where its state lies, who may run it, which names its processes read.

One directory, marked as ours (so that `--fresh` never deletes anything else), locked while a
supervisor runs in it.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parent.parent.parent
MARKER = "flai-home"
NODE_COUNTS = (3, 4, 5)
# Of the nodes' policy.json, and the variables by which the site says the same.
LIMITS = {
    "rows_per_query": "FLAI_ROWS_PER_QUERY",
    "rows_per_epoch": "FLAI_ROWS_PER_EPOCH",
    "epoch_days": "FLAI_ROWS_EPOCH_DAYS",
}


class StackError(Exception):
    """Something the person at the terminal can mend; `exit_code` is the command's."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Home:
    """Paths below $FLAI_HOME; nothing here touches the disk but `prepare`, `lock` and `wipe`."""

    root: Path

    @classmethod
    def from_environment(cls) -> Home:
        return cls(Path(os.environ.get("FLAI_HOME") or ROOT / ".flai").absolute())

    @property
    def stack_file(self) -> Path:
        return self.root / "stack.json"

    @property
    def nodes_file(self) -> Path:
        return self.root / "nodes.json"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def demo(self) -> Path:
        return self.root / "demo"

    def node(self, index: int) -> Path:
        return self.root / "nodes" / str(index)

    def secret(self, name: str) -> Path:
        return self.root / "secrets" / f"{name}.key"

    def public(self, name: str) -> Path:
        return self.root / "public" / f"{name}.pub"

    @property
    def coordinator_certificate(self) -> Path:
        """What the operators of nodes admit to their control ports."""
        return self.root / "public" / "coordinator.pem"

    def prepare(self) -> None:
        """Directories, marker and keys, each made once.

        Raises StackError for a directory that cannot be written or that is somebody else's.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            marker = self.root / MARKER
            if not marker.exists():
                if any(self.root.iterdir()):
                    raise StackError(
                        f"{self.root} holds other files and is no FLAI home; "
                        "set FLAI_HOME to a new or empty directory."
                    )
                marker.write_text("1\n")
            for name in ("secrets", "public", "nodes", "logs", "demo"):
                (self.root / name).mkdir(exist_ok=True, mode=0o700)
            _keep(self.secret("django"), lambda: secrets.token_urlsafe(64))
            for name in ("log", "coordinator"):
                _keep(self.secret(name), lambda: secrets.token_hex(32))
                if not self.public(name).exists():
                    self.public(name).write_text(_public_hex(self.secret(name)) + "\n")
            if not self.coordinator_certificate.exists():
                self.coordinator_certificate.write_text(_certificate(self.secret("coordinator")))
        except OSError as error:
            raise StackError(
                f"The directory {error.filename or self.root} cannot be written "
                f"({error.strerror}). Run as its owner, or set FLAI_HOME to a directory that you "
                "may write."
            ) from None

    def lock(self) -> IO[str]:
        """The right to run a stack here; held for as long as the returned file is open.

        Raises StackError saying where it runs already.
        """
        handle = open(self.root / "stack.lock", "w")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.close()
            running = self.read_stack()
            where = f" at {running['url']}" if running.get("url") else ""
            pid = f" (process {running['pid']})" if running.get("pid") else ""
            raise StackError(
                f"FLAI is already running{where}{pid}, with its state in {self.root}.\n"
                "Use it, stop it with Ctrl-C in its terminal, or set FLAI_HOME and FLAI_PORT for "
                "a second one."
            ) from None
        return handle

    def running(self) -> dict[str, Any] | None:
        """What stack.json says, if a supervisor really holds the lock; else None."""
        try:
            with open(self.root / "stack.lock") as handle:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return None
        except BlockingIOError:
            return self.read_stack() or None
        return None

    def read_stack(self) -> dict[str, Any]:
        try:
            content = json.loads(self.stack_file.read_text())
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def write_stack(self, content: dict[str, Any]) -> None:
        write_json(self.stack_file, content)

    def wipe(self, also: Path | None = None) -> None:
        """Delete everything of this home (the lock's file excepted) and the directory `also`.

        Raises StackError when the directory is not marked as a FLAI home.
        """
        if not self.root.exists():
            return
        if not (self.root / MARKER).is_file():
            raise StackError(f"{self.root} is no FLAI home; nothing was deleted.")
        for path in self.root.iterdir():
            if path.name in (MARKER, "stack.lock"):
                continue
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        if also is not None and also.exists():
            shutil.rmtree(also)


@dataclass(frozen=True)
class Ports:
    """Where the stack listens, always on loopback."""

    web: int
    control: tuple[int, ...]
    mesh: tuple[int, ...]

    @classmethod
    def from_environment(cls) -> Ports:
        """Raises StackError for a number of nodes or a port that cannot be."""
        wanted = os.environ.get("FLAI_NODE_COUNT") or str(NODE_COUNTS[0])
        if wanted not in map(str, NODE_COUNTS):
            raise StackError(f"FLAI_NODE_COUNT={wanted}: 3, 4 or 5 nodes can share a secret.")
        nodes = int(wanted)
        control = _port("FLAI_NODE_PORT", 8101)
        mesh = _port("FLAI_MESH_PORT", 8201)
        return cls(
            web=_port("FLAI_PORT", 8000),
            control=tuple(control + i for i in range(nodes)),
            mesh=tuple(mesh + i for i in range(nodes)),
        )

    def named(self) -> list[tuple[int, str, str]]:
        """(port, what for, the variable that moves it)."""
        return [
            (self.web, "the web site", "FLAI_PORT"),
            *[
                (p, f"node {i}'s control port", "FLAI_NODE_PORT")
                for i, p in enumerate(self.control)
            ],
            *[(p, f"node {i}'s mesh port", "FLAI_MESH_PORT") for i, p in enumerate(self.mesh)],
        ]


def site_environment(
    home: Home, *, database_url: str, valkey_url: str, url: str, faucet: bool
) -> dict[str, str]:
    """The names that flai_site.settings reads (docs/operations.md)."""
    # A demonstration shows a whole vote in seconds; real money is given time to be heard.
    period = os.environ.get("FLAI_VOTING_PERIOD_MIN_S") or ("3" if faucet else "")
    return {
        "DATABASE_URL": database_url,
        "VALKEY_URL": valkey_url,
        "FLAI_HOME": str(home.root),
        "FLAI_SECRET_KEY_FILE": str(home.secret("django")),
        "FLAI_LOG_KEY_FILE": str(home.secret("log")),
        "FLAI_COORDINATOR_KEY_FILE": str(home.secret("coordinator")),
        "FLAI_NODES": str(home.nodes_file),
        "FLAI_URL": url,
        "FLAI_FAUCET": "1" if faucet else "0",
        "FLAI_VOTING_PERIOD_MIN_S": period,
        "DJANGO_SETTINGS_MODULE": "flai_site.settings",
    }


def node_limits(site: Mapping[str, str]) -> dict[str, int]:
    """The `policy.json` of the site's own nodes: what its environment says that nodes answer.

    Raises StackError.
    """
    limits = {}
    for limit, name in LIMITS.items():
        text = os.environ.get(name) or site.get(name) or ""
        if text and not text.isdecimal():
            raise StackError(f"{name} must be a whole number, not {text!r}.", 2)
        if text:
            limits[limit] = int(text)
    return limits


def write_json(path: Path, content: object) -> None:
    """Whole or not at all."""
    draft = path.with_name(path.name + ".draft")
    draft.write_text(json.dumps(content, indent=1) + "\n")
    draft.replace(path)


def _port(name: str, default: int) -> int:
    text = os.environ.get(name) or str(default)
    if not text.isdecimal() or not 1 <= int(text) <= 65_500:
        raise StackError(f"{name}={text} is no port number.", exit_code=2)
    return int(text)


def _keep(path: Path, make) -> None:
    """Write what `make` returns for the owner's eyes only, unless the file is there already."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    with os.fdopen(descriptor, "w") as handle:
        handle.write(make() + "\n")


def _public_hex(secret: Path) -> str:
    from apps.protocol import wire

    return wire.public_hex(_private(secret))


def _certificate(secret: Path) -> str:
    from apps.protocol import identity

    return identity.certificate_pem(_private(secret), identity.COORDINATOR)


def _private(secret: Path) -> Any:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret.read_text().strip()))
