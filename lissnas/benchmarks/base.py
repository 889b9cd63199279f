"""What a benchmark is: a space with the true value of its architectures."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from lissnas.core.errors import UserError
from lissnas.spaces import Archs, FloatArray, Keys, Space


@dataclass(frozen=True)
class Benchmark:
    """A complete table over a space; calling it with architectures gives their values.

    Higher is better in every table. `point` is what a tolerance of 1 means in the metric's unit:
    a percent point for accuracies in percent, a hundredth for scores and losses.
    """

    name: str
    space: Space
    metric: str
    licence: str
    keys: Keys = field(repr=False)
    values: FloatArray = field(repr=False)
    point: float = 1.0

    @cached_property
    def sha256(self) -> str:
        """The digest of keys and values: which table this is, wherever it was read from."""
        return hashlib.sha256(self.keys.tobytes() + self.values.tobytes()).hexdigest()

    @cached_property
    def best(self) -> float:
        """The best value of all."""
        return float(self.values.max())

    def rank_of(self, value: float) -> int:
        """Return a value's place in the table, 1 for the best; equal values share the first of theirs."""
        return int((self.values > value).sum()) + 1

    def __call__(self, archs: Archs) -> FloatArray:
        """Return `(n,)` true values; raises UserError for an architecture that isn't in the table."""
        return self.look_up(self.space.key(archs))

    def look_up(self, keys: Keys) -> FloatArray:
        """Return the values of keys."""
        at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        missing = self.keys[at] != keys
        if missing.any():
            raise UserError(f"row {int(np.argmax(missing))} is not in the table of {self.name}")
        return self.values[at]
