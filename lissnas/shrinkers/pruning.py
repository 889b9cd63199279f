"""Shared functions of methods that prune choices: listing, scoring and dropping them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.random import Generator

from lissnas.oracles.base import CountedOracle
from lissnas.spaces import Archs, FloatArray, IntArray, Space
from lissnas.spaces.base import LISTABLE, BoolArray, first_of_each
from lissnas.spaces.choices import ChoiceSpace
from lissnas.spaces.subspace import Subspace, listing


def all_choices(space: Space) -> Subspace:
    """Return the whole space as a product of the choices that occur in it.

    In a space too large to list, all choices are assumed to occur.
    """
    allowed = space.possible()
    if not (isinstance(space, ChoiceSpace) and space.free) and space.size() <= LISTABLE:
        _, slots = listing(space)
        allowed &= np.stack([(slots == c).any(axis=0) for c in range(allowed.shape[1])], axis=1)
    return Subspace(space, allowed=allowed)


def total_by_choice(slots: Archs, weights: FloatArray, allowed: BoolArray) -> FloatArray:
    """Return `(n_slots, choices)` total weight of the rows with each choice."""
    rows, at = np.nonzero(slots >= 0)
    index = at * allowed.shape[1] + slots[rows, at].astype(np.int64)
    return np.asarray(np.bincount(index, weights[rows], allowed.size), np.float64).reshape(allowed.shape)


def mean_by_choice(slots: Archs, values: FloatArray, allowed: BoolArray) -> FloatArray:
    """Return `(n_slots, choices)` mean value of the rows with each choice, NaN if there are none."""
    count = total_by_choice(slots, np.ones(len(slots)), allowed)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(total_by_choice(slots, values, allowed) / count)


def droppable(allowed: BoolArray) -> BoolArray:
    """Return the mask of choices that may be dropped: all except the last of a decision."""
    return np.asarray(allowed & (allowed.sum(axis=1, keepdims=True) > 1))


def ascending(score: FloatArray, allowed: BoolArray) -> list[tuple[int, int]]:
    """Return the droppable choices in ascending order of score; unseen ones (NaN) come first."""
    free = droppable(allowed)
    order = np.argsort(np.where(np.isnan(score), -np.inf, score), axis=None, kind="stable")
    pairs = np.stack(np.unravel_index(order, allowed.shape), axis=1)
    return [(int(s), int(c)) for s, c in pairs if free[s, c]]


def drop(space: Subspace, choices: Iterable[tuple[int, int]], target: int) -> tuple[Subspace, bool]:
    """Drop choices in order; return the product, and whether it reached the size nearest to `target`.

    The last choice of a decision is kept. Of the sizes before and after the drop that passes the target, the
    nearer (in ratio) is returned; drops that would leave an empty space are skipped.
    """
    for slot, choice in choices:
        assert space.allowed is not None
        if not droppable(space.allowed)[slot, choice]:
            continue
        allowed = space.allowed.copy()
        allowed[slot, choice] = False
        smaller = Subspace(space.space, allowed=allowed)
        before, after = space.size(), smaller.size()
        if after == 0:
            continue
        if after <= target:
            return (smaller if after * before >= target * target else space), True
        space = smaller
    assert space.allowed is not None
    return space, not droppable(space.allowed).any()


def distinct_sample(space: Subspace, n: int, rng: Generator) -> Archs:
    """Draw up to `n` distinct members of a product uniformly."""
    rows = space.sample(n, rng)
    return rows[first_of_each(space.space.key(rows))]


def uniform_sample(space: Space, oracle: CountedOracle, rng: Generator) -> Archs:
    """Draw as many distinct architectures as the budget allows; raises UserError if it is 0."""
    oracle.need_budget()
    return space.sample_distinct(min(oracle.left, space.size()), rng)


def best_first(scores: FloatArray, k: int) -> IntArray:
    """Return the indices of the `k` highest scores, best first; ties by index."""
    return np.argsort(-scores, kind="stable")[:k]
