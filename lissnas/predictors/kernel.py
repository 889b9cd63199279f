"""Kernel regression on encodings: what a predictor adds to its trees while labels are few."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh
from scipy.spatial.distance import cdist

from lissnas.spaces import FloatArray, IntArray
from lissnas.spaces.base import Features

LENGTHS = (1.0, 2.0, 4.0, 8.0)
"""Distances over which the target is alike, in root mean squares of standardized features."""
PENALTIES = np.geomspace(1e-3, 10, 9)
FAR = 4.0
"""Standard deviations at which a feature is cut: those of few labels say little of the space's."""
ROUNDING = 1e-6
"""Of a constant feature in single precision."""
DIGITS = 6
"""Decimals of the weights, so that they are the same whichever way sums were formed."""


@dataclass(frozen=True)
class KernelModel:
    """Regression with the kernel 1 + exp(-distance / length), smooth where trees are steps."""

    scale: Scale
    points: FloatArray
    """Standardized features of the labelled."""
    weights: FloatArray
    length: float

    @classmethod
    def fit(cls, features: Features, target: FloatArray) -> KernelModel:
        """Fit to `(n,)` targets; length and penalty are those of the least leave-one-out error."""
        points = Scale.of(features)(features)
        distance = _distances(points, points)
        least, weights, length = np.inf, np.zeros(len(target)), LENGTHS[0]
        for tried in LENGTHS:
            values, vectors = eigh(1 + np.exp(-distance / tried))
            rotated = vectors.T @ target
            for penalty in PENALTIES:
                inverse = 1 / (np.maximum(values, 0) + penalty)
                found = vectors @ (rotated * inverse)
                error = float(np.mean((found / ((vectors * vectors) @ inverse)) ** 2))
                if error < least:
                    least, weights, length = error, found, tried
        return cls.at(features, np.round(weights, DIGITS), length)

    @classmethod
    def at(cls, features: Features, weights: FloatArray, length: float) -> KernelModel:
        """Return the model of labelled networks' features and their `(n,)` weights."""
        scale = Scale.of(features)
        return cls(scale, scale(features), weights, length)

    def predict(self, features: Features) -> FloatArray:
        """Return `(n,)` predictions."""
        kernel = _distances(self.scale(features), self.points)
        np.divide(kernel, -self.length, out=kernel)
        np.exp(kernel, out=kernel)
        # Summed row by row: a product of matrices may depend on how many threads there are.
        kernel += 1
        kernel *= self.weights
        return np.asarray(kernel.sum(axis=1))


@dataclass(frozen=True)
class Scale:
    """Standardizes features by those of the labelled networks, and leaves constant ones out."""

    used: IntArray
    centre: FloatArray
    spread: FloatArray

    @classmethod
    def of(cls, features: Features) -> Scale:
        """Return the scale of `(n, n_features)` features."""
        x = features.astype(np.float64)
        centre, spread = x.mean(axis=0), x.std(axis=0)
        used = np.flatnonzero(spread > ROUNDING * np.maximum(1, np.abs(centre)))
        return cls(used, centre[used], spread[used])

    def __call__(self, features: Features) -> FloatArray:
        """Return `(n, n_used)` features, cut where they are far out."""
        x = features[:, self.used].astype(np.float64)
        return np.clip((x - self.centre) / self.spread, -FAR, FAR)


def _distances(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return `(n, m)` root mean squared differences."""
    if not a.shape[1]:
        return np.zeros((len(a), len(b)))
    return np.asarray(cdist(a, b) / np.sqrt(a.shape[1]))
