"""Goals of the labels that a shrink collects: the shrunk space, the best network, or both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from lissnas import benchmarks
from lissnas.config import Goal, Params
from lissnas.shrinkers.lissnas import shrink
from lissnas.shrinkers.problem import Problem, Source, from_space
from lissnas.shrinkers.state import State
from lissnas.stages.shrink import shrink_stage

MACRO = benchmarks.get("nas_bench_macro")
COUNTED = from_space(MACRO.space, oracle=MACRO)
"""The table as an oracle alone, as a program would be."""


@pytest.fixture(scope="module")
def quick(make_params: Callable[..., Params]) -> Params:
    return make_params(predictor__trees=40, shrink__labels=120, shrink__target_size=300)


def with_goal(params: Params, goal: Goal | None) -> Params:
    return params.model_copy(update={"shrink": params.shrink.model_copy(update={"goal": goal})})


def test_default_is_the_space_with_a_table_and_both_without(quick: Params) -> None:
    assert Problem.of(Source.of(MACRO), quick, 0).params.goal == "space"
    assert Problem.of(COUNTED, quick, 0).params.goal == "both"
    assert Problem.of(COUNTED, with_goal(quick, "network"), 0).params.goal == "network"
    assert "goal" not in Problem.of(Source.of(MACRO), quick, 0).params.stored()


@pytest.mark.parametrize(("goal", "search"), [("both", 45), ("network", 90)])
def test_share_of_the_search(quick: Params, tmp_path: Path, goal: Goal, search: int) -> None:
    """Of 120 labels, 30 are uniform; the rest is collected in six rounds of 15."""
    outcome = shrink_stage(with_goal(quick, goal), COUNTED, 0, tmp_path)
    table = pq.read_table(outcome.folder / "labels.parquet")
    kinds = Counter(table["kind"].to_pylist())
    assert outcome.metrics["labels"] == len(table) == len(set(table["arch"].to_pylist())) == 120
    assert kinds["uniform"] == 30
    assert abs(kinds["search"] - search) <= 6  # seven of each fifteen
    best = max(table["value"].to_pylist())
    assert MACRO.rank_of(best) <= 3
    assert outcome.metrics["size"] == 300


def test_goal_of_the_space_writes_what_it_always_wrote(quick: Params, tmp_path: Path) -> None:
    outcome = shrink_stage(quick, Source.of(MACRO), 0, tmp_path)
    assert pq.read_table(outcome.folder / "labels.parquet").column_names == ["arch", "value", "round"]


def test_the_space_of_both_goals_is_as_good_within_noise(quick: Params) -> None:
    means = {}
    for goal in ("space", "both"):
        results = [shrink(Problem.of(COUNTED, with_goal(quick, goal), seed)) for seed in range(3)]
        means[goal] = np.mean([MACRO(r.state.archive.rows[r.members]).mean() for r in results])
    assert means["both"] > means["space"] - 0.05 * MACRO.values.std()


def test_every_state_resumes_to_the_same_result(quick: Params) -> None:
    problem = Problem.of(COUNTED, quick, 0)
    states: list[State] = []
    whole = shrink(problem, on_iteration=states.append)
    assert len(whole.state.searched) > 30
    for state in (states[1], states[len(states) // 2]):
        restored = State.from_arrays(MACRO.space, *state.to_arrays())
        again = shrink(problem, state=restored)
        assert (again.state.archive.rows == whole.state.archive.rows).all()
        assert (again.state.searched == whole.state.searched).all()
        assert (again.members == whole.members).all()


def test_failed_labels_count_and_the_search_goes_on(quick: Params) -> None:
    failing = replace(COUNTED, oracle=lambda archs: np.where(archs[:, 0] == 1, np.nan, MACRO(archs)))
    state = shrink(Problem.of(failing, quick, 0)).state
    assert state.archive.n_requested == 120
    assert state.n_labels < 120
    assert len(state.searched) > 30
