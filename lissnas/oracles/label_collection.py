"""Label collection: evaluates many architectures and logs each label as it arrives.

A label costs seconds to hours, so the log is appended durably and a restarted process collects only the missing
labels. A failed training is logged too.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from lissnas import artifacts
from lissnas.artifacts.journal import Journal
from lissnas.core.errors import LissnasError
from lissnas.core.redaction import redacted
from lissnas.oracles.reuse import Reuse, differing
from lissnas.spaces import FloatArray

DIGITS = 16
"""Digits of the digest that identifies the settings of a record."""
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
    """All attempts by architecture, stored in a journal; `append` returns once the attempt is on disk.

    A journal may hold attempts of several settings: another program, another declaration of the space. Each record
    names its own (`of`, those of the header by default) and the run with `force` that it follows (`generation`).
    """

    def __init__(self, path: Path, journal: Journal, about: Mapping[str, Any], reuse: Reuse) -> None:
        self._journal, self._reuse = journal, reuse
        first, mine = journal.header["parameters"][:DIGITS], artifacts.digest(about)[:DIGITS]
        abouts: dict[str, Any] = {first: journal.header.get("about")}
        found: dict[str, dict[int, list[Attempt]]] = {}
        for record in journal.records:
            of = record.get("of", first)
            if "about" in record:
                abouts[of] = record["about"]
            attempts = found.setdefault(of, {}).setdefault(record.get("generation", 0), [])
            if "arch" in record:
                attempts.append(Attempt(*(record[f.name] for f in fields(Attempt))))
        latest = {of: max(generations) for of, generations in found.items()}
        generation = latest.get(mine, 0)
        restart = reuse.force and not reuse.started and mine in found
        self._tag = {} if mine == first else {"of": mine}
        self._tag |= {"generation": generation + restart} if generation + restart else {}
        self.attempts: dict[str, list[Attempt]] = {}
        self._add([] if restart else found.pop(mine, {}).get(generation, []))
        if restart or mine not in abouts:
            journal.append({**self._tag, "about": about})
        if not reuse.started:
            self._start(path, about, [(abouts.get(of), all_[latest[of]]) for of, all_ in found.items() if of != mine])

    @classmethod
    @contextmanager
    def opened(cls, path: Path, about: Mapping[str, Any], reuse: Reuse | None = None) -> Iterator[LabelLog]:
        """Open the log of the labels that depend on `about`, exclusively (`Journal.opened`).

        `reuse` belongs to the run, which may open the log many times.
        """
        with Journal.opened(path, about, others="keep") as journal:
            yield cls(path, journal, about, Reuse() if reuse is None else reuse)

    def _start(self, path: Path, about: Mapping[str, Any], others: Sequence[tuple[Any, Sequence[Attempt]]]) -> None:
        """Start a run: adopt the labels of other settings, or report them."""
        left = {
            one.arch: one for _, attempts in others for one in attempts if one.done and self.value(one.arch) is None
        }
        if left and self._reuse.adopt:
            self.append(*left.values())
        elif left:
            differ = {name for other, attempts in others if attempts for name in differing(about, other)}
            self._reuse.leave(path, len(left), differ)
        failures = Counter({arch: self._failures(arch) for arch in self.attempts if self._failures(arch)})
        self._reuse.start(path, [arch for arch in self.attempts if self.value(arch) is not None], failures)

    def append(self, *attempts: Attempt) -> None:
        """Append attempts; they are on disk when this returns."""
        self._journal.append(*({**asdict(one), **self._tag} for one in attempts))
        self._add(attempts)

    def _add(self, attempts: Sequence[Attempt]) -> None:
        for one in attempts:
            self.attempts.setdefault(one.arch, []).append(one)

    def value(self, arch: str) -> float | None:
        """Return an architecture's label, None if it has none (yet)."""
        return next((one.value for one in self.attempts.get(arch, ()) if one.done), None)

    def values(self, archs: Sequence[str]) -> FloatArray:
        """Return `(n,)` labels of architectures, NaN for those without a label (yet)."""
        return np.array([self.value(arch) for arch in archs], np.float64)

    def failures(self, arch: str) -> int:
        """Return the number of failed trainings of an architecture that count: those of this run."""
        return self._failures(arch) - self._reuse.failed_before[arch]

    def _failures(self, arch: str) -> int:
        return sum(not one.done for one in self.attempts.get(arch, ()))

    def missing(self, archs: Sequence[str], attempts: int) -> list[str]:
        """Return the distinct architectures without a label that failed fewer than `attempts` times in this run.

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
