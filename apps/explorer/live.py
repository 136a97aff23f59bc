"""The pages' one socket, /live/: it says which topics have changed, never what.

A page sends {"watch": [topic, …]}; the answer {"watching": […]} names those it may watch, and the
page reads itself once more, since something may have happened between its making and now. Then
{"changed": topic} comes after each commit that touched one (apps/core/live.py).

Who may watch a wallet, or what awaits a party, is decided by the session: its own party alone. The
other topics are of public pages.
"""

from __future__ import annotations

import json
import re
from typing import Any
from uuid import UUID

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncJsonWebsocketConsumer

from apps.accounts import selectors
from apps.core.broker import AWAY, outage
from apps.core.live import group_name

OWN = {"wallet", "party"}
PUBLIC = {"proposal", "round", "rfm", "subdao", "treasury"}
OF_TOKENS = {"pool", "vault"}
CODE = re.compile(r"[A-Za-z0-9-]{1,40}")
BARE = {"log", "nodes"}
TOPICS_MAX = 8


def may_watch(topic: object, party: Any) -> bool:
    """A bare public kind, a public kind of any id or token, or what is this very party's own."""
    if not isinstance(topic, str):
        return False
    kind, _, key = topic.partition(":")
    if kind in OWN:
        return party is not None and key == str(party.id)
    if kind in PUBLIC:
        return _is_id(key)
    if kind in OF_TOKENS:
        return CODE.fullmatch(key) is not None
    return topic in BARE


def _is_id(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


class LiveConsumer(AsyncJsonWebsocketConsumer):
    """One page's watch."""

    topics: frozenset[str] = frozenset()

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        asked = content.get("watch") if isinstance(content, dict) else None
        if not isinstance(asked, list):
            await self.close(code=4400)
            return
        user = self.scope["user"]
        party = (
            await database_sync_to_async(selectors.party_of_user)(user)
            if user.is_authenticated
            else None
        )
        wanted = frozenset(t for t in asked[:TOPICS_MAX] if may_watch(t, party))
        for topic in self.topics - wanted:
            await self.channel_layer.group_discard(group_name(topic), self.channel_name)
        for topic in wanted - self.topics:
            await self.channel_layer.group_add(group_name(topic), self.channel_name)
        self.topics = wanted
        await self.send_json({"watching": sorted(wanted)})

    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        """Without a broker there is nothing to hear: closed with 1013, "try again later"."""
        try:
            return await super().__call__(scope, receive, send)
        except AWAY as error:
            outage.failed(error)
            await send({"type": "websocket.close", "code": 1013})

    async def live_again(self, event: dict[str, Any]) -> None:
        """The broker was away: the page reads itself once more, as after its first question."""
        await self.send_json({"watching": sorted(self.topics)})

    async def live_changed(self, event: dict[str, Any]) -> None:
        await self.send_json({"changed": event["topic"]})

    async def disconnect(self, code: int) -> None:
        for topic in self.topics:
            await self.channel_layer.group_discard(group_name(topic), self.channel_name)

    @classmethod
    async def decode_json(cls, text_data: str) -> Any:
        """None for what is not JSON: the socket is closed for it like for any other nonsense."""
        try:
            return json.loads(text_data)
        except ValueError:
            return None
