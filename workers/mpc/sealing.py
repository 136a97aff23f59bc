"""Sharing, sealing and opening: values to uploads, uploads to words, outputs to values.

x = w_0 + … + w_(n−1) mod 2^64 for n = 3, 4 or 5 nodes. Node i lacks word i. All words but the last
are AES-256-CTR keystreams of 32-byte seeds; the last, x − w_0 − …, is the correction, encrypted
once with AES-256-GCM under a key of its own (used once, zero nonce, aad = ticket id). Seeds, key
and salts reach the nodes that may hold them by HPKE (X25519, HKDF-SHA256, AES-256-GCM), bound to
ticket and node by

    info = "flai/seal/v1" ‖ 0x00 ‖ ticket id ‖ fingerprint

Of Shamir shares (workers/mpc/shamir_shares.py) node i gets share i alone, 12 bytes a value; the
correction is then all of them one after the other, each under a key of its own, which only its
node gets.

The ephemeral key of a query's envelopes is its ticket's reply key. So a node that opens one shares
a secret with the asker, exported under "flai/reply/v2", that seals the output: two of the three
role words from each node that computed, or its one share.
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from apps.protocol import wire
from apps.protocol.jobs import check_node, fingerprint
from apps.protocol.tickets import (
    COMPUTING,
    ELEMENT_BYTES,
    GCM_TAG_BYTES,
    KEPT,
    QUARTET,
    RING,
    SHAMIR,
    TICKET_DOMAIN,
    TRIO,
    check_engine,
    check_ticket,
    is_node_set,
    ticket_id,
)
from workers.mpc import commitments, hpke, shamir_shares
from workers.mpc.engines import shamir_codec
from workers.mpc.engines.field89 import Limbs
from workers.mpc.replicated import expand, held_by, split

Words = npt.NDArray[np.uint64]

SEAL_CONTEXT = b"flai/seal/v1\0"
REPLY_CONTEXT = b"flai/reply/v2"
LONG = 1 << 16
_ZERO_NONCE = bytes(12)  # each GCM key encrypts exactly one message
ENC_BYTES = 32
_WORD = np.dtype("<u8")
ELSEWHERE = "A sealed part was made for another key, ticket or node."


class SealError(Exception):
    """A sealed part cannot be opened or does not match. `code`, and text safe to show."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


def make_upload(
    values: npt.NDArray[np.int64],
    ticket_fields: Mapping[str, Any],
    signing_key: Ed25519PrivateKey,
    descriptors: Sequence[Mapping[str, Any]],
    *,
    reply: X25519PrivateKey | None = None,
    binary: bool = False,
) -> dict[str, Any]:
    """Share, commit, seal and sign: {"ticket", "signature", "envelopes", "correction"}.

    The correction is base64, as JSON carries it; with `binary` the bytes, as `uploads` does.

    `values` are fixed point with the ticket's f, any shape. `ticket_fields` give scope, slot,
    circuits, circuits_hash, params, f, issued_at, expires_at and, as the scope asks, roster or
    model, price_micro, resolution; the rest is filled in here. `descriptors` are the nodes', in
    index order; whoever calls has compared their fingerprints with the pinned ones. `reply` is the
    key of this one query, which opens its answer.

    The engine is the ring, unless the fields name another.

    Raises: JobError for a bad descriptor, TicketError for a ticket that nodes would refuse.
    """
    fingerprints = [check_node(dict(d)) for d in descriptors]
    n = len(descriptors)
    if [d["index"] for d in descriptors] != list(range(n)) or not is_node_set(fingerprints):
        raise SealError("bad_nodes", "The nodes' descriptors must come in the order of the nodes.")
    flat = np.ascontiguousarray(values, dtype=np.int64).reshape(-1).view(np.uint64)
    share_id = secrets.token_bytes(16)
    ticket = _defaults() | dict(ticket_fields)
    engine = ticket["engine"]
    check_engine(engine, n)
    words: Sequence[bytes | memoryview]
    seeds = [] if engine in SHAMIR else [secrets.token_bytes(32) for _ in range(n - 1)]
    salts = [secrets.token_bytes(commitments.SALT_BYTES) for _ in range(n)]
    if engine in SHAMIR:
        shares = shamir_shares.split(flat.view(np.int64), n=n, t=SHAMIR[engine])
        words = [shamir_codec.encoded(share) for share in shares]
        committed = _commit(words, salts, share_id)
    else:
        words, committed = _split_and_commit(flat, seeds, salts, share_id)
    ticket |= {
        "share_id": share_id.hex(),
        "sender": wire.public_hex(signing_key),
        "nodes": fingerprints,
        "shape": list(values.shape),
        "commitment": committed,
    }
    if reply is not None:
        ticket["reply_key"] = reply.public_key().public_bytes_raw().hex()
    id_bytes = bytes.fromhex(check_ticket(ticket, now=ticket["issued_at"]).id)
    keys = [secrets.token_bytes(32) for _ in range(n - len(seeds))]
    parts: list[dict[str, str]] = [{"seed": s.hex()} for s in seeds]
    parts += [{"key": key.hex()} for key in keys]
    envelopes = []
    for i, descriptor in enumerate(descriptors):
        held = sorted(_held(engine, i, n))
        mine = {str(j): parts[j] | {"salt": salts[j].hex()} for j in held}
        info = SEAL_CONTEXT + id_bytes + bytes.fromhex(fingerprints[i])
        context = hpke.sender(
            reply or X25519PrivateKey.generate(), bytes.fromhex(descriptor["hpke_key"]), info
        )
        envelopes.append(context.enc + context.seal(wire.canonical({"words": mine})))
    correction = b"".join(
        AESGCM(key).encrypt(_ZERO_NONCE, word, id_bytes)
        for key, word in zip(keys, words[len(seeds) :], strict=True)
    )
    return {
        "ticket": ticket,
        "signature": wire.sign(signing_key, TICKET_DOMAIN, ticket),
        "envelopes": [wire.b64(e) for e in envelopes],
        "correction": correction if binary else wire.b64(correction),
    }


