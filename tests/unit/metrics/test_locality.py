"""Locality: pairs at an exact distance, correlation, walks, threshold, and the stage's files."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from lissnas import artifacts, benchmarks, spaces
from lissnas.benchmarks import Benchmark
from lissnas.core.errors import DamagedFile, UserError
from lissnas.metrics.locality import (
    ANY,
    Pairs,
    autocorrelation,
    differences,
    is_last_distance,
    measure,
    pairs,
    sample_check,
    threshold,
    walk,
)
from lissnas.predictors.accuracy import Predictor
from lissnas.spaces import Archs, ChoiceSpace, FloatArray, Space
from lissnas.stages.locality import locality_stage, read_threshold

COLUMNS = [
    *("distance", "change", "n", "correlation", "correlation_low", "correlation_high"),
    *("aad", "aad_low", "aad_high", "aad_median"),
]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def drawn(name: str, distance: int, change: str, n: int) -> tuple[Archs, Archs]:
    """Return the architectures of the pairs, as the oracle receives them."""
    queried: list[Archs] = []

    def oracle(archs: Archs) -> FloatArray:
        queried.append(archs)
        return np.arange(len(archs), dtype=np.float64)

    found = pairs(spaces.get(name), oracle, distance, change, n, rng())
    left, right = np.split(np.concatenate(queried), 2)
    assert (found.distance, found.change) == (distance, change)
    assert found.a.tolist() == list(range(len(left)))
    assert found.b.tolist() == list(range(len(left), 2 * len(left)))
    return left, right


def correlated(n: int, rho: float, seed: int) -> Pairs:
    a, noise = rng(seed).normal(size=(2, n))
    return Pairs(1, ANY, a, rho * a + np.sqrt(1 - rho**2) * noise)


def benchmark_of(space: Space, values: Callable[[Archs], FloatArray], name: str = "made_up") -> Benchmark:
    rows = space.enumerate()
    return Benchmark(name, space, "score", "none", space.key(rows), np.asarray(values(rows), np.float64))


# -- pairs -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["nas_bench_macro", "transnas_micro", "transnas_macro", "transnas"])
@pytest.mark.parametrize("distance", [1, 2, 3, 4])
def test_pairs_are_at_exactly_the_distance(name: str, distance: int) -> None:
    space = spaces.get(name)
    assert isinstance(space, ChoiceSpace)
    left, right = drawn(name, distance, ANY, 2_000)
    assert len(left) > 1_900
    assert (space.distance(left, right) == distance).all()


def test_the_first_of_each_pair_is_a_uniform_sample() -> None:
    left, _ = drawn("nas_bench_macro", 2, ANY, 2_000)
    assert (left == spaces.get("nas_bench_macro").sample(2_000, rng())).all()


def test_pairs_at_one_edit_of_a_cell_are_neighbors() -> None:
    space = spaces.get("nasbench101")
    left, right = drawn("nasbench101", 1, ANY, 500)
    rows, parents = space.neighbors(left)
    keys = space.key(rows)
    near = {*zip(parents.tolist(), keys.tolist(), strict=True)}
    assert {*enumerate(space.key(right).tolist())} <= near


def test_pairs_at_two_edits_of_a_cell_are_not_neighbors() -> None:
    space = spaces.get("nasbench101")
    left, right = drawn("nasbench101", 2, ANY, 500)
    rows, parents = space.neighbors(left)
    near = {*zip(parents.tolist(), space.key(rows).tolist(), strict=True)}
    assert not {*enumerate(space.key(right).tolist())} & near


@pytest.mark.parametrize("distance", [1, 2, 3])
def test_changed_operations_keep_the_edges(distance: int) -> None:
    """The canonical edges of a cell depend only on its graph."""
    left, right = drawn("nasbench101", distance, "operation", 1_000)
    assert len(left) > 990
    assert (left[:, :21] == right[:, :21]).all()
    # A change at each of `distance` vertices: at most that many counts differ.
    for a, b in zip(left[:, 21:].tolist(), right[:, 21:].tolist(), strict=True):
        assert (Counter(a) - Counter(b)).total() <= distance


def test_changed_edges_keep_the_operations() -> None:
    """One edge is added or removed; a vertex that it disconnects is pruned with its operation."""
    space = spaces.get("nasbench101")
    left, right = drawn("nasbench101", 1, "edge", 1_000)
    for a, b in zip(space.format(left), space.format(right), strict=True):
        (edges_a, _, ops_a), (edges_b, _, ops_b) = a.partition("-"), b.partition("-")
        smaller, larger = sorted((ops_a, ops_b), key=len)
        assert not Counter(smaller) - Counter(larger)
        if len(ops_a) == len(ops_b):
            assert abs(edges_a.count("1") - edges_b.count("1")) == 1


def test_an_unknown_kind_of_change_lists_the_known_ones() -> None:
    table = benchmarks.get("nasbench101")
    with pytest.raises(UserError, match=r"'edges'.*Did you mean 'edge'\? Known: operation, edge"):
        pairs(table.space, table, 1, "edges", 10, rng())


def test_architectures_without_any_at_that_distance_are_omitted() -> None:
    """Two positions can't differ in three places."""
    space = ChoiceSpace("two", [2, 2])
    assert len(pairs(space, lambda archs: np.zeros(len(archs)), 2, ANY, 50, rng()).a) == 50
    assert len(pairs(space, lambda archs: np.zeros(len(archs)), 3, ANY, 50, rng()).a) == 0


