"""Conformance tests that any searcher inherits, including a user's (requires pytest).

class TestMySearcher(SearcherSuite):
    @pytest.fixture
    def searcher(self):
        return my_search  # (space or subspace, oracle, n, rng) -> History
"""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from lissnas import spaces
from lissnas.core.errors import LissnasError
from lissnas.oracles.base import CountedOracle, Oracle
from lissnas.oracles.synthetic import SyntheticOracle
from lissnas.searchers import History, Searched, Searcher
from lissnas.searchers.base import space_of
from lissnas.spaces import Archs, FloatArray
from lissnas.spaces.subspace import Subspace

BUDGET = 60
"""Architectures that a search may evaluate."""
FAILED = 3
"""One evaluation in so many fails."""


class SearcherSuite:
    """Properties of every searcher; override the `searcher` fixture.

    A searcher is a function `(space, oracle, n, rng) -> History` that evaluates at most `n` architectures of a
    space or subspace and returns all of them in the order of evaluation.
    """

    @pytest.fixture
    def searcher(self) -> Searcher:
        """Return the searcher under test."""
        raise NotImplementedError("override the fixture `searcher`")

    @pytest.fixture(params=["whole space", "subspace"])
    def searched(self, request: pytest.FixtureRequest) -> Searched:
        """Return what is searched: NAS-Bench-Macro, or 400 of its architectures."""
        space = spaces.get("nas_bench_macro")
        if request.param == "whole space":
            return space
        return Subspace(space, listed=space.sample_distinct(400, np.random.default_rng(5)))

    def run(self, searcher: Searcher, searched: Searched, n: int = BUDGET, seed: int = 0) -> History:
        """Search with a synthetic oracle that raises if more than `n` architectures are evaluated."""
        space = space_of(searched)
        return searcher(searched, CountedOracle(SyntheticOracle(space), space, n), n, np.random.default_rng(seed))

    def test_history_is_distinct_members_with_their_scores(self, searcher: Searcher, searched: Searched) -> None:
        """The history has 1 to `n` distinct architectures of the searched space, each with the oracle's value."""
        space = space_of(searched)
        history = self.run(searcher, searched)
        assert 0 < len(history.rows) <= BUDGET
        assert len(np.unique(space.key(history.rows))) == len(history.rows)
        assert (history.scores == SyntheticOracle(space)(history.rows)).all()
        assert not isinstance(searched, Subspace) or searched.contains(history.rows).all()

    def test_same_seed_gives_same_history(self, searcher: Searcher, searched: Searched) -> None:
        """A search is a function of its generator; another seed gives another history."""
        a, b, other = (self.run(searcher, searched, seed=seed).rows for seed in (3, 3, 4))
        assert a.shape == b.shape
        assert (a == b).all()
        assert a.shape != other.shape or (a != other).any()

    def test_search_is_better_than_the_mean(self, searcher: Searcher, searched: Searched) -> None:
        """The best of `n` evaluated architectures exceeds the mean of the space by one standard deviation."""
        members = searched.members if isinstance(searched, Subspace) else searched.enumerate()
        values = SyntheticOracle(space_of(searched))(members)
        assert self.run(searcher, searched).scores.max() > values.mean() + values.std()

    @pytest.mark.parametrize("n", [1, 2, 7])
    def test_tiny_budget(self, searcher: Searcher, searched: Searched, n: int) -> None:
        """A budget of a few evaluations is respected."""
        assert 0 < len(self.run(searcher, searched, n).rows) <= n

    def test_budget_larger_than_the_space(self, searcher: Searcher) -> None:
        """The search stops once it has evaluated everything."""
        space = spaces.get("nas_bench_macro")
        few = Subspace(space, listed=space.sample_distinct(30, np.random.default_rng(6)))
        assert len(self.run(searcher, few, 500).rows) <= 30

    def test_ties(self, searcher: Searcher, searched: Searched) -> None:
        """Equal values do not stop a search before its budget."""
        space = space_of(searched)
        history = searcher(searched, lambda archs: np.ones(len(archs)), 25, np.random.default_rng(0))
        assert 20 <= len(np.unique(space.key(history.rows))) == len(history.rows) <= 25

    def test_failures(self, searcher: Searcher, searched: Searched) -> None:
        """NaN is a failed evaluation: never the best, never repeated, and the search goes on."""
        space = space_of(searched)
        history = searcher(searched, _failing(searched), BUDGET, np.random.default_rng(0))
        assert len(np.unique(space.key(history.rows))) == len(history.rows) > BUDGET // 2
        failed = np.isnan(history.scores)
        assert (failed == (space.key(history.rows) % FAILED == 0)).all()
        assert not failed[history.best(5)].any()

    def test_continued_search_gives_the_same_history(self, searcher: Searcher, searched: Searched) -> None:
        """A search that takes `history` continues an earlier one to the same result."""
        if "history" not in inspect.signature(searcher).parameters:
            pytest.skip("the searcher can't continue")
        oracle = SyntheticOracle(space_of(searched))
        full = searcher(searched, oracle, BUDGET, np.random.default_rng(1))
        half = int(np.searchsorted(full.generation, full.generation[-1] // 2 + 1))
        earlier = History(full.rows[:half], full.scores[:half], full.generation[:half])
        again = searcher(searched, oracle, BUDGET, np.random.default_rng(1), history=earlier)  # type: ignore[call-arg]
        assert (again.rows == full.rows).all()
        assert (again.generation == full.generation).all()

    def test_nothing_but_failures_is_an_error(self, searcher: Searcher, searched: Searched) -> None:
        """An oracle that always returns NaN stops the search with an error that names it."""
        broken = CountedOracle(lambda archs: np.full(len(archs), np.nan), space_of(searched), BUDGET)
        with pytest.raises(LissnasError, match="nan"):
            searcher(searched, broken, BUDGET, np.random.default_rng(0))


def _failing(searched: Searched) -> Oracle:
    space = space_of(searched)
    oracle = SyntheticOracle(space)

    def values(archs: Archs) -> FloatArray:
        return np.where(space.key(archs) % FAILED == 0, np.nan, oracle(archs))

    return values
