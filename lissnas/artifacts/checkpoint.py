"""The last state of a run in progress, from which the same command resumes."""

from __future__ import annotations

import io
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lissnas.artifacts.atomic import write
from lissnas.artifacts.folder import read_verified
from lissnas.artifacts.formats import digest, from_json, sha256, to_json
from lissnas.core.errors import DamagedFile


def checkpoint_of(folder: Path) -> Path:
    """Return where the run that leaves its result in `folder` keeps its last state."""
    return folder.parent / f".{folder.name}.checkpoint"


def tasks_of(folder: Path) -> Path:
    """Return where the run that leaves its result in `folder` keeps what its finished tasks gave."""
    return folder.parent / f".{folder.name}.tasks"


SAVING, QUICK = 0.05, 0.1
"""The share of the time that may go into saving a state, and seconds of a save that is due in any case."""


STATE = "checkpoint.json"
"""What a checkpoint says of itself; its arrays lie beside it."""


def kept_beside(folder: Path) -> tuple[Path, Path]:
    """Return where a run keeps what it goes on from, until its result is in `folder`."""
    return checkpoint_of(folder), tasks_of(folder)


class Checkpoint:
    """The last state of a run in progress, beside its folder, bound to the run's parameters.

    It lies outside of the folder, which other tools (DVC) may delete before the run goes on.
    """

    def __init__(self, folder: Path, parameters: Any) -> None:
        self.folder = checkpoint_of(folder)
        self.parameters = digest(parameters)
        self._due = 0.0

    @property
    def due(self) -> bool:
        """Whether it is time to save again, where saving takes long: so that it has its share of the time at most."""
        return time.monotonic() >= self._due

    def save(self, arrays: Mapping[str, NDArray[Any]], about: Any) -> None:
        """Replace the checkpoint; one that is being replaced stays good until the new one is whole."""
        began = time.monotonic()
        sink = io.BytesIO()
        np.savez(sink, **arrays)  # type: ignore[arg-type]
        data = sink.getvalue()
        state = f"state-{sha256(data)[:16]}.npz"
        write(self.folder / state, data)
        said = {"parameters": self.parameters, "state": state, "sha256": sha256(data), "about": about}
        write(self.folder / STATE, to_json({**said, "digest": digest(said)}))
        for old in self.folder.glob("state-*.npz"):
            if old.name != state:
                old.unlink()
        took = time.monotonic() - began
        self._due = began + (took / SAVING if took > QUICK else 0.0)

    def load(self) -> tuple[dict[str, NDArray[Any]], Any] | None:
        """Return the last state and what was said of it; None where there is none for these parameters.

        Raises DamagedFile when the state is not what was written.
        """
        if (said := _checkpoint(self.folder)) is None or said["parameters"] != self.parameters:
            return None
        data = _state(self.folder, said)
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return dict(arrays), said["about"]

    def clear(self) -> None:
        """Forget the state, once the run is published."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _checkpoint(folder: Path) -> dict[str, Any] | None:
    """Return what a checkpoint says, None where there is none; raises DamagedFile."""
    try:
        text = (folder / STATE).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    expected, found = "of what it says", sha256(text)
    try:
        said: dict[str, Any] = from_json(text)
        expected, found = str(said.pop("digest")), digest(said)
    except (ValueError, KeyError, AttributeError, TypeError):
        pass
    if found != expected:
        raise DamagedFile(str(folder / STATE), expected, found, _begin_anew(folder))
    return said


def _state(folder: Path, said: Mapping[str, Any]) -> bytes:
    return read_verified(folder, said["state"], {said["state"]: said["sha256"]}, _begin_anew(folder))


def _begin_anew(folder: Path) -> str:
    return f"Delete the folder {folder} to start from the beginning."


def checkpoint_damages(folder: Path) -> Iterator[DamagedFile]:
    """Yield what is wrong with a checkpoint: the first that is."""
    try:
        if (said := _checkpoint(folder)) is not None:
            _state(folder, said)
    except DamagedFile as damage:
        yield damage
