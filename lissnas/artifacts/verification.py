"""What lies on disk against the checksums that were written with it: results, checkpoints, journals."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from lissnas.artifacts import checkpoint, journal
from lissnas.artifacts import folder as folder_module
from lissnas.artifacts.remote import fetched, is_remote
from lissnas.core.errors import DamagedFile, LissnasError, UserError

RESULT, CHECKPOINT = "result", "checkpoint"
JOURNALS = {journal.LOG: "label log", journal.TASKS: "task log"}
FOREIGN = {".git", ".venv", ".dvc", "mlruns", "mlartifacts", "node_modules", "site-packages"}
"""Folders of other programs; MLflow keeps single files of a result."""


@dataclass(frozen=True)
class Verified:
    """A result, a checkpoint or a journal; and what is wrong with it, nothing where it is sound."""

    path: Path
    kind: str
    damages: tuple[LissnasError, ...]


def verified(path: Path) -> Iterator[Verified]:
    """Yield what is under a path, or in a place in object storage, each held against its checksums.

    A file is held against the manifest of its folder. Raises UserError where there is nothing of lissnas.
    """
    if is_remote(path):
        yield _of_remote(path)
        return
    if not any(start.exists() for start in (path, *checkpoint.kept_beside(path))):
        raise UserError(f"{path}: there is no such file or folder")
    found = False
    for one in _of_file(path) if path.is_file() else _below(path):
        found = True
        yield one
    if not found:
        raise UserError(
            f"{path}: nothing here has a checksum: expected a {folder_module.MANIFEST}, a checkpoint or a log"
        )


def _of_remote(path: Path) -> Verified:
    try:
        return Verified(path, RESULT, tuple(_result(fetched(path))))
    except DamagedFile as damage:  # found on the way
        return Verified(path, RESULT, (damage,))


def _of_file(path: Path) -> Iterator[Verified]:
    if path.name in (folder_module.MANIFEST, folder_module.RUN):
        yield Verified(path.parent, RESULT, tuple(_result(path.parent)))
    elif path.name == checkpoint.STATE:
        yield Verified(path.parent, CHECKPOINT, tuple(checkpoint.checkpoint_damages(path.parent)))
    elif path.name in JOURNALS:
        yield Verified(path, JOURNALS[path.name], tuple(journal.damages(path)))
    elif path.name in (manifest := folder_module.read_manifest(path.parent) or {}):
        yield Verified(path, RESULT, tuple(folder_module.damages(path.parent, {path.name: manifest[path.name]})))


def _below(top: Path) -> Iterator[Verified]:
    """Yield what is in a folder and below it, and the checkpoints of a run that would leave its result there."""
    for folder, folders, files in chain.from_iterable(os.walk(start) for start in (top, *checkpoint.kept_beside(top))):
        folders[:] = sorted(name for name in folders if name not in FOREIGN)
        for name in (folder_module.MANIFEST, checkpoint.STATE, *JOURNALS):
            if name in files and (name != folder_module.MANIFEST or _is_ours(Path(folder))):
                yield from _of_file(Path(folder) / name)


def _is_ours(folder: Path) -> bool:
    """Return whether a manifest is of lissnas: other programs have files of that name too."""
    try:
        return folder_module.read_manifest(folder) is not None
    except UserError:
        return (folder / folder_module.RUN).exists()


def _result(folder: Path) -> Iterator[LissnasError]:
    try:
        manifest = folder_module.read_manifest(folder)
        if manifest is None:
            raise UserError(f"{folder} has no {folder_module.MANIFEST}: no run of lissnas was completed there")
        yield from folder_module.damages(folder, manifest)
    except UserError as damage:  # of the manifest itself
        yield damage
