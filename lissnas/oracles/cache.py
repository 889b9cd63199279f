"""An oracle whose answers are kept on disk, so that none is paid for twice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lissnas.oracles.base import Oracle, ask
from lissnas.oracles.command import OracleFailed
from lissnas.oracles.label_collection import Attempt, LabelLog
from lissnas.spaces import Archs, FloatArray, Space


@dataclass(frozen=True)
class Remembered:
    """An oracle whose every answer is on disk before the next batch is asked: none is paid for twice.

    A batch that fails leaves the answers of those before it, and its own up to where it failed. A network that gave
    no value is not asked about again: it is NaN. `at_once` architectures are asked together.
    """

    oracle: Oracle
    space: Space
    path: Path
    about: str
    """What the answers are a function of: answers about something else are refused."""
    at_once: int = 64

    def __call__(self, archs: Archs) -> FloatArray:
        """Return `(n,)` values, asking only about architectures that were never answered."""
        names = self.space.format(archs)
        with LabelLog.opened(self.path, {"oracle": self.about, "space": self.space.name}) as log:
            rows = {name: i for i, name in enumerate(names) if not log.attempts.get(name)}  # each name once
            new, at = list(rows), [*rows.values()]
            for lo in range(0, len(new), self.at_once):
                part = slice(lo, lo + self.at_once)
                try:
                    values = ask(self.oracle, self.space, archs[at[part]], may_fail=True).tolist()
                except OracleFailed as failure:
                    _note(log, new[part], failure.answered)
                    raise
                _note(log, new[part], values)
            return log.values(names)


def _note(log: LabelLog, names: Sequence[str], values: Sequence[float]) -> None:
    """Put answers in the log, as many as there are."""
    for name, value in zip(names, values, strict=False):
        failed = math.isnan(value)
        log.append(Attempt(name, None if failed else value, "no value" if failed else None, None))
