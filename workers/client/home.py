"""An agent's home: one directory, readable by its owner alone.

agent.toml       what the site decides: url, api_key (file), data, label, strata, [train] …
connection.json  address of the server, written by `connect` (agent.toml's url goes first)
api.key          the API key of the organisation
identity.key     Ed25519 seed that signs tickets and attestations
reply.key        X25519 key that alone opens answers
wallet.key       Ed25519 seed that signs payments, stakes, votes and proposals, once it is bound
recovery.key     Ed25519 seed that signs changes of keys only; keep it elsewhere
credential.json  what another home's wallet key lent this one's key to ask by (`wallet lend`)
nodes.pin.json   fingerprints of the nodes that this site trusts, as their operators publish them
thresholds.json  the highest threshold that was signed here for each SubDAO and each listing
peers.pin.json   public keys of the organisations that it computes with, from themselves
uploads/         sealed shares on their way to a round, and what this site itself shared
queries/         sealed rows and reply keys of queries that may be asked again with the same key;
                 a row's words open with its reply key: keep it as you keep the rows
journal.jsonl    what this agent did and what left the site; never sent anywhere
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from apps.protocol.wire import is_hex, public_hex
from workers.client.api import Api, ClientError
from workers.mpc import keys

KEY_BYTES = 32
CUT_S = 3600  # a file that is written for so long is one of a process that was killed


class Home:
    """One participant's directory. Made with mode 0700 where it does not exist."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.path.chmod(0o700)
        except OSError as error:
            raise ClientError(
                f"The home {self.path} can't be used: {error.strerror}. Choose another with --home."
            ) from None
        self.config = self._read_config()
        self.journal = Journal(self.path / "journal.jsonl")

    def for_subdao(self, name: str) -> Home:
        """The same home with what agent.toml says in [subdao.NAME] above the rest."""
        tables = self.config.get("subdao", {})
        table = tables.get(name, {}) if isinstance(tables, dict) else None
        if not isinstance(table, dict):
            raise ClientError(f"{self.path / 'agent.toml'}: [subdao.{name}] must be a table.")
        home = copy.copy(self)
        home.config = {**self.config, **table}
        return home

    # -- connection

    def connect(self, *, url: str, api_key: str) -> None:
        """Remember where the server is and with which key this participant speaks to it."""
        write_private(self.path / "connection.json", json.dumps({"url": url}).encode())
        write_private(self.api_key_path, api_key.encode())

    @property
    def url(self) -> str:
        if self.config.get("url"):
            return str(self.config["url"])
        path = self.path / "connection.json"
        if path.exists():
            return str(read_json(path)["url"])
        raise ClientError(
            f"{self.path} knows no server yet. Run: "
            f"python3 -m workers.client connect --home {self.path} --url URL --api-key-file FILE"
        )

    @property
    def api_key_path(self) -> Path:
        return self.path / str(self.config.get("api_key", "api.key"))

    def api(self) -> Api:
        try:
            key = self.api_key_path.read_text(encoding="ascii").strip()
        except OSError:
            raise ClientError(
                f"There is no API key in {self.api_key_path}. Run: "
                f"python3 -m workers.client connect --home {self.path} --url URL "
                "--api-key-file FILE"
            ) from None
        return Api(self.url, key)

    # -- keys

    def identity(self) -> Ed25519PrivateKey:
        """The signing key; made at first use."""
        return keys.signing_key(self._key("identity.key"))

    def identity_hex(self) -> str:
        return public_hex(self.identity())

    def reply_key(self) -> X25519PrivateKey:
        """The key that opens sealed answers; made at first use."""
        return keys.hpke_key(self._key("reply.key"))

    def wallet_key(self, purpose: str = "wallet") -> Ed25519PrivateKey:
        """The wallet's key, or its recovery key; made at first use."""
        return keys.signing_key(self._key(f"{purpose}.key"))

    def wallet_keys(self, purpose: str) -> list[Ed25519PrivateKey]:
        """The keys of this purpose that lie here, none made: the one after a rotation that was cut
        off too."""
        paths = [self.path / f"{name}.key" for name in (purpose, f"{purpose}.next")]
        if purpose == "agent":
            paths = [self.path / "identity.key"]
        return [keys.signing_key(self._key(path.name)) for path in paths if path.exists()]

    def next_wallet_key(self) -> Ed25519PrivateKey:
        """The key that a rotation binds: written down before the server knows it."""
        return keys.signing_key(self._key("wallet.next.key"))

    def take_next_wallet_key(self) -> None:
        """The rotation is done: the new key takes the old one's place."""
        (self.path / "wallet.next.key").replace(self.path / "wallet.key")

    def _key(self, name: str) -> bytes:
        try:
            return keys.load_or_create(self.path / name)
        except keys.KeyFileError as error:
            raise ClientError(f"{error}.", code="bad_key") from None

    # -- questions that were asked with a key of one's own

    def kept_query(self, name: str) -> dict[str, Any] | None:
        """What was kept of a query before it was sent, if it was."""
        path = self.path / "queries" / f"{name}.json"
        return dict(read_json(path)) if path.exists() else None

    def kept_queries(self) -> dict[str, dict[str, Any]]:
        """All that are kept, by name."""
        for cut in (self.path / "queries").glob(".*"):
            with contextlib.suppress(FileNotFoundError):  # it may just be given its name
                if time.time() - cut.stat().st_mtime > CUT_S:
                    cut.unlink()
        found = sorted((self.path / "queries").glob("*.json"))
        return {path.stem: dict(read_json(path)) for path in found}

    def keep_query(self, name: str, content: dict[str, Any]) -> None:
        folder = self.path / "queries"
        folder.mkdir(exist_ok=True, mode=0o700)
        write_private(folder / f"{name}.json", json.dumps(content).encode())

    def forget_query(self, name: str) -> None:
        (self.path / "queries" / f"{name}.json").unlink(missing_ok=True)

    # -- what the site decides

    def file(self, name: str, default: str | None = None) -> Path:
        """A path from agent.toml, relative to the home. Raises: ClientError where it is not set."""
        value = self.config.get(name, default)
        if not value:
            raise ClientError(f'{self.path / "agent.toml"} does not say {name} = "…".')
        return self.path / str(value)

    def pinned_nodes(self) -> list[str] | None:
        """Fingerprints that the operators published; None where the site has pinned none yet."""
        path = self.path / "nodes.pin.json"
        return read_pins(path, "fingerprints") if path.exists() else None

    def pin_nodes(self, fingerprints: list[str]) -> None:
        content = json.dumps({"fingerprints": fingerprints}, indent=1).encode()
        write_private(self.path / "nodes.pin.json", content)

    def threshold_signed(self, what: str) -> int:
        """The highest threshold that was signed here for this ("subdao:…", "listing:…"); 1 where
        none was: there the first use takes the server's word."""
        path = self.path / "thresholds.json"
        known = read_json(path) if path.exists() else {}
        least = known.get(what, 1) if isinstance(known, dict) else None
        if type(least) is not int:
            raise ClientError(f"{path} must hold a whole number for each name.")
        return least

    def keep_threshold(self, what: str, threshold: int) -> None:
        if threshold > 1 and threshold > self.threshold_signed(what):
            self.accept_threshold(what, threshold)

    def accept_threshold(self, what: str, threshold: int) -> None:
        """From now on so many are enough for this, whatever was signed before: the person says."""
        path = self.path / "thresholds.json"
        known = read_json(path) if path.exists() else {}
        write_private(path, json.dumps(known | {what: threshold}, indent=1).encode())

    def pinned_peers(self) -> list[str] | None:
        """Public keys of the organisations it computes with; None where it has pinned none."""
        path = self.path / "peers.pin.json"
        return read_pins(path, "keys") if path.exists() else None

    def pin_peers(self, public_keys: list[str]) -> None:
        content = json.dumps({"keys": public_keys}, indent=1).encode()
        write_private(self.path / "peers.pin.json", content)

    @property
    def takes_any_peers(self) -> bool:
        """Whether agent.toml says, in so many words, that the server's list of peers will do."""
        return self.config.get("peers") == "any"

    def _read_config(self) -> dict[str, Any]:
        path = self.path / "agent.toml"
        if not path.exists():
            return {}
        try:
            return tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ClientError(f"{path} is not valid TOML: {error}") from None


