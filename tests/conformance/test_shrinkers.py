"""The conformance suite for custom shrinkers (`lissnas.testing.ShrinkerSuite`), run on every rival method."""

from __future__ import annotations

import numpy as np
import pytest

from lissnas import shrinkers, spaces
from lissnas.core.errors import UnknownName, UserError
from lissnas.oracles.base import CountedOracle
from lissnas.shrinkers import Shrinker, lapt
from lissnas.spaces import ChoiceSpace, Space
from lissnas.testing import ShrinkerSuite, SyntheticOracle

TOP = ("top30", "top20", "top10", "top5")
COSTS = ("flops", "params")
RANKED_COSTS = ("flops_then_rank", "half_space")
ORDINARY = ("abs", "nse", "padnas", "greedynas", "greedynas_v2", "dds", "no_neighbors")
THEN_RANK = ("abs_then_rank", "nse_then_rank", "padnas_then_rank", "dds_then_rank")
JOINT = ("abs_pairs", "distilled", "lamoo", "hep_nas", "dsm_nas")
SEARCHES = ("best_first", "best_first_quota", "genetic", "genetic_quota")


class Rival(ShrinkerSuite):
    @pytest.fixture
    def shrinker(self, name: str) -> Shrinker:
        return shrinkers.get(name)


class OnOneSpace(Rival):
    """Variants of methods that other classes run on three spaces."""

    @pytest.fixture
    def space(self) -> Space:
        return spaces.get("nas_bench_macro")


@pytest.mark.parametrize("name", ORDINARY)
class TestOrdinary(Rival):
    pass


@pytest.mark.parametrize("name", ["best_first_quota", "genetic", *JOINT])
class TestRanking(Rival):
    """They rank single architectures, so the size is exact."""

    size_ratio = 1.0


@pytest.mark.parametrize("name", ["best_first", "genetic_quota", *THEN_RANK])
class TestRankingOnOneSpace(OnOneSpace):
    """The other variants of the searches, and products that are ranked."""

    size_ratio = 1.0


@pytest.mark.parametrize("name", RANKED_COSTS)
class TestCostliestThenRank(OnOneSpace):
    needs_costs = True
    size_ratio = 1.0


@pytest.mark.parametrize("name", ["abs", "nse", "padnas", "dds", "abs_then_rank", "lamoo", "hep_nas", "dsm_nas"])
class TestAbsentDecisions(Rival):
    """Methods that rank choices, on a union of two spaces: a network of one has no choices of the other."""

    @pytest.fixture
    def space(self) -> Space:
        return spaces.get("transnas")


@pytest.mark.parametrize(
    "name", [*ORDINARY, "best_first", "genetic_quota", "abs_then_rank", "dds_then_rank", *JOINT, "top5"]
)
class TestOnASpaceTooLargeToList(Rival):
    """A trillion networks and a budget of 20,000: the space must not be listed."""

    @pytest.fixture
    def space(self) -> Space:
        return ChoiceSpace("large", [4] * 20)

    @pytest.fixture(autouse=True)
    def set_reaches_target(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(type(self), "reaches_target", name not in TOP)


@pytest.mark.parametrize("name", COSTS)
class TestCostliestOfALargeSpace(Rival):
    uses_scores = False
    size_ratio = 1.0

    @pytest.fixture
    def space(self) -> Space:
        return spaces.get("shufflenetv2")


@pytest.mark.parametrize("name", TOP)
class TestTopShare(OnOneSpace):
    """The size of the result is a share of the query budget."""

    reaches_target = False


@pytest.mark.parametrize("name", COSTS)
class TestCostliest(OnOneSpace):
    uses_scores = False
    needs_costs = True
    size_ratio = 1.0


@pytest.mark.parametrize("name", ["score_all"])
class TestScoreAll(Rival):
    scores_full_space = True
    size_ratio = 1.0


class Lapt(ShrinkerSuite):
    """Rules from two tasks that are like the new one, and from one that is its opposite."""

    size_ratio = 1.0

    @pytest.fixture
    def shrinker(self, space: Space) -> Shrinker:
        rows = space.sample_distinct(200, np.random.default_rng(5))
        values = SyntheticOracle(space)(rows)
        return lapt.learned_on([(rows, values), (rows, values + 1), (rows, -values)])


class TestLaptOfAbsentDecisions(Lapt):
    @pytest.fixture
    def space(self) -> Space:
        return spaces.get("transnas")


class TestLaptOnASpaceTooLargeToList(Lapt):
    @pytest.fixture
    def space(self) -> Space:
        return ChoiceSpace("large", [4] * 20)


def test_every_rival_has_a_conformance_test() -> None:
    assert {*ORDINARY, *SEARCHES, *THEN_RANK, *JOINT, *TOP, *COSTS, *RANKED_COSTS, "score_all"} == {
        name for name, one in shrinkers.METHODS.items() if one.rival is not None
    }


@pytest.mark.parametrize(("name", "percent"), [("top30", 30), ("top20", 20), ("top10", 10), ("top5", 5)])
def test_top_methods_return_a_share_of_the_budget(name: str, percent: int) -> None:
    space = ChoiceSpace("free", [3] * 6)
    oracle = CountedOracle(SyntheticOracle(space), space, 200)
    part = shrinkers.get(name)(space, oracle, 7, np.random.default_rng(0))
    rows, values = oracle.queried()
    assert part.size() == 200 * percent // 100
    assert oracle(part.members).min() >= np.sort(values[~part.contains(rows)])[-1]


def test_score_all_returns_the_best_of_the_space() -> None:
    space = ChoiceSpace("free", [3] * 6)
    oracle = CountedOracle(SyntheticOracle(space), space, space.size())
    part = shrinkers.get("score_all")(space, oracle, 10, np.random.default_rng(0))
    best = np.sort(oracle(space.enumerate()))[:-11:-1]
    assert (oracle(part.members) == best).all()


@pytest.mark.parametrize("name", [*COSTS, *RANKED_COSTS])
def test_a_space_without_costs_is_refused(name: str) -> None:
    space = ChoiceSpace("free", [3] * 6)
    with pytest.raises(UserError, match=f"space free knows no {'params' if name == 'params' else 'flops'}"):
        shrinkers.get(name)(space, CountedOracle(SyntheticOracle(space), space, 50), 10, np.random.default_rng(0))


def test_unknown_method_error_lists_the_known_ones() -> None:
    with pytest.raises(
        UnknownName,
        match=r"unknown method 'greedy_nas'. Did you mean 'greedynas'\? Known: abs, abs_then_rank, abs_pairs, nse",
    ):
        shrinkers.get("greedy_nas")


def test_a_method_of_other_tasks_has_no_single_shrinker() -> None:
    with pytest.raises(UserError, match="lapt learns from other tasks of a benchmark's space"):
        shrinkers.get("lapt")
