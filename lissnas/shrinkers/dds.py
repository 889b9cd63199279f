"""DDS, designing network design spaces (Radosavovic et al., 2020), automated.

In the original, a person tries constraints on a space and keeps those that do not worsen its error distribution.
Here, candidates come from the empirical bootstrap, and two tests decide.
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
"""Architectures that represent a space (published)."""
ROUNDS = 12
RESAMPLES = 2_500
SHARE = 0.05
"""Share of the sample in a resample; of .05, .1 and the published .25 the best over five tables."""
COVERAGES = (95, 75, 50, 25)
"""Central percentages of the winners' property that bound the range: 95 as published, fewer if no range is accepted."""
ALPHA = 0.05
"""Significance level at which a range is rejected as worse."""
POOL = 50_000
"""Architectures that represent a space too large to list."""
MAX_DRAWS = 50  # per architecture of the pool
CHUNK = 1 << 16  # architectures drawn per batch
REDRAWS = 5
"""Maximum batches of `target` draws to obtain `target` distinct members."""

Allowed = Callable[[int, float, float], bool]
"""Returns whether a property may be bounded to a range: property, minimum, maximum."""


def shrink(space: Space, oracle: CountedOracle, target: int, rng: Generator) -> Subspace:
    """Bound one property after another to the range of the best architectures while the distribution is not worse.

    Properties are costs, the count of each choice, and each ordered decision. A round evaluates a sample of the
    remaining space. The candidate range of a property is that of the best architecture of a resample in 95 % of 2,500
    resamples (fewer if no range is accepted). A range is accepted if it reduces the space and its error distribution
    is not worse (one-sided Kolmogorov-Smirnov test); of several, the one with the best mean. Stops if no range is
    accepted, or with the range that passes the target, widened about its middle to the nearest size.

    A uniform pool represents a space too large to list; its size is estimated from the share of the pool in the range.
    A pool with fewer than 500 members left is redrawn (`_Region.draw`), so a range is accepted only if at least one in
    50 draws is kept. The members are `target` distinct architectures drawn from the region, or fewer if a few times as
    many draws do not contain them.
    """
    oracle.need_budget()
    listed = space.size() <= LISTABLE
    rounds = ROUNDS if listed else 4 * ROUNDS
    pool = space.enumerate() if listed else space.sample(POOL, rng)
    region, columns, size = _Region(space), properties(space, pool), float(space.size())
    portion = max(SAMPLE, oracle.budget // rounds)

    def drawable(column: int, low: float, high: float) -> bool:
        share = float(((columns[column] >= low) & (columns[column] <= high)).mean())
        return share > 0 and MAX_DRAWS * share * size >= region.bound(column, low, high).product()[0]

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
        inside = region.contains(known)
        known_columns, values = properties(space, known[inside]), values[inside]
        chosen = _accepted(known_columns, values, rng, None if listed else drawable) if len(values) else None
        if chosen is None:
            break
        column, low, high = chosen
        values_of, weight = columns[column], size / len(pool)
        mask = (values_of >= low) & (values_of <= high)
        passed = mask.sum() * weight < target
        if passed:
            mask = _nearest(values_of, (low, high), target / weight)
            low, high = float(values_of[mask].min()), float(values_of[mask].max())
        region, pool, columns, size = region.bound(column, low, high), pool[mask], columns[:, mask], mask.sum() * weight
        if passed:
            break
    return Subspace(space, pool if listed else _members(region, target, rng))


def _members(region: _Region, target: int, rng: Generator) -> Archs:
    """Return `target` distinct architectures drawn from a region, or fewer if the draws do not contain them."""
    rows = np.empty((0, region.space.genome_len), np.int8)
    for _ in range(REDRAWS):
        rows = np.concatenate([rows, region.draw(target, rng)[0]])
        rows = rows[first_of_each(region.space.key(rows))]
        if len(rows) >= target:
            break
    return rows[:target]


def properties(space: Space, rows: Archs) -> FloatArray:
    """Return `(n_properties, n)` values: costs, the count of each choice, and the choice of each decision."""
    property_values = _properties_of(space, rows)
    n = _first_decision(space) + len(space.slot_choices)
    return np.stack([property_values(i) for i in range(n)])


def _first_decision(space: Space) -> int:
    """Return the index of the first property that is the choice of a decision."""
    return len(space.cost_names) + max(space.slot_choices) + 1


def _properties_of(space: Space, rows: Archs) -> Callable[[int], FloatArray]:
    """Return a function that maps the index of a property to its `(n,)` values."""
    slots, costs, n_choices = space.slots(rows), [*space.costs(rows).values()], max(space.slot_choices)

    def property_values(i: int) -> FloatArray:
        choice = i - len(costs)
        if choice < 0:
            return np.asarray(costs[i], np.float64)
        if choice < n_choices:
            return np.asarray((slots == choice).sum(axis=1), np.float64)
        if choice == n_choices:
            return np.asarray((slots >= 0).sum(axis=1), np.float64)
        return slots[:, choice - n_choices - 1].astype(np.float64)

    return property_values


def _accepted(
    columns: FloatArray, values: FloatArray, rng: Generator, allowed: Allowed | None
) -> tuple[int, float, float] | None:
    """Return the accepted range with the best mean at the largest coverage that has one; None if none has."""
    return next(filter(None, (_best_range(columns, values, c, rng, allowed) for c in COVERAGES)), None)


def _best_range(
    columns: FloatArray, values: FloatArray, coverage: float, rng: Generator, allowed: Allowed | None
) -> tuple[int, float, float] | None:
    """Return the accepted range with the best mean, as property, minimum and maximum; None if there is none."""
    draws = rng.integers(0, len(values), (RESAMPLES, max(1, round(SHARE * len(values)))))
    winners = draws[np.arange(RESAMPLES), values[draws].argmax(axis=1)]
    best: tuple[float, int, float, float] | None = None
    for i, column in enumerate(columns):
        low, high = np.percentile(column[winners], [(100 - coverage) / 2, (100 + coverage) / 2])
        mask = (column >= low) & (column <= high)
        if mask.all() or not mask.any() or (allowed is not None and not allowed(i, float(low), float(high))):
            continue
        mean = float(values[mask].mean())
        if mean < values.mean() or (best is not None and mean <= best[0]):
            continue
        from scipy.stats import ks_2samp  # takes longer to import than a small shrink

        # `greater`: the distribution function of the restricted values lies above, so they are worse.
        worse = ks_2samp(values[mask], values, alternative="greater", method="asymp").pvalue
        if worse >= ALPHA:
            best = (mean, i, float(low), float(high))
    return best[1:] if best else None


def _nearest(column: FloatArray, bounds: tuple[float, float], target: float) -> BoolArray:
    """Return the mask of the range after widening it about its middle to the size nearest to `target`."""
    distance = np.abs(column - sum(bounds) / 2)
    limits = np.unique(distance)
    sizes = np.searchsorted(np.sort(distance), limits, side="right")
    limit = limits[best_first(-np.abs(np.log(sizes / target)), 1)[0]]
    return np.asarray(distance <= limit)


@dataclass(frozen=True)
class _Region:
    """The architectures of a space whose properties lie in ranges: property, minimum, maximum."""

    space: Space
    ranges: tuple[tuple[int, float, float], ...] = ()

    def bound(self, column: int, low: float, high: float) -> _Region:
        return replace(self, ranges=(*self.ranges, (column, low, high)))

    def contains(self, rows: Archs) -> BoolArray:
        """Return which rows lie in the ranges."""
        property_values, mask = _properties_of(self.space, rows), np.ones(len(rows), bool)
        for column, low, high in self.ranges:
            values = property_values(column)
            mask &= (values >= low) & (values <= high)
        return mask

    def product(self) -> tuple[int, Callable[[Generator], Archs]]:
        """Return the size of the product of the choices allowed by ranges of decisions, and its sampling function.

        If products can't be counted, returns those of the whole space.
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
        """Draw up to `n` uniform members in about 50 n draws; also returns the share of draws that are members."""
        _, sample = self.product()
        parts, found, drawn = [np.empty((0, self.space.genome_len), np.int8)], 0, 0
        while found < n and drawn < MAX_DRAWS * n + CHUNK:
            rows = sample(rng)
            parts.append(rows[self.contains(rows)])
            found, drawn = found + len(parts[-1]), drawn + CHUNK
        return np.concatenate(parts)[:n], found / max(1, drawn)
