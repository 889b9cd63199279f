"""DDS, designing network design spaces (Radosavovic et al., 2020), without the designer.

A person tries constraints on a space and keeps those that leave its error distribution as good or
better. Here the candidates come from the empirical bootstrap, and two tests decide.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.random import Generator

from lissnas.oracles.base import CountedOracle
from lissnas.shrinkers.pruning import best_first
from lissnas.spaces import Archs, ChoiceSpace, FloatArray, Space
from lissnas.spaces.base import LISTABLE, BoolArray, first_of_each
from lissnas.spaces.subspace import Subspace

SAMPLE = 500
"""Networks that represent a space (published)."""
ROUNDS = 12
RESAMPLES, SHARE = 2_500, 0.05
"""Share of the sample that a resample draws; of .05, .1 and the published .25 the best over five tables."""
COVERAGES = (95, 75, 50, 25)
"""Central percentages of the best one's property that bound the range: 95 as published, less when none will do."""
NOT_WORSE = 0.05
POOL, REJECTED, CHUNK = 50_000, 50, 1 << 16
"""Networks that represent a space too large to list; draws that may be spent on one of them; draws at once."""
REDRAWS = 5
"""How many times the target is drawn for as many different members."""

Allowed = Callable[[int, float, float], bool]
"""Whether a property may be bound to a range, from the least value to the most."""


