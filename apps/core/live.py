"""Tell open pages that something has changed: a topic, once its transaction has committed.

A topic is "kind:id" ("round:<id>") or a bare kind ("log"). The message says no more than that; who
hears it reads the page again, so that what is shown always comes from the database and from the
reader's own rights. A message that is lost costs a page some seconds: it also looks by itself.

One thread a process sends, so that no transaction ever waits for a broker.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import threading
from collections.abc import Iterable
from itertools import islice
from uuid import UUID

from channels.layers import get_channel_layer
from django.db import transaction

from apps.core.broker import outage

logger = logging.getLogger(__name__)
WAITING_MAX = 10_000
GATHER_S = 0.05  # one message for what changes again and again in such a while
SEND_S_MAX = 5.0
TOLD_MAX = 100  # each of them reads its page at once


def group_name(topic: str) -> str:
    """The channel layer's name of a topic: it has no colon in its alphabet."""
    return "live." + topic.replace(":", ".")


def changed(*topics: str) -> None:
    """Wake the pages that watch these topics, after the commit."""
    transaction.on_commit(lambda: _publisher().put(topics), robust=True)


def concerns(parties: Iterable[UUID]) -> None:
    """Wake the pages that show these parties what awaits them. Of very many the first TOLD_MAX are
    told; the others' pages look by themselves."""
    changed(*(f"party:{key}" for key in islice(parties, TOLD_MAX)))


class _Publisher:
    def __init__(self) -> None:
        self.pid = os.getpid()
        self.waiting: queue.Queue[str] = queue.Queue(WAITING_MAX)
        self._pause = threading.Event()
        threading.Thread(target=self._run, name="live", daemon=True).start()

    def put(self, topics: tuple[str, ...]) -> None:
        try:
            for topic in topics:
                self.waiting.put_nowait(topic)
        except queue.Full:  # the broker is long away, and the pages look by themselves
            logger.debug("no room for a wake-up of pages")

    def _run(self) -> None:
        loop = asyncio.new_event_loop()
        while True:
            topics = {self.waiting.get()}
            self._pause.wait(GATHER_S)
            while not self.waiting.empty():
                topics.add(self.waiting.get())
            try:
                loop.run_until_complete(asyncio.wait_for(_send(topics), SEND_S_MAX))
            except Exception as error:  # any broker's own error classes
                outage.failed(error)
            else:
                outage.back()


async def _send(topics: set[str]) -> None:
    layer = get_channel_layer()
    # what one thing's page waits for before what many people's do
    for topic in sorted(topics, key=lambda topic: topic.startswith("party:")):
        await layer.group_send(group_name(topic), {"type": "live.changed", "topic": topic})


_held: list[_Publisher] = []
_making = threading.Lock()


def _publisher() -> _Publisher:
    """This process's own: a fork has its parent's object, but not its thread."""
    with _making:
        if not _held or _held[0].pid != os.getpid():
            _held[:] = [_Publisher()]
        return _held[0]
