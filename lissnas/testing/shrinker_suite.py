"""Conformance tests for shrinkers, to be inherited (requires pytest).

class TestMyShrinker(ShrinkerSuite):
    @pytest.fixture
    def shrinker(self):
        return my_shrink  # (space, oracle, target, rng) -> Subspace
"""

from __future__ import annotations

from contextlib import suppress
from typing import ClassVar

import numpy as np
import pytest

from lissnas import spaces
from lissnas.core.errors import LissnasError
from lissnas.oracles.base import CountedOracle, Oracle
from lissnas.oracles.synthetic import SyntheticOracle
from lissnas.shrinkers import Shrinker
from lissnas.spaces import Archs, ChoiceSpace, Space
from lissnas.spaces.base import LISTABLE
from lissnas.spaces.subspace import Subspace

LARGE = 18_000
"""Architectures of which the target is a ninth, in a space too large to list."""
LARGE_BUDGET = 20_000
"""Query budget in such a space."""


class ShrinkerSuite:
    """Tests of the requirements for every shrinker; override the `shrinker` fixture.

    A shrinker is a function `(space, oracle, target, rng) -> Subspace`, like the rivals in
    `lissnas.shrinkers.METHODS`. Class attributes declare which requirements do not apply to it. The tests run
    on three small spaces and take a few seconds; override the `space` fixture to use others.
    """

    size_ratio: ClassVar[float] = 1.5
    """Maximum ratio between size and target: a product can't have every size."""
    reaches_target: ClassVar[bool] = True
    """False if the size does not depend on the target, but e.g. on the budget."""
    rank_based: ClassVar[bool] = True
    """Whether scaled and shifted scores give the same space."""
    uses_scores: ClassVar[bool] = True
    """False if the method needs no scores; then its space need not be better than the full space."""
    scores_full_space: ClassVar[bool] = False
    """True if the method needs a budget for the whole space."""
    needs_costs: ClassVar[bool] = False
    """True if the method requires a space with costs."""

    @pytest.fixture
    def shrinker(self) -> Shrinker:
        """Return the shrinker under test."""
        raise NotImplementedError("override the fixture `shrinker`")

    @pytest.fixture(params=["nas_bench_macro", "transnas_micro", "free"])
    def space(self, request: pytest.FixtureRequest) -> Space:
        """Return a small space: with networks of equal function, without them, without costs."""
        space = ChoiceSpace("free", [3] * 6) if request.param == "free" else spaces.get(request.param)
        if self.needs_costs and not space.cost_names:
            pytest.skip("the method ranks by costs, which this space lacks")
        return space

    def budget(self, space: Space) -> int:
        """Return a sufficient budget: a quarter of the space, or all of it."""
        if space.size() > LISTABLE:
            return LARGE_BUDGET
        return space.size() if self.scores_full_space else space.size() // 4

    def whole(self, space: Space) -> int:
        """Return the number of networks that targets are parts of."""
        return space.size() if space.size() <= LISTABLE else LARGE

    def members(self, part: Subspace) -> Archs:
        """Return the members, or a sample of a product that is too large to list."""
        if part.kind == "set" or part.space.size() <= LISTABLE:
            return part.members
        return part.sample(1_000, np.random.default_rng(7))

    def run(
        self,
        shrinker: Shrinker,
        space: Space,
        oracle: Oracle | None = None,
        budget: int | None = None,
        target: int | None = None,
        seed: int = 0,
    ) -> tuple[Subspace, CountedOracle]:
        """Shrink to `target`, by default a ninth of the space."""
        counted = CountedOracle(
            SyntheticOracle(space) if oracle is None else oracle,
            space,
            self.budget(space) if budget is None else budget,
        )
        size = self.whole(space) // 9 if target is None else target
        return shrinker(space, counted, size, np.random.default_rng(seed)), counted

    def check(self, part: Subspace, space: Space) -> Archs:
        """Verify that `part` is a valid subspace of `space`, and return its members, or a sample."""
        assert isinstance(part, Subspace)
        assert part.space is space
        rows = self.members(part)
        keys = space.key(rows)
        if part.kind == "product" and space.size() > LISTABLE:
            rows = rows[np.unique(keys, return_index=True)[1]]
            assert 0 < len(rows) <= part.size()
            assert part.contains(rows).all()
            return rows
        assert len(rows) == part.size() > 0
        assert len(np.unique(keys)) == len(rows)
        assert (space.parse(space.format(rows)) == rows).all()
        assert part.contains(rows).all()
        if space.size() <= LISTABLE:
            assert part.contains(space.enumerate()).sum() == len(rows)
        return rows

    def test_result_is_a_subspace(self, shrinker: Shrinker, space: Space) -> None:
        """Members are distinct, canonical architectures of the space, and the subspace contains them."""
        part, _ = self.run(shrinker, space)
        rows = self.check(part, space)
        assert part.contains(part.sample(100, np.random.default_rng(0))).all()
        assert len(rows) < space.size()

    def test_queries_are_within_the_budget(self, shrinker: Shrinker, space: Space) -> None:
        """The oracle receives as many architectures as were counted, within the budget."""
        oracle = SyntheticOracle(space)
        _, counted = self.run(shrinker, space, oracle)
        assert len(oracle.queried) == counted.queries <= counted.budget
        assert (counted.queries > 0) == self.uses_scores

    def test_same_seed_gives_the_same_members(self, shrinker: Shrinker, space: Space) -> None:
        """In the same order."""
        a, b = (self.members(self.run(shrinker, space, seed=3)[0]) for _ in range(2))
        assert a.shape == b.shape
        assert (a == b).all()

    @pytest.mark.parametrize("parts", [5, 9, 30])
    def test_size_is_near_the_target(self, shrinker: Shrinker, space: Space, parts: int) -> None:
        """Within `size_ratio`, for targets that are reachable within the budget."""
        if not self.reaches_target:
            pytest.skip("the size does not depend on the target")
        target = self.whole(space) // parts
        size = self.run(shrinker, space, target=target)[0].size()
        assert max(size / target, target / size) <= self.size_ratio

    def test_members_are_better_than_the_space(self, shrinker: Shrinker, space: Space) -> None:
        """On average; higher is better."""
        if not self.uses_scores:
            pytest.skip("the method uses no scores")
        oracle = SyntheticOracle(space)
        full = oracle(space.all_or_many(np.random.default_rng(8)))
        part, _ = self.run(shrinker, space)
        assert oracle(self.members(part)).mean() > full.mean() + full.std() / 4

    @pytest.mark.parametrize("budget", [0, 1, 30])
    def test_tiny_budget(self, shrinker: Shrinker, space: Space, budget: int) -> None:
        """Gives a valid subspace, or raises LissnasError."""
        oracle = SyntheticOracle(space)
        part: Subspace | None = None
        with suppress(LissnasError):
            part, _ = self.run(shrinker, space, oracle, budget)
        assert len(oracle.queried) <= budget
        if part is not None and (budget or part.size()):
            self.check(part, space)

    def test_constant_scores(self, shrinker: Shrinker, space: Space) -> None:
        """Give any valid subspace, or raise LissnasError."""
        part: Subspace | None = None
        with suppress(LissnasError):
            part, _ = self.run(shrinker, space, lambda archs: np.full(len(archs), 93.1))
        if part is not None:
            self.check(part, space)

    def test_nan_scores_are_refused(self, shrinker: Shrinker, space: Space) -> None:
        """They raise LissnasError."""
        if not self.uses_scores:
            pytest.skip("the method uses no scores")
        with pytest.raises(LissnasError, match="nan"):
            self.run(shrinker, space, lambda archs: np.full(len(archs), np.nan))

    @pytest.mark.parametrize("more", [0, 7])
    def test_target_of_the_full_size_or_more(self, shrinker: Shrinker, space: Space, more: int) -> None:
        """Gives at most the full space."""
        if space.size() > LISTABLE:
            pytest.skip("too large to list")
        part, _ = self.run(shrinker, space, target=space.size() + more)
        assert len(self.check(part, space)) <= space.size()

    def test_target_of_one(self, shrinker: Shrinker, space: Space) -> None:
        """Gives a subspace that is not empty."""
        part, _ = self.run(shrinker, space, target=1)
        self.check(part, space)

    def test_only_the_order_of_scores_matters(self, shrinker: Shrinker, space: Space) -> None:
        """Scores times eight plus a thousand give the same members."""
        if not self.rank_based:
            pytest.skip("the method is not rank-based")
        plain, _ = self.run(shrinker, space)
        scaled, _ = self.run(shrinker, space, SyntheticOracle(space, 8.0, 1000.0))
        a, b = self.members(plain), self.members(scaled)
        assert a.shape == b.shape
        assert (a == b).all()
