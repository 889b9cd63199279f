"""The Prometheus text file of a stage's result."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("prometheus_client", reason="the extra `pipeline` is not installed")

from prometheus_client import parser

from flows.metrics import write_metrics
from infra.settings import METRICS_FOLDER
from lissnas import benchmarks
from lissnas.config import Params
from lissnas.shrinkers.problem import Source
from lissnas.stages.shrink import shrink_stage


def test_metrics_file_is_valid_prometheus_text(
    make_params: Callable[..., Params], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = make_params(shrink__target_size=300, shrink__labels=60)
    outcome = shrink_stage(params, Source.of(benchmarks.get("nas_bench_macro")), 3, tmp_path / "shrunk", threads=1)
    write_metrics("shrink", outcome, 3)
    assert not list(tmp_path.glob("*/*.prom"))
    monkeypatch.setenv(METRICS_FOLDER, str(tmp_path / "metrics"))
    for _ in range(2):  # a second result of the same stage, benchmark and seed replaces the first
        write_metrics("shrink", outcome, 3)
    [file] = (tmp_path / "metrics").iterdir()
    assert file.name == "lissnas-shrink-nas_bench_macro-3.prom"
    samples = [s for family in parser.text_string_to_metric_families(file.read_text()) for s in family.samples]
    assert all(
        (s.labels["stage"], s.labels["benchmark"], s.labels["seed"]) == ("shrink", "nas_bench_macro", "3")
        for s in samples
    )
    values = {s.labels["metric"]: s.value for s in samples if s.name == "lissnas_metric"}
    assert values["size"] == 300
    assert values["mean_true"] == outcome.metrics["mean_true"]
    [done] = [s.value for s in samples if s.name == "lissnas_stage_completed_timestamp_seconds"]
    assert abs(done - time.time()) < 60
