"""Result folders: files published with a sha256 manifest, and read back verified."""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lissnas.artifacts import ownership
from lissnas.artifacts.atomic import WRITING, _sync_folder, write
from lissnas.artifacts.formats import digest, read_json, sha256, to_json
from lissnas.artifacts.ownership import MANIFEST, RUN
from lissnas.core.errors import DamagedFile, UserError, short


def publish(
    folder: Path,
    files: Mapping[str, bytes],
    timed: Mapping[str, bytes] | None = None,
    record: Mapping[str, Any] | None = None,
) -> None:
    """Write `files` and their manifest to `folder`; the manifest is written last, so it covers complete files only.

    `timed` files hold times: only `run.json`, the `record` of the run, lists them. A new folder appears with one
    rename; in an existing one each file of the earlier result is replaced. Raises UserError, and writes nothing, if a
    file to write exists and is not of lissnas.
    """
    listed = {name: sha256(data) for name, data in sorted(files.items())}
    extra = {name: sha256(data) for name, data in sorted((timed or {}).items())}
    made = {**listed, **extra}
    about = {**(record or {}), ownership.MADE: made, **({"files": extra} if extra else {})}
    everything = {**files, **(timed or {}), RUN: to_record(about), MANIFEST: to_json({"files": listed})}
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}{WRITING}") as temporary:
            complete = Path(temporary) / folder.name
            for name, data in everything.items():
                write(complete / name, data)
            os.rename(complete, folder)
        _sync_folder(folder.parent)
        return
    ownership.check_replaced(folder, everything)
    earlier = ownership.made_in(folder) or {}
    # A run killed from here on leaves a record of all files, old and new, to the run that repeats it.
    write(folder / RUN, claimed(_read(folder / RUN), {**earlier, **made}))
    with suppress(FileNotFoundError):
        (folder / MANIFEST).unlink()
    ownership.remove(folder, {name: sha for name, sha in earlier.items() if name not in everything})
    for name, data in everything.items():
        write(folder / name, data)


def claimed(run: bytes | None, made: Mapping[str, str]) -> bytes:
    """Return the record of an earlier run, if any, with the digests of all files that are of lissnas from now on."""
    record = (None if run is None else ownership.parse_record(run)) or {}
    return to_record({**record, ownership.MADE: dict(made)})


def read_manifest(folder: Path) -> dict[str, str] | None:
    """Return the file names and digests in the folder's manifest, None if there is no manifest."""
    if (text := _read(folder / MANIFEST)) is None:
        return None
    if (files := ownership.parse_manifest(text)) is None:
        raise UserError(f"{folder / MANIFEST} is not a manifest of lissnas. Choose another folder.")
    return checked_files(files, folder / MANIFEST)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def checked_files(files: Mapping[Any, Any], source: Path | str) -> dict[str, str]:
    """Return the files and digests listed by `source`; raises UserError for a name outside its folder."""
    for name in files:
        if not ownership.is_inside(str(name)):
            raise UserError(f"{source} names {short(repr(name))}, which is not in its folder")
    return {str(name): str(digest) for name, digest in files.items()}


def read_verified(folder: Path, name: str, manifest: Mapping[str, str], fix: str | None = None) -> bytes:
    """Return a file's bytes after checking their digest; raises DamagedFile, or UserError if it is not listed.

    The error ends with `fix`, by default the command that made the folder.
    """
    path = folder / name
    if name not in manifest:
        raise UserError(f"{folder} has no {name}: it is a result of another kind, or of another version of lissnas")
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise DamagedFile(str(path), manifest[name], "no file", fix or how_to_rebuild(folder)) from None
    if sha256(data) != manifest[name]:
        raise DamagedFile(str(path), manifest[name], sha256(data), fix or how_to_rebuild(folder))
    return data


def how_to_rebuild(folder: Path) -> str:
    """Return the fix for a damaged result: the command in its `run.json`, with --force."""
    try:
        words = [str(word) for word in read_json(folder / RUN)["command"]]
    except (OSError, ValueError, KeyError, TypeError):
        words = []
    if words[:1] != ["lissnas"] and words[:2] != ["python", "-m"]:
        return "Make it again: the command or the flow that made it, with --force"
    if words[2:3] == ["flows.label"]:  # it has no --force: labels are read from their log, not trained again
        return f"Delete {folder / MANIFEST} and make it again, in the repository: {shlex.join(words)}"
    where = ", in the repository" if words[0] == "python" else ""
    return f"Make it again{where}: {shlex.join(words if '--force' in words else [*words, '--force'])}"


def damages(folder: Path, manifest: Mapping[str, str]) -> Iterator[DamagedFile]:
    """Yield an error for each damaged file of a manifest and of `run.json`."""
    timed: dict[str, str] = {}
    try:
        timed = _timed_files(folder)
    except FileNotFoundError:
        pass
    except DamagedFile as damage:
        yield damage
    for files in (manifest, timed):
        for name in files:
            try:
                read_verified(folder, name, files)
            except DamagedFile as damage:
                yield damage


def to_record(record: Mapping[str, Any]) -> bytes:
    """Return the record of a run as the bytes of `run.json`, with its digest, since no manifest lists it."""
    return to_json({**record, "digest": digest(record)})


def _timed_files(folder: Path) -> dict[str, str]:
    """Return the files with times and their digests; raises DamagedFile, or UserError for an invalid record."""
    try:
        record = read_json(folder / RUN)
        expected = record.pop("digest", "none")
        if expected != digest(record):
            raise DamagedFile(str(folder / RUN), str(expected), digest(record), how_to_rebuild(folder))
        return checked_files(record.get("files", {}), folder / RUN)
    except (ValueError, AttributeError, TypeError):
        raise UserError(f"{folder / RUN} is not a record of lissnas. {how_to_rebuild(folder)}") from None


def verify(folder: Path) -> dict[str, str]:
    """Return the manifest after checking every listed file; raises DamagedFile or UserError."""
    manifest = read_manifest(folder)
    if manifest is None:
        raise UserError(f"{folder} has no {MANIFEST}: no run of lissnas was completed there")
    for damage in damages(folder, manifest):
        raise damage
    return manifest
