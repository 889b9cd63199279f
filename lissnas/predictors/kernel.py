"""Kernel regression on encodings, which complements the trees of a predictor if labels are few."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh
from scipy.spatial.distance import cdist

from lissnas.spaces import FloatArray, IntArray
from lissnas.spaces.base import Features

LENGTHS = (1.0, 2.0, 4.0, 8.0)
"""Candidate length scales, in root mean squared differences of standardized features."""
PENALTIES = np.geomspace(1e-3, 10, 9)
MAX_DEVIATION = 4.0
"""Standard deviations at which features are clipped: those of few labels estimate the space's poorly."""
MIN_RELATIVE_SPREAD = 1e-6
"""A feature with less spread is constant up to rounding in single precision."""
DECIMALS = 6
"""Decimals of the weights, which makes them independent of the order of summation."""


@dataclass(frozen=True)
class KernelModel:
    """Ridge regression with the kernel 1 + exp(-distance / length); smooth, unlike trees."""

    scale: Scale
    points: FloatArray
    """`(n, n_used)` standardized features of the labelled architectures."""
    weights: FloatArray
    length: float

    @classmethod
    def fit(cls, features: Features, target: FloatArray) -> KernelModel:
        """Fit to `(n,)` targets, with the length and penalty of minimum leave-one-out error."""
        points = Scale.of(features)(features)
        distance = _distances(points, points)
        min_error, weights, length = np.inf, np.zeros(len(target)), LENGTHS[0]
        for candidate in LENGTHS:
            values, vectors = eigh(1 + np.exp(-distance / candidate))
            rotated = vectors.T @ target
            for penalty in PENALTIES:
                inverse = 1 / (np.maximum(values, 0) + penalty)
                found = vectors @ (rotated * inverse)
                error = float(np.mean((found / ((vectors * vectors) @ inverse)) ** 2))
                if error < min_error:
                    min_error, weights, length = error, found, candidate
        return cls.restore(features, np.round(weights, DECIMALS), length)

    @classmethod
    def restore(cls, features: Features, weights: FloatArray, length: float) -> KernelModel:
        """Return the model with given `(n,)` weights of the labelled architectures' features."""
        scale = Scale.of(features)
        return cls(scale, scale(features), weights, length)

    def predict(self, features: Features) -> FloatArray:
        """Return `(n,)` predictions."""
        kernel = _distances(self.scale(features), self.points)
        np.divide(kernel, -self.length, out=kernel)
        np.exp(kernel, out=kernel)
        # Summed row by row: a matrix product may depend on the number of threads.
        kernel += 1
        kernel *= self.weights
        return np.asarray(kernel.sum(axis=1))


@dataclass(frozen=True)
class Scale:
    """Standardizes features with the mean and deviation of the labelled architectures; drops constant ones."""

    used: IntArray
    centre: FloatArray
    spread: FloatArray

    @classmethod
    def of(cls, features: Features) -> Scale:
        """Return the scale of `(n, n_features)` features."""
        x = features.astype(np.float64)
        centre, spread = x.mean(axis=0), x.std(axis=0)
        used = np.flatnonzero(spread > MIN_RELATIVE_SPREAD * np.maximum(1, np.abs(centre)))
        return cls(used, centre[used], spread[used])

    def __call__(self, features: Features) -> FloatArray:
        """Return `(n, n_used)` standardized features, clipped to `MAX_DEVIATION`."""
        x = features[:, self.used].astype(np.float64)
        return np.clip((x - self.centre) / self.spread, -MAX_DEVIATION, MAX_DEVIATION)


def _distances(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return `(n, m)` root mean squared differences."""
    if not a.shape[1]:
        return np.zeros((len(a), len(b)))
    return np.asarray(cdist(a, b) / np.sqrt(a.shape[1]))
