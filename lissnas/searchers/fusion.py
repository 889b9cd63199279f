"""One score of labels, predictor and supernet: labelled networks by their label, others by what predicts labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lissnas.predictors.ranks import normal_scores
from lissnas.spaces import FloatArray, IntArray

MIN_PAIRS = 10
"""Labelled networks with a supernet's score that a weight of the supernet needs; with 40 it is reliable (measured)."""


@dataclass(frozen=True)
class Fused:
    """Scores of networks, in normal scores of the labels, and the weight of the supernet."""

    scores: FloatArray
    weight: float
    """Normal scores of a label per normal score of the supernet that the predictor does not explain."""


def fuse(
    predicted: FloatArray, supernet: FloatArray, labelled: IntArray, target: FloatArray, out_of_fold: FloatArray
) -> Fused:
    """Return the fused scores of `(n,)` networks.

    `predicted` are the predictor's scores, `supernet` another evaluation (NaN if it was not made), `labelled` the
    `(m,)` indices of labelled networks, `target` the normal scores of their labels, `out_of_fold` their cross-validated
    predictions. What the predictor leaves unexplained of the labels is regressed on what it leaves unexplained of the
    supernet's normal score; the slope is shrunk by the positive-part factor 1 - 1 / t^2 (James and Stein, 1961), and
    never negative.
    """
    explained = predicted.copy()
    explained[labelled] = out_of_fold
    rest = np.zeros(len(predicted))
    evaluated = np.flatnonzero(~np.isnan(supernet))
    if len(evaluated) >= MIN_PAIRS:
        z = normal_scores(supernet[evaluated])
        rest[evaluated] = _residuals(explained[evaluated], z)
    pairs = np.flatnonzero(~np.isnan(supernet[labelled]))
    weight = _slope(rest[labelled[pairs]], (target - out_of_fold)[pairs]) if len(pairs) >= MIN_PAIRS else 0.0
    scores = predicted + weight * rest
    scores[labelled] = target
    return Fused(scores, weight)


def _residuals(x: FloatArray, y: FloatArray) -> FloatArray:
    """Return what a line in x leaves of y."""
    x, y = x - x.mean(), y - y.mean()
    variance = float(x @ x)
    return y - x * (float(x @ y) / variance if variance > 0 else 0.0)


def _slope(x: FloatArray, y: FloatArray) -> float:
    """Return the shrunk slope of y on x, at least 0."""
    x, y = x - x.mean(), y - y.mean()
    variance = float(x @ x)
    if variance == 0:
        return 0.0
    slope = float(x @ y) / variance
    error = float(np.sum((y - slope * x) ** 2)) / (len(x) - 2) / variance
    return max(0.0, slope) * max(0.0, 1 - error / slope**2) if slope else 0.0
