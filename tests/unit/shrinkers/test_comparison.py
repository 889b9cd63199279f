"""Comparison: counted oracle, subspaces, statistics over seeds, and the resumable stage."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lissnas import artifacts, benchmarks, spaces
from lissnas.benchmarks import Benchmark
from lissnas.config import Params
from lissnas.core.errors import ConfigError, DamagedFile, LissnasError, UnknownName, UserError
from lissnas.oracles.base import BudgetExceeded, CountedOracle
from lissnas.predictors.accuracy import Predictor
from lissnas.predictors.score_table import ScoreTable
from lissnas.shrinkers.comparison import (
    FullSpaceStatistics,
    run_method,
    start_comparison,
)
from lissnas.shrinkers.comparison_summary import (
    corrected,
    holm,
    interval,
    paired_p,
    summarise,
    verdict,
    verdict_lines,
)
from lissnas.shrinkers.methods import METHODS, REFERENCES, chosen
from lissnas.shrinkers.pruning import all_choices, droppable
from lissnas.shrinkers.pruning import drop as drop_choices
from lissnas.spaces import Archs, ChoiceSpace, FloatArray, transnas
from lissnas.spaces.base import BoolArray
from lissnas.spaces.subspace import Subspace
from lissnas.stages.compare import compare_stage


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# -- names -----------------------------------------------------------------------------------------
def test_methods_are_rivals_or_variants() -> None:
    for one in METHODS.values():
        assert sum(made is not None for made in (one.rival, one.variant, one.transfer)) == 1
    assert [name for name, one in METHODS.items() if one.variant is not None] == [
        *("lissnas", "lissnas_paper", "no_locality", "lissnas_collect")
    ]


def test_chosen_methods_are_in_the_order_of_the_table() -> None:
    assert chosen("all") == chosen(["all"]) == list(METHODS)
    assert chosen(["flops", "abs", "lissnas", "abs"]) == ["lissnas", "abs", "flops"]
    assert chosen([]) == []


@pytest.mark.parametrize(("name", "near"), [("greedy", "greedynas"), ("lisnas", "lissnas"), ("top_10", "top10")])
def test_unknown_method_is_refused(name: str, near: str) -> None:
    with pytest.raises(UnknownName, match=f"unknown method '{name}'. Did you mean '{near}'.*Known: lissnas, liss"):
        chosen(["abs", name])


# -- statistics over seeds -------------------------------------------------------------------------
def test_holm_on_an_example() -> None:
    """.005 x 4, .01 x 3, .03 x 2, .04 x 1, made non-decreasing."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.7, 0.6]) == [1, 1]
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.randoms())
def test_holm_is_monotone_and_bounded(p: list[float], shuffle: Any) -> None:
    found = holm(p)
    n = len(p)
    for i, j in itertools.product(range(n), repeat=2):
        assert p[i] > p[j] or found[i] <= found[j] + 1e-12
    for value, scaled in zip(p, found, strict=True):
        assert min(value, 1) <= scaled <= min(1, n * value) + 1e-12
        # Rejected at a level if and only if it and all smaller ones pass their bounds.
        smaller = sorted(q for q in p if q <= value)
        assert scaled == pytest.approx(min(1, max((n - i) * q for i, q in enumerate(smaller))))
    order = list(range(n))
    shuffle.shuffle(order)
    assert holm([p[i] for i in order]) == pytest.approx([found[i] for i in order])


def test_paired_p() -> None:
    assert paired_p(np.arange(1.0, 11)) == pytest.approx(2 / 1024)  # ten of ten better
    assert paired_p(-np.arange(1.0, 11)) == pytest.approx(2 / 1024)
    assert paired_p(np.arange(1.0, 6)) == pytest.approx(2 / 32)  # at least .05 with five seeds
    assert paired_p(np.zeros(10)) == 1
    assert paired_p(np.empty(0)) == 1
    assert paired_p(np.array([0.3])) == 1


@settings(max_examples=30)
@given(st.lists(st.integers(-50, 50), min_size=1, max_size=8))
def test_paired_p_is_a_two_sided_probability(gaps: list[int]) -> None:
    values = np.array(gaps, np.float64)
    assert 0 < paired_p(values) <= 1
    assert paired_p(values) == pytest.approx(paired_p(-values))


def test_interval_is_student_s() -> None:
    values = rng().normal(93, 1, 10)
    expected = stats.t.interval(0.95, 9, values.mean(), stats.sem(values))
    assert interval(values) == pytest.approx(expected)
    assert interval(np.array([93.0])) == (93, 93)
    assert interval(np.full(4, 93.0)) == (93, 93)
    covered = [low <= 0 <= high for low, high in (interval(row) for row in rng().normal(size=(1_000, 5)))]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.025)


