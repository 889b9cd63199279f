"""HEP-NAS (Li et al., 2024): joint choices of a group of decisions are compared, and half of them kept."""

from __future__ import annotations

import math

import numpy as np
from numpy.random import Generator

from lissnas.oracles.base import CountedOracle
from lissnas.shrinkers.edges import edge_space
from lissnas.shrinkers.evaluated import Evaluated
from lissnas.shrinkers.region import walk
from lissnas.spaces import Archs, FloatArray, IntArray, Space
from lissnas.spaces.base import LISTABLE, BoolArray, is_in
from lissnas.spaces.cell import CellSpace
from lissnas.spaces.cell_notation import HEAD, INTERIOR
from lissnas.spaces.subspace import Subspace

SHARE = 0.15
"""Share of the budget from which joint choices are compared; .25 is worse on one of four tables, else the same."""
GROUP = 64
"""Maximum joint choices of a group of consecutive decisions; 16 and 256 give about the same."""
SLACK = 5
"""Halving stops at so many times what the rest of the budget can rank; with 2 and 3, NAS-Bench-101 is worse."""
PRIOR = 5.0
"""Weight of the mean of the sample in the mean of a joint choice, in architectures; 1 and 20 give the same."""
STEPS = 20
"""Edits of a random walk in a region; 8 were worse."""
RANKINGS = 3
"""Times that the remaining architectures are ranked."""
POOL = 4
"""Size of the sample that represents a region of a space too large to list, in multiples of what is drawn."""


class Groups:
    """Groups of decisions, and the joint choices of each that are left; a missing decision counts as a choice."""

    def __init__(self, space: Space) -> None:
        self.described = edge_space(space) if isinstance(space, CellSpace) else space
        self.groups = _vertices() if isinstance(space, CellSpace) else _consecutive(space.slot_choices)
        self._radix = np.array(self.described.slot_choices, np.int64) + 1
        self.allowed = [np.ones(int(self._radix[group].prod()), bool) for group in self.groups]

    def codes(self, rows: Archs) -> IntArray:
        """Return `(n, groups)` numbers of joint choices."""
        slots = self.described.slots(rows).astype(np.int64) + 1
        out = np.zeros((len(rows), len(self.groups)), np.int64)
        for column, group in zip(out.T, self.groups, strict=True):
            for slot in group:
                column *= self._radix[slot]
                column += slots[:, slot]
        return out

    def contain(self, codes: IntArray) -> BoolArray:
        """Return an `(n,)` mask of the architectures whose joint choices are all left."""
        inside = [left[column] for left, column in zip(self.allowed, codes.T, strict=True)]
        return np.asarray(np.all(inside, axis=0))

    def means(self, codes: IntArray, ranks: FloatArray) -> list[FloatArray]:
        """Return for each group the mean rank with each joint choice, pulled to the mean of all."""
        means = []
        for left, column in zip(self.allowed, codes.T, strict=True):
            count, total = np.bincount(column, minlength=len(left)), np.bincount(column, ranks, len(left))
            means.append((total + PRIOR * ranks.mean()) / (count + PRIOR))
        return means


def _vertices() -> list[list[int]]:
    """Return for each vertex of a cell its operation and the edges that end in it (`edges.edge_space`)."""
    edges = {v: (INTERIOR + np.flatnonzero(v == HEAD)).tolist() for v in range(1, INTERIOR + 2)}
    return [[*([v - 1] if v <= INTERIOR else []), *slots] for v, slots in edges.items()]


def _consecutive(n_choices: tuple[int, ...]) -> list[list[int]]:
    groups: list[list[int]] = [[]]
    for slot, n in enumerate(n_choices):
        if groups[-1] and n * math.prod(n_choices[i] for i in groups[-1]) > GROUP:
            groups.append([])
        groups[-1].append(slot)
    return groups


def shrink(space: Space, oracle: CountedOracle, target: int, rng: Generator) -> Subspace:
    """Keep the better half of the joint choices of one group of decisions after the other, and rank what remains.

    Published: the edges that end in the same node are a group, a supernet is split by their joint operations, and the
    better half of the sub-supernets is kept, until all groups are decided. Here, a joint choice is compared by the
    mean rank of the evaluated architectures of the region that have it; the group of a cell's vertex is its operation
    and the edges that end in it, that of other spaces are consecutive decisions with up to 64 joint choices. The best
    joint choices that hold half of the region are kept; half of their number was worse on NAS-Bench-101. There is at
    least one halving, and as many as make the region five times as large as what the rest of the budget can rank; its
    architectures are evaluated in the order of the sum of their groups' mean ranks, then the others. In random order
    it was worse on four tables. Comparing by the share in the best fifth was not better. In a space too large to
    list, a region is sampled by random walks. The result is the best of everything evaluated.
    """
    oracle.need_budget()
    seen, groups = Evaluated(space, oracle, 0, rng), Groups(space)
    part, listed = max(1, round(SHARE * oracle.budget)), space.size() <= LISTABLE
    n_halvings = max(1, math.ceil(math.log2(max(1, space.size() / max(1, SLACK * (oracle.budget - part))))))
    portion = -(-part // n_halvings)
    pool = space.enumerate() if listed else space.sample_distinct(POOL * portion, rng)
    everything = pool
    for halving in range(n_halvings):
        fresh = _fresh(seen, pool)
        seen.add(fresh[rng.permutation(len(fresh))[:portion]])
        _halve(groups, halving % len(groups.groups), seen, groups.codes(pool))
        pool = pool[groups.contain(groups.codes(pool))] if listed else _sampled(seen, groups, POOL * portion, rng)
    if not listed:
        pool = _sampled(seen, groups, POOL * oracle.left, rng)
    for rows in (pool, everything):
        for left in range(RANKINGS, 0, -1):
            fresh = _fresh(seen, rows)
            means = groups.means(groups.codes(seen.rows), seen.ranks())
            merit = sum(mean[column] for mean, column in zip(means, groups.codes(fresh).T, strict=True))
            seen.add(fresh[np.argsort(-np.asarray(merit), kind="stable")[: -(-oracle.left // left)]])
    seen.add_uniform(oracle.left, rng)
    return seen.best(target)


def _fresh(seen: Evaluated, rows: Archs) -> Archs:
    """Return the rows that are not evaluated."""
    return rows[~is_in(seen.space.key(rows), np.sort(seen.space.key(seen.rows)))]


def _halve(groups: Groups, which: int, seen: Evaluated, region: IntArray) -> None:
    """Keep the best joint choices of a group that hold half of the region; the best architecture stays in it."""
    codes, ranks = groups.codes(seen.rows), seen.ranks()
    inside = groups.contain(codes)
    mean = groups.means(codes[inside], ranks[inside])[which]
    size = np.bincount(region[:, which], minlength=len(mean))
    order = np.flatnonzero(size)
    order = order[np.argsort(-mean[order], kind="stable")]
    below = np.cumsum(size[order]) < size.sum() / 2
    kept = order[: int(below.sum()) + 1]
    groups.allowed[which][:] = False
    groups.allowed[which][kept] = True
    groups.allowed[which][codes[inside][np.argmax(ranks[inside]), which]] = True


def _sampled(seen: Evaluated, groups: Groups, n: int, rng: Generator) -> Archs:
    """Return about `n` architectures of the region."""
    start = seen.rows[groups.contain(groups.codes(seen.rows))]
    return walk(seen.space, start, lambda rows: groups.contain(groups.codes(rows)), n, STEPS, rng)
