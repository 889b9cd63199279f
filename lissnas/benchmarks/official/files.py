"""Official files on disk: errors for unreadable files, and digests."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from lissnas.core.errors import LissnasError, UserError

CHUNK = 1 << 20


class UnreadableFile(LissnasError):
    """An official file that violates its format; `location` is a byte offset or an entry in it."""

    def __init__(self, path: Path | str, location: str, reason: str) -> None:
        super().__init__(f"{path}: {location}: {reason}. `lissnas data list` shows where to download the file.")


@dataclass(frozen=True)
class Digests:
    """The hexadecimal digests of a file and its size in bytes."""

    sha256: str
    md5: str
    size: int


def digests(path: Path) -> Digests:
    """Return the digests of a file, or of a folder's files (names and contents, sorted by name)."""
    if path.is_dir():
        return _of_folder(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file or folder")
    sha, md5, size = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            sha.update(chunk)
            md5.update(chunk)
            size += len(chunk)
    return Digests(sha.hexdigest(), md5.hexdigest(), size)


def inside(folder: Path) -> list[Path]:
    """Return the files of a folder, recursively; links that lead out of it are skipped."""
    root = folder.resolve()
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.resolve().is_relative_to(root))


def _of_folder(folder: Path) -> Digests:
    sha, size = hashlib.sha256(), 0
    for path in inside(folder):
        found = digests(path)
        sha.update(f"{path.relative_to(folder).as_posix()} {found.sha256}\n".encode())
        size += found.size
    return Digests(sha.hexdigest(), "", size)
