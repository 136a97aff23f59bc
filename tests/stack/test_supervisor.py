"""The supervisor with small real processes."""

from __future__ import annotations

import asyncio
import os
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flai_site.stack.layout import StackError
from flai_site.stack.supervisor import Service, Supervisor

ROOT = Path(__file__).resolve().parents[2]
FOREVER = "print('ready', flush=True); import signal; signal.pause()"


def service(name: str, code: str = FOREVER, **options: object) -> Service:
    return Service(name, lambda: [sys.executable, "-c", code], ready="ready", **options)


def supervise(tmp_path: Path, *services: Service, **options: object) -> tuple[int, list[str]]:
    said: list[str] = []
    supervisor = Supervisor(services, logs=tmp_path, say=said.append)
    return asyncio.run(supervisor.run(**{"stay": False} | options)), said


def wait_for(path: Path, within_s: float = 60) -> str:
    """The file's text as soon as it has a whole line."""
    deadline = time.monotonic() + within_s
    with selectors.DefaultSelector() as pause:
        while time.monotonic() < deadline:
            if path.exists() and (text := path.read_text()).endswith("\n"):
                return text
            pause.select(0.02)
    raise AssertionError(f"{path} did not appear")


def alive(pid: int) -> bool:
    """A zombie that nobody has reaped yet is dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_services_become_ready_in_the_order_of_their_needs(tmp_path: Path) -> None:
    code, said = supervise(
        tmp_path, service("c", needs=("b",)), service("b", needs=("a",)), service("a")
    )
    assert code == 0
    assert [line.split()[0] for line in said] == ["a", "b", "c"]


def test_they_stop_in_reverse(tmp_path: Path) -> None:
    log = tmp_path / "order"

    def code(name: str) -> str:
        return (
            "import signal, sys\n"
            f"def end(*_): open({str(log)!r}, 'a').write('{name}'); sys.exit()\n"
            "signal.signal(signal.SIGTERM, end); print('ready', flush=True)\n"
            "while True: signal.pause()"
        )

    supervise(
        tmp_path,
        service("a", code("a")),
        service("b", code("b"), needs=("a",)),
        service("c", code("c"), needs=("b",)),
    )
    assert log.read_text() == "cba"


def test_one_that_does_not_start_gives_its_last_line_and_stops_the_rest(tmp_path: Path) -> None:
    broken = "import sys; print('working', flush=True); sys.exit('the disk is full')"
    with pytest.raises(StackError, match=r"b did not start: the disk is full"):
        supervise(tmp_path, service("a"), service("b", broken, needs=("a",)), service("c"))


def test_one_that_is_never_ready_is_given_up(tmp_path: Path) -> None:
    slow = service("slow", "import signal; signal.pause()", ready_within_s=0.3)
    with pytest.raises(StackError, match=r"slow did not start: not ready after 0\.3 s"):
        supervise(tmp_path, slow)


def test_one_shot_that_fails_stops_the_start(tmp_path: Path) -> None:
    migrate = Service("migrate", lambda: [sys.executable, "-c", "raise SystemExit('no table')"])
    with pytest.raises(StackError, match="migrate did not start: no table"):
        supervise(tmp_path, migrate, service("web", needs=("migrate",)))


def test_one_that_ends_later_is_started_again(tmp_path: Path) -> None:
    lives = tmp_path / "lives"
    code = f"open({str(lives)!r}, 'a').write('x\\n'); print('ready', flush=True)"
    story = Service(
        "story",
        lambda: [
            *(sys.executable, "-c"),
            "import select\n"
            f"while open({str(lives)!r}).read().count('x') < 2: select.select([], [], [], 0.02)",
        ],
        attached=True,
    )
    code_, said = supervise(tmp_path, service("short", code), story=story)
    assert code_ == 0
    assert any("short ended" in line and "again in 0.5 s" in line for line in said)


def test_the_storys_exit_code_is_the_runs(tmp_path: Path) -> None:
    story = Service("story", lambda: [sys.executable, "-c", "raise SystemExit(7)"], attached=True)
    assert supervise(tmp_path, service("a"), story=story)[0] == 7


RUN = """
import asyncio, sys
from pathlib import Path
from flai_site.stack.supervisor import Service, Supervisor
folder = Path(sys.argv[1])
def service(name):
    code = ("import os, subprocess, sys, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\\n"
            f"open('{folder}/{name}.pid', 'w').write(str(os.getpid()) + chr(10))\\n"
            "print('ready', flush=True)\\nwhile True: signal.pause()")
    return Service(name, lambda: [sys.executable, "-c", code], ready="ready", stop_within_s=0.3)
