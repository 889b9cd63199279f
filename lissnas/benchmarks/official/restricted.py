"""Safe unpickler, the only module that opens pickles: returns plain data and refuses names that would run code.

`pickle` imports the classes and calls the functions that a file names. Here each name is looked up in a table of
seven, which maps to dict, set, or a stand-in that only makes bytes and numbers; nothing is imported. Files of torch
are read without torch: its zip format (since 1.6) and the older sequence of pickles. Memory is limited, since a
malicious file could fill it.
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

MAX_BYTES = 64 << 30
"""Maximum size of an unpacked pickle; that of all of NATS-Bench has about 20 GB."""
MAX_MEMBER_BYTES = 256 << 20
"""Maximum size of the pickle of one architecture."""
BROKEN_ZIP = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(NotImplementedError, RuntimeError, EOFError, OSError, ValueError, OverflowError, KeyError),
)
"""The exceptions raised by opening or unpacking a damaged zip."""
TORCH_MAGIC = 0x1950A86A20F9469CFC6C
"""The first pickle in a file of torch before 1.6."""


class NotPlainData(LissnasError):
    """A pickle names a class or function, which loading would import or call."""

    def __init__(self, path: Path | str, module: str, name: str) -> None:
        self.named = short(f"{module}.{name}", 200)
        super().__init__(f"{path}: refuses to load: it names {self.named}, which is not plain data")


def load(path: Path) -> Any:
    """Return the content of a pickle, plain, in bz2, or in either format of torch.

    Raises NotPlainData, or UnreadableFile if it can't be read.
    """
    with path.open("rb") as file, limit_memory(path.stat().st_size):
        zipped = file.read(4) == b"PK\x03\x04"
        file.seek(0)
        return _load_zip(path, file) if zipped else _load_pickle(path, file, MAX_BYTES)


def load_member(name: str, data: bytes) -> Any:
    """Return the content of one pickle, in bz2 or plain; `name` identifies it in messages."""
    with limit_memory(len(data)):
        return _load_pickle(name, io.BytesIO(data), MAX_MEMBER_BYTES)


def _load_pickle(path: Path | str, file: IO[bytes], max_bytes: int) -> Any:
    packed = file.read(3) == b"BZh"
    file.seek(0)
    return _load_stream(path, bz2.BZ2File(file) if packed else file, max_bytes)


def _load_zip(path: Path, file: IO[bytes]) -> Any:
    try:
        archive = zipfile.ZipFile(file)
        names = [n for n in archive.namelist() if n == "data.pkl" or n.endswith("/data.pkl")]
        if len(names) != 1:
            raise UnreadableFile(path, "the zip", f"expected one data.pkl as torch writes it, found {len(names)}")
        with archive.open(names[0]) as member:
            return _load_stream(path, member, MAX_BYTES)
    except BROKEN_ZIP as error:
        raise UnreadableFile(path, "the zip", first_line(error)) from None


def _load_stream(path: Path | str, raw: IO[bytes], max_bytes: int) -> Any:
    stream = io.BufferedReader(_Bounded(path, raw, max_bytes), CHUNK)
    try:
        value = _Plain(path, stream).load()
        if type(value) is int and value == TORCH_MAGIC:
            for _ in ("format version", "system information"):
                _Plain(path, stream).load()
            value = _Plain(path, stream).load()
        return value
    except LissnasError:
        raise
    except MemoryError:
        raise UnreadableFile(path, "the pickle in it", "takes more memory than a valid one of its size") from None
    except _BROKEN as error:
        what = short(f"{type(error).__name__}: {error}".rstrip(": "), 300)
        raise UnreadableFile(path, "the pickle in it", f"can't be read ({what})") from None


_BROKEN = (
    *(pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError),
    *(OverflowError, ImportError, OSError, RecursionError, struct.error, zlib.error),
)
"""The exceptions raised by unpickling or unpacking invalid bytes."""


class _Bounded(io.RawIOBase):
    """A stream that raises UnreadableFile after `max_bytes` bytes."""

    def __init__(self, path: Path | str, raw: IO[bytes], max_bytes: int) -> None:
        self._path, self._raw, self._left = path, raw, max_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._raw.read(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise UnreadableFile(self._path, "the pickle in it", "unpacks to more bytes than expected")
        buffer[: len(data)] = data
        return len(data)


class _Plain(pickle.Unpickler):
    """An unpickler that returns only plain data."""

    def __init__(self, path: Path | str, stream: io.BufferedReader[Any]) -> None:
        super().__init__(stream)
        self._path = path

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """Return the stand-in of an allowed name; raises NotPlainData for any other."""
        try:
            return _STAND_INS[module_name, global_name]
        except KeyError:
            raise NotPlainData(self._path, module_name, global_name) from None

    def persistent_load(self, pid: Any, /) -> Any:
        """Refuse data outside of the pickle, such as a tensor's storage."""
        raise NotPlainData(self._path, "torch", "storage")


# A pickle can't set attributes of the stand-ins, dict and set, so one file can't affect the next.
class _Encode:
    """Bytes as in protocol 2: text with one character per byte."""

    __slots__ = ()

    def __call__(self, text: str, encoding: str) -> bytes:
        if encoding != "latin1":
            raise ValueError(f"unknown encoding of bytes {encoding!r}")
        return text.encode("latin-1")


class _Kind:
    """A numpy number type: a code such as f8 and the byte order."""

    __slots__ = ("code",)

    def __init__(self, code: str) -> None:
        if not isinstance(code, str) or not re.fullmatch(r"[fiub][1248]", code):
            raise ValueError(f"unknown number type {code!r}")
        self.code = code

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1]
        if order not in ("<", ">", "|", "="):
            raise ValueError(f"unknown byte order {order!r}")
        self.code = order + self.code[-2:]


class _Dtype:
    __slots__ = ()

    def __call__(self, code: str, *_: Any) -> _Kind:
        return _Kind(code)


class _Scalar:
    __slots__ = ()

    def __call__(self, kind: _Kind, data: bytes) -> Any:
        if not isinstance(kind, _Kind) or not isinstance(data, bytes):
            raise TypeError("a number without a type")
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
