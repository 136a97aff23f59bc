"""Which addresses are called, and that what was checked is what is connected to."""

from __future__ import annotations

import http.server
import socket
import threading

import httpcore
import pytest

from apps.core.errors import BadInput
from apps.notify import outside

PRIVATE = [
    "127.0.0.1",
    "10.0.0.1",
    "172.16.3.4",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",
    "224.0.0.1",
    "255.255.255.255",
    "192.0.2.1",
    "::1",
    "::",
    "fe80::1",
    "fc00::1",
    "fec0::1",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "2002:7f00:1::1",
    "64:ff9b::7f00:1",
]


@pytest.fixture
def names(monkeypatch):
    """A resolver of the test's own: each look-up takes the next answer, the last one stays."""
    table: dict[str, list[list[str]]] = {}

    def getaddrinfo(host, port, *args, **kwargs):
        if host not in table:
            raise socket.gaierror
        answers = table[host].pop(0) if len(table[host]) > 1 else table[host][0]
        family = {True: socket.AF_INET6, False: socket.AF_INET}
        return [(family[":" in a], socket.SOCK_STREAM, 6, "", (a, port)) for a in answers]

    monkeypatch.setattr(outside.socket, "getaddrinfo", getaddrinfo)
    return table


@pytest.mark.parametrize("address", PRIVATE)
def test_no_address_of_our_own_networks_is_public_whatever_it_is_wrapped_in(address) -> None:
    assert not outside.is_public(address)


@pytest.mark.parametrize("address", ["93.184.215.14", "2606:2800:21f:cb07::1", "::ffff:8.8.8.8"])
def test_addresses_of_the_open_internet_are_public(address) -> None:
    assert outside.is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "http://hook.example/",
        "ftp://hook.example/",
        "https://hook.example:22/",
        "https://hook.example:99999/",
        "https://user:password@hook.example/",
        "https://hook.example/#part",
        "https:///nowhere",
        "https://[::1",
        "https://hook.example/ gap",
        "https://unknown.example/",
        "https://inner.example/",
        "https://mixed.example/",
        "https://127.0.0.1/",
        "https://" + "a" * 500,
        "gopher",
    ],
)
def test_an_address_that_is_not_called_is_refused_when_it_is_registered(names, url) -> None:
    names |= {
        "hook.example": [["93.184.215.14"]],
        "inner.example": [["10.1.2.3"]],
        "mixed.example": [["93.184.215.14", "127.0.0.1"]],
        "127.0.0.1": [["127.0.0.1"]],
    }
    with pytest.raises(BadInput) as refused:
        outside.check_url(url)
    assert refused.value.code == "bad_webhook_url"


def test_a_name_that_turns_private_after_it_was_checked_is_not_connected_to(names) -> None:
    """DNS rebinding: public when it is registered, this machine when it is called."""
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    names["rebinding.example"] = [["93.184.215.14"], ["127.0.0.1"]]
    outside.check_url("https://rebinding.example/hook")
    try:
        with pytest.raises(outside.Refused, match="private"):
            outside.post(f"http://rebinding.example:{server.server_port}/", b"{}", {})
    finally:
        server.server_close()


def test_the_connection_goes_to_the_address_that_was_checked(names, monkeypatch) -> None:
    """One look-up, and its answer is what the socket gets; a second one would say otherwise."""
    names["hook.example"] = [["93.184.215.14"], ["127.0.0.1"]]
    asked = []

    def connect(self, host, port, *args, **kwargs):
        asked.append((host, port))
        raise httpcore.ConnectError("no network in this test")

    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", connect)
    with pytest.raises(httpcore.ConnectError):
        outside.post("https://hook.example/x", b"{}", {})
    assert asked == [("93.184.215.14", 443)]


class Answers(http.server.BaseHTTPRequestHandler):
    """302 to itself at /moved; nothing at all at /silent until the client goes."""

    calls: list[str] = []

    def do_POST(self) -> None:
        self.calls.append(self.path)
        if self.path == "/silent":
            self.rfile.read(int(self.headers["Content-Length"]) + 1)
            return
        self.send_response(302 if self.path == "/moved" else 204)
        self.send_header("Location", "/elsewhere")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def receiver(settings):
    settings.WEBHOOKS_PRIVATE = True
    Answers.calls = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_redirect_is_an_answer_and_is_not_followed(receiver) -> None:
    assert outside.post(receiver + "/moved", b"{}", {}) == 302
    assert outside.post(receiver + "/hook", b"{}", {}) == 204
    assert Answers.calls == ["/moved", "/hook"]


def test_a_call_as_a_whole_has_a_deadline(receiver, monkeypatch) -> None:
    monkeypatch.setattr(outside, "DEADLINE_S", 0.3)
    with pytest.raises(httpcore.TimeoutException):
        outside.post(receiver + "/silent", b"{}", {})
