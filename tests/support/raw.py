"""What a thief of PostgreSQL's files reads in them without PostgreSQL: also what it compressed.

A value of some kilobytes is kept compressed (pglz), a longer one in chunks of a table of its own
(TOAST); both are found by their form, in tables, in what was deleted there, in the write-ahead log.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

CHUNK = 2000  # of a value in pieces: a header of four bytes and TOAST_MAX_CHUNK_SIZE
CHUNKS_MAX = 4096
NEAR = 32_768  # between the last whole piece and the rest
PAGE, PAGE_HEADER, SEGMENT_HEADER = 8192, 24, 40  # of the write-ahead log
PACKED_MIN, PACKED_MAX = 24, 8192
RAW_MAX = 1 << 26


def tables_of(cluster: Path, database: int) -> bytes:
    """Every file of a running cluster but its log and the databases that nobody connects to; what
    goes meanwhile is left out. `database`: the oid of the site's own."""
    found = []
    for path in sorted(cluster.rglob("*")):
        folder = path.relative_to(cluster).parts
        if folder[0] == "pg_wal" or (folder[0] == "base" and folder[1:2] != (str(database),)):
            continue
        try:
            if path.is_file():
                found.append(path.read_bytes().ljust(8))
        except FileNotFoundError:
            continue
    return b"".join(found)


def log_of(cluster: Path) -> bytes:
    """The write-ahead log, in one piece: without the headers of its pages, which may stand in the
    middle of a record."""
    found = []
    for path in sorted((cluster / "pg_wal").glob("[0-9A-F]" * 24)):
        content = path.read_bytes()
        found += [
            content[at + (PAGE_HEADER if at else SEGMENT_HEADER) : at + PAGE]
            for at in range(0, len(content), PAGE)
        ]
    return b"".join(found)


def unpacked(data: bytes) -> bytes:
    """All compressed values in these bytes and all that lie in chunks, each once."""
    found: dict[bytes, None] = {}
    for offset in range(4):
        count = (len(data) - offset) // 4
        if count < 4:
            break
        words = np.frombuffer(data, dtype="<u4", count=count, offset=offset)
        found |= dict.fromkeys(_inline(data, words, offset))
        found |= dict.fromkeys(_chunked(data, words, offset))
    return b"\n".join(found)


def _inline(data: bytes, words: np.ndarray, offset: int) -> Iterator[bytes]:
    """Values behind a header of their own: length · 4 + 2, then raw length and method."""
    size, raw = words[:-1] >> 2, words[1:]
    seen: set[bytes] = set()
    fits = (words[:-1] & 3 == 2) & (size > PACKED_MIN) & (size <= PACKED_MAX)
    # what does not become a quarter shorter is not kept compressed
    for at in np.flatnonzero(fits & (raw - raw // 4 >= size - 8) & (raw <= RAW_MAX)):
        start = offset + 4 * int(at)
        packed = data[start + 8 : start + int(size[at])]
        if packed in seen or packed[0] & 1:  # the first item copies nothing
            continue
        seen.add(packed)
        value = pglz(packed, int(raw[at]))
        if len(value) == raw[at]:
            yield value


def _chunked(data: bytes, words: np.ndarray, offset: int) -> Iterator[bytes]:
    """Rows (chunk_id, chunk_seq, chunk_data) of tables of chunks, put together by id and place."""
    chunks: dict[int, dict[int, bytes]] = {}
    latest: dict[int, int] = {}
    for at in np.flatnonzero(words[2:] == CHUNK << 2) + 2:
        owner, place, start = int(words[at - 2]), int(words[at - 1]), offset + 4 * int(at)
        if place < CHUNKS_MAX:
            chunks.setdefault(owner, {})[place] = data[start + 4 : start + CHUNK]
            latest[owner] = start
    for owner, pieces in chunks.items():
        around = max(latest[owner] - NEAR, 0), latest[owner] + NEAR
        last = data.find(struct.pack("<II", owner, len(pieces)), *around)
        if last >= 0:
            header = int.from_bytes(data[last + 8 : last + 12], "little")
            if header & 3 == 0 and header >> 2 < CHUNK:
                pieces[len(pieces)] = data[last + 12 : last + 8 + (header >> 2)]
        whole = b"".join(pieces[place] for place in sorted(pieces))
        raw = int.from_bytes(whole[:4], "little")
        yield whole
        if raw <= RAW_MAX:
            yield pglz(whole[4:], raw)


def pglz(packed: bytes, size: int) -> bytes:
    """PostgreSQL's own compression undone (src/common/pg_lzcompress.c), up to `size` bytes or as
    far as it goes."""
    out, at = bytearray(), 0
    while at < len(packed) and len(out) < size:
        control, at = packed[at], at + 1
        for _ in range(8):
            if at >= len(packed) or len(out) >= size:
                break
            if control & 1:
                if at + 1 >= len(packed):
                    return bytes(out)
                length = (packed[at] & 0x0F) + 3
                back = (packed[at] & 0xF0) << 4 | packed[at + 1]
                at += 2
                if length == 18 and at < len(packed):
                    length, at = length + packed[at], at + 1
                if not 0 < back <= len(out):
                    return bytes(out)
                piece = bytes(out[len(out) - back :][:length])
                out += (piece * (length // len(piece) + 1))[:length]
            else:
                out.append(packed[at])
                at += 1
            control >>= 1
    return bytes(out[:size])
