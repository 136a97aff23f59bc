"""The site's web process, to be killed and started again."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Mapping

import httpx

from flai_site.stack.layout import ROOT
from flai_site.stack.up import free_ports


class Web:
    """uvicorn with the site in `environment`, at `url`."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        [self.port] = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = environment

    def start(self) -> None:
        command = ["-m", "uvicorn", "flai_site.asgi:application", "--lifespan", "off"]
        self.process = subprocess.Popen(
            [sys.executable, *command, "--port", str(self.port)],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        end = time.monotonic() + 60
        while not self._answers():
            assert time.monotonic() < end and self.process.poll() is None
            threading.Event().wait(0.1)

    def _answers(self) -> bool:
        try:
            httpx.get(f"{self.url}/healthz", timeout=10)  # also where there is no broker
        except httpx.TransportError:
            return False
        return True

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
