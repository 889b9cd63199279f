"""DDS, designing network design spaces (Radosavovic et al., 2020), without the designer.

A person tries constraints on a space and keeps those that leave its error distribution as good or
better. Here the candidates come from the empirical bootstrap, and two tests decide.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator

from lissnas.oracles.base import CountedOracle
from lissnas.shrinkers.pruning import best_first
from lissnas.spaces import Archs, ChoiceSpace, FloatArray, IntArray, Space
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
"""Networks that stand for a space too large to list; draws that may be spent on one of them; draws at once."""
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

    For a space too large to list see `_shrink_by_pools`.
    """
    oracle.need_budget()
    if space.size() > LISTABLE:
        return _shrink_by_pools(space, oracle, target, rng)
    rows = space.enumerate()
    keys, columns = space.key(rows), properties(space, rows)
    columns = columns[np.ptp(columns, axis=1) > 0]
    inside = np.ones(len(rows), bool)
    portion = max(SAMPLE, oracle.budget // ROUNDS)
    for _ in range(4 * ROUNDS):
        if inside.sum() <= target:
            break
        at = np.flatnonzero(inside)
        if oracle.left:
            oracle(oracle.affordable(rows[rng.permutation(at)[:portion]]))
        known, values = oracle.asked()
        place = np.searchsorted(keys, space.key(known))
        still = inside[place]
        place, values = place[still], values[still]
        chosen = _accepted(columns, place, values, rng)
        if chosen is None:
            break
        column, low, high = chosen
        smaller = inside & (columns[column] >= low) & (columns[column] <= high)
        if smaller.sum() < target:
            inside[at] = _nearest(columns[column][at], (low, high), target)
            break
        inside = smaller
    return Subspace(space, rows[inside])


def properties(space: Space, rows: Archs) -> FloatArray:
    """Return `(n_properties, n)`: costs, the count of each choice, and the choice of each decision."""
    number = _properties_of(space, rows)
    n = len(space.cost_names) + max(space.slot_choices) + 1 + len(space.slot_choices)
    return np.stack([number(i) for i in range(n)])


def _properties_of(space: Space, rows: Archs) -> Callable[[int], FloatArray]:
    """Return who gives the values of a property by its number."""
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
    columns: FloatArray, place: IntArray, values: FloatArray, rng: Generator, may: Allowed | None = None
) -> tuple[int, float, float] | None:
    """Return the best range that is accepted, of the largest coverage that gives one; None if none does."""
    return next(filter(None, (_best_range(columns, place, values, c, rng, may) for c in COVERAGES)), None)


def _best_range(
    columns: FloatArray,
    place: IntArray,
    values: FloatArray,
    coverage: float,
    rng: Generator,
    may: Allowed | None = None,
) -> tuple[int, float, float] | None:
    """Return the accepted range with the best mean, as property, least and most; None if there is none."""
    draws = rng.integers(0, len(values), (RESAMPLES, max(1, round(SHARE * len(values)))))
    winners = draws[np.arange(RESAMPLES), values[draws].argmax(axis=1)]
    best: tuple[float, int, float, float] | None = None
    for i, column in enumerate(columns):
        own = column[place]
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


