"""The auditor: checks a server's log without trusting the server (RFC 9162 §2.1).

1. The log's key is the one given, or the one pinned at the first check.
2. The newest head is signed by it and not old; the head seen last time is a beginning of it.
3. Every entry is fetched, hashed again, and their root is the head's. What a user holds is found
   among them.
4. The entries are replayed: see `replay`. None is stamped after the first signed head that covers
   it, of the newest and those of earlier checks.
5. t + 1 = 2 of the pinned nodes have signed a head that is a beginning of this log, so that nobody
   is shown another one; with fewer, the report says that the server alone vouches for that.
6. Each round's φ, evidence and model are what its nodes signed for, over the roster that the log
   names, and they ask of who asks the model what the log says. The nodes are those that are
   pinned, or those of the first check, and their successors by what these signed as one node set.
7. Each SubDAO was founded with what the request said whose hash was voted on.
"""

from __future__ import annotations

import errno
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from apps.protocol import heads, merkle, wire
from apps.protocol.contribution import without_copies
from apps.protocol.credentials import demand_named
from apps.protocol.heads import HEAD_DOMAIN
from apps.protocol.jobs import OPENINGS_DOMAIN, JobError, check_node
from apps.protocol.successions import successions_after
from apps.protocol.tickets import TicketError, check_roster, members_with_role
from workers.client.api import Api, ClientError
from workers.client.earnings import Made
from workers.client.founded import not_as_requested, slug_of
from workers.client.nodes import signed_for
from workers.client.replay import AHEAD_MS, Replay, undisturbed

PAGE = 1000
HEADS_KEPT = 256
TRADED = re.compile(r"\b(pool|vault|unstaking|slashing)\b")
COSIGNED_WITHIN_MS = 3_600_000
FOUND_MAX = 5
SCORED = ("update", "rows")  # what a custodian shares to be scored


@dataclass(frozen=True)
class Check:
    ok: bool
    text: str


@dataclass
class Report:
    """What was checked, in order; `size` is the number of entries in the log."""

    checks: list[Check] = field(default_factory=list)
    size: int = 0

    @property
    def ok(self) -> bool:
        return bool(self.checks) and all(check.ok for check in self.checks)

    def add(self, ok: bool, good: str, bad: str) -> bool:
        self.checks.append(Check(ok, good if ok else bad))
        return ok


