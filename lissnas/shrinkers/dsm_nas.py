"""DSM-NAS (Chen et al., 2024): small subspaces around good anchors, searched in proportion to what they gave."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from lissnas.oracles.base import CountedOracle
from lissnas.shrinkers.evaluated import Evaluated
from lissnas.spaces import Space
from lissnas.spaces.base import first_of_each, is_in
from lissnas.spaces.subspace import Subspace

FIRST = 0.1
"""Share of the budget for the uniform sample; .2 is worse on all four tables tried."""
RADIUS = 2
"""Radius of a subspace; 3 is worse, 1 is better on TransNAS and worse on NAS-Bench-101."""
FAR = 0.1
"""Share of the draws at each further edit from the anchor; .3 is worse."""
ANCHORS = 0.02
"""Subspaces drawn from together, as a share of the target; .01 gives the same, .05 and .1 are worse."""
MIN_ANCHORS = 8
DRAWS = 12
"""Architectures drawn from a subspace at once; 6 and 24 give the same."""
MAX_STALE = 20
"""Rounds without a new architecture after which the rest of the budget is a uniform sample."""


def shrink(space: Space, oracle: CountedOracle, target: int, rng: Generator) -> Subspace:
    """Draw from balls around the best architectures, most from those that gave members of the best `target`.

    Published: candidate subspaces are the architectures within a few edits of good ones, a controller trained by
    policy gradients selects one, a second controller searches it, and better architectures replace the anchors. Here,
    anchors are the best architectures evaluated, `target` of them. The controller is an estimate of each ball's
    success: the share of its draws that entered the best `target`, with the anchor's rank as a prior of one draw. The
    balls with the highest estimates are drawn from at random. The result is the best of everything evaluated.
    """
    oracle.need_budget()
    seen, stale = Evaluated(space, oracle, 0, rng), 0
    seen.add_uniform(max(1, round(FIRST * oracle.budget)), rng)
    draws, hits = np.zeros(oracle.budget), np.zeros(oracle.budget)
    n_anchors = max(MIN_ANCHORS, round(ANCHORS * target))
    while oracle.left and stale < MAX_STALE:
        best = seen.top(target)
        level = seen.scores[best[-1]] if len(best) == target else -np.inf
        prior = 1 - np.arange(len(best)) / len(best)
        success = (hits[best] + prior) / (draws[best] + 1)
        anchor = np.repeat(best[np.argsort(-success, kind="stable")[:n_anchors]], DRAWS)
        edits = np.minimum(rng.geometric(1 - FAR, len(anchor)), min(RADIUS, space.max_edits))
        drawn = space.mutate(seen.rows[anchor], edits, rng)
        np.add.at(draws, anchor, 1)
        keys = space.key(drawn)
        new = first_of_each(keys)
        new = new[~is_in(keys[new], np.sort(space.key(seen.rows)))]
        added = seen.add(drawn[new])
        np.add.at(hits, anchor[new[:added]], seen.scores[len(seen.rows) - added :] > level)
        stale = 0 if added else stale + 1
    seen.add_uniform(oracle.left, rng)
    return seen.best(target)