# -- spaces too large to list ------------------------------------------------------------------------
@dataclass(frozen=True)
class _Region:
    """The networks of a space whose properties lie in ranges: property, least, most."""

    space: Space
    n_properties: int
    ranges: tuple[tuple[int, float, float], ...] = ()

    def bound(self, column: int, low: float, high: float) -> _Region:
        return replace(self, ranges=(*self.ranges, (column, low, high)))

    @property
    def product(self) -> BoolArray:
        """The choices that the ranges of decisions leave."""
        allowed = self.space.possible()
        choice = np.arange(allowed.shape[1])
        first = self.n_properties - len(allowed)
        for column, low, high in self.ranges:
            if column >= first:
                allowed[column - first] &= (choice >= low) & (choice <= high)
        return allowed

    @property
    def whole(self) -> int:
        """How many networks draws come from: those of the product, where they can be counted, or all."""
        counted = self.space.count_product(self.product) if isinstance(self.space, ChoiceSpace) else None
        return self.space.size() if counted is None else counted

    def draw(self, n: int, rng: Generator) -> tuple[Archs, float]:
        """Draw `n` members, uniform, fewer where 50 n draws don't give them; and the share of draws that are."""
        product = self.product
        counted = isinstance(self.space, ChoiceSpace) and self.space.count_product(product) is not None
        parts, found, drawn = [np.empty((0, self.space.genome_len), np.int8)], 0, 0
        while found < n and drawn < REJECTED * n + CHUNK:
            if counted:
                assert isinstance(self.space, ChoiceSpace)
                rows = self.space.sample_product(product, CHUNK, rng)
            else:
                rows = self.space.sample(CHUNK, rng)
            number = _properties_of(self.space, rows)
            held = np.ones(len(rows), bool)
            for column, low, high in self.ranges:
                own = number(column)
                held &= (own >= low) & (own <= high)
            rows = rows[held]
            parts.append(rows)
            found, drawn = found + len(rows), drawn + CHUNK
        return np.concatenate(parts)[:n], found / max(1, drawn)


def _shrink_by_pools(space: Space, oracle: CountedOracle, target: int, rng: Generator) -> Subspace:
    """Bound properties as `shrink` does, a uniform pool standing for what is left of a space.

    The share of a pool that a range leaves, times the size before, is the size. A pool of which fewer than
    500 are left is drawn anew: from the product of the choices that the decisions' ranges leave, where
    that can be counted, and by rejection from there. So a range is accepted only while at least one in
    50 draws is kept; a space whose products can't be counted shrinks no further than that. The members are
    `target` networks drawn from what is left, or as many different ones as turn up in a few draws each.
    """
    n_rounds = 4 * ROUNDS
    pool = space.sample(POOL, rng)
    columns = properties(space, pool)
    region, size = _Region(space, len(columns)), float(space.size())
    asked = np.zeros(len(pool), bool)
    known, values = columns[:, :0], np.empty(0)
    portion = max(SAMPLE, oracle.budget // n_rounds)
    done = False

    def drawable(column: int, low: float, high: float) -> bool:
        share = float(((columns[column] >= low) & (columns[column] <= high)).mean())
        return share > 0 and REJECTED * share * size >= region.bound(column, low, high).whole

    for _ in range(4 * n_rounds):
        if done or size <= target:
            break
        if len(pool) < SAMPLE:
            pool, share = region.draw(POOL, rng)
            if not len(pool):
                break
            columns, size, asked = properties(space, pool), share * region.whole, np.zeros(len(pool), bool)
        if oracle.left:
            new = rng.permutation(np.flatnonzero(~asked))[:portion]
            new = new[: len(oracle.affordable(pool[new]))]
            values = np.concatenate([values, oracle(pool[new])])
            known = np.concatenate([known, columns[:, new]], axis=1)
            asked[new] = True
        chosen = _accepted(known, np.arange(len(values)), values, rng, drawable) if len(values) else None
        if chosen is None:
            break
        column, low, high = chosen
        own = columns[column]
        held = (own >= low) & (own <= high)
        if size * held.mean() < target:
            held = _nearest(own, (low, high), target / size * len(pool))
            low, high, done = float(own[held].min()), float(own[held].max()), True
        region, size = region.bound(column, low, high), size * float(held.mean())
        pool, columns, asked = pool[held], columns[:, held], asked[held]
        still = (known[column] >= low) & (known[column] <= high)
        known, values = known[:, still], values[still]

    rows = pool[:0]
    for _ in range(REDRAWS):
        rows = np.concatenate([rows, region.draw(target, rng)[0]])
        rows = rows[first_of_each(space.key(rows))]
        if len(rows) >= target:
            break
    return Subspace(space, rows[:target])
