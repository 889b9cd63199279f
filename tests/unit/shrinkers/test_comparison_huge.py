"""Spaces too large to list: counted products, rivals, and comparison without a table."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from lissnas import shrinkers, spaces
from lissnas.artifacts.stage_run import Outcome
from lissnas.benchmarks.surrogates import ofa_accuracy
from lissnas.cli.render import show_comparison
from lissnas.core.errors import LissnasError, UnknownName, UserError
from lissnas.oracles.base import CountedOracle
from lissnas.predictors.surrogate import SurrogateScorer
from lissnas.shrinkers import comparison, dds, greedynas_v2, naive
from lissnas.shrinkers.comparison import FullSpaceStatistics, run_method, start_comparison
from lissnas.shrinkers.methods import METHODS, chosen
from lissnas.shrinkers.problem import Source, from_space, packaged
from lissnas.shrinkers.pruning import all_choices
from lissnas.spaces import Archs, ChoiceSpace, FloatArray, Space
from lissnas.spaces.anynetx import AnyNetX, Values
from lissnas.spaces.subspace import Subspace
from lissnas.stages.compare import compare_stage
from lissnas.testing import SyntheticOracle

TABLED = ["score_all", "lissnas_collect", "lapt"]
OFA = spaces.get("ofa_mobilenetv3")
MILLIONS = ("ofa_mobilenetv3", "anynetx", "anynetx_d", "anynetx_e", "shufflenetv2")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# -- products of choices -----------------------------------------------------------------------------
def some_choices(space: Space, keep: float, seed: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return np.asarray(space.possible() & (rng(seed).random(space.possible().shape) < keep))


@pytest.mark.parametrize("name", MILLIONS)
def test_all_choices_are_the_whole_space(name: str) -> None:
    space = spaces.get(name)
    whole = all_choices(space)
    assert whole.size() == space.size()
    assert whole.contains(space.sample(100, rng())).all()


@pytest.mark.parametrize("name", MILLIONS)
@pytest.mark.parametrize("seed", [0, 1])
def test_count_matches_the_share_of_a_uniform_sample(name: str, seed: int) -> None:
    space = spaces.get(name)
    part = Subspace(space, allowed=some_choices(space, 0.85, seed))
    n = 100_000
    inside = int(part.contains(space.sample(n, rng(9))).sum())
    assert inside > 50
    assert stats.binomtest(inside, n, part.size() / space.size()).pvalue > 1e-4
    drawn = part.sample(2_000, rng(seed))
    assert part.contains(drawn).all()
    assert (space.parse(space.format(drawn)) == drawn).all()


@pytest.mark.parametrize("seed", range(3))
def test_product_of_blocks_matches_its_enumeration(seed: int) -> None:
    """Few choices per block, so that all rows can be enumerated."""
    draw = rng(seed)
    allowed = np.zeros(OFA.possible().shape, bool)
    for block in range(20):
        allowed[block, draw.integers(0, 9)] = True
    for block in (2, 3, 6, 7, 10, 14):
        allowed[block, 9] = draw.random() < 0.7
    part = Subspace(OFA, allowed=allowed)
    # Without the third block the fourth is absent too, even if not allowed.
    options = [[*np.flatnonzero(a), *([9] if i % 4 == 3 else [])] for i, a in enumerate(allowed)]
    rows = np.unique(np.array(list(itertools.product(*map(set, options))), np.int8), axis=0)
    assert isinstance(OFA, ChoiceSpace)
    rows = rows[OFA.valid(rows)]
    rows = rows[part.contains(rows)]
    assert part.size() == len(rows)
    drawn = part.sample(40 * len(rows), rng(seed))
    _, count = np.unique(drawn, axis=0, return_counts=True)
    assert len(count) == len(rows)
    assert len(rows) == 1 or stats.chisquare(count).pvalue > 1e-4


def test_product_with_ordered_positions_matches_its_enumeration() -> None:
    values = Values((1, 2, 3), (8, 16, 24, 32), (1, 2), (1, 2))
    space = AnyNetX("tiny", frozenset({"bottleneck", "group"}), frozenset({"width", "depth"}), values, 3)
    rows = space.enumerate()
    for seed in range(6):
        allowed = some_choices(space, 0.8, seed)
        expected = rows[Subspace(space, allowed=allowed)._permits(rows)]
        assert space.count_product(allowed) == len(expected)
        if len(expected):
            drawn = space.key(space.sample_product(allowed, 50 * len(expected), rng(seed)))
            keys, count = np.unique(drawn, return_counts=True)
            assert (keys == np.sort(space.key(expected))).all()
            assert len(keys) == 1 or stats.chisquare(count).pvalue > 1e-4


@pytest.mark.parametrize("method", ["abs", "nse", "padnas"])
def test_space_without_countable_products_is_refused(method: str) -> None:
    space = spaces.get("nasbench301")
    oracle = CountedOracle(SyntheticOracle(space), space, 100)
    with pytest.raises(UserError, match=r"nasbench301 is too large to list, and products.*abs, nse, padnas"):
        shrinkers.get(method)(space, oracle, 1_000, rng())


# -- rivals ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "method"),
    [
        *itertools.product(("ofa_mobilenetv3",), ("abs", "nse", "padnas", "dds")),
        ("anynetx_e", "abs"),
        *(pytest.param("anynetx_e", method, marks=pytest.mark.slow) for method in ("nse", "padnas")),
    ],
)
def test_large_spaces_with_rules_are_shrunk(name: str, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With optional blocks, and with non-decreasing widths and depths."""
    monkeypatch.setattr(dds, "POOL", 10_000)
    space = spaces.get(name)
    truth = SyntheticOracle(space)
    oracle = CountedOracle(truth, space, 5_000)
    part = shrinkers.get(method)(space, oracle, 2_000, rng())
    assert 0.6 * 2_000 < part.size() < 2_000 / 0.6
    rows = part.sample(500, rng())
    assert part.contains(rows).all()
    assert oracle.queries == len(truth.queried) <= 5_000
    full = truth(space.sample(5_000, rng(1)))
    assert truth(rows).mean() > full.mean() + full.std()


