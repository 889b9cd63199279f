"""A shrunk space: part of a space that can be counted, sampled, listed and asked for membership."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
from numpy.random import Generator

from lissnas.errors import UserError
from lissnas.spaces import Archs, Keys, Space
from lissnas.spaces.base import LISTABLE, BoolArray, is_in
from lissnas.spaces.choices import ChoiceSpace


@dataclass(frozen=True)
class Subspace:
    """Either an explicit set of architectures, or a product of the choices that are left.

    A set has `listed`, `(n, genome_len)` canonical rows, each once. A product has `allowed`,
    `(n_slots, most choices)`: an architecture is in it when all its choices are allowed, a decision
    that does not arise counting as allowed (`Space.slots`).
    """

    space: Space
    listed: Archs | None = None
    allowed: BoolArray | None = None

    def __post_init__(self) -> None:
        if (self.listed is None) == (self.allowed is None):
            raise UserError("a subspace is either a list of architectures or a product of choices")

    @property
    def kind(self) -> str:
        """``set`` or ``product``."""
        return "set" if self.allowed is None else "product"

    @cached_property
    def members(self) -> Archs:
        """All members, best first in a set; raises UserError for a product too large to list."""
        if self.listed is not None:
            return self.listed
        rows, slots = listing(self.space)
        return rows[self._permits(slots)]

    @cached_property
    def _sorted_keys(self) -> Keys:
        keys = np.sort(self.space.key(self.members))
        if (keys[1:] == keys[:-1]).any():
            raise UserError(f"a subspace of {self.space.name} lists an architecture twice")
        return keys

    @property
    def _free(self) -> bool:
        """Whether a product's size is a product of counts, and its positions independent."""
        return self.listed is None and isinstance(self.space, ChoiceSpace) and self.space.free

    def _permits(self, slots: Archs) -> BoolArray:
        assert self.allowed is not None
        at = np.arange(slots.shape[1])
        return np.asarray(((slots < 0) | self.allowed[at, slots]).all(axis=1))

    def size(self) -> int:
        """Return the exact number of members; raises UserError for one that can't be counted."""
        if self._free:
            assert self.allowed is not None
            return math.prod(int(n) for n in self.allowed.sum(axis=1))
        return len(self.members)

    def contains(self, archs: Archs) -> BoolArray:
        """Return `(n,)`: which architectures are members, whatever their labelling."""
        if self.allowed is None:
            return is_in(self.space.key(archs), self._sorted_keys)
        return self._permits(self.space.slots(self.space.canonical(archs)))

    def sample(self, n: int, rng: Generator) -> Archs:
        """Draw `n` members, independent and uniform."""
        if not self.size():
            raise UserError(f"an empty subspace of {self.space.name} can't be sampled")
        if self._free and self.space.size() > LISTABLE:
            assert self.allowed is not None
            columns = [rng.choice(np.flatnonzero(choices), n) for choices in self.allowed]
            return np.stack(columns, axis=1).astype(np.int8)
        return self.members[rng.integers(0, self.size(), n)]

    def describe(self) -> Mapping[str, Any]:
        """Return what `subspace.json` holds."""
        return {"kind": self.kind, "space": self.space.name, "size": self.size(), "size_exact": True}


@cache
def listing(space: Space) -> tuple[Archs, Archs]:
    """Return every architecture of a space and its choices, once a process."""
    rows = space.enumerate()
    return rows, space.slots(rows)
