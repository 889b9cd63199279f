"""Results that MLflow could not be told of: kept in mind here, told by `lissnas sync`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lissnas import artifacts
from lissnas.artifacts.stage_run import finished
from lissnas.core.errors import LissnasError, first_line
from lissnas.tracking.mlflow import log_stage

FOLDER = Path(".lissnas/unlogged")
"""A small file for each result; the result itself stays in its own folder."""


@dataclass(frozen=True)
class Unlogged:
    """A stage's result, and what its run in MLflow is to be called."""

    stage: str
    folder: str
    seed: int | None
    group: str | None

    @property
    def file(self) -> Path:
        """Return where it is kept in mind: the same result once."""
        return FOLDER / f"{artifacts.digest(asdict(self))[:16]}.json"


def keep(stage: str, folder: Path, seed: int | None, group: str | None) -> None:
    """Keep a result in mind."""
    one = Unlogged(stage, str(folder.absolute()), seed, group)
    artifacts.write(one.file, artifacts.to_json(asdict(one)))


def sync(load_network: Callable[[Path], Any] | None = None) -> Iterator[tuple[Unlogged, str, bool]]:
    """Tell MLflow of each result; yield it, where it is now or why it is not, and whether it is.

    A result that is gone, or is not what its manifest says, is forgotten. `load_network` as in `log_stage`.
    """
    for file in sorted(FOLDER.glob("*.json")):
        one = Unlogged(**artifacts.read_json(file))
        try:
            outcome = finished(Path(one.folder))
        except LissnasError as error:
            file.unlink()
            yield one, f"forgotten: {error}", False
            continue
        try:
            place = str(log_stage(one.stage, outcome, one.seed, one.group, load_network=load_network))
        except Exception as error:
            yield one, first_line(error), False
            continue
        file.unlink()
        yield one, place, True
