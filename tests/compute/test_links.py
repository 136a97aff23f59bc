"""A node answers what it likes: whoever asked keeps its memory and its threads."""

from __future__ import annotations

import http.client
import itertools
import socket

import pytest

from apps.compute import control, links

MEMBER = control.Member("node-0", "00" * 32, "00" * 32, "", "https://node:1")
HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture
def says(monkeypatch):
    """Have the node say these bytes to whoever asks it, and then nothing more."""
    ends: list[socket.socket] = []

    def say(said: bytes) -> links.Links:
        def connected(self: links.Links) -> http.client.HTTPConnection:
            link = http.client.HTTPConnection("node")
            link.sock, theirs = socket.socketpair()
            theirs.sendall(said)
            theirs.shutdown(socket.SHUT_WR)
            ends.extend((link.sock, theirs))
            return link

        monkeypatch.setattr(links.Links, "_connected", connected)
        node = links.Links("https://node:1", "")
        node.ends = ends
        monkeypatch.setattr(control, "links_to", lambda url, certificate: node)
        return node

    monkeypatch.setattr(links, "_tls", lambda pinned: None)
    yield say
    for end in ends:
        end.close()


@pytest.mark.parametrize(
    "said",
    [
        b"content-length: 1" + b"0" * 19 + b"\r\n\r\n",
        b"content-length: 1" + b"0" * 14 + b"\r\n\r\n",
        b"content-length: 3\r\n\r\n{}",
        b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"\r\n{}",
    ],
)
def test_an_answer_of_no_length_too_much_or_less_than_declared_is_none(says, said) -> None:
    with pytest.raises(links.Unreachable):
        says(HEAD + said).ask("GET", "/", timeout_s=5)


def test_an_answer_that_takes_too_long_is_none(says, monkeypatch) -> None:
    node = says(HEAD + b"content-length: 2\r\n\r\n{}")
    monkeypatch.setattr(links, "PIECE_BYTES", 1)
    ticks = itertools.count()
    with monkeypatch.context() as slow:
        slow.setattr(links.time, "monotonic", lambda: float(next(ticks)))
        with pytest.raises(links.Unreachable):
            node.ask("GET", "/", timeout_s=2.5)
    assert node.ask("GET", "/", timeout_s=5) == links.Reply(200, b"{}")


@pytest.mark.parametrize("body", [b"[]", b"[" * 50_000])
def test_a_body_that_is_no_object_is_unreadable(says, body) -> None:
    says(HEAD + b"content-length: %d\r\n\r\n" % len(body) + body)
    assert control.health([MEMBER]) == [False]
    with pytest.raises(control.Retryable, match="unreadably"):
        control.last_head(MEMBER)


def test_a_connection_that_nobody_asks_any_more_is_closed(says, monkeypatch) -> None:
    """Without another question: the process may have none."""
    monkeypatch.setattr(links, "IDLE_S_MAX", 0.01)
    node = says(HEAD + b"content-length: 2\r\n\r\n{}")
    assert node.ask("GET", "/", timeout_s=5).status == 200
    while (reaper := node._reaper) is not None:
        reaper.join()
    assert not node._idle
    ours, theirs = node.ends
    assert ours.fileno() == -1 and theirs.recv(1 << 10).startswith(b"GET /") and not theirs.recv(1)


def test_nobody_is_asked() -> None:
    with pytest.raises(control.Retryable):
        control.commit([], "job", [])
