"""Who answers "how good is it": any callable from architectures to values, higher is better."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from lissnas.core.errors import LissnasError, UserError
from lissnas.spaces import Archs, FloatArray, Keys, Space
from lissnas.spaces.base import is_in

Oracle: TypeAlias = Callable[[Archs], FloatArray]
"""Gives `(n,)` values for `(n, genome_len)` architectures: a table, training, a user's function."""


def ask(oracle: Oracle, space: Space, archs: Archs, may_fail: bool = False) -> FloatArray:
    """Return the oracle's values, checked; raises LissnasError that names the architecture.

    With `may_fail` NaN is an answer too: that of a training that failed.
    """
    values = np.asarray(oracle(archs), np.float64)
    if values.shape != (len(archs),):
        raise LissnasError(f"the oracle gave values of shape {values.shape} for {len(archs)} architectures")
    bad = np.isinf(values) if may_fail else ~np.isfinite(values)
    if bad.any():
        at = int(np.argmax(bad))
        name = space.format(archs[at : at + 1])[0]
        raise LissnasError(
            f"the oracle gave {values[at]} for {name} (and {int(bad.sum()) - 1} more that are not finite); "
            "give failed trainings a low finite value, or leave them out"
        )
    return values


class BudgetSpent(LissnasError):
    """An oracle was asked about more architectures than its budget pays for."""


class CountedOracle:
    """An oracle that counts distinct architectures, answers repeats from memory, and has a budget.

    `left` says how many new architectures may still be asked about; asking about more raises
    BudgetSpent, with nothing asked.
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
        """Distinct architectures asked about so far."""
        return len(self._keys)

    @property
    def left(self) -> int:
        """Distinct architectures that may still be asked about."""
        return self.budget - self.queries

    def __call__(self, archs: Archs) -> FloatArray:
        """Return `(n,)` values; repeats cost nothing."""
        keys = self.space.key(archs)
        distinct, first = np.unique(keys, return_index=True)
        new = first[~is_in(distinct, self._keys)]
        if len(new) > self.left:
            raise BudgetSpent(f"{len(new):,} new architectures asked for, {self.left:,} of {self.budget:,} are left")
        if len(new):
            values = ask(self._oracle, self.space, archs[new])
            self._rows = np.concatenate([self._rows, archs[new]])
            self._keys = np.concatenate([self._keys, keys[new]])
            self._values = np.concatenate([self._values, values])
            order = np.argsort(self._keys)
            self._rows, self._keys, self._values = self._rows[order], self._keys[order], self._values[order]
        return self._values[np.searchsorted(self._keys, keys)]

    def need_budget(self) -> None:
        """Raise UserError when the budget pays for nothing."""
        if self.budget < 1:
            raise UserError(f"a query budget of {self.budget} pays for no architecture")

    def affordable(self, archs: Archs) -> Archs:
        """Return the longest prefix that the budget pays for."""
        keys = self.space.key(archs)
        first = np.zeros(len(archs), bool)
        first[np.unique(keys, return_index=True)[1]] = True
        new = np.cumsum(first & ~is_in(keys, self._keys))
        return archs[new <= self.left]

    def asked(self) -> tuple[Archs, FloatArray]:
        """Return all architectures asked about so far, in the order of keys, and their values."""
        return self._rows, self._values
