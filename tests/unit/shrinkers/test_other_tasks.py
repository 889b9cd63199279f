"""Methods that learn from other tasks of a space: where they are available, what they use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lissnas import benchmarks
from lissnas.core.errors import UserError
from lissnas.shrinkers import lapt, other_tasks
from lissnas.shrinkers.comparison import FullSpaceStatistics, run_method, start_comparison
from lissnas.shrinkers.methods import METHODS, chosen
from lissnas.shrinkers.problem import Source
from lissnas.spaces import ChoiceSpace


def source(name: str) -> Source:
    return Source.of(benchmarks.get(name))


def test_a_method_of_other_tasks_needs_another_task() -> None:
    assert [name for name in METHODS if name not in chosen("all", source("nas_bench_macro"))] == ["lapt"]
    assert chosen("all", source("transnas/jigsaw")) == list(METHODS)
    with pytest.raises(UserError, match="lapt learns from other tasks of the same space, which nas_bench_macro lacks"):
        chosen(["abs", "lapt"], source("nas_bench_macro"))


def test_other_tasks_are_those_of_the_same_space_without_the_own() -> None:
    names = other_tasks.names(source("transnas/jigsaw"))
    assert len(names) == 6
    assert "transnas/jigsaw" not in names
    assert all(name.startswith("transnas/") for name in names)


def test_other_metrics_of_a_task_are_not_another_task() -> None:
    other_metric = replace(source("transnas/jigsaw"), name="transnas/jigsaw@val/max")
    assert "transnas/jigsaw" not in other_tasks.names(other_metric)


@pytest.mark.parametrize("changes", [{"truth": None}, {"space": ChoiceSpace("transnas", [4] * 6)}, {"name": "mine"}])
def test_a_space_of_the_user_has_no_other_tasks(changes: dict[str, Any]) -> None:
    assert other_tasks.names(replace(source("transnas/jigsaw"), **changes)) == []


def test_labels_of_other_tasks_are_theirs_and_depend_on_the_seed() -> None:
    own = source("transnas_macro/jigsaw")
    found, again, others = (other_tasks.labelled(own, 50, seed) for seed in (3, 3, 4))
    for (rows, values), (same, _), (different, _), name in zip(
        found, again, others, other_tasks.names(own), strict=True
    ):
        assert (values == benchmarks.get(name)(rows)).all()
        assert (rows == same).all()
        assert (rows != different).any()


def test_labels_of_other_tasks_are_counted(make_params: Callable[..., Any]) -> None:
    full = FullSpaceStatistics.of(benchmarks.get("transnas_macro/jigsaw"))
    run = start_comparison(full, make_params(shrink__target_size=100), 0, threads=1)
    row, ours = (run_method(run, name).row for name in ("lapt", "lissnas"))
    assert row["labels"] == ours["labels"] + 6 * lapt.LABELS
    assert row["queries"] <= run.budget
    assert row["size"] == 100


def test_rules_prefer_the_choices_of_the_best() -> None:
    space = ChoiceSpace("free", [3] * 4)
    rows = space.enumerate()
    rule = lapt.rules(space, rows, (rows == 2).sum(axis=1).astype(float))
    assert (rule.argmax(axis=1) == 2).all()
    assert (rule[:, 2] > 0).all()
    assert lapt.scores(space, rows, rule).argmax() == int(np.flatnonzero((rows == 2).all(axis=1))[0])
