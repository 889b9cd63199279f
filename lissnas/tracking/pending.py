"""Journal of results that could not be logged to MLflow, until `lissnas sync` logs them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lissnas.artifacts.formats import sha256
from lissnas.artifacts.journal import Journal
from lissnas.artifacts.ownership import MANIFEST
from lissnas.artifacts.stage_run import finished
from lissnas.core.errors import LissnasError, first_line
from lissnas.tracking.mlflow import log_stage

JOURNAL = Path(".lissnas/unlogged.jsonl")
"""One record when a result is added and one when it is removed; results stay in their folders."""
WAIT = 30.0
"""Maximum wait for another process that writes to the journal, in seconds."""


@dataclass(frozen=True)
class Unlogged:
    """A result that is not logged yet, and the seed and group of its MLflow run."""

    stage: str
    folder: str
    """Relative to the current folder if it is inside, so that it is found where that is mounted elsewhere."""
    seed: int | None
    group: str | None
    manifest: str = ""
    """The digest of the result's manifest; empty in records of earlier versions."""


def add(stage: str, folder: Path, seed: int | None, group: str | None) -> None:
    """Add a result to the journal, once; it replaces an earlier result of the same stage and folder."""
    place = folder.absolute()
    if place.is_relative_to(Path.cwd()):
        place = place.relative_to(Path.cwd())
    added = Unlogged(stage, str(place), seed, group, _digest(folder))
    for one in waiting():
        if one != added and one.stage == stage and Path(one.folder).absolute() == folder.absolute():
            _record(one, waits=False)
    _record(added, waits=True)


def _digest(folder: Path) -> str:
    return sha256((folder / MANIFEST).read_bytes())


def waiting() -> list[Unlogged]:
    """Return the results that are not logged yet, in the order of addition."""
    if not JOURNAL.exists():
        return []
    with _opened() as journal:
        return list(_waiting(journal))


def sync(load_network: Callable[[Path], Any] | None = None) -> Iterator[tuple[Unlogged, str, bool]]:
    """Log each waiting result to MLflow; yield it, its run or the error, and whether it is logged.

    A result that is missing, damaged or replaced by another one stays in the journal: its disk may be mounted later, or
    `dvc checkout` restore it. `load_network` as in `log_stage`.
    """
    for one in waiting():
        try:
            outcome = finished(Path(one.folder))
            if one.manifest not in ("", _digest(outcome.folder)):
                raise LissnasError("another result is there now")
        except LissnasError as error:
            yield one, f"missing: {error}. It is kept in mind; delete {JOURNAL} to forget all results", False
            continue
        try:
            place = str(log_stage(one.stage, outcome, one.seed, one.group, load_network=load_network))
        except Exception as error:
            yield one, first_line(error), False
            continue
        _record(one, waits=False)
        yield one, place, True


def _opened() -> AbstractContextManager[Journal]:
    return Journal.opened(JOURNAL, "results that wait for MLflow", wait=WAIT)


def _waiting(journal: Journal) -> dict[Unlogged, bool]:
    last = {Unlogged(**record["result"]): record["waits"] for record in journal.records}
    return {one: waits for one, waits in last.items() if waits}


def _record(one: Unlogged, waits: bool) -> None:
    with _opened() as journal:
        if (one in _waiting(journal)) != waits:
            journal.append({"result": asdict(one), "waits": waits})