def outcome_row(method: str, seed: int, mean: float, ours: float, quota: float | None = None) -> dict[str, Any]:
    values = {"mean_true": mean, "ours_mean_true": ours, "quota_mean_true": quota, "seconds": 1.0}
    return {"method": method, "seed": seed, "kind": "set"} | values


def outcome_rows(seeds: int = 10) -> list[dict[str, Any]]:
    rows = [outcome_row("lissnas", s, 93 + s, 93 + s, 93 + s) for s in range(seeds)]
    rows += [outcome_row("abs", s, 92.9 - s / 100 + s, 93 + s, 93.01 + s) for s in range(seeds)]
    rows += [outcome_row("best_first", s, 93.2 + s + s / 100, 93 + s, 93 + s) for s in range(seeds)]
    return rows + [outcome_row("flops", s, 93 + s, 93 + s) for s in range(seeds)]


def test_summary_is_paired_by_seed() -> None:
    found = {r["method"]: r for r in summarise(outcome_rows(), 2.0)}
    assert list(found) == ["lissnas", "abs", "best_first", "flops"]
    abs_ = found["abs"]
    assert abs_["ours_minus"] == pytest.approx(0.145)
    assert abs_["ours_minus_sd"] == pytest.approx(0.0725)
    assert abs_["ours_minus_sd_low"] < 0.0725 < abs_["ours_minus_sd_high"]
    assert abs_["ours_ahead"] == 10
    # The paired difference is significant, although seeds differ by much more.
    assert abs_["p"] == pytest.approx(2 / 1024)
    assert found["flops"]["p"] == found["flops"]["p_holm"] == 1
    assert found["lissnas"]["p"] is None
    assert found["lissnas"]["p_holm"] is None
    assert "seconds" not in abs_


def test_one_correction_covers_all_tests_shown() -> None:
    """Three differences to the methods and two to what they scored with a quota: five tests, of one or two tables."""
    summary = summarise(outcome_rows(), 2.0)
    found = {r["method"]: r for r in summary}
    assert found["abs"]["p_holm"] == pytest.approx(5 * 2 / 1024)
    assert found["flops"]["quota_p"] is None
    assert found["flops"]["quota_verdict"] is None
    both = corrected([{**r, "benchmark": name} for name in "ab" for r in summary])
    assert [r["p_holm"] for r in both if r["method"] == "abs"] == pytest.approx([10 * 2 / 1024] * 2)


def test_verdicts_are_from_the_view_of_ours() -> None:
    found = {r["method"]: r for r in summarise(outcome_rows(), 2.0)}
    assert [found[m]["verdict"] for m in ("lissnas", "abs", "best_first", "flops")] == [
        None,
        "ahead",
        "behind",
        "equal",
    ]
    assert [found[m]["quota_verdict"] for m in ("abs", "best_first")] == ["equal", "equal"]
    few = {r["method"]: r for r in summarise(outcome_rows(5), 2.0)}
    assert few["abs"]["verdict"] == few["best_first"]["verdict"] == "unclear"
    assert verdict(0.0199, 1e-9) == "equal"
    assert verdict(-0.02, 0.049) == "behind"


def test_sentences_claim_no_more_than_the_table() -> None:
    lines = verdict_lines(summarise(outcome_rows(), 2.0))
    assert lines == [
        "lissnas is ahead of `abs`; practically equal (less than 0.02 SD) to `flops`; "
        "behind `best_first` (by up to 0.12 SD).",
        "With the quota of lissnas on what the method scored, lissnas is practically equal (less than 0.02 SD) to "
        "`abs`, `best_first`.",
    ]
    swapped = [dict(r, mean_true=2 * r["ours_mean_true"] - r["mean_true"]) for r in outcome_rows()]
    two = [
        {**r, "benchmark": name} for name, rows in (("a", outcome_rows()), ("b", swapped)) for r in summarise(rows, 2.0)
    ]
    (line, _) = verdict_lines(corrected(two))
    assert line == (
        "lissnas is practically equal (less than 0.02 SD) to `flops` on all 2 benchmarks; "
        "behind `abs` (1 of 2, by up to 0.07 SD), `best_first` (1 of 2, by up to 0.12 SD)."
    )
    fewer = [r for r in corrected(two) if r["benchmark"] == "a" or r["method"] != "abs"]
    assert "behind `best_first` (1 of 2, by up to 0.12 SD)" in verdict_lines(fewer)[0]
    assert "ahead of `abs` (tested on 1)" in verdict_lines(fewer)[0]
    assert verdict_lines([{"method": "abs"}]) == []


# -- counted oracle --------------------------------------------------------------------------------
FREE_SPACE = ChoiceSpace("free", [3] * 5)


def value_of(archs: Archs) -> FloatArray:
    return FREE_SPACE.key(archs).astype(np.float64)