class Journal:
    """Append-only lines of JSON, for this site's eyes. What is in it has happened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, event: str, **fields: Any) -> dict[str, Any]:
        entry = {"at": int(time.time()), "event": event, **fields}
        line = (json.dumps(entry, separators=(",", ":")) + "\n").encode()
        handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(handle, line)
            os.fsync(handle)
        finally:
            os.close(handle)
        return entry

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if not self.path.exists():
            return
        with self.path.open(encoding="utf-8") as file:
            for line in file:
                try:
                    yield json.loads(line)
                except ValueError:
                    continue  # a line that a crash cut off: what it would say did not happen

    def last(self, event: str, **match: Any) -> dict[str, Any] | None:
        """The newest entry of that event whose fields have these values."""
        found = None
        for entry in self:
            if entry.get("event") == event and all(entry.get(k) == v for k, v in match.items()):
                found = entry
        return found


def write_private(path: Path, *parts: bytes | memoryview) -> None:
    """Whole or not at all, on disk when this returns, mode 0600."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.writelines(parts)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read_json(path: Path) -> Any:
    """Raises: ClientError."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ClientError(f"{path} can't be read as JSON.") from None


def read_pins(path: Path, name: str) -> list[str]:
    """The keys or fingerprints in a file {name: [hex, …]}. Raises: ClientError."""
    content = read_json(path)
    values = content.get(name) if isinstance(content, dict) else None
    if not isinstance(values, list) or not all(is_hex(value, KEY_BYTES) for value in values):
        raise ClientError(f'{path} must hold {{"{name}": [32 bytes in hex, …]}}.')
    return values
