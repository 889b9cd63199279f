"""Speed as ratios to a plain reference in the same run, so that results don't depend on the machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nasbench_pytorch.model.graph_util import hash_module
from scipy.spatial.distance import cdist
from scipy.stats import ks_2samp

from lissnas import benchmarks, shrinkers, spaces
from lissnas.metrics.diversity import DiversityReference
from lissnas.metrics.locality import ANY, pairs
from lissnas.metrics.quality import edf_auc, error_window, ks
from lissnas.oracles.base import CountedOracle
from lissnas.predictors.accuracy import Predictor
from lissnas.shrinkers.comparison import FullSpaceStatistics, start_comparison
from lissnas.shrinkers.problem import Source
from lissnas.spaces import Archs, FloatArray
from lissnas.spaces.cell import adjacency
from lissnas.spaces.cell_notation import N_EDGES, V
from lissnas.spaces.nasbench101 import NASBench101
from lissnas.stages.shrink import shrink_stage

pytestmark = pytest.mark.bench


def seconds(work: Callable[[], Any], times: int = 3) -> float:
    best = np.inf
    for _ in range(times):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return float(best)


def hashes_per_second() -> float:
    """Return the rate of the published hash, in a public package that implements it without TensorFlow."""
    space = spaces.get("nasbench101")
    archs = space.sample(1_000, np.random.default_rng(0))
    matrices = adjacency(archs)
    labels = [[-1, *row.tolist(), -2] for row in archs[:, N_EDGES:]]
    return 1_000 / seconds(lambda: [hash_module(m, row) for m, row in zip(matrices, labels, strict=True)])


def test_enumerating_nasbench101_without_cache() -> None:
    took = seconds(lambda: NASBench101().size(), 1)
    print(f"\nNAS-Bench-101 enumerated without cache in {took:.2f} s")
    assert NASBench101().size() == 423_624
    assert took < 5


def test_keys_and_neighbors_of_nasbench101() -> None:
    space = spaces.get("nasbench101")
    archs = space.sample(200_000, np.random.default_rng(0))
    reference = hashes_per_second()
    keys = len(archs) / seconds(lambda: space.key(archs))
    few = archs[:20_000]
    n_neighbors = len(space.neighbors(few)[0])
    neighbors = n_neighbors / seconds(lambda: space.neighbors(few))
    print(f"\nhash {reference:,.0f}/s, keys {keys:,.0f}/s ({keys / reference:.0f}x), ", end="")
    print(f"keyed neighbors {neighbors:,.0f}/s ({neighbors / reference:.0f}x)")
    assert keys > max(60 * reference, 500_000)
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
    shrink_stage(make_params(), Source.of(table), 0, tmp_path / "r", threads=1)
    took = time.perf_counter() - start
    print(f"\n{name}: {took:.1f} s, files and pictures included")
    assert took < limit


# -- pairs at exact distance -----------------------------------------------------------------------
def plain_fingerprint(matrix: Any, labels: list[int]) -> str | None:
    """Return the hash of a pruned cell; None if no path leads to the output or it has over nine edges."""
    ahead, back = np.zeros(V, bool), np.zeros(V, bool)
    ahead[0] = back[-1] = True
    for v in range(V - 1):
        ahead |= ahead[v] & matrix[v].astype(bool)
    for v in reversed(range(1, V)):
        back |= back[v] & matrix[:, v].astype(bool)
    used = np.flatnonzero(ahead & back)
    kept = matrix[np.ix_(used, used)]
    if not (ahead & back)[0] or kept.sum() > 9:
        return None
    return str(hash_module(kept, [labels[v] for v in used]))


def plain_edits(matrix: Any, labels: list[int], slots: list[int], rng: np.random.Generator) -> tuple[Any, list[int]]:
    """Return a copy with the edge at each slot flipped, or the operation changed."""
    matrix, labels = matrix.copy(), labels.copy()
    tails, heads = np.triu_indices(V, 1)
    for slot in slots:
        if slot < N_EDGES:
            matrix[tails[slot], heads[slot]] ^= 1
        else:
            v = slot - N_EDGES + 1
            labels[v] = int((labels[v] + rng.integers(1, 3)) % 3)
    return matrix, labels


def plain_pair(matrix: Any, labels: list[int], distance: int, rng: np.random.Generator) -> None:
    """Draw edits until they give another cell, which for two edits must not be reachable by one."""
    near = {plain_fingerprint(matrix, labels), None}
    if distance == 2:
        for slot in (*range(N_EDGES), *range(N_EDGES, N_EDGES + V - 2), *range(N_EDGES, N_EDGES + V - 2)):
            near.add(plain_fingerprint(*plain_edits(matrix, labels, [slot], rng)))
    while True:
        slots = rng.permutation(N_EDGES + V - 2)[:distance].tolist()
        if plain_fingerprint(*plain_edits(matrix, labels, slots, rng)) not in near:
            return


def test_pairs_at_exact_distance() -> None:
    table, rng = benchmarks.get("nasbench101"), np.random.default_rng(0)
    pairs(table.space, table, 2, ANY, 100, rng)  # builds the look-up tables of the space
    archs = table.space.sample(100, rng)
    cells = [*zip(adjacency(archs), ([-1, *row, -2] for row in archs[:, N_EDGES:].tolist()), strict=True)]
    print()
    for distance, few, min_ratio in ((1, 100, 40), (2, 25, 250)):

        def plain(distance: int = distance, few: int = few) -> None:
            for matrix, labels in cells[:few]:
                plain_pair(matrix, labels, distance, rng)

        reference = few / seconds(plain, 1)
        rate = 20_000 / seconds(partial(pairs, table.space, table, distance, ANY, 20_000, rng), 2)
        print(f"pairs at distance {distance}: plain {reference:,.0f}/s, ours {rate:,.0f}/s ({rate / reference:,.0f}x)")
        assert rate > min_ratio * reference
    took = seconds(partial(pairs, table.space, table, 3, ANY, 20_000, rng), 1)
    print(f"20,000 pairs at distance 3: {took:.1f} s")
    assert took < 10


# -- metrics of a space ----------------------------------------------------------------------------
def plain_measures(rows: Archs, values: FloatArray, full: FloatArray, reference: DiversityReference) -> None:
    """Compute KS, the area under the error distribution, distances and histograms with plain numpy and scipy."""
    ks_2samp(values, full, method="asymp")
    errors = np.sort(full.max() - values)
    window = full.max() - np.quantile(full, 0.05)
    share = np.arange(1, len(errors) + 1) / len(errors)
    inside = errors < window
    edges = np.append(errors[inside], window)
    (np.diff(edges) * share[inside]).sum()
    features = reference.embed(rows[:1_000])
    for metric in ("cosine", "euclidean"):
        distance = cdist(features, features, metric)
        distance.max(), distance.mean(), np.partition(distance, 1, axis=1)[:, 1].mean()
    for name, part in reference.space.costs(rows).items():
        whole = reference.costs[name]
        ends = (whole.min(), whole.max())
        np.abs(np.histogram(part, 20, ends)[0] - np.histogram(whole, 20, ends)[0]).sum()
        ks_2samp(part, whole, method="asymp")


def test_measures_of_50_000_rows() -> None:
    table = benchmarks.get("nasbench101")
    reference, full = DiversityReference.of(table.space), table.values
    rows = table.space.sample_distinct(50_000, np.random.default_rng(0))
    values, window = table(rows), error_window(full)

    def ours() -> None:
        ks(values, full)
        edf_auc(values, table.best, window)
        reference.measure(rows, np.random.default_rng(0))

    plain, own = seconds(partial(plain_measures, rows, values, full, reference)), seconds(ours)
    print(f"\nKS, EDF and diversity of 50,000 rows: numpy and scipy {plain:.2f} s, ours {own:.2f} s")
    assert own < 2 * plain


# -- rivals ----------------------------------------------------------------------------------------
def test_rivals_on_nasbench101(make_params: Any) -> None:
    table = benchmarks.get("nasbench101")
    comparison_run = start_comparison(FullSpaceStatistics.of(table), make_params(), 0, 1)

    def score(archs: Archs) -> FloatArray:
        return comparison_run.predictor.score(archs, 1)

    took = {"lissnas": comparison_run.seconds}
    for name, shrinker in ((name, one.rival) for name, one in shrinkers.METHODS.items()):
        if shrinker is None:
            continue
        budget = table.space.size() if name == "score_all" else comparison_run.budget
        oracle = CountedOracle(score, table.space, budget)
        start = time.perf_counter()
        shrinker(table.space, oracle, comparison_run.target, np.random.default_rng(0)).size()
        took[name] = time.perf_counter() - start
    everything = took["score_all"]
    print(f"\nscoring all of nasbench101 takes {everything:.1f} s; as shares of that:")
    print(", ".join(f"{name} {t / everything:.2f}" for name, t in took.items()))
    slow = [name for name, t in took.items() if t > 5 * everything]
    assert not slow
    assert took["lissnas"] < everything