# -- correlation and difference --------------------------------------------------------------------
@settings(max_examples=30)
@given(st.integers(3, 200), st.floats(-0.99, 0.99), st.integers(0, 1000), st.floats(0.01, 1e3), st.floats(-1e3, 1e3))
def test_a_row_equals_numpy_results(n: int, rho: float, seed: int, scale: float, shift: float) -> None:
    found = correlated(n, rho, seed)
    a, b = scale * found.a + shift, scale * found.b + shift
    row = measure(Pairs(2, "edge", a, b), 100, rng())
    assert list(row) == COLUMNS
    assert (row["distance"], row["change"], row["n"]) == (2, "edge", n)
    assert row["correlation"] == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-6)
    assert row["aad"] == pytest.approx(np.abs(a - b).mean())
    assert row["aad_median"] == pytest.approx(np.median(np.abs(a - b)))


def test_the_interval_contains_the_estimate_and_narrows_with_n() -> None:
    widths = []
    for n in (200, 2_000, 20_000):
        row = measure(correlated(n, 0.5, n), 500, rng())
        assert row["correlation_low"] < row["correlation"] < row["correlation_high"]
        assert row["aad_low"] < row["aad"] < row["aad_high"]
        widths.append(row["correlation_high"] - row["correlation_low"])
    # The standard error is (1 - rho^2) / sqrt(n): ten times as many pairs give a sqrt(10) times narrower interval.
    assert widths == pytest.approx([2 * 1.96 * 0.75 / np.sqrt(n) for n in (200, 2_000, 20_000)], rel=0.35)


def test_the_interval_has_its_nominal_coverage() -> None:
    rows = [measure(correlated(300, 0.6, seed), 300, rng(seed)) for seed in range(200)]
    covered = np.mean([r["correlation_low"] <= 0.6 <= r["correlation_high"] for r in rows])
    assert 0.88 <= covered <= 0.99
    truth = 2 / np.sqrt(np.pi) * np.sqrt(1 - 0.6)  # mean |a - b| of normals with that correlation
    assert 0.88 <= np.mean([r["aad_low"] <= truth <= r["aad_high"] for r in rows]) <= 0.99


@pytest.mark.parametrize("n", [2, 3, 5])
def test_a_few_pairs_give_finite_numbers_or_an_error(n: int) -> None:
    found = correlated(n, 0.5, 1)
    try:
        row = measure(found, 1_000, rng())
    except UserError:
        return
    assert all(np.isfinite(v) for k, v in row.items() if k != "change")
    assert -1 - 1e-9 <= row["correlation_low"] <= row["correlation_high"] <= 1 + 1e-9


@pytest.mark.parametrize(
    ("a", "b", "part"),
    [
        ([], [], "0 pairs"),
        ([1.0], [2.0], "1 pairs"),
        ([1.0, 1, 1], [1.0, 2, 3], "3 pairs without two different values on each side"),
        ([1.0, 2, 3], [93.1, 93.1, 93.1], r"distance 2 \(edge\): 3 pairs without two different values"),
    ],
)
def test_undefined_correlations_are_refused(a: list[float], b: list[float], part: str) -> None:
    with pytest.raises(UserError, match=part):
        measure(Pairs(2, "edge", np.array(a), np.array(b)), 100, rng())


