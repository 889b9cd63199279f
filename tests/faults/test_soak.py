"""Many runs against one server, and many labels of which some fail or hang: short form of `make study NAME=soak`."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("prefect", reason="Prefect is not installed (the extra `pipeline`)")

from tests.robustness.soak import soak_labels, soak_page, soak_runs

pytestmark = pytest.mark.faults


def test_repeated_runs_do_not_leak_resources(tmp_path: Path) -> None:
    grown = soak_runs(tmp_path / "runs", 5, lambda line: None)
    assert grown["processes_growth"] == 0
    assert grown["threads_growth"] <= 2
    assert grown["files_growth"] <= 5
    assert grown["memory_growth"] < 0.15  # after few runs; the limit of the study is 5 %
    assert grown["database_is_locked"] == 0


def test_failing_and_hanging_labels_do_not_affect_others(tmp_path: Path) -> None:
    made = soak_labels(tmp_path / "labels", 40)
    assert made["labels"] + made["failed"] == 40
    assert 0 < made["failed"] < 20
    assert made["processes_growth"] == 0
    assert "40 architectures" in soak_page(GROWN, made)


GROWN = {
    "count": 8,
    "warm": 2,
    "memory_growth": 0.0,
    "server_growth": 0.0,
    "files_growth": 0,
    "threads_growth": 0,
    "processes_growth": 0,
    "database_is_locked": 0,
}
