"""Results that MLflow could not be told of: kept in mind here, told by `lissnas sync`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from lissnas import store, tracking
from lissnas.errors import LissnasError, first_line
from lissnas.stages.base import finished

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
        return FOLDER / f"{store.digest(asdict(self))[:16]}.json"


def keep(stage: str, folder: Path, seed: int | None, group: str | None) -> None:
    """Keep a result in mind."""
    one = Unlogged(stage, str(folder.absolute()), seed, group)
    store.write(one.file, store.to_json(asdict(one)))


def sync() -> Iterator[tuple[Unlogged, str, bool]]:
    """Tell MLflow of each result; yield it, where it is now or why it is not, and whether it is.

    A result that is gone, or is not what its manifest says, is forgotten.
    """
    for file in sorted(FOLDER.glob("*.json")):
        one = Unlogged(**store.read_json(file))
        try:
            outcome = finished(Path(one.folder))
        except LissnasError as error:
            file.unlink()
            yield one, f"forgotten: {error}", False
            continue
        try:
            place = str(tracking.log_stage(one.stage, outcome, one.seed, one.group))
        except Exception as error:
            yield one, first_line(error), False
            continue
        file.unlink()
        yield one, place, True
