"""A shrunk space: part of a space that can be counted, sampled and asked for membership."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.random import Generator

from lissnas.errors import UserError
from lissnas.spaces import Archs, Keys, Space
from lissnas.spaces.base import BoolArray, is_in


@dataclass(frozen=True)
class Subspace:
    """An explicit set of architectures of a space, each listed once."""

    space: Space
    members: Archs
    kind: str = "set"

    def size(self) -> int:
        """Return the exact number of members."""
        return len(self.members)

    @cached_property
    def _sorted_keys(self) -> Keys:
        keys = np.sort(self.space.key(self.members))
        if (keys[1:] == keys[:-1]).any():
            raise UserError(f"a subspace of {self.space.name} lists an architecture twice")
        return keys

    def contains(self, archs: Archs) -> BoolArray:
        """Return `(n,)`: which architectures are members, whatever their labelling."""
        return is_in(self.space.key(archs), self._sorted_keys)

    def sample(self, n: int, rng: Generator) -> Archs:
        """Draw `n` members, independent and uniform."""
        if not self.size():
            raise UserError(f"an empty subspace of {self.space.name} can't be sampled")
        return self.members[rng.integers(0, self.size(), n)]

    def describe(self) -> Mapping[str, Any]:
        """Return what `subspace.json` holds."""
        return {"kind": self.kind, "space": self.space.name, "size": self.size(), "size_exact": True}