def test_climbing_finds_the_costliest() -> None:
    """Costs are separable, so the optimum is known; no omitted neighbor is costlier than a member."""
    space = spaces.get("shufflenetv2")
    rows = naive.climb(space, "params", 500, rng())
    params = space.costs(rows)["params"]
    layers = [space.costs(np.full((1, 20), c, np.int8))["params"][0] for c in range(4)]
    assert params[0] >= max(layers)
    assert (np.diff(params) <= 0).all()
    assert len(np.unique(space.key(rows))) == 500
    near, _ = space.neighbors(rows[:50])
    costlier = near[space.costs(near)["params"] > params[-1]]
    assert np.isin(space.key(costlier), space.key(rows)).mean() > 0.95


def test_filter_queries_its_sample_and_the_best_of_its_pool() -> None:
    space = ChoiceSpace("large", [4] * 20)
    truth = SyntheticOracle(space)
    oracle = CountedOracle(truth, space, 3_000)
    part = greedynas_v2.shrink(space, oracle, 400, rng())
    assert len(truth.queried) == 3_000
    assert part.size() == 400
    assert np.isin(space.key(part.members), [*truth.queried]).all()
    uniform = truth(space.sample(3_000, rng()))
    assert oracle(part.members).mean() > np.sort(uniform)[-400:].mean()
    with pytest.raises(UserError, match="can't be listed"):
        naive.climb(spaces.get("shufflenetv2"), "flops", 20_000_000, rng())


def test_region_draws_are_uniform_within_its_ranges() -> None:
    """The share of draws that are members estimates the size of the region."""
    space = ChoiceSpace("large", [4] * 20)
    n = len(dds.properties(space, space.sample(2, rng())))
    region = dds._Region(space).bound(n - 20, 1, 2).bound(n - 1, 3, 3).bound(0, 2, 6)
    rows, share = region.draw(5_000, rng())
    assert region.product()[0] == 4**18 * 2
    assert set(np.unique(rows[:, 0])) == {1, 2}
    assert (rows[:, 19] == 3).all()
    zeros = (rows == 0).sum(axis=1)
    assert set(np.unique(zeros)) == {2, 3, 4, 5, 6}
    expected = stats.binom(18, 0.25)
    assert share == pytest.approx(expected.cdf(6) - expected.cdf(1), abs=0.01)


def test_rare_region_gives_fewer_draws() -> None:
    space = ChoiceSpace("large", [4] * 20)
    rows, share = dds._Region(space).bound(0, 20, 20).draw(100, rng())
    assert len(rows) == 0
    assert share == 0


# -- a comparison without a table ----------------------------------------------------------------------
def test_methods_that_need_a_table_are_omitted_or_refused() -> None:
    source = packaged(OFA)
    assert chosen("all", source) == [m for m in METHODS if m not in TABLED]
    assert chosen("all") == list(METHODS)
    with pytest.raises(UserError, match="lissnas_collect needs a table of true values, which ofa_mobilenetv3 lacks"):
        chosen(["lissnas_collect", "abs"], source)
    with pytest.raises(UserError, match="score_all queries every architecture, but ofa_mobilenetv3 is too large"):
        chosen(["score_all", "abs"], source)


def test_source_without_direct_values_is_refused() -> None:
    with pytest.raises(UserError, match=r"large has neither true values nor a surrogate"):
        FullSpaceStatistics.of(Source("large", ChoiceSpace("large", [4] * 20), "score", "digest"))


def test_few_labels_of_a_huge_space_are_refused(make_params: Callable[..., Any]) -> None:
    """No shrunk space would have enough labelled members to evaluate it on."""
    with pytest.raises(
        UserError, match=r"of 609 held-out labels of nasbench301, .* are expected in a space of 1,000,000"
    ):
        comparison.comparison_params(make_params(), packaged(spaces.get("nasbench301")), 0)


