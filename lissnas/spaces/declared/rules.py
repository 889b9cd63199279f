"""The rules of a declaration, evaluated on matrices of rows."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from lissnas.spaces.base import Archs, BoolArray, FloatArray, IntArray
from lissnas.spaces.declared.declaration import Constraint, ProductDeclaration
from lissnas.spaces.declared.fields import Match


class Rules:
    """Active positions, constraints and costs of rows.

    A rule of `inactive` doesn't apply if a position of its `when` is inactive. Constraints ignore inactive
    positions: `ordered` compares the others, `forbid` and `if` don't match, `then` is satisfied. Inactive
    positions cost nothing.
    """

    def __init__(self, declaration: ProductDeclaration) -> None:
        self.declaration = declaration
        self.radix = np.array([len(p.choices) for p in declaration.positions])
        self.constraints = declaration.constraints
        self._ranks = {c: self._rank(c) for c in self.constraints if c.ordered}
        self._scales = {name: cost.scale for name, cost in declaration.costs.items()}
        self._bases = {name: int(Fraction(cost.base) * cost.scale) for name, cost in declaration.costs.items()}
        self._prices = {
            name: {p: np.array([int(Fraction(x) * cost.scale) for x in prices]) for p, prices in cost.by_choice.items()}
            for name, cost in declaration.costs.items()
        }
        self._members: dict[tuple[int, frozenset[int]], BoolArray] = {}

    def active(self, rows: Archs) -> BoolArray:
        """Return an `(n, positions)` mask of the active positions of each row."""
        active = np.ones(rows.shape, bool)
        for rule in self.declaration.inactive:  # in topological order, so that the positions of `when` are final
            off = self._holds(rule.match, rows, active)
            active[:, list(rule.positions)] &= ~off[:, None]
        return active

    def satisfied(self, rows: Archs) -> BoolArray:
        """Return an `(n,)` mask of the rows that satisfy all constraints."""
        ok = np.ones(len(rows), bool)
        if self.constraints:
            active = self.active(rows)
            for constraint in self.constraints:
                ok &= self._satisfies(constraint, rows, active)
        return ok

    def broken(self, rows: Archs) -> list[Constraint | None]:
        """Return the first constraint that each row breaks, None if it satisfies all."""
        active, out = self.active(rows), np.full(len(rows), None, object)
        for constraint in reversed(self.constraints):
            out[~self._satisfies(constraint, rows, active)] = constraint
        return list(out)

    def exact_cost(self, name: str, rows: Archs, active: BoolArray) -> IntArray:
        """Return the `(n,)` costs of rows in units of 1 / scale, which are integers."""
        total = np.full(len(rows), self._bases[name], np.int64)
        for p, prices in self._prices[name].items():
            total += prices[rows[:, p]] * active[:, p]
        return total

    def whole_cost(self, name: str, rows: Archs, active: BoolArray) -> IntArray:
        """Return the `(n,)` costs of rows, rounded to the nearest integer, half up."""
        scale = self._scales[name]
        whole, rest = np.divmod(self.exact_cost(name, rows, active), scale)
        return np.asarray(whole + (rest >= scale - rest))

    def cost(self, name: str, rows: Archs, active: BoolArray) -> FloatArray:
        """Return the `(n,)` costs of rows, not rounded."""
        return self.exact_cost(name, rows, active) / self._scales[name]

    def _holds(self, match: Match, rows: Archs, active: BoolArray) -> BoolArray:
        holds = np.ones(len(rows), bool)
        for p, choices in match:
            holds &= active[:, p] & self._among(p, choices, rows)
        return holds

    def _among(self, p: int, choices: frozenset[int], rows: Archs) -> BoolArray:
        """Return an `(n,)` mask of the rows whose choice at position `p` is one of `choices`."""
        table = self._members.get((p, choices))
        if table is None:
            table = np.zeros(self.radix[p], bool)
            table[list(choices)] = True
            self._members[p, choices] = table
        return np.asarray(table[rows[:, p]])

    def _satisfies(self, constraint: Constraint, rows: Archs, active: BoolArray) -> BoolArray:
        if constraint.forbid:
            return ~self._holds(constraint.forbid, rows, active)
        if constraint.at_most is not None:
            name, value = constraint.at_most.cost, constraint.at_most.value
            limit = math.floor(Fraction(value) * self._scales[name])
            return np.asarray(self.exact_cost(name, rows, active) <= min(limit, 2**62))
        ok = np.ones(len(rows), bool)
        if constraint.if_:
            applies = self._holds(constraint.if_, rows, active)
            for p, choices in constraint.then:
                ok &= ~applies | ~active[:, p] | self._among(p, choices, rows)
            return ok
        highest = np.full(len(rows), -1)
        for p, rank in self._ranks[constraint]:
            here = rank[rows[:, p]]
            ok &= ~active[:, p] | (here >= highest)
            highest = np.where(active[:, p], here, highest)
        return ok

    def _rank(self, constraint: Constraint) -> list[tuple[int, IntArray]]:
        """Return each position with the ranks of its choices among all compared numbers, exact for decimals."""
        positions = self.declaration.positions
        numbers = sorted({n for p in constraint.ordered for n in positions[p].numbers or ()})
        rank = {n: i for i, n in enumerate(numbers)}
        return [(p, np.array([rank[n] for n in positions[p].numbers or ()])) for p in constraint.ordered]