def shrink(space: Space, oracle: CountedOracle, target: int, rng: Generator) -> Subspace:
    """Bound one property after another to where the best networks are, while that does no harm.

    Properties are costs, how often each choice occurs, and each ordered decision. A round asks about a
    sample of what is left, and for each property takes the range that the best network of a share
    of the sample has in 95 % of 2,500 resamples (in fewer when no range will do). A range is accepted
    when it makes the space smaller and its networks' error distribution is not worse (one-sided
    Kolmogorov-Smirnov); of several, the one with the best mean. It ends when nothing is accepted, or
    with the range that passes the target, widened about its middle to the nearest size.

    A uniform pool represents a space too large to list. The share of it that a range leaves, times the size
    before, is the size. A pool of which fewer than 500 are left is drawn again (`_Region.draw`), so a range is
    accepted only while at least one in 50 draws is kept. The members are `target` networks drawn from what is
    left, or as many different ones as turn up in a few draws each.
    """
    oracle.need_budget()
    listed = space.size() <= LISTABLE
    rounds = ROUNDS if listed else 4 * ROUNDS
    pool = space.enumerate() if listed else space.sample(POOL, rng)
    region, columns, size = _Region(space), properties(space, pool), float(space.size())
    portion = max(SAMPLE, oracle.budget // rounds)

    def drawable(column: int, low: float, high: float) -> bool:
        share = float(((columns[column] >= low) & (columns[column] <= high)).mean())
        return share > 0 and REJECTED * share * size >= region.bound(column, low, high).product()[0]

    for _ in range(4 * rounds):
        if size <= target:
            break
        if len(pool) < min(SAMPLE, size):
            pool, share = region.draw(POOL, rng)
            if not len(pool):
                break
            columns, size = properties(space, pool), share * region.product()[0]
        if oracle.left:
            oracle(oracle.affordable(pool[rng.permutation(len(pool))[:portion]]))
        known, values = oracle.queried()
        inside = region.holds(known)
        known_columns, values = properties(space, known[inside]), values[inside]
        chosen = _accepted(known_columns, values, rng, None if listed else drawable) if len(values) else None
        if chosen is None:
            break
        column, low, high = chosen
        own, weight = columns[column], size / len(pool)
        held = (own >= low) & (own <= high)
        passed = held.sum() * weight < target
        if passed:
            held = _nearest(own, (low, high), target / weight)
            low, high = float(own[held].min()), float(own[held].max())
        region, pool, columns, size = region.bound(column, low, high), pool[held], columns[:, held], held.sum() * weight
        if passed:
            break
    return Subspace(space, pool if listed else _members(region, target, rng))


def _members(region: _Region, target: int, rng: Generator) -> Archs:
    """Return `target` different networks drawn from a region, fewer if few draws give them."""
    rows = np.empty((0, region.space.genome_len), np.int8)
    for _ in range(REDRAWS):
        rows = np.concatenate([rows, region.draw(target, rng)[0]])
        rows = rows[first_of_each(region.space.key(rows))]
        if len(rows) >= target:
            break
    return rows[:target]


def properties(space: Space, rows: Archs) -> FloatArray:
    """Return `(n_properties, n)`: costs, the count of each choice, and the choice of each decision."""
    number = _properties_of(space, rows)
    n = _first_decision(space) + len(space.slot_choices)
    return np.stack([number(i) for i in range(n)])


def _first_decision(space: Space) -> int:
    """Return the number of the first property that is the choice of a decision."""
    return len(space.cost_names) + max(space.slot_choices) + 1


def _properties_of(space: Space, rows: Archs) -> Callable[[int], FloatArray]:
    """Return a function that gives the values of a property by its number."""
    slots, costs, n_choices = space.slots(rows), [*space.costs(rows).values()], max(space.slot_choices)

    def number(i: int) -> FloatArray:
        choice = i - len(costs)
        if choice < 0:
            return np.asarray(costs[i], np.float64)
        if choice < n_choices:
            return np.asarray((slots == choice).sum(axis=1), np.float64)
        if choice == n_choices:
            return np.asarray((slots >= 0).sum(axis=1), np.float64)
        return slots[:, choice - n_choices - 1].astype(np.float64)

    return number


def _accepted(
    columns: FloatArray, values: FloatArray, rng: Generator, may: Allowed | None
) -> tuple[int, float, float] | None:
    """Return the best range that is accepted, of the largest coverage that gives one; None if none does."""
    return next(filter(None, (_best_range(columns, values, c, rng, may) for c in COVERAGES)), None)


def _best_range(
    columns: FloatArray, values: FloatArray, coverage: float, rng: Generator, may: Allowed | None
) -> tuple[int, float, float] | None:
    """Return the accepted range with the best mean, as property, least and most; None if there is none."""
    draws = rng.integers(0, len(values), (RESAMPLES, max(1, round(SHARE * len(values)))))
    winners = draws[np.arange(RESAMPLES), values[draws].argmax(axis=1)]
    best: tuple[float, int, float, float] | None = None
    for i, own in enumerate(columns):
        low, high = np.percentile(own[winners], [(100 - coverage) / 2, (100 + coverage) / 2])
        held = (own >= low) & (own <= high)
        if held.all() or not held.any() or (may is not None and not may(i, float(low), float(high))):
            continue
        mean = float(values[held].mean())
        if mean < values.mean() or (best is not None and mean <= best[0]):
            continue
        from scipy.stats import ks_2samp  # takes longer to import than a small shrink

        # `greater`: the restricted values' distribution function lies above, so they are worse.
        worse = ks_2samp(values[held], values, alternative="greater", method="asymp").pvalue
        if worse >= NOT_WORSE:
            best = (mean, i, float(low), float(high))
    return best[1:] if best else None


def _nearest(own: FloatArray, bounds: tuple[float, float], target: float) -> BoolArray:
    """Return what lies in the range, once it is widened about its middle to the size nearest to `target`."""
    distance = np.abs(own - sum(bounds) / 2)
    limits = np.unique(distance)
    sizes = np.searchsorted(np.sort(distance), limits, side="right")
    limit = limits[best_first(-np.abs(np.log(sizes / target)), 1)[0]]
    return np.asarray(distance <= limit)


@dataclass(frozen=True)
class _Region:
    """The networks of a space whose properties lie in ranges: property, least, most."""

    space: Space
    ranges: tuple[tuple[int, float, float], ...] = ()

    def bound(self, column: int, low: float, high: float) -> _Region:
        return replace(self, ranges=(*self.ranges, (column, low, high)))

    def holds(self, rows: Archs) -> BoolArray:
        """Return which rows lie in the ranges."""
        number, held = _properties_of(self.space, rows), np.ones(len(rows), bool)
        for column, low, high in self.ranges:
            own = number(column)
            held &= (own >= low) & (own <= high)
        return held

    def product(self) -> tuple[int, Callable[[Generator], Archs]]:
        """Return the size of the product of the choices that ranges of decisions leave, and what draws from it.

        If products can't be counted, they are those of the whole space.
        """
        allowed = self.space.possible()
        choice = np.arange(allowed.shape[1])
        first = _first_decision(self.space)
        for column, low, high in self.ranges:
            if column >= first:
                allowed[column - first] &= (choice >= low) & (choice <= high)
        if isinstance(self.space, ChoiceSpace) and (counted := self.space.count_product(allowed)) is not None:
            return counted, partial(self.space.sample_product, allowed, CHUNK)
        return self.space.size(), partial(self.space.sample, CHUNK)

    def draw(self, n: int, rng: Generator) -> tuple[Archs, float]:
        """Draw `n` members, uniform, fewer if 50 n draws don't give them; and the share of draws that are."""
        _, sample = self.product()
        parts, found, drawn = [np.empty((0, self.space.genome_len), np.int8)], 0, 0
        while found < n and drawn < REJECTED * n + CHUNK:
            rows = sample(rng)
            parts.append(rows[self.holds(rows)])
            found, drawn = found + len(parts[-1]), drawn + CHUNK
        return np.concatenate(parts)[:n], found / max(1, drawn)