@settings(max_examples=50)
@given(st.lists(st.integers(0, 400), min_size=2, max_size=300), st.integers(0, 1000))
def test_the_histogram_of_differences_counts_every_pair(hundredths: list[int], seed: int) -> None:
    gap = np.array(hundredths) / 100
    a = rng(seed).normal(90, 3, len(gap))
    rows = differences(Pairs(3, ANY, a, a + gap))
    assert {r["distance"] for r in rows} == {3}
    assert sum(r["n"] for r in rows) == len(gap)
    edges = [rows[0]["low"], *(r["high"] for r in rows)]
    assert edges[0] == 0
    assert all(x <= y for x, y in itertools.pairwise(edges))
    assert [r["low"] for r in rows[1:]] == [r["high"] for r in rows[:-1]]
    assert rows[-1]["n"] <= max(1, 0.03 * len(gap)) + 1


def test_nas_bench_macro_has_the_known_locality() -> None:
    table = benchmarks.get("nas_bench_macro")
    rows = [measure(pairs(table.space, table, d, ANY, 20_000, rng(d)), 200, rng(d)) for d in (1, 2, 3, 4)]
    assert [r["n"] for r in rows] == [20_000] * 4
    assert [r["correlation"] for r in rows] == pytest.approx([0.732, 0.504, 0.307, 0.138], abs=0.03)
    assert [r["aad"] for r in rows[:3]] == pytest.approx([1.08, 1.53, 1.86], abs=0.1)
    assert all(r["aad_median"] < r["aad"] for r in rows)


# -- walks -----------------------------------------------------------------------------------------
def test_each_step_of_a_walk_is_one_edit(make_params: Any) -> None:
    space = spaces.get("nas_bench_macro")
    assert isinstance(space, ChoiceSpace)
    config = make_params(locality__walks=7, locality__steps=30).locality
    visited = walk(space, lambda archs: space.key(archs).astype(np.float64), config, rng())
    assert visited.shape == (7, 31)
    rows = space.unkey(visited.astype(np.uint64).ravel()).reshape(7, 31, -1)
    assert (space.distance(rows[:, :-1].reshape(-1, 8), rows[:, 1:].reshape(-1, 8)) == 1).all()


@pytest.mark.parametrize("phi", [0.8, 0.3, -0.5])
def test_the_autocorrelation_of_an_autoregressive_process_is_a_power(phi: float) -> None:
    noise = rng().normal(size=(300, 201))
    values = np.empty_like(noise)
    values[:, 0] = noise[:, 0] / np.sqrt(1 - phi**2)
    for t in range(1, values.shape[1]):
        values[:, t] = phi * values[:, t - 1] + noise[:, t]
    rows = autocorrelation(90 + 2 * values, 5, 300, rng())
    assert [r["lag"] for r in rows] == [1, 2, 3, 4, 5]
    assert [r["rwa"] for r in rows] == pytest.approx([phi**lag for lag in range(1, 6)], abs=0.02)
    for r in rows:
        assert r["rwa_low"] < r["rwa"] < r["rwa_high"]
        assert r["rwa_low"] - 0.005 < phi ** r["lag"] < r["rwa_high"] + 0.005


def test_constant_walks_have_autocorrelation_one() -> None:
    values = np.repeat(np.arange(10.0)[:, None], 20, axis=1)
    assert [r["rwa"] for r in autocorrelation(values, 3, 100, rng())] == pytest.approx([1, 1, 1])


def test_lags_are_limited_by_the_length_of_the_walk() -> None:
    assert [r["lag"] for r in autocorrelation(rng().normal(size=(5, 4)), 99, 100, rng())] == [1, 2, 3]


@given(st.integers(0, 10_000).map(lambda n: n / 100))
def test_equal_values_along_walks_are_refused(value: float) -> None:
    """Also if rounding makes their mean differ from the value."""
    with pytest.raises(UserError, match="all values along the walks are equal"):
        autocorrelation(np.full((20, 30), value), 3, 100, rng())


# -- the threshold ---------------------------------------------------------------------------------
def row(distance: int, correlation: float, change: str = ANY, half: float = 0.01) -> dict[str, Any]:
    return {
        "distance": distance,
        "change": change,
        "correlation": correlation,
        "correlation_low": correlation - half,
        "correlation_high": correlation + half,
    }


