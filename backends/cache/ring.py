"""A feed of keys among the processes of one host: a small file that is written in a circle.

    8 bytes  what the file is
    8 bytes  bytes ever written
    8 bytes  the same, raised before the writing
    the rest  records: length, checksum, key

Whoever has something to say appends records and then raises the count; whoever listens has the count mapped into its
memory and compares it with what it has read, so that hearing nothing costs a memory read. Records are read and written
by system calls, not through the mapping: on a full disk those fail, where a mapping would end the process.

A reader needs no lock. Whether it was overtaken while it read, the other count tells; what it can't make sense of (the
file is damaged, a writer died) it takes as missed.
Writers take turns by a lock on the file; a turn lasts some microseconds, and one that doesn't come within ``TURN_S``
(its owner was stopped in the middle) is given up.
"""

from __future__ import annotations

import asyncio
import fcntl
import mmap
import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

KIND = b"tl-moves"
BYTES = 256 * 1024
"""Room for some 5,000 keys. A reader that is further behind was idle for long, and knows nothing of worth."""
TURN_S = 0.25
TRY_AGAIN_S = 0.001

_NUMBER = struct.Struct("=Q")
_RECORD = struct.Struct("=HI")
_COUNT_AT = len(KIND)
_BEGUN_AT = _COUNT_AT + _NUMBER.size
_START = _BEGUN_AT + _NUMBER.size


class Ring:
    """One process's hold on the file, made where it is missing. Raises ``OSError``."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.pread(self._file, len(KIND), 0) != KIND:
                # Several may find that: they write the same, and a count of nothing is what all begin with.
                os.pwrite(self._file, KIND + bytes(mmap.PAGESIZE - len(KIND)), 0)
            self._map = mmap.mmap(self._file, mmap.PAGESIZE, prot=mmap.PROT_READ)
        except BaseException:
            os.close(self._file)
            raise
        self.counts = memoryview(self._map)[_COUNT_AT:_START].cast("Q")
        """How many bytes were ever written, and how many writing was ever begun of."""

    def close(self) -> None:
        self.counts.release()
        self._map.close()
        os.close(self._file)

    async def write(self, keys: Sequence[str]) -> bool:
        """Append the keys; False if it could not be our turn in time."""
        records = b"".join(_record(key) for key in keys)
        deadline = asyncio.get_running_loop().time() + TURN_S
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if asyncio.get_running_loop().time() > deadline:
                    return False
                await asyncio.sleep(TRY_AGAIN_S)
        try:
            at = self.counts[0]
            end = _NUMBER.pack(at + len(records))
            os.pwrite(self._file, end, _BEGUN_AT)
            # Of more than fits, the end: its readers find out that they were overtaken.
            kept = records[-BYTES:]
            self._write_at(at + len(records) - len(kept), kept)
            os.pwrite(self._file, end, _COUNT_AT)
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)
        return True

    def read(self, start: int, end: int) -> list[str] | None:
        """The keys between two counts; None: they are not to be had any more."""
        if not 0 <= end - start <= BYTES:
            return None
        place = start % BYTES
        first = min(end - start, BYTES - place)
        data = os.pread(self._file, first, _START + place) + os.pread(self._file, end - start - first, _START)
        if self.counts[1] - start > BYTES:
            return None
        return _keys(data)

    def _write_at(self, at: int, data: bytes) -> None:
        place = at % BYTES
        first = data[: BYTES - place]
        os.pwrite(self._file, first, _START + place)
        os.pwrite(self._file, data[len(first) :], _START)


def _record(key: str) -> bytes:
    data = key.encode("utf-8", "surrogatepass")[:0xFFFF]
    return _RECORD.pack(len(data), zlib.crc32(data)) + data


def _keys(data: bytes) -> list[str] | None:
    keys = []
    place = 0
    while place < len(data):
        if place + _RECORD.size > len(data):
            return None
        length, checksum = _RECORD.unpack_from(data, place)
        place += _RECORD.size
        key = data[place : place + length]
        place += length
        if len(key) != length or zlib.crc32(key) != checksum:
            return None
        keys.append(key.decode("utf-8", "surrogatepass"))
    return keys
