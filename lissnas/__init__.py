"""lissnas: locality-based iterative search space shrinkage for neural architecture search.

    import lissnas

    table = lissnas.benchmark("nas_bench_macro")
    result = lissnas.shrink(table.space, oracle=table)
    print(result.subspace.size(), result.metrics["mean_true"])

Submodules are loaded on first use.
"""

# ruff: noqa: F403, F405
from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

# Idle OpenMP threads sleep instead of spinning, since spinning stalls fits on a busy machine. This has to be set before
# a library loads the OpenMP runtime; an existing setting takes precedence.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from lissnas.version import __version__

if TYPE_CHECKING:
    from lissnas.api import *

__all__ = [
    "SearchResult",
    "ShrinkResult",
    "Space",
    "Study",
    "Subspace",
    "__version__",
    "benchmark",
    "by_name",
    "by_rows",
    "load_result",
    "read_space",
    "search",
    "shrink",
    "space",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'lissnas' has no attribute {name!r}")
    from lissnas import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
