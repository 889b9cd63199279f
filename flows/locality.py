"""Measure the locality of a benchmark's space on its true values.

python -m flows.locality --benchmark nasbench101
"""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.common import DATA, OutOption, command_of, log_to_mlflow, main, run_step, say, table_artifact
from lissnas.artifacts.stage_run import Outcome
from lissnas.cli import render
from lissnas.cli.options import BenchmarkOption, ForceOption, TableOption, ThreadsOption
from lissnas.config import ParamFiles
from lissnas.shrinkers import description
from lissnas.stages.locality import locality_stage


@flow(name="locality", flow_run_name="locality {benchmark}", persist_result=False)
def locality(
    benchmark: BenchmarkOption,
    out: OutOption = None,
    params: ParamFiles = None,
    table: TableOption = None,
    overrides: dict[str, Any] | None = None,
    threads: ThreadsOption = 0,
    force: ForceOption = False,
) -> tuple[Outcome, str]:
    """Measure the locality of `benchmark` into `out`, log it to MLflow."""
    checked, source = description.load(benchmark, params, overrides, table)
    folder = out or DATA / "locality" / benchmark
    outcome = locality_stage(checked, source, folder, run_step, say, force=force, threads=threads)
    rows = outcome.table("locality.parquet").to_pylist()
    table_artifact(f"locality {benchmark}", rows, f"Correlation at exact edit distance, {benchmark}")
    return outcome, log_to_mlflow("locality", outcome)


if __name__ == "__main__":
    main(command_of(locality, description.load, render.show_locality))
