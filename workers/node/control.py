"""The control port: HTTP under mutual TLS. Thin: parse, hand to a thread, answer.

All is JSON, but for the shares of rounds, which may be megabytes: those come as binary frames.

Jobs block for as long as they take, in threads of their own; the loop always answers. Errors are
{"code", "detail", "retryable"} with a fitting status.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from apps.protocol import uploads
from apps.protocol.tickets import TicketError
from apps.protocol.wire import is_hex
from workers.node import RELEASE, metrics
from workers.node.errors import Malformed, NodeError, Unavailable
from workers.node.heads import Heads
from workers.node.home import Node
from workers.node.jobs import Jobs
from workers.node.records import with_answer
from workers.node.refreshing import Refreshing
from workers.node.shares import Shares

JOB_BYTES_MAX = 32 << 20
COMMIT_BYTES_MAX = 1 << 20
JOB_THREADS = 32
SHARE_THREADS = 2
SHARES_WAITING_MAX = 64
TURNED_AWAY_WAITING_MAX = 64

log = logging.getLogger("flai.control")

Handler = Callable[[Request], Awaitable[Response]]


class Full(Unavailable):
    """More is asked for than a pool takes."""


class Pool:
    """A bounded number of threads and of waiting calls; more is refused, not queued."""

    def __init__(self, name: str, *, threads: int, waiting: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._free = threads + waiting

    async def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        if self._free <= 0:
            raise Full("busy", "This node has as much to do as it takes.")
        self._free -= 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, function, *arguments)
        finally:
            self._free += 1

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


class Control:
    """The HTTP application over one node's shares and jobs."""

    def __init__(
        self, *, node: Node, shares: Shares, jobs: Jobs, heads: Heads, refreshing: Refreshing
    ) -> None:
        self._descriptor = node.descriptor()
        self._shares = shares
        self._jobs = jobs
        self._heads = heads
        self._refreshing = refreshing
        self.job_pool = Pool("job", threads=JOB_THREADS, waiting=0)
        self.share_pool = Pool("share", threads=SHARE_THREADS, waiting=SHARES_WAITING_MAX)
        self.refusal_pool = Pool("refusal", threads=1, waiting=TURNED_AWAY_WAITING_MAX)

    def application(self) -> Starlette:
        job = "/jobs/{job_id}"
        return Starlette(
            routes=[
                Route("/health", _guarded(self.health), methods=["GET"]),
                Route("/descriptor", _guarded(self.descriptor), methods=["GET"]),
                Route("/shares", _guarded(self.put_share), methods=["POST"]),
                Route("/shares/{share_id}", _guarded(self.share), methods=["GET"]),
                Route("/shares/{share_id}/drop", _guarded(self.drop_share), methods=["POST"]),
                Route("/shares/{share_id}/withdraw", _guarded(self.withdraw), methods=["POST"]),
                Route("/jobs", _guarded(self.run_job), methods=["POST"]),
                Route("/bundles", _guarded(self.run_bundle), methods=["POST"]),
                Route(f"{job}/commit", _guarded(self.commit), methods=["POST"]),
                Route(job, _guarded(self.job), methods=["GET"]),
                Route("/refresh", _guarded(self.last_refresh), methods=["GET"]),
                Route("/refresh", _guarded(self.refresh), methods=["POST"]),
                Route("/log/head", _guarded(self.last_head), methods=["GET"]),
                Route("/log/head", _guarded(self.cosign), methods=["POST"]),
            ],
            exception_handlers={HTTPException: _http_error},
        )

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok", "running": self._jobs.running, "release": RELEASE})

    async def descriptor(self, request: Request) -> Response:
        return JSONResponse(self._descriptor)

    async def put_share(self, request: Request) -> Response:
        body = await _body(request, uploads.FRAME_BYTES_MAX, uploads.MEDIA_TYPE)
        ack = await self.share_pool.run(lambda: self._shares.accept(_unframe(body)))
        return JSONResponse(ack, status_code=201)

    async def share(self, request: Request) -> Response:
        share_id = _id(request, "share_id", "A share's id")
        return JSONResponse(await self.share_pool.run(self._shares.acknowledged, share_id))

    async def drop_share(self, request: Request) -> Response:
        share_id = _id(request, "share_id", "A share's id")
        body = await _body(request, COMMIT_BYTES_MAX)

        def run() -> bool:
            asked = _fields(_parse(body), "drop", "signature")
            return self._shares.drop(share_id, asked["drop"], asked["signature"])

        return JSONResponse({"dropped": await self.share_pool.run(run)})

    async def withdraw(self, request: Request) -> Response:
        share_id = _id(request, "share_id", "A share's id")
        body = await _body(request, COMMIT_BYTES_MAX)

        def run() -> Any:
            asked = _fields(_parse(body), "ticket", "withdrawal", "signature")
            ticket, withdrawal = asked["ticket"], asked["withdrawal"]
            return self._shares.withdraw(
                share_id, ticket, withdrawal, asked["signature"], runs=self._jobs.runs
            )

        return JSONResponse(await self.share_pool.run(run))

    async def run_job(self, request: Request) -> Response:
        body = await _body(request, JOB_BYTES_MAX)

        def asked() -> dict[str, Any]:
            return _fields(_parse(body), "descriptor", "signature", optional=("uploads",))

        def run() -> Any:
            job = asked()
            return self._jobs.run(job["descriptor"], job["signature"], job.get("uploads", []))

        def turn_away() -> None:
            job = asked()
            self._jobs.turn_away(job["descriptor"], job["signature"])

        try:
            return JSONResponse(await self.job_pool.run(run))
        except Full:
            await self.refusal_pool.run(turn_away)
            raise

    async def run_bundle(self, request: Request) -> Response:
        body = await _body(request, JOB_BYTES_MAX)

        def asked() -> tuple[list[dict[str, Any]], Any]:
            content = _fields(_parse(body), "jobs", "signature")
            if not isinstance(content["jobs"], list):
                raise Malformed("malformed", "jobs is not a list.")
            listed = [_fields(item, "descriptor", "upload") for item in content["jobs"]]
            return listed, content["signature"]

        try:
            answers = await self.job_pool.run(lambda: self._jobs.run_bundle(*asked()))
        except Full:
            await self.refusal_pool.run(lambda: self._jobs.turn_away_bundle(*asked()))
            raise
        return _told(answers)

    async def commit(self, request: Request) -> Response:
        job_id = _id(request, "job_id", "A job's id")
        body = await _body(request, COMMIT_BYTES_MAX)

        def run() -> Any:
            asked = _fields(_parse(body), "receipts", optional=("descriptor",))
            return self._jobs.commit(job_id, asked["receipts"], asked.get("descriptor"))

        return JSONResponse(await self.share_pool.run(run))

    async def job(self, request: Request) -> Response:
        job_id = _id(request, "job_id", "A job's id")
        return JSONResponse(await self.share_pool.run(self._jobs.state, job_id))

    async def last_refresh(self, request: Request) -> Response:
        return JSONResponse(await self.share_pool.run(self._refreshing.state))

    async def refresh(self, request: Request) -> Response:
        body = await _body(request, COMMIT_BYTES_MAX)

        def run() -> Any:
            asked = _fields(_parse(body), "refresh", "signature")
            return self._refreshing.run(asked["refresh"], asked["signature"])

        return JSONResponse(await self.job_pool.run(run))

    async def last_head(self, request: Request) -> Response:
        return JSONResponse(await self.share_pool.run(self._heads.last))

    async def cosign(self, request: Request) -> Response:
        body = await _body(request, COMMIT_BYTES_MAX)

        def run() -> Any:
            asked = _fields(_parse(body), "log", "head", "path")
            return self._heads.cosign(asked["log"], asked["head"], asked["path"])

        return JSONResponse(await self.share_pool.run(run))


