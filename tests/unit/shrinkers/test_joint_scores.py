"""Methods that rank a space by a cheap score first: pairs of choices, a second model, half of the choices."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from lissnas import shrinkers, spaces
from lissnas.oracles.base import CountedOracle
from lissnas.shrinkers import abs_pairs, half_space
from lissnas.spaces import Archs, ChoiceSpace, FloatArray
from lissnas.testing import SyntheticOracle


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_pair_scores_by_hand() -> None:
    space = ChoiceSpace("free", [2] * 3)
    rows = space.parse(["000", "001", "110"])
    values = np.array([1.0, 2.0, 6.0])
    others = space.enumerate()
    gain = values - 3
    expected = np.zeros(8)
    for i, j in combinations(range(3), 2):
        same = (others[:, None, [i, j]] == rows[:, [i, j]]).all(axis=2)
        expected += same @ gain / (same.sum(axis=1) + abs_pairs.PRIOR)
    assert abs_pairs.pair_scores(space, rows, values, others) == pytest.approx(expected)


def test_pairs_find_choices_that_are_good_only_together() -> None:
    space = ChoiceSpace("free", [4] * 6)

    def value(archs: Archs) -> FloatArray:
        return np.asarray((archs[:, ::2] == archs[:, 1::2]).sum(axis=1) + archs[:, 0] / 100)

    oracle = CountedOracle(value, space, 1_000)
    part = abs_pairs.shrink(space, oracle, 64, rng())
    assert (value(part.members) >= 3).mean() > 0.7  # a uniform sample of the same size contains a quarter of them


@pytest.mark.parametrize("name", ["abs_pairs", "half_space", "distilled"])
def test_budget_is_spent_and_the_result_is_the_best_of_it(name: str) -> None:
    space = spaces.get("nas_bench_macro")
    oracle = CountedOracle(SyntheticOracle(space), space, 1_000)
    part = shrinkers.get(name)(space, oracle, 100, rng())
    assert oracle.left == 0
    assert (oracle(part.members) == np.sort(oracle.queried()[1])[:-101:-1]).all()


@pytest.mark.parametrize("name", ["abs_pairs", "distilled"])
def test_the_cheap_score_finds_nearly_the_best_of_the_space(name: str) -> None:
    space = spaces.get("transnas_micro")
    oracle = CountedOracle(SyntheticOracle(space), space, 1_000)
    part = shrinkers.get(name)(space, oracle, 200, rng())
    everything = np.sort(SyntheticOracle(space)(space.enumerate()))[::-1]
    assert oracle(part.members).mean() > everything[:230].mean()


def test_half_space_keeps_the_costlier_half_of_each_decision() -> None:
    space = spaces.get("transnas_micro")
    oracle = CountedOracle(SyntheticOracle(space), space, 64)
    half_space.shrink(space, oracle, 20, rng())
    assert (np.sort(oracle.queried()[0], axis=0) >= 2).all()  # none and skip have the fewest FLOPs
