"""Exchanges of positions: the canonical form of a network under them, and the distance of two networks."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from lissnas.spaces.base import Archs, BoolArray, IntArray
from lissnas.spaces.declared.declaration import Exchange, ProductDeclaration
from lissnas.spaces.declared.fields import Match
from lissnas.spaces.declared.rules import Rules
from lissnas.spaces.declared.yaml import problems_in

MAX_FORMS = 5_040
"""Forms of a network that are tried one by one: 7!, all orders of seven positions."""

SUBSETS = 1 << 23
"""Partial sums that solving an assignment holds in memory at once."""

Permutation: TypeAlias = tuple[int, ...]
"""For each position the position that it takes its choice from."""


@dataclass(frozen=True)
class Sorted:
    """Groups that can be in any order: sorted for the canonical form, matched by minimum-cost assignment."""

    groups: tuple[tuple[int, ...], ...]

    @property
    def support(self) -> tuple[int, ...]:
        """All positions of the groups."""
        return tuple(p for group in self.groups for p in group)

    def canonicalize(self, rows: Archs) -> Archs:
        """Return rows with the groups in ascending order."""
        by_group = rows[:, np.array(self.groups)]  # (n, groups, positions)
        order = np.lexsort(by_group.transpose(2, 0, 1)[::-1], axis=-1)
        out = rows.copy()
        out[:, np.array(self.groups)] = np.take_along_axis(by_group, order[:, :, None], axis=1)
        return out

    def distance(self, a: Archs, b: Archs, active_a: BoolArray, active_b: BoolArray) -> IntArray:
        """Return the `(n,)` minimum costs of assigning groups to groups, by dynamic programming over subsets."""
        at, k = np.array(self.groups), len(self.groups)
        at_once = max(1, SUBSETS >> k)
        if len(a) > at_once:
            parts = [slice(lo, lo + at_once) for lo in range(0, len(a), at_once)]
            return np.concatenate([self.distance(a[c], b[c], active_a[c], active_b[c]) for c in parts])
        differ = a[:, at][:, :, None] != b[:, at][:, None]
        cost = (differ & active_a[:, at][:, :, None] & active_b[:, at][:, None]).sum(axis=3)
        best = np.zeros((1 << k, len(a)), np.int64)
        for taken in range(1, 1 << k):
            row = taken.bit_count() - 1
            best[taken] = np.min([best[taken ^ (1 << j)] + cost[:, row, j] for j in range(k) if taken >> j & 1], axis=0)
        return np.asarray(best[-1])

    def count(self) -> int:
        """Return the number of orders."""
        return math.factorial(len(self.groups))

    def permutations(self, length: int) -> list[Permutation]:
        """Return all orders of the groups."""
        out = []
        for order in itertools.permutations(self.groups):
            row = list(range(length))
            for to, source in zip(self.groups, order, strict=True):
                for p, q in zip(to, source, strict=True):
                    row[p] = q
            out.append(tuple(row))
        return out


@dataclass(frozen=True)
class Listed:
    """Overlapping exchanges: all permutations that they generate are tried one by one."""

    support: tuple[int, ...]
    generated: tuple[Permutation, ...]

    def canonicalize(self, rows: Archs) -> Archs:
        """Return the lexicographic minimum of the permuted rows."""
        best = rows
        for permutation in self.generated:
            other = rows[:, permutation]
            best = np.where(_less(other, best)[:, None], other, best)
        return best

    def distance(self, a: Archs, b: Archs, active_a: BoolArray, active_b: BoolArray) -> IntArray:
        """Return the `(n,)` minimum numbers of differing positions over all permutations."""
        best = np.full(len(a), len(self.support))
        to = list(self.support)
        for permutation in self.generated:
            source = [permutation[p] for p in to]
            differ = (a[:, source] != b[:, to]) & active_a[:, source] & active_b[:, to]
            best = np.minimum(best, differ.sum(axis=1))
        return best

    def count(self) -> int:
        """Return the number of permutations."""
        return len(self.generated)

    def permutations(self, length: int) -> list[Permutation]:
        """Return all generated permutations; they have the length of a row."""
        return list(self.generated)


Part: TypeAlias = Sorted | Listed
"""A connected set of exchanges, which share positions."""


class Exchanges:
    """All exchanges of a declaration; of the forms of a network, the canonical one is the minimum valid one."""

    def __init__(self, declaration: ProductDeclaration, rules: Rules, source: str) -> None:
        self.source = source
        self.rules = rules
        self.length = len(declaration.positions)
        self.parts: list[Part] = []
        symmetric: list[Part] = []  # all constraints are the same after an exchange
        asymmetric: list[Part] = []
        for entries in _overlapping(declaration.exchanges):
            swaps = [swap for entry in entries for swap in _swaps(entry, self.length)]
            broken = next((s for s in swaps if _inactive(declaration, s) != _inactive(declaration, None)), None)
            if broken is not None:
                what = "exchange: the rules of `inactive` must stay the same under the exchange"
                raise problems_in(source, [(entries[0].line, what)])
            part = Sorted(entries[0].groups) if len(entries) == 1 else self._generate(entries, swaps)
            same = all(_constraints(declaration, swap) == _constraints(declaration, None) for swap in swaps)
            self.parts.append(part)
            (symmetric if same else asymmetric).append(part)
        self._symmetric = symmetric
        self._tried: list[Permutation] = []
        if math.prod(part.count() for part in asymmetric) > MAX_FORMS:
            what = (
                f"exchange: constraints differ between exchanged positions, so that more than {MAX_FORMS:,} forms of a "
                "network would have to be tried; put the same constraints on them, or exchange fewer"
            )
            raise problems_in(source, [(declaration.exchanges[0].line, what)])
        if asymmetric:
            every = itertools.product(*(part.permutations(self.length) for part in asymmetric))
            self._tried = [_composed(chosen, self.length) for chosen in every]

    def _generate(self, entries: list[Exchange], swaps: list[Permutation]) -> Listed:
        """Return all permutations that swaps generate; raises ConfigError if there are too many."""
        found = {tuple(range(self.length))}
        new = list(found)
        while new and len(found) <= MAX_FORMS:
            new = list({_composed((p, swap), self.length) for p in new for swap in swaps} - found)
            found.update(new)
        if len(found) > MAX_FORMS:
            what = f"exchange: together with others it makes more than {MAX_FORMS:,} forms of a network"
            raise problems_in(self.source, [(entries[-1].line, what)])
        support = sorted({p for entry in entries for group in entry.groups for p in group})
        return Listed(tuple(support), tuple(sorted(found)))

    def count(self) -> int:
        """Return the number of permutations that all exchanges generate."""
        return math.prod(part.count() for part in self.parts)

    def permutations(self) -> list[Permutation]:
        """Return all permutations that the exchanges generate."""
        every = itertools.product(*(part.permutations(self.length) for part in self.parts))
        return [_composed(chosen, self.length) for chosen in every]

    def canonicalize(self, rows: Archs) -> tuple[Archs, BoolArray]:
        """Return the canonical form of each row's network, and an `(n,)` mask of the valid networks.

        A network is valid if one of its forms satisfies all constraints.
        """
        best = np.where(self.rules.active(rows), rows, np.int8(0))
        for part in self._symmetric:
            best = part.canonicalize(best)
        ok = self.rules.satisfied(best)
        first = best
        for permutation in self._tried:
            other = first[:, permutation]
            better = self.rules.satisfied(other) & (~ok | _less(other, best))
            best = np.where(better[:, None], other, best)
            ok |= better
        return best, ok

    def distance(self, a: Archs, b: Archs, active_a: BoolArray, active_b: BoolArray) -> IntArray:
        """Return the `(n,)` minimum numbers of differing positions, active in both, over all forms of `a` and `b`."""
        differ = (a != b) & active_a & active_b
        for part in self.parts:
            differ[:, list(part.support)] = False
        total: IntArray = differ.sum(axis=1)
        for part in self.parts:
            total = total + part.distance(a, b, active_a, active_b)
        return total


def _less(a: Archs, b: Archs) -> BoolArray:
    """Return an `(n,)` mask of the rows of `a` that are lexicographically less than those of `b`."""
    differ = a != b
    first = differ.argmax(axis=1)
    at = np.arange(len(a))
    return np.asarray(a[at, first] < b[at, first])


def _overlapping(entries: tuple[Exchange, ...]) -> list[list[Exchange]]:
    """Return the exchanges grouped into parts that share no position."""
    parts: list[tuple[set[int], list[Exchange]]] = []
    for entry in entries:
        support = {p for group in entry.groups for p in group}
        touched = [part for part in parts if part[0] & support]
        parts = [part for part in parts if not part[0] & support]
        merged = [e for part in touched for e in part[1]]
        parts.append((support.union(*(part[0] for part in touched)), [*merged, entry]))
    return [part[1] for part in parts]


def _swaps(entry: Exchange, length: int) -> list[Permutation]:
    """Return the permutations that exchange adjacent groups."""
    out = []
    for a, b in itertools.pairwise(entry.groups):
        row = list(range(length))
        for p, q in zip(a, b, strict=True):
            row[p], row[q] = q, p
        out.append(tuple(row))
    return out


def _composed(permutations: tuple[Permutation, ...], length: int) -> Permutation:
    row = tuple(range(length))
    for permutation in permutations:
        row = tuple(row[p] for p in permutation)
    return row


def _moved(match: Match, swap: Permutation) -> Match:
    return tuple(sorted((swap[p], choices) for p, choices in match))


def _inactive(declaration: ProductDeclaration, swap: Permutation | None) -> set[tuple[Match, int]]:
    """Return the rules of `inactive`, one for each position, with positions exchanged."""
    to = swap or tuple(range(len(declaration.positions)))
    return {(_moved(rule.match, to), to[p]) for rule in declaration.inactive for p in rule.positions}


def _constraints(declaration: ProductDeclaration, swap: Permutation | None) -> set[object]:
    """Return the constraints with positions exchanged, as comparable values."""
    to = swap or tuple(range(len(declaration.positions)))
    out: set[object] = set()
    for c in declaration.constraints:
        if c.forbid:
            out.add(("forbid", _moved(c.forbid, to)))
        elif c.if_:
            out |= {("if", _moved(c.if_, to), _moved((then,), to)) for then in c.then}
        elif c.at_most is not None:
            prices = declaration.costs[c.at_most.cost].by_choice
            paid = frozenset((to[p], prices[p]) for p in prices if any(prices[p]))
            out.add(("at_most", c.at_most.cost, c.at_most.value, paid))
        else:
            out.add(("ordered", tuple(to[p] for p in c.ordered)))
    return out
