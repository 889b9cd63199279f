"""Samplers: they depend only on seed and step, and have the documented frequencies."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

pytest.importorskip("torch", reason="torch is not installed (the extra `torch`)")

from lissnas import spaces
from lissnas.nets import samplers
from lissnas.nets.samplers import Sampler
from lissnas.spaces import Archs
from lissnas.spaces.base import BoolArray
from lissnas.spaces.choices import ChoiceSpace

MACRO = spaces.get("nas_bench_macro")
SQUARE = ChoiceSpace("square", [3, 3, 3])
UNEVEN = ChoiceSpace("uneven", [2, 3])
MIN_P = 1e-4
"""Probability that a correct sampler fails a test; a wrong distribution fails nearly always."""


def members(n: int, seed: int = 0) -> Archs:
    return MACRO.sample_distinct(n, np.random.default_rng(seed))


def everything(space: ChoiceSpace) -> BoolArray:
    return np.arange(max(space.slot_choices)) < np.array(space.slot_choices)[:, None]


def drawn(sampler: Sampler, steps: int) -> Archs:
    return np.concatenate([sampler(step) for step in range(steps)])


def counts(rows: Archs, of: Archs) -> list[int]:
    """Return how often each row of `of` was drawn; fails if other rows were."""
    found = Counter(map(tuple, rows.tolist()))
    listed = [found.pop(tuple(row), 0) for row in of.tolist()]
    assert not found
    return listed


def assert_uniform(observed: Any) -> None:
    assert chisquare(observed).pvalue > MIN_P


SAMPLERS: dict[str, Callable[[int], Sampler]] = {
    "uniform": lambda seed: samplers.uniform(MACRO, seed),
    "over_set": lambda seed: samplers.over_set(members(40), seed),
    "fair_product": lambda seed: samplers.fair_product(everything(SQUARE), seed),
    "fair_set": lambda seed: samplers.fair_set(MACRO, members(40), 3, seed),
    "balanced": lambda seed: samplers.balanced(members(40), np.arange(1.0, 41), seed),
    "curriculum": lambda seed: samplers.curriculum(
        MACRO, members(40), members(40)[:1], samplers.over_set(members(40), seed), 40, 0.5, seed
    ),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_paths_depend_only_on_seed_and_step(name: str) -> None:
    sampler, twin, other = (SAMPLERS[name](seed) for seed in (0, 0, 1))
    forth = [sampler(step) for step in range(40)]
    np.random.seed(3)  # noqa: NPY002
    back = [twin(step) for step in reversed(range(40))][::-1]
    for a, b in zip(forth, back, strict=True):
        assert a.dtype == np.int8
        assert a.ndim == 2
        assert (a == b).all()
    assert any((a != other(step)).any() for step, a in enumerate(forth))
    assert len({a.tobytes() for a in forth}) > 5  # steps draw independently


# -- uniform -----------------------------------------------------------------------------------------
def test_uniform_draws_every_architecture_of_a_space_equally_often() -> None:
    rows = drawn(samplers.uniform(SQUARE, 0), 2_700)
    assert_uniform(counts(rows, SQUARE.enumerate()))


def test_uniform_is_over_networks_and_not_over_descriptions() -> None:
    rows = drawn(samplers.uniform(MACRO, 0), 1_500)
    assert (MACRO.parse(MACRO.format(rows)) == rows).all()
    # Of the canonical last two digits 3 in 7 end with an identity; of uniform strings 5 in 9 would.
    listing = MACRO.enumerate()
    share = (listing[:, 7] == 0).mean()
    assert share == 3 / 7
    ends = int((rows[:, 7] == 0).sum())
    assert chisquare([ends, 1_500 - ends], [1_500 * share, 1_500 * (1 - share)]).pvalue > MIN_P


def test_every_member_of_a_set_is_drawn_equally_often() -> None:
    some = members(25)
    assert_uniform(counts(drawn(samplers.over_set(some, 0), 2_500), some))


def test_consecutive_steps_are_independent() -> None:
    rows = drawn(samplers.over_set(members(4), 5), 3_200)
    keys = np.unique(MACRO.key(rows), return_inverse=True)[1]
    assert_uniform(np.bincount(4 * keys[:-1] + keys[1:], minlength=16))


# -- strict fairness on products ---------------------------------------------------------------------
@settings(max_examples=50)
@given(st.data())
def test_fairness_on_a_product_is_exact_in_every_step(data: Any) -> None:
    """The choices of a layer are trained equally often, once each in the layers with most choices."""
    allowed = np.array(data.draw(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=3, max_size=3)))
    allowed[~allowed.any(axis=1), data.draw(st.integers(0, 3))] = True
    paths = samplers.fair_product(allowed, data.draw(st.integers(0, 99)))(data.draw(st.integers(0, 99)))
    n_paths = int(allowed.sum(axis=1).max())
    assert paths.shape == (n_paths, 3)
    for column, choices in zip(paths.T, allowed, strict=True):
        trained = np.bincount(column, minlength=4)
        assert not trained[~choices].any()
        assert trained[choices].max() - trained[choices].min() <= 1
        assert trained[choices].sum() == n_paths
        if choices.sum() == n_paths:
            assert (trained[choices] == 1).all()


def test_a_layer_with_fewer_choices_is_fair_over_several_steps() -> None:
    paths = drawn(samplers.fair_product(everything(UNEVEN), 0), 1_000)
    assert len(paths) == 3_000
    assert np.bincount(paths[:, 1]).tolist() == [1_000] * 3
    # Each step trains one of the two choices twice: a fair coin, 1,000 times.
    twice = int((paths[:, 0].reshape(-1, 3).sum(axis=1) == 2).sum())
    assert_uniform([twice, 1_000 - twice])


def test_layers_are_ordered_independently() -> None:
    paths = drawn(samplers.fair_product(everything(SQUARE), 0), 900)
    assert_uniform(counts(paths, SQUARE.enumerate()))


# -- fairness on sets --------------------------------------------------------------------------------
@settings(max_examples=30)
@given(st.integers(1, 60), st.integers(1, 6), st.integers(0, 50))
def test_each_member_of_a_step_covers_no_more_new_choices_than_the_one_before(size: int, m: int, step: int) -> None:
    some = members(size, seed=size)
    paths = samplers.fair_set(MACRO, some, m, 0)(step)
    assert paths.shape == (m, MACRO.genome_len)
    counts(paths, some)
    covered = [len({(i, c) for row in paths[:n] for i, c in enumerate(row)}) for n in range(1, m + 1)]
    assert covered[0] == MACRO.genome_len
    gains = np.diff(covered)
    assert (gains >= 0).all()
    assert (np.diff(gains) <= 0).all()  # greedy: gains never increase


def test_the_first_member_of_a_step_is_uniform() -> None:
    some = members(20)
    sampler = samplers.fair_set(MACRO, some, 2, 0)
    assert_uniform(counts(np.array([sampler(step)[0] for step in range(1_000)]), some))


def test_a_full_product_as_a_set_is_covered_in_one_step() -> None:
    """With as many members as choices, greedy draws are strictly fair if the set allows it."""
    sampler = samplers.fair_set(SQUARE, SQUARE.enumerate(), 3, 0)
    for step in range(50):
        assert all(sorted(column) == [0, 1, 2] for column in sampler(step).T.tolist())


def test_rare_choices_are_trained_more_often_than_by_uniform_draws() -> None:
    """Three of 100 members have choice 2 in the first layer."""
    listing = SQUARE.enumerate()
    common, rare = listing[listing[:, 0] < 2], listing[listing[:, 0] == 2][:3]
    some = np.concatenate([np.resize(common, (97, 3)), rare])
    fair = [(samplers.fair_set(SQUARE, some, 3, 0)(step)[:, 0] == 2).any() for step in range(300)]
    uniform = [(drawn(samplers.over_set(some, seed), 3)[:, 0] == 2).any() for seed in range(300)]
    assert 0 < np.mean(uniform) < 0.2
    assert np.mean(fair) > 2 * np.mean(uniform)


def test_inactive_decisions_are_not_choices() -> None:
    space = spaces.get("nasbench101")
    some = space.sample_distinct(30, np.random.default_rng(0))
    assert (space.slots(some) < 0).any()
    counts(samplers.fair_set(space, some, 4, 0)(0), some)


# -- balanced ----------------------------------------------------------------------------------------
def test_balanced_draws_are_proportional_to_parameters() -> None:
    some = members(20)
    params = MACRO.costs(some)["params"].astype(np.float64)
    assert params.max() > 3 * params.min()
    observed = counts(drawn(samplers.balanced(some, params, 0), 4_000), some)
    assert chisquare(observed, 4_000 * params / params.sum()).pvalue > MIN_P
    assert chisquare(observed).pvalue < 1e-9


# -- the curriculum ----------------------------------------------------------------------------------
STEPS = 100
SHARE = 0.6


def curriculum(seed: int, some: Archs, first: Archs) -> Sampler:
    return samplers.curriculum(MACRO, some, first, samplers.over_set(some, seed), STEPS, SHARE, seed)


def reachable(step: int, some: Archs, first: Archs) -> set[tuple[int, ...]]:
    """Return the paths that any of 250 seeds draws at a step."""
    return {tuple(curriculum(seed, some, first)(step)[0].tolist()) for seed in range(250)}


def test_the_curriculum_starts_on_its_first_path() -> None:
    some = members(30)
    assert reachable(0, some, some[7:8]) == {tuple(some[7].tolist())}


def test_a_first_path_outside_the_set_is_replaced_by_the_nearest_member() -> None:
    some = members(30)
    outside = MACRO.sample_distinct(1, np.random.default_rng(9), MACRO.key(some))
    (start,) = reachable(0, some, outside)
    distance = (some != outside).sum(axis=1)
    assert (np.array(start) != outside[0]).sum() == distance.min()


def test_the_curriculum_widens_from_near_to_far_to_all_members() -> None:
    some = members(30)
    first = some[:1]
    at = {step: reachable(step, some, first) for step in (0, 10, 25, 40, 55, 59)}
    widths = [len(rows) for rows in at.values()]
    assert widths == [max(1, round(30 * step / (SHARE * STEPS))) for step in at]
    assert widths == sorted(widths)
    distances = [sorted((np.array(list(rows)) != first).sum(axis=1)) for rows in at.values()]
    all_distances = sorted((some != first).sum(axis=1))
    assert all(near == all_distances[: len(near)] for near in distances)
    steps = list(at)
    assert all(at[a] <= at[b] for a, b in itertools.pairwise(steps))
    assert reachable(60, some, first) == set(map(tuple, some.tolist()))


def test_the_sampler_takes_over_after_the_curriculum() -> None:
    some = members(30)
    sampler = samplers.fair_set(MACRO, some, 3, 0)
    widening = samplers.curriculum(MACRO, some, some[:1], sampler, STEPS, SHARE, 0)
    assert len(widening(59)) == 1
    assert all((widening(step) == sampler(step)).all() for step in range(60, 100))
    at_once = samplers.curriculum(MACRO, some, some[:1], sampler, STEPS, 0.0, 0)
    assert (at_once(0) == sampler(0)).all()


def test_a_curriculum_over_all_steps_ends_with_nearly_all_members() -> None:
    some = members(30)
    whole = samplers.curriculum(MACRO, some, some[:1], samplers.over_set(some, 0), STEPS, 1.0, 0)
    assert (whole(0) == some[:1]).all()
    counts(drawn(whole, STEPS), some)
