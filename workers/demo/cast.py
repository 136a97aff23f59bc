"""The people of the story: each with an account, an API key and a home directory of its own."""

from __future__ import annotations

import json
import os
import secrets
import threading
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workers.client.api import Api, ClientError
from workers.client.home import Home

SIGN_UPS_AT_ONCE = 3


@dataclass(frozen=True)
class Role:
    """One participant before it has an account."""

    key: str
    name: str
    kind: str
    part: str


COMPANY = Role("meridian-pharma", "Meridian Pharma", "organisation", "company")
OTHER_COMPANY = Role("borealis-biotech", "Borealis Biotech", "organisation", "company")
BACKERS = (
    Role("ada-lindqvist", "Ada Lindqvist", "person", "backer"),
    Role("bruno-costa", "Bruno Costa", "person", "backer"),
    Role("chiara-ricci", "Chiara Ricci", "person", "backer"),
)
VOTERS = (
    Role("dina-okafor", "Dina Okafor", "person", "voter"),
    Role("emil-novak", "Emil Novak", "person", "voter"),
    Role("farah-haddad", "Farah Haddad", "person", "voter"),
)
OPERATORS = (
    Role("node-house-one", "Node House One", "organisation", "operator"),
    Role("lakeside-computing", "Lakeside Computing", "organisation", "operator"),
    Role("university-cloud", "University Cloud", "organisation", "operator"),
)
VISITOR = Role("visitor", "Visitor", "person", "visitor")


class State:
    """What has been done, step by step, in one private file; a later run goes on from there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data: dict[str, Any] = {"run": uuid.uuid4().hex, "steps": {}, "cast": {}}
        if path.exists():
            try:
                self.data = json.loads(path.read_text(encoding="utf-8"))
            except ValueError:
                raise ClientError(f"{path} is damaged. Start over with --fresh.") from None

        self._lock = threading.Lock()

    def save(self) -> None:
        temporary = self.path.with_suffix(".tmp")
        with self._lock:
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(self.data, file, indent=1)
            temporary.replace(self.path)

    def put(self, name: str, value: Any) -> None:
        """Note a step's result."""
        with self._lock:
            self.data["steps"][name] = value
        self.save()

    def step(self, name: str, do: Callable[[], Any]) -> Any:
        """The result of `do`, which runs once in all runs. It must be JSON."""
        steps = self.data["steps"]
        if name not in steps:
            self.put(name, do())
        return steps[name]

    def get(self, name: str, default: Any = None) -> Any:
        return self.data["steps"].get(name, default)

    def key(self, name: str) -> str:
        """An idempotency key that is the same in every run of this story."""
        return str(uuid.uuid5(uuid.UUID(self.data["run"]), name))


class Cast:
    """Accounts and homes. `homes` of sites are made by the site generator."""

    def __init__(self, url: str, root: Path, state: State) -> None:
        self.url = url
        self.root = root
        self.state = state
        self._apis: dict[str, Api] = {}

    def home_path(self, key: str) -> Path:
        site = self.root / "sites" / key
        return site if site.is_dir() else self.root / "people" / key

    def home(self, key: str) -> Home:
        return Home(self.home_path(key))

    def entry(self, key: str) -> dict[str, Any]:
        return self.state.data["cast"][key]

    def api(self, key: str) -> Api:
        if key not in self._apis:
            self._apis[key] = self.home(key).api()
        return self._apis[key]

    def sign_up(self, roles: Sequence[Role]) -> None:
        """Open the accounts that are still missing, a few at a time."""
        missing = [role for role in roles if role.key not in self.state.data["cast"]]
        with ThreadPoolExecutor(SIGN_UPS_AT_ONCE) as pool:
            for role, entry in zip(missing, pool.map(self._sign_up, missing), strict=True):
                self.state.data["cast"][role.key] = entry
            self.state.save()

    def _sign_up(self, role: Role) -> dict[str, Any]:
        public = Api(self.url)
        password = secrets.token_urlsafe(12)
        for attempt in range(1, 10):
            mark = "" if attempt == 1 else f"-{attempt}"
            email = f"{role.key}{mark}@demo.example"
            body = {"email": email, "password": password, "name": role.name, "kind": role.kind}
            try:
                answer = public.post("accounts/", body)
            except ClientError as error:
                # An account whose key an interrupted run has lost: make another one.
                if error.code != "email_taken":
                    raise
                continue
            self.home(role.key).connect(url=self.url, api_key=answer["api_key"])
            public.close()
            party = answer["party"]
            return {
                "part": role.part,
                "name": role.name,
                "email": email,
                "password": password,
                "pid": party["pid"],
                "slug": party["slug"],
            }
        raise ClientError(f"No free e-mail address for {role.name}. Start over with --fresh.")

    def faucet(self, key: str, asset: str, amount_micro: int) -> None:
        """Test money, once per participant and asset."""
        name = f"faucet {key} {asset}"
        body = {"asset": asset, "amount_micro": str(amount_micro)}
        self.state.step(
            name,
            lambda: (
                self.api(key).post("wallet/faucet/", body, idempotency_key=self.state.key(name))
                and True
            ),
        )

    def balance(self, key: str, asset: str = "USDC") -> int:
        """What the participant has in hand, in micro-units."""
        lines = self.api(key).get("wallet/")["accounts"]
        return sum(
            int(line["posted_micro"])
            for line in lines
            if line["asset"] == asset and line["purpose"] == "main"
        )
