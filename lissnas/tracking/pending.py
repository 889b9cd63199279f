"""Results that could not be logged to MLflow, kept in a journal until `lissnas sync` logs them."""

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
"""A record when a result begins to wait, and one when it no longer does; results stay in their own folders."""
WAIT = 30.0
"""Seconds to wait for another process that writes to the journal."""


@dataclass(frozen=True)
class Unlogged:
    """A stage's result, and what its run in MLflow is to be called."""

    stage: str
    folder: str
    seed: int | None
    group: str | None


def keep(stage: str, folder: Path, seed: int | None, group: str | None) -> None:
    """Record that a result waits for MLflow, once."""
    _record(Unlogged(stage, str(folder.absolute()), seed, group), waits=True)


def waiting() -> list[Unlogged]:
    """Return the results that wait for MLflow, in the order in which they were kept."""
    if not JOURNAL.exists():
        return []
    with _opened() as journal:
        return list(_waiting(journal))


def sync(load_network: Callable[[Path], Any] | None = None) -> Iterator[tuple[Unlogged, str, bool]]:
    """Log each waiting result to MLflow; yield it, where it is now or why it is not, and whether it is.

    A result that is gone, or is not what its manifest says, is forgotten. `load_network` as in `log_stage`.
    """
    for one in waiting():
        try:
            outcome = finished(Path(one.folder))
        except LissnasError as error:
            _record(one, waits=False)
            yield one, f"forgotten: {error}", False
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
