"""The key that a store is encrypted under: one for each time between two refreshes.

    key = HMAC-SHA-256(store.key or FLAI_STORE_KEY, "flai/store-key/v1" ‖ 0x00 ‖ epoch.key)

`epoch.key` is random and replaced at each refresh: what was sealed before opens no more, even with
`store.key`. Its old bytes are overwritten where they lie; a disk or a file system that writes
elsewhere may keep a copy (then destroy the disk). A store of an earlier release has no `epoch.key`
before its first refresh, and `store.key` alone opens it.

The next key lies beside the old one (`epoch.key.next`) until all is sealed under it: after a crash
the store itself shows which of the two is its own.
"""

from __future__ import annotations

import hmac
import os
from pathlib import Path
from typing import TYPE_CHECKING

from workers.mpc import keys
from workers.node.errors import StartError

if TYPE_CHECKING:
    from workers.node.home import Node
    from workers.node.store import Store

FILE, NEXT = "epoch.key", "epoch.key.next"


def current(home: Path, root: bytes) -> bytes:
    """What this home's store opens with. Raises: KeyFileError."""
    return _derived(home / FILE, root) if (home / FILE).exists() else root


def begin(home: Path, root: bytes, store: Store) -> bytes:
    """The key to seal everything under next; on disk when this returns. One that was begun before
    may be the store's own by now: then it takes its place first. Raises: KeyFileError, OSError."""
    if (home / NEXT).exists():
        if _is_whole(home / NEXT) and store.opens_with(_derived(home / NEXT, root)):
            settle(home)
        else:
            destroy(home / NEXT)
    keys.create(home / NEXT)
    _sync(home)
    return _derived(home / NEXT, root)


def open_store(node: Node, *, alone: bool = True) -> Store:
    """The node's store, under that of both keys which is its own; who is `alone` with it ends what
    was interrupted. Raises: StartError."""
    from workers.node.store import Store

    path = node.home / "store.sqlite"
    if alone and not path.exists():  # as after a restore of the other keys: no store without this
        keys.load_or_create(node.home / FILE)
    if not (node.home / NEXT).exists():
        return Store(path, node.store_key)
    try:
        store = Store(path, node.store_key)
    except StartError:
        store = Store(path, _derived(node.home / NEXT, node.root_key))
        if alone:
            settle(node.home)
        return store
    if alone:
        destroy(node.home / NEXT)
    return store


def settle(home: Path) -> None:
    """All is sealed under the next key: destroy the old one."""
    if (home / FILE).exists():
        destroy(home / FILE)
    os.replace(home / NEXT, home / FILE)
    _sync(home)


def _is_whole(path: Path) -> bool:
    """One that was cut off while it was written was never used."""
    return path.stat().st_size > 2 * keys.SECRET_BYTES


def destroy(path: Path) -> None:
    """Overwrite a key file and delete it."""
    with path.open("r+b") as file:
        file.write(b"0" * (path.stat().st_size - 1))  # still a key, which opens nothing
        file.flush()
        os.fsync(file.fileno())
    path.unlink()


def _derived(path: Path, root: bytes) -> bytes:
    return hmac.digest(root, b"flai/store-key/v1\0" + keys.load(path), "sha256")


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
