"""Reader of TFRecord files, a sequence of records: length, checksum, data, checksum."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import google_crc32c

from lissnas.benchmarks.official.files import CHUNK, UnreadableFile

HEAD, TAIL = struct.Struct("<QI"), struct.Struct("<I")
MAX_BYTES = 1 << 24
"""Maximum size of a record; those of NAS-Bench-101 have some hundred bytes."""


def masked_crc(data: bytes) -> int:
    """Return the checksum of the format: CRC-32C, rotated right by 15 bits, plus a constant."""
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def records(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the byte offset and the data of each record; only one record is in memory at a time.

    Raises UnreadableFile at the first record that is truncated or has a wrong checksum.
    """
    size, at = path.stat().st_size, 0
    with path.open("rb", buffering=CHUNK) as file:
        while head := file.read(HEAD.size):
            if len(head) < HEAD.size:
                raise _cut_off(path, at, size)
            length, crc = HEAD.unpack(head)
            if masked_crc(head[:8]) != crc:
                raise UnreadableFile(path, f"record at byte {at}", "the length does not match its checksum")
            if length > MAX_BYTES:
                raise UnreadableFile(path, f"record at byte {at}", f"{length:,} bytes are more than a record has")
            body = file.read(length + TAIL.size)
            if len(body) < length + TAIL.size:
                raise _cut_off(path, at, size)
            data = body[:length]
            if masked_crc(data) != TAIL.unpack_from(body, length)[0]:
                raise UnreadableFile(path, f"record at byte {at}", "the data do not match their checksum")
            yield at, data
            at += HEAD.size + len(body)


def _cut_off(path: Path, at: int, size: int) -> UnreadableFile:
    return UnreadableFile(path, f"record at byte {at}", f"cut off at the end of the file, after {size:,} bytes")
