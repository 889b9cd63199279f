"""Oracles: callables from architectures to values, higher is better."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from lissnas.core.errors import LissnasError, UserError
from lissnas.spaces import Archs, FloatArray, Keys, Space
from lissnas.spaces.base import is_in

Oracle: TypeAlias = Callable[[Archs], FloatArray]
"""Returns `(n,)` values of `(n, genome_len)` architectures: a table, a training, a user-defined function."""


def evaluate(oracle: Oracle, space: Space, archs: Archs, may_fail: bool = False) -> FloatArray:
    """Return the oracle's values after checking shape and finiteness; raises LissnasError.

    `may_fail` allows NaN, the value of a failed training.
    """
    values = np.asarray(oracle(archs), np.float64)
    if values.shape != (len(archs),):
        raise LissnasError(f"the oracle returned values of shape {values.shape} for {len(archs)} architectures")
    bad = np.isinf(values) if may_fail else ~np.isfinite(values)
    if bad.any():
        at = int(np.argmax(bad))
        name = space.format(archs[at : at + 1])[0]
        raise LissnasError(
            f"the oracle returned {values[at]} for {name} (and {int(bad.sum()) - 1} more that are not finite). "
            "Return a low finite value for failed trainings, or leave them out."
        )
    return values


class BudgetExceeded(LissnasError):
    """More architectures were queried than the budget allows."""


class CountedOracle:
    """An oracle with a query budget; it counts distinct architectures and caches their values.

    `left` is the remaining budget; a call with more new architectures raises BudgetExceeded before any query.
    """

    def __init__(self, oracle: Oracle, space: Space, budget: int) -> None:
        self.space = space
        self.budget = budget
        self._oracle = oracle
        self._keys: Keys = np.empty(0, np.uint64)
        self._values: FloatArray = np.empty(0)
        self._rows: Archs = np.empty((0, space.genome_len), np.int8)

    @property
    def queries(self) -> int:
        """Distinct architectures queried so far."""
        return len(self._keys)

    @property
    def left(self) -> int:
        """Distinct architectures that can still be queried."""
        return self.budget - self.queries

    def __call__(self, archs: Archs) -> FloatArray:
        """Return `(n,)` values; repeats are free."""
        keys = self.space.key(archs)
        distinct, first = np.unique(keys, return_index=True)
        new = first[~is_in(distinct, self._keys)]
        if len(new) > self.left:
            raise BudgetExceeded(f"{len(new):,} new architectures queried, {self.left:,} of {self.budget:,} are left")
        if len(new):
            values = evaluate(self._oracle, self.space, archs[new])
            self._rows = np.concatenate([self._rows, archs[new]])
            self._keys = np.concatenate([self._keys, keys[new]])
            self._values = np.concatenate([self._values, values])
            order = np.argsort(self._keys)
            self._rows, self._keys, self._values = self._rows[order], self._keys[order], self._values[order]
        return self._values[np.searchsorted(self._keys, keys)]

    def need_budget(self) -> None:
        """Raise UserError if the budget is below 1."""
        if self.budget < 1:
            raise UserError(f"query budget {self.budget} is too small; expected at least 1")

    def affordable(self, archs: Archs) -> Archs:
        """Return the longest prefix within the remaining budget."""
        keys = self.space.key(archs)
        first = np.zeros(len(archs), bool)
        first[np.unique(keys, return_index=True)[1]] = True
        new = np.cumsum(first & ~is_in(keys, self._keys))
        return archs[new <= self.left]

    def queried(self) -> tuple[Archs, FloatArray]:
        """Return all architectures queried so far, sorted by key, and their values."""
        return self._rows, self._values
