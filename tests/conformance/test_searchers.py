from __future__ import annotations

import numpy as np
import pytest
from numpy.random import Generator

from lissnas import config
from lissnas.oracles import Oracle
from lissnas.searchers import SEARCHERS, History, Limits, Searcher, evolutionary_search
from lissnas.spaces import Space
from lissnas.spaces.subspace import Subspace
from lissnas.testing import SearcherSuite


def evolution(where: Space | Subspace, oracle: Oracle, n: int, rng: Generator) -> History:
    """Evolve for as many generations of at most twelve as `n` evaluations pay for."""
    space, members = (where.space, where.members) if isinstance(where, Subspace) else (where, where.enumerate())
    population = min(12, n)
    changes = {"population": population, "generations": n // population, "parents": 4}
    settings = config.load(None, {}, []).search.model_copy(update=changes)
    return evolutionary_search(space, members, oracle, settings, Limits(), int(rng.integers(1 << 31)))


class TestEvolution(SearcherSuite):
    @pytest.fixture
    def searcher(self) -> Searcher:
        return evolution


@pytest.mark.parametrize("name", SEARCHERS)
class TestPackagedSearchers(SearcherSuite):
    @pytest.fixture
    def searcher(self, name: str) -> Searcher:
        return SEARCHERS[name]


def test_suite_refuses_a_searcher_that_forgets() -> None:
    """A searcher that returns only its best architecture twice fails the first property."""

    def forgetful(where: Space | Subspace, oracle: Oracle, n: int, rng: Generator) -> History:
        full = evolution(where, oracle, n, rng)
        at = np.repeat(full.best(1), 2)
        return History(full.rows[at], full.scores[at], full.generation[at])

    from lissnas import spaces

    suite = SearcherSuite()
    with pytest.raises(AssertionError):
        suite.test_history_is_distinct_members_with_their_scores(forgetful, spaces.get("nas_bench_macro"))
