"""How good a space is: the share of good networks, what sampling from it finds, its error distribution."""

from __future__ import annotations

import numpy as np
from scipy.stats import binom

from lissnas.errors import UserError
from lissnas.spaces import FloatArray

GOOD_QUANTILE = 0.8
"""A network is good when it beats this quantile of the full space (FACTS: fixed for all methods)."""


def good_threshold(full: FloatArray) -> float:
    """Return the value that good networks exceed: the full space's 80th percentile."""
    if not len(full):
        raise UserError("no values: a threshold needs at least one")
    return float(np.quantile(full, GOOD_QUANTILE))


def share_good(values: FloatArray, threshold: float) -> float:
    """Return the share of values above the threshold (p of the paper's Theorem 1)."""
    if not len(values):
        raise UserError("no values: the share of good networks of an empty space is undefined")
    return float(np.mean(values > threshold))


def prob_good(p: float, n: int, k: int) -> float:
    """Return the probability that at least `k` of `n` uniform draws are good (Theorem 1)."""
    if not (0 <= p <= 1 and 0 <= k <= n):
        raise UserError(f"prob_good needs 0 <= p <= 1 and 0 <= k <= n, found p={p}, n={n}, k={k}")
    return float(binom.sf(k - 1, n, p))


def error_edf(values: FloatArray, best: float) -> tuple[FloatArray, FloatArray]:
    """Return the empirical distribution of the error: errors ascending, share at or below each.

    The error is `best - value`, with `best` the same for all spaces that are compared.
    """
    if not len(values):
        raise UserError("no values: the error distribution of an empty space is undefined")
    errors = np.sort(best - np.asarray(values, np.float64))
    return errors, np.arange(1, len(errors) + 1) / len(errors)
