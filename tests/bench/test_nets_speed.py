"""Speed of drawing paths for one-shot training, in microseconds per path."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed (the extra `torch`)")

from lissnas import spaces
from lissnas.nets import samplers
from lissnas.nets.samplers import Sampler
from lissnas.spaces import Archs

pytestmark = pytest.mark.bench

N = 1_000_000
DRAWS = 2_000


@pytest.fixture(scope="module")
def members() -> Archs:
    return spaces.get("mobilenet").sample(N, np.random.default_rng(0))


def microseconds(sampler: Sampler) -> float:
    """Return the time per path in microseconds, the best of five runs."""
    best = np.inf
    for _ in range(5):
        start = time.perf_counter()
        n = sum(len(sampler(step)) for step in range(DRAWS))
        best = min(best, (time.perf_counter() - start) / n)
    return 1e6 * float(best)


def balanced(members: Archs) -> Sampler:
    return samplers.balanced(members, spaces.get("mobilenet").costs(members)["params"].astype(np.float64), 0)


@pytest.mark.parametrize("make", [lambda members: samplers.over_set(members, 0), balanced], ids=["uniform", "balanced"])
def test_drawing_a_path_from_a_million_members_takes_at_most_20_microseconds(
    make: Callable[[Archs], Any], members: Archs
) -> None:
    took = microseconds(make(members))
    print(f"\n{took:.1f} microseconds per path from {N:,} members")
    assert took < 20
