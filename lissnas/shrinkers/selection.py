"""Selection of the best architectures with cost strata, and the rule for the target size."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from lissnas.spaces import Archs, FloatArray, IntArray, Space
from lissnas.spaces.base import BoolArray

N_CLUSTERS = 20
CHUNK = 1 << 16
N_WIDTHS = 20
"""Equal-width strata of the FLOPs range, the same number as bins of coverage."""
N_CLIMBERS = 16
N_STRATIFIED = 10_000
"""Architectures in the uniform sample that strata are computed from; at most half of the space."""
MAX_USEFUL_SHARE = 0.84
"""From this share of the space, the labels are useless: with uninformative ones the target rule gives about 9/10."""


@dataclass(frozen=True)
class Strata:
    """Partition of a space by FLOPs, or by clusters of the encoding if FLOPs are unknown.

    Either `edges` of the FLOPs (9 inner deciles of the first sample, 19 inner equal-width edges of the range), or
    `centres` of 20 clusters of the scaled encoding. `weight` is each stratum's share of the first sample.
    """

    weight: FloatArray
    edges: FloatArray | None = None
    centres: FloatArray | None = None
    scale: FloatArray | None = None

    @classmethod
    def sampled(cls, space: Space, rng: Generator) -> tuple[Strata, Archs]:
        """Return the output of `of` for a uniform sample of `N_STRATIFIED` architectures, which costs no query."""
        return cls.of(space, space.sample_distinct(max(1, min(N_STRATIFIED, space.size() // 2)), rng), rng)

    @classmethod
    def of(cls, space: Space, first: Archs, rng: Generator) -> tuple[Strata, Archs]:
        """Return strata computed from a uniform sample of the space, and architectures in all strata.

        These are the sample, and those met on the way to the lowest and the highest FLOPs.
        """
        costs, found = space.costs(first), first
        if "flops" in costs:
            flops = np.asarray(costs["flops"], np.float64)
            (low, cheap), (high, costly) = _extreme(space, first, -1), _extreme(space, first, 1)
            found = np.concatenate([first, cheap, costly])
            width = np.linspace(low, high, N_WIDTHS + 1)[1:-1]
            deciles = np.quantile(flops, np.arange(1, 10) / 10)
            strata = cls(np.empty(0), edges=np.sort(np.concatenate([deciles, width])))
        else:
            from scipy.cluster.vq import kmeans2  # only needed for spaces without FLOPs

            features = space.encode(first).astype(np.float64)
            scale = np.maximum(features.std(axis=0), 1e-9)
            clusters = min(N_CLUSTERS, len(first))
            with warnings.catch_warnings():  # an empty cluster is a stratum of weight 0
                warnings.simplefilter("ignore", UserWarning)
                centres, _ = kmeans2(features / scale, clusters, minit="++", rng=rng, missing="warn")
            strata = cls(np.empty(0), centres=centres, scale=scale)
        share = np.bincount(strata.of_each(space, first), minlength=strata.number) / len(first)
        return cls(share, strata.edges, strata.centres, strata.scale), found

    @property
    def number(self) -> int:
        """Number of strata, including empty ones."""
        return len(self.edges) + 1 if self.edges is not None else len(self.centres)  # type: ignore[arg-type]

    def of_each(self, space: Space, archs: Archs) -> IntArray:
        """Return the `(n,)` stratum of each architecture."""
        if self.edges is not None:
            return np.searchsorted(self.edges, space.costs(archs)["flops"], side="right")
        assert self.centres is not None
        assert self.scale is not None
        out = np.empty(len(archs), np.int64)
        for lo in range(0, len(archs), CHUNK):  # features take many times the memory of rows
            features = space.encode(archs[lo : lo + CHUNK])
            out[lo : lo + CHUNK] = np.argmin(cdist(features / self.scale, self.centres), axis=1)
        return out

    def to_arrays(self) -> dict[str, FloatArray]:
        """Return the fields as named arrays."""
        return {k: v for k, v in vars(self).items() if v is not None}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> Strata:
        """Restore strata from the output of `to_arrays`."""
        return cls(**arrays)


def _extreme(space: Space, first: Archs, sign: int) -> tuple[int, Archs]:
    """Return the minimum (-1) or maximum (1) FLOPs found by hill climbing with single edits from a sample.

    Also returns the architectures met.
    """
    rows, top, met = first, -math.inf, [first[:0]]
    while True:
        flops = sign * space.costs(rows)["flops"]
        if not len(rows) or flops.max() <= top:
            return int(sign * top), np.concatenate(met)
        top = float(flops.max())
        rows = space.neighbors(rows[np.argsort(-flops, kind="stable")[:N_CLIMBERS]])[0]
        met.append(rows)


def select_top(
    scores: NDArray[np.floating[Any]],
    stratum: NDArray[np.integer[Any]],
    weight: FloatArray,
    k: int,
    diversity: float,
    strict: bool = False,
) -> IntArray:
    """Return the indices of the `k` highest scores, best first, with a minimum quota for each stratum.

    The quota of stratum s is `max(1, floor(diversity k weight[s]))`, or 0 without diversity. With `strict`, the
    quotas sum to at most `ceil(diversity k)`: one for each stratum and the rest by weight, or, if that does not
    suffice, one for each of the strata with the largest weights. Ties are broken by index.
    """
    if k >= len(scores) or k == 0:
        return np.argsort(-scores, kind="stable")[:k]
    candidates = _candidates(scores, k)
    if diversity == 0:
        return _ranked(scores, candidates)[:k]
    quota = _quotas(weight, k, diversity, strict)
    short = np.bincount(stratum[candidates], minlength=len(quota)) < quota
    order = _ranked(scores, candidates | short[stratum])  # strata below their quota may need lower scores
    s = stratum[order]
    by_stratum = np.argsort(s, kind="stable")
    start = np.searchsorted(s[by_stratum], np.arange(len(quota)))
    rank = np.empty(len(s), np.int64)
    rank[by_stratum] = np.arange(len(s)) - start[s[by_stratum]]
    reserved = rank < quota[s]
    reserved &= np.cumsum(reserved) <= k
    rest = np.flatnonzero(~reserved)[: k - int(reserved.sum())]
    reserved[rest] = True
    chosen: IntArray = order[reserved]
    return chosen


def _quotas(weight: FloatArray, k: int, diversity: float, strict: bool) -> IntArray:
    """Return the quota of each stratum (`select_top`)."""
    if not strict:
        return np.maximum(1, np.floor(diversity * k * weight)).astype(np.int64)
    reserve = math.ceil(diversity * k)
    quota = np.maximum(1, np.floor(max(0, reserve - len(weight)) * weight)).astype(np.int64)
    quota[np.argsort(-weight, kind="stable")[reserve:]] = 0
    return quota


def _candidates(scores: NDArray[np.floating[Any]], k: int) -> BoolArray:
    """Return the mask of scores at or above the `k`-th highest, so that few need sorting."""
    kth = -np.partition(-scores, k - 1)[k - 1]  # NaN if fewer are known
    return np.ones(len(scores), bool) if np.isnan(kth) else np.asarray(scores >= kth)


def _ranked(scores: NDArray[np.floating[Any]], which: BoolArray) -> IntArray:
    """Return the indices of the masked scores, best first; ties by index."""
    among = np.flatnonzero(which)
    return among[np.argsort(-scores[among], kind="stable")]


def target_size(space: Space, scores: FloatArray, values: FloatArray) -> tuple[int, float]:
    """Return the target size of a space according to its first labels, and the share it is based on.

    `scores` are cross-validated predictions of the labels. The share is the minimum share of best-predicted labels
    that contains 90 % of the truly best ones (5 %, at least 10). The size is that share of the space, clipped to 100
    and min(a quarter of the space, 10,000). A share of .84 or more means that the labels are useless.
    """
    n_best = min(len(values), max(10, math.ceil(0.05 * len(values))))
    top = np.argsort(-values, kind="stable")[:n_best]
    rank = np.empty(len(values), np.int64)
    rank[np.argsort(-scores, kind="stable")] = np.arange(1, len(values) + 1)
    needed = np.sort(rank[top])[math.ceil(0.9 * n_best) - 1]
    share = float(needed / len(values))
    size = space.size()
    return int(min(max(share * size, 100), min(size // 4, 10_000))), share
