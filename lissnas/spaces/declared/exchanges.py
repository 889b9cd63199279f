"""Exchanges of positions: the one form of a network under them, and the nearest form to another's."""

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

MOST_FORMS = 5_040
"""Forms of a network that are tried one by one: seven positions in any order."""

SUBSETS = 1 << 23
"""Sums that an assignment holds in memory at once."""

Permutation: TypeAlias = tuple[int, ...]
"""Which position each position takes its choice from."""


@dataclass(frozen=True)
class Sorted:
    """Groups in any order: sorted, and matched by the cheapest assignment."""

    groups: tuple[tuple[int, ...], ...]

    @property
    def support(self) -> tuple[int, ...]:
        """All positions of the groups."""
        return tuple(p for group in self.groups for p in group)

    def least(self, rows: Archs) -> Archs:
        """Return rows with the groups in ascending order."""
        by_group = rows[:, np.array(self.groups)]  # (n, groups, positions)
        order = np.lexsort(by_group.transpose(2, 0, 1)[::-1], axis=-1)
        out = rows.copy()
        out[:, np.array(self.groups)] = np.take_along_axis(by_group, order[:, :, None], axis=1)
        return out

    def distance(self, a: Archs, b: Archs, seen_a: BoolArray, seen_b: BoolArray) -> IntArray:
        """Return the least cost of an assignment of groups to groups, by subsets of those taken."""
        at, k = np.array(self.groups), len(self.groups)
        most = max(1, SUBSETS >> k)
        if len(a) > most:
            parts = [slice(lo, lo + most) for lo in range(0, len(a), most)]
            return np.concatenate([self.distance(a[c], b[c], seen_a[c], seen_b[c]) for c in parts])
        differ = a[:, at][:, :, None] != b[:, at][:, None]
        cost = (differ & seen_a[:, at][:, :, None] & seen_b[:, at][:, None]).sum(axis=3)
        best = np.zeros((1 << k, len(a)), np.int64)
        for taken in range(1, 1 << k):
            row = taken.bit_count() - 1
            best[taken] = np.min([best[taken ^ (1 << j)] + cost[:, row, j] for j in range(k) if taken >> j & 1], axis=0)
        least: IntArray = best[-1]
        return least

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
    """Exchanges that overlap: every permutation that they generate, one by one."""

    support: tuple[int, ...]
    generated: tuple[Permutation, ...]

    def least(self, rows: Archs) -> Archs:
        """Return the least of the permuted rows, position by position."""
        best = rows
        for permutation in self.generated:
            other = rows[:, permutation]
            best = np.where(_less(other, best)[:, None], other, best)
        return best

    def distance(self, a: Archs, b: Archs, seen_a: BoolArray, seen_b: BoolArray) -> IntArray:
        """Return the fewest differing positions over all permutations."""
        best = np.full(len(a), len(self.support))
        to = list(self.support)
        for permutation in self.generated:
            source = [permutation[p] for p in to]
            differ = (a[:, source] != b[:, to]) & seen_a[:, source] & seen_b[:, to]
            best = np.minimum(best, differ.sum(axis=1))
        return best

    def count(self) -> int:
        """Return the number of permutations."""
        return len(self.generated)

    def permutations(self, length: int) -> list[Permutation]:
        """Return the permutations, which are whole rows long."""
        return list(self.generated)


Part: TypeAlias = Sorted | Listed
"""Exchanges that share positions with each other and with no other exchange."""