def kept_upload(
    came: Mapping[str, Any], ticket_fields: Mapping[str, Any], signing_key: Ed25519PrivateKey
) -> dict[str, Any]:
    """A ticket that brings words into a further round which the nodes keep; nothing is sealed.

    `came` is the ticket that they came with, `ticket_fields` as for `make_upload`.
    Raises: TicketError for a ticket that nodes would refuse.
    """
    ticket = _defaults() | dict(ticket_fields)
    ticket |= {name: came[name] for name in ("nodes", "shape", "f", "commitment")}
    ticket |= {"type": KEPT, "share_id": secrets.token_hex(16)}
    ticket["sender"] = wire.public_hex(signing_key)
    check_ticket(ticket, now=ticket["issued_at"])
    return {
        "ticket": ticket,
        "signature": wire.sign(signing_key, TICKET_DOMAIN, ticket),
        "envelopes": [],
        "correction": b"",
    }


def open_upload(
    upload: Mapping[str, Any],
    index: int,
    hpke_private: X25519PrivateKey,
    *,
    known_id: str | None = None,
) -> tuple[Words, ...]:
    """Node `index`'s words of an upload as `held_by` orders them, checked against the commitments;
    or the three limbs of its one share.

    The upload has passed check_upload, which gave the ticket's id; each array has the ticket's
    shape.
    Raises: SealError("sealed_elsewhere") if the envelope is not for this node and ticket,
    SealError("bad_commitment") if a word is not what the ticket commits to.
    """
    return open_query(upload, index, hpke_private, known_id=known_id)[0]


def open_query(
    upload: Mapping[str, Any],
    index: int,
    hpke_private: X25519PrivateKey,
    *,
    known_id: str | None = None,
) -> tuple[tuple[Words, ...], bytes]:
    """`open_upload`'s words, and the secret that seals this node's answer.

    Raises: SealError as `open_upload`, and SealError("wrong_reply_key") where another key than the
    one that the ticket names would open the answer.
    """
    held, context = _opened(upload, index, hpke_private, known_id)
    return tuple(word for word, _ in held), context.export(REPLY_CONTEXT)


def open_short(
    upload: Mapping[str, Any],
    index: int,
    hpke_private: X25519PrivateKey,
    *,
    known_id: str | None = None,
) -> tuple[Words | bytes, ...]:
    """`open_upload`'s words, checked as there, to be kept: the seed of what is the key stream of
    one, 32 bytes instead of 8 a value.

    Raises: SealError as `open_query`.
    """
    held, _ = _opened(upload, index, hpke_private, known_id)
    return tuple(word if seed is None else seed for word, seed in held)


