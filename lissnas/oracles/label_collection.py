"""Label collection: evaluates many architectures and logs each label as it arrives.

A label costs seconds to hours, so the log is appended durably and a restarted process collects only the missing
labels. A failed training is logged too.
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

MAX_ERROR_LENGTH = 300
"""Maximum characters of a logged error."""


class LabelFailed(LissnasError):
    """A training gave no label; the message is the reason."""


@dataclass(frozen=True)
class Attempt:
    """The outcome of one training: a finite value or an error, and its seconds, if known."""

    arch: str
    value: float | None
    error: str | None
    seconds: float | None

    @property
    def done(self) -> bool:
        """Whether the attempt gave a label."""
        return self.value is not None


class LabellerUnavailable(LissnasError):
    """No worker can label; this is not a failed training, so the collection stops and can be resumed later."""


Labeller: TypeAlias = Callable[[str], float]
Runner: TypeAlias = Callable[[Labeller, Sequence[str]], Iterator[Attempt]]


def attempt(label_one: Labeller, arch: str) -> Attempt:
    """Request one label; an exception or a non-finite value is a failed attempt. Raises only LabellerUnavailable."""
    started = time.perf_counter()
    try:
        value = float(label_one(arch))
        error = None if math.isfinite(value) else f"the label is {value}"
    except LabellerUnavailable:
        raise
    except Exception as failure:
        value, error = math.nan, describe_failure(failure)
    return Attempt(arch, value if error is None else None, error, round(time.perf_counter() - started, 2))


def describe_failure(failure: BaseException) -> str:
    """Return an exception as one line: its message, preceded by its type unless it is a LissnasError."""
    text = " ".join(redacted(str(failure)).split())
    kind = "" if isinstance(failure, LissnasError) and text else f"{type(failure).__name__}: "
    return (kind + text)[:MAX_ERROR_LENGTH]


def one_by_one(label_one: Labeller, archs: Sequence[str]) -> Iterator[Attempt]:
    """Request labels one after the other, in this process."""
    return (attempt(label_one, arch) for arch in archs)


class LabelLog:
    """All attempts by architecture, stored in a journal; `append` returns once the attempt is on disk."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.attempts: dict[str, list[Attempt]] = {}
        for record in journal.records:
            one = Attempt(**record)
            self.attempts.setdefault(one.arch, []).append(one)

    @classmethod
    @contextmanager
    def opened(cls, path: Path, parameters: Any) -> Iterator[LabelLog]:
        """Open the log of the labels that depend on `parameters`, exclusively (`Journal.opened`)."""
        with Journal.opened(path, parameters) as journal:
            yield cls(journal)

    def append(self, one: Attempt) -> None:
        """Append an attempt; it is on disk when this returns."""
        self._journal.append(asdict(one))
        self.attempts.setdefault(one.arch, []).append(one)

    def value(self, arch: str) -> float | None:
        """Return an architecture's label, None if it has none (yet)."""
        return next((one.value for one in self.attempts.get(arch, ()) if one.done), None)

    def values(self, archs: Sequence[str]) -> FloatArray:
        """Return `(n,)` labels of architectures, NaN for those without a label (yet)."""
        return np.array([self.value(arch) for arch in archs], np.float64)

    def failures(self, arch: str) -> int:
        """Return the number of failed trainings of an architecture."""
        return sum(not one.done for one in self.attempts.get(arch, ()))

    def missing(self, archs: Sequence[str], attempts: int) -> list[str]:
        """Return the distinct architectures without a label that failed fewer than `attempts` times.

        Failed ones come last, so that they don't delay the others.
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
    """Collect the missing labels; failed trainings are repeated, up to `attempts` in total.

    `run` decides where trainings run. It yields attempts in any order; each is logged before the next is awaited.
    """
    while left := log.missing(archs, attempts):
        before = sum(map(len, log.attempts.values()))
        for one in run(label_one, left):
            log.append(one)
            on_attempt(one)
        if sum(map(len, log.attempts.values())) == before:
            raise LabellerUnavailable(f"no results for {len(left)} networks: the workers returned nothing")