class Auditor:
    """One check of one server.

    `key` is the log's public key and `sets` are node sets (fingerprints) from elsewhere, where
    known: each a whole one, as it was at some time, since its successors are followed.
    `has`: what must stand in the log, each an entry's hash, or what an entry names, by commas.
    """

    def __init__(
        self,
        api: Api,
        *,
        state: Path | None = None,
        key: str | None = None,
        sets: Sequence[Sequence[str]] | None = None,
        has: Sequence[str] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.api, self.clock = api, clock
        self.state_path = state
        self.known = _read_state(state)
        self.given_key = key
        self.given_sets, self.has = sets, has
        self.sets: list[list[str]] = []  # that are trusted before any successor is followed
        self.nodes: set[str] = set()
        self.places: dict[str, str] = {}  # of each: alike for all keys of one node's place
        self.report = Report()

    def run(self) -> Report:
        if self.state_path is not None:
            _try_writing(self.state_path)  # before the long work, not after it
        key = self._key()
        cosigned = self._fetch_cosigned()  # first: the head that comes after is no shorter
        head = self.api.get("log/head/")
        if key is None or not self._head_signed(key, head):
            return self.report
        self._going(head)
        leaves = list(self._entries(head["size"]))
        hashes = [merkle.leaf_hash(data) for data in leaves]
        self.report.size = len(leaves)
        self._hashes_match(hashes)
        size, frontier, _ = merkle.extend(0, [], hashes)
        same = size == head["size"] and merkle.frontier_root(frontier).hex() == head["root"]
        self.report.add(
            same,
            f"all {size} entries hash to the head's root {head['root'][:12]}…",
            f"the {size} entries do not hash to the head's root{self._where(key, size, hashes)}"
            if not same
            else "",
        )
        self._holds(leaves, hashes)
        self._consistent(key, head, hashes)
        state = self._replayed(leaves, head)
        self._receipted(state)
        self._founded(state)
        self._cosigned(key, cosigned, head, hashes)
        if self.report.ok and self.state_path is not None:
            content = {"url": self.api.url, "key": key, "head": _head_facts(head)}
            sets = self.sets or [sorted(self.nodes)] * bool(self.nodes)
            content |= {"nodes": sets, "heads": self._remembered(head)}
            temporary = _beside(self.state_path)
            temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
            temporary.replace(self.state_path)
        return self.report

    def _key(self) -> str | None:
        served = self.api.get("log/key/")["public_key"]
        expected, how = self.given_key, "the key that you gave"
        if expected is None and self.known:
            expected, how = self.known["key"], "the key of the first check"
        if expected is None:
            self.report.add(True, f"log key {served[:12]}… (seen for the first time)", "")
            return served
        ok = self.report.add(
            served == expected,
            f"log key {served[:12]}… is {how}",
            f"the server shows another log key ({served[:12]}…) than {how} ({expected[:12]}…)",
        )
        return expected if ok else None

    def _head_signed(self, key: str, head: dict[str, Any]) -> bool:
        return self.report.add(
            head_signed(key, head),
            f"head of {head['size']} entries is signed by the log key",
            "the head is not signed by the log key",
        )

    def _going(self, head: dict[str, Any]) -> None:
        """An idle log renews its head every ten minutes."""
        old_s = int(self.clock()) - int(head["at"]) // 1000
        self.report.add(
            -AHEAD_MS // 1000 <= old_s <= heads.STALLED_S,
            "the log goes on: its newest head is recent",
            f"the log stands still: its newest head is {old_s // 60} minutes old, by this "
            "machine's clock"
            if old_s > 0
            else f"the log's newest head is signed {-old_s} s ahead of this machine's clock",
        )

    def _entries(self, size: int) -> Iterator[bytes]:
        self._announced: list[str] = []
        start = 0
        while start < size:
            end = min(size, start + PAGE)
            page = self.api.get("log/entries/", start=start, end=end)
            entries = page["results"] if "results" in page else page["entries"]
            if not entries:
                return
            for entry in entries[: end - start]:
                if entry["index"] != start:
                    raise ClientError(f"The server skips entry {start} of its log.", code="bad_log")
                self._announced.append(entry["hash"])
                yield wire.unb64(entry["leaf_b64"])
                start += 1

    def _hashes_match(self, hashes: list[bytes]) -> None:
        wrong = [
            index
            for index, (ours, theirs) in enumerate(zip(hashes, self._announced, strict=True))
            if ours.hex() != theirs
        ]
        self.report.add(
            not wrong,
            f"{len(hashes)} leaf hashes recomputed",
            f"entry {wrong[0] if wrong else 0} does not have the hash the server says",
        )

    def _holds(self, leaves: list[bytes], hashes: list[bytes]) -> None:
        """What a user has stands among the entries, of which the head's root was computed."""
        for wanted in self.has:
            named = [json.dumps(part).encode() for part in wanted.split(",")]
            found = [
                index
                for index, data in enumerate(leaves)
                if hashes[index].hex() == wanted or all(part in data for part in named)
            ]
            told = [f"{index} ({json.loads(leaves[index])['type']})" for index in found[:FOUND_MAX]]
            more = f" and {len(found) - FOUND_MAX} more" if len(found) > FOUND_MAX else ""
            self.report.add(
                bool(found),
                f"{wanted} is in the log: entry {', '.join(told)}{more}",
                f"{wanted} is in none of the {len(leaves)} entries",
            )

    def _consistent(self, key: str, head: dict[str, Any], hashes: list[bytes]) -> None:
        if not self.known:
            return
        old = self.known["head"]
        if old["size"] > head["size"]:
            self.report.add(
                False,
                "",
                f"the log has shrunk: {old['size']} entries were signed, now {head['size']}",
            )
            return
        _, frontier, _ = merkle.extend(0, [], hashes[: old["size"]])
        begins = merkle.frontier_root(frontier).hex() == old["root"]
        if begins and old["size"]:
            begins = self._proof_holds(old, head)
        self.report.add(
            head_signed(key, old) and begins,
            f"the log goes on from the {old['size']} entries seen last time",
            f"the log was rewritten: its first {old['size']} entries are others than last time"
            + _between(hashes, self.known.get("heads", [old]))
            if not begins
            else "the head seen last time is not signed by the log's key",
        )

    def _remembered(self, head: dict[str, Any]) -> list[dict[str, Any]]:
        """The heads of the last checks, oldest first: should one not fit, they tell from where."""
        earlier = (self.known or {}).get("heads", [])
        heads_ = [one for one in earlier if one["size"] < head["size"]]
        return [*heads_, _head_facts(head)][-HEADS_KEPT:]

    def _where(self, key: str, size: int, hashes: list[bytes]) -> str:
        """Between which of the log's own signed heads the entries stop being those signed."""
        try:
            signed = [h for h in self.api.every("log/heads/") if head_signed(key, h)]
        except ClientError:
            return ""  # what was found is said all the same
        return _between(hashes, sorted(signed, key=lambda one: one["size"]))

    def _proof_holds(self, old: dict[str, Any], head: dict[str, Any]) -> bool:
        """The server's own consistency proof, as a client without the entries would check it."""
        answer = self.api.get("log/consistency/", first=old["size"], second=head["size"])
        path = [bytes.fromhex(value) for value in answer.get("path", answer.get("proof", []))]
        roots = (bytes.fromhex(old["root"]), bytes.fromhex(head["root"]))
        try:
            merkle.verify_consistency(old["size"], head["size"], *roots, path)
        except merkle.ProofInvalid:
            return False
        return True

    def _replayed(self, leaves: list[bytes], head: dict[str, Any]) -> Replay:
        state = Replay([(one["size"], one["at"]) for one in self._remembered(head)])
        with undisturbed():
            for index, data in enumerate(leaves):
                try:
                    leaf = json.loads(data)
                    canonical = wire.canonical(leaf) == data
                except ValueError:
                    canonical, leaf = False, {}
                if not canonical:
                    state.findings.errors.append(f"leaf {index}: not in canonical form")
                    continue
                state.leaf(index, leaf)
            found = state.end()
        others = [e for e in found.errors if e not in found.unsigned]
        traded = [e for e in others if TRADED.search(e)]
        others = [e for e in others if e not in traded]
        epochs = [e for e in others if "epoch" in e or "version" in e or "query" in e]
        money = [e for e in others if e not in epochs and ("transfer" in e or "balances" in e)]
        rest = [e for e in others if e not in money and e not in epochs]
        silent = ""
        if count := state.prices.silent:
            silent = f"; {count} queries' prices are not compared, as their leaves say no rows"
        for errors, good in (
            (money, f"{found.transfers} transfers balance, no account below zero"),
            (rest, f"{found.votes} votes on {found.proposals} proposals; {found.executed} executed"
             " with majority and quorum, after deadline and timelock"),
            (epochs, f"{found.epochs} epochs paid out by the rounds' φ, the queries' payments and"
             f" holdings, to the micro-unit{silent}"),
            (traded, f"{state.exchange.changes} changes of pools and vaults follow from their"
             " rules, each share and each stake accounted for"),
            (found.unsigned, f"{found.signatures} signatures of parties' keys check; nothing was"
             " done without one in the name of a party that has bound a wallet key"),
        ):  # fmt: skip
            more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
            self.report.add(not errors, good, f"{errors[0]}{more}" if errors else "")
        return state

    def _receipted(self, state: Replay) -> None:
        """Each finished round against its job's receipts, which only its nodes can make."""
        made = state.earnings.versions
        known = (self.known or {}).get("nodes")
        if self.given_sets is not None:
            self.sets, how = [list(nodes) for nodes in self.given_sets if nodes], "that you gave"
        elif known:
            whole = isinstance(known[0], list)  # earlier releases kept no sets
            self.sets, how = known if whole else [known], "of the first check"
        else:
            seen = dict.fromkeys(tuple(one.opened["nodes"]) for one in made.values())
            self.sets = [list(nodes) for nodes in seen]
            how = "seen for the first time: compare them with what their operators publish"
        self.nodes = {node for nodes in self.sets for node in nodes}
        self._follow(state.earnings.successions)
        wrong = []
        for (dao, version), one in made.items():
            try:
                job = self.api.get(f"jobs/{one.done['job']}/")
                why = None if self.nodes >= set(one.opened["nodes"]) else "its nodes are others"
                committed = state.earnings.committed
                why = why or not_receipted(job, one, keys=state.keys, committed=committed)
            except ClientError as error:
                why = error.text
            if why:
                wrong.append(f"version {version} of {dao}: {why}")
        self.report.add(
            not wrong,
            f"{len(made)} rounds: φ, evidence and model are what the nodes signed for (nodes "
            f"{', '.join(f'{node[:6]}…' for node in sorted(self.nodes)) or 'none yet'}, {how})",
            wrong[0] if wrong else "",
        )

    def _follow(self, successions: Sequence[Mapping[str, Any]]) -> None:
        """A node takes another's place, as the log's leaves show it signed (`Earnings.succeeded`).

        Its key is trusted if that was signed of just a set that is trusted, or of one that follows
        it; a list that names two keys of one place isn't a set. Whatever says of two trusted keys
        that they had one place makes one node of them, and nothing makes two of them again.
        """
        pairs = [{one["statement"]["old"], one["statement"]["new"]} for one in successions]
        whole = [nodes for nodes in self.sets if not any(pair <= set(nodes) for pair in pairs)]
        followed = [one for nodes in whole for one in successions_after(nodes, successions)]
        self.places = {node: node for node in self.nodes}
        for signed in [*followed, *successions]:
            old, new = signed["statement"]["old"], signed["statement"]["new"]
            if old not in self.nodes:
                continue
            if new not in self.nodes:
                text = f"node {new[:6]}… has the place of node {old[:6]}…"
                ok = self.report.add(
                    signed in followed,
                    f"{text}, as nodes signed that are trusted",
                    f"the log says that {text}, of a node set that is not known here: ask the "
                    f"operators; if they publish {new}, give their set too (a further --nodes)",
                )
                if not ok:
                    continue
                self.nodes.add(new)
            place, other = self.places[old], self.places.get(new)
            self.places[new] = place
            self.places = {n: place if p == other else p for n, p in self.places.items()}

    def _founded(self, state: Replay) -> None:
        founded, wrong = state.points.founded, []
        for dao, body in founded.items():
            try:
                spec = self.api.get(f"rfms/{slug_of(body['sdt'])}/")["spec"]
                why = not_as_requested(spec, state, dao)
            except (ClientError, LookupError, TypeError):
                why = "the server does not show the request that was voted on"
            if why:
                wrong.append(f"SubDAO {dao}: {why}")
        self.report.add(
            not wrong,
            f"{len(founded)} SubDAOs were founded as the requests say that were voted on",
            wrong[0] if wrong else "",
        )

    def _fetch_cosigned(self) -> dict[str, Any] | None:
        try:
            return dict(self.api.get("log/cosigned/"))
        except ClientError as error:
            if error.status == 404:
                return None
            raise

    def _cosigned(
        self, key: str, cosigned: dict[str, Any] | None, newest: dict[str, Any], hashes: list[bytes]
    ) -> None:
        """t + 1 of the trusted nodes signed a head of this very log, not long ago.

        Without, the log could be shown to others in another form: that is said, and it is an error
        where nodes are pinned.
        """
        pinned = bool(self.given_sets or (self.known and self.known.get("nodes")))
        alone = "only the server vouches that everybody is shown this same log"
        if cosigned is None:
            self.report.add(not pinned, f"no node has signed a head: {alone}",
                            f"no node has signed a head of this log: {alone}")  # fmt: skip
            return
        try:
            signed = {name: cosigned[name] for name in ("v", "size", "root", "at", "signature")}
            head = heads.check_head(signed, log=key)
            sign_keys = {check_node(node): node["sign_key"] for node in cosigned["nodes"]}
            trusted = self.nodes if self.nodes or pinned else set(sign_keys)
            found = heads.cosigners(
                head, cosigned["cosignatures"], log=key, sign_keys=sign_keys, trusted=trusted
            )
            _, frontier, _ = merkle.extend(0, [], hashes[: head.size])
            same = head.size <= len(hashes) and merkle.frontier_root(frontier).hex() == head.root
        except (heads.HeadRefused, JobError, KeyError, TypeError, ValueError):
            self.report.add(False, "", "the cosigned head is malformed, or another log's")
            return
        if not self.report.add(
            same,
            f"the cosigned head of {head.size} entries is a beginning of this log",
            f"the nodes have signed another log than this one ({head.size} entries): it was forked",
        ):
            return
        self.nodes |= set(found) if not pinned else set()
        found = list({self.places.get(node, node): node for node in found}.values())
        late_ms = int(newest["at"]) - head.at_ms
        names = ", ".join(f"{node[:6]}…" for node in found)
        need = heads.COSIGNERS_MIN
        self.report.add(
            len(found) >= need or not pinned,
            f"{len(found)} nodes ({names}) signed the first {head.size} of {newest['size']} entries"
            + ("" if pinned else ": compare them with what their operators publish"),
            f"only {len(found)} of the {need} pinned nodes that it takes signed a head: {alone}",
        )
        self.report.add(
            late_ms <= COSIGNED_WITHIN_MS,
            "the nodes' last signature is recent",
            f"the nodes have signed nothing for {late_ms // 60_000} minutes of this log: {alone}",
        )


def not_receipted(
    job: Any,
    made: Made,
    *,
    keys: Mapping[str, str],
    committed: Mapping[str, tuple[int, str, str]],
) -> str | None:
    """Why the nodes' receipts do not bear out what the log says of a round, or None.

    `keys` name the party behind each key, as the applications in the log do; `committed` says of
    each ticket where in the log it stands, its slot and its party.
    """
    opened, done = made.opened, made.done
    try:
        if [check_node(node) for node in job["nodes"]] != list(opened["nodes"]):
            return "the job was not done by the round's nodes"
        receipts, descriptor = signed_for(job, job["nodes"])
        receipt, roster = receipts[0], descriptor["roster"]
        if (receipt["job_id"], receipt["scope"]) != (done["job"], f"round:{done['round']}"):
            return "the receipts are about another round"
        if check_roster(roster) != opened["roster"]:
            return "the nodes computed over another roster"
        if receipt["model"] != done["model"]:
            return "the nodes made another model"
        demand = demand_named(opened.get("access"))
        if receipt.get("access") != (demand.params if demand else None):
            return "the nodes ask something else of who asks the model than the log says"
        if receipt["openings"] != wire.digest(OPENINGS_DOMAIN, done["evidence"]):
            return "the nodes opened other evidence"
        order = [keys[key] for key in members_with_role(roster, "custodian")]
        known = [committed[ticket] for ticket in receipt["inputs"]]
        when = {party: place for place, slot, party in known if slot in SCORED}
        pairs = done["evidence"].get("copies", [])
        phi = without_copies(done["evidence"]["phi_milli"], pairs, [when[pid] for pid in order])
        if dict(zip(order, phi, strict=True)) != done["phi_milli"]:
            return "φ is given to others than those who were scored"
        judges = {keys[key] for key in members_with_role(roster, "validator")}
        if judges != set(done["work"]):
            return "scoring is credited to others than those whose rows were scored on"
    except (JobError, TicketError) as error:
        return error.text
    except (KeyError, TypeError, ValueError):
        return "its job or roster is malformed"
    return None


def verify_server(
    url: str,
    *,
    state: Path | None = None,
    key: str | None = None,
    sets: Sequence[Sequence[str]] | None = None,
    has: Sequence[str] = (),
) -> Report:
    """The whole check of the server at `url`. Raises: ClientError where it does not answer."""
    return Auditor(Api(url), state=state, key=key, sets=sets, has=has).run()


def head_signed(key: str, head: dict[str, Any]) -> bool:
    facts = _head_facts(head)
    content = {"v": 1, "size": facts["size"], "root": facts["root"], "at": facts["at"]}
    try:
        wire.verify(key, HEAD_DOMAIN, content, facts["signature"])
    except wire.BadSignature:
        return False
    return True


def _head_facts(head: dict[str, Any]) -> dict[str, Any]:
    at = head["at"] if "at" in head else head["at_ms"]
    return {"size": head["size"], "root": head["root"], "at": at, "signature": head["signature"]}


def _between(hashes: list[bytes], signed: Sequence[Mapping[str, Any]]) -> str:
    """ ": from entry a to b", the first stretch between two heads (by size) that is not theirs."""
    size, frontier = 0, []
    for head in signed:
        reached, frontier, _ = merkle.extend(size, frontier, hashes[size : head["size"]])
        if reached != head["size"] or merkle.frontier_root(frontier).hex() != head["root"]:
            return f": the first that differs is one of the entries {size} to {head['size'] - 1}"
        size = reached
    return ""


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}")


def _try_writing(path: Path) -> None:
    """Raises: OSError where the state could not be written in the end."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    _beside(path).touch()
    _beside(path).unlink()


def _read_state(path: Path | None) -> dict[str, Any] | None:
    if path is None or not path.exists():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise ClientError(f"{path} is not the state of an earlier check.") from None
