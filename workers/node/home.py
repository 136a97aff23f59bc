"""A node's directory: keys, configuration, public descriptor, the peers that its operator admits.

sign.key hpke.key store.key   secret, 0600, made at the first `init`
epoch.key                     so is this, and replaced at each refresh (storekey.py)
config.json                   index, name, addresses
descriptor.json               public: what operators publish and everyone else pins
peers.json                    the operator's: {"coordinator": hex, "coordinator_cert": PEM,
                              "nodes": [descriptor × 3, 4 or 5]}
succession.json               why this node stands where another one stood, if it does
policy.json                   the operator's, optional: how much this node answers (Limits)
store.sqlite                  shares and results, encrypted
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TextIO

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from apps.protocol import identity, jobs, successions, wire
from apps.protocol.tickets import ENGINES, NODE_COUNTS, is_node_set
from workers.mpc import keys
from workers.node import RELEASE, storekey
from workers.node.errors import StartError

STORE_KEY_VARIABLE = "FLAI_STORE_KEY"
HOST = re.compile(r"[0-9A-Za-z]([0-9A-Za-z.-]{0,251}[0-9A-Za-z])?|[0-9a-fA-F:]{2,39}")


@dataclass(frozen=True, kw_only=True)
class Node:
    """This node: its keys, its addresses and what it says of itself."""

    home: Path
    index: int
    name: str
    control: tuple[str, int]
    mesh: tuple[str, int]
    sign_key: Ed25519PrivateKey
    hpke_key: X25519PrivateKey
    root_key: bytes
    certificate: str
    circuits_hash: str
    succeeds: tuple[dict[str, Any], ...] = ()

    @property
    def fingerprint(self) -> str:
        return jobs.fingerprint(self.descriptor_body())

    @property
    def store_key(self) -> bytes:
        """What the store opens with now; not kept, as it is to be gone after the next refresh."""
        return storekey.current(self.home, self.root_key)

    def descriptor_body(self) -> dict[str, Any]:
        return {
            "v": 1,
            "index": self.index,
            "name": self.name,
            "sign_key": wire.public_hex(self.sign_key),
            "hpke_key": keys.hpke_public_hex(self.hpke_key),
            "tls_cert": self.certificate,
            "control": "{}:{}".format(*self.control),
            "mesh": "{}:{}".format(*self.mesh),
            "engines": list(ENGINES),
            "circuits_hash": self.circuits_hash,
            "release": RELEASE,
            **({"succeeds": list(self.succeeds)} if self.succeeds else {}),
        }

    def descriptor(self) -> dict[str, Any]:
        body = self.descriptor_body()
        return body | {"signature": wire.sign(self.sign_key, jobs.NODE_DOMAIN, body)}


@dataclass(frozen=True, kw_only=True)
class Peers:
    """The coordinator whose jobs count, and the nodes in index order, this one among them."""

    coordinator: str
    coordinator_cert: str
    nodes: tuple[dict[str, Any], ...]
    fingerprints: tuple[str, ...]
    former: tuple[list[str], ...] = ()  # node sets that this one follows

    @property
    def sets(self) -> list[list[str]]:
        """These nodes, then the sets that they follow: whose results are theirs to compute on."""
        return [list(self.fingerprints), *self.former]

    def sign_keys(self, indices: Iterable[int]) -> dict[str, str]:
        """By fingerprint, of these nodes."""
        return {self.fingerprints[i]: self.nodes[i]["sign_key"] for i in indices}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much this node answers, by its operator's own `policy.json`; what it omits is as here.

    Rows are counted per model and epoch, which is this node's own: so many whole UTC days, counted
    from 1970. Whoever asks: keys cost nothing, so a count per sender would bound nobody. How much
    that protects depends on the resolution of the answers (apps/protocol/extraction.py); beyond
    that it leaves a trace.

    verified_only: this node takes no part in jobs that are not verified.
    kept_days, kept_mb: how long holdouts may stay for further rounds, and how much room they have
    in all; with 0 of either none stays.
    """

    rows_per_epoch: int = 2000
    epoch_days: int = 1
    rows_per_query: int = 10_000
    price_micro_min: int = 0
    verified_only: bool = False
    kept_days: int = 31
    kept_mb: int = 256


