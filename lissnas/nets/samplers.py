"""Which paths a step of a supernet trains: a function of the seed and the step, whole rows of a space.

Uniform over the space or over a shrunk set; strictly fair over choices (Chu et al., 2021); balanced by
parameters (Luo et al., 2019); and a curriculum that starts on one path and widens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from lissnas.core.rng import stream
from lissnas.spaces import Archs, FloatArray, Space
from lissnas.spaces.base import BoolArray

Sampler: TypeAlias = Callable[[int], Archs]
"""Gives `(m, genome_len)` paths for a step; their gradients are added up before the optimiser steps."""


def uniform(space: Space, seed: int) -> Sampler:
    """Draw one path a step, uniform over the distinct architectures of a space (Guo et al., 2020)."""
    return lambda step: space.sample(1, stream(seed, "path", "space", step))


def over_set(members: Archs, seed: int) -> Sampler:
    """Draw one member of a shrunk set a step, uniform."""
    draw, n = _Draws(seed, "set"), len(members)

    def paths(step: int) -> Archs:
        at = int(draw(step) * n)
        return members[at : at + 1]

    return paths


def fair_product(allowed: BoolArray, seed: int) -> Sampler:
    """Draw as many paths a step as the layer with most choices has, each choice of a layer equally often.

    FairNAS' strict fairness: every layer's choices in a random order, path i taking the i-th of each.
    A layer with fewer choices starts again from the beginning, so it is fair over steps. `allowed` are the
    choices of a free product: a space whose rows are all networks of their own.
    """
    most = int(allowed.sum(axis=1).max())

    def paths(step: int) -> Archs:
        columns = []
        for layer, choices in enumerate(allowed):
            rng = stream(seed, "path", "fair", step, layer)
            columns.append(np.resize(rng.permutation(np.flatnonzero(choices)), most))
        return np.stack(columns, axis=1).astype(np.int8)

    return paths


def fair_set(space: Space, members: Archs, m: int, seed: int) -> Sampler:
    """Draw `m` members a step that cover as many choices as `m` members can, greedily, from a random start.

    Strict fairness is not defined on a set that is no product. What is guaranteed: the first member is
    uniform, each further one holds the most choices that this step has not trained yet (among
    64 m drawn at random, at most 4,096), so that rare choices are trained more often than by uniform draws.
    """
    slots = space.slots(members)
    choices = int(slots.max()) + 1

    def paths(step: int) -> Archs:
        rng = stream(seed, "path", "fair set", step)
        pool = rng.integers(0, len(members), min(64 * m, 4_096))
        covered = np.zeros((slots.shape[1], choices), bool)
        taken: list[int] = []
        for _ in range(m):
            candidate = pool if taken else pool[:1]
            own = slots[candidate]
            new = ((own >= 0) & ~covered[np.arange(own.shape[1]), own]).sum(axis=1)
            best = int(candidate[np.argmax(new)])
            taken.append(best)
            held = slots[best] >= 0
            covered[np.flatnonzero(held), slots[best][held]] = True
        return members[taken]

    return paths


def balanced(members: Archs, params: FloatArray, seed: int) -> Sampler:
    """Draw one member a step with probability proportional to its parameters: the paper's full-space baseline."""
    edges = np.cumsum(params / params.sum())
    draw = _Draws(seed, "balanced")

    def paths(step: int) -> Archs:
        at = min(int(np.searchsorted(edges, draw(step))), len(members) - 1)
        return members[at : at + 1]

    return paths


def curriculum(
    space: Space, members: Archs, first: Archs, sampler: Sampler, steps: int, share: float, seed: int
) -> Sampler:
    """Widen from one path, the row `first`, to all of a sampler's over the first `share` of the steps.

    A supernet that is trained on random paths from the start stays on a plateau for a thousand steps; one
    that knows one path first leaves it at once. Members are ordered by how many decisions they differ
    in from the first path; at step t those nearest are drawn from, uniformly, their number growing
    linearly to all.
    """
    distance = (space.slots(members) != space.slots(first)).sum(axis=1)
    ordered, until = members[np.argsort(distance, kind="stable")], share * steps

    def paths(step: int) -> Archs:
        if step >= until:
            return sampler(step)
        width = max(1, round(len(ordered) * step / until))
        return ordered[stream(seed, "path", "curriculum", step).integers(0, width, 1)]

    return paths


class _Draws:
    """A number in [0, 1) for each step, drawn in blocks: a stream of its own for every step costs more."""

    BLOCK = 1_024

    def __init__(self, seed: int, name: str) -> None:
        self.seed, self.name = seed, name
        self._block = -1
        self._values: list[float] = []

    def __call__(self, step: int) -> float:
        block, at = divmod(step, self.BLOCK)
        if block != self._block:
            self._block = block
            self._values = stream(self.seed, "path", self.name, block).random(self.BLOCK).tolist()
        return self._values[at]
