"""Samplers of the paths (rows of a space) that a training step uses; they depend only on seed and step.

Uniform over the space or a shrunk set; strictly fair over choices (Chu et al., 2021); balanced by parameters
(Luo et al., 2019); and a curriculum that widens from one path to all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from lissnas.core.rng import stream
from lissnas.spaces import Archs, FloatArray, Space
from lissnas.spaces.base import BoolArray

Sampler: TypeAlias = Callable[[int], Archs]
"""Returns the paths of a step, `(m, genome_len)`; the step sums their gradients."""


def uniform(space: Space, seed: int) -> Sampler:
    """Return a sampler of one path per step, uniform over the distinct architectures (Guo et al., 2020)."""
    return lambda step: space.sample(1, stream(seed, "path", "space", step))


def over_set(members: Archs, seed: int) -> Sampler:
    """Return a sampler of one path per step, uniform over `members`."""
    draw, n = _Draws(seed, "set"), len(members)

    def paths(step: int) -> Archs:
        at = int(draw(step) * n)
        return members[at : at + 1]

    return paths


def fair_product(allowed: BoolArray, seed: int) -> Sampler:
    """Return a sampler of FairNAS' strict fairness: each step trains each choice of a layer equally often.

    A step has as many paths as the maximum number of choices; path i has the i-th choice of each layer in a random
    order. Layers with fewer choices repeat theirs, and are fair over several steps. `allowed` is the mask of choices
    of a free product, a space in which all rows are distinct networks.
    """
    n_paths = int(allowed.sum(axis=1).max())

    def paths(step: int) -> Archs:
        columns = []
        for layer, choices in enumerate(allowed):
            rng = stream(seed, "path", "fair", step, layer)
            columns.append(np.resize(rng.permutation(np.flatnonzero(choices)), n_paths))
        return np.stack(columns, axis=1).astype(np.int8)

    return paths


def fair_set(space: Space, members: Archs, m: int, seed: int) -> Sampler:
    """Return a sampler of `m` members per step that greedily cover many choices, from a random start.

    Strict fairness is undefined on sets that are not products. Here the first member is uniform; each further one
    has the maximum number of choices that the step has not covered yet, among 64 m random members (at most 4,096).
    Rare choices are thus trained more often than by uniform draws.
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
            chosen = slots[candidate]
            new = ((chosen >= 0) & ~covered[np.arange(chosen.shape[1]), chosen]).sum(axis=1)
            best = int(candidate[np.argmax(new)])
            taken.append(best)
            active = slots[best] >= 0
            covered[np.flatnonzero(active), slots[best][active]] = True
        return members[taken]

    return paths


def balanced(members: Archs, params: FloatArray, seed: int) -> Sampler:
    """Return a sampler of one member per step, in proportion to its parameters: the paper's full-space baseline."""
    edges = np.cumsum(params / params.sum())
    draw = _Draws(seed, "balanced")

    def paths(step: int) -> Archs:
        at = min(int(np.searchsorted(edges, draw(step))), len(members) - 1)
        return members[at : at + 1]

    return paths


def curriculum(
    space: Space, members: Archs, first: Archs, sampler: Sampler, steps: int, share: float, seed: int
) -> Sampler:
    """Return a sampler that widens from the path `first` to all members over the first `share` of the steps.

    A supernet trained on random paths from the start stays on a plateau for about 1,000 steps; after training on one
    path it leaves the plateau at once. Members are ordered by the number of decisions that differ from `first`; step
    t draws uniformly from the nearest ones, whose number grows linearly. Later steps use `sampler`.
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
    """A uniform number in [0, 1) for each step, drawn in blocks, which is faster than a stream for each step."""

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