def _opened(
    upload: Mapping[str, Any], index: int, hpke_private: X25519PrivateKey, known_id: str | None
) -> tuple[list[tuple[Words, bytes | None]], hpke.Context]:
    """The node's words, each with its seed where it has one."""
    ticket = upload["ticket"]
    id_bytes = bytes.fromhex(known_id or ticket_id(ticket))
    info = SEAL_CONTEXT + id_bytes + bytes.fromhex(ticket["nodes"][index])
    envelope = wire.unb64(upload["envelopes"][index])
    if ticket["reply_key"] is not None and envelope[:ENC_BYTES].hex() != ticket["reply_key"]:
        raise SealError("wrong_reply_key", "An envelope is not sealed by the ticket's reply key.")
    content, context = _unseal(envelope, hpke_private, info)
    opening = _shamir_share if ticket["engine"] in SHAMIR else _ring_word
    share_id, shape = bytes.fromhex(ticket["share_id"]), ticket["shape"]
    held: list[tuple[Words, bytes | None]] = []
    for j in _held(ticket["engine"], index, len(ticket["nodes"])):
        words, told, salt, seed = opening(upload, content, j, id_bytes)
        committed = ticket["commitment"][j]
        if not commitments.matches(committed, salt=salt, share_id=share_id, j=j, word=told):
            raise SealError("bad_commitment", f"Word {j} is not the one the ticket commits to.")
        held += [(word.reshape(shape), seed) for word in words]
    return held, context


def _held(engine: str, index: int, n: int) -> tuple[int, ...]:
    """The words that a node gets: all but one, or of Shamir shares its own alone."""
    return (index,) if engine in SHAMIR else held_by(index, n)


# (what a node computes with, the bytes that were committed to, their salt, the seed of a stream)
_Opened = tuple[Sequence[Words], bytes | memoryview, bytes, bytes | None]


def _ring_word(
    upload: Mapping[str, Any], content: dict[str, Any], j: int, id_bytes: bytes
) -> _Opened:
    ticket = upload["ticket"]
    count, last = math.prod(ticket["shape"]), len(ticket["nodes"]) - 1
    secret, salt = _part(content, j, "key" if j == last else "seed")
    if j < last:
        word = expand(secret, count)
    else:
        data = _decrypted(upload["correction"], secret, id_bytes)
        word = np.frombuffer(data, _WORD).astype(np.uint64)
        if word.size != count:
            raise SealError("bad_commitment", f"Word {j} is not the one the ticket commits to.")
    return [word], _bytes(word), salt, secret if j < last else None


def _shamir_share(
    upload: Mapping[str, Any], content: dict[str, Any], j: int, id_bytes: bytes
) -> _Opened:
    count = math.prod(upload["ticket"]["shape"])
    key, salt = _part(content, j, "key")
    size = ELEMENT_BYTES * count + GCM_TAG_BYTES
    data = _decrypted(upload["correction"], key, id_bytes, at=slice(j * size, (j + 1) * size))
    return _limbs(data, count), data, salt, None


def _limbs(data: bytes, count: int) -> Limbs:
    try:
        return shamir_codec.decoded(data, count)
    except shamir_codec.Malformed as error:
        raise SealError("malformed_seal", f"A share is no numbers of the field: {error}.") from None


def seal_output(
    words: Mapping[int, Words],
    *,
    f: int,
    job_id: str,
    secret: bytes,
    reply_key: str,
) -> bytes:
    """One node's role words of an output, two or in verified mode three, sealed by the secret that
    it shares with the holder of the reply key: so for its ticket, of this node."""
    shapes = {w.shape for w in words.values()}
    if len(words) + 1 not in (TRIO, QUARTET) or len(shapes) != 1:
        raise ValueError("a node seals two or three words of one shape")
    told = {j: _bytes(w) for j, w in words.items()}
    content = _output(told, list(shapes.pop()), f, job_id)
    return hpke.answer(secret, bytes.fromhex(reply_key), content)


def seal_share(
    index: int,
    share: Limbs,
    *,
    shape: Sequence[int],
    f: int,
    job_id: str,
    secret: bytes,
    reply_key: str,
) -> bytes:
    """One node's Shamir share of an output, flat, sealed as `seal_output` does."""
    content = _output({index: shamir_codec.encoded(share)}, list(shape), f, job_id)
    return hpke.answer(secret, bytes.fromhex(reply_key), content)


