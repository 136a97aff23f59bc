"""The message broker away: said once, then less and less often, and once more when it is back.

It wakes pages and workers and counts requests; nothing is lost with it, so nobody waits for it:
pages and sweeps look by themselves.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import Any

from channels_redis.pubsub import (
    RedisPubSubChannelLayer,
    RedisPubSubLoopLayer,
    RedisSingleShardConnection,
)
from redis.exceptions import RedisError

logger = logging.getLogger(__name__)
AWAY = (RedisError, OSError)
TOLD_AGAIN_S = 60.0
TOLD_AGAIN_S_MAX = 3600.0
RETRY_S = 0.5
RETRY_S_MAX = 5.0


class Outage:
    """What this process knows of it; any thread tells."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.since: float | None = None
        self._again_at = 0.0
        self._wait_s = 0.0

    def failed(self, error: BaseException) -> None:
        """One line at the start of an outage, the next after a minute, then after twice as long."""
        now = time.monotonic()
        with self._lock:
            if self.since is None:
                self.since, self._wait_s = now, TOLD_AGAIN_S
                text = f"the broker is away ({type(error).__name__}): pages and workers look alone"
            elif now >= self._again_at:
                self._wait_s = min(2 * self._wait_s, TOLD_AGAIN_S_MAX)
                text = f"the broker has been away for {now - self.since:.0f} s"
            else:
                return
            self._again_at = now + self._wait_s
        logger.warning(text)

    def back(self) -> None:
        """It answers; says so if it did not before."""
        if self.since is None:  # the usual case, without the lock
            return
        with self._lock:
            since, self.since = self.since, None
        if since is not None:
            logger.warning("the broker is back after %.0f s", time.monotonic() - since)


outage = Outage()


class PatientLayer(RedisPubSubChannelLayer):
    """The package's layer, whose sockets survive the broker; ours also says little meanwhile."""

    def _get_layer(self) -> RedisPubSubLoopLayer:
        layer = super()._get_layer()
        if not all(isinstance(shard, _Shard) for shard in layer._shards):
            layer._shards = [_Shard(shard.host, layer) for shard in layer._shards]
        return layer


class _Shard(RedisSingleShardConnection):
    async def _do_receiving(self) -> None:
        """Hand on what comes. After an outage every open socket hears that it may have missed
        something; the client subscribes again by itself."""
        wait_s = 0.0
        while True:
            try:
                if not (self._pubsub and self._pubsub.subscribed):
                    await asyncio.sleep(0.1)
                    continue
                message = await self._pubsub.get_message(
                    ignore_subscribe_messages=True, timeout=0.1
                )
            except AWAY as error:
                outage.failed(error)
                wait_s = min(2 * wait_s or RETRY_S, RETRY_S_MAX)
                await asyncio.sleep(wait_s)
                continue
            if wait_s:
                wait_s = 0.0
                outage.back()
                self._tell_all()
            self._receive_message(message)

    def _tell_all(self) -> None:
        again = self.channel_layer.channel_layer.serialize({"type": "live.again"})
        for queue in self.channel_layer.channels.values():
            queue.put_nowait(again)

    async def unsubscribe(self, channel: Any) -> None:
        """Of a socket that goes; a broker that is away has forgotten it anyway."""
        try:
            await super().unsubscribe(channel)
        except AWAY as error:
            outage.failed(error)
            self._subscribed_to.discard(channel)
