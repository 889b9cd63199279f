"""The searches that are baselines: best-first, genetic, and the costliest ranked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lissnas import shrinkers, spaces
from lissnas.core.errors import UserError
from lissnas.oracles.base import CountedOracle
from lissnas.shrinkers import genetic
from lissnas.shrinkers.evaluated import Evaluated
from lissnas.shrinkers.selection import Strata
from lissnas.spaces import ChoiceSpace, Space
from lissnas.testing import SyntheticOracle

SEARCHES = ("best_first", "genetic")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def run(name: str, space: Space, budget: int, target: int, seed: int = 0) -> tuple[Any, CountedOracle]:
    oracle = CountedOracle(SyntheticOracle(space), space, budget)
    return shrinkers.get(name)(space, oracle, target, rng(seed)), oracle


@pytest.mark.parametrize("name", [*SEARCHES, "best_first_quota", "genetic_quota"])
def test_searches_spend_the_budget(name: str) -> None:
    space = spaces.get("nas_bench_macro")
    _, oracle = run(name, space, 1_000, 400)
    assert oracle.left == 0


@pytest.mark.parametrize("name", SEARCHES)
def test_result_is_the_best_of_everything_evaluated(name: str) -> None:
    space = spaces.get("nas_bench_macro")
    part, oracle = run(name, space, 800, 100)
    assert (oracle(part.members) == np.sort(oracle.queried()[1])[:-101:-1]).all()


@pytest.mark.parametrize("name", SEARCHES)
def test_searches_find_nearly_the_best_of_the_space(name: str) -> None:
    space = ChoiceSpace("free", [4] * 7)
    part, oracle = run(name, space, 3_000, 300)
    everything = np.sort(SyntheticOracle(space)(space.enumerate()))[::-1]
    assert oracle(part.members).mean() > everything[:330].mean()


@pytest.mark.parametrize("name", SEARCHES)
def test_quota_widens_the_costs(name: str) -> None:
    space = spaces.get("nas_bench_macro")
    plain, _ = run(name, space, 1_200, 300)
    quota, oracle = run(f"{name}_quota", space, 1_200, 300)
    strata, _ = Strata.of(space, space.enumerate(), rng())
    occupied = [len(np.unique(strata.of_each(space, part.members))) for part in (plain, quota)]
    assert occupied[1] > occupied[0]
    assert oracle(quota.members).mean() > oracle(space.enumerate()[:0]).sum() + np.quantile(oracle.queried()[1], 0.5)


@pytest.mark.parametrize("name", [*SEARCHES, "flops_then_rank"])
def test_budget_of_the_whole_space_finds_the_best(name: str) -> None:
    space = spaces.get("transnas_macro")
    part, oracle = run(name, space, space.size() + 10, 50)
    best = np.sort(SyntheticOracle(space)(space.enumerate()))[:-51:-1]
    assert (oracle(part.members) == best).all()


def test_flops_then_rank_evaluates_the_costliest() -> None:
    space = spaces.get("nas_bench_macro")
    _, oracle = run("flops_then_rank", space, 500, 100)
    flops = space.costs(oracle.queried()[0])["flops"]
    assert flops.min() >= np.sort(space.costs(space.enumerate())["flops"])[-500]


def test_flops_then_rank_of_a_space_without_costs_too_large_to_list() -> None:
    with pytest.raises(UserError, match="space large knows no flops"):
        run("flops_then_rank", ChoiceSpace("large", [4] * 20), 50, 5)


def test_crossover_takes_each_position_from_a_parent() -> None:
    space = ChoiceSpace("free", [3] * 6)
    parents = space.parse(["000000", "111111"])
    rows = genetic.children(space, parents, 100, rng())
    assert len(rows) == 100
    assert ((rows == 2).sum(axis=1) <= 1).all()  # a mutation changes one position
    crossed = rows[50:]
    assert (crossed < 2).all()
    assert crossed.min(axis=1).min() == 0
    assert 0 < crossed.mean() < 1


def test_children_of_cells_are_single_edits() -> None:
    space = spaces.get("nasbench101")
    parents = space.sample_distinct(1, rng())
    near = np.sort(space.key(space.neighbors(parents)[0]))
    assert np.isin(space.key(genetic.children(space, parents, 40, rng())), near).all()


def test_evaluated_ignores_repeats_and_what_the_budget_excludes() -> None:
    space = ChoiceSpace("free", [3] * 6)
    oracle = CountedOracle(SyntheticOracle(space), space, 10)
    seen = Evaluated(space, oracle, 0, rng())
    rows = space.enumerate()[:20]
    assert seen.add(rows[[0, 1, 1, 0]]) == 2
    assert seen.add(rows[:2]) == 0
    assert seen.add(rows) == 8
    assert seen.add(rows) == 0
    assert (seen.rows == rows[:10]).all()
    assert (seen.scores == oracle(rows[:10])).all()
    assert seen.best(3).size() == 3
