"""Ranks and Kendall's tau, equal to those of scipy.stats, whose import takes longer than a small shrink."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtr, ndtri

from lissnas.spaces import FloatArray


def average_ranks(values: FloatArray) -> FloatArray:
    """Return the ranks of `(n,)` values from 1 to n; ties share their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: FloatArray = (last - (counts - 1) / 2)[inverse]
    return ranks


def normal_scores(values: FloatArray) -> FloatArray:
    """Return the normal quantiles of the average-tie ranks of `(n,)` values."""
    return np.asarray(ndtri((average_ranks(values) - 0.5) / len(values)))


def from_normal(scores: FloatArray, quantiles: FloatArray) -> FloatArray:
    """Return the quantiles of `(n,)` normal scores; `quantiles` are the ascending values of a sample."""
    n = len(quantiles)
    return np.asarray(np.interp(ndtr(scores), (np.arange(n) + 0.5) / n, quantiles))


def kendall(a: FloatArray, b: FloatArray) -> float:
    """Return Kendall's tau-b of two `(n,)` arrays, NaN if either is constant; takes n (n - 1) / 2 comparisons."""
    n = len(a)
    pairs = n * (n - 1) // 2
    difference = 0  # concordant minus discordant pairs
    for i in range(n - 1):
        signs = [(x[i + 1 :] > x[i]).astype(np.int8) - (x[i + 1 :] < x[i]) for x in (a, b)]
        difference += int(np.count_nonzero(signs[0] * signs[1] > 0)) - int(np.count_nonzero(signs[0] * signs[1] < 0))
    ties = [sum(c * (c - 1) // 2 for c in np.unique(x, return_counts=True)[1].tolist()) for x in (a, b)]
    if pairs in ties:
        return math.nan
    tau = difference / np.sqrt(pairs - ties[0]) / np.sqrt(pairs - ties[1])
    return float(min(1.0, max(-1.0, tau)))
