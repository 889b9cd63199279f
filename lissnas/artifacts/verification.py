"""Verification of results, checkpoints and journals against their checksums."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from lissnas.artifacts import checkpoint, journal, ownership
from lissnas.artifacts import folder as folder_module
from lissnas.artifacts.remote import fetched, is_remote
from lissnas.core.errors import DamagedFile, LissnasError, UserError

RESULT = "result"
CHECKPOINT = "checkpoint"
JOURNALS = {journal.LOG: "label log", journal.TASKS: "task log"}
FOREIGN = {".git", ".venv", ".dvc", "mlruns", "mlartifacts", "node_modules", "site-packages"}
"""Folders of other programs, which are skipped; MLflow stores single files of a result."""


@dataclass(frozen=True)
class Verified:
    """A verified result, checkpoint or journal, and the errors found in it (empty if it is intact)."""

    path: Path
    kind: str
    damages: tuple[LissnasError, ...]


def verified(path: Path) -> Iterator[Verified]:
    """Verify everything under a path, or at an address in object storage, and yield each item with its errors.

    A single file is checked against the manifest of its folder. Raises UserError if there is nothing to verify.
    """
    if is_remote(path):
        yield _of_remote(path)
        return
    if not any(start.exists() for start in (path, *checkpoint.resume_folders(path))):
        raise UserError(f"{path}: there is no such file or folder")
    found = False
    for item in _of_file(path) if path.is_file() else _below(path):
        found = True
        yield item
    if not found:
        raise UserError(f"{path}: nothing here has a checksum: expected a {ownership.MANIFEST}, a checkpoint or a log")


def _of_remote(path: Path) -> Verified:
    try:
        return Verified(path, RESULT, tuple(_result(fetched(path))))
    except DamagedFile as damage:  # found during the download
        return Verified(path, RESULT, (damage,))


def _of_file(path: Path) -> Iterator[Verified]:
    if path.name in (ownership.MANIFEST, ownership.RUN):
        yield Verified(path.parent, RESULT, tuple(_result(path.parent)))
    elif path.name == checkpoint.STATE:
        yield Verified(path.parent, CHECKPOINT, tuple(checkpoint.checkpoint_damages(path.parent)))
    elif path.name in JOURNALS:
        yield Verified(path, JOURNALS[path.name], tuple(journal.damages(path)))
    elif path.name in (manifest := folder_module.read_manifest(path.parent) or {}):
        yield Verified(path, RESULT, tuple(folder_module.damages(path.parent, {path.name: manifest[path.name]})))


def _below(top: Path) -> Iterator[Verified]:
    """Yield the items in and below a folder, and the checkpoints of a run whose result goes there."""
    for folder, folders, files in chain.from_iterable(map(os.walk, (top, *checkpoint.resume_folders(top)))):
        folders[:] = sorted(name for name in folders if name not in FOREIGN)
        for name in (ownership.MANIFEST, checkpoint.STATE, *JOURNALS):
            if name in files and (name != ownership.MANIFEST or _is_ours(Path(folder))):
                yield from _of_file(Path(folder) / name)


def _is_ours(folder: Path) -> bool:
    """Return whether a manifest was written by lissnas; other programs use the same file name."""
    try:
        return folder_module.read_manifest(folder) is not None
    except UserError:
        return (folder / ownership.RUN).exists()


def _result(folder: Path) -> Iterator[LissnasError]:
    try:
        manifest = folder_module.read_manifest(folder)
        if manifest is None:
            raise UserError(f"{folder} has no {ownership.MANIFEST}: no run of lissnas was completed there")
        yield from folder_module.damages(folder, manifest)
    except UserError as damage:  # of the manifest itself
        yield damage
