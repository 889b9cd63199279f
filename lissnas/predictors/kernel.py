"""Kernel regression on encodings, the smooth member of a predictor: its kernel has a linear part."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import cho_factor, cho_solve, eigh

from lissnas.core.blas import one_blas_thread
from lissnas.core.rng import stream
from lissnas.spaces import FloatArray, IntArray
from lissnas.spaces.base import Features

LENGTHS = (1.0, 2.0, 4.0, 8.0)
"""Candidate length scales, in root mean squared differences of standardized features."""
SHARES = (0.5, 0.0, 0.2, 0.8, 1.0)
"""Candidate shares of the exponential part; lengths are compared at the first one."""
PENALTIES = np.geomspace(1e-4, 10, 11)
MAX_DEVIATION = 4.0
"""Standard deviations at which features are clipped: those of few labels estimate the space's poorly."""
MIN_RELATIVE_SPREAD = 1e-6
"""A feature with less spread is constant up to rounding in single precision."""
MAX_POINTS = 2_000
"""Architectures that the model is fitted to; a random subset if more are labelled."""
MAX_SELECTION_POINTS = 300
"""Architectures on which length, share and penalty are selected: 1,000 change tau by at most .001 (measured)."""
DECIMALS = 6
"""Decimals of the weights, which makes them independent of the order of summation."""
BLOCK = 256
"""Rows predicted at once, so that their distances fit the cache."""


@dataclass(frozen=True)
class KernelModel:
    """Ridge regression with the kernel 1 + a exp(-d / length) + (1 - a) x.x' / norm.

    d is the root mean squared difference of standardized features x, norm the mean of x.x over the points.
    """

    scale: Scale
    points: FloatArray
    """`(n, n_used)` standardized features of the architectures that it is fitted to."""
    weights: FloatArray
    length: float
    share: float
    """The factor a of the exponential part; 0 is linear regression."""
    penalty: float
    norm: float

    @classmethod
    def fit(cls, features: Features, target: FloatArray) -> KernelModel:
        """Fit to `(n,)` targets, with the length, share and penalty of minimum leave-one-out error."""
        model = cls.restore(features, np.zeros(len(target)), LENGTHS[0], SHARES[0], PENALTIES[0])
        chosen = subset(len(target), MAX_SELECTION_POINTS)
        with one_blas_thread():
            points, wanted = model.points[chosen], target[chosen]
            distance, product = _distances(points, points), points @ points.T / model.norm
            min_error = np.inf
            for i, share in enumerate(SHARES):
                for length in LENGTHS if i == 0 else (model.length,):
                    kernel = 1 + share * np.exp(-distance / length) + (1 - share) * product
                    error, penalty = _leave_one_out(kernel, wanted)
                    if error < min_error:
                        min_error = error
                        model = replace(model, length=length, share=share, penalty=penalty)
        return model.refit(np.arange(len(target)), target)

    @classmethod
    def restore(
        cls, features: Features, weights: FloatArray, length: float, share: float, penalty: float
    ) -> KernelModel:
        """Return the model with given `(n,)` weights of the points' features."""
        scale = Scale.of(features)
        points = scale(features)
        norm = float(np.mean(np.sum(points * points, axis=1))) or 1.0
        return cls(scale, points, weights, length, share, penalty, norm)

    def refit_to(self, features: Features, target: FloatArray) -> KernelModel:
        """Return a model with the same length, share and penalty, fitted to `(n,)` other targets."""
        zeros = np.zeros(len(target))
        return self.restore(features, zeros, self.length, self.share, self.penalty).refit(np.arange(len(zeros)), target)

    def refit(self, chosen: IntArray, target: FloatArray, repeats: FloatArray | float = 1.0) -> KernelModel:
        """Return the model fitted to `(m,)` chosen points with their targets; scale and settings stay the same.

        The penalty of a target that is the mean of several labels is divided by their number, `repeats`.
        """
        points = self.points[chosen]
        with one_blas_thread():
            kernel = kernel_of(points, points, self)
            kernel[np.diag_indices_from(kernel)] += self.penalty / repeats
            weights = cho_solve(cho_factor(kernel, lower=True, overwrite_a=True), target)
        return replace(self, points=points, weights=np.round(weights, DECIMALS))

    def predict(self, features: Features) -> FloatArray:
        """Return `(n,)` predictions."""
        x = self.scale(features)
        slope = (1 - self.share) / self.norm * np.sum(self.points * self.weights[:, None], axis=0)
        out: FloatArray = self.weights.sum() + np.einsum("ij,j->i", x, slope)  # in the order of the features
        if self.share and x.shape[1]:
            with one_blas_thread():
                for lo in range(0, len(x), BLOCK):
                    kernel = _distances(x[lo : lo + BLOCK], self.points)
                    kernel /= -self.length
                    np.exp(kernel, out=kernel)
                    out[lo : lo + BLOCK] += self.share * np.einsum("ij,j->i", kernel, self.weights)
        return out


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
        x = np.ascontiguousarray(features[:, self.used], np.float64)  # sums depend on the memory layout
        return np.clip((x - self.centre) / self.spread, -MAX_DEVIATION, MAX_DEVIATION)


def subset(n: int, size: int = MAX_POINTS) -> IntArray:
    """Return the ascending indices of a random subset of `n` points; all if they are at most `size`."""
    return np.sort(stream(0, "kernel subset", n).permutation(n)[:size])


def kernel_of(a: FloatArray, b: FloatArray, model: KernelModel) -> FloatArray:
    """Return the `(n, m)` kernel of a model between standardized features."""
    kernel = 1 + (1 - model.share) * (a @ b.T) / model.norm
    if model.share:
        kernel += model.share * np.exp(-_distances(a, b) / model.length)
    return kernel


def _leave_one_out(kernel: FloatArray, target: FloatArray) -> tuple[float, float]:
    """Return the minimum leave-one-out error over all penalties, and the penalty."""
    values, vectors = eigh(kernel, overwrite_a=True)
    rotated, squared = vectors.T @ target, vectors * vectors
    errors = []
    for penalty in PENALTIES:
        inverse = 1 / (np.maximum(values, 0) + penalty)
        errors.append(float(np.mean((vectors @ (rotated * inverse) / (squared @ inverse)) ** 2)))
    best = int(np.argmin(errors))
    return errors[best], float(PENALTIES[best])


def _distances(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return `(n, m)` root mean squared differences."""
    squared = np.asarray(a @ b.T)
    squared *= -2
    squared += np.sum(a * a, axis=1)[:, None]
    squared += np.sum(b * b, axis=1)
    np.maximum(squared, 0, out=squared)
    squared /= max(1, a.shape[1])
    return np.sqrt(squared, out=squared)
