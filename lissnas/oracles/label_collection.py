"""Labels by training: whoever can say how good a network is, asked about many, each answer kept as it arrives.

A label costs seconds to hours, so none is ever lost: the log is appended to durably, and what a process
that was ended had collected is not collected again. A training that fails is a result too.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from lissnas.artifacts.journal import Journal
from lissnas.core.errors import LissnasError
from lissnas.core.redaction import redacted
from lissnas.spaces import FloatArray

ERROR_LENGTH = 300
"""Characters of an error that are kept."""


class LabelFailed(LissnasError):
    """A training that gave no label, and why."""


@dataclass(frozen=True)
class Attempt:
    """What one training gave: a finite value, or an error; and the seconds it took, where they are known."""

    arch: str
    value: float | None
    error: str | None
    seconds: float | None

    @property
    def done(self) -> bool:
        """Whether there is a label."""
        return self.value is not None


class LabellerUnavailable(LissnasError):
    """Nobody is there to label; no failure of a network, so the collecting ends and can go on later."""


Labeller: TypeAlias = Callable[[str], float]
Runner: TypeAlias = Callable[[Labeller, Sequence[str]], Iterator[Attempt]]


def attempt(label_one: Labeller, arch: str) -> Attempt:
    """Ask for one label; an exception, or a value that is not finite, is a failed attempt.

    Only LabellerUnavailable is raised.
    """
    started = time.perf_counter()
    try:
        value = float(label_one(arch))
        error = None if math.isfinite(value) else f"the label is {value}"
    except LabellerUnavailable:
        raise
    except Exception as failure:
        value, error = math.nan, said(failure)
    return Attempt(arch, value if error is None else None, error, round(time.perf_counter() - started, 2))


def said(failure: BaseException) -> str:
    """Return an exception in a line: its text if it is explained, with its kind before if it is not."""
    text = " ".join(redacted(str(failure)).split())
    kind = "" if isinstance(failure, LissnasError) and text else f"{type(failure).__name__}: "
    return (kind + text)[:ERROR_LENGTH]


def one_by_one(label_one: Labeller, archs: Sequence[str]) -> Iterator[Attempt]:
    """Ask for one label after the other, here."""
    return (attempt(label_one, arch) for arch in archs)


class LabelLog:
    """Every attempt so far, by architecture, on top of a journal; `append` adds one to the file before it returns."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.attempts: dict[str, list[Attempt]] = {}
        for record in journal.records:
            one = Attempt(**record)
            self.attempts.setdefault(one.arch, []).append(one)

    @classmethod
    @contextmanager
    def opened(cls, path: Path, parameters: Any) -> Iterator[LabelLog]:
        """Open the log of labels that are a function of `parameters`, for this process alone (`Journal.opened`)."""
        with Journal.opened(path, parameters) as journal:
            yield cls(journal)

    def append(self, one: Attempt) -> None:
        """Add an attempt; it is on disk when this returns."""
        self._journal.append(asdict(one))
        self.attempts.setdefault(one.arch, []).append(one)

    def value(self, arch: str) -> float | None:
        """Return an architecture's label, None where there is none (yet)."""
        return next((one.value for one in self.attempts.get(arch, ()) if one.done), None)

    def values(self, archs: Sequence[str]) -> FloatArray:
        """Return `(n,)` labels of architectures, NaN where there is none (yet)."""
        return np.array([self.value(arch) for arch in archs], np.float64)

    def failures(self, arch: str) -> int:
        """Return how many trainings of an architecture failed."""
        return sum(not one.done for one in self.attempts.get(arch, ()))

    def missing(self, archs: Sequence[str], attempts: int) -> list[str]:
        """Return which architectures have no label and failed fewer than `attempts` times, each once.

        Those that failed come last, so that they don't hold up the others.
        """
        left = [a for a in dict.fromkeys(archs) if self.value(a) is None and self.failures(a) < attempts]
        return sorted(left, key=self.failures)


def collect(
    archs: Sequence[str],
    label_one: Labeller,
    log: LabelLog,
    attempts: int,
    run: Runner = one_by_one,
    on_attempt: Callable[[Attempt], None] = lambda one: None,
) -> None:
    """Ask for the labels that the log lacks, and again for those that failed, up to `attempts` times in total.

    `run` says where: it gives attempts in any order, and each is in the log before the next is waited for.
    """
    while left := log.missing(archs, attempts):
        before = sum(map(len, log.attempts.values()))
        for one in run(label_one, left):
            log.append(one)
            on_attempt(one)
        if sum(map(len, log.attempts.values())) == before:
            raise LabellerUnavailable(f"{len(left)} networks were to be labelled, and nothing came back")
