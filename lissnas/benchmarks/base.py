"""The benchmark class: a space with the true values of its architectures."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from lissnas.core.errors import UserError
from lissnas.spaces import Archs, FloatArray, Keys, Space


@dataclass(frozen=True)
class Benchmark:
    """A complete table over a space, and an oracle that returns the values of architectures.

    Higher is better in every table: values of a minimized metric are negated (`minimize`). `point` is the size of one
    point in the metric's unit: 1 (a percentage point) for accuracies in percent, 0.01 for scores and losses.
    """

    name: str
    space: Space
    metric: str
    licence: str
    keys: Keys = field(repr=False)
    values: FloatArray = field(repr=False)
    point: float = 1.0
    minimize: bool = False
    """Whether less of the metric is better; `values` are then its negative."""

    @cached_property
    def sha256(self) -> str:
        """The digest of keys and values; it identifies the table regardless of its source."""
        return hashlib.sha256(self.keys.tobytes() + self.values.tobytes()).hexdigest()

    @cached_property
    def best(self) -> float:
        """The highest value."""
        return float(self.values.max())

    def rank_of(self, value: float) -> int:
        """Return the rank of a value, 1 for the best; ties share their best rank."""
        return int((self.values > value).sum()) + 1

    def __call__(self, archs: Archs) -> FloatArray:
        """Return `(n,)` true values; raises UserError for an architecture that is not in the table."""
        return self.look_up(self.space.key(archs))

    def look_up(self, keys: Keys) -> FloatArray:
        """Return `(n,)` values of keys; raises UserError for an unknown key."""
        at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        missing = self.keys[at] != keys
        if missing.any():
            raise UserError(f"row {int(np.argmax(missing))} is not in the table of {self.name}")
        return self.values[at]
