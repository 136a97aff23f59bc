"""Three meshes in one process, over real sockets and TLS."""

import contextlib
import socket
import threading
import time

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from apps.protocol import identity, wire
from workers.mpc import mesh


class Tap:
    """Hands on what goes to an address and back, and keeps each direction of each connection."""

    def __init__(self, target):
        self.seen = []
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = self._listener.getsockname()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self._target)
            except OSError:  # who dials tries again
                near.close()
                continue
            for one, other in ((near, far), (far, near)):
                self.seen.append(bytearray())
                pair = (one, other, self.seen[-1])
                threading.Thread(target=self._hand_on, args=pair, daemon=True).start()

    @staticmethod
    def _hand_on(one, other, seen):
        with contextlib.suppress(OSError):
            while data := one.recv(1 << 16):
                seen += data
                other.sendall(data)
        for sock in (one, other):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self):
        self._listener.close()


class Net:
    """Three meshes in one process, on loopback; they dial what `through` makes of an address."""

    def __init__(self, through=lambda address: address):
        self.keys = [Ed25519PrivateKey.generate() for _ in range(3)]
        self.pems = [identity.certificate_pem(k, f"node-{i}") for i, k in enumerate(self.keys)]
        self.listeners = [self.listen() for _ in range(3)]
        self.addresses = [s.getsockname() for s in self.listeners]
        self.dialled = [through(address) for address in self.addresses]
        self.meshes = [self.make(i, self.listeners[i]) for i in range(3)]
        for m in self.meshes:
            m.start()

    @staticmethod
    def listen(address=("127.0.0.1", 0)):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        return sock

    def make(self, i, listener):
        peers = [mesh.Peer(j, self.dialled[j], self.der(j)) for j in range(3) if j != i]
        return mesh.Mesh(
            me=i,
            listener=listener,
            peers=peers,
            certificate=self.pems[i],
            private_key=identity.private_pem(self.keys[i]),
        )

    def der(self, j):
        return identity.certificate_der(self.pems[j], sign_key=wire.public_hex(self.keys[j]))

    def sessions(self, sid, *, members=(0, 1, 2), seconds=60.0):
        return [self.meshes[i].open(sid, deadline=time.monotonic() + seconds) for i in members]

    def restart(self, i):
        self.meshes[i].close()
        self.meshes[i] = self.make(i, self.listen(self.addresses[i]))
        self.meshes[i].start()

    def close(self):
        for m in self.meshes:
            m.close()


def until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        threading.Event().wait(0.01)