def _guarded(handler: Handler) -> Handler:
    """Every error leaves as JSON; an unexpected one says nothing of its content."""

    async def guarded(request: Request) -> Response:
        try:
            return await handler(request)
        except NodeError as error:
            metrics.REFUSED.labels(error.code).inc()
            return _problem(error.status, error.code, error.text, error.retryable)
        except HTTPException:
            raise
        except Exception as error:
            log.error("unexpected error", extra={"kind": type(error).__name__, **_where(error)})
            return _problem(500, "failed", "The node failed on this request.", True)

    return guarded


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _problem(error.status_code, "http", str(error.detail), False)


def _problem(status: int, code: str, detail: str, retryable: bool) -> Response:
    content = {"code": code, "detail": detail, "retryable": retryable}
    return JSONResponse(content, status_code=status)


async def _body(request: Request, limit: int, media_type: str = "application/json") -> bytearray:
    if request.headers.get("content-type", "").partition(";")[0].strip() != media_type:
        raise HTTPException(415, f"Content-Type must be {media_type}.")
    declared = request.headers.get("content-length", "0")
    if not declared.isdigit() or int(declared) > limit:
        raise HTTPException(413, f"A body holds at most {limit} bytes.")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise HTTPException(413, f"A body holds at most {limit} bytes.")
    return body


def _told(replies: Iterable[dict[str, Any]]) -> Response:
    listed = ",".join(map(with_answer, replies))
    return Response(f'{{"answers":[{listed}]}}', media_type="application/json")


def _unframe(body: bytearray) -> dict[str, Any]:
    try:
        return uploads.unframe(body)
    except TicketError as error:
        raise Malformed(error.code, error.text) from None


def _parse(body: bytearray) -> Any:
    def refuse(name: str) -> None:
        raise ValueError(name)

    try:
        return json.loads(body, parse_constant=refuse)
    except (ValueError, RecursionError):
        raise Malformed("malformed", "The body is not JSON.") from None


def _fields(content: Any, *names: str, optional: tuple[str, ...] = ()) -> dict[str, Any]:
    ok = isinstance(content, dict) and set(names) <= set(content) <= {*names, *optional}
    if not ok:
        raise Malformed("malformed", f"The body must have exactly: {', '.join(names)}.")
    result: dict[str, Any] = content
    return result


def _id(request: Request, name: str, what: str) -> str:
    value = str(request.path_params[name])
    if not is_hex(value, 16):
        raise Malformed("malformed", f"{what} is 16 bytes in hex.")
    return value


def _where(error: Exception) -> dict[str, Any]:
    """File and line only: messages and locals might hold what was being computed."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return {}
    return {"file": trace.tb_frame.f_code.co_filename.rsplit("/", 1)[-1], "line": trace.tb_lineno}
