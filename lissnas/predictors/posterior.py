"""Posterior of architectures' values: mean and deviation, which a search needs to explore."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from lissnas.config import PredictorConfig
from lissnas.core.blas import one_blas_thread
from lissnas.core.rng import stream
from lissnas.predictors.boosting import booster_scores, fit_trees, xgb
from lissnas.predictors.kernel import MAX_POINTS, KernelModel, kernel_of
from lissnas.predictors.ranks import from_normal, normal_scores
from lissnas.spaces import Archs, FloatArray, IntArray, Space
from lissnas.spaces.base import Features

N_BAGGED = 3
"""Boosted trees, each fitted to a bootstrap sample."""
KERNEL_SPREAD = 0.5
"""Factor of the kernel's deviation: searches with the whole deviation find worse networks (measured)."""
DECIMALS = 5


@dataclass(frozen=True)
class Posterior:
    """Mean and deviation of the normal score, averaged over a Gaussian process and bagged boosted trees.

    The process has the predictor's kernel, whose penalty is the variance of the noise relative to the signal; that of
    the mean of several labels is divided by their number.
    """

    space: Space
    trees: tuple[xgb.Booster, ...]
    kernel: KernelModel
    factor: tuple[Any, bool]
    """Cholesky factor of the kernel matrix of the labelled and the pending architectures."""
    points: FloatArray
    """Standardized features of those architectures."""
    scale: float
    """Deviation of the signal."""
    quantiles: FloatArray
    """The values, ascending, as their quantile function."""

    @classmethod
    def fit(
        cls,
        space: Space,
        archs: Archs,
        values: FloatArray,
        settings: PredictorConfig,
        seed: int,
        repeats: IntArray | None = None,
        pending: Archs | None = None,
    ) -> Posterior:
        """Fit to `(n,)` values, higher is better, that are not all equal.

        `repeats` is the number of labels of which each value is the mean. `pending` architectures, whose values are
        on the way, count as labelled with their posterior mean (kriging believer: Ginsbourger et al., 2010), which
        leaves all means as they are and reduces the deviation around them.
        """
        n = len(values)
        target = normal_scores(values)
        features, counts = space.encode(archs), np.ones(n) if repeats is None else repeats.astype(np.float64)
        chosen = kept(values)
        kernel = KernelModel.fit(features[chosen], target[chosen]).refit(
            np.arange(len(chosen)), target[chosen], counts[chosen]
        )
        rng = stream(seed, "bagged", n)
        trees = []
        for i in range(N_BAGGED):
            drawn = rng.integers(0, n, n)
            trees.append(fit_trees(features[drawn], target[drawn], settings, seed + i))
        points, noise = kernel.points, kernel.penalty / counts[chosen]
        if pending is not None and len(pending):
            points = np.concatenate([points, kernel.scale(space.encode(pending))])
            noise = np.concatenate([noise, np.full(len(pending), kernel.penalty)])
        with one_blas_thread():
            matrix = kernel_of(points, points, kernel)
            matrix[np.diag_indices_from(matrix)] += noise
            factor = cho_factor(matrix, lower=True, overwrite_a=True)
        variance = float(kernel.weights @ target[chosen]) / len(chosen)  # its maximum-likelihood estimate
        return cls(space, tuple(trees), kernel, factor, points, float(np.sqrt(max(variance, 0.0))), np.sort(values))

    def value(self, scores: FloatArray) -> FloatArray:
        """Convert `(n,)` scores to the values' unit."""
        return from_normal(scores, self.quantiles)

    def mean(self, features: Features) -> FloatArray:
        """Return the `(n,)` posterior means of encoded architectures, in normal scores."""
        trees = np.mean([booster_scores(booster, features) for booster in self.trees], axis=0)
        return np.asarray(np.round((trees + self.kernel.predict(features)) / 2, DECIMALS))

    def deviation(self, features: Features) -> FloatArray:
        """Return the `(n,)` posterior deviations of encoded architectures."""
        trees = np.std([booster_scores(booster, features) for booster in self.trees], axis=0)
        x = self.kernel.scale(features)
        with one_blas_thread():
            cross = kernel_of(x, self.points, self.kernel)
            own = 1 + self.kernel.share + (1 - self.kernel.share) * np.sum(x * x, axis=1) / self.kernel.norm
            explained = np.sum(cross * cho_solve(self.factor, cross.T).T, axis=1)
        smooth = self.scale * np.sqrt(np.maximum(own - explained, 0))
        return np.asarray(np.round((trees + KERNEL_SPREAD * smooth) / 2, DECIMALS))


def kept(values: FloatArray) -> IntArray:
    """Return the ascending indices of the values that the kernel is fitted to: the best half of a maximum, and others.

    All, if they are at most the maximum.
    """
    n = len(values)
    if n <= MAX_POINTS:
        return np.arange(n)
    order = np.argsort(-values, kind="stable")
    best, rest = order[: MAX_POINTS // 2], order[MAX_POINTS // 2 :]
    others = stream(0, "posterior subset", n).permutation(rest)[: MAX_POINTS - len(best)]
    return np.sort(np.concatenate([best, others]))
