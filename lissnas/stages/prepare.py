"""The prepare stage: write a benchmark's table with notation and keys."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

from lissnas import artifacts
from lissnas.artifacts.recorder import NO_RECORDER
from lissnas.artifacts.stage_run import How, Outcome, run, run_here
from lissnas.benchmarks import Benchmark
from lissnas.spaces import Archs, Keys

WRITES = ("benchmark.json", "table.parquet", "metrics.json")
"""Names of the files of a result."""


def data_stage(benchmark: Benchmark, out: Path, **how: Unpack[How]) -> Outcome:
    """Write a benchmark's table: key, notation and true value of each architecture, and a description."""
    parameters = {"benchmark": benchmark.name, "table_sha256": benchmark.sha256}

    call = how.get("call", run_here)

    def work() -> dict[str, bytes]:
        return call(write, benchmark, call(key, benchmark))  # type: ignore[no-any-return]

    return run(out, parameters, work, how.get("force", False), writes=WRITES, record=how.get("record", NO_RECORDER))


def key(benchmark: Benchmark) -> tuple[Archs, Keys]:
    """Return all architectures of the benchmark's space and their keys."""
    rows = benchmark.space.enumerate()
    return rows, benchmark.space.key(rows)


def write(benchmark: Benchmark, keyed: tuple[Archs, Keys]) -> dict[str, bytes]:
    """Return the files of a prepared table."""
    space, (rows, keys) = benchmark.space, keyed
    about = {
        "benchmark": benchmark.name,
        "space": space.name,
        "size": space.size(),
        "metric": benchmark.metric,
        "licence": benchmark.licence,
        "source": space.source,
    }
    columns = {"key": keys, "arch": space.format(rows), "value": benchmark.look_up(keys)}
    metrics = {**about, "mean": float(benchmark.values.mean()), "max": benchmark.best}
    return {
        "benchmark.json": artifacts.to_json(about),
        "table.parquet": artifacts.to_parquet(columns),
        "metrics.json": artifacts.to_json(metrics),
    }