@given(st.lists(st.lists(st.integers(0, 242), max_size=30), max_size=8), st.integers(0, 120))
def test_counted_oracle_caches_values_within_a_budget(batches: list[list[int]], budget: int) -> None:
    seen: set[int] = set()
    queried: list[int] = []

    def oracle(archs: Archs) -> FloatArray:
        queried.extend(FREE_SPACE.key(archs).tolist())
        return value_of(archs)

    counted = CountedOracle(oracle, FREE_SPACE, budget)
    for batch in batches:
        rows = FREE_SPACE.unkey(np.array(batch, np.uint64))
        prefix = counted.affordable(rows)
        assert (prefix == rows[: len(prefix)]).all()
        assert len(seen | set(batch[: len(prefix)])) <= budget
        if len(prefix) < len(rows):  # the longest: one more exceeds the budget
            assert len(seen | set(batch[: len(prefix) + 1])) > budget
            with pytest.raises(BudgetExceeded, match=f"{budget - len(seen)} of {budget} are left"):
                counted(rows)
            assert counted.queries == len(seen)
        assert counted(prefix).tolist() == batch[: len(prefix)]
        seen |= set(batch[: len(prefix)])
        assert counted.queries == len(seen) == budget - counted.left
    assert sorted(queried) == sorted(seen)  # each once
    known, values = counted.queried()
    assert FREE_SPACE.key(known).tolist() == values.tolist() == sorted(seen)


def test_networks_of_equal_function_cost_one_query() -> None:
    space = spaces.get("nas_bench_macro")
    counted = CountedOracle(lambda archs: np.ones(len(archs)), space, 1)
    forms = np.array([[1, 1, 1, 0, 2, 0, 2, 1], [1, 1, 1, 2, 0, 0, 2, 1]], np.int8)
    assert counted(forms).tolist() == [1, 1]
    assert counted.queries == 1


def test_failed_query_is_not_counted() -> None:
    """After catching the error, the oracle can be used again."""
    fail = [False]

    def oracle(archs: Archs) -> FloatArray:
        return np.where(fail[0], np.nan, value_of(archs))

    counted = CountedOracle(oracle, FREE_SPACE, 100)
    rows = FREE_SPACE.sample_distinct(40, rng())
    counted(rows[:20])
    fail[0] = True
    with pytest.raises(LissnasError, match="nan for"):
        counted(rows[20:])
    assert counted.queries == 20
    assert [len(x) for x in counted.queried()] == [20, 20]
    fail[0] = False
    assert (counted(rows) == value_of(rows)).all()


# -- subspaces -------------------------------------------------------------------------------------
def masks(space: ChoiceSpace) -> st.SearchStrategy[BoolArray]:
    """Generate masks of allowed choices for each decision, possibly empty."""
    width = max(space.slot_choices)
    bits = st.lists(st.booleans(), min_size=width, max_size=width)
    n = len(space.slot_choices)
    return st.lists(bits, min_size=n, max_size=n).map(lambda b: np.array(b) & all_mask(space))


def all_mask(space: ChoiceSpace) -> BoolArray:
    return np.arange(max(space.slot_choices)) < np.array(space.slot_choices)[:, None]


MACRO, BOTH = transnas.TransNASMacro(), transnas.TransNAS()


def check_product(space: ChoiceSpace, allowed: BoolArray) -> None:
    part = Subspace(space, allowed=allowed)
    everything = space.enumerate()
    # Brute force: all decisions that apply to an architecture have an allowed choice.
    inside = np.array([all(c < 0 or allowed[i, c] for i, c in enumerate(s)) for s in space.slots(everything).tolist()])
    assert part.kind == "product"
    assert part.size() == inside.sum() == len(part.members)
    assert (part.members == everything[inside]).all()
    assert (part.contains(everything) == inside).all()
    if inside.any():
        assert part.contains(part.sample(50, rng())).all()
    else:
        with pytest.raises(UserError, match="empty subspace"):
            part.sample(1, rng())


@settings(max_examples=60)
@given(masks(FREE_SPACE))
def test_product_without_rules(allowed: BoolArray) -> None:
    check_product(FREE_SPACE, allowed)


@settings(max_examples=15)
@given(masks(MACRO))
def test_product_with_rules(allowed: BoolArray) -> None:
    check_product(MACRO, allowed)


def test_product_with_conditional_decisions() -> None:
    allowed = all_mask(BOTH)
    allowed[1:7, 3] = False  # micro: no conv3x3; its edges are the six slots after the first
    allowed[7:, 4] = False  # macro: no module that widens and downsamples
    check_product(BOTH, allowed)
    assert Subspace(BOTH, allowed=allowed).contains(BOTH.parse(["64-41414-2_21_012", "64-1231-basic"])).all()
    allowed[0, 0] = False
    check_product(BOTH, allowed)
    assert not Subspace(BOTH, allowed=allowed).contains(BOTH.parse(["64-41414-2_21_012"])).any()