names = ["one", "two", "three"]
supervisor = Supervisor([service(n) for n in names], logs=folder, say=lambda line: None)
up = lambda: (folder / "up").write_text("up\\n")
sys.exit(asyncio.run(supervisor.run(on_ready=up)))
"""


@pytest.fixture
def running(tmp_path: Path):
    process = subprocess.Popen([sys.executable, "-c", RUN, str(tmp_path)], cwd=ROOT)
    try:
        wait_for(tmp_path / "up")
        yield process, [int((tmp_path / f"{n}.pid").read_text()) for n in ("one", "two", "three")]
    finally:
        process.kill()
        process.wait()


def test_kill_9_of_the_supervisor_leaves_no_survivor(running) -> None:
    process, children = running
    assert all(map(alive, children))
    handles = [os.pidfd_open(pid) for pid in children]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with selectors.DefaultSelector() as ends:
        for handle in handles:
            ends.register(handle, selectors.EVENT_READ)
        deadline = time.monotonic() + 60
        while ends.get_map() and time.monotonic() < deadline:
            for key, _ in ends.select(0.5):
                ends.unregister(key.fd)
    for handle in handles:
        os.close(handle)
    assert not any(map(alive, children))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asking_stops_even_the_deaf(running, number: signal.Signals) -> None:
    process, children = running
    process.send_signal(number)
    assert process.wait(timeout=60) == 0
    assert not any(map(alive, children))


TREE = """
import asyncio, sys
from pathlib import Path
from flai_site.stack.supervisor import Service, Supervisor
folder = Path(sys.argv[1])
grandchild = f"open('{folder}/pid', 'w').write(str(__import__('os').getpid()) + chr(10))\\n" \
    "import signal; signal.pause()"
code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {grandchild!r}])"
story = Service("story", lambda: [sys.executable, "-c", code], attached=True, guarded=True)
supervisor = Supervisor([], logs=folder, say=print)
sys.exit(asyncio.run(supervisor.run(story=story, stay=False)))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_children_of_a_guarded_child_end_too(tmp_path: Path, number: signal.Signals) -> None:
    process = subprocess.Popen([sys.executable, "-c", TREE, str(tmp_path)], cwd=ROOT)
    try:
        grandchild = os.pidfd_open(int(wait_for(tmp_path / "pid")))
        process.send_signal(number)
        with selectors.DefaultSelector() as end:
            end.register(grandchild, selectors.EVENT_READ)
            assert end.select(60), "it lives on"
        os.close(grandchild)
    finally:
        process.kill()
        process.wait()


def test_guard_passes_the_exit_code_on(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit(5)"]
    story = Service("story", lambda: command, attached=True, guarded=True)
    assert supervise(tmp_path, service("a"), story=story)[0] == 5


def test_child_refuses_to_outlive_a_parent_that_is_gone(tmp_path: Path) -> None:
    child = ROOT / "flai_site/stack/child.py"
    mark = tmp_path / "ran"
    someone_else = "1"
    done = subprocess.run(
        [sys.executable, child, someone_else, "9", "-1", "-1", "touch", mark], check=False
    )
    assert done.returncode == 127
    assert not mark.exists()
