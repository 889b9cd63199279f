"""Diversity of a space: distances between encodings, and coverage of the full range of costs."""

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
"""Equal-width bins of each cost over the range of the full space."""
SAMPLE = 1_000
"""Members between which distances are measured; the minimum that represents a distribution (paper, appendix G)."""


@dataclass(frozen=True)
class DiversityReference:
    """Statistics of the full space, computed once, to which parts of it are compared.

    Distances use the space's encoding, each feature centred on the full space's mean and divided by its
    standard deviation.
    """

    space: Space
    centre: FloatArray
    scale: FloatArray
    costs: Mapping[str, IntArray]
    """Costs of all architectures, or of a large sample if the space can't be listed."""
    cosine_max: float
    cosine_mean: float
    distance_mean: float
    nearest_mean: float

    @classmethod
    def of(cls, space: Space) -> DiversityReference:
        """Compute the statistics of the full space, or of a large uniform sample if it can't be listed."""
        rng = stream(0, "yardstick", space.name)
        rows = space.all_or_many(rng)
        features = np.concatenate([space.encode(part) for part in np.array_split(rows, max(1, len(rows) // 65_536))])
        centre = features.mean(axis=0, dtype=np.float64)
        scale = np.maximum(features.std(axis=0, dtype=np.float64), 1e-9)
        del features
        blank = cls(space, centre, scale, space.costs(rows), 0, 0, 0, 0)
        return cls(space, centre, scale, blank.costs, *blank._distances(rows, rng))

    def edges(self, cost: str) -> FloatArray:
        """Return the inner edges of the bins of a cost."""
        low, high = self.costs[cost].min(), self.costs[cost].max()
        return np.linspace(low, high, BINS + 1)[1:-1]

    def histogram(self, cost: str, values: IntArray) -> IntArray:
        """Return `(20,)` counts of a cost in bins over the full space's range."""
        return np.bincount(np.searchsorted(self.edges(cost), values, side="right"), minlength=BINS)

    @cached_property
    def _full(self) -> dict[str, IntArray]:
        """Histogram of each cost in the full space."""
        return {name: self.histogram(name, costs) for name, costs in self.costs.items()}

    def cost_coverage(self, archs: Archs) -> dict[str, float]:
        """Return the share of the full space's occupied bins that `archs` occupy, for each cost."""
        return self._coverage({name: self.histogram(name, c) for name, c in self.space.costs(archs).items()})

    def _coverage(self, counts: Mapping[str, IntArray]) -> dict[str, float]:
        return {f"{name}_coverage": float((c > 0).sum() / (self._full[name] > 0).sum()) for name, c in counts.items()}

    def _distances(self, rows: Archs, rng: Generator) -> tuple[float, float, float, float]:
        """Return maximum and mean cosine distance, mean pairwise and nearest-neighbour distance of a sample."""
        sampled = rows[np.sort(rng.permutation(len(rows))[:SAMPLE])]
        if len(sampled) < 2:
            return 0.0, 0.0, 0.0, 0.0
        features = (self.space.encode(sampled) - self.centre) / self.scale
        norms = np.linalg.norm(features, axis=1, keepdims=True)
        cosine = pdist(features / np.maximum(norms, 1e-12), "sqeuclidean") / 2
        euclidean = squareform(pdist(features))
        np.fill_diagonal(euclidean, np.inf)
        nearest = euclidean.min(axis=1).mean()
        np.fill_diagonal(euclidean, 0)
        pairs = len(sampled) * (len(sampled) - 1)
        return float(cosine.max()), float(cosine.mean()), float(euclidean.sum() / pairs), float(nearest)

    def embed(self, archs: Archs) -> FloatArray:
        """Return `(n, n_features)` centred and scaled features, between which distances are measured."""
        return np.asarray((self.space.encode(archs) - self.centre) / self.scale)

    def measure(self, archs: Archs, rng: Generator) -> dict[str, float]:
        """Return the diversity of a part of the space; shares and ratios are 1 for the full space.

        `cosine_max` and `cosine_mean` are distances in [0, 2]; `cosine_coverage` is the ratio of `cosine_max` to that
        of the full space, clipped to 1; each is the maximum in a sample of 1,000. `distance_mean` and
        `distance_nearest` are ratios to the full space. For each cost: `..._coverage` is the share of the full space's
        occupied bins that are occupied, `..._tv` the total variation distance between histograms, `..._ks` the
        Kolmogorov-Smirnov statistic, `..._min` and `..._max` the range. Raises UserError if `archs` is empty.
        """
        if not len(archs):
            raise UserError("no architectures: the diversity of an empty space is undefined")
        cosine_max, cosine_mean, distance, nearest = self._distances(archs, rng)
        found = {
            "cosine_max": cosine_max,
            "cosine_mean": cosine_mean,
            "cosine_coverage": min(1.0, _ratio(cosine_max, self.cosine_max)),
            "cosine_mean_coverage": _ratio(cosine_mean, self.cosine_mean),
            "distance_mean": _ratio(distance, self.distance_mean),
            "distance_nearest": _ratio(nearest, self.nearest_mean),
        }
        from scipy.stats import ks_2samp  # takes longer to import than a small shrink

        costs = self.space.costs(archs)
        histograms = {name: self.histogram(name, values) for name, values in costs.items()}
        found |= self._coverage(histograms)
        for name, values in costs.items():
            part, full = histograms[name], self._full[name]
            found |= {
                f"{name}_tv": float(np.abs(part / part.sum() - full / full.sum()).sum() / 2),
                f"{name}_ks": float(ks_2samp(values, self.costs[name], method="asymp").statistic),
                f"{name}_min": int(values.min()),
                f"{name}_max": int(values.max()),
            }
        return found


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 1.0
