"""Homes, ports, options: what is wrong is said before anything starts."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from flai_site.stack import cli
from flai_site.stack.embedded import embedded, places
from flai_site.stack.layout import (
    LIMITS,
    Home,
    Ports,
    StackError,
    node_limits,
)
from flai_site.stack.services import embedded_services, remove
from flai_site.stack.up import Stack, check_ports_free, free_ports

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path / "home")
    yield home
    remove(home.root)


def test_home_is_made_once_and_keeps_its_keys(home: Home) -> None:
    home.prepare()
    before = home.secret("log").read_text()
    assert home.secret("log").stat().st_mode & 0o777 == 0o600
    assert len(bytes.fromhex(before.strip())) == 32
    home.prepare()
    assert home.secret("log").read_text() == before
    assert home.public("coordinator").read_text().strip() != home.secret("coordinator").read_text()


def test_somebody_elses_directory_is_neither_used_nor_wiped(home: Home) -> None:
    home.root.mkdir()
    (home.root / "thesis.txt").write_text("years of work")
    with pytest.raises(StackError, match="holds other files"):
        home.prepare()
    with pytest.raises(StackError, match="nothing was deleted"):
        home.wipe()
    assert (home.root / "thesis.txt").exists()


def test_wiping_leaves_only_the_mark(home: Home) -> None:
    home.prepare()
    home.wipe()
    assert [path.name for path in home.root.iterdir()] == ["flai-home"]


def test_unwritable_home_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StackError, match=r"file/home.* cannot be written"):
        Home(tmp_path / "file" / "home").prepare()


def test_second_start_says_where_the_first_runs(home: Home) -> None:
    home.prepare()
    with home.lock():
        home.write_stack({"url": "http://127.0.0.1:8123", "pid": 4711})
        assert home.running() == {"url": "http://127.0.0.1:8123", "pid": 4711}
        with pytest.raises(StackError, match=r"already running at http://127\.0\.0\.1:8123.*4711"):
            home.lock()
    assert home.running() is None


def test_taken_port_is_named_with_the_variable_that_moves_it() -> None:
    with socket.socket() as taken:
        web, mesh = free_ports(2)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StackError, match=rf"(?s)Port {port}.*FLAI_PORT=") as refused:
            check_ports_free(Ports(web=port, control=(), mesh=()))
        assert refused.value.exit_code == 2
        with pytest.raises(StackError, match=rf"(?s)Port {port}.*node 1's mesh.*FLAI_MESH_PORT="):
            check_ports_free(Ports(web=web, control=(), mesh=(mesh, port)))


def test_up_on_a_taken_port_exits_with_2_and_one_message(home: Home) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "manage.py", "up"],
            cwd=ROOT,
            env=os.environ | {"FLAI_HOME": str(home.root), "FLAI_PORT": port},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert f"Port {port}" in done.stderr
    assert "Traceback" not in done.stderr


def test_four_or_five_nodes_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLAI_NODE_COUNT", raising=False)
    assert len(Ports.from_environment().control) == 3
    monkeypatch.setenv("FLAI_NODE_COUNT", "5")
    ports = Ports.from_environment()
    assert len(ports.control) == len(ports.mesh) == len({*ports.control, *ports.mesh}) / 2 == 5
    for wrong in ("2", "6", "many"):
        monkeypatch.setenv("FLAI_NODE_COUNT", wrong)
        with pytest.raises(StackError, match="3, 4 or 5 nodes"):
            Ports.from_environment()


def test_own_nodes_answer_as_many_rows_as_their_site_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LIMITS.values():
        monkeypatch.delenv(name, raising=False)

    def limits(faucet: bool) -> dict[str, int]:
        ports = Ports.from_environment()
        return node_limits(Stack(Home(Path("/nowhere")), ports, faucet=faucet).site)

    assert limits(faucet=True) == {"rows_per_epoch": 20_000}
    assert limits(faucet=False) == {}
    monkeypatch.setenv("FLAI_ROWS_PER_QUERY", "100")
    monkeypatch.setenv("FLAI_ROWS_PER_EPOCH", "700")
    assert limits(faucet=True) == {"rows_per_query": 100, "rows_per_epoch": 700}
    monkeypatch.setenv("FLAI_ROWS_EPOCH_DAYS", "many")
    with pytest.raises(StackError, match="FLAI_ROWS_EPOCH_DAYS"):
        limits(faucet=True)


def test_port_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAI_PORT", "eighty")
    with pytest.raises(StackError, match="FLAI_PORT=eighty is no port"):
        Ports.from_environment()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sites", "{tmp}"], "holds no .csv file"),
        (["--sites", "{tmp}/none", "--label", "y"], "is no directory"),
        (["--sites", "{csv}"], "needs --label COLUMN"),
        (["--sites", "{csv}", "--label", "y"], "at least 3 sites are needed"),
        (["--label", "y"], "goes with --sites"),
        (["--json", "{tmp}/none/result.json"], "cannot be written"),
    ],
)
def test_wrong_options_of_the_demo_are_told_before_anything_starts(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("FLAI_HOME", str(tmp_path / "home"))
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv" / "a.csv").write_text("x,y\n")
    filled = [a.format(tmp=tmp_path, csv=tmp_path / "csv") for a in arguments]
    assert cli.run(["demo", *filled]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "home").exists()


def test_json_check_leaves_no_empty_file(tmp_path: Path) -> None:
    cli._check_writable(tmp_path / "result.json")
    assert not (tmp_path / "result.json").exists()


def test_database_comes_back_after_kill_9(home: Home) -> None:
    home.prepare()
    code = (
        "import os, sys; from pathlib import Path; import psycopg\n"
        "from flai_site.stack.services import embedded_services, remove\n"
        "with embedded_services(Path(sys.argv[1])) as (url, _):\n"
        "    with psycopg.connect(url) as c: c.execute('create table t as select 42 as n')\n"
        "    os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(home.root)], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    with embedded_services(home.root) as (url, _), psycopg.connect(url) as connection:
        assert connection.execute("select n from t").fetchone() == (42,)


def test_stale_pid_file_with_a_reused_number_is_no_obstacle(home: Home) -> None:
    home.prepare()
    postgres, _ = embedded(home.root, durable=False)
    postgres.prepare()
    pid_file = postgres.cluster / "postmaster.pid"
    pid_file.write_text(f"{os.getpid()}\n{postgres.cluster}\n")  # we are alive, and no postgres
    with embedded_services(home.root, durable=False) as (url, _), psycopg.connect(url) as c:
        assert c.execute("select 1").fetchone() == (1,)


def test_interrupted_initdb_is_done_again(home: Home) -> None:
    home.prepare()
    _, data, _ = places(home.root)
    (data / "pg").mkdir(parents=True)
    (data / "pg" / "PG_VERSION").write_text("18\n")
    with embedded_services(home.root, durable=False) as (url, _), psycopg.connect(url) as c:
        assert c.execute("select current_database()").fetchone() == ("flai",)


def test_socket_paths_stay_short(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)
    _, _, sockets = places(deep)
    assert len(str(sockets / ".s.PGSQL.5432").encode()) <= 107