@pytest.mark.parametrize("target", [None, 20_000_000])
def test_target_that_can_not_be_listed_is_refused(target: int | None, make_params: Callable[..., Any]) -> None:
    scorer = SurrogateScorer(lambda archs: archs.sum(axis=1))
    source = from_space(ChoiceSpace("large", [4] * 20), scorer=scorer, oracle_id="sum")
    with pytest.raises(UserError, match="target_size: a comparison on large needs one of at most 10,000,000"):
        comparison.comparison_params(make_params(shrink__target_size=target), source, 0)


SMALL: dict[str, Any] = {
    "shrink__target_size": 150,
    "shrink__elite__max_iterations": 8,
    "compare__diversities": [0.05],
}
METHODS_OF_OFA = ["lissnas", "abs", "greedynas", "no_neighbors", "flops"]


@pytest.fixture(scope="module")
def compared(make_params: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    out = tmp_path_factory.mktemp("ofa") / "out"
    return compare_stage(make_params(**SMALL), packaged(OFA), METHODS_OF_OFA, [0, 1], out, threads=1)


def test_rows_have_sizes_and_no_unknown_metrics(compared: Outcome) -> None:
    rows = compared.table("comparison.parquet").to_pylist()
    assert len(rows) == 10
    unknown = {"kept_best", "top10_kept", "ours_kept_best", "edf_auc_by_flops"}
    best = max(r["max_true"] for r in rows)
    for r in rows:
        assert unknown.isdisjoint(r)
        assert r["full_size"] == float(OFA.size())
        assert r["best_known"] >= best
        assert r["queries"] <= rows[r["seed"]]["queries"]
        assert r["labels"] == 0
        assert 0 <= r["edf_auc"] <= 1
        assert r["judged"] == (10_000 if r["kind"] == "product" else r["size"])
        assert r["mean_true"] > r["full_mean"]
    assert {r["kind"] for r in rows if r["method"] == "abs"} == {"product"}
    assert [r["ours_mean_true"] for r in rows[:2]] == [r["mean_true"] for r in rows[:2]]


def test_unknown_method_is_refused(make_params: Callable[..., Any]) -> None:
    run = start_comparison(FullSpaceStatistics.of(packaged(OFA)), make_params(**SMALL), 0, 1)
    with pytest.raises(UnknownName, match=r"unknown method 'asb'. Did you mean 'abs'\?"):
        comparison.attempt(run, "asb", run.budget)


def test_page_names_the_surrogate(compared: Outcome, capsys: pytest.CaptureFixture[str]) -> None:
    page = (compared.folder / "comparison.md").read_text()
    assert f"{OFA.size():,} architectures" in page
    assert "Once-for-All predictor" in page
    assert "best kept" not in page
    show_comparison(compared)
    assert "Ours: lissnas, cut to the method's size" in capsys.readouterr().out


def test_result_is_reused_and_a_single_task_gives_the_same_row(
    compared: Outcome, make_params: Callable[..., Any]
) -> None:
    params = make_params(**SMALL)
    assert compare_stage(params, packaged(OFA), METHODS_OF_OFA, [0, 1], compared.folder, threads=1).reused
    run = start_comparison(FullSpaceStatistics.of(packaged(OFA)), params, 1, 1)
    row = run_method(run, "no_neighbors").row
    found = [r for r in compared.csv("comparison.csv") if (r["method"], r["seed"]) == ("no_neighbors", 1)]
    for name in ("size", "queries", "mean_true", "max_true", "ks", "cosine_coverage", "ours_mean_true"):
        assert row[name] == pytest.approx(found[0][name])
    for name in ("abs", "flops"):  # a product is sampled, a set is evaluated completely, by the surrogate
        result = run_method(run, name)
        again = comparison.attempt(run, name, run.budget)
        rows, part = again.members, again.part
        assert result.values == pytest.approx(ofa_accuracy(rows))
        assert (result.row["size"], result.row["max_true"]) == (part.size(), result.values.max())
        assert len(rows) == (10_000 if part.kind == "product" else part.size())


def test_custom_surrogate_of_a_space_without_costs(make_params: Callable[..., Any], tmp_path: Path) -> None:
    """Metrics of costs are omitted."""

    def values(archs: Archs) -> FloatArray:
        return np.asarray(archs @ np.linspace(-1, 1, 20))

    source: Source = from_space(ChoiceSpace("large", [4] * 20), scorer=SurrogateScorer(values), oracle_id="linear")
    params = make_params(shrink__target_size=200, compare__diversities=[0.05])
    outcome = compare_stage(params, source, ["lissnas", "padnas", "top10"], [3], tmp_path / "r", threads=1)
    rows = {r["method"]: r for r in outcome.csv("summary.csv")}
    assert "flops_coverage" not in rows["lissnas"]
    assert rows["lissnas"]["mean_true"] > rows["top10"]["mean_true"]
    with pytest.raises(LissnasError, match="knows no flops"):
        compare_stage(params, source, ["flops"], [3], tmp_path / "s", threads=1)
