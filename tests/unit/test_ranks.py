from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import binom, kendalltau, norm, rankdata

from lissnas.metrics.quality import prob_good
from lissnas.predictors.ranks import average_ranks, kendall

NUMBERS = st.floats(-1e9, 1e9) | st.integers(-3, 3).map(float)


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(*[arrays(np.float64, n, elements=NUMBERS)] * 2)))
def test_ranks_and_tau_equal_scipy_exactly(pair: tuple[Any, Any]) -> None:
    a, b = pair
    np.testing.assert_array_equal(average_ranks(a), rankdata(a))
    found, expected = kendall(a, b), float(kendalltau(a, b).statistic)
    assert found == expected or (math.isnan(found) and math.isnan(expected))


def test_tau_of_two_thousand_values_equals_scipy() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=2_000)
    b = a + rng.normal(size=2_000).round()
    assert kendall(a, b) == float(kendalltau(a, b).statistic)
    assert math.isnan(kendall(np.ones(5), np.arange(5.0)))


def test_normal_quantile_equals_scipy() -> None:
    from scipy.special import ndtri

    p = np.random.default_rng(0).random(1_000)
    np.testing.assert_array_equal(ndtri(p), norm.ppf(p))


@pytest.mark.parametrize(("n", "k"), [(1, 1), (10, 2), (10, 0), (10, 10), (30, 7)])
def test_probability_of_good_draws_is_binomial(n: int, k: int) -> None:
    for p in (0.0, 0.013, 0.2, 0.5, 0.97, 1.0):
        assert prob_good(p, n, k) == float(binom.sf(k - 1, n, p))
