"""A cache on disk for the values of an expensive oracle."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lissnas.oracles.base import Oracle, evaluate
from lissnas.oracles.command import OracleFailed
from lissnas.oracles.label_collection import Attempt, LabelLog
from lissnas.spaces import Archs, FloatArray, Space


@dataclass(frozen=True)
class CachedOracle:
    """An oracle with a cache on disk; each batch of values is stored before the next batch is evaluated.

    If a batch fails, the values of earlier batches, and its own up to the failure, stay cached. A network without a
    value is cached as NaN and not evaluated again.
    """

    oracle: Oracle
    space: Space
    path: Path
    about: str
    """Everything that the values depend on; a cache with another `about` is refused."""
    batch_size: int = 64

    def __call__(self, archs: Archs) -> FloatArray:
        """Return `(n,)` values; evaluates only architectures that are not cached."""
        names = self.space.format(archs)
        with LabelLog.opened(self.path, {"oracle": self.about, "space": self.space.name}) as log:
            rows = {name: i for i, name in enumerate(names) if not log.attempts.get(name)}  # one row per name
            new, at = list(rows), [*rows.values()]
            for lo in range(0, len(new), self.batch_size):
                part = slice(lo, lo + self.batch_size)
                try:
                    values = evaluate(self.oracle, self.space, archs[at[part]], may_fail=True).tolist()
                except OracleFailed as failure:
                    _store(log, new[part], failure.completed)
                    raise
                _store(log, new[part], values)
            return log.values(names)


def _store(log: LabelLog, names: Sequence[str], values: Sequence[float]) -> None:
    """Append the values to the log; fewer values than names are allowed."""
    for name, value in zip(names, values, strict=False):
        failed = math.isnan(value)
        log.append(Attempt(name, None if failed else value, "no value" if failed else None, None))
