"""Refreshing: all members put their models into new shares together, or none does.

1. They tell each other what they keep.
2. Each gives entropy; each adds the same fresh sharing of zero to what it holds (mpc/refresh.py, of
   Shamir shares mpc/shamir_refresh.py), and writes the new words beside the old ones.
3. Each signs what it holds now. Who has all members' receipts has the proof: it throws the old
   words away and seals everything under a new key, whose predecessor it destroys.

A node that died in between asks the others when it is back: one that has the proof shows it. Until
then it keeps both. What is staged is given up only in a refresh in which all its members take part
and none has the proof: then nobody ever will.

A node that was away, or was shown late what the others had committed, copies each model that two
others keep alike in a later sharing than its own: with one node against it, that is a true one. It
goes forward only, and takes the number of a refresh only as two prove it and when it has all the
sharings that those have. In the same way it copies a model that does not open here any more: its
file is damaged. Until it has, that model is one that it lacks, and the others are refreshed.
Of Shamir shares t + 1 others must tell, and find its new share for it; 2t + 1 refresh, so that any
t of them may fall afterwards and nothing is lost.

Nobody outside learns anything: what leaves a node are salted hashes of words.
"""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from apps.protocol import refreshes, wire
from apps.protocol.jobs import JobError
from apps.protocol.tickets import SHAMIR, holders_of
from workers.mpc.engines.counted import Disagreement
from workers.mpc.fixed import to_bytes
from workers.mpc.keeping import SALT_BYTES, Group
from workers.mpc.refresh import ENTROPY_BYTES, Zeros
from workers.mpc.replicated import held_by
from workers.mpc.sessions import PeerAborted, Session
from workers.mpc.shamir_refresh import ZeroShares, agree_on_keys
from workers.mpc.transport import TransportError
from workers.node import policy, storekey
from workers.node.copies import REFRESHED, TOLD_BY, Copies, engine_of, tellers
from workers.node.errors import Conflict, Malformed, NodeError, Refused, Unavailable
from workers.node.home import Node, Peers
from workers.node.records import Sharing, StoredModel
from workers.node.resharing import exchanged, reshare
from workers.node.store import Store

if TYPE_CHECKING:
    from workers.mpc.mesh import Mesh

STAGED = "refresh-staged"  # the note of what is staged: {"refresh", "receipt", "signature"}
STATE_SEQ, ENTROPY_SEQ, RECEIPT_SEQ = 1, 2, 3
LATELY_S = 60.0  # jobs that began with the old words may still be compared with new ones
LOOK_EVERY_S = 60.0
BUSY_S = 5.0

Json = dict[str, Any]

log = logging.getLogger("flai.refresh")


class Told(NamedTuple):
    """What another node says that it keeps."""

    number: int  # of the last refresh that it proves
    proof: Any
    kept: dict[str, Sharing]