def test_membership_does_not_depend_on_the_form() -> None:
    """One block and two identities in a stage, in two orders; the product is over canonical forms."""
    space = spaces.get("nas_bench_macro")
    forms = np.array([[1, 1, 1, 2, 0, 0, 2, 1], [1, 1, 1, 0, 2, 0, 2, 1]], np.int8)
    assert Subspace(space, listed=forms[:1]).contains(forms).tolist() == [True, True]
    allowed = np.ones((8, 3), bool)
    allowed[3, 0] = False
    assert Subspace(space, allowed=allowed).contains(forms).tolist() == [True, True]


@pytest.mark.parametrize("kind", ["set", "product", "product with rules"])
def test_members_are_drawn_uniformly(kind: str) -> None:
    part = {
        "set": Subspace(FREE_SPACE, listed=FREE_SPACE.sample_distinct(60, rng())),
        "product": Subspace(FREE_SPACE, allowed=np.array([[1, 1, 0]] * 3 + [[1, 1, 1]] * 2, bool)),
        "product with rules": Subspace(MACRO, allowed=all_mask(MACRO) & (np.arange(5) != 2)),
    }[kind]
    keys = np.sort(part.space.key(part.members))
    index = np.searchsorted(keys, part.space.key(part.sample(30 * len(keys), rng())))
    assert stats.chisquare(np.bincount(index, minlength=len(keys))).pvalue > 1e-4


def test_product_too_large_to_list() -> None:
    space = ChoiceSpace("large", [4] * 20)
    whole = all_choices(space)
    assert whole.size() == 4**20
    assert whole.describe() == {"kind": "product", "space": "large", "size": 4**20, "size_exact": True}
    allowed = all_mask(space).copy()
    allowed[:7, 0] = False
    allowed[4:9, 3] = False
    part = Subspace(space, allowed=allowed)
    assert part.size() == 3**4 * 2**3 * 3**2 * 4**11
    assert type(part.size()) is int
    drawn = part.sample(40_000, rng())
    assert part.contains(drawn).all()
    assert len(np.unique(space.key(drawn))) > 39_900
    for position, choices in enumerate(allowed):
        count = np.bincount(drawn[:, position], minlength=4)
        assert (count[~choices] == 0).all()
        assert stats.chisquare(count[choices]).pvalue > 1e-5
    # Positions are independent: a pair of them is uniform over pairs.
    pairs = np.bincount(4 * drawn[:, 10].astype(int) + drawn[:, 15], minlength=16)
    assert stats.chisquare(pairs).pvalue > 1e-5
    uniform = space.sample(20_000, rng(1))
    assert part.contains(uniform).mean() == pytest.approx(part.size() / 4**20, abs=0.01)
    with pytest.raises(UserError, match="too large to list"):
        _ = part.members


def test_subspace_needs_exactly_one_definition() -> None:
    rows = FREE_SPACE.enumerate()
    for listed, allowed in ((None, None), (rows, all_mask(FREE_SPACE))):
        with pytest.raises(UserError, match="exactly one of listed, allowed"):
            Subspace(FREE_SPACE, listed, allowed)
    assert Subspace(FREE_SPACE, listed=rows).describe()["kind"] == "set"


# -- dropping choices ------------------------------------------------------------------------------
@pytest.mark.parametrize(("drops", "left"), [(3, 112_000), (6, 25_700), (7, 14_900)])
def test_random_drops_on_nasbench101_match_the_paper(drops: int, left: int) -> None:
    """Mean size after dropping random pairs of vertex and operation, except the last operation of a vertex."""
    whole = all_choices(spaces.get("nasbench101"))
    assert whole.size() == 423_624
    sizes = []
    for seed in range(30):
        draw = rng(seed)
        assert whole.allowed is not None
        allowed = whole.allowed.copy()
        for _ in range(drops):
            at = np.argwhere(droppable(allowed))
            allowed[tuple(at[draw.integers(len(at))])] = False
        sizes.append(Subspace(whole.space, allowed=allowed).size())
    assert np.mean(sizes) == pytest.approx(left, rel=0.2)


ALL_PAIRS = [(slot, choice) for choice in range(3) for slot in range(5)]


@settings(max_examples=60)
@given(st.permutations(ALL_PAIRS), st.integers(1, 300))
def test_drops_stop_at_the_nearest_size(order: Sequence[tuple[int, int]], target: int) -> None:
    """Nearest in ratio; the sizes are 3^5 and products of factors from 1 to 3."""
    part, done = drop_choices(all_choices(FREE_SPACE), order, target)
    assert done
    allowed = all_mask(FREE_SPACE).copy()
    sizes = [243]
    for slot, choice in order:
        if allowed[slot].sum() > 1:
            allowed[slot, choice] = False
            sizes.append(int(np.prod(allowed.sum(axis=1))))
    passed = next((i for i, size in enumerate(sizes[1:], 1) if size <= target), len(sizes) - 1)
    before, after = sizes[passed - 1], sizes[passed]
    nearest = min((after, before), key=lambda size: abs(np.log(size / target)))
    assert abs(np.log(part.size() / target)) == pytest.approx(abs(np.log(nearest / target)))


