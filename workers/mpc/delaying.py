"""A network that takes its time: TCP proxies which hand every byte on a fixed time after it came.

For the bench only: three nodes on one machine, as if each were in another town.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import socket
from collections.abc import Sequence

Address = tuple[str, int]
CHUNK_BYTES = 1 << 16


class DelayingProxy:
    """One address before each target, served by a process of its own until it is closed."""

    def __init__(self, targets: Sequence[Address], delay_ms: float) -> None:
        listeners = [socket.create_server(("127.0.0.1", 0)) for _ in targets]
        self.addresses: list[Address] = [listener.getsockname() for listener in listeners]
        context = multiprocessing.get_context("fork")
        self._process = context.Process(
            target=_serve, args=(listeners, list(targets), delay_ms / 1e3), daemon=True
        )
        self._process.start()
        for listener in listeners:
            listener.close()

    def close(self) -> None:
        self._process.terminate()
        self._process.join()


def _serve(listeners: list[socket.socket], targets: list[Address], delay_s: float) -> None:
    async def serve() -> None:
        async def accept(
            target: Address, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            with contextlib.suppress(OSError):
                there, back = await asyncio.open_connection(*target)
                await asyncio.gather(
                    _hand_on(reader, back, delay_s), _hand_on(there, writer, delay_s)
                )

        for listener, target in zip(listeners, targets, strict=True):

            def accept_for(
                r: asyncio.StreamReader, w: asyncio.StreamWriter, target: Address = target
            ) -> asyncio.Future[None]:
                return asyncio.ensure_future(accept(target, r, w))

            await asyncio.start_server(accept_for, sock=listener)
        await asyncio.Event().wait()

    asyncio.run(serve())


async def _hand_on(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float
) -> None:
    """In order, each piece `delay_s` after it came; pieces do not wait for one another."""
    loop = asyncio.get_running_loop()
    waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def take() -> None:
        data = b"x"
        while data:
            data = await reader.read(CHUNK_BYTES)
            waiting.put_nowait((loop.time() + delay_s, data))

    taking = asyncio.ensure_future(take())
    with contextlib.suppress(OSError):
        while True:
            due, data = await waiting.get()
            await asyncio.sleep(due - loop.time())
            if not data:
                break
            writer.write(data)
            await writer.drain()
    taking.cancel()
    writer.close()
