"""Shrinkers: from a space and someone who judges architectures to a smaller space.

The rivals share one signature, so that anyone can add one: `(space, oracle, target, rng)` in, a
`Subspace` out. The oracle counts and caps what it is asked (`oracle.left`), and higher is better.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from numpy.random import Generator

from lissnas.core.errors import UnknownName
from lissnas.oracles.base import CountedOracle
from lissnas.shrinkers import abs as abs_
from lissnas.shrinkers import dds, greedynas, greedynas_v2, naive, nse, padnas
from lissnas.spaces import Space
from lissnas.spaces.subspace import Subspace

Shrinker: TypeAlias = Callable[[Space, CountedOracle, int, Generator], Subspace]

RIVALS: dict[str, Shrinker] = {
    "abs": abs_.shrink,
    "nse": nse.shrink,
    "padnas": padnas.shrink,
    "greedynas": greedynas.shrink,
    "greedynas_v2": greedynas_v2.shrink,
    "dds": dds.shrink,
    "top30": naive.top_share(30),
    "top20": naive.top_share(20),
    "top10": naive.top_share(10),
    "top5": naive.top_share(5),
    "no_neighbors": naive.no_neighbors,
    "flops": naive.costliest("flops"),
    "params": naive.costliest("params"),
    "score_all": naive.score_all,
}
"""Every method but our own variants, by name."""


def get(name: str) -> Shrinker:
    """Return the rival of that name; raises UnknownName."""
    if name not in RIVALS:
        raise UnknownName("method", name, RIVALS)
    return RIVALS[name]
