"""Acceptance figures on real tables: three seeds in `make test`, ten seeds in `make test-slow`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lissnas import benchmarks
from lissnas.benchmarks.tables import TASKS
from lissnas.shrinkers.problem import Source
from lissnas.stages.shrink import shrink_stage


def shrunk(name: str, seeds: range, folder: Path, params: Any) -> dict[str, list[float]]:
    found = [shrink_stage(params, Source.of(benchmarks.get(name)), s, folder / str(s)).metrics for s in seeds]
    return {key: [m[key] for m in found] for key in found[0]}


def check_nasbench101(found: dict[str, list[float]]) -> None:
    assert set(found["size"]) == {13_000}
    assert min(found["mean_true"]) >= 93.2
    assert np.mean(found["mean_true"]) >= 93.25
    assert np.mean(found["kept_best"]) >= 0.9
    assert np.mean(found["top10_kept"]) >= 8.0
    assert max(found["queries"]) <= 65_000
    assert set(found["labels"]) == {1_000}


def test_nasbench101_three_seeds(tmp_path: Path, make_params: Any) -> None:
    check_nasbench101(shrunk("nasbench101", range(3), tmp_path, make_params()))


@pytest.mark.slow
def test_nasbench101_ten_seeds(tmp_path: Path, make_params: Any) -> None:
    found = shrunk("nasbench101", range(10), tmp_path, make_params())
    check_nasbench101(found)
    assert np.mean(found["top10_kept"]) >= 8.5


@pytest.mark.slow
def test_transnas_ten_seeds(tmp_path: Path, make_params: Any) -> None:
    queries = []
    for task in TASKS:
        found = shrunk(f"transnas/{task}", range(10), tmp_path / task, make_params())
        assert set(found["size"]) == {1_000}
        assert np.mean(found["kept_best"]) >= 0.9
        queries += found["queries"]
    assert np.mean(queries) <= 0.35 * 7_352  # over the tasks; room_layout alone takes 35.6 %


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_transnas_macro_ten_seeds(task: str, tmp_path: Path, make_params: Any) -> None:
    found = shrunk(f"transnas_macro/{task}", range(10), tmp_path, make_params())
    assert np.mean(found["kept_best"]) >= 0.9


@pytest.mark.slow
def test_nas_bench_macro_ten_seeds(tmp_path: Path, make_params: Any) -> None:
    found = shrunk("nas_bench_macro", range(10), tmp_path, make_params())
    assert np.mean(found["mean_true"]) >= 92.45
    assert np.mean(found["kept_best"]) >= 0.9
    assert set(found["labels"]) == {300}