@pytest.mark.parametrize(
    ("correlations", "max_edits", "expected", "first_weak"),
    [
        ([0.8, 0.5, 0.2], 26, 3, 3),  # weak before a third of all edits
        ([0.8, 0.5, 0.4], 6, 2, None),  # never weak: a third applies
        ([0.8, 0.5, 0.2], 6, 2, 3),  # a third is less than the first weak distance
        ([0.2, 0.1, 0.4], 8, 1, 1),  # weak at distance 1
        ([0.8, 0.5], 2, 1, None),  # a third of two edits rounds to 0; the minimum is 1
        ([0.3, 0.3, 0.3], 26, 8, None),  # .3 is not weak
    ],
)
def test_the_threshold_rule(correlations: list[float], max_edits: int, expected: int, first_weak: int | None) -> None:
    rows = [row(d, c) for d, c in enumerate(correlations, 1)]
    # Single kinds of change are ignored.
    found = threshold([*rows, row(1, 0.0, "edge"), row(2, 0.0, "operation")], max_edits)
    assert found["threshold_distance"] == expected
    assert found["max_edits"] == max_edits
    assert found["third_of_max_edits"] == max_edits // 3
    assert found["first_weak_distance"] == first_weak


@pytest.mark.parametrize(
    ("distance", "correlation", "last"),
    [(2, 0.1, False), (3, 0.1, True), (3, 0.295, False), (3, 0.5, False), (4, 0.9, True), (5, 0.2, True)],
)
def test_distances_are_measured_until_the_correlation_is_weak(
    make_params: Any, distance: int, correlation: float, last: bool
) -> None:
    assert is_last_distance(row(distance, correlation), make_params(locality__distances=3).locality) is last


# -- Appendix G ------------------------------------------------------------------------------------
def test_samples_represent_the_space(make_params: Any) -> None:
    table = benchmarks.get("nas_bench_macro")
    found = sample_check(table.space, table, make_params(locality__repeats=40).locality, rng())
    assert (found["sample"], found["repeats"]) == (1_000, 40)
    assert found["share_not_rejected"] >= 0.85
    assert 0.2 < found["median_p"] < 0.9
    assert 0.01 < found["largest_edf_gap"] < 0.08


def test_the_gap_between_distributions_is_at_most_its_supremum(make_params: Any) -> None:
    """Also if many values are tied."""
    space = ChoiceSpace("small", [5] * 4)
    returned: list[FloatArray] = []

    def oracle(archs: Archs) -> FloatArray:
        returned.append(archs[:, 0].astype(np.float64))
        return returned[-1]

    config = make_params(locality__sample=200, locality__repeats=5).locality
    found = sample_check(space, oracle, config, rng())
    full, *samples = returned
    assert found["largest_edf_gap"] <= max(ks_2samp(s, full).statistic for s in samples) + 1e-12


# -- the stage -------------------------------------------------------------------------------------
SMALL = {"locality__pairs": 500, "locality__walks": 20, "locality__steps": 20, "locality__resamples": 100}


