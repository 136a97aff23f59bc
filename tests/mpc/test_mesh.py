"""The mesh over real sockets and TLS: order, loss, aborts, strangers, bounds."""

import random
import socket
import ssl
import struct
import threading
import time
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from apps.protocol import identity, wire
from tests.support.examples import examples
from tests.support.meshes import Net, Tap, until
from workers.mpc import mesh, sessions
from workers.mpc.transport import DeadlineExceeded, PeerLost, TransportError


@pytest.fixture
def net():
    net = Net()
    yield net
    net.close()


def sid(n):
    return bytes([n]) * 16


def test_messages_arrive_by_sender_and_number_whatever_their_order(net):
    a, b, c = net.sessions(sid(1))
    big = b"x" * 3_000_000
    a.send(1, 2, b"second")
    a.send(1, 1, big)
    c.send(1, 1, b"from c")
    b.send(0, 1, b"")
    assert b.recv(0, 1) == big and b.recv(0, 2) == b"second"
    assert b.recv(2, 1) == b"from c" and a.recv(1, 1) == b""


def test_two_members_may_send_much_at_once(net):
    both = net.sessions(sid(1))[:2]
    data = b"y" * 20_000_000

    def talk(me):
        both[me].send(1 - me, 1, data)

    threads = [threading.Thread(target=talk, args=(me,)) for me in (0, 1)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert both[0].recv(1, 1) == both[1].recv(0, 1) == data


@pytest.mark.parametrize("parting_s", [0.0, 20.0])
def test_those_who_stay_hear_each_other_for_a_while_where_they_are_to(net, parting_s):
    """In verified jobs: what one that is gone has said before is compared."""
    a, b, _ = net.sessions(sid(1))
    for session in (a, b):
        session.parting_s = parting_s
    net.meshes[2].close()
    for session in (a, b):
        with pytest.raises(PeerLost):
            session.recv(2, 1)
    if not parting_s:
        with pytest.raises(PeerLost):
            a.send(1, 1, b"notes")
        return
    a.send(1, 1, b"notes")
    assert b.recv(0, 1) == b"notes"
    with pytest.raises(PeerLost):
        a.send(2, 1, b"notes")
    a._parts_at = 0.0  # the while is over
    with pytest.raises(PeerLost):
        a.send(1, 2, b"more")


def test_messages_that_come_early_wait_for_the_job(net):
    a, b = net.sessions(sid(1), members=(0, 1))
    a.send(2, 1, b"early")
    b.send(2, 1, b"early too")
    (c,) = net.sessions(sid(1), members=(2,))
    assert c.recv(0, 1) == b"early" and c.recv(1, 1) == b"early too"


def test_sessions_do_not_mix(net):
    one, two = net.sessions(sid(1)), net.sessions(sid(2))
    one[0].send(1, 1, b"one")
    two[0].send(1, 1, b"two")
    assert two[1].recv(0, 1) == b"two" and one[1].recv(0, 1) == b"one"


def test_a_lost_peer_ends_every_session_at_once_and_is_back_after_a_restart(net):
    a, b, _c = net.sessions(sid(1))
    threading.Timer(0.05, net.meshes[2].close).start()
    for session in (a, b):
        with pytest.raises(PeerLost):  # and not at the deadline, which has another name
            session.recv(2, 1)
    net.restart(2)
    again = net.sessions(sid(2))
    again[2].send(0, 1, b"back")
    assert again[0].recv(2, 1) == b"back"


def test_what_a_peer_sent_before_it_died_does_not_let_a_later_job_hang(net):
    _a, c = net.sessions(sid(1), members=(0, 2))
    c.send(1, 1, b"early")
    b = net.meshes[1]
    until(lambda: sid(1) in b._sessions)
    net.restart(2)
    with pytest.raises(PeerLost):
        net.sessions(sid(1), members=(1,))


def test_who_gives_up_tells_the_others_even_before_they_begin(net):
    a, b = net.sessions(sid(1), members=(0, 1))
    a.abort("refused")
    with pytest.raises(sessions.PeerAborted) as error:
        b.recv(0, 1)
    assert error.value.reason == "refused"
    late = net.meshes[2]
    until(lambda: sid(1) in late._sessions)
    with pytest.raises(TransportError):
        net.sessions(sid(1), members=(2,))[0].recv(0, 1)


def test_who_is_done_ends_it_for_one_that_begins_anew_and_for_nobody_whom_it_computed_with(net):
    a, b, c = net.sessions(sid(1))
    a.send(1, 1, b"from a")
    a.close()
    net.meshes[0].refuse(sid(1), sessions.OVER, members=(0, 1, 2))
    net.meshes[0].send_frame(1, sid(2), 1, b"the last")
    until(lambda: sid(2) in net.meshes[1]._sessions)
    assert b.recv(0, 1) == b"from a"
    b.send(2, 1, b"from b")
    b.check()
    with pytest.raises(sessions.PeerAborted):
        c.recv(0, 1)


def test_who_asks_any_of_them_waits_until_one_is_connected(net):
    asker = net.meshes[0]
    until(lambda: len(asker.peers_up()) == 2)
    links = {i: asker._links[i] for i in (1, 2)}
    dialled = {i: link.outgoing for i, link in links.items()}
    for link in links.values():
        link.outgoing = None
    assert asker.wait_for_any({1, 2}, time.monotonic()) == set()

    def connect():
        with asker._changed:
            links[2].outgoing = dialled[2]
            asker._changed.notify_all()

    threading.Timer(0.1, connect).start()
    assert asker.wait_for_any({1, 2}, time.monotonic() + 20) == {2}
    links[1].outgoing = dialled[1]
    assert asker.wait_for_any({1}, time.monotonic()) == {1}


def test_an_answer_waits_for_the_connection_on_which_it_goes(net):
    asker, asked = net.meshes[0], net.meshes[1]
    until(lambda: len(asker.peers_up()) == len(asked.peers_up()) == 2)
    link = asked._links[0]
    dialled, link.outgoing = link.outgoing, None  # it has not heard the welcome yet

    def heard():
        with asked._changed:
            link.outgoing = dialled
            asked._changed.notify_all()

    def answer(_asker, question):
        threading.Timer(0.1, heard).start()
        return b"to " + question

    asked.answer = answer
    assert asker.ask(1, b"that", deadline=time.monotonic() + 60) == b"to that"


def test_a_deadline_ends_the_wait(net):
    (a,) = net.sessions(sid(1), members=(0,), seconds=0.5)
    with pytest.raises(DeadlineExceeded):
        a.recv(1, 1)


def test_a_finished_session_takes_nothing_more(net):
    a, b, _c = net.sessions(sid(1))
    b.close()
    a.send(1, 1, b"late")
    two = net.sessions(sid(2))
    two[0].send(1, 1, b"after")
    assert two[1].recv(0, 1) == b"after"
    assert sid(1) not in net.meshes[1]._sessions
    with pytest.raises(TransportError):
        net.sessions(sid(1), members=(1,))


def test_a_message_sent_twice_ends_the_session(net):
    a, b, _c = net.sessions(sid(1))
    a.send(1, 1, b"x")
    a.send(1, 1, b"y")
    with pytest.raises(PeerLost):
        while True:
            b.recv(0, 2)


def test_early_messages_are_bounded(net, monkeypatch):
    monkeypatch.setattr(mesh, "EARLY_BYTES_MAX", 1000)
    (a,) = net.sessions(sid(1), members=(0,))
    a.send(1, 1, b"x" * 600)
    a.send(1, 2, b"x" * 600)
    two = net.sessions(sid(2))
    two[0].send(1, 1, b"after")
    assert two[1].recv(0, 1) == b"after"
    with pytest.raises(PeerLost):
        net.sessions(sid(1), members=(1,))
    assert all(link.early_bytes == 0 for link in net.meshes[1]._links.values())


def test_early_sessions_are_bounded(net, monkeypatch):
    monkeypatch.setattr(mesh, "EARLY_SESSIONS_MAX", 4)
    for n in range(1, 10):
        net.sessions(sid(n), members=(0,))[0].send(1, 1, b"x")
    done = net.sessions(sid(99))
    done[0].send(1, 1, b"x")
    done[1].recv(0, 1)
    assert len([s for s in net.meshes[1]._sessions.values() if s.early]) <= 4


def test_a_node_outside_a_job_can_neither_end_it_nor_speak_in_it(net):
    """Whatever it sends, and whenever: before the members begin and while they compute."""
    until(lambda: all(len(m.peers_up()) == 2 for m in net.meshes))
    a, b, c = net.meshes
    members = (0, 1)
    c.refuse(sid(1), "cheating_suspected 0", members=members)  # to those who have not begun
    c.send_frame(0, sid(1), 1, b"from c")
    until(lambda: sid(1) in a._sessions and (2, 1) in a._sessions[sid(1)]._inbox)
    until(lambda: sid(1) in b._sessions)
    deadline = time.monotonic() + 60
    one, two = (m.open(sid(1), deadline=deadline, members=members) for m in (a, b))
    c.send_frame(0, sid(1), sessions.ABORT_SEQ, b"cheating_suspected 1")
    c.send_frame(0, sid(1), 2, b"from c")
    c.send_frame(0, sid(2), 1, b"the last")
    until(lambda: sid(2) in a._sessions)
    two.send(0, 1, b"from b")
    assert one.recv(1, 1) == b"from b" and not one._inbox and one.heard == {1}
    two.abort("refused")  # a member's word counts, early too
    with pytest.raises(sessions.PeerAborted):
        one.recv(1, 2)


def test_empty_messages_count_as_what_keeping_them_costs(net, monkeypatch):
    monkeypatch.setattr(mesh, "EARLY_BYTES_MAX", 2000)
    (a,) = net.sessions(sid(1), members=(0,))
    for seq in range(10):
        a.send(1, seq, b"")
    two = net.sessions(sid(2))
    two[0].send(1, 1, b"after")
    assert two[1].recv(0, 1) == b"after"
    assert net.meshes[1]._links[0].early_bytes <= 2000
    with pytest.raises(PeerLost):
        net.sessions(sid(1), members=(1,))
    monkeypatch.setattr(sessions, "INBOX_BYTES_MAX", 1000)
    for seq in range(5):
        two[0].send(2, seq, b"")
    with pytest.raises(PeerLost):
        two[2].recv(0, 9)


def test_one_peers_early_sessions_cost_no_other_its_own(net, monkeypatch):
    """Nor can it take the place of a job by speaking in it first."""
    monkeypatch.setattr(mesh, "EARLY_SESSIONS_MAX", 4)
    until(lambda: all(len(m.peers_up()) == 2 for m in net.meshes))
    bad, good, node = net.meshes[2], net.meshes[0], net.meshes[1]
    bad.send_frame(1, sid(1), 1, b"first")
    until(lambda: sid(1) in node._sessions)
    good.send_frame(1, sid(2), 1, b"x")
    bad.send_frame(1, sid(2), 1, b"x")
    for n in range(10, 20):
        bad.send_frame(1, sid(n), 1, b"x")
    until(lambda: sid(19) in node._sessions and sid(2) in node._sessions)
    assert len(node._sessions) == 5 and (sid(1), 2) in node._dropped
    good.send_frame(1, sid(1), 1, b"y")
    deadline = time.monotonic() + 60
    for n, said in ((1, b"y"), (2, b"x")):
        session = node.open(sid(n), deadline=deadline, members=(0, 1))
        assert session.recv(0, 1) == said
    with pytest.raises(PeerLost):  # what it sent is lost, and it with it
        node.open(sid(10), deadline=deadline, members=(1, 2))


def test_a_machine_that_dies_is_to_be_seen_within_seconds(net):
    """Both what is sent to it and what is waited for; the kernel keeps the time."""
    until(lambda: all(len(m.peers_up()) == 2 for m in net.meshes))
    link = net.meshes[0]._links[1]
    for sock in (link.outgoing, link.incoming.sock):
        options = (socket.TCP_USER_TIMEOUT, socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL)
        found = [sock.getsockopt(socket.IPPROTO_TCP, option) for option in options]
        assert found == [mesh.SILENT_S * 1000, 1, 1] and mesh.SILENT_S <= 5


def test_strangers_that_only_connect_do_not_keep_a_node_out(net, monkeypatch):
    until(lambda: all(len(m.peers_up()) == 2 for m in net.meshes))
    monkeypatch.setattr(mesh, "HANDSHAKE_TIMEOUT_S", 60.0)
    node, idle = net.meshes[1], []
    for _ in range(mesh.HANDSHAKES_MAX + 4):
        idle.append(socket.create_connection(net.addresses[1], timeout=5))
    idle[0].settimeout(5)
    assert idle[0].recv(1) == b""  # the oldest is let go
    net.restart(0)
    until(lambda: len(net.meshes[0].peers_up()) == 2 and len(node.peers_up()) == 2)
    for sock in idle:
        sock.close()


def stranger(context, address):
    plain = socket.create_connection(address, timeout=5)
    with plain, context.wrap_socket(plain) as sock:
        return sock.recv(100)


def client_context():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def test_a_stranger_gets_no_welcome(net, tmp_path):
    with pytest.raises((ssl.SSLError, OSError)):
        stranger(client_context(), net.addresses[0])
    key = Ed25519PrivateKey.generate()
    file = tmp_path / "pem"
    file.write_bytes(identity.private_pem(key) + identity.certificate_pem(key, "node-1").encode())
    context = client_context()
    context.load_cert_chain(file)
    with pytest.raises((ssl.SSLError, OSError)):
        stranger(context, net.addresses[0])
    with socket.create_connection(net.addresses[0], timeout=5) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n" + bytes(5000))
        plain.settimeout(6)
        try:
            while plain.recv(1000):
                pass
        except ConnectionError:
            pass
    assert len(net.sessions(sid(1))) == 3


def test_old_protocol_versions_are_refused(net):
    context = client_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises((ssl.SSLError, OSError)):
        stranger(context, net.addresses[0])


def records_of(stream):
    """The types of the TLS records that it consists of, and their contents; nothing may be left."""
    types, contents = [], []
    while stream:
        kind, version, length = struct.unpack_from(">BHH", stream)
        assert version in (0x0301, 0x0303) and len(stream) >= 5 + length
        types.append(kind)
        contents.append(bytes(stream[5 : 5 + length]))
        stream = stream[5 + length :]
    return types, contents


def test_a_capture_of_the_mesh_is_tls_and_shows_no_word():
    """What nodes tell each other is words that two of them must not see together, and questions."""
    taps = []

    def tapped(address):
        taps.append(Tap(address))
        return taps[-1].address

    net = Net(through=tapped)
    net.meshes[1].answer = lambda _asker, asked: b"the answer to " + asked
    said = [b"a word of eight bytes %d " % i * 2000 for i in range(3)]
    opened = net.sessions(sid(1))
    for i, session in enumerate(opened):
        for to in {0, 1, 2} - {i}:
            session.send(to, 1, said[i])
    for i, session in enumerate(opened):
        for frm in {0, 1, 2} - {i}:
            assert session.recv(frm, 1) == said[frm]
    asked = net.meshes[0].ask(1, b"for the model", deadline=time.monotonic() + 10)
    assert asked == b"the answer to for the model"
    net.close()
    for tap in taps:
        tap.close()
    seen = [bytes(stream) for tap in taps for stream in tap.seen]
    whole = b"".join(seen)
    assert len(seen) == 12 and len(whole) > sum(2 * len(s) for s in said)
    for shown in (b"a word of", b"the model", b"answer", sid(1), mesh.WELCOME, b"node-"):
        assert shown not in whole
    for types, contents in map(records_of, seen):
        assert types[0] == 22 and set(types) <= {20, 22, 23}
        assert types.count(22) == 1  # a hello; all else of the handshake is encrypted (RFC 8446)
        # 8 bytes in a row that come twice would be a pattern of the content
        data = b"".join(c for kind, c in zip(types, contents, strict=True) if kind == 23)
        pieces = [data[at : at + 8] for at in range(0, len(data) - 7, 8)]
        assert len(set(pieces)) == len(pieces)


def test_a_certificate_belongs_to_its_key():
    one, two = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    pem = identity.certificate_pem(one, "n")
    assert pem == identity.certificate_pem(one, "n")
    identity.certificate_der(pem, sign_key=wire.public_hex(one))
    with pytest.raises(identity.BadCertificate):
        identity.certificate_der(pem, sign_key=wire.public_hex(two))
    with pytest.raises(identity.BadCertificate):
        identity.certificate_der("nonsense", sign_key=wire.public_hex(one))


def as_member(net, i, tmp_path):
    """A connection with member i's own certificate, for sending whatever it likes."""
    context = client_context()
    file = tmp_path / "pem"
    file.write_bytes(identity.private_pem(net.keys[i]) + net.pems[i].encode())
    context.load_cert_chain(file)
    sock = context.wrap_socket(socket.create_connection(net.addresses[1], timeout=5))
    assert sock.recv(100) == mesh.WELCOME
    return sock


def test_malformed_frames_cost_the_sender_its_connection_only(net, tmp_path):
    rng = random.Random(1)
    for frame in (
        mesh.FRAME.pack(0xFFFFFFFF, sid(1), 1),
        mesh.FRAME.pack(100, sid(1), 1) + b"too short",
        *(rng.randbytes(rng.randrange(1, 200)) for _ in range(examples(20))),
    ):
        with as_member(net, 0, tmp_path) as sock:
            sock.sendall(frame)
    net.restart(0)  # the honest member 0 dials again
    until(lambda: len(net.meshes[1].peers_up()) == 2)
    until(lambda: len(net.meshes[2].peers_up()) == 2)
    done = net.sessions(sid(77))
    done[0].send(1, 1, b"x")
    assert done[1].recv(0, 1) == b"x"


def test_sessions_that_wait_for_one_peer_read_for_each_other(net):
    """Whoever waits reads for all; nobody is forgotten when a reader has what it wanted."""
    names, rounds = range(40), 12
    opened = {n: net.sessions(sid(n)) for n in names}
    wrong = []

    def play(n, me):
        try:
            converse(n, me)
        except TransportError as error:
            wrong.append((n, me, str(error)))

    def converse(n, me):
        session, order = opened[n][me], random.Random(n * 3 + me)
        peers = [p for p in range(3) if p != me]
        for seq in range(rounds):
            for peer in peers:
                session.send(peer, seq, bytes([n, me, seq]) * order.choice([1, 50, 9000]))
            order.shuffle(peers)
            for peer in peers:
                data = session.recv(peer, seq)
                if bytes(data[:3]) != bytes([n, peer, seq]) or len(data) % 3:
                    wrong.append((n, me, seq))

    threads = [threading.Thread(target=play, args=(n, me)) for n in names for me in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert not wrong
    for held in opened.values():
        for session in held:
            session.close()


def test_both_sides_may_send_much_at_once(net):
    held = net.sessions(sid(1))
    data = bytes(12 << 20)
    got = []

    def swap(me, other):
        held[me].send(other, 0, data)
        got.append(len(held[me].recv(other, 0)))

    threads = [threading.Thread(target=swap, args=pair) for pair in ((0, 1), (1, 0))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert got == [len(data)] * 2


def test_what_came_before_a_member_was_lost_can_still_be_read():
    """Members compare what they were told, even where one of them goes in the middle of it."""
    carrier = SimpleNamespace(me=0, n=3, inbound=lambda frm: None)
    session = sessions.Session(carrier, b"", range(3))
    session.activate(time.monotonic() + 60, range(3))
    session.put(2, 1, b"notes")
    session.lose(1)
    assert session.recv(2, 1) == b"notes"
    for frm in (1, 2):
        with pytest.raises(PeerLost):
            session.recv(frm, 1)
