"""A wallet at the command line: its keys, and what is done with them, signed on this machine.

`wallet.key` and `recovery.key` lie in the home like the others. What is signed is made here, from
the command, never from what the server shows: a false answer can refuse, not act.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from apps.protocol import consent, credentials, tally, wire
from apps.protocol.consent import RECOVERY, WALLET
from workers.client.api import Api, ClientError
from workers.client.home import Home
from workers.client.proofs import DAY_MS, DAYS_MAX, lent

LIFETIME_MS = 5 * 60_000


class Wallet:
    """The party that the home speaks for, with the keys that lie in the home."""

    def __init__(self, home: Home, *, clock: Callable[[], float] = time.time) -> None:
        self.home = home
        self.api: Api = home.api()
        self.clock = clock

    def show(self) -> dict[str, Any]:
        """{"pid", "keyed", "next_nonce", "keys": {purpose: public key}} of the party."""
        return dict(self.api.get("wallet/keys/"))

    # -- keys

    def bind(self, purpose: str = WALLET) -> dict[str, Any]:
        """Bind the home's wallet or recovery key, made at first use.

        Another key that is bound already is replaced, if the home has the key which may do that.
        """
        key = self.home.wallet_key(purpose)
        state = self.show()
        public = wire.public_hex(key)
        if state["keys"].get(purpose) == public:
            return state
        payload = consent.key_payload(purpose=purpose, public_key=public)
        return self._bound(key, purpose, self._change(state, consent.BIND, purpose, payload))

    def rotate(self) -> dict[str, Any]:
        """Replace the wallet key by a fresh one, signed by the old or the recovery key."""
        state = self.show()
        fresh = self.home.next_wallet_key()
        payload = consent.key_payload(purpose=WALLET, public_key=wire.public_hex(fresh))
        signed = self._change(state, consent.BIND, WALLET, payload)
        answer = self._bound(fresh, WALLET, signed)
        self.home.take_next_wallet_key()
        return answer

    def revoke(self, purpose: str = WALLET) -> dict[str, Any]:
        state = self.show()
        if purpose not in state["keys"]:
            raise ClientError(f"No {purpose} key is bound.")
        payload = consent.key_payload(purpose=purpose, public_key=state["keys"][purpose])
        signed = self._change(state, consent.REVOKE, purpose, payload)
        return dict(self.api.post("wallet/keys/revoke/", {"purpose": purpose, "signed": signed}))

    # -- actions

    def send(
        self, *, to: str, asset: str, amount_micro: int, memo: str = "", key: str | None = None
    ) -> dict[str, Any]:
        """Pay a party by its short name. `key`: the same one again never pays twice."""
        payee = self.api.get(f"parties/{to}/")
        payload = consent.send_payload(to=payee["pid"], asset=asset, amount_micro=amount_micro)
        body = {"to": to, "asset": asset, "amount_micro": str(amount_micro), "memo": memo}
        return self._act("wallet/transfers/", body, consent.SEND, payload, key)

    def stake(
        self, *, asset: str, amount_micro: int, back: bool = False, key: str | None = None
    ) -> dict[str, Any]:
        """Stake, or with `back` take staked tokens back."""
        payload = consent.stake_payload(asset=asset, amount_micro=amount_micro)
        path, kind = ("unstakes", consent.UNSTAKE) if back else ("stakes", consent.STAKE)
        return self._act(f"wallet/{path}/", payload, kind, payload, key)

    def mandate(
        self, *, limit_micro: int, days: int, listing: str = consent.ANY_LISTING, api_key: str = ""
    ) -> dict[str, Any]:
        """Let predictions take so much in all, for requests with the API key of this prefix ("" for
        the signed-in browser), signed once."""
        payload = consent.mandate_payload(
            listing=listing,
            limit_micro=limit_micro,
            until_ms=int(self.clock() * 1000) + days * 86_400_000,
            api_key=api_key,
        )
        body = payload | {"until_ms": int(payload["until_ms"])}
        return self._act("mandates/", body, consent.MANDATE, payload, None)

    def plan_preview(self, *, listing: str, plan: str) -> dict[str, Any]:
        """What having this plan of a listing ("": none) would cost or give back now."""
        return dict(self.api.post(f"listings/{listing}/plan/preview/", {"plan": plan}))

    def plan_set(self, seen: Mapping[str, Any], *, key: str | None = None) -> dict[str, Any]:
        """Do what a preview of the last five minutes said, or nothing."""
        names = ("plan", "at_ms", "rows", "due_micro", "refund_micro")
        body = {name: seen[name] for name in names}
        payload = consent.plan_payload(
            listing=seen["listing"],
            plan=seen["plan"],
            at_ms=int(seen["at_ms"]),
            rows=int(seen["rows"]),
            due_micro=int(seen["due_micro"]),
            refund_micro=int(seen["refund_micro"]),
        )
        return self._act(f"listings/{seen['listing']}/plan/", body, consent.PLAN, payload, key)

    def plan_renew(self, *, listing: str, on: bool = True) -> dict[str, Any]:
        """Let the plan renew itself at its end, for no more than it costs now; or no more."""
        agreed = None
        if on:
            mine = self.api.get(f"listings/{listing}/plan/")
            offered = self.api.get(f"listings/{listing}/")["plans"]
            plan = next((plan for plan in offered if plan["name"] == mine["plan"]), None)
            if plan is None:
                raise ClientError("Your plan is not on offer any more.", code="plan_not_found")
            agreed = {"rows": plan["rows"], "days": plan["days"], "max_micro": plan["price_micro"]}
        return dict(self.api.post(f"listings/{listing}/plan/renewal/", {"renewal": agreed}))

    def credentials(self, *, issued: bool = False) -> list[dict[str, Any]]:
        """Those that the party holds, or has issued; the newest fifty."""
        return list(self.api.get("credentials/", role="issued" if issued else "held")["results"])

    def issue(
        self, *, to: str, credential: str, days: int, subject_key: str = ""
    ) -> dict[str, Any]:
        """Say of a party by its short name that it is this. subject_key: its wallet key, where you
        have it from the party itself; else as the site knows it. The log's readers compare it."""
        subject = self.api.get(f"parties/{to}/")
        payload = credentials.issue_payload(
            credential=credential,
            subject=subject["pid"],
            key=subject_key or subject.get("wallet_key") or "",
            until_ms=int(self.clock() * 1000) + days * 86_400_000,
        )
        body = payload | {"until_ms": int(payload["until_ms"])}
        if not payload["key"]:
            raise ClientError(f"{to} has no wallet key yet.", code="subject_has_no_key")
        return self._act("credentials/", body, credentials.ISSUE, payload, None)

    def take_back(self, credential_id: str) -> dict[str, Any]:
        """Revoke a credential that the party has issued."""
        payload = credentials.revoke_payload(id=credential_id)
        path = f"credentials/{credential_id}/revoke/"
        return self._act(path, {}, credentials.REVOKE, payload, None)

    def lend(self, *, to: str, days: int, credential: str = "") -> dict[str, Any]:
        """What lets tickets signed by another key ask by a credential of yours, the newest in force
        or of this kind. Nothing is sent; nor can it be taken back before it ends."""
        if not wire.is_hex(to, 32):
            raise ClientError("A key is 64 hex digits: `key` prints that of a home.")
        if not 0 < days <= DAYS_MAX:
            raise ClientError(f"A credential is lent for 1 to {DAYS_MAX} days.")
        key = self._own(self.show(), [WALLET])
        for row in self.credentials():
            own = row["payload"]["key"] == wire.public_hex(key) and row["state"] == "in_force"
            if own and credential in ("", row["credential"]):
                until_ms = int(self.clock() * 1000) + days * DAY_MS
                self.home.journal.write("lent", credential=row["id"], to=to, until_ms=until_ms)
                return lent(row, key, asker=to, until_ms=until_ms)
        raise ClientError(
            f"You hold no credential{f' “{credential}”' * bool(credential)} in force of that key.",
            code="credential_needed",
        )

    def vote(self, *, proposal: str, support: str) -> dict[str, Any]:
        payload = consent.vote_payload(proposal=proposal, support=support)
        path = f"proposals/{proposal}/votes/"
        return self._act(path, {"support": support}, consent.VOTE, payload, None)

    def propose(
        self, *, dao: str, kind: str, payload: Mapping[str, Any], title: str, description: str = ""
    ) -> dict[str, Any]:
        """The payload as the action writes it: what is signed is its hash, and the server's too."""
        pid = self.api.get(f"subdaos/{dao}/")["pid"]
        hash_ = tally.payload_hash(dao=pid, kind=kind, payload=payload)
        asked = consent.propose_payload(dao=pid, kind=kind, payload_hash=hash_)
        body = {"dao": dao, "kind": kind, "payload": dict(payload), "title": title}
        body["description"] = description
        return self._act("proposals/", body, consent.PROPOSE, asked, str(uuid.uuid4()))

    def _act(
        self,
        path: str,
        body: dict[str, Any],
        kind: str,
        payload: Mapping[str, Any],
        key: str | None,
    ) -> dict[str, Any]:
        state = self.show()
        if state["keyed"]:
            body = body | {"signed": self._signed(state, self._own(state, [WALLET]), kind, payload)}
        return dict(self.api.post(path, body, idempotency_key=key or str(uuid.uuid4())))

    def _bound(
        self, key: Ed25519PrivateKey, purpose: str, signed: dict[str, Any] | None
    ) -> dict[str, Any]:
        public = wire.public_hex(key)
        content = consent.possession(self.show()["pid"], purpose, public)
        body = {
            "purpose": purpose,
            "public_key": public,
            "signature": wire.sign(key, consent.KEY_DOMAIN, content),
            "signed": signed,
        }
        return dict(self.api.post("wallet/keys/bind/", body))

    def _change(
        self, state: Mapping[str, Any], kind: str, purpose: str, payload: Mapping[str, Any]
    ) -> dict[str, Any] | None:
        needed = consent.signers(purpose, state["keys"])
        if not needed:
            return None
        return self._signed(state, self._own(state, sorted(needed, reverse=True)), kind, payload)

    def _own(self, state: Mapping[str, Any], purposes: list[str]) -> Ed25519PrivateKey:
        """The first key of these purposes that is bound and lies in this home."""
        for purpose in purposes:
            for key in self.home.wallet_keys(purpose):
                if wire.public_hex(key) == state["keys"].get(purpose):
                    return key
        raise ClientError(
            f"{self.home.path} does not have the {' or '.join(purposes)} key that is bound. Run "
            "this where that key was made.",
            code="no_key",
        )

    def _signed(
        self,
        state: Mapping[str, Any],
        key: Ed25519PrivateKey,
        kind: str,
        payload: Mapping[str, Any],
    ) -> dict[str, Any]:
        fields = {
            "key": wire.public_hex(key),
            "nonce": int(state["next_nonce"]),
            "expires_at": int(self.clock() * 1000) + LIFETIME_MS,
        }
        said = consent.message(pid=state["pid"], kind=kind, payload=payload, **fields)
        self.home.journal.write("signed", kind=kind, payload=dict(payload), nonce=fields["nonce"])
        return fields | {"signature": wire.sign(key, consent.ACTION_DOMAIN, said)}


__all__ = ["RECOVERY", "WALLET", "Wallet"]
