"""Records what goes over HTTP: on PYTHONPATH, every Python process below writes its exchanges.

For tests only: with RECORD_TO=DIR in the environment, each request's and response's body that this
process sends or gets through httpx (agents, buyers, the story, the server to its nodes) is appended
to a file of its own. A process that never imports httpx is left as it is.
"""

import importlib.abc
import importlib.util
import os
import sys
import threading


class Hook(importlib.abc.MetaPathFinder):
    """Wraps httpx right after its own import, so that no other process pays for it."""

    def find_spec(self, name, path=None, target=None):
        if name != "httpx":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        sys.meta_path.insert(0, self)  # who only asks whether httpx is there imports it later
        if spec is None:
            return None
        run = spec.loader.exec_module

        def exec_module(module):
            run(module)
            wrap(module)

        spec.loader.exec_module = exec_module
        return spec


def wrap(httpx):
    folder, lock = os.environ["RECORD_TO"], threading.Lock()

    def record(request, response):
        body = request.read()  # also of a body in parts, which httpx does not put together
        answer = response.content if hasattr(response, "_content") else b""
        head = f"\n{request.method} {request.url} {response.status_code}\n".encode()
        with lock, open(os.path.join(folder, f"{os.getpid()}.http"), "ab") as file:
            file.write(head + body + b"\n" + answer)

    send, send_async = httpx.Client.send, httpx.AsyncClient.send

    def recorded(self, request, **options):
        response = send(self, request, **options)
        record(request, response)
        return response

    async def recorded_async(self, request, **options):
        response = await send_async(self, request, **options)
        record(request, response)
        return response

    httpx.Client.send, httpx.AsyncClient.send = recorded, recorded_async


if os.environ.get("RECORD_TO"):
    sys.meta_path.insert(0, Hook())
