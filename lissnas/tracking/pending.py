"""Journal of results that could not be logged to MLflow, until `lissnas sync` logs them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lissnas.artifacts.journal import Journal
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
    seed: int | None
    group: str | None


def add(stage: str, folder: Path, seed: int | None, group: str | None) -> None:
    """Add a result to the journal, once."""
    _record(Unlogged(stage, str(folder.absolute()), seed, group), waits=True)


def waiting() -> list[Unlogged]:
    """Return the results that are not logged yet, in the order of addition."""
    if not JOURNAL.exists():
        return []
    with _opened() as journal:
        return list(_waiting(journal))


def sync(load_network: Callable[[Path], Any] | None = None) -> Iterator[tuple[Unlogged, str, bool]]:
    """Log each waiting result to MLflow; yield it, its run or the error, and whether it is logged.

    Missing and damaged results are removed from the journal. `load_network` as in `log_stage`.
    """
    for one in waiting():
        try:
            outcome = finished(Path(one.folder))
        except LissnasError as error:
            _record(one, waits=False)
            yield one, f"removed from the list: {error}", False
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
