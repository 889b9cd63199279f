"""The architectures that a rival has evaluated: scores, strata, the best of them."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from lissnas.oracles.base import CountedOracle
from lissnas.shrinkers.selection import Strata, select_top
from lissnas.spaces import Archs, FloatArray, IntArray, Keys, Space
from lissnas.spaces.base import BoolArray, first_of_each, is_in
from lissnas.spaces.subspace import Subspace


class Evaluated:
    """Distinct architectures in order of evaluation, with their scores.

    `expanded` marks those whose neighbors were drawn. With `diversity` above 0, `top` has the same quota as our
    method: strata of FLOPs, or of clusters of the encoding if FLOPs are unknown.
    """

    def __init__(self, space: Space, oracle: CountedOracle, diversity: float, rng: Generator) -> None:
        self.space, self.oracle, self.diversity = space, oracle, diversity
        self.rows: Archs = np.empty((0, space.genome_len), np.int8)
        self.scores: FloatArray = np.empty(0)
        self.expanded: BoolArray = np.empty(0, bool)
        self._stratum: IntArray = np.empty(0, np.int64)
        self._keys: Keys = np.empty(0, np.uint64)
        self._strata: Strata | None = None
        if diversity > 0:
            self._strata, _ = Strata.sampled(space, rng)

    def add(self, rows: Archs) -> int:
        """Evaluate the new ones of `rows`, as far as the budget allows; return their number."""
        keys = self.space.key(rows)
        first = first_of_each(keys)
        first = first[~is_in(keys[first], self._keys)]
        new = self.oracle.affordable(rows[first])
        if not len(new):
            return 0
        self._keys = np.sort(np.concatenate([self._keys, keys[first[: len(new)]]]))
        self.rows = np.concatenate([self.rows, new])
        self.scores = np.concatenate([self.scores, self.oracle(new)])
        self.expanded = np.concatenate([self.expanded, np.zeros(len(new), bool)])
        stratum = np.zeros(len(new), np.int64) if self._strata is None else self._strata.of_each(self.space, new)
        self._stratum = np.concatenate([self._stratum, stratum])
        return len(new)

    def add_uniform(self, n: int, rng: Generator) -> None:
        """Evaluate `n` new uniform architectures, or as many as there are within the budget."""
        n = min(n, self.oracle.left, self.space.size() - len(self.rows))
        if n > 0:
            self.add(self.space.sample_distinct(n, rng, without=self._keys))

    def top(self, k: int) -> IntArray:
        """Return the indices of the best `k`, best first."""
        weight = np.ones(1) if self._strata is None else self._strata.weight
        return select_top(self.scores, self._stratum, weight, k, self.diversity)

    def ranks(self) -> FloatArray:
        """Return `(n,)` ranks of the scores, from 0 for the lowest to below 1; ties by index."""
        out = np.empty(len(self.scores))
        out[np.argsort(self.scores, kind="stable")] = np.arange(len(out)) / max(1, len(out))
        return out

    def best(self, target: int) -> Subspace:
        """Return the best `target` as a set."""
        return Subspace(self.space, self.rows[self.top(target)])
