"""Diversity relative to the full space, on small spaces that can be enumerated."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist, cosine
from scipy.stats import ks_2samp

from lissnas import spaces
from lissnas.core.errors import UserError
from lissnas.metrics.diversity import BINS, SAMPLE, DiversityReference
from lissnas.spaces import Archs, ChoiceSpace, IntArray

RATIOS = ("cosine_coverage", "cosine_mean_coverage", "distance_mean", "distance_nearest")


class Priced(ChoiceSpace):
    """A product space whose cost is the sum of the choices plus one."""

    cost_names = ("flops", "params")

    def costs(self, archs: Archs) -> Mapping[str, IntArray]:
        return {"flops": 1 + archs.sum(axis=1, dtype=np.int64), "params": np.full(len(archs), 7, np.int64)}


@cache
def reference(name: str) -> DiversityReference:
    """`priced` has fewer architectures than distances are sampled from, so nothing is drawn at random."""
    return DiversityReference.of(Priced("priced", [3] * 6) if name == "priced" else spaces.get(name))


def measure(name: str, rows: Archs, seed: int = 0) -> dict[str, float]:
    return reference(name).measure(rows, np.random.default_rng(seed))


def distances(name: str, rows: Archs) -> tuple[float, float, float, float]:
    """Compute the distances in plain loops."""
    y = reference(name)
    x = y.space.encode(rows).astype(np.float64)
    whole = y.space.encode(y.space.enumerate()).astype(np.float64)
    x = (x - whole.mean(axis=0)) / np.maximum(whole.std(axis=0), 1e-9)
    angles = [cosine(x[i], x[j]) for i in range(len(x)) for j in range(i)]
    gaps = cdist(x, x)
    nearest = [min(gaps[i, j] for j in range(len(x)) if j != i) for i in range(len(x))]
    return max(angles), float(np.mean(angles)), gaps.sum() / (len(x) * (len(x) - 1)), float(np.mean(nearest))


# -- the full space --------------------------------------------------------------------------------
def test_the_full_space_has_ratios_of_one() -> None:
    full = reference("priced").space.enumerate()
    assert len(full) <= SAMPLE
    found = measure("priced", full)
    assert [found[name] for name in RATIOS] == pytest.approx([1] * 4)
    assert found["flops_coverage"] == found["params_coverage"] == 1
    assert found["flops_tv"] == found["flops_ks"] == found["params_tv"] == found["params_ks"] == 0
    assert (found["flops_min"], found["flops_max"], found["params_min"], found["params_max"]) == (1, 13, 7, 7)


@pytest.mark.parametrize("name", ["nas_bench_macro", "transnas_micro", "transnas_macro", "transnas"])
def test_the_full_space_has_ratios_of_one_if_distances_are_sampled(name: str) -> None:
    found = measure(name, spaces.get(name).enumerate())
    assert [found[n] for n in RATIOS] == pytest.approx([1] * 4, abs=0.03)
    assert found["flops_coverage"] == found["params_coverage"] == 1
    assert found["flops_tv"] == found["params_ks"] == 0


def test_a_space_too_large_to_list() -> None:
    """Reference costs come from a sample, so a part may exceed their range."""
    space = Priced("large", [4] * 20)
    y = DiversityReference.of(space)
    ends = np.array([[0] * 20, [3] * 20], np.int8)
    found = y.measure(np.concatenate([space.sample(3_000, np.random.default_rng(1)), ends]), np.random.default_rng(2))
    assert 0.8 < found["flops_coverage"] <= 1
    assert found["flops_tv"] < 0.05
    assert (found["flops_min"], found["flops_max"]) == (1, 61)
    assert y.histogram("flops", space.costs(ends)["flops"]).tolist() == [1, *[0] * (BINS - 2), 1]


# -- parts of the space ----------------------------------------------------------------------------
rows_of_priced = st.sets(st.integers(0, 728), min_size=1, max_size=80).map(lambda s: np.array(sorted(s)))


@given(rows_of_priced)
def test_a_part_is_within_bounds(chosen: IntArray) -> None:
    found = measure("priced", reference("priced").space.enumerate()[chosen])
    for name in ("cosine_coverage", "flops_coverage", "params_coverage"):
        assert 0 <= found[name] <= 1
    for name in ("flops_tv", "flops_ks", "params_tv", "params_ks"):
        assert -1e-12 <= found[name] <= 1
    assert 0 <= found["cosine_mean"] <= found["cosine_max"] <= 2 + 1e-9
    assert found["distance_mean"] >= 0
    assert found["distance_nearest"] >= 0
    assert 1 <= found["flops_min"] <= found["flops_max"] <= 13


@given(rows_of_priced, rows_of_priced)
def test_more_architectures_never_cover_less(some: IntArray, more: IntArray) -> None:
    full = reference("priced").space.enumerate()
    part, whole = measure("priced", full[some]), measure("priced", full[np.union1d(some, more)])
    for name in ("cosine_coverage", "flops_coverage", "params_coverage"):
        assert whole[name] >= part[name] - 1e-12
    assert whole["flops_min"] <= part["flops_min"]
    assert whole["flops_max"] >= part["flops_max"]


@pytest.mark.parametrize("name", ["nas_bench_macro", "transnas_micro", "transnas_macro", "transnas"])
def test_coverage_is_at_most_one(name: str) -> None:
    """Also if distances are sampled."""
    space = spaces.get(name)
    for seed in range(10):
        rows = space.sample_distinct(2_000, np.random.default_rng(seed))
        assert measure(name, rows, seed)["cosine_coverage"] <= 1


def test_distances_equal_those_of_plain_loops() -> None:
    rows = reference("priced").space.sample_distinct(40, np.random.default_rng(0))
    found, y = measure("priced", rows), reference("priced")
    largest, mean, distance, nearest = distances("priced", rows)
    assert found["cosine_max"] == pytest.approx(largest, abs=1e-5)
    assert found["cosine_mean"] == pytest.approx(mean, abs=1e-5)
    assert found["distance_mean"] == pytest.approx(distance / y.distance_mean, rel=1e-5)
    assert found["distance_nearest"] == pytest.approx(nearest / y.nearest_mean, rel=1e-5)
    assert found["cosine_coverage"] == pytest.approx(largest / y.cosine_max, abs=1e-5)


def test_costs_are_compared_on_the_full_range() -> None:
    rows = reference("priced").space.sample_distinct(50, np.random.default_rng(0))
    found = measure("priced", rows)
    part, full = (reference("priced").space.costs(r)["flops"] for r in (rows, reference("priced").space.enumerate()))
    # Thirteen costs in twenty bins: each has a separate bin.
    shares = [np.bincount(c, minlength=14) / len(c) for c in (part, full)]
    assert found["flops_tv"] == pytest.approx(np.abs(shares[0] - shares[1]).sum() / 2)
    assert found["flops_ks"] == pytest.approx(ks_2samp(part, full).statistic)
    assert found["flops_coverage"] == pytest.approx(len(np.unique(part)) / 13)


def test_bins_have_equal_width_and_include_the_extremes() -> None:
    y = reference("nas_bench_macro")
    edges = y.edges("flops")
    low, high = y.costs["flops"].min(), y.costs["flops"].max()
    assert np.diff([low, *edges, high]) == pytest.approx((high - low) / BINS)
    counts, _ = np.histogram(y.costs["flops"], BINS)
    assert (y.histogram("flops", y.costs["flops"]) == counts).all()


def test_neighbours_are_less_diverse_than_a_uniform_sample() -> None:
    space = spaces.get("nas_bench_macro")
    one = space.sample(1, np.random.default_rng(0))
    near = np.concatenate([one, space.neighbors(one)[0]])
    uniform = space.sample_distinct(len(near), np.random.default_rng(1))
    a, b = measure("nas_bench_macro", near), measure("nas_bench_macro", uniform)
    assert a["distance_mean"] < 0.8 * b["distance_mean"]
    assert a["flops_coverage"] < b["flops_coverage"]
    assert a["cosine_mean"] < b["cosine_mean"]


# -- edge cases ------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["priced", "nas_bench_macro"])
def test_diversity_of_an_empty_space_is_refused(name: str) -> None:
    space = reference(name).space
    with pytest.raises(UserError, match="no architectures: the diversity of an empty space is undefined"):
        measure(name, np.empty((0, space.genome_len), np.int8))


def test_one_architecture_has_no_distances() -> None:
    one = np.array([[1, 2, 0, 0, 0, 0]], np.int8)
    found = measure("priced", one)
    assert [found[n] for n in ("cosine_max", "cosine_mean", *RATIOS)] == [0] * 6
    assert found["flops_coverage"] == pytest.approx(1 / 13)
    assert found["flops_min"] == found["flops_max"] == 4
    assert all(np.isfinite(v) for v in found.values())


def test_a_space_of_one_architecture_has_ratios_of_one() -> None:
    space = Priced("single", [1, 1])
    found = DiversityReference.of(space).measure(space.enumerate(), np.random.default_rng(0))
    assert [found[n] for n in (*RATIOS, "flops_coverage", "params_coverage")] == [1] * 6


def test_a_space_with_one_cost_value() -> None:
    """`params` is constant: there is one occupied bin, which any part of the space occupies."""
    found = measure("priced", reference("priced").space.enumerate()[:5])
    assert found["params_coverage"] == 1
    assert found["params_tv"] == found["params_ks"] == 0
    assert found["params_min"] == found["params_max"] == 7


def test_a_space_without_costs() -> None:
    space = ChoiceSpace("free", [3] * 6)
    found = DiversityReference.of(space).measure(space.enumerate()[:20], np.random.default_rng(0))
    assert set(found) == {"cosine_max", "cosine_mean", *RATIOS}


def test_the_same_seed_gives_the_same_diversity() -> None:
    rows = spaces.get("transnas").sample_distinct(3_000, np.random.default_rng(0))
    assert measure("transnas", rows, 1) == measure("transnas", rows, 1)
    assert DiversityReference.of(spaces.get("transnas")).cosine_max == reference("transnas").cosine_max


# -- costs (tests/golden compares those of NAS-Bench-Macro with its table) -------------------------
PUBLISHED_MFLOPS = {
    "100101100001100100101-20211": 2075.6614,
    "101101010011101-1011": 662.9345,
    "100000101011000100101-01221": 488.9037,
    "111000000010001110011-01111": 229.9054,
    "101001110001000100101-01100": 4796.3228,
    "110000100001010101011-01122": 282.8495,
    "111000000011010100101-11011": 701.3714,
    "100100100001001101101-11120": 295.3767,
    "100100100101000101011-00220": 552.6114,
    "101001110110011-1112": 254.7108,
}
"""Ten random cells of the published table, which counts slightly more than the multiply-adds of convolutions."""


def test_nasbench101_multiply_adds_match_the_published_ones() -> None:
    """The correlation over all 423,624 cells is .999999."""
    space = spaces.get("nasbench101")
    found = space.costs(space.parse(list(PUBLISHED_MFLOPS)))["flops"] / 1e6
    published = np.array(list(PUBLISHED_MFLOPS.values()))
    assert np.corrcoef(found, published)[0, 1] > 0.9999
    assert found == pytest.approx(published, rel=0.02)


def plain_costs(row: Archs) -> tuple[int, int]:
    """Return multiply-adds and parameters of a NAS-Bench-101 network, summed over its convolutions."""
    edges = {pair for pair, bit in zip(itertools.combinations(range(7), 2), row[:21], strict=True) if bit}
    flops, params = 0, 0

    def convolution(kernel: int, inputs: int, outputs: int, side: int) -> None:
        nonlocal flops, params
        flops += kernel**2 * inputs * outputs * side**2
        params += kernel**2 * inputs * outputs + 2 * outputs

    convolution(3, 3, 128, 32)
    inputs = 128
    for cell in range(9):
        out, side = 128 * 2 ** (cell // 3), 32 // 2 ** (cell // 3)
        last = [v for v in range(1, 6) if (v, 6) in edges]
        width = {v: out // len(last) + (i < out % len(last)) for i, v in enumerate(last)}
        for v in range(5, 0, -1):
            width.setdefault(v, max((width[w] for w in range(v + 1, 6) if (v, w) in edges), default=0))
        for v in range(1, 6):
            if width[v] and row[20 + v] < 2:
                convolution(3 if row[20 + v] == 0 else 1, width[v], width[v], side)
            if (0, v) in edges:
                convolution(1, inputs, width[v], side)
        if (0, 6) in edges:
            convolution(1, inputs, out, side)
        inputs = out
    return flops + 512 * 10, params + 512 * 10 + 10


def test_nasbench101_costs_are_the_sum_over_convolutions() -> None:
    space = spaces.get("nasbench101")
    rows = np.concatenate([space.sample(200, np.random.default_rng(0)), space.parse(["1-", "101-0", "111-2"])])
    costs = space.costs(rows)
    expected = [plain_costs(row) for row in rows]
    assert [*zip(costs["flops"].tolist(), costs["params"].tolist(), strict=True)] == expected


@pytest.mark.parametrize("name", ["transnas_micro", "transnas_macro"])
def test_transnas_costs_equal_those_of_micro_and_macro(name: str) -> None:
    whole, part = spaces.get("transnas"), spaces.get(name)
    names = part.format(part.sample(500, np.random.default_rng(0)))
    for cost, values in part.costs(part.parse(names)).items():
        assert (whole.costs(whole.parse(names))[cost] == values).all()
