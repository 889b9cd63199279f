"""The one place that opens pickles: plain data comes out, whatever would run code is refused by name.

`pickle` runs what a file names: a class is imported, a function called. Here the names are looked up
in a table of seven, which gives dict, set, or a stand-in that only makes bytes and numbers; nothing is
imported. Files of torch are read without torch: the zip that it writes since 1.6 and the
run of pickles that it wrote before. A hostile file could still fill the memory, so what it may take is bounded.
"""

from __future__ import annotations

import bz2
import io
import lzma
import pickle
import re
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np

from lissnas.benchmarks.official.files import CHUNK, UnreadableFile
from lissnas.core.errors import LissnasError, first_line, short
from lissnas.core.memory_limit import limit_memory

MOST_BYTES = 64 << 30
"""Largest pickle that is read, unpacked: all of NATS-Bench in one has about 20 GB."""
MOST_MEMBER_BYTES = 256 << 20
"""Largest pickle of one architecture."""
BROKEN_ZIP = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(NotImplementedError, RuntimeError, EOFError, OSError, ValueError, OverflowError, KeyError),
)
"""What opening or unpacking a damaged zip raises."""
TORCH_MAGIC = 0x1950A86A20F9469CFC6C
"""The first of the pickles in a file that torch wrote before it took to zip files."""


class NotPlainData(LissnasError):
    """A pickle that names a class or a function, which loading it would import or call."""

    def __init__(self, path: Path | str, module: str, name: str) -> None:
        self.named = short(f"{module}.{name}", 200)
        super().__init__(f"{path}: refuses to load: it names {self.named}, which is no plain data")


def load(path: Path) -> Any:
    """Return what a file holds: a pickle, one in bz2, or one of torch in either of its formats.

    Raises NotPlainData, or UnreadableFile where it can't be read.
    """
    with path.open("rb") as file, limit_memory(path.stat().st_size):
        zipped = file.read(4) == b"PK\x03\x04"
        file.seek(0)
        return _load_zip(path, file) if zipped else _load_pickle(path, file, MOST_BYTES)


def load_member(where: str, data: bytes) -> Any:
    """Return what the bytes of one pickle hold, in bz2 or bare; `where` names it in messages."""
    with limit_memory(len(data)):
        return _load_pickle(where, io.BytesIO(data), MOST_MEMBER_BYTES)


def _load_pickle(path: Path | str, file: IO[bytes], most: int) -> Any:
    packed = file.read(3) == b"BZh"
    file.seek(0)
    return _load_stream(path, bz2.BZ2File(file) if packed else file, most)


def _load_zip(path: Path, file: IO[bytes]) -> Any:
    try:
        archive = zipfile.ZipFile(file)
        names = [n for n in archive.namelist() if n == "data.pkl" or n.endswith("/data.pkl")]
        if len(names) != 1:
            raise UnreadableFile(path, "the zip", f"expected one data.pkl as torch writes it, found {len(names)}")
        with archive.open(names[0]) as member:
            return _load_stream(path, member, MOST_BYTES)
    except BROKEN_ZIP as error:
        raise UnreadableFile(path, "the zip", first_line(error)) from None


def _load_stream(path: Path | str, raw: IO[bytes], most: int) -> Any:
    stream = io.BufferedReader(_Bounded(path, raw, most), CHUNK)
    try:
        value = _Plain(path, stream).load()
        if type(value) is int and value == TORCH_MAGIC:
            for _ in ("version of the format", "the machine that wrote it"):
                _Plain(path, stream).load()
            value = _Plain(path, stream).load()
        return value
    except LissnasError:
        raise
    except MemoryError:
        raise UnreadableFile(path, "the pickle in it", "takes more memory than a sound one of its size") from None
    except _BROKEN as error:
        what = short(f"{type(error).__name__}: {error}".rstrip(": "), 300)
        raise UnreadableFile(path, "the pickle in it", f"can't be read ({what})") from None


_BROKEN = (
    *(pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError),
    *(OverflowError, ImportError, OSError, RecursionError, struct.error, zlib.error),
)
"""What the unpickler and the unpackers raise at bytes that are no pickle."""


class _Bounded(io.RawIOBase):
    """A stream that ends in an error when it goes on for longer than `most` bytes."""

    def __init__(self, path: Path | str, raw: IO[bytes], most: int) -> None:
        self._path, self._raw, self._left = path, raw, most

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._raw.read(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise UnreadableFile(self._path, "the pickle in it", "unpacks to more than such a file holds")
        buffer[: len(data)] = data
        return len(data)


class _Plain(pickle.Unpickler):
    """An unpickler that gives out nothing but plain data."""

    def __init__(self, path: Path | str, stream: io.BufferedReader[Any]) -> None:
        super().__init__(stream)
        self._path = path

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """Return the stand-in for a harmless name; raises NotPlainData for any other."""
        try:
            return _STAND_INS[module_name, global_name]
        except KeyError:
            raise NotPlainData(self._path, module_name, global_name) from None

    def persistent_load(self, pid: Any, /) -> Any:
        """Refuse what lies outside of the pickle: the numbers of a tensor."""
        raise NotPlainData(self._path, "torch", "storage")


# A pickle can set no attributes of the stand-ins, dict and set: one file can't change what the next sees.
class _Encode:
    """How protocol 2 writes bytes: as text in which each character is one of them."""

    __slots__ = ()

    def __call__(self, text: str, encoding: str) -> bytes:
        if encoding != "latin1":
            raise ValueError(f"bytes written as {encoding}")
        return text.encode("latin-1")


class _Kind:
    """What numpy's number types are here: a code such as f8, and the order of bytes."""

    __slots__ = ("code",)

    def __init__(self, code: str) -> None:
        if not isinstance(code, str) or not re.fullmatch(r"[fiub][1248]", code):
            raise ValueError(f"the number type {code!r}")
        self.code = code

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1]
        if order not in ("<", ">", "|", "="):
            raise ValueError(f"the byte order {order!r}")
        self.code = order + self.code[-2:]


class _Dtype:
    __slots__ = ()

    def __call__(self, code: str, *_: Any) -> _Kind:
        return _Kind(code)


class _Scalar:
    __slots__ = ()

    def __call__(self, kind: _Kind, data: bytes) -> Any:
        if not isinstance(kind, _Kind) or not isinstance(data, bytes):
            raise TypeError("a number that has no type")
        (value,) = np.frombuffer(data, np.dtype(kind.code))
        return value.item()


_STAND_INS = {
    ("collections", "OrderedDict"): dict,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
    ("_codecs", "encode"): _Encode(),
    ("numpy", "dtype"): _Dtype(),
    ("numpy.core.multiarray", "scalar"): _Scalar(),
    ("numpy._core.multiarray", "scalar"): _Scalar(),
}