def init(home: Path, *, index: int, name: str, control: str, mesh: str) -> Node:
    """Make or keep the keys, write config.json and descriptor.json. Idempotent.

    Raises: StartError.
    """
    if not 0 <= index < max(NODE_COUNTS):
        raise StartError(f"--index must be 0 to {max(NODE_COUNTS) - 1}")
    if not name or len(name) > 64:
        raise StartError("--name must have 1 to 64 characters")
    address(control), address(mesh)
    try:
        home.mkdir(parents=True, exist_ok=True)
        home.chmod(0o700)
        for file in ("sign.key", "hpke.key"):
            keys.load_or_create(home / file)
        if STORE_KEY_VARIABLE not in os.environ:
            keys.load_or_create(home / "store.key")
        if not (home / "store.sqlite").exists():  # one of an earlier release has none yet
            keys.load_or_create(home / storekey.FILE)
        config = {"index": index, "name": name, "control": control, "mesh": mesh}
        write_json(home / "config.json", config)
        node = load(home)
        write_json(home / "descriptor.json", node.descriptor())
    except OSError as error:
        raise StartError(f"node home {home} cannot be written: {error.strerror}") from None
    except keys.KeyFileError as error:
        raise StartError(str(error)) from None
    return node


def load(home: Path) -> Node:
    """The node of an initialised home. Raises: StartError."""
    from apps.protocol.circuits import circuits_hash

    config = read_json(home / "config.json", hint="run init first")
    try:
        sign_key = keys.signing_key(keys.load(home / "sign.key"))
        hpke_key = keys.hpke_key(keys.load(home / "hpke.key"))
        root_key = _root_key(home)
        storekey.current(home, root_key)  # or there is none
        return Node(
            home=home,
            index=int(config["index"]),
            name=str(config["name"]),
            control=address(config["control"]),
            mesh=address(config["mesh"]),
            sign_key=sign_key,
            hpke_key=hpke_key,
            root_key=root_key,
            certificate=identity.certificate_pem(sign_key, str(config["name"])),
            circuits_hash=circuits_hash(),
            succeeds=_succeeds(home),
        )
    except keys.KeyFileError as error:
        raise StartError(str(error)) from None
    except (KeyError, TypeError, ValueError):
        raise StartError(f"{home / 'config.json'} is malformed: run init again") from None


def load_peers(node: Node) -> Peers:
    """The admitted nodes, each with a valid signature and its own certificate.

    Raises: StartError.
    """
    path = node.home / "peers.json"
    content = read_json(path, hint="the operator writes it")
    ok = isinstance(content, dict) and wire.is_hex(content.get("coordinator"), 32)
    if not ok:
        raise StartError(f"{path} does not name the coordinator's key")
    certificate = str(content.get("coordinator_cert"))
    try:
        identity.certificate_der(certificate, sign_key=content["coordinator"])
    except identity.BadCertificate as error:
        raise StartError(f"{path}: coordinator_cert: {error}") from None
    nodes = content.get("nodes")
    if not isinstance(nodes, list) or len(nodes) not in NODE_COUNTS:
        raise StartError(f"{path} must list {' or '.join(map(str, NODE_COUNTS))} nodes")
    fingerprints = []
    for position, descriptor in enumerate(nodes):
        try:
            fingerprints.append(jobs.check_node(descriptor))
            identity.certificate_der(descriptor["tls_cert"], sign_key=descriptor["sign_key"])
            address(descriptor["mesh"])
        except (jobs.JobError, identity.BadCertificate) as error:
            raise StartError(f"{path}: node {position}: {error}") from None
        if descriptor["index"] != position:
            raise StartError(f"{path}: nodes must be listed by index")
    if not is_node_set(fingerprints):
        raise StartError(f"{path} lists a node twice")
    if node.index >= len(nodes) or fingerprints[node.index] != node.fingerprint:
        raise StartError(f"{path} does not contain this node at index {node.index}")
    return Peers(
        coordinator=content["coordinator"],
        coordinator_cert=certificate,
        nodes=tuple(nodes),
        fingerprints=tuple(fingerprints),
        former=tuple(successions.sets_before(fingerprints, nodes)),
    )


def succeed(node: Node, said: Sequence[Any]) -> Node:
    """Keep what others signed of this node's taking a lost one's place, in succession.json and the
    descriptor; or more signatures of a succession before its own, for which too few had signed.
    Raises: StartError when that is not enough."""
    try:
        signed = {
            "statement": said[0]["statement"],
            "signatures": [one for part in said for one in part["signatures"]],
        }
        ok = all(part["statement"] == signed["statement"] for part in said)
        ok = ok and successions.is_succession(signed)
        before = [one["statement"] for one in node.succeeds]
        if ok and signed["statement"]["new"] == node.fingerprint:
            kept = [*said[0]["earlier"], signed]
        else:
            at = before.index(signed["statement"])
            kept = [*node.succeeds[:at], signed, *node.succeeds[at + 1 :]]
    except (KeyError, TypeError, IndexError, ValueError):
        ok = False
    if not ok:
        raise StartError("these files do not say, alike and signed by who may, that it succeeds")
    write_json(node.home / "succession.json", kept)
    succeeding = load(node.home)
    write_json(node.home / "descriptor.json", succeeding.descriptor())
    return succeeding


