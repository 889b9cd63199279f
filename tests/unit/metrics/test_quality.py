"""Quality metrics compared with published figures, scipy and their definitions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from lissnas.core.errors import UserError
from lissnas.metrics.quality import (
    complexity_weights,
    correlations,
    edf_auc,
    error_edf,
    error_window,
    good_threshold,
    ks,
    prob_good,
    share_good,
    share_interval,
    shrink_index,
    top_kept,
    top_mean,
)
from lissnas.spaces import FloatArray

# Accuracies as in the tables: two decimals, many ties.
accuracy = st.integers(0, 10_000).map(lambda n: n / 100)
values_1 = st.lists(accuracy, min_size=1, max_size=60).map(np.array)
values_2 = st.lists(accuracy, min_size=2, max_size=60).map(np.array)
coarse = st.lists(st.integers(0, 3).map(float), min_size=2, max_size=40).map(np.array)


# -- Theorem 1 -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("n", "k", "expected"),
    [
        (5, 1, [0.226, 0.410, 0.556, 0.672, 0.832, 0.969]),
        (10, 2, [0.086, 0.264, 0.456, 0.624, 0.851, 0.989]),
        (100, 20, [0.000, 0.002, 0.107, 0.540, 0.991, 1.0]),
    ],
)
def test_theorem_1(n: int, k: int, expected: list[float]) -> None:
    found = [prob_good(p, n, k) for p in (0.05, 0.1, 0.15, 0.2, 0.3, 0.5)]
    assert found == pytest.approx(expected, abs=6e-4)


def test_theorem_1_as_in_greedynas() -> None:
    assert prob_good(0.6, 10, 5) == pytest.approx(0.834, abs=5e-4)


@given(st.floats(0, 1), st.integers(0, 60), st.data())
def test_prob_good_falls_with_k_and_rises_with_p(p: float, n: int, data: Any) -> None:
    k = data.draw(st.integers(0, n))
    found = prob_good(p, n, k)
    assert 0 <= found <= 1
    assert prob_good(p, n, 0) == 1
    if k:
        assert found <= prob_good(p, n, k - 1) + 1e-12
    assert found <= prob_good(min(1, p + 0.1), n, k) + 1e-12


@pytest.mark.parametrize(("p", "n", "k"), [(1.5, 10, 2), (-0.1, 10, 2), (np.nan, 10, 2), (0.5, 2, 3), (0.5, 2, -1)])
def test_prob_good_refuses_values_out_of_range(p: float, n: int, k: int) -> None:
    with pytest.raises(UserError, match=rf"prob_good needs .*found p={p}, n={n}, k={k}"):
        prob_good(p, n, k)


def test_shrink_index_of_the_worked_example() -> None:
    """20 % good in the full space, 70 % in the shrunk one (paper)."""
    assert shrink_index(0.7, 0.2) == pytest.approx(0.5)
    assert shrink_index(0.2, 0.7) == pytest.approx(-0.5)
    assert shrink_index(1, 0.2, 10, 2) == pytest.approx(0.376, abs=5e-4)
    assert shrink_index(0.7, 0.2, 10, 2) == pytest.approx(prob_good(0.7, 10, 2) - 0.624, abs=5e-4)


# -- threshold and share of good networks ----------------------------------------------------------
def test_the_threshold_is_the_80th_percentile() -> None:
    full = np.arange(101.0)
    assert good_threshold(full) == 80
    assert share_good(full, 80) == 20 / 101


@pytest.mark.parametrize(
    ("full", "threshold", "share"),
    [
        ([1, 2, 3, 3], 2, 0.5),  # half are best: the percentile equals the maximum
        ([1, 1, 1, 3, 3, 3, 3], 1, 4 / 7),
        ([0, 1], 0.8, 0.5),
        ([0] * 99 + [1], 0, 0.01),
    ],
)
def test_the_threshold_with_ties(full: list[float], threshold: float, share: float) -> None:
    values = np.array(full, np.float64)
    assert good_threshold(values) == pytest.approx(threshold)
    assert share_good(values, good_threshold(values)) == pytest.approx(share)


@given(coarse)
def test_the_threshold_separates_good_from_bad(full: FloatArray) -> None:
    assume(np.ptp(full) > 0)
    share = share_good(full, good_threshold(full))
    assert 0 < share < 1
    # At most a fifth, up to rounding to whole networks, unless more are tied for the best.
    assert share <= 0.2 + 1 / len(full) or share == np.mean(full == full.max())


@pytest.mark.parametrize("full", [[5.0], [5.0] * 9])
def test_equal_values_are_refused(full: list[float]) -> None:
    with pytest.raises(UserError, match=f"all {len(full)} values are 5: no threshold separates good from bad"):
        good_threshold(np.array(full))


@given(st.integers(0, 200), st.integers(1, 200), st.floats(0.5, 0.999))
def test_clopper_pearson(good: int, n: int, level: float) -> None:
    good = min(good, n)
    values = np.r_[np.ones(good), np.zeros(n - good)]
    low, high = share_interval(values, 0.5, level)
    tail = (1 - level) / 2
    assert low == pytest.approx(stats.beta.ppf(tail, good, n - good + 1) if good else 0, abs=1e-7)
    assert high == pytest.approx(stats.beta.ppf(1 - tail, good + 1, n - good) if good < n else 1, abs=1e-7)
    assert low <= share_good(values, 0.5) <= high


def test_the_interval_has_its_nominal_coverage() -> None:
    rng = np.random.default_rng(0)
    draws = rng.random((600, 50))
    covered = [low <= 0.3 <= high for low, high in (share_interval(row, 0.7) for row in draws)]
    assert np.mean(covered) >= 0.95


# -- best values -----------------------------------------------------------------------------------
@given(values_1, st.integers(1, 80))
def test_top_mean(values: FloatArray, k: int) -> None:
    assert top_mean(values, k) == pytest.approx(np.mean(sorted(values.tolist(), reverse=True)[:k]))
    assert top_mean(values, k) >= values.mean() - 1e-9
    assert top_mean(values, len(values)) == pytest.approx(values.mean())


@given(coarse, st.data())
def test_equal_values_are_equally_good(full: FloatArray, data: Any) -> None:
    """The full space retains all of its ten best values; a part retains at most that many."""
    k = min(10, len(full))
    assert top_kept(full, full) == k
    part = full[data.draw(st.lists(st.integers(0, len(full) - 1), unique=True, max_size=len(full)))]
    best = np.sort(full)[-k:]
    assert top_kept(part, full) == min(k, sum(v >= best[0] for v in part))


def test_top_kept() -> None:
    full = np.arange(100.0)
    assert top_kept(np.array([99.0, 98, 89, 90]), full) == 3
    assert top_kept(np.array([1.0]), full) == 0
    assert top_kept(np.array([99.0, 98]), full, k=1) == 1


# -- error distributions ---------------------------------------------------------------------------
@given(values_1)
def test_error_edf_rises_to_one(values: FloatArray) -> None:
    errors, share = error_edf(values, 100)
    assert errors.shape == share.shape == values.shape
    assert (np.diff(errors) >= 0).all()
    assert (np.diff(share) >= 0).all()
    assert share[-1] == 1
    assert sorted(100 - values) == pytest.approx(errors.tolist())


@given(values_1)
def test_error_edf_is_the_share_at_or_below_each_error(values: FloatArray) -> None:
    errors, share = error_edf(values, 100)
    assert share == pytest.approx([np.mean(errors <= e) for e in errors])


def test_error_edf_with_weights() -> None:
    errors, share = error_edf(np.array([90.0, 94, 92]), 94, np.array([6.0, 1, 3]))
    assert errors.tolist() == [0, 2, 4]
    assert share == pytest.approx([0.1, 0.4, 1])


def test_the_window_ends_at_the_95th_percentile() -> None:
    assert error_window(np.arange(101.0)) == 95


@given(values_1, st.floats(0.1, 120))
def test_auc_is_the_window_minus_the_mean_error(values: FloatArray, window: float) -> None:
    """A larger area is a smaller mean error, with errors clipped to the window."""
    clipped = np.minimum(100 - values, window)
    assert edf_auc(values, 100, window) == pytest.approx((window - clipped.mean()) / window)
    assert -1e-12 <= edf_auc(values, 100, window) <= 1


@given(values_1, st.floats(1, 120))
def test_auc_is_the_area_under_the_edf(values: FloatArray, window: float) -> None:
    errors, share = error_edf(values, 100)
    edges = np.r_[np.minimum(errors, window), window]
    assert edf_auc(values, 100, window) == pytest.approx(float((np.diff(edges) * share).sum() / window))


@given(values_1, st.data())
def test_better_values_have_more_area(values: FloatArray, data: Any) -> None:
    better = np.minimum(values + data.draw(st.floats(0, 20)), 100)
    assert edf_auc(better, 100, 50) >= edf_auc(values, 100, 50) - 1e-12


@given(values_2, values_2)
def test_the_larger_mean_has_the_larger_area(a: FloatArray, b: FloatArray) -> None:
    """If the window contains all errors."""
    assume(abs(a.mean() - b.mean()) > 1e-9)
    assert (a.mean() > b.mean()) == (edf_auc(a, 100, 100) > edf_auc(b, 100, 100))


def test_auc_bounds() -> None:
    assert edf_auc(np.full(5, 94.0), 94, 3) == 1
    assert edf_auc(np.full(5, 20.0), 94, 3) == 0
    with pytest.raises(UserError, match="window has width 0"):
        edf_auc(np.full(5, 94.0), 94, 0)


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=80), st.integers(1, 20))
def test_every_occupied_bin_has_the_same_mass(costs: list[int], bins: int) -> None:
    edges = np.linspace(0, 1000, bins + 1)[1:-1]
    weights = complexity_weights(np.array(costs), edges)
    bins_of = np.searchsorted(edges, costs, side="right")
    mass = np.bincount(bins_of, weights)
    assert mass[mass > 0] == pytest.approx(1)
    assert (weights > 0).all()


def test_weights_normalise_by_complexity() -> None:
    """Nine cheap bad networks and one expensive good one have half of the mass each."""
    values, costs = np.r_[np.full(9, 90.0), 94.0], np.r_[np.full(9, 1), 9]
    weights = complexity_weights(costs, np.array([5.0]))
    assert edf_auc(values, 94, 4, weights) == pytest.approx(0.5)
    assert edf_auc(values, 94, 4) == pytest.approx(0.1)


# -- compared with scipy ---------------------------------------------------------------------------
@given(values_1, values_2)
def test_ks(a: FloatArray, b: FloatArray) -> None:
    statistic, p = ks(a, b)
    expected = stats.kstest(a, b, method="asymp")
    assert (statistic, p) == (expected.statistic, expected.pvalue)
    grid = np.r_[a, b]
    gap = [abs(np.mean(a <= g) - np.mean(b <= g)) for g in grid]
    assert statistic == pytest.approx(max(gap))
    assert ks(a, a)[0] == 0


def test_ks_detects_a_shifted_sample() -> None:
    rng = np.random.default_rng(0)
    full = rng.normal(size=20_000)
    assert ks(rng.normal(size=500), full)[1] > 0.01
    assert ks(rng.normal(0.5, size=500), full)[1] < 1e-6


@given(values_2, st.integers(0, 2**32 - 1))
def test_correlations(a: FloatArray, seed: int) -> None:
    b = a + np.random.default_rng(seed).normal(0, 20, len(a))
    assume(np.ptp(a) > 0)
    found = correlations(a, b)
    assert found["pearson"] == pytest.approx(np.corrcoef(a, b)[0, 1])
    ranks = [stats.rankdata(x) for x in (a, b)]
    assert found["spearman"] == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert found["kendall"] == pytest.approx(stats.kendalltau(a, b).statistic)
    assert correlations(a, a) == pytest.approx({"pearson": 1, "spearman": 1, "kendall": 1})


@pytest.mark.parametrize(
    ("a", "b", "part"),
    [
        ([1.0], [2.0], "two or more pairs, found 1 and 1"),
        ([], [], "found 0 and 0"),
        ([1.0, 2], [1.0, 2, 3], "found 2 and 3"),
        ([1.0, 1], [1.0, 2], "the first values are all equal"),
        ([1.0, 2], [3.0, 3], "the second values are all equal"),
        ([1.0, 2], [3.0, np.nan], "the second values are all equal or not finite"),
        ([np.inf, 2], [3.0, 4], "the first values are all equal or not finite"),
    ],
)
def test_undefined_correlations_are_refused(a: list[float], b: list[float], part: str) -> None:
    with pytest.raises(UserError, match=part):
        correlations(np.array(a), np.array(b))


# -- invalid input ---------------------------------------------------------------------------------
METRICS: dict[str, Callable[[FloatArray], Any]] = {
    "threshold": good_threshold,
    "share of good networks": lambda v: share_good(v, 0),
    "interval": lambda v: share_interval(v, 0),
    "mean": lambda v: top_mean(v, 3),
    "the best": lambda v: top_kept(np.ones(3), v),
    "error distribution": lambda v: error_edf(v, 1),
    "window": error_window,
    "area": lambda v: edf_auc(v, 1, 1),
    "comparison": lambda v: ks(v, np.ones(3)),
    "a comparison": lambda v: ks(np.ones(3), v),
}


@pytest.mark.parametrize("what", METRICS)
def test_metrics_of_an_empty_space_are_refused(what: str) -> None:
    with pytest.raises(UserError, match=f"no values: .*{what} of an empty space is undefined"):
        METRICS[what](np.empty(0))


@pytest.mark.parametrize("what", METRICS)
@pytest.mark.parametrize(("bad", "name"), [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf")])
def test_values_that_are_not_finite_are_refused(what: str, bad: float, name: str) -> None:
    with pytest.raises(UserError, match=f"value 2 is {name}: .*{what} needs finite values"):
        METRICS[what](np.array([1.0, 2.0, bad, bad]))


def test_metrics_of_one_value_are_defined() -> None:
    one = np.array([93.0])
    assert share_good(one, 90) == 1
    assert list(share_interval(one, 90)) == pytest.approx([0.025, 1])
    assert top_mean(one, 10) == 93
    assert top_kept(one, one) == 1
    assert error_window(one) == 0
    assert [x.tolist() for x in error_edf(one, 94)] == [[1], [1]]
    assert edf_auc(one, 94, 4) == 0.75
    assert ks(one, np.array([92.0, 94.0]))[0] == 0.5


def test_ks_of_one_value_each_has_a_p_value() -> None:
    """The asymptotic formula divides by zero in this case."""
    assert ks(np.array([93.0]), np.array([92.0])) == (1, 1)
