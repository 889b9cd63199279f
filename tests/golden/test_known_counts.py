"""Published counts, costs and accuracies of spaces and benchmark tables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow.compute as pc
import pytest
from scipy.stats import chisquare

from lissnas import benchmarks, spaces
from lissnas.benchmarks import tables
from lissnas.spaces import Archs, CellSpace, IntArray
from lissnas.spaces.transnas import EDGES

BY_VERTICES = {2: 1, 3: 6, 4: 84, 5: 2_441, 6: 62_010, 7: 359_082}
BY_EDGES = {1: 1, 2: 3, 3: 12, 4: 60, 5: 339, 6: 2_134, 7: 13_984, 8: 78_822, 9: 328_269}


@pytest.fixture(scope="module")
def nb101() -> CellSpace:
    space = spaces.get("nasbench101")
    assert isinstance(space, CellSpace)
    return space


def vertices(space: CellSpace, names: list[str]) -> dict[int, int]:
    values, counts = np.unique([len(name.partition("-")[2]) + 2 for name in names], return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def test_nasbench101_by_vertices_and_edges(nb101: CellSpace) -> None:
    names = nb101.format(nb101.enumerate())
    assert len(set(names)) == nb101.size() == 423_624
    assert vertices(nb101, names) == BY_VERTICES
    edges, counts = np.unique([name.partition("-")[0].count("1") for name in names], return_counts=True)
    assert dict(zip(edges.tolist(), counts.tolist(), strict=True)) == BY_EDGES


def test_nasbench101_table_holds_each_cell_once(nb101: CellSpace) -> None:
    keys, values = tables.nasbench101()
    assert (keys == nb101.key(nb101.enumerate())).all()
    assert values.mean() == pytest.approx(89.68, abs=0.01)
    assert np.median(values) == pytest.approx(90.65, abs=0.01)
    assert values.max() == pytest.approx(94.66, abs=0.01)


def test_nasbench101_sample_has_the_vertices_of_the_space(nb101: CellSpace) -> None:
    n = 200_000
    found = vertices(nb101, nb101.format(nb101.sample(n, np.random.default_rng(0))))
    expected = np.array(list(BY_VERTICES.values())) * n / nb101.size()
    observed = np.array([found.get(v, 0) for v in BY_VERTICES])
    assert observed[-1] / n == pytest.approx(0.848, abs=0.004)
    # The three smallest are merged: separately they are too rare for the approximation of the test.
    merged = [np.r_[x[:3].sum(), x[3:]] for x in (observed, expected)]
    assert chisquare(*merged).pvalue > 1e-4


def test_nasbench101_neighborhood_sizes(nb101: CellSpace) -> None:
    _, parents = nb101.neighbors(nb101.sample(3_000, np.random.default_rng(0)))
    per_cell = np.bincount(parents)
    assert per_cell.mean() == pytest.approx(18, abs=1)


def test_nasbench101_costs(nb101: CellSpace) -> None:
    costs = nb101.costs(nb101.enumerate())
    assert costs["params"].min() == 227_274
    assert costs["params"].max() == 49_979_274


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("transnas_micro", 4_096),
        ("transnas_macro", 3_256),
        ("transnas", 7_352),
        ("nas_bench_macro", 3_969),
        ("shufflenetv2", 4**20),
        ("fairnas", 6**19),
        ("mobilenet", 7**15 * 6**6),
    ],
)
def test_sizes(name: str, size: int) -> None:
    found = spaces.get(name).size()
    assert isinstance(found, int)
    assert found == size


@pytest.mark.parametrize(
    ("name", "arch", "published", "params"),
    [
        # The networks released by SPOS and FairNAS: 323M, 3.5M and 388M, 4.6M. The published parameters
        # exclude batch norms (3,529,312 and 4,607,696); ours include them.
        ("shufflenetv2", "21012020202300003233", 323e6, 3_558_464),
        ("fairnas", "2023500551311335354", 388e6, 4_651_352),
        # FairNAS-C: 321M, 4.4M.
        ("fairnas", "1020000003000055334", 321e6, 4_397_864),
        # ProxylessNAS' network for GPUs is in the MobileNet space: 465M, and 7,119,848 in its ports.
        ("mobilenet", "166626605661460155545", 465e6, 7_119_848),
    ],
)
def test_published_networks(name: str, arch: str, published: float, params: int) -> None:
    space = spaces.get(name)
    costs = space.costs(space.parse([arch]))
    assert costs["flops"][0] == pytest.approx(published, rel=0.001)
    assert costs["params"][0] == params


def function_classes(cells: Archs) -> IntArray:
    """Return `(n,)` numbers, equal for micro cells that compute the same family of functions.

    Zero edges, and vertices fed by them only, are removed; skips are replaced by their input; the order of
    terms in a sum is ignored. A skip from node 0 is an identity if the cell keeps the resolution, and a separate
    convolution if it halves it; cells are equal if they are in both cases.
    """
    forms = [(_expression(row, halves=False), _expression(row, halves=True)) for row in cells.tolist()]
    number: dict[tuple[str, str], int] = {}
    return np.array([number.setdefault(form, len(number)) for form in forms])


def _expression(row: Sequence[int], halves: bool) -> str:
    """Return a cell's output in normal form as a sum of terms; `x` is the input, the empty string is zero."""
    terms: list[list[str]] = [["x"], [], [], []]
    for digit, (i, j) in zip(row, EDGES, strict=True):
        if digit == 0 or not terms[i]:
            continue
        plain = digit == 1 and not (halves and i == 0)
        terms[j] += terms[i] if plain else [f"{digit}({'+'.join(sorted(terms[i]))})"]
    return "+".join(sorted(terms[3]))


