"""Conformance tests that any shrinker inherits, a user's too (needs pytest).

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
from lissnas.core.rng import stream
from lissnas.oracles.base import CountedOracle, Oracle
from lissnas.shrinkers import Shrinker
from lissnas.spaces import Archs, ChoiceSpace, FloatArray, Keys, Space
from lissnas.spaces.base import LISTABLE
from lissnas.spaces.subspace import Subspace

LARGE = 18_000
"""In a space too large to list: the networks of which a target is a ninth."""
LARGE_BUDGET = 20_000
"""The budget in such a space."""


class SyntheticOracle:
    """A cheap made-up truth: each choice has a worth, each architecture some luck of its own.

    Values are multiples of 1/1024, so that scaling them by a power of two and shifting them by a
    whole number is exact. `asked` holds the key of every architecture it was ever asked about.
    """

    def __init__(self, space: Space, scale: float = 1.0, shift: float = 0.0) -> None:
        rng = stream(0, "synthetic oracle", space.name)
        self.space = space
        self.scale, self.shift = scale, shift
        self.worth = rng.normal(size=(len(space.slot_choices), max(space.slot_choices)))
        self.asked: set[int] = set()

    def __call__(self, archs: Archs) -> FloatArray:
        """Return `(n,)` values, a function of the architecture alone."""
        keys: Keys = self.space.key(archs)
        self.asked.update(keys.tolist())
        slots = self.space.slots(archs)
        worth = np.where(slots >= 0, self.worth[np.arange(slots.shape[1]), slots], 0).sum(axis=1)
        luck = (keys * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(54)).astype(np.float64) / 1024
        return np.asarray(np.round(1024 * (worth + luck)) / 1024 * self.scale + self.shift)


class ShrinkerSuite:
    """What every shrinker promises; override the `shrinker` fixture.

    A shrinker is a function `(space, oracle, target, rng) -> Subspace`, as those of
    `lissnas.shrinkers.RIVALS`. A subclass gives it as the fixture, and says with the class attributes
    what it doesn't promise. The tests run on three small spaces and take a few seconds;
    override the fixture `space` to run them on others.
    """

    size_ratio: ClassVar[float] = 1.5
    """How far the size may be from the target, as a ratio: a product can't have every size."""
    heeds_target: ClassVar[bool] = True
    """False for a method whose size comes from elsewhere, such as the budget."""
    rank_based: ClassVar[bool] = True
    """Whether scores that are scaled and shifted give the same space."""
    asks: ClassVar[bool] = True
    """False for a method that needs no scores; then its space need not be a good one."""
    asks_everything: ClassVar[bool] = False
    """True for one that needs a budget for the whole space."""
    needs_costs: ClassVar[bool] = False
    """True for one that can't shrink a space that knows no costs."""

    @pytest.fixture
    def shrinker(self) -> Shrinker:
        """Return the shrinker under test."""
        raise NotImplementedError("override the fixture `shrinker`")

    @pytest.fixture(params=["nas_bench_macro", "transnas_micro", "free"])
    def space(self, request: pytest.FixtureRequest) -> Space:
        """Return a small space: one with networks of equal function, one without, one without costs."""
        space = ChoiceSpace("free", [3] * 6) if request.param == "free" else spaces.get(request.param)
        if self.needs_costs and not space.cost_names:
            pytest.skip("the method ranks by costs, which this space doesn't know")
        return space

    def budget(self, space: Space) -> int:
        """Return a budget that is enough: a quarter of the space, or all of it."""
        if space.size() > LISTABLE:
            return LARGE_BUDGET
        return space.size() if self.asks_everything else space.size() // 4

    def whole(self, space: Space) -> int:
        """Return the number of networks that targets are parts of."""
        return space.size() if space.size() <= LISTABLE else LARGE

    def judged(self, part: Subspace) -> Archs:
        """Return the members; a sample of a product that is not listed."""
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
        """Shrink to a ninth of the space, or to `target`."""
        counted = CountedOracle(
            SyntheticOracle(space) if oracle is None else oracle,
            space,
            self.budget(space) if budget is None else budget,
        )
        size = self.whole(space) // 9 if target is None else target
        return shrinker(space, counted, size, np.random.default_rng(seed)), counted

    def check(self, part: Subspace, space: Space) -> Archs:
        """Return the members, once they are what a subspace of `space` may hold; a sample where they aren't listed."""
        assert isinstance(part, Subspace)
        assert part.space is space
        rows = self.judged(part)
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

    def test_the_result_is_a_part_of_the_space(self, shrinker: Shrinker, space: Space) -> None:
        """Its members are distinct architectures of the space, in canonical form, and it knows them."""
        part, _ = self.run(shrinker, space)
        rows = self.check(part, space)
        assert part.contains(part.sample(100, np.random.default_rng(0))).all()
        assert len(rows) < space.size()

    def test_no_more_is_asked_than_the_budget_pays_for(self, shrinker: Shrinker, space: Space) -> None:
        """The oracle behind the counter sees as many architectures as were counted, within the budget."""
        oracle = SyntheticOracle(space)
        _, counted = self.run(shrinker, space, oracle)
        assert len(oracle.asked) == counted.queries <= counted.budget
        assert (counted.queries > 0) == self.asks

    def test_the_same_seed_gives_the_same_members(self, shrinker: Shrinker, space: Space) -> None:
        """In the same order, too."""
        a, b = (self.judged(self.run(shrinker, space, seed=3)[0]) for _ in range(2))
        assert a.shape == b.shape
        assert (a == b).all()

    @pytest.mark.parametrize("parts", [5, 9, 30])
    def test_the_size_is_near_the_target(self, shrinker: Shrinker, space: Space, parts: int) -> None:
        """Within `size_ratio` of it, for targets that the budget reaches."""
        if not self.heeds_target:
            pytest.skip("the method's size comes from elsewhere")
        target = self.whole(space) // parts
        size = self.run(shrinker, space, target=target)[0].size()
        assert max(size / target, target / size) <= self.size_ratio

    def test_the_members_are_better_than_the_space(self, shrinker: Shrinker, space: Space) -> None:
        """On average: higher is better, and the scores are there to be used."""
        if not self.asks:
            pytest.skip("the method knows no scores")
        oracle = SyntheticOracle(space)
        full = oracle(space.all_or_many(np.random.default_rng(8)))
        part, _ = self.run(shrinker, space)
        assert oracle(self.judged(part)).mean() > full.mean() + full.std() / 4

    @pytest.mark.parametrize("budget", [0, 1, 30])
    def test_a_tiny_budget(self, shrinker: Shrinker, space: Space, budget: int) -> None:
        """It gives a space that is what a space must be, or an error that is explained."""
        oracle = SyntheticOracle(space)
        part: Subspace | None = None
        with suppress(LissnasError):
            part, _ = self.run(shrinker, space, oracle, budget)
        assert len(oracle.asked) <= budget
        if part is not None and (budget or part.size()):
            self.check(part, space)

    def test_scores_that_are_all_equal(self, shrinker: Shrinker, space: Space) -> None:
        """They give a space, any space, or an error that is explained."""
        part: Subspace | None = None
        with suppress(LissnasError):
            part, _ = self.run(shrinker, space, lambda archs: np.full(len(archs), 93.1))
        if part is not None:
            self.check(part, space)

    def test_a_score_that_is_no_number(self, shrinker: Shrinker, space: Space) -> None:
        """It is refused by whoever asks for it."""
        if not self.asks:
            pytest.skip("the method knows no scores")
        with pytest.raises(LissnasError, match="nan"):
            self.run(shrinker, space, lambda archs: np.full(len(archs), np.nan))

    @pytest.mark.parametrize("more", [0, 7])
    def test_a_target_as_large_as_the_space(self, shrinker: Shrinker, space: Space, more: int) -> None:
        """It gives at most the space."""
        if space.size() > LISTABLE:
            pytest.skip("so many are never listed")
        part, _ = self.run(shrinker, space, target=space.size() + more)
        assert len(self.check(part, space)) <= space.size()

    def test_a_target_of_one(self, shrinker: Shrinker, space: Space) -> None:
        """It leaves something."""
        part, _ = self.run(shrinker, space, target=1)
        self.check(part, space)

    def test_only_the_order_of_scores_counts(self, shrinker: Shrinker, space: Space) -> None:
        """Scores times eight and a thousand higher give the same members."""
        if not self.rank_based:
            pytest.skip("the method is not rank-based")
        plain, _ = self.run(shrinker, space)
        scaled, _ = self.run(shrinker, space, SyntheticOracle(space, 8.0, 1000.0))
        a, b = self.judged(plain), self.judged(scaled)
        assert a.shape == b.shape
        assert (a == b).all()