def admit(home: Path, descriptor: Any) -> str:
    """Write a successor's descriptor into peers.json in the place of the node that it follows, or
    of its own from when fewer had signed; the fingerprint of what stood there. Raises: StartError
    unless the old key or enough others signed."""
    path = home / "peers.json"
    content = read_json(path, hint="the operator writes it")
    try:
        before = [jobs.check_node(node) for node in content["nodes"]]
        new, index = jobs.check_node(descriptor), descriptor["index"]
        identity.certificate_der(descriptor["tls_cert"], sign_key=descriptor["sign_key"])
        address(descriptor["mesh"])
        old = before[index]
    except (jobs.JobError, identity.BadCertificate) as error:
        raise StartError(f"the descriptor cannot be admitted: {error}") from None
    except (KeyError, TypeError, IndexError):
        raise StartError(f"{path} or the descriptor is malformed") from None
    nodes = [*content["nodes"][:index], descriptor, *content["nodes"][index + 1 :]]
    after = [*before[:index], new, *before[index + 1 :]]
    if new == old:
        known = [one for one in successions.carried([descriptor]) if not successions.lacking(one)]
        ok = any(one["statement"]["new"] == new for one in known)
    else:
        ok = successions.sets_before(after, nodes)[:1] == [before]
    if not ok:
        raise StartError("nobody who may has signed that this node takes that one's place")
    write_json(path, content | {"nodes": nodes})
    return old


def load_limits(home: Path) -> Limits:
    """The operator's limits, or the usual ones where there is no file. Raises: StartError."""
    path = home / "policy.json"
    if not path.exists():
        return Limits()
    content = read_json(path, hint="the operator writes it")
    known = {field.name for field in fields(Limits)}
    if not isinstance(content, dict) or not set(content) <= known:
        raise StartError(f"{path} may set only: {', '.join(sorted(known))}")
    for name, value in content.items():
        if type(getattr(Limits, name)) is bool:
            if type(value) is not bool:
                raise StartError(f"{path}: {name} must be true or false")
        elif type(value) is not int or value < 0:
            raise StartError(f"{path}: {name} must be a whole number, 0 or more")
    if content.get("epoch_days") == 0:
        raise StartError(f"{path}: epoch_days must be 1 or more")
    return Limits(**content)


def address(text: Any) -> tuple[str, int]:
    """ "HOST:PORT", the host a name or an address. Raises: StartError."""
    host, _, port = str(text).rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not HOST.fullmatch(bare) or not port.isdecimal():
        raise StartError(f"{text!r} is not an address of the form HOST:PORT")
    number = int(port)
    if not 0 < number < 65536:
        raise StartError(f"{text!r}: the port is out of range")
    return bare, number


def lock(home: Path) -> TextIO:
    """Only one daemon per home; the lock lives as long as the returned file. Raises: StartError."""
    try:
        file = (home / "node.lock").open("w")
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StartError(f"another node is running in {home}") from None
    except OSError as error:
        raise StartError(f"node home {home} cannot be written: {error.strerror}") from None
    return file


def read_json(path: Path, *, hint: str) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StartError(f"{path} is missing: {hint}") from None
    except (OSError, ValueError):
        raise StartError(f"{path} cannot be read") from None


def write_json(path: Path, content: Any) -> None:
    """Replace the file in one step: readers see the old or the new one."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1, sort_keys=True)
        file.write("\n")
    os.chmod(temporary, 0o644 if path.name == "descriptor.json" else 0o600)
    os.replace(temporary, path)


def _succeeds(home: Path) -> tuple[dict[str, Any], ...]:
    path = home / "succession.json"
    return tuple(read_json(path, hint="")) if path.exists() else ()


def _root_key(home: Path) -> bytes:
    text = os.environ.get(STORE_KEY_VARIABLE)
    if text is None:
        return keys.load(home / "store.key")
    try:
        return wire.unhex(text, keys.SECRET_BYTES)
    except ValueError:
        raise StartError(f"{STORE_KEY_VARIABLE} does not hold 32 bytes in hex") from None
