"""What a node does while it has no job: with the others of a set it makes random bits for the set's
next jobs (mpc/engines/shamir_reserve.py).

The set's first node asks the others; who has a job declines. They make some blocks in a session of
their own, rest as long as that took, and go on until there are as many as are kept. When a job
comes to one of them it gives that session up, and so do the others as they hear of it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from typing import TYPE_CHECKING, Any

from apps.protocol import wire
from apps.protocol.tickets import SHAMIR
from workers.mpc.engines.counted import Disagreement
from workers.mpc.engines.shamir_reserve import NAME_BYTES, BitSet, Reserve, new_name
from workers.mpc.sessions import Session
from workers.mpc.transport import Roles, Transport, TransportError

if TYPE_CHECKING:
    from workers.mpc.mesh import Mesh

QUESTION = b"bits"  # how it begins, when a node asks another to make some
YES = b"yes"
AT_ONCE = 8  # blocks of one session
QUIET_S = 0.3  # since the last job: between those of a burst nothing is made
AGAIN_S = 2.0
ASK_S = 2.0
MAKE_S = 20.0

log = logging.getLogger("flai.idle")


class Idle:
    """One node's idle time. `begin` and `end` may be called from any thread, and do not wait."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self.reserve = Reserve()
        self._jobs = 0
        self._quiet_at = time.monotonic()
        self._making = False
        self._session: Session | None = None
        self._lock = threading.Lock()
        self._wake = threading.Event()

    def begin(self) -> None:
        """A job has come: what is being made is given up."""
        with self._lock:
            self._jobs += 1
            session, self._session = self._session, None
        if session is not None:
            session.abort("busy")

    def end(self) -> None:
        """It is over."""
        with self._lock:
            self._jobs -= 1
            self._quiet_at = time.monotonic() + QUIET_S
        self._wake.set()

    def lose(self, node: int) -> None:
        """What was made with a node that is gone is of no use."""
        self.reserve.lose(node)
        self._wake.set()

    def watch(self, stopping: threading.Event) -> None:
        """Make bits whenever there is time, until `stop`."""
        while not stopping.is_set():
            try:
                wait_s = self._turn()
            except Exception as error:
                log.error("no bits made", extra={"kind": type(error).__name__})
                wait_s = AGAIN_S
            self._wake.wait(wait_s)
            self._wake.clear()

    def stop(self) -> None:
        """`stopping` is set."""
        self._wake.set()

    def _turn(self) -> float | None:
        """How long to wait for the next; None until something happens."""
        lacking = self.reserve.lacking(self._mesh.me)
        if self._jobs or lacking is None:
            return None
        began = time.monotonic()
        if began < self._quiet_at:
            return self._quiet_at - began
        of, blocks = lacking
        made = self._make_with_all(of, min(blocks, AT_ONCE))
        return time.monotonic() - began if made else AGAIN_S

    def _make_with_all(self, of: BitSet, count: int) -> bool:
        name = new_name()
        if not self._free():
            return False
        if not self._all_agree(name, of, count):
            self._making = False
            self._mesh.refuse(_session_id(name), "busy", members=of[1])
            return False
        return self._make(name, of, count)

    def _all_agree(self, name: bytes, of: BitSet, count: int) -> bool:
        t, (_, *others) = of
        asked = {"name": name.hex(), "t": t, "members": list(of[1]), "count": count}
        question = QUESTION + wire.canonical(asked)
        try:
            return all(
                self._mesh.ask(peer, question, deadline=time.monotonic() + ASK_S) == YES
                for peer in others
            )
        except TransportError:
            return False

    def answer(self, asker: int, question: bytes) -> bytes:
        """Another node asks this one to make bits with it: YES, and it begins; or nothing."""
        asked = json.loads(question.removeprefix(QUESTION))
        name, of = bytes.fromhex(asked["name"]), (asked["t"], tuple(asked["members"]))
        if not self._may(asker, name, of, asked["count"]) or not self._free():
            return b""
        arguments = (name, of, asked["count"])
        threading.Thread(target=self._make, args=arguments, name="bits", daemon=True).start()
        return YES

    def _may(self, asker: int, name: bytes, of: BitSet, count: Any) -> bool:
        t, members = of
        return (
            len(name) == NAME_BYTES
            and all(type(number) is int for number in (t, count, *members))
            and t in SHAMIR.values()
            and list(members) == sorted(set(members) & set(range(self._mesh.n)))
            and len(members) >= 2 * t + 1
            and members[0] == asker
            and self._mesh.me in members
            and 1 <= count <= AT_ONCE
        )

    def _free(self) -> bool:
        """Has this node time? If so it is taken, until `_making` is unset."""
        with self._lock:
            if self._jobs or self._making:
                return False
            self._making = True
            return True

    def _make(self, name: bytes, of: BitSet, count: int) -> bool:
        """With the others who said yes."""
        from workers.mpc.engines.shamir import make_blocks

        t, members = of
        try:
            deadline = time.monotonic() + MAKE_S
            session = self._mesh.open(_session_id(name), deadline=deadline, members=members)
            try:
                with self._lock:
                    if self._jobs:
                        raise TransportError("a job has come")
                    self._session = session
                whole = len(members) == session.n
                transport: Transport = session if whole else Roles(session, members)
                make_blocks(transport, self.reserve, name, count, t=t, members=members)
                return True
            except BaseException:
                session.abort("busy")
                raise
            finally:
                session.close()
        except TransportError:
            return False
        except Disagreement as error:
            log.warning("no bits made", extra={"kind": type(error).__name__})
            return False
        finally:
            with self._lock:
                self._session, self._making = None, False


def _session_id(name: bytes) -> bytes:
    """16 bytes naming one making of bits, and never a job: the asker, who chose the name, may be in
    none of the others' jobs and must not meet them there."""
    return hashlib.sha256(b"flai/bits-session/v1\0" + name).digest()[:16]
