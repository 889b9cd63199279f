"""lissnas: locality-based iterative search space shrinkage for neural architecture search.

    import lissnas

    table = lissnas.benchmark("nas_bench_macro")
    result = lissnas.shrink(table.space, oracle=table)
    print(result.subspace.size(), result.metrics["mean_true"])

Everything is loaded when it is first used.
"""

# ruff: noqa: F403, F405
from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

# Idle OpenMP threads sleep instead of spinning, which would bring fits to a standstill on a busy machine. It has to be
# set before a library loads its runtime; a setting of the user's own wins.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from lissnas.version import __version__

if TYPE_CHECKING:
    from lissnas.api import *

__all__ = [
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
