"""How diverse a space is: distances on one embedding, and what is left of the full range of costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.random import Generator
from scipy.spatial.distance import pdist, squareform

from lissnas.core.errors import UserError
from lissnas.core.rng import stream
from lissnas.spaces import Archs, FloatArray, IntArray, Space

BINS = 20
"""Equal-width bins of each cost, on the full space's range."""
SAMPLE = 1_000
"""Members that distances are measured between, and the least that stands for a distribution (paper, G)."""


@dataclass(frozen=True)
class Yardstick:
    """The full space, measured once, that parts of it are measured against.

    Distances are taken on the space's encoding with each feature centred on the full space's mean and
    divided by its standard deviation, the same for every part of it.
    """

    space: Space
    centre: FloatArray
    scale: FloatArray
    costs: Mapping[str, IntArray]
    """Every network's costs (of a large sample where the space can't be listed)."""
    cosine_max: float
    cosine_mean: float
    distance_mean: float
    nearest_mean: float

    @classmethod
    def of(cls, space: Space) -> Yardstick:
        """Measure the full space: all of it where it can be listed, else a large uniform sample."""
        rng = stream(0, "yardstick", space.name)
        rows = space.all_or_many(rng)
        features = np.concatenate([space.encode(part) for part in np.array_split(rows, max(1, len(rows) // 65_536))])
        centre = features.mean(axis=0, dtype=np.float64)
        scale = np.maximum(features.std(axis=0, dtype=np.float64), 1e-9)
        del features
        blank = cls(space, centre, scale, space.costs(rows), 0, 0, 0, 0)
        return cls(space, centre, scale, blank.costs, *blank._distances(rows, rng))

    def edges(self, cost: str) -> FloatArray:
        """Return the inner edges of a cost's bins."""
        low, high = self.costs[cost].min(), self.costs[cost].max()
        return np.linspace(low, high, BINS + 1)[1:-1]

    def histogram(self, cost: str, values: IntArray) -> IntArray:
        """Return `(20,)` counts of a cost in the bins of the full space's range."""
        return np.bincount(np.searchsorted(self.edges(cost), values, side="right"), minlength=BINS)

    @cached_property
    def _full(self) -> dict[str, IntArray]:
        """The full space's histogram of each cost."""
        return {name: self.histogram(name, costs) for name, costs in self.costs.items()}

    def cost_coverage(self, archs: Archs) -> dict[str, float]:
        """Return for each cost the share of the bins that the full space occupies and `archs` do too."""
        return self._coverage({name: self.histogram(name, c) for name, c in self.space.costs(archs).items()})

    def _coverage(self, have: Mapping[str, IntArray]) -> dict[str, float]:
        return {f"{name}_coverage": float((h > 0).sum() / (self._full[name] > 0).sum()) for name, h in have.items()}

    def _distances(self, rows: Archs, rng: Generator) -> tuple[float, float, float, float]:
        """Largest and mean cosine distance, mean pairwise and nearest-neighbour distance of a sample."""
        few = rows[np.sort(rng.permutation(len(rows))[:SAMPLE])]
        if len(few) < 2:
            return 0.0, 0.0, 0.0, 0.0
        features = (self.space.encode(few) - self.centre) / self.scale
        norms = np.linalg.norm(features, axis=1, keepdims=True)
        cosine = pdist(features / np.maximum(norms, 1e-12), "sqeuclidean") / 2
        euclidean = squareform(pdist(features))
        np.fill_diagonal(euclidean, np.inf)
        nearest = euclidean.min(axis=1).mean()
        np.fill_diagonal(euclidean, 0)
        pairs = len(few) * (len(few) - 1)
        return float(cosine.max()), float(cosine.mean()), float(euclidean.sum() / pairs), float(nearest)

    def embed(self, archs: Archs) -> FloatArray:
        """Return the centred and scaled features that distances are taken on."""
        return np.asarray((self.space.encode(archs) - self.centre) / self.scale)

    def measure(self, archs: Archs, rng: Generator) -> dict[str, float]:
        """Return the diversity of a part of the space; shares and ratios are 1 for the full space.

        `cosine_max` and `cosine_mean` are distances in [0, 2]; `cosine_coverage` is the largest one over
        the full space's, each the largest in a sample of 1,000, so at most 1. `distance_mean` and
        `distance_nearest` are ratios to the full space's. For each cost: `..._coverage` is the share of
        the full space's occupied bins that are occupied, `..._tv` the total variation between
        histograms, `..._ks` the distance of the distributions, `..._min` and `..._max` what is kept.
        Raises UserError for an empty part.
        """
        if not len(archs):
            raise UserError("no architectures: the diversity of an empty space is undefined")
        largest, mean, distance, nearest = self._distances(archs, rng)
        found = {
            "cosine_max": largest,
            "cosine_mean": mean,
            "cosine_coverage": min(1.0, _ratio(largest, self.cosine_max)),
            "cosine_mean_coverage": _ratio(mean, self.cosine_mean),
            "distance_mean": _ratio(distance, self.distance_mean),
            "distance_nearest": _ratio(nearest, self.nearest_mean),
        }
        from scipy.stats import ks_2samp  # takes longer to import than a small shrink

        costs = self.space.costs(archs)
        histograms = {name: self.histogram(name, own) for name, own in costs.items()}
        found |= self._coverage(histograms)
        for name, own in costs.items():
            have, had = histograms[name], self._full[name]
            found |= {
                f"{name}_tv": float(np.abs(have / have.sum() - had / had.sum()).sum() / 2),
                f"{name}_ks": float(ks_2samp(own, self.costs[name], method="asymp").statistic),
                f"{name}_min": int(own.min()),
                f"{name}_max": int(own.max()),
            }
        return found


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 1.0
