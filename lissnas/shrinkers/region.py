"""Draws from a part of a space that is only known by a test of membership."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from lissnas.spaces import Archs, Space
from lissnas.spaces.base import BoolArray, first_of_each


def walk(space: Space, start: Archs, inside: Callable[[Archs], BoolArray], n: int, steps: int, rng: Generator) -> Archs:
    """Return up to `n` distinct architectures of the region `inside`, by random walks from members of `start`.

    A walk has `steps` random single edits; one that leaves the region is undone. For spaces that are too large to
    list, in which a uniform sample rarely meets a small region.
    """
    rows = start[rng.integers(0, len(start), n)]
    for _ in range(steps):
        moved = space.mutate(rows, np.ones(len(rows), np.int64), rng)
        rows = np.where(inside(moved)[:, None], moved, rows)
    return rows[first_of_each(space.key(rows))]
