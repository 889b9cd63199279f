"""Metrics of finished stages for Prometheus: one text file for each result in METRICS_FOLDER, for its node exporter."""

from __future__ import annotations

import os
import re
from pathlib import Path

from infra.settings import METRICS_FOLDER
from lissnas import artifacts
from lissnas.artifacts.stage_run import Outcome

LABELS = ("stage", "benchmark", "seed")


def write_metrics(stage: str, outcome: Outcome, seed: int | None) -> None:
    """Write the result's metrics, duration in seconds and completion time; replace those of its last run."""
    if not os.environ.get(METRICS_FOLDER):
        return
    from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

    benchmark = str(outcome.metrics.get("benchmark") or outcome.metrics.get("space") or "")
    labels = (stage, benchmark, "" if seed is None else str(seed))
    registry = CollectorRegistry()
    value = Gauge("lissnas_metric", "A number of metrics.json", (*LABELS, "metric"), registry=registry)
    for name, number in outcome.metrics.items():
        if isinstance(number, int | float):
            value.labels(*labels, name).set(number)
    seconds = Gauge("lissnas_stage_seconds", "What the stage took", LABELS, registry=registry)
    seconds.labels(*labels).set(outcome.json(artifacts.RUN)["seconds"])
    done = Gauge("lissnas_stage_completed_timestamp_seconds", "When it was logged last", LABELS, registry=registry)
    done.labels(*labels).set_to_current_time()
    folder = Path(os.environ[METRICS_FOLDER])
    folder.mkdir(parents=True, exist_ok=True)
    name = "-".join(re.sub(r"[^A-Za-z0-9]+", "_", part) for part in labels if part)
    write_to_textfile(str(folder / f"lissnas-{name}.prom"), registry)
