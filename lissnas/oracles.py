"""Who answers "how good is it": any callable from architectures to values, higher is better."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from lissnas.errors import LissnasError
from lissnas.spaces import Archs, FloatArray, Space

Oracle: TypeAlias = Callable[[Archs], FloatArray]
"""Gives `(n,)` values for `(n, genome_len)` architectures: a table, training, a user's function."""


def ask(oracle: Oracle, space: Space, archs: Archs) -> FloatArray:
    """Return the oracle's values, checked; raises LissnasError that names the architecture."""
    values = np.asarray(oracle(archs), np.float64)
    if values.shape != (len(archs),):
        raise LissnasError(f"the oracle gave values of shape {values.shape} for {len(archs)} architectures")
    bad = ~np.isfinite(values)
    if bad.any():
        at = int(np.argmax(bad))
        name = space.format(archs[at : at + 1])[0]
        raise LissnasError(
            f"the oracle gave {values[at]} for {name} (and {int(bad.sum()) - 1} more that are not finite); "
            "give failed trainings a low finite value, or leave them out"
        )
    return values
