"""The nodes' own network: mutual TLS 1.3 with pinned certificates, messages sorted by job.

Every node dials every other one. A dialled connection only sends, an accepted one only receives,
so that no TLS object is ever used by two threads at once. Who a peer is follows from its
certificate, never from what it says.

Frames are those of workers/mpc/inbound.py. A session is one attempt of one job, or one question
that a node asks another outside jobs. Messages that come
before this node knows the job wait, within bounds; those of a finished session are dropped. When a
connection ends, every session that its node is in ends with PeerLost at once; others go on. Who
is not in a job can neither say anything in it nor end it.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import ssl
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial

from workers.mpc.inbound import CHUNK, FRAME, Inbound
from workers.mpc.sessions import ABORT_SEQ, FRAME_COST_BYTES, OVER, PeerAborted, Session
from workers.mpc.tls import mutual_context
from workers.mpc.transport import PeerLost, TransportError

WELCOME = b"flai-mesh/1\n"

HANDSHAKE_TIMEOUT_S = 5.0
SEND_TIMEOUT_S = 30.0
REDIAL_S = 1.0  # also cut short when the peer dials us
CONNECT_GRACE_S = 0.7  # a peer that just restarted gets this long to be reachable
HANDSHAKES_MAX = 16
SILENT_S = 3  # a machine that acknowledges nothing for so long is gone

EARLY_BYTES_MAX = 64 << 20  # per peer
EARLY_SESSIONS_MAX = 256  # that one peer has sent to
EARLY_TTL_S = 120.0
CLOSED_MAX = 10_000

ASK_SEQ = 0xFFFFFFFE
QUESTIONS_MAX = 8  # of one peer at a time

log = logging.getLogger("flai.mesh")


@dataclass(frozen=True)
class Peer:
    """Where another node listens, and the only certificate it may show (DER)."""

    index: int
    address: tuple[str, int]
    certificate: bytes


@dataclass
class _Link:
    """Both directions to one peer."""

    outgoing: ssl.SSLSocket | None = None
    incoming: Inbound | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    redial: threading.Event = field(default_factory=threading.Event)
    early_bytes: int = 0


class Mesh:
    """Connections to all peers, and the sessions that run over them."""

    def __init__(
        self,
        *,
        me: int,
        listener: socket.socket,
        peers: Sequence[Peer],
        certificate: str,
        private_key: bytes,
    ) -> None:
        self.me = me
        self.n = len(peers) + 1
        self._listener = listener
        self._peers = {p.index: p for p in peers}
        self._links = {p.index: _Link() for p in peers}
        self._by_certificate = {p.certificate: p.index for p in peers}
        self._sessions: dict[bytes, Session] = {}
        self._active: set[bytes] = set()  # those whose job runs here
        self._closed: OrderedDict[bytes, None] = OrderedDict()
        self._dropped: OrderedDict[tuple[bytes, int], None] = OrderedDict()  # whose messages, early
        self._changed = threading.Condition(threading.RLock())
        self._handshakes: OrderedDict[ssl.SSLSocket, None] = OrderedDict()  # unfinished ones
        self._stopping = threading.Event()
        # what answers a question, (who asks, bytes) -> bytes; set by the node before `start`
        self.answer: Callable[[int, bytes], bytes] | None = None
        self.lost: Callable[[int], None] = lambda peer: None  # hears who is gone; set alike
        self._questions = {p.index: threading.BoundedSemaphore(QUESTIONS_MAX) for p in peers}
        pinned = "".join(ssl.DER_cert_to_PEM_cert(p.certificate) for p in peers)
        self._server = mutual_context(ssl.PROTOCOL_TLS_SERVER, certificate, private_key, pinned)
        self._server.num_tickets = 0
        self._client = mutual_context(ssl.PROTOCOL_TLS_CLIENT, certificate, private_key, pinned)

    def start(self) -> None:
        self._listener.listen(32)
        threading.Thread(target=self._accept, name="mesh-accept", daemon=True).start()
        for peer in self._peers.values():
            name = f"mesh-dial-{peer.index}"
            threading.Thread(target=self._dial, args=(peer,), name=name, daemon=True).start()

    def close(self) -> None:
        self._stopping.set()
        _shut(self._listener)
        for link in self._links.values():
            link.redial.set()
            if link.outgoing is not None:
                _shut(link.outgoing)
            if link.incoming is not None:
                _shut(link.incoming.sock)
        with self._changed:
            for session in self._sessions.values():
                session.fail(PeerLost("this node is stopping"))

    def peers_up(self) -> list[int]:
        """The peers that are connected both ways."""
        with self._changed:
            return [p for p, link in self._links.items() if link.outgoing and link.incoming]

    def wait_for(self, count: int, *, seconds: float, least: int) -> None:
        """Until so many peers are connected; after a second, `least` will do."""
        began = time.monotonic()
        with self._changed:
            while (up := len(self.peers_up())) < count:
                spent = time.monotonic() - began
                left = (1.0 if up >= least else seconds) - spent
                if left <= 0:
                    return
                self._changed.wait(left)

    def wait_for_any(self, peers: Collection[int], until: float) -> set[int]:
        """Those of them who are connected, when one is; none at that time.monotonic()."""
        with self._changed:
            while not (up := set(self.peers_up()).intersection(peers)):
                left = until - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            return up

    def open(
        self, sid: bytes, *, deadline: float, members: Collection[int] | None = None
    ) -> Session:
        """Begin a session, once. `deadline` is a time.monotonic() value; `members` are the nodes in
        it, without which all are.

        Raises: PeerLost if a member is not connected within a short grace; PeerAborted if another
        member has given up before we began.
        """
        members = range(self.n) if members is None else members
        others = set(members) - {self.me}
        with self._changed:
            if sid in self._closed:
                raise TransportError("this attempt is over")
            session = self._sessions.setdefault(sid, self._session(sid))
            if not session.early:
                raise TransportError("this attempt is running")
            self._return_early(session)
            session.activate(deadline, members)
            for peer in others:
                if (sid, peer) in self._dropped:
                    session.fail_by(peer, PeerLost(f"member {peer} sent too much too early"))
            self._active.add(sid)
            if missing := self._missing(others, min(deadline, time.monotonic() + CONNECT_GRACE_S)):
                self.forget(sid)
                raise PeerLost(f"member {min(missing)} is not connected")
        try:
            session.check()
        except TransportError:
            self.forget(sid)
            raise
        return session

    def _missing(self, others: set[int], until: float) -> set[int]:
        """Those who are not connected both ways when all are, or then."""
        with self._changed:
            while missing := others.difference(self.peers_up()):
                left = until - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            return missing

    def ask(self, to: int, question: bytes, *, deadline: float) -> bytes:
        """Another node's answer to a question outside jobs. Raises: TransportError."""
        session = self.open(os.urandom(16), deadline=deadline, members=(self.me, to))
        try:
            session.send(to, ASK_SEQ, question)
            return bytes(session.recv(to, 0))
        finally:
            session.close()

    def refuse(self, sid: bytes, reason: str, *, members: Collection[int] | None = None) -> None:
        """This node will not take part in that attempt: spare the others the wait."""
        with self._changed:
            if sid in self._active:  # it has begun here after all
                return
            self.forget(sid)
        self._session(sid, members).abort(reason)

    def forget(self, sid: bytes) -> None:
        with self._changed:
            session = self._sessions.pop(sid, None)
            if session is not None:
                self._return_early(session)
                self._active.discard(sid)
            self._closed[sid] = None
            while len(self._closed) > CLOSED_MAX:
                self._closed.popitem(last=False)

    def send_frame(self, to: int, sid: bytes, seq: int, data: bytes | memoryview) -> None:
        """Raises: PeerLost."""
        link = self._links[to]
        with link.lock:
            sock = link.outgoing
            if sock is None:
                raise PeerLost(f"member {to} is not connected")
            try:
                header = FRAME.pack(len(data), sid, seq)
                if len(data) <= CHUNK:
                    frame = header + data
                    sent = sock.send(frame)  # mostly all; sendall asks and slices first
                    if sent < len(frame):
                        sock.sendall(frame[sent:])
                else:
                    if link.incoming is not None:  # the peer may be sending as much to us
                        link.incoming.call()
                    sock.sendall(header)
                    sock.sendall(data)
            except OSError:
                _shut(sock)  # wakes the dialling thread, which fails the sessions
                raise PeerLost(f"member {to} is gone") from None

    def inbound(self, frm: int) -> Inbound | None:
        """The connection on which that peer's messages come."""
        return self._links[frm].incoming

    # ---- dialled connections: send only -------------------------------------------------------

    def _dial(self, peer: Peer) -> None:
        link = self._links[peer.index]
        while not self._stopping.is_set():
            link.redial.clear()
            try:
                sock = self._connect(peer)
            except OSError:
                link.redial.wait(REDIAL_S)
                continue
            with self._changed:
                link.outgoing = sock
                self._changed.notify_all()
            log.info("connected", extra={"peer": peer.index})
            _wait_until_closed(sock)
            with link.lock:
                link.outgoing = None
            _close(sock)
            self._lost(peer.index)

    def _connect(self, peer: Peer) -> ssl.SSLSocket:
        plain = socket.create_connection(peer.address, timeout=HANDSHAKE_TIMEOUT_S)
        try:
            _tune(plain)
            sock = self._client.wrap_socket(plain)
        except BaseException:
            plain.close()
            raise
        try:
            if sock.getpeercert(binary_form=True) != peer.certificate:
                raise ssl.SSLError("another certificate than the pinned one")
            # in TLS 1.3 a server's refusal of our certificate shows at the first read
            welcome = b""
            while len(welcome) < len(WELCOME):
                part = sock.recv(len(WELCOME) - len(welcome))
                if not part:
                    raise ConnectionResetError("refused")
                welcome += part
            if welcome != WELCOME:
                raise ssl.SSLError("not a mesh port")
            sock.settimeout(SEND_TIMEOUT_S)
        except BaseException:
            sock.close()
            raise
        return sock

    # ---- accepted connections: receive only ---------------------------------------------------

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                plain, _address = self._listener.accept()
            except OSError:
                if self._stopping.is_set():
                    return
                self._stopping.wait(0.1)  # out of descriptors: the next accept may do
                continue
            try:
                plain.settimeout(HANDSHAKE_TIMEOUT_S)
                _tune(plain)
                sock = self._server.wrap_socket(
                    plain, server_side=True, do_handshake_on_connect=False
                )
            except OSError:
                plain.close()
                continue
            self._make_room(sock)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _make_room(self, sock: ssl.SSLSocket) -> None:
        """For one more handshake, in place of the oldest: a peer's takes a moment, and strangers
        who only connect would keep it out."""
        with self._changed:
            self._handshakes[sock] = None
            surplus = len(self._handshakes) > HANDSHAKES_MAX
            oldest = self._handshakes.popitem(last=False)[0] if surplus else None
        if oldest is not None:
            _shut(oldest)

    def _serve(self, sock: ssl.SSLSocket) -> None:
        inbound: Inbound | None = None
        index: int | None = None
        try:
            try:
                sock.do_handshake()
                index = self._by_certificate[sock.getpeercert(binary_form=True) or b""]
                sock.sendall(WELCOME)
            finally:
                with self._changed:
                    self._handshakes.pop(sock, None)
            inbound = Inbound(sock, partial(self._deliver, index), lambda: bool(self._active))
            self._take_over(index, inbound)
            inbound.run()
        except (OSError, KeyError, EOFError) as error:
            if index is None:
                log.warning("refused a connection", extra={"reason": type(error).__name__})
        finally:
            if inbound is not None:
                inbound.end()
            _close(sock)
            if index is not None and self._links[index].incoming is inbound:
                self._links[index].incoming = None
                self._lost(index)

    def _take_over(self, index: int, inbound: Inbound) -> None:
        with self._changed:
            link = self._links[index]
            old, link.incoming = link.incoming, inbound
            self._changed.notify_all()
        if old is not None:  # the peer restarted before we saw its old connection end
            _shut(old.sock)
            self._lost(index)
        link.redial.set()

    def _deliver(self, frm: int, sid: bytes, seq: int, data: bytes | bytearray) -> None:
        if seq == ASK_SEQ:
            if self.answer is not None and self._questions[frm].acquire(blocking=False):
                arguments = (frm, sid, bytes(data), self.answer)
                threading.Thread(target=self._reply, args=arguments, daemon=True).start()
            return
        session = self._sessions.get(sid)
        if session is None or session.early:  # once begun it stays so: no lock is needed
            with self._changed:
                session = self._sessions.get(sid)
                if session is None and sid in self._closed:
                    return
                if session is None or session.early:
                    session = self._early(frm, sid, len(data) + FRAME_COST_BYTES)
                    if session is None:
                        return
        if seq == ABORT_SEQ:
            reason = data[:100].decode("ascii", "replace")
            if reason != OVER or frm not in session.heard:  # else it was in this run, and is done
                session.fail_by(frm, PeerAborted(frm, reason))
        else:
            session.put(frm, seq, data)

    def _reply(
        self, to: int, sid: bytes, question: bytes, answer: Callable[[int, bytes], bytes]
    ) -> None:
        try:
            said = answer(to, question)
            # who asks has welcomed us, but the thread that dialled may not have heard it yet
            self._missing({to}, time.monotonic() + CONNECT_GRACE_S)
            self.send_frame(to, sid, 0, said)
        except Exception as error:  # whoever asked nonsense hears nothing, and waits in vain
            log.warning("no answer", extra={"peer": to, "kind": type(error).__name__})
        finally:
            self._questions[to].release()

    def _early(self, frm: int, sid: bytes, size: int) -> Session | None:
        """The session that has not begun here, with room for so many bytes more of that peer's.

        Of each peer so much waits, in so many sessions, and so long. What does not is dropped, and
        that peer lost to that job; what others sent to the same waits."""
        session, link = self._sessions.get(sid), self._links[frm]
        if session is None or frm not in session.early_bytes:
            self._make_place(frm)
        if link.early_bytes + size > EARLY_BYTES_MAX:
            self._drop(sid, frm)
            return None
        session = self._sessions.get(sid) or self._session(sid)
        self._sessions[sid] = session
        link.early_bytes += size
        session.early_bytes[frm] = session.early_bytes.get(frm, 0) + size
        return session

    def _make_place(self, frm: int) -> None:
        """For one more session that this peer sends to."""
        old = time.monotonic() - EARLY_TTL_S
        waiting = sorted((s for s in self._sessions.values() if s.early), key=lambda s: s.born)
        for session in waiting:
            if session.born < old:
                for peer in [*session.early_bytes]:
                    self._drop(session.sid, peer)
        mine = [s.sid for s in waiting if frm in s.early_bytes]
        for oldest in mine[: max(0, len(mine) - EARLY_SESSIONS_MAX + 1)]:
            self._drop(oldest, frm)

    def _drop(self, sid: bytes, peer: int) -> None:
        """What that peer sent to a session before it began."""
        session = self._sessions.get(sid)
        if session is not None:
            self._links[peer].early_bytes -= session.early_bytes.pop(peer, 0)
            session.drop(peer)
            if not session.early_bytes:
                self._sessions.pop(sid)
        self._dropped[sid, peer] = None
        while len(self._dropped) > CLOSED_MAX:
            self._dropped.popitem(last=False)

    def _session(self, sid: bytes, members: Collection[int] | None = None) -> Session:
        return Session(self, sid, range(self.n) if members is None else members)

    def _return_early(self, session: Session) -> None:
        for peer, size in session.early_bytes.items():
            self._links[peer].early_bytes -= size
        session.early_bytes.clear()

    def _lost(self, index: int) -> None:
        """What runs, or has begun to arrive, with that peer is over."""
        if self._stopping.is_set():
            return
        log.warning("peer lost", extra={"peer": index})
        with self._changed:
            for session in self._sessions.values():
                session.lose(index)
            self._changed.notify_all()
        self.lost(index)


def _tune(sock: socket.socket) -> None:
    """No waiting for full packets; and a machine that dies, which says nothing of it, is seen: in
    what is sent by the user timeout, in silence by a probe each second."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, SILENT_S)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # else who sends waits SEND_TIMEOUT_S
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENT_S * 1000)


def _wait_until_closed(sock: ssl.SSLSocket) -> None:
    """Block until the peer ends a connection on which it never sends, or we shut it down."""
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN | select.POLLRDHUP)
    poll.poll()


def _shut(sock: socket.socket) -> None:
    try:
        # on the plain layer: an SSLSocket's own shutdown would drop TLS and go on in the clear
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
    except OSError:
        pass


def _close(sock: socket.socket) -> None:
    _shut(sock)
    sock.close()