def _output(
    words: Mapping[int, bytes | memoryview], shape: list[int], f: int, job_id: str
) -> bytes:
    content = {
        "job_id": job_id,
        "shape": shape,
        "f": f,
        "words": {str(j): wire.b64(data) for j, data in words.items()},
    }
    return wire.canonical(content)


def reply_secret(
    ticket: Mapping[str, Any],
    node: Mapping[str, Any],
    reply_private: X25519PrivateKey,
    *,
    known_id: str | None = None,
) -> bytes:
    """What a node, by its descriptor, has from its envelope of this ticket."""
    about = (known_id or ticket_id(dict(ticket))) + fingerprint(dict(node))
    info = SEAL_CONTEXT + bytes.fromhex(about)
    context = hpke.sender(reply_private, bytes.fromhex(node["hpke_key"]), info)
    return context.export(REPLY_CONTEXT)


def open_outputs(
    blobs: Sequence[bytes | str],
    ticket: Mapping[str, Any],
    reply_private: X25519PrivateKey,
    nodes: Sequence[Mapping[str, Any]],
    *,
    computing: Sequence[int] = range(TRIO),
) -> tuple[npt.NDArray[np.int64], int]:
    """(values, f): the nodes' sealed outputs opened, compared and put together.

    `blobs[r]` is that of the r-th node that computed (bytes or base64), `ticket` the query's,
    `nodes` the descriptors of its nodes. Every word comes from all but one of them, and they must
    say the same. Values are fixed point: divide by 2^f.

    Raises: SealError("bad_output") if an output is missing, is not sealed to this key, ticket and
    node, or two nodes disagree; of Shamir shares, where they do not fit together, with the name of
    who is wrong if enough have answered to tell.
    """
    count, engine = len(computing), ticket["engine"]
    enough = count >= COMPUTING[engine] if engine in SHAMIR else count in (TRIO, QUARTET)
    if len(blobs) != count or not enough:
        raise SealError("bad_output", "An output from every computing node is needed.")
    enc, known_id = bytes.fromhex(ticket["reply_key"]), ticket_id(dict(ticket))
    opened: list[dict[str, Any]] = []
    for role, blob in enumerate(blobs):
        node = nodes[computing[role]]
        secret = reply_secret(ticket, node, reply_private, known_id=known_id)
        data = blob if isinstance(blob, bytes) else _blob(blob)
        opened.append(_content(partial(hpke.open_answer, secret, enc), data))
    heads = {wire.canonical({k: c.get(k) for k in ("job_id", "shape", "f")}) for c in opened}
    if len(heads) != 1:
        raise SealError("bad_output", "The nodes answered about different jobs.")
    shape, f = opened[0]["shape"], int(opened[0]["f"])
    put_together = _from_shares if engine in SHAMIR else _from_words
    return put_together(opened, math.prod(shape), ticket, computing).reshape(shape), f


def _from_shares(
    opened: Sequence[dict[str, Any]], size: int, ticket: Mapping[str, Any], computing: Sequence[int]
) -> npt.NDArray[np.int64]:
    try:
        shares = {
            node: shamir_codec.decoded(_told(content, node), size)
            for node, content in zip(computing, opened, strict=True)
        }
        return shamir_shares.opened(shares, SHAMIR[ticket["engine"]]).view(np.int64)
    except shamir_codec.Malformed as error:
        raise SealError("bad_output", f"A node's share is no numbers of the field: {error}.") from (
            None
        )
    except shamir_shares.WrongShare as error:
        raise SealError("bad_output", f"The answer can't be put together: {error}.") from None


def _from_words(
    opened: Sequence[dict[str, Any]], size: int, ticket: Mapping[str, Any], computing: Sequence[int]
) -> npt.NDArray[np.int64]:
    reports: dict[int, list[Words]] = {j: [] for j in range(len(computing))}
    for role, content in enumerate(opened):
        for j in held_by(role, len(computing)):
            reports[j].append(_reported(content, j))
    total = np.zeros(size, dtype=np.uint64)
    for j, (one, *others) in reports.items():
        if one.size != total.size or not all(np.array_equal(one, other) for other in others):
            raise SealError("bad_output", f"Two nodes report different words {j}: trust neither.")
        total += one
    return total.view(np.int64)