def test_drops_that_do_not_reach_the_target_are_not_done() -> None:
    part, done = drop_choices(all_choices(FREE_SPACE), [(0, 0), (0, 1), (0, 2), (1, 2)], 10)
    assert not done
    assert part.allowed is not None
    # The last choice of a decision is kept.
    assert part.allowed.sum(axis=1).tolist() == [1, 2, 3, 3, 3]


# -- comparison run --------------------------------------------------------------------------------
def test_target_above_the_space_is_refused(make_params: Callable[..., Any]) -> None:
    full_space = FullSpaceStatistics.of(benchmarks.get("nas_bench_macro"))
    with pytest.raises(ConfigError, match="target_size: 5,000 is more than the space has"):
        start_comparison(full_space, make_params(shrink__target_size=5_000), 0)


def made_up(space: ChoiceSpace, values: Callable[[Archs], FloatArray]) -> Benchmark:
    rows = space.enumerate()
    return Benchmark("made_up", space, "score", "none", space.key(rows), values(rows))


def test_space_of_one_architecture_is_refused() -> None:
    with pytest.raises(UserError, match="made_up has one architecture"):
        FullSpaceStatistics.of(made_up(ChoiceSpace("single", [1, 1]), lambda rows: np.ones(len(rows))))


def test_equal_accuracies_are_refused() -> None:
    with pytest.raises(UserError, match=r"all 243 values are 93\.1: no threshold"):
        FullSpaceStatistics.of(made_up(FREE_SPACE, lambda rows: np.full(len(rows), 93.1)))


def test_target_is_derived_from_labels_by_default(make_params: Callable[..., Any]) -> None:
    """For a space without a target in the parameters."""
    table = made_up(ChoiceSpace("unknown", [4] * 5), lambda rows: rows @ [1.0, 2.0, 4.0, 8.0, 16.0])
    run = start_comparison(FullSpaceStatistics.of(table), make_params(), 0, 1)
    assert run.params.target_size == run.ours.size
    assert 100 <= run.ours.size <= 4**5 // 4


def test_metrics_of_a_row_use_true_values(make_params: Callable[..., Any]) -> None:
    """Compared with a direct look-up of the members in the table."""
    table = benchmarks.get("nas_bench_macro")
    run = start_comparison(FullSpaceStatistics.of(table), make_params(), 4, 1)
    result = run_method(run, "abs")
    values, row = table.look_up(result.keys), result.row
    assert row["size"] == len(np.unique(result.keys)) == row["ours_size"]
    assert row["mean_true"] == pytest.approx(values.mean())
    assert row["median_true"] == np.median(values)
    assert row["max_true"] == values.max()
    assert row["top10_mean"] == pytest.approx(np.sort(values)[-10:].mean())
    assert row["kept_best"] is bool(values.max() == table.best)
    assert row["top10_kept"] == (values >= np.sort(table.values)[-10]).sum()
    good = values > np.quantile(table.values, 0.8)
    assert row["p_good"] == pytest.approx(good.mean())
    assert row["p_good_low"] < row["p_good"] < row["p_good_high"]
    assert row["shrink_index"] == pytest.approx(good.mean() - np.mean(table.values > np.quantile(table.values, 0.8)))
    assert row["ks"] == pytest.approx(stats.ks_2samp(values, table.values).statistic)
    assert (row["seed"], row["labels"], row["kind"]) == (4, 300, "product")


# -- the stage -------------------------------------------------------------------------------------
COMPARED = [name for name in METHODS if name != "lapt"]
"""NAS-Bench-Macro has no other task to learn from."""
CONTRACT = {
    *("method", "seed", "size", "queries", "labels", "mean_true", "max_true", "kept_best", "top10_kept", "p_good"),
    *("shrink_index", "edf_auc", "ks", "ks_p", "cosine_coverage", "flops_coverage", "seconds"),
    *("ours_mean_true", "ours_kept_best", "ours_flops_coverage"),
}
FILES = {
    *("comparison.csv", "summary.csv", "diversity.parquet", "spaces.parquet", "comparison.md"),
    *("comparison.png", "diversity.png", "edf.png", "budget.png", "metrics.json", "parameters.json"),
}


