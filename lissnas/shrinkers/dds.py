"""DDS, designing network design spaces (Radosavovic et al., 2020), without the designer.

A person tries constraints on a space and keeps those that leave its error distribution as good or
better. Here the candidates come from the empirical bootstrap, and two tests decide.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from scipy.stats import ks_2samp

from lissnas.oracles import CountedOracle
from lissnas.shrinkers.pruning import best_first
from lissnas.spaces import Archs, FloatArray, IntArray, Space
from lissnas.spaces.base import BoolArray
from lissnas.subspace import Subspace

SAMPLE = 500
"""Networks that represent a space (published)."""
ROUNDS = 12
RESAMPLES, SHARE = 2_500, 0.05
"""Share of the sample that a resample draws; of .05, .1 and the published .25 the best over five tables."""
COVERAGES = (95, 75, 50, 25)
"""Central percentages of the best one's property that bound the range: 95 as published, less when none will do."""
NOT_WORSE = 0.05


def shrink(space: Space, oracle: CountedOracle, target: int, rng: Generator) -> Subspace:
    """Bound one property after another to where the best networks are, while that does no harm.

    Properties are costs, how often each choice occurs, and each ordered decision. A round asks about a
    sample of what is left, and for each property takes the range that the best network of a share
    of the sample has in 95 % of 2,500 resamples (in fewer when no range will do). A range is accepted
    when it makes the space smaller and its networks' error distribution is not worse (one-sided
    Kolmogorov-Smirnov); of several, the one with the best mean. It ends when nothing is accepted, or
    with the range that passes the target, widened about its middle to the nearest size.
    """
    oracle.need_budget()
    rows = space.enumerate()
    keys, columns = space.key(rows), properties(space, rows)
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
        chosen = next(filter(None, (_best_range(columns, place, values, c, rng) for c in COVERAGES)), None)
        if chosen is None:
            break
        column, low, high = chosen
        smaller = inside & (columns[column] >= low) & (columns[column] <= high)
        if smaller.sum() < target:
            inside = _nearest(inside, columns[column], (low, high), target)
            break
        inside = smaller
    return Subspace(space, rows[inside])


def properties(space: Space, rows: Archs) -> FloatArray:
    """Return `(n_properties, n)`: costs, the count of each choice, and the choice of each decision."""
    slots = space.slots(rows)
    found = [np.asarray(c, np.float64) for c in space.costs(rows).values()]
    found += [(slots == c).sum(axis=1).astype(np.float64) for c in range(max(space.slot_choices))]
    found.append((slots >= 0).sum(axis=1).astype(np.float64))
    found += [slots[:, i].astype(np.float64) for i in range(slots.shape[1])]
    columns = np.stack(found)
    return np.asarray(columns[np.ptp(columns, axis=1) > 0])


def _best_range(
    columns: FloatArray, place: IntArray, values: FloatArray, coverage: float, rng: Generator
) -> tuple[int, float, float] | None:
    """Return the accepted range with the best mean, as property, least and most; None if there is none."""
    draws = rng.integers(0, len(values), (RESAMPLES, max(1, round(SHARE * len(values)))))
    winners = draws[np.arange(RESAMPLES), values[draws].argmax(axis=1)]
    best: tuple[float, int, float, float] | None = None
    for i, column in enumerate(columns):
        own = column[place]
        low, high = np.percentile(own[winners], [(100 - coverage) / 2, (100 + coverage) / 2])
        held = (own >= low) & (own <= high)
        if held.all() or not held.any():
            continue
        # `greater`: the restricted values' distribution function lies above, so they are worse.
        worse = ks_2samp(values[held], values, alternative="greater", method="asymp").pvalue
        if worse < NOT_WORSE or values[held].mean() < values.mean():
            continue
        if best is None or values[held].mean() > best[0]:
            best = (float(values[held].mean()), i, float(low), float(high))
    return best[1:] if best else None


def _nearest(inside: BoolArray, column: FloatArray, bounds: tuple[float, float], target: int) -> BoolArray:
    """Return the range widened about its middle to the size nearest to `target`."""
    middle = sum(bounds) / 2
    at = np.flatnonzero(inside)
    distance = np.abs(column[at] - middle)
    limits = np.unique(distance)
    sizes = np.searchsorted(np.sort(distance), limits, side="right")
    limit = limits[best_first(-np.abs(np.log(sizes / target)), 1)[0]]
    out = np.zeros_like(inside)
    out[at[distance <= limit]] = True
    return out
