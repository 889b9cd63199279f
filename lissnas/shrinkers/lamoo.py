"""LaNAS and LaMOO-NAS (Wang et al., 2021; Zhao et al., 2024): a learned partition of the space, searched by UCB."""

from __future__ import annotations

import math

import numpy as np
from numpy.random import Generator

from lissnas.oracles.base import CountedOracle
from lissnas.shrinkers.evaluated import Evaluated
from lissnas.shrinkers.region import walk
from lissnas.spaces import Archs, FloatArray, IntArray, Space
from lissnas.spaces.base import LISTABLE, BoolArray, Features, is_in
from lissnas.spaces.subspace import Subspace

FIRST = 0.1
"""Share of the budget for the uniform sample; .2 is worse on one of three tables."""
ROUNDS = 10
"""Times that the partition is learned; 20 gives the same."""
DRAWS = 0.25
"""Share of a round's queries that is drawn from a leaf at once."""
MAX_DEPTH = 6
"""Splits above a leaf; 4 and 8 give the same."""
MIN_LEAF = 40
"""Minimum number of evaluated architectures in a leaf."""
EXPLORATION = 0.1
"""Weight of the bound in the UCB, for values that are ranks from 0 to 1; .02 and .3 give the same."""
RIDGE = 1e-3
MIN_NEW = 0.25
"""A leaf that gives a smaller share of new architectures is closed until the partition is learned again."""
STEPS = 8
"""Edits of a random walk in a leaf; 20 give the same."""


class Region:
    """A node of the tree: a region of the space, what was evaluated in it, and how it is split in two.

    `members` are indices of evaluated architectures, `ranks` the values of all evaluated ones, 0 to 1.
    """

    def __init__(self, members: IntArray, ranks: FloatArray, parent: Region | None = None, good: bool = True) -> None:
        self.members, self.parent, self.good = members, parent, good
        self.total, self.draws = float(ranks[members].sum()), len(members)
        self.weights, self.threshold = np.empty(0, np.float32), 0.0
        self.children: list[Region] = []
        self.closed = False
        """Whether nothing is left to draw."""
        self.left: IntArray | None = None
        """Rows of a listed space that can be drawn from the region."""

    @classmethod
    def grown(cls, features: Features, ranks: FloatArray) -> Region:
        """Return the root of a tree that is split down to the minimum size or the maximum depth."""
        root = cls(np.arange(len(ranks)), ranks)
        level = [root]
        for _ in range(MAX_DEPTH):
            for region in level:
                region.split(features[region.members], ranks)
            level = [child for region in level for child in region.children]
        return root

    def split(self, features: Features, ranks: FloatArray) -> None:
        """Split in two at the median prediction of a ridge regression, unless it is too small."""
        if len(self.members) < 2 * MIN_LEAF:
            return
        scale = np.maximum(features.std(axis=0), 1e-9)
        x = ((features - features.mean(axis=0)) / scale).astype(np.float64)
        y = ranks[self.members]
        weights = np.linalg.solve(x.T @ x + RIDGE * len(x) * np.eye(x.shape[1]), x.T @ (y - y.mean()))
        self.weights = (weights / scale).astype(np.float32)
        predicted = features @ self.weights
        self.threshold = float(np.median(predicted))
        high = predicted > self.threshold
        if high.any() and not high.all():
            self.children = [Region(self.members[high == good], ranks, self, good) for good in (True, False)]

    def lineage(self) -> list[Region]:
        """Return the regions that it is part of, largest first, itself last."""
        return [*(self.parent.lineage() if self.parent else ()), self]

    def leaf(self) -> Region | None:
        """Return the leaf that is reached by the highest UCB at each split; None if nothing is left to draw."""
        region = self
        while region.children and not region.closed:
            bound = 2 * EXPLORATION * math.sqrt(2 * math.log(region.draws))
            open_ = [child for child in region.children if not child.closed]
            region = max(open_, key=lambda child: child.total / child.draws + bound / math.sqrt(child.draws))
        return None if region.closed else region

    def record(self, ranks: FloatArray) -> None:
        """Add values of architectures drawn from it, here and in all regions that it is part of."""
        for region in self.lineage():
            region.total += float(ranks.sum())
            region.draws += len(ranks)

    def close(self) -> None:
        """Exclude it from further draws."""
        self.closed = True
        if self.parent and all(child.closed for child in self.parent.children):
            self.parent.close()

    def contains(self, features: Features) -> BoolArray:
        """Return an `(n,)` mask of the architectures in it."""
        inside = np.ones(len(features), bool)
        for region in self.lineage()[1:]:
            assert region.parent is not None
            inside &= (features @ region.parent.weights > region.parent.threshold) == region.good
        return inside

    def rows_left(self, features: Features) -> IntArray:
        """Return the rows of a listed space that can be drawn from it, in random order as those of the root are."""
        if self.left is None:
            assert self.parent is not None
            among = self.parent.rows_left(features)
            high = features[among] @ self.parent.weights > self.parent.threshold
            for child in self.parent.children:
                child.left = among[high == child.good]
        assert self.left is not None
        return self.left


def shrink(space: Space, oracle: CountedOracle, target: int, rng: Generator) -> Subspace:
    """Split the space recursively into a good and a bad half by linear regressions, draw from the leaf of highest UCB.

    Published for one objective: LaNAS, linear regressions of the accuracy in a tree of five levels, UCB at each split,
    random draws from the leaf. LaMOO-NAS: support vector machines that separate the better half by dominance, which for
    one objective is the rank. Here, the regressions are of the rank, on the encoding of the space; each splits at the
    median of its region, so that the leaves shrink as the search proceeds; a leaf with nothing left to draw is closed,
    without which a third of the best were missed on TransNAS; and a leaf gives up to a quarter of a round's draws at
    once. In a space too large to list, a leaf is sampled by random walks inside it. The published result is the best
    network; here it is the best of everything evaluated. On the choices alone, edges included, instead of the encoding
    it is faster and slightly worse.
    """
    oracle.need_budget()
    seen = Evaluated(space, oracle, 0, rng)
    seen.add_uniform(max(1, round(FIRST * oracle.budget)), rng)
    listed = space.enumerate() if space.size() <= LISTABLE else np.empty((0, space.genome_len), np.int8)
    features, keys = space.encode(listed), space.key(listed)

    def draw(leaf: Region, n: int) -> Archs:
        if not len(listed):
            start = seen.rows[leaf.members]
            return walk(space, start, lambda rows: leaf.contains(space.encode(rows)), n, STEPS, rng)
        rows = leaf.rows_left(features)
        leaf.left = rows[n:]
        return listed[rows[:n]]

    for rounds in range(ROUNDS, 0, -1):
        known = np.sort(seen.scores)
        root = Region.grown(space.encode(seen.rows), seen.ranks())
        root.left = rng.permutation(np.flatnonzero(~is_in(keys, np.sort(space.key(seen.rows)))))
        portion = -(-oracle.left // rounds)
        at_once = math.ceil(DRAWS * portion)
        while portion > 0 and (leaf := root.leaf()):
            new = seen.add(draw(leaf, at_once))
            if new:
                leaf.record(np.searchsorted(known, seen.scores[-new:]) / len(known))
            if new < MIN_NEW * at_once:
                leaf.close()
            portion -= new
    seen.add_uniform(oracle.left, rng)
    return seen.best(target)