def test_transnas_micro_has_1_229_functionally_distinct_cells() -> None:
    assert len(np.unique(function_classes(spaces.get("transnas_micro").enumerate()))) == 1_229


def test_nas_bench_macro_strings_and_costs() -> None:
    table = tables.read("nas_bench_macro.parquet")
    names = table["arch"].to_pylist()
    assert len(set(names)) == 6_561
    space = spaces.get("nas_bench_macro")
    assert len(np.unique(space.key(space.parse(names)))) == 3_969
    rows = np.array([[int(c) for c in name] for name in names], np.int8)
    costs = space.costs(rows)
    assert (costs["flops"] == table["flops"].to_numpy()).all()
    assert (costs["params"] == table["params"].to_numpy()).all()
    # Functionally equal networks have equal costs, in any notation.
    assert all((a == b).all() for a, b in zip(costs.values(), space.costs(space.parse(names)).values(), strict=True))


def test_nas_bench_macro_values() -> None:
    benchmark = benchmarks.get("nas_bench_macro")
    assert benchmark.values.mean() == pytest.approx(90.29, abs=0.01)
    assert benchmark.best == pytest.approx(93.13, abs=0.01)
    assert benchmark(benchmark.space.parse(["22212220"]))[0] == benchmark.best


def test_nas_bench_macro_locality() -> None:
    """Correlation and mean difference at exact distance, over functionally distinct networks."""
    benchmark = benchmarks.get("nas_bench_macro")
    space, rng = benchmark.space, np.random.default_rng(0)
    expected = ((1, 0.732, 1.08), (2, 0.504, 1.53), (3, 0.307, 1.86), (4, 0.138, None))
    for distance, correlation, difference in expected:
        a = space.sample(20_000, rng)
        x, y = benchmark(a), benchmark(space.mutate(a, np.full(20_000, distance), rng))
        assert np.corrcoef(x, y)[0, 1] == pytest.approx(correlation, abs=0.03)
        if difference is not None:
            assert np.abs(x - y).mean() == pytest.approx(difference, abs=0.1)


@pytest.mark.parametrize("name", benchmarks.names())
def test_every_benchmark_covers_its_space(name: str) -> None:
    benchmark = benchmarks.get(name)
    assert len(benchmark.keys) == benchmark.space.size()
    assert (benchmark.keys[1:] > benchmark.keys[:-1]).all()
    assert np.isfinite(benchmark.values).all()


def test_packaged_tables_have_no_nulls() -> None:
    for name in tables.CHECKSUMS:
        if not name.endswith(".parquet"):
            continue
        table = tables.read(name)
        measured = [c for c in table.column_names if c.startswith(("latency_", "throughput_"))]  # not on each device
        complete = [c for c in table.column_names if c not in measured]
        assert all(pc.count(table[c], mode="only_null").as_py() == 0 for c in complete)
