"""Quality of a space: mean and best values, share of good networks, error distribution."""

from __future__ import annotations

import numpy as np
from scipy.special import betainc

from lissnas.core.errors import UserError
from lissnas.spaces import FloatArray, IntArray

GOOD_QUANTILE = 0.8
"""A network is good if its value exceeds this quantile of the full space (FACTS: fixed for all methods)."""

WINDOW_QUANTILE = 0.05
"""Quantile of the full space's values at which the error window of an AUC ends."""


def good_threshold(full: FloatArray) -> float:
    """Return the value that good networks exceed: the full space's 80th percentile.

    If ties at the maximum leave none above it, returns the largest value below the maximum. Raises
    UserError if all values are equal.
    """
    _finite(full, "a threshold")
    threshold = float(np.quantile(full, GOOD_QUANTILE))
    if threshold < full.max():
        return threshold
    below = full[full < full.max()]
    if not len(below):
        raise UserError(f"all {len(full):,} values are {full[0]:g}: no threshold separates good from bad networks")
    return float(below.max())


def share_good(values: FloatArray, threshold: float) -> float:
    """Return the share of values above the threshold (p in the paper's Theorem 1)."""
    return float(np.mean(_finite(values, "the share of good networks") > threshold))


def share_interval(values: FloatArray, threshold: float, level: float = 0.95) -> tuple[float, float]:
    """Return the Clopper-Pearson interval of the share of good networks, estimated from a sample of values."""
    from scipy.stats import binomtest  # takes longer to import than a small shrink

    good = int((_finite(values, "an interval") > threshold).sum())
    interval = binomtest(good, len(values)).proportion_ci(level, "exact")
    return float(interval.low), float(interval.high)


def prob_good(p: float, n: int, k: int) -> float:
    """Return the probability that at least `k` of `n` uniform draws are good (Theorem 1)."""
    if not (0 <= p <= 1 and 0 <= k <= n):
        raise UserError(f"prob_good needs 0 <= p <= 1 and 0 <= k <= n, found p={p}, n={n}, k={k}")
    return float(betainc(k, n - k + 1, p)) if k else 1.0


def shrink_index(p: float, p_full: float, n: int = 1, k: int = 1) -> float:
    """Return the increase in the probability of a good draw: P(good | shrunk) - P(good | full).

    The default, one draw, follows the paper's worked example. Eq. 2 of the paper has the opposite sign, but
    all values that the paper reports have this one.
    """
    return prob_good(p, n, k) - prob_good(p_full, n, k)


def good_metrics(values: FloatArray, full: FloatArray) -> dict[str, float]:
    """Return the share of good values and the increase in the probability of good draws over the full space.

    `shrink_index` is for one draw, `shrink_index_10_2` for at least two good ones in ten (Theorem 1).
    """
    threshold = good_threshold(full)
    p, p_full = share_good(values, threshold), share_good(full, threshold)
    return {"p_good": p, "shrink_index": p - p_full, "shrink_index_10_2": shrink_index(p, p_full, 10, 2)}


def top_mean(values: FloatArray, k: int) -> float:
    """Return the mean of the `k` highest values, or of all if there are fewer."""
    if k < 1:
        raise UserError(f"the mean of the {k} highest values is undefined: expected k >= 1")
    return float(np.sort(_finite(values, "a mean"))[-k:].mean())


def top_kept(values: FloatArray, full: FloatArray, k: int = 10) -> int:
    """Return how many of the full space's `k` best values a space retains; ties count as equally good."""
    kth = np.sort(_finite(full, "the best"))[-min(k, len(full))]
    return int(min(k, (values >= kth).sum()))


# -- error distributions ---------------------------------------------------------------------------
def error_edf(values: FloatArray, best: float, weights: FloatArray | None = None) -> tuple[FloatArray, FloatArray]:
    """Return the empirical distribution of the error: errors, ascending, and the share at or below each.

    The error is `best - value`; use the same `best` for all spaces to compare. With weights
    (`complexity_weights`) the distribution is normalised by complexity.
    """
    errors = best - np.asarray(_finite(values, "an error distribution"), np.float64)
    order = np.argsort(errors, kind="stable")
    mass = np.ones(len(errors)) if weights is None else weights[order]
    ascending = errors[order]
    # Equal errors have the share of the last one.
    last = np.searchsorted(ascending, ascending, side="right") - 1
    return ascending, (np.cumsum(mass) / mass.sum())[last]


def error_window(full: FloatArray) -> float:
    """Return the upper end of the error window for AUCs: the 95th percentile of the full space's errors."""
    return float(_finite(full, "an error window").max() - np.quantile(full, WINDOW_QUANTILE))


def edf_auc(values: FloatArray, best: float, window: float, weights: FloatArray | None = None) -> float:
    """Return the area under the error EDF on [0, window], divided by the window; 1 means no error."""
    if not window > 0:
        raise UserError(f"the error window has width {window:g}; expected values that differ")
    errors = np.clip(best - np.asarray(_finite(values, "an area"), np.float64), 0, window)
    return float(1 - np.average(errors, weights=weights) / window)


def complexity_weights(costs: IntArray, edges: FloatArray) -> FloatArray:
    """Return weights that give every occupied cost bin the same total (Radosavovic et al., 2019)."""
    bins = np.searchsorted(edges, costs, side="right")
    count = np.bincount(bins)
    return np.asarray(1.0 / count[bins])


def ks(values: FloatArray, full: FloatArray) -> tuple[float, float]:
    """Return the two-sample Kolmogorov-Smirnov statistic and its p-value."""
    from scipy.stats import ks_2samp  # takes longer to import than a small shrink

    with np.errstate(divide="ignore"):  # scipy's formula with one value on each side
        result = ks_2samp(_finite(values, "a comparison"), _finite(full, "a comparison"), method="asymp")
    p = float(result.pvalue)
    return float(result.statistic), 1.0 if np.isnan(p) else p


def correlations(a: FloatArray, b: FloatArray) -> dict[str, float]:
    """Return Pearson, Spearman and Kendall correlations; raises UserError if they are undefined."""
    from scipy.stats import kendalltau, pearsonr, spearmanr  # takes longer to import than a small shrink

    if len(a) != len(b) or len(a) < 2:
        raise UserError(f"a correlation needs two or more pairs, found {len(a):,} and {len(b):,} values")
    for name, values in (("first", a), ("second", b)):
        if not np.isfinite(values).all() or np.ptp(values) == 0:
            raise UserError(f"the {name} values are all equal or not finite: their correlation is undefined")
    return {
        "pearson": float(pearsonr(a, b).statistic),
        "spearman": float(spearmanr(a, b).statistic),
        "kendall": float(kendalltau(a, b).statistic),
    }


def _finite(values: FloatArray, what: str) -> FloatArray:
    """Return the values; raises UserError if there are none or any is not finite."""
    if not len(values):
        raise UserError(f"no values: {what} of an empty space is undefined")
    bad = ~np.isfinite(values)
    if bad.any():
        raise UserError(f"value {int(np.argmax(bad))} is {values[np.argmax(bad)]}: {what} needs finite values")
    return values
