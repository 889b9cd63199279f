"""Unions of balls: shrunk spaces of a billion networks that are never listed.

A ball is a centre and all networks at most a radius of edits away. Networks in several balls count
once, so neither the size nor a uniform draw follows from the balls alone. Both come from how many balls
a network lies in (Karp and Luby, 1983): draw a ball by its volume and a row within it, and keep the row
with a probability of one over that number; what is kept is uniform over the union, and the mean of one
over that number, times the volume of all balls, is the union's size.
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
"""Pairs of a row and a centre that are compared at once."""
DRAWS = 1 << 29
"""Pairs compared to measure a size, so that the time is bounded; at most `MOST_DRAWS` rows."""
MOST_DRAWS = 1_000_000
CONFIDENCE = 0.999
"""Of the interval of a measured size."""


class Size(NamedTuple):
    """A number of networks: exact, or measured with an interval that holds with probability `CONFIDENCE`."""

    value: int
    low: int
    high: int

    @property
    def exact(self) -> bool:
        """Whether it is counted and not measured."""
        return self.low == self.high


@dataclass(frozen=True)
class Balls:
    """A union of balls in a product space.

    `centres` are `(k, genome_len)` canonical rows, `radii` their `(k,)` largest edit distances. In a space
    where several rows are the same network, distance is the least between any of their forms.
    """

    space: ChoiceSpace
    centres: Archs
    radii: IntArray

    def __post_init__(self) -> None:
        if not len(self.centres) or len(self.centres) != len(self.radii):
            raise UserError(
                f"balls: {len(self.centres)} centres and {len(self.radii)} radii; expected as many, and some"
            )
        if (self.radii < 0).any():
            raise UserError("balls: a radius is negative")
        self.space.key(self.centres)  # checks that they are networks

    @cached_property
    def _forms(self) -> tuple[Archs, IntArray]:
        """The different forms of the centres that count, and the centre of each."""
        forms = self.space.centre_forms(self.centres)
        flat = forms.reshape(-1, forms.shape[2])
        owner = np.repeat(np.arange(len(forms)), forms.shape[1])
        _, first = np.unique(np.column_stack([owner, flat]), axis=0, return_index=True)
        first.sort()
        return flat[first], owner[first]

    @cached_property
    def _volumes(self) -> FloatArray:
        """Rows in the ball round each form."""
        _, owner = self._forms
        by_radius = {r: float(ball_volume(self.space, r)) for r in np.unique(self.radii).tolist()}
        return np.array([by_radius[r] for r in self.radii[owner].tolist()])

    @property
    def volume(self) -> int:
        """The sum of all balls' rows: what the union has at most, exact."""
        _, owner = self._forms
        radii, count = np.unique(self.radii[owner], return_counts=True)
        return sum(int(n) * ball_volume(self.space, int(r)) for r, n in zip(radii, count, strict=True))

    # -- membership ------------------------------------------------------------------------------
    def contains(self, archs: Archs) -> BoolArray:
        """Return `(n,)`: which networks lie in a ball, whatever their labelling."""
        return self.multiplicity(self.space.canonicalize(archs)) > 0

    def multiplicity(self, archs: Archs) -> IntArray:
        """Return `(n,)`: how many pairs of a form of the network and one of a centre lie in a ball."""
        centres, owner = self._forms
        radii = self.radii[owner].astype(np.int16)
        forms = self.space.variants(archs)
        out = np.zeros(len(archs), np.int64)
        step = max(1, PAIRS // len(centres))
        for i in range(forms.shape[1]):
            # A form that came before under the same network is none of its own.
            fresh = ~(forms[:, :i] == forms[:, i : i + 1]).all(axis=2).any(axis=1)
            for lo in range(0, len(archs), step):
                part = slice(lo, lo + step)
                near = distances(forms[part, i], centres) <= radii
                out[part] += near.sum(axis=1) * fresh[part]
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
        """Draw rows of random balls by volume; return them in canonical form, each with one over its
        multiplicity, 0 where a row is no network."""
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

        Exact where the balls are disjoint or the space can be listed. Else measured; the interval is
        Hoeffding's, for the mean of independent numbers between 0 and 1, so it is proven for any union.
        """
        if self.space.free and self._disjoint:
            return Size(self.volume, self.volume, self.volume)
        if self.space.size_exact and self.space.size() <= LISTABLE:
            exact = int(self.contains(self.space.enumerate()).sum())
            return Size(exact, exact, exact)
        a_draw = len(self._forms[0]) * self.space.variants(self.centres[:1]).shape[1]
        n = min(MOST_DRAWS, max(1_000, DRAWS // a_draw))
        rng = stream(0, "size of balls", self.space.name)
        mean = sum(float(self._weighted(min(n - lo, 1 << 16), rng)[1].sum()) for lo in range(0, n, 1 << 16)) / n
        error = math.sqrt(math.log(2 / (1 - CONFIDENCE)) / (2 * n))
        # The largest ball alone, if all its rows are networks.
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
    """Return `(len(a), len(b))`: at how many positions rows differ."""
    out = np.zeros((len(a), len(b)), np.int16)
    for i in range(a.shape[1]):
        out += a[:, i, None] != b[:, i]
    return out


def ball_volume(space: ChoiceSpace, radius: int) -> int:
    """Return how many rows differ from a row at `radius` positions at most, an exact Python int."""
    return sum(_ways(space)[0][: radius + 1])


def draw_within(space: ChoiceSpace, centres: Archs, radii: IntArray, rng: Generator) -> Archs:
    """Draw for each centre a row that is uniform over those at most its radius away."""
    ways = _ways(space)
    most = int(radii.max())
    table = np.array([[float(w) for w in row[: most + 1]] + [0.0] * (most + 1 - len(row)) for row in ways])
    # How many positions change, by how many rows do so.
    total = np.cumsum(table[0])
    left = np.searchsorted(total, rng.random(len(centres)) * total[radii], side="right")
    left = np.minimum(left, radii)
    rows = centres.copy()
    for i in range(space.genome_len):
        # Of the rows that change `left` positions from here on, the share that changes this one.
        others = float(space.radix[i] - 1) if i not in space.fixed else 0.0
        inside = others * table[i + 1][np.maximum(left - 1, 0)] * (left > 0)
        change = rng.random(len(rows)) * table[i][left] < inside
        step = rng.integers(1, max(2, int(space.radix[i])), len(rows))
        rows[:, i] = np.where(change, (rows[:, i] + step) % space.radix[i], rows[:, i])
        left -= change
    return rows


def _ways(space: ChoiceSpace) -> list[list[int]]:
    """Return for each position i how many ways there are to change exactly j positions from i on."""
    ways = [[1]]
    for i in reversed(range(space.genome_len)):
        others = 0 if i in space.fixed else int(space.radix[i]) - 1
        after = ways[0]
        longer = [*after, 0]
        for j, count in enumerate(after):
            longer[j + 1] += others * count
        ways.insert(0, longer)
    return ways