@pytest.fixture(scope="module")
def measured(make_params: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("locality") / "out"
    lines: list[str] = []
    outcome = locality_stage(make_params(**SMALL), benchmarks.get("nas_bench_macro"), folder, on_progress=lines.append)
    assert not outcome.reused
    assert len(lines) == outcome.table("locality.parquet").num_rows
    return folder


def test_the_stage_writes_the_documented_files(measured: Path) -> None:
    manifest = artifacts.verify(measured)
    assert {"locality.parquet", "walk.parquet", "locality.json", "locality.png", "metrics.json"} <= set(manifest)
    rows = pq.read_table(measured / "locality.parquet")
    assert rows.column_names == COLUMNS
    assert rows["distance"].to_pylist()[:3] == [1, 2, 3]
    assert set(rows["change"].to_pylist()) == {ANY}
    assert rows["n"].to_pylist()[:3] == [500] * 3
    lags = pq.read_table(measured / "walk.parquet")
    assert lags.column_names == ["lag", "rwa", "rwa_low", "rwa_high"]
    assert lags["lag"].to_pylist() == list(range(1, 11))
    about = json.loads((measured / "locality.json").read_bytes())
    assert about["threshold_distance"] == 2
    assert about["max_edits"] == 8
    assert about["oracle"] == "table"


def test_the_same_parameters_give_the_same_bytes(measured: Path, make_params: Any, tmp_path: Path) -> None:
    table = benchmarks.get("nas_bench_macro")
    assert locality_stage(make_params(**SMALL), table, measured).reused
    repeated = locality_stage(make_params(**SMALL), table, tmp_path / "again")
    assert artifacts.read_manifest(repeated.folder) == artifacts.read_manifest(measured)
    other = locality_stage(make_params(**SMALL, locality__seed=1), table, tmp_path / "other")
    before, after = artifacts.read_manifest(measured), artifacts.read_manifest(other.folder)
    assert before is not None
    assert after is not None
    assert before["locality.parquet"] != after["locality.parquet"]
    with pytest.raises(UserError, match=r"other parameters \(locality differ\)"):
        locality_stage(make_params(**SMALL, locality__seed=1), table, measured)


def test_every_kind_of_change_is_measured(make_params: Any, tmp_path: Path) -> None:
    params = make_params(**{**SMALL, "locality__pairs": 300})
    outcome = locality_stage(params, benchmarks.get("nasbench101"), tmp_path / "r")
    rows = outcome.table("locality.parquet").to_pylist()
    for change in (ANY, "operation", "edge"):
        assert [r["distance"] for r in rows if r["change"] == change][:3] == [1, 2, 3]
    assert outcome.metrics["threshold_distance"] in range(1, 9)


def test_locality_of_a_predictor(make_params: Any, tmp_path: Path) -> None:
    """A predictor of these networks is smoother than their table, but similar."""
    table, params = benchmarks.get("nas_bench_macro"), make_params(**SMALL)
    rows = table.space.sample_distinct(400, rng())
    model = Predictor.fit(table.space, rows, table(rows), params.predictor, 0, 1)
    outcome = locality_stage(params, table, tmp_path / "r", predictor=model, threads=1)
    assert json.loads((outcome.folder / "locality.json").read_bytes())["oracle"] == "predictor"
    first = outcome.table("locality.parquet").to_pylist()[0]
    assert 0.6 < first["correlation"] < 0.95
    with pytest.raises(UserError, match="predictor_sha256 differ"):
        locality_stage(params, table, tmp_path / "r")


def test_constant_values_are_refused(make_params: Any, tmp_path: Path) -> None:
    flat = benchmark_of(ChoiceSpace("small", [3] * 5), lambda rows: np.full(len(rows), 93.1))
    with pytest.raises(UserError, match="equal"):
        locality_stage(make_params(**SMALL), flat, tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_distances_that_no_pair_has_are_omitted(make_params: Any, tmp_path: Path) -> None:
    """A rule fixes the first position, so no two architectures differ in all three."""

    class Narrow(ChoiceSpace):
        def valid(self, rows: Archs) -> Any:
            return rows[:, 0] == 1

    space = Narrow("narrow", [4, 9, 9])
    table = benchmark_of(space, lambda rows: rows.sum(axis=1) + rng().normal(size=len(rows)))
    outcome = locality_stage(make_params(**SMALL, locality__distances=3), table, tmp_path / "r")
    assert outcome.table("locality.parquet")["distance"].to_pylist() == [1, 2]


@pytest.mark.slow
def test_measured_distances_of_cells_are_limited(make_params: Any, tmp_path: Path) -> None:
    """Verifying an exact distance tries all edits of fewer slots: minutes for 300 pairs at five edits.

    With a predictor of NAS-Bench-101, edge changes are still correlated at four edits.
    """
    cells = benchmarks.get("nasbench101")
    table = replace(cells, values=cells.space.enumerate()[:, :21].sum(axis=1).astype(np.float64))
    measured_distances: list[int] = []

    def call(step: Callable[..., Any], *args: Any) -> Any:
        if step is pairs:
            measured_distances.append(args[2])
            assert args[2] <= 4
        return step(*args)

    locality_stage(make_params(**{**SMALL, "locality__pairs": 100}), table, tmp_path / "r", call=call)
    assert 3 in measured_distances


def test_the_threshold_is_read_from_the_result(measured: Path, tmp_path: Path) -> None:
    assert read_threshold(measured, "nas_bench_macro") == 2
    with pytest.raises(UserError, match="holds the locality of space 'nas_bench_macro', not of 'transnas'"):
        read_threshold(measured, "transnas")
    with pytest.raises(UserError, match=r"no manifest\.json"):
        read_threshold(tmp_path, "transnas")
    copy = tmp_path / "copy"
    artifacts.publish(copy, {name: (measured / name).read_bytes() for name in artifacts.verify(measured)})
    (copy / "locality.json").write_text("{}")
    with pytest.raises(DamagedFile, match=r"locality\.json is damaged"):
        read_threshold(copy, "nas_bench_macro")