class Refreshing:
    """One node's part in refreshes. All methods block and may be called from any thread."""

    def __init__(
        self, *, node: Node, peers: Peers, store: Store, mesh: Mesh, copies: Copies
    ) -> None:
        self._node = node
        self._peers = peers
        self._store = store
        self._mesh = mesh
        self._copies = copies
        self._me = node.index
        self._n = len(peers.nodes)
        self._one = threading.Lock()
        self._wake = threading.Event()
        self._renewed_at = -LATELY_S
        last = store.note(REFRESHED)
        if last is not None and last["proof"]["refresh"]["nodes"] not in peers.sets:
            store.forget_note(REFRESHED)  # a set that follows no other counts from one

    def state(self) -> Json:
        """{"number", "proof"} of the last refresh; number 0 before the first."""
        return self._store.note(REFRESHED) or {"number": 0}

    def run(self, refresh: Any, signature: Any) -> Json:
        """{"receipt", "signature"} once this node keeps the new shares only; the same again for a
        refresh that is done.

        Raises: Malformed, Refused, Conflict("other_number", "busy"), Unavailable.
        """
        policy.coordinator_signed_it(
            refresh,
            signature,
            coordinator=self._peers.coordinator,
            domain=refreshes.REFRESH_DOMAIN,
        )
        try:
            name = refreshes.check_refresh(refresh)
        except JobError as error:
            raise Malformed(error.code, error.text) from None
        if refresh["nodes"] != list(self._peers.fingerprints):
            raise Refused("wrong_nodes", "The refresh is for another set of nodes.")
        if self._me not in refresh["members"]:
            raise Refused("not_a_member", "This node takes no part in this refresh.")
        try:
            with self._alone():
                self._store.examine()  # what does not open is copied now, or left out
                with suppress(NodeError):  # then the number shows whether it can take part
                    self._catch_up()
                state = self.state()
                if state["number"] == refresh["after"]:
                    self._refresh(refresh, name)
                    state = self.state()
                if state["number"] == 0 or state["proof"]["refresh"] != refresh:
                    raise Conflict("other_number", f"It is at {state['number']}.", retryable=True)
        except NodeError as error:
            self._mesh.refuse(_session_id(name), error.code, members=refresh["members"])
            if error.retryable:  # another one may be done without this node
                self._wake.set()
            raise
        signed: list[Json] = state["proof"]["receipts"]
        return next(one for one in signed if one["receipt"]["node"] == self._node.fingerprint)

    def catch_up(self) -> bool:
        """Take over what the others have refreshed without this node, or while it fell; whether it
        did. Raises: Conflict("busy")."""
        with self._alone():
            return self._catch_up()

    def _catch_up(self) -> bool:
        number, staged, told = self.state()["number"], self._store.note(STAGED), self._told()
        ahead = sorted((t for t in told if t.number > number), key=lambda t: -t.number)
        for one in ahead:
            if staged is not None and _proves(one.proof, staged):
                self._renew(one.proof)
                return True
        then = ahead[TOLD_BY - 1] if len(ahead) >= TOLD_BY else None
        proved = [] if then is None else [t.kept for t in ahead if t.number >= then.number]
        later, sure = {}, True
        for model, ticket in self._store.tickets().items():
            mine, least = Sharing.of(ticket), tellers(ticket)
            said = [t.kept[model] for t in told if model in t.kept]
            latest = max([mine, *(s for s in said if said.count(s) >= least)])
            if latest.renewed > mine.renewed:
                later[model] = latest.name
            said = [kept[model] for kept in proved if model in kept]
            sure &= said.count(latest) >= least or max([latest, *said]) == latest
        copied = self._copied({model: [name] for model, name in later.items()})
        sure &= len(copied) == len(later)
        taken = then.proof if then is not None and sure else None
        copied |= self._copied(self._repairs(told))
        if taken is None and not copied:
            return False
        self._renew(taken, copied)
        return True

    def _repairs(self, told: Sequence[Told]) -> dict[str, list[str]]:
        """Models that do not open here any more, in what sharings two others at least keep them
        alike: the latest first. Of Shamir shares two may be wrong, and `copy` asks for more."""
        found = {}
        for model in sorted(self._store.damaged):
            said = [t.kept[model] for t in told if model in t.kept]
            sure = {sharing for sharing in said if said.count(sharing) >= TOLD_BY}
            found[model] = [sharing.name for sharing in sorted(sure, reverse=True)]
        return found

    def _copied(self, wanted: Mapping[str, Sequence[str]]) -> dict[str, StoredModel]:
        """Each model in the first of these sharings that the others give; one that they do not give
        now is left out and holds up no other."""
        found = {}
        for model, sharings in wanted.items():
            for sharing in sharings:
                try:
                    found[model] = self._copies.copy(model, sharing)
                    break
                except Unavailable as error:
                    log.warning("cannot copy", extra={"model": model, "code": error.code})
        return found

    def wake(self) -> None:
        """Something has changed: look after what the others have now."""
        self._wake.set()

    def moved(self, model: str | None, sharing: str | None) -> bool:
        """May members have begun a job on old and new shares of this model? Then it is worth
        another attempt."""
        if model is None:
            return False
        mine = self._store.kept().get(model)
        if mine is None or mine.name != sharing:
            return True
        if self._store.note(STAGED) or time.monotonic() - self._renewed_at < LATELY_S:
            self._wake.set()  # it may be the next one already
            return True
        told = [one.kept.get(model, mine) for one in self._told()]
        if all(sharing.renewed == mine.renewed for sharing in told):  # or they disagree for ever
            return False
        self._wake.set()
        return True

    def watch(self, stopping: threading.Event) -> None:
        """Look after what the others have, now and then, until the node stops."""
        self._wake.wait(1.0)
        while not stopping.is_set():
            self._wake.clear()
            try:
                self.catch_up()
            except NodeError as error:
                log.warning("cannot catch up", extra={"code": error.code})
            except Exception as error:  # the next look may go better
                log.error("catching up failed", extra={"kind": type(error).__name__})
            self._wake.wait(LOOK_EVERY_S)

    def stop(self) -> None:
        self._wake.set()

    # ---- together -----------------------------------------------------------------------------

    def _refresh(self, refresh: Json, name: str) -> None:
        try:
            deadline = time.monotonic() + refresh["deadline_s"]
            session = self._mesh.open(
                _session_id(name), deadline=deadline, members=refresh["members"]
            )
            try:
                self._together(session, refresh, name)
            except BaseException as error:
                session.abort(error.code if isinstance(error, NodeError) else "peer_lost")
                raise
            finally:
                session.close()
        except PeerAborted as error:
            raise Unavailable("peer_refused", f"{error}.") from None
        except TransportError as error:
            raise Unavailable("peer_lost", f"{error}.") from None
        except (Disagreement, ValueError, KeyError, TypeError, RecursionError):
            raise Refused("bad_inputs", "A member broke the protocol.") from None

    def _together(self, session: Session, refresh: Json, name: str) -> None:
        self._decided(refresh)
        if refresh["type"] == "reshare":
            receipt = self._reshare(session, refresh, name)
        else:
            tickets = self._store.tickets(self._peers.sets)
            models, left = self._common(session, refresh, tickets)
            zeros, salts = self._entropy(session, refresh, name)
            thresholds = {SHAMIR.get(engine_of(tickets[model]), 0) for model, _ in models} - {0}
            shamir = self._zero_shares(session, refresh, name, thresholds)
            receipt = self._stage(refresh, name, models, left, zeros, salts, shamir)
        signature = wire.sign(self._node.sign_key, refreshes.REFRESHED_DOMAIN, receipt)
        mine = {"receipt": receipt, "signature": signature}
        theirs = exchanged(session, RECEIPT_SEQ, wire.canonical(mine))
        proof = {
            "refresh": refresh,
            "receipts": [json.loads(said) for said in theirs.values()],
            "keys": refreshes.keys_of([self._peers.nodes[i] for i in refresh["members"]]),
        }
        self._renew(proof)

    def _decided(self, refresh: Json) -> None:
        """What is staged may be given up here: all its members are there. Raises: Unavailable."""
        staged = self._store.note(STAGED)
        if staged and not set(staged["refresh"]["members"]) <= set(refresh["members"]):
            raise Unavailable("undecided", "An earlier refresh waits for a node that is away.")
        if staged and staged["refresh"] == refresh:  # with other entropy it would be another one
            raise Refused("undecided", "This refresh is staged here: it is not begun again.")

    def _reshare(self, session: Session, asked: Json, name: str) -> Json:
        """A model of another node set in this one's shares, staged; what this node signs of it."""
        model = asked["model"]
        came = reshare(
            session,
            asked,
            name,
            fingerprints=self._peers.fingerprints,
            mine=self._store.model(model),
        )
        receipt = self._receipt(asked, name, [(model, came.before)], 0, came.hashes)
        if came.engine is not None:
            receipt["engine"] = came.engine
        with self._store.together():
            self._store.stage_renewed([(model, came.model)])
            self._store.put_note(STAGED, {"refresh": asked, "receipt": receipt})
        return receipt

    def _receipt(
        self,
        refresh: Json,
        name: str,
        models: Sequence[tuple[str, str]],
        left: int,
        hashes: dict[str, str],
    ) -> Json:
        return {
            "v": 1,
            "refresh": name,
            "number": refresh["after"] + 1,
            "models": refreshes.models_digest(models),
            "count": len(models),
            "left": left,
            "result": hashes,
            "node": self._node.fingerprint,
            "at": int(time.time()),
        }

    def _common(
        self, session: Session, refresh: Json, tickets: dict[str, Json]
    ) -> tuple[list[tuple[str, str]], int]:
        """The models that all members keep in the same shares, and how many they keep besides. What
        one of them lacks stays as it is: a commit that is still on its way, say. So does a model in
        Shamir shares of which fewer than 2t + 1 would have new ones."""
        mine = [[model, Sharing.of(ticket).name] for model, ticket in tickets.items()]
        told = exchanged(session, STATE_SEQ, wire.canonical(mine))
        kept = [{(str(m), str(s)) for m, s in json.loads(said)} for said in told.values()]
        common, members = sorted(set.intersection(*kept)), len(refresh["members"])
        renewed = [pair for pair in common if members >= holders_of(engine_of(tickets[pair[0]]))]
        return renewed, len({m for said in kept for m, _ in said} - {m for m, _ in renewed})

    def _zero_shares(
        self, session: Session, refresh: Json, name: str, thresholds: Collection[int]
    ) -> dict[int, ZeroShares]:
        """Of each threshold that a model in Shamir shares has, sharings of zero of everybody's
        making."""
        context, members = bytes.fromhex(name), refresh["members"]
        keys = {t: agree_on_keys(session, members, t, context) for t in sorted(thresholds)}
        return {t: ZeroShares(of_t, self._me) for t, of_t in keys.items()}

    def _entropy(
        self, session: Session, refresh: Json, name: str
    ) -> tuple[Zeros, dict[int, bytes]]:
        """Fresh sharings of zero of everybody's making, and a salt for each word that I hold, which
        the node that lacks the word lacks too."""
        members = tuple(refresh["members"])
        group, mine = Group(self._n, members), secrets.token_bytes(ENTROPY_BYTES)
        salts = {j: secrets.token_bytes(SALT_BYTES) for j in group.made_for(self._me, self._me)}
        for peer in members:
            if peer != self._me:
                for_peer = [salts.get(j, b"") for j in group.made_for(self._me, peer)]
                session.send(peer, ENTROPY_SEQ, mine + b"".join(for_peer))
        entropy = {self._me: mine}
        for peer in members:
            if peer == self._me:
                continue
            data, made = bytes(session.recv(peer, ENTROPY_SEQ)), group.made_for(peer, self._me)
            if len(data) != ENTROPY_BYTES + SALT_BYTES * len(made):
                raise ValueError("a member's entropy has the wrong size")
            entropy[peer] = data[:ENTROPY_BYTES]
            for at, j in enumerate(made):
                start = ENTROPY_BYTES + at * SALT_BYTES
                salts[j] = data[start : start + SALT_BYTES]
        context = bytes.fromhex(name)
        return Zeros(context, [entropy[i] for i in members], self._n), salts

    def _stage(
        self,
        refresh: Json,
        name: str,
        models: Sequence[tuple[str, str]],
        left: int,
        zeros: Zeros,
        salts: dict[int, bytes],
        shamir: dict[int, ZeroShares],
    ) -> Json:
        """Write the new shares beside the old ones; what this node signs of them."""
        held = held_by(self._me, self._n)
        hashes = {j: hashlib.sha256(salts[j]) for j in held}

        def renewed() -> Iterator[tuple[str, StoredModel]]:
            for model, _sharing in models:
                old = self._store.model(model)
                assert old is not None  # nothing that is committed is ever deleted
                named = old.ticket | refreshes.named_after(old.ticket, name)
                if (t := SHAMIR.get(engine_of(old.ticket))) is not None:
                    share = shamir[t].add_to(old.words)  # whose hash nobody signs
                    yield model, StoredModel(ticket=named | {"salts": {}}, words=share)
                    continue
                words = zeros.add_to(dict(zip(held, old.words, strict=True)))
                for j, word in words.items():
                    hashes[j].update(to_bytes(word))
                of_model = {
                    str(j): hashlib.sha256(salts[j] + bytes.fromhex(model)).hexdigest()
                    for j in held
                }
                new = tuple(words[j] for j in held)
                yield model, StoredModel(ticket=named | {"salts": of_model}, words=new)

        with self._store.together():
            self._store.stage_renewed(renewed())
            told = {str(j): hash_.hexdigest() for j, hash_ in hashes.items()}
            receipt = self._receipt(refresh, name, models, left, told)
            self._store.put_note(STAGED, {"refresh": refresh, "receipt": receipt})
        return receipt

    # ---- alone --------------------------------------------------------------------------------

    def _told(self) -> list[Told]:
        """What the others keep, and what they prove."""
        told = self._copies.told({"refreshed": True}, _read)
        return [
            one._replace(number=self._number_of(one.proof, peer) if one.number else 0)
            for peer, one in told
        ]

    def _renew(self, proof: Json | None, copied: dict[str, StoredModel] | None = None) -> None:
        """From here on the new shares alone, under a new key; after that refresh, if there is a
        proof of one."""
        number = self.state()["number"] if proof is None else self._number_of(proof, self._me)
        if proof is not None and not number:
            raise Refused("receipts_disagree", "The members do not hold the same new shares.")
        key = storekey.begin(self._node.home, self._node.root_key, self._store)
        with self._store.rekeyed(key):
            self._store.renew(proof["refresh"]["id"] if proof else "", copied)
            if proof is not None:
                self._store.stage_renewed(())
                self._store.forget_note(STAGED)
                self._store.put_note(REFRESHED, {"number": number, "proof": proof})
        storekey.settle(self._node.home)
        self._renewed_at = time.monotonic()
        log.info("refreshed", extra={"number": number, "copied": len(copied or ())})

    def _number_of(self, proof: Any, peer: int) -> int:
        """Of a refresh that all its members signed for; 0 of anything else."""
        keys = self._peers.sign_keys(range(self._n))
        try:
            return refreshes.check_proof(
                proof,
                nodes=self._peers.fingerprints,
                sign_keys=keys,
                former=self._peers.former,
            )
        except JobError as error:
            log.warning("no proof", extra={"peer": peer, "code": error.code, "why": error.text})
            return 0

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._one.acquire(timeout=BUSY_S):
            raise Conflict("busy", "A refresh is under way.", retryable=True)
        try:
            yield
        finally:
            self._one.release()


def _proves(proof: Json, staged: Json) -> bool:
    """Did all members sign for what is staged here, and not for what another run gave?"""
    return any(one["receipt"] == staged["receipt"] for one in proof["receipts"])


def _read(data: bytes) -> Told:
    """Raises: ValueError, KeyError, TypeError for what is no answer."""
    said = json.loads(data)
    if not isinstance(said, dict) or not isinstance(said["sharings"], dict):
        raise ValueError("that is no state of a node")
    kept = {model: Sharing(*sharing) for model, sharing in said["sharings"].items()}
    numbers = (said["number"], *(sharing.renewed for sharing in kept.values()))
    names = [sharing.name for sharing in kept.values()]
    if any(type(n) is not int for n in numbers) or any(type(s) is not str for s in names):
        raise ValueError("that is no state of a node")
    return Told(said["number"], said.get("proof"), kept)


def _session_id(name: str) -> bytes:
    """16 bytes naming one refresh."""
    return hashlib.sha256(f"flai/refresh-session/v1\0{name}".encode()).digest()[:16]
