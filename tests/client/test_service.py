"""Agents as services: they find their rounds, obey agent.toml, and survive being killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.bridge import SUBDAO, Bridge
from tests.support.nodes import NodeSet
from workers.client.api import Api, ClientError
from workers.client.home import Home
from workers.client.outbox import Outbox
from workers.client.service import Service
from workers.demo import sites


@pytest.fixture
def region(three_nodes: NodeSet, tmp_path: Path) -> Any:
    """(bridge, homes by name): a round that has just opened, and the homes of its members."""
    sites.write(sites.make(11), tmp_path, None)
    about = json.loads((tmp_path / "sites.json").read_text())
    homes = {}
    for site in about["sites"]:
        config = tmp_path / site["slug"] / "agent.toml"
        config.write_text(f'subdaos = ["{SUBDAO}"]\nevery_s = 1\n' + config.read_text())
        homes[site["slug"]] = Home(tmp_path / site["slug"])
    for home in homes.values():
        home.pin_nodes(three_nodes.fingerprints)
        home.pin_peers([each.identity_hex() for each in homes.values()])
    return Bridge(three_nodes, homes, about), homes


def configured(home: Home, line: str) -> Home:
    path = home.path / "agent.toml"
    path.write_text(line + "\n" + path.read_text())
    return Home(home.path)


def look(bridge: Bridge, home: Home, **options: Any) -> list[str]:
    lines: list[str] = []
    made = Service(home, home.config["role"], say=lines.append, api=bridge.api(home), **options)
    made.run(once=True)
    return lines


def test_services_play_a_round_and_sign_anew_without_the_late_one(region: Any) -> None:
    bridge, homes = region
    late = next(slug for slug, home in homes.items() if home.config["role"] == "custodian")
    there = [home for slug, home in homes.items() if slug != late]
    custodians = [home for home in there if home.config["role"] == "custodian"]
    for home in there:
        look(bridge, home)
    assert len(bridge.shares) == len(custodians) and len(bridge.rows) == 3
    for home in there:  # nothing is due: nothing is said, nothing is sent
        assert look(bridge, home)[1:] == []
    bridge.leave_out(homes[late].identity_hex())
    for home in there:
        look(bridge, home)
    assert len(bridge.shares) == 2 * len(custodians)
    bridge.compute_moments()
    for home in there:
        assert any("bytes sealed to" in line for line in look(bridge, home))
    bridge.compute_round()
    assert len(bridge.openings["phi_milli"]) == len(custodians)
    assert bridge.openings["void"] == 0
    assert all(home.journal.last("summed", round=bridge.round_id) for home in there)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("min_sites = 7", "too_few_sites"),
        ('circuits = ["logistic_round@1"]', "circuit_not_allowed"),
        (f'[subdao.{SUBDAO}]\ndata = "elsewhere.csv"\n[other]', "bad_data"),
    ],
)
def test_what_agent_toml_does_not_allow_is_held_back_and_said_once(
    region: Any, line: str, code: str
) -> None:
    bridge, homes = region
    home = configured(homes["hospital-alder"], "") if line[0] == "[" else homes["hospital-alder"]
    if line[0] == "[":
        path = home.path / "agent.toml"
        path.write_text(path.read_text() + "\n" + line + "\n")
        home = Home(home.path)
    else:
        home = configured(home, line)
    lines = look(bridge, home)
    assert "held back" in lines[-1] and not bridge.shares
    assert home.journal.last("held_back")["code"] == code
    assert not [line for line in look(bridge, home) if "held back" in line]
    assert len([e for e in home.journal if e["event"] == "held_back"]) == 1


def test_rounds_of_other_subdaos_are_left_alone(region: Any) -> None:
    bridge, homes = region
    home = homes["hospital-alder"]
    home.config["subdaos"] = ["another"]
    assert "does not name tumours" in look(bridge, home)[-1]
    assert not bridge.shares


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"subdaos": None}, "for which SubDAOs"),
        ({"subdaos": []}, "for which SubDAOs"),
        ({"subdaos": "all"}, "for which SubDAOs"),
        ({"circuits": "moments@1"}, "must be a list"),
        ({"circuits": ["moments@9"]}, "no circuit moments@9"),
        ({"every_s": 0}, "every_s"),
        ({"every_s": True}, "every_s"),
    ],
)
def test_a_policy_that_cannot_be_run_by_is_refused_at_the_start(
    tmp_path: Path, config: dict[str, Any], said: str
) -> None:
    home = Home(tmp_path)
    home.config = {"subdaos": "any"} | config
    with pytest.raises(ClientError, match=said):
        Service(home, "custodian", say=str, api=Api("http://flai"))


def test_a_dry_run_sends_and_writes_nothing(region: Any) -> None:
    bridge, homes = region
    for slug, home in homes.items():
        lines = look(bridge, home, dry_run=True)
        assert any("would leave this site" in line for line in lines), (slug, lines)
        assert [entry["event"] for entry in home.journal] == ["attesting"]
    assert not bridge.shares and not bridge.rows


def test_interrupted_between_journal_and_sending_it_goes_on_with_the_same_share(
    region: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge, homes = region
    home = homes["hospital-alder"]

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Outbox, "_send", interrupted)
        assert "Stopped" in look(bridge, home)[-1]
    made = home.journal.last("leaving")["share_id"]
    assert not bridge.shares
    look(bridge, home)
    assert list(bridge.shares) == [made]


def test_a_server_that_is_away_is_said_once_and_asked_again(
    region: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, homes = region
    monkeypatch.setattr("workers.client.api.BACKOFF_S", 0)
    asked: list[int] = []

    def away(request: httpx.Request) -> httpx.Response:
        asked.append(1)
        if len(asked) > 8:
            raise KeyboardInterrupt
        raise httpx.ConnectError("gone")

    lines: list[str] = []
    api = Api("http://x", transport=httpx.MockTransport(away))
    service = Service(homes["hospital-alder"], "custodian", say=lines.append, api=api)
    service.every_s = 0.01
    service.run()
    assert len([line for line in lines if "does not answer" in line]) == 1
    assert len(asked) == 9 and "Stopped" in lines[-1]


# ---- as a process -------------------------------------------------------------------------------


@pytest.fixture
def served(region: Any) -> Any:
    """The bridge behind a real socket; `gate` holds shares back before they are answered."""
    bridge, homes = region
    gate, came = threading.Event(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.command == "PATCH":
                came.set()
                gate.wait(60)
            url = f"http://flai{self.path}"
            asked = httpx.Request(self.command, url, headers=dict(self.headers), content=body)
            with lock:
                answer = bridge.answer(asked)
            self.send_response(answer.status_code)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_GET = do_POST = do_PATCH = _answer

        def log_message(self, *_: Any) -> None:
            pass

    lock = threading.Lock()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield bridge, homes, f"http://127.0.0.1:{server.server_port}", gate, came
    gate.set()
    server.shutdown()
    server.server_close()


def start(home: Home) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "workers.client", "custodian", "--home", str(home.path)]
    return subprocess.Popen(
        [*command, "serve"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


def test_killed_while_it_sends_it_sends_the_same_share_again_and_stops_when_told(
    served: Any,
) -> None:
    bridge, homes, url, gate, came = served
    home = homes["hospital-alder"]
    home.connect(url=url, api_key=home.identity_hex())
    first = start(home)
    assert came.wait(60), first.stdout.read()
    first.kill()
    assert first.wait(60) == -signal.SIGKILL
    made = home.journal.last("leaving")["share_id"]
    assert home.journal.last("delivered") is None
    gate.set()
    second = start(home)
    try:
        end = time.monotonic() + 60
        while home.journal.last("delivered") is None:
            assert time.monotonic() < end and second.poll() is None
            threading.Event().wait(0.1)
        third = start(home)  # while the second serves
        said, _ = third.communicate(timeout=60)
        assert third.returncode == 1 and "runs already" in said
        second.send_signal(signal.SIGTERM)
        said, _ = second.communicate(timeout=60)
    finally:
        second.kill()
    assert second.returncode == 0 and "Stopped." in said
    assert home.journal.last("delivered")["share_id"] == made
    assert set(bridge.shares) == {made}
    assert len([e for e in home.journal if e["event"] == "leaving"]) == 1
