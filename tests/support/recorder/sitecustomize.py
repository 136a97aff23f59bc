"""Records what goes over HTTP: on PYTHONPATH, every Python process below writes its exchanges.

For tests only: with RECORD_TO=DIR in the environment, each request's and response's body that this
process sends or gets through httpx (agents, buyers, the story) or `apps.compute.links` (the server
to its nodes) is appended to a file of its own, `PID.http`; each command to the broker, Celery's
messages among them, to `PID.broker`. A process that imports none of these is left as it is.
"""

import importlib.abc
import importlib.util
import os
import sys
import threading


class Hook(importlib.abc.MetaPathFinder):
    """Wraps a module right after its own import, so that no other process pays for it."""

    def find_spec(self, name, path=None, target=None):
        if name not in WRAPS:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        sys.meta_path.insert(0, self)  # who only asks whether httpx is there imports it later
        if spec is None:
            return None
        run = spec.loader.exec_module

        def exec_module(module):
            run(module)
            WRAPS[name](module)

        spec.loader.exec_module = exec_module
        return spec


lock = threading.Lock()


def write(method, url, status, body, answer):
    path = os.path.join(os.environ["RECORD_TO"], f"{os.getpid()}.http")
    with lock, open(path, "ab") as file:
        file.write(f"\n{method} {url} {status}\n".encode() + body + b"\n" + answer)


def wrap_httpx(httpx):
    def record(request, response):
        write(request.method, request.url, response.status_code, request.read(), response.content)

    send = httpx.HTTPTransport.handle_request
    send_async = httpx.AsyncHTTPTransport.handle_async_request

    def recorded(self, request):
        response = send(self, request)
        response.read()
        record(request, response)
        return response

    async def recorded_async(self, request):
        response = await send_async(self, request)
        await response.aread()
        record(request, response)
        return response

    httpx.HTTPTransport.handle_request = recorded
    httpx.AsyncHTTPTransport.handle_async_request = recorded_async


def wrap_links(links):
    ask = links.Links.ask

    def recorded(self, method, path, parts=(), headers=None, *, timeout_s):
        reply = ask(self, method, path, parts, headers, timeout_s=timeout_s)
        write(method, path, reply.status, b"".join(parts), reply.body)
        return reply

    links.Links.ask = recorded


def wrap_broker(connection):
    """redis.connection, or its twin of asyncio: what goes out, as it is packed."""
    send = connection.AbstractConnection.send_packed_command
    file = open(os.path.join(os.environ["RECORD_TO"], f"{os.getpid()}.broker"), "ab")

    def recorded(self, command, *more, **options):
        parts = [command] if isinstance(command, bytes) else list(command)
        with lock:
            file.write(b"".join(p.encode() if isinstance(p, str) else p for p in parts))
            file.flush()
        return send(self, parts, *more, **options)

    connection.AbstractConnection.send_packed_command = recorded


WRAPS = {
    "httpx": wrap_httpx,
    "apps.compute.links": wrap_links,
    "redis.connection": wrap_broker,
    "redis.asyncio.connection": wrap_broker,
}

if os.environ.get("RECORD_TO"):
    sys.meta_path.insert(0, Hook())
