"""A small supervisor: start what is needed first, keep it running, stop it in reverse.

Rules: a service starts when all it needs is ready. One that ends before it was ever ready stops
the whole stack, with its last line as the reason; one that ends later is restarted, after 0.5 s
doubling to 30 s, and from 0.5 s again when it has lived ten times as long as it waited. A service
is stopped when everything that needs it has stopped. Every child asks the kernel to end it with us
(child.py), so even `kill -9` leaves none.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from flai_site.stack.embedded import child_command
from flai_site.stack.layout import ROOT, StackError

BACKOFF_S_MIN, BACKOFF_S_MAX = 0.5, 30.0
LIVED = 10
GUARD = Path(__file__).with_name("guard.py")
LOG_BYTES_MAX = 10_000_000


@dataclass(frozen=True)
class Service:
    """What to run and how to know that it runs.

    `prepare` is called (in a thread) before every start. Without a command the service is only
    that. `ready` is a pattern to be seen in its output, or a question asked until it is true;
    None: ready when it has ended with exit code 0 (a one-shot). `wrapped` commands bring their
    own child.py. `attached` ones write to the terminal themselves. `guarded` ones have children of
    their own, which end with them (guard.py).
    """

    name: str
    command: Callable[[], Sequence[str]] | None = None
    needs: tuple[str, ...] = ()
    ready: str | Callable[[], bool] | None = None
    prepare: Callable[[], None] | None = None
    environment: Mapping[str, str] | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    die_signal: signal.Signals = signal.SIGKILL
    wrapped: bool = False
    attached: bool = False
    guarded: bool = False
    ready_within_s: float = 60.0
    stop_within_s: float = 6.0


@dataclass
class _State:
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    seen: asyncio.Event = field(default_factory=asyncio.Event)
    pump: asyncio.Task[None] | None = None
    last_line: str = "it said nothing"


class Supervisor:
    """Runs `services`; `say` gets one terse line per thing that a person wants to know."""

    def __init__(
        self,
        services: Sequence[Service],
        *,
        logs: Path,
        say: Callable[[str], None],
        verbose: bool = False,
    ) -> None:
        self.services = {service.name: service for service in services}
        self.logs, self.say, self.verbose = logs, say, verbose
        self.states = {name: _State() for name in self.services}
        self.stopping = asyncio.Event()
        self.failure: StackError | None = None

    async def run(
        self,
        *,
        on_ready: Callable[[], None] | None = None,
        story: Service | None = None,
        stay: bool = True,
    ) -> int:
        """Start all, call `on_ready`, play `story` to its end, and `stay` until asked to stop.

        Returns the story's exit code; 130 when it was broken off; 0 without a story.
        Raises StackError when a service did not start.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self.stopping.set)
        keepers = [asyncio.create_task(self._keep(s)) for s in self.services.values()]
        code = 0
        try:
            if await self._or_stop(_all(state.ready for state in self.states.values())):
                if on_ready:
                    on_ready()
                if story:
                    code = await self._play(story)
                if stay:
                    await self.stopping.wait()
        finally:
            self.stopping.set()
            await asyncio.gather(*keepers)
        if self.failure:
            raise self.failure
        return code

    async def _play(self, story: Service) -> int:
        process = await self._spawn(story, _State())
        try:
            if await self._or_stop(process.wait()):
                return process.returncode or 0
            return 130
        finally:
            await self._end(story, process)

    async def _keep(self, service: Service) -> None:
        state = self.states[service.name]
        backoff_s = BACKOFF_S_MIN
        try:
            if not await self._or_stop(_all(self.states[name].ready for name in service.needs)):
                return
            while not self.stopping.is_set():
                started = time.monotonic()
                if await self._live(service, state):
                    return
                if time.monotonic() - started > LIVED * backoff_s:
                    backoff_s = BACKOFF_S_MIN
                self.say(f"{service.name} ended: {state.last_line}; again in {backoff_s:g} s")
                await self._or_stop(asyncio.sleep(backoff_s))
                backoff_s = min(2 * backoff_s, BACKOFF_S_MAX)
        except (StackError, OSError) as error:
            self._fail(f"{service.name} did not start: {error}", getattr(error, "exit_code", 1))
        finally:
            state.stopped.set()

    async def _live(self, service: Service, state: _State) -> bool:
        """One life of a service: True when there is to be no other, False to start it again.

        Raises StackError when it ended before it was ever ready.
        """
        started = time.monotonic()
        if service.prepare:
            await asyncio.to_thread(service.prepare)
        process = await self._spawn(service, state) if service.command else None
        try:
            if process and not await self._or_stop(self._await_ready(service, state, process)):
                return True
            if not state.ready.is_set():
                self.say(f"{service.name} ready in {time.monotonic() - started:.1f} s")
                state.ready.set()
            if process is None or service.ready is None:
                return True
            return not await self._or_stop(process.wait())
        finally:
            if self.stopping.is_set():
                users = (s.name for s in self.services.values() if service.name in s.needs)
                await _all(self.states[name].stopped for name in users)
            if process:
                await self._end(service, process)

    async def _await_ready(
        self, service: Service, state: _State, process: asyncio.subprocess.Process
    ) -> None:
        """Return when the service is ready (a one-shot: has succeeded), else raise StackError.

        One that was ready in an earlier life may end again without that being an error.
        """
        if isinstance(service.ready, str):
            sign: Awaitable[Any] = state.seen.wait()
        elif service.ready:
            sign = _poll(service.ready)
        else:
            sign = process.wait()
        tasks = [asyncio.ensure_future(work) for work in (process.wait(), sign)]
        try:
            await asyncio.wait(
                tasks, timeout=service.ready_within_s, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            for task in tasks:
                task.cancel()
        if process.returncode is None and not tasks[1].done():
            raise StackError(f"not ready after {service.ready_within_s:g} s: {state.last_line}")
        if process.returncode is not None and state.pump:
            await asyncio.wait({state.pump}, timeout=1)  # its last words may still be in the pipe
        ended = process.returncode is not None
        succeeded = service.ready is None and process.returncode == 0
        # `seen`: it said that it was ready, and ended before we looked
        if ended and not (succeeded or state.ready.is_set() or state.seen.is_set()):
            raise StackError(state.last_line)

    async def _spawn(self, service: Service, state: _State) -> asyncio.subprocess.Process:
        assert service.command is not None
        command = list(service.command())
        if service.guarded:
            guard = [sys.executable, "-I", "-S", str(GUARD), *command]
            command = child_command(guard, die_with=signal.SIGTERM)
        elif not service.wrapped:
            command = child_command(command, die_with=service.die_signal)
        state.seen = asyncio.Event()
        pipe = None if service.attached else asyncio.subprocess.PIPE
        # A session of its own: Ctrl-C reaches only us, and we stop things in order.
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=ROOT,
            env=dict(os.environ if service.environment is None else service.environment),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=pipe,
            stderr=None if service.attached else asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        if process.stdout:
            state.pump = asyncio.create_task(self._pump(service, state, process.stdout))
        return process

    async def _pump(self, service: Service, state: _State, stream: asyncio.StreamReader) -> None:
        pattern = re.compile(service.ready) if isinstance(service.ready, str) else None
        rest = b""
        with _open_log(self.logs / f"{service.name}.log") as log:
            while chunk := await stream.read(65_536):
                *lines, rest = (rest + chunk).split(b"\n")
                for raw in lines:
                    line = raw.decode(errors="replace").rstrip()
                    if not line:
                        continue
                    at = datetime.now(UTC).strftime("%H:%M:%S.%f")[:-3]
                    log.write(f"{at} {line}\n".encode())
                    state.last_line = line[:500]
                    if self.verbose:
                        self.say(f"{service.name} | {line}")
                    if pattern and pattern.search(line):
                        state.seen.set()

    async def _end(self, service: Service, process: asyncio.subprocess.Process) -> None:
        """Ask, wait, then kill the whole session; returns when the child is gone."""
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.send_signal(service.stop_signal)
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), service.stop_within_s)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()

    def _fail(self, message: str, exit_code: int) -> None:
        if self.failure is None and not self.stopping.is_set():
            self.failure = StackError(f"{message}\nLogs: {self.logs}", exit_code)
        self.stopping.set()

    async def _or_stop(self, work: Awaitable[Any]) -> bool:
        """Await `work` and return True; False when we are asked to stop first."""
        task = asyncio.ensure_future(work)
        stop = asyncio.ensure_future(self.stopping.wait())
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if task.done():
            await task
            return True
        task.cancel()
        return False


async def _all(events: Iterable[asyncio.Event]) -> None:
    for event in list(events):
        await event.wait()


async def _poll(question: Callable[[], bool]) -> None:
    while not await asyncio.to_thread(question):
        await asyncio.sleep(0.02)


def _open_log(path: Path) -> BinaryIO:
    """Appended to, so that what was said before a restart stays; one older file is kept."""
    if path.exists() and path.stat().st_size > LOG_BYTES_MAX:
        path.replace(path.with_suffix(".log.1"))
    return open(path, "ab", buffering=0)