class Exchanges:
    """All exchanges of a declaration. Where constraints tell exchanged positions apart, forms that break
    them are passed over: the form that is kept is the least that breaks none.
    """

    def __init__(self, declaration: ProductDeclaration, rules: Rules, source: str) -> None:
        self.source = source
        self.rules = rules
        self.length = len(declaration.positions)
        self.parts: list[Part] = []
        blind: list[Part] = []  # whose positions no constraint tells apart
        sighted: list[Part] = []
        for entries in _overlapping(declaration.exchanges):
            swaps = [swap for entry in entries for swap in _swaps(entry, self.length)]
            broken = next((s for s in swaps if _inactive(declaration, s) != _inactive(declaration, None)), None)
            if broken is not None:
                what = "exchange: the rules of `inactive` must stay the same under the exchange"
                raise problems_in(source, [(entries[0].line, what)])
            part = Sorted(entries[0].groups) if len(entries) == 1 else self._generate(entries, swaps)
            same = all(_constraints(declaration, swap) == _constraints(declaration, None) for swap in swaps)
            self.parts.append(part)
            (blind if same else sighted).append(part)
        self._blind = blind
        self._tried: list[Permutation] = []
        if math.prod(part.count() for part in sighted) > MOST_FORMS:
            what = (
                f"exchange: constraints tell exchanged positions apart, so that more than {MOST_FORMS:,} forms of a "
                "network would have to be tried; make the constraints alike for them, or exchange fewer"
            )
            raise problems_in(source, [(declaration.exchanges[0].line, what)])
        if sighted:
            every = itertools.product(*(part.permutations(self.length) for part in sighted))
            self._tried = [_composed(chosen, self.length) for chosen in every]

    def _generate(self, entries: list[Exchange], swaps: list[Permutation]) -> Listed:
        """Return everything that swaps generate; raises ConfigError if that is too much."""
        found = {tuple(range(self.length))}
        fresh = list(found)
        while fresh and len(found) <= MOST_FORMS:
            fresh = list({_composed((p, swap), self.length) for p in fresh for swap in swaps} - found)
            found.update(fresh)
        if len(found) > MOST_FORMS:
            what = f"exchange: together with others it makes more than {MOST_FORMS:,} forms of a network"
            raise problems_in(self.source, [(entries[-1].line, what)])
        support = sorted({p for entry in entries for group in entry.groups for p in group})
        return Listed(tuple(support), tuple(sorted(found)))

    def count(self) -> int:
        """Return how many permutations all exchanges make together."""
        return math.prod(part.count() for part in self.parts)

    def permutations(self) -> list[Permutation]:
        """Return them all."""
        every = itertools.product(*(part.permutations(self.length) for part in self.parts))
        return [_composed(chosen, self.length) for chosen in every]

    def settle(self, rows: Archs) -> tuple[Archs, BoolArray]:
        """Return the form that is kept of each row's network, and which networks there are at all.

        A network is in the space when one of its forms breaks no constraint.
        """
        best = np.where(self.rules.active(rows), rows, np.int8(0))
        for part in self._blind:
            best = part.least(best)
        ok = self.rules.satisfied(best)
        first = best
        for permutation in self._tried:
            other = first[:, permutation]
            better = self.rules.satisfied(other) & (~ok | _less(other, best))
            best = np.where(better[:, None], other, best)
            ok |= better
        return best, ok

    def distance(self, a: Archs, b: Archs, seen_a: BoolArray, seen_b: BoolArray) -> IntArray:
        """Return the fewest positions that differ between forms of `a` and of `b`, where both are seen."""
        differ = (a != b) & seen_a & seen_b
        for part in self.parts:
            differ[:, list(part.support)] = False
        total: IntArray = differ.sum(axis=1)
        for part in self.parts:
            total = total + part.distance(a, b, seen_a, seen_b)
        return total


def _less(a: Archs, b: Archs) -> BoolArray:
    """Return which rows of `a` come before those of `b`, position by position."""
    differ = a != b
    first = differ.argmax(axis=1)
    at = np.arange(len(a))
    less: BoolArray = a[at, first] < b[at, first]
    return less


def _overlapping(entries: tuple[Exchange, ...]) -> list[list[Exchange]]:
    """Return exchanges in parts that share no position."""
    parts: list[tuple[set[int], list[Exchange]]] = []
    for entry in entries:
        support = {p for group in entry.groups for p in group}
        touched = [part for part in parts if part[0] & support]
        parts = [part for part in parts if not part[0] & support]
        merged = [e for part in touched for e in part[1]]
        parts.append((support.union(*(part[0] for part in touched)), [*merged, entry]))
    return [part[1] for part in parts]


def _swaps(entry: Exchange, length: int) -> list[Permutation]:
    """Return the exchange of each two groups that stand beside each other."""
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
    """Return the rules of `inactive`, one a position, with positions exchanged."""
    to = swap or tuple(range(len(declaration.positions)))
    return {(_moved(rule.match, to), to[p]) for rule in declaration.inactive for p in rule.positions}


def _constraints(declaration: ProductDeclaration, swap: Permutation | None) -> set[object]:
    """Return the constraints with positions exchanged, in a form that can be compared."""
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
