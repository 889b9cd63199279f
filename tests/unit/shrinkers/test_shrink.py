"""The method: selection, stopping rules, edge cases, and resumption."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lissnas import benchmarks
from lissnas.core.errors import LissnasError, UserError
from lissnas.shrinkers import lissnas as method
from lissnas.shrinkers.archive import FAILED
from lissnas.shrinkers.lissnas import plain_call, shrink
from lissnas.shrinkers.problem import Problem, Source
from lissnas.shrinkers.result import files_of, metrics_of
from lissnas.shrinkers.selection import Strata, select_top
from lissnas.shrinkers.shrunk import Shrunk
from lissnas.shrinkers.state import State
from lissnas.spaces import Archs, ChoiceSpace, FloatArray, IntArray
from tests.problems import with_source

Make = Callable[..., Problem]


def run(problem: Problem, **given: Any) -> Shrunk:
    return shrink(problem, **given)


def test_elite_reaches_its_target_and_counts_queries(make_problem: Make) -> None:
    batches: list[int] = []
    problem = make_problem()
    table = benchmarks.get("nas_bench_macro")

    def oracle(archs: Archs) -> FloatArray:
        batches.append(len(archs))
        return table(archs)

    result = run(with_source(problem, oracle=oracle))
    assert len(result.members) == result.subspace.size() == 450
    assert batches == [75, *[37] * 5, 40]
    assert result.state.n_labels == 300
    assert result.state.queries == len(result.state.archive.rows) == len(np.unique(result.state.archive.keys))
    last = result.state.records[-1]
    assert last["queries"] == result.state.queries
    assert table(result.subspace.members).mean() >= 92.45


def test_paper_variant_keeps_only_seeds_and_neighbors(make_problem: Make) -> None:
    problem = make_problem(shrink__variant="paper")
    spaces: list[tuple[set[int], set[int]]] = []

    def record(state: State) -> None:
        members = set(state.current.tolist())
        spaces.append((members, set(state.seeds.tolist()) | set(state.children.tolist())))

    result = run(problem, on_iteration=record)
    assert all(members == expected for members, expected in spaces[1:])
    means = [r["mean_predicted"] for r in result.state.records]
    assert result.state.stop.startswith("the mean prediction rose")
    assert all(b - a >= 0.02 for a, b in itertools.pairwise(means[:-1]))
    assert means[-1] - means[-2] < 0.02
    assert len(result.members) == result.state.records[-2]["size"]
    assert result.state.n_labels == 596  # 15 % of the space


def test_paper_variant_without_improvement_returns_the_first_sample(make_problem: Make) -> None:
    result = run(make_problem(shrink__variant="paper", shrink__paper__tolerance=1000.0))
    assert "in the first iteration" in result.state.stop
    assert sorted(result.members.tolist()) == list(range(result.state.n_first))


@pytest.mark.parametrize("variant", ["elite", "paper"])
def test_query_budget_is_not_exceeded(make_problem: Make, variant: str) -> None:
    budget = 900 if variant == "elite" else 2_100
    result = run(make_problem(shrink__variant=variant, shrink__max_queries=budget))
    assert result.state.queries <= budget
    assert result.state.stop


def test_iteration_limit_stops_the_shrink(make_problem: Make) -> None:
    result = run(make_problem(shrink__elite__max_iterations=2))
    assert result.state.iteration == 2
    assert "2 iterations" in result.state.stop
    assert len(result.members) == 450


@pytest.mark.parametrize("variant", ["elite", "paper"])
@pytest.mark.parametrize("after", [0, 1, 2])
def test_resumed_shrink_gives_the_same_bytes(make_problem: Make, variant: str, after: int) -> None:
    problem = make_problem(shrink__variant=variant)
    saved: list[Any] = []
    whole = files_of(run(problem, on_iteration=lambda s: saved.append(s.to_arrays())))
    arrays, about = saved[after]
    resumed = run(problem, state=State.from_arrays(problem.space, arrays, about))
    assert files_of(resumed) == whole


def test_result_does_not_depend_on_threads(make_problem: Make) -> None:
    settings = {"shrink__target_size": 2_000, "predictor__trees": 100}
    files = [files_of(run(replace(make_problem("nasbench101", **settings), threads=n))) for n in (1, 2)]
    assert files[0] == files[1]


def test_steps_run_in_the_order_of_the_method(make_problem: Make) -> None:
    names: list[str] = []

    def call(step: Any, state: State, problem: Problem) -> State:
        names.append(step.__name__)
        return plain_call(step, state, problem)

    shrink(make_problem(), call)
    assert names[:5] == ["sample", "label", "sample", "predict", "check_convergence"]
    assert names[5:7] == ["expand", "check_convergence"]
    assert names.count("label") == 7
    without_labels = [name for name in names[5:] if name != "label"]
    assert without_labels == ["expand", "check_convergence"] * (len(without_labels) // 2)


def test_seeds_are_selected_again_after_each_batch(make_problem: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """In batches of 2 % of the target, up to five in an iteration; no architecture is a seed twice."""
    seeds: list[tuple[int, IntArray]] = []
    select = method.select_seeds

    def record(state: State, problem: Problem) -> State:
        after = select(state, problem)
        seeds.append((after.iteration, after.seeds))
        return after

    monkeypatch.setattr(method, "select_seeds", record)
    result = shrink(make_problem())
    every = np.concatenate([rows for _, rows in seeds])
    assert len(np.unique(every)) == len(every) == result.state.archive.expanded.sum()
    assert max(len(rows) for _, rows in seeds) == 9  # 2 % of 450
    per_iteration = np.bincount([iteration for iteration, _ in seeds])
    assert per_iteration.max() == 5


def test_the_best_half_of_the_target_is_expanded(make_problem: Make) -> None:
    result = shrink(make_problem())
    assert result.state.stop == "the best 50 % of the target are expanded"
    best = result.state.archive.top(np.arange(len(result.state.archive)), 225, result.state.strata, 0.05)
    assert result.state.archive.expanded[best].all()


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_seed_fraction_is_the_share_of_the_target_that_is_expanded(make_problem: Make, share: float) -> None:
    default = shrink(make_problem()).state
    other = shrink(make_problem(shrink__elite__seed_fraction=share)).state
    assert (other.queries < default.queries) == (share < 0.5)
    assert f"the best {100 * share:g} % of the target" in other.stop


def test_parents_and_distances(make_problem: Make) -> None:
    """Each neighbor has the recorded distance from its parent; sampled rows are their parents themselves."""
    state = run(make_problem(shrink__variant="paper")).state
    index = np.arange(len(state.archive.rows))
    sampled = index < state.n_first
    assert (state.archive.parent[sampled] == index[sampled]).all()
    assert (state.archive.distance[sampled] == 0).all()
    space = benchmarks.get("nas_bench_macro").space
    assert isinstance(space, ChoiceSpace)
    distance = space.distance(state.archive.rows[state.archive.parent], state.archive.rows)
    assert (distance == state.archive.distance).all()


def test_constant_labels_are_refused(make_problem: Make) -> None:
    with pytest.raises(UserError, match="without two different values"):
        run(with_source(make_problem(), oracle=lambda archs: np.ones(len(archs))))


def test_label_that_is_not_finite_is_refused(make_problem: Make) -> None:
    problem = make_problem()

    def oracle(archs: Archs) -> FloatArray:
        values = np.arange(len(archs), dtype=float)
        values[3] = np.inf
        return values

    with pytest.raises(LissnasError, match=r"inf for [012]{8}"):
        run(with_source(problem, oracle=oracle))
    with pytest.raises(LissnasError, match=r"shape \(1,\)"):
        run(with_source(problem, oracle=lambda archs: np.ones(1)))


class NoCosts(ChoiceSpace):
    """A space without costs: strata are clusters of the encoding."""


@pytest.mark.parametrize("diversity", [0.0, 0.5])
def test_space_without_costs_and_table(make_problem: Make, diversity: float) -> None:
    space = NoCosts("made_up", [4] * 8)
    weights = np.random.default_rng(0).normal(size=(8, 4))

    def oracle(archs: Archs) -> FloatArray:
        return np.asarray(weights[np.arange(8), archs].sum(axis=1))

    params = make_problem("nas_bench_macro", shrink__elite__diversity=diversity).params
    result = run(
        Problem(Source(space.name, space, "value", "x", oracle=oracle), params.model_copy(update={"target_size": 500}))
    )
    full = oracle(space.sample(5_000, np.random.default_rng(1)))
    assert oracle(result.subspace.members).mean() > full.mean() + full.std()
    assert "mean_true" not in result.state.records[-1]


def test_target_by_rule_is_explained(make_problem: Make) -> None:
    problem = make_problem()
    problem = replace(problem, params=problem.params.model_copy(update={"target_size": None}))
    result = run(problem)
    assert 100 <= len(result.members) <= 3_969 // 4
    assert result.state.notes[0].startswith(f"target size {len(result.members):,}")
    noise = np.random.default_rng(0)
    useless = run(with_source(problem, oracle=lambda archs: noise.normal(size=len(archs))))
    assert "say next to nothing" in useless.state.notes[0]


def test_select_top_fills_quotas_first() -> None:
    scores = np.array([9.0, 8, 7, 6, 5, 4, 3, 2])
    stratum: IntArray = np.array([0, 0, 0, 0, 0, 0, 1, 2])
    weight = np.array([0.5, 0.25, 0.25])
    assert select_top(scores, stratum, weight, 4, 0).tolist() == [0, 1, 2, 3]
    assert select_top(scores, stratum, weight, 4, 0.05).tolist() == [0, 1, 6, 7]
    assert select_top(scores, stratum, weight, 9, 1).tolist() == list(range(8))
    assert len(select_top(scores, stratum, weight, 2, 1)) == 2


@given(data=st.data())
def test_select_top_equals_a_full_sort(data: st.DataObject) -> None:
    """With ties, missing scores and rare strata, although only candidates are sorted."""
    n, n_strata = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 6))
    known = st.sampled_from([0.0, 1.0, 2.0, 2.5, -1.0, np.nan])
    scores = np.array(data.draw(st.lists(known, min_size=n, max_size=n)), np.float32)
    stratum = np.array(data.draw(st.lists(st.integers(0, n_strata - 1), min_size=n, max_size=n)), np.int16)
    k, strict = data.draw(st.integers(0, n + 2)), data.draw(st.booleans())
    diversity = data.draw(st.sampled_from([0.0, 0.05, 0.5, 1.0]))
    weight = np.full(n_strata, 1 / n_strata)
    reserve = math.ceil(diversity * k)
    quota = np.maximum(1, np.floor(diversity * k * weight))
    if strict:
        quota = np.maximum(1, np.floor(max(0, reserve - n_strata) * weight))
        quota[np.argsort(-weight, kind="stable")[reserve:]] = 0
    order, taken = np.argsort(-scores, kind="stable").tolist(), np.zeros(n_strata)
    reserved: list[int] = []
    for row in order if diversity else []:
        if taken[stratum[row]] < quota[stratum[row]] and len(reserved) < k:
            reserved.append(row)
            taken[stratum[row]] += 1
    rest = [row for row in order if row not in reserved][: k - len(reserved)]
    expected = sorted([*reserved, *rest], key=order.index)
    assert select_top(scores, stratum, weight, k, diversity, strict).tolist() == expected


def test_ties_are_broken_by_index() -> None:
    assert select_top(np.zeros(6), np.zeros(6, np.int64), np.ones(1), 3, 0).tolist() == [0, 1, 2]


def test_strata_of_a_first_sample() -> None:
    table = benchmarks.get("nas_bench_macro")
    first = table.space.sample(500, np.random.default_rng(0))
    strata, found = Strata.of(table.space, first, np.random.default_rng(1))
    assert strata.number == 29
    assert len(np.unique(strata.of_each(table.space, found))) >= len(np.unique(strata.of_each(table.space, first)))
    assert strata.weight.sum() == pytest.approx(1)
    assert Strata.from_arrays(strata.to_arrays()).number == 29


def test_metrics_count_ties_as_equally_good(make_problem: Make) -> None:
    problem = make_problem()
    result = run(problem)
    table = benchmarks.get("nas_bench_macro")
    metrics: Mapping[str, Any] = metrics_of(result)
    assert metrics["kept_best"] is True
    two_values = replace(table, values=np.where(table.values > 91, 5.0, 4.0))
    metrics = metrics_of(replace(result, problem=with_source(result.problem, truth=two_values)))
    assert metrics["kept_best"] is True
    assert metrics["top10_kept"] == 10


def test_failed_labels_are_omitted_and_not_requested_again(make_problem: Make) -> None:
    requested: list[int] = []
    problem = make_problem()
    truth = problem.source.oracle
    assert truth is not None

    def oracle(archs: Archs) -> FloatArray:
        requested.extend(problem.space.key(archs).tolist())
        return np.where(problem.space.key(archs) % np.uint64(5) == 0, np.nan, truth(archs))

    result = shrink(with_source(problem, oracle=oracle, truth=None))
    assert len(requested) == len(set(requested))
    failed = (result.state.archive.label_round == FAILED).sum()
    assert failed == sum(key % 5 == 0 for key in requested) > 0
    assert result.state.n_labels == len(requested) - failed


@pytest.mark.parametrize("target", [1, 2, 30, 2_500, 3_968])
def test_targets_from_one_to_almost_the_whole_space(make_problem: Make, target: int) -> None:
    result = run(make_problem(shrink__target_size=target))
    assert len(result.members) == target
    table = benchmarks.get("nas_bench_macro")
    assert table(result.subspace.members).mean() > table.values.mean()
    assert metrics_of(result)["size"] == target


@pytest.mark.parametrize("labels", [20, 23, 70, 100])
def test_small_label_budgets_start_with_twenty_labels(make_problem: Make, labels: int) -> None:
    state = run(make_problem(shrink__labels=labels)).state
    counts = np.bincount(state.archive.label_round[state.archive.label_round >= 0]).tolist()
    assert sum(counts) == state.n_labels == labels
    assert counts[0] == max(20, labels // 4)
    assert len(counts) == (1 if labels == 20 else 7)
