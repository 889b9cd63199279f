"""A shrunk space: a subset of a space that can be counted, sampled and, unless too large, listed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
from numpy.random import Generator

from lissnas.core.errors import UserError
from lissnas.spaces import Archs, IntArray, Keys, Space
from lissnas.spaces.balls import CONFIDENCE, Balls
from lissnas.spaces.base import LISTABLE, BoolArray, is_in
from lissnas.spaces.choices import ChoiceSpace


@dataclass(frozen=True)
class Subspace:
    """A set of architectures, a product of the remaining choices, or a union of balls.

    A set has `listed`, distinct `(n, genome_len)` canonical rows. A product has `allowed`, a
    `(n_slots, max_choices)` mask: its members are the architectures whose choices are all allowed,
    ignoring decisions that they don't have (`Space.slots`). A union of `balls` is never listed.

    Example:
        >>> import lissnas
        >>> space = lissnas.space("nas_bench_macro")
        >>> part = lissnas.Subspace(space, listed=space.parse(["22212220", "00001111"]))
        >>> part.size(), part.contains(space.parse(["00001111", "11111111"])).tolist()
        (2, [True, False])
    """

    space: Space
    listed: Archs | None = None
    allowed: BoolArray | None = None
    balls: Balls | None = None

    def __post_init__(self) -> None:
        if sum(part is not None for part in (self.listed, self.allowed, self.balls)) != 1:
            raise UserError("a subspace needs exactly one of listed, allowed (a product of choices) and balls")

    @property
    def kind(self) -> str:
        """``set``, ``product`` or ``balls``."""
        return "set" if self.listed is not None else "product" if self.allowed is not None else "balls"

    @cached_property
    def members(self) -> Archs:
        """All members, best first in a set; raises UserError for balls, or a product that is too large to list."""
        if self.listed is not None:
            return self.listed
        if self.balls is not None:
            raise UserError(f"a union of balls of {self.space.name} is not listed ({self.size():,} architectures)")
        rows, slots = listing(self.space)
        return rows[self._permits(slots)]

    @cached_property
    def _by_key(self) -> tuple[Keys, IntArray]:
        """The members' keys, ascending, and the index of the member of each key."""
        keys = self.space.key(self.members)
        order = np.argsort(keys)
        keys = keys[order]
        if (keys[1:] == keys[:-1]).any():
            raise UserError(f"a subspace of {self.space.name} lists an architecture twice")
        return keys, order

    def _permits(self, slots: Archs) -> BoolArray:
        assert self.allowed is not None
        allowed = np.c_[self.allowed, np.ones(len(self.allowed), bool)]  # an absent decision, -1, is the last column
        kept = np.arange(len(slots))
        for position in np.flatnonzero(~self.allowed.all(axis=1)):
            kept = kept[allowed[position, slots[kept, position]]]
        out = np.zeros(len(slots), bool)
        out[kept] = True
        return out

    def size(self) -> int:
        """Return the number of members, an estimate if balls overlap; raises UserError if it can't be counted."""
        if self.balls is not None:
            return self.balls.size.value
        if self.allowed is not None and isinstance(self.space, ChoiceSpace):
            counted = self.space.count_product(self.allowed)
            if counted is not None:
                return counted
        if self.allowed is not None and self.space.size() > LISTABLE:
            raise UserError(
                f"{self.space.name} is too large to list, and products of its choices can't be counted: "
                "methods that drop choices (abs, nse, padnas) can't shrink it"
            )
        return len(self.members)

    def contains(self, archs: Archs) -> BoolArray:
        """Return an `(n,)` mask of the architectures that are members, in any labelling."""
        if self.balls is not None:
            return self.balls.contains(archs)
        if self.allowed is None:
            keys, (known, order) = self.space.key(archs), self._by_key
            found = is_in(keys, known)
            if self.space.size() > 1 << 64:  # two networks may share a key
                at = order[np.searchsorted(known, keys[found])]
                found[found] = (self.space.canonicalize(archs[found]) == self.members[at]).all(axis=1)
            return found
        return self._permits(self.space.slots(self.space.canonicalize(archs)))

    def sample(self, n: int, rng: Generator) -> Archs:
        """Draw `n` members, independent and uniform."""
        if self.balls is not None:
            return self.balls.sample(n, rng)
        if not self.size():
            raise UserError(f"an empty subspace of {self.space.name} can't be sampled")
        if self.allowed is not None and self.space.size() > LISTABLE:
            assert isinstance(self.space, ChoiceSpace), "size() raises for other spaces"
            return self.space.sample_product(self.allowed, n, rng)
        return self.members[rng.integers(0, self.size(), n)]

    def describe(self) -> Mapping[str, Any]:
        """Return the content of `subspace.json`; an estimated size has an interval."""
        about = {"kind": self.kind, "space": self.space.name, "size": self.size(), "size_exact": True}
        if self.balls is not None and not (size := self.balls.size).exact:
            about |= {"size_exact": False, "size_low": size.low, "size_high": size.high, "confidence": CONFIDENCE}
        return about


@cache
def listing(space: Space) -> tuple[Archs, Archs]:
    """Return every architecture of a space and their slots, cached."""
    rows = space.enumerate()
    return rows, space.slots(rows)