@pytest.fixture(scope="module")
def compared(make_params: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compare all methods with two seeds on the small space."""
    out = tmp_path_factory.mktemp("compare") / "out"
    lines: list[str] = []
    table = benchmarks.get("nas_bench_macro")
    outcome = compare_stage(make_params(), table, COMPARED, [0, 1], out, on_progress=lines.append, threads=1)
    assert not outcome.reused
    assert len(lines) == 2 * len(COMPARED)
    return out


def rows_of(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(folder / "comparison.parquet").to_pylist()
    return found


def test_stage_writes_the_documented_files(compared: Path) -> None:
    assert artifacts.verify(compared).keys() == FILES
    table = pq.read_table(compared / "comparison.parquet")
    assert set(table.column_names) >= CONTRACT
    budget = {f"{ours}mean_true_{share}" for share in (25, 50, 75) for ours in ("", "ours_")}
    missing = {c for c in table.column_names if table[c].null_count}
    assert missing == budget | {"quota_mean_true", "quota_flops_coverage"}
    assert [(r["method"], r["seed"]) for r in table.to_pylist()] == [*itertools.product(COMPARED, [0, 1])]
    untimed = csv.read_csv(compared / "comparison.csv")
    assert untimed.column_names == [c for c in table.column_names if c != "seconds"]
    for name in untimed.column_names:
        assert untimed[name].to_pylist() == table[name].to_pylist()
    metrics = json.loads((compared / "metrics.json").read_bytes())
    assert (metrics["benchmark"], metrics["seeds"]) == ("nas_bench_macro", 2)
    assert metrics["rivals"] == len(COMPARED) - len(REFERENCES)
    page = (compared / "comparison.md").read_text()
    assert all(f"| {name} |" in page for name in COMPARED)
    assert "Means over 2 seeds" in page


def test_methods_have_equal_budgets_and_targets(compared: Path) -> None:
    rows = rows_of(compared)
    budget = {r["seed"]: r["queries"] for r in rows if r["method"] == "lissnas"}
    for r in rows:
        assert r["ours_size"] == r["size"]
        assert r["labels"] == (0 if not METHODS[r["method"]].needs_labels else 300)
        assert r["seconds"] > 0
        if r["method"] != "score_all":
            assert r["queries"] <= budget[r["seed"]]
        if not METHODS[r["method"]].needs_labels:
            assert r["queries"] == 0
        if not r["method"].startswith("top"):
            assert 0.7 <= r["size"] / 450 <= 1.4
    ours = [r for r in rows if r["method"] == "lissnas"]
    assert all(r["mean_true"] == r["ours_mean_true"] and r["size"] == 450 for r in ours)
    everything = [r for r in rows if r["method"] == "score_all"]
    assert {r["queries"] for r in everything} == {3_969}


def test_saved_spaces_are_those_of_the_first_seed(compared: Path) -> None:
    table, benchmark = pq.read_table(compared / "spaces.parquet"), benchmarks.get("nas_bench_macro")
    names, keys = np.array(table["method"].to_pylist()), table["key"].to_numpy()
    assert list(dict.fromkeys(names.tolist())) == COMPARED
    for r in rows_of(compared):
        if r["seed"] == 0:
            members = keys[names == r["method"]]
            assert len(np.unique(members)) == len(members) == r["size"]
            assert benchmark.look_up(members).mean() == pytest.approx(r["mean_true"])


def test_diversity_curve_has_a_point_for_each_seed_and_diversity(
    compared: Path, make_params: Callable[..., Any]
) -> None:
    curve = pq.read_table(compared / "diversity.parquet").to_pylist()
    diversities = make_params().compare.diversities
    assert [(p["seed"], p["diversity"], p["size"]) for p in curve] == [(s, d, 450) for s in (0, 1) for d in diversities]
    coverage = [np.mean([p["flops_coverage"] for p in curve if p["diversity"] == d]) for d in (0.0, 0.05, 1.0)]
    assert coverage == sorted(coverage)


def test_means_rise_with_the_budget(compared: Path) -> None:
    """Of a method that ranks what it scores; methods without queries do not depend on the budget."""
    rows = rows_of(compared)
    for r in rows:
        shares = [r["mean_true_25"], r["mean_true_50"], r["mean_true_75"], r["mean_true"]]
        if r["method"] in ("lissnas", "best_first", "no_neighbors"):
            assert shares == sorted(shares)
        if r["method"] == "flops":
            assert len(set(shares)) == 1
        if r["method"] in ("score_all", "lissnas_collect"):
            assert shares[:3] == [None] * 3
        if r["method"] == "lissnas":
            assert shares[:3] == [r["ours_mean_true_25"], r["ours_mean_true_50"], r["ours_mean_true_75"]]


def test_what_a_method_scored_is_selected_with_our_quota(compared: Path) -> None:
    for r in rows_of(compared):
        if r["method"] in ("lissnas", "lissnas_collect"):
            assert r["quota_mean_true"] == pytest.approx(r["mean_true"])
        if r["method"] in ("score_all", "best_first"):
            assert r["quota_flops_coverage"] > r["flops_coverage"]
            assert r["quota_mean_true"] < r["mean_true"]
        if r["method"] == "flops":
            assert r["quota_mean_true"] is None


def test_a_table_of_scores_answers_as_the_predictor(make_params: Callable[..., Params]) -> None:
    table = benchmarks.get("nas_bench_macro")
    rows = table.space.sample_distinct(100, rng())
    predictor = Predictor.fit(table.space, rows, table(rows), make_params(predictor__trees=20).predictor, 0, 1)
    scores = ScoreTable.of(table.space, predictor, 1)
    some = table.space.sample(500, rng(1))
    assert (scores.score(some) == predictor.score(some, 1)).all()
    assert (scores.value(scores.score(some)) == predictor.value(predictor.score(some, 1))).all()
    assert scores.score(some).dtype == predictor.score(some, 1).dtype
    assert scores.seconds > 0


def test_existing_result_is_reused(compared: Path, make_params: Callable[..., Any]) -> None:
    table = benchmarks.get("nas_bench_macro")
    before = {p.name: p.read_bytes() for p in compared.iterdir()}
    assert compare_stage(make_params(), table, COMPARED, [0, 1], compared, threads=1).reused
    assert {p.name: p.read_bytes() for p in compared.iterdir()} == before
    assert [p.name for p in compared.parent.iterdir() if p.suffix == ".tasks"] == []
    with pytest.raises(UserError, match=r"other parameters \(seeds differ\)"):
        compare_stage(make_params(), table, COMPARED, [0, 1, 2], compared)
    with pytest.raises(UserError, match=r"other parameters \(methods differ\)"):
        compare_stage(make_params(), table, COMPARED[:3], [0, 1], compared)


def test_damaged_result_is_not_reused(compared: Path, make_params: Callable[..., Any]) -> None:
    """The file contains times, so it is not in the manifest, but it has a checksum."""
    path = compared / "comparison.parquet"
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    try:
        with pytest.raises(DamagedFile, match=r"comparison\.parquet is damaged"):
            compare_stage(make_params(), benchmarks.get("nas_bench_macro"), COMPARED, [0, 1], compared)
    finally:
        path.write_bytes(data)


# -- interruption ----------------------------------------------------------------------------------
FEW = ["lissnas", "abs", "top10", "flops"]


class Killed(Exception):
    pass


class Calls:
    """Runs steps and records their names; raises Killed at `die_at`."""

    def __init__(self, die_at: str = "") -> None:
        self.names: list[str] = []
        self.die_at = die_at

    def __call__(self, step: Callable[..., Any], *args: Any, name: str = "") -> Any:
        if name == self.die_at:
            raise Killed
        self.names.append(name)
        return step(*args)


def dying_after(rows: int) -> Callable[[str], None]:
    seen = itertools.count(1)

    def on_progress(line: str) -> None:
        if next(seen) == rows:
            raise Killed

    return on_progress


@pytest.fixture(scope="module")
def quick(make_params: Callable[..., Params]) -> Params:
    """Return parameters with a weak predictor and a short curve: the same tasks in a tenth of the time."""
    return make_params(predictor__trees=40, compare__diversities=[0.05, 0.5])


@pytest.fixture(scope="module")
def uninterrupted(quick: Params, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("compare") / "whole"
    return compare_stage(quick, benchmarks.get("nas_bench_macro"), FEW, [0, 1], out, threads=1).folder


def assert_same_files(a: Path, b: Path) -> None:
    first, second = artifacts.verify(a), artifacts.verify(b)
    assert {name for name in first if first[name] != second.get(name)} == set()
    assert first.keys() == second.keys()


@pytest.mark.parametrize("rows", [1, 6])
def test_resumed_comparison_gives_the_same_bytes(rows: int, quick: Params, uninterrupted: Path, tmp_path: Path) -> None:
    table, out = benchmarks.get("nas_bench_macro"), tmp_path / "r"
    first, second = Calls(), Calls()
    with pytest.raises(Killed):
        compare_stage(quick, table, FEW, [0, 1], out, call=first, on_progress=dying_after(rows), threads=1)
    assert not out.exists()
    lines: list[str] = []
    compare_stage(quick, table, FEW, [0, 1], out, call=second, on_progress=lines.append, threads=1)
    done = [name for name in first.names if not name.startswith("open")]
    redone = [name for name in second.names if not name.startswith("open")]
    assert not set(done) & set(redone)
    expected = [
        f"{task} seed {seed}"
        for seed in (0, 1)
        for task in [*(task for m in FEW for task in (m, f"budget {m}")), "curve"]
    ]
    assert done + redone == expected
    assert len(lines) == 2 * len(FEW)  # finished tasks are reported again
    assert_same_files(out, uninterrupted)
    assert not list(tmp_path.glob(".*.tasks"))


def test_finished_seed_is_not_started_again(quick: Params, tmp_path: Path) -> None:
    table, out, second = benchmarks.get("nas_bench_macro"), tmp_path / "r", Calls()
    with pytest.raises(Killed):
        compare_stage(quick, table, FEW, [0, 1], out, call=Calls("lissnas seed 1"), threads=1)
    compare_stage(quick, table, FEW, [0, 1], out, call=second, threads=1)
    assert "open seed 0" not in second.names
    assert "open seed 1" in second.names


def test_finished_tasks_are_reused_with_more_methods(quick: Params, uninterrupted: Path, tmp_path: Path) -> None:
    table, out = benchmarks.get("nas_bench_macro"), tmp_path / "r"
    with pytest.raises(Killed):
        compare_stage(quick, table, ["lissnas", "abs"], [0, 1], out, call=Calls("abs seed 1"), threads=1)
    calls = Calls()
    compare_stage(quick, table, FEW, [0, 1], out, call=calls, threads=1)
    assert not {"abs seed 0", "curve seed 0"} & set(calls.names)
    assert_same_files(out, uninterrupted)


def test_finished_tasks_of_other_parameters_are_not_reused(quick: Params, tmp_path: Path) -> None:
    table, out, calls = benchmarks.get("nas_bench_macro"), tmp_path / "r", Calls()
    other = quick.model_copy(update={"predictor": quick.predictor.model_copy(update={"trees": 41})})
    with pytest.raises(Killed):
        compare_stage(quick, table, FEW, [0], out, call=Calls("flops seed 0"), threads=1)
    compare_stage(other, table, FEW, [0], out, call=calls, threads=1)
    assert "lissnas seed 0" in calls.names


def test_force_recomputes_everything(quick: Params, uninterrupted: Path) -> None:
    calls = Calls()
    table = benchmarks.get("nas_bench_macro")
    before = artifacts.read_manifest(uninterrupted)
    outcome = compare_stage(quick, table, FEW, [0, 1], uninterrupted, call=calls, force=True, threads=1)
    assert not outcome.reused
    assert len([n for n in calls.names if not n.startswith("open")]) == 2 * (2 * len(FEW) + 1)
    assert artifacts.read_manifest(uninterrupted) == before


# -- other sizes of comparison ---------------------------------------------------------------------
def test_one_seed_has_no_interval_or_significance(quick: Params, tmp_path: Path) -> None:
    table = benchmarks.get("nas_bench_macro")
    outcome = compare_stage(quick, table, ["lissnas", "top10"], [7], tmp_path / "r", threads=1)
    assert [r["seed"] for r in rows_of(outcome.folder)] == [7, 7]
    lissnas, top10 = csv.read_csv(outcome.folder / "summary.csv").to_pylist()
    assert top10["mean_true_low"] == top10["mean_true"] == top10["mean_true_high"]
    assert top10["p"] == top10["p_holm"] == 1
    assert lissnas["p"] is None
    page = (outcome.folder / "comparison.md").read_text()
    assert "Means over 1 seed;" in page
    assert "fewer than six seeds" in page


@pytest.mark.parametrize("methods", [["score_all"], ["params", "no_locality"]])
def test_row_of_a_method_does_not_depend_on_the_others(
    methods: list[str], make_params: Callable[..., Any], compared: Path, tmp_path: Path
) -> None:
    """The rows of a subset equal those of all methods."""
    table = benchmarks.get("nas_bench_macro")
    outcome = compare_stage(make_params(), table, methods, [1], tmp_path / "r", threads=1)
    found = [{k: v for k, v in r.items() if k != "seconds"} for r in rows_of(outcome.folder)]
    of_all = {r["method"]: {k: v for k, v in r.items() if k != "seconds"} for r in rows_of(compared) if r["seed"] == 1}
    assert found == [of_all[name] for name in methods]


def test_space_without_costs(make_params: Callable[..., Any], tmp_path: Path) -> None:
    """Metrics of FLOPs are omitted."""
    space = ChoiceSpace("free", [3] * 6)
    table = made_up(space, lambda rows: rows @ rng().normal(size=6) + rng(1).normal(0, 0.3, len(rows)))
    params = make_params(shrink__labels=100, shrink__target_size=60)
    outcome = compare_stage(params, table, ["lissnas", "abs", "dds", "top10"], [0], tmp_path / "r", threads=1)
    rows = rows_of(outcome.folder)
    assert {"flops_coverage", "edf_auc_by_flops"}.isdisjoint(rows[0])
    assert all(r["ours_size"] == r["size"] for r in rows)
    assert rows[0]["mean_true"] > table.values.mean()
