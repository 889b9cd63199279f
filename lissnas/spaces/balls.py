"""Unions of balls: shrunk spaces of up to billions of networks, without listing them.

A ball contains all networks within a radius (in edits) of its centre. Balls overlap, so sampling and counting
use the multiplicity of a network, the number of balls that contain it (Karp and Luby, 1983): draw a ball with
probability proportional to its volume, then a row in it, and accept the row with probability 1 / multiplicity.
Accepted rows are uniform over the union. The mean of 1 / multiplicity, times the total volume, is its size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from lissnas.core.errors import UserError
from lissnas.core.rng import stream
from lissnas.spaces import Archs, ChoiceSpace, FloatArray, IntArray
from lissnas.spaces.base import LISTABLE, BoolArray

PAIRS = 1 << 24
"""Pairs of a row and a centre compared at once."""
FORM_CELLS = 1 << 26
"""Entries of the forms of networks that are compared with centres at once."""
MAX_PAIRS = 1 << 29
"""Pairs compared to estimate a size, which bounds its time."""
MAX_DRAWS = 1_000_000
"""Rows drawn to estimate a size."""
CONFIDENCE = 0.999
"""Confidence of the interval of an estimated size."""


class Size(NamedTuple):
    """A number of networks: exact, or an estimate with an interval of confidence `CONFIDENCE`."""

    value: int
    low: int
    high: int

    @property
    def exact(self) -> bool:
        """Whether the size was counted, not estimated."""
        return self.low == self.high


@dataclass(frozen=True)
class Balls:
    """A union of balls in a product space.

    `centres` are `(k, genome_len)` canonical rows, `radii` `(k,)` maximum edit distances. If several rows
    are the same network, the distance is the minimum over all their forms.
    """

    space: ChoiceSpace
    centres: Archs
    radii: IntArray

    def __post_init__(self) -> None:
        if not len(self.centres) or len(self.centres) != len(self.radii):
            raise UserError(
                f"balls: expected equally many centres and radii, at least 1, "
                f"found {len(self.centres)} centres and {len(self.radii)} radii"
            )
        if (self.radii < 0).any():
            raise UserError(f"balls: a radius can't be negative, found {self.radii.min()}")
        self.space.key(self.centres)  # raises for an invalid centre

    @cached_property
    def _forms(self) -> tuple[Archs, IntArray]:
        """The distinct forms of the centres to compare with, and the index of the centre of each."""
        forms = self.space.centre_forms(self.centres)
        flat = forms.reshape(-1, forms.shape[2])
        owner = np.repeat(np.arange(len(forms)), forms.shape[1])
        _, first = np.unique(np.column_stack([owner, flat]), axis=0, return_index=True)
        first.sort()
        return flat[first], owner[first]

    @cached_property
    def _volumes(self) -> FloatArray:
        """Number of rows in the ball around each form."""
        _, owner = self._forms
        by_radius = {r: float(ball_volume(self.space, r)) for r in np.unique(self.radii).tolist()}
        return np.array([by_radius[r] for r in self.radii[owner].tolist()])

    @property
    def volume(self) -> int:
        """The exact sum of the rows of all balls, an upper bound of the union's size."""
        _, owner = self._forms
        radii, count = np.unique(self.radii[owner], return_counts=True)
        return sum(int(n) * ball_volume(self.space, int(r)) for r, n in zip(radii, count, strict=True))

    # -- membership ------------------------------------------------------------------------------
    def contains(self, archs: Archs) -> BoolArray:
        """Return an `(n,)` mask of the networks that are in a ball, in any labelling."""
        return self.multiplicity(self.space.canonicalize(archs)) > 0

    def multiplicity(self, archs: Archs) -> IntArray:
        """Return the `(n,)` number of pairs (form of the network, form of a centre) within the centre's radius."""
        out = np.zeros(len(archs), np.int64)
        at_once = max(1, FORM_CELLS // max(1, self.space.variants(archs[:1]).size))
        for lo in range(0, len(archs), at_once):
            part = slice(lo, lo + at_once)
            out[part] = self._multiplicity(self.space.variants(archs[part]))
        return out

    def _multiplicity(self, forms: Archs) -> IntArray:
        """Return the multiplicity of the networks with the `(n, k, genome_len)` forms."""
        centres, owner = self._forms
        radii = self.radii[owner].astype(np.int16)
        differing = forms[:, :, (forms != forms[:, :1]).any(axis=(0, 1))]
        out = np.zeros(len(forms), np.int64)
        step = max(1, PAIRS // len(centres))
        for i in range(forms.shape[1]):
            # Count repeated forms of a network once.
            is_new = ~(differing[:, :i] == differing[:, i : i + 1]).all(axis=2).any(axis=1)
            rows = np.flatnonzero(is_new)
            for lo in range(0, len(rows), step):
                part = rows[lo : lo + step]
                out[part] += (distances(forms[part, i], centres) <= radii).sum(axis=1)
        return out

    # -- sampling --------------------------------------------------------------------------------
    def sample(self, n: int, rng: Generator) -> Archs:
        """Draw `n` networks, independent and uniform over the union."""
        found = np.empty((0, self.space.genome_len), np.int8)
        while len(found) < n:
            rows, weight = self._weighted(2 * (n - len(found)) + 64, rng)
            found = np.concatenate([found, rows[rng.random(len(rows)) < weight]])
        return found[:n]

    def _weighted(self, n: int, rng: Generator) -> tuple[Archs, FloatArray]:
        """Draw rows from balls in proportion to their volume; return canonical rows and their `(n,)` weights,
        1 / multiplicity or 0 if a row is not a valid network."""
        forms, owner = self._forms
        at = np.searchsorted(np.cumsum(self._volumes), rng.random(n) * self._volumes.sum(), side="right")
        at = np.minimum(at, len(forms) - 1)
        rows, ok = self.space.networks(draw_within(self.space, forms[at], self.radii[owner[at]], rng))
        weight = ok.astype(np.float64)
        weight[ok] /= self.multiplicity(rows[ok])
        return rows, weight

    # -- size ------------------------------------------------------------------------------------
    @cached_property
    def size(self) -> Size:
        """The number of networks in the union.

        Exact if the balls are disjoint or the space can be listed. Otherwise estimated, with Hoeffding's interval
        for the mean of independent numbers in [0, 1], which holds for any union.
        """
        if self.space.free and self._disjoint:
            return Size(self.volume, self.volume, self.volume)
        if self.space.size_exact and self.space.size() <= LISTABLE:
            exact = int(self.contains(self.space.enumerate()).sum())
            return Size(exact, exact, exact)
        pairs_per_draw = len(self._forms[0]) * self.space.variants(self.centres[:1]).shape[1]
        n = min(MAX_DRAWS, max(1_000, MAX_PAIRS // pairs_per_draw))
        rng = stream(0, "size of balls", self.space.name)
        mean = sum(float(self._weighted(min(n - lo, 1 << 16), rng)[1].sum()) for lo in range(0, n, 1 << 16)) / n
        error = math.sqrt(math.log(2 / (1 - CONFIDENCE)) / (2 * n))
        # The union has at least the rows of the largest ball, if all of them are distinct networks.
        largest = float(self._volumes.max()) if self.space.free else 0.0
        low = max(mean - error, largest / self.volume)
        return Size(
            round(mean * self.volume), math.floor(low * self.volume), math.ceil(min(1.0, mean + error) * self.volume)
        )

    @cached_property
    def _disjoint(self) -> bool:
        centres, radii = self.centres, self.radii
        step = max(1, PAIRS // len(centres))
        for lo in range(0, len(centres), step):
            near = distances(centres[lo : lo + step], centres) <= radii[lo : lo + step, None] + radii
            near[np.arange(len(near)), lo + np.arange(len(near))] = False
            if near.any():
                return False
        return True


def distances(a: Archs, b: Archs) -> NDArray[np.int16]:
    """Return the `(len(a), len(b))` numbers of positions at which rows differ (Hamming distance)."""
    out = np.zeros((len(a), len(b)), np.int16)
    for i in range(a.shape[1]):
        out += a[:, i, None] != b[:, i]
    return out


def ball_volume(space: ChoiceSpace, radius: int) -> int:
    """Return the exact number of rows that differ from a row at `radius` positions at most."""
    return sum(_ways(space)[0][: radius + 1])


def draw_within(space: ChoiceSpace, centres: Archs, radii: IntArray, rng: Generator) -> Archs:
    """Draw a row for each centre, uniform over the rows within its radius."""
    ways = _ways(space)
    width = int(radii.max()) + 1
    table = np.array([[float(w) for w in row[:width]] + [0.0] * (width - len(row)) for row in ways])
    # Draw how many positions change, in proportion to the number of such rows.
    total = np.cumsum(table[0])
    left = np.searchsorted(total, rng.random(len(centres)) * total[radii], side="right")
    left = np.minimum(left, radii)
    rows = centres.copy()
    for i in range(space.genome_len):
        # Change this position with the share that it has among the rows that change `left` positions from here on.
        others = float(space.radix[i] - 1) if i not in space.fixed else 0.0
        inside = others * table[i + 1][np.maximum(left - 1, 0)] * (left > 0)
        change = rng.random(len(rows)) * table[i][left] < inside
        step = rng.integers(1, max(2, int(space.radix[i])), len(rows))
        rows[:, i] = np.where(change, (rows[:, i] + step) % space.radix[i], rows[:, i])
        left -= change
    return rows


def _ways(space: ChoiceSpace) -> list[list[int]]:
    """Return `ways[i][j]`, the number of ways to change exactly j of the positions from i on."""
    ways = [[1]]
    for i in reversed(range(space.genome_len)):
        others = 0 if i in space.fixed else int(space.radix[i]) - 1
        after = ways[0]
        longer = [*after, 0]
        for j, count in enumerate(after):
            longer[j + 1] += others * count
        ways.insert(0, longer)
    return ways
