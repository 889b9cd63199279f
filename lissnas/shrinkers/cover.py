"""From the best networks found to a union of balls round some of them: spaces too large to list."""

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

FEWEST, MOST = 16, 10_000
"""Balls in a union: fewer are no pockets any more, more take minutes to count."""
BLOCK = 2_048
JUDGED = 2_000
"""Networks of a union that its mean is judged on, when radii are compared."""
SHORT = 0.05
"""Share of the target that a union may lack and still reach it."""
MOST_FORMS = 24
"""Forms of a network up to which a network's balls are counted: all orders of four groups."""
ROUNDS = 10
"""Times that the number of balls is set by the overlap that it had; most unions take one or two."""


def cover(space: Space, ranked: Archs, target: int, scorer: Scorer, rng: Generator, threads: int) -> Balls:
    """Return balls round the best of `ranked`, best first, that hold about `target` networks.

    All balls have one radius, and no centre lies in the ball of a better one, so that pockets stay apart (where
    there are too few such centres, the best of the others fill up). Of all radii that reach the target with 16 to
    10,000 balls the one whose union scores best on the mean of a uniform sample; the largest union where none does.
    Raises UserError for a space whose balls can't be counted, or a target that no such number reaches.
    """
    space = with_balls(space, target)
    best: tuple[bool, float, Balls] | None = None
    for radius in radii_for(space, target):
        found = _sized(space, ranked, radius, target)
        reaches = found.size.value >= (1 - SHORT) * target
        mean = float(scorer.score(found.sample(JUDGED, rng), threads).mean())
        merit = mean if reaches else float(found.size.value)
        if best is None or (reaches, merit) > best[:2]:
            best = (reaches, merit, found)
    assert best is not None, "radii_for gives at least one"
    return best[2]


def radii_for(space: ChoiceSpace, target: int) -> list[int]:
    """Return the radii whose balls make up `target` networks in a fitting number; raises UserError for none."""
    radii = [
        radius
        for radius in range(1, space.genome_len)
        if FEWEST <= math.ceil(target / ball_volume(space, radius)) <= MOST
    ]
    if not radii:
        volumes = ", ".join(f"{ball_volume(space, r):,}" for r in range(1, min(5, space.genome_len)))
        raise UserError(
            f"target_size: {target:,} can't be made of {FEWEST} to {MOST:,} balls of {space.name}, "
            f"which hold {volumes} ... networks with radius 1, 2, ..."
        )
    return radii


def with_balls(space: Space, target: int) -> ChoiceSpace:
    """Return the space, which has balls; raises UserError for one that has none."""
    listed = f"target_size: {target:,} networks of {space.name} can't be listed"
    if not isinstance(space, ChoiceSpace):
        raise UserError(f"{listed}, and it has no balls; at most {LISTABLE:,} can")
    if isinstance(space, DeclaredSpace) and space.n_forms > MOST_FORMS:
        raise UserError(
            f"{listed}, and the balls of a space whose `equivalent` and `inactive` give a network {space.n_forms:,} "
            f"forms can't be counted (at most {MOST_FORMS}); at most {LISTABLE:,} networks can be listed"
        )
    return space


def spaced(space: ChoiceSpace, ranked: Archs, n: int, radius: int) -> IntArray:
    """Return which of the ranked, best first, are centres: at most `n`, each farther than `radius` from all before."""
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
    """Return `(len(a), len(b))`: whether any two forms of the networks are at most `radius` edits apart."""
    near = np.zeros((len(a), len(b)), bool)
    forms_a, forms_b = space.variants(a), space.centre_forms(b)
    for i in range(forms_a.shape[1]):
        for j in range(forms_b.shape[1]):
            near |= distances(forms_a[:, i], forms_b[:, j]) <= radius
    return near


def _sized(space: ChoiceSpace, ranked: Archs, radius: int, target: int) -> Balls:
    """Return as many balls as hold about `target` networks, those that lie in several counted once."""
    n_balls = math.ceil(target / ball_volume(space, radius))
    for _ in range(ROUNDS):
        apart = spaced(space, ranked, n_balls, radius)
        rest = np.setdiff1d(np.arange(min(len(ranked), 2 * n_balls)), apart)
        at = np.concatenate([apart, rest])[:n_balls]
        found = Balls(space, ranked[at], np.full(len(at), radius))
        size = found.size.value
        if len(at) < n_balls or abs(size / target - 1) < 0.02 or n_balls == MOST:
            break
        n_balls = min(MOST, math.ceil(n_balls * target / size))
    return found
