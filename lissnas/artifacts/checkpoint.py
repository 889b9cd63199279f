"""Checkpoints: the last state of a run in progress, from which the same command resumes."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lissnas.artifacts.atomic import write
from lissnas.artifacts.folder import read_verified
from lissnas.artifacts.formats import digest, from_json, sha256, to_json
from lissnas.artifacts.ownership import remove_folder
from lissnas.core.errors import DamagedFile


def checkpoint_of(folder: Path) -> Path:
    """Return the checkpoint folder of the run whose result goes to `folder`."""
    return folder.parent / f".{folder.name}.checkpoint"


def tasks_of(folder: Path) -> Path:
    """Return the folder with the finished tasks' results of the run whose result goes to `folder`."""
    return folder.parent / f".{folder.name}.tasks"


MAX_SAVE_SHARE = 0.05
"""The share of the run time that may go into saving checkpoints."""
QUICK_SAVE = 0.1
"""Seconds; saves that take less are not rationed."""
STATE = "checkpoint.json"
"""The metadata of a checkpoint; its arrays are stored alongside."""
_IS_MADE = re.compile(r"checkpoint\.json|state-[0-9a-f]{16}\.npz|(tasks|labels)\.jsonl|\..*").fullmatch
"""Matches the names of the files in a checkpoint or a folder of tasks."""


def resume_folders(folder: Path) -> tuple[Path, Path]:
    """Return the folders that a run resumes from, checkpoint and tasks, until its result is in `folder`."""
    return checkpoint_of(folder), tasks_of(folder)


class Checkpoint:
    """The last state of a run in progress, bound to the run's parameters.

    It is stored next to the run's folder, which other tools (DVC) may delete before the run resumes.
    """

    def __init__(self, folder: Path, parameters: Any) -> None:
        self.folder = checkpoint_of(folder)
        self.parameters = digest(parameters)
        self._due = 0.0

    @property
    def due(self) -> bool:
        """Whether to save again now: slow saves take at most `MAX_SAVE_SHARE` of the time."""
        return time.monotonic() >= self._due

    def save(self, arrays: Mapping[str, NDArray[Any]], about: Any) -> None:
        """Replace the checkpoint; the old one stays valid until the new one is complete."""
        started = time.monotonic()
        sink = io.BytesIO()
        np.savez(sink, **arrays)  # type: ignore[arg-type]
        data = sink.getvalue()
        state = f"state-{sha256(data)[:16]}.npz"
        write(self.folder / state, data)
        metadata = {"parameters": self.parameters, "state": state, "sha256": sha256(data), "about": about}
        write(self.folder / STATE, to_json({**metadata, "digest": digest(metadata)}))
        for old in self.folder.glob("state-*.npz"):
            if old.name != state:
                old.unlink()
        seconds = time.monotonic() - started
        self._due = started + (seconds / MAX_SAVE_SHARE if seconds > QUICK_SAVE else 0.0)

    def load(self) -> tuple[dict[str, NDArray[Any]], Any] | None:
        """Return the arrays and the `about` of the last save; None if there is no checkpoint of these parameters.

        Raises DamagedFile if its checksum does not match.
        """
        if (metadata := _metadata(self.folder)) is None or metadata["parameters"] != self.parameters:
            return None
        data = _state(self.folder, metadata)
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return dict(arrays), metadata["about"]

    def clear(self) -> None:
        """Delete the checkpoint, once the result is published."""
        remove_checkpoint(self.folder)


def remove_checkpoint(folder: Path) -> None:
    """Delete the checkpoints and task logs in a folder, and the folder unless a user put other files in it."""
    remove_folder(folder, _IS_MADE)


def _metadata(folder: Path) -> dict[str, Any] | None:
    """Return the metadata of a checkpoint, None if there is no checkpoint; raises DamagedFile."""
    try:
        text = (folder / STATE).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    expected, found = "of its content", sha256(text)
    try:
        metadata: dict[str, Any] = from_json(text)
        expected, found = str(metadata.pop("digest")), digest(metadata)
    except (ValueError, KeyError, AttributeError, TypeError):
        pass
    if found != expected:
        raise DamagedFile(str(folder / STATE), expected, found, _how_to_restart(folder))
    return metadata


def _state(folder: Path, metadata: Mapping[str, Any]) -> bytes:
    name = metadata["state"]
    return read_verified(folder, name, {name: metadata["sha256"]}, _how_to_restart(folder))


def _how_to_restart(folder: Path) -> str:
    return f"Delete the folder {folder} to start from scratch."


def checkpoint_damages(folder: Path) -> Iterator[DamagedFile]:
    """Yield the first error found in a checkpoint, if any."""
    try:
        if (metadata := _metadata(folder)) is not None:
            _state(folder, metadata)
    except DamagedFile as damage:
        yield damage
