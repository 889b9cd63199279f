"""A cheap synthetic oracle for checks of shrinkers and searchers."""

from __future__ import annotations

import numpy as np

from lissnas.core.rng import stream
from lissnas.spaces import Archs, FloatArray, Keys, Space


class SyntheticOracle:
    """A random worth per choice, summed, plus noise per architecture.

    Values are multiples of 1/1024, so scaling by a power of two and shifting by a whole number is exact.
    `queried` contains the keys of all architectures queried.
    """

    def __init__(self, space: Space, scale: float = 1.0, shift: float = 0.0) -> None:
        rng = stream(0, "synthetic oracle", space.name)
        self.space = space
        self.scale, self.shift = scale, shift
        self.worth = rng.normal(size=(len(space.slot_choices), max(space.slot_choices)))
        self.queried: set[int] = set()

    def __call__(self, archs: Archs) -> FloatArray:
        """Return `(n,)` values, a deterministic function of the architectures."""
        keys: Keys = self.space.key(archs)
        self.queried.update(keys.tolist())
        slots = self.space.slots(archs)
        worth = np.where(slots >= 0, self.worth[np.arange(slots.shape[1]), slots], 0).sum(axis=1)
        noise = (keys * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(54)).astype(np.float64) / 1024
        return np.asarray(np.round(1024 * (worth + noise)) / 1024 * self.scale + self.shift)
