"""GreedyNAS (You et al., 2020): a candidate pool, filled with the best of the sampled paths."""

from __future__ import annotations

from numpy.random import Generator

from lissnas.oracles.base import CountedOracle
from lissnas.shrinkers.pruning import best_first, uniform_sample
from lissnas.spaces import Space
from lissnas.spaces.subspace import Subspace


def shrink(space: Space, oracle: CountedOracle, target: int, rng: Generator) -> Subspace:
    """Sample paths, push all of them into a pool that keeps the best `target`; the pool is the space.

    Published: of ten paths, an increasing share (up to .8) comes from the pool, the five best are trained, and the pool
    keeps 1,000. Training changes the weights of the published supernet, but not the values of an oracle, so a path
    from the pool is a repetition that costs no query and changes nothing. All ten are pushed, since pushing only the
    five best would lose good paths of good groups (not measured). What remains is the best of a uniform sample, as in
    `no_neighbors`.
    """
    rows = uniform_sample(space, oracle, rng)
    return Subspace(space, rows[best_first(oracle(rows), target)])
