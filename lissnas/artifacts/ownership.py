"""Ownership of files: what lissnas made in a result folder may be replaced, everything else is the user's.

The manifest lists what was made, and so does `run.json`, which remains if another program (DVC) deletes the manifest
or if a run is killed while it replaces a result.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path
from typing import Any

from lissnas.artifacts.formats import digest, from_json, sha256
from lissnas.core.errors import UserError

MANIFEST = "manifest.json"
RUN = "run.json"
"""Non-deterministic metadata: times, versions, host, the digests of the files that hold times, and of all files."""
MADE = "made"
"""The entry of `run.json` with the digests of all files of the result."""
UNLISTED = ("predictor_kernel.npz", "comparison.parquet", "attempts.csv")
"""Files of a result that its manifest or dvc.yaml does not list, if there is no `made`: `run.json` is damaged, or of an
earlier version."""
MAX_NAMED = 8
"""Files in the way that a message names."""
_DIGEST = re.compile(r"[0-9a-f]+")
_CHECKSUM = re.compile(rb"[0-9a-f]{16} ")
"""Start of each line of a journal."""


def parse_manifest(data: bytes) -> dict[str, str] | None:
    """Return the files and digests of a manifest; None if lissnas did not write it."""
    try:
        content = from_json(data)
        files = content["files"]
        ours = set(content) == {"files"} and all(_DIGEST.fullmatch(value) for value in files.values())
        return dict(files) if ours else None
    except (ValueError, KeyError, AttributeError, TypeError):
        return None


def parse_record(data: bytes) -> dict[str, Any] | None:
    """Return the record of a run; None if lissnas did not write it."""
    try:
        record: dict[str, Any] = from_json(data)
        return record if record.pop("digest") == digest(record) else None
    except (ValueError, KeyError, AttributeError, TypeError):
        return None


def made_by(manifest: bytes | None, run: bytes | None) -> dict[str, str] | None:
    """Return the files that a manifest and a record list, with their digests; None if neither is of lissnas."""
    listed = None if manifest is None else parse_manifest(manifest)
    record = None if run is None else parse_record(run)
    if listed is None and record is None:
        return None
    made = dict.fromkeys(UNLISTED if MADE not in (record or {}) else (), "")
    for files in (record or {}).get("files"), (record or {}).get(MADE), listed:
        made |= files if isinstance(files, dict) else {}
    return {**{name: str(sha) for name, sha in made.items() if is_inside(name)}, MANIFEST: "", RUN: ""}


def is_inside(name: str) -> bool:
    """Return whether a name with slashes is a valid path below a folder: printable, parts of at most 255 bytes."""
    parts = name.split("/")
    return name.isprintable() and not any(part in ("", ".", "..") or len(part.encode()) > 255 for part in parts)


def made_in(folder: Path) -> dict[str, str] | None:
    """Return the files that lissnas made in a folder, with their digests; None without a record of them."""
    return made_by(_read(folder / MANIFEST), _read(folder / RUN))


def check_folder(folder: Path) -> None:
    """Raise UserError, before any work, unless a result can be written to a folder without touching a user's file.

    A folder is new, empty, or has the record of an earlier result. Hidden files, results in subfolders and the log of
    an interrupted labelling are not in the way.
    """
    if folder.name in ("", ".."):
        raise UserError(f"--out: {str(folder)!r} is not a folder that can be created. Name one.")
    check_path(folder)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file. Choose a folder.")
    made = made_in(folder)
    if made is None:
        refuse(folder, foreign(folder, {}))


def check_path(path: Path) -> None:
    """Raise UserError if a path leads through a link to nothing, or through a file."""
    for part in (path, *path.parents):
        if os.path.lexists(part) and not part.exists():
            raise UserError(f"{part} is a link to {os.readlink(part)}, which is not there. Choose another folder.")
        if part is not path and part.exists() and not part.is_dir():
            raise UserError(f"{part} is a file. Choose a folder.")


def check_writable(folder: Path) -> None:
    """Raise UserError, before any work, if a folder exists and does not accept files."""
    if folder.exists() and not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"can't write to {folder}: its permissions don't allow it. Choose another folder.")


def check_replaced(folder: Path, names: Iterable[str]) -> None:
    """Raise UserError if one of the files to write exists in a folder and is not of lissnas.

    A name can be a pattern of names in a subfolder, such as `pages/*`.
    """
    made, names = made_in(folder) or {}, list(names)
    patterns = [name for name in names if "*" in name]
    found = [name for name in foreign(folder, made) if any(fnmatchcase(name, p) for p in patterns)] if patterns else []
    for name in names:
        above = [part for part in _above(name) if os.path.lexists(folder / part) and not (folder / part).is_dir()]
        found += above or ([name] if os.path.lexists(folder / name) else [])
    refuse(folder, (name for name in dict.fromkeys(found) if name not in made and not _is_tracked(folder / name)))


def _above(name: str) -> list[str]:
    """Return the folders above a name with slashes."""
    parts = name.split("/")
    return ["/".join(parts[:n]) for n in range(1, len(parts))]


def refuse(folder: Path | str, names: Iterable[str]) -> None:
    """Raise UserError that names the files of a user in a folder, if there are any."""
    found = list(islice(names, MAX_NAMED + 1))
    if not found:
        return
    more = " and more" if len(found) > MAX_NAMED else ""
    what = "a file" if len(found) == 1 else "files"
    raise UserError(
        f"{folder} has {what} {', '.join(found[:MAX_NAMED])}{more} that lissnas did not make. "
        f"Choose another folder, or move {'it' if len(found) == 1 else 'them'} away."
    )


def foreign(folder: Path, made: Mapping[str, str], below: str = "") -> Iterator[str]:
    """Yield the names of the files in a folder that lissnas did not make; hidden ones are skipped."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: (entry.is_dir(), entry.name))
    except FileNotFoundError:
        return
    for entry in entries:
        name, path = f"{below}{entry.name}", Path(entry.path)
        if entry.name.startswith(".") or name in made:
            continue
        if entry.is_dir(follow_symlinks=False):
            if made_in(path) is None:
                yield from foreign(path, made, f"{name}/")
        elif not (entry.name.endswith(".jsonl") and is_journal(_read(path) or b"")) and not _is_tracked(path):
            yield name


def remove(folder: Path, names: Mapping[str, str]) -> None:
    """Delete files of an earlier result, given with their digests; a file that was changed since is kept."""
    for name, expected in names.items():
        path = folder / name
        if path.is_file() and not path.is_symlink() and sha256(path.read_bytes()) == expected:
            path.unlink()


def remove_folder(folder: Path, is_made: Callable[[str], object]) -> None:
    """Delete the files of a folder and its subfolders whose name `is_made` accepts, then the empty folders."""
    for place, _folders, files in os.walk(folder, topdown=False):
        for name in files:
            if is_made(name):
                (Path(place) / name).unlink(missing_ok=True)
        if not any(os.scandir(place)):
            os.rmdir(place)


def is_journal(data: bytes) -> bool:
    """Return whether the content of a file is a journal of lissnas, perhaps damaged, or empty."""
    return not data or data[16:18] == b" {" or bool(_CHECKSUM.match(data))


def _is_tracked(path: Path) -> bool:
    """Return whether dvc.lock of the current folder lists a file with its content: git, too, restores such files."""
    lock = _read(Path("dvc.lock"))
    if path.name != "metrics.json" or lock is None:
        return False
    try:
        place = path.resolve().relative_to(Path.cwd().resolve()).as_posix()
        found = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    except (ValueError, OSError):
        return False
    return f"path: {place}\n      hash: md5\n      md5: {found}\n".encode() in lock


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
