"""Reader of the wire format of protocol buffers, a sequence of numbered fields."""

from __future__ import annotations

from collections.abc import Iterator

VARINT = 0
DOUBLE = 1
BYTES = 2
FLOAT = 5
_WIDTH = {DOUBLE: 8, FLOAT: 4}


def fields(data: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """Yield number, wire type and value of each field of a message: a number for VARINT, else bytes.

    Raises ValueError for an invalid message.
    """
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        if kind == VARINT:
            value, at = _varint(data, at)
            yield number, kind, value
            continue
        if kind == BYTES:
            width, at = _varint(data, at)
        elif kind in _WIDTH:
            width = _WIDTH[kind]
        else:
            raise ValueError(f"field {number} has the unknown wire type {kind}")
        if at + width > len(data):
            raise ValueError(f"field {number} is cut off")
        yield number, kind, data[at : at + width]
        at += width


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError("a number is cut off")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number is longer than ten bytes")
