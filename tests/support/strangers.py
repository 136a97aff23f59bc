"""Who comes by: an account, a home of the SDK, money, and an address that is called."""

from __future__ import annotations

import json
import queue
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from apps.protocol import webhooks
from apps.protocol.consent import ANY_LISTING
from workers.client.api import Api
from workers.client.buyer import Buyer
from workers.client.home import Home
from workers.client.wallet import Wallet

CALLED_WITHIN_S = 30.0
TOLD = ["inference.settled", "inference.released", "plan.withdrawn"]
Json = dict[str, Any]


class Receiver(ThreadingHTTPServer):
    """Keeps every call that it gets, by path: (headers, body)."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Call)
        self.calls: dict[str, queue.Queue[tuple[dict[str, str], bytes]]] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Call(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.calls[self.path].put((dict(self.headers), body))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def receiving() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class Stranger:
    """An organisation that has just signed up, at the site and at the receiver."""

    def __init__(self, url: str, folder: Path, name: str, receiver: Receiver) -> None:
        made = {
            "email": f"{name}-{secrets.token_hex(4)}@example.org",
            "name": name.title(),
            "kind": "organisation",
        }
        made["password"] = secrets.token_urlsafe(20)
        answer = Api(url).post("accounts/", made)
        self.url, self.party, self.home = url, answer["party"], Home(folder / name)
        self.home.connect(url=url, api_key=answer["api_key"])
        self.api, self.wallet = self.home.api(), Wallet(self.home)
        self._calls = receiver.calls.setdefault(f"/{name}", queue.Queue())
        hook = self.api.post("webhooks/", {"url": f"{receiver.url}/{name}", "events": TOLD})
        self._secret, self._ids = hook["secret"], set[str]()

    def funded(self, amount_micro: int) -> None:
        money = {"asset": "USDC", "amount_micro": str(amount_micro)}
        self.api.post("wallet/faucet/", money, idempotency_key=secrets.token_hex(8))

    @property
    def money(self) -> tuple[int, int]:
        """What it has, and what of it is held."""
        rows = self.api.get("wallet/")["accounts"]
        main = [row for row in rows if (row["asset"], row["purpose"]) == ("USDC", "main")]
        posted, held = (
            sum(int(row[name]) for row in main) for name in ("posted_micro", "held_micro")
        )
        return posted, held

    def buyer(self, listing: str, *, api: Api | None = None) -> Buyer:
        return Buyer(self.home, listing, api=api)

    def told(self) -> tuple[str, Json]:
        """(event, data) of the next call; a call whose signature does not check fails, and one
        that came before is passed over."""
        while True:
            headers, body = self._calls.get(timeout=CALLED_WITHIN_S)
            call_id = webhooks.verify(self._secret, headers, body, now=int(time.time()))
            if call_id not in self._ids:
                self._ids.add(call_id)
                said = json.loads(body)
                return said["type"], said["data"]

    def mandate(self, limit_micro: int, listing: str = ANY_LISTING) -> None:
        """The wallet key, bound now, lets this program's API key spend so much."""
        self.wallet.bind()
        [key] = self.api.get("keys/")["results"]
        self.wallet.mandate(limit_micro=limit_micro, days=1, listing=listing, api_key=key["prefix"])
