"""Speed as ratios to a plain reference in the same run, so that a slow machine changes nothing."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lissnas import benchmarks, spaces
from lissnas.predictor import Predictor
from lissnas.spaces.cell import N_EDGES, adjacency
from lissnas.stages.shrink import shrink_stage

pytestmark = pytest.mark.bench


def seconds(work: Callable[[], Any], times: int = 3) -> float:
    best = np.inf
    for _ in range(times):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return float(best)


def reference_hash(matrix: Any, labels: list[int]) -> str:
    """The published fingerprint: neighbours' digests folded in as often as there are vertices."""

    def md5(text: str) -> str:
        return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()

    n = len(labels)
    out, into = matrix.sum(axis=1).tolist(), matrix.sum(axis=0).tolist()
    digests = [md5(str((out[v], into[v], labels[v]))) for v in range(n)]
    for _ in range(n):
        digests = [
            md5(
                "".join(sorted(digests[w] for w in range(n) if matrix[w, v]))
                + "|"
                + "".join(sorted(digests[w] for w in range(n) if matrix[v, w]))
                + "|"
                + digests[v]
            )
            for v in range(n)
        ]
    return md5(str(sorted(digests)))


def hashes_per_second() -> float:
    space = spaces.get("nasbench101")
    archs = space.sample(1_000, np.random.default_rng(0))
    matrices = adjacency(archs)
    labels = [[-1, *row.tolist(), -2] for row in archs[:, N_EDGES:]]
    return 1_000 / seconds(lambda: [reference_hash(m, row) for m, row in zip(matrices, labels, strict=True)])


def test_keys_and_neighbors_of_nasbench101() -> None:
    space = spaces.get("nasbench101")
    archs = space.sample(200_000, np.random.default_rng(0))
    reference = hashes_per_second()
    keys = len(archs) / seconds(lambda: space.key(archs))
    few = archs[:20_000]
    n_neighbors = len(space.neighbors(few)[0])
    neighbors = n_neighbors / seconds(lambda: space.neighbors(few))
    print(f"\nhash {reference:,.0f}/s, keys {keys:,.0f}/s ({keys / reference:.0f}x), ", end="")
    print(f"keyed neighbours {neighbors:,.0f}/s ({neighbors / reference:.0f}x)")
    assert keys > 60 * reference
    assert neighbors > 30 * reference


def test_predictor_rows(make_params: Any) -> None:
    table = benchmarks.get("nasbench101")
    rows = table.space.sample(100_000, np.random.default_rng(0))
    model = Predictor.fit(table.space, rows[:1_000], table(rows[:1_000]), make_params().predictor, 0)
    rate = len(rows) / seconds(lambda: model.score(rows, threads=1))
    print(f"\npredictor, encoding included: {rate:,.0f} rows/s on one core")
    assert rate > 100_000


@pytest.mark.parametrize(("name", "limit"), [("nasbench101", 20), ("transnas/class_scene", 5), ("nas_bench_macro", 5)])
def test_whole_shrink(name: str, limit: float, make_params: Any, tmp_path: Path) -> None:
    table = benchmarks.get(name)
    start = time.perf_counter()
    shrink_stage(make_params(), table, 0, tmp_path / "r", threads=1)
    took = time.perf_counter() - start
    print(f"\n{name}: {took:.1f} s, files and pictures included")
    assert took < limit
