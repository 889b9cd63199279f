"""Methods that drop choices: edges as decisions, and ranking as a second step."""

from __future__ import annotations

import numpy as np
import pytest

from lissnas import shrinkers, spaces
from lissnas.oracles.base import CountedOracle
from lissnas.shrinkers import abs as abs_
from lissnas.shrinkers import nse
from lissnas.shrinkers.edges import edge_space, with_edges
from lissnas.shrinkers.then_rank import SHARE, members_of, then_rank
from lissnas.spaces import Archs, ChoiceSpace, FloatArray, Space
from lissnas.spaces.subspace import Subspace
from lissnas.testing import SyntheticOracle


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# -- ranking ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["abs", "nse", "padnas", "dds"])
def test_ranking_spends_the_budget_and_improves_the_mean(name: str) -> None:
    space = spaces.get("nas_bench_macro")
    oracle = CountedOracle(SyntheticOracle(space), space, 1_200)
    part = shrinkers.get(f"{name}_then_rank")(space, oracle, 400, rng())
    assert oracle.left == 0
    assert part.size() == 400
    product = shrinkers.get(name)(space, CountedOracle(SyntheticOracle(space), space, 1_200), 400, rng())
    assert oracle(part.members).mean() > SyntheticOracle(space)(product.members).mean()


def test_first_step_gets_a_quarter_of_the_budget_and_its_size_is_what_the_rest_ranks() -> None:
    space = ChoiceSpace("free", [4] * 6)
    seen = []

    def prune(space: Space, oracle: CountedOracle, target: int, rng: np.random.Generator) -> Subspace:
        rows = space.sample_distinct(50, rng)
        oracle(rows)
        seen.append((oracle.budget, target, rows))
        allowed = space.possible()
        allowed[:, 0] = False
        return Subspace(space, allowed=allowed)

    oracle = CountedOracle(SyntheticOracle(space), space, 1_000)
    part = then_rank(prune)(space, oracle, 100, rng())
    assert [(budget, target) for budget, target, _ in seen] == [(1_000 * SHARE, 750), (1_000 * SHARE, 950)]
    assert (seen[0][2] == seen[1][2]).all()
    rows, values = oracle.queried()
    assert (rows > 0).all(axis=1).sum() == 3**6
    assert (oracle(part.members) == np.sort(values)[:-101:-1]).all()


def test_members_of_a_product_too_large_to_list_are_distinct() -> None:
    space = ChoiceSpace("large", [4] * 20)
    allowed = space.possible()
    allowed[9:, 1:] = False
    part = Subspace(space, allowed=allowed)
    rows = members_of(part, 10_000, rng())
    assert part.contains(rows).all()
    assert len(np.unique(space.key(rows))) == len(rows) == 10_000
    allowed = allowed.copy()
    allowed[3:, 1:] = False
    assert len(members_of(Subspace(space, allowed=allowed), 1_000, rng())) == 64


# -- edges -----------------------------------------------------------------------------------------
def test_edges_of_used_vertices_are_decisions() -> None:
    space = spaces.get("nasbench101")
    archs = space.sample_distinct(200, rng())
    wider = edge_space(space)
    slots = wider.slots(archs)
    assert slots.shape == (200, 26) == (200, len(wider.slot_choices))
    assert (slots[:, :5] == space.slots(archs)).all()
    edges = slots[:, 5:]
    assert (np.maximum(edges, 0) == archs[:, :21]).all()
    n_used = 2 + (slots[:, :5] >= 0).sum(axis=1)
    assert ((edges >= 0).sum(axis=1) == n_used * (n_used - 1) // 2).all()
    assert space.slot_choices == (3,) * 5
    assert space.slots(archs).shape == (200, 5)


def test_product_with_edges_is_a_set_of_the_same_space() -> None:
    space = spaces.get("nasbench101")

    def prune(space: Space, oracle: CountedOracle, target: int, rng: np.random.Generator) -> Subspace:
        allowed = space.possible()
        allowed[5 + 5, 1] = False  # from the input to the output
        return Subspace(space, allowed=allowed)

    def value(archs: Archs) -> FloatArray:
        return np.zeros(len(archs))

    part = with_edges(prune)(space, CountedOracle(value, space, 10), 10, rng())
    assert part.space is space
    assert part.kind == "set"
    everything = space.enumerate()
    assert (part.members == everything[everything[:, 5] == 0]).all()


def test_other_spaces_are_unchanged_by_edges() -> None:
    space = spaces.get("nas_bench_macro")
    parts = [
        prune(space, CountedOracle(SyntheticOracle(space), space, 500), 300, rng())
        for prune in (abs_.shrink, with_edges(abs_.shrink))
    ]
    assert (parts[0].members == parts[1].members).all()
    assert parts[1].kind == "product"


# -- NSE -------------------------------------------------------------------------------------------
def test_both_parts_of_a_union_are_sampled_in_the_first_round() -> None:
    space = spaces.get("transnas")
    parts: list[set[int]] = []

    def value(archs: Archs) -> FloatArray:
        parts.append({*archs[:, 0].tolist()})
        return SyntheticOracle(space)(archs)

    nse.shrink(space, CountedOracle(value, space, 1_000), 500, rng())
    assert parts[0] == {0, 1}
