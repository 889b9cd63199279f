"""Unions of balls around the best architectures found, for targets that are too large to list."""

from __future__ import annotations

import math

import numpy as np
from numpy.random import Generator

from lissnas.core.errors import UserError
from lissnas.predictors.accuracy import Scorer
from lissnas.spaces import Archs, ChoiceSpace, IntArray, Space
from lissnas.spaces.balls import Balls, ball_volume, distances
from lissnas.spaces.base import LISTABLE, BoolArray
from lissnas.spaces.declared import DeclaredSpace

MIN_BALLS = 16  # fewer do not cover separate regions
MAX_BALLS = 10_000  # more take minutes to count
BLOCK = 2_048
N_EVALUATED = 2_000
"""Members sampled to estimate the mean score of a union when radii are compared."""
MAX_SHORTFALL = 0.05
"""Share of the target by which a union may fall short and still count as reaching it."""
MAX_FORMS = 24
"""Maximum equivalent forms of a network for balls to be counted: all orders of four groups."""
ROUNDS = 10
"""Maximum adjustments of the number of balls to their overlap; most unions take one or two."""


def cover(space: Space, ranked: Archs, target: int, scorer: Scorer, rng: Generator, threads: int) -> Balls:
    """Return balls around the best of `ranked`, best first, that contain about `target` architectures.

    All balls have the same radius, and no centre lies in the ball of a better one, so that regions stay separate;
    with too few such centres, the best of the others are added. Among the radii that reach the target with 16 to
    10,000 balls, chooses the one with the highest mean score of a uniform sample, or, if none reaches it, the largest
    union. Raises UserError if balls of the space can't be counted, or no number of balls fits the target.
    """
    space = with_balls(space, target)
    best: tuple[bool, float, Balls] | None = None
    for radius in radii_for(space, target):
        found = _sized(space, ranked, radius, target)
        reaches = found.size.value >= (1 - MAX_SHORTFALL) * target
        mean = float(scorer.score(found.sample(N_EVALUATED, rng), threads).mean())
        rank = mean if reaches else float(found.size.value)
        if best is None or (reaches, rank) > best[:2]:
            best = (reaches, rank, found)
    assert best is not None, "radii_for returns at least one"
    return best[2]


def radii_for(space: ChoiceSpace, target: int) -> list[int]:
    """Return the radii for which 16 to 10,000 balls contain `target` architectures; raises UserError if none."""
    radii = [
        radius
        for radius in range(1, space.genome_len)
        if MIN_BALLS <= math.ceil(target / ball_volume(space, radius)) <= MAX_BALLS
    ]
    if not radii:
        volumes = ", ".join(f"{ball_volume(space, r):,}" for r in range(1, min(5, space.genome_len)))
        raise UserError(
            f"target_size: {target:,} can't be made of {MIN_BALLS} to {MAX_BALLS:,} balls of {space.name}, "
            f"which hold {volumes} ... networks with radius 1, 2, ..."
        )
    return radii


def with_balls(space: Space, target: int) -> ChoiceSpace:
    """Return the space if its balls can be counted, else raise UserError."""
    listed = f"target_size: {target:,} networks of {space.name} can't be listed"
    if not isinstance(space, ChoiceSpace):
        raise UserError(f"{listed}, and balls are not defined for it; give at most {LISTABLE:,}")
    if isinstance(space, DeclaredSpace) and space.n_forms > MAX_FORMS:
        raise UserError(
            f"{listed}, and balls can't be counted if `equivalent` and `inactive` give a network {space.n_forms:,} "
            f"forms (at most {MAX_FORMS}); give at most {LISTABLE:,}"
        )
    return space


def spaced(space: ChoiceSpace, ranked: Archs, n: int, radius: int) -> IntArray:
    """Return indices of up to `n` centres in `ranked`, best first, each farther than `radius` from all before it."""
    chosen = np.empty(0, np.int64)
    for lo in range(0, len(ranked), BLOCK):
        block = np.arange(lo, min(lo + BLOCK, len(ranked)))
        if len(chosen):
            block = block[~_near(space, ranked[block], ranked[chosen], radius).any(axis=1)]
        near = _near(space, ranked[block], ranked[block], radius)
        taken = np.zeros(len(block), bool)
        for i in range(len(block)):
            taken[i] = not near[i, :i][taken[:i]].any()
        chosen = np.concatenate([chosen, block[taken]])
        if len(chosen) >= n:
            break
    return chosen[:n]


def _near(space: ChoiceSpace, a: Archs, b: Archs, radius: int) -> BoolArray:
    """Return `(len(a), len(b))`: whether any forms of two architectures differ by at most `radius` edits."""
    near = np.zeros((len(a), len(b)), bool)
    forms_a, forms_b = space.variants(a), space.centre_forms(b)
    for i in range(forms_a.shape[1]):
        for j in range(forms_b.shape[1]):
            near |= distances(forms_a[:, i], forms_b[:, j]) <= radius
    return near


def _sized(space: ChoiceSpace, ranked: Archs, radius: int, target: int) -> Balls:
    """Return balls that contain about `target` architectures; overlaps are counted once."""
    n_balls = math.ceil(target / ball_volume(space, radius))
    for _ in range(ROUNDS):
        separate = spaced(space, ranked, n_balls, radius)
        rest = np.setdiff1d(np.arange(min(len(ranked), 2 * n_balls)), separate)
        centres = np.concatenate([separate, rest])[:n_balls]
        found = Balls(space, ranked[centres], np.full(len(centres), radius))
        size = found.size.value
        if len(centres) < n_balls or abs(size / target - 1) < 0.02 or n_balls == MAX_BALLS:
            break
        n_balls = min(MAX_BALLS, math.ceil(n_balls * target / size))
    return found
