"""Files that are whole or absent: atomic writes, sha256 manifests, locks, checkpoints."""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lissnas.artifacts.atomic import WRITING, _sync_folder, write
from lissnas.artifacts.formats import digest, from_json, read_json, sha256, to_json
from lissnas.core.errors import DamagedFile, UserError, short

MANIFEST = "manifest.json"
RUN = "run.json"
"""What is no function of the parameters: times, versions, host; and digests of the files that hold such."""


def publish(folder: Path, files: Mapping[str, bytes], extra: Mapping[str, bytes] | None = None) -> None:
    """Write `files` and their manifest to `folder`, the manifest last, so that it vouches for all.

    `extra` files (times, host) are written too but not in the manifest. A new folder appears with one
    rename; in one that is there (other tools may have put files in it) each file is replaced.
    """
    manifest = to_json({"files": {name: sha256(data) for name, data in sorted(files.items())}})
    everything = {**files, **(extra or {}), MANIFEST: manifest}
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}{WRITING}") as temporary:
            made = Path(temporary) / folder.name
            for name, data in everything.items():
                write(made / name, data)
            os.rename(made, folder)
        _sync_folder(folder.parent)
        return
    with suppress(FileNotFoundError):
        (folder / MANIFEST).unlink()
    for name, data in everything.items():
        write(folder / name, data)


def read_manifest(folder: Path) -> dict[str, str] | None:
    """Return file names and digests that the folder's manifest lists, None where there is none."""
    try:
        text = (folder / MANIFEST).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return listed(from_json(text)["files"], folder / MANIFEST)
    except (ValueError, KeyError, AttributeError, TypeError):
        raise UserError(f"{folder / MANIFEST} is not a manifest of lissnas; choose another folder") from None


def listed(files: Mapping[Any, Any], where: Path | str) -> dict[str, str]:
    """Return the files and digests that `where` lists; raises UserError for one that is not in its folder."""
    for name in files:
        if not _may_be_inside(str(name)):
            raise UserError(f"{where} names {short(repr(name))}, which is not in its folder")
    return {str(name): str(digest) for name, digest in files.items()}


def _may_be_inside(name: str) -> bool:
    """Return whether a name, with slashes, can be that of a file below a folder: of printable characters, none long."""
    parts = name.split("/")
    return name.isprintable() and not any(part in ("", ".", "..") or len(part.encode()) > 255 for part in parts)


def read_verified(folder: Path, name: str, manifest: Mapping[str, str], remedy: str | None = None) -> bytes:
    """Return a file's bytes once they have the digest of the manifest; raises DamagedFile, or UserError if unlisted.

    The error names `remedy`, by default the command that made the folder.
    """
    path = folder / name
    if name not in manifest:
        raise UserError(f"{folder} has no {name}: it is a result of another kind, or of another version of lissnas")
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise DamagedFile(str(path), manifest[name], "no file", remedy or rebuilt_by(folder)) from None
    if sha256(data) != manifest[name]:
        raise DamagedFile(str(path), manifest[name], sha256(data), remedy or rebuilt_by(folder))
    return data


def rebuilt_by(folder: Path) -> str:
    """Return how to make a folder's result again: the command in its `run.json`, with --force."""
    try:
        words = [str(word) for word in read_json(folder / RUN)["command"]]
    except (OSError, ValueError, KeyError, TypeError):
        words = []
    if words[:1] != ["lissnas"] and words[:2] != ["python", "-m"]:
        return "Make it again: the command or the flow that made it, with --force"
    if words[2:3] == ["flows.label"]:  # it has no --force: labels are in their log, and none is trained again
        return f"Delete {folder / MANIFEST} and make it again: {shlex.join(words)}"
    return f"Make it again: {shlex.join(words if '--force' in words else [*words, '--force'])}"


def damages(folder: Path, manifest: Mapping[str, str]) -> Iterator[DamagedFile]:
    """Yield what is wrong with each file of a manifest, and with the files that `run.json` vouches for."""
    vouched: dict[str, str] = {}
    try:
        vouched = _vouched(folder)
    except FileNotFoundError:
        pass
    except DamagedFile as damage:
        yield damage
    for files in (manifest, vouched):
        for name in files:
            try:
                read_verified(folder, name, files)
            except DamagedFile as damage:
                yield damage


def to_record(said: Mapping[str, Any]) -> bytes:
    """Return the record of a run as the bytes of `run.json`, with a digest of its own: no manifest vouches for it."""
    return to_json({**said, "digest": digest(said)})


def _vouched(folder: Path) -> dict[str, str]:
    """Return the files with times, and their digests; raises DamagedFile, UserError for a record that is none."""
    try:
        said = read_json(folder / RUN)
        expected = said.pop("digest", "none")
        if expected != digest(said):
            raise DamagedFile(str(folder / RUN), str(expected), digest(said), rebuilt_by(folder))
        return listed(said.get("files", {}), folder / RUN)
    except (ValueError, AttributeError, TypeError):
        raise UserError(f"{folder / RUN} is not a record of lissnas. {rebuilt_by(folder)}") from None


def verify(folder: Path) -> dict[str, str]:
    """Return the manifest after checking every file that it lists; raises DamagedFile or UserError."""
    manifest = read_manifest(folder)
    if manifest is None:
        raise UserError(f"{folder} has no {MANIFEST}: no run of lissnas was completed there")
    for damage in damages(folder, manifest):
        raise damage
    return manifest