def _defaults() -> dict[str, Any]:
    return {
        "v": 1,
        "type": "share",
        "engine": RING,
        "uses": 1,
        "roster": None,
        "model": None,
        "reply_key": None,
        "price_micro": None,
        "resolution": None,
    }


def _commit(
    words: Sequence[bytes | memoryview], salts: Sequence[bytes], share_id: bytes
) -> list[str]:
    """One commitment a word; long words at once, as hashing leaves the interpreter's lock."""

    def commit(j: int) -> str:
        return commitments.commit(salt=salts[j], share_id=share_id, j=j, word=words[j])

    if len(words[0]) < 8 * LONG:
        return [commit(j) for j in range(len(words))]
    with ThreadPoolExecutor(len(words)) as threads:
        return list(threads.map(commit, range(len(words))))


def _split_and_commit(
    flat: Words, seeds: Sequence[bytes], salts: Sequence[bytes], share_id: bytes
) -> tuple[list[memoryview], list[str]]:
    """The ring's words and their commitments: long ones are hashed while the rest is made."""
    if flat.size < LONG:
        words = [_bytes(word) for word in split(flat, *seeds)]
        return words, _commit(words, salts, share_id)
    totals = [commitments.begun(salt=salt, share_id=share_id, j=j) for j, salt in enumerate(salts)]
    with ExitStack() as stack:
        threads = [stack.enter_context(ThreadPoolExecutor(1)) for _ in totals]

        def made(parts: list[Words]) -> None:
            for thread, total, part in zip(threads, totals, parts, strict=True):
                thread.submit(total.update, _bytes(part))

        words = [_bytes(word) for word in split(flat, *seeds, made=made)]
    return words, [total.hexdigest() for total in totals]


def _bytes(word: Words) -> memoryview:
    """Little-endian, not copied: a word may be megabytes."""
    return np.ascontiguousarray(word, _WORD).reshape(-1).data.cast("B")


def _unseal(
    blob: bytes, private: X25519PrivateKey, info: bytes
) -> tuple[dict[str, Any], hpke.Context]:
    try:
        context = hpke.recipient(blob[:ENC_BYTES], private, info)
    except ValueError:
        raise SealError("sealed_elsewhere", ELSEWHERE) from None
    return _content(context.open, blob[ENC_BYTES:]), context


def _content(opens: Callable[[bytes], bytes], sealed: bytes) -> dict[str, Any]:
    try:
        content = json.loads(opens(sealed))
    except (InvalidTag, ValueError, RecursionError):  # json: for brackets nested too deep
        raise SealError("sealed_elsewhere", ELSEWHERE) from None
    if not isinstance(content, dict) or not isinstance(content.get("words"), dict):
        raise SealError("malformed_seal", "A sealed part has a wrong form.")
    return content


def _part(content: dict[str, Any], j: int, kind: str) -> tuple[bytes, bytes]:
    """(seed or key, salt) of word j."""
    part = content["words"].get(str(j))
    try:
        secret = wire.unhex(part[kind], 32)
        return secret, wire.unhex(part["salt"], commitments.SALT_BYTES)
    except (KeyError, TypeError, ValueError):
        raise SealError(
            "malformed_seal", f"The sealed part of word {j} has a wrong form."
        ) from None


def _decrypted(correction: Any, key: bytes, id_bytes: bytes, at: slice = slice(None)) -> bytes:
    try:
        sealed = wire.unb64(correction) if isinstance(correction, str) else correction
        return AESGCM(key).decrypt(_ZERO_NONCE, sealed[at], id_bytes)
    except (InvalidTag, ValueError):
        raise SealError(
            "bad_correction", "The correction does not belong to this ticket."
        ) from None


def _blob(text: Any) -> bytes:
    try:
        return wire.unb64(text)
    except ValueError:
        raise SealError("bad_output", "A sealed output is not base64.") from None


def _told(content: dict[str, Any], j: int) -> bytes:
    try:
        return wire.unb64(content["words"][str(j)])
    except (KeyError, ValueError):
        raise SealError("bad_output", f"A node did not report its word {j}.") from None


def _reported(content: dict[str, Any], j: int) -> Words:
    try:
        return np.frombuffer(_told(content, j), _WORD).astype(np.uint64)
    except ValueError:
        raise SealError("bad_output", f"A node did not report its word {j}.") from None
